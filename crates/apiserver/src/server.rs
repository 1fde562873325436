//! The listener: TLS with optional client certificates, HTTP/1.1 and HTTP/2.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use auth::User;
use client::{Body, BodyError};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{ApiServer, respond};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may go on when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a connection may be silent before its other end is asked whether it is still there, how often, and how long
/// it may take to answer over HTTP/2: a client that has vanished must not keep its watches open.
const SILENCE: Duration = Duration::from_secs(30);
const ASKS: u32 = 4;
const ANSWER: Duration = Duration::from_secs(15);
/// One Go process puts all its watches on one connection; the protocol's usual 100 or 200 starve it.
const STREAMS_PER_CONNECTION: u32 = 1000;

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client(pub IpAddr);

type Work = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// The work on a request. What is written has consequences (a policy that is read anew, an address that is taken), also
/// when the client goes away before its answer: such work, dropped before its end, goes on as a task of its own.
struct CarriedOut {
    /// `None` when it has ended.
    work: Option<Work>,
    /// Where it goes on, if it shall.
    tasks: Option<TaskTracker>,
}

impl Future for CarriedOut {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        let answer = std::task::ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(Ok(answer))
    }
}

impl Drop for CarriedOut {
    fn drop(&mut self) {
        let (Some(work), Some(tasks)) = (self.work.take(), &self.tasks) else { return };
        // Without a runtime the process is ending, and nothing goes on.
        if let Ok(runtime) = Handle::try_current() {
            tasks.spawn_on(work, &runtime);
        }
    }
}

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
        if let Err(error) = ask_when_silent(&stream) {
            tracing::debug!("set SO_KEEPALIVE: {error}");
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
            let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
            let tasks = (!reads).then(|| self.tasks.clone());
            // Boxed, so that the connection's type does not carry the handlers' in its own.
            let work: Work = Box::pin(async move { server.handle_outside(request, user, from).await });
            CarriedOut { work: Some(work), tasks }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new());
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_PER_CONNECTION);
        builder.http2().keep_alive_interval(SILENCE).keep_alive_timeout(ANSWER);
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

/// Makes the kernel end a connection whose other end does not answer any more.
fn ask_when_silent(stream: &TcpStream) -> std::io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, ANSWER)?;
    sockopt::set_tcp_keepcnt(stream, ASKS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_write_whose_client_goes_away_is_carried_out_and_a_read_is_not() {
        for (writes, outcome) in [(true, Some("done")), (false, None)] {
            let tasks = TaskTracker::new();
            let (go, told) = oneshot::channel::<()>();
            let (done, end) = oneshot::channel();
            let work: Work = Box::pin(async move {
                told.await.ok();
                done.send("done").ok();
                Response::new(client::full(""))
            });
            let mut work = CarriedOut { work: Some(work), tasks: writes.then(|| tasks.clone()) };
            assert!(futures::poll!(&mut work).is_pending());
            drop(work);
            go.send(()).ok();
            tasks.close();
            tasks.wait().await;
            assert_eq!(end.await.ok(), outcome, "writes: {writes}");
        }
    }
}
