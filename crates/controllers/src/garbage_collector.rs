//! The garbage collector: objects whose owners are gone go too; owners wait for dependents, or let go of them.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::metrics::Queues;
use client::{Cache, Cached, Client, ListParams, Patch, Resource, WorkQueue};
use object_model::meta::{self, OwnerReference};
use object_model::{ApiError, Reason};
use serde_json::{Value, json};

use crate::custom::{self, Custom, DEFINITIONS};
use crate::runner::Caches;
use crate::{Objects, some};

/// Its name, as that of a controller.
pub(crate) const NAME: &str = "generic-garbage-collector";
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How many objects are judged at a time.
const WORKERS: usize = 4;
/// How long an owner waits for the dependents of a new custom resource to become known. A resource that cannot be listed, as
/// a webhook that converts it does not answer, may not hold up every owner for ever.
const PATIENCE: Duration = Duration::from_secs(30);

type Id = (Resource, String, String);

/// Where an object is, by its uid. What the cache has of it is shared: copies of the names of all objects there are would
/// be a tenth of what they take.
struct Spot {
    resource: Resource,
    object: Arc<Cached<Value>>,
}

impl Spot {
    fn id(&self) -> Id {
        (self.resource, self.object.namespace.clone(), self.object.name.clone())
    }
}

impl Borrow<str> for Spot {
    fn borrow(&self) -> &str {
        &self.object.uid
    }
}

impl PartialEq for Spot {
    fn eq(&self, other: &Self) -> bool {
        self.object.uid == other.object.uid
    }
}

impl Eq for Spot {}

impl Hash for Spot {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.object.uid.as_str().hash(state);
    }
}

/// Who owns whom, by uid.
#[derive(Default)]
struct Graph {
    places: HashSet<Spot>,
    dependents: HashMap<String, HashSet<Id>>,
    /// Objects with an owner of a kind that was not served when they were looked at.
    unjudged: HashSet<Id>,
}

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It is there.
    Present,
    /// It is there and waits for its dependents to go.
    Waiting,
    /// It is gone, or another object has its name.
    Absent,
    /// Nothing can be said of it: its kind is not served, or it cannot own what names it.
    Unknown,
}

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Nothing.
    Keep,
    /// Take these owners out of it.
    Release(Vec<String>),
    /// Delete it with this propagation policy.
    Delete(&'static str),
}

/// The collector. Clones share it.
#[derive(Clone)]
pub(crate) struct GarbageCollector {
    client: Client,
    caches: Arc<Caches>,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<Id>,
}

impl GarbageCollector {
    pub fn new(client: Client, caches: Arc<Caches>, queues: &Queues) -> Self {
        let queue = queues.named(NAME);
        let collector = Self { client, caches: caches.clone(), graph: Arc::default(), queue };
        for (resource, cache) in caches.each() {
            collector.follow(resource, cache);
        }
        collector
    }

    /// Sees the objects of this cache from now on.
    pub fn follow(&self, resource: Resource, cache: &Cache<Value>) {
        // Owners of a kind that was not served may be of this one.
        self.graph().unjudged.drain().for_each(|id| self.queue.add(id));
        let (graph, queue) = (self.graph.clone(), self.queue.clone());
        cache.on_change(move |change| {
            let mut graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
            let (old, new) = (change.old, change.new);
            if let Some(old) = old {
                let id = (resource, old.namespace.clone(), old.name.clone());
                for owner in meta::owners(&old.object) {
                    if let Some(set) = graph.dependents.get_mut(&owner.uid) {
                        set.remove(&id);
                        if set.is_empty() {
                            graph.dependents.remove(&owner.uid);
                        }
                    }
                    // An owner that waits may have one less to wait for.
                    queue_place(&graph, &queue, &owner.uid);
                }
                if new.is_none_or(|n| n.uid != old.uid) {
                    graph.places.remove(old.uid.as_str());
                    graph.unjudged.remove(&id);
                    graph.dependents.get(&old.uid).into_iter().flatten().for_each(|d| queue.add(d.clone()));
                }
            }
            if let Some(new) = new {
                let id = || (resource, new.namespace.clone(), new.name.clone());
                graph.places.replace(Spot { resource, object: new.clone() });
                let owners = meta::owners(&new.object);
                for owner in &owners {
                    graph.dependents.entry(owner.uid.clone()).or_default().insert(id());
                }
                let waiting = meta::finalizers(&new.object).iter().any(|f| matches!(*f, ORPHAN | FOREGROUND));
                let began = old.is_none_or(|o| meta::owners(&o.object) != owners);
                if waiting && meta::deletion_timestamp(&new.object).is_some() {
                    graph.dependents.get(&new.uid).into_iter().flatten().for_each(|d| queue.add(d.clone()));
                    queue.add(id());
                } else if began && !owners.is_empty() {
                    queue.add(id());
                }
            }
        });
    }

    /// Forgets the objects of resources that are not followed any more. They are not gone: whom they own stays.
    pub fn forget(&self, resources: &HashSet<Resource>) {
        if resources.is_empty() {
            return;
        }
        let mut graph = self.graph();
        let Graph { places, dependents, unjudged } = &mut *graph;
        let stays = |id: &Id| !resources.contains(&id.0);
        places.retain(|spot| !resources.contains(&spot.resource));
        unjudged.retain(stays);
        let mut let_go = Vec::new();
        dependents.retain(|owner, set| {
            let before = set.len();
            set.retain(stays);
            if set.len() < before {
                let_go.push(owner.clone());
            }
            !set.is_empty()
        });
        let_go.iter().for_each(|owner| queue_place(&graph, &self.queue, owner));
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn run(self) {
        let workers = (0..WORKERS).map(|_| async {
            while let Some(id) = self.queue.next().await {
                match self.collect(&id).await {
                    Ok(()) => self.queue.forget(&id),
                    Err(error) => {
                        tracing::debug!(object = ?id, "collect garbage: {error:#}");
                        self.queue.add_failed(id.clone());
                    }
                }
                self.queue.done(&id);
            }
        });
        futures::future::join_all(workers).await;
    }

    pub fn stop(&self) {
        self.queue.close();
    }

    async fn collect(&self, id: &Id) -> Result<()> {
        let (resource, namespace, name) = id;
        let Some(object) = self.caches.get(*resource, namespace, name) else { return Ok(()) };
        let object = &object.object;
        let dependents = self.dependents(meta::uid(object));
        if meta::deletion_timestamp(object).is_some() {
            return self.finish_owner(id, object, &dependents).await;
        }
        let owners = meta::owners(object);
        if owners.is_empty() {
            return Ok(());
        }
        let mut states = Vec::new();
        for owner in &owners {
            states.push((owner.uid.clone(), self.look_at(owner, namespace).await?));
        }
        if states.iter().any(|(_, state)| *state == Owner::Unknown) {
            self.graph().unjudged.insert(id.clone());
        }
        match judge(object, &states, !dependents.is_empty()) {
            Verdict::Keep => {}
            Verdict::Release(uids) => self.release(id, object, &uids).await?,
            Verdict::Delete(policy) => {
                // As it was judged: one that has been let go of meanwhile has no owner any more.
                let options = json!({
                    "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy,
                    "preconditions": {"uid": meta::uid(object), "resourceVersion": meta::resource_version(object)},
                });
                let deleted = self.client.api(*resource).delete(some(namespace), name, &options).await;
                forgive(deleted).with_context(|| format!("delete {} {namespace}/{name}", resource.plural))?;
            }
        }
        Ok(())
    }

    fn dependents(&self, uid: &str) -> Vec<Id> {
        self.graph().dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// The custom resource of an owner's kind, as the server has it now.
    async fn defined(&self, owner: &OwnerReference) -> Result<Option<Custom>> {
        let list = self.client.api(DEFINITIONS).list(None, &ListParams::default()).await.context("list definitions")?;
        for item in list.items {
            let definition = custom::decode_definition(item.get().as_bytes()).context("read a definition")?;
            if let Some(found) = Custom::of(&definition).filter(|one| one.is(&owner.api_version, &owner.kind)) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Looks for an owner: in the cache, and before it is called absent, at the server itself.
    async fn look_at(&self, owner: &OwnerReference, namespace: &str) -> Result<Owner> {
        let built_in = kinds::resource_of_kind(&owner.api_version, &owner.kind);
        let (resource, namespaced) = if let Some(row) = built_in {
            let resource = Resource { group: row.group, version: row.version, plural: row.plural };
            (resource, row.scope == kinds::Scope::Namespaced)
        } else {
            let known = self.caches.custom.of_kind(&owner.api_version, &owner.kind);
            let custom = if known.is_some() { known } else { self.defined(owner).await? };
            let Some(custom) = custom else { return Ok(Owner::Unknown) };
            (custom.resource, custom.namespaced)
        };
        if namespaced && namespace.is_empty() {
            // What is outside of all namespaces cannot name an owner within one.
            return Ok(Owner::Unknown);
        }
        let namespace = if namespaced { namespace } else { "" };
        let cached = self.caches.get(resource, namespace, &owner.name).filter(|o| o.uid == owner.uid);
        let object = match cached {
            Some(object) => object.object.clone(),
            // Nothing gets a uid that another had. Asking for it is no use where the kind may have gone along.
            None if self.caches.cache(resource).is_some_and(|cache| cache.has_gone(&owner.uid)) => {
                return Ok(Owner::Absent);
            }
            None => match self.client.api(resource).get(some(namespace), &owner.name).await {
                Ok(object) if meta::uid(&object) == owner.uid => object,
                Ok(_) => return Ok(Owner::Absent),
                Err(error) if error.reason == Reason::NotFound && built_in.is_some() => return Ok(Owner::Absent),
                // Of what is not served any more the server says the same as of what is not there.
                Err(error) if error.reason == Reason::NotFound => {
                    return match self.defined(owner).await? {
                        Some(custom) if custom.resource == resource => Ok(Owner::Absent),
                        Some(_) => bail!("{} are being moved to another version", resource.plural),
                        None => Ok(Owner::Unknown),
                    };
                }
                Err(error) => {
                    let what = format!("get owner {} {namespace}/{}", resource.plural, owner.name);
                    return Err(error).context(what);
                }
            },
        };
        let waits = meta::deletion_timestamp(&object).is_some() && meta::finalizers(&object).contains(&FOREGROUND);
        Ok(if waits { Owner::Waiting } else { Owner::Present })
    }

    /// An owner that is being deleted: lets go of its dependents, or waits for those that block it.
    async fn finish_owner(&self, id: &Id, object: &Value, dependents: &[Id]) -> Result<()> {
        let finalizers = meta::finalizers(object);
        let uid = meta::uid(object);
        if !finalizers.iter().any(|f| matches!(*f, ORPHAN | FOREGROUND)) {
            return Ok(());
        }
        if let Some(resource) = self.caches.custom.expected(PATIENCE) {
            bail!("the objects of {} are not known yet", resource.plural);
        }
        if finalizers.contains(&ORPHAN) {
            for dependent in dependents {
                if let Some(found) = self.caches.get(dependent.0, &dependent.1, &dependent.2) {
                    self.release(dependent, &found.object, &[uid.to_owned()]).await?;
                }
            }
            return self.remove_finalizer(id, object, ORPHAN).await;
        }
        if finalizers.contains(&FOREGROUND) {
            let blocking = dependents.iter().any(|d| {
                self.caches.get(d.0, &d.1, &d.2).is_some_and(|found| {
                    meta::owners(&found.object).iter().any(|o| o.uid == uid && o.block_owner_deletion)
                })
            });
            if !blocking {
                return self.remove_finalizer(id, object, FOREGROUND).await;
            }
        }
        Ok(())
    }

    async fn release(&self, id: &Id, object: &Value, uids: &[String]) -> Result<()> {
        let (resource, namespace, name) = id;
        let rest: Vec<Value> =
            meta::owners(object).iter().filter(|o| !uids.contains(&o.uid)).map(OwnerReference::to_value).collect();
        let patch = json!({"metadata": {
            "uid": meta::uid(object), "resourceVersion": meta::resource_version(object), "ownerReferences": rest,
        }});
        let patched = self.client.api(*resource).patch(some(namespace), name, "", Patch::Merge, &patch).await;
        forgive(patched).with_context(|| format!("release {} {namespace}/{name}", resource.plural))
    }

    async fn remove_finalizer(&self, id: &Id, object: &Value, finalizer: &str) -> Result<()> {
        let (resource, namespace, name) = id;
        let rest: Vec<&str> = meta::finalizers(object).into_iter().filter(|f| *f != finalizer).collect();
        let patch = json!({"metadata": {
            "uid": meta::uid(object), "resourceVersion": meta::resource_version(object), "finalizers": rest,
        }});
        let patched = self.client.api(*resource).patch(some(namespace), name, "", Patch::Merge, &patch).await;
        forgive(patched)
            .with_context(|| format!("remove finalizer {finalizer} of {} {namespace}/{name}", resource.plural))
    }
}

fn queue_place(graph: &Graph, queue: &WorkQueue<Id>, uid: &str) {
    if let Some(spot) = graph.places.get(uid) {
        queue.add(spot.id());
    }
}

/// What is gone already needs nothing more.
fn forgive(result: Result<Value, ApiError>) -> Result<(), ApiError> {
    match result {
        Err(error) if error.reason != Reason::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What becomes of an object with these owners (upstream's rules).
fn judge(object: &Value, owners: &[(String, Owner)], has_dependents: bool) -> Verdict {
    let having = |state: Owner| owners.iter().filter(move |(_, s)| *s == state).map(|(uid, _)| uid.clone());
    let gone: Vec<String> = having(Owner::Absent).collect();
    if having(Owner::Present).chain(having(Owner::Unknown)).next().is_some() {
        let leaving: Vec<String> = gone.into_iter().chain(having(Owner::Waiting)).collect();
        return if leaving.is_empty() { Verdict::Keep } else { Verdict::Release(leaving) };
    }
    if having(Owner::Waiting).next().is_some() && has_dependents {
        return Verdict::Delete("Foreground");
    }
    let finalizers = meta::finalizers(object);
    if finalizers.contains(&ORPHAN) {
        Verdict::Delete("Orphan")
    } else if finalizers.contains(&FOREGROUND) {
        Verdict::Delete("Foreground")
    } else {
        Verdict::Delete("Background")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_goes_only_when_none_of_its_owners_is_left() {
        let object = json!({"metadata": {}});
        let check = |owners: &[(&str, Owner)], dependents| {
            let owners: Vec<_> = owners.iter().map(|(u, s)| ((*u).to_owned(), *s)).collect();
            judge(&object, &owners, dependents)
        };
        assert_eq!(check(&[("a", Owner::Present)], false), Verdict::Keep);
        assert_eq!(check(&[("a", Owner::Absent)], false), Verdict::Delete("Background"));
        assert_eq!(check(&[("a", Owner::Present), ("b", Owner::Absent)], false), Verdict::Release(vec!["b".into()]));
        assert_eq!(check(&[("a", Owner::Unknown)], false), Verdict::Keep);
        assert_eq!(check(&[("a", Owner::Waiting)], true), Verdict::Delete("Foreground"));
        assert_eq!(check(&[("a", Owner::Waiting)], false), Verdict::Delete("Background"));
    }
}
