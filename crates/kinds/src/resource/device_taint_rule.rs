//! DeviceTaintRule: a taint for all devices that it selects.

use object_model::{FieldError, FieldPath, names, time};
use serde_json::Value;

use super::{GROUP, devices};
use crate::{Kind, Now, Resource, Subresource, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "DeviceTaintRule",
    plural: "devicetaintrules",
    singular: "devicetaintrule",
    subresources: &[Subresource::status(GROUP, "DeviceTaintRule")],
    type_name: "resource.v1.DeviceTaintRule",
    storage: "devicetaintrules",
    has_status: true,
    has_generation: true,
    example: "apiVersion: resource.k8s.io/v1\nkind: DeviceTaintRule\nmetadata: {name: example}\n\
              spec: {deviceSelector: {driver: gpu.example.com}, taint: {key: example.com/broken, effect: NoSchedule}}\n",
    hooks: &DeviceTaintRule,
    ..crate::CLUSTER
};

struct DeviceTaintRule;

impl Kind for DeviceTaintRule {
    fn stamp(&self, new: &mut Value, _old: &Value, now: Now) {
        if let Some(taint) = new.pointer_mut("/spec/taint").filter(|taint| taint.is_object()) {
            walk::default(taint, "timeAdded", time::seconds(now.0));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        if let Some(selector) = walk::at(object, "spec.deviceSelector") {
            let path = path.child("deviceSelector");
            for (field, rule) in [("driver", names::dns_subdomain as fn(&str) -> _), ("device", names::dns_label)] {
                rules::named_field(&mut errors, selector, field, &path, rule);
            }
            if walk::at(selector, "pool").is_some() {
                devices::pool_name(&mut errors, selector, "pool", &path);
            }
        }
        devices::taint(&mut errors, &object["spec"]["taint"], &path.child("taint"));
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        rules::conditions(&mut errors, &new["status"], &FieldPath::new("status"));
        errors
    }
}
