//! Tests of the plan of StatefulSets.

use super::*;
use crate::testing::{Fixed, brief, now};
use expect_test::{Expect, expect};

const OLD: &str = "web-old";

fn set(replicas: i64, spec: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": {"name": "web", "namespace": "a", "uid": "s", "generation": 1},
        "spec": {"replicas": replicas, "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"image": "new"}]}}},
        "status": {"currentRevision": OLD},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        set["spec"][key] = value.clone();
    }
    set
}

/// A pod of the old revision.
fn pod(number: i64, ready: bool) -> Value {
    let conditions = if ready {
        json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}])
    } else {
        json!([])
    };
    let name = format!("web-{number}");
    json!({"metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web", HASH_LABEL: OLD},
        "ownerReferences": [{"kind": "StatefulSet", "name": "web", "uid": "s", "controller": true}]},
        "status": {"phase": "Running", "conditions": conditions}})
}

/// The same, made from the current template.
fn new_pod(set: &Value, number: i64, ready: bool) -> Value {
    let owner = Owner { object: set, api_version: "apps/v1", kind: "StatefulSet", finalizer: "" };
    let mut pod = pod(number, ready);
    pod["metadata"]["labels"][HASH_LABEL] = Revisions::of(&owner, &Fixed::default()).expect("a revision").name.into();
    pod
}

/// What is done about pods and claims.
fn check(set: &Value, pods: &[Value], claims: &[Value], expected: &Expect) {
    let objects = pods.iter().fold(Fixed::default(), |all, pod| all.with(PODS, pod.clone()));
    let objects = claims.iter().fold(objects, |all, claim| all.with(CLAIMS, claim.clone()));
    let about_pods = |action: &Action| match action {
        Action::Create { resource, .. } => *resource != CONTROLLER_REVISIONS,
        Action::Patch { subresource, .. } => *subresource != "status",
        _ => true,
    };
    let actions: Vec<Action> = plan(set, &objects, now()).expect("a plan").into_iter().filter(about_pods).collect();
    expected.assert_eq(&brief(&actions));
}

#[test]
fn pods_start_one_after_the_other() {
    let set = set(3, json!({}));
    check(
        &set,
        &[],
        &[],
        &expect![[r#"
        create pods web-0 replicas=null
    "#]],
    );
    check(&set, &[new_pod(&set, 0, false)], &[], &expect![[""]]);
    check(
        &set,
        &[new_pod(&set, 0, true)],
        &[],
        &expect![[r#"
        create pods web-1 replicas=null
    "#]],
    );
}

#[test]
fn in_parallel_they_start_at_once_and_claims_come_before_their_pods() {
    let templates = json!([{"metadata": {"name": "data"}, "spec": {}}]);
    let set =
        set(2, json!({"podManagementPolicy": "Parallel", "volumeClaimTemplates": templates, "ordinals": {"start": 5}}));
    let claim = json!({"metadata": {"name": "data-web-6", "namespace": "a"}});
    check(
        &set,
        &[],
        &[claim],
        &expect![[r#"
        create persistentvolumeclaims data-web-5 replicas=null
        create pods web-5 replicas=null
        create pods web-6 replicas=null
    "#]],
    );
}

#[test]
fn the_highest_number_stops_first() {
    let set = set(1, json!({}));
    let pods = [new_pod(&set, 0, true), new_pod(&set, 1, true), new_pod(&set, 2, true)];
    check(
        &set,
        &pods,
        &[],
        &expect![[r#"
        delete pods web-2
    "#]],
    );
    let mut leaving = pods[2].clone();
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    check(&set, &[pods[0].clone(), pods[1].clone(), leaving], &[], &expect![[""]]);
}

#[test]
fn an_update_goes_from_the_highest_number_down_to_the_partition() {
    let all = set(3, json!({}));
    check(
        &all,
        &[pod(0, true), pod(1, true), pod(2, true)],
        &[],
        &expect![[r#"
        delete pods web-2
    "#]],
    );
    check(&all, &[pod(0, true), pod(1, true), new_pod(&all, 2, false)], &[], &expect![[""]]);
    let part = set(3, json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
    check(&part, &[pod(0, true), pod(1, true), new_pod(&part, 2, true)], &[], &expect![[""]]);
    let by_hand = set(1, json!({"updateStrategy": {"type": "OnDelete"}}));
    check(&by_hand, &[pod(0, true)], &[], &expect![[""]]);
}

#[test]
fn a_pod_that_has_failed_is_made_anew() {
    let set = set(1, json!({}));
    let mut failed = new_pod(&set, 0, false);
    failed["status"]["phase"] = "Failed".into();
    check(
        &set,
        &[failed],
        &[],
        &expect![[r#"
        event RecreatingFailedPod StatefulSet a/web is recreating failed Pod web-0
        delete pods web-0
    "#]],
    );
}

#[test]
fn claims_belong_to_whom_the_retention_policy_says() {
    let spec = json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}});
    let set = set(1, spec);
    let claim = |number: i64| json!({"metadata": {"name": format!("data-web-{number}"), "namespace": "a", "uid": format!("c{number}")}});
    check(
        &set,
        &[new_pod(&set, 0, true), new_pod(&set, 1, true)],
        &[claim(0), claim(1)],
        &expect![[r#"
        patch persistentvolumeclaims data-web-1  {"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"web-1","uid":"web-1"}],"uid":"c1"}}
        delete pods web-1
    "#]],
    );
}
