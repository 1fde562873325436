//! Text or value to an object of a known type: unknown and duplicate fields are reported, scalars are checked and
//! brought into their canonical spelling.
//!
//! One pass over the text: a serde visitor walks the type alongside. A scalar of the wrong type is remembered and the
//! pass goes on, so that the first such error is reported whatever follows.

use std::cell::RefCell;
use std::fmt::{self, Write};

use base64::Engine;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::table::{any, json_schema, string};
use crate::{Shape, Type, scalar};

/// Problems reported for one object; more would not help anybody.
const MAX_PROBLEMS: usize = 100;

/// A decoded object and what was questionable about its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object; unknown fields are gone.
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.bar"`: refused by strict validation, warned about otherwise.
    pub problems: Vec<String>,
}

/// Why a body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON or YAML at all, or nested too deeply.
    Malformed(String),
    /// A value of the wrong type.
    Type {
        /// The whole sentence, `json: cannot unmarshal string into Go struct field …`.
        message: String,
        /// Where, such as `spec.replicas`.
        path: String,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DecodeError::Malformed(text) | DecodeError::Type { message: text, .. } => f.write_str(text),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Decodes JSON text. Nesting deeper than 128 levels is refused.
pub fn decode_json(ty: &'static Type, body: &[u8]) -> Result<Decoded, DecodeError> {
    let pass = Pass::default();
    let mut text = serde_json::Deserializer::from_slice(body);
    let value = pass.node(ty).deserialize(&mut text).and_then(|value| text.end().map(|()| value));
    pass.finish(ty, value.map_err(|error| error.to_string()))
}

/// Decodes YAML text as `kubectl` writes it: YAML 1.1 booleans and octal numbers, one document, limited aliases.
pub fn decode_yaml(ty: &'static Type, body: &[u8]) -> Result<Decoded, DecodeError> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::PassThrough,
        with_snippet: false,
    };
    let pass = Pass::default();
    let value =
        serde_saphyr::with_deserializer_from_slice_with_options(body, options, |yaml| pass.node(ty).deserialize(yaml));
    pass.finish(ty, value.map_err(|error| format!("error converting YAML to JSON: yaml: {error}")))
}

/// The line and the name of the first key that a map of a YAML text has twice.
pub fn key_given_twice(body: &[u8]) -> Option<(u64, String)> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    let read =
        serde_saphyr::with_deserializer_from_slice_with_options(body, options, |yaml| Skipped::deserialize(yaml));
    match read.err()? {
        serde_saphyr::Error::DuplicateMappingKey { key, location } => Some((location.line(), key.unwrap_or_default())),
        _ => None,
    }
}

/// Checks an already parsed value, such as the result of a patch, as if it had just been decoded.
pub fn conform(ty: &'static Type, value: Value) -> Result<Decoded, DecodeError> {
    let pass = Pass::default();
    let value = pass.node(ty).deserialize(value);
    pass.finish(ty, value.map_err(|error| error.to_string()))
}

/// What one pass has met so far, and where it stands.
#[derive(Default)]
struct Pass(RefCell<State>);

#[derive(Default)]
struct State {
    path: Vec<Step>,
    /// Name of the struct whose field is being read.
    owner: Option<&'static str>,
    problems: Vec<String>,
    error: Option<DecodeError>,
}

enum Step {
    Field(String),
    /// The key of a map.
    Entry(String),
    Index(usize),
}

impl Pass {
    fn node(&self, ty: &'static Type) -> Node<'_> {
        Node { ty, pass: self }
    }

    fn finish(self, ty: &'static Type, value: Result<Value, String>) -> Result<Decoded, DecodeError> {
        let value = value.map_err(DecodeError::Malformed)?;
        let state = self.0.into_inner();
        match state.error {
            Some(error) => Err(error),
            None if value.is_null() && ty.as_struct().is_some() => {
                Ok(Decoded { value: Value::Object(Map::new()), problems: state.problems })
            }
            None => Ok(Decoded { value, problems: state.problems }),
        }
    }

    fn problem(&self, what: &str, key: &str) {
        let mut state = self.0.borrow_mut();
        if state.problems.len() < MAX_PROBLEMS {
            let mut path = state.path_text(true);
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
            let problem = format!("{what} field {path:?}");
            if !state.problems.contains(&problem) {
                state.problems.push(problem);
            }
        }
    }

    /// Remembers that `found` stands where `ty` belongs.
    fn mismatch(&self, ty: &'static Type, found: &str) -> Value {
        let state = self.0.borrow();
        let go = go_type(ty);
        let message = match state.owner {
            Some(owner) => {
                let owner = owner.rsplit('.').next().unwrap_or(owner);
                let path = state.path_text(false);
                format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {go}")
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {go}"),
        };
        drop(state);
        self.fail(message)
    }

    fn fail(&self, message: String) -> Value {
        let mut state = self.0.borrow_mut();
        let path = state.path_text(true);
        state.error.get_or_insert(DecodeError::Type { message, path });
        Value::Null
    }

    fn enter<R>(&self, step: Step, read: impl FnOnce() -> R) -> R {
        self.0.borrow_mut().path.push(step);
        let result = read();
        self.0.borrow_mut().path.pop();
        result
    }
}

impl State {
    fn path_text(&self, with_indices: bool) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                // Go's messages name neither the elements of lists nor the entries of maps.
                Step::Entry(_) if !with_indices => {}
                Step::Field(name) | Step::Entry(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
                Step::Index(at) if with_indices => {
                    let _ = write!(text, "[{at}]");
                }
                Step::Index(_) => {}
            }
        }
        text
    }
}

/// Any value, read and dropped. Unlike serde's own, it is refused where it is nested too deeply.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_any(Skipped)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_none<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Self, D::Error> {
        Self::deserialize(input)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Self, A::Error> {
        while input.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Self, A::Error> {
        while input.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// What a Go client would call the type: upstream's texts use these names.
fn go_type(ty: &'static Type) -> String {
    match ty.shape() {
        Shape::List(element) => format!("[]{}", go_type(element)),
        Shape::Map(element) => format!("map[string]{}", go_type(element)),
        Shape::Strings => "[]string".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::IntOrString => "intstr.IntOrString".to_owned(),
        Shape::Raw => "runtime.RawExtension".to_owned(),
        Shape::FieldsV1 => "v1.FieldsV1".to_owned(),
        Shape::Struct(_) | Shape::Enum(_) => ty.name.split_once('.').map_or(ty.name, |(_, name)| name).to_owned(),
        _ => ty.name.to_owned(),
    }
}

/// What an explicit null means as an element of a list or map.
fn zero(ty: &'static Type) -> Value {
    match ty.shape() {
        Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) | Shape::Strings => Value::Array(Vec::new()),
        Shape::String | Shape::Enum(_) | Shape::Bytes => Value::from(""),
        Shape::Quantity => Value::from("0"),
        Shape::Int32 | Shape::Int64 | Shape::Float64 | Shape::IntOrString => Value::from(0),
        Shape::Bool => Value::from(false),
        _ => Value::Null,
    }
}

/// One place in the object: a type, and the pass it belongs to.
#[derive(Clone, Copy)]
struct Node<'p> {
    ty: &'static Type,
    pass: &'p Pass,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl Node<'_> {
    fn number(self, number: Number) -> Value {
        let range = match self.ty.shape() {
            Shape::Int32 | Shape::IntOrString => i64::from(i32::MIN)..=i64::from(i32::MAX),
            Shape::Int64 => i64::MIN..=i64::MAX,
            Shape::Quantity => {
                return match scalar::quantity(&number.to_string()) {
                    Ok(text) => Value::from(text),
                    Err(message) => self.pass.fail(message.to_owned()),
                };
            }
            Shape::Float64 | Shape::Any | Shape::Json => return Value::Number(number),
            _ => return self.pass.mismatch(self.ty, "number"),
        };
        match number.as_i64() {
            Some(n) if range.contains(&n) => Value::Number(number),
            _ => self.pass.mismatch(self.ty, &format!("number {number}")),
        }
    }

    fn text(self, text: &str) -> Value {
        let canonical = match self.ty.shape() {
            Shape::String | Shape::Enum(_) | Shape::IntOrString | Shape::Any | Shape::Json => Ok(text.to_owned()),
            Shape::Quantity => scalar::quantity(text).map_err(str::to_owned),
            Shape::Time => scalar::time(text),
            Shape::MicroTime => scalar::micro_time(text),
            Shape::Bytes => base64_text(text),
            _ => return self.pass.mismatch(self.ty, "string"),
        };
        canonical.map_or_else(|message| self.pass.fail(message), Value::from)
    }

    fn structure<'de, A: MapAccess<'de>>(self, ty: &'static Type, mut input: A) -> Result<Value, A::Error> {
        let outer = self.pass.0.borrow_mut().owner.replace(ty.name);
        let mut object = Map::new();
        let mut seen: Vec<&'static str> = Vec::new();
        let open = ty.as_struct().is_some_and(|shape| shape.open);
        while let Some(key) = input.next_key_seed(Key)? {
            let Some(field) = ty.field(&key) else {
                if open {
                    if object.contains_key(&key) {
                        self.pass.problem("duplicate", &key);
                    }
                    let step = Step::Field(key.clone());
                    let value = self.pass.enter(step, || input.next_value_seed(self.pass.node(any())))?;
                    object.insert(key, value);
                    continue;
                }
                self.pass.problem("unknown", &key);
                input.next_value::<Skipped>()?;
                continue;
            };
            if seen.contains(&field.json) {
                self.pass.problem("duplicate", &key);
            }
            seen.push(field.json);
            let value = self.pass.enter(Step::Field(key), || input.next_value_seed(self.pass.node(field.ty)))?;
            if value.is_null() && !matches!(field.ty.shape(), Shape::Json | Shape::Any) {
                object.remove(field.json);
            } else {
                object.insert(field.json.to_owned(), value);
            }
        }
        self.pass.0.borrow_mut().owner = outer;
        Ok(Value::Object(object))
    }

    fn map<'de, A: MapAccess<'de>>(self, element: &'static Type, mut input: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = input.next_key_seed(Key)? {
            if object.contains_key(&key) {
                self.pass.problem("duplicate", &key);
            }
            let step = Step::Entry(key.clone());
            let mut value = self.pass.enter(step, || input.next_value_seed(self.pass.node(element)))?;
            if value.is_null() {
                value = zero(element);
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of type {}", self.ty.name)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(match self.ty.shape() {
            Shape::Bool | Shape::Any | Shape::Json | Shape::SchemaOrBool => Value::Bool(value),
            _ => self.pass.mismatch(self.ty, "bool"),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(match Number::from_f64(value) {
            Some(number) => self.number(number),
            None => self.pass.mismatch(self.ty, "number"),
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.deserialize(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let element = match self.ty.shape() {
            Shape::List(element) => element,
            Shape::Strings | Shape::SchemaOrStrings => string(),
            Shape::SchemaOrArray => json_schema(),
            Shape::Any | Shape::Json => any(),
            _ => {
                while input.next_element::<Skipped>()?.is_some() {}
                return Ok(self.pass.mismatch(self.ty, "array"));
            }
        };
        let mut list = Vec::new();
        loop {
            let step = Step::Index(list.len());
            match self.pass.enter(step, || input.next_element_seed(self.pass.node(element)))? {
                Some(Value::Null) => list.push(zero(element)),
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        match self.ty.shape() {
            Shape::Struct(_) => self.structure(self.ty, input),
            Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings => self.structure(json_schema(), input),
            Shape::Map(element) => self.map(element, input),
            Shape::Raw | Shape::FieldsV1 | Shape::Any | Shape::Json => self.map(any(), input),
            _ => {
                while input.next_entry::<Skipped, Skipped>()?.is_some() {}
                Ok(self.pass.mismatch(self.ty, "object"))
            }
        }
    }
}

fn base64_text(text: &str) -> Result<String, String> {
    let text: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match base64::engine::general_purpose::STANDARD.decode(&text) {
        Ok(_) => Ok(text),
        Err(error) => {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _) => at,
                _ => text.len(),
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}

/// An object's key, also where YAML writes a number or a boolean.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<String, D::Error> {
        input.deserialize_string(self)
    }
}

impl Visitor<'_> for Key {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_string<E>(self, value: String) -> Result<String, E> {
        Ok(value)
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}
