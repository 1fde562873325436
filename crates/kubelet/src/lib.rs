//! Makes one node match its pods, and reports back; speaks CRI to whatever runtime it is given.
