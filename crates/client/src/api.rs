//! Requests to the API and their answers.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use object_model::{ApiError, api_version};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::ServiceExt;

/// Any error of a transport.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of requests and responses.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;
/// What answers requests: the API server itself, or a connection to one.
pub type ApiService = tower::util::BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// A body that broke off. A type of its own, as a boxed error's lifetime gets in the way of `Send` futures.
#[derive(Debug)]
pub struct BodyError(BoxError);

impl BodyError {
    /// A body that broke off because of this.
    pub fn new(cause: impl Into<BoxError>) -> Self {
        Self(cause.into())
    }
}

impl std::fmt::Display for BodyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyError {}

type Sent = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

/// A body without content.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Which resource a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version.
    pub version: &'static str,
    /// Plural name.
    pub plural: &'static str,
}

impl Resource {
    /// A resource whose names are known only at run time, like those of custom resources.
    ///
    /// The names are kept for as long as the program runs, each once: memory is bounded by the number of distinct names
    /// ever used here.
    pub fn named(group: &str, version: &str, plural: &str) -> Self {
        Self { group: interned(group), version: interned(version), plural: interned(plural) }
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    fn path(&self, namespace: Option<&str>, name: &str, subresource: &str) -> String {
        let mut path = match self.group {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if let Some(namespace) = namespace {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [self.plural, name, subresource] {
            if !part.is_empty() {
                path.push('/');
                path.push_str(part);
            }
        }
        path
    }
}

fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = String::leak(name.to_owned());
    names.insert(kept);
    kept
}

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub struct ListParams {
    /// Label selector, empty for all.
    pub labels: String,
    /// Field selector, empty for all.
    pub fields: String,
}

/// A list as it came: the items are not decoded.
#[derive(Debug)]
pub struct List {
    /// The revision the list is of.
    pub resource_version: String,
    /// The items as JSON text.
    pub items: Vec<Box<RawValue>>,
}

/// The kinds of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// RFC 7386.
    Merge,
    /// Kubernetes' own merge with merge keys.
    Strategic,
    /// RFC 6902.
    Json,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

/// One event of a watch.
#[derive(Debug)]
pub struct WatchEvent {
    /// `ADDED`, `MODIFIED`, `DELETED` or `BOOKMARK`.
    pub kind: String,
    /// The object as JSON text.
    pub object: Bytes,
}

/// The stream of a watch.
pub struct WatchStream {
    body: Body,
    buffer: BytesMut,
    /// How much of the buffer is known to be no whole line.
    looked: usize,
}

impl WatchStream {
    /// The next event; `None` when the server ended the watch.
    ///
    /// # Errors
    /// What an `ERROR` event says (410 when the start is too old), or a broken connection.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ApiError> {
        #[derive(Deserialize)]
        struct Raw<'a> {
            r#type: &'a str,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[self.looked..]) {
                let line = self.buffer.split_to(self.looked + end + 1).freeze();
                self.looked = 0;
                let raw: Raw<'_> =
                    serde_json::from_slice(&line).map_err(|e| ApiError::internal(format!("read watch event: {e}")))?;
                if raw.r#type == "ERROR" {
                    return Err(ApiError::from_status(500, raw.object.get().as_bytes()).with_own_code());
                }
                let object = line.slice_ref(raw.object.get().as_bytes());
                return Ok(Some(WatchEvent { kind: raw.r#type.to_owned(), object }));
            }
            self.looked = self.buffer.len();
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(ApiError::internal(format!("read watch: {error}"))),
            }
        }
    }
}

/// A connection to the API.
#[derive(Clone)]
pub struct Client {
    service: ApiService,
}

impl Client {
    /// A client over whatever answers requests.
    pub fn new(service: ApiService) -> Self {
        Self { service }
    }

    /// The requests about one resource.
    pub fn api(&self, resource: Resource) -> Api {
        Api { client: self.clone(), resource }
    }

    /// Sends a request as it is.
    ///
    /// # Errors
    /// When the transport fails; an error status is a response.
    pub fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, ApiError>> + Send + use<> {
        // Boxed, so that the futures of callers do not carry the service's type (and its lifetimes) in theirs.
        let sent: Sent = Box::pin(self.service.clone().oneshot(request));
        async move { sent.await.map_err(|e| ApiError::internal(format!("send request: {e}"))) }
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// What the server answered, where it is not a success.
    pub async fn request(&self, request: Request<Body>) -> Result<Bytes, ApiError> {
        let response = self.send(request).await?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| ApiError::internal(format!("read answer: {e}")))?
            .to_bytes();
        if status.is_success() { Ok(body) } else { Err(ApiError::from_status(status.as_u16(), &body)) }
    }
}

/// The requests about one resource. `namespace` is `None` for cluster-scoped resources, and for lists of all namespaces.
#[derive(Clone)]
pub struct Api {
    client: Client,
    resource: Resource,
}

impl Api {
    /// The resource.
    pub fn resource(&self) -> Resource {
        self.resource
    }

    async fn call(&self, method: Method, path: String, content_type: &str, body: Body) -> Result<Value, ApiError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, "application/json")
            .body(body)
            .map_err(|e| ApiError::bad_request(format!("build request: {e}")))?;
        let bytes = self.client.request(request).await?;
        serde_json::from_slice(&bytes).map_err(|e| ApiError::internal(format!("read answer: {e}")))
    }

    /// Reads one object.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn get(&self, namespace: Option<&str>, name: &str) -> Result<Value, ApiError> {
        self.call(Method::GET, self.resource.path(namespace, name, ""), "application/json", empty()).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn create(&self, namespace: Option<&str>, object: &Value) -> Result<Value, ApiError> {
        self.create_subresource(namespace, "", "", object).await
    }

    /// Posts to a subresource, like `pods/binding`.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn create_subresource(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, ApiError> {
        let path = self.resource.path(namespace, name, subresource);
        self.call(Method::POST, path, "application/json", full(object.to_string())).await
    }

    /// Replaces an object, or its subresource where `subresource` is not empty.
    ///
    /// # Errors
    /// What the server answered; 409 when the object's resourceVersion is not the current one.
    pub async fn update(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        object: &Value,
    ) -> Result<Value, ApiError> {
        let path = self.resource.path(namespace, name, subresource);
        self.call(Method::PUT, path, "application/json", full(object.to_string())).await
    }

    /// Patches an object, or its subresource where `subresource` is not empty.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn patch(
        &self,
        namespace: Option<&str>,
        name: &str,
        subresource: &str,
        kind: Patch,
        patch: &Value,
    ) -> Result<Value, ApiError> {
        let path = self.resource.path(namespace, name, subresource);
        self.call(Method::PATCH, path, kind.content_type(), full(patch.to_string())).await
    }

    /// Deletes an object. `options` is a `DeleteOptions` object, or null.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn delete(&self, namespace: Option<&str>, name: &str, options: &Value) -> Result<Value, ApiError> {
        let body = if options.is_null() { empty() } else { full(options.to_string()) };
        self.call(Method::DELETE, self.resource.path(namespace, name, ""), "application/json", body).await
    }

    /// Lists objects.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn list(&self, namespace: Option<&str>, params: &ListParams) -> Result<List, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            resource_version: String,
        }
        #[derive(Deserialize)]
        struct Raw {
            metadata: Metadata,
            items: Vec<Box<RawValue>>,
        }
        let path = self.resource.path(namespace, "", "") + &query(params, None);
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(empty())
            .map_err(|e| ApiError::bad_request(format!("build request: {e}")))?;
        let bytes = self.client.request(request).await?;
        let raw: Raw = serde_json::from_slice(&bytes).map_err(|e| ApiError::internal(format!("read list: {e}")))?;
        Ok(List { resource_version: raw.metadata.resource_version, items: raw.items })
    }

    /// Watches objects from a revision on.
    ///
    /// # Errors
    /// What the server answered.
    pub async fn watch(
        &self,
        namespace: Option<&str>,
        params: &ListParams,
        resource_version: &str,
    ) -> Result<WatchStream, ApiError> {
        let path = self.resource.path(namespace, "", "") + &query(params, Some(resource_version));
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(empty())
            .map_err(|e| ApiError::bad_request(format!("build request: {e}")))?;
        let response = self.client.send(request).await?;
        let status = response.status();
        if status != StatusCode::OK {
            let body = response.into_body().collect().await.map_or_else(|_| Bytes::new(), |b| b.to_bytes());
            return Err(ApiError::from_status(status.as_u16(), &body));
        }
        Ok(WatchStream { body: response.into_body(), buffer: BytesMut::new(), looked: 0 })
    }
}

fn query(params: &ListParams, watch_from: Option<&str>) -> String {
    let mut query = String::new();
    let mut add = |key: &str, value: &str| {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(key);
        query.push('=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                query.push(byte as char);
            } else {
                write!(query, "%{byte:02X}").expect("writing to a String cannot fail");
            }
        }
    };
    if !params.labels.is_empty() {
        add("labelSelector", &params.labels);
    }
    if !params.fields.is_empty() {
        add("fieldSelector", &params.fields);
    }
    if let Some(revision) = watch_from {
        add("watch", "true");
        add("allowWatchBookmarks", "true");
        add("resourceVersion", revision);
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        let (one, other) =
            (Resource::named("example.com", "v1", "widgets"), Resource::named("example.com", "v1", "widgets"));
        assert_eq!(one, other);
        assert!(std::ptr::eq(one.plural, other.plural));
    }

    #[test]
    fn paths_and_queries_are_those_of_the_api() {
        let pods = Resource { group: "", version: "v1", plural: "pods" };
        assert_eq!(pods.path(Some("a"), "b", "status"), "/api/v1/namespaces/a/pods/b/status");
        let deployments = Resource { group: "apps", version: "v1", plural: "deployments" };
        assert_eq!(deployments.path(None, "", ""), "/apis/apps/v1/deployments");
        assert_eq!(Resource::named("apps", "v1", "deployments"), deployments);
        let params = ListParams { labels: String::new(), fields: "spec.nodeName=n 1".into() };
        assert_eq!(
            query(&params, Some("7")),
            "?fieldSelector=spec.nodeName%3Dn%201&watch=true&allowWatchBookmarks=true&resourceVersion=7"
        );
    }
}
