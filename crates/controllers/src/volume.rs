//! Volumes: whose they are, and what becomes of them when their claim has gone.

use client::Patch;
use jiff::Timestamp;
use kinds::volumes::{BOUND_BY_CONTROLLER, LOCAL_DRIVER};
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::pods::strip;
use crate::{Action, CLAIMS, Controller, Key, Note, Object, Objects, Read, VOLUMES, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "persistentvolume-binder",
    subject: VOLUMES,
    reads: &[Read { resource: CLAIMS, wakes }],
    writes: &[
        Writes::Status,
        Writes::Shared { resource: VOLUMES, because: "it lets go of volumes that are no claim's any more" },
    ],
    plan,
};

/// Holds a volume while a claim has it.
const PROTECTION: &str = "kubernetes.io/pv-protection";

fn wakes(claim: &Value, objects: &dyn Objects) -> Vec<Key> {
    let named = claim["spec"]["volumeName"].as_str().filter(|name| !name.is_empty());
    let reserved = |volume: &&Object| {
        let reference = &volume.object["spec"]["claimRef"];
        reference["name"] == meta::name(claim) && reference["namespace"] == meta::namespace(claim)
    };
    match named {
        Some(name) => vec![(String::new(), name.to_owned())],
        None => objects.list(VOLUMES, "").iter().filter(reserved).map(|v| (String::new(), v.name.clone())).collect(),
    }
}

fn plan(volume: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let reference = &volume["spec"]["claimRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let claim =
        objects.get(CLAIMS, text("namespace"), text("name")).filter(|c| text("uid").is_empty() || c.uid == text("uid"));
    if meta::deletion_timestamp(volume).is_some() {
        let in_use = claim.as_ref().is_some_and(|claim| claim.object["spec"]["volumeName"] == meta::name(volume));
        let held = meta::finalizers(volume).contains(&PROTECTION);
        let found = objects.get(VOLUMES, "", meta::name(volume)).filter(|_| held && !in_use);
        return Ok(found.iter().map(|found| strip(VOLUMES, found, PROTECTION)).collect());
    }
    if reference.is_null() || text("uid").is_empty() {
        return Ok(phase(volume, "Available", "", now));
    }
    let Some(claim) = claim else { return Ok(reclaim(volume, now)) };
    let wanted = claim.object["spec"]["volumeName"].as_str().unwrap_or_default();
    if wanted == meta::name(volume) {
        return Ok(phase(volume, "Bound", "", now));
    }
    if wanted.is_empty() {
        // The claim's controller is about to name it.
        return Ok(Vec::new());
    }
    // The claim has got another one.
    if meta::annotations(volume).contains_key(BOUND_BY_CONTROLLER) {
        let patch = json!({"metadata": {"annotations": {BOUND_BY_CONTROLLER: null}}, "spec": {"claimRef": null}});
        return Ok(vec![patch_volume(volume, "", patch)]);
    }
    Ok(reclaim(volume, now))
}

fn patch_volume(volume: &Value, subresource: &'static str, patch: Value) -> Action {
    Action::Patch {
        resource: VOLUMES,
        namespace: String::new(),
        name: meta::name(volume).to_owned(),
        subresource,
        kind: Patch::Merge,
        patch,
    }
}

fn phase(volume: &Value, phase: &str, message: &str, now: Timestamp) -> Vec<Action> {
    let status = &volume["status"];
    if status["phase"] == phase && status["message"].as_str().unwrap_or_default() == message {
        return Vec::new();
    }
    let patch = json!({"status": {
        "phase": phase, "message": message, "reason": null, "lastPhaseTransitionTime": time::seconds(now),
    }});
    vec![patch_volume(volume, "status", patch)]
}

/// The claim is gone: the volume is kept, or deleted with its data.
fn reclaim(volume: &Value, now: Timestamp) -> Vec<Action> {
    let policy = volume["spec"]["persistentVolumeReclaimPolicy"].as_str().unwrap_or("Retain");
    let name = meta::name(volume);
    if policy == "Retain" {
        return phase(volume, "Released", "", now);
    }
    if policy == "Delete" && volume["spec"]["csi"]["driver"] == LOCAL_DRIVER {
        let mut actions = phase(volume, "Released", "", now);
        let uid = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": meta::uid(volume)}});
        actions.push(Action::Delete {
            resource: VOLUMES,
            namespace: String::new(),
            name: name.to_owned(),
            options: uid,
            event: None,
        });
        return actions;
    }
    let (reason, message) = if policy == "Delete" {
        (
            "VolumeFailedDelete",
            format!("error getting deleter volume plugin for volume \"{name}\": no deletable volume plugin matched"),
        )
    } else {
        ("VolumeFailedRecycle", "no volume plugin matched: recycling is not supported".to_owned())
    };
    let mut actions = phase(volume, "Failed", &message, now);
    if !actions.is_empty() {
        actions.push(Action::Event(Note::warning(volume, reason, message)));
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};
    use expect_test::{Expect, expect};

    fn volume(policy: &str, source: Value, claim_ref: Value) -> Value {
        let mut volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v", "uid": "v", "finalizers": [PROTECTION]},
            "spec": {"persistentVolumeReclaimPolicy": policy, "claimRef": claim_ref}, "status": {"phase": "Bound"}});
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        volume
    }

    fn check(volume: &Value, claims: &[Value], expected: &Expect) {
        let objects = claims.iter().fold(Fixed::default(), |all, claim| all.with(CLAIMS, claim.clone()));
        let objects = objects.with(VOLUMES, volume.clone());
        expected.assert_eq(&brief(&plan(volume, &objects, now()).expect("a plan")));
    }

    #[test]
    fn what_becomes_of_a_volume_follows_from_its_policy() {
        let gone = json!({"namespace": "a", "name": "c", "uid": "gone"});
        let csi = json!({"csi": {"driver": LOCAL_DRIVER}});
        check(
            &volume("Retain", json!({"hostPath": {"path": "/x"}}), gone.clone()),
            &[],
            &expect![[r#"
            patch persistentvolumes v status {"status":{"lastPhaseTransitionTime":"2026-01-01T00:00:00Z","message":"","phase":"Released","reason":null}}
        "#]],
        );
        check(
            &volume("Delete", csi, gone.clone()),
            &[],
            &expect![[r#"
            patch persistentvolumes v status {"status":{"lastPhaseTransitionTime":"2026-01-01T00:00:00Z","message":"","phase":"Released","reason":null}}
            delete persistentvolumes v
        "#]],
        );
        check(
            &volume("Delete", json!({"hostPath": {"path": "/x"}}), gone),
            &[],
            &expect![[r#"
            patch persistentvolumes v status {"status":{"lastPhaseTransitionTime":"2026-01-01T00:00:00Z","message":"error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched","phase":"Failed","reason":null}}
            event VolumeFailedDelete error getting deleter volume plugin for volume "v": no deletable volume plugin matched
        "#]],
        );
        check(
            &volume("Retain", json!({}), Value::Null),
            &[],
            &expect![[r#"
            patch persistentvolumes v status {"status":{"lastPhaseTransitionTime":"2026-01-01T00:00:00Z","message":"","phase":"Available","reason":null}}
        "#]],
        );
    }

    #[test]
    fn a_volume_that_is_deleted_stays_while_a_claim_has_it() {
        let mut deleted = volume("Retain", json!({}), json!({"namespace": "a", "name": "c", "uid": "c"}));
        deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let claim = json!({"metadata": {"name": "c", "namespace": "a", "uid": "c"}, "spec": {"volumeName": "v"}});
        check(&deleted, &[claim], &expect![[""]]);
        check(
            &deleted,
            &[],
            &expect![[r#"
            patch persistentvolumes v  {"metadata":{"$deleteFromPrimitiveList/finalizers":["kubernetes.io/pv-protection"],"uid":"v"}}
        "#]],
        );
    }
}
