//! Frames and their bytes. No IO: bytes are handed in as they come, and frames come out.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::headers::{Headers, Packer, Unpacker};

/// What cannot be understood ends the connection, since both sides have lost the common state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed SPDY: {0}")]
pub struct Malformed(pub &'static str);

/// The version of the frames; 3.1 differs from 3 by the window of the connection alone.
const VERSION: u16 = 3;
/// The longest control frame that is read, in bytes.
const CONTROL_MAX: usize = 64 << 10;
/// The most bytes of one piece of data; longer frames come out, and go in, as several.
pub const PIECE: usize = 16 << 10;
/// How much may be sent before the other side says more.
pub const WINDOW: u32 = 64 << 10;

const FIN: u8 = 1;

/// Reason of an RST_STREAM or GOAWAY: the protocol was not kept.
pub const PROTOCOL_ERROR: u32 = 1;
/// Reason of an RST_STREAM: there is no such stream.
pub const INVALID_STREAM: u32 = 2;
/// Reason of an RST_STREAM: it is not taken.
pub const REFUSED_STREAM: u32 = 3;
/// Reason of an RST_STREAM: nobody wants it any more.
pub const CANCEL: u32 = 5;
/// Reason of an RST_STREAM: a window was made too large.
pub const FLOW_CONTROL_ERROR: u32 = 7;
/// Setting: how much may be sent on each stream at its start.
pub const INITIAL_WINDOW_SIZE: u32 = 7;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Its number.
        id: u32,
        /// Whether nothing more comes from who opened it.
        fin: bool,
        /// What it is for.
        headers: Headers,
    },
    /// Takes a stream.
    SynReply {
        /// Its number.
        id: u32,
        /// Whether nothing more comes from who took it.
        fin: bool,
        /// What there is to say of it.
        headers: Headers,
    },
    /// Ends a stream at once.
    RstStream {
        /// Its number.
        id: u32,
        /// Why.
        status: u32,
    },
    /// Settings, by their numbers.
    Settings(Vec<(u32, u32)>),
    /// Comes back as it was sent.
    Ping(u32),
    /// Nothing new will be taken.
    GoAway {
        /// The last stream that was taken.
        last: u32,
        /// Why.
        status: u32,
    },
    /// More headers of a stream.
    Headers {
        /// Its number.
        id: u32,
        /// Whether nothing more comes.
        fin: bool,
        /// What was left to say.
        headers: Headers,
    },
    /// More may be sent, on a stream or, with 0, in all.
    WindowUpdate {
        /// Its number.
        id: u32,
        /// How many bytes more.
        delta: u32,
    },
    /// A piece of what a stream carries.
    Data {
        /// Its number.
        id: u32,
        /// Whether nothing more comes.
        fin: bool,
        /// The bytes.
        bytes: Bytes,
    },
}

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// A number of four bytes at the begin of a slice that has them.
pub(crate) fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// Turns frames into bytes.
pub struct Encoder(Packer);

impl Encoder {
    /// An encoder for one direction of a connection.
    ///
    /// # Errors
    /// When compression cannot be set up.
    pub fn new() -> Result<Self, Malformed> {
        Packer::new().map(Self)
    }

    /// Appends a frame to `out`.
    ///
    /// # Errors
    /// When its headers cannot be packed.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let two = |a: u32, b: u32| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let (kind, fin, payload) = match frame {
            Frame::Data { id, fin, bytes } => {
                out.extend_from_slice(&id.to_be_bytes());
                length(out, *fin, bytes.len());
                out.extend_from_slice(bytes);
                return Ok(());
            }
            Frame::SynStream { id, fin, headers } => {
                // No other stream that it belongs to, no priority and no slot.
                let start = [&id.to_be_bytes()[..], &[0; 6]].concat();
                (SYN_STREAM, *fin, [start, self.0.pack(headers)?].concat())
            }
            Frame::SynReply { id, fin, headers } => {
                (SYN_REPLY, *fin, [&id.to_be_bytes()[..], &self.0.pack(headers)?].concat())
            }
            Frame::Headers { id, fin, headers } => {
                (HEADERS, *fin, [&id.to_be_bytes()[..], &self.0.pack(headers)?].concat())
            }
            Frame::RstStream { id, status } => (RST_STREAM, false, two(*id, *status)),
            Frame::Ping(id) => (PING, false, id.to_be_bytes().to_vec()),
            Frame::GoAway { last, status } => (GOAWAY, false, two(*last, *status)),
            Frame::WindowUpdate { id, delta } => (WINDOW_UPDATE, false, two(*id, *delta)),
            Frame::Settings(settings) => {
                let mut payload = (settings.len() as u32).to_be_bytes().to_vec();
                settings.iter().for_each(|(id, value)| payload.extend(two(*id, *value)));
                (SETTINGS, false, payload)
            }
        };
        out.extend_from_slice(&(VERSION | 1 << 15).to_be_bytes());
        out.extend_from_slice(&kind.to_be_bytes());
        length(out, fin, payload.len());
        out.extend_from_slice(&payload);
        Ok(())
    }
}

fn length(out: &mut Vec<u8>, fin: bool, length: usize) {
    let flags = if fin { u32::from(FIN) << 24 } else { 0 };
    out.extend_from_slice(&(flags | length as u32 & 0x00ff_ffff).to_be_bytes());
}

/// Data of a frame that has begun.
struct Open {
    id: u32,
    fin: bool,
    left: usize,
}

/// Turns bytes into frames.
pub struct Decoder {
    unpacker: Unpacker,
    buffer: BytesMut,
    data: Option<Open>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { unpacker: Unpacker::new(), buffer: BytesMut::new(), data: None }
    }
}

impl Decoder {
    /// What has come and is not a frame yet: bytes are read to its end.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame, or `None` when more bytes are needed for it.
    ///
    /// # Errors
    /// When the bytes are no frame. There is no way to go on after it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        loop {
            if let Some(open) = &mut self.data {
                if open.left > 0 && self.buffer.is_empty() {
                    return Ok(None);
                }
                let bytes = self.buffer.split_to(open.left.min(self.buffer.len()).min(PIECE)).freeze();
                open.left -= bytes.len();
                let (id, over) = (open.id, open.left == 0);
                let fin = over && open.fin;
                if over {
                    self.data = None;
                }
                return Ok(Some(Frame::Data { id, fin, bytes }));
            }
            if self.buffer.len() < 8 {
                return Ok(None);
            }
            let (word, rest) = (number(&self.buffer), number(&self.buffer[4..]));
            let (flags, length) = ((rest >> 24) as u8, (rest & 0x00ff_ffff) as usize);
            if word >> 31 == 0 {
                if word == 0 {
                    return Err(Malformed("data belongs to no stream"));
                }
                self.buffer.advance(8);
                self.data = Some(Open { id: word, fin: flags & FIN != 0, left: length });
                continue;
            }
            if (word >> 16) as u16 & 0x7fff != VERSION {
                return Err(Malformed("a frame of another version"));
            }
            if length > CONTROL_MAX {
                return Err(Malformed("a control frame is too long"));
            }
            if self.buffer.len() < 8 + length {
                return Ok(None);
            }
            self.buffer.advance(8);
            let payload = self.buffer.split_to(length);
            if let Some(frame) = self.control(word as u16, flags & FIN != 0, &payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// One control frame; what is not known is passed over, as the protocol wants it.
    fn control(&mut self, kind: u16, fin: bool, payload: &[u8]) -> Result<Option<Frame>, Malformed> {
        let least = match kind {
            SYN_STREAM => 10,
            RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
            SYN_REPLY | HEADERS | PING | SETTINGS => 4,
            _ => return Ok(None),
        };
        if payload.len() < least {
            return Err(Malformed("a control frame is too short"));
        }
        let id = number(payload) & 0x7fff_ffff;
        if id == 0 && matches!(kind, SYN_STREAM | SYN_REPLY | HEADERS | RST_STREAM) {
            return Err(Malformed("a frame belongs to no stream"));
        }
        let second = || number(&payload[4..]);
        Ok(Some(match kind {
            SYN_STREAM => Frame::SynStream { id, fin, headers: self.unpacker.unpack(&payload[10..])? },
            SYN_REPLY => Frame::SynReply { id, fin, headers: self.unpacker.unpack(&payload[4..])? },
            HEADERS => Frame::Headers { id, fin, headers: self.unpacker.unpack(&payload[4..])? },
            RST_STREAM => Frame::RstStream { id, status: second() },
            GOAWAY => Frame::GoAway { last: id, status: second() },
            WINDOW_UPDATE => Frame::WindowUpdate { id, delta: second() & 0x7fff_ffff },
            PING => Frame::Ping(number(payload)),
            _ => {
                let (pairs, rest) = payload[4..].as_chunks::<8>();
                if !rest.is_empty() || pairs.len() != number(payload) as usize {
                    return Err(Malformed("settings are of another length than they say"));
                }
                // The byte before the number holds flags.
                Frame::Settings(pairs.iter().map(|pair| (number(pair) & 0x00ff_ffff, number(&pair[4..]))).collect())
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<Frame>, Malformed> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        // As bytes come from a slow network.
        for byte in bytes {
            decoder.buffer().extend_from_slice(&[*byte]);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_read_back_as_they_were_written() {
        let headers = vec![("streamtype".to_owned(), "error".to_owned())];
        let frames = [
            Frame::SynStream { id: 1, fin: true, headers: headers.clone() },
            Frame::SynReply { id: 1, fin: false, headers: Headers::new() },
            Frame::Headers { id: 1, fin: false, headers },
            Frame::RstStream { id: 3, status: CANCEL },
            Frame::Settings(vec![(INITIAL_WINDOW_SIZE, 1000), (4, 2)]),
            Frame::Ping(5),
            Frame::WindowUpdate { id: 0, delta: 7 },
            Frame::Data { id: 1, fin: false, bytes: Bytes::from_static(b"x") },
            Frame::Data { id: 1, fin: true, bytes: Bytes::new() },
            Frame::GoAway { last: 1, status: 0 },
        ];
        let mut encoder = Encoder::new().unwrap();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| encoder.encode(frame, &mut bytes).unwrap());
        assert_eq!(decode(&bytes).unwrap(), frames);
    }

    #[test]
    fn bytes_are_those_of_the_draft() {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new().unwrap();
        encoder.encode(&Frame::Ping(1), &mut bytes).unwrap();
        assert_eq!(bytes, [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
        bytes.clear();
        encoder.encode(&Frame::Data { id: 3, fin: true, bytes: Bytes::from_static(b"hi") }, &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 0, 3, 1, 0, 0, 2, b'h', b'i']);
    }

    #[test]
    fn long_data_comes_in_pieces_of_which_the_last_ends_the_stream() {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&[0, 0, 0, 1, 1, 0, 0x80, 0]);
        decoder.buffer().extend_from_slice(&[7; 0x8000]);
        for fin in [false, true] {
            let frame = decoder.next_frame().unwrap();
            assert_eq!(frame, Some(Frame::Data { id: 1, fin, bytes: vec![7; PIECE].into() }));
        }
        assert_eq!(decoder.next_frame(), Ok(None));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for (bytes, why) in [
            (&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..], "a frame of another version"),
            (&[0, 0, 0, 0, 0, 0, 0, 0], "data belongs to no stream"),
            (&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], "a control frame is too long"),
            (&[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], "a control frame is too short"),
            (&[0x80, 3, 0, 9, 0, 0, 0, 4, 0, 0, 0, 1], "a control frame is too short"),
            (&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1], "a frame belongs to no stream"),
            (&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], "settings are of another length than they say"),
            (&[0x80, 3, 0, 2, 0, 0, 0, 6, 0, 0, 0, 1, 1, 2], "a block of headers does not unpack"),
            (b"GET / HTTP/1.1\r\n\r\n" as &[u8], ""),
        ] {
            match decode(bytes) {
                Err(Malformed(text)) => assert_eq!(text, why, "{bytes:?}"),
                // Text looks like data of some stream that never ends.
                Ok(frames) => assert!(why.is_empty(), "{bytes:?}: {frames:?}"),
            }
        }
    }

    #[test]
    fn a_frame_of_a_kind_that_is_not_known_is_passed_over() {
        let bytes = [0x80, 3, 0, 10, 0, 0, 0, 2, 9, 9, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        assert_eq!(decode(&bytes).unwrap(), [Frame::Ping(1)]);
    }
}
