//! Objects of every kind in the table, filled at random, survive JSON → protobuf → JSON and strict decoding.

mod fill;

use fill::{Dice, fill, without_empty_lists};
use schema::{conform, decode_json, normalise, protobuf, type_named, type_names};
use serde_json::json;

#[test]
fn every_kind_survives_protobuf() {
    let mut kinds = 0;
    for name in type_names() {
        let ty = type_named(name).expect("named in the table");
        let in_protobuf = ty.as_struct().is_some_and(|s| s.root && s.fields.iter().any(|field| field.number != 0));
        if !in_protobuf || name == "meta.v1.Table" {
            continue;
        }
        kinds += 1;
        for seed in 1..=12u64 {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut object = fill(ty, &mut dice, 0);
            normalise(ty, &mut object);
            without_empty_lists(&mut object, ty);
            let decoded = decode_json(ty, object.to_string().as_bytes())
                .unwrap_or_else(|error| panic!("{name} seed {seed}: {error}"));
            assert_eq!(decoded.problems, Vec::<String>::new(), "{name} seed {seed}");
            assert_eq!(decoded.value, object, "{name} seed {seed}: JSON");
            let message = protobuf::encode(ty, &object).unwrap_or_else(|error| panic!("{name} seed {seed}: {error}"));
            let mut back = protobuf::decode(ty, &message).unwrap_or_else(|error| panic!("{name} seed {seed}: {error}"));
            without_empty_lists(&mut back, ty);
            assert_eq!(back, object, "{name} seed {seed}: protobuf");
            assert_eq!(conform(ty, back).map(|d| d.problems), Ok(Vec::new()), "{name} seed {seed}");
        }
    }
    assert!(kinds > 120, "only {kinds} kinds");
}

#[test]
fn json_schemas_survive_protobuf() {
    let ty = type_named("apiextensions.v1.JSONSchemaProps").expect("in the table");
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "string", "default": "x"}},
            "b": {"type": "object", "additionalProperties": {"type": "integer"}},
            "c": {"type": "object", "additionalProperties": false, "maximum": 2.5},
        },
    });
    let message = protobuf::encode(ty, &schema).expect("encodes");
    assert_eq!(protobuf::decode(ty, &message), Ok(schema));
}

#[test]
fn messages_have_upstreams_bytes() {
    // ConfigMap{metadata: {name: "a"}, data: {"k": "v"}} with the empty fields that gogo always writes.
    let ty = type_named("core.v1.ConfigMap").expect("in the table");
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let message = protobuf::encode(ty, &object).expect("encodes");
    let metadata =
        [0x0a, 0x01, b'a', 0x12, 0x00, 0x1a, 0x00, 0x22, 0x00, 0x2a, 0x00, 0x32, 0x00, 0x38, 0x00, 0x42, 0x00];
    let mut expected = vec![0x0a, metadata.len() as u8];
    expected.extend(metadata);
    expected.extend([0x12, 0x06, 0x0a, 0x01, b'k', 0x12, 0x01, b'v']);
    assert_eq!(message, expected);
    let enveloped = protobuf::wrap_envelope("v1", "ConfigMap", &message);
    assert_eq!(&enveloped[..4], b"k8s\0");
    let envelope = protobuf::unwrap_envelope(&enveloped).expect("is an envelope");
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "ConfigMap"));
    assert_eq!(envelope.raw, message);
}

#[test]
fn damaged_messages_are_refused_and_never_crash() {
    let ty = type_named("core.v1.Pod").expect("in the table");
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let message = protobuf::encode(ty, &pod).expect("encodes");
    let mut refused = 0;
    for cut in 0..message.len() {
        refused += usize::from(protobuf::decode(ty, &message[..cut]).is_err());
    }
    assert!(refused > message.len() / 2);
    let mut dice = Dice(7);
    for _ in 0..2000 {
        let mut damaged = message.clone();
        let at = dice.roll(damaged.len() as u64) as usize;
        damaged[at] = dice.roll(256) as u8;
        let _ = protobuf::decode(ty, &damaged);
    }
    assert!(protobuf::unwrap_envelope(b"{}").is_err());
}
