//! ConfigMap: configuration as keys and values.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "core.v1.ConfigMap",
    storage: "configmaps",
    has_status: false,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[Column::name(), Column::text("Data", "Number of keys."), Column::age()],
    example: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: example, namespace: default}\ndata: {greeting: hello}\n",
    hooks: &ConfigMap,
};

struct ConfigMap;

/// Bytes that all values of a ConfigMap or a Secret may have together.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// What is wrong with a key that becomes a file name.
pub(super) fn key_problems(key: &str) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if key.len() > 253 {
        problems.push("must be no more than 253 characters");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if key.is_empty() || !key.chars().all(plain) {
        problems.push(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
             'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        );
    }
    match key {
        "." => problems.push("must not be '.'"),
        ".." => problems.push("must not be '..'"),
        _ if key.starts_with("..") => problems.push("must not start with '..'"),
        _ => {}
    }
    problems
}

/// What changes an immutable ConfigMap or Secret may not see.
pub(super) fn immutable_data(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    if old["immutable"] != true {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let frozen = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        errors.push(FieldError::forbidden(&FieldPath::new("immutable"), frozen));
    }
    for field in fields.iter().filter(|field| new.get(**field) != old.get(**field)) {
        errors.push(FieldError::forbidden(&FieldPath::new(field), frozen));
    }
    errors
}

/// Entries of a map field.
pub(super) fn entries(object: &Value, field: &str) -> usize {
    object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

impl Kind for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut bytes = 0;
        for field in ["data", "binaryData"] {
            for (key, value) in object.get(field).and_then(Value::as_object).into_iter().flatten() {
                let path = FieldPath::new(field).key(key);
                errors.extend(key_problems(key).into_iter().map(|why| FieldError::invalid(&path, key.as_str(), why)));
                let length = value.as_str().map_or(0, str::len);
                bytes += if field == "data" { length } else { length / 4 * 3 };
                if field == "data" && object["binaryData"].get(key).is_some() {
                    errors.push(FieldError::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
                }
            }
        }
        if bytes > MAX_BYTES {
            errors.push(FieldError::too_long(&FieldPath::new(""), MAX_BYTES));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable_data(new, old, &["data", "binaryData"])
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let keys = entries(object, "data") + entries(object, "binaryData");
        vec![
            object_model::meta::name(object).into(),
            keys.to_string().into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
