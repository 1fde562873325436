//! DaemonSet: one pod on each node that fits.

use object_model::{FieldError, FieldPath, meta, time};
use serde_json::{Value, json};

use crate::pod_template::{containers_and_images, default_spec, validate_selector, validate_template};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, scale, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "apps",
        version: "v1",
        kind: "DaemonSet",
    }],
    type_name: "apps.v1.DaemonSet",
    storage: "daemonsets",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::number("Desired", "Nodes that should run its pod."),
        Column::number("Current", "Nodes that should and do."),
        Column::number("Ready", "Nodes whose pod is ready."),
        Column::number("Up-to-date", "Nodes whose pod is made from the current template."),
        Column::number("Available", "Nodes whose pod has been ready for long enough."),
        Column::text("Node Selector", "Labels that its nodes have."),
        Column::age(),
        Column::text("Containers", "Names of the template's containers.").wide(),
        Column::text("Images", "Images of the template's containers.").wide(),
        Column::text("Selector", "Labels by which the pods are found.").wide(),
    ],
    example: "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: example, namespace: default}\n\
              spec:\n  selector: {matchLabels: {app: example}}\n  template:\n    metadata: {labels: {app: example}}\n\
              \x20   spec:\n      containers: [{name: main, image: \"nginx:1.27\"}]\n",
    hooks: &DaemonSet,
};

struct DaemonSet;

/// Whether a number or percentage is nothing.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.trim_end_matches('%') == "0",
        value => value.as_i64() == Some(0),
    }
}

impl Kind for DaemonSet {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        walk::default(spec, "revisionHistoryLimit", 10);
        walk::map_at(spec, "updateStrategy");
        let strategy = &mut spec["updateStrategy"];
        walk::default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            walk::default(strategy, "rollingUpdate", json!({}));
            walk::default(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
            walk::default(&mut strategy["rollingUpdate"], "maxSurge", 0);
        }
        if let Some(pod) = spec.pointer_mut("/template/spec") {
            default_spec(pod);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        });
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        for field in ["minReadySeconds", "revisionHistoryLimit"] {
            walk::not_negative(&mut errors, spec, field, &path);
        }
        validate_selector(&mut errors, spec, "daemonset", &path);
        let template = path.child("template");
        validate_template(&mut errors, &spec["template"], &spec["selector"], "DaemonSet", &template);
        let strategy = &spec["updateStrategy"];
        let path = path.child("updateStrategy");
        walk::one_of(&mut errors, strategy, "type", &path, &["OnDelete", "RollingUpdate"]);
        if strategy["type"] == "RollingUpdate" {
            let rolling = &strategy["rollingUpdate"];
            let path = path.child("rollingUpdate");
            for field in ["maxUnavailable", "maxSurge"] {
                walk::number_or_part(&mut errors, rolling, field, &path);
            }
            let (unavailable, surge) = (is_zero(&rolling["maxUnavailable"]), is_zero(&rolling["maxSurge"]));
            if unavailable && surge {
                let given = rolling["maxUnavailable"].clone();
                let why = "cannot be 0 when maxSurge is 0";
                errors.push(FieldError::invalid(&path.child("maxUnavailable"), given, why));
            } else if !unavailable && !surge {
                let given = rolling["maxSurge"].clone();
                let why = "may not be set when maxUnavailable is non-zero";
                errors.push(FieldError::invalid(&path.child("maxSurge"), given, why));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.selector");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["spec"]["template"]);
        let number = |field: &str| Value::from(walk::number(&object["status"], field));
        let labels = json!({"matchLabels": object["spec"]["template"]["spec"]["nodeSelector"]});
        vec![
            meta::name(object).into(),
            number("desiredNumberScheduled"),
            number("currentNumberScheduled"),
            number("numberReady"),
            number("updatedNumberScheduled"),
            number("numberAvailable"),
            scale::selector_cell(&labels).into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            containers.into(),
            images.into(),
            scale::selector_cell(&object["spec"]["selector"]).into(),
        ]
    }
}
