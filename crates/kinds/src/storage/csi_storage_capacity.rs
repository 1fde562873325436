//! CSIStorageCapacity: how much room a class of volumes has in a part of the cluster.

use object_model::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

use super::GROUP;
use crate::{Column, Kind, Now, Resource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "CSIStorageCapacity",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    type_name: "storage.v1.CSIStorageCapacity",
    storage: "csistoragecapacities",
    unconditional_update: false,
    columns: &[
        Column::name(),
        Column::text("StorageClassName", "The class of volumes."),
        Column::text("Capacity", "Room for them."),
    ],
    example: "apiVersion: storage.k8s.io/v1\nkind: CSIStorageCapacity\nmetadata: {name: example, namespace: default}\n\
              storageClassName: fast\ncapacity: 100Gi\nnodeTopology: {matchLabels: {zone: a}}\n",
    hooks: &CsiStorageCapacity,
    ..crate::NAMESPACED
};

struct CsiStorageCapacity;

impl Kind for CsiStorageCapacity {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(topology) = walk::at(object, "nodeTopology") {
            crate::meta::selector(&mut errors, topology, &FieldPath::new("nodeTopology"));
        }
        let class = object["storageClassName"].as_str().unwrap_or_default();
        rules::named(&mut errors, class, &FieldPath::new("storageClassName"), names::dns_subdomain);
        for field in ["capacity", "maximumVolumeSize"] {
            if let Some(amount) = rules::quantity(object, field).filter(Quantity::is_negative) {
                errors.push(FieldError::invalid(&FieldPath::new(field), amount.to_string(), walk::NOT_NEGATIVE));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["nodeTopology", "storageClassName"] {
            walk::immutable(&mut errors, new, old, field);
        }
        errors
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        let capacity = walk::text(object, "capacity").unwrap_or("<unset>");
        vec![cells::name(object), cells::text(object, "storageClassName"), capacity.into()]
    }
}
