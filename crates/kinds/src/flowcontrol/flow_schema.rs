//! FlowSchema: which requests belong to which priority level.

use object_model::{FieldError, FieldPath, meta, names};
use serde_json::{Value, json};

use super::GROUP;
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "FlowSchema",
    plural: "flowschemas",
    singular: "flowschema",
    subresources: &[Subresource::status(GROUP, "FlowSchema")],
    type_name: "flowcontrol.v1.FlowSchema",
    storage: "flowschemas",
    has_status: true,
    has_generation: true,
    columns: &[
        Column::name(),
        Column::text("PriorityLevel", "The level of its requests."),
        Column::text("MatchingPrecedence", "Its place among the schemas: the lowest that matches counts."),
        Column::text("DistinguisherMethod", "What tells its flows apart."),
        Column::age(),
        Column::text("MissingPL", "Whether its level is missing."),
    ],
    example: "apiVersion: flowcontrol.apiserver.k8s.io/v1\nkind: FlowSchema\nmetadata: {name: example}\n\
              spec:\n  priorityLevelConfiguration: {name: workload-low}\n  distinguisherMethod: {type: ByUser}\n\
              \x20 rules:\n  - subjects: [{kind: User, user: {name: alice}}]\n\
              \x20   resourceRules: [{verbs: ['*'], apiGroups: [''], resources: [pods], namespaces: ['*']}]\n",
    hooks: &FlowSchema,
    ..crate::CLUSTER
};

struct FlowSchema;

const DEFAULT_PRECEDENCE: i64 = 1000;
const MAX_PRECEDENCE: i64 = 10_000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// Kinds of subjects, and the fields that name them.
const SUBJECTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

impl Kind for FlowSchema {
    fn limits_requests(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object())
            && walk::number(spec, "matchingPrecedence") == 0
        {
            spec["matchingPrecedence"] = DEFAULT_PRECEDENCE.into();
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let (name, spec) = (meta::name(object), &object["spec"]);
        let precedence = walk::number(spec, "matchingPrecedence");
        let at = path.child("matchingPrecedence");
        if precedence <= 0 {
            errors.push(FieldError::invalid(&at, precedence, "must be a positive value"));
        }
        if precedence > MAX_PRECEDENCE {
            errors.push(FieldError::invalid(&at, precedence, format!("must not be greater than {MAX_PRECEDENCE}")));
        }
        if precedence == 1 && name != "exempt" {
            let why = "only the schema named 'exempt' may have matchingPrecedence 1";
            errors.push(FieldError::invalid(&at, precedence, why));
        }
        if let Some(method) = walk::at(spec, "distinguisherMethod") {
            let path = path.child("distinguisherMethod");
            rules::required_choice(&mut errors, method, "type", &path, &["ByNamespace", "ByUser"]);
        }
        let level = path.child("priorityLevelConfiguration").child("name");
        match walk::text(spec, "priorityLevelConfiguration.name") {
            None => errors.push(FieldError::required(&level, "must reference a priority level")),
            Some(name) => rules::named(&mut errors, name, &level, names::dns_subdomain),
        }
        for (index, rule) in walk::list(spec, "rules").iter().enumerate() {
            policy_rule(&mut errors, rule, &path.child("rules").index(index));
        }
        if mandatory(name).is_some_and(|fixed| fixed != *spec) {
            let why = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid(&path, spec.clone(), why));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        super::conditions(&new["status"])
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let conditions = walk::list(object, "status.conditions");
        let dangling = conditions.iter().find(|condition| condition["type"] == "Dangling");
        vec![
            cells::name(object),
            cells::text(object, "spec.priorityLevelConfiguration.name"),
            walk::number(object, "spec.matchingPrecedence").to_string().into(),
            cells::text_or_none(object, "spec.distinguisherMethod.type"),
            cells::age(object, now),
            dangling.and_then(|condition| walk::text(condition, "status")).unwrap_or("?").into(),
        ]
    }
}

/// The spec of a schema that must be as it is.
fn mandatory(name: &str) -> Option<Value> {
    let everything = |group: &str| {
        json!({
            "subjects": [{"kind": "Group", "group": {"name": group}}],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        })
    };
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
            "rules": [everything("system:masters")],
        })),
        "catch-all" => {
            let mut rule = everything("system:unauthenticated");
            let also = json!({"kind": "Group", "group": {"name": "system:authenticated"}});
            rule["subjects"] = json!([rule["subjects"][0], also]);
            Some(json!({
                "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": MAX_PRECEDENCE,
                "distinguisherMethod": {"type": "ByUser"}, "rules": [rule],
            }))
        }
        _ => None,
    }
}

fn policy_rule(errors: &mut Vec<FieldError>, rule: &Value, path: &FieldPath) {
    let subjects = walk::list(rule, "subjects");
    if subjects.is_empty() {
        errors.push(FieldError::required(&path.child("subjects"), "subjects must contain at least one value"));
    }
    for (index, one) in subjects.iter().enumerate() {
        subject(errors, one, &path.child("subjects").index(index));
    }
    let (resources, others) = (walk::list(rule, "resourceRules"), walk::list(rule, "nonResourceRules"));
    if resources.is_empty() && others.is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(path, why));
    }
    for (index, rule) in resources.iter().enumerate() {
        resource_rule(errors, rule, &path.child("resourceRules").index(index));
    }
    for (index, rule) in others.iter().enumerate() {
        let path = path.child("nonResourceRules").index(index);
        verbs(errors, rule, &path);
        let why = "nonResourceURLs must contain at least one value";
        if list(errors, rule, "nonResourceURLs", &path, why, "non-resource URLs") {
            for (index, url) in walk::list(rule, "nonResourceURLs").iter().enumerate() {
                url_path(errors, url.as_str().unwrap_or_default(), &path.child("nonResourceURLs").index(index));
            }
        }
    }
}

/// A list that must not be empty, and in which the wildcard stands alone; whether it holds none.
fn list(errors: &mut Vec<FieldError>, rule: &Value, field: &str, path: &FieldPath, empty: &str, what: &str) -> bool {
    let given = walk::list(rule, field);
    let path = path.child(field);
    if given.is_empty() {
        errors.push(FieldError::required(&path, empty));
    }
    if rules::wildcard_and_more(given) {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(&path, Value::from(given), why));
    }
    given.iter().all(|item| item != "*")
}

fn verbs(errors: &mut Vec<FieldError>, rule: &Value, path: &FieldPath) {
    let plain = list(errors, rule, "verbs", path, "verbs must contain at least one value", "verbs");
    let given = walk::list(rule, "verbs");
    if plain && !given.iter().filter_map(Value::as_str).all(|verb| VERBS.contains(&verb)) {
        errors.push(FieldError::not_supported(&path.child("verbs"), Value::from(given), &VERBS));
    }
}

fn resource_rule(errors: &mut Vec<FieldError>, rule: &Value, path: &FieldPath) {
    verbs(errors, rule, path);
    list(errors, rule, "apiGroups", path, "resource rules must supply at least one api group", "api groups");
    list(errors, rule, "resources", path, "resource rules must supply at least one resource", "resources");
    let namespaces = walk::list(rule, "namespaces");
    let path = path.child("namespaces");
    if namespaces.is_empty() && rule["clusterScope"] != true {
        let why = "resource rules that are not cluster scoped must supply at least one namespace";
        errors.push(FieldError::required(&path, why));
    }
    if rules::wildcard_and_more(namespaces) {
        let why = "if '*' is present, must not specify other namespaces";
        errors.push(FieldError::invalid(&path, Value::from(namespaces), why));
    } else if namespaces.iter().all(|namespace| namespace != "*") {
        for (index, namespace) in namespaces.iter().filter_map(Value::as_str).enumerate() {
            rules::named(errors, namespace, &path.index(index), |name| {
                let problems = names::dns_label(name).into_iter();
                problems.map(|why| format!("each member of this list must be '*' or a DNS-1123 label; {why}")).collect()
            });
        }
    }
}

fn subject(errors: &mut Vec<FieldError>, subject: &Value, path: &FieldPath) {
    let kind = subject["kind"].as_str().unwrap_or_default();
    if !SUBJECTS.iter().any(|(name, _)| *name == kind) {
        let all = SUBJECTS.map(|(name, _)| name);
        errors.push(FieldError::not_supported(&path.child("kind"), kind, &all));
        return;
    }
    for (name, field) in SUBJECTS {
        let path = path.child(field);
        match (name == kind, walk::at(subject, field)) {
            (true, None) => {
                let why = format!("{field} is required when subject kind is '{name}'");
                errors.push(FieldError::required(&path, why));
            }
            (false, Some(_)) => {
                let why = format!("{field} is forbidden when subject kind is not '{name}'");
                errors.push(FieldError::forbidden(&path, why));
            }
            (true, Some(given)) => {
                let name = rules::required(errors, given, "name", &path);
                if field != "serviceAccount" {
                    continue;
                }
                if let Some(name) = name.filter(|name| *name != "*") {
                    rules::named(errors, name, &path.child("name"), names::dns_subdomain);
                }
                match walk::text(given, "namespace") {
                    None => {
                        let why = "must specify namespace for service account";
                        errors.push(FieldError::required(&path.child("namespace"), why));
                    }
                    Some(name) => rules::named(errors, name, &path.child("namespace"), names::dns_label),
                }
            }
            (false, None) => {}
        }
    }
}

fn url_path(errors: &mut Vec<FieldError>, url: &str, path: &FieldPath) {
    let stars = url.matches('*').count();
    let why = if url.is_empty() {
        "must not be empty"
    } else if url == "/" {
        return;
    } else if !url.starts_with('/') {
        "must start with slash"
    } else if url.contains(' ') {
        "must not contain white-space"
    } else if url.contains("//") {
        "must not contain double slash"
    } else if stars > 1 || stars == 1 && !url.ends_with("/*") {
        "wildcard can only do suffix matching"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, url, why));
}
