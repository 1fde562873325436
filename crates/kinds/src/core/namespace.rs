//! Namespace: a scope for names.

use serde_json::{Value, json};

use crate::{Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    categories: &[],
    scope: Scope::Cluster,
    verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    subresources: &[
        Subresource { name: "finalize", verbs: &["update"], group: "", version: "v1", kind: "Namespace" },
        Subresource { name: "status", verbs: OBJECT_VERBS, group: "", version: "v1", kind: "Namespace" },
    ],
    type_name: "core.v1.Namespace",
    storage: "namespaces",
    has_status: true,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &["status.phase"],
    columns: &[Column::name(), Column::text("Status", "Active or Terminating."), Column::age()],
    example: "apiVersion: v1\nkind: Namespace\nmetadata: {name: example}\n",
    hooks: &Namespace,
};

struct Namespace;

/// By this label namespaces are selected by name; nobody can change it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Kind for Namespace {
    fn begin_deletion(&self, object: &mut Value) {
        object["status"]["phase"] = "Terminating".into();
    }

    fn default(&self, object: &mut Value) {
        let name = object_model::meta::name(object).to_owned();
        if !name.is_empty() {
            walk::map_at(&mut object["metadata"], "labels").insert(NAME_LABEL.into(), name.into());
        }
        walk::map_at(object, "status");
        walk::default(&mut object["status"], "phase", "Active");
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let finalizers = walk::map_at(object, "spec").entry("finalizers").or_insert(Value::Null);
        let mut names: Vec<Value> = finalizers.as_array().cloned().unwrap_or_default();
        if !names.contains(&"kubernetes".into()) {
            names.push("kubernetes".into());
        }
        *finalizers = names.into();
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        crate::copy_field(new, old, "spec");
        crate::copy_field(new, old, "status");
    }

    fn prepare_subresource_update(&self, name: &str, new: &mut Value, old: &Value) {
        if name == "finalize" {
            crate::copy_field(new, old, "status");
        } else {
            self.prepare_status_update(new, old);
        }
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        object_model::names::dns_label(name)
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            object_model::meta::name(object).into(),
            walk::text(object, "status.phase").unwrap_or_default().into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
