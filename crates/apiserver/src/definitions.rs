//! Definitions of resources: their names are accepted when they are written, what they define is served from the same
//! moment on, and when one is deleted its objects go first.
//!
//! Upstream does this with controllers that write the status; here a definition is settled within the write, so that nobody
//! sees one that is accepted and not served.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use client::clock;
use kinds::apiextensions::custom_resource_definition as crd;
use object_model::{ApiError, meta, time};
use serde_json::Value;
use store::{Entry, Expect, Store, StoreError};

use crate::catalogue::Catalogue;
use crate::served::Served;
use crate::{ApiServer, custom, stored};

/// How long to wait before looking again for objects that wait for their finalizers.
const PAUSE: Duration = Duration::from_millis(100);

/// The objects of some built-in resources.
///
/// # Errors
/// When one cannot be read.
pub fn stored_objects(store: &dyn Store, wanted: impl Fn(&Served) -> bool) -> Result<Vec<Value>, ApiError> {
    let mut all = Vec::new();
    for served in Served::built_in().filter(wanted) {
        let range = store.range(&served.prefix(), None, 0, None).map_err(|e| ApiError::internal(&e))?;
        for entry in range.entries {
            all.push(stored::decode(&served, &entry)?);
        }
    }
    Ok(all)
}

/// A definition as it was stored at one revision.
#[derive(Clone)]
pub struct Definition {
    revision: u64,
    /// What the names of others are judged by: schemas are left out.
    head: Value,
    /// What it makes.
    pub resources: Vec<Served>,
}

/// Definitions by their names.
pub type Definitions = BTreeMap<String, Arc<Definition>>;

impl Definition {
    fn of(revision: u64, mut definition: Value) -> Self {
        let resources = custom::resources(&definition);
        for version in definition["spec"]["versions"].as_array_mut().into_iter().flatten() {
            version["schema"] = Value::Null;
        }
        meta::set(&mut definition, "managedFields", Value::Null);
        meta::set(&mut definition, "annotations", Value::Null);
        Self { revision, head: definition, resources }
    }
}

/// The entries of all definitions in the store.
fn entries(store: &dyn Store) -> Result<Vec<(Served, Arc<Entry>)>, ApiError> {
    let mut all = Vec::new();
    for served in Served::built_in().filter(|served| served.hooks().defines_resources()) {
        let range = store.range(&served.prefix(), None, 0, None).map_err(|e| ApiError::internal(&e))?;
        all.extend(range.entries.into_iter().map(|entry| (served.clone(), entry)));
    }
    Ok(all)
}

/// The definitions that are stored. Those that are `known` in the same revision are not read again.
///
/// # Errors
/// When one cannot be read.
pub fn definitions(store: &dyn Store, known: &Definitions) -> Result<Definitions, ApiError> {
    let by_key: HashMap<u64, (&String, &Arc<Definition>)> =
        known.iter().map(|(name, definition)| (definition.revision, (name, definition))).collect();
    let read = |(served, entry): &(Served, Arc<Entry>)| {
        if let Some((name, definition)) = by_key.get(&entry.mod_revision) {
            return Ok(((*name).clone(), (*definition).clone()));
        }
        let definition = stored::decode(served, entry)?;
        Ok((meta::name(&definition).to_owned(), Arc::new(Definition::of(entry.mod_revision, definition))))
    };
    entries(store)?.iter().map(read).collect()
}

/// A write of what decides what is served, from before it is stored until the catalogue tells of it.
pub struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

impl ApiServer {
    /// All that is served now.
    ///
    /// A watch may tell of a definition before the request that wrote it has renewed the catalogue: who learned of it that
    /// way is served as well.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        let known = self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone();
        if self.defining.load(Ordering::Acquire) == 0 || self.is_current(&known) {
            return known;
        }
        self.renew_catalogue();
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_current(&self, catalogue: &Catalogue) -> bool {
        entries(self.store.as_ref()).is_ok_and(|stored| {
            let known: HashSet<u64> = catalogue.definitions().values().map(|one| one.revision).collect();
            stored.len() == known.len() && stored.iter().all(|(_, entry)| known.contains(&entry.mod_revision))
        })
    }

    /// To be held while something is written that may decide what is served.
    pub(crate) fn define(&self, served: &Served) -> Option<UnderWay<'_>> {
        served.hooks().defines_resources().then(|| {
            self.defining.fetch_add(1, Ordering::AcqRel);
            UnderWay(&self.defining)
        })
    }

    /// Accepts the names of a definition that is about to be written.
    ///
    /// # Errors
    /// When the other definitions cannot be read.
    pub(crate) fn settle(&self, served: &Served, definition: &mut Value) -> Result<(), ApiError> {
        if served.hooks().defines_resources() {
            let known = definitions(self.store.as_ref(), self.catalogue().definitions())?;
            crd::settle(definition, known.values().map(|one| &one.head), &time::seconds(clock::now()));
        }
        Ok(())
    }

    /// Follows a write of a definition: what is stored by now is served.
    pub(crate) fn follow_definition(&self, served: &Served, name: &str) {
        if !served.hooks().defines_resources() {
            return;
        }
        self.renew_catalogue();
        self.clean_up(served, name);
        self.settle_others(served, name);
    }

    /// Accepts the names of definitions that had to wait for them, if this write left them free.
    fn settle_others(&self, served: &Served, name: &str) {
        let catalogue = self.catalogue();
        let all = catalogue.definitions();
        for (waiting, definition) in all.iter().filter(|(other, _)| *other != name) {
            if meta::has_condition(&definition.head, "NamesAccepted") {
                continue;
            }
            let now = time::seconds(clock::now());
            let mut settled = definition.head.clone();
            crd::settle(&mut settled, all.values().map(|one| &one.head), &now);
            let Some(server) = self.me.upgrade().filter(|_| settled != definition.head) else { continue };
            let (served, waiting) = (served.clone(), waiting.clone());
            self.tasks.spawn(async move {
                let outcome = server
                    .change_definition(&served, &waiting, |definition| {
                        let known = server.catalogue();
                        crd::settle(definition, known.definitions().values().map(|one| &one.head), &now);
                    })
                    .await;
                if let Err(error) = outcome {
                    tracing::error!("accept the names of definition {waiting}: {error}");
                }
            });
        }
    }

    /// Begins to remove the objects of every definition that is being deleted: after a start.
    pub(crate) fn clean_up_all(&self) {
        for served in Served::built_in().filter(|served| served.hooks().defines_resources()) {
            self.catalogue().definitions().keys().for_each(|name| self.clean_up(&served, name));
        }
    }

    /// Removes the objects of a definition that is being deleted, and then the definition.
    fn clean_up(&self, served: &Served, name: &str) {
        let Some(server) = self.me.upgrade() else { return };
        let Ok(definition) = self.object(served, "", name) else { return };
        let waits = meta::finalizers(&definition).contains(&crd::CLEANUP);
        if meta::deletion_timestamp(&definition).is_none() || !waits {
            return;
        }
        let mut cleaning = self.cleaning.lock().unwrap_or_else(PoisonError::into_inner);
        if !cleaning.insert(name.to_owned()) {
            return;
        }
        let (served, name) = (served.clone(), name.to_owned());
        self.tasks.spawn(async move {
            let outcome = tokio::select! {
                () = server.shutdown.cancelled() => Ok(()),
                outcome = server.remove_objects(&served, &definition) => outcome,
            };
            server.cleaning.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            if let Err(error) = outcome {
                tracing::error!("clean up definition {name}: {error}");
            }
        });
    }

    async fn remove_objects(&self, served: &Served, definition: &Value) -> Result<(), ApiError> {
        let name = meta::name(definition);
        self.change_definition(served, name, |definition| crd::terminate(definition, &time::seconds(clock::now())))
            .await?;
        if let Some(objects) = custom::resources(definition).into_iter().next() {
            while self.store.count(&objects.prefix()) > 0 {
                self.delete_all(&objects).await?;
                if self.store.count(&objects.prefix()) > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        self.change_definition(served, name, |definition| meta::remove_finalizer(definition, crd::CLEANUP)).await
    }

    /// Changes a definition. One that is being deleted goes when nothing keeps it any more.
    async fn change_definition(
        &self,
        served: &Served,
        name: &str,
        change: impl Fn(&mut Value),
    ) -> Result<(), ApiError> {
        loop {
            let Some(entry) = self.store.get(&served.key("", name)) else { return Ok(()) };
            let mut definition = stored::decode(served, &entry)?;
            let before = definition.clone();
            change(&mut definition);
            if stored::same(&definition, &before) {
                return Ok(());
            }
            let written = if crate::write::is_finished(&definition) {
                self.remove(served, "", name, entry.mod_revision).await
            } else {
                self.put(served, "", name, Expect::Revision(entry.mod_revision), &definition).await
            };
            match written {
                Ok(_) => return Ok(()),
                Err(StoreError::Mismatch(_)) => {}
                Err(error) => return Err(crate::write::store_failed(&error)),
            }
        }
    }
}
