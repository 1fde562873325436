//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: expressions that judge or change what is written.

use object_model::{FieldError, FieldPath, meta, names};
use serde_json::Value;

use super::matching::{self, FAILURE_POLICIES, REINVOCATIONS};
use super::{BASE, GROUP, expressions};
use crate::{Column, Kind, Now, PolicyPart, Resource, Subresource, cel, cells, rules, walk};

pub(crate) static VALIDATING: Resource = Resource {
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    subresources: &[Subresource::status(GROUP, "ValidatingAdmissionPolicy")],
    type_name: "admissionregistration.v1.ValidatingAdmissionPolicy",
    storage: "validatingadmissionpolicies",
    has_status: true,
    columns: &[Column::name(), Column::number("Validations", "Number of validations."), PARAM_KIND, Column::age()],
    example: "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\nmetadata: {name: example}\n\
              spec:\n  matchConstraints:\n    resourceRules:\n\
              \x20   - {operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}\n\
              \x20 validations: [{expression: \"object.spec.replicas <= 5\"}]\n",
    hooks: &Policy { mutating: false },
    ..BASE
};

pub(crate) static MUTATING: Resource = Resource {
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    type_name: "admissionregistration.v1.MutatingAdmissionPolicy",
    storage: "mutatingadmissionpolicies",
    columns: &[Column::name(), Column::number("Mutations", "Number of mutations."), PARAM_KIND, Column::age()],
    example: "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicy\nmetadata: {name: example}\n\
              spec:\n  reinvocationPolicy: Never\n  matchConstraints:\n    resourceRules:\n\
              \x20   - {operations: [CREATE], apiGroups: [''], apiVersions: [v1], resources: [pods]}\n\
              \x20 mutations:\n  - patchType: ApplyConfiguration\n\
              \x20   applyConfiguration: {expression: \"Object{metadata: Object.metadata{labels: {'a': 'b'}}}\"}\n",
    hooks: &Policy { mutating: true },
    ..BASE
};

const PARAM_KIND: Column = Column::text("ParamKind", "Kind of the objects that parametrise it.");
/// Reasons that a refusal may give.
const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const MAX_ANNOTATIONS: usize = 20;
/// Bytes of an expression for the value of an audit annotation.
const MAX_VALUE_EXPRESSION: usize = 5 * 1024;

struct Policy {
    mutating: bool,
}

impl Kind for Policy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        walk::default(spec, "failurePolicy", "Fail");
        matching::default_resources(spec, "matchConstraints");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        rules::required_choice(&mut errors, spec, "failurePolicy", &path, &FAILURE_POLICIES);
        if let Some(kind) = walk::at(spec, "paramKind") {
            param_kind(&mut errors, kind, &path.child("paramKind"));
        }
        let constraints = path.child("matchConstraints");
        match walk::at(spec, "matchConstraints") {
            None => errors.push(FieldError::required(&constraints, "")),
            Some(given) => {
                matching::resources(&mut errors, given, &constraints);
                if walk::list(given, "resourceRules").is_empty() {
                    errors.push(FieldError::required(&constraints.child("resourceRules"), ""));
                }
            }
        }
        errors.extend(cel::policy(spec, &path).1);
        expressions::variables(&mut errors, spec, &path);
        if self.mutating {
            mutations(&mut errors, spec, &path);
        } else {
            validations(&mut errors, spec, &path);
            audit_annotations(&mut errors, object, &path.child("auditAnnotations"));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        let warnings = path.child("typeChecking").child("expressionWarnings");
        for (index, warning) in walk::list(new, "status.typeChecking.expressionWarnings").iter().enumerate() {
            for field in ["warning", "fieldRef"] {
                rules::required(&mut errors, warning, field, &warnings.index(index));
            }
        }
        rules::conditions(&mut errors, &new["status"], &path);
        errors
    }

    fn policy_part(&self) -> Option<PolicyPart> {
        Some(PolicyPart { mutating: self.mutating, binding: false })
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let count = cells::count(object, if self.mutating { "spec.mutations" } else { "spec.validations" });
        let kind = walk::at(object, "spec.paramKind").map_or_else(
            || "<unset>".to_owned(),
            |kind| {
                let text = |field: &str| walk::text(kind, field).unwrap_or_default();
                format!("{}/{}", text("apiVersion"), text("kind"))
            },
        );
        vec![cells::name(object), count, kind.into(), cells::age(object, now)]
    }
}

fn param_kind(errors: &mut Vec<FieldError>, given: &Value, path: &FieldPath) {
    if let Some(api_version) = rules::required(errors, given, "apiVersion", path) {
        let path = path.child("apiVersion");
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        if version.contains('/') {
            let why = format!("unexpected GroupVersion string: {api_version}");
            errors.push(FieldError::invalid(&path, api_version, why));
        } else {
            if !group.is_empty() {
                rules::named(errors, group, &path, names::dns_subdomain);
            }
            if version.is_empty() {
                errors.push(FieldError::invalid(&path, api_version, "version must be specified"));
            } else {
                rules::named(errors, version, &path, names::dns_label_1035);
            }
        }
    }
    if let Some(kind) = rules::required(errors, given, "kind", path) {
        let problems = names::dns_label_1035(&kind.to_lowercase());
        if !problems.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
            errors.push(FieldError::invalid(&path.child("kind"), kind, why));
        }
    }
}

fn validations(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let list = walk::list(spec, "validations");
    if list.is_empty() && walk::list(spec, "auditAnnotations").is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        for field in ["validations", "auditAnnotations"] {
            errors.push(FieldError::required(&path.child(field), why));
        }
    }
    for (index, validation) in list.iter().enumerate() {
        let path = path.child("validations").index(index);
        expressions::required(errors, validation, "expression", &path, "expression is not specified");
        expressions::optional(errors, validation, "messageExpression", &path);
        if let Some(message) = walk::text(validation, "message") {
            let path = path.child("message");
            if message.trim().is_empty() {
                errors.push(FieldError::invalid(&path, message, "message must be non-empty if specified"));
            } else if message.trim().contains(['\n', '\r']) {
                errors.push(FieldError::invalid(&path, message, "message must not contain line breaks"));
            }
        } else if walk::text(validation, "expression").is_some_and(|text| text.trim().contains(['\n', '\r'])) {
            let why = "message must be specified if expression contains line breaks";
            errors.push(FieldError::required(&path.child("message"), why));
        }
        walk::one_of(errors, validation, "reason", &path, &REASONS);
    }
}

fn audit_annotations(errors: &mut Vec<FieldError>, object: &Value, path: &FieldPath) {
    let list = walk::list(object, "spec.auditAnnotations");
    if list.len() > MAX_ANNOTATIONS {
        let why = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid(path, Value::from(list), why));
    }
    for (index, annotation) in list.iter().enumerate() {
        let path = path.index(index);
        let key = format!("{}/{}", meta::name(object), annotation["key"].as_str().unwrap_or_default());
        rules::named(errors, &key, &path.child("key"), names::qualified_name);
        expressions::required(errors, annotation, "valueExpression", &path, "valueExpression is not specified");
        if walk::text(annotation, "valueExpression").is_some_and(|text| text.trim().len() > MAX_VALUE_EXPRESSION) {
            let why = format!("must not exceed {MAX_VALUE_EXPRESSION} bytes in length");
            errors.push(FieldError::required(&path.child("valueExpression"), why));
        }
    }
    rules::unique(errors, list.iter().map(|annotation| walk::text(annotation, "key")), |index| {
        path.index(index).child("key")
    });
}

fn mutations(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    rules::required_choice(errors, spec, "reinvocationPolicy", path, &REINVOCATIONS);
    let path = path.child("mutations");
    let list = walk::list(spec, "mutations");
    if list.is_empty() {
        errors.push(FieldError::required(&path, "mutations must contain at least one item"));
    }
    for (index, mutation) in list.iter().enumerate() {
        let path = path.index(index);
        let kinds = [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")];
        let Some(patch) = rules::required(errors, mutation, "patchType", &path) else { continue };
        walk::one_of(errors, mutation, "patchType", &path, &["ApplyConfiguration", "JSONPatch"]);
        for (kind, field) in kinds.iter().filter(|_| kinds.iter().any(|(kind, _)| *kind == patch)) {
            let given = walk::at(mutation, field);
            let at = path.child(field);
            match (*kind == patch, given) {
                (true, None) => {
                    errors.push(FieldError::required(&at, format!("must be specified when patchType is {patch}")));
                }
                (true, Some(given)) => expressions::required(errors, given, "expression", &at, ""),
                (false, Some(given)) => {
                    let why = format!("must not be specified when patchType is {patch}");
                    errors.push(FieldError::invalid(&at, given.clone(), why));
                }
                (false, None) => {}
            }
        }
    }
}
