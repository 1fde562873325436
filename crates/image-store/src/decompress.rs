//! Reads gzip, zstd or plain data, told apart by the first bytes.

use std::io::{BufRead, BufReader, Read};

use anyhow::Context;

/// How a blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// The compression that these first bytes stand for.
pub(crate) fn sniff(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// A reader of the plain data inside.
pub(crate) fn reader<'a>(inner: impl Read + Send + 'a) -> anyhow::Result<Box<dyn Read + Send + 'a>> {
    let mut buffered = BufReader::with_capacity(256 << 10, inner);
    let start = buffered.fill_buf().context("read the first bytes")?;
    Ok(match sniff(start) {
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        Compression::Zstd => {
            Box::new(zstd::stream::read::Decoder::with_buffer(buffered).context("start the zstd decoder")?)
        }
        Compression::None => Box::new(buffered),
    })
}
