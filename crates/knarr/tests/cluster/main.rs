//! The whole cluster.
