//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration: servers that are asked before something is written.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use super::BASE;
use super::matching::{self, FAILURE_POLICIES, MATCH_POLICIES, REINVOCATIONS};
use crate::{Column, Kind, Now, Resource, Webhooks, cel, cells, rules, walk};

pub(crate) static VALIDATING: Resource = Resource {
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    type_name: "admissionregistration.v1.ValidatingWebhookConfiguration",
    storage: "validatingwebhookconfigurations",
    columns: COLUMNS,
    example: "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: example}\n\
              webhooks:\n- name: pods.example.com\n  sideEffects: None\n  admissionReviewVersions: [v1]\n\
              \x20 clientConfig: {service: {name: hook, namespace: default}}\n\
              \x20 rules: [{operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}]\n",
    hooks: &Configuration { mutating: false },
    ..BASE
};

pub(crate) static MUTATING: Resource = Resource {
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    type_name: "admissionregistration.v1.MutatingWebhookConfiguration",
    storage: "mutatingwebhookconfigurations",
    example: "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata: {name: example}\n\
              webhooks:\n- name: pods.example.com\n  sideEffects: NoneOnDryRun\n  admissionReviewVersions: [v1, v1beta1]\n\
              \x20 clientConfig: {url: \"https://hooks.example.com/mutate\"}\n\
              \x20 rules: [{operations: ['*'], apiGroups: [apps], apiVersions: ['*'], resources: ['*/*']}]\n",
    hooks: &Configuration { mutating: true },
    ..VALIDATING
};

const COLUMNS: &[Column] = &[Column::name(), Column::number("Webhooks", "Number of webhooks."), Column::age()];
/// Versions of the question that the server can ask.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// What a webhook may do beside answering: nothing that a dry run would leave behind.
const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];

struct Configuration {
    mutating: bool,
}

impl Kind for Configuration {
    fn default(&self, object: &mut Value) {
        for hook in walk::each_mut(object, "webhooks").filter(|hook| hook.is_object()) {
            walk::default(hook, "failurePolicy", "Fail");
            matching::default_selection(hook);
            walk::default(hook, "timeoutSeconds", 10);
            if self.mutating {
                walk::default(hook, "reinvocationPolicy", "Never");
            }
            matching::default_rules(hook, "rules");
            if let Some(service) = hook.pointer_mut("/clientConfig/service") {
                walk::default(service, "port", 443);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("webhooks");
        let hooks = walk::list(object, "webhooks");
        for (index, hook) in hooks.iter().enumerate() {
            webhook(&mut errors, hook, &path.index(index));
        }
        rules::unique(&mut errors, hooks.iter().map(|hook| walk::text(hook, "name")), |index| {
            path.index(index).child("name")
        });
        errors
    }

    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("webhooks") != old.get("webhooks")
    }

    fn webhooks(&self) -> Option<Webhooks> {
        Some(if self.mutating { Webhooks::Mutating } else { Webhooks::Validating })
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![cells::name(object), cells::count(object, "webhooks"), cells::age(object, now)]
    }
}

fn webhook(errors: &mut Vec<FieldError>, hook: &Value, path: &FieldPath) {
    rules::fully_qualified(errors, hook["name"].as_str().unwrap_or_default(), &path.child("name"));
    for (index, rule) in walk::list(hook, "rules").iter().enumerate() {
        matching::rule(errors, rule, &path.child("rules").index(index));
    }
    walk::one_of(errors, hook, "failurePolicy", path, &FAILURE_POLICIES);
    walk::one_of(errors, hook, "matchPolicy", path, &MATCH_POLICIES);
    walk::one_of(errors, hook, "reinvocationPolicy", path, &REINVOCATIONS);
    if walk::text(hook, "sideEffects").is_none() {
        let why = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
        errors.push(FieldError::required(&path.child("sideEffects"), why));
    }
    walk::one_of(errors, hook, "sideEffects", path, &SIDE_EFFECTS);
    if let Some(seconds) = walk::at(hook, "timeoutSeconds")
        && !seconds.as_i64().is_some_and(|seconds| (1..=30).contains(&seconds))
    {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), seconds.clone(), why));
    }
    for field in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = walk::at(hook, field) {
            crate::meta::selector(errors, selector, &path.child(field));
        }
    }
    let client = path.child("clientConfig");
    match (walk::text(hook, "clientConfig.url"), walk::at(hook, "clientConfig.service")) {
        (Some(url), None) => url_rules(errors, url, &client.child("url")),
        (None, Some(service)) => rules::service_reference(errors, service, &client.child("service")),
        _ => errors.push(FieldError::required(&client, "exactly one of url or service is required")),
    }
    errors.extend(cel::match_conditions(&hook["matchConditions"], &path.child("matchConditions")));
    versions(errors, walk::list(hook, "admissionReviewVersions"), &path.child("admissionReviewVersions"));
}

fn url_rules(errors: &mut Vec<FieldError>, url: &str, path: &FieldPath) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let mut refuse = |value: &str, why: &str| errors.push(FieldError::invalid(path, value, format!("{why}{FORM}")));
    if scheme != "https" {
        refuse(scheme, "'https' is the only allowed URL scheme");
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        refuse(host, "host must be specified");
    }
    if !user.is_empty() {
        refuse(user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        refuse(fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        refuse(query, "query parameters are not permitted in the URL");
    }
}

fn versions(errors: &mut Vec<FieldError>, versions: &[Value], path: &FieldPath) {
    if versions.is_empty() {
        errors.push(FieldError::required(path, format!("must specify one of {}", VERSIONS.join(", "))));
        return;
    }
    for (index, version) in versions.iter().filter_map(Value::as_str).enumerate() {
        if versions[..index].iter().any(|other| other == version) {
            errors.push(FieldError::invalid(&path.index(index), version, "duplicate version"));
            continue;
        }
        rules::named(errors, version, &path.index(index), names::dns_label_1035);
    }
    if !versions.iter().filter_map(Value::as_str).any(|version| VERSIONS.contains(&version)) {
        let why = format!("must include at least one of {}", VERSIONS.join(", "));
        errors.push(FieldError::invalid(path, Value::from(versions), why));
    }
}
