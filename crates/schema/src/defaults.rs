//! Defaults of the table, and the habits of JSON: which zero values are written and which are left out.
use crate::Type;
use serde_json::Value;
/// Defaults.
pub fn apply_defaults(ty: &'static Type, value: &mut Value) { let _ = (ty, value); todo!() }
/// Habits.
pub fn normalise(ty: &'static Type, value: &mut Value) { let _ = (ty, value); todo!() }
