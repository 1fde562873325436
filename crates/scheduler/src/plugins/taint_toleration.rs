//! Taints keep pods off that do not tolerate them.

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin =
    Plugin { name: "TaintToleration", filter: Some(filter), score: Some(score), weight: 3, retry_on: &[RetryOn::Node] };

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    let hard = node.taints.iter().filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute");
    match hard.into_iter().find(|t| !pod.tolerates(&t.key, &t.value, &t.effect)) {
        None => Ok(()),
        Some(taint) => Err(vec![format!("node(s) had untolerated taint(s) {{{}: {}}}", taint.key, taint.value)]),
    }
}

fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let soft = node.taints.iter().filter(|t| t.effect == "PreferNoSchedule");
    let against = soft.filter(|t| !pod.tolerates(&t.key, &t.value, &t.effect)).count();
    100 - i64::try_from(against).unwrap_or(100).min(10) * 10
}
