//! Random bytes for everything that reads what clients send: bodies in JSON, YAML and protobuf, patches, selectors, tokens,
//! paths, schemas, expressions and frames. The first byte chooses the reader and the type.
//!
//! Whatever is read must be refused or taken: no panic, no hang, no unbounded memory. What is taken is held to what the
//! server relies on: reading again what was written changes nothing.
#![no_main]

use expressions::{Declaration, Environment, Program, Type, Value as Cel};
use libfuzzer_sys::fuzz_target;
use object_model::{Continue, FieldSelector, LabelSelector, jsonpath};
use schema::fields::FieldSet;
use schema::structural::{self, Structural};
use serde_json::Value;

/// Types that between them have every shape of the table.
const TYPES: [&str; 8] = [
    "core.v1.Pod",
    "apps.v1.Deployment",
    "core.v1.Service",
    "core.v1.Secret",
    "apiextensions.v1.CustomResourceDefinition",
    "meta.v1.DeleteOptions",
    "events.v1.Event",
    "custom.v1.Object",
];

fuzz_target!(|data: &[u8]| {
    let [reader, kind, body @ ..] = data else { return };
    let Some(ty) = schema::type_named(TYPES[usize::from(*kind) % TYPES.len()]) else { return };
    let text = String::from_utf8_lossy(body);
    match reader % 11 {
        0 => json(ty, body),
        1 => drop(schema::decode_yaml(ty, body)),
        2 => protobuf(ty, body),
        3 => patches(ty, body),
        4 => {
            drop((LabelSelector::parse(&text), FieldSelector::parse(&text)));
            if let Ok(token) = Continue::decode(&text) {
                assert_eq!(Continue::decode(&token.encode()).expect("what was written is read"), token);
            }
        }
        5 => drop(jsonpath::find(&text, &serde_json::json!({"a": [{"b": 1}], "c": {"d": "e"}}))),
        6 => schemas(body),
        7 => expression(&text),
        8 => field_sets(body),
        9 => spdy_frames(usize::from(*kind), body),
        _ => yaml(ty, body),
    }
});

fn json(ty: &'static schema::Type, body: &[u8]) {
    let Ok(decoded) = schema::decode_json(ty, body) else { return };
    let mut object = decoded.value;
    schema::apply_defaults(ty, &mut object);
    schema::normalise(ty, &mut object);
    let again = schema::conform(ty, object.clone()).expect("what was read is read again");
    let mut again = again.value;
    schema::normalise(ty, &mut again);
    assert_eq!(again, object);
    if let Some(row) = kinds::RESOURCES.iter().find(|row| std::ptr::eq(row.ty(), ty)) {
        row.default(&mut object);
        row.hooks.prepare_create(&mut object);
        drop(row.validate(&object));
        drop(row.validate_update(&object, &object));
    }
}

fn protobuf(ty: &'static schema::Type, body: &[u8]) {
    drop(schema::protobuf::unwrap_envelope(body));
    let Ok(object) = schema::protobuf::decode(ty, body) else { return };
    drop(schema::protobuf::encode(ty, &object));
}

fn patches(ty: &'static schema::Type, body: &[u8]) {
    let current = serde_json::json!({
        "metadata": {"name": "a", "labels": {"x": "y"}, "finalizers": ["f"]},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}, {"name": "d"}], "replicas": 1},
    });
    let Ok(patch) = serde_json::from_slice::<Value>(body) else { return };
    drop(schema::json_patch(&current, &patch));
    drop(schema::merge_patch(&current, &patch));
    if let Ok(merged) = schema::strategic_merge(ty, &current, &patch) {
        drop(schema::conform(ty, merged));
    }
}

fn schemas(body: &[u8]) {
    let Ok(schema) = serde_json::from_slice::<Value>(body) else { return };
    if !structural::problems(&schema).is_empty() {
        return;
    }
    drop(kinds::cel::compile(&schema, &object_model::FieldPath::default()));
    let structure = Structural::of(&schema);
    let mut object = serde_json::json!({"spec": {"a": 1, "b": ["x", null], "c": {"d": 1.5}}, "kind": "K"});
    structure.prune(&mut object);
    structure.default(&mut object);
    drop(structure.validate(&object));
    drop(FieldSet::of(schema::fields::Place::Whole(&structure), &object));
}

fn expression(text: &str) {
    let environment = Environment::new().with("self", Declaration::of(Type::Dyn));
    let Ok(program) = Program::compile(text, &environment) else { return };
    drop(program.estimate());
    let object = serde_json::json!({"a": [1, 2, 3], "b": "text", "c": {"d": true}, "e": 2.5});
    let mut budget = 100_000;
    drop(program.evaluate(&[("self", Cel::dynamic(&object))], &mut budget));
}

fn field_sets(body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    let Ok(set) = FieldSet::from_json(&value) else { return };
    drop(set.paths());
    let written = set.into_json();
    let again = FieldSet::from_json(&written).expect("what was written is read");
    assert_eq!(again.into_json(), written);
}

/// Frames of SPDY, which come in pieces of any length.
fn spdy_frames(piece: usize, body: &[u8]) {
    let mut decoder = spdy::frame::Decoder::default();
    for piece in body.chunks(piece + 1) {
        decoder.buffer().extend_from_slice(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

/// What is written as YAML is read as what it was.
fn yaml(ty: &'static schema::Type, body: &[u8]) {
    let Ok(decoded) = schema::decode_json(ty, body) else { return };
    let text = schema::yaml::document(&decoded.value);
    let again = schema::decode_yaml(ty, text.as_bytes()).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(again.value, decoded.value, "{text}");
}
