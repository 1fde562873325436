//! HorizontalPodAutoscaler of version 1: it knows of cpu only, and keeps the rest in annotations.

use object_model::{FieldError, meta};
use serde_json::{Map, Value};

use super::{GROUP, metrics, v2};
use crate::{Kind, Now, Resource, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    version: "v1",
    subresources: &[Subresource::status(GROUP, "HorizontalPodAutoscaler")],
    type_name: "autoscaling.v1.HorizontalPodAutoscaler",
    example: "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\nmetadata: {name: example, namespace: default}\n\
              spec:\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: example}\n  maxReplicas: 5\n\
              \x20 targetCPUUtilizationPercentage: 60\n",
    hooks: &Autoscaler,
    ..v2::RESOURCE
};

struct Autoscaler;

/// What this version keeps in annotations, as JSON.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

impl Autoscaler {
    /// Does to the object what the stored form's kind does to its form.
    fn as_stored(&self, new: &mut Value, old: &Value, act: impl Fn(&dyn Kind, &mut Value, &Value)) {
        let mut stored = self.stored(new.clone());
        act(v2::RESOURCE.hooks, &mut stored, &self.stored(old.clone()));
        *new = self.served(stored);
    }
}

impl Kind for Autoscaler {
    fn default(&self, object: &mut Value) {
        let other_metrics = meta::annotations(object).contains_key(METRICS);
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        walk::default(spec, "minReplicas", 1);
        if !other_metrics {
            walk::default(spec, "targetCPUUtilizationPercentage", v2::DEFAULT_UTILIZATION);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        self.as_stored(object, &Value::Null, |kind, new, _| kind.prepare_create(new));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        self.as_stored(new, old, |kind, new, old| kind.prepare_update(new, old));
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        self.as_stored(new, old, |kind, new, old| kind.prepare_status_update(new, old));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        v2::RESOURCE.hooks.validate(&self.stored(object.clone()))
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        v2::RESOURCE.hooks.validate_status_update(&self.stored(new.clone()), &self.stored(old.clone()))
    }

    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        self.stored(new.clone()).get("spec") != self.stored(old.clone()).get("spec")
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        v2::RESOURCE.hooks.cells(&self.stored(object.clone()), now)
    }

    fn stored(&self, mut object: Value) -> Value {
        let mut kept = Kept::taken_from(&mut object);
        rename_version(&mut object, "autoscaling/v2");
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            let mut all = Vec::new();
            if let Some(percent) = spec.remove("targetCPUUtilizationPercentage").filter(|percent| !percent.is_null()) {
                let mut metric = v2::default_metric();
                metric["resource"]["target"]["averageUtilization"] = percent;
                all.push(metric);
            }
            all.extend(kept.list(METRICS).iter().map(|metric| metrics::from_v1(metric, "target")));
            if !all.is_empty() {
                spec.insert("metrics".into(), all.into());
            }
            if let Some(behavior) = kept.0.remove(BEHAVIOR) {
                spec.insert("behavior".into(), behavior);
            }
        }
        let mut current = Vec::new();
        if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut)
            && let Some(percent) = status.remove("currentCPUUtilizationPercentage").filter(|percent| !percent.is_null())
        {
            let amounts = serde_json::json!({"averageUtilization": percent});
            current.push(serde_json::json!({"type": "Resource", "resource": {"name": "cpu", "current": amounts}}));
        }
        current.extend(kept.list(CURRENT_METRICS).iter().map(|metric| metrics::from_v1(metric, "current")));
        for (field, value) in [("currentMetrics", current), ("conditions", kept.list(CONDITIONS))] {
            if !value.is_empty() {
                walk::map_at(&mut object, "status").insert(field.into(), value.into());
            }
        }
        schema::normalise(v2::RESOURCE.ty(), &mut object);
        object
    }

    fn served(&self, mut object: Value) -> Value {
        let mut kept = Kept::default();
        rename_version(&mut object, "autoscaling/v1");
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            if let Some(behavior) = spec.remove("behavior") {
                kept.0.insert(BEHAVIOR.into(), behavior);
            }
            let percent = kept.without_cpu(METRICS, spec.remove("metrics"), "target");
            if let Some(percent) = percent {
                spec.insert("targetCPUUtilizationPercentage".into(), percent);
            }
        }
        if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
            if let Some(conditions) = status.remove("conditions") {
                kept.0.insert(CONDITIONS.into(), conditions);
            }
            let percent = kept.without_cpu(CURRENT_METRICS, status.remove("currentMetrics"), "current");
            if let Some(percent) = percent {
                status.insert("currentCPUUtilizationPercentage".into(), percent);
            }
        }
        for (name, value) in kept.0 {
            walk::map_at(walk::value_at(&mut object, "metadata"), "annotations").insert(name, value.to_string().into());
        }
        schema::normalise(RESOURCE.ty(), &mut object);
        object
    }
}

/// What is kept in annotations, read.
#[derive(Default)]
struct Kept(Map<String, Value>);

impl Kept {
    /// Takes the annotations out of an object. What is no JSON says nothing.
    fn taken_from(object: &mut Value) -> Self {
        let mut kept = Map::new();
        if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            for name in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
                let text = annotations.remove(name);
                if let Some(value) = text.as_ref().and_then(Value::as_str).and_then(|t| serde_json::from_str(t).ok()) {
                    kept.insert(name.to_owned(), value);
                }
            }
        }
        Self(kept)
    }

    fn list(&mut self, name: &str) -> Vec<Value> {
        match self.0.remove(name) {
            Some(Value::Array(list)) => list,
            _ => Vec::new(),
        }
    }

    /// Keeps all metrics but the one that this version has a field for, and returns that one's percentage.
    fn without_cpu(&mut self, name: &str, all: Option<Value>, amounts: &str) -> Option<Value> {
        let Some(Value::Array(mut all)) = all else { return None };
        let cpu = all.iter().position(|metric| metrics::is_cpu_utilization(metric, amounts)).map(|at| all.remove(at));
        if !all.is_empty() {
            let others: Vec<Value> = all.iter().map(|metric| metrics::to_v1(metric, amounts)).collect();
            self.0.insert(name.to_owned(), others.into());
        }
        Some(cpu?["resource"][amounts]["averageUtilization"].clone())
    }
}

fn rename_version(object: &mut Value, api_version: &str) {
    if let Some(given) = object.get_mut("apiVersion") {
        *given = api_version.into();
    }
}
