//! Custom objects of several versions, brought from one to another by a webhook.

mod cluster;

use std::sync::Arc;

use base64::Engine as _;
use cluster::Cluster;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A webhook that joins or splits `host` and `port`; its port, and its certificate in base64 of PEM.
async fn webhook() -> (u16, String) {
    let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let key = rustls_pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let serve = service_fn(|request: Request<Incoming>| async move {
                let body = request.into_body().collect().await?.to_bytes();
                let review: Value = serde_json::from_slice(&body).expect("a review");
                Ok::<_, hyper::Error>(Response::new(Full::new(bytes::Bytes::from(convert(&review).to_string()))))
            });
            tasks.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    });
    let pem = base64::engine::general_purpose::STANDARD.encode(issued.cert.pem());
    (port, pem)
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
    let (port, bundle) = webhook().await;
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
    let (_, bundle) = webhook().await;
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
