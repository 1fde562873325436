//! Strategic merge patches: a partial object whose lists are merged by key, as the type says.
//!
//! Directives: `$patch: replace|delete|merge` in an object or a list element, `$retainKeys` in a union-like object,
//! `$setElementOrder/x` and `$deleteFromPrimitiveList/x` beside a list `x`. Elements that only the server has keep their
//! place relative to each other, and come before new ones.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::table::any;
use crate::{Field, PatchError, Shape, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch to an object of this type.
pub fn strategic_merge(ty: &'static Type, current: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(PatchError::Malformed("error decoding patch: a strategic merge patch is a JSON object".into()));
    };
    merge_object(ty, current.clone(), patch).map(Value::Object)
}

fn merge_object(
    ty: &'static Type,
    mut current: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, PatchError> {
    match patch.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut replaced = patch.clone();
            replaced.remove(PATCH);
            return Ok(replaced);
        }
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(other)),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain(&mut current, patch, keys)?;
    }
    for (name, order) in patch.iter().filter_map(|(key, order)| Some((key.strip_prefix(SET_ORDER)?, order))) {
        let order = order.as_array().ok_or_else(|| {
            PatchError::Malformed(format!("{SET_ORDER}{name}: invalid patch format, expected a list"))
        })?;
        let field = ty.field(name);
        let original = current.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let merged = match patch.get(name) {
            Some(Value::Array(list)) => merge_list(field, name, original.clone(), list)?,
            Some(_) => continue,
            None if original.is_empty() => continue,
            None => original.clone(),
        };
        let key = field.and_then(|field| field.merge_key);
        current.insert(name.to_owned(), Value::Array(arrange(merged, order, &original, key)));
    }
    for (name, gone) in patch.iter().filter_map(|(key, gone)| Some((key.strip_prefix(DELETE_FROM)?, gone))) {
        let gone = gone.as_array().ok_or_else(|| {
            PatchError::Malformed(format!("{DELETE_FROM}{name}: invalid patch format, expected a list"))
        })?;
        if let Some(Value::Array(list)) = current.get_mut(name) {
            list.retain(|item| !gone.contains(item));
        }
    }
    for (name, change) in patch {
        if name.starts_with('$') || change.is_array() && patch.contains_key(&format!("{SET_ORDER}{name}")) {
            continue;
        }
        let field = ty.field(name);
        let value = match (current.remove(name), change) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(change)) if !field.is_some_and(|field| field.patch_replace) => {
                Value::Object(merge_object(value_type(ty, field), old, change)?)
            }
            (Some(Value::Array(old)), Value::Array(change)) => {
                let mut old = old;
                if let Some(Value::Array(gone)) = patch.get(&format!("{DELETE_FROM}{name}")) {
                    old.retain(|item| !gone.contains(item));
                }
                Value::Array(merge_list(field, name, old, change)?)
            }
            (_, change) => without_directives(change),
        };
        current.insert(name.clone(), value);
    }
    Ok(current)
}

/// The type of a field's value; the elements of a map have no field of their own.
fn value_type(ty: &'static Type, field: Option<&'static Field>) -> &'static Type {
    match (field, ty.shape()) {
        (Some(field), _) => field.ty,
        (None, Shape::Map(element)) => element,
        _ => any(),
    }
}

fn unknown_directive(directive: &str) -> PatchError {
    PatchError::DoesNotApply(format!("Unknown patch type found: {directive}"))
}

fn retain(current: &mut Map<String, Value>, patch: &Map<String, Value>, keys: &Value) -> Result<(), PatchError> {
    let keys: Vec<&str> = keys.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let stray =
        patch.iter().find(|(key, value)| !key.starts_with('$') && !value.is_null() && !keys.contains(&key.as_str()));
    if keys.is_empty() || stray.is_some() {
        return Err(PatchError::Malformed(
            "error when handling $retainKeys: invalid patch format of retainKeys".into(),
        ));
    }
    current.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// A value that meets nothing to be merged with: directives and nulls have nothing to act on.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(
            object
                .iter()
                .filter(|(key, value)| !value.is_null() && !is_directive(key))
                .map(|(key, value)| (key.clone(), without_directives(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(
            list.iter()
                .filter(|item| item.get(PATCH).and_then(Value::as_str) != Some("delete"))
                .filter(|item| !is_bare_replace(item))
                .map(without_directives)
                .collect(),
        ),
        other => other.clone(),
    }
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

/// `{"$patch": "replace"}` as a list element: the rest of the patch replaces the list.
fn is_bare_replace(item: &Value) -> bool {
    item.get(PATCH).and_then(Value::as_str) == Some("replace") && item.as_object().is_some_and(|o| o.len() == 1)
}

fn merge_list(
    field: Option<&'static Field>,
    name: &str,
    mut original: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, PatchError> {
    let Some(field) = field.filter(|field| field.patch_merge) else {
        return Ok(patch.iter().map(without_directives).collect());
    };
    let objects = original.iter().chain(patch).any(Value::is_object);
    if !objects {
        let mut merged = original.clone();
        for item in patch {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return Ok(arrange(merged, patch, &original, None));
    }
    let Some(key) = field.merge_key else {
        return Err(PatchError::DoesNotApply(format!("cannot merge lists without merge key for {name}")));
    };
    let mut changes: Vec<&Value> = Vec::new();
    let mut replace = false;
    for item in patch {
        let object = item.as_object().ok_or_else(|| {
            PatchError::DoesNotApply(format!("{name}: a list of objects cannot be merged with {item}"))
        })?;
        match object.get(PATCH).map(|directive| directive.as_str().unwrap_or_default()) {
            None | Some("merge") => changes.push(item),
            Some("replace") => {
                replace = true;
                if object.len() > 1 {
                    changes.push(item);
                }
            }
            Some("delete") => {
                let gone = object.get(key).ok_or_else(|| no_key(item, key))?;
                original.retain(|old| old.get(key) != Some(gone));
            }
            Some(other) => return Err(unknown_directive(other)),
        }
    }
    if replace {
        return Ok(changes.into_iter().map(without_directives).collect());
    }
    let element = match field.ty.shape() {
        Shape::List(element) => element,
        _ => any(),
    };
    let mut merged = original.clone();
    for change in &changes {
        let wanted = change.get(key).ok_or_else(|| no_key(change, key))?;
        match merged.iter_mut().find(|old| old.get(key) == Some(wanted)) {
            Some(old) => {
                if let (Value::Object(map), Value::Object(change)) = (&mut *old, change) {
                    *old = Value::Object(merge_object(element, std::mem::take(map), change)?);
                }
            }
            None => merged.push(without_directives(change)),
        }
    }
    Ok(arrange(merged, patch, &original, Some(key)))
}

fn no_key(item: &Value, key: &str) -> PatchError {
    PatchError::DoesNotApply(format!("map: {item} does not contain declared merge key: {key}"))
}

/// Where an element (a whole object, or its key alone) stands in a list.
fn position(list: &[Value], item: &Value, key: Option<&str>) -> Option<usize> {
    match key {
        Some(key) => list.iter().position(|other| other.get(key).is_some() && other.get(key) == item.get(key)),
        None => list.iter().position(|other| other == item),
    }
}

/// Puts the elements named in `order` into that order, and the server's own among them where the original had them.
fn arrange(merged: Vec<Value>, order: &[Value], original: &[Value], key: Option<&str>) -> Vec<Value> {
    let (mut wanted, mut own): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(order, item, key).is_some());
    wanted.sort_by_key(|item| position(order, item, key));
    own.sort_by(|a, b| match (position(original, a, key), position(original, b, key)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => Ordering::Equal,
    });
    let (mut wanted, mut own) = (wanted.into_iter().peekable(), own.into_iter().peekable());
    let mut all = Vec::new();
    while let (Some(left), Some(right)) = (wanted.peek(), own.peek()) {
        // An element that is new to the object comes before the server's own.
        let own_first = match (position(original, right, key), position(original, left, key)) {
            (Some(right), Some(left)) => right < left,
            _ => false,
        };
        all.extend(if own_first { own.next() } else { wanted.next() });
    }
    all.extend(wanted);
    all.extend(own);
    all
}
