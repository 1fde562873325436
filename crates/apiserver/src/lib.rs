//! The life of a request: route → authenticate → authorise → decode → default → admit → validate → store; watch,
//! discovery, OpenAPI, streams to nodes.
//!
//! [`ApiServer`] is the only one to touch the store. It answers requests over TLS ([`ApiServer::serve`]) and from inside
//! the process ([`ApiServer::client`]), both through the same pipeline.

mod addresses;
mod admission;
mod aggregated;
mod authorize;
mod binding;
mod catalogue;
mod claims;
mod context;
mod convert;
mod custom;
mod definitions;
mod delete;
mod discovery;
mod eviction;
mod fairness;
mod finish;
mod health;
mod impersonate;
mod listing;
mod managers;
mod metrics;
mod nodes;
mod openapi;
mod outbound;
mod proxy;
mod read;
mod request;
mod respond;
mod reviews;
mod served;
mod server;
mod shown;
mod stored;
mod streams;
mod swagger_parts;
mod table;
mod tokens;
mod trust;
mod upkeep;
mod watch;
mod websocket;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};
use std::time::Duration;

use auth::{Attributes, Policy, TokenKey, User};
use client::metrics::Queues;
use client::{ApiService, Body, BoxError, Client};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use object_model::{ApiError, Reason};
use store::Store;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::{Context, read_body};
use crate::fairness::Asked;
use crate::request::{ResourceRequest, Target};
use crate::served::no_such_resource;
use crate::websocket::{Cut, Knock};

pub use crate::admission::node::is_reserved_label;
pub use crate::aggregated::FrontProxy;
pub use crate::health::KUBERNETES;
pub use crate::streams::KubeletClient;

/// How long a request that does not stream may take (upstream's request timeout).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The API server.
pub struct ApiServer {
    store: Arc<dyn Store>,
    kubelet: KubeletClient,
    /// Signs and checks the tokens of service accounts.
    tokens: TokenKey,
    /// Roles and bindings as they are stored.
    policy: RwLock<Policy>,
    /// Which objects belong to which nodes.
    nodes: RwLock<auth::node::Graph>,
    /// Admission policies as they are stored.
    policies: RwLock<Arc<admission::policies::Policies>>,
    /// What is served.
    catalogue: RwLock<Arc<catalogue::Catalogue>>,
    /// How many definitions are being written.
    defining: AtomicUsize,
    /// Definitions whose objects are being removed.
    cleaning: Mutex<HashSet<String>>,
    /// Aggregated APIs, by the name of their APIService.
    remotes: Mutex<BTreeMap<String, Arc<aggregated::Remote>>>,
    /// Who looks after each of them.
    keepers: Mutex<BTreeMap<String, Arc<Notify>>>,
    front_proxy: OnceLock<FrontProxy>,
    /// Who is asked before something is written.
    webhooks: RwLock<Arc<admission::webhooks::Webhooks>>,
    /// Itself, for what goes on after a request.
    me: Weak<Self>,
    /// `host:port` as discovery tells it.
    address: String,
    ready: AtomicBool,
    claims: claims::Claims,
    /// Who is being granted what of the quotas.
    quotas: admission::quota::Quotas,
    fairness: fairness::Fairness,
    /// What watchers were shown last.
    recent: shown::Recent,
    metrics: metrics::Metrics,
    /// The work queues in the process, which the metrics show.
    queues: Arc<Queues>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl ApiServer {
    /// A server over a store. `tokens` signs the tokens of service accounts; `address` is where clients reach it.
    ///
    /// # Errors
    /// When the stored roles and bindings cannot be read.
    pub fn new(
        store: Arc<dyn Store>,
        kubelet: KubeletClient,
        tokens: TokenKey,
        address: String,
    ) -> anyhow::Result<Arc<Self>> {
        let policy = RwLock::new(authorize::policy_of(store.as_ref())?);
        let nodes = RwLock::new(nodes::graph_of(store.as_ref())?);
        let policies = RwLock::new(admission::policies::policies_of(store.as_ref())?);
        let services = definitions::stored_objects(store.as_ref(), |served| served.hooks().aggregates())?;
        let remotes = aggregated::remotes(&services);
        let known = definitions::definitions(store.as_ref(), &definitions::Definitions::new())?;
        let webhooks = admission::webhooks::Webhooks::of(store.as_ref(), &admission::webhooks::Webhooks::default())?;
        let catalogue = catalogue::Catalogue::new(known, remotes.values().cloned().collect());
        let server = Arc::new_cyclic(|me| Self {
            catalogue: RwLock::new(Arc::new(catalogue)),
            defining: AtomicUsize::new(0),
            cleaning: Mutex::default(),
            remotes: Mutex::new(remotes),
            keepers: Mutex::default(),
            front_proxy: OnceLock::new(),
            webhooks: RwLock::new(Arc::new(webhooks)),
            me: me.clone(),
            store,
            kubelet,
            tokens,
            policy,
            nodes,
            policies,
            address,
            ready: AtomicBool::new(false),
            claims: claims::Claims::new(),
            quotas: admission::quota::Quotas::default(),
            fairness: fairness::Fairness::default(),
            recent: shown::Recent::default(),
            metrics: metrics::Metrics::default(),
            queues: Arc::default(),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        server.renew_fairness();
        Ok(server)
    }

    /// Says that the first objects are there: `/readyz` answers ok from now on.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// The work queues that are shown with the metrics of the server: whoever works in the same process has theirs here.
    pub fn queues(&self) -> Arc<Queues> {
        self.queues.clone()
    }

    /// A client inside the process that makes its requests as `user`.
    pub fn client(self: &Arc<Self>, user: User) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |mut request: Request<Body>| {
            let server = server.clone();
            request.extensions_mut().insert(user.clone());
            if let Ok(agent) = HeaderValue::from_str(component(&user)) {
                request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
            }
            async move {
                let method = request.method().clone();
                let answer = server.handle(request).await;
                server.metrics.others.inside(&method, answer.status());
                Ok::<_, BoxError>(answer)
            }
        });
        Client::new(ApiService::new(service))
    }

    /// Answers one request. The user is taken from the request's extensions; without one it is anonymous.
    pub async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let audit_id = audit_id(&request);
        let answer = AssertUnwindSafe(self.answer(request)).catch_unwind().await.unwrap_or_else(|_| {
            // The panic has been printed by the hook; the client must not hang.
            respond::error(&ApiError::internal("the handler of this request panicked"), None)
        });
        let mut response = answer;
        let headers = response.headers_mut();
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        if let Ok(value) = HeaderValue::from_str(&audit_id) {
            headers.insert(HeaderName::from_static("audit-id"), value);
        }
        response
    }

    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let user = request.extensions_mut().remove::<User>().unwrap_or_else(User::anonymous);
        let user = match impersonate::user_of(user, request.headers(), |attributes| self.authorize(attributes)) {
            Ok(user) => user,
            Err(error) => return respond::error(&error, None),
        };
        let cx = Context::new(user, &request);
        let path = request.uri().path().to_owned();
        let target = request::target(&cx.method, &path, &cx.query);
        let wishes = finish::Wishes::of(&cx.query, &cx.headers);
        let asked = match &target {
            Target::Resource(request) => Some(request),
            Target::Path => None,
        };
        let begin = tokio::time::Instant::now();
        let under_way = asked.map(|request| self.metrics.begin(request.verb));
        let seat = match asked {
            // What goes on for long would keep others out for as long; a watch is as good as answered when it begins.
            Some(request) if request.streams() => Ok(None),
            Some(request) => self.fairness.seat(&cx.user, &Asked::Resource(request), || self.width(&cx, request)).await,
            None => {
                let verb = cx.method.as_str().to_ascii_lowercase();
                self.fairness.seat(&cx.user, &Asked::Path(&verb, &path), || 1).await
            }
        };
        let answered = match &seat {
            Ok(_) => self.dispatch(&cx, &path, &target, request).await,
            Err(refused) => Err(refused.error()),
        };
        let mut response = answered.unwrap_or_else(|error| respond::error(&error, Some(&cx.accept)));
        match &seat {
            Ok(Some(seat)) => seat.tell(&mut response),
            Ok(None) => {}
            Err(refused) => refused.tell(&mut response),
        }
        drop(seat);
        if let Some(under_way) = under_way {
            under_way.end();
        }
        if let Some(request) = asked {
            let size = http_body::Body::size_hint(response.body()).exact();
            self.metrics.observe(request, response.status().as_u16(), begin.elapsed(), size);
        }
        response = wishes.fulfil(response).await;
        for warning in cx.take_warnings() {
            // RFC 7234 warn-text is a quoted string.
            let text = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
            if let Ok(value) = HeaderValue::from_str(&text) {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }

    async fn dispatch(
        &self,
        cx: &Context,
        path: &str,
        target: &Target,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        match target {
            Target::Path => {
                let verb = cx.method.as_str().to_ascii_lowercase();
                let refusal = self.authorize(&Attributes {
                    user: &cx.user,
                    verb: &verb,
                    group: "",
                    resource: "".into(),
                    namespace: "",
                    name: "",
                    path,
                    fields: "",
                });
                refusal.map_err(|why| self.refuse(cx, "", "", "", &why))?;
                let catalogue = self.catalogue();
                let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
                if let ["apis", group, version] = parts[..]
                    && let Some(remote) = catalogue.remote(group, version)
                {
                    return self.pass_on(cx, remote, request).await;
                }
                self.answer_path(cx, path)
            }
            Target::Resource(r) => {
                let resource = if r.subresource.is_empty() {
                    r.resource.clone()
                } else {
                    format!("{}/{}", r.resource, r.subresource)
                };
                let refusal = self.authorize(&Attributes {
                    user: &cx.user,
                    verb: r.verb,
                    group: &r.group,
                    resource: resource.into(),
                    namespace: &r.namespace,
                    name: &r.name,
                    path,
                    fields: cx.query.get("fieldSelector"),
                });
                refusal.map_err(|why| self.refuse(cx, &r.group, &r.resource, &r.name, &why))?;
                self.answer_resource(cx, r, request).await
            }
        }
    }

    fn refuse(&self, cx: &Context, group: &str, resource: &str, name: &str, why: &str) -> ApiError {
        // Who brings no credentials is asked for them; who brings some is told what they do not allow.
        if cx.user.is_anonymous() && cx.headers.contains_key(header::AUTHORIZATION) {
            return ApiError::new(Reason::Unauthorized, "Unauthorized");
        }
        ApiError::forbidden(group, resource, name, why)
    }

    fn answer_path(&self, cx: &Context, path: &str) -> Result<Response<Body>, ApiError> {
        let catalogue = self.catalogue();
        let read = matches!(cx.method, Method::GET | Method::HEAD);
        if !read && discovery::answer(path, &cx.accept, &cx.headers, &self.address, &catalogue).is_some() {
            return Err(ApiError::method_not_allowed());
        }
        if let Some(answer) = discovery::answer(path, &cx.accept, &cx.headers, &self.address, &catalogue) {
            return answer;
        }
        if let Some(answer) = self.issuer_document(path) {
            return Ok(answer);
        }
        if let Some(answer) = openapi::answer(path, &cx.query, &cx.headers, &catalogue) {
            return answer;
        }
        Ok(self.path(path, &cx.query).unwrap_or_else(|| respond::plain(StatusCode::NOT_FOUND, "404 page not found\n")))
    }

    async fn answer_resource(
        &self,
        cx: &Context,
        r: &ResourceRequest,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let catalogue = self.catalogue();
        if let Some(remote) = catalogue.remote(&r.group, &r.version) {
            return self.pass_on(cx, remote, request).await;
        }
        let served = catalogue.find(&r.group, &r.version, &r.resource)?;
        if let Some(text) = &served.deprecation {
            cx.warn(text.clone());
            self.metrics.note_deprecated(&served, &r.subresource);
        }
        if !served.namespaced() && !r.namespace.is_empty() && !served.is_core("Namespace") {
            return Err(no_such_resource());
        }
        let verbs = match served.subresource(&r.subresource) {
            _ if r.subresource.is_empty() => served.verbs,
            Some(sub) => sub.verbs,
            None => return Err(ApiError::new(Reason::NotFound, "the server could not find the requested resource")),
        };
        if r.subresource == "proxy" {
            return self.proxy(cx, r, &served, request).await;
        }
        let needs_namespace =
            served.namespaced() && r.namespace.is_empty() && !matches!(r.verb, "list" | "watch" | "deletecollection");
        // POST makes members of collections; what exists is written by its name.
        let misplaced = match r.verb {
            "create" => r.subresource.is_empty() && !r.name.is_empty(),
            "update" | "patch" => r.name.is_empty(),
            _ => false,
        };
        if !verbs.contains(&r.verb) || misplaced || (needs_namespace && r.name.is_empty()) {
            return Err(ApiError::method_not_allowed());
        }
        match (r.subresource.as_str(), r.verb) {
            ("log", _) => {
                let Some(knock) = Knock::of(&mut request)? else { return self.stream(cx, r, &served, request).await };
                let (protocol, cut) = knock.log_protocol()?;
                let answer = self.stream(cx, r, &served, request).await?;
                return Ok(self.over_websocket(knock, protocol, cut, answer));
            }
            ("exec" | "attach" | "portforward", _) => return self.stream(cx, r, &served, request).await,
            ("", "watch") => {
                let knock = Knock::of(&mut request)?;
                let answer = self.watch(cx, r, &served).await?;
                return Ok(match knock {
                    Some(knock) => {
                        let is_json = respond::is_json(&answer);
                        let cut = if is_json { Cut::Lines } else { Cut::Frames };
                        let protocol = knock.watch_protocol();
                        self.over_websocket(knock, protocol, cut, answer)
                    }
                    None => answer,
                });
            }
            _ => {}
        }
        let allowed = cx.query.timeout(REQUEST_TIMEOUT)?;
        let work = async {
            let body = read_body(request.into_body()).await?;
            if !served.is_stored() {
                return self.answer_unstored(cx, r, &served, body).await;
            }
            match (r.subresource.as_str(), r.verb) {
                ("token", _) => self.issue_token(cx, r, &served, &body).await,
                ("binding", _) => self.bind(cx, r, &served, body).await,
                ("eviction", _) => self.evict(cx, r, &served, body).await,
                ("", "create") => self.create(cx, r, &served, body).await,
                ("", "list") => self.list(cx, r, &served).await,
                ("", "delete") => {
                    admission::admit_delete(&served, &r.name)?;
                    self.delete(cx, r, &served, body).await
                }
                ("", "deletecollection") => self.delete_collection(cx, r, &served, body).await,
                (_, "get") => self.get(cx, r, &served).await,
                (_, "update") => self.update(cx, r, &served, body).await,
                (_, "patch") => self.patch(cx, r, &served, body).await,
                _ => Err(ApiError::method_not_allowed()),
            }
        };
        tokio::time::timeout(allowed, work).await.unwrap_or_else(|_| {
            Err(ApiError::new(Reason::Timeout, "Timeout: request did not complete within the allotted timeout"))
        })
    }
}

/// The name by which a component inside the process manages fields: that of its program upstream.
fn component(user: &User) -> &str {
    match (user.service_account(), user.name.strip_prefix("system:")) {
        (Some(("kube-system", _)), _) => "kube-controller-manager",
        (_, Some(rest)) if rest.starts_with("node:") => "kubelet",
        (_, Some(rest)) => rest,
        _ => &user.name,
    }
}

/// The id a request is followed by: the client's, if it is sane, or a new one.
fn audit_id(request: &Request<Body>) -> String {
    request
        .headers()
        .get("audit-id")
        .and_then(|v| v.to_str().ok())
        .filter(|v| v.len() <= 64 && v.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
        .map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}
