//! Kinds of the group authentication.k8s.io: questions to the server about who somebody is. They are answered, not stored.

use serde_json::Value;

use crate::{Kind, Now, Resource};

pub(crate) static SELF: Resource = Resource {
    group: "authentication.k8s.io",
    version: "v1",
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    type_name: "authentication.v1.SelfSubjectReview",
    example: "apiVersion: authentication.k8s.io/v1\nkind: SelfSubjectReview\n",
    hooks: &Review,
    ..crate::REVIEW
};

pub(crate) static TOKEN: Resource = Resource {
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    type_name: "authentication.v1.TokenReview",
    example: "apiVersion: authentication.k8s.io/v1\nkind: TokenReview\nspec: {token: x}\n",
    ..SELF
};

struct Review;

impl Kind for Review {
    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![object_model::meta::name(object).into()]
    }
}
