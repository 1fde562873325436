//! LimitRange: how much one pod, container or claim of a namespace may ask for, and what it gets that asks for nothing.

use object_model::{FieldError, FieldPath, Quantity, names};
use serde_json::{Map, Value};

use crate::pod_template::{container_resource_name, is_not_overcommitted};
use crate::{Column, Kind, Now, Resource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    type_name: "core.v1.LimitRange",
    storage: "limitranges",
    create_by_update: true,
    columns: &[Column::name(), Column::created()],
    example: "apiVersion: v1\nkind: LimitRange\nmetadata: {name: example, namespace: default}\n\
              spec: {limits: [{type: Container, max: {cpu: \"2\"}, min: {cpu: 100m}}]}\n",
    hooks: &LimitRange,
    ..crate::NAMESPACED
};

struct LimitRange;

/// What limits can be for; anything else has a domain.
const TYPES: [&str; 3] = ["Container", "PersistentVolumeClaim", "Pod"];
const MAPS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

impl Kind for LimitRange {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec") else { return };
        for item in walk::each_mut(spec, "limits").filter(|item| item["type"] == "Container") {
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                fill(item, from, to);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("limits");
        let items = walk::list(object, "spec.limits");
        rules::unique(&mut errors, items.iter().map(|item| walk::text(item, "type")), |index| {
            path.index(index).child("type")
        });
        for (index, item) in items.iter().enumerate() {
            limit(&mut errors, item, &path.index(index));
        }
        errors
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![cells::name(object), cells::created(object)]
    }
}

/// Amounts that are in one map and not in the other.
fn fill(item: &mut Value, from: &str, to: &str) {
    let Some(amounts) = item.get(from).and_then(Value::as_object).filter(|map| !map.is_empty()).cloned() else {
        return;
    };
    let map = walk::map_at(item, to);
    for (name, amount) in amounts {
        map.entry(name).or_insert(amount);
    }
}

fn limit(errors: &mut Vec<FieldError>, item: &Value, path: &FieldPath) {
    let kind = item["type"].as_str().unwrap_or_default();
    rules::named(errors, kind, &path.child("type"), names::qualified_name);
    if !kind.contains('/') && !TYPES.contains(&kind) {
        let why = "must be a standard limit type or fully qualified";
        errors.push(FieldError::invalid(&path.child("type"), kind, why));
    }
    let keys = |field: &str| item.get(field).and_then(Value::as_object).into_iter().flat_map(Map::keys);
    for field in MAPS {
        if kind == "Pod" && matches!(field, "default" | "defaultRequest") {
            if keys(field).next().is_some() {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&path.child(field), why));
            }
            continue;
        }
        for name in keys(field) {
            let path = path.child(field).key(name);
            rules::named(errors, name, &path, names::qualified_name);
            if matches!(kind, "Pod" | "Container") {
                container_resource_name(errors, name, &path);
            }
        }
    }
    if kind == "PersistentVolumeClaim" && ["min", "max"].iter().all(|field| item[*field].get("storage").is_none()) {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&path.child("limits"), why));
    }
    let mut all: Vec<&String> = MAPS.iter().flat_map(|field| keys(field)).collect();
    all.sort_unstable();
    all.dedup();
    for name in all {
        compare(errors, item, name, path);
    }
}

/// The amounts of one resource must be in order: least, request, limit, most.
fn compare(errors: &mut Vec<FieldError>, item: &Value, name: &str, path: &FieldPath) {
    let amount = |field: &str| rules::amount(&item[field], name);
    let mut ordered = |low: (&str, &str), high: (&str, &str), at: &str| {
        if let (Some(least), Some(most)) = (amount(low.0), amount(high.0))
            && least > most
        {
            let given = if at == low.0 { &least } else { &most };
            let why = format!("{} value {least} is greater than {} value {most}", low.1, high.1);
            errors.push(FieldError::invalid(&path.child(at).key(name), given.to_string(), why));
        }
    };
    let (min, max) = (("min", "min"), ("max", "max"));
    let (limit, request) = (("default", "default"), ("defaultRequest", "default request"));
    ordered(min, max, "min");
    ordered(min, request, "defaultRequest");
    ordered(request, max, "defaultRequest");
    ordered(request, ("default", "default limit"), "defaultRequest");
    ordered(min, limit, "default");
    ordered(limit, max, "default");
    let ratio = amount("maxLimitRequestRatio");
    if let Some(ratio) = ratio.filter(|ratio| *ratio < Quantity::whole(1)) {
        let path = path.child("maxLimitRequestRatio").key(name);
        errors.push(FieldError::invalid(&path, ratio.to_string(), format!("ratio {ratio} is less than 1")));
    }
    if let (Some(limit), Some(request)) = (amount("default"), amount("defaultRequest"))
        && limit != request
        && is_not_overcommitted(name)
    {
        let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
        errors.push(FieldError::invalid(&path.child("defaultRequest").key(name), limit.to_string(), why));
    }
    if let (Some(ratio), Some(max), Some(min)) = (amount("maxLimitRequestRatio"), amount("max"), amount("min")) {
        let widest = max.milli_value() as f64 / min.milli_value() as f64;
        if ratio.milli_value() as f64 / 1000.0 > widest {
            let path = path.child("maxLimitRequestRatio").key(name);
            let why = format!("ratio {ratio} is greater than max/min = {widest:.6}");
            errors.push(FieldError::invalid(&path, ratio.to_string(), why));
        }
    }
}
