//! Streams over WebSocket: each message begins with the number of its channel. See [`Dialect`] for what differs between the
//! sub-protocols.

use anyhow::{Context as _, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, stream::FuturesUnordered};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    DRAIN,
    forward::{self, Ports},
    process::{self, ERROR, Heard, RESIZE, STDERR, STDIN, STDOUT, Said, Work},
};
use crate::Engine;

/// The channel that says of another one that it has ended (version 5).
const CLOSE: u8 = 255;

/// How many bytes of a tunnel may be under way in one direction.
const TUNNELLED: usize = 64 << 10;

/// How a sub-protocol frames and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dialect {
    /// Text messages: the channel as a digit, the data in base64.
    base64: bool,
    /// The error channel ends with a Status in JSON (version 4 and later), not with plain text if there was an error.
    status: bool,
}

impl Dialect {
    pub fn named(name: &str) -> Option<Self> {
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
            // Digits first, and on from there: what is beyond nine follows in the table of characters.
            return Message::text(format!("{}{}", char::from(b'0'.wrapping_add(channel)), BASE64.encode(data)));
        }
        let mut frame = Vec::with_capacity(data.len() + 1);
        frame.push(channel);
        frame.extend_from_slice(data);
        Message::binary(frame)
    }

    fn parse(self, message: &Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        if !self.base64 {
            return Some((channel, message.slice(1..)));
        }
        Some((channel.checked_sub(b'0')?, BASE64.decode(&message[1..]).ok()?.into()))
    }
}

/// The bytes of a message of the client; `None` when it has left.
async fn next_bytes<R>(source: &mut R) -> Option<Bytes>
where
    R: futures::Stream<Item = Result<Message, Error>> + Unpin,
{
    loop {
        match source.next().await?.ok()? {
            Message::Binary(bytes) => return Some(bytes),
            Message::Text(text) => return Some(text.into()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

fn goodbye() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// Carries exec or attach.
pub(super) async fn exec<S>(engine: &Engine, work: Work, dialect: Dialect, socket: WebSocketStream<S>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut source) = socket.split();
    let (tell, said) = mpsc::channel(16);
    let (hear, mut heard) = mpsc::channel(16);
    // An empty message says that the connection stands, which some clients wait for.
    let first = work.channels().into_iter().find(|channel| [STDOUT, STDERR].contains(channel)).unwrap_or(ERROR);
    let inward = async {
        while let Some(message) = next_bytes(&mut source).await {
            let word = match dialect.parse(&message) {
                Some((STDIN, data)) => Said::Input(data),
                Some((RESIZE, data)) => Said::Size(data),
                Some((CLOSE, data)) if data[..] == [STDIN] => Said::InputEnds,
                _ => continue,
            };
            if tell.send(word).await.is_err() {
                // The process has ended; reading on completes the closing handshake.
                while next_bytes(&mut source).await.is_some() {}
                break;
            }
        }
        drop(tell);
    };
    let outward = async {
        sink.send(dialect.frame(first, b"")).await.context("send to the client")?;
        while let Some(word) = heard.recv().await {
            match word {
                Heard::Output(channel, bytes) => sink.send(dialect.frame(channel, &bytes)).await,
                Heard::End(outcome) => {
                    if let Some(verdict) = outcome.verdict(dialect.status) {
                        sink.send(dialect.frame(ERROR, verdict.as_bytes())).await.context("send to the client")?;
                    }
                    sink.send(goodbye()).await
                }
            }
            .context("send to the client")?;
        }
        anyhow::Ok(())
    };
    let work = async { tokio::join!(process::run(engine, work, said, hear), outward).1 };
    let (mut inward, mut work) = (std::pin::pin!(inward), std::pin::pin!(work));
    tokio::select! {
        // What hears of the client's end ends by itself.
        () = &mut inward => work.await,
        worked = &mut work => {
            // The client may just leave.
            let _ = tokio::time::timeout(DRAIN, inward).await;
            worked
        }
    }
}

/// Where bytes of one port go.
struct Channel {
    number: u8,
    dialect: Dialect,
    outbox: mpsc::Sender<Message>,
}

impl forward::Outlet for Channel {
    async fn send(&mut self, bytes: Bytes) -> bool {
        self.outbox.send(self.dialect.frame(self.number, &bytes)).await.is_ok()
    }
}

impl forward::Inlet for mpsc::Receiver<Bytes> {
    async fn next(&mut self) -> Option<Bytes> {
        self.recv().await
    }
}

/// Carries one connection to each port: port number `i` has channel `2 i` for data and `2 i + 1` for errors, both of which
/// begin with the port.
pub(super) async fn forward<S>(
    engine: &Engine,
    ports: Ports,
    dialect: Dialect,
    socket: WebSocketStream<S>,
) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sink, mut source) = socket.split();
    let (outbox, mut pending) = mpsc::channel::<Message>(16);
    let mut inboxes = Vec::new();
    let connections = FuturesUnordered::new();
    for (index, port) in (0u8..).step_by(2).zip(ports.listed()) {
        let (inbox, inward) = mpsc::channel(16);
        inboxes.push(Some(inbox));
        let channel = |number| Channel { number, dialect, outbox: outbox.clone() };
        let (mut data, mut errors) = (channel(index), channel(index + 1));
        let ports = &ports;
        connections.push(async move {
            let prelude = Bytes::copy_from_slice(&port.to_le_bytes());
            let open = forward::Outlet::send(&mut data, prelude.clone()).await
                && forward::Outlet::send(&mut errors, prelude).await;
            if open && let Err(message) = forward::carry(engine, ports, port, inward, &mut data).await {
                forward::Outlet::send(&mut errors, message.into()).await;
            }
        });
    }
    drop(outbox);
    let inward = async {
        while let Some(message) = next_bytes(&mut source).await {
            match dialect.parse(&message) {
                // An empty message of a client that greets each channel says nothing.
                Some((channel, data)) if channel % 2 == 0 && !data.is_empty() => {
                    if let Some(Some(inbox)) = inboxes.get(usize::from(channel / 2)) {
                        // The connection into the pod may be over.
                        let _ = inbox.send(data).await;
                    }
                }
                Some((CLOSE, data)) if data.len() == 1 => {
                    if let Some(inbox) = inboxes.get_mut(usize::from(data[0] / 2)) {
                        *inbox = None;
                    }
                }
                _ => {}
            }
        }
    };
    let outward = async {
        while let Some(message) = pending.recv().await {
            sink.send(message).await.context("send to the client")?;
        }
        sink.send(goodbye()).await.context("send to the client")
    };
    let work = async { tokio::join!(connections.collect::<()>(), outward).1 };
    let (mut inward, mut work) = (std::pin::pin!(inward), std::pin::pin!(work));
    tokio::select! {
        () = &mut inward => Ok(()),
        worked = &mut work => {
            // The client may just leave.
            let _ = tokio::time::timeout(DRAIN, inward).await;
            worked
        }
    }
}

/// A stream of bytes within messages, and what moves them for as long as it is polled.
pub(super) fn tunnel<S>(socket: WebSocketStream<S>) -> (DuplexStream, impl Future<Output = ()> + Send)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (near, far) = tokio::io::duplex(TUNNELLED);
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(far);
    let run = async move {
        let inward = async {
            while let Some(bytes) = next_bytes(&mut source).await {
                if writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        };
        let outward = async {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                if sink.send(Message::binary(buffer[..count].to_vec())).await.is_err() {
                    return;
                }
            }
            // The client may have left.
            let _ = sink.send(goodbye()).await;
        };
        let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
        tokio::select! {
            () = &mut inward => {}
            () = &mut outward => {
                let _ = tokio::time::timeout(DRAIN, inward).await;
            }
        }
    };
    (near, run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sub_protocol_frames_in_its_own_way() {
        let plain = Dialect::named("v5.channel.k8s.io").unwrap();
        assert_eq!(plain.frame(1, b"hi"), Message::binary(&b"\x01hi"[..]));
        assert_eq!(plain.parse(&Bytes::from_static(b"\x00in")), Some((0, Bytes::from_static(b"in"))));
        let text = Dialect::named("base64.channel.k8s.io").unwrap();
        assert_eq!(text.frame(1, b"hi"), Message::text("1aGk="));
        assert_eq!(text.parse(&Bytes::from_static(b"0aW4=")), Some((0, Bytes::from_static(b"in"))));
        assert_eq!(Dialect::named("v6.channel.k8s.io"), None);
        assert!(plain.status && !text.status);
    }
}
