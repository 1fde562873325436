//! The messages of package `openapi.v2`: the Swagger 2.0 document. Go clients ask for it in this form alone, before they call
//! a kind unknown.

use serde_json::Value;

use super::Form::{Any, By, Each, Flag, Map, One, OrFlag, Strings, Text, Within};
use super::{Message, message, text, wrapped};

/// The media type that clients name when they ask for it.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("host", 3, Text),
        ("basePath", 4, Text),
        ("schemes", 5, Each(&Text)),
        ("consumes", 6, Each(&Text)),
        ("produces", 7, Each(&Text)),
        ("paths", 8, Map(2, &One(&PATH_ITEM))),
        ("definitions", 9, Map(1, &One(&SCHEMA))),
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
        ("parameters", 9, Each(&By(parameter))),
    ],
    extensions: 10,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Each(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Each(&Text)),
        ("consumes", 7, Each(&Text)),
        ("parameters", 8, Each(&By(parameter))),
        ("responses", 9, Map(1, &Within(1, &One(&RESPONSE)))),
        ("schemes", 10, Each(&Text)),
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
    Message { fields: &[("description", 1, Text), ("schema", 2, Within(1, &One(&SCHEMA)))], extensions: 5 };

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("pattern", 13, Text),
        ("uniqueItems", 16, Flag),
        ("required", 19, Each(&Text)),
        ("enum", 20, Each(&Any)),
        ("additionalProperties", 21, OrFlag(&One(&SCHEMA))),
        ("type", 22, Strings),
        ("items", 23, Within(1, &One(&SCHEMA))),
        ("allOf", 24, Each(&One(&SCHEMA))),
        ("properties", 25, Map(1, &One(&SCHEMA))),
        ("readOnly", 27, Flag),
    ],
    extensions: 31,
};

/// Writes a document that [`crate::openapi::v2`] made.
pub fn encode(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
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
