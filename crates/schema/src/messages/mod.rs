//! OpenAPI documents as protobuf. Names and numbers are those of the messages that gnostic publishes.

pub mod v2;
pub mod v3;

use serde_json::{Map as Members, Value};

use crate::protobuf::{put_bytes, put_double, put_number};

/// A message: what becomes of the members of a JSON object, and the number that extensions (`x-…`) have.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    extensions: u32,
}

/// How a member is written.
enum Form {
    Text,
    Flag,
    Integer,
    Number,
    /// Any JSON, as text.
    Any,
    /// Each element of a list by itself.
    Each(&'static Form),
    One(&'static Message),
    /// The value lies within another message, in its field of this number; of a list, each element.
    Within(u32, &'static Form),
    /// A map: a message that repeats an entry of name and value, in its field of this number.
    Map(u32, &'static Form),
    /// One or several texts within another message.
    Strings,
    /// Something or a truth value within another message.
    OrFlag(&'static Form),
    /// A message or a reference to one, within another message.
    OrReference(&'static Message),
    /// A message that is not like the value it is made of.
    By(fn(&Value) -> Vec<u8>),
}

fn message(ty: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, form) in ty.fields {
        if let Some(value) = value.get(name) {
            field(*number, form, value, &mut out);
        }
    }
    for (name, value) in members(value).filter(|(name, _)| name.starts_with("x-")) {
        put_bytes(&mut out, ty.extensions, &named(name, &any(value)));
    }
    out
}

fn field(number: u32, form: &Form, value: &Value, out: &mut Vec<u8>) {
    match form {
        Form::Text => put_bytes(out, number, text(value).as_bytes()),
        Form::Flag => put_number(out, number, i64::from(value == true)),
        Form::Integer => put_number(out, number, value.as_i64().unwrap_or_default()),
        Form::Number => put_double(out, number, value.as_f64().unwrap_or_default()),
        Form::Any => put_bytes(out, number, &any(value)),
        Form::Each(form) => elements(value).for_each(|one| field(number, form, one, out)),
        Form::One(ty) => put_bytes(out, number, &message(ty, value)),
        Form::Within(inner, form) => {
            let mut item = Vec::new();
            match value {
                Value::Array(all) => all.iter().for_each(|one| field(*inner, form, one, &mut item)),
                one => field(*inner, form, one, &mut item),
            }
            put_bytes(out, number, &item);
        }
        Form::Map(entry, form) => {
            let mut all = Vec::new();
            members(value).for_each(|(name, value)| put_entry(*entry, name, form, value, &mut all));
            put_bytes(out, number, &all);
        }
        Form::Strings => field(number, &Form::Within(1, &Form::Text), value, out),
        Form::OrFlag(form) => {
            let mut item = Vec::new();
            match value {
                Value::Bool(flag) => put_number(&mut item, 2, i64::from(*flag)),
                other => field(1, form, other, &mut item),
            }
            put_bytes(out, number, &item);
        }
        Form::OrReference(ty) => {
            let item = match value.get("$ref") {
                Some(reference) => wrapped(&[2, 1], text(reference).as_bytes().to_vec()),
                None => wrapped(&[1], message(ty, value)),
            };
            put_bytes(out, number, &item);
        }
        Form::By(write) => put_bytes(out, number, &write(value)),
    }
}

/// An entry of a map: a message of a name and a value.
fn put_entry(number: u32, name: &str, form: &Form, value: &Value, out: &mut Vec<u8>) {
    let mut entry = Vec::new();
    put_bytes(&mut entry, 1, name.as_bytes());
    field(2, form, value, &mut entry);
    put_bytes(out, number, &entry);
}

/// Wraps a message into others, by the numbers from the outermost to the innermost.
fn wrapped(path: &[u32], inner: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(inner, |inner, number| {
        let mut out = Vec::new();
        put_bytes(&mut out, *number, &inner);
        out
    })
}

fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, name.as_bytes());
    put_bytes(&mut out, 2, value);
    out
}

/// Any value, as the text of it: JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    wrapped(&[2], value.to_string().into_bytes())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Members::iter)
}
