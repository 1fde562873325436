//! Claims get the default class, and grow only where their class allows it (upstream's DefaultStorageClass and
//! PersistentVolumeClaimResize).

use kinds::volumes::{self, DEFAULT_CLASS};
use object_model::{ApiError, meta};
use serde_json::Value;

use crate::ApiServer;
use crate::served::Served;
use crate::stored;
use crate::write::store_failed;

fn classes(server: &ApiServer) -> Result<Vec<Value>, ApiError> {
    let served = Served::find("storage.k8s.io", "v1", "storageclasses")?;
    let range = server.store.range(&served.prefix(), None, 0, None).map_err(|error| store_failed(&error))?;
    range.entries.iter().map(|entry| stored::decode(&served, entry)).collect()
}

/// Gives a claim that says nothing about its class the newest default class. An empty class means none.
///
/// # Errors
/// When the classes cannot be read.
pub fn choose_class(server: &ApiServer, claim: &mut Value) -> Result<(), ApiError> {
    if !claim["spec"].is_object() || claim["spec"]["storageClassName"].is_string() {
        return Ok(());
    }
    let is_default = |class: &Value| meta::annotations(class).get(DEFAULT_CLASS) == Some(&"true");
    let made = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let chosen = classes(server)?.into_iter().filter(is_default).max_by_key(made);
    if let Some(class) = chosen {
        claim["spec"]["storageClassName"] = meta::name(&class).into();
    }
    Ok(())
}

/// Refuses growth that nobody would carry out.
///
/// # Errors
/// 403 when the class of the claim does not allow it.
pub fn judge_growth(server: &ApiServer, new: &Value, old: &Value) -> Result<(), ApiError> {
    if volumes::requested(new) <= volumes::requested(old) {
        return Ok(());
    }
    let name = volumes::class(old);
    let grows = classes(server)?.iter().any(|class| meta::name(class) == name && class["allowVolumeExpansion"] == true);
    if grows {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(ApiError::forbidden("", "persistentvolumeclaims", meta::name(new), why))
}
