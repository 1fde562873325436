//! The models of custom resources: the schema of a definition with what every object has.

use serde_json::{Map, Value, json};

use super::{Dialect, Own, type_to_model_name};

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object.";
const KIND: &str = "Kind is a string value representing the REST resource this object represents.";

/// The model of an object.
pub(super) fn object(dialect: Dialect, own: &Own) -> Value {
    let open = own.schema["x-kubernetes-preserve-unknown-fields"] == true;
    let mut model = if dialect == Dialect::V2 && (open || !own.schema.is_object()) {
        // Readers of version 2 would refuse the fields that the schema does not name.
        json!({"type": "object"})
    } else if own.schema.is_object() {
        own.schema.clone()
    } else {
        json!({"type": "object"})
    };
    if dialect == Dialect::V2 {
        plain(&mut model);
    }
    embed(dialect, &mut model);
    complete(dialect, &mut model);
    let (group, version, kind) = &own.kind;
    model["x-kubernetes-group-version-kind"] = json!([{"group": group, "version": version, "kind": kind}]);
    model
}

/// The model of a list.
pub(super) fn list(dialect: Dialect, own: &Own) -> Value {
    let (group, version, _) = &own.kind;
    let metadata = "Standard list metadata.";
    json!({
        "description": format!("{} is a list of {}", own.list_kind, own.kind.2),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "metadata": described(dialect, "meta.v1.ListMeta", metadata),
            "items": {"type": "array", "description": format!("List of {}.", own.kind.2.to_lowercase()), "items": dialect.reference(&own.name)},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": own.list_kind}],
    })
}

fn described(dialect: Dialect, ty: &str, description: &str) -> Value {
    let reference = dialect.reference(&type_to_model_name(ty));
    match dialect {
        // Siblings of $ref are ignored by readers of version 3.
        Dialect::V3 => json!({"allOf": [reference], "description": description, "default": {}}),
        Dialect::V2 => {
            let mut property = reference;
            property["description"] = description.into();
            property
        }
    }
}

/// What every object has.
fn complete(dialect: Dialect, model: &mut Value) {
    let properties = &mut model["properties"];
    if !properties.is_object() {
        *properties = Value::Object(Map::new());
    }
    properties["apiVersion"] = json!({"type": "string", "description": API_VERSION});
    properties["kind"] = json!({"type": "string", "description": KIND});
    properties["metadata"] = described(dialect, "meta.v1.ObjectMeta", "Standard object's metadata.");
}

/// Whole objects within the object have the same.
fn embed(dialect: Dialect, schema: &mut Value) {
    each(schema, &mut |schema| {
        if schema["x-kubernetes-embedded-resource"] == true {
            complete(dialect, schema);
        }
    });
}

/// Takes out what version 2 has no words for.
fn plain(schema: &mut Value) {
    let mut strip = |schema: &mut Value| {
        let Some(map) = schema.as_object_mut() else { return };
        for field in ["allOf", "anyOf", "oneOf", "not", "default", "example"] {
            map.remove(field);
        }
        if map.remove("nullable") == Some(Value::Bool(true)) {
            for field in ["type", "items", "properties"] {
                map.remove(field);
            }
        }
    };
    strip(schema);
    each(schema, &mut strip);
}

/// Goes over all schemas below one.
fn each(schema: &mut Value, change: &mut dyn FnMut(&mut Value)) {
    let Some(map) = schema.as_object_mut() else { return };
    for field in ["items", "additionalProperties", "not"] {
        if let Some(inner) = map.get_mut(field).filter(|inner| inner.is_object()) {
            change(inner);
            each(inner, change);
        }
    }
    for inner in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        change(inner);
        each(inner, change);
    }
}
