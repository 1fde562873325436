//! The server behind its listener, and clients with certificates.
#![expect(clippy::disallowed_methods, reason = "the tasks end with the test's runtime")]

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Cluster;

pub type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// An authority and what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub fn sign(&self, name: &str, group: &str) -> Pair {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate").der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).expect("key"))
    }

    pub fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("root");
        Arc::new(roots)
    }
}

/// A server that listens.
pub struct Listening {
    pub cluster: Cluster,
    pub authority: Authority,
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Listening {
    pub async fn start() -> Self {
        let (cluster, authority) = (Cluster::start().await, Authority::new());
        let verifier = rustls::server::WebPkiClientVerifier::builder(authority.roots())
            .allow_unauthenticated()
            .build()
            .expect("verifier");
        let (certificate, key) = authority.sign("server", "none");
        let mut tls = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .expect("server certificate");
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let stop = CancellationToken::new();
        let serving = tokio::spawn(cluster.server.clone().serve(listener, Arc::new(tls), stop.clone()));
        Self { cluster, authority, address, stop, serving }
    }

    /// A connection, with the handshake behind it.
    pub async fn connect(&self, pair: Option<Pair>, protocol: &str) -> TlsStream<TcpStream> {
        let builder = rustls::ClientConfig::builder().with_root_certificates(self.authority.roots());
        let mut tls = match pair {
            Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key).expect("certificate"),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(self.address).await.expect("connect");
        let name = ServerName::try_from("localhost").expect("name");
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.expect("handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        stream
    }

    /// One request over a connection of its own.
    pub async fn ask(&self, pair: Option<Pair>, protocol: &str, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
        let stream = self.connect(pair, protocol).await;
        let stream = TokioIo::new(stream);
        let response = if protocol == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.expect("an answer");
            let parts = (response.status(), response.into_body().collect().await.expect("a body").to_bytes());
            connection.abort();
            parts
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.expect("HTTP/1.1");
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.expect("an answer");
            let parts = (response.status(), response.into_body().collect().await.expect("a body").to_bytes());
            connection.abort();
            parts
        };
        (response.0, serde_json::from_slice(&response.1).expect("JSON"))
    }

    pub async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("join").expect("serve");
    }
}

/// A request by its parts.
pub fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let uri = format!("https://localhost{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .body(Full::new(body.into()))
        .expect("request")
}
