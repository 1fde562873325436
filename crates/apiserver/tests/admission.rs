//! What objects must satisfy beyond their own fields, and what they are completed with.

mod cluster;

use auth::User;
use cluster::{Cluster, PODS, pod};
use serde_json::{Value, json};

const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";
const RUNTIMES: &str = "/apis/node.k8s.io/v1/runtimeclasses";
const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A pod with something more in its spec.
fn pod_with(name: &str, more: Value) -> Value {
    let mut pod = pod(name, "");
    for (key, value) in more.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

#[tokio::test]
async fn a_pod_has_the_priority_of_its_class_or_of_the_default() {
    let c = Cluster::start().await;
    let spec = c.post(PODS, pod("plain", "")).await.ok()["spec"].clone();
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(0), &json!("PreemptLowerPriority")));
    c.post(CLASSES, json!({"metadata": {"name": "high"}, "value": 7, "preemptionPolicy": "Never"})).await.ok();
    let spec = c.post(PODS, pod_with("high", json!({"priorityClassName": "high"}))).await.ok()["spec"].clone();
    assert_eq!((&spec["priority"], &spec["preemptionPolicy"]), (&json!(7), &json!("Never")));
    let class = json!({"metadata": {"name": "low"}, "value": 1, "globalDefault": true});
    c.post(CLASSES, class).await.ok();
    let spec = c.post(PODS, pod("low", "")).await.ok()["spec"].clone();
    assert_eq!((&spec["priority"], &spec["priorityClassName"]), (&json!(1), &json!("low")));
    let second = c.post(CLASSES, json!({"metadata": {"name": "b"}, "value": 2, "globalDefault": true})).await;
    assert_eq!(
        second.refusal(),
        (
            403,
            "priorityclasses.scheduling.k8s.io \"b\" is forbidden: PriorityClass low is already marked as default. Only one \
             default can exist"
                .to_owned()
        )
    );
    let unknown = c.post(PODS, pod_with("x", json!({"priorityClassName": "none"}))).await.refusal();
    assert_eq!(unknown, (403, "pods \"x\" is forbidden: no PriorityClass with name none was found".to_owned()));
    let (code, why) = c.post(PODS, pod_with("x", json!({"priority": 3}))).await.refusal();
    assert!(code == 403 && why.contains("the integer value of priority (3) must not be provided"), "{why}");
}

#[tokio::test]
async fn a_pod_runs_as_its_runtime_class_says() {
    let c = Cluster::start().await;
    let unknown = c.post(PODS, pod_with("x", json!({"runtimeClassName": "none"}))).await.refusal();
    assert_eq!(unknown, (403, "pods \"x\" is forbidden: pod rejected: RuntimeClass \"none\" not found".to_owned()));
    let class = json!({
        "metadata": {"name": "small"}, "handler": "runc", "overhead": {"podFixed": {"memory": "10Mi"}},
        "scheduling": {"nodeSelector": {"runtime": "small"}},
    });
    c.post(RUNTIMES, class).await.ok();
    let spec = c.post(PODS, pod_with("y", json!({"runtimeClassName": "small"}))).await.ok()["spec"].clone();
    assert_eq!(spec["overhead"], json!({"memory": "10Mi"}));
    assert_eq!(spec["nodeSelector"], json!({"runtime": "small"}));
}

#[tokio::test]
async fn limits_of_a_namespace_fill_in_and_refuse() {
    let c = Cluster::start().await;
    let limits = json!([{
        "type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "default": {"cpu": "500m"},
    }]);
    c.post(LIMITS, json!({"metadata": {"name": "l"}, "spec": {"limits": limits}})).await.ok();
    let made = c.post(PODS, pod("fits", "")).await.ok();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}}));
    assert_eq!(made["status"]["qosClass"], "Burstable");
    let mut large = pod("large", "");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    assert_eq!(
        c.post(PODS, large).await.refusal(),
        (403, "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2".to_owned())
    );
}

#[tokio::test]
async fn a_request_for_a_certificate_is_somebodys_and_another_consents() {
    let c = Cluster::start().await;
    let row = kinds::resource("certificates.k8s.io", "v1", "certificatesigningrequests").expect("in the table");
    let mut request = schema::decode_yaml(row.ty(), row.example.as_bytes()).expect("decodes").value;
    request["spec"]["username"] = "somebody else".into();
    let made = c.post(REQUESTS, request).await.ok();
    assert_eq!((&made["spec"]["username"], &made["spec"]["groups"][0]), (&json!("admin"), &json!("system:masters")));
    assert_eq!(made["status"], json!({}));
    let path = format!("{REQUESTS}/example");
    let mut approved = made.clone();
    approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "Ok"}]);
    approved["spec"]["usages"] = json!(["server auth"]);
    // Consent is given at its own place only, and there nothing else is changed.
    let (code, why) = c.put(&format!("{path}/status"), approved.clone()).await.refusal();
    assert!(code == 422 && why.contains("updates may not add a condition of type \"Approved\""), "{why}");
    approved["metadata"]["resourceVersion"] = Value::Null;
    let done = c.put(&format!("{path}/approval"), approved.clone()).await.ok();
    assert_eq!(done["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(done["spec"], made["spec"]);
    assert!(done["status"]["conditions"][0]["lastTransitionTime"].is_string());
    let user = User::authenticated("bob", &[]);
    let denied = c.raw_as(Some(user), "PUT", &format!("{path}/approval"), &[], approved.to_string()).await;
    assert_eq!(denied.code, 403);
    approved["status"]["conditions"] = json!([]);
    let (code, why) = c.put(&format!("{path}/approval"), approved).await.refusal();
    assert!(code == 422 && why.contains("updates may not remove a condition of type \"Approved\""), "{why}");
}

#[tokio::test]
async fn parts_of_a_pod_are_changed_at_places_of_their_own() {
    let c = Cluster::start().await;
    let made = c.post(PODS, pod("web", "")).await.ok();
    let path = format!("{PODS}/web");
    let debugger = json!({"spec": {"ephemeralContainers": [{"name": "debugger", "image": "busybox:1"}]}});
    assert_eq!(c.merge(&path, debugger.clone()).await.code, 422);
    let changed = c.merge(&format!("{path}/ephemeralcontainers"), debugger).await.ok();
    assert_eq!(changed["spec"]["ephemeralContainers"][0]["name"], "debugger");
    assert_eq!((&made["metadata"]["generation"], &changed["metadata"]["generation"]), (&json!(1), &json!(2)));
    let without = c.merge(&format!("{path}/ephemeralcontainers"), json!({"spec": {"ephemeralContainers": null}})).await;
    assert!(without.refusal().1.contains("may not be removed"));
    let name = &made["spec"]["containers"][0]["name"];
    let more = json!({"spec": {"containers": [{"name": name, "resources": {"requests": {"cpu": "100m"}}}]}});
    let answer = c
        .raw(
            "PATCH",
            &format!("{path}/resize"),
            &[("content-type", "application/strategic-merge-patch+json")],
            more.to_string(),
        )
        .await;
    let (code, why) = answer.refusal();
    assert!(code == 422 && why.contains("Pod QOS Class may not change as a result of resizing"), "{why}");
}

#[tokio::test]
async fn what_is_not_stored_is_answered() {
    let c = Cluster::start().await;
    let answer = c.get("/api/v1/componentstatuses").await;
    assert_eq!(answer.header("warning"), "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let list = answer.ok();
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("ComponentStatusList"), Some(3)));
    let store = c.get("/api/v1/componentstatuses/etcd-0").await.ok();
    assert_eq!(store["conditions"][0]["status"], "True");
    assert_eq!(c.get("/api/v1/componentstatuses/other").await.code, 404);
    c.post(PODS, pod("web", "")).await.ok();
    let binding = json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "node-1"}});
    assert_eq!(c.post("/api/v1/namespaces/default/bindings", binding).await.code, 201);
    assert_eq!(c.get(&format!("{PODS}/web")).await.ok()["spec"]["nodeName"], "node-1");
}
