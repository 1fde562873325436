//! Exec and attach over WebSocket, at addresses that hold for one connection.
//!
//! A caller asks over CRI and gets a URL with a random token; whoever connects there within a minute gets the streams.
//! Each message begins with the number of its channel; see [`Dialect`] for what differs between the sub-protocols.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use cri::v1;
use futures::{SinkExt as _, StreamExt as _};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use isolation::{Event, ExecSpec, Shim};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};
use tonic::Status;

use crate::{Engine, blocking, lock, new_id, status, streams::Stream, watch};

/// How long an address holds.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// How long output may still come after the process has ended.
const DRAIN: Duration = Duration::from_secs(1);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// What a connection is for.
pub(crate) enum Session {
    Exec(v1::ExecRequest),
    Attach(v1::AttachRequest),
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

/// How a sub-protocol frames and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Dialect {
    /// Text messages: the channel as a digit, the data in base64.
    base64: bool,
    /// The error channel ends with a Status in JSON (version 4 and later), not with plain text if there was an error.
    status: bool,
}

impl Dialect {
    fn named(name: &str) -> Option<Self> {
        let (base64, status) = match name {
            "v5.channel.k8s.io" | "v4.channel.k8s.io" => (false, true),
            "v4.base64.channel.k8s.io" => (true, true),
            "v3.channel.k8s.io" | "v2.channel.k8s.io" | "channel.k8s.io" | "" => (false, false),
            "v3.base64.channel.k8s.io" | "v2.base64.channel.k8s.io" | "base64.channel.k8s.io" => (true, false),
            _ => return None,
        };
        Some(Self { base64, status })
    }

    fn frame(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            return Message::text(format!("{channel}{}", BASE64.encode(data)));
        }
        let mut frame = Vec::with_capacity(data.len() + 1);
        frame.push(channel);
        frame.extend_from_slice(data);
        Message::binary(frame)
    }

    fn parse(self, message: &[u8]) -> Option<(u8, Vec<u8>)> {
        let (channel, data) = message.split_first()?;
        if !self.base64 {
            return Some((*channel, data.to_vec()));
        }
        Some((channel.checked_sub(b'0')?, BASE64.decode(data).ok()?))
    }

    /// The last word on the error channel, if there is one.
    fn verdict(self, outcome: &Outcome) -> Option<Message> {
        let text = match (outcome, self.status) {
            (Outcome::Exited(0), false) => return None,
            (Outcome::Exited(code), false) => format!("command terminated with exit code {code}"),
            (Outcome::Failed(message), false) => message.clone(),
            (Outcome::Exited(0), true) => json!({ "metadata": {}, "status": "Success" }).to_string(),
            (Outcome::Exited(code), true) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            })
            .to_string(),
            (Outcome::Failed(message), true) => json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
            })
            .to_string(),
        };
        Some(self.frame(ERROR, text.as_bytes()))
    }
}

/// How a session ended.
enum Outcome {
    Exited(i32),
    Failed(String),
}

fn answer(engine: &Arc<Engine>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let header = |name: header::HeaderName| {
        let values = request.headers().get_all(name);
        values.iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",")
    };
    let upgrade = header(header::UPGRADE).to_ascii_lowercase();
    if upgrade.starts_with("spdy/") {
        return refuse(StatusCode::BAD_REQUEST, "SPDY is not supported here: use a client that speaks WebSocket");
    }
    let key = header(header::SEC_WEBSOCKET_KEY);
    if upgrade != "websocket" || key.is_empty() {
        return refuse(StatusCode::BAD_REQUEST, "a WebSocket upgrade is needed");
    }
    let offered = header(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<&str> = offered.split(',').map(str::trim).collect();
    let Some((name, dialect)) = offered.iter().find_map(|name| Some((*name, Dialect::named(name)?))) else {
        return refuse(StatusCode::BAD_REQUEST, "none of the offered sub-protocols is known: use v5.channel.k8s.io");
    };
    let Some(session) = engine.streams.take(request.uri().path()) else {
        return refuse(StatusCode::NOT_FOUND, "this address is unknown, has been used, or is too old");
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    if let Ok(accept) = derive_accept_key(key.as_bytes()).parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(name) = Some(name).filter(|name| !name.is_empty()).and_then(|name| name.parse().ok()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    let upgraded = hyper::upgrade::on(&mut request);
    let engine = engine.clone();
    engine.clone().tasks.spawn(async move {
        let stop = engine.stop.clone();
        let carry = async {
            let upgraded = upgraded.await.context("upgrade a stream")?;
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            run(&engine, session, dialect, socket).await
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

/// The process at the other end.
struct Process {
    shim: Shim,
    stdin: Option<Arc<Stream>>,
    stdout: Option<Arc<Stream>>,
    stderr: Option<Stream>,
    tty: bool,
    /// Tells the end of a command; a container that is attached to ends with its streams.
    exit: Option<tokio::net::UnixStream>,
    /// The container whose input ends when this connection does, if it was made so.
    attached: Option<String>,
}

async fn open(engine: &Engine, session: Session) -> Result<Process, Status> {
    match session {
        Session::Exec(request) => {
            let spec = ExecSpec {
                container: request.container_id,
                args: request.cmd,
                tty: request.tty,
                stdin: request.stdin,
                ..ExecSpec::default()
            };
            let (shim, exec) = engine.start_exec(spec).await?;
            let open = || -> Result<Process> {
                exec.exit.set_nonblocking(true).context("wait for the command")?;
                let stdout = Arc::new(Stream::new(exec.stdout)?);
                let stdin = match exec.stdin {
                    Some(stdin) => Some(Arc::new(Stream::new(stdin)?)),
                    None => (request.tty && request.stdin).then(|| stdout.clone()),
                };
                Ok(Process {
                    shim,
                    stdin,
                    stdout: Some(stdout),
                    stderr: exec.stderr.map(Stream::new).transpose()?,
                    tty: request.tty,
                    exit: Some(tokio::net::UnixStream::from_std(exec.exit).context("wait for the command")?),
                    attached: None,
                })
            };
            open().map_err(status)
        }
        Session::Attach(request) => {
            let container = engine.container(&request.container_id)?;
            let record = lock(&container.record).clone();
            let shim = engine.shim_of(&record.sandbox_id).map_err(status)?;
            let (asking, id) = (shim.clone(), record.id.clone());
            let attached = blocking(move || asking.attach(&id)).await.map_err(status)?;
            let open = || -> Result<Process> {
                let stdin = attached.stdin.filter(|_| request.stdin).map(Stream::new).transpose()?;
                Ok(Process {
                    shim,
                    attached: stdin.as_ref().map(|_| record.id.clone()),
                    stdin: stdin.map(Arc::new),
                    stdout: Some(Arc::new(Stream::new(attached.stdout)?)),
                    stderr: Some(Stream::new(attached.stderr)?),
                    tty: attached.tty,
                    exit: None,
                })
            };
            open().map_err(status)
        }
    }
}

/// Carries one session to its end.
async fn run<S>(engine: &Engine, session: Session, dialect: Dialect, socket: WebSocketStream<S>) -> Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (outbox, mut pending) = mpsc::channel::<Message>(16);
    let write = async {
        while let Some(message) = pending.recv().await {
            sink.send(message).await.context("send to the client")?;
        }
        anyhow::Ok(())
    };
    let work = async {
        let outcome = match open(engine, session).await {
            Err(e) => Some(Outcome::Failed(e.message().to_owned())),
            Ok(process) => {
                let attached = process.attached.clone().map(|id| (process.shim.clone(), id));
                let outcome = carry(process, dialect, &mut source, &outbox).await;
                if let Some((shim, id)) = attached {
                    // The container may have ended meanwhile, and its input with it.
                    let _ = blocking(move || shim.close_stdin(&id)).await;
                }
                outcome
            }
        };
        if let Some(outcome) = outcome {
            if let Some(verdict) = dialect.verdict(&outcome) {
                let _ = outbox.send(verdict).await;
            }
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            let _ = outbox.send(Message::Close(Some(frame))).await;
            // Reading on completes the closing handshake, unless the client just leaves.
            drop(outbox);
            let _ = tokio::time::timeout(DRAIN, async { while let Some(Ok(_)) = source.next().await {} }).await;
        } else {
            drop(outbox);
        }
    };
    let (written, ()) = tokio::join!(write, work);
    written
}

/// Carries bytes until the process ends; `None` if the client left first.
async fn carry<R>(process: Process, dialect: Dialect, source: &mut R, outbox: &mpsc::Sender<Message>) -> Option<Outcome>
where
    R: futures::Stream<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let Process { mut stdin, stdout, stderr, tty, mut exit, .. } = process;
    let terminal = if tty { stdin.clone().or_else(|| stdout.clone()) } else { None };
    let inward = async {
        while let Some(Ok(message)) = source.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                _ => continue,
            };
            match dialect.parse(&bytes) {
                Some((STDIN, data)) => {
                    // A process that no longer reads is not the client's fault.
                    if let Some(open) = &stdin
                        && open.write_all(&data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Some((RESIZE, data)) => {
                    let size: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
                    let of = |name: &str| size[name].as_u64().and_then(|number| u16::try_from(number).ok());
                    if let (Some(terminal), Some(width), Some(height)) = (&terminal, of("Width"), of("Height"))
                        && let Err(e) = terminal.resize(width, height)
                    {
                        tracing::debug!("{e:#}");
                    }
                }
                Some((CLOSE, data)) if data == [STDIN] => stdin = None,
                _ => {}
            }
        }
    };
    let outward = async {
        let pump = async |stream: Option<&Stream>, channel: u8| {
            let Some(stream) = stream else { return };
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                if outbox.send(dialect.frame(channel, &buffer[..count])).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(pump(stdout.as_deref(), STDOUT), pump(stderr.as_ref(), STDERR));
    };
    let ended = async {
        let mut outward = std::pin::pin!(outward);
        let Some(exit) = &mut exit else {
            outward.await;
            return Outcome::Exited(0);
        };
        let (event, drained) = tokio::select! {
            event = watch::next_event(exit) => (event, false),
            () = &mut outward => (watch::next_event(exit).await, true),
        };
        if !drained {
            let _ = tokio::time::timeout(DRAIN, outward).await;
        }
        match event {
            Ok(Some(Event::ExecExited { code })) => Outcome::Exited(code),
            Ok(_) => Outcome::Failed("the container ended while the command ran".into()),
            Err(e) => Outcome::Failed(format!("{e:#}")),
        }
    };
    let mut ended = std::pin::pin!(ended);
    let mut inward = std::pin::pin!(inward);
    tokio::select! {
        outcome = &mut ended => Some(outcome),
        () = &mut inward => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sub_protocol_frames_in_its_own_way() {
        let plain = Dialect::named("v5.channel.k8s.io").unwrap();
        assert_eq!(plain.frame(1, b"hi"), Message::binary(&b"\x01hi"[..]));
        assert_eq!(plain.parse(b"\x00in"), Some((0, b"in".to_vec())));
        let text = Dialect::named("base64.channel.k8s.io").unwrap();
        assert_eq!(text.frame(1, b"hi"), Message::text("1aGk="));
        assert_eq!(text.parse(b"0aW4="), Some((0, b"in".to_vec())));
        assert_eq!(Dialect::named("v6.channel.k8s.io"), None);
    }

    #[test]
    fn the_verdict_is_a_status_or_plain_text() {
        let text = |name: &str, code| {
            let verdict = Dialect::named(name).unwrap().verdict(&Outcome::Exited(code));
            verdict.map(|message| String::from_utf8(message.into_data()[1..].to_vec()).unwrap())
        };
        assert_eq!(text("v4.channel.k8s.io", 0).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
        assert!(text("v5.channel.k8s.io", 2).unwrap().contains(r#"{"message":"2","reason":"ExitCode"}"#));
        assert_eq!(text("channel.k8s.io", 0), None);
        assert_eq!(text("", 3).unwrap(), "command terminated with exit code 3");
    }
}
