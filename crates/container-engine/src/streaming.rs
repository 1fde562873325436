//! Exec, attach and port-forward, at addresses that hold for one connection.
//!
//! A caller asks over CRI and gets a URL with a random token; whoever connects there within a minute gets the streams. They
//! come over WebSocket ([`websocket`]) or over SPDY ([`multiplexed`]), and for port-forward also as SPDY within WebSocket.

mod forward;
mod multiplexed;
mod process;
mod websocket;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use cri::v1;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use crate::{Engine, lock, new_id};
use forward::Ports;
use multiplexed::Errors;
use process::Work;
use websocket::Dialect;

/// How long an address holds.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// How long output may still come after the process has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a client may take to open the streams that it asked for (upstream's value).
const STREAMS_WITHIN: Duration = Duration::from_secs(30);

/// The protocol of port-forward within SPDY …
const PORT_FORWARD: &str = "portforward.k8s.io";
/// … and that within WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// What a connection is for.
pub(crate) enum Session {
    Exec(v1::ExecRequest),
    Attach(v1::AttachRequest),
    PortForward(v1::PortForwardRequest),
}

/// Addresses that were given out and not used yet.
pub(crate) struct Sessions {
    address: SocketAddr,
    waiting: Mutex<HashMap<String, (Session, Instant)>>,
}

impl Sessions {
    pub async fn bind(address: SocketAddr) -> Result<(TcpListener, Self)> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address} for streams"))?;
        let address = listener.local_addr().context("read the streaming address")?;
        Ok((listener, Self { address, waiting: Mutex::default() }))
    }

    /// An address for one connection.
    pub fn open(&self, session: Session) -> String {
        let kind = match session {
            Session::Exec(_) => "exec",
            Session::Attach(_) => "attach",
            Session::PortForward(_) => "portforward",
        };
        let token = new_id();
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, (_, since)| since.elapsed() < TOKEN_LIFE);
        waiting.insert(token.clone(), (session, Instant::now()));
        format!("http://{}/{kind}/{token}", self.address)
    }

    fn take(&self, path: &str) -> Option<Session> {
        let token = path.rsplit('/').next()?;
        let (session, since) = lock(&self.waiting).remove(token)?;
        (since.elapsed() < TOKEN_LIFE).then_some(session)
    }
}

/// Accepts connections until the engine stops.
pub(crate) async fn serve(engine: Arc<Engine>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            () = engine.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(e) => {
                tracing::warn!("accept a stream: {e}");
                // Out of descriptors, most likely: others need a moment to give some back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Keys that are typed come one by one.
        if let Err(e) = socket.set_nodelay(true) {
            tracing::debug!("set TCP_NODELAY: {e}");
        }
        let connected = engine.clone();
        engine.tasks.spawn(async move {
            let stop = connected.stop.clone();
            let answering = connected.clone();
            let service = hyper::service::service_fn(move |request| {
                let response = answer(&answering, request);
                async move { Ok::<_, std::convert::Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service)
                .with_upgrades();
            tokio::select! {
                () = stop.cancelled() => {}
                served = connection => if let Err(e) = served {
                    tracing::debug!("serve a stream: {e}");
                }
            }
        });
    }
}

fn refuse(code: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{message}\n")));
    *response.status_mut() = code;
    response
}

/// How a connection is carried, once its protocol has been agreed on.
enum Carrier {
    Words(Dialect, Work),
    Channels(Dialect, Ports),
    Tunnel(Ports),
    Streams(Errors, Work),
    Pairs(Ports),
}

impl Carrier {
    /// Of what a client of WebSocket offers, the first that fits what it came for.
    fn of_websocket(session: Session, offered: &[&str]) -> Option<(String, Self)> {
        let work = match session {
            Session::Exec(request) => Work::Exec(request),
            Session::Attach(request) => Work::Attach(request),
            Session::PortForward(request) => {
                let ports = Ports::of(request);
                let (name, dialect) = offered.iter().find_map(|name| match *name {
                    TUNNEL => Some((*name, None)),
                    "" | PORT_FORWARD | "v4.channel.k8s.io" | "v4.base64.channel.k8s.io" => {
                        Some((*name, Some(Dialect::named(name).unwrap_or_default())))
                    }
                    _ => None,
                })?;
                let carrier = match dialect {
                    Some(dialect) => Self::Channels(dialect, ports),
                    None => Self::Tunnel(ports),
                };
                return Some((name.to_owned(), carrier));
            }
        };
        let (name, dialect) = offered.iter().find_map(|name| Some((*name, Dialect::named(name)?)))?;
        Some((name.to_owned(), Self::Words(dialect, work)))
    }

    /// The same for a client of SPDY.
    fn of_spdy(session: Session, offered: &[&str]) -> Result<(String, Self), &'static [&'static str]> {
        let known = match &session {
            Session::PortForward(_) => &[PORT_FORWARD][..],
            _ => Errors::PROTOCOLS,
        };
        let name = offered.iter().find(|name| known.contains(name)).ok_or(known)?;
        let carrier = match session {
            Session::Exec(request) => Self::Streams(Errors::named(name), Work::Exec(request)),
            Session::Attach(request) => Self::Streams(Errors::named(name), Work::Attach(request)),
            Session::PortForward(request) => Self::Pairs(Ports::of(request)),
        };
        Ok(((*name).to_owned(), carrier))
    }

    async fn run<S>(self, engine: &Engine, stream: S) -> Result<()>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
    {
        let socket = async |stream| WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
        match self {
            Self::Words(dialect, work) => websocket::exec(engine, work, dialect, socket(stream).await).await,
            Self::Channels(dialect, ports) => websocket::forward(engine, ports, dialect, socket(stream).await).await,
            Self::Tunnel(ports) => {
                let (near, tunnel) = websocket::tunnel(socket(stream).await);
                let (carried, ()) = tokio::join!(multiplexed::forward(engine, ports, near), tunnel);
                carried
            }
            Self::Streams(errors, work) => multiplexed::exec(engine, work, errors, stream).await,
            Self::Pairs(ports) => multiplexed::forward(engine, ports, stream).await,
        }
    }
}

fn answer(engine: &Arc<Engine>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let text = |name: HeaderName| {
        let values = request.headers().get_all(name);
        values.iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    let upgrade = text(header::UPGRADE).to_ascii_lowercase();
    let (key, spdy) = (text(header::SEC_WEBSOCKET_KEY), upgrade == "spdy/3.1");
    if !spdy && (upgrade != "websocket" || key.is_empty()) {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: an upgrade to WebSocket or to SPDY/3.1 is needed");
    }
    let offered = text(if spdy { STREAM_PROTOCOL } else { header::SEC_WEBSOCKET_PROTOCOL });
    let offered: Vec<&str> = offered.split(',').map(str::trim).collect();
    if spdy && offered == [""] {
        return refuse(StatusCode::BAD_REQUEST, "unable to upgrade: X-Stream-Protocol-Version is required");
    }
    let Some(session) = engine.streams.take(request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND, "this address is unknown, has been used, or is too old");
    };
    let agreed = if spdy {
        Carrier::of_spdy(session, &offered)
    } else {
        Carrier::of_websocket(session, &offered).ok_or(&[][..])
    };
    let (name, carrier) = match agreed {
        Ok(agreed) => agreed,
        Err(known) => {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                offered.join(" "),
                known.join(" ")
            );
            let mut response = refuse(StatusCode::FORBIDDEN, &message);
            for name in known {
                response.headers_mut().append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
            }
            return response;
        }
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(if spdy { "SPDY/3.1" } else { "websocket" }));
    if let Some(accept) = (!spdy).then(|| derive_accept_key(key.as_bytes()).parse().ok()).flatten() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(name) = Some(name).filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()) {
        headers.insert(if spdy { STREAM_PROTOCOL } else { header::SEC_WEBSOCKET_PROTOCOL }, name);
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let engine = engine.clone();
    engine.clone().tasks.spawn(async move {
        let stop = engine.stop.clone();
        let carry = async {
            let upgraded = upgraded.await.context("upgrade a stream")?;
            carrier.run(&engine, TokioIo::new(upgraded)).await
        };
        tokio::select! {
            () = stop.cancelled() => {}
            carried = carry => if let Err(e) = carried {
                tracing::debug!("carry a stream: {e:#}");
            }
        }
    });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec() -> Session {
        Session::Exec(v1::ExecRequest::default())
    }

    fn ports() -> Session {
        Session::PortForward(v1::PortForwardRequest::default())
    }

    #[test]
    fn the_first_protocol_that_fits_is_taken() {
        let websocket = |session, offered: &[&str]| Carrier::of_websocket(session, offered).map(|(name, _)| name);
        assert_eq!(
            websocket(exec(), &["v9.channel.k8s.io", "v4.channel.k8s.io", "v5.channel.k8s.io"]).unwrap(),
            "v4.channel.k8s.io"
        );
        assert_eq!(websocket(exec(), &[""]).unwrap(), "");
        assert_eq!(websocket(exec(), &[TUNNEL]), None);
        assert_eq!(websocket(ports(), &[TUNNEL, "v4.channel.k8s.io"]).unwrap(), TUNNEL);
        assert_eq!(websocket(ports(), &["v5.channel.k8s.io", PORT_FORWARD]).unwrap(), PORT_FORWARD);
        let spdy = |session, offered: &[&str]| Carrier::of_spdy(session, offered).map(|(name, _)| name);
        assert_eq!(spdy(exec(), &["v5.channel.k8s.io"]).unwrap(), "v5.channel.k8s.io");
        assert_eq!(spdy(exec(), &["x"]), Err(Errors::PROTOCOLS));
        assert_eq!(spdy(ports(), &["v4.channel.k8s.io"]), Err(&[PORT_FORWARD][..]));
    }
}
