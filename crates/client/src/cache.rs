//! A cache of the objects of one resource, kept up to date by one list and one watch.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use object_model::{ApiError, Reason};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{Api, ListParams};

/// One object of a cache: its text as it came, and what it was decoded to.
#[derive(Debug)]
pub struct Cached<T> {
    /// The namespace, empty for cluster-scoped objects.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The uid.
    pub uid: String,
    /// The resourceVersion.
    pub resource_version: String,
    /// The object.
    pub object: T,
}

/// What a change handler is told: the object before and after. Both are given for a modification.
pub struct Change<'a, T> {
    /// Before.
    pub old: Option<&'a Arc<Cached<T>>>,
    /// After.
    pub new: Option<&'a Arc<Cached<T>>>,
}

type Handler<T> = Box<dyn Fn(Change<'_, T>) + Send + Sync>;
type Objects<T> = BTreeSet<Placed<T>>;

/// Where an object stands: what a cache is ordered by.
trait Place {
    /// Namespace and name.
    fn place(&self) -> (&str, &str);
}

impl Place for (&str, &str) {
    fn place(&self) -> (&str, &str) {
        *self
    }
}

impl<T> Place for Placed<T> {
    fn place(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.name)
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Place + '_ {}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// An object of a cache by its place. Keys of their own would hold all names twice: a large cache would be a third larger.
struct Placed<T>(Arc<Cached<T>>);

impl<'p, T: 'p> Borrow<dyn Place + 'p> for Placed<T> {
    fn borrow(&self) -> &(dyn Place + 'p) {
        self
    }
}

impl<T> PartialEq for Placed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl<T> Eq for Placed<T> {}

impl<T> PartialOrd for Placed<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Placed<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// The cache. Clones share it.
pub struct Cache<T> {
    inner: Arc<Inner<T>>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

/// How many removed objects are remembered.
const REMEMBERED: usize = 1024;

/// Uids of removed objects, oldest first, and the same as a set.
#[derive(Default)]
struct Gone {
    order: VecDeque<String>,
    uids: HashSet<String>,
}

impl Gone {
    fn add(&mut self, uid: &str) {
        if self.uids.insert(uid.to_owned()) {
            self.order.push_back(uid.to_owned());
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.uids.remove(&oldest);
        }
    }
}

struct Inner<T> {
    objects: RwLock<Objects<T>>,
    /// The objects that the watch has told the end of. A write's answer can come after that, and
    /// must not bring the object back: it would stay for ever.
    gone: Mutex<Gone>,
    handlers: Mutex<Vec<Handler<T>>>,
    synced: watch::Sender<bool>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        let inner = Inner {
            objects: RwLock::default(),
            gone: Mutex::default(),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<T> Cache<T> {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `handler` for every change from now on, in order. It must be quick: it holds up the cache.
    pub fn on_change(&self, handler: impl Fn(Change<'_, T>) + Send + Sync + 'static) {
        self.inner.handlers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(handler));
    }

    /// A cache of all objects of a resource, and the reflector that keeps it; every change is told to `changed`.
    pub fn following(
        api: Api,
        decode: fn(&[u8]) -> Result<T, serde_json::Error>,
        changed: &Arc<Notify>,
    ) -> (Self, Reflector<T>) {
        let (cache, changed) = (Self::new(), changed.clone());
        cache.on_change(move |_| changed.notify_one());
        let reflector = Reflector { api, params: ListParams::default(), decode, cache: cache.clone() };
        (cache, reflector)
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<Cached<T>>> {
        self.read().get(&(namespace, name) as &dyn Place).map(|placed| placed.0.clone())
    }

    /// All objects, in the order of namespace and name.
    pub fn all(&self) -> Vec<Arc<Cached<T>>> {
        self.read().iter().map(|placed| placed.0.clone()).collect()
    }

    /// The objects of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<Cached<T>>> {
        self.read()
            .range::<dyn Place, _>((Bound::Included(&(namespace, "") as &dyn Place), Bound::Unbounded))
            .take_while(|placed| placed.0.namespace == namespace)
            .map(|placed| placed.0.clone())
            .collect()
    }

    /// Waits until the first list is in.
    pub async fn synced(&self) {
        // The sender lives as long as the cache, so this ends only with the value.
        self.inner.synced.subscribe().wait_for(|s| *s).await.ok();
    }

    /// Whether the first list is in.
    pub fn is_synced(&self) -> bool {
        *self.inner.synced.borrow()
    }

    /// Whether the end of the object with this uid has been told, and not long ago.
    pub fn has_gone(&self, uid: &str) -> bool {
        self.gone().uids.contains(uid)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Objects<T>> {
        self.inner.objects.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Objects<T>> {
        self.inner.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, old: Option<&Arc<Cached<T>>>, new: Option<&Arc<Cached<T>>>) {
        for handler in self.inner.handlers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            handler(Change { old, new });
        }
    }

    /// Puts an object in, unless a newer one is there. Also of use after an own write, to read it back at once.
    pub fn put(&self, object: Cached<T>) {
        let object = Arc::new(object);
        let old = {
            let mut objects = self.write();
            if self.gone().uids.contains(&object.uid) {
                return;
            }
            let placed = Placed(object.clone());
            if let Some(Placed(old)) = objects.get(&placed)
                && old.uid == object.uid
                && revision(&old.resource_version) >= revision(&object.resource_version)
            {
                return;
            }
            objects.replace(placed).map(|placed| placed.0)
        };
        self.tell(old.as_ref(), Some(&object));
    }

    /// Takes an object out. Another one that has its name by now stays.
    fn remove(&self, namespace: &str, name: &str, uid: &str) {
        let place = &(namespace, name) as &dyn Place;
        let old = {
            let mut objects = self.write();
            self.gone().add(uid);
            let same = objects.get(place).is_some_and(|placed| placed.0.uid == uid);
            if same { objects.take(place).map(|placed| placed.0) } else { None }
        };
        if old.is_some() {
            self.tell(old.as_ref(), None);
        }
    }

    fn gone(&self) -> MutexGuard<'_, Gone> {
        self.inner.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a list as of a revision. What has been put in since stays.
    fn replace(&self, list: Vec<Cached<T>>, at: &str) {
        let listed: HashSet<String> = list.iter().map(|object| object.uid.clone()).collect();
        let is_gone = |o: &&Arc<Cached<T>>| !listed.contains(&o.uid) && revision(&o.resource_version) <= revision(at);
        let gone: Vec<Arc<Cached<T>>> = self.read().iter().map(|placed| &placed.0).filter(is_gone).cloned().collect();
        for object in gone {
            self.remove(&object.namespace, &object.name, &object.uid);
        }
        list.into_iter().for_each(|object| self.put(object));
        self.inner.synced.send_replace(true);
    }
}

/// resourceVersions are decimal numbers that may be compared (Kubernetes ≥ 1.35 says so).
fn revision(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// Keeps a cache up to date.
pub struct Reflector<T> {
    /// The resource.
    pub api: Api,
    /// Which of its objects.
    pub params: ListParams,
    /// How an object is decoded.
    pub decode: fn(&[u8]) -> Result<T, serde_json::Error>,
    /// Where the objects go.
    pub cache: Cache<T>,
}

impl<T> Reflector<T> {
    /// Lists and watches until cancelled. Failures are logged and tried again.
    pub async fn run(self, cancel: CancellationToken) {
        let mut pause = Duration::from_millis(50);
        loop {
            let outcome = tokio::select! {
                () = cancel.cancelled() => return,
                outcome = self.follow() => outcome,
            };
            match outcome {
                Ok(()) => pause = Duration::from_millis(50),
                Err(error) if error.reason == Reason::Expired => {}
                Err(error) => {
                    tracing::warn!(resource = self.api.resource().plural, "list and watch: {error}");
                    tokio::select! { () = cancel.cancelled() => return, () = tokio::time::sleep(pause) => {} }
                    pause = (pause * 2).min(Duration::from_secs(10));
                }
            }
        }
    }

    /// One list, and watches that go on where the last one ended.
    async fn follow(&self) -> Result<(), ApiError> {
        let list = self.api.list(None, &self.params).await?;
        let objects = list.items.iter().map(|item| self.decode(item.get().as_bytes())).collect::<Result<_, _>>()?;
        self.cache.replace(objects, &list.resource_version);
        let mut from = list.resource_version;
        loop {
            let mut watch = self.api.watch(None, &self.params, &from).await?;
            while let Some(event) = watch.next().await? {
                let text = event.object.as_ref();
                if event.kind == "BOOKMARK" {
                    from = head(text)?.metadata.resource_version;
                    continue;
                }
                let object = self.decode(text)?;
                from.clone_from(&object.resource_version);
                if event.kind == "DELETED" {
                    self.cache.remove(&object.namespace, &object.name, &object.uid);
                } else {
                    self.cache.put(object);
                }
            }
        }
    }

    fn decode(&self, text: &[u8]) -> Result<Cached<T>, ApiError> {
        let Metadata { namespace, name, uid, resource_version } = head(text)?.metadata;
        let object = (self.decode)(text).map_err(|e| {
            ApiError::internal(format!("decode {} {namespace}/{name}: {e}", self.api.resource().plural))
        })?;
        Ok(Cached { namespace, name, uid, resource_version, object })
    }
}

#[derive(Deserialize)]
struct Head {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Metadata {
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
}

fn head(text: &[u8]) -> Result<Head, ApiError> {
    serde_json::from_slice(text).map_err(|e| ApiError::internal(format!("read metadata: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, uid: &str, revision: &str) -> Cached<()> {
        Cached {
            namespace: "a".into(),
            name: name.into(),
            uid: uid.into(),
            resource_version: revision.into(),
            object: (),
        }
    }

    fn uids(cache: &Cache<()>) -> Vec<String> {
        cache.all().iter().map(|object| format!("{}@{}", object.uid, object.resource_version)).collect()
    }

    #[test]
    fn the_answer_to_a_write_does_not_bring_back_what_the_watch_has_seen_go() {
        let cache = Cache::new();
        cache.put(object("x", "1", "5"));
        cache.remove("a", "x", "1");
        assert!(cache.has_gone("1") && !cache.has_gone("2"));
        cache.put(object("x", "1", "6"));
        assert_eq!(uids(&cache), [""; 0]);
        // The next of that name is another object, and the late news of the first one's end is not about it.
        cache.put(object("x", "2", "8"));
        cache.remove("a", "x", "1");
        assert_eq!(uids(&cache), ["2@8"]);
    }

    #[test]
    fn a_list_takes_out_what_it_lacks_but_not_what_came_after_it() {
        let cache = Cache::new();
        cache.put(object("old", "1", "5"));
        cache.put(object("new", "2", "12"));
        cache.replace(vec![object("listed", "3", "9")], "10");
        assert_eq!(uids(&cache), ["3@9", "2@12"]);
        cache.put(object("old", "1", "11"));
        assert_eq!(uids(&cache), ["3@9", "2@12"]);
    }
}
