//! An API server in the test's process, over a log in memory, and short ways to speak to it.
#![allow(dead_code, reason = "each test binary uses its part of this")]

pub mod listening;

use std::sync::Arc;
use std::time::Duration;

use apiserver::{ApiServer, KubeletClient};
use auth::{TokenKey, User};
use bytes::Bytes;
use client::Body;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use store::{Durability, Expect, LogStore, MemoryLog, Op, Store as _, Write};

/// Where most tests keep their objects.
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Pods of the same namespace.
pub const PODS: &str = "/api/v1/namespaces/default/pods";
/// Accounts of the same namespace.
pub const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
/// Deployments of the same namespace.
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server and its store.
pub struct Cluster {
    pub server: Arc<ApiServer>,
    pub store: Arc<LogStore>,
}

/// One answer, read to its end.
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as it is.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.bytes))
    }

    /// The object of a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.code), "{} {}", self.code, String::from_utf8_lossy(&self.bytes));
        self.json()
    }

    /// Code and message of a refusal.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        let status = self.json();
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(self.code)), "{status}");
        (self.code, status["message"].as_str().expect("a message").to_owned())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().expect("text"))
    }
}

impl Cluster {
    /// A server with the namespace `default`, its account, and the roles that every cluster has.
    pub async fn start() -> Self {
        let cluster = Self::over(LogStore::open(MemoryLog::default()).expect("open store"));
        cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "default"}})).await.ok();
        cluster.post(ACCOUNTS, json!({"metadata": {"name": "default"}})).await.ok();
        for object in auth::bootstrap::objects() {
            let plural = format!("{}s", object["kind"].as_str().expect("a kind").to_lowercase());
            cluster.post(&format!("/apis/rbac.authorization.k8s.io/v1/{plural}"), object).await.ok();
        }
        cluster
    }

    /// A server over what is stored already.
    pub fn over(store: Arc<LogStore>) -> Self {
        let tls = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let pair = rcgen::KeyPair::generate().expect("key");
        let tokens = TokenKey::new(&pair.serialize_der(), pair.public_key_raw()).expect("key");
        let kubelet = KubeletClient { tls: Arc::new(tls) };
        let server = ApiServer::new(store.clone(), kubelet, tokens, "127.0.0.1:6443".to_owned()).expect("server");
        server.set_ready();
        Self { server, store }
    }

    /// Any request by an administrator; headers as `name: value`.
    pub async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let user = User::authenticated("admin", &["system:masters"]);
        self.raw_as(Some(user), method, path, headers, body).await
    }

    pub async fn raw_as(
        &self,
        user: Option<User>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(client::full(body)).expect("a request");
        if let Some(user) = user {
            request.extensions_mut().insert(user);
        }
        let (parts, body) = self.server.handle(request).await.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, body.collect()).await.expect("an end").expect("a body").to_bytes();
        Answer { code: parts.status.as_u16(), headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.raw("GET", path, &[], "").await
    }

    pub async fn post(&self, path: &str, object: Value) -> Answer {
        self.raw("POST", path, &[], object.to_string()).await
    }

    pub async fn put(&self, path: &str, object: Value) -> Answer {
        self.raw("PUT", path, &[], object.to_string()).await
    }

    pub async fn merge(&self, path: &str, patch: Value) -> Answer {
        self.raw("PATCH", path, &[("content-type", "application/merge-patch+json")], patch.to_string()).await
    }

    pub async fn patch(&self, path: &str, content_type: &str, patch: Value) -> Answer {
        self.raw("PATCH", path, &[("content-type", content_type)], patch.to_string()).await
    }

    /// Puts a port of this machine behind a Service, as if it were that of a pod, where one is named. Clients may not name
    /// loopback addresses, so it is put into the store.
    pub async fn put_behind(&self, service: &str, port: (&str, u16), pod: Option<&str>) {
        let mut endpoint = json!({"addresses": ["127.0.0.1"]});
        if let Some(name) = pod {
            endpoint["targetRef"] = json!({"kind": "Pod", "namespace": "default", "name": name});
        }
        let labels = json!({"kubernetes.io/service-name": service});
        let ports = json!([{"name": port.0, "port": port.1}]);
        // Objects are stored without what all of them begin with.
        let slice = format!(
            r#""name":"{service}-1","namespace":"default","labels":{labels}}},"addressType":"IPv4","endpoints":[{endpoint}],"ports":{ports}}}"#
        );
        let key = format!("endpointslices/default/{service}-1");
        let write = Write { key, expect: Expect::Absent, op: Op::Put(slice.into()), durability: Durability::Synced };
        self.store.write(write).await.expect("written");
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.raw("DELETE", path, &[], "").await
    }

    /// A watch; `accept` may be empty.
    pub async fn watch(&self, path: &str, accept: &str) -> Events {
        let mut request = Request::get(path);
        if !accept.is_empty() {
            request = request.header("accept", accept);
        }
        let mut request = request.body(client::empty()).expect("a request");
        request.extensions_mut().insert(User::authenticated("admin", &["system:masters"]));
        let response = self.server.handle(request).await;
        assert_eq!(response.status(), 200, "watch {path}");
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The stream of a watch.
pub struct Events {
    body: Body,
    buffer: Vec<u8>,
}

impl Events {
    async fn more(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time");
        match frame {
            Some(frame) => {
                self.buffer.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
                true
            }
            None => false,
        }
    }

    /// The next event; `None` at the end of the watch.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("an event"));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The next event as `TYPE name`.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().expect("a type"))
    }

    /// The next length-prefixed frame of a protobuf watch.
    pub async fn frame(&mut self) -> Vec<u8> {
        loop {
            if let Some((length, rest)) = self.buffer.split_first_chunk::<4>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let frame = rest[..length].to_vec();
                    self.buffer.drain(..4 + length);
                    return frame;
                }
            }
            assert!(self.more().await, "the watch ended");
        }
    }
}

/// A ConfigMap.
pub fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

/// A ConfigMap with a label `tier`.
pub fn labelled(name: &str, tier: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"tier": tier}}})
}

/// A pod, on a node unless that is empty.
pub fn pod(name: &str, node: &str) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    if !node.is_empty() {
        pod["spec"]["nodeName"] = node.into();
    }
    pod
}

/// A Deployment of two replicas.
pub fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "x"}},
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        },
    })
}

/// The revision an object or list is of.
pub fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().expect("a revision").parse().expect("a number")
}
