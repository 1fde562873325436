//! Role and ClusterRole: what may be done, in a namespace or everywhere.

use object_model::{FieldError, FieldPath, LabelSelector, names};
use serde_json::Value;

use super::GROUP;
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, cells, walk};

pub(crate) static ROLE: Resource = Resource {
    group: GROUP,
    version: "v1",
    kind: "Role",
    plural: "roles",
    singular: "role",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "rbac.v1.Role",
    storage: "roles",
    has_status: false,
    has_generation: false,
    create_by_update: true,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[Column::name(), Column::created()],
    example: "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: default}\n\
              rules:\n- {apiGroups: [''], resources: [pods], verbs: [get, list]}\n",
    hooks: &Role { cluster: false },
};

pub(crate) static CLUSTER_ROLE: Resource = Resource {
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    scope: Scope::Cluster,
    type_name: "rbac.v1.ClusterRole",
    storage: "clusterroles",
    example: "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\n\
              rules:\n- {nonResourceURLs: [/metrics], verbs: [get]}\n",
    hooks: &Role { cluster: true },
    ..ROLE
};

struct Role {
    cluster: bool,
}

impl Kind for Role {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let rules = FieldPath::new("rules");
        for (index, rule) in walk::list(object, "rules").iter().enumerate() {
            errors.extend(rule_errors(rule, &rules.index(index), self.cluster));
        }
        if let Some(aggregation) = walk::at(object, "aggregationRule") {
            let path = FieldPath::new("aggregationRule").child("clusterRoleSelectors");
            let selectors = walk::list(aggregation, "clusterRoleSelectors");
            if selectors.is_empty() {
                errors.push(FieldError::required(
                    &path,
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                ));
            }
            for (index, selector) in selectors.iter().enumerate() {
                if let Err(why) = LabelSelector::from_object(selector) {
                    errors.push(FieldError::invalid(&path.index(index), selector.clone(), why.to_string()));
                }
            }
        }
        errors
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![cells::name(object), cells::created(object)]
    }

    fn is_policy(&self) -> bool {
        true
    }
}

/// What is wrong with a rule (upstream: `ValidatePolicyRule`).
fn rule_errors(rule: &Value, path: &FieldPath, cluster: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = |field: &str| walk::list(rule, field).is_empty();
    if empty("verbs") {
        errors.push(FieldError::required(&path.child("verbs"), "verbs must contain at least one value"));
    }
    if !empty("nonResourceURLs") {
        let urls = path.child("nonResourceURLs");
        let given = rule["nonResourceURLs"].clone();
        if !cluster {
            errors.push(FieldError::invalid(
                &urls,
                given.clone(),
                "namespaced rules cannot apply to non-resource URLs",
            ));
        }
        if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
            errors.push(FieldError::invalid(
                &urls,
                given,
                "rules cannot apply to both regular resources and non-resource URLs",
            ));
        }
        return errors;
    }
    if empty("apiGroups") {
        errors
            .push(FieldError::required(&path.child("apiGroups"), "resource rules must supply at least one api group"));
    }
    if empty("resources") {
        errors.push(FieldError::required(&path.child("resources"), "resource rules must supply at least one resource"));
    }
    errors
}
