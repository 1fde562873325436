//! DeviceClass: devices by what they are, under a name.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use super::{GROUP, devices};
use crate::{Kind, Resource, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    type_name: "resource.v1.DeviceClass",
    storage: "deviceclasses",
    has_generation: true,
    example: "apiVersion: resource.k8s.io/v1\nkind: DeviceClass\nmetadata: {name: gpu.example.com}\n\
              spec:\n  selectors: [{cel: {expression: \"device.driver == 'gpu.example.com'\"}}]\n\
              \x20 config: [{opaque: {driver: gpu.example.com, parameters: {mode: shared}}}]\n",
    hooks: &DeviceClass,
    ..crate::CLUSTER
};

struct DeviceClass;

impl Kind for DeviceClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        devices::selectors(&mut errors, spec, &path);
        for (path, config) in devices::items(&mut errors, spec, "config", devices::MAX_ITEMS, &path) {
            devices::configuration(&mut errors, config, &path);
        }
        if let Some(name) = walk::text(spec, "extendedResourceName").filter(|name| !rules::is_extended_resource(name)) {
            let why = "must be a valid extended resource name";
            errors.push(FieldError::invalid(&path.child("extendedResourceName"), name, why));
        }
        errors
    }
}
