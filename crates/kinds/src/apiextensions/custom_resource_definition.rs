//! CustomResourceDefinition: a kind that a user brings along, and how its names come to be accepted.

use std::collections::BTreeSet;

use object_model::{FieldError, names};
use serde_json::{Value, json};

use super::validation;
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "apiextensions.k8s.io",
    version: "v1",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "apiextensions.k8s.io",
        version: "v1",
        kind: "CustomResourceDefinition",
    }],
    type_name: "apiextensions.v1.CustomResourceDefinition",
    storage: "customresourcedefinitions",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: false,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column { kind: "date", ..Column::text("Created At", "When the server created the object.") },
    ],
    example: "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: examples.example.com}\n\
              spec:\n  group: example.com\n  scope: Namespaced\n  names: {plural: examples, kind: Example}\n\
              \x20 versions:\n  - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n\
              \x20       type: object\n        properties: {spec: {type: object, properties: {size: {type: integer}}}}\n",
    hooks: &CustomResourceDefinition,
};

/// Keeps a definition until all objects of its kind are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

struct CustomResourceDefinition;

impl Kind for CustomResourceDefinition {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        let kind = walk::text(spec, "names.kind").unwrap_or_default().to_owned();
        if spec["names"].is_object() && !kind.is_empty() {
            walk::default(&mut spec["names"], "singular", kind.to_lowercase());
            walk::default(&mut spec["names"], "listKind", format!("{kind}List"));
        }
        if !spec["conversion"].is_object() {
            spec["conversion"] = json!({"strategy": "None"});
        }
        if let Some(service) = spec.pointer_mut("/conversion/webhook/clientConfig/service").filter(|s| s.is_object()) {
            walk::default(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
        object_model::meta::add_finalizer(object, CLEANUP);
        remember_storage(object);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        crate::copy_field(new, old, "status");
        remember_storage(new);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validation::validate(object)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        validation::validate_update(new, old)
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        validation::stored_versions(new)
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        vec![
            object_model::meta::name(object).into(),
            walk::text(object, "metadata.creationTimestamp").unwrap_or_default().into(),
        ]
    }

    fn any_finalizer(&self) -> bool {
        true
    }

    fn defines_resources(&self) -> bool {
        true
    }
}

/// Notes in the status that objects are stored in the storage version from now on.
fn remember_storage(object: &mut Value) {
    let Some(name) = validation::storage_version(object).map(str::to_owned) else { return };
    let stored = &mut walk::value_at(object, "status")["storedVersions"];
    let mut list = stored.as_array().cloned().unwrap_or_default();
    if !list.iter().any(|version| *version == name.as_str()) {
        list.push(name.into());
    }
    *stored = list.into();
}

/// The names of a definition that no other may have in its group.
fn claimed(names: &Value) -> BTreeSet<(&'static str, String)> {
    let text = |field: &str| walk::text(names, field).map(str::to_owned);
    let mut all = BTreeSet::new();
    // Plural, singular and short names are one space of names, kinds another.
    for field in ["plural", "singular"] {
        all.extend(text(field).map(|name| ("resource", name)));
    }
    all.extend(walk::list(names, "shortNames").iter().filter_map(Value::as_str).map(|n| ("resource", n.to_owned())));
    for field in ["kind", "listKind"] {
        all.extend(text(field).map(|name| ("kind", name)));
    }
    all
}

/// Accepts the names of a definition, if none of `others` has one of them, and establishes it. `now` is the time of the
/// change, as conditions have it.
pub fn settle<'v>(definition: &mut Value, others: impl IntoIterator<Item = &'v Value>, now: &str) {
    let group = walk::text(definition, "spec.group").unwrap_or_default().to_owned();
    let own = object_model::meta::name(definition).to_owned();
    let taken: BTreeSet<(&str, String)> = others
        .into_iter()
        .filter(|other| {
            walk::text(other, "spec.group") == Some(&group) && object_model::meta::name(other) != own.as_str()
        })
        .flat_map(|other| claimed(&other["status"]["acceptedNames"]))
        .collect();
    let names = definition["spec"]["names"].clone();
    let conflict = claimed(&names).into_iter().find(|name| taken.contains(name));
    match conflict {
        None => {
            walk::value_at(definition, "status")["acceptedNames"] = names;
            set_condition(definition, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
            let said = "the initial names have been accepted";
            set_condition(definition, "Established", true, "InitialNamesAccepted", said, now);
        }
        Some((space, name)) => {
            let reason = if space == "kind" { "KindConflict" } else { "PluralConflict" };
            set_condition(definition, "NamesAccepted", false, reason, &format!("{name:?} is already in use"), now);
            // Who was established stays so, under the names that were accepted.
            if !is_true(definition, "Established") {
                set_condition(definition, "Established", false, "NotAccepted", "not all names are accepted", now);
            }
        }
    }
    if is_protected(&group) {
        let note = object_model::meta::annotations(definition).get(APPROVED).copied().unwrap_or_default().to_owned();
        let (holds, reason, why) = if note.starts_with("unapproved") {
            (false, "UnapprovedAnnotation", format!("not approved: {note:?}"))
        } else {
            (true, "ApprovedAnnotation", format!("approved in {note}"))
        };
        set_condition(definition, "KubernetesAPIApprovalPolicyConformant", holds, reason, &why, now);
    }
}

/// Says that the objects of a definition are being removed.
pub fn terminate(definition: &mut Value, now: &str) {
    let said = "CustomResource deletion is in progress";
    set_condition(definition, "Terminating", true, "InstanceDeletionInProgress", said, now);
}

/// Where the approval of an API of a protected group is noted.
pub(super) const APPROVED: &str = "api-approved.kubernetes.io";

/// Groups whose APIs the community approves.
pub(super) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|domain| group == *domain || group.ends_with(&format!(".{domain}")))
}

fn is_true(definition: &Value, name: &str) -> bool {
    walk::list(definition, "status.conditions").iter().any(|c| c["type"] == name && c["status"] == "True")
}

fn set_condition(definition: &mut Value, name: &str, holds: bool, reason: &str, message: &str, now: &str) {
    let status = if holds { "True" } else { "False" };
    let conditions = &mut walk::value_at(definition, "status")["conditions"];
    let mut list = conditions.as_array().cloned().unwrap_or_default();
    let known = list.iter().position(|condition| condition["type"] == name);
    let since = known.filter(|at| list[*at]["status"] == status).and_then(|at| list[at]["lastTransitionTime"].as_str());
    let condition = json!({
        "type": name, "status": status, "lastTransitionTime": since.unwrap_or(now), "reason": reason, "message": message,
    });
    match known {
        Some(at) => list[at] = condition,
        None => list.push(condition),
    }
    *conditions = list.into();
}

/// Whether a text may be a name of a version.
pub(super) fn version_problems(name: &str) -> Vec<String> {
    names::dns_label_1035(name)
}
