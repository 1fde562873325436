//! ReplicaSets keep the number of their pods.

use std::time::Duration;

use client::{Patch, Resource};
use jiff::Timestamp;
use object_model::{LabelSelector, meta, time};
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
    let owner = Owner { object: set, api_version: "apps/v1", kind: "ReplicaSet", finalizer: "" };
    keep(&owner, REPLICA_SETS, &LabelSelector::from_object(&set["spec"]["selector"])?, objects, now)
}

/// What is to be done so that an owner has as many pods as its spec says, and its status tells of them.
pub(crate) fn keep(
    owner: &Owner<'_>,
    resource: Resource,
    selector: &LabelSelector,
    objects: &dyn Objects,
    now: Timestamp,
) -> anyhow::Result<Vec<Action>> {
    let set = owner.object;
    let (namespace, name) = (meta::namespace(set), meta::name(set));
    let (own, mut actions) = owner.claim(objects, selector);
    let deleting = meta::deletion_timestamp(set).is_some();
    let active: Vec<&Object> = own.iter().filter(|p| is_active(&p.object)).collect();
    let wanted = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
    if !deleting && actions.is_empty() {
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            actions.extend((0..missing).map(|_| create(owner)));
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
    let mut status = json!({
        "replicas": active.len(),
        "fullyLabeledReplicas": active.iter().filter(|p| template_labels.matches_object(&p.object)).count(),
        "readyReplicas": ready,
        "availableReplicas": available,
        "observedGeneration": meta::generation(set),
    });
    if resource == REPLICA_SETS {
        let terminating = own.iter().filter(|p| meta::deletion_timestamp(&p.object).is_some()).count();
        status["terminatingReplicas"] = terminating.into();
    }
    let refused = objects.refused().filter(|_| active.len() < wanted);
    let conditions = conditions(&set["status"]["conditions"], refused, now);
    let same = status.as_object().into_iter().flatten().all(|(k, v)| {
        // The server leaves out zeros.
        set["status"].get(k).unwrap_or(&json!(0)) == v
    });
    if let Some(conditions) = &conditions {
        status["conditions"] = conditions.clone();
    }
    if !same || conditions.is_some() {
        let told = Action::Patch {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        };
        // Nothing follows what is refused again.
        let at = if refused.is_some() { 0 } else { actions.len() };
        actions.insert(at, told);
    }
    actions.extend(next_available.map(|s| Action::Again(Duration::from_secs(s.unsigned_abs()))));
    Ok(actions)
}

/// The conditions with one that says why pods are missing, or without it; `None` where they are so already.
fn conditions(now_there: &Value, refused: Option<&str>, now: Timestamp) -> Option<Value> {
    const FAILURE: &str = "ReplicaFailure";
    let mut all = now_there.as_array().cloned().unwrap_or_default();
    let known = all.iter().position(|condition| condition["type"] == FAILURE);
    match (known, refused) {
        (None, Some(why)) => all.push(json!({
            "type": FAILURE, "status": "True", "reason": "FailedCreate", "message": why,
            "lastTransitionTime": time::seconds(now),
        })),
        (Some(at), None) => drop(all.remove(at)),
        _ => return None,
    }
    Some(all.into())
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

    /// Objects of a subject for which something could not be created.
    struct Refused(Fixed);

    impl Objects for Refused {
        fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Object> {
            self.0.get(resource, namespace, name)
        }

        fn list(&self, resource: Resource, namespace: &str) -> Vec<Object> {
            self.0.list(resource, namespace)
        }

        fn refused(&self) -> Option<&str> {
            Some("exceeded quota")
        }
    }

    #[test]
    fn the_status_says_why_pods_are_missing_until_they_are_there() {
        let refused = Refused(Fixed::default());
        expect![[r#"
            patch replicasets echo status {"status":{"availableReplicas":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"exceeded quota","reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"fullyLabeledReplicas":0,"observedGeneration":1,"readyReplicas":0,"replicas":0,"terminatingReplicas":0}}
            create pods echo- replicas=null
        "#]]
        .assert_eq(&brief(&plan(&set(1), &refused, now()).expect("a plan")));
        let mut told = set(1);
        told["status"]["conditions"] = json!([{"type": "ReplicaFailure", "status": "True"}, {"type": "Other"}]);
        expect![[r#"
            create pods echo- replicas=null
        "#]]
        .assert_eq(&brief(&plan(&told, &refused, now()).expect("a plan")));
        let mut enough = told.clone();
        enough["spec"]["replicas"] = 0.into();
        expect![[r#"
            patch replicasets echo status {"status":{"availableReplicas":0,"conditions":[{"type":"Other"}],"fullyLabeledReplicas":0,"observedGeneration":1,"readyReplicas":0,"replicas":0,"terminatingReplicas":0}}
        "#]]
        .assert_eq(&brief(&plan(&enough, &refused, now()).expect("a plan")));
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
