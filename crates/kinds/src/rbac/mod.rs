//! Kinds of the group rbac.authorization.k8s.io: what may be done, and who may.

pub(crate) mod binding;
pub(crate) mod role;

/// The group of all of them.
const GROUP: &str = "rbac.authorization.k8s.io";
