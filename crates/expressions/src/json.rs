//! From JSON to values and back.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::declaration::{Declaration, Shape};
use crate::error::EvalError;
use crate::functions::time;
use crate::types::Type;
use crate::value::{Key, List, Map, Value};

pub(crate) fn dynamic(json: &Json) -> Value<'_> {
    match json {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(number) => match number.as_i64() {
            Some(n) => Value::Int(n),
            None => Value::Double(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::List(List::Json { items, declaration: None }),
        Json::Object(entries) => Value::Map(Map::Json { entries, declaration: None }),
    }
}

pub(crate) fn part<'a>(json: &'a Json, declaration: Option<&'a Declaration>) -> Result<Value<'a>, EvalError> {
    match declaration {
        Some(declaration) => declared(json, declaration),
        None => Ok(dynamic(json)),
    }
}

pub(crate) fn declared<'a>(json: &'a Json, declaration: &'a Declaration) -> Result<Value<'a>, EvalError> {
    let unfit = |expected: &str| Err(EvalError::new(format!("invalid data, expected {expected}, got {}", kind(json))));
    match (&declaration.ty, json) {
        // Where null is not allowed, it never gets as far as an expression.
        (_, Json::Null) => Ok(Value::Null),
        (Type::Double, Json::Number(number)) => Ok(Value::Double(number.as_f64().unwrap_or(f64::NAN))),
        (Type::Double, _) => unfit("float"),
        (Type::Int, Json::Number(number)) => match whole(number) {
            Some(n) => Ok(Value::Int(n)),
            None => unfit("int"),
        },
        (Type::Int, _) => unfit("int"),
        (Type::Bool, Json::Bool(b)) => Ok(Value::Bool(*b)),
        (Type::Bool, _) => unfit("bool"),
        (Type::String, Json::String(text)) => Ok(Value::from(text.as_str())),
        (Type::Duration, Json::String(text)) => match time::parse_format_duration(text) {
            Some(duration) => Ok(Value::Duration(duration)),
            None => Err(EvalError::new(format!("Invalid duration {text}: unable to parse {text} into duration"))),
        },
        (Type::Timestamp, Json::String(text)) => match time::parse_format_timestamp(text) {
            Some(timestamp) => Ok(Value::Timestamp(timestamp)),
            None => Err(EvalError::new(format!("Invalid date-time formatted string {text}"))),
        },
        (Type::Bytes, Json::String(text)) => match STANDARD.decode(text) {
            Ok(bytes) => Ok(Value::Bytes(bytes.into())),
            Err(error) => Err(EvalError::new(format!("Invalid byte formatted string {text}: {error}"))),
        },
        (Type::String | Type::Duration | Type::Timestamp | Type::Bytes, _) => unfit("string"),
        (Type::List(_), Json::Array(items)) => Ok(Value::List(List::Json { items, declaration: shaped(declaration) })),
        (Type::List(_), _) => unfit("an array for the provided schema with type=array"),
        (Type::Map(..) | Type::Object(_), Json::Object(entries)) => {
            Ok(Value::Map(Map::Json { entries, declaration: shaped(declaration) }))
        }
        (Type::Map(..) | Type::Object(_), _) => unfit("a map for the provided schema with type=object"),
        _ => Ok(dynamic(json)),
    }
}

/// The declaration, if it says more than that anything may be inside.
fn shaped(declaration: &Declaration) -> Option<&Declaration> {
    (!matches!(declaration.shape, Shape::Plain)).then_some(declaration)
}

fn whole(number: &serde_json::Number) -> Option<i64> {
    let double = || number.as_f64().filter(|n| n.fract() == 0.0 && n.abs() < 9.2e18).map(|n| n as i64);
    number.as_i64().or_else(double)
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

pub(crate) fn of(value: &Value<'_>) -> Result<Json, EvalError> {
    let unable = || EvalError::new(format!("type conversion error from '{}' to JSON", value.type_name()));
    Ok(match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => Json::from(*n),
        Value::Uint(n) => Json::from(*n),
        Value::Double(n) => Json::Number(serde_json::Number::from_f64(*n).ok_or_else(unable)?),
        Value::String(text) => Json::from(text.as_str()),
        Value::Bytes(bytes) => Json::from(STANDARD.encode(bytes)),
        Value::Duration(duration) => Json::from(time::format_duration(*duration)),
        Value::Timestamp(timestamp) => Json::from(time::format_timestamp(*timestamp)),
        Value::List(List::Json { items, .. }) => Json::Array(items.to_vec()),
        Value::Map(Map::Json { entries, .. }) => Json::Object((*entries).clone()),
        Value::List(List::Made(values)) => Json::Array(values.iter().map(of).collect::<Result<_, _>>()?),
        Value::Map(Map::Made { entries, .. }) => {
            let entries = entries.iter().map(|(key, value)| Ok((key.to_string(), of(value)?)));
            Json::Object(entries.collect::<Result<_, EvalError>>()?)
        }
        Value::Optional(Some(inner)) => of(inner)?,
        Value::Quantity(quantity) => Json::from(quantity.to_string()),
        Value::Ip(ip) => Json::from(ip.to_string()),
        Value::Cidr(cidr) => Json::from(cidr.to_string()),
        Value::Url(url) => Json::from(url.text()),
        Value::Semver(version) => Json::from(version.to_string()),
        Value::Type(_) | Value::Format(_) | Value::Access(_) | Value::Decision(_) => return Err(unable()),
    })
}

/// A map made by an expression, of what an entry list says.
pub(crate) fn insert<'a>(map: Map<'a>, key: &Value<'a>, value: Value<'a>) -> Result<Value<'a>, EvalError> {
    let key = Key::of(key)?;
    let mut entries = match map {
        Map::Made { entries, .. } => entries,
        Map::Json { .. } => {
            let mut entries = std::collections::BTreeMap::new();
            for known in map.keys() {
                let known = Key::of(&known)?;
                if let Some(value) = map.get(&known) {
                    entries.insert(known, value?);
                }
            }
            Arc::new(entries)
        }
    };
    if entries.contains_key(&key) {
        return Err(EvalError::new(format!("insert failed: key {key} already exists")));
    }
    Arc::make_mut(&mut entries).insert(key, value);
    Ok(Value::Map(Map::Made { entries, ty: None }))
}
