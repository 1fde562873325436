//! ReplicaSets keep the number of their pods.

use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use object_model::meta::{self, OwnerReference};
use object_model::{LabelSelector, time};
use serde_json::{Value, json};

use crate::{Action, Controller, Key, Note, Object, Objects, PODS, REPLICA_SETS, Read, Writes, controller_key};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "replicaset-controller",
    subject: REPLICA_SETS,
    reads: &[Read { resource: PODS, wakes }],
    writes: &[Writes::Children(PODS), Writes::Status],
    plan,
};

/// The most pods made or deleted in one go (upstream's burst).
const BURST: usize = 500;

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    if let Some(key) = controller_key(pod, "ReplicaSet") {
        return vec![key];
    }
    if meta::controller_of(pod).is_some() {
        return Vec::new();
    }
    // A pod of no one may be adopted.
    let sets = objects.list(REPLICA_SETS, meta::namespace(pod));
    let matching = sets.iter().filter(|s| selector(&s.object).is_some_and(|l| l.matches_object(pod)));
    matching.map(|s| (s.namespace.clone(), s.name.clone())).collect()
}

fn selector(set: &Value) -> Option<LabelSelector> {
    LabelSelector::from_object(&set["spec"]["selector"]).ok()
}

/// Whether a pod still counts: it is not being deleted and may still run.
pub(crate) fn is_active(pod: &Value) -> bool {
    meta::deletion_timestamp(pod).is_none() && !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// When a pod became ready, if it is.
fn ready_since(pod: &Value) -> Option<Timestamp> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    time::parse(ready["lastTransitionTime"].as_str()?)
}

fn plan(set: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let (namespace, name, uid) = (meta::namespace(set), meta::name(set), meta::uid(set));
    let selector = LabelSelector::from_object(&set["spec"]["selector"])?;
    let mut actions = Vec::new();
    let mut own: Vec<Object> = Vec::new();
    let deleting = meta::deletion_timestamp(set).is_some();
    for pod in objects.list(PODS, namespace) {
        let matches = selector.matches_object(&pod.object);
        match meta::controller_of(&pod.object) {
            Some(owner) if owner.uid == uid && matches => own.push(pod),
            Some(owner) if owner.uid == uid && !deleting => actions.push(change_owners(&pod, uid, None)),
            None if matches && !deleting && is_active(&pod.object) => {
                actions.push(change_owners(&pod, uid, Some(owner_of(set))));
            }
            _ => {}
        }
    }
    let active: Vec<&Object> = own.iter().filter(|p| is_active(&p.object)).collect();
    let wanted = usize::try_from(set["spec"]["replicas"].as_i64().unwrap_or(1)).unwrap_or(0);
    if !deleting && actions.is_empty() {
        if active.len() < wanted {
            let missing = (wanted - active.len()).min(BURST);
            actions.extend((0..missing).map(|_| create(set)));
        } else if active.len() > wanted {
            let mut ranked = active.clone();
            ranked.sort_by_cached_key(|p| rank(&p.object));
            actions.extend(ranked.iter().take((active.len() - wanted).min(BURST)).map(|p| Action::Delete {
                resource: PODS,
                namespace: namespace.to_owned(),
                name: p.name.clone(),
                options: json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": p.uid}}),
                event: Some(Note::normal(set, "SuccessfulDelete", "Deleted pod: ")),
            }));
        }
    }
    let template_labels =
        LabelSelector::from_object(&json!({"matchLabels": set["spec"]["template"]["metadata"]["labels"]}))?;
    let min_ready = set["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
    let (mut ready, mut available, mut next_available) = (0, 0, None::<i64>);
    for since in active.iter().filter_map(|p| ready_since(&p.object)) {
        ready += 1;
        let left = since.as_second() + min_ready - now.as_second();
        if min_ready == 0 || left <= 0 {
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

fn owner_of(set: &Value) -> Value {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "ReplicaSet".to_owned(),
        name: meta::name(set).to_owned(),
        uid: meta::uid(set).to_owned(),
        controller: true,
        block_owner_deletion: true,
    }
    .to_value()
}

/// Adopts a pod, or lets go of one.
fn change_owners(pod: &Object, uid: &str, new: Option<Value>) -> Action {
    let mut owners: Vec<Value> =
        meta::owners(&pod.object).iter().filter(|o| o.uid != uid).map(OwnerReference::to_value).collect();
    owners.extend(new);
    Action::Patch {
        resource: PODS,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        subresource: "",
        kind: Patch::Merge,
        patch: json!({"metadata": {"uid": pod.uid, "resourceVersion": pod.resource_version, "ownerReferences": owners}}),
    }
}

fn create(set: &Value) -> Action {
    let template = &set["spec"]["template"];
    let mut metadata = json!({
        "generateName": format!("{}-", meta::name(set)),
        "namespace": meta::namespace(set),
        "ownerReferences": [owner_of(set)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if !template["metadata"][field].is_null() {
            metadata[field] = template["metadata"][field].clone();
        }
    }
    Action::Create {
        resource: PODS,
        namespace: meta::namespace(set).to_owned(),
        object: json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}),
        event: Some(Note::normal(set, "SuccessfulCreate", "Created pod: ")),
    }
}

/// Which pod goes first when there are too many: the one whose loss costs least (upstream's order).
fn rank(pod: &Value) -> (bool, u8, bool, i64, i64, std::cmp::Reverse<String>) {
    let phase = match pod["status"]["phase"].as_str() {
        Some("Pending") | None => 0,
        Some("Unknown") => 1,
        _ => 2,
    };
    let cost = meta::annotations(pod)
        .get("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|c| c.parse().ok())
        .unwrap_or(0);
    let ready = ready_since(pod);
    let restarts: i64 = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["restartCount"].as_i64())
        .max()
        .unwrap_or(0);
    let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let assigned = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    (assigned, phase, ready.is_some(), cost, -restarts, std::cmp::Reverse(created))
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
