//! The garbage collector and the deletion of namespaces, where custom objects own and are owned.

mod cluster;

use std::time::Duration;

use auth::User;
use cluster::{Cluster, MAPS, map};
use controllers::Manager;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A cluster with its controllers, which end with the set.
async fn start() -> (Cluster, JoinSet<()>) {
    let cluster = Cluster::start().await;
    let admin = || User::authenticated("admin", &["system:masters"]);
    let server = cluster.server.clone();
    let manager = Manager::new(server.client(admin()), move |_| server.client(admin()), String::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(manager.run(CancellationToken::new()));
    (cluster, tasks)
}

fn definition() -> Value {
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [version("v1", true), version("v2", false)]},
    })
}

fn widget(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}})
}

fn owned(mut object: Value, owner: &Value, api_version: &str) -> Value {
    let metadata = &owner["metadata"];
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": api_version, "kind": owner["kind"], "name": metadata["name"], "uid": metadata["uid"],
        "blockOwnerDeletion": true,
    }]);
    object
}

/// Gives the news of what was written the time to reach the collector: each resource has a watch of its own, and an owner
/// that waits does not wait for what is not known yet.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

async fn gone(c: &Cluster, path: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = c.get(path).await;
        if answer.code == 404 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path} is still there: {}", answer.json());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn delete_with(c: &Cluster, path: &str, policy: &str) {
    c.raw("DELETE", path, &[], json!({"propagationPolicy": policy}).to_string()).await.ok();
}

#[tokio::test]
async fn what_a_custom_object_owns_goes_with_it() {
    let (c, _controllers) = start().await;
    c.post(CRDS, definition()).await.ok();
    for (policy, version) in [("Background", "example.com/v1"), ("Foreground", "example.com/v2")] {
        let owner = c.post(WIDGETS, widget("w")).await.ok();
        c.post(MAPS, owned(map("m"), &owner, version)).await.ok();
        let inner = c.post(WIDGETS, owned(widget("inner"), &owner, version)).await.ok();
        c.post(MAPS, owned(map("n"), &inner, version)).await.ok();
        delete_with(&c, &format!("{WIDGETS}/w"), policy).await;
        for path in [format!("{MAPS}/m"), format!("{MAPS}/n"), format!("{WIDGETS}/inner"), format!("{WIDGETS}/w")] {
            gone(&c, &path).await;
        }
    }
}

#[tokio::test]
async fn a_custom_object_goes_with_its_owner_and_a_foreground_deletion_waits_for_it() {
    let (c, _controllers) = start().await;
    c.post(CRDS, definition()).await.ok();
    let owner = c.post(MAPS, map("m")).await.ok();
    c.post(WIDGETS, owned(widget("w"), &owner, "v1")).await.ok();
    delete_with(&c, &format!("{MAPS}/m"), "Background").await;
    gone(&c, &format!("{WIDGETS}/w")).await;

    let owner = c.post(MAPS, map("m")).await.ok();
    let mut held = owned(widget("w"), &owner, "v1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.post(WIDGETS, held).await.ok();
    settle().await;
    delete_with(&c, &format!("{MAPS}/m"), "Foreground").await;
    while !c.get(&format!("{WIDGETS}/w")).await.ok()["metadata"]["deletionTimestamp"].is_string() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(c.get(&format!("{MAPS}/m")).await.ok()["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    c.merge(&format!("{WIDGETS}/w"), json!({"metadata": {"finalizers": null}})).await.ok();
    gone(&c, &format!("{MAPS}/m")).await;
    // An owner that never was is no owner.
    let never = json!({"kind": "Widget", "metadata": {"name": "never", "uid": "never"}});
    c.post(MAPS, owned(map("x"), &never, "example.com/v1")).await.ok();
    gone(&c, &format!("{MAPS}/x")).await;
}

#[tokio::test]
async fn an_orphan_of_a_custom_object_stays_without_its_owner() {
    let (c, _controllers) = start().await;
    c.post(CRDS, definition()).await.ok();
    let owner = c.post(WIDGETS, widget("w")).await.ok();
    c.post(MAPS, owned(map("m"), &owner, "example.com/v1")).await.ok();
    c.post(WIDGETS, owned(widget("other"), &owner, "example.com/v1")).await.ok();
    settle().await;
    delete_with(&c, &format!("{WIDGETS}/w"), "Orphan").await;
    gone(&c, &format!("{WIDGETS}/w")).await;
    for path in [format!("{MAPS}/m"), format!("{WIDGETS}/other")] {
        assert_eq!(c.get(&path).await.ok()["metadata"]["ownerReferences"], Value::Null);
    }
}

#[tokio::test]
async fn the_end_of_a_definition_takes_what_its_objects_owned_and_others_wait_for_theirs() {
    let (c, _controllers) = start().await;
    // Before its kind is served nothing can be said of an owner.
    let early = json!({"kind": "Widget", "metadata": {"name": "never", "uid": "never"}});
    c.post(MAPS, owned(map("early"), &early, "example.com/v1")).await.ok();
    settle().await;
    assert_eq!(c.get(&format!("{MAPS}/early")).await.code, 200);
    c.post(CRDS, definition()).await.ok();
    gone(&c, &format!("{MAPS}/early")).await;

    let owner = c.post(WIDGETS, widget("w")).await.ok();
    c.post(MAPS, owned(map("m"), &owner, "example.com/v1")).await.ok();
    c.delete(&format!("{CRDS}/widgets.example.com")).await.ok();
    gone(&c, &format!("{CRDS}/widgets.example.com")).await;
    gone(&c, &format!("{MAPS}/m")).await;

    // The same again, stored in another version: nothing is left of the first.
    let mut second = definition();
    second["spec"]["versions"][0]["storage"] = false.into();
    second["spec"]["versions"][1]["storage"] = true.into();
    c.post(CRDS, second).await.ok();
    let owner = c.post(WIDGETS, widget("w")).await.ok();
    c.post(MAPS, owned(map("m"), &owner, "example.com/v1")).await.ok();
    // While it is served, another version becomes the stored one.
    c.raw(
        "PATCH",
        &format!("{CRDS}/widgets.example.com"),
        &[("content-type", "application/merge-patch+json")],
        json!({"spec": {"versions": definition()["spec"]["versions"]}}).to_string(),
    )
    .await
    .ok();
    settle().await;
    assert_eq!(c.get(&format!("{MAPS}/m")).await.code, 200);
    c.delete(&format!("{WIDGETS}/w")).await.ok();
    gone(&c, &format!("{MAPS}/m")).await;
}

#[tokio::test]
async fn a_namespace_takes_its_custom_objects_along_and_tells_what_remains() {
    let (c, _controllers) = start().await;
    c.post(CRDS, definition()).await.ok();
    c.post("/api/v1/namespaces", json!({"metadata": {"name": "team"}})).await.ok();
    let widgets = WIDGETS.replace("default", "team");
    let mut held = widget("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    c.post(&widgets, held).await.ok();
    c.post(&widgets, widget("free")).await.ok();
    c.delete("/api/v1/namespaces/team").await.ok();
    gone(&c, &format!("{widgets}/free")).await;
    let told = async {
        loop {
            let namespace = c.get("/api/v1/namespaces/team").await.ok();
            let text = namespace["status"]["conditions"].to_string();
            if text.contains("widgets.example.com has 1 resource instances")
                && text.contains("example.com/hold in 1 resource instances")
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told).await.expect("the namespace tells what remains");
    c.merge(&format!("{widgets}/held"), json!({"metadata": {"finalizers": null}})).await.ok();
    gone(&c, "/api/v1/namespaces/team").await;
}
