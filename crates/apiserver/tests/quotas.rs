//! Quotas: what a namespace may use together, and that it never uses more.

mod cluster;
mod hooks;
mod peer;

use std::sync::Arc;
use std::time::Duration;

use auth::User;
use cluster::{Cluster, DEPLOYMENTS, MAPS, PODS, deployment, map, pod};
use controllers::Manager;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

fn quota(name: &str, hard: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hard": hard}})
}

/// A pod whose container asks for something.
fn asking(name: &str, resources: Value) -> Value {
    let mut pod = pod(name, "");
    pod["spec"]["containers"][0]["resources"] = resources;
    pod
}

async fn used(cluster: &Cluster, name: &str) -> Value {
    cluster.get(&format!("{QUOTAS}/{name}")).await.ok()["status"]["used"].clone()
}

/// Controllers beside a cluster, which end with the set.
fn controllers(cluster: &Cluster) -> JoinSet<()> {
    let admin = || User::authenticated("admin", &["system:masters"]);
    let server = cluster.server.clone();
    let manager = Manager::new(server.client(admin()), move |_| server.client(admin()), String::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(manager.run(CancellationToken::new()));
    tasks
}

/// Waits until a quota tells this of its use.
async fn until(cluster: &Cluster, name: &str, wanted: Value) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let quota = cluster.get(&format!("{QUOTAS}/{name}")).await.ok();
        if quota["status"]["used"] == wanted && quota["status"]["hard"] == quota["spec"]["hard"] {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{wanted}, and not {}", quota["status"]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_exceeds_a_quota_is_refused_with_its_numbers() {
    let cluster = Cluster::start().await;
    cluster.post(QUOTAS, quota("q", json!({"pods": "1", "requests.cpu": "500m"}))).await.ok();
    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    let (code, message) = cluster.post(PODS, asking("big", cpu("1"))).await.refusal();
    let text = "pods \"big\" is forbidden: exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=0, limited: \
                requests.cpu=500m";
    assert_eq!((code, message.as_str()), (403, text));
    cluster.post(PODS, asking("a", cpu("400m"))).await.ok();
    assert_eq!(used(&cluster, "q").await, json!({"pods": "1", "requests.cpu": "400m"}));
    let (_, message) = cluster.post(PODS, asking("b", cpu("50m"))).await.refusal();
    let text = "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    assert_eq!(message, text);
    let (_, message) = cluster.post(PODS, pod("c", "")).await.refusal();
    assert_eq!(message, "pods \"c\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    // What has gone is free at once.
    cluster.raw("DELETE", &format!("{PODS}/a?gracePeriodSeconds=0"), &[], "").await.ok();
    cluster.post(PODS, asking("b", cpu("50m"))).await.ok();
    assert_eq!(used(&cluster, "q").await, json!({"pods": "1", "requests.cpu": "50m"}));
}

/// Sends creations on several threads at once; the codes of their answers.
async fn at_once(cluster: &Arc<Cluster>, path: &'static str, object: fn(&str) -> Value) -> Vec<u16> {
    let mut requests = JoinSet::new();
    for n in 0..30 {
        let cluster = cluster.clone();
        requests.spawn(async move { cluster.post(path, object(&format!("n{n}"))).await.code });
    }
    requests.join_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_requests_at_once_as_many_pass_as_fit() {
    for with_controllers in [false, true] {
        let cluster = Arc::new(Cluster::start().await);
        let mut tasks = if with_controllers { controllers(&cluster) } else { JoinSet::new() };
        cluster.post(QUOTAS, quota("pods", json!({"pods": "5"}))).await.ok();
        cluster.post(QUOTAS, quota("maps", json!({"count/configmaps": "5"}))).await.ok();
        let (pods, maps) = tokio::join!(at_once(&cluster, PODS, |name| pod(name, "")), at_once(&cluster, MAPS, map));
        assert!(pods.iter().chain(&maps).all(|code| matches!(code, 201 | 403)), "{pods:?} {maps:?}");
        assert_eq!(pods.iter().filter(|code| **code == 201).count(), 5);
        for path in [PODS, MAPS] {
            // The controllers may have made a ConfigMap of their own, which counts as well.
            assert_eq!(cluster.get(path).await.ok()["items"].as_array().expect("items").len(), 5);
        }
        tasks.abort_all();
    }
}

#[tokio::test]
async fn changes_that_use_more_are_judged_too() {
    let cluster = Cluster::start().await;
    let hard = json!({
        "services": "2", "services.nodeports": "1", "services.loadbalancers": "0", "requests.storage": "3Gi",
        "gold.storageclass.storage.k8s.io/requests.storage": "2Gi", "requests.cpu": "1",
    });
    cluster.post(QUOTAS, quota("q", hard)).await.ok();
    let service = |name: &str, kind: &str, ports: &[u16]| {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port, "name": format!("p{port}")})).collect();
        json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": ports}})
    };
    cluster.post(SERVICES, service("a", "ClusterIP", &[80, 81])).await.ok();
    let one = format!("{SERVICES}/a");
    let (code, message) = cluster.merge(&one, json!({"spec": {"type": "NodePort"}})).await.refusal();
    let text = "services \"a\" is forbidden: exceeded quota: q, requested: services.nodeports=2, used: \
                services.nodeports=0, limited: services.nodeports=1";
    assert_eq!((code, message.as_str()), (403, text));
    assert_eq!(cluster.post(SERVICES, service("b", "LoadBalancer", &[80])).await.code, 403);
    cluster.post(SERVICES, service("b", "NodePort", &[80])).await.ok();
    assert_eq!(cluster.post(SERVICES, service("c", "ClusterIP", &[80])).await.code, 403);
    let noted = used(&cluster, "q").await;
    assert_eq!((&noted["services"], &noted["services.nodeports"]), (&json!("2"), &json!("1")));
    // Giving something up is always allowed.
    cluster.merge(&format!("{SERVICES}/b"), json!({"spec": {"type": "ClusterIP"}})).await.ok();
    assert_eq!(used(&cluster, "q").await["services.nodeports"], "0");

    let claim = |name: &str, class: &str, size: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class, "resources": {"requests": {"storage": size}}}})
    };
    cluster.post(CLAIMS, claim("a", "gold", "1Gi")).await.ok();
    let (_, message) = cluster.post(CLAIMS, claim("b", "gold", "1500Mi")).await.refusal();
    assert!(message.contains("requested: gold.storageclass.storage.k8s.io/requests.storage=1500Mi"), "{message}");
    cluster.post(CLAIMS, claim("b", "tin", "1500Mi")).await.ok();

    let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
    cluster.post(PODS, asking("p", cpu("600m"))).await.ok();
    let resize =
        |amount: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]}});
    let path = format!("{PODS}/p/resize");
    let strategic = "application/strategic-merge-patch+json";
    let (_, message) = cluster.patch(&path, strategic, resize("1100m")).await.refusal();
    let text = "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, \
                limited: requests.cpu=1";
    assert_eq!(message, text);
    cluster.patch(&path, strategic, resize("900m")).await.ok();
    assert_eq!(used(&cluster, "q").await["requests.cpu"], "900m");
}

#[tokio::test]
async fn scopes_choose_the_pods_that_count() {
    let cluster = Cluster::start().await;
    let scoped = |name: &str, scope: &str| {
        let mut quota = quota(name, json!({"pods": "1"}));
        quota["spec"]["scopes"] = json!([scope]);
        quota
    };
    for (name, scope) in [("best", "BestEffort"), ("not-best", "NotBestEffort"), ("ends", "Terminating")] {
        cluster.post(QUOTAS, scoped(name, scope)).await.ok();
    }
    cluster.post(PODS, pod("best", "")).await.ok();
    let (_, message) = cluster.post(PODS, pod("best-2", "")).await.refusal();
    assert!(message.contains("exceeded quota: best, requested: pods=1"), "{message}");
    let busy = |name: &str| asking(name, json!({"requests": {"memory": "1Mi"}}));
    cluster.post(PODS, busy("busy")).await.ok();
    let (_, message) = cluster.post(PODS, busy("busy-2")).await.refusal();
    assert!(message.contains("exceeded quota: not-best"), "{message}");
    assert_eq!(used(&cluster, "best").await, json!({"pods": "1"}));
    assert_eq!(used(&cluster, "ends").await, Value::Null);
}

#[tokio::test]
async fn anything_can_be_counted_and_a_dry_run_counts_nothing() {
    let cluster = Cluster::start().await;
    cluster.post(hooks::CRDS, hooks::widgets()).await.ok();
    let hard = json!({
        "count/widgets.example.com": "1", "count/deployments.apps": "1", "configmaps": "0", "resourcequotas": "2",
    });
    cluster.post(QUOTAS, quota("q", hard)).await.ok();
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = |name: &str| json!({"metadata": {"name": name}});
    cluster.post(&format!("{path}?dryRun=All"), widget("a")).await.ok();
    assert_eq!(used(&cluster, "q").await, Value::Null);
    cluster.post(path, widget("a")).await.ok();
    let (code, message) = cluster.post("/apis/example.com/v2/namespaces/default/widgets", widget("b")).await.refusal();
    let text = "widgets.example.com \"b\" is forbidden: exceeded quota: q, requested: count/widgets.example.com=1, used: \
                count/widgets.example.com=1, limited: count/widgets.example.com=1";
    assert_eq!((code, message.as_str()), (403, text));
    assert_eq!(cluster.post(&format!("{path}?dryRun=All"), widget("b")).await.code, 403);
    cluster.post(DEPLOYMENTS, deployment("a")).await.ok();
    assert_eq!(cluster.post(DEPLOYMENTS, deployment("b")).await.code, 403);
    assert_eq!(cluster.post(MAPS, json!({"metadata": {"generateName": "m-"}})).await.code, 403);
    cluster.post(QUOTAS, quota("r", json!({}))).await.ok();
    assert_eq!(cluster.post(QUOTAS, quota("s", json!({}))).await.code, 403);
    // A name that is taken costs nothing.
    cluster.merge(&format!("{QUOTAS}/q"), json!({"spec": {"hard": {"count/deployments.apps": "2"}}})).await.ok();
    assert_eq!(cluster.post(DEPLOYMENTS, deployment("a")).await.code, 409);
    cluster.post(DEPLOYMENTS, deployment("b")).await.ok();
    assert_eq!(used(&cluster, "q").await["count/deployments.apps"], "2");
}

#[tokio::test]
async fn the_controller_tells_of_new_quotas_and_of_what_has_gone() {
    let cluster = Cluster::start().await;
    let mut tasks = controllers(&cluster);
    cluster.post(hooks::CRDS, hooks::widgets()).await.ok();
    cluster.post(PODS, asking("a", json!({"requests": {"cpu": "100m"}}))).await.ok();
    let hard = json!({"pods": "5", "cpu": "1", "count/widgets.example.com": "1", "secrets": "3"});
    cluster.post(QUOTAS, quota("q", hard)).await.ok();
    let all = |pods: &str, cpu: &str, widgets: &str, secrets: &str| json!({"pods": pods, "cpu": cpu, "count/widgets.example.com": widgets, "secrets": secrets});
    until(&cluster, "q", all("1", "100m", "0", "0")).await;
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    cluster.post(path, json!({"metadata": {"name": "w"}})).await.ok();
    cluster.post("/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await.ok();
    until(&cluster, "q", all("1", "100m", "1", "1")).await;
    // Of a pod that has ended no more is told than that it is there.
    cluster.merge(&format!("{PODS}/a/status"), json!({"status": {"phase": "Succeeded"}})).await.ok();
    cluster.delete(&format!("{path}/w")).await.ok();
    cluster.delete("/api/v1/namespaces/default/secrets/s").await.ok();
    until(&cluster, "q", all("0", "0", "0", "0")).await;
    cluster.merge(&format!("{QUOTAS}/q/status"), json!({"status": {"hard": {"pods": "9"}}})).await.ok();
    until(&cluster, "q", all("0", "0", "0", "0")).await;
    tasks.abort_all();
}
