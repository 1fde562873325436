//! Creating, updating and patching objects.

mod cluster;

use cluster::{Cluster, DEPLOYMENTS, MAPS, PODS, deployment, map, pod, revision};
use serde_json::json;

#[tokio::test]
async fn a_created_object_gets_its_identity_and_reads_back_the_same() {
    let c = Cluster::start().await;
    let made = c.post(MAPS, map("x")).await;
    assert_eq!(made.code, 201);
    let object = made.json();
    assert_eq!((&object["kind"], &object["metadata"]["namespace"]), (&json!("ConfigMap"), &json!("default")));
    assert_eq!(object["metadata"]["uid"].as_str().map(str::len), Some(36));
    assert_eq!(revision(&object), c.store_revision());
    assert_eq!(c.get(&format!("{MAPS}/x")).await.ok(), object);
    assert_eq!(c.post(MAPS, map("x")).await.refusal(), (409, "configmaps \"x\" already exists".to_owned()));
}

#[tokio::test]
async fn a_generated_name_is_the_base_and_five_characters() {
    let c = Cluster::start().await;
    let base = "b".repeat(70);
    let made = c.post(MAPS, json!({"metadata": {"generateName": base}})).await.ok();
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert_eq!((name.len(), &name[..58]), (63, &base[..58]));
}

#[tokio::test]
async fn a_write_of_the_same_leaves_revision_and_watchers_alone() {
    let c = Cluster::start().await;
    let made = c.post(MAPS, map("x")).await.ok();
    let path = format!("{MAPS}/x");
    let mut events = c.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&made)), "").await;
    assert_eq!(c.put(&path, made.clone()).await.ok(), made);
    assert_eq!(c.merge(&path, json!({"data": {"a": "1"}})).await.ok(), made);
    c.post(MAPS, map("y")).await.ok();
    assert_eq!(events.brief().await, "ADDED y");
}

#[tokio::test]
async fn a_stale_revision_is_refused_and_none_writes_anyway() {
    let c = Cluster::start().await;
    let old = c.post(MAPS, map("x")).await.ok();
    let path = format!("{MAPS}/x");
    c.merge(&path, json!({"data": {"b": "2"}})).await.ok();
    let (code, message) = c.put(&path, old.clone()).await.refusal();
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please apply your changes to the \
         latest version and try again"
    );
    let stale = json!({"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"c": "3"}});
    assert_eq!(c.merge(&path, stale).await.code, 409);
    assert_eq!(c.put(&path, map("x")).await.ok()["data"], json!({"a": "1"}));
}

#[tokio::test]
async fn a_lease_is_not_updated_without_its_revision() {
    let c = Cluster::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    c.post(path, lease.clone()).await.ok();
    let (code, message) = c.put(&format!("{path}/l"), lease).await.refusal();
    assert_eq!(code, 422);
    assert!(
        message.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{message}"
    );
}

#[tokio::test]
async fn the_spec_counts_generations_and_status_and_metadata_do_not() {
    let c = Cluster::start().await;
    let made = c.post(DEPLOYMENTS, deployment("d")).await.ok();
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{DEPLOYMENTS}/d");
    let labelled = c.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(labelled["metadata"]["generation"], 1);
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 2}, "metadata": {"annotations": {"x": "y"}}});
    let reported = c.merge(&format!("{path}/status"), status).await.ok();
    assert_eq!((&reported["metadata"]["generation"], &reported["spec"]["replicas"]), (&json!(1), &json!(2)));
    assert_eq!((&reported["status"]["replicas"], &reported["metadata"]["annotations"]["x"]), (&json!(2), &json!("y")));
    let scaled = c.merge(&path, json!({"spec": {"replicas": 3}, "status": {"replicas": 7}})).await.ok();
    assert_eq!((&scaled["metadata"]["generation"], &scaled["status"]["replicas"]), (&json!(2), &json!(2)));
}

#[tokio::test]
async fn a_scale_reads_and_writes_the_replicas() {
    let c = Cluster::start().await;
    c.post(DEPLOYMENTS, deployment("d")).await.ok();
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = c.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["status"]["selector"]), (&json!("Scale"), &json!("app=x")));
    scale["spec"]["replicas"] = 5.into();
    assert_eq!(c.put(&path, scale.clone()).await.ok()["spec"]["replicas"], 5);
    assert_eq!(c.put(&path, scale).await.code, 409);
    assert_eq!(c.merge(&path, json!({"spec": {"replicas": 1}})).await.ok()["spec"]["replicas"], 1);
    let object = c.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn the_three_kinds_of_patch_change_what_they_say() {
    let c = Cluster::start().await;
    c.post(DEPLOYMENTS, deployment("d")).await.ok();
    let path = format!("{DEPLOYMENTS}/d");
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "s", "image": "j"}]}}}}).to_string();
    let object =
        c.raw("PATCH", &path, &[("content-type", "application/strategic-merge-patch+json")], strategic).await.ok();
    let names = |o: &serde_json::Value| -> Vec<String> {
        let list = o["spec"]["template"]["spec"]["containers"].as_array().expect("containers").clone();
        list.iter().map(|c| c["name"].as_str().expect("name").to_owned()).collect()
    };
    assert_eq!(names(&object), ["s", "c"]);
    let operations = json!([{"op": "remove", "path": "/spec/template/spec/containers/0"}]).to_string();
    let object = c.raw("PATCH", &path, &[("content-type", "application/json-patch+json")], operations).await.ok();
    assert_eq!(names(&object), ["c"]);
    let object = c.merge(&path, json!({"metadata": {"labels": {"l": "1"}}})).await.ok();
    assert_eq!(object["metadata"]["labels"], json!({"l": "1"}));
    let failing = json!([{"op": "test", "path": "/metadata/name", "value": "q"}]).to_string();
    assert_eq!(c.raw("PATCH", &path, &[("content-type", "application/json-patch+json")], failing).await.code, 422);
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let c = Cluster::start().await;
    let before = c.store_revision();
    let made = c.post(&format!("{MAPS}?dryRun=All"), map("x")).await;
    assert_eq!((made.code, made.json()["metadata"]["name"].as_str()), (201, Some("x")));
    c.post(MAPS, map("y")).await.ok();
    let changed = c.merge(&format!("{MAPS}/y?dryRun=All"), json!({"data": {"a": "2"}})).await.ok();
    assert_eq!(changed["data"]["a"], "2");
    c.delete(&format!("{MAPS}/y?dryRun=All")).await.ok();
    assert_eq!(c.get(&format!("{MAPS}/y")).await.ok()["data"]["a"], "1");
    assert_eq!(c.store_revision(), before + 1);
    assert_eq!(c.post(&format!("{MAPS}?dryRun=Some"), map("z")).await.code, 422);
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored_as_asked() {
    let c = Cluster::start().await;
    let text = r#"{"metadata":{"name":"x","foo":1},"data":{"a":"1"},"data":{"a":"2"}}"#;
    let strict = c.raw("POST", &format!("{MAPS}?fieldValidation=Strict"), &[], text).await;
    let message = r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "metadata.foo", duplicate field "data""#;
    assert_eq!(strict.refusal(), (400, message.to_owned()));
    let warned = c.raw("POST", MAPS, &[], text).await;
    assert_eq!(warned.code, 201);
    let warnings: Vec<_> = warned.headers.get_all("warning").iter().collect();
    assert_eq!(warnings, [r#"299 - "unknown field \"metadata.foo\"""#, r#"299 - "duplicate field \"data\"""#]);
    let ignored = c.raw("PUT", &format!("{MAPS}/x?fieldValidation=Ignore"), &[], text).await;
    assert_eq!((ignored.code, ignored.header("warning")), (200, ""));
    assert_eq!(c.post(&format!("{MAPS}?fieldValidation=No"), map("q")).await.code, 422);
}

#[tokio::test]
async fn a_binding_places_a_pod_once() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "")).await.ok();
    let path = format!("{PODS}/p/binding");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(c.post(&path, binding.clone()).await.code, 201);
    let placed = c.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(placed["spec"]["nodeName"], "n");
    assert_eq!(placed["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, message) = c.post(&path, binding).await.refusal();
    assert_eq!((code, message.contains("pod p is already assigned to node \"n\"")), (409, true), "{message}");
}

#[tokio::test]
async fn a_pod_learns_from_its_binding_and_of_where_its_node_is() {
    let c = Cluster::start().await;
    let labels = json!({"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1", "other": "x"});
    c.post("/api/v1/nodes", json!({"metadata": {"name": "n", "labels": labels}})).await.ok();
    c.post(PODS, pod("p", "")).await.ok();
    let metadata = json!({
        "name": "p", "annotations": {"example.com/a": "1"}, "labels": {"topology.kubernetes.io/region": "mine"},
    });
    let binding = json!({"metadata": metadata, "target": {"kind": "Node", "name": "n"}});
    assert_eq!(c.post(&format!("{PODS}/p/binding"), binding).await.code, 201);
    let placed = c.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(placed["metadata"]["annotations"], json!({"example.com/a": "1"}));
    let labels = json!({"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "mine"});
    assert_eq!(placed["metadata"]["labels"], labels);
}

#[tokio::test]
async fn a_binding_that_cannot_be_is_refused() {
    let c = Cluster::start().await;
    let mut gated = pod("gated", "");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/g"}]);
    c.post(PODS, gated).await.ok();
    let to = |name: &str, target: serde_json::Value| json!({"metadata": {"name": name}, "target": target});
    let node = json!({"kind": "Node", "name": "n"});
    let old = json!({"metadata": {"name": "gated", "resourceVersion": "1"}, "target": node});
    for (binding, code, part) in [
        (to("gated", node.clone()), 409, "pod gated has non-empty .spec.schedulingGates"),
        (to("other", node), 400, "name in URL does not match name in Binding object"),
        (to("gated", json!({"kind": "Pod", "name": "n"})), 422, "target.kind: Unsupported value: \"Pod\""),
        (old, 409, "ResourceVersion in precondition: 1"),
    ] {
        let (is, message) = c.post(&format!("{PODS}/gated/binding"), binding).await.refusal();
        assert!(is == code && message.contains(part), "{is} {message}");
    }
}

#[tokio::test]
async fn where_an_object_belongs_is_looked_at_before_its_revision() {
    let c = Cluster::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    c.post(leases, json!({"metadata": {"name": "x"}})).await.ok();
    let (code, message) = c.put(&format!("{leases}/x"), json!({"metadata": {"name": "y"}})).await.refusal();
    assert!(code == 400 && message.contains("does not match the name on the URL (x)"), "{code} {message}");
}

#[tokio::test]
async fn a_scale_is_put_where_it_says_that_it_belongs() {
    let c = Cluster::start().await;
    c.post(DEPLOYMENTS, deployment("d")).await.ok();
    let path = format!("{DEPLOYMENTS}/d/scale");
    for (metadata, part) in [
        (json!({"name": "other"}), "the name of the object (other) does not match the name on the URL (d)"),
        (json!({"name": "d", "namespace": "other"}), "the namespace of the object (other) does not match"),
        (json!({}), "name must be provided"),
    ] {
        let (code, message) = c.put(&path, json!({"metadata": metadata, "spec": {"replicas": 2}})).await.refusal();
        assert!(code == 400 && message.contains(part), "{code} {message}");
    }
}

#[tokio::test]
async fn what_is_applied_to_an_object_that_is_gone_does_not_make_another() {
    let c = Cluster::start().await;
    let mut text = map("x");
    text["metadata"]["uid"] = "u".into();
    let refused = c.patch(&format!("{MAPS}/x?fieldManager=m"), "application/apply-patch+yaml", text).await.refusal();
    let why = "Operation cannot be fulfilled on configmaps \"x\": uid mismatch: the provided object specified uid u, \
               and no existing object was found";
    assert_eq!(refused, (409, why.to_owned()));
}

#[tokio::test]
async fn a_configuration_with_a_key_twice_is_refused_with_its_line() {
    let c = Cluster::start().await;
    let text = "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: one\n  a: two\n";
    let path = format!("{MAPS}/x?fieldManager=m&fieldValidation=Strict");
    let refused = c.raw("PATCH", &path, &[("content-type", "application/apply-patch+yaml")], text).await;
    let why = "error strict decoding YAML: yaml: unmarshal errors:\n  line 5: key \"a\" already set in map";
    assert_eq!(refused.refusal(), (400, why.to_owned()));
}

#[tokio::test]
async fn concurrent_patches_without_a_revision_all_count() {
    let c = std::sync::Arc::new(Cluster::start().await);
    c.post(MAPS, map("x")).await.ok();
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..4 {
        let c = c.clone();
        tasks.spawn(async move { c.merge(&format!("{MAPS}/x"), json!({"data": {format!("k{i}"): "v"}})).await.code });
    }
    assert!(tasks.join_all().await.iter().all(|code| *code == 200));
    assert_eq!(c.get(&format!("{MAPS}/x")).await.ok()["data"].as_object().map(serde_json::Map::len), Some(5));
}

#[tokio::test]
async fn one_event_is_seen_through_both_of_its_groups() {
    let c = Cluster::start().await;
    let (core, new) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let event = json!({
        "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "R", "message": "m", "type": "Normal", "source": {"component": "s"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z", "count": 1,
    });
    c.post(core, event).await.ok();
    let seen = c.get(&format!("{new}/e")).await.ok();
    assert_eq!((&seen["apiVersion"], &seen["note"]), (&json!("events.k8s.io/v1"), &json!("m")));
    assert_eq!((&seen["regarding"]["name"], &seen["deprecatedSource"]["component"]), (&json!("p"), &json!("s")));
    let found = c.get(&format!("{new}?fieldSelector=regarding.name%3Dp")).await.ok();
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(c.get(&format!("{core}?fieldSelector=involvedObject.name%3Dq")).await.ok()["items"], json!([]));
}

impl Cluster {
    fn store_revision(&self) -> u64 {
        store::Store::revision(&*self.store)
    }
}
