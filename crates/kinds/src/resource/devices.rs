//! What claims, classes and slices of devices have in common.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{rules, walk};

/// The most selectors and configurations of a request or a class.
pub(super) const MAX_ITEMS: usize = 32;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_PARAMETERS: usize = 10 * 1024;
const MAX_POOL_NAME: usize = 253;
const MAX_ID: usize = 32;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// The items of a list, which must not be too long.
pub(super) fn items<'a>(
    errors: &mut Vec<FieldError>,
    object: &'a Value,
    field: &str,
    most: usize,
    path: &FieldPath,
) -> impl Iterator<Item = (FieldPath, &'a Value)> + use<'a> {
    let list = walk::list(object, field);
    let path = path.child(field);
    let fits = list.len() <= most;
    if !fits {
        errors.push(FieldError::too_many(&path, list.len(), most));
    }
    list.iter().enumerate().filter(move |_| fits).map(move |(index, item)| (path.index(index), item))
}

/// Refuses items of a list that have the same name.
pub(super) fn unique_names(errors: &mut Vec<FieldError>, object: &Value, field: &str, name: &str, path: &FieldPath) {
    let path = path.child(field);
    rules::unique(errors, walk::list(object, field).iter().map(|item| walk::text(item, name)), |i| path.index(i));
}

/// Expressions by which devices are chosen.
pub(super) fn selectors(errors: &mut Vec<FieldError>, object: &Value, path: &FieldPath) {
    for (path, selector) in items(errors, object, "selectors", MAX_ITEMS, path) {
        let path = path.child("cel");
        match walk::at(selector, "cel") {
            None => errors.push(FieldError::required(&path, "")),
            Some(cel) => {
                let text = rules::required(errors, cel, "expression", &path).unwrap_or_default();
                if text.len() > MAX_EXPRESSION {
                    errors.push(FieldError::too_long(&path.child("expression"), MAX_EXPRESSION));
                } else if !text.is_empty()
                    && let Err(problem) = crate::cel::device_selector(text)
                {
                    errors.push(FieldError::invalid(&path.child("expression"), text, problem));
                }
            }
        }
    }
}

/// What a driver is told.
pub(super) fn configuration(errors: &mut Vec<FieldError>, config: &Value, path: &FieldPath) {
    let path = path.child("opaque");
    let Some(opaque) = walk::at(config, "opaque") else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    rules::driver_name(errors, opaque, "driver", &path);
    let at = path.child("parameters");
    match walk::at(opaque, "parameters") {
        None => errors.push(FieldError::required(&at, "")),
        Some(given) if !given.is_object() => {
            errors.push(FieldError::invalid(&at, "<value omitted>", "must be a valid JSON object"));
        }
        Some(given) if given.to_string().len() > MAX_PARAMETERS => {
            errors.push(FieldError::too_long(&at, MAX_PARAMETERS));
        }
        Some(_) => {}
    }
}

/// What is wrong with tolerations of devices' taints.
pub(super) fn tolerations(errors: &mut Vec<FieldError>, object: &Value, path: &FieldPath) {
    for (path, toleration) in items(errors, object, "tolerations", 16, path) {
        rules::named_field(errors, toleration, "key", &path, names::qualified_name);
        let value = walk::text(toleration, "value");
        match toleration["operator"].as_str().unwrap_or_default() {
            "" => errors.push(FieldError::required(&path.child("operator"), "")),
            "Exists" => {
                if let Some(value) = value {
                    let why = "must be empty for operator `Exists`";
                    errors.push(FieldError::invalid(&path.child("value"), value, why));
                }
            }
            "Equal" => rules::named_field(errors, toleration, "value", &path, names::label_value),
            other => errors.push(FieldError::not_supported(&path.child("operator"), other, &["Equal", "Exists"])),
        }
        walk::one_of(errors, toleration, "effect", &path, &EFFECTS);
    }
}

/// What is wrong with a taint of a device.
pub(super) fn taint(errors: &mut Vec<FieldError>, taint: &Value, path: &FieldPath) {
    let key = taint["key"].as_str().unwrap_or_default();
    rules::named(errors, key, &path.child("key"), names::qualified_name);
    rules::named_field(errors, taint, "value", path, names::label_value);
    rules::required_choice(errors, taint, "effect", path, &EFFECTS);
}

/// What is wrong with the name of a pool: subdomains with slashes between them.
pub(super) fn pool_name(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath) {
    let Some(name) = rules::required(errors, object, field, path) else { return };
    let path = path.child(field);
    if name.len() > MAX_POOL_NAME {
        errors.push(FieldError::too_long(&path, MAX_POOL_NAME));
    }
    for part in name.split('/') {
        rules::named(errors, part, &path, names::dns_subdomain);
    }
}

/// What is wrong with the name of an attribute or a capacity, of which a driver's own may lack the domain.
pub(super) fn qualified_name(errors: &mut Vec<FieldError>, name: &str, path: &FieldPath) {
    let (domain, id) = match name.split('/').collect::<Vec<_>>()[..] {
        [id] => (None, id),
        [domain, id] => (Some(domain), id),
        _ => {
            errors.push(FieldError::invalid(path, name, "must not contain more than one slash"));
            return;
        }
    };
    match domain {
        None => {}
        Some("") => errors.push(FieldError::invalid(path, "", "the domain must not be empty")),
        Some(domain) => rules::named(errors, domain, path, names::dns_subdomain),
    }
    if domain.is_some() && id.is_empty() {
        errors.push(FieldError::invalid(path, "", "the name must not be empty"));
        return;
    }
    if id.len() > MAX_ID {
        errors.push(FieldError::too_long(path, MAX_ID));
    }
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if !id.starts_with(first) || !id.chars().all(|c| first(c) || c.is_ascii_digit()) {
        let why = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation \
                   is '[A-Za-z_][A-Za-z0-9_]*')";
        errors.push(FieldError::invalid(path, id, why));
    }
}

/// What is wrong with a name that must have a domain.
pub(super) fn full_name(errors: &mut Vec<FieldError>, name: &str, path: &FieldPath) {
    qualified_name(errors, name, path);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, name, why));
    }
}
