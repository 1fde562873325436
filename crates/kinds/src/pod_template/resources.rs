//! What a pod asks for as a whole (`spec.resources`), beside what its containers ask for.

use std::collections::BTreeMap;

use object_model::{FieldError, FieldPath, Quantity, meta};
use serde_json::Value;

use super::container;
use crate::walk;

type Amounts = BTreeMap<String, Quantity>;

/// What is wrong with the resources of a pod.
pub(super) fn validate(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let Some(resources) = walk::at(spec, "resources") else { return };
    let path = path.child("resources");
    if walk::text(spec, "os.name") == Some("windows") {
        errors.push(FieldError::forbidden(&path, "may not be set for a windows pod"));
    }
    if !walk::list(resources, "claims").is_empty() {
        errors.push(FieldError::forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level"));
    }
    container::resources(errors, resources, spec, &path);
    for list in ["limits", "requests"] {
        for name in meta::strings(&resources[list]).into_keys() {
            let at = path.child(list).key(name);
            let mut known = Vec::new();
            container::container_resource_name(&mut known, name, &at);
            if known.is_empty() && !is_of_pods(name) {
                errors.push(FieldError::not_supported(&at, name, &["cpu", "hugepages-", "memory"]));
            }
        }
    }
    let requests = amounts(&resources["requests"]);
    for (name, sum) in requests_of_containers(spec) {
        if let Some(request) = requests.get(&name).filter(|request| sum > **request) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(FieldError::invalid(&path.child("requests").key(&name), request.to_string(), why));
        }
    }
    let limits = amounts(&resources["limits"]);
    for (index, container) in walk::list(spec, "containers").iter().enumerate() {
        for (name, limit) in amounts(&container["resources"]["limits"]) {
            if let Some(most) = limits.get(&name).filter(|most| limit > **most) {
                // Upstream says it at this place, where there is no field.
                let at = path.child("containers").index(index).key(&name).child("limits");
                let why = format!("must be less than or equal to pod limits of {most}");
                errors.push(FieldError::invalid(&at, limit.to_string(), why));
            }
        }
    }
}

/// A pod with limits asks for what its containers ask for, or for its limits where they ask for nothing.
pub(super) fn default_requests(spec: &mut Value) {
    let limits = meta::strings(&spec["resources"]["limits"]);
    if limits.is_empty() {
        return;
    }
    let asked = requests_of_containers(spec).into_iter();
    let asked = asked.filter(|(name, _)| is_of_pods(name) && !name.starts_with("hugepages-"));
    let asked = asked.map(|(name, amount)| (name, amount.to_string()));
    let limits = limits.into_iter().filter(|(name, _)| is_of_pods(name));
    let all: Vec<(String, String)> = asked.chain(limits.map(|(name, limit)| (name.into(), limit.into()))).collect();
    let requests = walk::map_at(&mut spec["resources"], "requests");
    for (name, amount) in all {
        requests.entry(name).or_insert_with(|| amount.into());
    }
}

fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn amounts(map: &Value) -> Amounts {
    let parsed = meta::strings(map).into_iter();
    parsed.filter_map(|(name, text)| Some((name.to_owned(), text.parse().ok()?))).collect()
}

/// The sum of the containers, or the most that an init container needs beside the sidecars started before it.
fn requests_of_containers(spec: &Value) -> Amounts {
    let of = |container: &Value| amounts(&container["resources"]["requests"]);
    let mut total = Amounts::new();
    for container in walk::list(spec, "containers") {
        add(&mut total, of(container));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in walk::list(spec, "initContainers") {
        let mut together = sidecars.clone();
        add(&mut together, of(container));
        if container["restartPolicy"] == "Always" {
            sidecars.clone_from(&together);
        }
        at_least(&mut most, together);
    }
    add(&mut total, sidecars);
    at_least(&mut total, most);
    total
}

fn add(sums: &mut Amounts, more: Amounts) {
    for (name, amount) in more {
        let sum = sums.get(&name).map_or_else(|| amount.clone(), |sum| sum.plus(&amount));
        sums.insert(name, sum);
    }
}

fn at_least(amounts: &mut Amounts, others: Amounts) {
    for (name, other) in others {
        let amount = amounts.entry(name).or_insert_with(|| other.clone());
        if *amount < other {
            *amount = other;
        }
    }
}
