//! What the volumes of a pod mean for its place, and what has to happen to them before it can go there.

use std::sync::Arc;

use client::{Cache, Resource};
use kinds::volumes::{self, BIND_COMPLETED, SELECTED_NODE};
use object_model::meta;
use serde_json::{Value, json};

pub(crate) const CLAIMS: Resource = Resource { group: "", version: "v1", plural: "persistentvolumeclaims" };
pub(crate) const VOLUMES: Resource = Resource { group: "", version: "v1", plural: "persistentvolumes" };
pub(crate) const CLASSES: Resource = Resource { group: "storage.k8s.io", version: "v1", plural: "storageclasses" };

/// The volumes of one pod.
#[derive(Debug, Clone, Default)]
pub struct Volumes {
    /// Why the pod can be nowhere for now.
    pub blocked: Option<String>,
    /// The volumes it has.
    pub bound: Vec<Value>,
    /// The claims that get theirs where the pod goes.
    pub waiting: Vec<Waiting>,
}

/// A claim whose volume is chosen with the pod's node.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    /// The claim.
    pub claim: Value,
    /// Volumes that are there and free.
    pub candidates: Vec<Value>,
    /// Whether one is made where none fits.
    pub provisioned: bool,
}

impl Waiting {
    /// The volume of those that are there which fits best, on a node.
    pub(crate) fn choose<'a>(&self, node: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> Option<&Value> {
        volumes::best(self.candidates.iter().filter(|volume| volumes::fits_node(volume, node, &label)), &self.claim)
    }
}

/// What the scheduler follows of volumes.
#[derive(Clone, Default)]
pub(crate) struct Caches {
    pub claims: Cache<Value>,
    pub volumes: Cache<Value>,
    pub classes: Cache<Value>,
}

fn has_volume(claim: &Value) -> bool {
    claim["spec"]["volumeName"].as_str().is_some_and(|name| !name.is_empty())
        && meta::annotations(claim).contains_key(BIND_COMPLETED)
}

impl Caches {
    /// What the claims of a pod say.
    pub fn of(&self, pod: &Value) -> Volumes {
        let mut found = Volumes::default();
        for name in claims_of(pod) {
            let Some(claim) = self.claims.get(meta::namespace(pod), name) else {
                found.blocked.get_or_insert(format!("persistentvolumeclaim \"{name}\" not found"));
                continue;
            };
            let claim = &claim.object;
            if meta::deletion_timestamp(claim).is_some() {
                found.blocked.get_or_insert(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            } else if claim["status"]["phase"] == "Lost" {
                let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
                let why =
                    format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\"");
                found.blocked.get_or_insert(why);
            } else if has_volume(claim) {
                let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
                found.bound.extend(self.volumes.get("", volume).map(|volume| volume.object.clone()));
            } else {
                self.wait(claim, &mut found);
            }
        }
        found
    }

    fn wait(&self, claim: &Value, found: &mut Volumes) {
        let class = self.classes.get("", volumes::class(claim));
        let class = class.filter(|class| class.object["volumeBindingMode"] == "WaitForFirstConsumer");
        let named = claim["spec"]["volumeName"].as_str().is_some_and(|name| !name.is_empty());
        let Some(class) = class.filter(|_| !named) else {
            // Its volume is the business of others.
            found.blocked.get_or_insert("pod has unbound immediate PersistentVolumeClaims".to_owned());
            return;
        };
        let provisioner = class.object["provisioner"].as_str().unwrap_or_default();
        found.waiting.push(Waiting {
            claim: claim.clone(),
            candidates: self.volumes.all().iter().map(|volume| volume.object.clone()).collect(),
            provisioned: !provisioner.is_empty() && provisioner != "kubernetes.io/no-provisioner",
        });
    }

    /// Whether all claims of a pod have their volumes.
    pub fn are_bound(&self, pod: &Value) -> bool {
        claims_of(pod)
            .all(|name| self.claims.get(meta::namespace(pod), name).is_some_and(|claim| has_volume(&claim.object)))
    }
}

/// A write that gives a claim its volume on the chosen node, or says where to make one.
pub(crate) struct Choice {
    pub resource: Resource,
    pub namespace: String,
    pub name: String,
    pub patch: Value,
}

/// What has to be written so that the claims of a pod get their volumes on a node.
pub(crate) fn choices<'a>(volumes: &Volumes, node: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> Vec<Choice> {
    let choose = |waiting: &Waiting| {
        let claim = &waiting.claim;
        if let Some(volume) = waiting.choose(node, &label) {
            let reference = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta::namespace(claim),
                "name": meta::name(claim), "uid": meta::uid(claim)});
            let metadata = json!({"uid": meta::uid(volume), "resourceVersion": meta::resource_version(volume)});
            return Choice {
                resource: VOLUMES,
                namespace: String::new(),
                name: meta::name(volume).to_owned(),
                patch: json!({"metadata": metadata, "spec": {"claimRef": reference}}),
            };
        }
        Choice {
            resource: CLAIMS,
            namespace: meta::namespace(claim).to_owned(),
            name: meta::name(claim).to_owned(),
            patch: json!({"metadata": {"uid": meta::uid(claim), "annotations": {SELECTED_NODE: node}}}),
        }
    };
    volumes.waiting.iter().map(choose).collect()
}

/// The claims that a pod names.
fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

/// Whether a change of a claim may help pods that wait for it.
pub(crate) fn matters(old: Option<&Arc<client::Cached<Value>>>, new: &Value) -> bool {
    old.is_none_or(|old| {
        ["spec", "status"].iter().any(|field| old.object[*field] != new[*field])
            || old.object["metadata"]["annotations"] != new["metadata"]["annotations"]
            || old.object["metadata"]["deletionTimestamp"] != new["metadata"]["deletionTimestamp"]
    })
}
