//! HTTP over the socket: connections, requests with their parameters, answers, and streams taken over from HTTP.

use std::collections::HashMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use crate::DockerApi;
use crate::error::{Answer, Refusal, bad};

/// The newest version of the API that is spoken, and the oldest.
pub(crate) const API_VERSION: (u32, u32) = (1, 47);
pub(crate) const MIN_API_VERSION: (u32, u32) = (1, 24);

/// Most bytes of a body in JSON.
const MAX_JSON: usize = 16 << 20;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request, taken apart.
pub(crate) struct Call {
    pub method: Method,
    /// Without the version before it.
    pub path: String,
    pub version: (u32, u32),
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub body: Incoming,
    pub upgrade: Option<OnUpgrade>,
}

impl Call {
    pub fn text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A parameter that is yes or no; absent is no. Docker takes everything for yes but these.
    pub fn flag(&self, name: &str) -> bool {
        !matches!(self.text(name).unwrap_or("").to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Answer<Option<N>> {
        let Some(text) = self.text(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| bad(format!("bad parameter: {name}={text} is not a number")))
    }

    /// The body as JSON.
    pub async fn json<T: DeserializeOwned + Default>(&mut self) -> Answer<T> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|e| bad(format!("read the request: {e}")))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > MAX_JSON {
                return Err(bad("bad parameter: the body is too large"));
            }
        }
        if bytes.is_empty() {
            return Ok(T::default());
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// An answer in JSON.
pub(crate) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(full(value.to_string() + "\n"));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer without a body.
pub(crate) fn empty_answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// A body that is written while it is sent.
pub(crate) fn streamed(source: mpsc::Receiver<Bytes>) -> Body {
    let frames = tokio_stream::wrappers::ReceiverStream::new(source).map(|bytes| Ok(Frame::data(bytes)));
    StreamBody::new(frames).boxed_unsync()
}

/// An answer whose body comes in pieces, of this type.
pub(crate) fn stream_answer(kind: &'static str, source: mpsc::Receiver<Bytes>) -> Response<Body> {
    let mut response = Response::new(streamed(source));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    if refusal.status == StatusCode::NOT_MODIFIED {
        return empty_answer(refusal.status);
    }
    json_answer(refusal.status, &json!({"message": refusal.message}))
}

/// Takes `/v1.41/containers/json?a=b` apart.
fn take_apart(request: Request<Incoming>) -> Answer<Call> {
    let (mut parts, body) = request.into_parts();
    let decode = |text: &str| {
        let plain = text.replace('+', " ");
        percent_encoding::percent_decode_str(&plain).decode_utf8_lossy().into_owned()
    };
    let query = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    });
    let query = query.collect();
    let whole = parts.uri.path();
    let (version, path) = match versioned(whole) {
        Some((version, path)) => (version, path),
        None => (API_VERSION, whole),
    };
    if version > API_VERSION {
        return Err(bad(format!(
            "client version {}.{} is too new. Maximum supported API version is {}.{}",
            version.0, version.1, API_VERSION.0, API_VERSION.1
        )));
    }
    if version < MIN_API_VERSION {
        return Err(bad(format!(
            "client version {}.{} is too old. Minimum supported API version is {}.{}, please upgrade your client to a newer version",
            version.0, version.1, MIN_API_VERSION.0, MIN_API_VERSION.1
        )));
    }
    let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned();
    let wants_upgrade = parts.headers.contains_key(header::UPGRADE);
    let upgrade = if wants_upgrade { parts.extensions.remove::<OnUpgrade>() } else { None };
    Ok(Call { method: parts.method, path, version, query, headers: parts.headers, body, upgrade })
}

fn versioned(path: &str) -> Option<((u32, u32), &str)> {
    let rest = path.strip_prefix("/v")?;
    let end = rest.find('/')?;
    let (major, minor) = rest[..end].split_once('.')?;
    Some(((major.parse().ok()?, minor.parse().ok()?), &rest[end..]))
}

impl DockerApi {
    /// Answers on a socket that root alone may use, until `stop`. Containers go on running.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn serve(self: Arc<Self>, path: &Path, stop: tokio_util::sync::CancellationToken) -> Result<()> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("replace {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
            .with_context(|| format!("protect {}", path.display()))?;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    self.tasks.spawn(self.clone().serve_client(socket));
                }
                Err(e) => {
                    tracing::warn!("accept on {}: {e}", path.display());
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
    }

    async fn serve_client(self: Arc<Self>, socket: UnixStream) {
        let stop = self.stop.clone();
        let service = hyper::service::service_fn(move |request| {
            let api = self.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        tokio::select! {
            () = stop.cancelled() => {}
            served = connection => if let Err(e) = served {
                tracing::debug!("serve a docker client: {e}");
            }
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let line = format!("{} {}", request.method(), request.uri().path());
        // On a task of its own: a client that leaves does not break off a change half way, and a panic ends here.
        let api = self.clone();
        let work = self.tasks.spawn(async move {
            match take_apart(request) {
                Ok(call) => api.route(call).await,
                Err(refusal) => Err(refusal),
            }
        });
        let answered = match work.await {
            Ok(answered) => answered,
            Err(e) => Err(crate::error::internal(format!("answer the request: {e}"))),
        };
        let mut response = answered.unwrap_or_else(|refusal| {
            if refusal.status.is_server_error() {
                tracing::warn!("{line}: {}", refusal.message);
            }
            refuse(&refusal)
        });
        let (major, minor) = API_VERSION;
        let headers = response.headers_mut();
        if let Ok(version) = HeaderValue::from_str(&format!("{major}.{minor}")) {
            headers.insert("Api-Version", version);
        }
        headers.insert("Ostype", HeaderValue::from_static("linux"));
        headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
        if let Ok(server) = HeaderValue::from_str(&format!("knarr/{} (linux)", self.config.version)) {
            headers.insert(header::SERVER, server);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::versioned;

    #[test]
    fn a_version_stands_before_the_path() {
        assert_eq!(versioned("/v1.41/containers/json"), Some(((1, 41), "/containers/json")));
        assert_eq!(versioned("/volumes/x"), None);
        assert_eq!(versioned("/version"), None);
    }
}
