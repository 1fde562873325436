//! What definitions of custom resources may say of their objects.

mod check;

use check::{lines, read, row};
use expect_test::{Expect, expect};

/// What is wrong with a definition with these versions.
fn check_versions(versions: &str, expected: Expect) {
    let row = row("apiextensions.k8s.io", "customresourcedefinitions");
    let text = format!(
        "metadata: {{name: things.example.com}}\nspec:\n  group: example.com\n  scope: Namespaced\n  names: {{plural: \
         things, singular: thing, kind: Thing, listKind: ThingList}}\n  versions: {versions}"
    );
    expected.assert_eq(&lines(&row.hooks.validate(&read(row, &text))));
}

/// What is wrong with a definition whose spec has these properties.
fn check_spec(properties: &str, expected: Expect) {
    let schema = format!("{{type: object, properties: {{spec: {{type: object, properties: {properties}}}}}}}");
    let version = format!("{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {schema}}}}}");
    check_versions(&format!("[{version}]"), expected);
}

#[test]
fn defaults_keep_to_the_rules_of_their_place_and_below() {
    check_spec(
        "{a: {type: integer, default: 1, x-kubernetes-validations: [{rule: self > 2, message: more than two}]}}",
        expect![[r#"
            spec.validation.openAPIV3Schema.properties[spec].properties[a].default: Invalid value: "integer": more than two
        "#]],
    );
    // A change is judged as one from the default to itself, and nothing counts as unchanged.
    check_spec(
        "{a: {type: object, default: {l: [{k: x, n: 1}]}, properties: {l: {type: array, x-kubernetes-list-type: map, \
         x-kubernetes-list-map-keys: [k], items: {type: object, required: [k], properties: {k: {type: string}, n: {type: \
         integer}}, x-kubernetes-validations: [{rule: self.n > oldSelf.n}, {rule: self.n > 1}]}}}}}",
        expect![[r#"
            spec.validation.openAPIV3Schema.properties[spec].properties[a].default.l[0]: Invalid value: "object": failed rule: self.n > oldSelf.n
            spec.validation.openAPIV3Schema.properties[spec].properties[a].default.l[0]: Invalid value: "object": failed rule: self.n > 1
        "#]],
    );
    check_spec("{a: {type: integer, default: 3, x-kubernetes-validations: [{rule: self > 2}]}}", expect![[r#""#]]);
}

#[test]
fn defaults_fit_their_schema_as_they_are() {
    check_spec(
        "{a: {type: integer, default: x, x-kubernetes-validations: [{rule: self > 2}]}, b: {type: object, default: {d: 1}, \
         required: [c], properties: {c: {type: string, default: z}}}}",
        expect![[r#"
            spec.validation.openAPIV3Schema.properties[spec].properties[a].default: Invalid value: "string": default in body must be of type integer: "string"
            spec.validation.openAPIV3Schema.properties[spec].properties[b].default: Invalid value: {"d":1}: must not have unknown fields
            spec.validation.openAPIV3Schema.properties[spec].properties[b].default.c: Required value
        "#]],
    );
}

#[test]
fn what_all_versions_share_is_said_of_the_definition() {
    let version = |name: &str, storage: bool, ty: &str| {
        let schema =
            format!("{{type: object, properties: {{spec: {{type: {ty}}}}}, oneOf: [{{properties: {{b: {{}}}}}}]}}");
        format!("{{name: {name}, served: true, storage: {storage}, schema: {{openAPIV3Schema: {schema}}}}}")
    };
    let alike = format!("[{}, {}]", version("v1", true, "object"), version("v2", false, "object"));
    check_versions(
        &alike,
        expect![[r#"
        spec.validation.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.validation.openAPIV3Schema.oneOf[0].properties[b]
    "#]],
    );
    let unlike = format!("[{}, {}]", version("v1", true, "object"), version("v2", false, "string"));
    check_versions(
        &unlike,
        expect![[r#"
        spec.versions[0].schema.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.versions[0].schema.openAPIV3Schema.oneOf[0].properties[b]
        spec.versions[1].schema.openAPIV3Schema.properties[b]: Required value: because it is defined in spec.versions[1].schema.openAPIV3Schema.oneOf[0].properties[b]
    "#]],
    );
}
