//! How everyone talks to the API: requests, list+watch caches, work queue, events.
//!
//! A [`Client`] works over any [`ApiService`]: the API server in the same process, or a connection to one far away. No
//! kind is named here; callers say which [`Resource`] they mean.

mod api;
mod cache;
pub mod clock;
mod connection;
mod events;
pub mod metrics;
mod queue;

pub use api::{
    Api, ApiService, Body, BodyError, BoxError, Client, List, ListParams, Patch, Resource, WatchEvent, WatchStream,
    empty, full,
};
pub use cache::{Cache, Cached, Change, Reflector};
pub use connection::{AnyCertificate, drop_hop_by_hop, is_upgrade};
pub use events::{EventType, Recorder};
pub use queue::WorkQueue;
