//! Who may do what, as pure functions: the user of a certificate, and the verdict on a request.

mod policy;
mod user;

pub use policy::{Attributes, Grant, Rule, Subject, authorize};
pub use user::User;
