//! Reading and writing the metadata of an object held as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// The name, or the empty string.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// The namespace, or the empty string for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// The uid, or the empty string.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// The resourceVersion, or the empty string.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// The generation, 0 where there is none.
pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or(0)
}

/// When deletion was asked for, as on the wire.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    object["metadata"]["deletionTimestamp"].as_str()
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// The metadata map, made where it is missing.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = json!({});
    }
    metadata.as_object_mut().expect("just made an object")
}

/// Sets a field of the metadata; null removes it.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    let metadata = metadata_mut(object);
    match value.into() {
        Value::Null => {
            metadata.remove(field);
        }
        value => {
            metadata.insert(field.to_owned(), value);
        }
    }
}

/// The labels.
pub fn labels(object: &Value) -> BTreeMap<&str, &str> {
    strings(&object["metadata"]["labels"])
}

/// The annotations.
pub fn annotations(object: &Value) -> BTreeMap<&str, &str> {
    strings(&object["metadata"]["annotations"])
}

/// A JSON object of strings as a map.
pub fn strings(value: &Value) -> BTreeMap<&str, &str> {
    value
        .as_object()
        .map(|m| m.iter().filter_map(|(k, v)| Some((k.as_str(), v.as_str()?))).collect())
        .unwrap_or_default()
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|a| a.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Whether a condition of the status is true.
pub fn has_condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if !finalizers(object).contains(&finalizer) {
        let metadata = metadata_mut(object);
        let list = metadata.entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(finalizer.into());
        }
    }
}

/// Removes a finalizer.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let rest: Vec<Value> = finalizers(object).into_iter().filter(|f| *f != finalizer).map(Value::from).collect();
    set(object, "finalizers", if rest.is_empty() { Value::Null } else { Value::Array(rest) });
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerReference {
    /// apiVersion of the owner.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Uid of the owner; what identifies it.
    pub uid: String,
    /// Whether the owner manages this object.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for this object.
    pub block_owner_deletion: bool,
}

impl OwnerReference {
    /// The reference as it stands in the object.
    pub fn to_value(&self) -> Value {
        json!({
            "apiVersion": self.api_version, "kind": self.kind, "name": self.name, "uid": self.uid,
            "controller": self.controller, "blockOwnerDeletion": self.block_owner_deletion,
        })
    }
}

/// The owner references.
pub fn owners(object: &Value) -> Vec<OwnerReference> {
    let field = |o: &Value, f: &str| o[f].as_str().unwrap_or_default().to_owned();
    object["metadata"]["ownerReferences"]
        .as_array()
        .map(|list| {
            list.iter()
                .map(|o| OwnerReference {
                    api_version: field(o, "apiVersion"),
                    kind: field(o, "kind"),
                    name: field(o, "name"),
                    uid: field(o, "uid"),
                    controller: o["controller"].as_bool().unwrap_or(false),
                    block_owner_deletion: o["blockOwnerDeletion"].as_bool().unwrap_or(false),
                })
                .collect()
        })
        .unwrap_or_default()
}

/// The owner with `controller: true`, if there is one.
pub fn controller_of(object: &Value) -> Option<OwnerReference> {
    owners(object).into_iter().find(|o| o.controller)
}
