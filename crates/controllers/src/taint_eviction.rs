//! Pods leave a node whose taints they do not tolerate (`NoExecute`), at once or when their patience ends.

use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::{Action, Controller, Key, NODES, Note, Objects, PODS, Read, Writes, taints};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "taint-eviction-controller",
    subject: PODS,
    reads: &[Read { resource: NODES, wakes: pods_on }],
    writes: &[
        Writes::Status,
        Writes::Shared { resource: PODS, because: "a node's taints concern pods of every owner" },
    ],
    plan,
};

fn pods_on(node: &Value, objects: &dyn Objects) -> Vec<Key> {
    if !taints::of_node(node).iter().any(|taint| taint["effect"] == "NoExecute") {
        return Vec::new();
    }
    let pods = objects.list(PODS, "");
    let own = pods.iter().filter(|pod| pod.object["spec"]["nodeName"] == meta::name(node));
    own.map(|pod| (pod.namespace.clone(), pod.name.clone())).collect()
}

fn plan(pod: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let node = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty());
    let Some(node) = node.filter(|_| meta::deletion_timestamp(pod).is_none()) else { return Ok(Vec::new()) };
    let Some(node) = objects.get(NODES, "", node) else { return Ok(Vec::new()) };
    let Some(at) = taints::leaves_at(pod, &node.object, now) else { return Ok(Vec::new()) };
    if at > now {
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        return Ok(vec![Action::Again(wait)]);
    }
    let (namespace, name) = (meta::namespace(pod).to_owned(), meta::name(pod).to_owned());
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": time::seconds(now),
    });
    let message = format!("Marking for deletion Pod {namespace}/{name}");
    Ok(vec![
        Action::Patch {
            resource: PODS,
            namespace: namespace.clone(),
            name: name.clone(),
            subresource: "status",
            kind: Patch::Strategic,
            patch: json!({"status": {"conditions": [condition]}}),
        },
        Action::Delete {
            resource: PODS,
            namespace,
            name,
            options: json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": meta::uid(pod)}}),
            event: Some(Note::normal(pod, "TaintManagerEviction", message)),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn a_pod_goes_when_its_patience_ends() {
        let node = |taints: Value| {
            Fixed::default().with(NODES, json!({"metadata": {"name": "n"}, "spec": {"taints": taints}}))
        };
        let mut pod = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n"}});
        let taint = json!([{"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}]);
        assert_eq!(plan(&pod, &node(json!([])), now()).expect("a plan"), []);
        let actions = plan(&pod, &node(taint.clone()), now()).expect("a plan");
        assert!(brief(&actions).contains("delete pods p"), "{}", brief(&actions));
        pod["spec"]["tolerations"] = json!([{"operator": "Exists", "tolerationSeconds": 5}]);
        assert_eq!(plan(&pod, &node(taint), now()).expect("a plan"), [Action::Again(Duration::from_secs(5))]);
    }
}
