//! Watching objects: the changes of a collection as a stream, in the form and view the client wants.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::{Body, BodyError};
use futures::stream;
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use object_model::{ApiError, Reason, meta};
use serde_json::{Value, json};
use store::{Entry, Event, Store, StoreError, Watch};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::context::Context;
use crate::metrics::{EVENT_SIZES, OpenWatch, size_bucket};
use crate::read::{Selection, parse_revision};
use crate::request::{Format, ResourceRequest, View};
use crate::served::Served;
use crate::table::{self, Include};
use crate::write::store_failed;
use crate::{ApiServer, respond, stored};

/// How often a watch that allows bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after this, or up to twice as long (upstream's min-request-timeout).
const TIMEOUT_MIN: u64 = 1800;
/// How much is put into one frame when events come faster than the client reads.
const FRAME_TARGET: usize = 64 << 10;

/// One running watch.
struct Watching {
    served: Served,
    selection: Selection,
    format: Format,
    view: View,
    include: Include,
    store: Arc<dyn Store>,
    changes: Watch,
    columns_sent: bool,
    bookmarks: bool,
    bookmark_at: Instant,
    end_at: Instant,
    /// Goes off at the nearer of the two. One for the whole watch: making timers for each change would cost more than
    /// the change.
    alarm: Pin<Box<Sleep>>,
    revision: u64,
    /// What is left of the state at the start, which comes before the first change.
    state: std::vec::IntoIter<Arc<Entry>>,
    /// Whether a bookmark says where that state ends.
    ends_state: bool,
    /// Frames that are not sent yet.
    pending: Vec<u8>,
    over: bool,
    /// Counts it for as long as it goes on, and knows the server.
    open: Option<OpenWatch>,
    /// Events that are not counted yet: how many of each size, and how long they are together.
    sizes: [u32; EVENT_SIZES + 1],
    bytes: u64,
    began: Instant,
}

/// What a watcher sees.
#[derive(Clone, Copy)]
enum Seen<'a> {
    /// An object of the state at the start.
    State(&'a Entry),
    /// A change since then.
    Change(&'a Event),
}

impl<'a> Seen<'a> {
    /// What the object was and is, and the revision of that.
    fn parts(self) -> (Option<&'a Entry>, Option<&'a Entry>, u64) {
        match self {
            Self::State(entry) => (None, Some(entry), entry.mod_revision),
            Self::Change(event) => (event.previous.as_deref(), event.current.as_deref(), event.revision),
        }
    }
}

impl ApiServer {
    /// `GET …?watch=true`.
    pub(crate) async fn watch(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
    ) -> Result<Response<Body>, ApiError> {
        let selection = Selection::of(cx, served)?.named(&request.name);
        let (format, view) = cx.accept.for_watch(served.is_custom())?;
        let bookmarks = cx.query.flag("allowWatchBookmarks");
        let initial = match (cx.query.get("sendInitialEvents"), cx.query.get("resourceVersionMatch")) {
            ("", "") => None,
            ("", _) => {
                return Err(forbidden(
                    "resourceVersionMatch",
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                ));
            }
            (_, "NotOlderThan") => Some(cx.query.flag("sendInitialEvents")),
            (_, "") => {
                return Err(forbidden(
                    "resourceVersionMatch",
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                ));
            }
            (_, other) => {
                return Err(forbidden(
                    "resourceVersionMatch",
                    &format!("{other:?}: sendInitialEvents requires NotOlderThan"),
                ));
            }
        };
        let timeout = match cx.query.number("timeoutSeconds")? {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds.unsigned_abs()),
            _ => Duration::from_secs(TIMEOUT_MIN + rand::random_range(0..TIMEOUT_MIN)),
        };
        let asked = cx.query.get("resourceVersion");
        let from_state = initial.unwrap_or(asked.is_empty() || asked == "0");
        let prefix = served.namespace_prefix(&request.namespace);
        let from = if from_state { None } else { Some(parse_revision(asked)?) };
        self.await_revision(cx).await?;
        let state = match from {
            None => Some(self.store.range(&prefix, None, 0, None).map_err(|e| store_failed(&e))?),
            Some(_) => None,
        };
        let revision = from.or(state.as_ref().map(|s| s.revision)).unwrap_or_default();
        let (changes, refused) = match self.store.watch(&prefix, revision) {
            Ok(changes) => (changes, None),
            // Upstream answers 200 and then tells of the error, and clients look for it there.
            Err(StoreError::Compacted { asked, oldest }) => {
                let error = ApiError::new(Reason::Expired, format!("too old resource version: {asked} ({oldest})"));
                (self.store.watch(&prefix, self.store.revision()).map_err(|e| store_failed(&e))?, Some(error))
            }
            Err(error) => return Err(store_failed(&error)),
        };
        let (bookmark_at, end_at) = (Instant::now() + BOOKMARK_EVERY, Instant::now() + timeout);
        let mut watching = Watching {
            open: self.open_watch(served),
            sizes: [0; EVENT_SIZES + 1],
            bytes: 0,
            began: Instant::now(),
            served: served.clone(),
            selection,
            format,
            view,
            include: Include::of(cx)?,
            store: self.store.clone(),
            changes,
            columns_sent: false,
            bookmarks,
            bookmark_at,
            end_at,
            alarm: Box::pin(sleep_until(if bookmarks { bookmark_at.min(end_at) } else { end_at })),
            revision,
            ends_state: state.is_some() && initial == Some(true) && bookmarks,
            state: state.map_or_else(Vec::new, |state| state.entries).into_iter(),
            pending: Vec::new(),
            over: false,
        };
        if let Some(error) = refused {
            watching.push_error(&error)?;
            watching.over = true;
        }
        let frames = stream::unfold(watching, |mut watching| async move {
            let bytes = watching.next().await?;
            Some((Ok::<_, BodyError>(Frame::data(bytes)), watching))
        });
        let mut response = respond::typed(StatusCode::OK, content_type(format), Bytes::new());
        *response.body_mut() = StreamBody::new(frames).boxed_unsync();
        Ok(response)
    }
}

fn content_type(format: Format) -> &'static str {
    match format {
        Format::Json | Format::Yaml => "application/json",
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
    }
}

pub(crate) fn forbidden(field: &str, text: &str) -> ApiError {
    let path = object_model::FieldPath::new(field);
    ApiError::invalid("meta.k8s.io", "ListOptions", "", &[object_model::FieldError::forbidden(&path, text)])
}

impl Watching {
    /// The next bytes to send; `None` ends the response.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                if let Some(open) = self.open.as_ref().filter(|_| self.bytes > 0) {
                    open.count_events(&std::mem::take(&mut self.sizes), std::mem::take(&mut self.bytes));
                }
                return Some(std::mem::take(&mut self.pending).into());
            }
            if self.over {
                return None;
            }
            let begun = self.begin().await;
            let outcome = if begun.is_err() || !self.pending.is_empty() { begun } else { self.follow().await };
            if let Err(error) = outcome {
                tracing::error!(resource = self.served.plural(), "watch: {error}");
                self.over = true;
                if let Err(error) = self.push_error(&error) {
                    tracing::error!(resource = self.served.plural(), "tell a watcher of an error: {error}");
                }
            }
        }
    }

    /// Encodes the next part of the state at the start.
    async fn begin(&mut self) -> Result<(), ApiError> {
        while self.pending.len() < FRAME_TARGET {
            match self.state.next() {
                Some(entry) => self.show(Seen::State(&entry)).await?,
                None if std::mem::take(&mut self.ends_state) => {
                    if let Some(open) = &self.open {
                        open.count_state(self.began.elapsed());
                    }
                    self.push_bookmark(true)?;
                }
                None => break,
            }
        }
        Ok(())
    }

    /// Waits for what is next: changes, a bookmark or the end.
    async fn follow(&mut self) -> Result<(), ApiError> {
        tokio::select! {
            event = self.changes.next() => match event {
                Some(event) => self.drain(&event).await,
                None => {
                    self.over = true;
                    Ok(())
                }
            },
            () = self.alarm.as_mut() => {
                let now = Instant::now();
                self.over = now >= self.end_at;
                self.bookmark_at = now + BOOKMARK_EVERY;
                self.alarm.as_mut().reset(self.bookmark_at.min(self.end_at));
                if self.bookmarks { self.catch_up().await } else { Ok(()) }
            }
        }
    }

    /// Encodes this event and those that wait behind it.
    async fn drain(&mut self, event: &Event) -> Result<(), ApiError> {
        self.change(event).await?;
        while self.pending.len() < FRAME_TARGET {
            match self.changes.try_next() {
                Some(event) => self.change(&event).await?,
                None => break,
            }
        }
        Ok(())
    }

    /// Sends what waits, then a bookmark of the newest revision: where nothing of this collection changes, a client's
    /// revision would else grow too old to go on from.
    async fn catch_up(&mut self) -> Result<(), ApiError> {
        let newest = self.store.revision();
        while let Some(event) = self.changes.try_next() {
            self.change(&event).await?;
        }
        // A queue that has ended may have let go of events before this revision.
        if !self.changes.is_ended() {
            self.revision = self.revision.max(newest);
        }
        self.push_bookmark(false)
    }

    async fn change(&mut self, event: &Event) -> Result<(), ApiError> {
        self.revision = event.revision;
        self.show(Seen::Change(event)).await
    }

    /// Encodes what is seen, and counts it.
    async fn show(&mut self, seen: Seen<'_>) -> Result<(), ApiError> {
        let before = self.pending.len();
        let shown = self.encode(seen).await;
        if self.pending.len() > before && self.open.is_some() {
            let size = self.pending.len() - before;
            self.sizes[size_bucket(size)] += 1;
            self.bytes += size as u64;
        }
        shown
    }

    /// Encodes what an object has become; where nothing has to be known of it, its text is not touched.
    async fn encode(&mut self, seen: Seen<'_>) -> Result<(), ApiError> {
        let (previous, current, revision) = seen.parts();
        if self.selection.is_everything()
            && (self.format, self.view) == (Format::Json, View::Object)
            && current.or(previous).is_some_and(|entry| self.served.is_plain(entry.mod_revision))
        {
            let (kind, entry) = match (previous, current) {
                (None, Some(entry)) => ("ADDED", entry),
                (Some(_), Some(entry)) => ("MODIFIED", entry),
                (Some(entry), None) => ("DELETED", entry),
                (None, None) => return Ok(()),
            };
            self.pending.reserve(entry.value.len() + 192);
            self.pending.extend_from_slice(b"{\"type\":\"");
            self.pending.extend_from_slice(kind.as_bytes());
            self.pending.extend_from_slice(b"\",\"object\":");
            stored::write_object(&mut self.pending, &self.served, entry, revision);
            self.pending.extend_from_slice(b"}\n");
            return Ok(());
        }
        // The state at the start is this watcher's alone, and so are the columns of a table.
        if let (Seen::Change(event), Some(open)) = (seen, &self.open)
            && !self.served.by_webhook()
            && !matches!(self.view, View::Table(_))
        {
            let shown = open.server().recent.of(&self.served, event);
            let objects = shown.objects(event)?;
            let Some((kind, object)) = self.verdict(objects.old.as_ref(), objects.new.as_ref()) else { return Ok(()) };
            let frame = shown.frame((kind, self.format, self.view), || self.object_frame(kind, object))?;
            self.pending.extend_from_slice(&frame);
            return Ok(());
        }
        let decode = |entry: Option<&Entry>| entry.map(|e| stored::decode_at(&self.served, e, revision)).transpose();
        let (mut old, mut new) = (decode(previous)?, decode(current)?);
        if self.served.by_webhook()
            && let Some(open) = &self.open
        {
            for object in [&mut old, &mut new].into_iter().flatten() {
                *object = open.server().shown_one(&self.served, std::mem::take(object)).await?;
            }
        }
        match self.verdict(old.as_ref(), new.as_ref()) {
            Some((kind, object)) => self.push(kind, object),
            None => Ok(()),
        }
    }

    /// What a change is to this watcher: the kind of its event, and the object that it shows.
    fn verdict<'o>(&self, old: Option<&'o Value>, new: Option<&'o Value>) -> Option<(&'static str, &'o Value)> {
        let (was, is) = (old.filter(|o| self.selection.matches(o)), new.filter(|o| self.selection.matches(o)));
        match (was, is) {
            (None, Some(new)) => Some(("ADDED", new)),
            (Some(_), Some(new)) => Some(("MODIFIED", new)),
            // An object that no longer matches is gone for this watcher; upstream shows its last matching state.
            (Some(old), None) => Some(("DELETED", old)),
            (None, None) => None,
        }
    }

    fn push(&mut self, kind: &str, object: &Value) -> Result<(), ApiError> {
        let frame = match self.view {
            View::Table(version) => {
                let mut table = json!({
                    "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": {"resourceVersion": meta::resource_version(object)},
                    "columnDefinitions": null,
                    "rows": table::rows(&self.served, version, std::slice::from_ref(object), self.include),
                });
                // Only the first event tells of the columns.
                table["columnDefinitions"] =
                    if self.columns_sent { Value::Null } else { table::columns(&self.served).into() };
                self.columns_sent = true;
                frame(self.format, kind, "", &table)?
            }
            _ => self.object_frame(kind, object)?,
        };
        self.pending.extend_from_slice(&frame);
        Ok(())
    }

    /// An event with an object, or with its metadata alone.
    fn object_frame(&self, kind: &str, object: &Value) -> Result<Bytes, ApiError> {
        match self.view {
            View::Metadata(version) => {
                frame(self.format, kind, "meta.v1.PartialObjectMetadata", &respond::partial(object, version))
            }
            _ => frame(self.format, kind, self.served.type_name(), object),
        }
    }

    fn push_bookmark(&mut self, initial_end: bool) -> Result<(), ApiError> {
        let mut object = json!({
            "kind": self.served.kind(), "apiVersion": self.served.api_version(),
            "metadata": {"resourceVersion": self.revision.to_string()},
        });
        if initial_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (object, type_name) = match self.view {
            View::Metadata(version) => (respond::partial(&object, version), "meta.v1.PartialObjectMetadata"),
            View::Table(version) => {
                let row = json!({"cells": [], "object": respond::partial(&object, version)});
                let table = json!({
                    "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": {"resourceVersion": self.revision.to_string()}, "columnDefinitions": null, "rows": [row],
                });
                (table, "")
            }
            _ => (object, self.served.type_name()),
        };
        self.pending.extend_from_slice(&frame(self.format, "BOOKMARK", type_name, &object)?);
        Ok(())
    }

    fn push_error(&mut self, error: &ApiError) -> Result<(), ApiError> {
        self.pending.extend_from_slice(&frame(self.format, "ERROR", "meta.v1.Status", &error.to_status())?);
        Ok(())
    }
}

/// One event as it is sent.
fn frame(format: Format, kind: &str, type_name: &str, object: &Value) -> Result<Bytes, ApiError> {
    match format {
        Format::Json | Format::Yaml => Ok(format!("{}\n", json!({"type": kind, "object": object})).into()),
        Format::Protobuf => {
            // The event itself has no envelope; the object inside it has (upstream's streaming serializer).
            let event = watch_event(kind, &respond::protobuf_object(type_name, object)?);
            let length =
                u32::try_from(event.len()).map_err(|_| ApiError::internal("a watch event is longer than 4 GiB"))?;
            Ok([&length.to_be_bytes()[..], &event].concat().into())
        }
    }
}

/// `meta.v1.WatchEvent { type = 1, object = 2 RawExtension { raw = 1 } }`.
fn watch_event(kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut extension = Vec::with_capacity(raw.len() + 8);
    field(&mut extension, 1, raw);
    let mut event = Vec::with_capacity(extension.len() + 24);
    field(&mut event, 1, kind.as_bytes());
    field(&mut event, 2, &extension);
    event
}

/// A length-delimited protobuf field.
fn field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push((length as u8 & 0x7f) | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
}
