//! Protobuf as Kubernetes writes it: proto2 messages with the conventions of gogo, in an envelope of its own.
//!
//! Fields without a pointer are always written, zero or not; maps are repeated entries with sorted keys; quantities,
//! times, int-or-strings and raw objects are small messages. Unknown fields of a message are dropped silently.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Number, Value};

use crate::table::json_schema;
use crate::{Field, Shape, Type, normalise, scalar, type_for};

/// The first bytes of every enveloped message.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// Messages nested deeper are refused.
const MAX_DEPTH: usize = 100;

/// Bytes that are not the expected message, or an object that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(pub String);

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// What an envelope says and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// The message without the envelope.
    pub raw: &'a [u8],
}

/// Takes the envelope (`k8s\0` and a `runtime.Unknown`) off.
pub fn unwrap_envelope(body: &[u8]) -> Result<Envelope<'_>, Error> {
    let message = body.strip_prefix(&MAGIC).ok_or_else(|| {
        Error("provided data does not appear to be a protobuf message, expected prefix k8s\\0".into())
    })?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    let mut reader = Reader(message);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, wire)) = meta.next()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Puts a message into the envelope.
pub fn wrap_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let (mut out, after) = envelope_around(api_version, kind, raw.len());
    out.reserve_exact(raw.len() + after.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(&after);
    out
}

/// What the envelope of a message of this length has before and after it.
pub fn envelope_around(api_version: &str, kind: &str, length: usize) -> (Vec<u8>, Vec<u8>) {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    let mut before = MAGIC.to_vec();
    put_bytes(&mut before, 1, &meta);
    put_varint(&mut before, 2 << 3 | 2);
    put_varint(&mut before, length as u64);
    let mut after = Vec::new();
    put_bytes(&mut after, 3, b"");
    put_bytes(&mut after, 4, b"");
    (before, after)
}

/// A message as an object, in the form [`normalise`] gives. `kind` and `apiVersion` are not part of a message: the
/// caller adds them from the envelope.
pub fn decode(ty: &'static Type, raw: &[u8]) -> Result<Value, Error> {
    let mut value = decode_value(ty, raw, 0)?;
    normalise(ty, &mut value);
    Ok(value)
}

/// An object as a message, without `kind` and `apiVersion`.
pub fn encode(ty: &'static Type, value: &Value) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(1024);
    encode_message(ty, value, &mut out)?;
    Ok(out)
}

/// Adds one element of a list-valued field to the message of an object of type `ty`.
pub fn encode_item(ty: &'static Type, field: &str, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    match ty.field(field).map(|field| (field.ty.shape(), field.number)) {
        Some((Shape::List(element), number)) => encode_one(element, value, number, out),
        _ => Err(Error(format!("{} has no list {field}", ty.name))),
    }
}

enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or_else(cut)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error("proto: integer overflow".into()))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let length = usize::try_from(length).map_err(|_| cut())?;
        let (head, rest) = self.0.split_at_checked(length).ok_or_else(cut)?;
        self.0 = rest;
        Ok(head)
    }

    fn next(&mut self) -> Result<Option<(u32, Wire<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error("proto: illegal tag".into()))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let bytes = self.take(8)?;
                Wire::Fixed64(bytes.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
            }
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(Error(format!("proto: illegal wireType {other}"))),
        };
        Ok(Some((number, wire)))
    }
}

fn cut() -> Error {
    Error("unexpected EOF".into())
}

fn utf8(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Error("proto: string field contains invalid UTF-8".into()))
}

/// The value of a length-delimited field.
fn decode_value(ty: &'static Type, raw: &[u8], depth: usize) -> Result<Value, Error> {
    if depth > MAX_DEPTH {
        return Err(Error("proto: message nested too deeply".into()));
    }
    match ty.shape() {
        Shape::Struct(shape) => {
            let mut object = Map::new();
            decode_fields(shape.fields, raw, &mut object, depth)?;
            Ok(Value::Object(object))
        }
        Shape::String | Shape::Enum(_) => Ok(Value::String(utf8(raw)?)),
        Shape::Bytes => Ok(Value::String(STANDARD.encode(raw))),
        Shape::Quantity => {
            let text = first_bytes(raw, 1)?.map(utf8).transpose()?.unwrap_or_default();
            if text.is_empty() {
                return Ok(Value::from("0"));
            }
            scalar::quantity(&text).map(Value::from).map_err(|error| Error(error.to_owned()))
        }
        Shape::Time | Shape::MicroTime => decode_time(raw, matches!(ty.shape(), Shape::MicroTime)),
        Shape::IntOrString => {
            let (mut kind, mut number, mut text) = (0, 0, String::new());
            let mut reader = Reader(raw);
            while let Some((field, wire)) = reader.next()? {
                match (field, wire) {
                    (1, Wire::Varint(value)) => kind = value,
                    (2, Wire::Varint(value)) => number = value as i32,
                    (3, Wire::Bytes(value)) => text = utf8(value)?,
                    _ => {}
                }
            }
            Ok(if kind == 0 { Value::from(number) } else { Value::from(text) })
        }
        Shape::Raw | Shape::FieldsV1 | Shape::Json => match first_bytes(raw, 1)? {
            Some(inner) if inner.starts_with(&MAGIC) => decode_enveloped(inner, depth),
            Some(inner) if !inner.is_empty() => {
                serde_json::from_slice(inner).map_err(|error| Error(format!("raw object: {error}")))
            }
            _ => Ok(Value::Null),
        },
        Shape::Strings => Ok(Value::Array(
            all_bytes(raw, 1)?.into_iter().map(|s| utf8(s).map(Value::from)).collect::<Result<_, _>>()?,
        )),
        Shape::SchemaOrArray => match first_bytes(raw, 1)? {
            Some(schema) => decode_value(json_schema(), schema, depth + 1),
            None => {
                let ty = json_schema();
                let list = all_bytes(raw, 2)?.into_iter().map(|schema| decode_value(ty, schema, depth + 1));
                Ok(Value::Array(list.collect::<Result<_, _>>()?))
            }
        },
        Shape::SchemaOrBool => match first_bytes(raw, 2)? {
            Some(schema) => decode_value(json_schema(), schema, depth + 1),
            None => {
                let mut reader = Reader(raw);
                let mut allows = false;
                while let Some((number, wire)) = reader.next()? {
                    if let (1, Wire::Varint(value)) = (number, wire) {
                        allows = value != 0;
                    }
                }
                Ok(Value::Bool(allows))
            }
        },
        Shape::SchemaOrStrings => match first_bytes(raw, 1)? {
            Some(schema) => decode_value(json_schema(), schema, depth + 1),
            None => Ok(Value::Array(
                all_bytes(raw, 2)?.into_iter().map(|s| utf8(s).map(Value::from)).collect::<Result<_, _>>()?,
            )),
        },
        _ => Err(Error(format!("proto: wrong wireType for {}", ty.name))),
    }
}

fn decode_enveloped(inner: &[u8], depth: usize) -> Result<Value, Error> {
    let envelope = unwrap_envelope(inner)?;
    let ty = type_for(&envelope.api_version, &envelope.kind).ok_or_else(|| {
        Error(format!("no kind {:?} is registered for version {:?}", envelope.kind, envelope.api_version))
    })?;
    let mut value = decode_value(ty, envelope.raw, depth + 1)?;
    normalise(ty, &mut value);
    if let Value::Object(object) = &mut value {
        object.insert("apiVersion".into(), envelope.api_version.into());
        object.insert("kind".into(), envelope.kind.into());
    }
    Ok(value)
}

fn first_bytes(raw: &[u8], wanted: u32) -> Result<Option<&[u8]>, Error> {
    Ok(all_bytes(raw, wanted)?.pop())
}

fn all_bytes(raw: &[u8], wanted: u32) -> Result<Vec<&[u8]>, Error> {
    let mut reader = Reader(raw);
    let mut found = Vec::new();
    while let Some((number, wire)) = reader.next()? {
        if let Wire::Bytes(bytes) = wire
            && number == wanted
        {
            found.push(bytes);
        }
    }
    Ok(found)
}

fn decode_time(raw: &[u8], micro: bool) -> Result<Value, Error> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0i64, 0i32);
    let mut reader = Reader(raw);
    while let Some((number, wire)) = reader.next()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = value as i32,
            _ => {}
        }
    }
    let at = Timestamp::new(seconds, nanos).map_err(|error| Error(format!("time out of range: {error}")))?;
    Ok(Value::from(if micro { scalar::micros(at) } else { scalar::seconds(at) }))
}

fn scalar_value(ty: &'static Type, bits: u64) -> Result<Value, Error> {
    match ty.shape() {
        Shape::Bool => Ok(Value::Bool(bits != 0)),
        Shape::Int32 => Ok(Value::from(bits as i32)),
        Shape::Int64 => Ok(Value::from(bits as i64)),
        _ => Err(Error(format!("proto: wrong wireType for {}", ty.name))),
    }
}

fn decode_fields(
    fields: &'static [Field],
    raw: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error("proto: message nested too deeply".into()));
    }
    let mut reader = Reader(raw);
    while let Some((number, wire)) = reader.next()? {
        let Some(field) = fields.iter().find(|field| field.number == number && number != 0) else {
            continue;
        };
        let name = field.json;
        match (field.ty.shape(), wire) {
            (Shape::Struct(shape), Wire::Bytes(bytes)) if field.inline => {
                decode_fields(shape.fields, bytes, object, depth + 1)?;
            }
            (Shape::List(element), wire) => {
                let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { continue };
                match (element.shape(), wire) {
                    (Shape::Bool | Shape::Int32 | Shape::Int64, Wire::Bytes(packed)) => {
                        let mut packed = Reader(packed);
                        while !packed.0.is_empty() {
                            list.push(scalar_value(element, packed.varint()?)?);
                        }
                    }
                    (_, Wire::Varint(bits)) => list.push(scalar_value(element, bits)?),
                    (_, Wire::Bytes(bytes)) => list.push(decode_value(element, bytes, depth + 1)?),
                    _ => return Err(Error(format!("proto: wrong wireType for field {name}"))),
                }
            }
            (Shape::Map(element), Wire::Bytes(bytes)) => {
                let key = first_bytes(bytes, 1)?.map(utf8).transpose()?.unwrap_or_default();
                let value = decode_value(element, first_bytes(bytes, 2)?.unwrap_or_default(), depth + 1)?;
                let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, value);
                }
            }
            (Shape::Float64, Wire::Fixed64(bits)) => {
                let number = Number::from_f64(f64::from_bits(bits));
                object.insert(name.to_owned(), number.map_or(Value::Null, Value::Number));
            }
            (_, Wire::Varint(bits)) => {
                object.insert(name.to_owned(), scalar_value(field.ty, bits)?);
            }
            (_, Wire::Bytes(bytes)) => {
                object.insert(name.to_owned(), decode_value(field.ty, bytes, depth + 1)?);
            }
            (_, Wire::Fixed64(_) | Wire::Fixed32) => {
                return Err(Error(format!("proto: wrong wireType for field {name}")));
            }
        }
    }
    Ok(())
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_number(out: &mut Vec<u8>, number: u32, value: i64) {
    put_varint(out, u64::from(number) << 3);
    put_varint(out, value as u64);
}

pub(crate) fn put_double(out: &mut Vec<u8>, number: u32, value: f64) {
    put_varint(out, u64::from(number) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// The content of a length-delimited field.
fn encode_message(ty: &'static Type, value: &Value, out: &mut Vec<u8>) -> Result<(), Error> {
    let text = || value.as_str().ok_or_else(|| misfit(ty, value));
    match ty.shape() {
        Shape::Struct(shape) => {
            let empty = Map::new();
            let object = match value {
                Value::Object(object) => object,
                Value::Null => &empty,
                _ => return Err(misfit(ty, value)),
            };
            encode_fields(shape.fields, object, out)
        }
        Shape::String | Shape::Enum(_) => {
            out.extend_from_slice(text()?.as_bytes());
            Ok(())
        }
        Shape::Bytes => {
            out.extend(STANDARD.decode(text()?).map_err(|error| Error(error.to_string()))?);
            Ok(())
        }
        Shape::Quantity => {
            put_bytes(out, 1, text()?.as_bytes());
            Ok(())
        }
        Shape::Time | Shape::MicroTime if value.is_null() => Ok(()),
        Shape::Time | Shape::MicroTime => {
            let at = scalar::parse_time(text()?).map_err(Error)?;
            let floor = at.as_nanosecond().div_euclid(1_000_000_000) as i64;
            let nanos = match ty.shape() {
                Shape::MicroTime => at.as_nanosecond().rem_euclid(1_000_000_000) / 1000 * 1000,
                _ => 0,
            };
            put_number(out, 1, floor);
            put_number(out, 2, nanos as i64);
            Ok(())
        }
        Shape::IntOrString => {
            let (kind, number, text) = match value {
                Value::String(text) => (1, 0, text.as_str()),
                Value::Number(number) => (0, number.as_i64().unwrap_or(0), ""),
                _ => return Err(misfit(ty, value)),
            };
            put_number(out, 1, kind);
            put_number(out, 2, number);
            put_bytes(out, 3, text.as_bytes());
            Ok(())
        }
        Shape::Raw | Shape::FieldsV1 | Shape::Json => {
            if !(value.is_null() && matches!(ty.shape(), Shape::Raw)) {
                put_bytes(out, 1, value.to_string().as_bytes());
            }
            Ok(())
        }
        Shape::Strings => put_strings(ty, value, 1, out),
        Shape::SchemaOrArray if value.is_array() => put_schemas(value.as_array().into_iter().flatten(), 2, out),
        Shape::SchemaOrArray => put_schemas([value], 1, out),
        Shape::SchemaOrBool => match value {
            Value::Bool(allows) => {
                put_number(out, 1, i64::from(*allows));
                Ok(())
            }
            _ => {
                put_number(out, 1, 1);
                put_schemas([value], 2, out)
            }
        },
        Shape::SchemaOrStrings if value.is_array() => put_strings(ty, value, 2, out),
        Shape::SchemaOrStrings => put_schemas([value], 1, out),
        _ => Err(misfit(ty, value)),
    }
}

fn put_strings(ty: &'static Type, value: &Value, number: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    for item in value.as_array().ok_or_else(|| misfit(ty, value))? {
        put_bytes(out, number, item.as_str().ok_or_else(|| misfit(ty, value))?.as_bytes());
    }
    Ok(())
}

fn put_schemas<'v>(schemas: impl IntoIterator<Item = &'v Value>, number: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    let ty = json_schema();
    for schema in schemas {
        let mut message = Vec::new();
        encode_message(ty, schema, &mut message)?;
        put_bytes(out, number, &message);
    }
    Ok(())
}

fn misfit(ty: &'static Type, value: &Value) -> Error {
    let mut text = value.to_string();
    text.truncate(text.char_indices().nth(80).map_or(text.len(), |(at, _)| at));
    Error(format!("cannot encode {text} as {}", ty.name))
}

fn encode_fields(fields: &'static [Field], object: &Map<String, Value>, out: &mut Vec<u8>) -> Result<(), Error> {
    let mut ordered: Vec<&Field> = fields.iter().filter(|field| field.number != 0).collect();
    ordered.sort_by_key(|field| field.number);
    for field in ordered {
        if field.inline {
            if let Some(inner) = field.ty.as_struct() {
                let mut message = Vec::new();
                encode_fields(inner.fields, object, &mut message)?;
                put_bytes(out, field.number, &message);
            }
            continue;
        }
        let value = match object.get(field.json) {
            Some(Value::Null) | None => None,
            Some(value) => Some(value),
        };
        encode_field(field, value, out)?;
    }
    Ok(())
}

fn encode_field(field: &Field, value: Option<&Value>, out: &mut Vec<u8>) -> Result<(), Error> {
    let number = field.number;
    match (field.ty.shape(), value) {
        (Shape::List(element), Some(value)) => {
            for item in value.as_array().ok_or_else(|| misfit(field.ty, value))? {
                encode_one(element, item, number, out)?;
            }
            Ok(())
        }
        (Shape::Map(element), Some(value)) => {
            // The map is sorted by key, as gogo writes it.
            for (key, item) in value.as_object().ok_or_else(|| misfit(field.ty, value))? {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                encode_one(element, item, 2, &mut entry)?;
                put_bytes(out, number, &entry);
            }
            Ok(())
        }
        (_, Some(value)) => encode_one(field.ty, value, number, out),
        (_, None) if field.pointer => Ok(()),
        (Shape::Bool | Shape::Int32 | Shape::Int64, None) => {
            put_number(out, number, 0);
            Ok(())
        }
        (Shape::String | Shape::Enum(_) | Shape::Struct(_), None) => {
            let zero = if field.ty.as_struct().is_some() { Value::Null } else { Value::from("") };
            encode_one(field.ty, &zero, number, out)
        }
        (Shape::Time | Shape::MicroTime | Shape::Raw, None) => encode_one(field.ty, &Value::Null, number, out),
        (Shape::IntOrString, None) => encode_one(field.ty, &Value::from(0), number, out),
        (Shape::Quantity, None) => encode_one(field.ty, &Value::from("0"), number, out),
        _ => Ok(()),
    }
}

fn encode_one(ty: &'static Type, value: &Value, number: u32, out: &mut Vec<u8>) -> Result<(), Error> {
    match ty.shape() {
        Shape::Bool => put_number(out, number, i64::from(value.as_bool().ok_or_else(|| misfit(ty, value))?)),
        Shape::Int32 | Shape::Int64 => put_number(out, number, value.as_i64().ok_or_else(|| misfit(ty, value))?),
        Shape::Float64 => put_double(out, number, value.as_f64().ok_or_else(|| misfit(ty, value))?),
        _ => {
            let mut message = Vec::new();
            encode_message(ty, value, &mut message)?;
            put_bytes(out, number, &message);
        }
    }
    Ok(())
}
