//! Secret: small sensitive data.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object_model::{FieldError, FieldPath};
use serde_json::Value;

use super::config_map::{MAX_BYTES, entries, immutable_data, key_problems};
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Secret",
    plural: "secrets",
    singular: "secret",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "core.v1.Secret",
    storage: "secrets",
    has_status: false,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &["type"],
    columns: &[
        Column::name(),
        Column::text("Type", "What the keys mean."),
        Column::text("Data", "Number of keys."),
        Column::age(),
    ],
    example: "apiVersion: v1\nkind: Secret\nmetadata: {name: example, namespace: default}\ndata: {password: c2VjcmV0}\n",
    hooks: &Secret,
};

struct Secret;

/// Keys that must be there, by type.
const REQUIRED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Kind for Secret {
    fn default(&self, object: &mut Value) {
        walk::default(object, "type", "Opaque");
        // `stringData` is write-only: it wins over `data` and is gone afterwards.
        let Some(Value::Object(text)) = object.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
        let data = walk::map_at(object, "data");
        for (key, value) in text {
            data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("data");
        let mut bytes = 0;
        for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
            let path = path.key(key);
            errors.extend(key_problems(key).into_iter().map(|why| FieldError::invalid(&path, key.as_str(), why)));
            bytes += value.as_str().map_or(0, str::len) / 4 * 3;
        }
        if bytes > MAX_BYTES {
            errors.push(FieldError::too_long(&path, MAX_BYTES));
        }
        let ty = object["type"].as_str().unwrap_or_default();
        let required = REQUIRED.iter().find(|(name, _)| *name == ty).map_or(&[][..], |(_, keys)| keys);
        for key in required.iter().filter(|key| object["data"].get(**key).is_none()) {
            errors.push(FieldError::required(&path.key(key), ""));
        }
        if ty == "kubernetes.io/basic-auth"
            && object["data"].get("username").is_none()
            && object["data"].get("password").is_none()
        {
            errors.push(FieldError::required(&path.key("username"), ""));
            errors.push(FieldError::required(&path.key("password"), ""));
        }
        let account = "kubernetes.io/service-account.name";
        if ty == "kubernetes.io/service-account-token"
            && object_model::meta::annotations(object).get(account).is_none_or(|name| name.is_empty())
        {
            errors.push(FieldError::required(&FieldPath::new("metadata").child("annotations").key(account), ""));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "type");
        errors.extend(immutable_data(new, old, &["data"]));
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            object_model::meta::name(object).into(),
            walk::text(object, "type").unwrap_or_default().into(),
            entries(object, "data").to_string().into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
