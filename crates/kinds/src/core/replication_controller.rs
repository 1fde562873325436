//! ReplicationController: a number of equal pods; what there was before ReplicaSets.

use object_model::{FieldError, FieldPath, meta};
use serde_json::{Value, json};

use crate::pod_template::{containers_and_images, default_spec, validate_template};
use crate::{Column, Kind, Now, Resource, Subresource, cells, walk};

pub(crate) static RESOURCE: Resource = Resource {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    subresources: &[
        Subresource::part("scale", "autoscaling", "Scale"),
        Subresource::status("", "ReplicationController"),
    ],
    type_name: "core.v1.ReplicationController",
    storage: "replicationcontrollers",
    has_status: true,
    has_generation: true,
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
    example: "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: example, namespace: default}\n\
              spec:\n  template:\n    metadata: {labels: {app: example}}\n\
              \x20   spec: {containers: [{name: main, image: \"nginx:1.27\"}]}\n",
    hooks: &ReplicationController,
    ..crate::NAMESPACED
};

struct ReplicationController;

impl Kind for ReplicationController {
    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            let is_empty = |map: &Value| map.as_object().is_none_or(serde_json::Map::is_empty);
            if is_empty(&object["spec"]["selector"]) {
                object["spec"]["selector"] = labels.clone();
            }
            if is_empty(&object["metadata"]["labels"]) {
                object["metadata"]["labels"] = labels;
            }
        }
        if !object["spec"].is_object() {
            return;
        }
        walk::default(&mut object["spec"], "replicas", 1);
        if let Some(pod) = object.pointer_mut("/spec/template/spec") {
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
        for field in ["minReadySeconds", "replicas"] {
            walk::not_negative(&mut errors, spec, field, &path);
        }
        if meta::strings(&spec["selector"]).is_empty() {
            errors.push(FieldError::required(&path.child("selector"), ""));
        }
        crate::meta::label_map(&mut errors, &spec["selector"], &path.child("selector"));
        let template = path.child("template");
        if walk::at(spec, "template").is_none() {
            errors.push(FieldError::required(&template, ""));
            return errors;
        }
        let selector = json!({"matchLabels": spec["selector"]});
        validate_template(&mut errors, &spec["template"], &selector, "ReplicationController", &template);
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        for field in ["replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas", "observedGeneration"] {
            walk::not_negative(&mut errors, &new["status"], field, &path);
        }
        for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
            let number = walk::number(&new["status"], field);
            if number > walk::number(new, "status.replicas") {
                let why = "cannot be greater than status.replicas";
                errors.push(FieldError::invalid(&path.child(field), number, why));
            }
        }
        errors
    }

    fn orphans_dependents(&self) -> bool {
        true
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "status.replicas").then(|| walk::number(object, name).to_string())
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["spec"]["template"]);
        vec![
            cells::name(object),
            walk::number(object, "spec.replicas").into(),
            walk::number(object, "status.replicas").into(),
            walk::number(object, "status.readyReplicas").into(),
            cells::age(object, now),
            containers.into(),
            images.into(),
            cells::labels(&object["spec"]["selector"]),
        ]
    }
}
