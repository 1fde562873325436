//! ReplicaSets keep the number of their pods.

use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use object_model::{LabelSelector, meta};
use serde_json::{Value, json};

use crate::pods::{self, BURST, Owner, is_active, rank, until_available};
use crate::{Action, Controller, Key, Object, Objects, PODS, REPLICA_SETS, Read, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replicaset-controller",
    subject: REPLICA_SETS,
    reads: &[Read { resource: PODS, wakes }],
    writes: &[Writes::Children(PODS), Writes::Status],
    plan,
};

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    pods::wakes(pod, objects, REPLICA_SETS, "ReplicaSet")
}

fn plan(set: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let (namespace, name) = (meta::namespace(set), meta::name(set));
    let selector = LabelSelector::from_object(&set["spec"]["selector"])?;
    let owner = Owner { object: set, api_version: "apps/v1", kind: "ReplicaSet", finalizer: "" };
    let (own, mut actions) = owner.claim(objects, &selector);
    let deleting = meta::deletion_timestamp(set).is_some();
    let active: Vec<&Object> = own.iter().filter(|p| is_active(&p.object)).collect();
    let wanted = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
    if !deleting && actions.is_empty() {
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            actions.extend((0..missing).map(|_| create(&owner)));
        } else if active.len() > wanted {
            let mut ranked = active.clone();
            ranked.sort_by_cached_key(|p| rank(&p.object));
            actions.extend(ranked.iter().take((active.len() - wanted).min(BURST)).map(|p| owner.delete(p)));
        }
    }
    let template_labels =
        LabelSelector::from_object(&json!({"matchLabels": set["spec"]["template"]["metadata"]["labels"]}))?;
    let min_ready = set["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
    let (mut ready, mut available, mut next_available) = (0, 0, None::<i64>);
    for left in active.iter().filter_map(|p| until_available(&p.object, min_ready, now)) {
        ready += 1;
        if left == 0 {
            available += 1;
        } else {
            next_available = Some(next_available.map_or(left, |n| n.min(left)));
        }
    }
    let status = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": active.iter().filter(|p| template_labels.matches_object(&p.object)).count(),
        "readyReplicas": ready,
        "availableReplicas": available,
        "terminatingReplicas": own.iter().filter(|p| meta::deletion_timestamp(&p.object).is_some()).count(),
        "observedGeneration": meta::generation(set),
    });
    let same = status.as_object().into_iter().flatten().all(|(k, v)| {
        // The server leaves out zeros.
        set["status"].get(k).unwrap_or(&json!(0)) == v
    });
    if !same {
        actions.push(Action::Patch {
            resource: REPLICA_SETS,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        });
    }
    actions.extend(next_available.map(|s| Action::Again(Duration::from_secs(s.unsigned_abs()))));
    Ok(actions)
}

fn create(owner: &Owner<'_>) -> Action {
    let mut pod = owner.pod(&owner.object["spec"]["template"]);
    pod["metadata"]["generateName"] = format!("{}-", meta::name(owner.object)).into();
    owner.create(pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};
    use expect_test::{Expect, expect};

    fn set(replicas: i64) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": "echo", "namespace": "a", "uid": "rs", "generation": 1},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "echo"}},
                     "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [{"name": "c"}]}}},
            "status": {"replicas": 0, "observedGeneration": 1},
        })
    }

    fn pod(name: &str, owner: &str, ready: bool, labels: Value) -> Value {
        let owners = if owner.is_empty() {
            json!([])
        } else {
            json!([{"uid": owner, "kind": "ReplicaSet", "name": "echo", "controller": true}])
        };
        let conditions = if ready {
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T23:59:58Z"}])
        } else {
            json!([])
        };
        json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "resourceVersion": "5", "labels": labels, "ownerReferences": owners},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running", "conditions": conditions},
        })
    }

    fn check(set: &Value, pods: &[Value], expected: &Expect) {
        let objects = pods.iter().fold(Fixed::default(), |all, p| all.with(PODS, p.clone()));
        expected.assert_eq(&brief(&plan(set, &objects, now()).expect("a plan")));
    }

    #[test]
    fn missing_pods_are_made() {
        check(
            &set(2),
            &[],
            &expect![[r#"
            create pods echo- replicas=null
            create pods echo- replicas=null
        "#]],
        );
    }

    #[test]
    fn of_too_many_pods_the_one_that_is_not_ready_goes() {
        let labels = json!({"app": "echo"});
        check(
            &set(1),
            &[pod("a", "rs", true, labels.clone()), pod("b", "rs", false, labels)],
            &expect![[r#"
            delete pods b
            patch replicasets echo status {"status":{"availableReplicas":1,"fullyLabeledReplicas":2,"observedGeneration":1,"readyReplicas":1,"replicas":2,"terminatingReplicas":0}}
        "#]],
        );
    }

    #[test]
    fn a_matching_orphan_is_adopted_and_a_pod_that_no_longer_matches_is_let_go() {
        check(
            &set(1),
            &[pod("a", "", true, json!({"app": "echo"})), pod("b", "rs", true, json!({"app": "other"}))],
            &expect![[r#"
            patch pods a  {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"echo","uid":"rs"}],"resourceVersion":"5","uid":"a"}}
            patch pods b  {"metadata":{"ownerReferences":[],"resourceVersion":"5","uid":"b"}}
        "#]],
        );
    }

    #[test]
    fn a_pod_counts_as_available_after_min_ready_seconds() {
        let mut set = set(1);
        set["spec"]["minReadySeconds"] = 10.into();
        check(
            &set,
            &[pod("a", "rs", true, json!({"app": "echo"}))],
            &expect![[r#"
            patch replicasets echo status {"status":{"availableReplicas":0,"fullyLabeledReplicas":1,"observedGeneration":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}}
            again in 8s
        "#]],
        );
    }
}
