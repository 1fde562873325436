//! Streams of processes over a connection that is taken over from HTTP.
//!
//! Without a terminal each piece has a header of eight bytes: the number of its stream, three zeros, and its length. With a
//! terminal bytes pass as they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use container_engine::{Stream, Streams};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};

use crate::DockerApi;
use crate::error::{Answer, bad};
use crate::http::{Body, Call, empty_answer, stream_answer};
use crate::{lock, logs};

pub(crate) const STDOUT: u8 = 1;
pub(crate) const STDERR: u8 = 2;

/// How long output may still come after the process has ended: what it left behind may hold the streams open.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// A piece of a stream with its header, or as it is.
pub(crate) fn frame(stream: u8, bytes: &[u8], raw: bool) -> Bytes {
    if raw {
        return Bytes::copy_from_slice(bytes);
    }
    let mut framed = Vec::with_capacity(bytes.len() + 8);
    framed.extend_from_slice(&[stream, 0, 0, 0]);
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(bytes);
    framed.into()
}

/// Content type of such streams.
pub(crate) fn content_type(raw: bool, version: (u32, u32)) -> &'static str {
    if raw || version < (1, 42) {
        "application/vnd.docker.raw-stream"
    } else {
        "application/vnd.docker.multiplexed-stream"
    }
}

/// The client's side of a connection.
pub(crate) struct Client {
    /// Pieces for the client.
    pub outbox: mpsc::Sender<Bytes>,
    /// What becomes the connection, and the pieces that go over it.
    upgrade: Option<(OnUpgrade, mpsc::Receiver<Bytes>)>,
}

/// Takes a connection over, if the client asked for that; otherwise the answer's body carries what comes out.
pub(crate) fn take_over(call: &mut Call, raw: bool) -> (Response<Body>, Client) {
    let (outbox, pieces) = mpsc::channel(16);
    let kind = content_type(raw, call.version);
    let Some(upgrade) = call.upgrade.take() else {
        return (stream_answer(kind, pieces), Client { outbox, upgrade: None });
    };
    let mut response = empty_answer(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    (response, Client { outbox, upgrade: Some((upgrade, pieces)) })
}

/// Passes one stream on until it ends or the client has gone.
async fn pump(stream: Option<&Stream>, number: u8, raw: bool, outbox: &mpsc::Sender<Bytes>) {
    let Some(stream) = stream else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if outbox.send(frame(number, &buffer[..count], raw)).await.is_err() {
            return;
        }
    }
}

impl Client {
    /// Carries bytes both ways until `ended` or the streams say the end; `let_go` is called when the client's input ends.
    pub async fn carry<L: Future<Output = ()>>(
        self,
        streams: Streams,
        (wants_in, wants_out, wants_err): (bool, bool, bool),
        let_go: impl FnOnce() -> L,
        ended: impl Future<Output = ()>,
    ) {
        let Self { outbox, upgrade } = self;
        let raw = streams.tty;
        let Streams { stdin, stdout, stderr, .. } = streams;
        let out = async {
            tokio::join!(
                pump(Some(&stdout).filter(|_| wants_out).map(Arc::as_ref), STDOUT, raw, &outbox),
                pump(stderr.as_deref().filter(|_| wants_err), STDERR, raw, &outbox),
            );
        };
        let out = async {
            let mut out = std::pin::pin!(out);
            let mut ended = std::pin::pin!(ended);
            tokio::select! {
                () = &mut out => ended.await,
                // What is left in the pipes belongs to it.
                () = &mut ended => drop(tokio::time::timeout(DRAIN, out).await),
            }
        };
        let Some((upgrade, mut pieces)) = upgrade else {
            tokio::select! {
                () = out => {}
                () = outbox.closed() => {}
            }
            return;
        };
        let Ok(connection) = upgrade.await else { return };
        let (mut source, mut sink) = tokio::io::split(TokioIo::new(connection));
        let inward = async {
            let mut stdin = stdin.filter(|_| wants_in);
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = source.read(&mut buffer).await {
                // A process that no longer reads is not the client's fault.
                if let Some(open) = &stdin
                    && open.write_all(&buffer[..count]).await.is_err()
                {
                    stdin = None;
                }
            }
            drop(stdin);
            if wants_in {
                let_go().await;
            }
            std::future::pending::<()>().await;
        };
        let outward = async {
            while let Some(piece) = pieces.recv().await {
                if sink.write_all(&piece).await.is_err() || sink.flush().await.is_err() {
                    return;
                }
            }
            // The client may have gone.
            let _ = sink.shutdown().await;
        };
        let mut outward = std::pin::pin!(outward);
        tokio::select! {
            () = out => {}
            () = inward => {}
            () = &mut outward => return,
        }
        drop(outbox);
        outward.await;
    }
}

impl Client {
    /// Says one thing and ends the connection.
    pub async fn say(self, piece: Bytes) {
        let Some((upgrade, _pieces)) = self.upgrade else {
            // The client may have gone, here and below.
            let _ = self.outbox.send(piece).await;
            return;
        };
        if let Ok(connection) = upgrade.await {
            let mut connection = TokioIo::new(connection);
            let _ = connection.write_all(&piece).await;
            let _ = connection.shutdown().await;
        }
    }
}

/// Streams that are there, or come with the start.
enum Coming {
    Now(Streams),
    Later(oneshot::Receiver<Streams>),
}

impl DockerApi {
    pub(crate) async fn container_attach(&self, mut call: Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        let record = container.record();
        if call.text("detachKeys").is_some_and(|keys| keys.contains(' ')) {
            return Err(bad("Invalid detach keys"));
        }
        let wants = (call.flag("stdin") && record.config.open_stdin, call.flag("stdout"), call.flag("stderr"));
        let (stream, logs) = (call.flag("stream"), call.flag("logs"));
        let coming = if !stream {
            None
        } else if self.engine.single(&record.id).is_some_and(|single| single.running) {
            Some(Coming::Now(self.engine.attach_single(&record.id).await?))
        } else {
            let (sender, receiver) = oneshot::channel();
            lock(&container.attaching).push(sender);
            Some(Coming::Later(receiver))
        };
        let (response, client) = take_over(&mut call, record.config.tty);
        let (api, stop, tty) = (self.arc(), self.stop.clone(), record.config.tty);
        self.tasks.spawn(async move {
            let carry = async {
                if logs {
                    let query = logs::Query { stdout: wants.1, stderr: wants.2, ..logs::Query::default() };
                    let path = api.dir("containers", &record.id).join("log");
                    logs::send(&path, &query, tty, &client.outbox, None).await;
                }
                let streams = match coming {
                    Some(Coming::Now(streams)) => streams,
                    // Without a start there is nothing to carry.
                    Some(Coming::Later(coming)) => match coming.await {
                        Ok(streams) => streams,
                        Err(_) => return,
                    },
                    None => return,
                };
                let let_go = async || {
                    if let Err(e) = api.engine.close_stdin_of_single(&record.id).await {
                        tracing::debug!("close the input of {}: {e:#}", record.name);
                    }
                };
                let ended = async { drop(api.engine.wait_single(&record.id).await) };
                client.carry(streams, wants, let_go, ended).await;
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = carry => {}
            }
        });
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_a_header_unless_it_is_of_a_terminal() {
        assert_eq!(&frame(STDERR, b"abc", false)[..], b"\x02\0\0\0\0\0\0\x03abc");
        assert_eq!(&frame(STDOUT, b"abc", true)[..], b"abc");
        assert_eq!(content_type(false, (1, 41)), "application/vnd.docker.raw-stream");
        assert_eq!(content_type(false, (1, 42)), "application/vnd.docker.multiplexed-stream");
    }
}
