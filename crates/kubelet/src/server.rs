//! The kubelet's own HTTPS endpoint: logs, and the way to exec, attach and port-forward. Only the API server may ask.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use auth::User;
use bytes::Bytes;
use cri::v1;
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;
use crate::logs;
use crate::view::{ContainerState, Runtime, Stage};
use crate::worker::look;

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Answer = Response<Body>;

const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// Decides by the name in the client's certificate who may use the endpoint.
pub type Allow = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Finds the pods of this node.
pub(crate) type Pods = Arc<dyn Fn() -> Vec<Arc<Pod>> + Send + Sync>;

#[derive(Clone)]
struct Server {
    context: Arc<Context>,
    pods: Pods,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// Serves until cancelled.
pub(crate) async fn run(context: Arc<Context>, pods: Pods, listener: TcpListener, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    let server = Server { context: context.clone(), pods, tasks: tasks.clone(), cancel: cancel.clone() };
    let acceptor = tokio_rustls::TlsAcceptor::from(context.config.tls.clone());
    loop {
        let stream = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("accept a connection: {error}");
                    continue;
                }
            },
        };
        let (server, acceptor, allow) = (server.clone(), acceptor.clone(), context.config.allow.clone());
        let cancel = cancel.clone();
        tasks.spawn(async move {
            let serve = async {
                let stream = acceptor.accept(stream).await?;
                let certificates = stream.get_ref().1.peer_certificates();
                let leaf = certificates.and_then(|chain| chain.first());
                let allowed = leaf.is_some_and(|leaf| User::of_certificate(leaf).is_ok_and(|user| allow(&user.name)));
                let service = service_fn(move |request: Request<Incoming>| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request, allowed).await) }
                });
                hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                    .serve_connection_with_upgrades(TokioIo::new(stream), service)
                    .await
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                result = serve => if let Err(error) = result {
                    tracing::debug!("serve a connection: {error}");
                },
            }
        });
    }
    tasks.close();
    tasks.wait().await;
}

fn say(status: StatusCode, message: impl Into<String>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(message.into())).boxed_unsync());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Why a request is not served.
struct Refusal(StatusCode, String);

fn no(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal(status, message.into())
}

/// Query parameters; a name may come several times.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(raw: &str) -> Query {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
        };
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, value)| (decode(key), decode(value)))
                .collect(),
        )
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| known == key).map(|(_, value)| value.clone()).collect()
    }

    fn on(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| matches!(self.one(key), Some("1" | "true")))
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        let bad = |text: &str| no(StatusCode::BAD_REQUEST, format!("invalid {key}: {text:?}"));
        self.one(key).filter(|text| !text.is_empty()).map(|text| text.parse().map_err(|_| bad(text))).transpose()
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, allowed: bool) -> Answer {
        if !allowed {
            return say(StatusCode::FORBIDDEN, "Forbidden");
        }
        let path = request.uri().path().to_owned();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        let result = match (parts.as_slice(), get) {
            (["healthz"], true) => Ok(say(StatusCode::OK, "ok")),
            (["pods"], true) => Ok(self.list()),
            (["containerLogs", namespace, pod, container], true) => self.logs(namespace, pod, container, &query).await,
            ([what @ ("exec" | "attach"), namespace, pod, rest @ ..], _) => match rest {
                [container] | [_, container] => self.session(what, namespace, pod, container, &query, request).await,
                _ => Err(no(StatusCode::NOT_FOUND, "404 page not found")),
            },
            (["portForward", namespace, pod] | ["portForward", namespace, pod, _], _) => {
                self.port_forward(namespace, pod, &query, request).await
            }
            _ => Err(no(StatusCode::NOT_FOUND, "404 page not found")),
        };
        result.unwrap_or_else(|Refusal(status, message)| say(status, message))
    }

    fn list(&self) -> Answer {
        let items: Vec<_> = (self.pods)().iter().map(|pod| json!(**pod)).collect();
        let list = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items });
        let mut answer = say(StatusCode::OK, list.to_string());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    }

    async fn find(&self, namespace: &str, name: &str) -> Result<(Arc<Pod>, Runtime), Refusal> {
        let is_it = |pod: &Arc<Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        let pod = (self.pods)().into_iter().find(is_it);
        let pod = pod.ok_or_else(|| no(StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let runtime = look(&self.context, &pod, &uid).await;
        let runtime = runtime.map_err(|error| no(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))?;
        Ok((pod, runtime))
    }

    async fn logs(&self, namespace: &str, name: &str, container: &str, query: &Query) -> Result<Answer, Refusal> {
        let (pod, runtime) = self.find(namespace, name).await?;
        if crate::view::container(&pod, container).is_none() {
            return Err(no(StatusCode::NOT_FOUND, format!("container \"{container}\" not found in pod \"{name}\"")));
        }
        let since = match (query.number::<i64>("sinceSeconds")?, query.number::<jiff::Timestamp>("sinceTime")?) {
            (Some(seconds), _) => client::clock::now().checked_sub(jiff::SignedDuration::from_secs(seconds)).ok(),
            (None, time) => time,
        };
        let options = logs::Options {
            follow: query.on(&["follow"]),
            tail: query.number("tailLines")?,
            since,
            timestamps: query.on(&["timestamps"]),
            limit: query.number("limitBytes")?,
            stream: query.one("stream").filter(|name| *name != "All").map(str::to_ascii_lowercase),
        };
        let started = |state: &&ContainerState| state.stage != Stage::Created;
        let state = if query.on(&["previous"]) {
            let missing = || {
                no(
                    StatusCode::BAD_REQUEST,
                    format!("previous terminated container \"{container}\" in pod \"{name}\" not found"),
                )
            };
            runtime.previous(container).filter(started).ok_or_else(missing)?
        } else {
            let missing = || {
                let message =
                    format!("container \"{container}\" in pod \"{name}\" is waiting to start: ContainerCreating");
                no(StatusCode::BAD_REQUEST, message)
            };
            runtime.latest(container).filter(started).ok_or_else(missing)?
        };
        let path = logs::path(&self.context, &pod, container, state.attempt);
        let (chunks, stream) = tokio::sync::mpsc::channel::<Bytes>(16);
        let (context, id, cancel) = (self.context.clone(), state.id.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            let ended = container_ended(&context, &id);
            let send = |bytes: Vec<u8>| {
                let chunks = chunks.clone();
                async move { chunks.send(bytes.into()).await.is_ok() }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = chunks.closed() => {}
                result = logs::read(&path, options, ended, send) => if let Err(error) = result {
                    let message = format!("{error:#}\n");
                    // Nobody may be listening any more.
                    let _ = chunks.send(message.into()).await;
                },
            }
        });
        let body = StreamBody::new(ReceiverStream::new(stream).map(|bytes| Ok(Frame::data(bytes))));
        let mut answer = Response::new(BodyExt::boxed_unsync(body));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(answer)
    }

    async fn session(
        &self,
        what: &str,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let (pod, runtime) = self.find(namespace, name).await?;
        let state = runtime.latest(container).filter(|state| state.stage == Stage::Running);
        let state = state.ok_or_else(|| no(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))?;
        let (stdin, stdout) = (query.on(&["input", "stdin"]), query.on(&["output", "stdout"]));
        let (stderr, tty) = (query.on(&["error", "stderr"]), query.on(&["tty"]));
        let cri = self.context.cri.clone();
        let url = if what == "exec" {
            let cmd = query.all("command");
            let wanted = v1::ExecRequest {
                container_id: state.id.clone(),
                cmd,
                tty,
                stdin,
                stdout,
                stderr: stderr && !tty,
                ..Default::default()
            };
            cri.exec(wanted).await.map(|answer| answer.url)
        } else {
            // Whether there is a terminal is up to the container, not to who looks at it.
            let tty = crate::view::container(&pod, container).and_then(|container| container.tty).unwrap_or(false);
            let wanted = v1::AttachRequest {
                container_id: state.id.clone(),
                tty,
                stdin,
                stdout,
                stderr: stderr && !tty,
                ..Default::default()
            };
            cri.attach(wanted).await.map(|answer| answer.url)
        };
        self.pass(url, request).await
    }

    async fn port_forward(
        &self,
        namespace: &str,
        name: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let (_, runtime) = self.find(namespace, name).await?;
        let sandbox = runtime.ready_sandbox();
        let sandbox =
            sandbox.ok_or_else(|| no(StatusCode::NOT_FOUND, format!("pod \"{name}\" has no running sandbox")))?;
        // The API server calls them `ports`, kubelets upstream `port`.
        let mut ports = Vec::new();
        for text in ["port", "ports"].iter().flat_map(|key| query.all(key)) {
            for port in text.split(',') {
                let number = port.parse::<u16>().ok().filter(|number| *number > 0);
                let bad = || no(StatusCode::BAD_REQUEST, format!("unable to parse {port:?} as a port"));
                ports.push(number.ok_or_else(bad)?.into());
            }
        }
        let wanted = v1::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port: ports };
        let url = self.context.cri.port_forward(wanted).await.map(|answer| answer.url);
        self.pass(url, request).await
    }

    /// Hands the connection over to the runtime's streaming server, byte by byte.
    async fn pass(&self, url: Result<String, tonic::Status>, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let url = url.map_err(|status| no(StatusCode::INTERNAL_SERVER_ERROR, status.message()))?;
        let failed = |error: anyhow::Error| no(StatusCode::BAD_GATEWAY, format!("{error:#}"));
        let (mut answer, other) = self.knock(&url, &request).await.map_err(failed)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let mut refusal = say(status, String::from_utf8_lossy(&body));
            // By these a client of SPDY knows what it may ask for.
            for name in other.get_all(ACCEPTED_PROTOCOLS) {
                refusal.headers_mut().append(ACCEPTED_PROTOCOLS, name.clone());
            }
            return Ok(refusal);
        }
        let upgraded = hyper::upgrade::on(&mut answer);
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            let join = async {
                let (ours, theirs) = futures::try_join!(hyper::upgrade::on(request), upgraded)?;
                let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                anyhow::Ok(tokio::io::copy_bidirectional(&mut ours, &mut theirs).await?)
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                result = join => if let Err(error) = result {
                    tracing::debug!("a streaming session ended: {error:#}");
                },
            }
        });
        let mut reply = Response::new(Empty::new().boxed_unsync());
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *reply.headers_mut() = other;
        Ok(reply)
    }

    /// Repeats a request at the streaming server's address.
    async fn knock(
        &self,
        url: &str,
        request: &Request<Incoming>,
    ) -> anyhow::Result<(Response<Incoming>, http::HeaderMap)> {
        let url: http::Uri = url.parse().context("read the address of the streaming server")?;
        let authority = url.authority().ok_or_else(|| anyhow!("the streaming server has no address"))?.clone();
        let port = authority.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((authority.host(), port)).await.context("connect to the streaming server")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                result = connection.with_upgrades() => if let Err(error) = result {
                    tracing::debug!("the streaming server hung up: {error}");
                },
            }
        });
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        let mut repeated = Request::builder().method(request.method()).uri(target).body(Empty::<Bytes>::new())?;
        *repeated.headers_mut() = request.headers().clone();
        repeated.headers_mut().insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
        repeated.headers_mut().remove(header::CONTENT_LENGTH);
        repeated.headers_mut().remove(header::TRANSFER_ENCODING);
        let answer = sender.send_request(repeated).await.context("ask the streaming server")?;
        let headers = answer.headers().clone();
        Ok((answer, headers))
    }
}

/// Completes when a container does not run any more, as the runtime's events say.
async fn container_ended(context: &Context, id: &str) {
    // Subscribed before the look, so that an end in between is not missed.
    let events = context.cri.get_container_events(v1::GetEventsRequest {}).await;
    let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let running = v1::ContainerState::ContainerRunning as i32;
    let state = context.cri.container_status(request).await.map(|answer| answer.status.map(|status| status.state));
    let (Ok(mut events), Ok(Some(state))) = (events, state) else { return };
    if state != running {
        return;
    }
    let over = [v1::ContainerEventType::ContainerStoppedEvent, v1::ContainerEventType::ContainerDeletedEvent];
    while let Ok(Some(event)) = events.message().await {
        if event.container_id == id && over.iter().any(|kind| *kind as i32 == event.container_event_type) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded_and_names_may_repeat() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a+b%26&tty=1&input=true&tailLines=5&x");
        assert_eq!(query.all("command"), ["sh", "-c", "echo a b&"]);
        assert!(query.on(&["tty"]) && query.on(&["stdin", "input"]) && !query.on(&["error"]));
        assert_eq!(query.number::<usize>("tailLines").ok().flatten(), Some(5));
        assert!(query.number::<usize>("command").is_err());
    }
}
