//! Deployments: a ReplicaSet for each revision of the template, replaced step by step.

use client::Patch;
use jiff::Timestamp;
use object_model::meta::{self, OwnerReference};
use object_model::{LabelSelector, time};
use serde_json::{Map, Value, json};

use crate::rollout::{self, Sizes};
use crate::{Action, Controller, DEPLOYMENTS, Key, Note, Object, Objects, REPLICA_SETS, Read, Writes, controller_key};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    subject: DEPLOYMENTS,
    reads: &[Read { resource: REPLICA_SETS, wakes }],
    writes: &[
        Writes::Children(REPLICA_SETS),
        Writes::Status,
        Writes::Shared { resource: DEPLOYMENTS, because: "the revision stands in an annotation of the Deployment" },
    ],
    plan,
};

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
const HASH_LABEL: &str = "pod-template-hash";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const OWN_ANNOTATIONS: [&str; 6] =
    [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAXIMUM, "deprecated.deployment.rollback.to"];

fn wakes(set: &Value, objects: &dyn Objects) -> Vec<Key> {
    if let Some(key) = controller_key(set, "Deployment") {
        return vec![key];
    }
    if meta::controller_of(set).is_some() {
        return Vec::new();
    }
    let all = objects.list(DEPLOYMENTS, meta::namespace(set));
    let matching = all
        .iter()
        .filter(|d| LabelSelector::from_object(&d.object["spec"]["selector"]).is_ok_and(|s| s.matches_object(set)));
    matching.map(|d| (d.namespace.clone(), d.name.clone())).collect()
}

/// The template of a ReplicaSet as the Deployment wrote it: without the label that tells its pods apart.
fn plain_template(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH_LABEL);
    }
    template
}

pub(crate) fn revision_of(object: &Value) -> i64 {
    meta::annotations(object).get(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
}

pub(crate) fn replicas(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

/// A hash of the template, written in the alphabet of generated names: FNV-1a over its canonical JSON.
pub(crate) fn template_hash(template: &Value, collisions: i64) -> String {
    let text = format!("{template}{}", if collisions > 0 { collisions.to_string() } else { String::new() });
    let mut hash: u32 = 0x811c_9dc5;
    for byte in text.bytes() {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    hash.to_string().bytes().map(|d| ALPHABET[usize::from(d) % ALPHABET.len()] as char).collect()
}

fn plan(deployment: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let namespace = meta::namespace(deployment);
    let selector = LabelSelector::from_object(&deployment["spec"]["selector"])?;
    let mut actions = Vec::new();
    let mut sets: Vec<Object> = Vec::new();
    for set in objects.list(REPLICA_SETS, namespace) {
        let matches = selector.matches_object(&set.object);
        match meta::controller_of(&set.object) {
            Some(owner) if owner.uid == meta::uid(deployment) => sets.push(set),
            None if matches
                && meta::deletion_timestamp(deployment).is_none()
                && meta::deletion_timestamp(&set.object).is_none() =>
            {
                actions.push(adopt(deployment, &set));
            }
            _ => {}
        }
    }
    if !actions.is_empty() {
        return Ok(actions);
    }
    sets.retain(|s| meta::deletion_timestamp(&s.object).is_none());
    // Oldest first, so that of two alike the older one is the current one.
    sets.sort_by_key(|s| {
        (s.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(), s.name.clone())
    });
    let template = &deployment["spec"]["template"];
    let index = sets.iter().position(|s| plain_template(&s.object) == *template);
    let current = index.map(|i| sets.remove(i));
    let old = sets;
    if meta::deletion_timestamp(deployment).is_some() {
        return Ok(status(deployment, current.as_ref(), &old, now));
    }
    let paused = deployment["spec"]["paused"].as_bool().unwrap_or(false);
    let newest_old = old.iter().map(|s| revision_of(&s.object)).max().unwrap_or(0);
    match &current {
        None if !paused => actions.push(create(deployment, &old, newest_old + 1)),
        None => {}
        Some(set) => {
            actions.extend(promote(deployment, set, newest_old + 1));
            if paused || rollout::needs_scaling(deployment, Some(set), &old) {
                actions.extend(rollout::scale(deployment, Some(set), &old));
            } else if deployment["spec"]["strategy"]["type"] == "Recreate" {
                actions.extend(rollout::recreate(deployment, set, &old));
            } else {
                actions.extend(rollout::rolling_update(deployment, set, &old)?);
            }
            if rollout::is_complete(deployment, set, &old) {
                actions.extend(forget_old(deployment, &old));
            }
        }
    }
    actions.extend(status(deployment, current.as_ref(), &old, now));
    Ok(actions)
}

fn adopt(deployment: &Value, set: &Object) -> Action {
    let mut owners: Vec<Value> = meta::owners(&set.object).iter().map(OwnerReference::to_value).collect();
    owners.push(owner_of(deployment));
    Action::Patch {
        resource: REPLICA_SETS,
        namespace: set.namespace.clone(),
        name: set.name.clone(),
        subresource: "",
        kind: Patch::Merge,
        patch: json!({"metadata": {"uid": set.uid, "resourceVersion": set.resource_version, "ownerReferences": owners}}),
    }
}

fn owner_of(deployment: &Value) -> Value {
    OwnerReference {
        api_version: "apps/v1".to_owned(),
        kind: "Deployment".to_owned(),
        name: meta::name(deployment).to_owned(),
        uid: meta::uid(deployment).to_owned(),
        controller: true,
        block_owner_deletion: true,
    }
    .to_value()
}

/// The annotations a ReplicaSet has from its Deployment.
fn inherited(deployment: &Value, revision: i64) -> Map<String, Value> {
    let mut annotations: Map<String, Value> = meta::annotations(deployment)
        .into_iter()
        .filter(|(key, _)| !OWN_ANNOTATIONS.contains(key))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    annotations.insert(REVISION.to_owned(), revision.to_string().into());
    annotations.extend(rollout::size_annotations(deployment));
    annotations
}

fn create(deployment: &Value, old: &[Object], revision: i64) -> Action {
    let mut template = deployment["spec"]["template"].clone();
    let collisions = deployment["status"]["collisionCount"].as_i64().unwrap_or(0);
    let hash = template_hash(&template, collisions);
    if !template["metadata"]["labels"].is_object() {
        template["metadata"]["labels"] = json!({});
    }
    template["metadata"]["labels"][HASH_LABEL] = hash.clone().into();
    let mut selector = deployment["spec"]["selector"].clone();
    if !selector["matchLabels"].is_object() {
        selector["matchLabels"] = json!({});
    }
    selector["matchLabels"][HASH_LABEL] = hash.clone().into();
    let replicas = rollout::first_size(deployment, old);
    let name = format!("{}-{hash}", meta::name(deployment));
    Action::Create {
        resource: REPLICA_SETS,
        namespace: meta::namespace(deployment).to_owned(),
        object: json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {
                "name": name, "namespace": meta::namespace(deployment), "labels": template["metadata"]["labels"],
                "annotations": inherited(deployment, revision), "ownerReferences": [owner_of(deployment)],
            },
            "spec": {
                "replicas": replicas, "minReadySeconds": deployment["spec"]["minReadySeconds"].as_i64().unwrap_or(0),
                "selector": selector, "template": template,
            },
        }),
        event: (replicas > 0).then(|| {
            Note::normal(deployment, "ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {replicas}"))
        }),
    }
}

/// Makes a ReplicaSet the newest revision, and tells the Deployment its number.
fn promote(deployment: &Value, set: &Object, next: i64) -> Vec<Action> {
    let mut actions = Vec::new();
    let old = revision_of(&set.object);
    let revision = old.max(next);
    if old < next {
        let mut annotations = inherited(deployment, revision);
        if old > 0 {
            let history = meta::annotations(&set.object)
                .get(REVISION_HISTORY)
                .map_or_else(|| old.to_string(), |h| format!("{h},{old}"));
            annotations.insert(REVISION_HISTORY.to_owned(), history.into());
        }
        actions.push(annotate(crate::REPLICA_SETS, &set.object, annotations));
    }
    if revision_of(deployment) != revision {
        let annotations = Map::from_iter([(REVISION.to_owned(), revision.to_string().into())]);
        actions.push(annotate(DEPLOYMENTS, deployment, annotations));
    }
    actions
}

fn annotate(resource: client::Resource, object: &Value, annotations: Map<String, Value>) -> Action {
    Action::Patch {
        resource,
        namespace: meta::namespace(object).to_owned(),
        name: meta::name(object).to_owned(),
        subresource: "",
        kind: Patch::Merge,
        patch: json!({"metadata": {"annotations": annotations}}),
    }
}

/// Deletes old revisions beyond `revisionHistoryLimit`, oldest first.
fn forget_old(deployment: &Value, old: &[Object]) -> Vec<Action> {
    let limit = usize::try_from(deployment["spec"]["revisionHistoryLimit"].as_i64().unwrap_or(10)).unwrap_or(10);
    let mut idle: Vec<&Object> = old
        .iter()
        .filter(|s| replicas(&s.object) == 0 && s.object["status"]["replicas"].as_i64().unwrap_or(0) == 0)
        .filter(|s| s.object["status"]["observedGeneration"].as_i64().unwrap_or(0) >= meta::generation(&s.object))
        .collect();
    idle.sort_by_key(|s| revision_of(&s.object));
    let excess = idle.len().saturating_sub(limit);
    let delete = |s: &&Object| Action::Delete {
        resource: REPLICA_SETS,
        namespace: s.namespace.clone(),
        name: s.name.clone(),
        options: json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": s.uid}}),
        event: None,
    };
    idle.iter().take(excess).map(delete).collect()
}

fn condition(kind: &str, status: bool, reason: &str, message: &str, old: &Value, now: Timestamp, touch: bool) -> Value {
    let stamp = time::seconds(now);
    let word = if status { "True" } else { "False" };
    let before = old["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == kind);
    let kept = |field: &str| before.and_then(|b| b[field].as_str()).map(str::to_owned);
    let same_status = before.is_some_and(|b| b["status"] == word);
    let same = same_status && before.is_some_and(|b| b["reason"] == reason && b["message"] == message) && !touch;
    json!({
        "type": kind, "status": word, "reason": reason, "message": message,
        "lastTransitionTime": if same_status { kept("lastTransitionTime").unwrap_or_else(|| stamp.clone()) } else { stamp.clone() },
        "lastUpdateTime": if same { kept("lastUpdateTime").unwrap_or_else(|| stamp.clone()) } else { stamp.clone() },
    })
}

fn status(deployment: &Value, current: Option<&Object>, old: &[Object], now: Timestamp) -> Vec<Action> {
    let sizes = Sizes::of(current, old);
    let before = &deployment["status"];
    let count = |field: &str| before[field].as_i64().unwrap_or(0);
    let mut status = json!({
        "observedGeneration": meta::generation(deployment),
        "replicas": sizes.total, "updatedReplicas": sizes.updated, "readyReplicas": sizes.ready,
        "availableReplicas": sizes.available, "unavailableReplicas": (sizes.specified - sizes.available).max(0),
        "terminatingReplicas": sizes.terminating,
    });
    let mut conditions = Vec::new();
    let wanted = replicas(deployment);
    conditions.push(if sizes.available >= wanted - rollout::max_unavailable(deployment) {
        condition(
            "Available",
            true,
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
            deployment,
            now,
            false,
        )
    } else {
        condition(
            "Available",
            false,
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
            deployment,
            now,
            false,
        )
    });
    let mut again = None;
    if deployment["spec"]["progressDeadlineSeconds"].as_i64().is_some_and(|s| s < i64::from(i32::MAX)) {
        let (progressing, wait) = progressing(deployment, current, &sizes, &count, now);
        conditions.extend(progressing);
        again = wait;
    }
    conditions.extend(replica_failure(current, old).map(|of| {
        let text = |field: &str| of[field].as_str().unwrap_or_default();
        condition("ReplicaFailure", true, text("reason"), text("message"), deployment, now, false)
    }));
    // What others say of the Deployment stays.
    let own = ["Available", "Progressing", "ReplicaFailure"];
    let foreign = |c: &&Value| !c["type"].as_str().is_some_and(|kind| own.contains(&kind));
    conditions.extend(before["conditions"].as_array().into_iter().flatten().filter(foreign).cloned());
    status["conditions"] = conditions.into();
    let mut actions = Vec::new();
    let same = status.as_object().into_iter().flatten().all(|(k, v)| before.get(k).unwrap_or(&json!(0)) == v);
    if !same {
        actions.push(Action::Patch {
            resource: DEPLOYMENTS,
            namespace: meta::namespace(deployment).to_owned(),
            name: meta::name(deployment).to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        });
    }
    actions.extend(again.map(Action::Again));
    actions
}

/// What keeps a ReplicaSet from making its pods: the newest first.
fn replica_failure<'a>(current: Option<&'a Object>, old: &'a [Object]) -> Option<&'a Value> {
    let failures = |set: &'a Object| {
        let conditions = set.object["status"]["conditions"].as_array().into_iter().flatten();
        conditions.filter(|c| c["type"] == "ReplicaFailure" && c["status"] == "True")
    };
    current.into_iter().chain(old).flat_map(failures).next()
}

/// The condition Progressing, and when to look again whether the deadline has passed.
fn progressing(
    deployment: &Value,
    current: Option<&Object>,
    sizes: &Sizes,
    count: &dyn Fn(&str) -> i64,
    now: Timestamp,
) -> (Option<Value>, Option<std::time::Duration>) {
    let before =
        deployment["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Progressing");
    let make = |status, reason: &str, message: String, touch| {
        Some(condition("Progressing", status, reason, &message, deployment, now, touch))
    };
    if deployment["spec"]["paused"].as_bool().unwrap_or(false) {
        // Upstream: a paused rollout neither progresses nor fails; the condition says so once.
        let kept = before.filter(|b| b["reason"] == "NewReplicaSetAvailable").cloned();
        return (
            kept.or_else(|| {
                Some(condition("Progressing", true, "DeploymentPaused", "Deployment is paused", deployment, now, false))
            }),
            None,
        );
    }
    let Some(set) = current else {
        return (before.cloned(), None);
    };
    let wanted = replicas(deployment);
    let complete = sizes.updated == wanted && sizes.total == wanted && sizes.available == wanted;
    if complete {
        let message = format!("ReplicaSet \"{}\" has successfully progressed.", set.name);
        return (make(true, "NewReplicaSetAvailable", message, false), None);
    }
    let progress = sizes.updated > count("updatedReplicas")
        || sizes.ready > count("readyReplicas")
        || sizes.available > count("availableReplicas")
        || (sizes.total - sizes.updated) < (count("replicas") - count("updatedReplicas"))
        || before.is_none_or(|b| b["reason"] == "NewReplicaSetAvailable" || b["reason"] == "DeploymentPaused");
    let message = format!("ReplicaSet \"{}\" is progressing.", set.name);
    if progress {
        return (make(true, "ReplicaSetUpdated", message, true), None);
    }
    let deadline = deployment["spec"]["progressDeadlineSeconds"].as_i64().unwrap_or(600);
    let since = before.and_then(|b| time::parse(b["lastUpdateTime"].as_str()?)).unwrap_or(now);
    let left = since.as_second() + deadline - now.as_second();
    if left <= 0 {
        let message = format!("ReplicaSet \"{}\" has timed out progressing.", set.name);
        return (make(false, "ProgressDeadlineExceeded", message, false), None);
    }
    (before.cloned(), Some(std::time::Duration::from_secs(left.unsigned_abs() + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};
    use expect_test::{Expect, expect};

    fn deployment(replicas: i64, image: &str) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "echo", "namespace": "a", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "selector": {"matchLabels": {"app": "echo"}}, "revisionHistoryLimit": 1,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
                "template": {"metadata": {"labels": {"app": "echo"}}, "spec": {"containers": [{"name": "c", "image": image}]}},
            },
        })
    }

    fn set(name: &str, image: &str, spec: i64, available: i64, revision: i64, desired: i64, max: i64) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "generation": 1, "labels": {"app": "echo", HASH_LABEL: name},
                "annotations": {REVISION: revision.to_string(), DESIRED: desired.to_string(), MAXIMUM: max.to_string()},
                "ownerReferences": [{"uid": "d", "kind": "Deployment", "name": "echo", "controller": true}]},
            "spec": {"replicas": spec, "template": {"metadata": {"labels": {"app": "echo", HASH_LABEL: name}}, "spec": {"containers": [{"name": "c", "image": image}]}}},
            "status": {"replicas": spec, "readyReplicas": available, "availableReplicas": available, "observedGeneration": 1},
        })
    }

    fn check(deployment: &Value, sets: &[Value], expected: &Expect) {
        let objects = sets.iter().fold(Fixed::default(), |all, s| all.with(REPLICA_SETS, s.clone()));
        let actions = plan(deployment, &objects, now()).expect("a plan");
        let shown: Vec<Action> =
            actions.into_iter().filter(|a| !matches!(a, Action::Patch { subresource: "status", .. })).collect();
        expected.assert_eq(&brief(&shown));
    }

    #[test]
    fn a_new_deployment_gets_its_first_revision() {
        check(
            &deployment(3, "a"),
            &[],
            &expect![[r#"
                create replicasets echo-7b85b85774 replicas=3
            "#]],
        );
    }

    #[test]
    fn the_status_tells_of_a_set_that_cannot_make_its_pods_and_keeps_what_others_say() {
        let mut d = deployment(3, "a");
        d["status"]["conditions"] = json!([{"type": "Other", "status": "True"}]);
        let mut failing = set("one", "a", 3, 3, 1, 3, 4);
        failing["status"]["conditions"] =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "quota"}]);
        let told = |set: Value| -> Vec<String> {
            let objects = Fixed::default().with(REPLICA_SETS, set);
            let actions = plan(&d, &objects, now()).expect("a plan");
            let patches = actions.iter().filter_map(|action| match action {
                Action::Patch { subresource: "status", patch, .. } => patch["status"]["conditions"].as_array(),
                _ => None,
            });
            patches.flatten().map(|c| format!("{} {}", c["type"], c["message"])).collect()
        };
        let available = "\"Available\" \"Deployment has minimum availability.\"";
        assert_eq!(told(failing), [available, "\"ReplicaFailure\" \"quota\"", "\"Other\" null"]);
        assert_eq!(told(set("one", "a", 3, 3, 1, 3, 4)), [available, "\"Other\" null"]);
    }

    #[test]
    fn a_change_of_replicas_makes_no_new_revision() {
        let mut d = deployment(4, "a");
        d["metadata"]["annotations"] = json!({REVISION: "1"});
        check(
            &d,
            &[set("one", "a", 3, 3, 1, 3, 4)],
            &expect![[r#"
                patch replicasets one  {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":4}}
                event ScalingReplicaSet Scaled up replica set one from 3 to 4
            "#]],
        );
    }

    #[test]
    fn a_rollout_goes_up_by_the_surge_and_down_only_as_far_as_allowed() {
        let mut d = deployment(4, "b");
        d["metadata"]["annotations"] = json!({REVISION: "2"});
        let sets = [set("one", "a", 4, 4, 1, 4, 5), set("two", "b", 0, 0, 2, 4, 5)];
        check(
            &d,
            &sets,
            &expect![[r#"
                patch replicasets two  {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":1}}
                event ScalingReplicaSet Scaled up replica set two from 0 to 1
            "#]],
        );
        let sets = [set("one", "a", 4, 4, 1, 4, 5), set("two", "b", 1, 0, 2, 4, 5)];
        check(
            &d,
            &sets,
            &expect![[r#"
                patch replicasets one  {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":3}}
                event ScalingReplicaSet Scaled down replica set one from 4 to 3
            "#]],
        );
        let sets = [set("one", "a", 3, 3, 1, 4, 5), set("two", "b", 2, 0, 2, 4, 5)];
        check(&d, &sets, &expect![""]);
    }

    #[test]
    fn undo_makes_the_old_replica_set_the_newest_revision() {
        let mut d = deployment(1, "a");
        d["metadata"]["annotations"] = json!({REVISION: "2"});
        check(
            &d,
            &[set("one", "a", 0, 0, 1, 1, 2), set("two", "b", 1, 1, 2, 1, 2)],
            &expect![[r#"
                patch replicasets one  {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"1","deployment.kubernetes.io/max-replicas":"2","deployment.kubernetes.io/revision":"3","deployment.kubernetes.io/revision-history":"1"}}}
                patch deployments echo  {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3"}}}
                patch replicasets one  {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"1","deployment.kubernetes.io/max-replicas":"2"}},"spec":{"replicas":1}}
                event ScalingReplicaSet Scaled up replica set one from 0 to 1
            "#]],
        );
    }

    #[test]
    fn old_revisions_beyond_the_limit_go() {
        let mut d = deployment(1, "c");
        d["metadata"]["annotations"] = json!({REVISION: "3"});
        let sets = [set("one", "a", 0, 0, 1, 1, 2), set("two", "b", 0, 0, 2, 1, 2), set("three", "c", 1, 1, 3, 1, 2)];
        check(
            &d,
            &sets,
            &expect![[r#"
            delete replicasets one
        "#]],
        );
    }
}
