//! ServiceAccount: what pods act as.

use object_model::time;
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "ServiceAccount",
    plural: "serviceaccounts",
    singular: "serviceaccount",
    short_names: &["sa"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "token",
        verbs: &["create"],
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
    }],
    type_name: "core.v1.ServiceAccount",
    storage: "serviceaccounts",
    has_status: false,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[Column::name(), Column::text("Secrets", "Secrets that belong to the account."), Column::age()],
    example: "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: app, namespace: default}\n",
    hooks: &ServiceAccount,
};

struct ServiceAccount;

impl Kind for ServiceAccount {
    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            object_model::meta::name(object).into(),
            walk::list(object, "secrets").len().to_string().into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
