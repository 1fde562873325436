//! RFC 6902 and RFC 7386 patches.
use crate::PatchError;
use serde_json::Value;
/// RFC 7386.
pub fn merge_patch(current: &Value, patch: &Value) -> Value { let _ = (current, patch); todo!() }
/// RFC 6902.
pub fn json_patch(current: &Value, patch: &Value) -> Result<Value, PatchError> { let _ = (current, patch); todo!() }
