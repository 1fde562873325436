//! Versions of API groups that somebody else answers for.

mod cluster;
mod peer;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::Cluster;
use controllers::Manager;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use peer::Peer;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// An API of pies, which tells who asks.
async fn pies() -> Peer {
    let answer = |request: Request<Bytes>| -> peer::Answer {
        let answer = answer(&request);
        Box::pin(async move { answer })
    };
    peer::start("pies.default.svc", answer).await
}

fn answer(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let header = |name: &str| -> Vec<&str> {
        request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    };
    let document = match request.uri().path() {
        "/apis/pies.example.com/v1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "pies.example.com/v1",
            "resources": [{"name": "pies", "singularName": "pie", "namespaced": true, "kind": "Pie", "verbs": ["get", "list"]}],
        }),
        "/apis/pies.example.com/v1/namespaces/default/pies/a" => json!({
            "kind": "Pie", "apiVersion": "pies.example.com/v1", "metadata": {"name": "a"},
            "user": header("x-remote-user"), "groups": header("x-remote-group"), "credentials": header("authorization"),
        }),
        "/openapi/v2" => json!({
            "swagger": "2.0",
            "paths": {"/apis/pies.example.com/v1/namespaces/{namespace}/pies": {"get": {"responses": {"200": {
                "description": "OK", "schema": {"$ref": "#/definitions/com.example.pies.v1.Pie"}}}}}, "/healthz": {}},
            "definitions": {
                "com.example.pies.v1.Pie": {"type": "object", "properties": {
                    "metadata": {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}}},
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"type": "object", "description": "Of a pie."},
            },
        }),
        _ => {
            let mut refused = Response::new(Full::new(Bytes::from_static(b"404 page not found\n")));
            *refused.status_mut() = StatusCode::NOT_FOUND;
            return refused;
        }
    };
    peer::document(&document)
}

/// A Service and the address behind it.
async fn service(cluster: &Cluster, port: u16) {
    let service =
        json!({"metadata": {"name": "pies"}, "spec": {"ports": [{"port": 443, "name": "https"}], "clusterIP": "None"}});
    cluster.post("/api/v1/namespaces/default/services", service).await.ok();
    cluster.put_behind("pies", ("https", port), None).await;
}

fn api_service(bundle: &str) -> Value {
    json!({
        "metadata": {"name": "v1.pies.example.com"},
        "spec": {"group": "pies.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
            "caBundle": bundle, "service": {"namespace": "default", "name": "pies"}},
    })
}

async fn condition(cluster: &Cluster, status: &str) -> Value {
    for _ in 0..500 {
        let service = cluster.get(&format!("{SERVICES}/v1.pies.example.com")).await.ok();
        let condition = &service["status"]["conditions"][0];
        if condition["status"] == status {
            return condition.clone();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the API did not become {status}");
}

#[tokio::test]
async fn requests_are_passed_on_with_the_user_in_headers() {
    let cluster = Cluster::start().await;
    let Peer { port, bundle, .. } = pies().await;
    service(&cluster, port).await;
    cluster.post(SERVICES, api_service(&bundle)).await.ok();
    assert_eq!(condition(&cluster, "True").await["reason"], "Passed");
    let groups = cluster.get("/apis").await.ok()["groups"].to_string();
    assert!(groups.contains("pies.example.com/v1"), "{groups}");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = cluster.raw("GET", "/apis", &[("accept", accept)], "").await.ok();
    let group = all["items"].as_array().expect("items").iter().find(|g| g["metadata"]["name"] == "pies.example.com");
    assert_eq!(group.expect("the group")["versions"][0]["resources"][0]["singularResource"], "pie");
    let document = cluster.get("/openapi/v2").await.ok();
    assert!(document["paths"]["/apis/pies.example.com/v1/namespaces/{namespace}/pies"]["get"].is_object());
    assert!(document["paths"]["/apis/apps/v1/deployments"].is_object() && document["paths"]["/healthz"].is_null());
    let (definitions, meta) = (&document["definitions"], "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let of_pies = &definitions["com.example.pies.v1.Pie"]["properties"]["metadata"]["$ref"];
    assert_eq!(*of_pies, format!("#/definitions/{meta}_v2"));
    assert_eq!(definitions[format!("{meta}_v2")]["description"], "Of a pie.");
    assert!(definitions[meta]["properties"]["ownerReferences"].is_object());
    let headers = [("x-remote-user", "somebody-else"), ("authorization", "Basic secret")];
    let pie = cluster.raw("GET", "/apis/pies.example.com/v1/namespaces/default/pies/a", &headers, "").await.ok();
    assert_eq!(pie["user"], json!(["admin"]));
    assert_eq!(pie["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(pie["credentials"], json!([]));
    assert_eq!(cluster.get("/apis/pies.example.com/v1/nothing").await.code, 404);
    cluster.delete(&format!("{SERVICES}/v1.pies.example.com")).await.ok();
    assert_eq!(cluster.get("/apis/pies.example.com/v1").await.code, 404);
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_the_objects_of_aggregated_apis_with_it() {
    let cluster = Cluster::start().await;
    let stored: Arc<Mutex<Vec<&str>>> = Arc::new(Mutex::new(vec!["a", "b"]));
    let oven = stored.clone();
    let Peer { port, bundle, .. } = peer::start("pies.default.svc", move |request: Request<Bytes>| -> peer::Answer {
        let mut stored = oven.lock().expect("a lock");
        let document = match (request.method().as_str(), request.uri().path()) {
            ("GET", "/apis/pies.example.com/v1") => json!({
                "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "pies.example.com/v1",
                "resources": [
                    {"name": "pies", "namespaced": true, "kind": "Pie", "verbs": ["delete", "deletecollection", "list"]},
                    {"name": "pies/crust", "namespaced": true, "kind": "Pie", "verbs": ["delete"]},
                    {"name": "tastes", "namespaced": true, "kind": "Taste", "verbs": ["list"]},
                ],
            }),
            (method, "/apis/pies.example.com/v1/namespaces/party/pies") => {
                let items: Vec<Value> = stored.iter().map(|name| json!({"metadata": {"name": name}})).collect();
                if method == "DELETE" {
                    // One goes at a time.
                    stored.pop();
                }
                json!({"kind": "PieList", "metadata": {}, "items": items})
            }
            _ => json!({}),
        };
        Box::pin(async move { peer::document(&document) })
    })
    .await;
    service(&cluster, port).await;
    cluster.post(SERVICES, api_service(&bundle)).await.ok();
    condition(&cluster, "True").await;
    let admin = || auth::User::authenticated("admin", &["system:masters"]);
    let server = cluster.server.clone();
    let manager = Manager::new(server.client(admin()), move |_| server.client(admin()), String::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(manager.run(CancellationToken::new()));
    let namespaces = "/api/v1/namespaces";
    cluster.post(namespaces, json!({"metadata": {"name": "party"}})).await.ok();
    cluster.delete(&format!("{namespaces}/party")).await.ok();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let party = cluster.get(&format!("{namespaces}/party")).await;
        if party.code == 404 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the namespace stays: {}", party.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(stored.lock().expect("a lock").is_empty());
}

#[tokio::test]
async fn an_api_that_does_not_answer_is_listed_as_stale() {
    let cluster = Cluster::start().await;
    let Peer { bundle, .. } = pies().await;
    cluster.post(SERVICES, api_service(&bundle)).await.ok();
    assert_eq!(condition(&cluster, "False").await["reason"], "ServiceNotFound");
    let (code, message) = cluster.get("/apis/pies.example.com/v1/namespaces/default/pies/a").await.refusal();
    assert_eq!((code, message.as_str()), (503, "service unavailable"));
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = cluster.raw("GET", "/apis", &[("accept", accept)], "").await.ok();
    let group = all["items"].as_array().expect("items").iter().find(|g| g["metadata"]["name"] == "pies.example.com");
    assert_eq!(
        group.expect("the group")["versions"][0],
        json!({"version": "v1", "resources": [], "freshness": "Stale"})
    );
    // What the server answers itself cannot be taken from it.
    let mut apps = api_service(&bundle);
    apps["metadata"]["name"] = "v1.apps".into();
    apps["spec"]["group"] = "apps".into();
    cluster.post(SERVICES, apps).await.ok();
    assert_eq!(cluster.get("/apis/apps/v1").await.code, 200);
}
