//! HorizontalPodAutoscaler of version 2, the stored form: how many pods a workload has, by what they use.

use object_model::{FieldError, FieldPath, Quantity, names};
use serde_json::{Value, json};

use super::{GROUP, metrics};
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[Subresource { version: "v2", ..Subresource::status(GROUP, "HorizontalPodAutoscaler") }],
    type_name: "autoscaling.v2.HorizontalPodAutoscaler",
    storage: "horizontalpodautoscalers",
    has_status: true,
    has_generation: true,
    columns: &[
        Column::name(),
        Column::text("Reference", "What is scaled."),
        Column::text("Targets", "What the pods use, and what they should."),
        Column::text("MinPods", "The fewest pods."),
        Column::text("MaxPods", "The most pods."),
        Column::text("Replicas", "Pods there."),
        Column::age(),
    ],
    example: "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: example, namespace: default}\n\
              spec:\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: example}\n  maxReplicas: 5\n\
              \x20 metrics:\n\
              \x20 - {type: Pods, pods: {metric: {name: requests}, target: {type: AverageValue, averageValue: \"10\"}}}\n\
              \x20 - {type: Resource, resource: {name: memory, target: {type: Utilization, averageUtilization: 70}}}\n\
              \x20 behavior: {scaleDown: {stabilizationWindowSeconds: 60}}\n",
    hooks: &Autoscaler,
    ..crate::NAMESPACED
};

struct Autoscaler;

/// Per cent of the cpu requested that pods should use, where nothing else is said.
pub(super) const DEFAULT_UTILIZATION: i64 = 80;
/// Seconds that a decision may be held back at most, and that a policy may look back.
const MAX_STABILIZATION: i64 = 3600;
const MAX_PERIOD: i64 = 1800;

/// The metric of autoscalers that name none.
pub(super) fn default_metric() -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": DEFAULT_UTILIZATION});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

impl Kind for Autoscaler {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        walk::default(spec, "minReplicas", 1);
        if walk::list(spec, "metrics").is_empty() {
            spec["metrics"] = json!([default_metric()]);
        }
        let Some(behavior) = spec.get_mut("behavior").filter(|behavior| behavior.is_object()) else { return };
        let up = walk::value_at(behavior, "scaleUp");
        walk::default(up, "stabilizationWindowSeconds", 0);
        walk::default(up, "selectPolicy", "Max");
        let by_percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        if walk::list(up, "policies").is_empty() {
            up["policies"] = json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, by_percent]);
        }
        let down = walk::value_at(behavior, "scaleDown");
        walk::default(down, "selectPolicy", "Max");
        if walk::list(down, "policies").is_empty() {
            down["policies"] = json!([by_percent]);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"desiredReplicas": 0});
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        let (min, max) = (walk::at(spec, "minReplicas").and_then(Value::as_i64), walk::number(spec, "maxReplicas"));
        if let Some(min) = min.filter(|min| *min < 1) {
            errors.push(FieldError::invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1"));
        }
        rules::positive(&mut errors, spec, "maxReplicas", &path, "must be greater than 0");
        if min.is_some_and(|min| max < min) {
            let why = "must be greater than or equal to `minReplicas`";
            errors.push(FieldError::invalid(&path.child("maxReplicas"), max, why));
        }
        reference(&mut errors, &spec["scaleTargetRef"], &path.child("scaleTargetRef"));
        for (index, metric) in walk::list(spec, "metrics").iter().enumerate() {
            metric_rules(&mut errors, metric, &path.child("metrics").index(index));
        }
        for direction in ["scaleUp", "scaleDown"] {
            if let Some(given) = walk::at(&spec["behavior"], direction) {
                scaling_rules(&mut errors, given, &path.child("behavior").child(direction));
            }
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["currentReplicas", "desiredReplicas"] {
            walk::not_negative(&mut errors, &new["status"], field, &FieldPath::new("status"));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let target = &object["spec"]["scaleTargetRef"];
        let text = |field: &str| walk::text(target, field).unwrap_or_default();
        let min = walk::at(object, "spec.minReplicas").map_or_else(|| "<unset>".to_owned(), Value::to_string);
        vec![
            cells::name(object),
            format!("{}/{}", text("kind"), text("name")).into(),
            metrics::shown(walk::list(object, "spec.metrics"), walk::list(object, "status.currentMetrics")).into(),
            min.into(),
            walk::number(object, "spec.maxReplicas").to_string().into(),
            walk::number(object, "status.currentReplicas").to_string().into(),
            cells::age(object, now),
        ]
    }
}

fn reference(errors: &mut Vec<FieldError>, reference: &Value, path: &FieldPath) {
    for field in ["kind", "name"] {
        rules::required_name(errors, reference, field, path, names::path_segment);
    }
}

fn metric_rules(errors: &mut Vec<FieldError>, metric: &Value, path: &FieldPath) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = metric["type"].as_str().unwrap_or_default();
    if kind.is_empty() {
        errors.push(FieldError::required(&path.child("type"), "must specify a metric source type"));
    }
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
    }
    let expected = metrics::field_of(kind);
    let given: Vec<&str> = metrics::FIELDS.iter().copied().filter(|field| walk::at(metric, field).is_some()).collect();
    if let Some(field) = given.first() {
        source(errors, field, &metric[*field], &path.child(field));
    }
    if !given.contains(&expected.as_str()) {
        let why = "must populate information for the given metric source";
        errors.push(FieldError::required(&path.child(&expected), why));
    }
    if given.len() != 1 {
        for field in given.iter().filter(|field| **field != expected) {
            let why = "must populate the given metric source only";
            errors.push(FieldError::forbidden(&path.child(field), why));
        }
    }
}

fn source(errors: &mut Vec<FieldError>, kind: &str, source: &Value, path: &FieldPath) {
    let target = path.child("target");
    let has = |field: &str| walk::at(&source["target"], field).is_some();
    match kind {
        "resource" | "containerResource" => {
            if walk::text(source, "name").is_none() {
                errors.push(FieldError::required(&path.child("name"), "must specify a resource name"));
            }
            if kind == "containerResource" && walk::text(source, "container").is_none() {
                errors.push(FieldError::required(&path.child("container"), "must specify a container"));
            }
        }
        _ => {
            if kind == "object" {
                reference(errors, &source["describedObject"], &path.child("describedObject"));
            }
            let path = path.child("metric");
            match walk::text(&source["metric"], "name") {
                None => errors.push(FieldError::required(&path.child("name"), "must specify a metric name")),
                Some(name) => rules::named(errors, name, &path.child("name"), names::path_segment),
            }
            if let Some(selector) = walk::at(&source["metric"], "selector") {
                crate::meta::selector(errors, selector, &path.child("selector"));
            }
        }
    }
    target_rules(errors, &source["target"], &target);
    match kind {
        "pods" => {
            let amount = rules::quantity(source, "target.averageValue");
            if amount.is_none_or(|amount| amount <= Quantity::whole(0)) {
                let why = "must specify a positive target averageValue";
                errors.push(FieldError::required(&target.child("averageValue"), why));
            }
        }
        "object" if !has("value") && !has("averageValue") => {
            let why = "must set either a target value or averageValue";
            errors.push(FieldError::required(&target.child("averageValue"), why));
        }
        "external" if !has("value") && !has("averageValue") => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.push(FieldError::required(&target.child("averageValue"), why));
        }
        "external" if has("value") && has("averageValue") => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(&target.child("value"), why));
        }
        "resource" | "containerResource" if !has("averageUtilization") && !has("averageValue") => {
            let why = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(&target.child("averageUtilization"), why));
        }
        "resource" | "containerResource" if has("averageUtilization") && has("averageValue") => {
            let why = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&target.child("averageValue"), why));
        }
        _ => {}
    }
}

fn target_rules(errors: &mut Vec<FieldError>, target: &Value, path: &FieldPath) {
    match walk::text(target, "type") {
        None => errors.push(FieldError::required(&path.child("type"), "must specify a metric target type")),
        Some("Utilization" | "Value" | "AverageValue") => {}
        Some(other) => {
            let why = "must be either Utilization, Value, or AverageValue";
            errors.push(FieldError::invalid(&path.child("type"), other, why));
        }
    }
    if walk::at(target, "averageUtilization").is_some() {
        rules::positive(errors, target, "averageUtilization", path, "must be greater than 0");
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = rules::quantity(target, field).filter(|amount| *amount <= Quantity::whole(0)) {
            errors.push(FieldError::invalid(&path.child(field), amount.to_string(), "must be positive"));
        }
    }
}

fn scaling_rules(errors: &mut Vec<FieldError>, given: &Value, path: &FieldPath) {
    if let Some(seconds) = walk::at(given, "stabilizationWindowSeconds").and_then(Value::as_i64) {
        let path = path.child("stabilizationWindowSeconds");
        if seconds < 0 {
            errors.push(FieldError::invalid(&path, seconds, "must be greater than or equal to zero"));
        }
        if seconds > MAX_STABILIZATION {
            let why = format!("must be less than or equal to {MAX_STABILIZATION}");
            errors.push(FieldError::invalid(&path, seconds, why));
        }
    }
    walk::one_of(errors, given, "selectPolicy", path, &["Disabled", "Max", "Min"]);
    if let Some(amount) = rules::quantity(given, "tolerance").filter(Quantity::is_negative) {
        errors.push(FieldError::invalid(&path.child("tolerance"), amount.to_string(), walk::NOT_NEGATIVE));
    }
    let path = path.child("policies");
    let policies = walk::list(given, "policies");
    if policies.is_empty() {
        errors.push(FieldError::required(&path, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        let kind = policy["type"].as_str().unwrap_or_default();
        if !matches!(kind, "Percent" | "Pods") {
            errors.push(FieldError::not_supported(&path.child("type"), kind, &["Percent", "Pods"]));
        }
        rules::positive(errors, policy, "value", &path, "must be greater than zero");
        rules::positive(errors, policy, "periodSeconds", &path, "must be greater than zero");
        let seconds = walk::number(policy, "periodSeconds");
        if seconds > MAX_PERIOD {
            let why = format!("must be less than or equal to {MAX_PERIOD}");
            errors.push(FieldError::invalid(&path.child("periodSeconds"), seconds, why));
        }
    }
}
