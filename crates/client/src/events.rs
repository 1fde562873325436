//! Events: what a component did to an object, for people to read with `kubectl describe`.

use std::collections::HashMap;
use std::time::Duration;

use object_model::{Reason, meta, names, time};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{Api, Client, Patch, Resource, clock};

/// How many events may wait to be written; more are dropped, as they are best effort.
const QUEUE: usize = 4096;
/// Events alike within this time are counted in one object.
const SAME_WITHIN: Duration = Duration::from_secs(600);

const EVENTS: Resource = Resource { group: "", version: "v1", plural: "events" };

/// Whether an event tells of normal work or of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Normal work.
    Normal,
    /// Trouble.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

struct Note {
    involved: Value,
    kind: EventType,
    reason: String,
    message: String,
}

/// Records events of one component. Clones share the queue.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

impl Recorder {
    /// A recorder, and the task that writes what it is given until `cancel`, which the caller runs.
    pub fn new(
        client: &Client,
        component: &str,
        host: &str,
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, mut notes) = mpsc::channel(QUEUE);
        let mut writer = Writer {
            api: client.api(EVENTS),
            component: component.to_owned(),
            host: host.to_owned(),
            seen: HashMap::new(),
        };
        let run = async move {
            loop {
                let note = tokio::select! {
                    biased;
                    note = notes.recv() => note,
                    () = cancel.cancelled() => return,
                };
                let Some(note) = note else { return };
                writer.write(note).await;
            }
        };
        (Self { queue }, run)
    }

    /// Records that something happened to `object` (which needs apiVersion, kind and metadata), or to the part of it that
    /// `field_path` names.
    pub fn event(
        &self,
        object: &Value,
        field_path: Option<&str>,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut involved = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"], "name": meta::name(object),
            "uid": meta::uid(object), "resourceVersion": meta::resource_version(object),
        });
        if !meta::namespace(object).is_empty() {
            involved["namespace"] = meta::namespace(object).into();
        }
        if let Some(path) = field_path {
            involved["fieldPath"] = path.into();
        }
        let note = Note { involved, kind, reason: reason.to_owned(), message: message.into() };
        if self.queue.try_send(note).is_err() {
            tracing::debug!(reason, "drop event: too many are waiting to be written");
        }
    }
}

struct Writer {
    api: Api,
    component: String,
    host: String,
    /// The event object for each thing that happened before, its count, and when it was last written.
    seen: HashMap<String, (String, i64, jiff::Timestamp)>,
}

impl Writer {
    async fn write(&mut self, note: Note) {
        let now = clock::now();
        let stamp = time::seconds(now);
        let namespace = note.involved["namespace"].as_str().unwrap_or("default").to_owned();
        self.seen.retain(|_, (_, _, at)| now.as_second() - at.as_second() < SAME_WITHIN.as_secs() as i64);
        let (uid, path) = (&note.involved["uid"], &note.involved["fieldPath"]);
        let key = format!("{namespace}/{uid}/{path}/{}/{}/{}", note.kind.as_str(), note.reason, note.message);
        if let Some((name, count, at)) = self.seen.get_mut(&key) {
            let patch = json!({"count": *count + 1, "lastTimestamp": stamp});
            match self.api.patch(Some(&namespace), name, "", Patch::Merge, &patch).await {
                Ok(_) => {
                    *count += 1;
                    *at = now;
                    return;
                }
                Err(error) if error.reason == Reason::NotFound => {}
                Err(error) => {
                    tracing::debug!("count event: {error}");
                    return;
                }
            }
        }
        let involved = note.involved["name"].as_str().unwrap_or_default();
        // Upstream's names: the object's name and the time as hexadecimal nanoseconds.
        let name = format!("{}.{:x}", &involved[..involved.len().min(230)], now.as_nanosecond());
        debug_assert!(names::dns_subdomain(&name).is_empty());
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": note.involved, "type": note.kind.as_str(), "reason": note.reason, "message": note.message,
            "source": {"component": self.component, "host": self.host},
            "reportingComponent": self.component, "reportingInstance": self.host,
            "firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1,
        });
        match self.api.create(Some(&namespace), &event).await {
            Ok(_) => {
                self.seen.insert(key, (name, 1, now));
            }
            // An event in a namespace that is being deleted is refused, which is no trouble.
            Err(error) => tracing::debug!(reason = note.reason, "write event: {error}"),
        }
    }
}
