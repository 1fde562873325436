//! Match conditions of webhooks and policies.

use expressions::{Environment, ObjectType, Program, Type};
use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use super::compile_to;
use super::policies::Expression;
use crate::{rules, walk};

const MOST_CONDITIONS: usize = 64;

/// What is wrong with the `matchConditions` of a webhook.
pub fn match_conditions(list: &Value, path: &FieldPath) -> Vec<FieldError> {
    check(list, path, &admission_environment())
}

/// The `matchConditions` of a webhook, each with its name. What is wrong with them has been told when they were written.
pub fn compiled_conditions(list: &Value) -> Vec<(String, Expression)> {
    compiled(list, &admission_environment())
}

/// Match conditions that see the variables of an environment.
pub(super) fn compiled(list: &Value, environment: &Environment) -> Vec<(String, Expression)> {
    let conditions = list.as_array().into_iter().flatten().filter_map(|condition| {
        let text = condition["expression"].as_str().unwrap_or("").trim();
        let program = compile_to(text, environment, &[Type::Bool]).ok()?;
        Some((condition["name"].as_str().unwrap_or("").to_owned(), Expression { text: text.to_owned(), program }))
    });
    conditions.collect()
}

/// What is wrong with match conditions that see the variables of an environment.
pub(super) fn check(list: &Value, path: &FieldPath, environment: &Environment) -> Vec<FieldError> {
    let conditions = list.as_array().map_or(&[][..], Vec::as_slice);
    let mut errors = Vec::new();
    if conditions.len() > MOST_CONDITIONS {
        errors.push(FieldError::too_many(path, conditions.len(), MOST_CONDITIONS));
    }
    for (n, condition) in conditions.iter().enumerate() {
        let path = path.index(n);
        let text = condition["expression"].as_str().unwrap_or("").trim();
        if text.is_empty() {
            errors.push(FieldError::required(&path.child("expression"), ""));
        } else if let Err(problem) = compile_to(text, environment, &[Type::Bool]) {
            errors.push(FieldError::invalid(&path.child("expression"), text, problem.to_string()));
        }
        rules::required_name(&mut errors, condition, "name", &path, names::qualified_name);
    }
    let names = conditions.iter().map(|condition| walk::text(condition, "name"));
    rules::unique(&mut errors, names, |n| path.index(n).child("name"));
    errors
}

/// What expressions of an admission request see.
pub(super) fn admission_environment() -> Environment {
    Environment::new()
        .with_type("object", Type::Dyn)
        .with_type("oldObject", Type::Dyn)
        .with_type("request", request())
        .with_type("authorizer", Type::AUTHORIZER)
        .with_type("authorizer.requestResource", Type::RESOURCE_CHECK)
}

fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type)>) -> Type {
    let fields = fields.into_iter().map(|(name, ty)| (name.to_owned(), ty)).collect();
    Type::Object(ObjectType { name: name.to_owned(), fields: Some(fields) }.into())
}

pub(super) fn request() -> Type {
    let kind = || {
        let fields = [("group", Type::String), ("version", Type::String), ("kind", Type::String)];
        object("kubernetes.GroupVersionKind", fields)
    };
    let resource = || {
        let fields = [("group", Type::String), ("version", Type::String), ("resource", Type::String)];
        object("kubernetes.GroupVersionResource", fields)
    };
    let user = object(
        "kubernetes.UserInfo",
        [
            ("username", Type::String),
            ("uid", Type::String),
            ("groups", Type::list(Type::String)),
            ("extra", Type::map(Type::list(Type::String))),
        ],
    );
    object(
        "kubernetes.AdmissionRequest",
        [
            ("kind", kind()),
            ("resource", resource()),
            ("subResource", Type::String),
            ("requestKind", kind()),
            ("requestResource", resource()),
            ("requestSubResource", Type::String),
            ("name", Type::String),
            ("namespace", Type::String),
            ("operation", Type::String),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    )
}

/// The namespace of an admission request, as expressions see it.
pub(super) fn namespace_object() -> Type {
    let texts = || Type::map(Type::String);
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        [
            ("name", Type::String),
            ("generateName", Type::String),
            ("namespace", Type::String),
            ("labels", texts()),
            ("annotations", texts()),
            ("UID", Type::String),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", Type::String),
            ("finalizers", Type::list(Type::String)),
        ],
    );
    let spec = object("kubernetes.NamespaceSpec", [("finalizers", Type::list(Type::String))]);
    let condition = object(
        "kubernetes.NamespaceCondition",
        [
            ("status", Type::String),
            ("type", Type::String),
            ("lastTransitionTime", Type::Timestamp),
            ("message", Type::String),
            ("reason", Type::String),
        ],
    );
    let status = object("kubernetes.NamespaceStatus", [("conditions", Type::list(condition)), ("phase", Type::String)]);
    object("kubernetes.Namespace", [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// The program by which devices are chosen, or what is wrong with its text.
pub fn device_selector(text: &str) -> Result<Program, String> {
    let device = object(
        "kubernetes.DRADevice",
        [
            ("driver", Type::String),
            ("attributes", Type::map(Type::map(Type::Dyn))),
            ("capacity", Type::map(Type::map(Type::QUANTITY))),
            ("allowMultipleAllocations", Type::Bool),
        ],
    );
    let environment = Environment::new().with_type("device", device);
    compile_to(text, &environment, &[Type::Bool]).map_err(|mistake| mistake.to_string())
}
