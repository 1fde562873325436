//! Who somebody is and what they may do, as pure functions: certificates, tokens of service accounts, RBAC.

pub mod bootstrap;
mod policy;
mod rule;
mod token;
mod user;

pub use policy::{Attributes, Policy};
pub use rule::Rule;
pub use token::{Bound, Claims, DEFAULT_SECONDS, ISSUER, SHORTEST_SECONDS, TokenKey};
pub use user::User;
