//! Errors that name the field they are about, worded as Kubernetes words them.

use std::fmt;

use serde_json::Value;

/// The path of a field inside an object, like `spec.containers[0].name`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of a top-level field.
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The path of the field `name` below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of the list element `index` below this one.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of the map entry `key` below this one.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field. The names are the `reason` of a `StatusCause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldErrorKind {
    /// A value that must be given is missing.
    Required,
    /// The value is malformed or does not fit.
    Invalid,
    /// The value is not one of the supported ones.
    NotSupported,
    /// The value must be unique and is not.
    Duplicate,
    /// The field may not be set or changed.
    Forbidden,
    /// The value is too long.
    TooLong,
    /// The list has too many items.
    TooMany,
    /// The value refers to something that does not exist.
    NotFound,
    /// The value has the wrong type.
    TypeInvalid,
}

impl FieldErrorKind {
    /// The `reason` of the cause in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::NotFound => "Not found",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// What kind of mistake it is.
    pub kind: FieldErrorKind,
    /// Where it is.
    pub path: FieldPath,
    /// The value that was given, where the message shows it.
    pub value: Option<Value>,
    /// What is wrong, or what would be right.
    pub detail: String,
}

impl FieldError {
    /// A missing value.
    pub fn required(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Required, path: path.clone(), value: None, detail: detail.into() }
    }

    /// A malformed value.
    pub fn invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Invalid, path: path.clone(), value: Some(value.into()), detail: detail.into() }
    }

    /// A value of another type.
    pub fn type_invalid(path: &FieldPath, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::TypeInvalid, ..Self::invalid(path, value, detail) }
    }

    /// A value outside the list of the supported ones.
    pub fn not_supported(path: &FieldPath, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        Self {
            kind: FieldErrorKind::NotSupported,
            path: path.clone(),
            value: Some(value.into()),
            detail: format!("supported values: {}", list.join(", ")),
        }
    }

    /// A value that appears twice where it must be unique.
    pub fn duplicate(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorKind::Duplicate, path: path.clone(), value: Some(value.into()), detail: String::new() }
    }

    /// A field that may not be set, or not changed.
    pub fn forbidden(path: &FieldPath, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Forbidden, path: path.clone(), value: None, detail: detail.into() }
    }

    /// A reference to something that does not exist.
    pub fn not_found(path: &FieldPath, value: impl Into<Value>) -> Self {
        Self { kind: FieldErrorKind::NotFound, path: path.clone(), value: Some(value.into()), detail: String::new() }
    }

    /// A value longer than `max` bytes.
    pub fn too_long(path: &FieldPath, max: usize) -> Self {
        Self {
            kind: FieldErrorKind::TooLong,
            path: path.clone(),
            value: None,
            detail: format!("may not be more than {max} bytes"),
        }
    }

    /// A list longer than `max`.
    pub fn too_many(path: &FieldPath, given: usize, max: usize) -> Self {
        Self {
            kind: FieldErrorKind::TooMany,
            path: path.clone(),
            value: Some(Value::from(given)),
            detail: format!("must have at most {max} items"),
        }
    }

    /// The message without the path, as a `StatusCause` has it.
    pub fn body(&self) -> String {
        let mut text = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            match value {
                // Go prints strings quoted and everything else as JSON.
                Value::String(s) => text.push_str(&format!("{s:?}")),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_error_reads_as_kubernetes_writes_it() {
        let path = FieldPath::new("spec").child("containers").index(0).child("name");
        assert_eq!(FieldError::required(&path, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            FieldError::not_supported(&path, "x", &["a", "b"]).to_string(),
            r#"spec.containers[0].name: Unsupported value: "x": supported values: "a", "b""#
        );
        assert_eq!(
            FieldError::invalid(&path, 70000, "must be between 1 and 65535, inclusive").to_string(),
            "spec.containers[0].name: Invalid value: 70000: must be between 1 and 65535, inclusive"
        );
    }
}
