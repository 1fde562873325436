//! The runner: caches what controllers read, wakes them, and carries out what they plan.

use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::metrics::Queues;
use client::{Cache, Cached, Client, ListParams, Recorder, Reflector, Resource, WorkQueue, clock};
use futures::FutureExt;
use futures::stream::{self, StreamExt};
use kinds::Scope;
use object_model::{ApiError, Reason, meta};
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aggregated::{self, Findings};
use crate::authority::Authority;
use crate::custom::{CustomResources, DEFINITIONS, Follower, decode_definition};
use crate::garbage_collector::{self, GarbageCollector};
use crate::{Action, CONTROLLERS, Controller, Key, NAMESPACES, Note, Object, Objects, Swept, Writes, some};

/// How many subjects a controller works on at a time (upstream's default).
const WORKERS: usize = 5;
/// How many writes of one plan are under way at a time.
const WRITES_AT_ONCE: usize = 16;

/// Every resource that is stored under its own name, from the table of kinds.
pub(crate) static STORED: LazyLock<Vec<Resource>> = LazyLock::new(|| stored(|_| true));
/// Those of them whose objects live in namespaces.
pub(crate) static NAMESPACED: LazyLock<Vec<Resource>> = LazyLock::new(|| stored(|r| r.scope == Scope::Namespaced));

fn stored(wanted: impl Fn(&kinds::Resource) -> bool) -> Vec<Resource> {
    let mut seen = Vec::new();
    let mut resources = Vec::new();
    for row in kinds::RESOURCES.iter().filter(|r| r.is_stored() && wanted(r)) {
        // Two kinds that are views of one collection are one here.
        if !seen.contains(&row.storage) {
            seen.push(row.storage);
            resources.push(Resource { group: row.group, version: row.version, plural: row.plural });
        }
    }
    resources
}

/// The caches of all resources.
#[derive(Default)]
pub(crate) struct Caches {
    by_resource: HashMap<Resource, Cache<Value>>,
    pub custom: CustomResources,
    findings: Findings,
    root_ca: String,
}

impl Caches {
    pub fn cache(&self, resource: Resource) -> Option<Cache<Value>> {
        self.by_resource.get(&resource).cloned().or_else(|| self.custom.cache(resource))
    }

    /// The caches of the built-in resources.
    pub fn each(&self) -> impl Iterator<Item = (Resource, &Cache<Value>)> {
        self.by_resource.iter().map(|(r, c)| (*r, c))
    }

    /// Takes what a write returned, so that the next plan sees it before the watch tells of it.
    pub fn learn(&self, resource: Resource, object: Value) {
        if meta::resource_version(&object).is_empty() || meta::uid(&object).is_empty() {
            return;
        }
        if let Some(cache) = self.cache(resource) {
            cache.put(Cached {
                namespace: meta::namespace(&object).to_owned(),
                name: meta::name(&object).to_owned(),
                uid: meta::uid(&object).to_owned(),
                resource_version: meta::resource_version(&object).to_owned(),
                object,
            });
        }
    }
}

impl Objects for Caches {
    fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Object> {
        self.cache(resource)?.get(namespace, name)
    }

    fn list(&self, resource: Resource, namespace: &str) -> Vec<Object> {
        let Some(cache) = self.cache(resource) else { return Vec::new() };
        if namespace.is_empty() { cache.all() } else { cache.in_namespace(namespace) }
    }

    fn custom(&self) -> Vec<(Resource, bool)> {
        self.custom.namespaced()
    }

    fn swept(&self, namespace_uid: &str, version: &str) -> Option<Swept> {
        self.findings.get(namespace_uid, version)
    }

    fn root_ca(&self) -> &str {
        &self.root_ca
    }
}

/// All controllers of the table, and the garbage collector.
pub struct Manager {
    reader: Client,
    writers: Box<dyn Fn(&str) -> Client + Send + Sync>,
    root_ca: String,
    authority: Option<Arc<Authority>>,
    queues: Arc<Queues>,
}

impl Manager {
    /// Controllers that see through `reader`, and write each with the client that `writers` gives it by its name: with the
    /// rights of that controller alone. `root_ca` is the certificate of the cluster's authority, in PEM.
    pub fn new(reader: Client, writers: impl Fn(&str) -> Client + Send + Sync + 'static, root_ca: String) -> Self {
        Self { reader, writers: Box::new(writers), root_ca, authority: None, queues: Arc::default() }
    }

    /// Signs certificates in the name of this authority.
    #[must_use]
    pub fn signing_as(mut self, authority: Authority) -> Self {
        self.authority = Some(Arc::new(authority));
        self
    }

    /// Has its work queues among these.
    #[must_use]
    pub fn measured_with(mut self, queues: Arc<Queues>) -> Self {
        self.queues = queues;
        self
    }

    /// Runs until cancelled, and ends when everything it started has ended.
    pub async fn run(self, cancel: CancellationToken) {
        let tasks = TaskTracker::new();
        let by_resource = STORED.iter().map(|r| (*r, Cache::new())).collect();
        let (custom, findings) = (CustomResources::default(), Findings::default());
        let caches = Arc::new(Caches { by_resource, custom, findings, root_ca: self.root_ca });
        if let Some(namespaces) = caches.cache(NAMESPACES) {
            let caches = Arc::downgrade(&caches);
            namespaces.on_change(move |change| {
                if let (Some(caches), Some(old), None) = (caches.upgrade(), change.old, change.new) {
                    caches.findings.forget(&old.uid);
                }
            });
        }
        let mut queues = Vec::new();
        for controller in CONTROLLERS {
            let queue = self.queues.named(controller.name);
            wake(controller, &caches, &queue);
            queues.push((*controller, queue));
        }
        let collector = GarbageCollector::new((self.writers)(garbage_collector::NAME), caches.clone(), &self.queues);
        let follower = Follower::new(&self.reader, &caches, &collector, &tasks, &cancel);
        for (resource, cache) in caches.each() {
            let reflector = Reflector {
                api: self.reader.api(resource),
                params: ListParams::default(),
                decode: decoding(resource),
                cache: cache.clone(),
            };
            tasks.spawn(reflector.run(cancel.clone()));
        }
        for (_, cache) in caches.each() {
            tokio::select! { () = cancel.cancelled() => break, () = cache.synced() => {} }
        }
        // No plan is made before it is known which resources there are.
        follower.renew();
        tasks.spawn(follower.run());
        for (controller, queue) in &queues {
            let client = (self.writers)(controller.name);
            let (recorder, record) = Recorder::new(&client, controller.name, "", cancel.clone());
            tasks.spawn(record);
            let refusals = Refusals::default();
            for _ in 0..WORKERS {
                let worker = Worker {
                    controller,
                    client: client.clone(),
                    caches: caches.clone(),
                    queue: queue.clone(),
                    recorder: recorder.clone(),
                    authority: self.authority.clone(),
                    refusals: refusals.clone(),
                };
                tasks.spawn(worker.run());
            }
        }
        tasks.spawn(collector.clone().run());
        cancel.cancelled().await;
        queues.iter().for_each(|(_, queue)| queue.close());
        collector.stop();
        tasks.close();
        tasks.wait().await;
    }
}

/// Resources of which no plan sees more than the metadata, though it reads them.
const METADATA_ONLY: [Resource; 3] =
    [crate::root_ca::CONFIG_MAPS, crate::service_account::SERVICE_ACCOUNTS, crate::resource_quota::SECRETS];

/// Whether any controller looks at more of these objects than their metadata.
fn is_looked_into(resource: Resource) -> bool {
    !METADATA_ONLY.contains(&resource)
        && CONTROLLERS.iter().any(|c| c.subject == resource || c.reads.iter().any(|r| r.resource == resource))
}

/// How the objects of a built-in resource are decoded.
fn decoding(resource: Resource) -> fn(&[u8]) -> Result<Value, serde_json::Error> {
    match resource {
        DEFINITIONS => decode_definition,
        looked_into if is_looked_into(looked_into) => decode_whole,
        _ => decode_metadata,
    }
}

fn decode_whole(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text)
}

/// Keeps the metadata alone: thousands of Events, and what Secrets hold, have no business in this cache. Of an object that
/// has no owner and nothing to wait for not even that is kept: most are so, and the cache has their names and uids anyway.
pub(crate) fn decode_metadata(text: &[u8]) -> Result<Value, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Head {
        metadata: Ties,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Ties {
        owner_references: Option<IgnoredAny>,
        finalizers: Option<IgnoredAny>,
        deletion_timestamp: Option<IgnoredAny>,
    }
    #[derive(serde::Deserialize)]
    struct Metadata {
        metadata: Value,
    }
    let Head { metadata: ties } = serde_json::from_slice(text)?;
    if ties.owner_references.or(ties.finalizers).or(ties.deletion_timestamp).is_none() {
        return Ok(Value::Null);
    }
    let Metadata { metadata } = serde_json::from_slice(text)?;
    Ok(serde_json::json!({"metadata": metadata}))
}

/// What a change is judged by: the object, or the names of one of which nothing else is kept.
fn judged(object: &Cached<Value>) -> Cow<'_, Value> {
    if object.object.is_null() {
        let Cached { namespace, name, .. } = object;
        return Cow::Owned(serde_json::json!({"metadata": {"namespace": namespace, "name": name}}));
    }
    Cow::Borrowed(&object.object)
}

/// Makes changes of what a controller sees wake its subjects.
fn wake(controller: &'static Controller, caches: &Arc<Caches>, queue: &WorkQueue<Key>) {
    if let Some(cache) = caches.cache(controller.subject) {
        let queue = queue.clone();
        cache.on_change(move |change| {
            if let Some(object) = change.new.or(change.old) {
                queue.add((object.namespace.clone(), object.name.clone()));
            }
        });
    }
    for read in controller.reads {
        let Some(cache) = caches.cache(read.resource) else { continue };
        // The handlers live in the caches, so they may not keep them alive.
        let (queue, caches): (_, Weak<Caches>) = (queue.clone(), Arc::downgrade(caches));
        cache.on_change(move |change| {
            let Some(caches) = caches.upgrade() else { return };
            for object in [change.old, change.new].into_iter().flatten() {
                (read.wakes)(&judged(object), &*caches).into_iter().for_each(|key| queue.add(key));
            }
        });
    }
}

/// What a plan sees: the caches, and what came of the last plan for the same subject.
struct View<'a> {
    caches: &'a Caches,
    refused: Option<String>,
}

impl Objects for View<'_> {
    fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Object> {
        self.caches.get(resource, namespace, name)
    }

    fn list(&self, resource: Resource, namespace: &str) -> Vec<Object> {
        self.caches.list(resource, namespace)
    }

    fn custom(&self) -> Vec<(Resource, bool)> {
        Objects::custom(self.caches)
    }

    fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    fn swept(&self, namespace_uid: &str, version: &str) -> Option<Swept> {
        self.caches.swept(namespace_uid, version)
    }

    fn root_ca(&self) -> &str {
        self.caches.root_ca()
    }
}

/// Why the last creation for a subject was refused, of the subjects of one controller.
type Refusals = Arc<Mutex<HashMap<Key, String>>>;

struct Worker {
    controller: &'static Controller,
    client: Client,
    caches: Arc<Caches>,
    queue: WorkQueue<Key>,
    recorder: Recorder,
    authority: Option<Arc<Authority>>,
    refusals: Refusals,
}

impl Worker {
    async fn run(self) {
        while let Some(key) = self.queue.next().await {
            match AssertUnwindSafe(self.reconcile(&key)).catch_unwind().await {
                Ok(Ok(again)) => {
                    self.queue.forget(&key);
                    if let Some(pause) = again {
                        self.queue.add_after(key.clone(), pause);
                    }
                }
                Ok(Err(error)) => {
                    let of_api = error.downcast_ref::<ApiError>();
                    // The subject goes with its namespace, and nothing more can be made for it (upstream's rule).
                    let ends = of_api.is_some_and(|e| e.has_cause("NamespaceTerminating"));
                    if ends || of_api.is_some_and(|e| e.reason == Reason::Conflict) {
                        tracing::debug!(controller = self.controller.name, subject = ?key, "{error:#}");
                    } else {
                        tracing::warn!(controller = self.controller.name, subject = ?key, "{error:#}");
                    }
                    if ends {
                        self.queue.forget(&key);
                    } else {
                        self.queue.add_failed(key.clone());
                    }
                }
                Err(_) => {
                    tracing::error!(controller = self.controller.name, subject = ?key, "the controller panicked");
                    self.queue.add_failed(key.clone());
                }
            }
            self.queue.done(&key);
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>> {
        let Some(subject) = self.caches.get(self.controller.subject, &key.0, &key.1) else {
            self.refusals().remove(key);
            return Ok(None);
        };
        let mut object = subject.object.clone();
        identify(&mut object, self.controller.subject);
        let refused = self.refusals().get(key).cloned();
        let was_refused = refused.is_some();
        let actions = (self.controller.plan)(&object, &View { caches: &self.caches, refused }, clock::now())?;
        let again = self.carry_out(key, actions).await?;
        if was_refused {
            self.refusals().remove(key);
        }
        Ok(again)
    }

    fn refusals(&self) -> MutexGuard<'_, HashMap<Key, String>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a plan; when to look again.
    async fn carry_out(&self, key: &Key, actions: Vec<Action>) -> Result<Option<Duration>> {
        let mut again = None;
        let mut rest = actions.into_iter().peekable();
        while let Some(first) = rest.next() {
            if let Action::Again(pause) = first {
                again = Some(again.map_or(pause, |a: Duration| a.min(pause)));
                continue;
            }
            // Creations and deletions in a row do not depend on each other.
            let together = matches!(first, Action::Create { .. } | Action::Delete { .. });
            let mut group = vec![first];
            while together
                && let Some(next) = rest.next_if(|a| matches!(a, Action::Create { .. } | Action::Delete { .. }))
            {
                group.push(next);
            }
            let mut results = stream::iter(group).map(|action| self.act(key, action)).buffer_unordered(WRITES_AT_ONCE);
            while let Some(result) = results.next().await {
                result?;
            }
        }
        Ok(again)
    }

    async fn act(&self, key: &Key, action: Action) -> Result<()> {
        self.check_declared(&action)?;
        match action {
            Action::Create { resource, namespace, object, event } => {
                let about = event.as_ref().map(|n| n.about.clone());
                match self.client.api(resource).create(some(&namespace), &object).await {
                    Ok(created) => {
                        self.note(event, meta::name(&created));
                        self.caches.learn(resource, created);
                    }
                    // A cache that lags behind is no trouble: the next plan sees the object.
                    Err(error) if error.reason == Reason::AlreadyExists && !meta::name(&object).is_empty() => {}
                    Err(error) => {
                        self.refusals().insert(key.clone(), error.to_string());
                        if let Some(about) = about {
                            let message = format!("Error creating: {error}");
                            self.recorder.event(&about, None, client::EventType::Warning, "FailedCreate", message);
                        }
                        return Err(error).with_context(|| format!("create {} in {namespace}", resource.plural));
                    }
                }
            }
            Action::Patch { resource, namespace, name, subresource, kind, patch } => {
                let api = self.client.api(resource);
                let patched = api.patch(some(&namespace), &name, subresource, kind, &patch).await;
                self.wrote(resource, patched)
                    .with_context(|| format!("patch {} {namespace}/{name}", resource.plural))?;
            }
            Action::Update { resource, namespace, name, subresource, object } => {
                let updated = self.client.api(resource).update(some(&namespace), &name, subresource, &object).await;
                self.wrote(resource, updated)
                    .with_context(|| format!("update {} {namespace}/{name}", resource.plural))?;
            }
            Action::Delete { resource, namespace, name, options, event } => {
                let deleted = self.client.api(resource).delete(some(&namespace), &name, &options).await;
                if deleted.is_ok() {
                    self.note(event, &name);
                }
                self.wrote(resource, deleted)
                    .with_context(|| format!("delete {} {namespace}/{name}", resource.plural))?;
            }
            Action::Sweep { group, version, namespace, uid } => {
                let swept = aggregated::sweep(&self.client, &group, &version, &namespace).await;
                self.caches.findings.note(&uid, &format!("{group}/{version}"), swept);
            }
            Action::Sign { resource, name, mut object, valid } => {
                let authority = self.authority.as_deref().context("there is no authority that signs")?;
                let pem = authority
                    .issue(&object, valid.as_secs().cast_signed(), rand::random(), clock::now())
                    .with_context(|| format!("make the certificate of {name}"))?;
                object["status"]["certificate"] = STANDARD.encode(pem).into();
                let signed = self.client.api(resource).update(None, &name, "status", &object).await;
                self.wrote(resource, signed).with_context(|| format!("sign {} {name}", resource.plural))?;
            }
            Action::Event(note) => self.note(Some(note), ""),
            Action::Again(_) => {}
        }
        Ok(())
    }

    fn wrote(&self, resource: Resource, result: Result<Value, ApiError>) -> Result<(), ApiError> {
        match result {
            Ok(object) => {
                self.caches.learn(resource, object);
                Ok(())
            }
            // What is gone needs nothing more.
            Err(error) if error.reason == Reason::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn note(&self, note: Option<Note>, name: &str) {
        if let Some(note) = note {
            let message = if note.message.ends_with(": ") { format!("{}{name}", note.message) } else { note.message };
            self.recorder.event(&note.about, None, note.kind, note.reason, message);
        }
    }

    /// The table cannot lie: a write that is not declared does not happen.
    fn check_declared(&self, action: &Action) -> Result<()> {
        let (target, subresource, delete) = match action {
            Action::Sweep { group, version, .. } => (Resource::named(group, version, "*"), "", true),
            Action::Create { resource, .. } => (*resource, "", false),
            Action::Patch { resource, subresource, .. } | Action::Update { resource, subresource, .. } => {
                (*resource, *subresource, false)
            }
            Action::Delete { resource, .. } => (*resource, "", true),
            Action::Sign { resource, .. } => (*resource, "status", false),
            Action::Event(_) | Action::Again(_) => return Ok(()),
        };
        let allowed = self.controller.writes.iter().any(|w| match w {
            Writes::Children(resource) => *resource == target && subresource.is_empty(),
            Writes::Status => target == self.controller.subject && subresource == "status",
            Writes::Shared { resource, .. } => *resource == target,
            Writes::Anything { .. } => delete,
            Writes::InTheNameOf { .. } => false,
        });
        if !allowed {
            bail!(
                "the controller {} has not declared that it writes {}/{subresource}",
                self.controller.name,
                target.plural
            );
        }
        Ok(())
    }
}

/// Items of a list come without apiVersion and kind; events need them.
pub(crate) fn identify(object: &mut Value, resource: Resource) {
    if let Some(row) = kinds::resource(resource.group, resource.version, resource.plural) {
        object["apiVersion"] = row.api_version().into();
        object["kind"] = row.kind.into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_object_without_ties_the_names_alone_are_kept() {
        let cached = |object: Value| Cached {
            namespace: "a".into(),
            name: "x".into(),
            uid: "1".into(),
            resource_version: "2".into(),
            object: decode_metadata(object.to_string().as_bytes()).expect("decodes"),
        };
        let names = json!({"metadata": {"namespace": "a", "name": "x"}});
        let plain = cached(json!({"metadata": {"name": "x", "labels": {"a": "b"}}, "data": {"a": "b"}}));
        assert!(plain.object.is_null());
        assert_eq!(*judged(&plain), names);
        let owned = json!({"metadata": {"name": "x", "ownerReferences": [{"uid": "2"}]}});
        assert_eq!(*judged(&cached(owned.clone())), owned);
    }
}
