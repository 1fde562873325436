//! PodDisruptionBudgets know how many of their pods may be taken away now.

use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use object_model::{LabelSelector, meta, time};
use serde_json::{Value, json};

use crate::pods::{is_active, is_over, ready_since};
use crate::rollout::share;
use crate::{
    Action, BUDGETS, Controller, DEPLOYMENTS, Key, Note, Object, Objects, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS,
    Read, STATEFUL_SETS, Writes,
};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "disruption-controller",
    subject: BUDGETS,
    reads: &[
        Read { resource: PODS, wakes },
        Read { resource: REPLICA_SETS, wakes: wakes_of_owner },
        Read { resource: REPLICATION_CONTROLLERS, wakes: wakes_of_owner },
        Read { resource: DEPLOYMENTS, wakes: wakes_of_owner },
        Read { resource: STATEFUL_SETS, wakes: wakes_of_owner },
    ],
    writes: &[Writes::Status],
    plan,
};

/// How long a pod that was evicted counts as going, until it is seen to go (upstream's value).
const PENDING: i64 = 120;

fn selector(budget: &Value) -> Option<LabelSelector> {
    LabelSelector::from_object(&budget["spec"]["selector"]).ok().filter(|_| budget["spec"]["selector"].is_object())
}

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    let all = objects.list(BUDGETS, meta::namespace(pod));
    let matching = all.iter().filter(|b| selector(&b.object).is_some_and(|s| s.matches_object(pod)));
    matching.map(|b| (b.namespace.clone(), b.name.clone())).collect()
}

/// The size of an owner of pods is what percentages are of.
fn wakes_of_owner(owner: &Value, objects: &dyn Objects) -> Vec<Key> {
    objects.list(BUDGETS, meta::namespace(owner)).iter().map(|b| (b.namespace.clone(), b.name.clone())).collect()
}

/// How many pods there should be: the sizes of those that own them; pods of no one count for themselves.
fn expected(pods: &[Object], objects: &dyn Objects) -> i64 {
    let mut owners: Vec<(String, i64)> = Vec::new();
    let mut alone = 0;
    for pod in pods {
        let Some((uid, size)) = owner_of(&pod.object, objects) else {
            alone += 1;
            continue;
        };
        if !owners.iter().any(|(known, _)| *known == uid) {
            owners.push((uid, size));
        }
    }
    owners.iter().map(|(_, size)| size).sum::<i64>() + alone
}

fn owner_of(pod: &Value, objects: &dyn Objects) -> Option<(String, i64)> {
    let namespace = meta::namespace(pod);
    let owner = meta::controller_of(pod)?;
    let size = |object: &Object| (object.uid.clone(), object.object["spec"]["replicas"].as_i64().unwrap_or(1));
    match owner.kind.as_str() {
        "StatefulSet" => objects.get(STATEFUL_SETS, namespace, &owner.name).map(|set| size(&set)),
        "ReplicationController" => {
            objects.get(REPLICATION_CONTROLLERS, namespace, &owner.name).map(|controller| size(&controller))
        }
        "ReplicaSet" => {
            let set = objects.get(REPLICA_SETS, namespace, &owner.name)?;
            let deployment = meta::controller_of(&set.object)
                .filter(|owner| owner.kind == "Deployment")
                .and_then(|owner| objects.get(DEPLOYMENTS, namespace, &owner.name));
            Some(size(deployment.as_ref().unwrap_or(&set)))
        }
        _ => None,
    }
}

fn plan(budget: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let selector = selector(budget);
    let pods: Vec<Object> = objects
        .list(PODS, meta::namespace(budget))
        .into_iter()
        .filter(|p| selector.as_ref().is_some_and(|s| s.matches_object(&p.object)) && !is_over(&p.object))
        .collect();
    let mut actions = Vec::new();
    let spec = &budget["spec"];
    let count = expected(&pods, objects);
    let desired = if !spec["maxUnavailable"].is_null() {
        (count - share(&spec["maxUnavailable"], count, true)).max(0)
    } else if spec["minAvailable"].is_string() {
        share(&spec["minAvailable"], count, true)
    } else {
        spec["minAvailable"].as_i64().unwrap_or(0)
    };
    // Pods whose eviction was granted and that are still there.
    let mut disrupted = serde_json::Map::new();
    let mut recheck: Option<i64> = None;
    for (name, since) in budget["status"]["disruptedPods"].as_object().into_iter().flatten() {
        let going = pods.iter().any(|pod| pod.name == *name && is_active(&pod.object));
        let left = since.as_str().and_then(time::parse).map_or(0, |at| at.as_second() + PENDING - now.as_second());
        if going && left > 0 {
            disrupted.insert(name.clone(), since.clone());
            recheck = Some(recheck.map_or(left, |known| known.min(left)));
        } else if going {
            let message = format!("Pod {name} was expected by PDB to be deleted but it wasn't");
            actions.push(Action::Event(Note::warning(budget, "NotDeleted", message)));
        }
    }
    let healthy = pods
        .iter()
        .filter(|p| is_active(&p.object) && ready_since(&p.object).is_some() && !disrupted.contains_key(&p.name))
        .count();
    let healthy = i64::try_from(healthy).unwrap_or(i64::MAX);
    let allowed = if count == 0 { 0 } else { (healthy - desired).max(0) };
    let status = json!({
        "observedGeneration": meta::generation(budget), "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": desired, "expectedPods": count,
    });
    let before = &budget["status"];
    let same = status.as_object().into_iter().flatten().all(|(k, v)| before.get(k).unwrap_or(&json!(0)) == v)
        && before["disruptedPods"].as_object().is_none_or(|old| *old == disrupted)
        && before["conditions"].is_array();
    if !same {
        let mut status = status;
        for name in before["disruptedPods"].as_object().into_iter().flatten().map(|(name, _)| name) {
            if !disrupted.contains_key(name) {
                status["disruptedPods"][name] = Value::Null;
            }
        }
        status["conditions"] = json!([condition(budget, allowed > 0, now)]);
        actions.push(Action::Patch {
            resource: BUDGETS,
            namespace: meta::namespace(budget).to_owned(),
            name: meta::name(budget).to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            // What an eviction has counted meanwhile must not be overwritten.
            patch: json!({"metadata": {"resourceVersion": meta::resource_version(budget)}, "status": status}),
        });
    }
    actions.extend(recheck.map(|seconds| Action::Again(Duration::from_secs(seconds.unsigned_abs()))));
    Ok(actions)
}

fn condition(budget: &Value, allowed: bool, now: Timestamp) -> Value {
    let (status, reason) = if allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    let old = budget["status"]["conditions"].as_array().into_iter().flatten();
    let since = old
        .filter(|c| c["type"] == "DisruptionAllowed" && c["status"] == status)
        .find_map(|c| c["lastTransitionTime"].as_str().map(str::to_owned))
        .unwrap_or_else(|| time::seconds(now));
    json!({"type": "DisruptionAllowed", "status": status, "reason": reason, "message": "",
        "observedGeneration": meta::generation(budget), "lastTransitionTime": since})
}

#[cfg(test)]
mod tests {
    use client::Resource;

    use super::*;
    use crate::testing::{Fixed, now};

    fn allowed(spec: Value, ready: usize, all: usize) -> String {
        allowed_of(("StatefulSet", STATEFUL_SETS, all), spec, ready, all)
    }

    /// What a budget allows whose pods belong to an owner of this kind and size.
    fn allowed_of(owner: (&str, Resource, usize), spec: Value, ready: usize, all: usize) -> String {
        let budget = json!({"metadata": {"name": "b", "namespace": "a"}, "spec": spec, "status": {}});
        let mut budget = budget;
        budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
        let (kind, resource, size) = owner;
        let set = json!({"metadata": {"name": "web", "namespace": "a", "uid": "s"}, "spec": {"replicas": size}});
        let objects = (0..all).fold(Fixed::default().with(resource, set), |objects, number| {
            let conditions = if number < ready {
                json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}])
            } else {
                json!([])
            };
            objects.with(
                PODS,
                json!({"metadata": {"name": format!("web-{number}"), "namespace": "a", "labels": {"app": "web"},
                "ownerReferences": [{"kind": kind, "name": "web", "uid": "s", "controller": true}]},
                "status": {"phase": "Running", "conditions": conditions}}),
            )
        });
        let actions = plan(&budget, &objects, now()).expect("a plan");
        let Some(Action::Patch { patch, .. }) = actions.first() else { panic!("{actions:?}") };
        let status = &patch["status"];
        format!(
            "{} of {}, {} must stay",
            status["disruptionsAllowed"], status["currentHealthy"], status["desiredHealthy"]
        )
    }

    #[test]
    fn a_percentage_is_of_what_the_owner_should_have() {
        let half = json!({"minAvailable": "50%"});
        let owners = [("ReplicationController", REPLICATION_CONTROLLERS), ("ReplicaSet", REPLICA_SETS)];
        for (kind, resource) in owners {
            assert_eq!(allowed_of((kind, resource, 6), half.clone(), 4, 4), "1 of 4, 3 must stay");
        }
        assert_eq!(allowed_of(("Job", crate::JOBS, 6), half, 4, 4), "2 of 4, 2 must stay");
    }

    #[test]
    fn a_budget_allows_what_leaves_enough() {
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, 3), "1 of 3, 2 must stay");
        assert_eq!(allowed(json!({"minAvailable": 2}), 1, 3), "0 of 1, 2 must stay");
        assert_eq!(allowed(json!({"maxUnavailable": "50%"}), 3, 3), "2 of 3, 1 must stay");
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 3, 3), "1 of 3, 2 must stay");
    }
}
