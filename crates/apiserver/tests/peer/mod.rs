//! A server over TLS in the test's process, which the API server is told to ask.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What a peer answers.
pub type Answer = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

/// Where a peer listens, and by which certificate it is known.
#[derive(Clone)]
pub struct Peer {
    pub port: u16,
    /// Its certificate, in base64 of PEM.
    pub bundle: String,
    connections: Arc<AtomicUsize>,
}

impl Peer {
    /// How many connections it has had.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// An answer of a document.
pub fn document(value: &Value) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(value.to_string())))
}

/// Starts a peer with a certificate for `name`. `answer` gets each request, read to its end.
pub async fn start(name: &str, answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static) -> Peer {
    start_as(rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate"), answer).await
}

/// The same with a certificate that is there already.
pub async fn start_as(
    issued: rcgen::CertifiedKey<rcgen::KeyPair>,
    answer: impl Fn(Request<Bytes>) -> Answer + Send + Sync + 'static,
) -> Peer {
    let key = rustls_pki_types::PrivateKeyDer::try_from(issued.signing_key.serialize_der()).expect("a key");
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![issued.cert.der().clone()], key)
        .expect("a configuration");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let answer = Arc::new(answer);
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            tasks.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let serve = service_fn(move |request: Request<Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        Ok::<_, hyper::Error>(answer(Request::from_parts(parts, body)).await)
                    }
                });
                // A client that goes away in the middle is no matter of the test.
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
            });
        }
    });
    Peer { port, bundle: base64::engine::general_purpose::STANDARD.encode(issued.cert.pem()), connections }
}
