//! Short ways through an object held as JSON.

use object_model::{FieldError, FieldPath};
use serde_json::{Map, Value};

/// The text at a dotted path, `None` if there is none or it is empty.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    at(object, path)?.as_str().filter(|text| !text.is_empty())
}

/// The value at a dotted path.
pub(crate) fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(object, |value, name| value.get(name)).filter(|value| !value.is_null())
}

/// The number at a dotted path, 0 if there is none.
pub(crate) fn number(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or(0)
}

/// The list at a dotted path, empty if there is none.
pub(crate) fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A field as a field selector compares it: text, numbers and booleans, empty if it is not set.
pub(crate) fn selectable(object: &Value, path: &str) -> String {
    match at(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
        _ => String::new(),
    }
}

/// The map at a field, made where it is missing.
pub(crate) fn map_at<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    let value = &mut object[field];
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("just made an object")
}

/// The object at a field, made where it is missing.
pub(crate) fn value_at<'a>(object: &'a mut Value, field: &str) -> &'a mut Value {
    map_at(object, field);
    &mut object[field]
}

/// Sets a field unless it is already there and not empty.
pub(crate) fn default(object: &mut Value, field: &str, value: impl Into<Value>) {
    let Some(map) = object.as_object_mut() else { return };
    match map.get(field) {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(_) => return,
    }
    map.insert(field.to_owned(), value.into());
}

/// Every object of a list, to change.
pub(crate) fn each_mut<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Refuses a negative number.
pub(crate) fn not_negative(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath) {
    let value = number(object, field);
    if value < 0 {
        errors.push(FieldError::invalid(&path.child(field), value, NOT_NEGATIVE));
    }
}

/// A number of pods, or a percentage; its number either way.
pub(crate) fn number_or_percentage(
    errors: &mut Vec<FieldError>,
    object: &Value,
    field: &str,
    path: &FieldPath,
) -> Option<i64> {
    let path = path.child(field);
    let value = at(object, field)?;
    if let Some(text) = value.as_str() {
        let percent =
            text.strip_suffix('%').filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()));
        let number = percent.and_then(|digits| digits.parse().ok());
        if number.is_none() {
            let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                       '93%', regex used for validation is '[0-9]+%')";
            errors.push(FieldError::invalid(&path, text, why));
        }
        return number;
    }
    let number = value.as_i64()?;
    if number < 0 {
        errors.push(FieldError::invalid(&path, number, NOT_NEGATIVE));
    }
    Some(number)
}

/// The same with no more than a hundred percent.
pub(crate) fn number_or_part(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath) {
    if number_or_percentage(errors, object, field, path).is_some_and(|number| number > 100) && object[field].is_string()
    {
        let why = "must not be greater than 100%";
        errors.push(FieldError::invalid(&path.child(field), object[field].clone(), why));
    }
}

/// Refuses a text outside a set; an absent one is fine.
pub(crate) fn one_of(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath, set: &[&str]) {
    if let Some(value) = text(object, field)
        && !set.contains(&value)
    {
        errors.push(FieldError::not_supported(&path.child(field), value, set));
    }
}

/// Refuses a change of a field.
pub(crate) fn immutable(errors: &mut Vec<FieldError>, new: &Value, old: &Value, path: &str) {
    let (new, old) = (at(new, path), at(old, path));
    if new != old {
        let path = FieldPath::new(path);
        errors.push(FieldError::invalid(&path, new.cloned().unwrap_or(Value::Null), IMMUTABLE));
    }
}

pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";
