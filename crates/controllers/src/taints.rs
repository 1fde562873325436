//! Taints of nodes and tolerations of pods, as several controllers read them.

use jiff::Timestamp;
use object_model::time;
use serde_json::Value;

/// Whether a toleration is one of this taint (upstream: `ToleratesTaint`).
pub(crate) fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (effect, key) = (text(toleration, "effect"), text(toleration, "key"));
    (effect.is_empty() || effect == text(taint, "effect"))
        && (key.is_empty() || key == text(taint, "key"))
        && match text(toleration, "operator").as_str() {
            "Exists" => true,
            _ => !key.is_empty() && text(toleration, "value") == text(taint, "value"),
        }
}

/// The taints of a node.
pub(crate) fn of_node(node: &Value) -> &[Value] {
    node["spec"]["taints"].as_array().map_or(&[], Vec::as_slice)
}

/// When a pod has to leave a node, if it has to.
pub(crate) fn leaves_at(pod: &Value, node: &Value, now: Timestamp) -> Option<Timestamp> {
    let tolerations = pod["spec"]["tolerations"].as_array().map_or(&[][..], Vec::as_slice);
    let evicting = of_node(node).iter().filter(|taint| taint["effect"] == "NoExecute");
    evicting.filter_map(|taint| end_of_patience(tolerations, taint, now)).min()
}

/// When the patience with one taint ends; `None` if it never does. The shortest of all tolerations counts.
fn end_of_patience(tolerations: &[Value], taint: &Value, now: Timestamp) -> Option<Timestamp> {
    let mut matching = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).peekable();
    if matching.peek().is_none() {
        return Some(now);
    }
    let seconds = matching.filter_map(|toleration| toleration["tolerationSeconds"].as_i64()).min()?;
    let since = taint["timeAdded"].as_str().and_then(time::parse).unwrap_or(now);
    Some(since + jiff::SignedDuration::from_secs(seconds.max(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::now;
    use serde_json::json;

    #[test]
    fn a_pod_leaves_at_once_or_after_its_patience_or_never() {
        let taint = json!({"key": "k", "value": "v", "effect": "NoExecute", "timeAdded": "2025-12-31T23:59:50Z"});
        let node = json!({"spec": {"taints": [{"key": "other", "effect": "NoSchedule"}, taint]}});
        let leaves = |tolerations: Value| {
            let at = leaves_at(&json!({"spec": {"tolerations": tolerations}}), &node, now());
            at.map(|at| at.duration_since(now()).as_secs())
        };
        assert_eq!(leaves(json!([])), Some(0));
        assert_eq!(leaves(json!([{"key": "k", "operator": "Exists", "effect": "NoSchedule"}])), Some(0));
        assert_eq!(leaves(json!([{"key": "k", "operator": "Equal", "value": "x"}])), Some(0));
        assert_eq!(leaves(json!([{"key": "k", "operator": "Exists"}])), None);
        assert_eq!(
            leaves(json!([{"operator": "Exists", "tolerationSeconds": 30}, {"key": "k", "value": "v"}])),
            Some(20)
        );
    }
}
