//! One connection of a client: its streams, and the windows that say how much may be under way.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc};

use crate::Headers;
use crate::frame::{
    CANCEL, Decoder, Encoder, FLOW_CONTROL_ERROR, Frame, INITIAL_WINDOW_SIZE, INVALID_STREAM, Malformed, PIECE,
    PROTOCOL_ERROR, REFUSED_STREAM, WINDOW,
};

/// How many frames may wait to be sent.
const OUT: usize = 32;
/// How many streams may wait to be taken.
const WAITING: usize = 128;
/// How many streams may be open.
const STREAMS_MAX: usize = 4096;
/// How many pieces of a stream may wait to be read: about a megabyte. A client that keeps no windows then has to wait, with
/// all its streams.
const PIECES: usize = 64;
/// How many bytes are sent at once, about.
const BATCH: usize = 64 << 10;
/// How long the client may take to leave after it has been told that all is over: what it has not read is lost when the
/// connection ends before.
const LINGER: Duration = Duration::from_secs(5);

/// The stream or its connection has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has ended")]
pub struct Closed;

struct Entry {
    /// Where data goes; `None` once the client has ended it.
    inbox: Option<mpsc::Sender<Bytes>>,
    window: i64,
    /// Whether this side has ended it.
    ended: bool,
}

#[derive(Default)]
struct State {
    streams: HashMap<u32, Entry>,
    last: u32,
    /// Whether the client keeps windows.
    counts: bool,
    initial: i64,
    window: i64,
    over: bool,
}

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No step between two states can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends all streams when the connection does.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.over = true;
        state.streams.clear();
        drop(state);
        self.0.changed.notify_waiters();
    }
}

/// Takes a connection that was upgraded to SPDY/3.1.
pub fn accept<T>(io: T) -> (Connection<T>, Streams) {
    let state = State { initial: WINDOW.into(), window: WINDOW.into(), ..State::default() };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
    let (out, frames) = mpsc::channel(OUT);
    let (resets, wanted) = mpsc::unbounded_channel();
    let (taken, incoming) = mpsc::channel(WAITING);
    let handle = Handle { out, resets, shared: shared.clone() };
    let streams = Streams { incoming, handle: handle.clone() };
    (Connection { io, ending: Ending(shared), handle, frames, resets: wanted, taken }, streams)
}

/// What streams speak to their connection with.
#[derive(Clone)]
struct Handle {
    out: mpsc::Sender<Frame>,
    /// Of streams that were dropped, which cannot wait.
    resets: mpsc::UnboundedSender<Frame>,
    shared: Arc<Shared>,
}

impl Handle {
    async fn send(&self, frame: Frame) -> Result<(), Closed> {
        self.out.send(frame).await.map_err(|_| Closed)
    }
}

/// The half that moves frames.
pub struct Connection<T> {
    io: T,
    ending: Ending,
    handle: Handle,
    frames: mpsc::Receiver<Frame>,
    resets: mpsc::UnboundedReceiver<Frame>,
    taken: mpsc::Sender<Stream>,
}

impl<T: AsyncRead + AsyncWrite> Connection<T> {
    /// Moves frames until one of both sides ends the connection.
    ///
    /// # Errors
    /// When the connection breaks, or the client does not keep the protocol.
    pub async fn run(self) -> io::Result<()> {
        let Connection { io, ending, handle, mut frames, mut resets, taken } = self;
        let (mut reader, mut writer) = tokio::io::split(io);
        let mut encoder = Encoder::new().map_err(io::Error::other)?;
        let mut broken = None;
        let read = async {
            let mut intake = Intake { handle: handle.clone(), taken, decoder: Decoder::default(), received: 0 };
            loop {
                match intake.frames().await {
                    Ok(()) => {}
                    Err(malformed) => {
                        broken = Some(malformed);
                        let last = handle.shared.lock().last;
                        // Who sends it also ends the connection.
                        let _ = handle.send(Frame::GoAway { last, status: PROTOCOL_ERROR }).await;
                        return std::future::pending().await;
                    }
                }
                if reader.read_buf(intake.decoder.buffer()).await? == 0 {
                    return io::Result::Ok(());
                }
            }
        };
        let write = async {
            let mut bytes = Vec::new();
            loop {
                let mut next = tokio::select! {
                    frame = resets.recv() => frame,
                    frame = frames.recv() => frame,
                };
                let mut goodbye = None;
                while let Some(frame) = next {
                    encoder.encode(&frame, &mut bytes).map_err(io::Error::other)?;
                    if let Frame::GoAway { status, .. } = frame {
                        goodbye = Some(status);
                    }
                    next = (bytes.len() < BATCH && goodbye.is_none()).then(|| frames.try_recv().ok()).flatten();
                }
                writer.write_all(&bytes).await?;
                writer.flush().await?;
                bytes.clear();
                match goodbye {
                    Some(0) => {
                        tokio::time::sleep(LINGER).await;
                        return io::Result::Ok(());
                    }
                    Some(_) => return Ok(()),
                    None => {}
                }
            }
        };
        let outcome = tokio::select! {
            outcome = read => outcome,
            outcome = write => outcome,
        };
        drop(ending);
        // The other side may be gone already.
        let _ = writer.shutdown().await;
        outcome.and_then(|()| {
            broken.map_or(Ok(()), |malformed| Err(io::Error::new(io::ErrorKind::InvalidData, malformed)))
        })
    }
}

/// What the client sends.
struct Intake {
    handle: Handle,
    taken: mpsc::Sender<Stream>,
    decoder: Decoder,
    /// Bytes that came since the client was last told that it may send more.
    received: u32,
}

impl Intake {
    async fn frames(&mut self) -> Result<(), Malformed> {
        while let Some(frame) = self.decoder.next_frame()? {
            let answer = match frame {
                Frame::SynStream { id, fin, headers } => self.open(id, fin, headers).await,
                Frame::Data { id, fin, bytes } => self.data(id, fin, bytes).await,
                Frame::Headers { id, fin: true, .. } => self.end(id),
                Frame::RstStream { id, .. } => {
                    self.handle.shared.lock().streams.remove(&id);
                    self.handle.shared.changed.notify_waiters();
                    None
                }
                // The client's own are odd; the others would be answers, and nothing was asked.
                Frame::Ping(id) => (id % 2 == 1).then_some(Frame::Ping(id)),
                Frame::WindowUpdate { id, delta } => self.widen(id, delta.into()),
                Frame::Settings(settings) => {
                    let initial = settings.iter().find(|(id, _)| *id == INITIAL_WINDOW_SIZE);
                    if let Some((_, size)) = initial {
                        self.resize((*size).into());
                    }
                    None
                }
                // The client leaves by itself when its streams have ended.
                Frame::GoAway { .. } | Frame::Headers { .. } | Frame::SynReply { .. } => None,
            };
            if let Some(answer) = answer {
                // When nothing can be sent any more, nothing will be read either.
                let _ = self.handle.send(answer).await;
            }
        }
        Ok(())
    }

    async fn open(&mut self, id: u32, fin: bool, headers: Headers) -> Option<Frame> {
        let (sender, inbox) = mpsc::channel(PIECES);
        let place = self.taken.try_reserve().ok();
        {
            let mut state = self.handle.shared.lock();
            if id.is_multiple_of(2) || id <= state.last {
                return Some(Frame::RstStream { id, status: PROTOCOL_ERROR });
            }
            state.last = id;
            if place.is_none() || state.streams.len() >= STREAMS_MAX {
                return Some(Frame::RstStream { id, status: REFUSED_STREAM });
            }
            let window = state.initial;
            state.streams.insert(id, Entry { inbox: (!fin).then_some(sender), window, ended: false });
        }
        // Data before the reply would be dropped by the client.
        let reply = Frame::SynReply { id, fin: false, headers: Headers::new() };
        let _ = self.handle.send(reply).await;
        let reader = Reader { id, inbox, read: 0, handle: self.handle.clone() };
        let writer = Writer { id, ended: false, handle: self.handle.clone() };
        if let Some(place) = place {
            place.send(Stream { id, headers, reader, writer });
        }
        None
    }

    async fn data(&mut self, id: u32, fin: bool, bytes: Bytes) -> Option<Frame> {
        self.received += bytes.len() as u32;
        if self.received >= WINDOW / 2 {
            let delta = std::mem::take(&mut self.received);
            let _ = self.handle.send(Frame::WindowUpdate { id: 0, delta }).await;
        }
        let known = self.handle.shared.lock().streams.get(&id).map(|entry| entry.inbox.clone());
        match known {
            None => return Some(Frame::RstStream { id, status: INVALID_STREAM }),
            Some(Some(inbox)) if !bytes.is_empty() => {
                // Who reads may have lost interest.
                let _ = inbox.send(bytes).await;
            }
            Some(_) => {}
        }
        if fin { self.end(id) } else { None }
    }

    fn end(&self, id: u32) -> Option<Frame> {
        let mut state = self.handle.shared.lock();
        let entry = state.streams.get_mut(&id)?;
        entry.inbox = None;
        if entry.ended {
            state.streams.remove(&id);
        }
        None
    }

    fn widen(&self, id: u32, delta: i64) -> Option<Frame> {
        let mut state = self.handle.shared.lock();
        state.counts = true;
        let window = if id == 0 {
            &mut state.window
        } else {
            // It may just have ended.
            &mut state.streams.get_mut(&id)?.window
        };
        *window += delta;
        let too_much = *window > i64::from(i32::MAX);
        if too_much {
            state.streams.remove(&id);
        }
        drop(state);
        self.handle.shared.changed.notify_waiters();
        too_much.then(|| match id {
            0 => Frame::GoAway { last: 0, status: PROTOCOL_ERROR },
            id => Frame::RstStream { id, status: FLOW_CONTROL_ERROR },
        })
    }

    fn resize(&self, initial: i64) {
        let mut state = self.handle.shared.lock();
        state.counts = true;
        let more = initial - state.initial;
        state.initial = initial;
        state.streams.values_mut().for_each(|entry| entry.window += more);
        drop(state);
        self.handle.shared.changed.notify_waiters();
    }
}

/// The half that hands out streams.
pub struct Streams {
    incoming: mpsc::Receiver<Stream>,
    handle: Handle,
}

impl Streams {
    /// The next stream that the client opens; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Tells the client that all is over, and ends the connection when the client does, or after a moment.
    pub async fn go_away(&self) {
        let last = self.handle.shared.lock().last;
        // Whoever is gone needs not be told.
        let _ = self.handle.send(Frame::GoAway { last, status: 0 }).await;
    }
}

/// One stream.
pub struct Stream {
    id: u32,
    headers: Headers,
    /// What the client says.
    pub reader: Reader,
    /// What the client hears.
    pub writer: Writer,
}

impl Stream {
    /// Its number: odd, and higher than that of any before it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The value of a header, whose name is given in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What the client says on a stream.
pub struct Reader {
    id: u32,
    inbox: mpsc::Receiver<Bytes>,
    /// Bytes that were read since the client was last told that it may send more.
    read: u32,
    handle: Handle,
}

impl Reader {
    /// The next piece; `None` when nothing more comes.
    pub async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.inbox.recv().await?;
        self.read += bytes.len() as u32;
        if self.read >= WINDOW / 2 {
            // Reading must not wait for a client that does not read; then the next piece tries again.
            let update = Frame::WindowUpdate { id: self.id, delta: self.read };
            if self.handle.out.try_send(update).is_ok() {
                self.read = 0;
            }
        }
        Some(bytes)
    }
}

/// What the client hears on a stream. Dropped before its end, it resets the stream.
pub struct Writer {
    id: u32,
    ended: bool,
    handle: Handle,
}

impl Writer {
    /// Sends bytes, as the windows allow.
    ///
    /// # Errors
    /// When the stream or the connection has ended.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), Closed> {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            let room = self.room(bytes.len().min(PIECE)).await?;
            let piece = bytes.split_to(room);
            self.handle.send(Frame::Data { id: self.id, fin: false, bytes: piece }).await?;
        }
        Ok(())
    }

    /// How many of so many bytes may be sent now; they count as sent.
    async fn room(&self, wanted: usize) -> Result<usize, Closed> {
        let shared = &self.handle.shared;
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = shared.lock();
                let (counts, whole) = (state.counts, state.window);
                if state.over {
                    return Err(Closed);
                }
                let entry = state.streams.get_mut(&self.id).ok_or(Closed)?;
                let wanted = i64::try_from(wanted).unwrap_or(i64::MAX);
                let room = if counts { wanted.min(entry.window).min(whole) } else { wanted };
                if room > 0 {
                    entry.window -= room;
                    state.window -= room;
                    return Ok(room as usize);
                }
            }
            changed.await;
        }
    }

    /// Says that nothing more comes.
    pub async fn finish(mut self) {
        self.leave();
        // Whoever is gone needs not be told.
        let _ = self.handle.send(Frame::Data { id: self.id, fin: true, bytes: Bytes::new() }).await;
    }

    /// Notes the end, and says whether the client does not know of it yet.
    fn leave(&mut self) -> bool {
        if std::mem::replace(&mut self.ended, true) {
            return false;
        }
        let mut state = self.handle.shared.lock();
        let Some(entry) = state.streams.get_mut(&self.id) else { return false };
        entry.ended = true;
        if entry.inbox.is_none() {
            state.streams.remove(&self.id);
        }
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.leave() {
            self.handle.shared.lock().streams.remove(&self.id);
            // Nobody is left to hear it when the connection has ended.
            let _ = self.handle.resets.send(Frame::RstStream { id: self.id, status: CANCEL });
        }
    }
}
