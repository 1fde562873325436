//! Expressions in policies, as far as their form tells: [`crate::cel`] compiles them.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::walk;

/// An expression that must be there.
pub(super) fn required(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath, why: &str) {
    if object[field].as_str().is_none_or(|text| text.trim().is_empty()) {
        errors.push(FieldError::required(&path.child(field), why));
    }
}

/// An expression that may be left out, but not be blank.
pub(super) fn optional(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath) {
    if let Some(text) = walk::text(object, field)
        && text.trim().is_empty()
    {
        errors.push(FieldError::invalid(&path.child(field), text, "must be non-empty if specified"));
    }
}

/// The variables that a policy's other expressions may use.
pub(super) fn variables(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    for (index, variable) in walk::list(spec, "variables").iter().enumerate() {
        let path = path.child("variables").index(index);
        let name = variable["name"].as_str().unwrap_or_default();
        if name.trim().is_empty() {
            errors.push(FieldError::required(&path.child("name"), "name is not specified"));
        } else if !is_identifier(name) {
            errors.push(FieldError::invalid(&path.child("name"), name, "name is not a valid CEL identifier"));
        }
        required(errors, variable, "expression", &path, "expression is not specified");
    }
}

fn is_identifier(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit()) && !expressions::is_reserved(name)
}
