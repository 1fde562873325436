//! Who somebody is and what they may do, as pure functions: certificates, tokens of service accounts, RBAC, nodes.

pub mod bootstrap;
pub mod node;
mod policy;
mod rule;
mod token;
mod user;

pub use policy::{Attributes, Policy, refusal};
pub use rule::Rule;
pub use token::{Bound, Claims, DEFAULT_SECONDS, ISSUER, SHORTEST_SECONDS, TokenKey};
pub use user::User;
