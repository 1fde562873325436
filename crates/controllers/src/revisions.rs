//! Revisions of StatefulSets and DaemonSets: each template that was in use, as a ControllerRevision.
//!
//! The data of a revision is the patch that brings the template back, which is what `kubectl rollout undo` applies.

use client::Patch;
use object_model::LabelSelector;
use object_model::meta::{self, OwnerReference};
use serde_json::{Value, json};

use crate::pods::{Owner, only_this};
use crate::{Action, CONTROLLER_REVISIONS, Object, Objects};

/// The label of a pod that names the revision it was made from.
pub(crate) const HASH_LABEL: &str = "controller-revision-hash";
const OWN_HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revision of the current template, and those before it.
pub(crate) struct Revisions {
    /// Name of the current one.
    pub name: String,
    /// Its hash.
    pub hash: String,
    /// All that are stored, oldest first.
    pub stored: Vec<Object>,
    /// What makes the current one the newest that is stored.
    pub actions: Vec<Action>,
}

fn number(revision: &Object) -> i64 {
    revision.object["revision"].as_i64().unwrap_or(0)
}

fn data_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = "replace".into();
    json!({"spec": {"template": template}})
}

/// The template that a revision keeps.
pub(crate) fn template_of(revision: &Value) -> Value {
    let mut template = revision["data"]["spec"]["template"].clone();
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    template
}

/// The hash of a revision, as its label says.
pub(crate) fn hash_of(revision: &Value) -> &str {
    meta::labels(revision).get(OWN_HASH_LABEL).copied().unwrap_or_default()
}

impl Revisions {
    /// Looks up the revisions of an owner, and sees to the one of its current template.
    pub fn of(owner: &Owner<'_>, objects: &dyn Objects) -> anyhow::Result<Self> {
        let set = owner.object;
        let uid = meta::uid(set);
        let selector = LabelSelector::from_object(&set["spec"]["selector"])?;
        let mut actions = Vec::new();
        let mut stored: Vec<Object> = Vec::new();
        for revision in objects.list(CONTROLLER_REVISIONS, meta::namespace(set)) {
            match meta::controller_of(&revision.object) {
                Some(controller) if controller.uid == uid => stored.push(revision),
                None if selector.matches_object(&revision.object)
                    && meta::deletion_timestamp(&revision.object).is_none() =>
                {
                    let mut owners: Vec<Value> =
                        meta::owners(&revision.object).iter().map(OwnerReference::to_value).collect();
                    owners.push(owner.reference());
                    actions
                        .push(patch(&revision, json!({"metadata": {"uid": revision.uid, "ownerReferences": owners}})));
                }
                _ => {}
            }
        }
        stored.sort_by_key(|r| (number(r), r.name.clone()));
        let data = data_of(&set["spec"]["template"]);
        let newest = stored.last().map_or(0, number);
        let hash = crate::deployment::template_hash(&data, set["status"]["collisionCount"].as_i64().unwrap_or(0));
        if let Some(at) = stored.iter().rposition(|r| r.object["data"] == data) {
            let same = stored[at].clone();
            if at + 1 < stored.len() {
                // An old template is back: it becomes the newest revision.
                actions.push(patch(&same, json!({"revision": newest + 1})));
            }
            let hash = hash_of(&same.object).to_owned();
            return Ok(Self { name: same.name.clone(), hash, stored, actions });
        }
        let name = format!("{}-{hash}", meta::name(set));
        let mut labels = set["spec"]["template"]["metadata"]["labels"].as_object().cloned().unwrap_or_default();
        labels.insert(OWN_HASH_LABEL.to_owned(), hash.clone().into());
        actions.push(Action::Create {
            resource: CONTROLLER_REVISIONS,
            namespace: meta::namespace(set).to_owned(),
            object: json!({
                "apiVersion": "apps/v1", "kind": "ControllerRevision",
                "metadata": {
                    "name": name, "namespace": meta::namespace(set), "labels": labels,
                    "annotations": set["metadata"]["annotations"], "ownerReferences": [owner.reference()],
                },
                "data": data, "revision": newest + 1,
            }),
            event: None,
        });
        Ok(Self { name, hash, stored, actions })
    }

    /// Deletes revisions beyond the limit that no pod is made from, oldest first. `live` are names or hashes in use.
    pub fn forget_old(&self, limit: usize, live: &[&str]) -> Vec<Action> {
        let idle: Vec<&Object> = self
            .stored
            .iter()
            .filter(|r| r.name != self.name && !live.contains(&r.name.as_str()) && !live.contains(&hash_of(&r.object)))
            .collect();
        let excess = idle.len().saturating_sub(limit);
        let delete = |revision: &&Object| Action::Delete {
            resource: CONTROLLER_REVISIONS,
            namespace: revision.namespace.clone(),
            name: revision.name.clone(),
            options: only_this(revision),
            event: None,
        };
        idle.iter().take(excess).map(delete).collect()
    }
}

fn patch(revision: &Object, patch: Value) -> Action {
    Action::Patch {
        resource: CONTROLLER_REVISIONS,
        namespace: revision.namespace.clone(),
        name: revision.name.clone(),
        subresource: "",
        kind: Patch::Merge,
        patch,
    }
}
