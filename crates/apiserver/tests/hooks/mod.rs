//! A webhook in the test's process that says what a test wants it to say, and keeps what it was asked.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::peer::{self, Peer};

pub const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1";
pub const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The webhook: where it is, on which path, and the requests that it was asked about with the paths they came by.
#[derive(Clone)]
pub struct Hooks {
    pub peer: Peer,
    path: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    /// The headers `content-type` and `user-agent`, and the query, of the last question.
    pub last: Arc<Mutex<(String, Value)>>,
}

impl Hooks {
    /// Starts it. `decide` gets the path and the request, and returns the response without its uid; or what else to do:
    /// `sleep` so many seconds, answer `raw` text, a `huge` body of so many bytes, or with a `code`.
    pub async fn start(decide: impl Fn(&str, &Value) -> Value + Send + Sync + 'static) -> Self {
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let last: Arc<Mutex<(String, Value)>> = Arc::default();
        let (notes, whole) = (asked.clone(), last.clone());
        let answer = move |request: Request<Bytes>| -> peer::Answer {
            let path = request.uri().path().to_owned();
            let review: Value = serde_json::from_slice(request.body()).expect("a review");
            *whole.lock().expect("a lock") = (request.uri().query().unwrap_or_default().to_owned(), review.clone());
            notes.lock().expect("a lock").push((path.clone(), review["request"].clone()));
            let decision = decide(&path, &review["request"]);
            Box::pin(answered(review, decision))
        };
        let peer = peer::start("127.0.0.1", answer).await;
        Self { peer, path: "/".to_owned(), asked, last }
    }

    /// The same on another path.
    pub fn at(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// What it has been asked since the last call.
    pub fn take(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut *self.asked.lock().expect("a lock"))
    }

    pub fn client_config(&self) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{}", self.peer.port, self.path), "caBundle": self.peer.bundle})
    }
}

async fn answered(review: Value, mut decision: Value) -> Response<Full<Bytes>> {
    if let Some(seconds) = decision["sleep"].as_u64() {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        decision["allowed"] = true.into();
    }
    if let Some(text) = decision["raw"].as_str() {
        return Response::new(Full::new(Bytes::from(text.to_owned())));
    }
    if let Some(length) = decision["huge"].as_u64() {
        return Response::new(Full::new(Bytes::from(vec![b' '; usize::try_from(length).expect("a length")])));
    }
    if let Some(code) = decision["code"].as_u64() {
        let mut response = Response::new(Full::new(Bytes::from_static(b"out of order")));
        *response.status_mut() = u16::try_from(code).expect("a code").try_into().expect("a code");
        return response;
    }
    if decision["uid"].is_null() {
        decision["uid"] = review["request"]["uid"].clone();
    }
    let kind = decision["kind"].as_str().unwrap_or("AdmissionReview").to_owned();
    peer::document(&json!({"kind": kind, "apiVersion": review["apiVersion"], "response": decision}))
}

/// Consent, with a JSON patch.
pub fn patch(operations: Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// A configuration of some webhooks. Its kind is told by where it is sent.
pub fn configuration(name: &str, hooks: impl IntoIterator<Item = Value>) -> Value {
    json!({"metadata": {"name": name}, "webhooks": hooks.into_iter().collect::<Vec<_>>()})
}

/// One entry of a configuration.
pub fn entry(hooks: &Hooks, name: &str, rules: Value) -> Value {
    json!({
        "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"], "rules": rules,
        "clientConfig": hooks.client_config(),
    })
}

/// A definition of widgets in two versions.
pub fn widgets() -> Value {
    let data = json!({"type": "object", "properties": {
        "given": {"type": "string"}, "mutation": {"type": "string"}, "kind": {"type": "string"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"data": data}}});
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}},
                {"name": "v2", "served": true, "storage": false, "schema": schema, "subresources": {"status": {}}},
            ],
        },
    })
}
