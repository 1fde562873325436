//! Claims grow only where their class allows it (upstream's PersistentVolumeClaimResize).

use kinds::volumes;
use object_model::{ApiError, meta};
use serde_json::Value;

use crate::ApiServer;

/// Refuses growth that nobody would carry out.
///
/// # Errors
/// 403 when the class of the claim does not allow it.
pub fn judge_growth(server: &ApiServer, new: &Value, old: &Value) -> Result<(), ApiError> {
    if volumes::requested(new) <= volumes::requested(old) {
        return Ok(());
    }
    let class = super::one(server, "storage.k8s.io", "storageclasses", volumes::class(old))?;
    if class.is_some_and(|class| class["allowVolumeExpansion"] == true) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(ApiError::forbidden("", "persistentvolumeclaims", meta::name(new), why))
}
