//! Blocks of names and values, as they travel in frames: compressed, with one state for each direction of a connection.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::frame::{Malformed, number};

/// Names, in lower case, and values; a name may come several times.
pub type Headers = Vec<(String, String)>;

/// The longest block, in bytes when it is unpacked.
const BLOCK_MAX: usize = 64 << 10;

/// What both sides know before the first block (draft 3, section 2.6.10.1): words, each with its length before it …
const WORDS: &[&str] = &[
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
    "200 OK",
    "version",
    "HTTP/1.1",
    "url",
    "public",
    "set-cookie",
    "keep-alive",
    "origin",
];
/// … and then text.
const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
    Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1423);
    for word in WORDS {
        put_text(&mut all, word);
    }
    all.extend_from_slice(TEXT.as_bytes());
    all
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Packs the blocks of one direction.
pub(crate) struct Packer(Compress);

impl Packer {
    pub fn new() -> Result<Self, Malformed> {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&dictionary()).map_err(|_| Malformed("the dictionary is refused"))?;
        Ok(Self(compress))
    }

    pub fn pack(&mut self, headers: &Headers) -> Result<Vec<u8>, Malformed> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for (name, value) in headers {
            put_text(&mut plain, name);
            put_text(&mut plain, value);
        }
        let (mut packed, mut rest) = (Vec::with_capacity(plain.len() + 64), &plain[..]);
        loop {
            let before = self.0.total_in();
            packed.reserve(64);
            self.0
                .compress_vec(rest, &mut packed, FlushCompress::Sync)
                .map_err(|_| Malformed("a block cannot be packed"))?;
            rest = &rest[(self.0.total_in() - before) as usize..];
            // Room that is left says that all is out.
            if rest.is_empty() && packed.len() < packed.capacity() {
                return Ok(packed);
            }
        }
    }
}

/// Unpacks the blocks of one direction.
pub(crate) struct Unpacker(Decompress);

impl Unpacker {
    pub fn new() -> Self {
        Self(Decompress::new(true))
    }

    pub fn unpack(&mut self, mut packed: &[u8]) -> Result<Headers, Malformed> {
        let mut plain = Vec::new();
        loop {
            let (before, had) = (self.0.total_in(), plain.len());
            plain.reserve(1024);
            let outcome = self.0.decompress_vec(packed, &mut plain, FlushDecompress::Sync);
            packed = &packed[(self.0.total_in() - before) as usize..];
            if plain.len() > BLOCK_MAX {
                return Err(Malformed("a block of headers is too long"));
            }
            match outcome {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.0.set_dictionary(&dictionary()).map_err(|_| Malformed("another dictionary is wanted"))?;
                }
                Err(_) | Ok(Status::StreamEnd) => return Err(Malformed("a block of headers does not unpack")),
                Ok(_) if packed.is_empty() && plain.len() < plain.capacity() => return read(&plain),
                Ok(_) if plain.len() == had && self.0.total_in() == before => {
                    return Err(Malformed("a block of headers does not unpack"));
                }
                Ok(_) => {}
            }
        }
    }
}

fn read(mut plain: &[u8]) -> Result<Headers, Malformed> {
    fn take<'a>(plain: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = plain.split_at_checked(count).ok_or(Malformed("a block of headers is cut off"))?;
        *plain = rest;
        Ok(taken)
    }
    fn text<'a>(plain: &mut &'a [u8]) -> Result<&'a str, Malformed> {
        let length = number(take(plain, 4)?);
        let bytes = take(plain, length as usize)?;
        std::str::from_utf8(bytes).map_err(|_| Malformed("a header is no text"))
    }
    let count = number(take(&mut plain, 4)?);
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = text(&mut plain)?.to_ascii_lowercase();
        // Several values of one name stand in one text.
        let values = text(&mut plain)?.split('\0');
        headers.extend(values.map(|value| (name.clone(), value.to_owned())));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn blocks_of_another_implementation_are_read_one_after_the_other() {
        let mut unpacker = Unpacker::new();
        let first = bytes(
            "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c6061606100a4398b20d198094ade8c0600000000ffff",
        );
        let read = unpacker.unpack(&first).unwrap();
        assert_eq!(read, pairs(&[("streamtype", "error"), ("port", "8080"), ("requestid", "0")]));
        let read = unpacker.unpack(&bytes("c2aa19540e2512d60b000000ffff")).unwrap();
        assert_eq!(read, pairs(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]));
    }

    #[test]
    fn what_is_packed_is_read_back() {
        let (mut packer, mut unpacker) = (Packer::new().unwrap(), Unpacker::new());
        let long = "x y z ".repeat(9000);
        for headers in [pairs(&[]), pairs(&[("a", "1"), ("b", "")]), pairs(&[("long", &long)]), pairs(&[("a", "1")])] {
            assert_eq!(unpacker.unpack(&packer.pack(&headers).unwrap()).unwrap(), headers);
        }
    }

    #[test]
    fn malformed_blocks_are_refused() {
        let mut packer = Packer::new().unwrap();
        let bomb = packer.pack(&pairs(&[("a", &"0".repeat(10 * BLOCK_MAX))])).unwrap();
        assert_eq!(Unpacker::new().unpack(&bomb), Err(Malformed("a block of headers is too long")));
        assert!(Unpacker::new().unpack(b"no zlib at all").is_err());
        assert!(Unpacker::new().unpack(b"").is_err());
        for plain in [&[0, 0, 0, 1][..], &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0], &[0, 0, 0, 1, 0, 0, 0, 1, 0xff]] {
            assert!(read(plain).is_err(), "{plain:?}");
        }
        assert_eq!(
            read(&[0, 0, 0, 1, 0, 0, 0, 1, b'N', 0, 0, 0, 3, b'1', 0, b'2']),
            Ok(pairs(&[("n", "1"), ("n", "2")]))
        );
    }
}
