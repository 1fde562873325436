//! Pages that pass through the proxy: their links are rewritten as the bytes come by.

use std::io::{self, Write as _};

use bytes::Bytes;
use client::{Body, BodyError};
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use futures::stream;
use http::{Response, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};

use super::links::Links;

/// The attributes that hold a link, by element (HTML 4 and 5).
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "icon", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is no markup.
const RAW: &[&str] = &["iframe", "noembed", "noframes", "script", "style", "textarea", "title", "xmp"];
/// A tag that is longer than this is passed on as it is.
const TAG_MAX: usize = 64 << 10;

/// The answer with its links rewritten, if it is a page.
pub fn rewrite(mut response: Response<Body>, links: Links) -> Response<Body> {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "text/html" || response.body().is_end_stream() {
        return response;
    }
    let Some(coding) = Coding::named(text(header::CONTENT_ENCODING)) else { return response };
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|body| {
        let page = Some((body, Page { rewriter: Rewriter::new(links), coding }));
        let frames = stream::unfold(page, |page| async move {
            let (mut body, mut page) = page?;
            loop {
                let (bytes, over) = match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => (page.feed(&data), false),
                        // Trailers tell of what the bytes were.
                        Err(_) => continue,
                    },
                    Some(Err(error)) => return Some((Err(error), None)),
                    None => (page.finish(), true),
                };
                return match bytes {
                    Ok(bytes) if bytes.is_empty() && !over => continue,
                    Ok(bytes) => Some((Ok(Frame::data(bytes.into())), (!over).then_some((body, page)))),
                    Err(error) => Some((Err(BodyError::new(error)), None)),
                };
            }
        });
        StreamBody::new(frames).boxed_unsync()
    })
}

/// How the bytes of a page are packed.
enum Coding {
    Plain,
    Gzip(GzDecoder<Vec<u8>>, GzEncoder<Vec<u8>>),
    Deflate(DeflateDecoder<Vec<u8>>, DeflateEncoder<Vec<u8>>),
}

impl Coding {
    /// `None` for one that is not known: such pages pass as they are.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "identity" => Self::Plain,
            "gzip" => Self::Gzip(GzDecoder::new(Vec::new()), GzEncoder::new(Vec::new(), Compression::default())),
            "deflate" => {
                Self::Deflate(DeflateDecoder::new(Vec::new()), DeflateEncoder::new(Vec::new(), Compression::default()))
            }
            _ => return None,
        })
    }
}

struct Page {
    rewriter: Rewriter,
    coding: Coding,
}

impl Page {
    fn feed(&mut self, bytes: &Bytes) -> io::Result<Vec<u8>> {
        let Self { rewriter, coding } = self;
        match coding {
            Coding::Plain => Ok(rewriter.feed(bytes)),
            Coding::Gzip(decoder, encoder) => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                encoder.write_all(&rewriter.feed(&std::mem::take(decoder.get_mut())))?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Coding::Deflate(decoder, encoder) => {
                decoder.write_all(bytes)?;
                decoder.flush()?;
                encoder.write_all(&rewriter.feed(&std::mem::take(decoder.get_mut())))?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        let Self { rewriter, coding } = self;
        match coding {
            Coding::Plain => Ok(rewriter.finish()),
            Coding::Gzip(decoder, encoder) => {
                decoder.try_finish()?;
                encoder.write_all(&rewriter.feed(&std::mem::take(decoder.get_mut())))?;
                encoder.write_all(&rewriter.finish())?;
                encoder.try_finish()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Coding::Deflate(decoder, encoder) => {
                decoder.try_finish()?;
                encoder.write_all(&rewriter.feed(&std::mem::take(decoder.get_mut())))?;
                encoder.write_all(&rewriter.finish())?;
                encoder.try_finish()?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }
}

/// Rewrites the links of a page that comes in pieces.
struct Rewriter {
    links: Links,
    /// What has come and is not understood yet.
    rest: Vec<u8>,
    /// The element whose content is passed over.
    raw: Option<&'static str>,
}

impl Rewriter {
    fn new(links: Links) -> Self {
        Self { links, rest: Vec::new(), raw: None }
    }

    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.rest);
        let (mut out, mut at) = (Vec::with_capacity(all.len() + 256), 0);
        while at < all.len() {
            match self.step(&all[at..], &mut out) {
                Some(used) => at += used,
                None if all.len() - at > TAG_MAX => {
                    out.extend_from_slice(&all[at..]);
                    at = all.len();
                }
                None => break,
            }
        }
        self.rest = all[at..].to_vec();
        out
    }

    /// What is left at the end of the page.
    fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    /// Takes one piece of text or markup; `None` if its end has not come yet.
    fn step(&mut self, text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let open = text.iter().position(|byte| *byte == b'<').unwrap_or(text.len());
        if open > 0 {
            out.extend_from_slice(&text[..open]);
            return Some(open);
        }
        if let Some(raw) = self.raw {
            // Only its own end tag ends it.
            let end = format!("</{raw}");
            if text.len() < end.len() {
                return (!end.as_bytes()[..text.len()].eq_ignore_ascii_case(text)).then(|| keep(text, 1, out));
            }
            if !text[..end.len()].eq_ignore_ascii_case(end.as_bytes()) {
                return Some(keep(text, 1, out));
            }
            self.raw = None;
        }
        match text.get(1)? {
            b'!' if text.starts_with(b"<!--") => {
                let end = text[4..].windows(3).position(|three| three == b"-->")?;
                Some(keep(text, end + 7, out))
            }
            // Not enough to know whether it is a comment.
            b'!' if text.len() < 4 && b"<!--".starts_with(text) => None,
            byte if byte.is_ascii_alphabetic() => {
                let end = tag_end(text)?;
                let tag = &text[..end];
                let name = element(tag);
                self.raw = RAW.iter().copied().find(|raw| *raw == name && !tag.ends_with(b"/>"));
                match LINKS.iter().find(|(element, _)| *element == name) {
                    Some((_, attributes)) => self.tag(tag, name.len() + 1, attributes, out),
                    None => out.extend_from_slice(tag),
                }
                Some(end)
            }
            b'/' | b'!' | b'?' => {
                let end = text.iter().position(|byte| *byte == b'>')?;
                Some(keep(text, end + 1, out))
            }
            _ => Some(keep(text, 1, out)),
        }
    }

    /// Writes a tag with the links of these attributes rewritten.
    fn tag(&self, tag: &[u8], name: usize, attributes: &[&str], out: &mut Vec<u8>) {
        let (mut at, mut written) = (name, 0);
        while at < tag.len() {
            let until = |from: usize, ends: &dyn Fn(u8) -> bool| {
                tag[from..].iter().position(|byte| ends(*byte)).map_or(tag.len(), |more| from + more)
            };
            let space = |byte: u8| byte.is_ascii_whitespace();
            let start = until(at, &|byte| !space(byte) && byte != b'/' && byte != b'>');
            let end = until(start, &|byte| space(byte) || b"/>=".contains(&byte));
            let equals = until(end, &|byte| !space(byte));
            if tag.get(equals) != Some(&b'=') {
                at = end.max(at + 1);
                continue;
            }
            let value = until(equals + 1, &|byte| !space(byte));
            let (from, to) = match tag.get(value) {
                Some(quote @ (b'"' | b'\'')) => (value + 1, until(value + 1, &|byte| byte == *quote)),
                _ => (value, until(value, &|byte| space(byte) || byte == b'>')),
            };
            let attribute = String::from_utf8_lossy(&tag[start..end]).to_ascii_lowercase();
            if attributes.contains(&attribute.as_str())
                && let Ok(link) = std::str::from_utf8(&tag[from..to])
            {
                out.extend_from_slice(&tag[written..from]);
                out.extend_from_slice(self.links.rewritten(link).as_bytes());
                written = to;
            }
            at = to.max(at + 1);
        }
        out.extend_from_slice(&tag[written..]);
    }
}

/// Passes so many bytes on.
fn keep(text: &[u8], count: usize, out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&text[..count]);
    count
}

fn element(tag: &[u8]) -> String {
    let name = tag[1..].iter().take_while(|byte| !byte.is_ascii_whitespace() && !b"/>".contains(byte));
    name.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// Where a tag ends: at the first `>` that is in no quotes.
fn tag_end(text: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.iter().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') if text[..at].trim_ascii_end().ends_with(b"=") => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn links() -> Links {
        Links { prefix: "/p".to_owned(), backend: "b:80".to_owned(), host: "api".to_owned() }
    }

    const PAGE: &str = r##"<!DOCTYPE html><!-- <a href="/no"> --><title><a href="/no"></title>
<A class=x HREF='/yes?a=1&amp;b=2' title="a > b" data-href="/no">t < 3</A><img src=/i.png/><p href="/no">
<script src="/s.js">if (a<b) "<a href='/no'>"</script><a href = "http://b:80/x" ><a href="http://c/x"><a href="#f">"##;
    const WANTED: &str = r##"<!DOCTYPE html><!-- <a href="/no"> --><title><a href="/no"></title>
<A class=x HREF='/p/yes?a=1&amp;b=2' title="a > b" data-href="/no">t < 3</A><img src=/p/i.png/><p href="/no">
<script src="/p/s.js">if (a<b) "<a href='/no'>"</script><a href = "/p/x" ><a href="http://c/x"><a href="#f">"##;

    #[test]
    fn links_in_attributes_are_rewritten_whatever_the_pieces() {
        for size in [1, 2, 3, 7, 50, PAGE.len()] {
            let mut rewriter = Rewriter::new(links());
            let mut out: Vec<u8> = PAGE.as_bytes().chunks(size).flat_map(|piece| rewriter.feed(piece)).collect();
            out.extend(rewriter.finish());
            assert_eq!(String::from_utf8(out).unwrap(), WANTED, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_markup_passes_as_it_is() {
        for text in [
            "",
            "<",
            "a <",
            "<a href=",
            "<!-",
            "<!-- never ends",
            "<script>x</scrip",
            "<a '>",
            "</",
            "< a >",
            "\u{fffd}<é>",
        ] {
            let mut rewriter = Rewriter::new(links());
            let mut out = rewriter.feed(text.as_bytes());
            out.extend(rewriter.finish());
            assert_eq!(out, text.as_bytes());
        }
        let mut rewriter = Rewriter::new(links());
        let endless = format!("<a x='{}", "y".repeat(2 * TAG_MAX));
        assert_eq!(rewriter.feed(endless.as_bytes()).len() + rewriter.finish().len(), endless.len());
    }

    #[test]
    fn packed_pages_are_unpacked_and_packed_again() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(PAGE.as_bytes()).unwrap();
        let packed = encoder.finish().unwrap();
        let mut page = Page { rewriter: Rewriter::new(links()), coding: Coding::named("gzip").unwrap() };
        let mut out = page.feed(&Bytes::copy_from_slice(&packed[..40])).unwrap();
        out.extend(page.feed(&Bytes::copy_from_slice(&packed[40..])).unwrap());
        out.extend(page.finish().unwrap());
        let mut text = String::new();
        flate2::read::GzDecoder::new(&out[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, WANTED);
        assert!(Coding::named("br").is_none());
    }
}
