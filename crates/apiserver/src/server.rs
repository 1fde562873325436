//! The listener: TLS with optional client certificates, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use auth::User;
use client::{Body, BodyError};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use object_model::ApiError;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{ApiServer, respond};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// One Go process puts all its watches on one connection; the protocol's usual 100 or 200 starve it.
const STREAMS_PER_CONNECTION: u32 = 1000;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub IpAddr);

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl ApiServer {
    /// Answers connections until `cancel`, then lets requests in flight finish for a moment.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) -> Result<()> {
        self.clean_up_all();
        self.keep_remotes();
        let upkeep = self.tasks.spawn(self.clone().keep_up(self.shutdown.clone()));
        self.accept(listener, tls, &cancel).await;
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::debug!("some requests did not end in time");
        }
        upkeep.await.context("join upkeep")
    }

    /// Answers connections of one more listener until `cancel`; requests in flight end with [`ApiServer::serve`].
    ///
    /// # Errors
    /// Never, as a part of a server is expected to be able to fail.
    pub async fn serve_also(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: CancellationToken,
    ) -> Result<()> {
        self.accept(listener, tls, &cancel).await;
        Ok(())
    }

    async fn accept(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        cancel: &CancellationToken,
    ) {
        let acceptor = TlsAcceptor::from(tls);
        loop {
            let stream = tokio::select! {
                () = cancel.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of file descriptors, mostly: a pause lets connections end.
                        tracing::warn!("accept connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            self.tasks.spawn(self.clone().connection(stream, acceptor.clone()));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!("set TCP_NODELAY: {error}");
        }
        let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!("TLS handshake: {error}"),
            Err(_) => return tracing::debug!("TLS handshake: timed out"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|c| c.first().cloned());
        let from = stream.get_ref().0.peer_addr().ok();
        let user = match certificate.map(|c| User::of_certificate(&c)).transpose() {
            Ok(user) => user,
            Err(error) => return tracing::debug!("{error:#}"),
        };
        let shutdown = self.shutdown.clone();
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let (server, user) = (self.clone(), user.clone());
            // Boxed, so that the connection's type does not carry the handlers' in its own.
            let answer: Answer = if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
                Box::pin(async move { Ok(server.handle_outside(request, user, from).await) })
            } else {
                // What is written has consequences (a policy that is read anew, an address that is taken), also when the
                // client goes away before its answer: the request is carried out to its end.
                let work = self.tasks.spawn(async move { server.handle_outside(request, user, from).await });
                Box::pin(async move {
                    Ok(work.await.unwrap_or_else(|error| respond::error(&ApiError::internal(error.to_string()), None)))
                })
            };
            answer
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_PER_CONNECTION);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let outcome = tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                // Watches never end by themselves.
                match tokio::time::timeout(DRAIN / 2, connection).await {
                    Ok(outcome) => outcome,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!("connection: {error}");
        }
    }

    async fn handle_outside(
        &self,
        request: Request<hyper::body::Incoming>,
        user: Option<User>,
        from: Option<SocketAddr>,
    ) -> Response<Body> {
        let mut request = request.map(|body| body.map_err(BodyError::new).boxed_unsync());
        if let Some(from) = from {
            request.extensions_mut().insert(Client(from.ip()));
        }
        // Only the handshake says who it is; nothing a client sends can.
        request.extensions_mut().remove::<User>();
        // A certificate counts for more than a token.
        let user = match user.map_or_else(|| self.user_of_token(request.headers()), |user| Ok(Some(user))) {
            Ok(user) => user,
            Err(error) => {
                self.metrics.count_authentication(false);
                return respond::error(&error, None);
            }
        };
        if let Some(user) = user {
            self.metrics.count_authentication(true);
            request.extensions_mut().insert(user);
        }
        self.handle(request).await
    }
}
