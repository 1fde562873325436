//! ControllerRevision: what a StatefulSet or a DaemonSet once looked like.

use object_model::{FieldError, FieldPath, meta, time};
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "apps.v1.ControllerRevision",
    storage: "controllerrevisions",
    has_status: false,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Controller", "Whose revision it is."),
        Column::text("Revision", "Its number."),
        Column::age(),
    ],
    example: "apiVersion: apps/v1\nkind: ControllerRevision\nmetadata: {name: example, namespace: default}\n\
              revision: 1\ndata: {spec: {template: {}}}\n",
    hooks: &ControllerRevision,
};

struct ControllerRevision;

impl Kind for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let revision = walk::number(object, "revision");
        if revision < 0 {
            errors.push(FieldError::invalid(&FieldPath::new("revision"), revision, walk::NOT_NEGATIVE));
        }
        if walk::at(object, "data").is_none() {
            errors.push(FieldError::required(&FieldPath::new("data"), "data is mandatory"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "data");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let controller = meta::controller_of(object).map(|owner| {
            let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
            let kind = owner.kind.to_lowercase();
            let kind = if group.is_empty() { kind } else { format!("{kind}.{group}") };
            format!("{kind}/{}", owner.name)
        });
        vec![
            meta::name(object).into(),
            controller.unwrap_or_else(|| "<none>".to_owned()).into(),
            walk::number(object, "revision").to_string().into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
