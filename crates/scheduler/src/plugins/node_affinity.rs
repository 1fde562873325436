//! `nodeSelector` and required or preferred node affinity.

use object_model::node_selector::matches_term;
use serde_json::Value;

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin =
    Plugin { name: "NodeAffinity", filter: Some(filter), score: Some(score), weight: 2, retry_on: &[RetryOn::Node] };

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = &pod.node_affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let wanted = required.as_array().is_none_or(|terms| terms.iter().any(|term| matches(term, node)));
    if selected && wanted { Ok(()) } else { Err(vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]) }
}

fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let preferred = pod.node_affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
    let (mut all, mut met) = (0, 0);
    for preference in preferred.into_iter().flatten() {
        let weight = preference["weight"].as_i64().unwrap_or(0);
        all += weight;
        if matches(&preference["preference"], node) {
            met += weight;
        }
    }
    if all == 0 { 0 } else { met * 100 / all }
}

fn matches(term: &Value, node: &NodeInfo) -> bool {
    matches_term(term, &node.name, |key| node.labels.get(key).map(String::as_str))
}
