//! What the tests of validation have in common: an object as YAML, and its mistakes as lines.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use expect_test::Expect;
use kinds::{Resource, resource};
use object_model::FieldError;
use schema::decode_yaml;
use serde_json::Value;

/// The row of a kind; `autoscaling` in its stored version.
pub fn row(group: &str, plural: &str) -> &'static Resource {
    let version = if group == "autoscaling" { "v2" } else { "v1" };
    resource(group, version, plural).expect("in the table")
}

pub fn read(row: &Resource, yaml: &str) -> Value {
    let mut object = decode_yaml(row.ty(), yaml.as_bytes()).expect("decodes").value;
    row.default(&mut object);
    object
}

pub fn lines(errors: &[FieldError]) -> String {
    errors.iter().map(|error| format!("{error}\n")).collect()
}

#[track_caller]
pub fn check(group: &str, plural: &str, yaml: &str, expected: Expect) {
    let row = row(group, plural);
    let object = read(row, yaml);
    expected.assert_eq(&lines(&row.validate(&object)));
}

#[track_caller]
pub fn pod(spec: &str, expected: Expect) {
    check("", "pods", &format!("metadata: {{name: a, namespace: default}}\nspec: {{{spec}}}"), expected);
}

#[track_caller]
pub fn change(group: &str, plural: &str, old: &str, change: impl Fn(&mut Value), expected: Expect) {
    let row = row(group, plural);
    let old = read(row, old);
    let mut new = old.clone();
    change(&mut new);
    expected.assert_eq(&lines(&row.validate_update(&new, &old)));
}
