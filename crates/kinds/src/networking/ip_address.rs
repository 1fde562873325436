//! IPAddress: an address of the cluster's own, and whom it belongs to.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{Column, Kind, Now, Resource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    type_name: "networking.v1.IPAddress",
    storage: "ipaddresses",
    selectable_fields: &[
        "spec.parentRef.group",
        "spec.parentRef.name",
        "spec.parentRef.namespace",
        "spec.parentRef.resource",
    ],
    columns: &[Column::name(), Column::text("ParentRef", "Whom the address belongs to.")],
    example: "apiVersion: networking.k8s.io/v1\nkind: IPAddress\nmetadata: {name: 10.96.0.10}\n\
              spec: {parentRef: {resource: services, namespace: default, name: example}}\n",
    hooks: &IpAddress,
    ..crate::CLUSTER
};

/// The label that says who keeps the object of an address.
pub const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// Who keeps those of addresses of Services.
pub const ADDRESS_ALLOCATOR: &str = "ipallocator.k8s.io";

struct IpAddress;

impl Kind for IpAddress {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("parentRef");
        let Some(parent) = walk::at(object, "spec.parentRef") else {
            return vec![FieldError::required(&path, "")];
        };
        rules::named_field(&mut errors, parent, "group", &path, names::dns_subdomain);
        for field in ["resource", "name"] {
            rules::required_name(&mut errors, parent, field, &path, names::path_segment);
        }
        rules::named_field(&mut errors, parent, "namespace", &path, names::path_segment);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec.parentRef");
        errors
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        rules::address(name)
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        let parent = &object["spec"]["parentRef"];
        let text = |field: &str| walk::text(parent, field).unwrap_or_default();
        let mut shown = text("resource").to_owned();
        if !text("group").is_empty() {
            shown = format!("{shown}.{}", text("group"));
        }
        for part in [text("namespace"), text("name")].into_iter().filter(|part| !part.is_empty()) {
            shown = format!("{shown}/{part}");
        }
        vec![cells::name(object), shown.into()]
    }
}
