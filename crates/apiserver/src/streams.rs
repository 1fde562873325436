//! Requests that end at a node: logs, exec, attach and port-forward go on to the kubelet of the pod's node.
//!
//! Kinds named here, and why: Pod and Node, because the path of the stream leads from one to the other.

use std::sync::Arc;

use auth::Attributes;
use client::{Body, BoxError};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use object_model::{ApiError, FieldError, FieldPath, Reason, meta};
use serde_json::Value;

use crate::context::Context;
use crate::outbound::Peer;
use crate::request::{Query, ResourceRequest};
use crate::served::Served;
use crate::{ApiServer, stored};

/// The longest refusal of a kubelet that is read, in bytes.
const REFUSAL_MAX: usize = 64 << 10;

/// How the server speaks to kubelets.
#[derive(Clone)]
pub struct KubeletClient {
    /// TLS with the server's client certificate, trusting the cluster's authority.
    pub tls: Arc<rustls::ClientConfig>,
}

impl ApiServer {
    /// Passes a request for a stream of a pod on to its kubelet.
    pub(crate) async fn stream(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        incoming: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        if request.subresource == "log" {
            check_log_options(cx, &request.name)?;
        } else if request.verb == "get" {
            self.require_create(cx, request)?;
        }
        // Reading a log is no connection. What somebody makes of the options of one counts, not what the client sent.
        let connects = request.subresource != "log";
        let changed = if connects { self.admit_connect(cx, request, served, "").await? } else { None };
        let query = changed.or_else(|| incoming.uri().query().map(str::to_owned)).unwrap_or_default();
        let asked = Query::parse(&query);
        let pod = self.object(served, &request.namespace, &request.name)?;
        let container = container_of(asked.get("container"), &request.subresource, &pod)?;
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() {
            return Err(ApiError::bad_request(format!("pod {} does not have a host assigned", request.name)));
        }
        if request.subresource == "log" {
            require_started(&pod, &container, cx.query.flag("previous"))?;
        }
        let (host, port) = self.kubelet_address(node)?;
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let place = format!("{}/{}", request.namespace, request.name);
        let path = match request.subresource.as_str() {
            "log" => format!("/containerLogs/{place}/{container}{query}"),
            "portforward" => format!("/portForward/{place}{query}"),
            action => format!("/{action}/{place}/{container}{query}"),
        };
        let answer = self.forward(&host, port, &path, incoming).await;
        let answer = answer.map_err(|e| ApiError::internal(format!("error dialing backend: {e:#}")))?;
        if request.subresource == "log" && !answer.status().is_success() {
            return Err(refusal_of(answer).await);
        }
        Ok(answer)
    }

    /// A WebSocket begins with a GET, and still does what a POST does: who may only read may not open one.
    fn require_create(&self, cx: &Context, request: &ResourceRequest) -> Result<(), ApiError> {
        let refusal = self.authorize(&Attributes {
            user: &cx.user,
            verb: "create",
            group: &request.group,
            resource: format!("{}/{}", request.resource, request.subresource).into(),
            namespace: &request.namespace,
            name: &request.name,
            path: "",
            fields: "",
        });
        refusal.map_err(|why| ApiError::forbidden(&request.group, &request.resource, &request.name, &why))
    }

    /// One stored object.
    pub(crate) fn object(&self, served: &Served, namespace: &str, name: &str) -> Result<Value, ApiError> {
        let entry = self.store.get(&served.key(namespace, name)).ok_or_else(|| served.not_found(name))?;
        stored::decode(served, &entry)
    }

    pub(crate) fn kubelet_address(&self, node: &str) -> Result<(String, u16), ApiError> {
        let node_object = self.object(&Served::find("", "v1", "nodes")?, "", node)?;
        let status = &node_object["status"];
        let port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().and_then(|p| u16::try_from(p).ok());
        let address = |kind: &str| {
            let list = status["addresses"].as_array()?;
            list.iter().find(|a| a["type"] == kind)?["address"].as_str().map(str::to_owned)
        };
        match (address("InternalIP").or_else(|| address("Hostname")), port) {
            (Some(host), Some(port)) => Ok((host, port)),
            _ => {
                Err(ApiError::new(Reason::ServiceUnavailable, format!("node {node} has not reported its address yet")))
            }
        }
    }

    /// Sends the request to a kubelet and hands the answer back; an upgraded connection is copied both ways.
    async fn forward(
        &self,
        host: &str,
        port: u16,
        path: &str,
        incoming: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        let peer = Peer { host: host.to_owned(), port, name: host.to_owned(), tls: Some(self.kubelet.tls.clone()) };
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(&format!("{host}:{port}"))?);
        // The user's credentials stay here.
        let kept = |name: &HeaderName| name != header::HOST && name != header::AUTHORIZATION;
        self.relay(&peer, path.parse::<Uri>()?, incoming, headers, kept).await
    }
}

/// What a kubelet refuses in plain text, as clients expect it.
async fn refusal_of(answer: Response<Body>) -> ApiError {
    let reason = match answer.status() {
        StatusCode::BAD_REQUEST => Reason::BadRequest,
        StatusCode::FORBIDDEN => Reason::Forbidden,
        StatusCode::NOT_FOUND => Reason::NotFound,
        _ => Reason::InternalError,
    };
    let text = match Limited::new(answer.into_body(), REFUSAL_MAX).collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        Err(error) => format!("read the kubelet's answer: {error}"),
    };
    ApiError::new(reason, text)
}

/// Refuses options of a log that make no sense.
fn check_log_options(cx: &Context, name: &str) -> Result<(), ApiError> {
    let query = &cx.query;
    let (tail, limit) = (query.number("tailLines")?, query.number("limitBytes")?);
    let (seconds, time) = (query.number("sinceSeconds")?, query.get("sinceTime"));
    if !time.is_empty() && time.parse::<jiff::Timestamp>().is_err() {
        return Err(ApiError::bad_request(format!("invalid value for sinceTime: {time:?}")));
    }
    let whole = FieldPath::new("");
    let mut errors = Vec::new();
    if let Some(lines) = tail.filter(|lines| *lines < 0) {
        let text = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(&FieldPath::new("tailLines"), lines, text));
    }
    let positive = |field: &str, value: Option<i64>| {
        let text = "must be greater than 0";
        value.filter(|value| *value < 1).map(|value| FieldError::invalid(&FieldPath::new(field), value, text))
    };
    errors.extend(positive("limitBytes", limit));
    if seconds.is_some() && !time.is_empty() {
        let text = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&whole, text));
    } else {
        errors.extend(positive("sinceSeconds", seconds));
    }
    match query.get("stream") {
        "" | "All" => {}
        "Stdout" | "Stderr" => {
            if tail.is_some() {
                let text = "`tailLines` and specific `stream` are mutually exclusive for now";
                errors.push(FieldError::forbidden(&whole, text));
            }
        }
        other => {
            errors.push(FieldError::not_supported(&FieldPath::new("stream"), other, &["All", "Stderr", "Stdout"]));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", name, &errors)) }
}

fn names(pod: &Value, field: &str) -> Vec<String> {
    pod["spec"][field].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

/// The container a stream is for: the one named, or the only one there is.
fn container_of(asked: &str, subresource: &str, pod: &Value) -> Result<String, ApiError> {
    if subresource == "portforward" {
        return Ok(String::new());
    }
    let pod_name = meta::name(pod);
    let (main, init) = (names(pod, "containers"), names(pod, "initContainers"));
    if !asked.is_empty() {
        let known = main.iter().chain(&init).chain(&names(pod, "ephemeralContainers")).any(|n| n == asked);
        return if known {
            Ok(asked.to_owned())
        } else {
            Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
        };
    }
    match &main[..] {
        [only] if init.is_empty() || subresource != "log" => Ok(only.clone()),
        _ => {
            let mut text =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(text))
        }
    }
}

/// Refuses the log of a container that has not run.
fn require_started(pod: &Value, container: &str, previous: bool) -> Result<(), ApiError> {
    let name = meta::name(pod);
    let status = ["containerStatuses", "initContainerStatuses"]
        .iter()
        .flat_map(|f| pod["status"][f].as_array().into_iter().flatten())
        .find(|s| s["name"] == container);
    if previous {
        return if status.is_some_and(|s| s["lastState"]["terminated"].is_object()) {
            Ok(())
        } else {
            Err(ApiError::bad_request(format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            )))
        };
    }
    let waiting = match status {
        None => Some("ContainerCreating"),
        Some(s) if s["lastState"]["terminated"].is_object() => None,
        Some(s) => s["state"]["waiting"]
            .is_object()
            .then(|| s["state"]["waiting"]["reason"].as_str().unwrap_or("ContainerCreating")),
    };
    match waiting {
        // The kubelet may know of the start before its report is here; it has the last word.
        Some("ContainerCreating" | "PodInitializing") | None if status.is_some_and(|s| s["started"] == true) => Ok(()),
        Some(reason) => Err(ApiError::bad_request(match reason {
            "ErrImagePull" => {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: image can't be pulled")
            }
            "ImagePullBackOff" => format!(
                "container \"{container}\" in pod \"{name}\" is waiting to start: trying and failing to pull image"
            ),
            reason => format!("container \"{container}\" in pod \"{name}\" is waiting to start: {reason}"),
        })),
        None => Ok(()),
    }
}
