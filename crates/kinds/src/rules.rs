//! Rules for values that objects of several kinds hold.

use std::net::IpAddr;

use object_model::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

use crate::walk;

/// Bytes that the reason and the message of a condition may have.
const MAX_REASON: usize = 1024;
const MAX_MESSAGE: usize = 32 * 1024;

/// The text of a field that must be there.
pub(crate) fn required<'a>(
    errors: &mut Vec<FieldError>,
    object: &'a Value,
    field: &str,
    path: &FieldPath,
) -> Option<&'a str> {
    let text = walk::text(object, field);
    if text.is_none() {
        errors.push(FieldError::required(&path.child(field), ""));
    }
    text
}

/// Holds a text to a rule of names.
pub(crate) fn named(errors: &mut Vec<FieldError>, text: &str, path: &FieldPath, rule: impl Fn(&str) -> Vec<String>) {
    errors.extend(rule(text).into_iter().map(|why| FieldError::invalid(path, text, why)));
}

/// Holds a field to a rule of names, if it is there.
pub(crate) fn named_field(
    errors: &mut Vec<FieldError>,
    object: &Value,
    field: &str,
    path: &FieldPath,
    rule: impl Fn(&str) -> Vec<String>,
) {
    if let Some(text) = walk::text(object, field) {
        named(errors, text, &path.child(field), rule);
    }
}

/// A field that must be there and keep to a rule of names.
pub(crate) fn required_name(
    errors: &mut Vec<FieldError>,
    object: &Value,
    field: &str,
    path: &FieldPath,
    rule: impl Fn(&str) -> Vec<String>,
) {
    if let Some(text) = required(errors, object, field, path) {
        named(errors, text, &path.child(field), rule);
    }
}

/// A field that must be there and hold one of a set.
pub(crate) fn required_choice(
    errors: &mut Vec<FieldError>,
    object: &Value,
    field: &str,
    path: &FieldPath,
    set: &[&str],
) {
    required(errors, object, field, path);
    walk::one_of(errors, object, field, path, set);
}

/// A number that must be greater than zero.
pub(crate) fn positive(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath, why: &str) {
    let number = walk::number(object, field);
    if number <= 0 {
        errors.push(FieldError::invalid(&path.child(field), number, why));
    }
}

/// Refuses what occurs twice in a list, each at its place.
pub(crate) fn unique<'a>(
    errors: &mut Vec<FieldError>,
    items: impl Iterator<Item = Option<&'a str>>,
    path: impl Fn(usize) -> FieldPath,
) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, item) in items.enumerate() {
        let Some(item) = item else { continue };
        if seen.contains(&item) {
            errors.push(FieldError::duplicate(&path(index), item));
        }
        seen.push(item);
    }
}

/// Whether a list of texts holds the wildcard beside others.
pub(crate) fn wildcard_and_more(list: &[Value]) -> bool {
    list.len() > 1 && list.iter().any(|item| item == "*")
}

/// The name of a CSI or DRA driver: a domain of up to 63 characters.
pub(crate) fn driver_name(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath) {
    if let Some(name) = required(errors, object, field, path) {
        let path = path.child(field);
        if name.len() > 63 {
            errors.push(FieldError::too_long(&path, 63));
        }
        let problems = names::dns_subdomain(&name.to_lowercase());
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, name, why)));
    }
}

/// A name that is a domain of three parts or more.
pub(crate) fn fully_qualified(errors: &mut Vec<FieldError>, name: &str, path: &FieldPath) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let problems = names::dns_subdomain(name);
    if !problems.is_empty() {
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(path, name, why)));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, why));
    }
}

/// What is wrong with an address: it must be one, and written as everybody writes it.
pub(crate) fn address(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Ok(address) if address.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        Ok(_) => Vec::new(),
    }
}

/// A network as its address and the length of its prefix.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// What is said of a text that is no network.
pub(crate) const NOT_A_NETWORK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// The address with all bits beyond the prefix cleared.
pub(crate) fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// What is wrong with the conditions of a status.
pub(crate) fn conditions(errors: &mut Vec<FieldError>, status: &Value, path: &FieldPath) {
    let list = walk::list(status, "conditions");
    let path = path.child("conditions");
    unique(errors, list.iter().map(|condition| walk::text(condition, "type")), |index| path.index(index).child("type"));
    for (index, condition) in list.iter().enumerate() {
        let path = path.index(index);
        let kind = condition["type"].as_str().unwrap_or_default();
        named(errors, kind, &path.child("type"), names::qualified_name);
        let state = condition["status"].as_str().unwrap_or_default();
        if !["False", "True", "Unknown"].contains(&state) {
            errors.push(FieldError::not_supported(&path.child("status"), state, &["False", "True", "Unknown"]));
        }
        walk::not_negative(errors, condition, "observedGeneration", &path);
        if walk::text(condition, "lastTransitionTime").is_none() {
            errors.push(FieldError::required(&path.child("lastTransitionTime"), "must be set"));
        }
        match walk::text(condition, "reason") {
            None => errors.push(FieldError::required(&path.child("reason"), "must be set")),
            Some(reason) => {
                let path = path.child("reason");
                if !is_reason(reason) {
                    errors.push(FieldError::invalid(&path, reason, REASON));
                }
                if reason.len() > MAX_REASON {
                    errors.push(FieldError::too_long(&path, MAX_REASON));
                }
            }
        }
        if walk::text(condition, "message").is_some_and(|message| message.len() > MAX_MESSAGE) {
            errors.push(FieldError::too_long(&path.child("message"), MAX_MESSAGE));
        }
    }
}

const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
                      alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. \
                      'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used \
                      for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

fn is_reason(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(word)
        && text.chars().all(|c| word(c) || matches!(c, ',' | ':'))
}

/// Whether a condition of a type is true.
pub(crate) fn holds(object: &Value, kind: &str) -> bool {
    let conditions = walk::list(object, "status.conditions");
    conditions.iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// What is wrong with the terms by which nodes are chosen.
pub(crate) fn node_selector(errors: &mut Vec<FieldError>, selector: &Value, path: &FieldPath) {
    let path = path.child("nodeSelectorTerms");
    let terms = walk::list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_selector_term(errors, term, &path.index(index));
    }
}

/// What is wrong with one of the terms by which nodes are chosen.
pub(crate) fn node_selector_term(errors: &mut Vec<FieldError>, term: &Value, path: &FieldPath) {
    for (index, expression) in walk::list(term, "matchExpressions").iter().enumerate() {
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
            "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
                &path.child("values"),
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = expression["key"].as_str().unwrap_or_default();
        named(errors, key, &path.child("key"), names::qualified_name);
        for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
            named(errors, value, &path.child("values").index(index), names::label_value);
        }
    }
    for (index, requirement) in walk::list(term, "matchFields").iter().enumerate() {
        let path = path.child("matchFields").index(index);
        let values = walk::list(requirement, "values");
        match requirement["operator"].as_str().unwrap_or_default() {
            "In" | "NotIn" if values.len() == 1 => {}
            "In" | "NotIn" => errors.push(FieldError::required(
                &path.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )),
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        match requirement["key"].as_str().unwrap_or_default() {
            "metadata.name" => {
                for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
                    named(errors, value, &path.child("values").index(index), names::dns_subdomain);
                }
            }
            other => {
                let why = "not a valid field selector key";
                errors.push(FieldError::invalid(&path.child("key"), other, why));
            }
        }
    }
}

/// The amount at a dotted path.
pub(crate) fn quantity(object: &Value, path: &str) -> Option<Quantity> {
    walk::text(object, path)?.parse().ok()
}

/// The amount under a key of a map of amounts.
pub(crate) fn amount(map: &Value, key: &str) -> Option<Quantity> {
    map.get(key)?.as_str()?.parse().ok()
}

/// Whether a resource is one that somebody has made up: it has a domain, and not Kubernetes' own.
pub(crate) fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// The rules of a webhook's address or of an API server's: where a service stands in for it.
pub(crate) fn service_reference(errors: &mut Vec<FieldError>, service: &Value, path: &FieldPath) {
    required(errors, service, "name", path);
    required(errors, service, "namespace", path);
    if let Some(port) = walk::at(service, "port")
        && !port.as_i64().is_some_and(|port| (1..=65535).contains(&port))
    {
        let why = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(FieldError::invalid(&path.child("port"), port.clone(), why));
    }
    let Some(text) = walk::text(service, "path") else { return };
    let path = path.child("path");
    if !text.starts_with('/') {
        errors.push(FieldError::invalid(&path, text, "must start with a '/'"));
    }
    let steps: Vec<&str> = text.trim_start_matches('/').trim_end_matches('/').split('/').collect();
    for (index, step) in steps.iter().enumerate() {
        if text == "/" {
            break;
        }
        if step.is_empty() {
            errors.push(FieldError::invalid(&path, text, format!("segment[{index}] may not be empty")));
        } else {
            named(errors, step, &path, |step| {
                let problems = names::dns_subdomain(step).into_iter();
                problems.map(|why| format!("segment[{index}]: {why}")).collect()
            });
        }
    }
}
