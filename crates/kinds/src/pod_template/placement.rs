//! Validation of what decides on which node a pod runs.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{rules, walk};

/// Terms that must hold, and terms that should.
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(errors: &mut Vec<FieldError>, affinity: &Value, path: &FieldPath) {
    let nodes = path.child("nodeAffinity");
    if let Some(required) = walk::at(&affinity["nodeAffinity"], REQUIRED) {
        rules::node_selector(errors, required, &nodes.child(REQUIRED));
    }
    for (index, term) in walk::list(&affinity["nodeAffinity"], PREFERRED).iter().enumerate() {
        let path = nodes.child(PREFERRED).index(index);
        weight(errors, term, &path);
        rules::node_selector_term(errors, &term["preference"], &path.child("preference"));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let (given, path) = (&affinity[kind], path.child(kind));
        for (index, term) in walk::list(given, REQUIRED).iter().enumerate() {
            pod_term(errors, term, &path.child(REQUIRED).index(index));
        }
        for (index, term) in walk::list(given, PREFERRED).iter().enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(errors, term, &path);
            pod_term(errors, &term["podAffinityTerm"], &path.child("podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Vec<FieldError>, term: &Value, path: &FieldPath) {
    let weight = walk::number(term, "weight");
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

fn pod_term(errors: &mut Vec<FieldError>, term: &Value, path: &FieldPath) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = walk::at(term, field) {
            crate::meta::selector(errors, selector, &path.child(field));
        }
    }
    for namespace in walk::list(term, "namespaces").iter().filter_map(Value::as_str) {
        rules::named(errors, namespace, &path.child("namespace"), names::dns_label);
    }
    label_keys(errors, term, "matchLabelKeys", path);
    label_keys(errors, term, "mismatchLabelKeys", path);
    topology_key(errors, term, path);
}

fn topology_key(errors: &mut Vec<FieldError>, term: &Value, path: &FieldPath) {
    let path = path.child("topologyKey");
    match walk::text(term, "topologyKey") {
        None => errors.push(FieldError::required(&path, "can not be empty")),
        Some(key) => rules::named(errors, key, &path, names::qualified_name),
    }
}

fn label_keys(errors: &mut Vec<FieldError>, term: &Value, field: &str, path: &FieldPath) {
    let keys = walk::list(term, field);
    if !keys.is_empty() && walk::at(term, "labelSelector").is_none() {
        let why = "must not be specified when labelSelector is not set";
        errors.push(FieldError::forbidden(&path.child(field), why));
    }
    for (index, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        rules::named(errors, key, &path.child(field).index(index), names::qualified_name);
    }
}

pub(super) fn topology_spread(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let constraints = walk::list(spec, "topologySpreadConstraints");
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        rules::positive(errors, constraint, "maxSkew", &path, "must be greater than zero");
        topology_key(errors, constraint, &path);
        let action = constraint["whenUnsatisfiable"].as_str().unwrap_or_default();
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if !actions.contains(&action) {
            errors.push(FieldError::not_supported(&path.child("whenUnsatisfiable"), action, &actions));
        }
        let pair = |constraint: &Value| (constraint["topologyKey"].clone(), constraint["whenUnsatisfiable"].clone());
        if constraints[..index].iter().any(|other| pair(other) == pair(constraint)) {
            let key = constraint["topologyKey"].as_str().unwrap_or_default();
            let path = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(FieldError::duplicate(&path, format!("{{{key}, {action}}}")));
        }
        if walk::at(constraint, "minDomains").is_some() {
            rules::positive(errors, constraint, "minDomains", &path, "must be greater than 0");
            if action == "ScheduleAnyway" {
                let why = "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway";
                errors.push(FieldError::invalid(&path.child("minDomains"), constraint["minDomains"].clone(), why));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            walk::one_of(errors, constraint, field, &path, &["Honor", "Ignore"]);
        }
        label_keys(errors, constraint, "matchLabelKeys", &path);
        if let Some(selector) = walk::at(constraint, "labelSelector") {
            crate::meta::selector(errors, selector, &path.child("labelSelector"));
        }
    }
}
