//! Binding: gives a pod its node. It is carried out and not stored.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{Kind, Resource, Scope, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    scope: Scope::Namespaced,
    type_name: "core.v1.Binding",
    example: "apiVersion: v1\nkind: Binding\nmetadata: {name: web, namespace: default}\n\
              target: {apiVersion: v1, kind: Node, name: node}\n",
    hooks: &Binding,
    columns: &[],
    ..crate::REVIEW
};

struct Binding;

impl Kind for Binding {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("target");
        walk::one_of(&mut errors, &object["target"], "kind", &path, &["Node", "<empty>"]);
        rules::required_name(&mut errors, &object["target"], "name", &path, names::path_segment);
        errors
    }

    fn cells(&self, _object: &Value, _now: crate::Now) -> Vec<Value> {
        Vec::new()
    }
}
