//! What an answer gets on its way out: indentation for people, compression of what is long.

use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use bytes::Bytes;
use client::{Body, BodyError};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::request::Query;

/// Answers longer than this are compressed for clients that take it (upstream's number).
const COMPRESS_FROM: u64 = 128 << 10;

/// A mark of answers that somebody else made, and that go out as they came.
#[derive(Debug, Clone, Copy)]
pub struct Foreign;

/// What a client said of the form of the answer, beside its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    pretty: bool,
    gzip: bool,
}

impl Wishes {
    /// Reads them from a request: `pretty` in the query or the accepted type, or a client that people type.
    pub fn of(query: &Query, headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let asked =
            text(header::ACCEPT).split([',', ';']).any(|part| matches!(part.trim(), "pretty=1" | "pretty=true"));
        let typed = ["curl/", "Wget/", "Mozilla/"].iter().any(|agent| text(header::USER_AGENT).starts_with(agent));
        let pretty = match query.get("pretty") {
            "" => asked || (typed && !query.has("pretty")),
            value => matches!(value, "1" | "t" | "T" | "true" | "True" | "TRUE"),
        };
        Self { pretty, gzip: takes_gzip(headers) }
    }

    /// The answer as the client wishes it. What streams goes out as it is.
    pub async fn fulfil(self, mut response: Response<Body>) -> Response<Body> {
        if response.extensions().get::<Foreign>().is_some() {
            return response;
        }
        let whole = response.body().size_hint().exact();
        let plain = !response.headers().contains_key(header::CONTENT_ENCODING);
        let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
            value.as_bytes().starts_with(b"application/json") && plain && whole.is_some_and(|length| length > 0)
        });
        if self.pretty && is_json {
            response = pretty(response).await;
        }
        let length = response.body().size_hint().exact().unwrap_or(0);
        if self.gzip && length > COMPRESS_FROM && !response.headers().contains_key(header::CONTENT_ENCODING) {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            response.headers_mut().remove(header::CONTENT_LENGTH);
            let encoder = Some(GzEncoder::new(Vec::new(), Compression::fast()));
            response = response.map(|inner| Gzip { inner, encoder }.boxed_unsync());
        }
        response
    }
}

/// Whether a client takes compressed answers (RFC 9110, Accept-Encoding).
pub fn takes_gzip(headers: &HeaderMap) -> bool {
    let text = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').any(|one| {
        let (name, quality) = one.trim().split_once(";q=").unwrap_or((one.trim(), "1"));
        name == "gzip" && quality.parse::<f32>().is_ok_and(|quality| quality > 0.0)
    })
}

async fn pretty(response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let bytes = match body.collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) => {
            tracing::warn!("read an answer to indent it: {error}");
            return crate::respond::error(&object_model::ApiError::internal(error), None);
        }
    };
    let text = serde_json::from_slice::<Value>(&bytes).and_then(|value| serde_json::to_string_pretty(&value));
    let bytes = text.map_or(bytes, |text| (text + "\n").into());
    Response::from_parts(parts, client::full(bytes))
}

/// A body that is compressed piece by piece (RFC 1952).
struct Gzip {
    inner: Body,
    /// `None` when the end has been written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl http_body::Body for Gzip {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        while let Some(encoder) = this.encoder.as_mut() {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if let Err(error) = encoder.write_all(&data) {
                        return Poll::Ready(Some(Err(BodyError::new(error))));
                    }
                    let out = std::mem::take(encoder.get_mut());
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(out.into()))));
                    }
                }
                Poll::Ready(None) => {
                    let end = this.encoder.take().map(GzEncoder::finish);
                    return Poll::Ready(end.map(|end| end.map(|out| Frame::data(out.into())).map_err(BodyError::new)));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn wishes(uri: &str, pairs: &[(&'static str, &'static str)]) -> Wishes {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        Wishes::of(&Query::of(&uri.parse().expect("a uri")), &headers)
    }

    #[test]
    fn people_get_indentation_and_programs_do_not() {
        assert!(wishes("/?pretty=true", &[]).pretty);
        assert!(wishes("/", &[("user-agent", "curl/8")]).pretty);
        assert!(!wishes("/?pretty=0", &[("user-agent", "curl/8")]).pretty);
        assert!(wishes("/", &[("accept", "application/json;pretty=1")]).pretty);
        assert!(!wishes("/", &[("user-agent", "kubectl/v1")]).pretty);
        assert!(wishes("/", &[("accept-encoding", "deflate, gzip;q=0.5")]).gzip);
        assert!(!wishes("/", &[("accept-encoding", "gzip;q=0")]).gzip);
    }

    #[tokio::test]
    async fn long_answers_are_compressed_and_read_back() {
        let text = "0123456789".repeat(20_000);
        let wishes = Wishes { pretty: false, gzip: true };
        let answer = wishes.fulfil(Response::new(client::full(text.clone()))).await;
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        let mut back = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut back).expect("gzip");
        assert!(bytes.len() < 20_000 && back == text);
        let short = wishes.fulfil(Response::new(client::full("short"))).await;
        assert!(!short.headers().contains_key(header::CONTENT_ENCODING));
    }
}
