//! Lease: who holds something, and until when.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "coordination.k8s.io",
    version: "v1",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "coordination.v1.Lease",
    storage: "leases",
    has_status: false,
    has_generation: false,
    create_by_update: true,
    unconditional_update: false,
    graceful: false,
    selectable_fields: &[],
    columns: &[Column::name(), Column::text("Holder", "Who holds it."), Column::age()],
    example: "apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {name: example, namespace: default}\n\
              spec: {holderIdentity: me, leaseDurationSeconds: 40, renewTime: 2024-05-01T10:00:00.000000Z}\n",
    hooks: &Lease,
};

struct Lease;

impl Kind for Lease {
    fn is_heartbeat(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        if let Some(seconds) =
            walk::at(object, "spec.leaseDurationSeconds").filter(|s| s.as_i64().is_some_and(|s| s <= 0))
        {
            errors.push(FieldError::invalid(
                &path.child("leaseDurationSeconds"),
                seconds.clone(),
                "must be greater than 0",
            ));
        }
        walk::not_negative(&mut errors, &object["spec"], "leaseTransitions", &path);
        if walk::at(object, "spec.preferredHolder").is_some() && walk::text(object, "spec.strategy").is_none() {
            let why = "may only be specified when `strategy` is defined";
            errors.push(FieldError::forbidden(&path.child("preferredHolder"), why));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            object_model::meta::name(object).into(),
            walk::text(object, "spec.holderIdentity").unwrap_or_default().into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
