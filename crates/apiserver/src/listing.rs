//! Lists as they go out: in pieces, so that a large one needs neither its own size in memory nor the time until all of it
//! is written before its first byte leaves.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use client::{Body, BodyError};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use object_model::ApiError;
use schema::protobuf;
use serde_json::{Value, json};
use store::Entry;

use crate::served::Served;
use crate::{respond, stored};

/// About how long a piece is. Larger ones leave the processor's caches between being written and being encrypted.
const PIECE: usize = 32 << 10;

/// The text of a list: what comes before the items, the items, and what comes after them.
struct Texts {
    head: Vec<u8>,
    /// What each item begins with.
    item: Vec<u8>,
    entries: std::vec::IntoIter<Arc<Entry>>,
    first: bool,
    /// How many bytes are still to come.
    left: usize,
}

const TAIL: &[u8] = b"]}\n";

impl http_body::Body for Texts {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let mut piece = std::mem::take(&mut this.head);
        // With room for the item that goes beyond.
        piece.reserve_exact(PIECE + PIECE / 8);
        while piece.len() < PIECE {
            let Some(entry) = this.entries.next() else {
                piece.extend_from_slice(TAIL);
                break;
            };
            if !std::mem::take(&mut this.first) {
                piece.push(b',');
            }
            stored::write_item(&mut piece, &this.item, &entry);
        }
        this.left -= piece.len().min(this.left);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

/// A list of stored texts, which are not touched.
pub fn texts(served: &Served, metadata: &Value, entries: Vec<Arc<Entry>>) -> Response<Body> {
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        served.list_kind(),
        served.api_version(),
    );
    let commas = entries.len().saturating_sub(1);
    let item = stored::item_head(served);
    let items: usize = entries.iter().map(|entry| stored::item_length(&item, entry)).sum();
    let left = head.len() + items + commas + TAIL.len();
    let body = Texts { head: head.into_bytes(), item, entries: entries.into_iter(), first: true, left };
    let mut response = respond::json_text(StatusCode::OK, Bytes::new());
    *response.body_mut() = body.boxed_unsync();
    response
}

/// A list in protobuf that grows one object at a time, so that no more than one of them is decoded.
pub struct Messages {
    ty: &'static schema::Type,
    pieces: Vec<Bytes>,
    piece: Vec<u8>,
}

impl Messages {
    /// A list without objects.
    ///
    /// # Errors
    /// 406 when lists of this kind have no protobuf form.
    pub fn new(served: &Served) -> Result<Self, ApiError> {
        let ty = schema::type_named(&format!("{}List", served.type_name())).ok_or_else(|| {
            let text = format!("{} has no protobuf form", served.list_kind());
            ApiError::new(object_model::Reason::NotAcceptable, text)
        })?;
        Ok(Self { ty, pieces: Vec::new(), piece: Vec::new() })
    }

    /// Adds an object.
    ///
    /// # Errors
    /// When it does not fit its type.
    pub fn push(&mut self, object: &Value) -> Result<(), ApiError> {
        protobuf::encode_item(self.ty, "items", object, &mut self.piece).map_err(|e| ApiError::internal(e.0))?;
        if self.piece.len() >= PIECE {
            self.pieces.push(Bytes::copy_from_slice(&self.piece));
            self.piece.clear();
        }
        Ok(())
    }

    /// The whole answer.
    ///
    /// # Errors
    /// When the metadata does not fit its type.
    pub fn finish(mut self, served: &Served, metadata: &Value) -> Result<Response<Body>, ApiError> {
        let list = json!({"metadata": metadata, "items": []});
        let head = protobuf::encode(self.ty, &list).map_err(|e| ApiError::internal(e.0))?;
        self.pieces.push(Bytes::from(self.piece));
        let raw = head.len() + self.pieces.iter().map(Bytes::len).sum::<usize>();
        let (before, after) = protobuf::envelope_around(&served.api_version(), served.list_kind(), raw);
        let mut pieces = self.pieces;
        pieces.insert(0, [before, head].concat().into());
        pieces.push(after.into());
        let left = pieces.iter().map(Bytes::len).sum();
        let body = Pieces { pieces: pieces.into_iter(), left };
        let mut response = respond::typed(StatusCode::OK, respond::PROTOBUF, Bytes::new());
        *response.body_mut() = body.boxed_unsync();
        Ok(response)
    }
}

/// Bytes that are there already.
struct Pieces {
    pieces: std::vec::IntoIter<Bytes>,
    left: usize,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let next = this.pieces.next();
        this.left -= next.as_ref().map_or(0, Bytes::len);
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
