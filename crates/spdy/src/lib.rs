//! SPDY/3.1 as a server: many streams over one connection, for exec, attach and port-forward.
//!
//! [`accept`] takes a connection that was upgraded and answers its two halves: [`Connection::run`] moves frames for as long
//! as it is polled, and [`Streams`] hands out what the client opens. Nothing here knows what the streams are for.
//!
//! The clients that still speak SPDY keep no windows, though the protocol has them: what a client may be sent is limited
//! only once it has shown that it counts.

mod connection;
pub mod frame;
mod headers;

pub use connection::{Closed, Connection, Reader, Stream, Streams, Writer, accept};
pub use frame::{Frame, Malformed};
pub use headers::Headers;
