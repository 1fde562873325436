//! ResourceQuota: how much all objects of a namespace may ask for together.

use object_model::{FieldError, FieldPath, Quantity, meta, names};
use serde_json::Value;

use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    subresources: &[Subresource::status("", "ResourceQuota")],
    type_name: "core.v1.ResourceQuota",
    storage: "resourcequotas",
    has_status: true,
    columns: &[
        Column::name(),
        Column::text("Request", "What is used of requests and of counted objects."),
        Column::text("Limit", "What is used of limits."),
        Column::age(),
    ],
    example: "apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: example, namespace: default}\n\
              spec: {hard: {pods: \"10\", requests.cpu: \"4\"}}\n",
    hooks: &ResourceQuota,
    ..crate::NAMESPACED
};

struct ResourceQuota;

/// Amounts that pods ask for.
const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// Objects that are counted under a name without a group.
const COUNTED: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

impl Kind for ResourceQuota {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        amounts(&mut errors, &object["spec"]["hard"], &path.child("hard"));
        scopes(&mut errors, &object["spec"], &path);
        if let Some(selector) = walk::at(object, "spec.scopeSelector") {
            scope_selector(&mut errors, selector, &path.child("scopeSelector"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let sorted = |object: &Value| {
            let mut scopes: Vec<String> =
                walk::list(object, "spec.scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect();
            scopes.sort_unstable();
            scopes
        };
        if sorted(new) != sorted(old) {
            let path = FieldPath::new("spec").child("scopes");
            errors.push(FieldError::invalid(&path, new["spec"]["scopes"].clone(), walk::IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["hard", "used"] {
            amounts(&mut errors, &new["status"][field], &FieldPath::new("status").child(field));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let hard = meta::strings(&object["status"]["hard"]);
        let used = meta::strings(&object["status"]["used"]);
        let column = |of_limits: bool| {
            let wanted = hard.iter().filter(|(name, _)| name.starts_with("limits.") == of_limits);
            let parts: Vec<String> = wanted
                .map(|(name, hard)| format!("{name}: {}/{hard}", used.get(name).copied().unwrap_or("0")))
                .collect();
            parts.join(", ")
        };
        vec![cells::name(object), column(false).into(), column(true).into(), cells::age(object, now)]
    }
}

/// What is wrong with amounts of quota resources.
fn amounts(errors: &mut Vec<FieldError>, map: &Value, path: &FieldPath) {
    for (name, text) in meta::strings(map) {
        let path = path.key(name);
        rules::named(errors, name, &path, names::qualified_name);
        let known = COMPUTE.contains(&name)
            || COUNTED.contains(&name)
            || name == "requests.storage"
            || ["hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
        if !name.contains('/') && !known {
            errors.push(FieldError::invalid(&path, name, "must be a standard resource for quota"));
        }
        let Ok(amount) = text.parse::<Quantity>() else { continue };
        if amount.is_negative() {
            errors.push(FieldError::invalid(&path, text, walk::NOT_NEGATIVE));
        }
        let whole = COUNTED.contains(&name) || name.starts_with("count/") || rules::is_extended_resource(name);
        if whole && amount != Quantity::whole(amount.value()) {
            errors.push(FieldError::invalid(&path, text, "must be an integer"));
        }
    }
}

fn scopes(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let given: Vec<&str> = walk::list(spec, "scopes").iter().filter_map(Value::as_str).collect();
    let path = path.child("scopes");
    let mut refuse = |why: &str| errors.push(FieldError::invalid(&path, Value::from(given.clone()), why));
    let resources = meta::strings(&spec["hard"]);
    for scope in &given {
        if !SCOPES.contains(scope) {
            refuse("unsupported scope");
        }
        if resources.keys().any(|resource| SCOPES.contains(scope) && !fits(scope, resource)) {
            refuse("unsupported scope applied to resource");
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| given.contains(scope)) {
            refuse("conflicting scopes");
        }
    }
}

/// Whether what a scope selects uses a resource.
fn fits(scope: &str, resource: &str) -> bool {
    let pods = matches!(resource, "pods" | "count/pods");
    match scope {
        "BestEffort" => pods,
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "count/persistentvolumeclaims" | "requests.storage")
                || resource.contains(".storageclass.storage.k8s.io/")
        }
        _ => {
            pods || COMPUTE.contains(&resource) || resource.starts_with("requests.") || resource.contains("hugepages-")
        }
    }
}

fn scope_selector(errors: &mut Vec<FieldError>, selector: &Value, path: &FieldPath) {
    for (index, requirement) in walk::list(selector, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let scope = requirement["scopeName"].as_str().unwrap_or_default();
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        let operator = requirement["operator"].as_str().unwrap_or_default();
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
            let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                       or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&path.child("operator"), operator, why));
        }
        let values = path.child("values");
        match (operator, walk::list(requirement, "values").is_empty()) {
            ("In" | "NotIn", true) => errors.push(FieldError::required(
                &values,
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
            ("Exists" | "DoesNotExist", false) => errors.push(FieldError::invalid(
                &values,
                requirement["values"].clone(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            )),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => {
                errors.push(FieldError::invalid(&path.child("operator"), operator, "not a valid selector operator"));
            }
        }
    }
}
