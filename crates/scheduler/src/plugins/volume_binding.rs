//! A pod goes where its volumes are or can be.

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin = Plugin {
    name: "VolumeBinding",
    filter: Some(filter),
    score: None,
    weight: 0,
    retry_on: &[RetryOn::Node, RetryOn::Volume],
};

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let mut reasons = Vec::new();
    if !pod.volumes.bound.iter().all(|volume| kinds::volumes::fits_node(volume, &node.name, label)) {
        reasons.push("node(s) didn't match PersistentVolume's node affinity".to_owned());
    }
    if !pod.volumes.waiting.iter().all(|claim| claim.provisioned || claim.choose(&node.name, label).is_some()) {
        reasons.push("node(s) didn't find available persistent volumes to bind".to_owned());
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}
