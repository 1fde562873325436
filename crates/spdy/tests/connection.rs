//! A client that writes frames by hand.

use std::time::Duration;

use bytes::Bytes;
use spdy::frame::{CANCEL, Decoder, Encoder, INITIAL_WINDOW_SIZE, INVALID_STREAM, PROTOCOL_ERROR, WINDOW};
use spdy::{Closed, Frame, Headers, Streams, accept};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
}

impl Client {
    async fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let mut bytes = Vec::new();
        for frame in frames {
            self.encoder.encode(&frame, &mut bytes).unwrap();
        }
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return Some(frame);
            }
            let read = self.io.read_buf(self.decoder.buffer());
            if tokio::time::timeout(Duration::from_secs(10), read).await.expect("a frame in time").unwrap() == 0 {
                return None;
            }
        }
    }

    /// The length of the next piece of data.
    async fn data(&mut self) -> usize {
        match self.next().await {
            Some(Frame::Data { bytes, .. }) => bytes.len(),
            other => panic!("no data but {other:?}"),
        }
    }

    /// The number of bytes that come on a stream in a row, and the first other frame.
    async fn count(&mut self) -> (usize, Option<Frame>) {
        let mut sum = 0;
        loop {
            match self.next().await {
                Some(Frame::Data { fin: false, bytes, .. }) => sum += bytes.len(),
                other => return (sum, other),
            }
        }
    }
}

/// Runs a client against a server's part.
async fn meet<T>(serve: impl AsyncFnOnce(Streams) -> T, act: impl AsyncFnOnce(Client)) -> (T, std::io::Result<()>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (connection, streams) = accept(near);
    let client = Client { io: far, encoder: Encoder::new().unwrap(), decoder: Decoder::default() };
    let (served, (), ran) = tokio::join!(serve(streams), act(client), connection.run());
    (served, ran)
}

fn open(id: u32, kind: &str) -> Frame {
    Frame::SynStream { id, fin: false, headers: vec![("streamtype".into(), kind.into())] }
}

fn data(id: u32, bytes: &'static [u8], fin: bool) -> Frame {
    Frame::Data { id, fin, bytes: Bytes::from_static(bytes) }
}

fn reply(id: u32) -> Option<Frame> {
    Some(Frame::SynReply { id, fin: false, headers: Headers::new() })
}

#[tokio::test]
async fn streams_are_read_and_written_beside_each_other_and_half_closed() {
    let serve = async |mut streams: Streams| {
        let (first, second) = (streams.next().await.unwrap(), streams.next().await.unwrap());
        assert_eq!(
            (first.header("streamtype"), second.header("streamtype"), second.id()),
            (Some("error"), Some("data"), 3)
        );
        let (mut inward, mut outward) = (second.reader, second.writer);
        let mut heard = Vec::new();
        while let Some(bytes) = inward.next().await {
            heard.extend_from_slice(&bytes);
        }
        outward.write(heard).await.unwrap();
        outward.finish().await;
        first.writer.finish().await;
        streams.go_away().await;
    };
    let ((), ran) = meet(serve, async |mut client| {
        client
            .send([open(1, "error"), open(3, "data"), data(1, b"", true), data(3, b"he", false), Frame::Ping(1)])
            .await;
        client.send([data(3, b"llo", true)]).await;
        assert_eq!((client.next().await, client.next().await), (reply(1), reply(3)));
        assert_eq!(client.next().await, Some(Frame::Ping(1)));
        assert_eq!(client.next().await, Some(data(3, b"hello", false)));
        assert_eq!(client.next().await, Some(data(3, b"", true)));
        assert_eq!(client.next().await, Some(data(1, b"", true)));
        assert_eq!(client.next().await, Some(Frame::GoAway { last: 3, status: 0 }));
    })
    .await;
    ran.unwrap();
}

#[tokio::test]
async fn a_client_without_windows_is_sent_all_and_one_with_windows_what_it_allows() {
    let much = 3 * WINDOW as usize;
    let serve = async |mut streams: Streams| {
        let mut stream = streams.next().await.unwrap();
        stream.writer.write(vec![0; much]).await.unwrap();
        stream.writer.finish().await;
    };
    let ((), ran) = meet(serve, async |mut client| {
        client.send([open(1, "data")]).await;
        assert_eq!(client.next().await, reply(1));
        assert_eq!(client.count().await, (much, Some(data(1, b"", true))));
    })
    .await;
    ran.unwrap();
    let ((), ran) = meet(serve, async |mut client| {
        client.send([Frame::Settings(vec![(INITIAL_WINDOW_SIZE, 1000)]), open(1, "data")]).await;
        assert_eq!(client.next().await, reply(1));
        let mut sum = 0;
        while sum < 1000 {
            sum += client.data().await;
        }
        client.send([Frame::Ping(1)]).await;
        assert_eq!((sum, client.next().await), (1000, Some(Frame::Ping(1))));
        client.send([Frame::WindowUpdate { id: 1, delta: much as u32 }]).await;
        // All but what the connection as a whole may not carry.
        while sum < WINDOW as usize {
            sum += client.data().await;
        }
        client.send([Frame::Ping(3)]).await;
        assert_eq!((sum, client.next().await), (WINDOW as usize, Some(Frame::Ping(3))));
        client.send([Frame::WindowUpdate { id: 0, delta: much as u32 }]).await;
        let (rest, end) = client.count().await;
        assert_eq!((sum + rest, end), (much, Some(data(1, b"", true))));
    })
    .await;
    ran.unwrap();
}

#[tokio::test]
async fn a_reader_tells_the_client_that_it_may_send_more() {
    let serve = async |mut streams: Streams| {
        let mut stream = streams.next().await.unwrap();
        let mut sum = 0;
        while let Some(bytes) = stream.reader.next().await {
            sum += bytes.len();
        }
        sum
    };
    let (sum, ran) = meet(serve, async |mut client| {
        client.send([open(1, "data"), data(1, &[0; 40_000], false)]).await;
        assert_eq!(client.next().await, reply(1));
        let mut told = [client.next().await, client.next().await].map(Option::unwrap);
        told.sort_by_key(|frame| matches!(frame, Frame::WindowUpdate { id: 1, .. }));
        for (frame, wanted) in told.iter().zip([0, 1]) {
            assert!(
                matches!(frame, Frame::WindowUpdate { id, delta } if *id == wanted && *delta >= 32_768),
                "{frame:?}"
            );
        }
        client.send([data(1, b"", true)]).await;
    })
    .await;
    ran.unwrap();
    assert_eq!(sum, 40_000);
}

#[tokio::test]
async fn a_reset_ends_a_stream_for_both_and_no_other() {
    let serve = async |mut streams: Streams| {
        let (mut first, mut second) = (streams.next().await.unwrap(), streams.next().await.unwrap());
        assert_eq!(first.reader.next().await, None);
        assert_eq!(first.writer.write("x").await, Err(Closed));
        drop(first);
        second.writer.write("y").await.unwrap();
        drop(second);
        assert!(streams.next().await.is_none());
    };
    let ((), ran) = meet(serve, async |mut client| {
        client.send([open(1, "a"), open(3, "b"), Frame::RstStream { id: 1, status: CANCEL }]).await;
        assert_eq!((client.next().await, client.next().await), (reply(1), reply(3)));
        let both = [client.next().await, client.next().await];
        assert!(both.contains(&Some(Frame::RstStream { id: 3, status: CANCEL })), "{both:?}");
        assert!(both.contains(&Some(data(3, b"y", false))), "{both:?}");
        client.send([data(9, b"z", false)]).await;
        assert_eq!(client.next().await, Some(Frame::RstStream { id: 9, status: INVALID_STREAM }));
    })
    .await;
    ran.unwrap();
}

#[tokio::test]
async fn what_is_no_protocol_ends_the_connection() {
    let serve = async |mut streams: Streams| assert!(streams.next().await.is_none());
    let ((), ran) = meet(serve, async |mut client| {
        client.send([open(2, "even")]).await;
        assert_eq!(client.next().await, Some(Frame::RstStream { id: 2, status: PROTOCOL_ERROR }));
        client.io.write_all(&[0x80, 9, 0, 1, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(client.next().await, Some(Frame::GoAway { last: 0, status: PROTOCOL_ERROR }));
        assert_eq!(client.next().await, None);
    })
    .await;
    assert_eq!(ran.unwrap_err().to_string(), "malformed SPDY: a frame of another version");
}
