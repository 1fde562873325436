//! The load on an API server: connections of the administrator over TLS, each with one request at a time.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// The media type of Kubernetes' JSON and protobuf.
pub const JSON: &str = "application/json";
/// See [`JSON`].
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How an API server is reached, and as whom.
#[derive(Clone)]
pub struct Target {
    address: String,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Target {
    /// Reads the kubeconfig that knarr writes.
    pub fn of_kubeconfig(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let field = |name: &str| {
            let mut words = text.split_whitespace().skip_while(|word| word.strip_suffix(':') != Some(name));
            words.nth(1).with_context(|| format!("find {name} in {}", path.display()))
        };
        let pem = |name: &str| STANDARD.decode(field(name)?).with_context(|| format!("read {name}"));
        let address = field("server")?.strip_prefix("https://").context("the server is reached over TLS")?.to_owned();
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let name = ServerName::try_from(host.to_owned()).context("name the server")?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem("certificate-authority-data")?)?)?;
        let certificate = CertificateDer::from_pem_slice(&pem("client-certificate-data")?)?;
        let key = PrivateKeyDer::from_pem_slice(&pem("client-key-data")?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose the versions of TLS")?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .context("use the administrator's certificate")?;
        Ok(Self { address, name, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.address).await.context("connect to the API server")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let stream = self.tls.connect(self.name.clone(), stream).await.context("shake hands with the API server")?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.context("speak HTTP")?;
        let mut driver = JoinSet::new();
        // Its errors are those of the requests as well.
        driver.spawn(async move { drop(connection.await) });
        Ok(Connection { host: self.address.clone(), sender, _driver: driver })
    }

    /// Opens this many connections.
    pub async fn connections(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            all.push(self.connect().await?);
        }
        Ok(all)
    }
}

/// One connection, which ends when it is dropped.
pub struct Connection {
    host: String,
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    /// Makes a request and hands back the answer's body, not read yet. An answer other than 2xx is an error.
    pub async fn ask(&mut self, method: &str, path: &str, accept: &str, body: Bytes) -> anyhow::Result<Incoming> {
        let what = || format!("{method} {path}");
        let content_type = if method == "PATCH" { "application/merge-patch+json" } else { JSON };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::ACCEPT, accept)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::USER_AGENT, "bench/1")
            .body(Full::new(body))
            .with_context(what)?;
        self.sender.ready().await.with_context(what)?;
        let answer = self.sender.send_request(request).await.with_context(what)?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            let text = body.collect().await.with_context(what)?.to_bytes();
            anyhow::bail!("{method} {path}: {}: {}", head.status, String::from_utf8_lossy(&text));
        }
        Ok(body)
    }

    /// Makes a request and reads the whole answer; says how many bytes that were.
    pub async fn read(&mut self, method: &str, path: &str, accept: &str, body: Bytes) -> anyhow::Result<usize> {
        let mut answer = self.ask(method, path, accept, body).await?;
        let mut size = 0;
        while let Some(frame) = answer.frame().await {
            size +=
                frame.with_context(|| format!("read the answer to {method} {path}"))?.data_ref().map_or(0, Bytes::len);
        }
        ensure!(size > 0, "the answer to {method} {path} is empty");
        Ok(size)
    }
}
