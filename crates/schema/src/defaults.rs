//! Defaults of the table, and the habits of JSON: which zero values are written and which are left out.

use serde_json::{Map, Value};

use crate::table::json_schema;
use crate::{Field, Shape, Type};

/// Sets the defaults that the table knows in every object that is present. What only code can tell (one field's
/// default hanging on another) belongs to the kind.
pub fn apply_defaults(ty: &'static Type, value: &mut Value) {
    match (ty.shape(), value) {
        (Shape::Struct(shape), Value::Object(object)) => default_fields(shape.fields, object),
        (Shape::List(element), Value::Array(list)) => list.iter_mut().for_each(|item| apply_defaults(element, item)),
        (Shape::Map(element), Value::Object(map)) => map.values_mut().for_each(|item| apply_defaults(element, item)),
        _ => {}
    }
}

fn default_fields(fields: &'static [Field], object: &mut Map<String, Value>) {
    for field in fields {
        if field.inline {
            if let Some(inner) = field.ty.as_struct() {
                default_fields(inner.fields, object);
            }
            continue;
        }
        let absent = match object.get(field.json) {
            None | Some(Value::Null) => true,
            // Without a pointer an explicit zero cannot be told from an absent field.
            Some(value) => !field.pointer && is_zero(value),
        };
        if let (true, Some(text)) = (absent, field.default)
            && let Ok(default) = serde_json::from_str(text)
        {
            object.insert(field.json.to_owned(), default);
        }
        if let Some(value) = object.get_mut(field.json) {
            apply_defaults(field.ty, value);
        }
    }
}

/// Brings an object into the form upstream's JSON has: zero values that are always written are there (`status: {}`,
/// `resources: {}`, `restartCount: 0`), those that are omitted when empty are not, and neither are nulls.
pub fn normalise(ty: &'static Type, value: &mut Value) {
    match (ty.shape(), value) {
        (Shape::Struct(shape), Value::Object(object)) => normalise_fields(shape.fields, object),
        (Shape::List(element), Value::Array(list)) => list.iter_mut().for_each(|item| normalise(element, item)),
        (Shape::Map(element), Value::Object(map)) => map.values_mut().for_each(|item| normalise(element, item)),
        (Shape::SchemaOrArray, Value::Array(list)) => list.iter_mut().for_each(|item| normalise(json_schema(), item)),
        (Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings, value @ Value::Object(_)) => {
            normalise(json_schema(), value);
        }
        _ => {}
    }
}

fn normalise_fields(fields: &'static [Field], object: &mut Map<String, Value>) {
    for field in fields {
        if field.inline {
            if let Some(inner) = field.ty.as_struct() {
                normalise_fields(inner.fields, object);
            }
            continue;
        }
        if object.get(field.json).is_some_and(Value::is_null) {
            object.remove(field.json);
        }
        if !field.pointer
            && !object.contains_key(field.json)
            && let Some(zero) = always_written(field)
        {
            object.insert(field.json.to_owned(), zero);
        }
        let Some(value) = object.get_mut(field.json) else {
            continue;
        };
        normalise(field.ty, value);
        if field.omitempty && !field.pointer && is_zero(value) && always_written(field).is_none() {
            object.remove(field.json);
        }
    }
}

/// The zero value of a field that appears even if nobody set it: all but pointers when not omitted, and structs anyhow.
fn always_written(field: &Field) -> Option<Value> {
    match field.ty.shape() {
        Shape::Struct(_) => Some(Value::Object(Map::new())),
        Shape::Quantity => Some(Value::from("0")),
        Shape::IntOrString => Some(Value::from(0)),
        _ if field.omitempty => None,
        Shape::String | Shape::Enum(_) => Some(Value::from("")),
        Shape::Int32 | Shape::Int64 => Some(Value::from(0)),
        Shape::Bool => Some(Value::from(false)),
        _ => None,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}
