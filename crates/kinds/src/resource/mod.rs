//! Kinds of the group resource.k8s.io: devices, and who has which of them.

pub(crate) mod device_class;
pub(crate) mod device_taint_rule;
mod devices;
pub(crate) mod resource_claim;
pub(crate) mod resource_slice;

const GROUP: &str = "resource.k8s.io";
