//! Streams over SPDY: the client opens one for each thing, and says in its headers which.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use spdy::{Reader, Stream, Streams, Writer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{
    STREAMS_WITHIN,
    forward::{self, Ports},
    process::{self, ERROR, Heard, RESIZE, STDERR, STDIN, STDOUT, Said, Work},
};
use crate::Engine;

const TYPE: &str = "streamtype";

/// How the stream of errors ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errors {
    /// With a Status in JSON.
    Status,
    /// With plain text if there was an error.
    Text,
}

impl Errors {
    /// The versions of the protocol.
    pub const PROTOCOLS: &[&str] =
        &["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

    pub fn named(protocol: &str) -> Self {
        if ["v5.channel.k8s.io", "v4.channel.k8s.io"].contains(&protocol) { Self::Status } else { Self::Text }
    }
}

/// Runs a connection beside the work that is done over it; when either ends, the other hears of it.
async fn beside<T>(io: T, work: impl AsyncFnOnce(Streams) -> Result<()>) -> Result<()>
where
    T: AsyncRead + AsyncWrite,
{
    let (connection, streams) = spdy::accept(io);
    let (ran, worked) = tokio::join!(connection.run(), work(streams));
    ran.context("carry SPDY")?;
    worked
}

fn channel_of(stream: &Stream) -> Option<u8> {
    Some(match stream.header(TYPE)? {
        "stdin" => STDIN,
        "stdout" => STDOUT,
        "stderr" => STDERR,
        "error" => ERROR,
        "resize" => RESIZE,
        _ => return None,
    })
}

/// The streams of a session, by channel, when all that must be there are.
async fn gather(streams: &mut Streams, wanted: &[u8]) -> Result<HashMap<u8, Stream>> {
    let gathering = async {
        let mut found = HashMap::new();
        while !wanted.iter().all(|channel| found.contains_key(channel)) {
            let stream = streams.next().await.context("the client left before it had opened its streams")?;
            match channel_of(&stream) {
                Some(channel) => _ = found.insert(channel, stream),
                None => bail!("a stream of an unknown type: {:?}", stream.header(TYPE)),
            }
        }
        Ok(found)
    };
    tokio::time::timeout(STREAMS_WITHIN, gathering).await.context("wait for the client's streams")?
}

/// Carries exec or attach.
pub(super) async fn exec<S>(engine: &Engine, work: Work, errors: Errors, io: S) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    beside(io, async |mut streams| {
        let wanted: Vec<u8> = work.channels().into_iter().chain([ERROR]).collect();
        let mut found = match gather(&mut streams, &wanted).await {
            Ok(found) => found,
            Err(error) => {
                streams.go_away().await;
                return Err(error);
            }
        };
        let (tell, said) = mpsc::channel(16);
        let (hear, heard) = mpsc::channel(16);
        let resize = found.remove(&RESIZE);
        let (writers, mut readers): (HashMap<u8, Writer>, HashMap<u8, Reader>) = found
            .into_iter()
            .map(|(channel, Stream { reader, writer, .. })| ((channel, writer), (channel, reader)))
            .unzip();
        // Nothing is said on that one, and yet it ends with the process: a client that sees it end takes that for the end of
        // the process's interest, and sends no more.
        let stdin = readers.remove(&STDIN);
        let mut inward = Box::pin(listen(&mut streams, stdin, resize, tell));
        let work = async { tokio::join!(process::run(engine, work, said, hear), speak(heard, writers, errors)) };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            // What hears of the client's end ends by itself.
            () = &mut inward => {
                work.await;
            }
            _ = &mut work => {
                drop(inward);
                streams.go_away().await;
            }
        }
        Ok(())
    })
    .await
}

/// Passes on what the client says, until it leaves.
async fn listen(streams: &mut Streams, stdin: Option<Reader>, mut resize: Option<Stream>, tell: mpsc::Sender<Said>) {
    let mut listening: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    if let Some(stdin) = stdin {
        listening.push(Box::pin(pass(stdin, tell.clone(), Said::Input, Some(Said::InputEnds))));
    }
    loop {
        if let Some(Stream { reader, writer, .. }) = resize.take() {
            writer.finish().await;
            listening.push(Box::pin(pass(reader, tell.clone(), Said::Size, None)));
        }
        tokio::select! {
            Some(()) = listening.next(), if !listening.is_empty() => {}
            // The stream for sizes comes last, and only if there is a terminal.
            stream = streams.next() => match stream {
                Some(stream) => resize = Some(stream).filter(|stream| channel_of(stream) == Some(RESIZE)),
                None => return,
            }
        }
    }
}

/// Passes on what comes on one stream.
async fn pass(mut reader: Reader, tell: mpsc::Sender<Said>, word: fn(Bytes) -> Said, end: Option<Said>) {
    while let Some(bytes) = reader.next().await {
        if tell.send(word(bytes)).await.is_err() {
            return;
        }
    }
    if let Some(end) = end {
        // The process may be over.
        let _ = tell.send(end).await;
    }
}

/// Says what the process says, and how it ended.
async fn speak(mut heard: mpsc::Receiver<Heard>, mut writers: HashMap<u8, Writer>, errors: Errors) {
    while let Some(word) = heard.recv().await {
        let (channel, bytes, last) = match word {
            Heard::Output(channel, bytes) => (channel, bytes, false),
            Heard::End(outcome) => {
                let verdict = outcome.verdict(errors == Errors::Status).unwrap_or_default();
                (ERROR, verdict.into(), true)
            }
        };
        if let Some(writer) = writers.get_mut(&channel)
            && writer.write(bytes).await.is_err()
        {
            // The client does not want to hear that one any more.
            writers.remove(&channel);
        }
        if last {
            for (_, writer) in writers.drain() {
                writer.finish().await;
            }
        }
    }
}

impl forward::Inlet for Reader {
    async fn next(&mut self) -> Option<Bytes> {
        Reader::next(self).await
    }
}

impl forward::Outlet for Writer {
    async fn send(&mut self, bytes: Bytes) -> bool {
        self.write(bytes).await.is_ok()
    }
}

/// What has come to an end.
enum Over {
    /// A connection into the pod.
    Connection,
    /// The time within which both streams of a request should have come.
    Patience(String),
}

/// Carries connections into a pod, each over a pair of streams: one for data, one for the error if there is any.
pub(super) async fn forward<S>(engine: &Engine, ports: Ports, io: S) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Send,
{
    beside(io, async |mut streams| {
        let mut halves: HashMap<String, Stream> = HashMap::new();
        let mut running: FuturesUnordered<BoxFuture<'_, Over>> = FuturesUnordered::new();
        loop {
            let stream = tokio::select! {
                Some(over) = running.next(), if !running.is_empty() => {
                    if let Over::Patience(request) = over {
                        // Dropped, it is reset.
                        halves.remove(&request);
                    }
                    continue;
                }
                stream = streams.next() => match stream {
                    Some(stream) => stream,
                    None => return Ok(()),
                }
            };
            let Some(request) = request_of(&stream) else { continue };
            let is_data = stream.header(TYPE) == Some("data");
            match halves.remove(&request) {
                Some(other) if (other.header(TYPE) == Some("data")) != is_data => {
                    let (data, error) = if is_data { (stream, other) } else { (other, stream) };
                    running.push(Box::pin(pair(engine, &ports, data, error)));
                }
                // The first of the two, or the same one again, which takes the place of the one before.
                _ => {
                    halves.insert(request.clone(), stream);
                    running.push(Box::pin(async move {
                        tokio::time::sleep(STREAMS_WITHIN).await;
                        Over::Patience(request)
                    }));
                }
            }
        }
    })
    .await
}

/// Which request a stream belongs to. Old clients do not say so: they open the stream for errors, and then that for data.
fn request_of(stream: &Stream) -> Option<String> {
    let named = stream.header("requestid").map(str::to_owned);
    match stream.header(TYPE)? {
        "error" => named.or_else(|| Some(format!("#{}", stream.id()))),
        "data" => named.or_else(|| Some(format!("#{}", stream.id().checked_sub(2)?))),
        _ => None,
    }
}

/// Carries one connection.
async fn pair(engine: &Engine, ports: &Ports, data: Stream, error: Stream) -> Over {
    let port = data.header("port").and_then(|port| port.parse().ok()).filter(|port| *port > 0);
    let Stream { reader, writer: mut outlet, .. } = data;
    let mut error = error.writer;
    let carried = match port {
        Some(port) => forward::carry(engine, ports, port, reader, &mut outlet).await,
        None => Err("the stream does not say which port it is for".to_owned()),
    };
    if let Err(message) = carried {
        // The client may have left.
        let _ = error.write(message).await;
    }
    outlet.finish().await;
    error.finish().await;
    Over::Connection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_errors_holds_a_status_from_the_fourth_version_on() {
        let kinds: Vec<_> = Errors::PROTOCOLS.iter().map(|name| Errors::named(name)).collect();
        assert_eq!(kinds, [Errors::Status, Errors::Status, Errors::Text, Errors::Text, Errors::Text]);
    }
}
