//! Kubelets: what they may read and write.

mod cluster;

use auth::User;
use cluster::{Answer, Cluster, PODS, pod};
use serde_json::{Value, json};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const NODES: &str = "/api/v1/nodes";
const MERGE: (&str, &str) = ("content-type", "application/merge-patch+json");

async fn as_node(c: &Cluster, node: &str, method: &str, path: &str, body: Value) -> Answer {
    let user = User::authenticated(&format!("system:node:{node}"), &["system:nodes"]);
    let headers: &[(&str, &str)] = if method == "PATCH" { &[MERGE] } else { &[] };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    c.raw_as(Some(user), method, path, headers, body).await
}

async fn secret(c: &Cluster, name: &str) {
    c.post(SECRETS, json!({"metadata": {"name": name}})).await.ok();
}

#[tokio::test]
async fn a_kubelet_reads_the_secrets_of_its_pods_from_their_binding_to_their_end() {
    let c = Cluster::start().await;
    secret(&c, "mine").await;
    secret(&c, "other").await;
    let mut wanted = pod("p", "");
    wanted["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "mine"}}]);
    c.post(PODS, wanted).await.ok();
    let mine = format!("{SECRETS}/mine");
    let refused = as_node(&c, "n", "GET", &mine, Value::Null).await.refusal();
    let why = "secrets \"mine\" is forbidden: User \"system:node:n\" cannot get resource \"secrets\" in API group \"\" in \
               the namespace \"default\": no relationship found between node 'n' and this object";
    assert_eq!(refused, (403, why.to_owned()));
    c.post(&format!("{PODS}/p/binding"), json!({"target": {"name": "n"}})).await.ok();
    as_node(&c, "n", "GET", &mine, Value::Null).await.ok();
    let one = format!("{SECRETS}?fieldSelector=metadata.name%3Dmine");
    as_node(&c, "n", "GET", &one, Value::Null).await.ok();
    assert_eq!(as_node(&c, "m", "GET", &mine, Value::Null).await.code, 403);
    assert_eq!(as_node(&c, "n", "GET", &format!("{SECRETS}/other"), Value::Null).await.code, 403);
    assert_eq!(as_node(&c, "n", "GET", SECRETS, Value::Null).await.code, 403);
    as_node(&c, "n", "DELETE", &format!("{PODS}/p?gracePeriodSeconds=0"), Value::Null).await.ok();
    assert_eq!(as_node(&c, "n", "GET", &mine, Value::Null).await.code, 403);
}

#[tokio::test]
async fn a_server_that_starts_anew_knows_what_belongs_to_which_node() {
    let c = Cluster::start().await;
    secret(&c, "mine").await;
    let mut wanted = pod("p", "n");
    wanted["spec"]["imagePullSecrets"] = json!([{"name": "mine"}]);
    c.post(PODS, wanted).await.ok();
    let again = Cluster::over(c.store.clone());
    as_node(&again, "n", "GET", &format!("{SECRETS}/mine"), Value::Null).await.ok();
    assert_eq!(as_node(&again, "m", "GET", &format!("{SECRETS}/mine"), Value::Null).await.code, 403);
}

#[tokio::test]
async fn a_kubelet_writes_its_own_node_and_no_other() {
    let c = Cluster::start().await;
    let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    let refused = as_node(&c, "n", "POST", NODES, node("m", json!({}))).await.refusal();
    assert_eq!(refused, (403, "nodes \"m\" is forbidden: node \"n\" is not allowed to modify node \"m\"".to_owned()));
    let role = json!({"node-role.kubernetes.io/control-plane": ""});
    let refused = as_node(&c, "n", "POST", NODES, node("n", role.clone())).await.refusal();
    assert!(refused.1.contains("is not allowed to set the following labels: node-role.kubernetes.io/control-plane"));
    as_node(&c, "n", "POST", NODES, node("n", json!({"kubernetes.io/hostname": "n", "room": "north"}))).await.ok();
    let own = format!("{NODES}/n");
    for (patch, why) in [
        (
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            "node \"n\" is not allowed to modify taints",
        ),
        (
            json!({"metadata": {"labels": role}}),
            "is not allowed to modify labels: node-role.kubernetes.io/control-plane",
        ),
        (
            json!({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "x"}]}}),
            "node \"n\" is not allowed to modify ownerReferences",
        ),
    ] {
        let refused = as_node(&c, "n", "PATCH", &own, patch).await.refusal();
        assert!(refused.0 == 403 && refused.1.contains(why), "{}", refused.1);
    }
    as_node(&c, "n", "PATCH", &own, json!({"metadata": {"labels": {"room": "south"}}})).await.ok();
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    as_node(&c, "n", "PATCH", &format!("{own}/status"), ready.clone()).await.ok();
    assert_eq!(as_node(&c, "m", "PATCH", &format!("{own}/status"), ready).await.code, 403);
    assert_eq!(as_node(&c, "m", "GET", &own, Value::Null).await.code, 403);
    assert_eq!(as_node(&c, "n", "DELETE", &own, Value::Null).await.code, 403);
    c.post("/api/v1/namespaces", json!({"metadata": {"name": "kube-node-lease"}})).await.ok();
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}});
    as_node(&c, "n", "POST", LEASES, lease("n")).await.ok();
    let refused = as_node(&c, "m", "POST", LEASES, lease("x")).await.refusal();
    assert!(refused.1.contains("can only access node lease with the same name as the requesting node"));
    as_node(&c, "n", "PATCH", &format!("{LEASES}/n"), json!({"spec": {"leaseDurationSeconds": 40}})).await.ok();
    assert_eq!(as_node(&c, "m", "GET", &format!("{LEASES}/n"), Value::Null).await.code, 403);
}

#[tokio::test]
async fn a_kubelet_tells_of_its_pods_and_creates_mirrors_alone() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "n")).await.ok();
    let status = format!("{PODS}/p/status");
    as_node(&c, "n", "PATCH", &status, json!({"status": {"phase": "Running"}})).await.ok();
    let refused = as_node(&c, "m", "PATCH", &status, json!({"status": {"phase": "Failed"}})).await.refusal();
    assert!(refused.1.contains("node \"m\" can only update pod status for pods with spec.nodeName set to itself"));
    let refused = as_node(&c, "m", "DELETE", &format!("{PODS}/p"), Value::Null).await.refusal();
    assert!(refused.1.contains("node \"m\" can only delete pods with spec.nodeName set to itself"));
    let eviction = json!({"metadata": {"name": "p"}});
    let refused = as_node(&c, "m", "POST", &format!("{PODS}/p/eviction"), eviction).await.refusal();
    assert!(refused.1.contains("node m can only evict pods with spec.nodeName set to itself"));
    let list = |node: &str| format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{node}");
    assert_eq!(as_node(&c, "n", "GET", &list("n"), Value::Null).await.ok()["items"][0]["metadata"]["name"], "p");
    let refused = as_node(&c, "n", "GET", &list("m"), Value::Null).await.refusal();
    assert!(refused.1.ends_with("can only list/watch pods with spec.nodeName field selector"));
    let refused = as_node(&c, "n", "POST", PODS, pod("q", "n")).await.refusal();
    assert!(refused.1.contains("node \"n\" can only create mirror pods"), "{}", refused.1);
    let node = c.post(NODES, json!({"metadata": {"name": "n"}})).await.ok();
    let mut mirror = pod("q", "n");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let owner =
        json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": node["metadata"]["uid"], "controller": true});
    mirror["metadata"]["ownerReferences"] = json!([owner]);
    let mut curious = mirror.clone();
    curious["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "other"}}]);
    let refused = as_node(&c, "n", "POST", PODS, curious).await.refusal();
    assert!(refused.1.contains("node \"n\" can not create pods that reference secrets"), "{}", refused.1);
    as_node(&c, "n", "POST", PODS, mirror).await.ok();
}

#[tokio::test]
async fn a_kubelet_gets_tokens_for_its_pods() {
    let c = Cluster::start().await;
    let made = c.post(PODS, pod("p", "n")).await.ok();
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let reference =
        |uid: &Value| json!({"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid}}});
    let uid = &made["metadata"]["uid"];
    as_node(&c, "n", "POST", path, reference(uid)).await.ok();
    let refused = as_node(&c, "m", "POST", path, reference(uid)).await.refusal();
    assert!(refused.1.ends_with("no relationship found between node 'm' and this object"), "{}", refused.1);
    let refused = as_node(&c, "n", "POST", path, reference(&json!(""))).await.refusal();
    assert!(refused.1.contains("node requested token with a pod binding without a uid"), "{}", refused.1);
    let mut other = reference(uid);
    other["spec"]["audiences"] = json!(["vault"]);
    let refused = as_node(&c, "n", "POST", path, other).await.refusal();
    assert!(refused.1.contains("audience \"vault\" not found in pod spec volume"), "{}", refused.1);
    let refused = as_node(&c, "n", "POST", path, json!({})).await.refusal();
    assert!(refused.1.contains("node requested token not bound to a pod"), "{}", refused.1);
}

#[tokio::test]
async fn reviews_say_what_a_kubelet_may() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "n")).await.ok();
    let ask = |node: &str| {
        json!({"spec": {
            "user": format!("system:node:{node}"), "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default", "name": "p"},
        }})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    assert_eq!(c.post(path, ask("n")).await.ok()["status"]["allowed"], true);
    let refused = c.post(path, ask("m")).await.ok();
    assert_eq!(refused["status"]["reason"], "no relationship found between node 'm' and this object");
    let list = |requirement: Value| {
        json!({"spec": {
            "user": "system:node:n", "groups": ["system:nodes"],
            "resourceAttributes": {"verb": "list", "resource": "pods", "fieldSelector": {"requirements": [requirement]}},
        }})
    };
    let of = |node: &str| list(json!({"key": "spec.nodeName", "operator": "In", "values": [node]}));
    assert_eq!(c.post(path, of("n")).await.ok()["status"]["allowed"], true);
    assert_eq!(c.post(path, of("m")).await.ok()["status"]["allowed"], false);
}
