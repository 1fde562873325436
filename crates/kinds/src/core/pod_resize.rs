//! Changes of a pod through subresources of its own: ephemeral containers are added, resources of containers changed.

use object_model::{FieldError, FieldPath, meta};
use serde_json::Value;

use crate::pod_template::qos_class;
use crate::walk;

const MIRROR: &str = "kubernetes.io/config.mirror";
const LISTS: [&str; 2] = ["containers", "initContainers"];
/// What can be changed of a running container.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Takes all from the old pod but its ephemeral containers.
pub(super) fn keep_all_but_ephemeral_containers(new: &mut Value, old: &Value) {
    let mut pod = old.clone();
    crate::copy_field(walk::value_at(&mut pod, "spec"), &new["spec"], "ephemeralContainers");
    *new = pod;
}

/// Takes all from the old pod but the resources of its containers and what becomes of them when these change.
pub(super) fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let mut pod = old.clone();
    let spec = walk::value_at(&mut pod, "spec");
    crate::copy_field(spec, &new["spec"], "resources");
    for list in LISTS {
        // Containers that came or went are left as they are, for the validation to see.
        let wanted = walk::list(&new["spec"], list);
        if wanted.len() != walk::list(spec, list).len() {
            spec[list] = Value::from(wanted);
            continue;
        }
        for (container, wanted) in walk::each_mut(spec, list).zip(wanted) {
            for field in ["name", "resizePolicy", "resources"] {
                crate::copy_field(container, wanted, field);
            }
        }
    }
    *new = pod;
}

/// What is wrong with a change of the ephemeral containers: those that are there stay as they are.
pub(super) fn validate_ephemeral_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec").child("ephemeralContainers");
    if meta::annotations(new).contains_key(MIRROR) {
        errors.push(FieldError::forbidden(&FieldPath::default(), "static pods do not support ephemeral containers"));
        return errors;
    }
    let wanted = walk::list(new, "spec.ephemeralContainers");
    for before in walk::list(old, "spec.ephemeralContainers") {
        let name = before["name"].as_str().unwrap_or_default();
        match wanted.iter().find(|container| container["name"] == name) {
            None => {
                let why = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(FieldError::forbidden(&path, why));
            }
            Some(after) if after != before => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n");
                errors.push(FieldError::forbidden(&path, why));
            }
            Some(_) => {}
        }
    }
    errors
}

/// What is wrong with a change of resources.
pub(super) fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    if meta::annotations(old).contains_key(MIRROR) {
        errors.push(FieldError::forbidden(&FieldPath::default(), "static pods cannot be resized"));
        return errors;
    }
    let names = |pod: &Value| -> Vec<Value> {
        let all = LISTS.iter().flat_map(|list| walk::list(&pod["spec"], list));
        all.map(|container| container["name"].clone()).collect()
    };
    if names(new) != names(old) {
        errors.push(FieldError::forbidden(&path, "containers may not be renamed or reordered on resize"));
        return errors;
    }
    if qos_class(&new["spec"]) != qos_class(&old["spec"]) {
        let why = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, qos_class(&new["spec"]), why));
    }
    for list in LISTS {
        let pairs = walk::list(&new["spec"], list).iter().zip(walk::list(&old["spec"], list));
        for (index, (after, before)) in pairs.enumerate() {
            let path = path.child(list).index(index);
            if list == "initContainers" && after != before && before["restartPolicy"] != "Always" {
                let why = "resources for non-sidecar init containers are immutable";
                errors.push(FieldError::forbidden(&path.child("resources"), why));
                continue;
            }
            amounts(&mut errors, after, before, &path.child("resources"));
        }
    }
    errors
}

fn amounts(errors: &mut Vec<FieldError>, after: &Value, before: &Value, path: &FieldPath) {
    for (kind, what) in [("limits", "resource limits"), ("requests", "resource requests")] {
        let of = |container: &Value| {
            let map = meta::strings(&container["resources"][kind]).into_iter();
            map.map(|(name, amount)| (name.to_owned(), amount.to_owned())).collect::<Vec<_>>()
        };
        let (new, old) = (of(after), of(before));
        let has = |list: &[(String, String)], name: &str| list.iter().any(|(other, _)| other == name);
        if old.iter().any(|(name, _)| RESIZABLE.contains(&name.as_str()) && !has(&new, name)) {
            errors.push(FieldError::forbidden(&path.child(kind), format!("{what} cannot be removed")));
        }
        let others = |list: Vec<(String, String)>| -> Vec<(String, String)> {
            list.into_iter().filter(|(name, _)| !RESIZABLE.contains(&name.as_str())).collect()
        };
        if others(new) != others(old) {
            let why = "only cpu and memory resources are mutable";
            errors.push(FieldError::forbidden(&path.child(kind), why));
        }
    }
}
