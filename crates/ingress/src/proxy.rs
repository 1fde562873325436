//! One request: to whom it goes, and how it gets there and back.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use client::{drop_hop_by_hop, is_upgrade};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Current;

/// A body, whoever made it.
pub(crate) type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// How long an endpoint may take to accept a connection before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What all requests share.
pub(crate) struct Proxy {
    pub current: Current,
    /// Connections to endpoints.
    pub tasks: TaskTracker,
    /// Ends them.
    pub kill: CancellationToken,
    /// Counts on, so that endpoints take turns.
    pub turn: AtomicUsize,
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The host that a request is for, in lower case and without the port.
fn host_of(parts: &request::Parts) -> (String, String) {
    let header = parts.headers.get(HOST).and_then(|value| value.to_str().ok());
    let full = parts.uri.authority().map(http::uri::Authority::as_str).or(header).unwrap_or_default().to_owned();
    let host =
        full.parse::<http::uri::Authority>().map_or_else(|_| full.clone(), |authority| authority.host().to_owned());
    (host.to_lowercase(), full)
}

/// The headers to hand on: without those of the connection, with those that tell of the client.
fn handed_on(parts: &request::Parts, full_host: &str, client: IpAddr, tls: bool) -> HeaderMap {
    let mut headers = parts.headers.clone();
    let upgrade = is_upgrade(&headers).then(|| headers.get(UPGRADE).cloned()).flatten();
    drop_hop_by_hop(&mut headers);
    if let Some(protocol) = upgrade {
        headers.insert(UPGRADE, protocol);
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let scheme = if tls { "https" } else { "http" };
    let port = if tls { "443" } else { "80" };
    // What a client says of itself here is not to be believed, so it is replaced.
    for (name, value) in [
        ("host", full_host),
        ("x-forwarded-for", &client.to_string()),
        ("x-real-ip", &client.to_string()),
        ("x-forwarded-host", full_host),
        ("x-forwarded-proto", scheme),
        ("x-forwarded-port", port),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

impl Proxy {
    /// The answer to a request.
    pub async fn answer(&self, mut request: Request<Incoming>, client: IpAddr, tls: bool) -> Response<Body> {
        let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let (host, full) = host_of(&parts);
        let table = self.current.get();
        let Some(backend) = table.route(&host, parts.uri.path()) else {
            let text = format!("404: no Ingress has a rule for host {host:?} and path {:?}\n", parts.uri.path());
            return plain(StatusCode::NOT_FOUND, text);
        };
        if backend.endpoints.is_empty() {
            let text = format!("503: nobody is ready behind service {}\n", backend.name);
            return plain(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        let headers = handed_on(&parts, &full, client, tls);
        match self.forward(&parts, headers, body, upgrade, &backend.endpoints).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!(backend = backend.name, "forward a request: {error:#}");
                let late = error.downcast_ref::<tokio::time::error::Elapsed>().is_some();
                let (status, word) = if late {
                    (StatusCode::GATEWAY_TIMEOUT, "504: no answer in time")
                } else {
                    (StatusCode::BAD_GATEWAY, "502: no answer")
                };
                plain(status, format!("{word} from service {}\n", backend.name))
            }
        }
    }

    async fn forward(
        &self,
        parts: &request::Parts,
        headers: HeaderMap,
        body: Incoming,
        mut upgrade: Option<OnUpgrade>,
        endpoints: &[SocketAddr],
    ) -> Result<Response<Body>> {
        // One that says nothing and changes nothing may be asked of another endpoint, should the first break off.
        let repeatable = body.is_end_stream() && matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let mut body = Some(body);
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = anyhow::anyhow!("there is no endpoint");
        for number in 0..endpoints.len() {
            let endpoint = endpoints[(first.wrapping_add(number)) % endpoints.len()];
            let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    last = anyhow::Error::new(error).context(format!("connect to {endpoint}"));
                    continue;
                }
                Err(_) => {
                    last = anyhow::anyhow!("connect to {endpoint}: it does not answer");
                    continue;
                }
            };
            let content = if repeatable { empty() } else { body.take().map_or_else(empty, BodyExt::boxed_unsync) };
            match self.send(stream, parts, headers.clone(), content).await {
                Ok(response) => return Ok(self.hand_back(response, upgrade.take())),
                Err(error) if repeatable && error.downcast_ref::<tokio::time::error::Elapsed>().is_none() => {
                    last = error.context(format!("ask {endpoint}"));
                }
                Err(error) => return Err(error.context(format!("ask {endpoint}"))),
            }
        }
        Err(last)
    }

    /// Asks one endpoint over a connection of its own: one that is kept may have been closed when it is used again.
    async fn send(
        &self,
        stream: TcpStream,
        parts: &request::Parts,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Incoming>> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let kill = self.kill.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = kill.cancelled() => {}
                ended = connection.with_upgrades() => if let Err(error) = ended {
                    tracing::debug!("connection to an endpoint: {error}");
                }
            }
        });
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = path.parse::<Uri>().context("read the path")?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request)).await?;
        answer.map_err(Into::into)
    }

    fn hand_back(&self, mut response: Response<Incoming>, client: Option<OnUpgrade>) -> Response<Body> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = client
        {
            let endpoint = hyper::upgrade::on(&mut response);
            let kill = self.kill.clone();
            self.tasks.spawn(async move {
                let carry = async {
                    let (client, endpoint) = tokio::try_join!(client, endpoint)?;
                    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
                    tokio::io::copy_bidirectional(&mut client, &mut endpoint).await?;
                    anyhow::Ok(())
                };
                tokio::select! {
                    () = kill.cancelled() => {}
                    ended = carry => if let Err(error) = ended {
                        tracing::debug!("carry an upgraded connection: {error:#}");
                    }
                }
            });
            return response.map(BodyExt::boxed_unsync);
        }
        drop_hop_by_hop(response.headers_mut());
        let mut response = response.map(BodyExt::boxed_unsync);
        *response.version_mut() = Version::default();
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_connection_stay_and_the_client_is_told_of() {
        let request = Request::get("/x")
            .header("host", "Web.test:8080")
            .header("connection", "close, x-secret")
            .header("x-secret", "1")
            .header("x-forwarded-for", "6.6.6.6")
            .header("accept", "*/*");
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let (host, full) = host_of(&parts);
        assert_eq!((host.as_str(), full.as_str()), ("web.test", "Web.test:8080"));
        let headers = handed_on(&parts, &full, IpAddr::from([192, 0, 2, 7]), true);
        let mut lines: Vec<String> =
            headers.iter().map(|(k, v)| format!("{k}={}", v.to_str().expect("text"))).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "accept=*/*",
                "host=Web.test:8080",
                "x-forwarded-for=192.0.2.7",
                "x-forwarded-host=Web.test:8080",
                "x-forwarded-port=443",
                "x-forwarded-proto=https",
                "x-real-ip=192.0.2.7",
            ]
        );
        let upgrade = Request::get("/").header("connection", "Upgrade").header("upgrade", "websocket");
        let (parts, ()) = upgrade.body(()).expect("a request").into_parts();
        let headers = handed_on(&parts, "a", IpAddr::from([192, 0, 2, 7]), false);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }
}
