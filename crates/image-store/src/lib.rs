//! Images: registry pulls, archives in and out, content by digest, unpacking, garbage collection.
//!
//! One [`ImageStore`] serves everything on a node. Under its root directory:
//!
//! - `blobs/sha256/<hex>`: manifests, configurations and layers, compressed as they came;
//! - `layers/<hex of the chain id>`: unpacked layers, each usable as an overlayfs lower directory;
//! - `index.json`: image ids with their manifest and references, replaced atomically;
//! - `tmp/`: everything half made. It is swept when the store is opened, so a crash leaves nothing behind.
//!
//! Methods that are not `async` do blocking file work; call them from a blocking thread.

mod archive;
mod decompress;
mod error;
mod export;
mod image;
mod index;
mod pull;
mod reference;
mod store;
mod unpack;

pub use error::{PullError, RemoveError};
pub use image::{Image, Layer};
pub use oci_spec::image::ImageConfiguration;
pub use pull::Auth;
pub use reference::Name;
pub use store::{ImageStore, Removed};
