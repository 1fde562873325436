//! What controllers of pods have in common: which pods are theirs, how pods are made, which one goes first.

use client::{Patch, Resource};
use jiff::Timestamp;
use object_model::meta::{self, OwnerReference};
use object_model::{LabelSelector, time};
use serde_json::{Value, json};

use crate::{Action, Key, Note, Object, Objects, PODS, controller_key};

/// The most pods made or deleted in one go (upstream's burst).
pub(crate) const BURST: usize = 500;

/// The owner of pods: its object, and how references name its kind.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub object: &'a Value,
    pub api_version: &'static str,
    pub kind: &'static str,
    /// A finalizer that every pod of this owner gets; empty for none.
    pub finalizer: &'static str,
}

impl Owner<'_> {
    pub fn reference(&self) -> Value {
        OwnerReference {
            api_version: self.api_version.to_owned(),
            kind: self.kind.to_owned(),
            name: meta::name(self.object).to_owned(),
            uid: meta::uid(self.object).to_owned(),
            controller: true,
            block_owner_deletion: true,
        }
        .to_value()
    }

    /// The metadata and spec of a new pod of this template. It has no name yet.
    pub fn pod(&self, template: &Value) -> Value {
        let mut metadata = json!({"namespace": meta::namespace(self.object), "ownerReferences": [self.reference()]});
        for field in ["labels", "annotations", "finalizers"] {
            if !template["metadata"][field].is_null() {
                metadata[field] = template["metadata"][field].clone();
            }
        }
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]});
        if !self.finalizer.is_empty() {
            meta::add_finalizer(&mut pod, self.finalizer);
        }
        pod
    }

    /// Makes this pod.
    pub fn create(&self, pod: Value) -> Action {
        Action::Create {
            resource: PODS,
            namespace: meta::namespace(self.object).to_owned(),
            object: pod,
            event: Some(Note::normal(self.object, "SuccessfulCreate", "Created pod: ")),
        }
    }

    /// Deletes a pod.
    pub fn delete(&self, pod: &Object) -> Action {
        Action::Delete {
            resource: PODS,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            options: only_this(pod),
            event: Some(Note::normal(self.object, "SuccessfulDelete", "Deleted pod: ")),
        }
    }

    /// The pods that belong to the owner, and what is to be done so that those that should do, and no other.
    pub fn claim(&self, objects: &dyn Objects, selector: &LabelSelector) -> (Vec<Object>, Vec<Action>) {
        self.claim_named(objects, selector, &|_| true)
    }

    /// The same, of pods whose names say that they may belong to it.
    pub fn claim_named(
        &self,
        objects: &dyn Objects,
        selector: &LabelSelector,
        may_adopt: &dyn Fn(&str) -> bool,
    ) -> (Vec<Object>, Vec<Action>) {
        let uid = meta::uid(self.object);
        let deleting = meta::deletion_timestamp(self.object).is_some();
        let (mut own, mut actions) = (Vec::new(), Vec::new());
        for pod in objects.list(PODS, meta::namespace(self.object)) {
            let matches = selector.matches_object(&pod.object);
            match meta::controller_of(&pod.object) {
                Some(owner) if owner.uid == uid && (matches || deleting) => own.push(pod),
                Some(owner) if owner.uid == uid => actions.push(self.change_owners(&pod, false)),
                None if matches && !deleting && is_active(&pod.object) && may_adopt(&pod.name) => {
                    actions.push(self.change_owners(&pod, true))
                }
                _ => {}
            }
        }
        (own, actions)
    }

    /// Adopts a pod, or lets go of one.
    fn change_owners(&self, pod: &Object, adopt: bool) -> Action {
        let uid = meta::uid(self.object);
        let mut owners: Vec<Value> =
            meta::owners(&pod.object).iter().filter(|o| o.uid != uid).map(OwnerReference::to_value).collect();
        let mut metadata = json!({"uid": pod.uid, "resourceVersion": pod.resource_version});
        if adopt {
            owners.push(self.reference());
        }
        metadata["ownerReferences"] = owners.into();
        if !self.finalizer.is_empty() {
            let mut changed = pod.object.clone();
            if adopt {
                meta::add_finalizer(&mut changed, self.finalizer);
            } else {
                meta::remove_finalizer(&mut changed, self.finalizer);
            }
            metadata["finalizers"] = meta::finalizers(&changed).into();
        }
        Action::Patch {
            resource: PODS,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            subresource: "",
            kind: Patch::Merge,
            patch: json!({"metadata": metadata}),
        }
    }
}

/// `DeleteOptions` for this object and no later one of its name.
pub(crate) fn only_this(object: &Object) -> Value {
    json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": object.uid}})
}

/// Takes a finalizer out of an object, whatever else has changed in it meanwhile.
pub(crate) fn strip(resource: Resource, object: &Object, finalizer: &str) -> Action {
    Action::Patch {
        resource,
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        subresource: "",
        kind: Patch::Strategic,
        patch: json!({"metadata": {"uid": object.uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}}),
    }
}

/// The subjects of a kind that a change of a pod concerns: its controller, or those that may adopt it.
pub(crate) fn wakes(pod: &Value, objects: &dyn Objects, resource: Resource, kind: &str) -> Vec<Key> {
    if let Some(key) = controller_key(pod, kind) {
        return vec![key];
    }
    if meta::controller_of(pod).is_some() {
        return Vec::new();
    }
    let all = objects.list(resource, meta::namespace(pod));
    let selects = |subject: &&Object| {
        LabelSelector::from_object(&subject.object["spec"]["selector"])
            .is_ok_and(|selector| !selector.is_everything() && selector.matches_object(pod))
    };
    all.iter().filter(selects).map(|subject| (subject.namespace.clone(), subject.name.clone())).collect()
}

/// Whether a pod still counts: it is not being deleted and may still run.
pub(crate) fn is_active(pod: &Value) -> bool {
    meta::deletion_timestamp(pod).is_none() && !is_over(pod)
}

/// Whether a pod has ended, well or not.
pub(crate) fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

/// When a pod became ready, if it is.
pub(crate) fn ready_since(pod: &Value) -> Option<Timestamp> {
    let conditions = pod["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|c| c["type"] == "Ready" && c["status"] == "True")?;
    time::parse(ready["lastTransitionTime"].as_str()?)
}

/// How many seconds are left until a ready pod counts as available: none once it does; `None` for a pod not ready.
pub(crate) fn until_available(pod: &Value, min_ready: i64, now: Timestamp) -> Option<i64> {
    let since = ready_since(pod)?;
    Some(if min_ready == 0 { 0 } else { (since.as_second() + min_ready - now.as_second()).max(0) })
}

/// Which pod goes first when there are too many: the one whose loss costs least (upstream's order).
pub(crate) fn rank(pod: &Value) -> (bool, u8, bool, i64, i64, std::cmp::Reverse<String>) {
    let phase = match pod["status"]["phase"].as_str() {
        Some("Pending") | None => 0,
        Some("Unknown") => 1,
        _ => 2,
    };
    let cost = meta::annotations(pod)
        .get("controller.kubernetes.io/pod-deletion-cost")
        .and_then(|c| c.parse().ok())
        .unwrap_or(0);
    let ready = ready_since(pod);
    let restarts: i64 = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["restartCount"].as_i64())
        .max()
        .unwrap_or(0);
    let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let assigned = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    (assigned, phase, ready.is_some(), cost, -restarts, std::cmp::Reverse(created))
}
