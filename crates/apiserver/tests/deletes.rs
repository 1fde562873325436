//! Deleting objects: grace, finalizers, dependents, preconditions, namespaces.

mod cluster;

use cluster::{Cluster, DEPLOYMENTS, MAPS, PODS, deployment, map, pod, revision};
use serde_json::{Value, json};

async fn delete_with(c: &Cluster, path: &str, options: Value) -> cluster::Answer {
    c.raw("DELETE", path, &[], options.to_string()).await
}

#[tokio::test]
async fn a_plain_deletion_answers_with_a_status_that_names_the_object() {
    let c = Cluster::start().await;
    let made = c.post(MAPS, map("x")).await.ok();
    let status = c.delete(&format!("{MAPS}/x")).await.ok();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(status["details"], json!({"name": "x", "kind": "configmaps", "uid": made["metadata"]["uid"]}));
    assert_eq!(c.delete(&format!("{MAPS}/x")).await.refusal(), (404, "configmaps \"x\" not found".to_owned()));
}

#[tokio::test]
async fn a_finalizer_keeps_the_object_until_it_is_removed() {
    let c = Cluster::start().await;
    let mut object = map("x");
    object["metadata"]["finalizers"] = json!(["example.com/f"]);
    let made = c.post(MAPS, object).await.ok();
    let path = format!("{MAPS}/x");
    let mut events = c.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&made)), "").await;
    assert!(c.delete(&path).await.ok()["metadata"]["deletionTimestamp"].is_string());
    let (code, message) =
        c.merge(&path, json!({"metadata": {"finalizers": ["example.com/f", "a.b/g"]}})).await.refusal();
    assert_eq!((code, message.contains("no new finalizers can be added")), (422, true), "{message}");
    c.merge(&path, json!({"metadata": {"finalizers": null}})).await.ok();
    assert_eq!(c.get(&path).await.code, 404);
    assert_eq!([events.brief().await, events.brief().await], ["MODIFIED x", "DELETED x"]);
}

#[tokio::test]
async fn a_dry_run_that_the_body_asks_for_is_one_or_is_refused() {
    let c = Cluster::start().await;
    c.post(MAPS, map("x")).await.ok();
    let path = format!("{MAPS}/x");
    let (code, message) = delete_with(&c, &path, json!({"dryRun": ["Some"]})).await.refusal();
    assert!(code == 422 && message.contains("dryRun: Unsupported value: \"Some\""), "{code} {message}");
    delete_with(&c, &path, json!({"dryRun": ["All"]})).await.ok();
    c.get(&path).await.ok();
}

#[tokio::test]
async fn who_asks_in_the_old_way_is_told_that_a_deletion_goes_on() {
    let c = Cluster::start().await;
    let mut object = map("x");
    object["metadata"]["finalizers"] = json!(["example.com/f"]);
    c.post(MAPS, object).await.ok();
    let path = format!("{MAPS}/x");
    assert_eq!(delete_with(&c, &path, json!({"orphanDependents": false})).await.code, 202);
    assert_eq!(delete_with(&c, &path, json!({"propagationPolicy": "Background"})).await.code, 200);
}

#[tokio::test]
async fn a_placed_pod_has_grace_that_can_be_shortened_and_forced() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "n")).await.ok();
    let path = format!("{PODS}/p");
    let going = c.delete(&path).await.ok();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(going["metadata"]["generation"], 2);
    let longer = delete_with(&c, &path, json!({"gracePeriodSeconds": 60})).await.ok();
    assert_eq!(longer["metadata"], going["metadata"]);
    let shorter = delete_with(&c, &path, json!({"gracePeriodSeconds": 5})).await.ok();
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    assert!(shorter["metadata"]["deletionTimestamp"].as_str() < going["metadata"]["deletionTimestamp"].as_str());
    assert_eq!(delete_with(&c, &path, json!({"gracePeriodSeconds": 0})).await.ok()["kind"], "Pod");
    assert_eq!(c.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "")).await.ok();
    c.delete(&format!("{PODS}/p")).await.ok();
    assert_eq!(c.get(&format!("{PODS}/p")).await.code, 404);
}

#[tokio::test]
async fn an_eviction_begins_the_deletion_of_a_pod() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "n")).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    assert_eq!(c.post(&format!("{PODS}/p/eviction"), eviction).await.code, 201);
    assert!(c.get(&format!("{PODS}/p")).await.ok()["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn the_propagation_policy_becomes_a_finalizer_and_the_last_one_holds() {
    let c = Cluster::start().await;
    c.post(DEPLOYMENTS, deployment("d")).await.ok();
    let path = format!("{DEPLOYMENTS}/d");
    let object = delete_with(&c, &path, json!({"propagationPolicy": "Foreground"})).await.ok();
    assert_eq!(object["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let object = c.delete(&format!("{path}?propagationPolicy=Orphan")).await.ok();
    assert_eq!(object["metadata"]["finalizers"], json!(["orphan"]));
    let both = json!({"propagationPolicy": "Orphan", "orphanDependents": true});
    assert_eq!(delete_with(&c, &path, both).await.code, 422);
    delete_with(&c, &path, json!({"propagationPolicy": "Background"})).await.ok();
    assert_eq!(c.get(&path).await.code, 404);
}

#[tokio::test]
async fn preconditions_that_do_not_hold_keep_the_object() {
    let c = Cluster::start().await;
    let made = c.post(MAPS, map("x")).await.ok();
    let path = format!("{MAPS}/x");
    let (code, message) = delete_with(&c, &path, json!({"preconditions": {"uid": "no"}})).await.refusal();
    assert_eq!((code, message.contains("Precondition failed: UID in precondition: no")), (409, true), "{message}");
    assert_eq!(delete_with(&c, &path, json!({"preconditions": {"resourceVersion": "1"}})).await.code, 409);
    assert_eq!(delete_with(&c, &path, json!({"kind": "Pod", "apiVersion": "v1"})).await.code, 400);
    delete_with(&c, &path, json!({"preconditions": {"uid": made["metadata"]["uid"]}})).await.ok();
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_selector() {
    let c = Cluster::start().await;
    for (name, tier) in [("a", "x"), ("b", "y"), ("c", "x")] {
        c.post(MAPS, cluster::labelled(name, tier)).await.ok();
    }
    let gone = c.delete(&format!("{MAPS}?labelSelector=tier%3Dx")).await.ok();
    assert_eq!(gone["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(c.get(MAPS).await.ok()["items"][0]["metadata"]["name"], "b");
}

#[tokio::test]
async fn a_namespace_takes_nothing_new_while_it_goes_and_is_gone_when_finalized() {
    let c = Cluster::start().await;
    c.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.ok();
    let mut events = c.watch("/api/v1/namespaces?watch=1&fieldSelector=metadata.name%3Dn", "").await;
    let going = c.delete("/api/v1/namespaces/n").await.ok();
    assert_eq!((&going["kind"], &going["status"]["phase"]), (&json!("Namespace"), &json!("Terminating")));
    let refused = c.post("/api/v1/namespaces/n/configmaps", map("x")).await;
    assert_eq!(refused.refusal().0, 403);
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut finalized = going;
    finalized["spec"]["finalizers"] = json!([]);
    c.put("/api/v1/namespaces/n/finalize", finalized).await.ok();
    assert_eq!(c.get("/api/v1/namespaces/n").await.code, 404);
    assert_eq!(
        [events.brief().await, events.brief().await, events.brief().await],
        ["ADDED n", "MODIFIED n", "DELETED n"]
    );
    let (code, message) = c.delete("/api/v1/namespaces/default").await.refusal();
    assert_eq!(code, 403);
    assert_eq!(message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}
