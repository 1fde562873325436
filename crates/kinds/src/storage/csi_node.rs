//! CSINode: the drivers of volumes on a node.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use super::GROUP;
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    subresources: &[Subresource::status(GROUP, "CSINode")],
    type_name: "storage.v1.CSINode",
    storage: "csinodes",
    has_status: true,
    unconditional_update: false,
    columns: &[Column::name(), Column::number("Drivers", "Number of drivers."), Column::age()],
    example: "apiVersion: storage.k8s.io/v1\nkind: CSINode\nmetadata: {name: example}\n\
              spec: {drivers: [{name: csi.example.com, nodeID: node-1, topologyKeys: [example.com/zone]}]}\n",
    hooks: &CsiNode,
    ..crate::CLUSTER
};

struct CsiNode;

const MAX_NODE_ID: usize = 256;

impl Kind for CsiNode {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("drivers");
        let drivers = walk::list(object, "spec.drivers");
        for (index, driver) in drivers.iter().enumerate() {
            let path = path.index(index);
            rules::driver_name(&mut errors, driver, "name", &path);
            if let Some(id) = rules::required(&mut errors, driver, "nodeID", &path).filter(|id| id.len() > MAX_NODE_ID)
            {
                let why = format!("must be {MAX_NODE_ID} characters or less");
                errors.push(FieldError::invalid(&path.child("nodeID"), id, why));
            }
            if let Some(allocatable) = walk::at(driver, "allocatable") {
                walk::not_negative(&mut errors, allocatable, "count", &path.child("allocatable"));
            }
            let keys = walk::list(driver, "topologyKeys");
            for key in keys.iter().filter_map(Value::as_str) {
                if key.is_empty() {
                    errors.push(FieldError::required(&path, ""));
                }
                rules::named(&mut errors, key, &path, names::qualified_name);
            }
            rules::unique(&mut errors, keys.iter().map(Value::as_str), |_| path.clone());
        }
        rules::unique(&mut errors, drivers.iter().map(|driver| walk::text(driver, "name")), |index| {
            path.index(index).child("name")
        });
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("drivers");
        // How many volumes there can be may change.
        let fixed = |driver: &Value| {
            let mut driver = driver.clone();
            driver.as_object_mut().map(|map| map.remove("allocatable"));
            driver
        };
        for new in walk::list(new, "spec.drivers") {
            let before = walk::list(old, "spec.drivers").iter().find(|old| old["name"] == new["name"]);
            if before.is_some_and(|old| fixed(old) != fixed(new)) {
                errors.push(FieldError::invalid(&path, fixed(new), walk::IMMUTABLE));
            }
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![cells::name(object), cells::count(object, "spec.drivers"), cells::age(object, now)]
    }
}
