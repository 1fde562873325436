//! Tests of the plan of claims.

use super::*;
use crate::testing::{Fixed, brief, now};
use expect_test::{Expect, expect};

fn claim(class: &str, extra: Value) -> Value {
    let mut claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": "a", "uid": "u", "finalizers": [PROTECTION]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": class,
            "volumeMode": "Filesystem"},
        "status": {"phase": "Pending"}});
    for (key, value) in extra.as_object().into_iter().flatten() {
        claim[key] = value.clone();
    }
    claim
}

fn with_metadata(mut claim: Value, field: &str, value: Value) -> Value {
    claim["metadata"][field] = value;
    claim
}

fn naming(mut claim: Value, volume: &str) -> Value {
    claim["spec"]["volumeName"] = volume.into();
    claim
}

fn volume(name: &str, size: &str, claim_ref: Value) -> Value {
    json!({"metadata": {"name": name, "uid": name, "resourceVersion": "7"}, "status": {"phase": "Available"},
        "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow",
            "volumeMode": "Filesystem", "claimRef": claim_ref}})
}

/// Classes, a node and these volumes.
fn around(volumes: &[Value]) -> Fixed {
    let class = |name: &str, provisioner: &str, mode: &str| json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete"});
    let node = json!({"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}},
        "status": {"capacity": {"ephemeral-storage": "100Gi"}}});
    let objects = Fixed::default()
        .with(STORAGE_CLASSES, class("knarr", LOCAL_DRIVER, "WaitForFirstConsumer"))
        .with(STORAGE_CLASSES, class("now", LOCAL_DRIVER, "Immediate"))
        .with(STORAGE_CLASSES, class("cloud", "disks.example.com", "Immediate"))
        .with(NODES, node);
    volumes.iter().fold(objects, |all, volume| all.with(VOLUMES, volume.clone()))
}

fn check(claim: &Value, objects: Fixed, expected: &Expect) {
    let objects = objects.with(CLAIMS, claim.clone());
    expected.assert_eq(&brief(&plan(claim, &objects, now()).expect("a plan")));
}

#[test]
fn a_claim_is_bound_to_a_volume_that_fits_in_three_steps() {
    let free = [volume("small", "500Mi", Value::Null), volume("fits", "2Gi", Value::Null)];
    check(
        &claim("slow", json!({})),
        around(&free),
        &expect![[r#"
        patch persistentvolumes fits  {"metadata":{"annotations":{"pv.kubernetes.io/bound-by-controller":"yes"},"resourceVersion":"7","uid":"fits"},"spec":{"claimRef":{"apiVersion":"v1","kind":"PersistentVolumeClaim","name":"data","namespace":"a","uid":"u"}}}
        patch persistentvolumeclaims data  {"metadata":{"annotations":{"pv.kubernetes.io/bind-completed":"yes","pv.kubernetes.io/bound-by-controller":"yes"},"uid":"u"},"spec":{"volumeName":"fits"}}
        patch persistentvolumeclaims data status {"status":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"},"phase":"Bound"}}
    "#]],
    );
    let reserved = [volume("fits", "2Gi", json!({"namespace": "a", "name": "data", "uid": "u"}))];
    check(
        &claim("slow", json!({})),
        around(&reserved),
        &expect![[r#"
        patch persistentvolumeclaims data  {"metadata":{"annotations":{"pv.kubernetes.io/bind-completed":"yes","pv.kubernetes.io/bound-by-controller":"yes"},"uid":"u"},"spec":{"volumeName":"fits"}}
        patch persistentvolumeclaims data status {"status":{"accessModes":["ReadWriteOnce"],"capacity":{"storage":"2Gi"},"phase":"Bound"}}
    "#]],
    );
}

#[test]
fn a_claim_that_cannot_be_satisfied_says_why() {
    check(
        &claim("", json!({})),
        around(&[]),
        &expect![[r#"
        event FailedBinding no persistent volumes available for this claim and no storage class is set
    "#]],
    );
    check(
        &claim("fast", json!({})),
        around(&[]),
        &expect![[r#"
        event ProvisioningFailed storageclass.storage.k8s.io "fast" not found
    "#]],
    );
    check(
        &claim("cloud", json!({})),
        around(&[]),
        &expect![[r#"
        patch persistentvolumeclaims data  {"metadata":{"annotations":{"volume.kubernetes.io/storage-provisioner":"disks.example.com"}}}
        event ExternalProvisioning Waiting for a volume to be created either by the external provisioner 'disks.example.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.
    "#]],
    );
    let mut huge = claim("now", json!({}));
    huge["spec"]["resources"]["requests"]["storage"] = "1Ti".into();
    check(
        &huge,
        around(&[]),
        &expect![[r#"
        event ProvisioningFailed failed to provision volume with StorageClass "now": the disk of node "n" has 100Gi, less than the 1Ti that are requested
    "#]],
    );
    let mut block = claim("now", json!({}));
    block["spec"]["volumeMode"] = "Block".into();
    check(
        &block,
        around(&[]),
        &expect![[r#"
        event ProvisioningFailed failed to provision volume with StorageClass "now": block volumes are not supported: use volumeMode Filesystem
    "#]],
    );
    check(
        &naming(claim("slow", json!({})), "none"),
        around(&[]),
        &expect![[r#"
        event FailedBinding volume "none" not found.
    "#]],
    );
    let small = [volume("small", "500Mi", Value::Null)];
    check(
        &naming(claim("slow", json!({})), "small"),
        around(&small),
        &expect![[r#"
        event VolumeMismatch Cannot bind to requested volume "small": requested PV is too small
    "#]],
    );
    let others = [volume("theirs", "2Gi", json!({"namespace": "a", "name": "other"}))];
    check(
        &naming(claim("slow", json!({})), "theirs"),
        around(&others),
        &expect![[r#"
        event FailedBinding volume "theirs" already bound to a different claim.
    "#]],
    );
}

#[test]
fn a_volume_is_made_where_the_scheduler_wants_it() {
    check(
        &claim("knarr", json!({})),
        around(&[]),
        &expect![[r#"
        event WaitForFirstConsumer waiting for first consumer to be created before binding
    "#]],
    );
    let chosen = with_metadata(claim("knarr", json!({})), "annotations", json!({SELECTED_NODE: "n"}));
    check(
        &chosen,
        around(&[]),
        &expect![[r#"
        patch persistentvolumeclaims data  {"metadata":{"annotations":{"volume.kubernetes.io/storage-provisioner":"local.knarr.dev"}}}
        create persistentvolumes pvc-u replicas=null
    "#]],
    );
}

#[test]
fn a_bound_claim_without_its_volume_is_lost_and_one_that_asks_for_more_gets_it() {
    let bound = with_metadata(
        naming(claim("slow", json!({"status": {"phase": "Bound"}})), "v"),
        "annotations",
        json!({BIND_COMPLETED: "yes"}),
    );
    check(
        &bound,
        around(&[]),
        &expect![[r#"
        patch persistentvolumeclaims data status {"status":{"accessModes":null,"capacity":null,"phase":"Lost"}}
        event ClaimLost Bound claim has lost its PersistentVolume. Data on the volume is lost!
    "#]],
    );
    let mut local = volume("v", "500Mi", json!({"namespace": "a", "name": "data", "uid": "u"}));
    local["spec"]["csi"] = json!({"driver": LOCAL_DRIVER});
    check(
        &bound,
        around(&[local]),
        &expect![[r#"
        patch persistentvolumeclaims data status {"status":{"conditions":[{"lastProbeTime":null,"lastTransitionTime":"2026-01-01T00:00:00Z","status":"True","type":"Resizing"}]}}
        patch persistentvolumes v  {"spec":{"capacity":{"storage":"1Gi"}}}
    "#]],
    );
}

#[test]
fn a_claim_that_is_deleted_stays_while_a_pod_uses_it() {
    let deleted = with_metadata(claim("slow", json!({})), "deletionTimestamp", "2026-01-01T00:00:00Z".into());
    let pod = |phase: &str| {
        json!({"metadata": {"name": "p", "namespace": "a"}, "status": {"phase": phase},
            "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
    };
    check(&deleted, around(&[]).with(PODS, pod("Running")), &expect![[""]]);
    check(
        &deleted,
        around(&[]).with(PODS, pod("Succeeded")),
        &expect![[r#"
        patch persistentvolumeclaims data  {"metadata":{"$deleteFromPrimitiveList/finalizers":["kubernetes.io/pvc-protection"],"uid":"u"}}
    "#]],
    );
}
