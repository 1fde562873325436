//! Virtual addresses: from which ranges they come, and the objects that tell whose they are.

mod cluster;

use cluster::Cluster;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

fn service(name: &str, address: &str) -> Value {
    let mut service = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    if !address.is_empty() {
        service["spec"]["clusterIP"] = address.into();
    }
    service
}

async fn range(cluster: &Cluster, name: &str, network: &str) {
    cluster.post(RANGES, json!({"metadata": {"name": name}, "spec": {"cidrs": [network]}})).await.ok();
}

async fn set_ready(cluster: &Cluster, name: &str, status: &str) {
    let condition = json!({
        "type": "Ready", "status": status, "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    cluster.merge(&format!("{RANGES}/{name}/status"), json!({"status": {"conditions": [condition]}})).await.ok();
}

#[tokio::test]
async fn each_address_has_an_object_as_long_as_its_service() {
    let c = Cluster::start().await;
    let made = c.post(SERVICES, service("a", "10.96.1.1")).await.ok();
    assert_eq!(made["spec"]["clusterIP"], "10.96.1.1");
    let record = c.get(&format!("{ADDRESSES}/10.96.1.1")).await.ok();
    assert_eq!(record["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "a"}));
    assert_eq!(record["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    assert_eq!(record["metadata"]["labels"]["ipaddress.kubernetes.io/ip-family"], "IPv4");
    let refused = c.post(SERVICES, service("b", "10.96.1.1")).await.refusal();
    assert!(refused.1.contains("provided IP is already allocated"), "{}", refused.1);
    // Another type needs no address, and another address is another object.
    c.merge(&format!("{SERVICES}/a"), json!({"spec": {"type": "ExternalName", "externalName": "x.example"}}))
        .await
        .ok();
    assert_eq!(c.get(&format!("{ADDRESSES}/10.96.1.1")).await.code, 404);
    c.merge(&format!("{SERVICES}/a"), json!({"spec": {"type": "ClusterIP", "clusterIP": "10.96.1.2"}})).await.ok();
    assert_eq!(c.get(&format!("{ADDRESSES}/10.96.1.2")).await.code, 200);
    c.delete(&format!("{SERVICES}/a")).await.ok();
    assert_eq!(c.get(&format!("{ADDRESSES}/10.96.1.2")).await.code, 404);
    c.post(SERVICES, service("headless", "None")).await.ok();
    assert_eq!(c.get(ADDRESSES).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn an_address_that_somebody_has_is_given_to_nobody_else() {
    let c = Cluster::start().await;
    let parent = json!({"resource": "gateways", "group": "example.com", "namespace": "default", "name": "g"});
    c.post(ADDRESSES, json!({"metadata": {"name": "10.96.1.1"}, "spec": {"parentRef": parent}})).await.ok();
    let refused = c.post(SERVICES, service("a", "10.96.1.1")).await.refusal();
    assert!(refused.1.contains("provided IP is already allocated"), "{}", refused.1);
    // It stays when a Service goes.
    c.post(SERVICES, service("b", "")).await.ok();
    c.delete(&format!("{SERVICES}/b")).await.ok();
    assert_eq!(c.get(&format!("{ADDRESSES}/10.96.1.1")).await.code, 200);
}

#[tokio::test]
async fn addresses_come_from_every_range_that_is_ready_and_stays() {
    let c = Cluster::start().await;
    range(&c, "kubernetes", "10.7.0.0/30").await;
    range(&c, "more", "10.8.0.0/30").await;
    let refused = c.post(SERVICES, service("a", "")).await.refusal();
    assert!(refused.1.contains("range is full"), "none is ready: {}", refused.1);
    set_ready(&c, "kubernetes", "True").await;
    for name in ["a", "b"] {
        let made = c.post(SERVICES, service(name, "")).await.ok();
        assert!(made["spec"]["clusterIP"].as_str().expect("an address").starts_with("10.7.0."));
    }
    assert!(c.post(SERVICES, service("c", "")).await.refusal().1.contains("range is full"));
    set_ready(&c, "more", "True").await;
    let made = c.post(SERVICES, service("c", "")).await.ok();
    assert!(made["spec"]["clusterIP"].as_str().expect("an address").starts_with("10.8.0."));
    c.merge(&format!("{RANGES}/more"), json!({"metadata": {"finalizers": ["example.com/held"]}})).await.ok();
    c.delete(&format!("{RANGES}/more")).await.ok();
    assert!(c.post(SERVICES, service("d", "")).await.refusal().1.contains("range is full"));
    // Who has an address of it keeps that.
    c.merge(&format!("{SERVICES}/c"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
}
