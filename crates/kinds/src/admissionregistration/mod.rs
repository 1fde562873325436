//! Kinds of the group admissionregistration.k8s.io: who else has a say in what is written.

mod expressions;
mod matching;
pub(crate) mod policy;
pub(crate) mod policy_binding;
pub(crate) mod webhook;

const GROUP: &str = "admissionregistration.k8s.io";

/// What all kinds of this group have in common.
const BASE: crate::Resource = crate::Resource {
    group: GROUP,
    categories: &["api-extensions"],
    has_generation: true,
    unconditional_update: false,
    ..crate::CLUSTER
};
