//! A host port belongs to one pod of a node.

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin = Plugin {
    name: "NodePorts",
    filter: Some(filter),
    score: None,
    weight: 0,
    retry_on: &[RetryOn::Node, RetryOn::PodGone],
};

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    let taken = |wanted: &crate::snapshot::HostPort| node.ports().any(|used| used.conflicts(wanted));
    if pod.ports.iter().any(taken) {
        return Err(vec!["node(s) didn't have free ports for the requested pod ports".to_owned()]);
    }
    Ok(())
}
