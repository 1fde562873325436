//! VolumeAttributesClass: attributes of volumes that can be changed later.

use object_model::{FieldError, FieldPath, meta};
use serde_json::Value;

use super::GROUP;
use crate::{Column, Kind, Now, Resource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    type_name: "storage.v1.VolumeAttributesClass",
    storage: "volumeattributesclasses",
    columns: &[Column::name(), Column::text("DriverName", "The driver that knows the attributes."), Column::age()],
    example: "apiVersion: storage.k8s.io/v1\nkind: VolumeAttributesClass\nmetadata: {name: example}\n\
              driverName: csi.example.com\nparameters: {iops: \"3000\"}\n",
    hooks: &VolumeAttributesClass,
    ..crate::CLUSTER
};

struct VolumeAttributesClass;

impl Kind for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        rules::driver_name(&mut errors, object, "driverName", &FieldPath::default());
        super::parameters(&mut errors, object, false);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["driverName", "parameters"] {
            walk::immutable(&mut errors, new, old, field);
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let is_default = "storageclass.kubernetes.io/is-default-class";
        let name = meta::name(object);
        let default = meta::annotations(object).get(is_default) == Some(&"true");
        let name = if default { format!("{name} (default)") } else { name.to_owned() };
        vec![name.into(), cells::text(object, "driverName"), cells::age(object, now)]
    }
}
