//! Objects as the store holds them: JSON text without `apiVersion`, `kind` and `resourceVersion`. Custom objects keep their
//! `apiVersion`, in which they lie side by side with objects of other versions.
//!
//! The text starts inside `metadata`, right after the place of the resourceVersion, so that a complete object is three
//! slices written one after the other and nothing is parsed or serialised to read it.

use std::cell::RefCell;
use std::io::Write as _;

use bytes::Bytes;
use object_model::ApiError;
use serde::Serialize;
use serde_json::Value;
use store::Entry;

use crate::served::Served;

/// The longest text whose buffer is kept for the next one.
const BUFFER_MAX: usize = 64 << 10;

thread_local! {
    /// Where texts are written before it is known how long they are.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The text to store for an object; with its `apiVersion`, where objects of several versions lie side by side. What is kept
/// has no room to grow.
pub fn encode(object: &Value, versioned: bool) -> Bytes {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        write_stored(buffer, object, versioned);
        let text = Bytes::copy_from_slice(buffer);
        if buffer.capacity() > BUFFER_MAX {
            *buffer = Vec::new();
        }
        text
    })
}

fn write_stored(text: &mut Vec<u8>, object: &Value, versioned: bool) {
    let mut first = true;
    let mut member = |text: &mut Vec<u8>, key: &str, value: &Value| {
        if !first {
            text.push(b',');
        }
        first = false;
        write(text, key);
        text.push(b':');
        write(text, value);
    };
    for (key, value) in object["metadata"].as_object().into_iter().flatten() {
        if key != "resourceVersion" {
            member(text, key, value);
        }
    }
    text.push(b'}');
    for (key, value) in object.as_object().into_iter().flatten() {
        let told = key == "kind" || (key == "apiVersion" && !versioned);
        if key != "metadata" && !told {
            member(text, key, value);
        }
    }
    text.push(b'}');
}

fn write(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(text, value).expect("JSON values with text keys always serialise");
}

/// What comes before and after the revision of any object.
const REVISION: &[u8] = b"\"metadata\":{\"resourceVersion\":\"";
const REVISION_END: &[u8] = b"\",";

/// What an item of a list begins with. Items of custom resources say what they are (their apiVersion stands further on);
/// those of built-in ones do not.
pub fn item_head(served: &Served) -> Vec<u8> {
    let mut head = b"{".to_vec();
    if served.is_custom() {
        write_kind(&mut head, served);
    }
    head.extend_from_slice(REVISION);
    head
}

/// Writes a stored object as an item of a list.
pub fn write_item(out: &mut Vec<u8>, head: &[u8], entry: &Entry) {
    out.extend_from_slice(head);
    write_body(out, entry, entry.mod_revision);
}

/// How many bytes [`write_item`] writes.
pub fn item_length(head: &[u8], entry: &Entry) -> usize {
    let digits = entry.mod_revision.checked_ilog10().unwrap_or(0) as usize + 1;
    head.len() + digits + REVISION_END.len() + entry.value.len()
}

/// Writes a stored object with apiVersion and kind, as of `revision`.
pub fn write_object(out: &mut Vec<u8>, served: &Served, entry: &Entry, revision: u64) {
    out.push(b'{');
    write_kind(out, served);
    if !served.is_custom() {
        out.extend_from_slice(b"\"apiVersion\":\"");
        out.extend_from_slice(served.api_version().as_bytes());
        out.extend_from_slice(b"\",");
    }
    out.extend_from_slice(REVISION);
    write_body(out, entry, revision);
}

fn write_kind(out: &mut Vec<u8>, served: &Served) {
    out.extend_from_slice(b"\"kind\":\"");
    out.extend_from_slice(served.kind().as_bytes());
    out.extend_from_slice(b"\",");
}

fn write_body(out: &mut Vec<u8>, entry: &Entry, revision: u64) {
    // Into a Vec this cannot fail.
    _ = write!(out, "{revision}");
    out.extend_from_slice(REVISION_END);
    out.extend_from_slice(&entry.value);
}

/// A stored object as a value, as of `revision`.
///
/// # Errors
/// 500 when the stored text is broken, naming the key.
pub fn decode_at(served: &Served, entry: &Entry, revision: u64) -> Result<Value, ApiError> {
    let mut text = Vec::with_capacity(entry.value.len() + 128);
    write_object(&mut text, served, entry, revision);
    let object: Value = serde_json::from_slice(&text)
        .map_err(|e| ApiError::internal(format!("read {} from the store: {e}", entry.key)))?;
    Ok(if served.converts() { served.hooks().served(object) } else { object })
}

/// A stored object as a value.
///
/// # Errors
/// As [`decode_at`].
pub fn decode(served: &Served, entry: &Entry) -> Result<Value, ApiError> {
    decode_at(served, entry, entry.mod_revision)
}

/// Whether two objects are the same but for the resourceVersion. Nothing is copied: every write asks this.
pub fn same(a: &Value, b: &Value) -> bool {
    fn members<'a>(value: &'a Value, except: &'static str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        value.as_object().into_iter().flatten().filter(move |(key, _)| *key != except)
    }
    members(a, "metadata").eq(members(b, "metadata"))
        && members(&a["metadata"], "resourceVersion").eq(members(&b["metadata"], "resourceVersion"))
}
