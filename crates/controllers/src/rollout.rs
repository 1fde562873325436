//! How many replicas each ReplicaSet of a Deployment is to have: the arithmetic of rollouts.

use anyhow::Result;
use client::Patch;
use object_model::meta;
use serde_json::{Map, Value, json};

use crate::deployment::{DESIRED, MAXIMUM, replicas};
use crate::{Action, Note, Object, REPLICA_SETS};

/// The numbers of a Deployment's ReplicaSets in sum.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub specified: i64,
    pub total: i64,
    pub updated: i64,
    pub ready: i64,
    pub available: i64,
    pub terminating: i64,
}

fn status_of(set: &Value, field: &str) -> i64 {
    set["status"][field].as_i64().unwrap_or(0)
}

impl Sizes {
    pub fn of(current: Option<&Object>, old: &[Object]) -> Self {
        let all = || current.into_iter().chain(old);
        let sum = |field: &str| all().map(|s| status_of(&s.object, field)).sum();
        Self {
            specified: all().map(|s| replicas(&s.object)).sum(),
            total: sum("replicas"),
            updated: current.map_or(0, |s| status_of(&s.object, "replicas")),
            ready: sum("readyReplicas"),
            available: sum("availableReplicas"),
            terminating: sum("terminatingReplicas"),
        }
    }
}

/// A number, or a percentage of `total`, rounded up or down.
pub(crate) fn share(value: &Value, total: i64, up: bool) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(0);
            if up { (total * percent + 99) / 100 } else { total * percent / 100 }
        }
        value => value.as_i64().unwrap_or(0),
    }
}

/// Surge rounded up and unavailable rounded down; if both are zero one may be unavailable, or nothing could move.
fn allowances(deployment: &Value) -> (i64, i64) {
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        return (0, 0);
    }
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    let wanted = replicas(deployment);
    let (surge, unavailable) =
        (share(&rolling["maxSurge"], wanted, true), share(&rolling["maxUnavailable"], wanted, false));
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(wanted)) }
}

pub(crate) fn max_unavailable(deployment: &Value) -> i64 {
    if replicas(deployment) == 0 { 0 } else { allowances(deployment).1 }
}

fn max_surge(deployment: &Value) -> i64 {
    allowances(deployment).0
}

/// What a ReplicaSet remembers of the Deployment's size, so that scaling in the middle of a rollout can be told apart.
pub(crate) fn size_annotations(deployment: &Value) -> Map<String, Value> {
    let wanted = replicas(deployment);
    Map::from_iter([
        (DESIRED.to_owned(), wanted.to_string().into()),
        (MAXIMUM.to_owned(), (wanted + max_surge(deployment)).to_string().into()),
    ])
}

/// The size a new ReplicaSet starts with.
pub(crate) fn first_size(deployment: &Value, old: &[Object]) -> i64 {
    let wanted = replicas(deployment);
    let running: i64 = old.iter().map(|s| replicas(&s.object)).sum();
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        let left: i64 =
            old.iter().map(|s| status_of(&s.object, "replicas") + status_of(&s.object, "terminatingReplicas")).sum();
        return if running + left > 0 { 0 } else { wanted };
    }
    (wanted + max_surge(deployment) - running).clamp(0, wanted)
}

fn resize(deployment: &Value, set: &Object, size: i64) -> Vec<Action> {
    let before = replicas(&set.object);
    let mut actions = vec![Action::Patch {
        resource: REPLICA_SETS,
        namespace: set.namespace.clone(),
        name: set.name.clone(),
        subresource: "",
        kind: Patch::Merge,
        patch: json!({"metadata": {"annotations": size_annotations(deployment)}, "spec": {"replicas": size}}),
    }];
    if before != size {
        let way = if size > before { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {} from {before} to {size}", set.name);
        actions.push(Action::Event(Note::normal(deployment, "ScalingReplicaSet", message)));
    }
    actions
}

/// Whether the Deployment's size has changed since the ReplicaSets were last sized.
pub(crate) fn needs_scaling(deployment: &Value, current: Option<&Object>, old: &[Object]) -> bool {
    let wanted = replicas(deployment);
    current.into_iter().chain(old).filter(|s| replicas(&s.object) > 0).any(|s| {
        meta::annotations(&s.object).get(DESIRED).and_then(|d| d.parse::<i64>().ok()).is_some_and(|d| d != wanted)
    })
}

/// Takes over a changed size: by the only ReplicaSet that runs, or spread over all in proportion.
pub(crate) fn scale(deployment: &Value, current: Option<&Object>, old: &[Object]) -> Vec<Action> {
    let wanted = replicas(deployment);
    let active: Vec<&Object> = current.into_iter().chain(old).filter(|s| replicas(&s.object) > 0).collect();
    if let [] | [_] = active[..] {
        let Some(only) = active.first().copied().or(current) else { return Vec::new() };
        return if replicas(&only.object) == wanted && !stale_annotations(deployment, only) {
            Vec::new()
        } else {
            resize(deployment, only, wanted)
        };
    }
    let running: i64 = active.iter().map(|s| replicas(&s.object)).sum();
    let allowed = if wanted == 0 { 0 } else { wanted + max_surge(deployment) };
    let mut left = allowed - running;
    let mut ordered = active;
    // Larger ones take the larger share; of equal ones the newer when growing, the older when shrinking.
    ordered.sort_by_key(|s| {
        let revision = crate::deployment::revision_of(&s.object);
        (-replicas(&s.object), if left > 0 { -revision } else { revision })
    });
    let mut sizes: Vec<i64> = Vec::new();
    for set in &ordered {
        let size = replicas(&set.object);
        let max = meta::annotations(&set.object)
            .get(MAXIMUM)
            .and_then(|m| m.parse::<i64>().ok())
            .filter(|m| *m > 0)
            .unwrap_or(wanted.max(1));
        // Rounded to the nearest, as upstream does.
        let fair = (2 * size * allowed + max).div_euclid(2 * max) - size;
        let step = if left > 0 { fair.clamp(0, left) } else { fair.clamp(left, 0) };
        sizes.push(size + step);
        left -= step;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + left).max(0);
    }
    let changed = ordered
        .iter()
        .zip(sizes)
        .filter(|(set, size)| replicas(&set.object) != *size || stale_annotations(deployment, set));
    changed.flat_map(|(set, size)| resize(deployment, set, size)).collect()
}

fn stale_annotations(deployment: &Value, set: &Object) -> bool {
    let annotations = meta::annotations(&set.object);
    size_annotations(deployment).iter().any(|(key, value)| annotations.get(key.as_str()).copied() != value.as_str())
}

/// One step of a rolling update: first grow the new, then shrink the old as far as enough stay available.
pub(crate) fn rolling_update(deployment: &Value, current: &Object, old: &[Object]) -> Result<Vec<Action>> {
    let wanted = replicas(deployment);
    let sizes = Sizes::of(Some(current), old);
    let new_size = replicas(&current.object);
    if new_size > wanted {
        return Ok(resize(deployment, current, wanted));
    }
    let room = wanted + max_surge(deployment) - sizes.specified;
    if new_size < wanted && room > 0 {
        return Ok(resize(deployment, current, new_size + room.min(wanted - new_size)));
    }
    let old_total: i64 = old.iter().map(|s| replicas(&s.object)).sum();
    if old_total == 0 {
        return Ok(if stale_annotations(deployment, current) {
            resize(deployment, current, new_size)
        } else {
            Vec::new()
        });
    }
    let least = wanted - max_unavailable(deployment);
    let new_unavailable = new_size - status_of(&current.object, "availableReplicas");
    let mut budget = sizes.specified - least - new_unavailable;
    if budget <= 0 {
        return Ok(Vec::new());
    }
    let mut ordered: Vec<&Object> = old.iter().filter(|s| replicas(&s.object) > 0).collect();
    ordered.sort_by_key(|s| s.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
    let mut target: Vec<i64> = ordered.iter().map(|s| replicas(&s.object)).collect();
    // Pods that do not serve anyway go first and cost nothing.
    for (set, size) in ordered.iter().zip(&mut target) {
        let idle = (*size - status_of(&set.object, "availableReplicas")).clamp(0, budget);
        *size -= idle;
        budget -= idle;
    }
    let mut available = sizes.available - least;
    for size in &mut target {
        let step = (*size).min(available.max(0)).min(budget.max(0));
        *size -= step;
        available -= step;
        budget -= step;
    }
    let changed = ordered.into_iter().zip(target).filter(|(set, size)| replicas(&set.object) != *size);
    Ok(changed.flat_map(|(set, size)| resize(deployment, set, size)).collect())
}

/// Strategy Recreate: everything old goes before anything new comes.
pub(crate) fn recreate(deployment: &Value, current: &Object, old: &[Object]) -> Vec<Action> {
    let down: Vec<Action> =
        old.iter().filter(|s| replicas(&s.object) > 0).flat_map(|s| resize(deployment, s, 0)).collect();
    if !down.is_empty() {
        return down;
    }
    let left: i64 =
        old.iter().map(|s| status_of(&s.object, "replicas") + status_of(&s.object, "terminatingReplicas")).sum();
    let wanted = replicas(deployment);
    if left > 0 || replicas(&current.object) == wanted { Vec::new() } else { resize(deployment, current, wanted) }
}

/// Whether only the newest revision runs, and all of it is available.
pub(crate) fn is_complete(deployment: &Value, current: &Object, old: &[Object]) -> bool {
    let sizes = Sizes::of(Some(current), old);
    let wanted = replicas(deployment);
    sizes.updated == wanted && sizes.total == wanted && sizes.available == wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_so_that_a_rollout_can_always_move() {
        let d = |replicas: i64, surge: Value, unavailable: Value| {
            allowances(&json!({"spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        };
        assert_eq!(d(3, json!("25%"), json!("25%")), (1, 0));
        assert_eq!(d(10, json!("25%"), json!("25%")), (3, 2));
        assert_eq!(d(10, json!(0), json!(0)), (0, 1));
        assert_eq!(d(2, json!(1), json!(5)), (1, 2));
    }
}
