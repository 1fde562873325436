//! What a structural schema declares to expressions: types, and how large the data may become.

use std::collections::BTreeMap;

use expressions::{Declaration, Field, ListKind, Type, escape};
use serde_json::{Value, json};

/// How large a request may be. What a schema leaves without a bound is bounded by it.
pub(super) const MAX_REQUEST: u64 = 3 * 1024 * 1024;
const MAX_DURATION: u64 = 32;
const MAX_DATE_TIME: u64 = 32;
const DATE: u64 = 12;

/// A declaration, and the least number of bytes that its data has as JSON.
pub(super) struct Declared {
    pub declaration: Declaration,
    pub min_size: u64,
}

/// What the schema declares; `None` if expressions do not see the data at all.
pub(super) fn declare(schema: &Value, name: &str, resource: bool) -> Option<Declared> {
    let bound = |key: &str| schema[key].as_i64().map(|n| u64::try_from(n).unwrap_or(0));
    let is = |key: &str| schema[key] == true;
    let sized = |ty, max, min_size| Some(Declared { declaration: Declaration::sized(ty, max), min_size });
    // A length is told in characters, each of which may have four bytes.
    let max_length = bound("maxLength").map(|length| length.saturating_mul(4));
    if is("x-kubernetes-int-or-string") {
        return sized(Type::Dyn, max_length.unwrap_or(MAX_REQUEST - 2), 1);
    }
    let with_metadata = resource.then(|| with_type_and_metadata(schema));
    let schema = with_metadata.as_ref().unwrap_or(schema);
    match schema["type"].as_str()? {
        "array" => {
            let items = declare(schema.get("items")?, &format!("{name}.@idx"), embedded(&schema["items"]))?;
            let max = bound("maxItems").unwrap_or((MAX_REQUEST - 2) / (items.min_size + 1));
            Some(Declared { declaration: Declaration::list(items.declaration, list_kind(schema), max), min_size: 2 })
        }
        "object" if schema["additionalProperties"].is_object() => {
            let values = &schema["additionalProperties"];
            let values = declare(values, &format!("{name}.@elem"), embedded(values))?;
            let max = bound("maxProperties").unwrap_or((MAX_REQUEST - 2) / (values.min_size + 6));
            Some(Declared { declaration: Declaration::map(values.declaration, max), min_size: 2 })
        }
        "object" => Some(declare_object(schema, name)),
        "string" => match schema["format"].as_str().unwrap_or("") {
            "byte" => sized(Type::Bytes, bound("maxLength").unwrap_or(MAX_REQUEST - 2), 2),
            "duration" => sized(Type::Duration, MAX_DURATION, 5),
            "date" => sized(Type::Timestamp, DATE, DATE),
            "date-time" => sized(Type::Timestamp, MAX_DATE_TIME, 21),
            _ => {
                let longest = || {
                    let values = schema["enum"].as_array().filter(|values| !values.is_empty())?;
                    values.iter().map(|value| value.as_str().map_or(0, str::len) as u64).max()
                };
                sized(Type::String, max_length.or_else(longest).unwrap_or(MAX_REQUEST - 2), 2)
            }
        },
        "boolean" => sized(Type::Bool, 0, 4),
        "number" => sized(Type::Double, 0, 1),
        "integer" => sized(Type::Int, 0, 1),
        _ => None,
    }
}

fn declare_object(schema: &Value, name: &str) -> Declared {
    let required = schema["required"].as_array();
    let mut fields = BTreeMap::new();
    let mut min_size = 2;
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let Some(declared) = declare(property, &format!("{name}.{key}"), embedded(property)) else { continue };
        let must = required.is_some_and(|required| required.iter().any(|one| one == key));
        if must && property.get("default").is_none() {
            min_size += key.len() as u64 + declared.min_size + 4;
        }
        if let Some(name) = escape(key) {
            fields.insert(name, Field { key: key.clone(), declaration: declared.declaration });
        }
    }
    Declared { declaration: Declaration::object(name, fields), min_size }
}

fn list_kind(schema: &Value) -> ListKind {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListKind::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            let keys = keys.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            ListKind::Map(keys.collect())
        }
        _ => ListKind::Atomic,
    }
}

/// Whether the data is a whole object of its own.
pub(super) fn embedded(schema: &Value) -> bool {
    schema["x-kubernetes-embedded-resource"] == true
}

/// The schema of an object, whose type and name expressions see even if it does not tell them.
fn with_type_and_metadata(schema: &Value) -> Value {
    let is = |pointer: &str, ty: &str| schema.pointer(pointer).is_some_and(|property| property["type"] == ty);
    let told = is("/properties/kind", "string")
        && is("/properties/apiVersion", "string")
        && is("/properties/metadata", "object")
        && is("/properties/metadata/properties/name", "string")
        && is("/properties/metadata/properties/generateName", "string");
    let mut schema = schema.clone();
    if told || !schema.is_object() {
        return schema;
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let text = json!({"type": "string"});
    schema["properties"]["kind"] = text.clone();
    schema["properties"]["apiVersion"] = text.clone();
    schema["properties"]["metadata"] = json!({"type": "object", "properties": {"name": text, "generateName": text}});
    schema
}
