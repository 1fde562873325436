//! The Swagger 2.0 document as protobuf. Go clients ask for it in this form alone, before they call a kind unknown.
//! Names and numbers are those of the messages of package `openapi.v2`, as gnostic publishes them.

use serde_json::{Map, Value};

use crate::protobuf::{put_bytes, put_number};

/// The media type that clients name when they ask for it.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A message: what becomes of the members of a JSON object, and the number that extensions (`x-…`) have.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    extensions: u32,
}

/// How a member is written.
enum Form {
    Text,
    Texts,
    Flag,
    /// Any JSON, as text.
    Any,
    /// Any JSON values, each as text.
    Anys,
    One(&'static Message),
    /// The value lies within another message, in its field of this number.
    Within(u32, &'static Message),
    Many(&'static Message),
    /// A map: a message that repeats an entry of name and value, in its field of this number.
    Map(u32, &'static Message),
    /// One or several texts within another message.
    Type,
    /// A schema or a truth value within another message.
    SchemaOrFlag,
    Parameters,
    Responses,
}
use Form::{Any, Anys, Flag, Many, One, Parameters, Responses, SchemaOrFlag, Text, Texts, Type, Within};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Texts),
        ("consumes", 6, Texts),
        ("produces", 7, Texts),
        ("paths", 8, Form::Map(2, &PATH_ITEM)),
        ("definitions", 9, Form::Map(1, &SCHEMA)),
    ],
    extensions: 16,
};

static INFO: Message =
    Message { fields: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], extensions: 7 };

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Parameters),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Parameters),
        ("responses", 9, Responses),
        ("schemes", 10, Texts),
        ("deprecated", 11, Flag),
    ],
    extensions: 13,
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Flag),
        ("schema", 5, One(&SCHEMA)),
    ],
    extensions: 6,
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
    ],
    extensions: 23,
};

/// Of the path, and of the header, which are alike.
static OTHER_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
    ],
    extensions: 22,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("schema", 2, Within(1, &SCHEMA))], extensions: 5 };

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("pattern", 13, Text),
        ("uniqueItems", 16, Flag),
        ("required", 19, Texts),
        ("enum", 20, Anys),
        ("additionalProperties", 21, SchemaOrFlag),
        ("type", 22, Type),
        ("items", 23, Within(1, &SCHEMA)),
        ("allOf", 24, Many(&SCHEMA)),
        ("properties", 25, Form::Map(1, &SCHEMA)),
        ("readOnly", 27, Flag),
    ],
    extensions: 31,
};

/// Writes a document that [`crate::openapi::v2`] made.
pub fn encode(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
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
        Text => put_bytes(out, number, text(value).as_bytes()),
        Texts => texts(number, value, out),
        Flag => put_number(out, number, i64::from(value == true)),
        Any => put_bytes(out, number, &any(value)),
        Anys => elements(value).for_each(|one| put_bytes(out, number, &any(one))),
        One(ty) => put_bytes(out, number, &message(ty, value)),
        Within(inner, ty) => put_bytes(out, number, &wrapped(&[*inner], message(ty, value))),
        Many(ty) => elements(value).for_each(|one| put_bytes(out, number, &message(ty, one))),
        Form::Map(entry, ty) => put_bytes(out, number, &map(*entry, value, |one| message(ty, one))),
        Type => {
            let mut item = Vec::new();
            match value {
                Value::Array(_) => texts(1, value, &mut item),
                one => put_bytes(&mut item, 1, text(one).as_bytes()),
            }
            put_bytes(out, number, &item);
        }
        SchemaOrFlag => {
            let mut item = Vec::new();
            match value {
                Value::Bool(flag) => put_number(&mut item, 2, i64::from(*flag)),
                schema => put_bytes(&mut item, 1, &message(&SCHEMA, schema)),
            }
            put_bytes(out, number, &item);
        }
        Parameters => elements(value).for_each(|one| put_bytes(out, number, &parameter(one))),
        Responses => {
            put_bytes(out, number, &map(1, value, |one| wrapped(&[1], message(&RESPONSE, one))));
        }
    }
}

/// A parameter lies two or three messages deep, by where in the request it is.
fn parameter(value: &Value) -> Vec<u8> {
    let (path, ty): (&[u32], _) = match text(&value["in"]) {
        "body" => (&[1, 1], &BODY_PARAMETER),
        "query" => (&[1, 2, 3], &QUERY_PARAMETER),
        "header" => (&[1, 2, 1], &OTHER_PARAMETER),
        _ => (&[1, 2, 4], &OTHER_PARAMETER),
    };
    wrapped(path, message(ty, value))
}

/// Wraps a message into others, by the numbers from the outermost to the innermost.
fn wrapped(path: &[u32], inner: Vec<u8>) -> Vec<u8> {
    path.iter().rev().fold(inner, |inner, number| {
        let mut out = Vec::new();
        put_bytes(&mut out, *number, &inner);
        out
    })
}

fn map(entry: u32, value: &Value, write: impl Fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    members(value).for_each(|(name, value)| put_bytes(&mut out, entry, &named(name, &write(value))));
    out
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

fn texts(number: u32, value: &Value, out: &mut Vec<u8>) {
    elements(value).for_each(|one| put_bytes(out, number, text(one).as_bytes()));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_becomes_the_messages_of_the_published_numbers() {
        let document = json!({"swagger": "2.0", "definitions": {"A": {"type": "object", "x-k": [1]}}});
        let schema =
            [&[0xb2, 1, 8, 0x0a, 6][..], b"object", &[0xfa, 1, 12, 0x0a, 3], b"x-k", &[0x12, 5, 0x12, 3], b"[1]"]
                .concat();
        let entry = [&[0x0a, 1][..], b"A", &[0x12, schema.len() as u8], &schema].concat();
        let definitions = [&[0x0a, entry.len() as u8][..], &entry].concat();
        let expected = [&[0x0a, 3][..], b"2.0", &[0x4a, definitions.len() as u8], &definitions].concat();
        assert_eq!(encode(&document), expected);
    }

    #[test]
    fn a_parameter_lies_where_its_place_says() {
        let inner = [&[0x12, 5][..], b"query", &[0x22, 1], b"n"].concat();
        let expected = [&[0x0a, 14, 0x12, 12, 0x1a, 10][..], &inner].concat();
        assert_eq!(parameter(&json!({"in": "query", "name": "n"})), expected);
    }
}
