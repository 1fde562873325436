//! Kinds of the group core.

pub(crate) mod config_map;
pub(crate) mod event;
pub(crate) mod namespace;
pub(crate) mod node;
pub(crate) mod pod;
mod pod_cells;
pub(crate) mod secret;
pub(crate) mod service_account;
