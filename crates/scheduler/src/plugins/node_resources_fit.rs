//! A node has room for what a pod requests; of several the one with the most left over is best.

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin = Plugin {
    name: "NodeResourcesFit",
    filter: Some(filter),
    score: Some(score),
    weight: 1,
    retry_on: &[RetryOn::Node, RetryOn::PodGone],
};

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    let mut reasons = Vec::new();
    if node.requested.pods + 1 > node.allocatable.pods {
        reasons.push("Too many pods".to_owned());
    }
    let (wanted, used, room) = (&pod.requests, &node.requested, &node.allocatable);
    let mut need = |name: &str, wanted: i64, used: i64, room: i64| {
        if wanted > 0 && used + wanted > room {
            reasons.push(format!("Insufficient {name}"));
        }
    };
    need("cpu", wanted.milli_cpu, used.milli_cpu, room.milli_cpu);
    need("memory", wanted.memory, used.memory, room.memory);
    need("ephemeral-storage", wanted.ephemeral_storage, used.ephemeral_storage, room.ephemeral_storage);
    for (name, amount) in &wanted.other {
        let get = |m: &std::collections::BTreeMap<String, i64>| m.get(name).copied().unwrap_or(0);
        need(name, *amount, get(&used.other), get(&room.other));
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

/// Upstream's LeastAllocated: the mean of the free shares of CPU and memory.
fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let free =
        |wanted: i64, used: i64, room: i64| if room <= 0 { 0 } else { ((room - used - wanted).max(0) * 100) / room };
    let cpu = free(pod.requests.milli_cpu, node.requested.milli_cpu, node.allocatable.milli_cpu);
    let memory = free(pod.requests.memory, node.requested.memory, node.allocatable.memory);
    (cpu + memory) / 2
}
