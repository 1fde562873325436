//! StorageVersionMigration: the wish that all objects of a resource are written anew, in the form of today.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

const GROUP: &str = "storagemigration.k8s.io";

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "StorageVersionMigration",
    plural: "storageversionmigrations",
    singular: "storageversionmigration",
    subresources: &[Subresource::status(GROUP, "StorageVersionMigration")],
    type_name: "storagemigration.v1.StorageVersionMigration",
    storage: "storageversionmigrations",
    has_status: true,
    columns: &[Column::name(), Column::text("Resource", "What is written anew.")],
    example: "apiVersion: storagemigration.k8s.io/v1\nkind: StorageVersionMigration\nmetadata: {name: example}\n\
              spec: {resource: {group: apps, resource: deployments}}\n",
    hooks: &Migration,
    ..crate::CLUSTER
};

struct Migration;

impl Kind for Migration {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let path = FieldPath::new("spec").child("resource").child("resource");
        match walk::text(object, "spec.resource.resource") {
            None => vec![FieldError::required(&path, "resource is required")],
            Some(_) => Vec::new(),
        }
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.resource");
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        let version = path.child("resourceVersion");
        if let Some(text) = walk::text(new, "status.resourceVersion") {
            match text.parse::<i64>() {
                Ok(number) if number < 0 => {
                    errors.push(FieldError::invalid(&version, number, walk::NOT_NEGATIVE));
                }
                Ok(_) => {}
                Err(error) => {
                    let why = format!("failed to parse resource version {text:?}: {error}");
                    errors.push(FieldError::invalid(&version, text, why));
                }
            }
        }
        let before = walk::text(old, "status.resourceVersion");
        if before.is_some() && before != walk::text(new, "status.resourceVersion") {
            errors.push(FieldError::invalid(&version, new["status"]["resourceVersion"].clone(), "cannot be updated"));
        }
        rules::conditions(&mut errors, &new["status"], &path);
        let at = path.child("conditions");
        let mut refuse = |why: &str| {
            errors.push(FieldError::invalid(&at, new["status"]["conditions"].clone(), why));
        };
        let (succeeded, failed) = (rules::holds(new, "Succeeded"), rules::holds(new, "Failed"));
        if succeeded && failed {
            refuse("Both success and failed conditions cannot be true at the same time");
        }
        if rules::holds(new, "Running") {
            if succeeded {
                refuse("Running condition cannot be true when success condition is true");
            }
            if failed {
                refuse("Running condition cannot be true when failed condition is true");
            }
        }
        if rules::holds(old, "Succeeded") && !succeeded {
            refuse("Success condition cannot be set to false once it is true");
        }
        if rules::holds(old, "Failed") && !failed {
            refuse("Failed condition cannot be set to false once it is true");
        }
        errors
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        let resource = &object["spec"]["resource"];
        let text = |field: &str| walk::text(resource, field).unwrap_or_default();
        vec![cells::name(object), object_model::group_resource(text("group"), text("resource")).into()]
    }
}
