//! Images: registry pulls, archives in and out, content by digest, unpacking, garbage collection.
