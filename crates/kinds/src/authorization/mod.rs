//! Kinds of the group authorization.k8s.io: questions to the server about what somebody may do. They are answered, not stored.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{Kind, Now, Resource, Scope, walk};

pub(crate) static SELF_ACCESS: Resource = Resource {
    group: "authorization.k8s.io",
    version: "v1",
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    type_name: "authorization.v1.SelfSubjectAccessReview",
    example: "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectAccessReview\n\
              spec: {resourceAttributes: {verb: get, resource: pods}}\n",
    hooks: &AccessReview { of_others: false },
    ..crate::REVIEW
};

pub(crate) static ACCESS: Resource = Resource {
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    type_name: "authorization.v1.SubjectAccessReview",
    example: "apiVersion: authorization.k8s.io/v1\nkind: SubjectAccessReview\n\
              spec: {user: alice, resourceAttributes: {verb: get, resource: pods}}\n",
    hooks: &AccessReview { of_others: true },
    ..SELF_ACCESS
};

pub(crate) static LOCAL_ACCESS: Resource = Resource {
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    scope: Scope::Namespaced,
    type_name: "authorization.v1.LocalSubjectAccessReview",
    example: "apiVersion: authorization.k8s.io/v1\nkind: LocalSubjectAccessReview\nmetadata: {namespace: default}\n\
              spec: {user: alice, resourceAttributes: {verb: get, resource: pods, namespace: default}}\n",
    hooks: &AccessReview { of_others: true },
    ..SELF_ACCESS
};

pub(crate) static SELF_RULES: Resource = Resource {
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    type_name: "authorization.v1.SelfSubjectRulesReview",
    example: "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectRulesReview\nspec: {namespace: default}\n",
    hooks: &RulesReview,
    ..SELF_ACCESS
};

struct AccessReview {
    /// The user is named in the question.
    of_others: bool,
}

impl Kind for AccessReview {
    // Upstream: `ValidateSubjectAccessReviewSpec` and its relatives.
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let path = FieldPath::new("spec");
        let has = |field: &str| walk::at(object, &format!("spec.{field}")).is_some();
        let mut errors = Vec::new();
        match (has("resourceAttributes"), has("nonResourceAttributes")) {
            (true, true) => errors.push(FieldError::invalid(
                &path.child("nonResourceAttributes"),
                object["spec"]["nonResourceAttributes"].clone(),
                "cannot be specified in combination with resourceAttributes",
            )),
            (false, false) => errors.push(FieldError::invalid(
                &path.child("resourceAttributes"),
                Value::Null,
                "exactly one of nonResourceAttributes or resourceAttributes must be specified",
            )),
            _ => {}
        }
        if self.of_others && walk::text(object, "spec.user").is_none() && walk::list(object, "spec.groups").is_empty() {
            errors.push(FieldError::invalid(
                &path.child("user"),
                "",
                "at least one of user or group must be specified",
            ));
        }
        errors
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![object_model::meta::name(object).into()]
    }
}

struct RulesReview;

impl Kind for RulesReview {
    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![object_model::meta::name(object).into()]
    }
}
