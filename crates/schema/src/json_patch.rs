//! The two patches that know no types: RFC 6902 (a list of operations) and RFC 7386 (a partial object).

use json_patch::PatchOperation;
use serde_json::Value;

use crate::PatchError;

/// Operations allowed in one patch, as upstream.
const MAX_OPERATIONS: usize = 10_000;

/// Bytes that all `copy` operations of one patch may add together, as upstream.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// Levels of nesting a patch may build, so that no walk over the result runs out of stack.
const MAX_DEPTH: usize = 128;

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
        let value = match operation {
            PatchOperation::Add(op) => Some(&op.value),
            PatchOperation::Replace(op) => Some(&op.value),
            PatchOperation::Copy(op) => result.pointer(op.from.as_str()),
            PatchOperation::Move(op) => result.pointer(op.from.as_str()),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        if operation.path().as_str().matches('/').count() + value.map_or(0, depth) > MAX_DEPTH {
            return Err(PatchError::DoesNotApply(format!(
                "the patched object is nested deeper than {MAX_DEPTH} levels"
            )));
        }
        if let (PatchOperation::Copy(_), Some(value)) = (operation, value) {
            copied += value.to_string().len();
            if copied > MAX_COPIED {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                )));
            }
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation)).map_err(|error| {
            let text = format!("{}: {}", operation.path(), error.kind);
            match operation {
                PatchOperation::Test(_) => PatchError::TestFailed(text),
                _ => PatchError::DoesNotApply(text),
            }
        })?;
    }
    Ok(result)
}

/// Levels of nesting; the recursion is bounded because nothing deeper gets in.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(object) => 1 + object.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
