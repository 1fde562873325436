//! Connections that go on in another protocol: watches over WebSocket, and whatever a proxied server speaks.

mod cluster;

use std::convert::Infallible;

use auth::User;
use client::BodyError;
use cluster::{Cluster, MAPS, PODS, map, pod};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream};
use tokio::net::TcpListener;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::task::TaskTracker;

/// A connection to the server over HTTP/1.1, by a user.
fn connect(cluster: &Cluster, user: &User) -> DuplexStream {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (server, user) = (cluster.server.clone(), user.clone());
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, user) = (server.clone(), user.clone());
        async move {
            let mut request = request.map(|body| body.map_err(BodyError::new).boxed_unsync());
            request.extensions_mut().insert(user);
            Ok::<_, Infallible>(server.handle(request).await)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
    TaskTracker::new().spawn(connection.with_upgrades());
    near
}

fn admin() -> User {
    User::authenticated("admin", &["system:masters"])
}

#[tokio::test]
async fn a_watch_over_websocket_has_a_message_for_each_event() {
    let cluster = Cluster::start().await;
    cluster.post(MAPS, map("a")).await.ok();
    for (accept, is_text) in [("application/json", true), ("application/vnd.kubernetes.protobuf", false)] {
        let mut request = format!("ws://api{MAPS}?watch=true").into_client_request().expect("a request");
        request.headers_mut().insert("accept", HeaderValue::from_static(accept));
        let (mut socket, _) = client_async(request, connect(&cluster, &admin())).await.expect("a WebSocket");
        let first = socket.next().await.expect("a message").expect("a message");
        cluster.merge(&format!("{MAPS}/a"), json!({"data": {"b": accept}})).await.ok();
        let second = socket.next().await.expect("a message").expect("a message");
        for (message, kind) in [(first, "ADDED"), (second, "MODIFIED")] {
            match message {
                Message::Text(text) if is_text => {
                    let event: Value = serde_json::from_str(&text).expect("JSON");
                    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!(kind), &json!("a")));
                }
                Message::Binary(bytes) if !is_text => {
                    // `type` is the first field of the message, without an envelope.
                    assert!(bytes[2..].starts_with(kind.as_bytes()), "{bytes:?}");
                }
                other => panic!("{accept}: {other:?}"),
            }
        }
    }
    // What is refused is refused before the connection changes.
    let refused =
        client_async(format!("ws://api{MAPS}?watch=true&fieldSelector=x%3Dy"), connect(&cluster, &admin())).await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 400));
}

#[tokio::test]
async fn a_websocket_into_a_pod_needs_the_right_to_create() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p", "n")).await.ok();
    let rules = json!([{"apiGroups": [""], "resources": ["pods/exec", "pods/portforward"], "verbs": ["get"]}]);
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    cluster.post(&format!("{rbac}/roles"), json!({"metadata": {"name": "r"}, "rules": rules})).await.ok();
    let binding = json!({
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve"}],
    });
    cluster.post(&format!("{rbac}/rolebindings"), binding).await.ok();
    let eve = User::authenticated("eve", &[]);
    for subresource in ["exec?command=sh", "portforward"] {
        let tried = client_async(format!("ws://api{PODS}/p/{subresource}"), connect(&cluster, &eve)).await;
        let Err(Error::Http(answer)) = tried else { panic!("{subresource}: no refusal") };
        let text = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
        assert_eq!(answer.status(), 403, "{text}");
        assert!(text.contains("cannot create resource"), "{text}");
    }
}

#[tokio::test]
async fn a_proxied_server_may_go_on_in_its_own_protocol() {
    let cluster = Cluster::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let status = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    cluster.post(PODS, pod("p", "n")).await.ok();
    cluster.merge(&format!("{PODS}/p/status"), status).await.ok();
    let namespace = "/api/v1/namespaces/default";
    cluster
        .post(&format!("{namespace}/services"), json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}))
        .await
        .ok();
    cluster.put_behind("web", ("", port), Some("p")).await;
    let backend = async {
        let (stream, _) = listener.accept().await.expect("a connection");
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).await.expect("a line");
        }
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n")
            .await
            .expect("write");
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("a word");
        stream.write_all(&word.to_ascii_uppercase()).await.expect("write");
        head
    };
    let client = async {
        let mut stream = BufReader::new(connect(&cluster, &admin()));
        let request = format!(
            "GET {namespace}/services/web/proxy/chat?x=1 HTTP/1.1\r\nHost: api\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: shout\r\nAuthorization: Bearer x\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("write");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            stream.read_line(&mut head).await.expect("a line");
        }
        stream.write_all(b"hello").await.expect("write");
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.expect("a word");
        (head.to_ascii_lowercase(), word)
    };
    let (asked, (answered, word)) = tokio::join!(backend, client);
    assert!(asked.starts_with("GET /chat?x=1 HTTP/1.1\r\n"), "{asked}");
    let asked = asked.to_ascii_lowercase();
    assert!(asked.contains("upgrade: shout\r\n") && !asked.contains("authorization"), "{asked}");
    assert!(answered.starts_with("http/1.1 101 ") && answered.contains("upgrade: shout\r\n"), "{answered}");
    assert_eq!(&word, b"HELLO");
}
