//! Custom objects of several versions, brought from one to another by a webhook.

mod cluster;
mod peer;

use bytes::Bytes;
use cluster::Cluster;
use http::Request;
use peer::Peer;
use serde_json::{Value, json};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A webhook that joins or splits `host` and `port`.
async fn webhook() -> Peer {
    let answer = |request: Request<Bytes>| -> peer::Answer {
        let review: Value = serde_json::from_slice(request.body()).expect("a review");
        Box::pin(async move { peer::document(&convert(&review)) })
    };
    peer::start("127.0.0.1", answer).await
}

fn convert(review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().expect("a version");
    let objects = request["objects"].as_array().expect("objects").iter().map(|object| {
        let mut object = object.clone();
        object["apiVersion"] = wanted.into();
        let spec = object["spec"].clone();
        object["spec"] = if wanted == "example.com/v2" {
            let (host, port) = spec["hostPort"].as_str().expect("text").split_once(':').expect("two parts");
            json!({"host": host, "port": port})
        } else {
            json!({"hostPort": format!("{}:{}", spec["host"].as_str().expect("text"), spec["port"].as_str().expect("text"))})
        };
        object
    });
    let converted: Vec<Value> = objects.collect();
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted}})
}

fn definition(port: u16, bundle: &str) -> Value {
    let schema = |fields: Value| json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}});
    json!({
        "metadata": {"name": "routes.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "routes", "kind": "Route"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema(json!({"hostPort": {"type": "string"}}))},
                {"name": "v2", "served": true, "storage": false, "schema": schema(json!({"host": {"type": "string"}, "port": {"type": "string"}}))},
            ],
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://127.0.0.1:{port}/convert"), "caBundle": bundle}}},
        },
    })
}

#[tokio::test]
async fn objects_are_read_and_written_in_every_version() {
    let cluster = Cluster::start().await;
    let Peer { port, bundle, .. } = webhook().await;
    cluster.post(CRDS, definition(port, &bundle)).await.ok();
    let (v1, v2) = ("/apis/example.com/v1/namespaces/default/routes", "/apis/example.com/v2/namespaces/default/routes");
    cluster.post(v1, json!({"metadata": {"name": "a"}, "spec": {"hostPort": "one:1"}})).await.ok();
    let made = cluster.post(v2, json!({"metadata": {"name": "b"}, "spec": {"host": "two", "port": "2"}})).await.ok();
    assert_eq!((&made["apiVersion"], &made["spec"]["host"]), (&json!("example.com/v2"), &json!("two")));
    assert_eq!(cluster.get(&format!("{v2}/a")).await.ok()["spec"], json!({"host": "one", "port": "1"}));
    assert_eq!(cluster.get(&format!("{v1}/b")).await.ok()["spec"], json!({"hostPort": "two:2"}));
    let list = cluster.get(v2).await.ok();
    let hosts: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|item| &item["spec"]["host"]).collect();
    assert_eq!(hosts, [&json!("one"), &json!("two")]);
    let changed = cluster.merge(&format!("{v2}/a"), json!({"spec": {"port": "9"}})).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    assert_eq!(cluster.get(&format!("{v1}/a")).await.ok()["spec"], json!({"hostPort": "one:9"}));
    let mut events = cluster.watch(&format!("{v2}?watch=true&timeoutSeconds=1"), "").await;
    let first = events.next().await.expect("an event");
    assert_eq!(first["object"]["spec"], json!({"host": "one", "port": "9"}));
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_is_named() {
    let cluster = Cluster::start().await;
    let Peer { bundle, .. } = webhook().await;
    // Nobody listens on the port of discarded data.
    cluster.post(CRDS, definition(9, &bundle)).await.ok();
    let v2 = "/apis/example.com/v2/namespaces/default/routes";
    let (code, message) = cluster.post(v2, json!({"metadata": {"name": "b"}, "spec": {"host": "x"}})).await.refusal();
    assert_eq!(code, 500);
    assert!(
        message.contains(
            "conversion webhook for example.com/v2, Kind=Route failed: Post \"https://127.0.0.1:9/convert?timeout=30s\""
        ),
        "{message}"
    );
    assert_eq!(cluster.get("/apis/example.com/v1/namespaces/default/routes").await.ok()["items"], json!([]));
}
