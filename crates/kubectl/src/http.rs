//! Requests to the server: HTTP/1.1 over TLS, a connection for each.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use object_model::ApiError;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::config::Access;
use crate::failure::{Failure, error};

/// What carries bytes to the server.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// The way to the server.
pub(crate) struct Server {
    access: Access,
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
    connections: Mutex<JoinSet<()>>,
}

/// What a request gets when nobody answers: kubectl's sentence.
fn refused(server: &str, e: &std::io::Error) -> Failure {
    let host = server.split("://").nth(1).unwrap_or(server).trim_end_matches('/');
    match e.kind() {
        std::io::ErrorKind::ConnectionRefused => Failure {
            message: format!(
                "The connection to the server {host} was refused - did you specify the right host or port?"
            ),
            code: 1,
        },
        _ => Failure { message: format!("Unable to connect to the server: dial tcp {host}: {e}"), code: 1 },
    }
}

/// An error that carries a whole failure through `anyhow`.
#[derive(Debug)]
struct Carried(Failure);
impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}
impl std::error::Error for Carried {}

/// The failure in an error of a request.
pub(crate) fn failure(e: anyhow::Error) -> Failure {
    match e.downcast::<Carried>() {
        Ok(Carried(failure)) => failure,
        Err(e) => e.into(),
    }
}

impl Server {
    pub fn new(access: Access) -> Result<Self> {
        let uri: Uri = access.server.parse().with_context(|| format!("read the server's address {}", access.server))?;
        let host = uri.host().with_context(|| format!("find a host in {}", access.server))?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = secure.then(|| tls(&access)).transpose()?.map(Arc::new);
        Ok(Self { access, host, port, tls, connections: Mutex::default() })
    }

    pub fn namespace(&self) -> &str {
        &self.access.namespace
    }

    async fn connect(&self) -> Result<Box<dyn Wire>> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(|e| anyhow::Error::new(Carried(refused(&self.access.server, &e))))?;
        tcp.set_nodelay(true).context("set up the connection")?;
        let Some(tls) = &self.tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from(self.host.clone()).context("read the server's name")?;
        let stream = tokio_rustls::TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(|e| {
            let message = format!("Unable to connect to the server: tls: failed to verify certificate: {e}");
            anyhow::Error::new(Carried(Failure { message, code: 1 }))
        })?;
        Ok(Box::new(stream))
    }

    /// A request with everything that says who asks.
    pub fn builder(&self, method: Method, path: &str) -> http::request::Builder {
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::USER_AGENT, concat!("knarr-kubectl/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.access.token {
            builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
        } else if let Some((user, password)) = &self.access.basic {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            builder = builder.header(header::AUTHORIZATION, format!("Basic {text}"));
        }
        for (name, value) in &self.access.impersonate {
            builder = builder.header(*name, value);
        }
        builder
    }

    /// Sends a request on a connection of its own. Warnings of the server are passed on.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let wire = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(wire)).await.context("speak to the server")?;
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).spawn(async move {
            // The response tells what went wrong.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.context("ask the server")?;
        for warning in response.headers().get_all(header::WARNING) {
            // `299 - "text"`.
            let text = warning.to_str().unwrap_or_default();
            if let Some(text) = text.strip_prefix("299 - ") {
                eprintln!("Warning: {}", text.trim_matches('"').replace("\\\"", "\""));
            }
        }
        Ok(response)
    }

    /// A connection for a protocol that begins as HTTP and goes on otherwise.
    pub async fn open(&self) -> Result<Box<dyn Wire>> {
        self.connect().await
    }

    /// Sends and reads the whole answer; the server's refusal is an [`ApiError`].
    pub async fn call(&self, method: Method, path: &str, accept: &str, body: Option<(&str, String)>) -> Result<Bytes> {
        let mut builder = self.builder(method, path).header(header::ACCEPT, accept);
        let text = match body {
            Some((kind, text)) => {
                builder = builder.header(header::CONTENT_TYPE, HeaderValue::from_str(kind)?);
                text
            }
            None => String::new(),
        };
        let response = self.send(builder.body(Full::from(text))?).await?;
        whole(response).await
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        let bytes = self.call(Method::GET, path, "application/json", None).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("read the answer to GET {path}"))
    }

    /// Sends JSON of a kind (`application/json` and others) and reads JSON.
    pub async fn put(&self, method: Method, path: &str, kind: &str, body: &Value) -> Result<Value> {
        let bytes = self.call(method, path, "application/json", Some((kind, body.to_string()))).await?;
        serde_json::from_slice(&bytes).with_context(|| format!("read the answer of {path}"))
    }

    /// Opens a stream of lines: a watch or a log.
    pub async fn lines(&self, path: &str, accept: &str) -> Result<Lines> {
        let request = self.builder(Method::GET, path).header(header::ACCEPT, accept).body(Full::default())?;
        let response = self.send(request).await?;
        if !response.status().is_success() {
            whole(response).await?;
            bail!("the server answered GET {path} with neither success nor an error");
        }
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new() })
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes> {
    let status = response.status();
    let body = response.into_body().collect().await.context("read the server's answer")?.to_bytes();
    if status.is_success() {
        return Ok(body);
    }
    Err(anyhow!(ApiError::from_status(status.as_u16(), &body)))
}

/// A body that is read as it comes.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// The next line without its end; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.buffer.split_to(end + 1).freeze().slice(..end)));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(self.buffer.split().freeze())),
                Some(frame) => {
                    if let Ok(data) = frame.context("read the stream")?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    /// The next piece, whatever it is.
    pub async fn piece(&mut self) -> Result<Option<Bytes>> {
        match self.body.frame().await {
            None => Ok(None),
            Some(frame) => Ok(Some(frame.context("read the stream")?.into_data().unwrap_or_default())),
        }
    }

    /// The next event of a watch: its type and its object.
    pub async fn event(&mut self) -> Result<Option<(String, Value)>> {
        let Some(line) = self.next().await? else { return Ok(None) };
        let mut event: Value = serde_json::from_slice(&line).context("read a watch event")?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let object = event["object"].take();
        if kind == "ERROR" {
            let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
            return Err(anyhow!(ApiError::from_status(code, object.to_string().as_bytes())));
        }
        Ok(Some((kind, object)))
    }
}

fn tls(access: &Access) -> Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.authority) {
        roots.add(certificate.context("read the server's authority")?).context("read the server's authority")?;
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let Some((certificate, key)) = &access.certificate else { return Ok(config.with_no_client_auth()) };
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("read the client's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("read the client's key")?;
    config.with_client_auth_cert(chain, key).context("use the client's certificate")
}

/// Percent-encodes a value of a query.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// An address that is no address.
pub(crate) fn bad_server(e: anyhow::Error) -> Failure {
    error(format!("{e:#}"))
}
