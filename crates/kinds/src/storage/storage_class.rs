//! StorageClass: how volumes are made on demand.

use object_model::{FieldError, FieldPath, meta, names, time};
use serde_json::Value;

use crate::volumes::DEFAULT_CLASS;
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    categories: &[],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "storage.v1.StorageClass",
    storage: "storageclasses",
    has_status: false,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Provisioner", "Who makes the volumes."),
        Column::text("ReclaimPolicy", "What becomes of a volume whose claim is deleted."),
        Column::text("VolumeBindingMode", "When a claim gets its volume."),
        Column::text("AllowVolumeExpansion", "Whether volumes can grow."),
        Column::age(),
    ],
    example: "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: example}\nprovisioner: example.com/disk\n",
    hooks: &StorageClass,
};

struct StorageClass;

impl Kind for StorageClass {
    fn default(&self, object: &mut Value) {
        walk::default(object, "reclaimPolicy", "Delete");
        walk::default(object, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("provisioner");
        match walk::text(object, "provisioner") {
            None => errors.push(FieldError::required(&path, "")),
            Some(name) => {
                let problems = names::qualified_name(&name.to_lowercase());
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, name, why)));
            }
        }
        for (field, set) in
            [("reclaimPolicy", ["Delete", "Retain"]), ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"])]
        {
            if let Some(value) = walk::text(object, field)
                && !set.contains(&value)
            {
                errors.push(FieldError::not_supported(&FieldPath::new(field), value, &set));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.get("parameters") != old.get("parameters") {
            errors.push(FieldError::forbidden(&FieldPath::new("parameters"), "updates to parameters are forbidden."));
        }
        if new["provisioner"] != old["provisioner"] {
            errors.push(FieldError::forbidden(&FieldPath::new("provisioner"), "updates to provisioner are forbidden."));
        }
        for field in ["reclaimPolicy", "volumeBindingMode"] {
            walk::immutable(&mut errors, new, old, field);
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let default = meta::annotations(object).get(DEFAULT_CLASS) == Some(&"true");
        let name = meta::name(object);
        let text = |field: &str| Value::from(walk::text(object, field).unwrap_or_default());
        vec![
            if default { format!("{name} (default)").into() } else { name.into() },
            text("provisioner"),
            text("reclaimPolicy"),
            text("volumeBindingMode"),
            (object["allowVolumeExpansion"] == true).to_string().into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
