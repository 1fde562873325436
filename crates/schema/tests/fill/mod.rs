//! Objects filled at random, as their types say.

use schema::{Field, Shape, Type};
use serde_json::{Map, Value, json};

/// A small deterministic generator: a failure names its seed and repeats.
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// A value of a type, filled at random.
pub fn fill(ty: &'static Type, dice: &mut Dice, depth: usize) -> Value {
    let count = if depth > 5 { 0 } else { dice.roll(3) };
    match ty.shape() {
        Shape::Struct(shape) => {
            let mut object = Map::new();
            fill_fields(shape.fields, dice, depth, &mut object);
            Value::Object(object)
        }
        Shape::Map(element) => {
            Value::Object((0..count).map(|n| (format!("k{n}"), fill(element, dice, depth + 1))).collect())
        }
        Shape::List(element) => Value::Array((0..count).map(|_| fill(element, dice, depth + 1)).collect()),
        Shape::Enum(values) => json!(values[dice.roll(values.len() as u64) as usize]),
        Shape::String => json!(["", "a", "ünï", "line\nbreak", "日本"][dice.roll(5) as usize]),
        Shape::Bool => json!(dice.roll(2) == 0),
        Shape::Int32 => json!([0, 1, -1, i32::MAX, i32::MIN][dice.roll(5) as usize]),
        Shape::Int64 => json!([0, 1, -1, i64::MAX, i64::MIN][dice.roll(5) as usize]),
        Shape::Float64 => json!([0.5, -2.25, 1e9][dice.roll(3) as usize]),
        Shape::Bytes => json!(["", "aGVsbG8=", "AAEC/w=="][dice.roll(3) as usize]),
        Shape::Quantity => json!(["0", "500m", "1Gi", "1e3", "2k"][dice.roll(5) as usize]),
        Shape::Time => json!("2024-05-01T10:00:00Z"),
        Shape::MicroTime => json!("2024-05-01T10:00:00.123456Z"),
        Shape::IntOrString => [json!(0), json!(8080), json!("25%"), json!("http")][dice.roll(4) as usize].clone(),
        Shape::Raw => {
            json!({"apiVersion": "example.com/v1", "kind": "Some", "n": [1, {"deep": null}]})
        }
        Shape::FieldsV1 => json!({"f:metadata": {"f:labels": {".": {}}}}),
        Shape::Json => json!(["x", 1, null]),
        Shape::Strings => json!(["a", "b"]),
        Shape::SchemaOrArray | Shape::SchemaOrStrings => json!([]),
        Shape::SchemaOrBool => json!(dice.roll(2) == 0),
        Shape::Any => Value::Null,
    }
}

fn fill_fields(fields: &'static [Field], dice: &mut Dice, depth: usize, object: &mut Map<String, Value>) {
    for field in fields {
        if field.inline {
            if let Some(inner) = field.ty.as_struct() {
                fill_fields(inner.fields, dice, depth, object);
            }
        } else if field.number != 0 && dice.roll(if depth > 3 { 6 } else { 2 }) == 0 {
            object.insert(field.json.to_owned(), fill(field.ty, dice, depth + 1));
        }
    }
}

/// A list that is empty and one that is absent are the same in protobuf; so are maps.
pub fn without_empty_lists(value: &mut Value, ty: &'static Type) {
    match (value, ty.shape()) {
        (Value::Object(object), Shape::Struct(_)) => {
            let names: Vec<String> = object.keys().cloned().collect();
            for name in names {
                let Some(field) = ty.field(&name) else {
                    continue;
                };
                let Some(value) = object.get_mut(&name) else {
                    continue;
                };
                without_empty_lists(value, field.ty);
                let empty = value.as_array().is_some_and(Vec::is_empty)
                    || matches!(field.ty.shape(), Shape::Map(_)) && value.as_object().is_some_and(Map::is_empty);
                if empty && matches!(field.ty.shape(), Shape::List(_) | Shape::Map(_)) {
                    object.remove(&name);
                }
            }
        }
        (Value::Object(object), Shape::Map(element)) => {
            object.values_mut().for_each(|value| without_empty_lists(value, element));
        }
        (Value::Array(list), Shape::List(element)) => {
            list.iter_mut().for_each(|value| without_empty_lists(value, element));
        }
        _ => {}
    }
}
