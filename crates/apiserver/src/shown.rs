//! What recent changes look like to those who watch: each is decoded once, and encoded once in each form, however many
//! watch.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use object_model::ApiError;
use serde_json::Value;
use store::{Entry, Event};

use crate::request::{Format, View};
use crate::served::Served;
use crate::stored;

/// How many changes are kept, and how many bytes of stored text there are in them at most. Watchers follow closely: who
/// comes later decodes for itself.
const CHANGES: usize = 32;
const BYTES: usize = 1 << 20;

/// The last changes that somebody looked into.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    changes: VecDeque<Arc<Shown>>,
    bytes: usize,
}

/// One change, as a resource shows it.
pub(crate) struct Shown {
    revision: u64,
    served: Served,
    bytes: usize,
    objects: OnceLock<Result<Objects, ApiError>>,
    frames: Mutex<Vec<(Form, Bytes)>>,
}

/// The object before and after a change.
pub(crate) struct Objects {
    /// Before.
    pub old: Option<Value>,
    /// After.
    pub new: Option<Value>,
}

/// The form of an event: its kind, and that of its object.
type Form = (&'static str, Format, View);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept is only ever added or dropped as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recent {
    /// A change as `served` shows it.
    pub fn of(&self, served: &Served, event: &Event) -> Arc<Shown> {
        let mut kept = lock(&self.0);
        let known = kept.changes.iter().rev().find(|one| one.revision == event.revision && one.served.is_same(served));
        if let Some(known) = known {
            return known.clone();
        }
        let length = |entry: &Option<Arc<Entry>>| entry.as_ref().map_or(0, |entry| entry.value.len());
        let shown = Arc::new(Shown {
            revision: event.revision,
            served: served.clone(),
            bytes: length(&event.previous) + length(&event.current),
            objects: OnceLock::new(),
            frames: Mutex::default(),
        });
        kept.bytes += shown.bytes;
        kept.changes.push_back(shown.clone());
        while kept.changes.len() > CHANGES || kept.bytes > BYTES {
            let Some(oldest) = kept.changes.pop_front() else { break };
            kept.bytes -= oldest.bytes;
        }
        shown
    }
}

impl Shown {
    /// The object before and after.
    ///
    /// # Errors
    /// When what is stored is broken.
    pub fn objects(&self, event: &Event) -> Result<&Objects, ApiError> {
        let decode = || {
            let decode = |entry: &Option<Arc<Entry>>| {
                entry.as_deref().map(|entry| stored::decode_at(&self.served, entry, event.revision)).transpose()
            };
            Ok(Objects { old: decode(&event.previous)?, new: decode(&event.current)? })
        };
        self.objects.get_or_init(decode).as_ref().map_err(ApiError::clone)
    }

    /// The event in a form, which `encode` makes for the first who asks.
    ///
    /// # Errors
    /// What `encode` says.
    pub fn frame(&self, form: Form, encode: impl FnOnce() -> Result<Bytes, ApiError>) -> Result<Bytes, ApiError> {
        let mut frames = lock(&self.frames);
        if let Some((_, frame)) = frames.iter().find(|(known, _)| *known == form) {
            return Ok(frame.clone());
        }
        let frame = encode()?;
        frames.push((form, frame.clone()));
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn event(revision: u64, length: usize) -> Event {
        let text = format!("\"name\":\"n\"}},\"data\":{{\"k\":\"{}\"}}}}", "x".repeat(length));
        let entry = Entry { key: "k".into(), value: text.into(), create_revision: revision, mod_revision: revision };
        Event { revision, key: entry.key.clone(), previous: None, current: Some(Arc::new(entry)) }
    }

    #[test]
    fn a_change_is_decoded_and_encoded_once_for_all_who_see_it_alike() {
        let maps = Served::find("", "v1", "configmaps").expect("served");
        let secrets = Served::find("", "v1", "secrets").expect("served");
        let (recent, change) = (Recent::default(), event(7, 1));
        let shown = recent.of(&maps, &change);
        assert!(Arc::ptr_eq(&shown, &recent.of(&maps, &change)) && !Arc::ptr_eq(&shown, &recent.of(&secrets, &change)));
        let new = shown.objects(&change).expect("decoded").new.as_ref().expect("there");
        assert_eq!((&new["data"]["k"], &new["metadata"]["resourceVersion"]), (&"x".into(), &"7".into()));
        let made = Cell::new(0);
        for (form, times) in [(Format::Json, 1), (Format::Json, 1), (Format::Protobuf, 2)] {
            let encode = || {
                made.set(made.get() + 1);
                Ok(Bytes::from(format!("{form:?}")))
            };
            let frame = shown.frame(("ADDED", form, View::Object), encode).expect("encoded");
            assert_eq!((frame, made.get()), (Bytes::from(format!("{form:?}")), times));
        }
    }

    #[test]
    fn only_so_much_is_kept() {
        let maps = Served::find("", "v1", "configmaps").expect("served");
        let recent = Recent::default();
        for revision in 0..100 {
            recent.of(&maps, &event(revision, 10));
        }
        assert_eq!(lock(&recent.0).changes.len(), CHANGES);
        let large = recent.of(&maps, &event(100, BYTES));
        assert!(lock(&recent.0).changes.is_empty() && lock(&recent.0).bytes == 0);
        assert!(large.objects(&event(100, BYTES)).is_ok(), "it is shown nevertheless");
    }
}
