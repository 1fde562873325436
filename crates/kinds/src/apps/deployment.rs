//! Deployment: a set of equal pods, and how it changes from one template to the next.

use object_model::{FieldError, FieldPath};
use serde_json::{Value, json};

use crate::pod_template::{containers_and_images, default_spec, validate_selector, validate_template};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, scale, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[
        Subresource { name: "scale", verbs: OBJECT_VERBS, group: "autoscaling", version: "v1", kind: "Scale" },
        Subresource { name: "status", verbs: OBJECT_VERBS, group: "apps", version: "v1", kind: "Deployment" },
    ],
    type_name: "apps.v1.Deployment",
    storage: "deployments",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Ready", "Pods that are ready, of those wanted."),
        Column::text("Up-to-date", "Pods made from the current template."),
        Column::text("Available", "Pods that have been ready for long enough."),
        Column::age(),
        Column::text("Containers", "Names of the template's containers.").wide(),
        Column::text("Images", "Images of the template's containers.").wide(),
        Column::text("Selector", "Labels by which the pods are found.").wide(),
    ],
    example: "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: example, namespace: default}\n\
              spec:\n  selector: {matchLabels: {app: example}}\n  template:\n    metadata: {labels: {app: example}}\n\
              \x20   spec:\n      containers: [{name: main, image: \"nginx:1.27\"}]\n",
    hooks: &Deployment,
};

struct Deployment;

impl Kind for Deployment {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        walk::default(spec, "replicas", 1);
        walk::default(spec, "progressDeadlineSeconds", 600);
        walk::default(spec, "revisionHistoryLimit", 10);
        walk::map_at(spec, "strategy");
        let strategy = &mut spec["strategy"];
        walk::default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            walk::default(strategy, "rollingUpdate", json!({}));
            walk::default(&mut strategy["rollingUpdate"], "maxUnavailable", "25%");
            walk::default(&mut strategy["rollingUpdate"], "maxSurge", "25%");
        }
        if let Some(pod) = spec.pointer_mut("/template/spec") {
            default_spec(pod);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        for field in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            walk::not_negative(&mut errors, spec, field, &path);
        }
        if let Some(deadline) = walk::at(spec, "progressDeadlineSeconds").and_then(Value::as_i64)
            && deadline <= walk::number(spec, "minReadySeconds")
        {
            let why = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid(&path.child("progressDeadlineSeconds"), deadline, why));
        }
        validate_selector(&mut errors, spec, "deployment", &path);
        let template = path.child("template");
        validate_template(&mut errors, &spec["template"], &spec["selector"], "Deployment", &template);
        strategy(&mut errors, &spec["strategy"], &path.child("strategy"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.selector");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["spec"]["template"]);
        let status = |field: &str| walk::number(&object["status"], field);
        vec![
            object_model::meta::name(object).into(),
            format!("{}/{}", status("readyReplicas"), walk::number(object, "spec.replicas")).into(),
            status("updatedReplicas").to_string().into(),
            status("availableReplicas").to_string().into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            containers.into(),
            images.into(),
            scale::selector_cell(&object["spec"]["selector"]).into(),
        ]
    }
}

fn strategy(errors: &mut Vec<FieldError>, strategy: &Value, path: &FieldPath) {
    walk::one_of(errors, strategy, "type", path, &["Recreate", "RollingUpdate"]);
    let rolling = path.child("rollingUpdate");
    let Some(update) = walk::at(strategy, "rollingUpdate") else { return };
    if strategy["type"] == "Recreate" {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden(&rolling, why));
        return;
    }
    let unavailable = walk::number_or_percentage(errors, update, "maxUnavailable", &rolling);
    let surge = walk::number_or_percentage(errors, update, "maxSurge", &rolling);
    if unavailable == Some(0) && surge == Some(0) {
        let why = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&rolling.child("maxUnavailable"), update["maxUnavailable"].clone(), why));
    }
    if update["maxUnavailable"].is_string() && unavailable > Some(100) {
        let why = "must not be greater than 100%";
        errors.push(FieldError::invalid(&rolling.child("maxUnavailable"), update["maxUnavailable"].clone(), why));
    }
}
