//! What decoding reports, in upstream's words.

use expect_test::{Expect, expect};
use schema::{DecodeError, Decoded, apply_defaults, conform, decode_json, decode_yaml, normalise, type_named};
use serde_json::{Value, json};

fn report(result: Result<Decoded, DecodeError>) -> String {
    match result {
        Ok(Decoded { value, problems }) if problems.is_empty() => value.to_string(),
        Ok(Decoded { value, problems }) => format!("{}\n{value}", problems.join("\n")),
        Err(error) => error.to_string(),
    }
}

fn check_json(ty: &str, text: &str, expected: Expect) {
    expected.assert_eq(&report(decode_json(type_named(ty).expect("in the table"), text.as_bytes())));
}

fn check_yaml(ty: &str, text: &str, expected: Expect) {
    expected.assert_eq(&report(decode_yaml(type_named(ty).expect("in the table"), text.as_bytes())));
}

#[test]
fn unknown_and_duplicate_fields_are_named_with_their_path() {
    check_json(
        "core.v1.Pod",
        r#"{"kind":"Pod","spec":{"foo":1,"containers":[{"name":"a","imge":"x","env":[{"name":"A","name":"B"}]}]},
            "metadata":{"labels":{"x":"1","x":"2"},"unknownMeta":{}}}"#,
        expect![[r#"
            unknown field "spec.foo"
            unknown field "spec.containers[0].imge"
            duplicate field "spec.containers[0].env[0].name"
            duplicate field "metadata.labels.x"
            unknown field "metadata.unknownMeta"
            {"kind":"Pod","metadata":{"labels":{"x":"2"}},"spec":{"containers":[{"env":[{"name":"B"}],"name":"a"}]}}"#]],
    );
    check_yaml(
        "apps.v1.Deployment",
        "spec:\n  replicas: 1\n  replicas: 2\n  foo: {a: [1]}\n",
        expect![[r#"
            duplicate field "spec.replicas"
            unknown field "spec.foo"
            {"spec":{"replicas":2}}"#]],
    );
}

#[test]
fn a_wrong_type_is_told_with_the_go_field() {
    check_json(
        "apps.v1.Deployment",
        r#"{"spec":{"replicas":"three"}}"#,
        expect!["json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"],
    );
    check_json(
        "core.v1.Pod",
        r#"{"spec":{"containers":[{"name":1}]}}"#,
        expect!["json: cannot unmarshal number into Go struct field Container.spec.containers.name of type string"],
    );
    check_json(
        "core.v1.Pod",
        r#"{"spec":{"containers":{}}}"#,
        expect!["json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container"],
    );
    check_json("core.v1.Pod", "[]", expect!["json: cannot unmarshal array into Go value of type v1.Pod"]);
    check_json(
        "apps.v1.Deployment",
        r#"{"spec":{"replicas":1.5}}"#,
        expect!["json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"],
    );
    check_yaml(
        "core.v1.ConfigMap",
        "data:\n  port: 80\n",
        expect!["json: cannot unmarshal number into Go struct field ConfigMap.data of type string"],
    );
    check_json(
        "core.v1.Pod",
        r#"{"spec":{"containers":[{"resources":{"limits":{"cpu":"lots"}}}]}}"#,
        expect!["quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"],
    );
    check_json("core.v1.Secret", r#"{"data":{"a":"n:t"}}"#, expect!["illegal base64 data at input byte 1"]);
}

#[test]
fn broken_and_bottomless_text_is_malformed() {
    let pod = type_named("core.v1.Pod").expect("in the table");
    for text in ["", "{", "{\"spec\":}", "{} {}", &"[".repeat(100_000), &"{\"metadata\":".repeat(100_000)] {
        assert!(matches!(decode_json(pod, text.as_bytes()), Err(DecodeError::Malformed(_))), "{text:.20}");
    }
    for text in ["a: b: c", "{"] {
        assert!(matches!(decode_yaml(pod, text.as_bytes()), Err(DecodeError::Malformed(_))), "{text:.20}");
    }
    let any = type_named("meta.v1.WatchEvent").expect("in the table");
    for text in ["[".repeat(50_000), "- ".repeat(50_000), "{a: ".repeat(50_000)] {
        let nested = format!("object:\n  x: {text}");
        assert!(decode_yaml(any, nested.as_bytes()).is_err());
        assert!(decode_yaml(any, text.as_bytes()).is_err());
    }
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (this, last) in ('b'..='i').zip('a'..) {
        laughs +=
            &format!("{this}: &{this} [*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last},*{last}]\n");
    }
    assert!(matches!(decode_yaml(pod, laughs.as_bytes()), Err(DecodeError::Malformed(_))));
}

#[test]
fn yaml_is_read_as_kubectl_writes_it() {
    check_yaml(
        "core.v1.ConfigMap",
        "immutable: yes\ndata:\n  1: \"on\"\n  text: |\n    a\n    b\n",
        expect![[r#"{"data":{"1":"on","text":"a\nb\n"},"immutable":true}"#]],
    );
    check_yaml(
        "core.v1.Pod",
        "spec:\n  volumes:\n  - name: v\n    configMap: {name: c, defaultMode: 0644}\n  containers: null\n",
        expect![[r#"{"spec":{"volumes":[{"configMap":{"defaultMode":420,"name":"c"},"name":"v"}]}}"#]],
    );
}

#[test]
fn scalars_get_their_canonical_spelling() {
    check_json(
        "core.v1.Pod",
        r#"{"metadata":{"creationTimestamp":"2024-05-01T12:00:00+02:00"},
            "spec":{"containers":[{"resources":{"limits":{"cpu":0.5,"memory":"2048Mi"}}}]}}"#,
        expect![[
            r#"{"metadata":{"creationTimestamp":"2024-05-01T10:00:00Z"},"spec":{"containers":[{"resources":{"limits":{"cpu":"500m","memory":"2Gi"}}}]}}"#
        ]],
    );
}

#[test]
fn values_are_checked_like_text() {
    let pod = type_named("core.v1.Pod").expect("in the table");
    let conformed = conform(pod, json!({"spec": {"nodeName": null, "bar": 1}}));
    assert_eq!(report(conformed), "unknown field \"spec.bar\"\n{\"spec\":{}}");
    assert!(conform(pod, json!({"spec": 1})).is_err());
}

fn habits(ty: &str, mut value: Value) -> String {
    let ty = type_named(ty).expect("in the table");
    apply_defaults(ty, &mut value);
    normalise(ty, &mut value);
    let once = value.clone();
    apply_defaults(ty, &mut value);
    normalise(ty, &mut value);
    assert_eq!(once, value, "both are idempotent");
    value.to_string()
}

#[test]
fn zero_values_are_written_where_upstream_writes_them() {
    expect![[r#"{"metadata":{"name":"d"},"spec":{"selector":{},"strategy":{},"template":{"metadata":{},"spec":{"containers":[{"image":"i","name":"c","ports":[{"containerPort":80,"protocol":"TCP"}],"resources":{}}]}}},"status":{}}"#]]
    .assert_eq(&habits(
        "apps.v1.Deployment",
        json!({"metadata": {"name": "d", "labels": {}, "creationTimestamp": null}, "spec": {"paused": false, "selector": {},
            "template": {"spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}}}),
    ));
    expect![[r#"{"metadata":{},"spec":{"replicas":0,"selector":{},"template":{"metadata":{},"spec":{}}},"status":{"replicas":0}}"#]]
        .assert_eq(&habits("apps.v1.ReplicaSet", json!({"spec": {"replicas": 0, "selector": {}}})));
}

const TUTORIAL: &str = include_str!("manifests.yaml");

#[test]
fn everyday_manifests_decode_without_problems() {
    let mut seen = 0;
    for document in TUTORIAL.split("\n---\n") {
        let head = decode_yaml(type_named("meta.v1.PartialObjectMetadata").expect("in the table"), document.as_bytes())
            .expect("is YAML")
            .value;
        let ty = schema::type_for(head["apiVersion"].as_str().expect("says"), head["kind"].as_str().expect("says"))
            .expect("in the table");
        let decoded = decode_yaml(ty, document.as_bytes()).expect("decodes");
        assert_eq!(decoded.problems, Vec::<String>::new(), "{}", head["kind"]);
        seen += 1;
    }
    assert_eq!(seen, 6);
}
