//! Taints that say what is the matter with a node: it is cordoned, not ready, or under pressure.

use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::{Action, Controller, NODES, Objects, Writes, taints};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "node-controller",
    subject: NODES,
    reads: &[],
    writes: &[Writes::Shared {
        resource: NODES,
        because: "some taints follow from the conditions, others are people's",
    }],
    plan,
};

/// Taints that belong to this controller: condition, the status it is about, key. All keep new pods off.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", "node.kubernetes.io/not-ready"),
    ("Ready", "Unknown", "node.kubernetes.io/unreachable"),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// The keys and effects that this node should have.
fn wanted(node: &Value) -> Vec<(&'static str, &'static str)> {
    let conditions = node["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let mut wanted = Vec::new();
    for (kind, status, key) in BY_CONDITION {
        if conditions.iter().any(|c| c["type"] == kind && c["status"] == status) {
            wanted.push((key, "NoSchedule"));
            if kind == "Ready" {
                wanted.push((key, "NoExecute"));
            }
        }
    }
    if node["spec"]["unschedulable"] == true {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

fn plan(node: &Value, _objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(node).is_some() {
        return Ok(Vec::new());
    }
    let (wanted, stamp) = (wanted(node), time::seconds(now));
    let own = |taint: &Value| {
        let key = taint["key"].as_str().unwrap_or_default();
        key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, _, k)| *k == key)
    };
    let is = |taint: &Value, (key, effect): &(&str, &str)| taint["key"] == *key && taint["effect"] == *effect;
    let mut next: Vec<Value> = Vec::new();
    for taint in taints::of_node(node).iter().filter(|t| !own(t) || wanted.iter().any(|w| is(t, w))) {
        let mut taint = taint.clone();
        // From here on the patience of pods is counted.
        if taint["effect"] == "NoExecute" && taint["timeAdded"].is_null() {
            taint["timeAdded"] = stamp.as_str().into();
        }
        next.push(taint);
    }
    for (key, effect) in &wanted {
        if !next.iter().any(|taint| is(taint, &(key, effect))) {
            next.push(json!({"key": key, "effect": effect, "timeAdded": stamp}));
        }
    }
    if next == taints::of_node(node) {
        return Ok(Vec::new());
    }
    let mut object = node.clone();
    object["spec"]["taints"] = next.into();
    Ok(vec![Action::Update {
        resource: NODES,
        namespace: String::new(),
        name: meta::name(node).to_owned(),
        subresource: "",
        object,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, now};

    fn taints_after(node: &Value) -> Option<Value> {
        match &plan(node, &Fixed::default(), now()).expect("a plan")[..] {
            [] => None,
            [Action::Update { object, .. }] => Some(object["spec"]["taints"].clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_taints_of_a_node_follow_its_state_and_those_of_people_stay() {
        let stamp = "2026-01-01T00:00:00Z";
        let own = json!({"key": "a", "value": "b", "effect": "NoSchedule"});
        let mut node = json!({"metadata": {"name": "n"}, "spec": {"taints": [own], "unschedulable": true}});
        let cordoned = json!([own, {"key": UNSCHEDULABLE, "effect": "NoSchedule", "timeAdded": stamp}]);
        assert_eq!(taints_after(&node), Some(cordoned.clone()));
        node["spec"]["taints"] = cordoned;
        assert_eq!(taints_after(&node), None);
        node["spec"]["unschedulable"] = Value::Null;
        assert_eq!(taints_after(&node), Some(json!([own])));
        node["spec"]["taints"] = json!([{"key": "x", "effect": "NoExecute"}]);
        node["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
        let key = "node.kubernetes.io/not-ready";
        assert_eq!(
            taints_after(&node),
            Some(json!([
                {"key": "x", "effect": "NoExecute", "timeAdded": stamp},
                {"key": key, "effect": "NoSchedule", "timeAdded": stamp},
                {"key": key, "effect": "NoExecute", "timeAdded": stamp},
            ]))
        );
    }
}
