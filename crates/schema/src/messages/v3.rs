//! The messages of package `openapi.v3`: the OpenAPI 3.0 document of one group and version.

use serde_json::Value;

use super::Form::{Any, By, Each, Flag, Integer, Map, Number, One, OrFlag, OrReference, Strings, Text, Within};
use super::{Message, field, members, message, put_entry, text};
use crate::protobuf::{put_bytes, put_double, put_number};

/// The media type that clients name when they ask for it.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";

static DOCUMENT: Message = Message {
    fields: &[
        ("openapi", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 4, Map(1, &One(&PATH_ITEM))),
        ("components", 5, One(&COMPONENTS)),
        ("security", 6, Each(&Map(1, &Strings))),
        ("externalDocs", 8, One(&EXTERNAL_DOCS)),
    ],
    extensions: 9,
};

static INFO: Message = Message {
    fields: &[("title", 1, Text), ("description", 2, Text), ("termsOfService", 3, Text), ("version", 6, Text)],
    extensions: 7,
};

static EXTERNAL_DOCS: Message = Message { fields: &[("description", 1, Text), ("url", 2, Text)], extensions: 3 };

static COMPONENTS: Message = Message {
    fields: &[
        ("schemas", 1, Map(1, &OrReference(&SCHEMA))),
        ("responses", 2, Map(1, &OrReference(&RESPONSE))),
        ("parameters", 3, Map(1, &OrReference(&PARAMETER))),
        ("requestBodies", 5, Map(1, &OrReference(&REQUEST_BODY))),
        ("securitySchemes", 7, Map(1, &OrReference(&SECURITY_SCHEME))),
    ],
    extensions: 10,
};

static SECURITY_SCHEME: Message = Message {
    fields: &[
        ("type", 1, Text),
        ("description", 2, Text),
        ("name", 3, Text),
        ("in", 4, Text),
        ("scheme", 5, Text),
        ("bearerFormat", 6, Text),
        ("openIdConnectUrl", 8, Text),
    ],
    extensions: 9,
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, One(&OPERATION)),
        ("put", 5, One(&OPERATION)),
        ("post", 6, One(&OPERATION)),
        ("delete", 7, One(&OPERATION)),
        ("options", 8, One(&OPERATION)),
        ("head", 9, One(&OPERATION)),
        ("patch", 10, One(&OPERATION)),
        ("trace", 11, One(&OPERATION)),
        ("parameters", 13, Each(&OrReference(&PARAMETER))),
    ],
    extensions: 14,
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Each(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("parameters", 6, Each(&OrReference(&PARAMETER))),
        ("requestBody", 7, OrReference(&REQUEST_BODY)),
        ("responses", 8, By(responses)),
        ("deprecated", 10, Flag),
        ("security", 11, Each(&Map(1, &Strings))),
    ],
    extensions: 13,
};

static PARAMETER: Message = Message {
    fields: &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Flag),
        ("deprecated", 5, Flag),
        ("allowEmptyValue", 6, Flag),
        ("style", 7, Text),
        ("explode", 8, Flag),
        ("allowReserved", 9, Flag),
        ("schema", 10, OrReference(&SCHEMA)),
        ("example", 11, Any),
        ("content", 13, Map(1, &One(&MEDIA))),
    ],
    extensions: 14,
};

static REQUEST_BODY: Message = Message {
    fields: &[("description", 1, Text), ("content", 2, Map(1, &One(&MEDIA))), ("required", 3, Flag)],
    extensions: 4,
};

static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("content", 3, Map(1, &One(&MEDIA)))], extensions: 5 };

static MEDIA: Message = Message { fields: &[("schema", 1, OrReference(&SCHEMA)), ("example", 2, Any)], extensions: 5 };

static SCHEMA: Message = Message {
    fields: &[
        ("nullable", 1, Flag),
        ("readOnly", 3, Flag),
        ("writeOnly", 4, Flag),
        ("externalDocs", 6, One(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("deprecated", 8, Flag),
        ("title", 9, Text),
        ("multipleOf", 10, Number),
        ("maximum", 11, Number),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Number),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Integer),
        ("minLength", 16, Integer),
        ("pattern", 17, Text),
        ("maxItems", 18, Integer),
        ("minItems", 19, Integer),
        ("uniqueItems", 20, Flag),
        ("maxProperties", 21, Integer),
        ("minProperties", 22, Integer),
        ("required", 23, Each(&Text)),
        ("enum", 24, Each(&Any)),
        ("type", 25, Text),
        ("allOf", 26, Each(&OrReference(&SCHEMA))),
        ("oneOf", 27, Each(&OrReference(&SCHEMA))),
        ("anyOf", 28, Each(&OrReference(&SCHEMA))),
        ("not", 29, One(&SCHEMA)),
        ("items", 30, Within(1, &OrReference(&SCHEMA))),
        ("properties", 31, Map(1, &OrReference(&SCHEMA))),
        ("additionalProperties", 32, OrFlag(&OrReference(&SCHEMA))),
        ("default", 33, By(default)),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
    extensions: 36,
};

/// Writes a document that [`crate::openapi::v3`] made.
pub fn encode(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
}

/// Those of codes are entries; the one of all other codes is a field of its own.
fn responses(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (code, response) in members(value) {
        match code.as_str() {
            "default" => field(1, &OrReference(&RESPONSE), response, &mut out),
            code => put_entry(2, code, &OrReference(&RESPONSE), response, &mut out),
        }
    }
    out
}

/// The message has no field for a default that is an object or a list.
fn default(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::Number(number) => put_double(&mut out, 1, number.as_f64().unwrap_or_default()),
        Value::Bool(flag) => put_number(&mut out, 2, i64::from(*flag)),
        Value::String(_) => put_bytes(&mut out, 3, text(value).as_bytes()),
        Value::Null | Value::Array(_) | Value::Object(_) => {}
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_becomes_the_messages_of_the_published_numbers() {
        let document = json!({"openapi": "3.0.0", "components": {"schemas": {"A": {"maxLength": 3, "x-k": [1]}}}});
        let schema = [&[0x78, 3, 0xa2, 2, 12, 0x0a, 3][..], b"x-k", &[0x12, 5, 0x12, 3], b"[1]"].concat();
        let within = [&[0x0a, schema.len() as u8][..], &schema].concat();
        let entry = [&[0x0a, 1][..], b"A", &[0x12, within.len() as u8], &within].concat();
        let schemas = [&[0x0a, entry.len() as u8][..], &entry].concat();
        let components = [&[0x0a, schemas.len() as u8][..], &schemas].concat();
        let expected = [&[0x0a, 5][..], b"3.0.0", &[0x2a, components.len() as u8], &components].concat();
        assert_eq!(encode(&document), expected);
    }

    #[test]
    fn a_reference_lies_beside_what_it_stands_for_and_a_default_has_a_field_for_each_type() {
        let mut out = Vec::new();
        field(1, &OrReference(&SCHEMA), &json!({"$ref": "#/x"}), &mut out);
        assert_eq!(out, [&[0x0a, 7, 0x12, 5, 0x0a, 3][..], b"#/x"].concat());
        assert_eq!(default(&json!("TCP")), [&[0x1a, 3][..], b"TCP"].concat());
        assert_eq!(default(&json!(true)), [0x10, 1]);
        assert_eq!(default(&json!(1.0)), [&[9][..], &1.0_f64.to_le_bytes()].concat());
        assert_eq!(default(&json!({})), [0_u8; 0]);
        let both = json!({"200": {"description": "OK"}, "default": {"$ref": "r"}});
        let ok = [&[0x12, 13, 0x0a, 3][..], b"200", &[0x12, 6, 0x0a, 4, 0x0a, 2], b"OK"].concat();
        assert_eq!(responses(&both), [&ok[..], &[0x0a, 5, 0x12, 3, 0x0a, 1], b"r"].concat());
    }
}
