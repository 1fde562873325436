//! Definitions of resources: their names are accepted when they are written, what they define is served from the same
//! moment on, and when one is deleted its objects go first.
//!
//! Upstream does this with controllers that write the status; here a definition is settled within the write, so that nobody
//! sees one that is accepted and not served.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use client::clock;
use kinds::apiextensions::custom_resource_definition as crd;
use object_model::{ApiError, meta, time};
use serde_json::Value;
use store::{Expect, Store, StoreError};

use crate::aggregated::Remote;
use crate::catalogue::Catalogue;
use crate::served::Served;
use crate::{ApiServer, custom, stored};

/// How long to wait before looking again for objects that wait for their finalizers.
const PAUSE: Duration = Duration::from_millis(100);

/// The definitions that are stored.
///
/// # Errors
/// When one cannot be read.
fn definitions(store: &dyn Store) -> Result<Vec<Value>, ApiError> {
    stored_objects(store, |served| served.hooks().defines_resources())
}

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

/// The catalogue that the stored definitions make, with these aggregated APIs.
///
/// # Errors
/// When one cannot be read.
pub fn catalogue_of(store: &dyn Store, remotes: Vec<Arc<Remote>>) -> Result<Arc<Catalogue>, ApiError> {
    let custom = definitions(store)?.iter().flat_map(custom::resources).collect();
    Ok(Arc::new(Catalogue::new(custom, remotes)))
}

impl ApiServer {
    /// All that is served now.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Accepts the names of a definition that is about to be written.
    ///
    /// # Errors
    /// When the other definitions cannot be read.
    pub(crate) fn settle(&self, served: &Served, definition: &mut Value) -> Result<(), ApiError> {
        if served.hooks().defines_resources() {
            crd::settle(definition, &definitions(self.store.as_ref())?, &time::seconds(clock::now()));
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
    }

    /// Begins to remove the objects of every definition that is being deleted: after a start.
    pub(crate) fn clean_up_all(&self) {
        for served in Served::built_in().filter(|served| served.hooks().defines_resources()) {
            match definitions(self.store.as_ref()) {
                Ok(all) => all.iter().for_each(|definition| self.clean_up(&served, meta::name(definition))),
                Err(error) => tracing::error!("read definitions: {error}"),
            }
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

    /// Changes a definition that is being deleted; it goes when nothing keeps it any more.
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
