//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy applies, and with which parameters.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use super::{BASE, matching};
use crate::{Column, Kind, Now, PolicyPart, Resource, cells, rules, scale, walk};

pub(crate) static VALIDATING: Resource = Resource {
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    type_name: "admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    storage: "validatingadmissionpolicybindings",
    columns: &[
        Column::name(),
        Column::text("PolicyName", "The policy."),
        Column::text("ParamRef", "The object that parametrises it."),
        Column::age(),
    ],
    example: "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicyBinding\n\
              metadata: {name: example}\nspec: {policyName: example, validationActions: [Deny]}\n",
    hooks: &Binding { mutating: false },
    ..BASE
};

pub(crate) static MUTATING: Resource = Resource {
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    type_name: "admissionregistration.v1.MutatingAdmissionPolicyBinding",
    storage: "mutatingadmissionpolicybindings",
    example: "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicyBinding\n\
              metadata: {name: example}\nspec: {policyName: example}\n",
    hooks: &Binding { mutating: true },
    ..VALIDATING
};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

struct Binding {
    mutating: bool,
}

impl Kind for Binding {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec") {
            matching::default_resources(spec, "matchResources");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        rules::required_name(&mut errors, spec, "policyName", &path, names::dns_subdomain);
        if let Some(reference) = walk::at(spec, "paramRef") {
            param_ref(&mut errors, reference, &path.child("paramRef"));
        }
        if let Some(resources) = walk::at(spec, "matchResources") {
            matching::resources(&mut errors, resources, &path.child("matchResources"));
        }
        if !self.mutating {
            actions(&mut errors, walk::list(spec, "validationActions"), &path.child("validationActions"));
        }
        errors
    }

    fn policy_part(&self) -> Option<PolicyPart> {
        Some(PolicyPart { mutating: self.mutating, binding: true })
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let reference = &object["spec"]["paramRef"];
        let shown = match (walk::text(reference, "name"), walk::text(reference, "namespace")) {
            (Some(name), Some(namespace)) => format!("{namespace}/{name}"),
            (Some(name), None) => name.to_owned(),
            (None, _) => match walk::at(reference, "selector") {
                Some(selector) => scale::selector_cell(selector),
                None => "<unset>".to_owned(),
            },
        };
        vec![cells::name(object), cells::text(object, "spec.policyName"), shown.into(), cells::age(object, now)]
    }
}

fn param_ref(errors: &mut Vec<FieldError>, reference: &Value, path: &FieldPath) {
    let selector = walk::at(reference, "selector");
    rules::named_field(errors, reference, "name", path, names::path_segment);
    if let Some(selector) = selector {
        crate::meta::selector(errors, selector, &path.child("selector"));
    }
    match (walk::text(reference, "name"), selector) {
        (Some(_), Some(_)) => {
            for field in ["name", "selector"] {
                let why = "name and selector are mutually exclusive";
                errors.push(FieldError::forbidden(&path.child(field), why));
            }
        }
        (None, None) => errors.push(FieldError::required(path, "one of name or selector must be specified")),
        _ => {}
    }
    rules::required_choice(errors, reference, "parameterNotFoundAction", path, &["Deny", "Allow"]);
}

fn actions(errors: &mut Vec<FieldError>, list: &[Value], path: &FieldPath) {
    for (index, action) in list.iter().filter_map(Value::as_str).enumerate() {
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(&path.index(index), action, &ACTIONS));
        }
    }
    rules::unique(errors, list.iter().map(Value::as_str), |index| path.index(index));
    if ["Deny", "Warn"].iter().all(|action| list.iter().any(|given| given == action)) {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                   response and headers serves no purpose)";
        errors.push(FieldError::invalid(path, Value::from(list), why));
    }
    if list.is_empty() {
        errors.push(FieldError::required(path, "at least one validation action is required"));
    }
}
