//! Claims get their volumes: one that is there and fits, or one that is made for them.
//!
//! Binding goes in one order, so that it can be taken up wherever it stopped: the volume is reserved for the claim, the
//! claim names the volume, the status of the claim says so. The volume's own status is the volume controller's.

use client::Patch;
use jiff::Timestamp;
use kinds::volumes::{
    self, BIND_COMPLETED, BOUND_BY_CONTROLLER, LOCAL_DRIVER, PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER, best,
    capacity, is_reserved_for, requested, satisfies,
};
use object_model::{Quantity, meta, time};
use serde_json::{Value, json};

use crate::pods::{is_over, strip};
use crate::{
    Action, CLAIMS, Controller, Key, NODES, Note, Object, Objects, PODS, Read, STORAGE_CLASSES, VOLUMES, Writes,
};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "persistentvolumeclaim-binder",
    subject: CLAIMS,
    reads: &[
        Read { resource: VOLUMES, wakes: wakes_of_volume },
        Read { resource: PODS, wakes: wakes_of_pod },
        Read { resource: STORAGE_CLASSES, wakes: wakes_of_class },
        Read { resource: NODES, wakes: |_, _| Vec::new() },
    ],
    writes: &[
        Writes::Status,
        Writes::Shared { resource: CLAIMS, because: "a claim names the volume it gets" },
        Writes::Shared { resource: VOLUMES, because: "a volume is reserved for its claim, or made for it" },
    ],
    plan,
};

/// Holds a claim while pods use it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// A volume concerns its claim; one that is free, all that wait for one.
fn wakes_of_volume(volume: &Value, objects: &dyn Objects) -> Vec<Key> {
    let reference = &volume["spec"]["claimRef"];
    if let (Some(namespace), Some(name)) = (reference["namespace"].as_str(), reference["name"].as_str()) {
        return vec![(namespace.to_owned(), name.to_owned())];
    }
    let name = meta::name(volume);
    let waits = |claim: &&Object| volume_name(&claim.object).is_none_or(|wanted| wanted == name);
    objects.list(CLAIMS, "").iter().filter(waits).map(key).collect()
}

fn wakes_of_pod(pod: &Value, _objects: &dyn Objects) -> Vec<Key> {
    claims_of(pod).map(|name| (meta::namespace(pod).to_owned(), name.to_owned())).collect()
}

fn wakes_of_class(class: &Value, objects: &dyn Objects) -> Vec<Key> {
    let of = |claim: &&Object| volumes::class(&claim.object) == meta::name(class);
    objects.list(CLAIMS, "").iter().filter(of).map(key).collect()
}

fn key(object: &Object) -> Key {
    (object.namespace.clone(), object.name.clone())
}

/// The claims that a pod uses.
fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

fn volume_name(claim: &Value) -> Option<&str> {
    claim["spec"]["volumeName"].as_str().filter(|name| !name.is_empty())
}

fn annotated(object: &Value, key: &str) -> bool {
    meta::annotations(object).contains_key(key)
}

fn plan(claim: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(claim).is_some() {
        return Ok(protection(claim, objects));
    }
    Ok(match volume_name(claim) {
        Some(name) => named(claim, name, objects, now),
        None => unnamed(claim, objects),
    })
}

/// A claim that is being deleted stays until no pod uses it.
fn protection(claim: &Value, objects: &dyn Objects) -> Vec<Action> {
    let uses = |pod: &Object| !is_over(&pod.object) && claims_of(&pod.object).any(|name| name == meta::name(claim));
    let held = meta::finalizers(claim).contains(&PROTECTION);
    if !held || objects.list(PODS, meta::namespace(claim)).iter().any(uses) {
        return Vec::new();
    }
    let found = objects.get(CLAIMS, meta::namespace(claim), meta::name(claim));
    found.iter().map(|found| strip(CLAIMS, found, PROTECTION)).collect()
}

fn patch_claim(claim: &Value, subresource: &'static str, patch: Value) -> Action {
    Action::Patch {
        resource: CLAIMS,
        namespace: meta::namespace(claim).to_owned(),
        name: meta::name(claim).to_owned(),
        subresource,
        kind: Patch::Merge,
        patch,
    }
}

fn reference(claim: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": meta::namespace(claim),
        "name": meta::name(claim), "uid": meta::uid(claim)})
}

/// Reserves a volume for a claim; refused when somebody else was faster.
fn reserve(claim: &Value, volume: &Value) -> Action {
    let mut metadata = json!({"uid": meta::uid(volume), "resourceVersion": meta::resource_version(volume)});
    if volume["spec"]["claimRef"].is_null() {
        metadata["annotations"] = json!({BOUND_BY_CONTROLLER: "yes"});
    }
    Action::Patch {
        resource: VOLUMES,
        namespace: String::new(),
        name: meta::name(volume).to_owned(),
        subresource: "",
        kind: Patch::Merge,
        patch: json!({"metadata": metadata, "spec": {"claimRef": reference(claim)}}),
    }
}

/// The three writes that bind both, less those that are done.
fn bind(claim: &Value, volume: &Value) -> Vec<Action> {
    let mut actions = Vec::new();
    if volume["spec"]["claimRef"]["uid"] != meta::uid(claim) {
        actions.push(reserve(claim, volume));
    }
    if volume_name(claim).is_none() || !annotated(claim, BIND_COMPLETED) {
        let mut annotations = json!({BIND_COMPLETED: "yes"});
        if volume_name(claim).is_none() {
            annotations[BOUND_BY_CONTROLLER] = "yes".into();
        }
        let patch = json!({"metadata": {"uid": meta::uid(claim), "annotations": annotations},
            "spec": {"volumeName": meta::name(volume)}});
        actions.push(patch_claim(claim, "", patch));
    }
    if claim["status"]["phase"] != "Bound" {
        let status = json!({"phase": "Bound", "accessModes": volume["spec"]["accessModes"],
            "capacity": volume["spec"]["capacity"]});
        actions.push(patch_claim(claim, "status", json!({"status": status})));
    }
    actions
}

fn failed(claim: &Value, message: impl Into<String>) -> Vec<Action> {
    vec![Action::Event(Note::warning(claim, "FailedBinding", message))]
}

fn lost(claim: &Value, reason: &'static str, message: &str) -> Vec<Action> {
    if claim["status"]["phase"] == "Lost" {
        return Vec::new();
    }
    vec![
        patch_claim(claim, "status", json!({"status": {"phase": "Lost", "accessModes": null, "capacity": null}})),
        Action::Event(Note::warning(claim, reason, message)),
    ]
}

/// A claim that names its volume: the user did, or the binding has begun.
fn named(claim: &Value, name: &str, objects: &dyn Objects, now: Timestamp) -> Vec<Action> {
    let completed = annotated(claim, BIND_COMPLETED);
    let Some(volume) = objects.get(VOLUMES, "", name) else {
        return if completed {
            lost(claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
        } else {
            failed(claim, format!("volume \"{name}\" not found."))
        };
    };
    let volume = &volume.object;
    if !volume["spec"]["claimRef"].is_null() && !is_reserved_for(volume, claim) {
        return if completed {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost(claim, "ClaimMisbound", message)
        } else {
            failed(claim, format!("volume \"{name}\" already bound to a different claim."))
        };
    }
    if completed {
        let mut actions = bind(claim, volume);
        actions.extend(grow(claim, volume, objects, now));
        return actions;
    }
    if let Err(why) = satisfies(volume, claim) {
        let message = format!("Cannot bind to requested volume \"{name}\": {why}");
        return vec![Action::Event(Note::warning(claim, "VolumeMismatch", message))];
    }
    bind(claim, volume)
}

/// A claim that has no volume yet.
fn unnamed(claim: &Value, objects: &dyn Objects) -> Vec<Action> {
    let class_name = volumes::class(claim);
    let class = objects.get(STORAGE_CLASSES, "", class_name).map(|class| class.object.clone());
    let waits = class.as_ref().is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer");
    let all = objects.list(VOLUMES, "");
    let candidates = all.iter().map(|volume| &volume.object);
    // Where the scheduler has a say only volumes that are reserved for the claim are taken here.
    let found = best(candidates.filter(|volume| !waits || is_reserved_for(volume, claim)), claim);
    if let Some(volume) = found {
        return bind(claim, volume);
    }
    if waits && !annotated(claim, SELECTED_NODE) {
        return vec![Action::Event(waiting(claim, objects))];
    }
    if class_name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return vec![Action::Event(Note::normal(claim, "FailedBinding", message))];
    }
    let failed = |message: String| vec![Action::Event(Note::warning(claim, "ProvisioningFailed", message))];
    let Some(class) = class else {
        return failed(format!("storageclass.storage.k8s.io \"{class_name}\" not found"));
    };
    let provisioner = class["provisioner"].as_str().unwrap_or_default();
    if provisioner == LOCAL_DRIVER {
        return match provision(claim, &class, objects) {
            Ok(actions) => actions,
            Err(why) => failed(format!("failed to provision volume with StorageClass \"{class_name}\": {why}")),
        };
    }
    if provisioner.starts_with("kubernetes.io/") {
        return failed(format!("no volume plugin matched name: {provisioner}"));
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    let mut actions = vec![Action::Event(Note::normal(claim, "ExternalProvisioning", message))];
    if !annotated(claim, STORAGE_PROVISIONER) {
        let patch = json!({"metadata": {"annotations": {STORAGE_PROVISIONER: provisioner}}});
        actions.insert(0, patch_claim(claim, "", patch));
    }
    actions
}

/// What a claim waits for whose volume is where its first pod is.
fn waiting(claim: &Value, objects: &dyn Objects) -> Note {
    let uses = |pod: &&Object| claims_of(&pod.object).any(|name| name == meta::name(claim)) && !is_over(&pod.object);
    match objects.list(PODS, meta::namespace(claim)).iter().find(uses) {
        None => Note::normal(claim, "WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        Some(pod) => {
            Note::normal(claim, "WaitForPodScheduled", format!("waiting for pod {} to be scheduled", pod.name))
        }
    }
}

/// Makes the volume of a claim on the disk of a node. The node fills it in when the first pod comes.
fn provision(claim: &Value, class: &Value, objects: &dyn Objects) -> Result<Vec<Action>, String> {
    if claim["spec"]["volumeMode"] == "Block" {
        return Err("block volumes are not supported: use volumeMode Filesystem".to_owned());
    }
    if claim["spec"]["selector"].is_object() {
        return Err("claim Selector is not supported".to_owned());
    }
    let chosen = meta::annotations(claim).get(SELECTED_NODE).map(|node| (*node).to_owned());
    let nodes = objects.list(NODES, "");
    let node = match &chosen {
        Some(name) => nodes.iter().find(|node| node.name == *name),
        None => nodes.iter().min_by_key(|node| &node.name),
    };
    let node =
        node.ok_or_else(|| chosen.map_or("there is no node".to_owned(), |name| format!("node \"{name}\" not found")))?;
    let wanted = requested(claim);
    let disk =
        node.object["status"]["capacity"]["ephemeral-storage"].as_str().and_then(|text| text.parse::<Quantity>().ok());
    if let Some(disk) = disk.filter(|disk| *disk < wanted) {
        return Err(format!(
            "the disk of node \"{}\" has {disk}, less than the {wanted} that are requested",
            node.name
        ));
    }
    let name = format!("pvc-{}", meta::uid(claim));
    let hostname = meta::labels(&node.object).get("kubernetes.io/hostname").copied().unwrap_or(&node.name);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "annotations": {PROVISIONED_BY: LOCAL_DRIVER},
            // The node takes this one away when the data is gone.
            "finalizers": [volumes::LOCAL_FINALIZER],
        },
        "spec": {
            "capacity": {"storage": wanted.to_string()}, "accessModes": claim["spec"]["accessModes"],
            "claimRef": reference(claim), "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": meta::name(class), "volumeMode": "Filesystem", "mountOptions": class["mountOptions"],
            "csi": {"driver": LOCAL_DRIVER, "volumeHandle": name, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [hostname]}]}]}},
        },
    });
    let message = format!("Successfully provisioned volume {name}");
    let mut actions = Vec::new();
    if !annotated(claim, STORAGE_PROVISIONER) {
        let patch = json!({"metadata": {"annotations": {STORAGE_PROVISIONER: LOCAL_DRIVER}}});
        actions.push(patch_claim(claim, "", patch));
    }
    actions.push(Action::Create {
        resource: VOLUMES,
        namespace: String::new(),
        object: volume,
        event: Some(Note::normal(claim, "ProvisioningSucceeded", message)),
    });
    Ok(actions)
}

/// Gives a volume the size its claim asks for. The node makes it so, and says in the claim's status when it is.
fn grow(claim: &Value, volume: &Value, objects: &dyn Objects, now: Timestamp) -> Vec<Action> {
    let wanted = requested(claim);
    if volume["spec"]["csi"]["driver"] != LOCAL_DRIVER || wanted <= capacity(volume) {
        return Vec::new();
    }
    let node = objects.list(NODES, "").into_iter().find(|node| {
        let labels = meta::labels(&node.object);
        volumes::fits_node(volume, &node.name, |key| labels.get(key).copied())
    });
    let disk = node.as_ref().and_then(|node| node.object["status"]["capacity"]["ephemeral-storage"].as_str());
    if let Some(disk) = disk.and_then(|text| text.parse::<Quantity>().ok()).filter(|disk| *disk < wanted) {
        let message = format!("the disk of the node has {disk}, less than the {wanted} that are requested");
        return vec![Action::Event(Note::warning(claim, "VolumeResizeFailed", message))];
    }
    let condition = json!({"type": "Resizing", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": time::seconds(now)});
    vec![
        patch_claim(claim, "status", json!({"status": {"conditions": [condition]}})),
        Action::Patch {
            resource: VOLUMES,
            namespace: String::new(),
            name: meta::name(volume).to_owned(),
            subresource: "",
            kind: Patch::Merge,
            patch: json!({"spec": {"capacity": {"storage": wanted.to_string()}}}),
        },
    ]
}

#[cfg(test)]
#[path = "volume_claim_tests.rs"]
mod tests;
