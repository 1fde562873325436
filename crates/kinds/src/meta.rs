//! Validation of metadata, the same for every kind but for the rule of names.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{Kind, Scope, walk};

/// Bytes that all annotations of one object may have together.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Finalizers that need no domain.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// Everything wrong with the metadata of an object of this kind.
pub fn validate(hooks: &dyn Kind, scope: Scope, object: &Value) -> Vec<FieldError> {
    let path = FieldPath::new("metadata");
    let metadata = &object["metadata"];
    let mut errors = Vec::new();
    let name = object_model::meta::name(object);
    if let Some(base) = walk::text(metadata, "generateName") {
        // The random suffix ends the name well whatever the base ends with.
        let probe = base.strip_suffix('-').map_or_else(|| base.to_owned(), |base| format!("{base}a"));
        let problems = hooks.name_problems(&probe);
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("generateName"), base, why)));
    }
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "name or generateName is required"));
    } else {
        let mut problems = names::path_segment(name);
        if problems.is_empty() {
            problems = hooks.name_problems(name);
        }
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
    }
    let namespace = object_model::meta::namespace(object);
    match scope {
        Scope::Namespaced if namespace.is_empty() => errors.push(FieldError::required(&path.child("namespace"), "")),
        Scope::Namespaced => errors.extend(
            names::dns_label(namespace)
                .into_iter()
                .map(|why| FieldError::invalid(&path.child("namespace"), namespace, why)),
        ),
        Scope::Cluster if !namespace.is_empty() => {
            errors.push(FieldError::forbidden(&path.child("namespace"), "not allowed on this type"));
        }
        Scope::Cluster => {}
    }
    labels(&mut errors, metadata, &path);
    annotations(&mut errors, metadata, &path.child("annotations"));
    owner_references(&mut errors, metadata, &path.child("ownerReferences"));
    for finalizer in walk::list(metadata, "finalizers").iter().filter_map(Value::as_str) {
        let path = path.child("finalizers");
        errors
            .extend(names::qualified_name(finalizer).into_iter().map(|why| FieldError::invalid(&path, finalizer, why)));
        if !hooks.any_finalizer() && !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            errors.push(FieldError::invalid(
                &path,
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    errors
}

/// Takes from the old object what a client need not repeat when it writes, and may not change: call it before
/// [`validate_update`]. A PUT that leaves `deletionTimestamp` out does not revive the object.
pub fn carry_over(new: &mut Value, old: &Value) {
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        if let Some(value) = old["metadata"].get(field)
            && new["metadata"].get(field).is_none_or(Value::is_null)
        {
            object_model::meta::set(new, field, value.clone());
        }
    }
}

/// Everything wrong with a change of metadata.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        walk::immutable(&mut errors, new, old, &format!("metadata.{field}"));
    }
    if object_model::meta::deletion_timestamp(old).is_some() {
        let had = object_model::meta::finalizers(old);
        let added: Vec<&str> =
            object_model::meta::finalizers(new).into_iter().filter(|finalizer| !had.contains(finalizer)).collect();
        if !added.is_empty() {
            errors.push(FieldError::forbidden(
                &FieldPath::new("metadata").child("finalizers"),
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                ),
            ));
        }
    }
    errors
}

/// What is wrong with the labels of some metadata.
pub(crate) fn labels(errors: &mut Vec<FieldError>, metadata: &Value, path: &FieldPath) {
    label_map(errors, &metadata["labels"], &path.child("labels"));
}

/// What is wrong with a map of labels, as in a node selector.
pub(crate) fn label_map(errors: &mut Vec<FieldError>, map: &Value, path: &FieldPath) {
    for (key, value) in object_model::meta::strings(map) {
        errors.extend(names::qualified_name(key).into_iter().map(|why| FieldError::invalid(path, key, why)));
        errors.extend(names::label_value(value).into_iter().map(|why| FieldError::invalid(path, value, why)));
    }
}

/// What is wrong with annotations: their keys and their size.
pub(crate) fn annotations(errors: &mut Vec<FieldError>, metadata: &Value, path: &FieldPath) {
    let annotations = object_model::meta::strings(&metadata["annotations"]);
    for key in annotations.keys() {
        // The case of keys does not matter here.
        let problems = names::qualified_name(&key.to_lowercase());
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(path, *key, why)));
    }
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

fn owner_references(errors: &mut Vec<FieldError>, metadata: &Value, path: &FieldPath) {
    let owners = walk::list(metadata, "ownerReferences");
    for owner in owners {
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if walk::text(owner, field).is_none() {
                errors.push(FieldError::invalid(&path.child(field), "", why));
            }
        }
    }
    let mut controllers = owners.iter().filter(|owner| owner["controller"] == true);
    if let (Some(first), Some(second)) = (controllers.next(), controllers.next()) {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {} and {}",
            walk::text(first, "name").unwrap_or_default(),
            walk::text(second, "name").unwrap_or_default()
        );
        errors.push(FieldError::invalid(path, Value::from(owners), why));
    }
}

/// What is wrong with a label selector object.
pub(crate) fn selector(errors: &mut Vec<FieldError>, selector: &Value, path: &FieldPath) {
    label_map(errors, &selector["matchLabels"], &path.child("matchLabels"));
    for (index, expression) in walk::list(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = walk::list(expression, "values");
        match expression["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator"));
            }
        }
        let key = expression["key"].as_str().unwrap_or_default();
        let problems = names::qualified_name(key);
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("key"), key, why)));
    }
}
