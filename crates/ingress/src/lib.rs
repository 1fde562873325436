//! Ingress: HTTP and HTTPS from outside go to the Services that rules name.
//!
//! The room looks (caches), plans (the routes in `table`, pure) and applies: requests are routed by the table as it is now,
//! and Ingresses are told where they are reached and what they name that does not exist.

mod proxy;
mod table;
mod tls;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use client::{Cache, Client, EventType, ListParams, Patch, Recorder, Reflector, Resource};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kinds::k8s::api::core::v1::{Secret, Service};
use kinds::k8s::api::discovery::v1::EndpointSlice;
use kinds::k8s::api::networking::v1::{Ingress, IngressClass};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::proxy::{Body, Proxy};
use crate::table::{Key, Problem, Table, View};

const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const SECRETS: Resource = Resource { group: "", version: "v1", plural: "secrets" };
const ENDPOINT_SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
const INGRESSES: Resource = Resource { group: "networking.k8s.io", version: "v1", plural: "ingresses" };
const INGRESS_CLASSES: Resource = Resource { group: "networking.k8s.io", version: "v1", plural: "ingressclasses" };

/// Changes within this time are taken in together.
const TOGETHER: Duration = Duration::from_millis(2);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The IngressClass that this room serves: an object for the cluster's first start.
pub fn first_class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {"name": "knarr", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": table::CONTROLLER},
    })
}

/// The sockets; one that could not be had is missing.
pub struct Listeners {
    /// For HTTP.
    pub http: Option<TcpListener>,
    /// For HTTPS.
    pub https: Option<TcpListener>,
}

/// The table as it is now. Clones share it.
#[derive(Debug, Clone, Default)]
struct Current(Arc<RwLock<Arc<Table>>>);

impl Current {
    fn get(&self) -> Arc<Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, table: Table) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

/// The caches that the table is made from.
#[derive(Default)]
struct Caches {
    ingresses: Cache<Ingress>,
    classes: Cache<IngressClass>,
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    secrets: Cache<Secret>,
}

fn objects<T: Clone>(cache: &Cache<T>) -> Vec<T> {
    cache.all().iter().map(|cached| cached.object.clone()).collect()
}

impl Caches {
    fn view(&self) -> View {
        View {
            ingresses: objects(&self.ingresses),
            classes: objects(&self.classes),
            services: objects(&self.services),
            slices: objects(&self.slices),
            secrets: objects(&self.secrets),
        }
    }

    async fn synced(&self) {
        self.ingresses.synced().await;
        self.classes.synced().await;
        self.services.synced().await;
        self.slices.synced().await;
        self.secrets.synced().await;
    }
}

/// Follows a resource and says when it changes.
fn follow<T: Send + Sync + 'static>(
    client: &Client,
    resource: Resource,
    fields: &str,
    decode: fn(&[u8]) -> Result<T, serde_json::Error>,
    cache: &Cache<T>,
    changed: &Arc<Notify>,
) -> Reflector<T> {
    let changed = changed.clone();
    cache.on_change(move |_| changed.notify_one());
    let params = ListParams { fields: fields.to_owned(), ..ListParams::default() };
    Reflector { api: client.api(resource), params, decode, cache: cache.clone() }
}

/// The room.
pub struct Server {
    client: Client,
    /// The node's address, which Ingresses are told.
    address: IpAddr,
}

impl Server {
    /// A server that works through `client` and is reached at `address`.
    pub fn new(client: Client, address: IpAddr) -> Self {
        Self { client, address }
    }

    /// Serves until cancelled, then lets requests in flight finish for a moment.
    ///
    /// # Errors
    /// When the certificate for hosts without one cannot be made.
    pub async fn run(self, listeners: Listeners, cancel: CancellationToken) -> Result<()> {
        let (tasks, kill) = (TaskTracker::new(), CancellationToken::new());
        let changed = Arc::new(Notify::new());
        let caches = Caches::default();
        let client = &self.client;
        tasks.spawn(
            follow(client, INGRESSES, "", kinds::typed::ingress, &caches.ingresses, &changed).run(cancel.clone()),
        );
        tasks.spawn(
            follow(client, INGRESS_CLASSES, "", kinds::typed::ingress_class, &caches.classes, &changed)
                .run(cancel.clone()),
        );
        tasks
            .spawn(follow(client, SERVICES, "", kinds::typed::service, &caches.services, &changed).run(cancel.clone()));
        tasks.spawn(
            follow(client, ENDPOINT_SLICES, "", kinds::typed::endpoint_slice, &caches.slices, &changed)
                .run(cancel.clone()),
        );
        let only_tls = "type=kubernetes.io/tls";
        tasks.spawn(
            follow(client, SECRETS, only_tls, kinds::typed::secret, &caches.secrets, &changed).run(cancel.clone()),
        );
        let (recorder, record) = Recorder::new(client, "ingress", "", cancel.clone());
        tasks.spawn(record);
        // Before that, every request would be told that nobody answers it.
        tokio::select! { () = cancel.cancelled() => {}, () = caches.synced() => {} }
        let current = Current::default();
        current.set(Table::new(&caches.view()));

        let ports = [&listeners.http, &listeners.https].map(|listener| {
            listener.as_ref().and_then(|listener| listener.local_addr().ok()).map(|address| address.port())
        });
        let proxy = Arc::new(Proxy {
            current: current.clone(),
            tasks: tasks.clone(),
            kill: kill.clone(),
            turn: AtomicUsize::new(0),
        });
        if let Some(listener) = listeners.http {
            tasks.spawn(accept(listener, None, proxy.clone(), cancel.clone()));
        }
        if let Some(listener) = listeners.https {
            let resolver = tls::Resolver { current: current.clone(), own: Arc::new(tls::own()?) };
            let mut config =
                rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let acceptor = TlsAcceptor::from(Arc::new(config));
            tasks.spawn(accept(listener, Some(acceptor), proxy.clone(), cancel.clone()));
        }
        let mut told: BTreeSet<Problem> = BTreeSet::new();
        loop {
            let table = current.get();
            let balanced = self.taken_ports(&caches.services, &ports);
            let mut problems = table.problems.clone();
            let open: Vec<u16> = ports.iter().flatten().copied().filter(|port| !balanced.contains(port)).collect();
            for (port, ingress) in balanced.iter().flat_map(|port| table.served.iter().map(move |key| (port, key))) {
                let message = format!("port {port} of the node goes to a service of type LoadBalancer");
                problems.insert(Problem { ingress: ingress.clone(), reason: "PortTaken", message });
            }
            self.tell(&caches.ingresses, &table.served, &open).await;
            for problem in problems.difference(&told) {
                if let Some(ingress) = caches.ingresses.get(&problem.ingress.0, &problem.ingress.1) {
                    let about = about(&problem.ingress, &ingress.uid, &ingress.resource_version);
                    recorder.event(&about, None, EventType::Warning, problem.reason, problem.message.clone());
                }
            }
            told = problems;
            let more = async {
                changed.notified().await;
                tokio::time::sleep(TOGETHER).await;
            };
            tokio::select! { () = cancel.cancelled() => break, () = more => {} }
            current.set(Table::new(&caches.view()));
        }
        tasks.close();
        if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
            kill.cancel();
            tasks.wait().await;
        }
        Ok(())
    }

    /// Those of the ports that a load balancer has at this address: the kernel's rules come before the sockets.
    fn taken_ports(&self, services: &Cache<Service>, ports: &[Option<u16>]) -> BTreeSet<u16> {
        let address = self.address.to_string();
        let mut taken = BTreeSet::new();
        for service in services.all() {
            let status = service.object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let mut given = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
            if !given.any(|one| one.ip.as_deref() == Some(&address)) {
                continue;
            }
            let theirs = service.object.spec.as_ref().and_then(|spec| spec.ports.as_ref()).into_iter().flatten();
            let theirs = theirs.filter_map(|port| u16::try_from(port.port).ok());
            taken.extend(theirs.filter(|port| ports.contains(&Some(*port))));
        }
        taken
    }

    /// Tells the Ingresses where they are reached.
    async fn tell(&self, ingresses: &Cache<Ingress>, served: &[Key], ports: &[u16]) {
        let wanted = if ports.is_empty() {
            Value::Null
        } else {
            let ports: Vec<Value> = ports.iter().map(|port| json!({"port": port, "protocol": "TCP"})).collect();
            json!([{"ip": self.address.to_string(), "ports": ports}])
        };
        for (namespace, name) in served {
            let Some(ingress) = ingresses.get(namespace, name) else { continue };
            let status = ingress.object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let given = status.and_then(|balancer| balancer.ingress.as_ref()).filter(|list| !list.is_empty());
            let is = given.and_then(|list| serde_json::to_value(list).ok()).unwrap_or(Value::Null);
            if is == wanted {
                continue;
            }
            let patch = json!({"status": {"loadBalancer": {"ingress": wanted}}});
            let api = self.client.api(INGRESSES);
            if let Err(error) = api.patch(Some(namespace), name, "status", Patch::Merge, &patch).await {
                // The next change of anything tries again.
                tracing::warn!("tell ingress {namespace}/{name} its address: {error}");
            }
        }
    }
}

fn about(key: &Key, uid: &str, version: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"namespace": key.0, "name": key.1, "uid": uid, "resourceVersion": version},
    })
}

/// Accepts connections until cancelled.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, proxy: Arc<Proxy>, cancel: CancellationToken) {
    loop {
        let accepted = tokio::select! { () = cancel.cancelled() => return, accepted = listener.accept() => accepted };
        match accepted {
            Ok((stream, client)) => {
                let tasks = proxy.tasks.clone();
                tasks.spawn(connection(stream, client, tls.clone(), proxy.clone(), cancel.clone()));
            }
            Err(error) => {
                // Out of file descriptors, mostly: a pause lets connections end.
                tracing::warn!("accept a connection for an Ingress: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
    proxy: Arc<Proxy>,
    cancel: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("set TCP_NODELAY: {error}");
    }
    let Some(acceptor) = tls else { return serve(stream, client, false, proxy, cancel).await };
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, client, true, proxy, cancel).await,
        Ok(Err(error)) => tracing::debug!("TLS handshake: {error}"),
        Err(_) => tracing::debug!("TLS handshake: timed out"),
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Answers the requests of one connection.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    client: SocketAddr,
    tls: bool,
    proxy: Arc<Proxy>,
    cancel: CancellationToken,
) {
    let kill = proxy.kill.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let proxy = proxy.clone();
        // Boxed, so that the connection's type does not carry the proxy's in its own.
        let answer: Answer = Box::pin(async move { Ok(proxy.answer(request, client.ip(), tls).await) });
        answer
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! { () = kill.cancelled() => return, outcome = connection => outcome }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("connection of a client: {error}");
    }
}

/// Listens for Ingresses, or says in the log why not: the rest of the cluster goes on without.
pub fn listening(result: Result<std::net::TcpListener>) -> Option<TcpListener> {
    match result.and_then(|listener| TcpListener::from_std(listener).context("listen for Ingresses")) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::error!("Ingresses are not served here: {error:#}");
            None
        }
    }
}
