//! Requests that go on to what pods, services and nodes serve: over loopback, to a server that tells what it hears.

mod cluster;

use std::convert::Infallible;

use auth::User;
use bytes::Bytes;
use cluster::{Answer, Cluster, PODS, pod};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

const SERVICES: &str = "/api/v1/namespaces/default/services";

/// Tells of each request; its port.
async fn teller() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serve =
                service_fn(
                    move |request: Request<Incoming>| async move { Ok::<_, Infallible>(tell(request, port).await) },
                );
            tasks.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
        }
    });
    port
}

async fn tell(request: Request<Incoming>, port: u16) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let answer = |kind: &'static str, text: String| {
        let mut answer = Response::new(Full::new(Bytes::from(text)));
        answer.headers_mut().insert("content-type", HeaderValue::from_static(kind));
        answer
    };
    match parts.uri.path() {
        "/page" => answer("text/html; charset=utf-8", "<a href=\"/next\">".to_owned()),
        "/moved" => {
            let mut moved = Response::new(Full::default());
            *moved.status_mut() = StatusCode::FOUND;
            let place = HeaderValue::from_str(&format!("http://127.0.0.1:{port}/there?x=1"));
            moved.headers_mut().insert("location", place.expect("a header"));
            moved.headers_mut().insert("access-control-allow-origin", HeaderValue::from_static("*"));
            moved
        }
        "/teapot" => {
            let mut answer = answer("text/plain", "short and stout".to_owned());
            *answer.status_mut() = StatusCode::IM_A_TEAPOT;
            answer
        }
        _ => {
            let headers: Value = (parts.headers.iter())
                .map(|(name, value)| (name.to_string(), Value::from(value.to_str().expect("text"))))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let heard = json!({
                "method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers,
                "body": String::from_utf8_lossy(&body),
            });
            answer("application/json", heard.to_string())
        }
    }
}

/// A pod with an address, and Services with the port 80: `web`, where it is called `http`, and `plain`, where it has no name,
/// lead to the pod, `stray` to the same address as if it were no pod's.
async fn web(cluster: &Cluster, port: u16) {
    cluster.post(PODS, pod("p", "n")).await.ok();
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    cluster.merge(&format!("{PODS}/p/status"), status).await.ok();
    for (name, port_name) in [("web", "http"), ("plain", ""), ("stray", "")] {
        let ports = json!([{"name": port_name, "port": 80, "targetPort": port}]);
        let service = json!({"metadata": {"name": name}, "spec": {"ports": ports}});
        cluster.post(SERVICES, service).await.ok();
        cluster.put_behind(name, (port_name, port), (name != "stray").then_some("p")).await;
    }
}

fn plain(answer: &Answer) -> (u16, String) {
    (answer.code, String::from_utf8_lossy(&answer.bytes).into_owned())
}

#[tokio::test]
async fn a_service_hears_what_the_client_says_without_its_credentials() {
    let cluster = Cluster::start().await;
    web(&cluster, teller().await).await;
    let headers = [
        ("host", "api:6443"),
        ("authorization", "Bearer secret"),
        ("cookie", "kept=1"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("te", "trailers"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let path = format!("{SERVICES}/http:web:http/proxy/a%20b//c?x=1&y=%2F");
        let heard = cluster.raw(method, &path, &headers, "the body").await.ok();
        assert_eq!((&heard["method"], &heard["body"]), (&json!(method), &json!("the body")));
        assert_eq!(heard["uri"], "/a%20b//c?x=1&y=%2F");
        let got = &heard["headers"];
        assert_eq!((&got["host"], &got["cookie"]), (&json!("api:6443"), &json!("kept=1")));
        assert_eq!(got["x-forwarded-for"], "192.0.2.1");
        assert_eq!(got["x-forwarded-uri"], format!("{SERVICES}/http:web:http/proxy/a%20b//c"));
        for gone in ["authorization", "connection", "x-hop", "te"] {
            assert_eq!(got[gone], Value::Null, "{gone}");
        }
    }
    let answer = cluster.get(&format!("{SERVICES}/plain/proxy/teapot")).await;
    assert_eq!(plain(&answer), (418, "short and stout".to_owned()));
    let head = cluster.raw("HEAD", &format!("{SERVICES}/plain:80/proxy/teapot"), &[], "").await;
    assert_eq!((plain(&head), head.header("content-length")), ((418, String::new()), "15"));
    // JSON of somebody else is not indented for people.
    let answer = cluster.raw("GET", &format!("{SERVICES}/plain/proxy/"), &[("user-agent", "curl/8")], "").await;
    assert!(!answer.bytes.contains(&b'\n'), "{:?}", answer.bytes);
}

#[tokio::test]
async fn a_proxy_without_a_path_is_redirected_to_its_folder() {
    let cluster = Cluster::start().await;
    web(&cluster, teller().await).await;
    for method in ["GET", "HEAD"] {
        let moved = cluster.raw(method, &format!("{SERVICES}/plain/proxy?method={method}"), &[], "").await;
        assert_eq!((moved.code, moved.header("location")), (301, &*format!("{SERVICES}/plain/proxy/?method={method}")));
    }
    let heard = cluster.raw("POST", &format!("{SERVICES}/plain/proxy?a=1"), &[], "").await.ok();
    assert_eq!(heard["uri"], "/?a=1");
}

#[tokio::test]
async fn links_and_redirects_lead_through_the_proxy_again() {
    let cluster = Cluster::start().await;
    web(&cluster, teller().await).await;
    let proxy = format!("{SERVICES}/plain/proxy");
    let page = cluster.get(&format!("{proxy}/page")).await;
    assert_eq!(plain(&page), (200, format!("<a href=\"{proxy}/next\">")));
    let moved = cluster.get(&format!("{proxy}/moved")).await;
    assert_eq!((moved.code, moved.header("location")), (302, &*format!("{proxy}/there?x=1")));
    assert_eq!(moved.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn who_cannot_be_reached_is_told_of_as_a_status() {
    let cluster = Cluster::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a listener").local_addr().expect("an address").port();
    web(&cluster, closed).await;
    let said = async |path: String| cluster.get(&path).await.refusal();
    assert_eq!(
        said(format!("{SERVICES}/plain/proxy/")).await,
        (503, format!("error trying to reach service: dial tcp 127.0.0.1:{closed}: connect: connection refused"))
    );
    assert_eq!(
        said(format!("{SERVICES}/web/proxy/")).await,
        (503, "no endpoints available for service \"web\"".to_owned())
    );
    assert_eq!(
        said(format!("{SERVICES}/web:90/proxy/")).await,
        (503, "no service port 90 found for service \"web\"".to_owned())
    );
    assert_eq!(
        said(format!("{SERVICES}/ftp:web:21/proxy/")).await,
        (400, "invalid service request \"ftp:web:21\"".to_owned())
    );
    assert_eq!(said(format!("{SERVICES}/none/proxy/")).await, (404, "services \"none\" not found".to_owned()));
    assert_eq!(said(format!("{PODS}/none:80/proxy/")).await, (404, "pods \"none\" not found".to_owned()));
    // The machine's own services are nobody's pods.
    assert_eq!(said(format!("{PODS}/p:80/proxy/")).await, (400, "address not allowed".to_owned()));
    assert_eq!(said(format!("{SERVICES}/stray/proxy/")).await.1, "no endpoints available for service \"stray\"");
    let missing = cluster.get(&format!("{SERVICES}/plain/proxies/")).await;
    assert_eq!(missing.code, 404);
}

#[tokio::test]
async fn the_method_says_which_right_a_proxy_needs() {
    let cluster = Cluster::start().await;
    web(&cluster, teller().await).await;
    let rules = json!([{"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get", "create"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    cluster.post(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": rules})).await.ok();
    let binding = json!({
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    cluster.post(&format!("{rbac}/rolebindings"), binding).await.ok();
    let ask = async |method: &str| {
        let user = Some(User::authenticated("eve", &[]));
        cluster.raw_as(user, method, &format!("{SERVICES}/plain/proxy/x"), &[], "").await
    };
    for (method, code) in [("GET", 200), ("HEAD", 200), ("POST", 200), ("PUT", 403), ("PATCH", 403), ("DELETE", 403)] {
        assert_eq!(ask(method).await.code, code, "{method}");
    }
    let (_, message) = ask("DELETE").await.refusal();
    assert_eq!(
        message,
        "services \"plain\" is forbidden: User \"eve\" cannot delete resource \"services/proxy\" in API group \"\" in the \
         namespace \"default\""
    );
    assert_eq!(ask("OPTIONS").await.code, 403);
}

#[tokio::test]
async fn discovery_lists_the_proxies() {
    let cluster = Cluster::start().await;
    let list = cluster.get("/api/v1").await.ok();
    for (name, kind, namespaced) in [
        ("pods/proxy", "PodProxyOptions", true),
        ("services/proxy", "ServiceProxyOptions", true),
        ("nodes/proxy", "NodeProxyOptions", false),
    ] {
        let row = list["resources"].as_array().expect("a list").iter().find(|row| row["name"] == name);
        let verbs = ["create", "delete", "get", "patch", "update"];
        let wanted = json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs});
        assert_eq!(row, Some(&wanted));
    }
    let document = cluster.get("/openapi/v3/api/v1").await.ok();
    let node = &document["paths"]["/api/v1/nodes/{name}/proxy/{path}"];
    let methods = ["delete", "get", "head", "options", "parameters", "patch", "post", "put"];
    assert_eq!(node.as_object().expect("an object").keys().collect::<Vec<_>>(), methods);
    assert_eq!(node["patch"]["operationId"], "connectCoreV1PatchNodeProxyWithPath");
}

#[tokio::test]
async fn options_of_a_log_that_make_no_sense_are_refused() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p", "n")).await.ok();
    for (query, message) in [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=-5", "sinceSeconds: Invalid value: -5: must be greater than 0"),
        ("stream=Other", "stream: Unsupported value: \"Other\": supported values: \"All\", \"Stderr\", \"Stdout\""),
    ] {
        let wanted = format!("PodLogOptions \"p\" is invalid: {message}");
        assert_eq!(cluster.get(&format!("{PODS}/p/log?{query}")).await.refusal(), (422, wanted));
    }
    for query in ["sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "tailLines=1&stream=Stdout"] {
        assert_eq!(cluster.get(&format!("{PODS}/p/log?{query}")).await.code, 422, "{query}");
    }
    assert_eq!(cluster.get(&format!("{PODS}/p/log?tailLines=x")).await.code, 400);
}
