//! The CRI v1 messages, client and server traits, over a unix socket or in process.
//!
//! [`v1`] is generated from `proto/api.proto`. A caller that does not care where the runtime lives takes a [`Clients`],
//! which is the same type for a runtime on a socket ([`connect`]) and for one in the same process ([`in_process`]).

#[allow(missing_docs, clippy::all, clippy::pedantic)]
#[rustfmt::skip]
#[path = "runtime_v1.rs"]
pub mod v1;

mod transport;

pub use transport::{Clients, Transport, TransportError, connect, in_process};
