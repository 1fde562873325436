//! The garbage collector: objects whose owners are gone go too; owners wait for dependents, or let go of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use client::{Client, Patch, Resource, WorkQueue};
use object_model::meta::{self, OwnerReference};
use object_model::{ApiError, Reason};
use serde_json::{Value, json};

use crate::runner::Caches;
use crate::{Objects, some};

/// Its name, as that of a controller.
pub(crate) const NAME: &str = "generic-garbage-collector";
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// How many objects are judged at a time.
const WORKERS: usize = 4;

type Id = (Resource, String, String);

/// Who owns whom, by uid.
#[derive(Default)]
struct Graph {
    places: HashMap<String, Id>,
    dependents: HashMap<String, HashSet<Id>>,
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
    pub fn new(client: Client, caches: Arc<Caches>) -> Self {
        let graph: Arc<Mutex<Graph>> = Arc::default();
        let queue = WorkQueue::new();
        for (resource, cache) in caches.each() {
            let (graph, queue) = (graph.clone(), queue.clone());
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
                        graph.places.remove(&old.uid);
                        graph.dependents.get(&old.uid).into_iter().flatten().for_each(|d| queue.add(d.clone()));
                    }
                }
                if let Some(new) = new {
                    let id = (resource, new.namespace.clone(), new.name.clone());
                    graph.places.insert(new.uid.clone(), id.clone());
                    let owners = meta::owners(&new.object);
                    for owner in &owners {
                        graph.dependents.entry(owner.uid.clone()).or_default().insert(id.clone());
                    }
                    let waiting = meta::finalizers(&new.object).iter().any(|f| matches!(*f, ORPHAN | FOREGROUND));
                    let began = old.is_none_or(|o| meta::owners(&o.object) != owners);
                    if waiting && meta::deletion_timestamp(&new.object).is_some() {
                        graph.dependents.get(&new.uid).into_iter().flatten().for_each(|d| queue.add(d.clone()));
                        queue.add(id);
                    } else if began && !owners.is_empty() {
                        queue.add(id);
                    }
                }
            });
        }
        Self { client, caches, graph, queue }
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
        match judge(object, &states, !dependents.is_empty()) {
            Verdict::Keep => {}
            Verdict::Release(uids) => self.release(id, object, &uids).await?,
            Verdict::Delete(policy) => {
                let options = json!({
                    "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy,
                    "preconditions": {"uid": meta::uid(object)},
                });
                let deleted = self.client.api(*resource).delete(some(namespace), name, &options).await;
                forgive(deleted).with_context(|| format!("delete {} {namespace}/{name}", resource.plural))?;
            }
        }
        Ok(())
    }

    fn dependents(&self, uid: &str) -> Vec<Id> {
        let graph = self.graph.lock().unwrap_or_else(PoisonError::into_inner);
        graph.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Looks for an owner: in the cache, and before it is called absent, at the server itself.
    async fn look_at(&self, owner: &OwnerReference, namespace: &str) -> Result<Owner> {
        let Some(row) = kinds::resource_of_kind(&owner.api_version, &owner.kind) else {
            // An owner of a kind that is not served cannot be judged.
            return Ok(Owner::Present);
        };
        let resource = Resource { group: row.group, version: row.version, plural: row.plural };
        let namespace = if row.scope == kinds::Scope::Namespaced { namespace } else { "" };
        let cached = self.caches.get(resource, namespace, &owner.name).filter(|o| o.uid == owner.uid);
        let object = match cached {
            Some(object) => object.object.clone(),
            None => match self.client.api(resource).get(some(namespace), &owner.name).await {
                Ok(object) if meta::uid(&object) == owner.uid => object,
                Ok(_) => return Ok(Owner::Absent),
                Err(error) if error.reason == Reason::NotFound => return Ok(Owner::Absent),
                Err(error) => {
                    return Err(error).with_context(|| format!("get owner {} {namespace}/{}", row.plural, owner.name));
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
    if let Some(id) = graph.places.get(uid) {
        queue.add(id.clone());
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
    if having(Owner::Present).next().is_some() {
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
        assert_eq!(check(&[("a", Owner::Waiting)], true), Verdict::Delete("Foreground"));
        assert_eq!(check(&[("a", Owner::Waiting)], false), Verdict::Delete("Background"));
    }
}
