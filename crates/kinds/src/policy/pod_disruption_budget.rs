//! PodDisruptionBudget: how many pods of a set may be taken away at a time.

use object_model::{FieldError, FieldPath, meta, time};
use serde_json::{Value, json};

use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "policy",
        version: "v1",
        kind: "PodDisruptionBudget",
    }],
    type_name: "policy.v1.PodDisruptionBudget",
    storage: "poddisruptionbudgets",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: false,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Min Available", "Pods that have to stay."),
        Column::text("Max Unavailable", "Pods that may be missing."),
        Column::number("Allowed Disruptions", "Pods that may be taken away now."),
        Column::age(),
    ],
    example: "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: example, namespace: default}\n\
              spec: {minAvailable: 1, selector: {matchLabels: {app: example}}}\n",
    hooks: &PodDisruptionBudget,
};

struct PodDisruptionBudget;

/// A number or percentage for a table cell.
fn amount(value: &Value) -> String {
    match value {
        Value::Null => "N/A".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Kind for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] =
            json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        if walk::at(spec, "minAvailable").is_some() && walk::at(spec, "maxUnavailable").is_some() {
            let why = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid(&path, spec.clone(), why));
        }
        for field in ["minAvailable", "maxUnavailable"] {
            walk::number_or_part(&mut errors, spec, field, &path);
        }
        if let Some(selector) = walk::at(spec, "selector") {
            crate::meta::selector(&mut errors, selector, &path.child("selector"));
        }
        walk::one_of(&mut errors, spec, "unhealthyPodEvictionPolicy", &path, &["AlwaysAllow", "IfHealthyBudget"]);
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            amount(&object["spec"]["minAvailable"]).into(),
            amount(&object["spec"]["maxUnavailable"]).into(),
            walk::number(object, "status.disruptionsAllowed").into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
