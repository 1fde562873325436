//! IngressClass: who serves an Ingress.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "networking.v1.IngressClass",
    storage: "ingressclasses",
    has_status: false,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Controller", "Who serves Ingresses of this class."),
        Column::text("Parameters", "What else the controller is told."),
        Column::age(),
    ],
    example: "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: example}\n\
              spec: {controller: example.com/ingress}\n",
    hooks: &IngressClass,
};

struct IngressClass;

impl Kind for IngressClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("controller");
        let controller = walk::text(object, "spec.controller").unwrap_or_default();
        let prefixed = controller.split_once('/').is_some_and(|(domain, rest)| {
            names::dns_subdomain(domain).is_empty() && !rest.is_empty() && !rest.contains(char::is_whitespace)
        });
        if controller.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !prefixed {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(&path, controller, why));
        }
        if let Some(parameters) = walk::at(object, "spec.parameters") {
            let path = FieldPath::new("spec").child("parameters");
            for field in ["kind", "name"].iter().filter(|field| walk::text(parameters, field).is_none()) {
                errors.push(FieldError::required(&path.child(field), ""));
            }
            walk::one_of(&mut errors, parameters, "scope", &path, &["Cluster", "Namespace"]);
            let at = path.child("namespace");
            match (walk::text(parameters, "scope"), walk::text(parameters, "namespace")) {
                (Some("Namespace"), None) => {
                    errors.push(FieldError::required(&at, "`parameters.scope` is set to 'Namespace'"));
                }
                (Some("Cluster"), Some(_)) => {
                    errors.push(FieldError::forbidden(&at, "`parameters.scope` is set to 'Cluster'"));
                }
                _ => {}
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.controller");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let parameters = walk::at(object, "spec.parameters").map(|parameters| {
            let text = |field: &str| walk::text(parameters, field).unwrap_or_default().to_owned();
            let kind = match walk::text(parameters, "apiGroup") {
                Some(group) => format!("{}.{group}", text("kind")),
                None => text("kind"),
            };
            format!("{kind}/{}", text("name"))
        });
        vec![
            object_model::meta::name(object).into(),
            walk::text(object, "spec.controller").unwrap_or_default().into(),
            parameters.unwrap_or_else(|| "<none>".to_owned()).into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
