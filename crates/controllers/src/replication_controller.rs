//! ReplicationControllers keep the number of their pods, as ReplicaSets do.

use jiff::Timestamp;
use object_model::{LabelSelector, meta};
use serde_json::{Value, json};

use crate::pods::Owner;
use crate::replica_set::keep;
use crate::{Action, Controller, Key, Objects, PODS, REPLICATION_CONTROLLERS, Read, Writes, controller_key};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replication-controller",
    subject: REPLICATION_CONTROLLERS,
    reads: &[Read { resource: PODS, wakes }],
    writes: &[Writes::Children(PODS), Writes::Status],
    plan,
};

const KIND: &str = "ReplicationController";

/// The selector, which is a map of labels here.
fn selector(subject: &Value) -> anyhow::Result<LabelSelector> {
    Ok(LabelSelector::from_object(&json!({"matchLabels": subject["spec"]["selector"]}))?)
}

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    if let Some(key) = controller_key(pod, KIND) {
        return vec![key];
    }
    if meta::controller_of(pod).is_some() {
        return Vec::new();
    }
    let all = objects.list(REPLICATION_CONTROLLERS, meta::namespace(pod));
    let selects = |subject: &Value| selector(subject).is_ok_and(|s| !s.is_everything() && s.matches_object(pod));
    all.iter().filter(|subject| selects(&subject.object)).map(|s| (s.namespace.clone(), s.name.clone())).collect()
}

fn plan(subject: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let owner = Owner { object: subject, api_version: "v1", kind: KIND, finalizer: "" };
    keep(&owner, REPLICATION_CONTROLLERS, &selector(subject)?, objects, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};
    use expect_test::expect;

    fn controller(replicas: i64) -> Value {
        json!({
            "apiVersion": "v1", "kind": KIND, "metadata": {"name": "echo", "namespace": "a", "uid": "rc", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"app": "echo"},
                     "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [{"name": "c"}]}}},
            "status": {"replicas": 0},
        })
    }

    fn pod(name: &str, labels: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "5", "labels": labels}})
    }

    #[test]
    fn missing_pods_are_made_and_matching_ones_are_adopted() {
        expect![[r#"
            create pods echo- replicas=null
            patch replicationcontrollers echo status {"status":{"availableReplicas":0,"fullyLabeledReplicas":0,"observedGeneration":1,"readyReplicas":0,"replicas":0}}
        "#]]
        .assert_eq(&brief(&plan(&controller(1), &Fixed::default(), now()).expect("a plan")));
        let objects = Fixed::default().with(PODS, pod("x", json!({"app": "echo"})));
        expect![[r#"
            patch pods x  {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicationController","name":"echo","uid":"rc"}],"resourceVersion":"5","uid":"x"}}
            patch replicationcontrollers echo status {"status":{"availableReplicas":0,"fullyLabeledReplicas":0,"observedGeneration":1,"readyReplicas":0,"replicas":0}}
        "#]]
        .assert_eq(&brief(&plan(&controller(1), &objects, now()).expect("a plan")));
    }

    #[test]
    fn a_pod_wakes_those_whose_labels_it_has() {
        let objects = Fixed::default().with(REPLICATION_CONTROLLERS, controller(1));
        let woken = |labels: Value| wakes(&pod("x", labels), &objects).len();
        assert_eq!((woken(json!({"app": "echo"})), woken(json!({"app": "other"}))), (1, 0));
    }
}
