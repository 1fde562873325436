//! The table of plugins.

mod node_affinity;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod taint_toleration;
mod volume_binding;

use crate::{NodeInfo, PodInfo};

/// What may make a refused pod fit: it is tried again only after one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// A node was added or changed.
    Node,
    /// A pod left its node.
    PodGone,
    /// A claim, a volume or a class was added or changed.
    Volume,
}

/// One plugin: a record of optional functions.
pub struct Plugin {
    /// Upstream's name for what it does.
    pub name: &'static str,
    /// Refuses a node for a pod, with reasons.
    pub filter: Option<fn(&PodInfo, &NodeInfo) -> Result<(), Vec<String>>>,
    /// How well a node suits a pod, from 0 to 100.
    pub score: Option<fn(&PodInfo, &NodeInfo) -> i64>,
    /// How much the score counts.
    pub weight: i64,
    /// When a pod that it refused may fit.
    pub retry_on: &'static [RetryOn],
}

/// The plugins, in the order in which they are asked.
pub static PLUGINS: &[&Plugin] = &[
    &node_unschedulable::PLUGIN,
    &taint_toleration::PLUGIN,
    &node_affinity::PLUGIN,
    &node_ports::PLUGIN,
    &node_resources_fit::PLUGIN,
    &volume_binding::PLUGIN,
];
