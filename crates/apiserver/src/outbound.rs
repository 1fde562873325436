//! Requests of the server to others: kubelets, webhooks, aggregated APIs, and whatever is proxied.
//!
//! Kinds named here, and why: Service and EndpointSlice, because a webhook is named by the Service in front of it.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use client::{Body, BodyError, BoxError, drop_hop_by_hop, is_upgrade};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use object_model::{ApiError, meta};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::served::Served;
use crate::trust::trust;
use crate::{ApiServer, stored};

/// The longest answer of a webhook, in bytes.
const ANSWER_MAX: usize = 16 << 20;
/// How long a connection may take to come about.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection to a webhook waits for the next question, and how many wait (upstream's numbers).
const IDLE_FOR: Duration = Duration::from_secs(90);
const IDLE_MAX: usize = 25;

/// Somebody to speak to.
pub(crate) struct Peer {
    /// Where to connect.
    pub host: String,
    /// Where to connect.
    pub port: u16,
    /// The name that its certificate must have.
    pub name: String,
    /// Whom to trust, and who the server says it is; `None` for a connection in the clear.
    pub tls: Option<Arc<ClientConfig>>,
}

/// A webhook as a `clientConfig` names it.
pub(crate) struct Webhook {
    config: Value,
    /// Whom to trust; the authorities are read when it is first called.
    tls: OnceLock<Arc<ClientConfig>>,
    /// Connections that wait for the next question.
    idle: Mutex<Vec<Idle>>,
}

/// A connection that waits.
struct Idle {
    to: (String, u16),
    since: Instant,
    sender: SendRequest<Body>,
}

impl Webhook {
    /// That of a `clientConfig`.
    pub fn new(config: Value) -> Self {
        Self { config, tls: OnceLock::new(), idle: Mutex::default() }
    }

    /// A connection to an address that waits; what has waited for too long, or was closed, goes.
    fn take_idle(&self, to: &(String, u16)) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|one| one.since.elapsed() < IDLE_FOR && !one.sender.is_closed());
        let at = idle.iter().rposition(|one| one.to == *to)?;
        Some(idle.swap_remove(at).sender)
    }

    /// Keeps a connection for the next question.
    fn keep(&self, to: (String, u16), sender: SendRequest<Body>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(Idle { to, since: Instant::now(), sender });
        }
    }

    fn service(&self, field: &str) -> &str {
        self.config["service"][field].as_str().unwrap_or_default()
    }

    fn port(&self) -> u16 {
        let of_url = || self.config["url"].as_str()?.parse::<Uri>().ok()?.port_u16();
        let of_service = || self.config["service"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        of_url().or_else(of_service).unwrap_or(443)
    }

    /// What is called, as people are told.
    fn url(&self) -> String {
        if let Some(url) = self.config["url"].as_str() {
            return url.to_owned();
        }
        let path = self.service("path").trim_start_matches('/');
        format!("https://{}.{}.svc:{}/{path}", self.service("name"), self.service("namespace"), self.port())
    }

    fn tls(&self) -> Result<Arc<ClientConfig>> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls.clone());
        }
        let bundle = self.config["caBundle"].as_str().unwrap_or_default();
        let bundle = base64::engine::general_purpose::STANDARD.decode(bundle).context("read caBundle")?;
        let tls = trust(&bundle, false, None)?;
        Ok(self.tls.get_or_init(|| tls).clone())
    }
}

/// What an answer that is no success means, in the words of clients.
fn failure(status: StatusCode, body: &[u8]) -> String {
    if serde_json::from_slice::<Value>(body).is_ok_and(|body| body["kind"] == "Status") {
        return ApiError::from_status(status.as_u16(), body).message;
    }
    match status.as_u16() {
        404 => "the server could not find the requested resource".to_owned(),
        500.. => {
            let text = String::from_utf8_lossy(body);
            format!("an error on the server ({:?}) has prevented the request from succeeding", text.trim())
        }
        _ => format!("the server rejected our request for an unknown reason ({status})"),
    }
}

impl ApiServer {
    /// Opens a connection.
    pub(crate) async fn dial(&self, peer: &Peer) -> Result<SendRequest<Body>> {
        let (host, port) = (peer.host.as_str(), peer.port);
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await;
        let stream = match dialled {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
                bail!("dial tcp {host}:{port}: connect: connection refused")
            }
            Ok(Err(error)) => return Err(error).with_context(|| format!("dial tcp {host}:{port}")),
            Err(_) => bail!("dial tcp {host}:{port}: i/o timeout"),
        };
        stream.set_nodelay(true)?;
        let Some(tls) = &peer.tls else { return self.speak(stream).await };
        let name =
            ServerName::try_from(peer.name.clone()).with_context(|| format!("read server name {:?}", peer.name))?;
        self.speak(TlsConnector::from(tls.clone()).connect(name, stream).await.context("tls")?).await
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<Body>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let cancel = self.shutdown.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                outcome = connection.with_upgrades() => if let Err(error) = outcome {
                    tracing::debug!("connection that was opened: {error}");
                }
            }
        });
        Ok(sender)
    }

    /// Sends a request on and hands the answer back; an upgraded connection is copied both ways. Of the request's headers
    /// those go along that `kept` names and that are not about the connection, and `headers` are added.
    pub(crate) async fn relay(
        &self,
        peer: &Peer,
        path: Uri,
        mut incoming: Request<Body>,
        headers: HeaderMap,
        kept: impl Fn(&HeaderName) -> bool,
    ) -> Result<Response<Body>, BoxError> {
        let mut sender = self.dial(peer).await?;
        let upgrade = is_upgrade(incoming.headers()).then(|| hyper::upgrade::on(&mut incoming));
        let (mut parts, body) = incoming.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned().filter(|_| upgrade.is_some());
        drop_hop_by_hop(&mut parts.headers);
        let mut outgoing = Request::builder().method(parts.method).uri(path).body(body)?;
        for (name, value) in parts.headers.iter().filter(|(name, _)| kept(name)) {
            outgoing.headers_mut().append(name, value.clone());
        }
        outgoing.headers_mut().extend(headers);
        if let Some(protocol) = protocol {
            outgoing.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            outgoing.headers_mut().insert(header::UPGRADE, protocol);
        }
        let mut response = sender.send_request(outgoing).await?;
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(upgrade)) = (response.status(), upgrade) {
            let backend = hyper::upgrade::on(&mut response);
            let cancel = self.shutdown.clone();
            self.tasks.spawn(async move {
                let copy = async {
                    let (client, backend) = tokio::try_join!(upgrade, backend)?;
                    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await?;
                    Ok::<_, BoxError>(())
                };
                tokio::select! {
                    () = cancel.cancelled() => {}
                    outcome = copy => if let Err(error) = outcome {
                        tracing::debug!("stream that was passed on: {error}");
                    }
                }
            });
        }
        let (mut parts, body) = response.into_parts();
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            drop_hop_by_hop(&mut parts.headers);
        }
        // How far the other side is behind is between it and this server.
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(parts, body.map_err(BodyError::new).boxed_unsync()))
    }

    /// Asks a webhook: posts a document and reads the one that is answered. The webhook is told how long it may take.
    ///
    /// # Errors
    /// With the address that was called, as upstream names it; or with what its answer says instead.
    pub(crate) async fn ask_webhook(&self, webhook: &Webhook, question: &Value, timeout: Duration) -> Result<Value> {
        let url = format!("{}?timeout={}s", webhook.url(), timeout.as_secs());
        let asked = async {
            let peer = self.peer_of(webhook)?;
            let path: Uri = url.parse().with_context(|| format!("read URL {url}"))?;
            let path = path.path_and_query().map_or("/", |path| path.as_str()).to_owned();
            let to = (peer.host.clone(), peer.port);
            let text = bytes::Bytes::from(question.to_string());
            let request = || {
                Request::post(&path)
                    .header(header::HOST, format!("{}:{}", peer.name, webhook.port()))
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::ACCEPT, "application/json, */*")
                    .header(header::USER_AGENT, "kube-apiserver-admission")
                    .body(client::full(text.clone()))
            };
            let mut kept = None;
            if let Some(mut sender) = webhook.take_idle(&to)
                && sender.ready().await.is_ok()
            {
                match sender.send_request(request()?).await {
                    Ok(answer) => kept = Some((sender, answer)),
                    // The other side has closed it meanwhile: that says nothing of the question.
                    Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let (sender, answer) = match kept {
                Some(both) => both,
                None => {
                    let mut sender = self.dial(&peer).await?;
                    let answer = sender.send_request(request()?).await?;
                    (sender, answer)
                }
            };
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await.map_err(|e| anyhow::anyhow!(e))?;
            webhook.keep(to, sender);
            Ok((status, body.to_bytes()))
        };
        let timely = tokio::time::timeout(timeout, asked).await;
        let answered = timely.unwrap_or_else(|_| Err(anyhow::anyhow!("context deadline exceeded")));
        let (status, body) = answered.with_context(|| format!("Post {url:?}"))?;
        ensure!(status.is_success(), "{}", failure(status, &body));
        serde_json::from_slice(&body).context("couldn't get version/kind; json parse error")
    }

    /// Whom a webhook's `clientConfig` names.
    fn peer_of(&self, webhook: &Webhook) -> Result<Peer> {
        let tls = webhook.tls()?;
        let Some(url) = webhook.config["url"].as_str() else {
            let (namespace, name) = (webhook.service("namespace"), webhook.service("name"));
            let (host, port) = self.backend(namespace, name, webhook.port())?;
            return Ok(Peer { host, port, name: format!("{name}.{namespace}.svc"), tls: Some(tls) });
        };
        let uri: Uri = url.parse().with_context(|| format!("read URL {url}"))?;
        let host = uri.host().context("the URL has no host")?.trim_matches(['[', ']']).to_owned();
        Ok(Peer { name: host.clone(), host, port: webhook.port(), tls: Some(tls) })
    }

    /// The address of a pod behind a port of a Service.
    ///
    /// # Errors
    /// When there is no such Service or port, or nobody is ready behind it.
    pub(crate) fn backend(&self, namespace: &str, name: &str, port: u16) -> Result<(String, u16)> {
        let service = self.stored_object("services", namespace, name)?;
        let service = service.with_context(|| format!("service {name:?} not found"))?;
        let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(wanted) = ports.iter().find(|p| p["port"] == port) else {
            bail!("no service port {port} found for service {name:?}");
        };
        let wanted = wanted["name"].as_str().unwrap_or_default();
        let mut ready = self.ready_endpoints(namespace, name, wanted)?;
        ensure!(!ready.is_empty(), "no endpoints available for service {name:?}");
        let chosen = ready.swap_remove(rand::random_range(0..ready.len()));
        Ok((chosen.address, chosen.port))
    }

    /// Who is ready behind a port of a Service, which is named.
    ///
    /// # Errors
    /// When what is stored cannot be read.
    pub(crate) fn ready_endpoints(&self, namespace: &str, service: &str, wanted: &str) -> Result<Vec<Endpoint>> {
        let slices = Served::find("discovery.k8s.io", "v1", "endpointslices")?;
        let range = self.store.range(&slices.namespace_prefix(namespace), None, 0, None)?;
        let mut ready = Vec::new();
        for entry in range.entries {
            let slice = stored::decode(&slices, &entry)?;
            if meta::labels(&slice).get("kubernetes.io/service-name") != Some(&service) {
                continue;
            }
            let ports = slice["ports"].as_array().into_iter().flatten();
            let port = ports
                .filter(|p| p["name"].as_str().unwrap_or_default() == wanted)
                .find_map(|p| p["port"].as_u64().and_then(|port| u16::try_from(port).ok()));
            let Some(port) = port else { continue };
            for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
                if endpoint["conditions"]["ready"] != false {
                    let addresses = endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
                    let target = &endpoint["targetRef"];
                    ready.extend(addresses.map(|address| Endpoint {
                        address: address.to_owned(),
                        port,
                        target: target.clone(),
                    }));
                }
            }
        }
        Ok(ready)
    }
}

/// Somebody behind a Service.
pub(crate) struct Endpoint {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// The object that has the address (`targetRef`).
    pub target: Value,
}
