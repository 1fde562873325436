//! Kinds of the group authentication.k8s.io: questions to the server about who somebody is. They are answered, not stored.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{Kind, Now, Resource, walk};

pub(crate) static SELF: Resource = Resource {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    type_name: "authentication.v1.SelfSubjectReview",
    example: "apiVersion: authentication.k8s.io/v1\nkind: SelfSubjectReview\n",
    hooks: &Review { of_token: false },
    ..crate::REVIEW
};

pub(crate) static TOKEN: Resource = Resource {
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    type_name: "authentication.v1.TokenReview",
    example: "apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {token: x}\n",
    hooks: &Review { of_token: true },
    ..SELF
};

struct Review {
    of_token: bool,
}

impl Kind for Review {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        if self.of_token && walk::text(object, "spec.token").is_none() {
            return vec![FieldError::required(&FieldPath::new("spec").child("token"), "")];
        }
        Vec::new()
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![object_model::meta::name(object).into()]
    }
}
