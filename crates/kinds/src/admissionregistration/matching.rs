//! Which requests webhooks and policies are about: rules, selectors and the defaults of both.

use object_model::{FieldError, FieldPath, names};
use serde_json::{Value, json};

use crate::{rules, walk};

pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];

/// Rules are for objects in namespaces and outside, unless they say otherwise.
pub(super) fn default_rules(object: &mut Value, field: &str) {
    for rule in walk::each_mut(object, field).filter(|rule| rule.is_object()) {
        walk::default(rule, "scope", "*");
    }
}

/// Selectors match everything, unless they say otherwise.
pub(super) fn default_selection(object: &mut Value) {
    walk::default(object, "matchPolicy", "Equivalent");
    walk::default(object, "namespaceSelector", json!({}));
    walk::default(object, "objectSelector", json!({}));
}

/// Defaults of the resources a policy or its binding is about.
pub(super) fn default_resources(spec: &mut Value, field: &str) {
    if let Some(resources) = spec.get_mut(field).filter(|resources| resources.is_object()) {
        default_selection(resources);
        default_rules(resources, "resourceRules");
        default_rules(resources, "excludeResourceRules");
    }
}

/// What is wrong with the resources a policy or its binding is about.
pub(super) fn resources(errors: &mut Vec<FieldError>, resources: &Value, path: &FieldPath) {
    rules::required_choice(errors, resources, "matchPolicy", path, &MATCH_POLICIES);
    for field in ["namespaceSelector", "objectSelector"] {
        match walk::at(resources, field) {
            None => errors.push(FieldError::required(&path.child(field), "")),
            Some(selector) => crate::meta::selector(errors, selector, &path.child(field)),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, one) in walk::list(resources, field).iter().enumerate() {
            let path = path.child(field).index(index);
            let wanted = walk::list(one, "resourceNames");
            let at = |index: usize| path.child("resourceNames").index(index);
            for (index, name) in wanted.iter().filter_map(Value::as_str).enumerate() {
                rules::named(errors, name, &at(index), names::path_segment);
            }
            rules::unique(errors, wanted.iter().map(Value::as_str), at);
            rule(errors, one, &path);
        }
    }
}

/// What is wrong with a rule.
pub(super) fn rule(errors: &mut Vec<FieldError>, rule: &Value, path: &FieldPath) {
    let operations = walk::list(rule, "operations");
    let at = path.child("operations");
    if operations.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    if rules::wildcard_and_more(operations) {
        let why = "if '*' is present, must not specify other operations";
        errors.push(FieldError::invalid(&at, Value::from(operations), why));
    }
    for (index, operation) in operations.iter().filter_map(Value::as_str).enumerate() {
        if !OPERATIONS.contains(&operation) {
            errors.push(FieldError::not_supported(&at.index(index), operation, &OPERATIONS));
        }
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = walk::list(rule, field);
        if list.is_empty() {
            errors.push(FieldError::required(&path.child(field), ""));
        }
        if rules::wildcard_and_more(list) {
            let why = format!("if '*' is present, must not specify other {what}");
            errors.push(FieldError::invalid(&path.child(field), Value::from(list), why));
        }
    }
    for (index, version) in walk::list(rule, "apiVersions").iter().enumerate() {
        if version == "" {
            errors.push(FieldError::required(&path.child("apiVersions").index(index), ""));
        }
    }
    resource_list(errors, walk::list(rule, "resources"), &path.child("resources"));
    walk::one_of(errors, rule, "scope", path, &SCOPES);
}

/// Resources and their subresources: a wildcard must not stand beside what it stands for.
fn resource_list(errors: &mut Vec<FieldError>, list: &[Value], path: &FieldPath) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let mut all_below: Vec<&str> = Vec::new();
    let mut of_all: Vec<&str> = Vec::new();
    let mut plain = false;
    for (index, text) in list.iter().map(|item| item.as_str().unwrap_or_default()).enumerate() {
        let path = path.index(index);
        let Some((resource, part)) = text.split_once('/') else {
            if text.is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            plain |= !matches!(text, "*" | "");
            continue;
        };
        if all_below.contains(&resource) {
            let why = format!("if '{resource}/*' is present, must not specify {text}");
            errors.push(FieldError::invalid(&path, text, why));
        }
        if of_all.contains(&part) {
            let why = format!("if '*/{part}' is present, must not specify {text}");
            errors.push(FieldError::invalid(&path, text, why));
        }
        if part == "*" {
            all_below.push(resource);
        }
        if resource == "*" {
            of_all.push(part);
        }
    }
    if list.len() > 1 && list.iter().any(|item| item == "*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, Value::from(list), why));
    }
    if plain && list.iter().any(|item| item == "*") {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, Value::from(list), why));
    }
}
