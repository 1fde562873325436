//! ReplicaSet: a number of equal pods.

use object_model::{FieldError, FieldPath};
use serde_json::{Value, json};

use crate::pod_template::{containers_and_images, default_spec, validate_selector, validate_template};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, scale, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[
        Subresource { name: "scale", verbs: OBJECT_VERBS, group: "autoscaling", version: "v1", kind: "Scale" },
        Subresource { name: "status", verbs: OBJECT_VERBS, group: "apps", version: "v1", kind: "ReplicaSet" },
    ],
    type_name: "apps.v1.ReplicaSet",
    storage: "replicasets",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &["status.replicas"],
    columns: &[
        Column::name(),
        Column::number("Desired", "Pods wanted."),
        Column::number("Current", "Pods there."),
        Column::number("Ready", "Pods that are ready."),
        Column::age(),
        Column::text("Containers", "Names of the template's containers.").wide(),
        Column::text("Images", "Images of the template's containers.").wide(),
        Column::text("Selector", "Labels by which the pods are found.").wide(),
    ],
    example: "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: example, namespace: default}\n\
              spec:\n  selector: {matchLabels: {app: example}}\n  template:\n    metadata: {labels: {app: example}}\n\
              \x20   spec:\n      containers: [{name: main, image: \"nginx:1.27\"}]\n",
    hooks: &ReplicaSet,
};

struct ReplicaSet;

impl Kind for ReplicaSet {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        walk::default(spec, "replicas", 1);
        if let Some(pod) = spec.pointer_mut("/template/spec") {
            default_spec(pod);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        for field in ["replicas", "minReadySeconds"] {
            walk::not_negative(&mut errors, spec, field, &path);
        }
        validate_selector(&mut errors, spec, "replicaset", &path);
        let template = path.child("template");
        validate_template(&mut errors, &spec["template"], &spec["selector"], "ReplicaSet", &template);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.selector");
        errors
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "status.replicas").then(|| walk::number(object, name).to_string())
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["spec"]["template"]);
        vec![
            object_model::meta::name(object).into(),
            walk::number(object, "spec.replicas").into(),
            walk::number(object, "status.replicas").into(),
            walk::number(object, "status.readyReplicas").into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            containers.into(),
            images.into(),
            scale::selector_cell(&object["spec"]["selector"]).into(),
        ]
    }
}
