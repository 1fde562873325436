//! Cordoned nodes take no new pods, unless a pod tolerates the taint that stands for it.

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin =
    Plugin { name: "NodeUnschedulable", filter: Some(filter), score: None, weight: 0, retry_on: &[RetryOn::Node] };

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    if !node.unschedulable || pod.tolerates("node.kubernetes.io/unschedulable", "", "NoSchedule") {
        return Ok(());
    }
    Err(vec!["node(s) were unschedulable".to_owned()])
}
