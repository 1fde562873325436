//! The two patches that know no types: RFC 6902 (a list of operations) and RFC 7386 (a partial object).

use json_patch::PatchOperation;
use serde_json::Value;

use crate::PatchError;

/// Operations allowed in one patch, as upstream.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that all `copy` operations of one patch may add together, as upstream.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Merges a partial object (RFC 7386): null removes, objects are merged, all else replaces.
pub fn merge_patch(current: &Value, patch: &Value) -> Value {
    let mut result = current.clone();
    json_patch::merge(&mut result, patch);
    result
}

/// Applies a list of operations (RFC 6902), all or none.
pub fn json_patch(current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations: Vec<PatchOperation> = serde_json::from_value(patch.clone())
        .map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
    if operations.len() > MAX_OPERATIONS {
        let message =
            format!("The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}", operations.len());
        return Err(PatchError::Malformed(message));
    }
    let mut result = current.clone();
    let mut copied = 0;
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation {
            copied += result.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > MAX_COPIED {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                )));
            }
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation)).map_err(|error| {
            PatchError::DoesNotApply(format!(
                "the server rejected our request due to an error in our request: {}",
                error.kind
            ))
        })?;
    }
    Ok(result)
}
