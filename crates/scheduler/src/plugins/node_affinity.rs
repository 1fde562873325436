//! `nodeSelector` and required or preferred node affinity.

use serde_json::Value;

use super::{Plugin, RetryOn};
use crate::{NodeInfo, PodInfo};

pub(crate) const PLUGIN: Plugin =
    Plugin { name: "NodeAffinity", filter: Some(filter), score: Some(score), weight: 2, retry_on: &[RetryOn::Node] };

fn filter(pod: &PodInfo, node: &NodeInfo) -> Result<(), Vec<String>> {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let required = &pod.node_affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    let wanted = required.as_array().is_none_or(|terms| terms.iter().any(|term| matches_term(term, node)));
    if selected && wanted { Ok(()) } else { Err(vec!["node(s) didn't match Pod's node affinity/selector".to_owned()]) }
}

fn score(pod: &PodInfo, node: &NodeInfo) -> i64 {
    let preferred = pod.node_affinity["preferredDuringSchedulingIgnoredDuringExecution"].as_array();
    let (mut all, mut met) = (0, 0);
    for preference in preferred.into_iter().flatten() {
        let weight = preference["weight"].as_i64().unwrap_or(0);
        all += weight;
        if matches_term(&preference["preference"], node) {
            met += weight;
        }
    }
    if all == 0 { 0 } else { met * 100 / all }
}

/// A term matches when all of its expressions do; one without any matches nothing (upstream's rule).
fn matches_term(term: &Value, node: &NodeInfo) -> bool {
    let labels = term["matchExpressions"].as_array();
    let fields = term["matchFields"].as_array();
    if labels.is_none_or(Vec::is_empty) && fields.is_none_or(Vec::is_empty) {
        return false;
    }
    let label = |key: &str| node.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node.name.as_str());
    labels.into_iter().flatten().all(|e| matches_expression(e, label))
        && fields.into_iter().flatten().all(|e| matches_expression(e, field))
}

fn matches_expression<'a>(expression: &Value, get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let value = get(expression["key"].as_str().unwrap_or_default());
    let values = || expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let numbers = || Some((value?.parse::<i64>().ok()?, values().next()?.parse::<i64>().ok()?));
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => value.is_some_and(|v| values().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| values().all(|x| x != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(a, b)| a > b),
        "Lt" => numbers().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}
