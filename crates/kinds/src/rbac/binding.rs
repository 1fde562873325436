//! RoleBinding and ClusterRoleBinding: who may do what a role says.

use object_model::{FieldError, FieldPath, names, time};
use serde_json::Value;

use super::GROUP;
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static ROLE_BINDING: Resource = Resource {
    group: GROUP,
    version: "v1",
    kind: "RoleBinding",
    plural: "rolebindings",
    singular: "rolebinding",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "rbac.v1.RoleBinding",
    storage: "rolebindings",
    has_status: false,
    has_generation: false,
    create_by_update: true,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Role", "The role that is bound."),
        Column::age(),
        Column::text("Users", "Users it is bound to.").wide(),
        Column::text("Groups", "Groups it is bound to.").wide(),
        Column::text("ServiceAccounts", "Service accounts it is bound to.").wide(),
    ],
    example: "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: readers, namespace: default}\n\
              roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}\n\
              subjects:\n- {kind: ServiceAccount, name: app, namespace: default}\n",
    hooks: &Binding { cluster: false },
};

pub(crate) static CLUSTER_ROLE_BINDING: Resource = Resource {
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    scope: Scope::Cluster,
    type_name: "rbac.v1.ClusterRoleBinding",
    storage: "clusterrolebindings",
    example: "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: readers}\n\
              roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}\n\
              subjects:\n- {apiGroup: rbac.authorization.k8s.io, kind: User, name: alice}\n",
    hooks: &Binding { cluster: true },
    ..ROLE_BINDING
};

struct Binding {
    cluster: bool,
}

impl Kind for Binding {
    fn default(&self, object: &mut Value) {
        if object["roleRef"].is_object() {
            walk::default(&mut object["roleRef"], "apiGroup", GROUP);
        }
        for subject in walk::each_mut(object, "subjects") {
            // Subjects of the core group have none (upstream: SetDefaults_Subject).
            if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
                walk::default(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = role_ref_errors(&object["roleRef"], self.cluster);
        let path = FieldPath::new("subjects");
        for (index, subject) in walk::list(object, "subjects").iter().enumerate() {
            errors.extend(subject_errors(subject, &path.index(index)));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        if new["roleRef"] == old["roleRef"] {
            return Vec::new();
        }
        vec![FieldError::invalid(&FieldPath::new("roleRef"), new["roleRef"].clone(), "cannot change roleRef")]
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let role = &object["roleRef"];
        let text = |field: &str| role[field].as_str().unwrap_or_default();
        let of = |kind: &str| -> Value {
            let named: Vec<String> = walk::list(object, "subjects")
                .iter()
                .filter(|subject| subject["kind"] == kind)
                .map(|subject| {
                    let name = subject["name"].as_str().unwrap_or_default();
                    match subject["namespace"].as_str().filter(|n| kind == "ServiceAccount" && !n.is_empty()) {
                        Some(namespace) => format!("{namespace}/{name}"),
                        None => name.to_owned(),
                    }
                })
                .collect();
            named.join(", ").into()
        };
        vec![
            object_model::meta::name(object).into(),
            format!("{}/{}", text("kind"), text("name")).into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            of("User"),
            of("Group"),
            of("ServiceAccount"),
        ]
    }

    fn is_policy(&self) -> bool {
        true
    }
}

fn role_ref_errors(role: &Value, cluster: bool) -> Vec<FieldError> {
    let path = FieldPath::new("roleRef");
    let mut errors = Vec::new();
    let text = |field: &str| role[field].as_str().unwrap_or_default();
    if text("apiGroup") != GROUP {
        errors.push(FieldError::not_supported(&path.child("apiGroup"), text("apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if cluster { &["ClusterRole"] } else { &["ClusterRole", "Role"] };
    if !kinds.contains(&text("kind")) {
        errors.push(FieldError::not_supported(&path.child("kind"), text("kind"), kinds));
    }
    let name = text("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    } else {
        let problems = names::path_segment(name);
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
    }
    errors
}

/// What is wrong with a subject (upstream: `ValidateRoleBindingSubject`).
fn subject_errors(subject: &Value, path: &FieldPath) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |field: &str| subject[field].as_str().unwrap_or_default();
    let name = text("name");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("name"), ""));
    }
    match text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                let problems = names::dns_subdomain(name);
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
            }
            if !text("apiGroup").is_empty() {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), text("apiGroup"), &[""]));
            }
            if text("namespace").is_empty() {
                errors.push(FieldError::required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if text("apiGroup") != GROUP {
                errors.push(FieldError::not_supported(&path.child("apiGroup"), text("apiGroup"), &[GROUP]));
            }
        }
        other => {
            errors.push(FieldError::not_supported(&path.child("kind"), other, &["Group", "ServiceAccount", "User"]))
        }
    }
    errors
}
