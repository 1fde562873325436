//! What a structural schema finds wrong, as errors of fields.

use object_model::{FieldError, FieldPath};
use schema::structural::{Step, Violation, ViolationKind};
use serde_json::Value;

/// A violation as an error of a field.
pub fn field_error(violation: Violation) -> FieldError {
    field_error_below(&FieldPath::default(), violation)
}

/// A violation within what is at `path`, as an error of a field.
pub(crate) fn field_error_below(path: &FieldPath, violation: Violation) -> FieldError {
    let path = violation.steps.iter().fold(path.clone(), |path, step| match step {
        Step::Field(name) | Step::Key(name) => path.child(name),
        Step::Index(index) => path.index(*index),
    });
    let value = violation.value.unwrap_or(Value::Null);
    let supported: Vec<&str> = violation.supported.iter().map(String::as_str).collect();
    match violation.kind {
        ViolationKind::Required => FieldError::required(&path, violation.detail),
        ViolationKind::Invalid => FieldError::invalid(&path, value, violation.detail),
        ViolationKind::TypeInvalid => FieldError::type_invalid(&path, value, violation.detail),
        ViolationKind::NotSupported => FieldError::not_supported(&path, value, &supported),
        ViolationKind::TooLong => FieldError::too_long(&path, violation.limit),
        ViolationKind::TooMany => FieldError::too_many(
            &path,
            usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(usize::MAX),
            violation.limit,
        ),
        ViolationKind::Duplicate => FieldError::duplicate(&path, value),
    }
}
