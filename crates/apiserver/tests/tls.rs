//! The listener: TLS with optional client certificates, HTTP/1.1 and HTTP/2.

#![expect(clippy::disallowed_methods, reason = "the tasks end with the test's runtime")]

mod cluster;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use cluster::{Cluster, MAPS, map};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

type Pair = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// An authority and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate").der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self, name: &str, group: &str) -> Pair {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate").der().clone();
        (certificate, PrivateKeyDer::try_from(key.serialize_der()).expect("key"))
    }

    fn roots(&self) -> Arc<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("root");
        Arc::new(roots)
    }
}

struct Listening {
    authority: Authority,
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Listening {
    async fn start() -> Self {
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
        Self { authority, address, stop, serving }
    }

    /// One request over a connection of its own.
    async fn ask(&self, pair: Option<Pair>, protocol: &str, request: Request<Full<Bytes>>) -> (StatusCode, Value) {
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

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("join").expect("serve");
    }
}

fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let uri = format!("https://localhost{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "localhost")
        .body(Full::new(body.into()))
        .expect("request")
}

#[tokio::test]
async fn a_certificate_says_who_asks_over_both_versions_of_http() {
    let l = Listening::start().await;
    for (protocol, name) in [("h2", "a"), ("http/1.1", "b")] {
        let admin = Some(l.authority.sign("admin", "system:masters"));
        let (code, object) = l.ask(admin, protocol, request("POST", MAPS, map(name).to_string())).await;
        assert_eq!((code, object["metadata"]["name"].as_str()), (StatusCode::CREATED, Some(name)));
    }
    let bob = Some(l.authority.sign("bob", "dev"));
    let (code, status) = l.ask(bob, "h2", request("GET", MAPS, "")).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    assert!(status["message"].as_str().expect("text").contains("User \"bob\" cannot list resource \"configmaps\""));
    l.end().await;
}

#[tokio::test]
async fn without_a_certificate_one_is_anonymous_and_a_token_nobody_issued_is_refused() {
    let l = Listening::start().await;
    let (code, status) = l.ask(None, "http/1.1", request("GET", MAPS, "")).await;
    assert_eq!((code, status["reason"].as_str()), (StatusCode::FORBIDDEN, Some("Forbidden")));
    let mut with_token = request("GET", MAPS, "");
    with_token.headers_mut().insert("authorization", "Bearer x".parse().expect("header"));
    let (code, status) = l.ask(None, "http/1.1", with_token).await;
    assert_eq!((code, status["message"].as_str()), (StatusCode::UNAUTHORIZED, Some("Unauthorized")));
    l.end().await;
}
