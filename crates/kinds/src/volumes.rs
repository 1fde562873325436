//! Which PersistentVolume satisfies which PersistentVolumeClaim.

use object_model::node_selector::matches_term;
use object_model::{LabelSelector, Quantity, meta};
use serde_json::Value;

use crate::walk;

/// On a claim: the node that the scheduler has chosen for the pod that waits for it.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: it has its volume, and both know it.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: the controller has chosen the other one, not the user.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it on demand.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// On a class: claims that name none are of this one.
pub const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The provisioner and driver of volumes on the node's own disk.
pub const LOCAL_DRIVER: &str = "local.knarr.dev";

/// Holds a volume of [`LOCAL_DRIVER`] until its node has removed the data.
pub const LOCAL_FINALIZER: &str = "local.knarr.dev/data";

/// The class of a claim or a volume; empty for none.
pub fn class(object: &Value) -> &str {
    walk::text(object, "spec.storageClassName").unwrap_or_default()
}

/// The size that a claim asks for.
pub fn requested(claim: &Value) -> Quantity {
    quantity(claim, "spec.resources.requests.storage")
}

/// The size of a volume.
pub fn capacity(volume: &Value) -> Quantity {
    quantity(volume, "spec.capacity.storage")
}

fn quantity(object: &Value, path: &str) -> Quantity {
    walk::text(object, path).and_then(|text| text.parse().ok()).unwrap_or_else(|| Quantity::whole(0))
}

/// Whether a volume is meant for a claim, by name or by uid.
pub fn is_reserved_for(volume: &Value, claim: &Value) -> bool {
    let reference = &volume["spec"]["claimRef"];
    let uid = walk::text(reference, "uid");
    reference["name"] == meta::name(claim)
        && reference["namespace"] == meta::namespace(claim)
        && uid.is_none_or(|uid| uid == meta::uid(claim))
}

/// Whether a volume has what a claim asks for, whoever it belongs to.
///
/// # Errors
/// What it lacks, in upstream's words.
pub fn satisfies(volume: &Value, claim: &Value) -> Result<(), &'static str> {
    if capacity(volume) < requested(claim) {
        return Err("requested PV is too small");
    }
    if class(volume) != class(claim) {
        return Err("storageClassName does not match");
    }
    let mode = |object: &Value| walk::text(object, "spec.volumeMode").unwrap_or("Filesystem").to_owned();
    if mode(volume) != mode(claim) {
        return Err("incompatible volumeMode");
    }
    let offered = walk::list(volume, "spec.accessModes");
    if !walk::list(claim, "spec.accessModes").iter().all(|mode| offered.contains(mode)) {
        return Err("incompatible accessMode");
    }
    Ok(())
}

/// Whether the pods of a volume may run on a node.
pub fn fits_node<'a>(volume: &Value, name: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let terms = walk::at(volume, "spec.nodeAffinity.required.nodeSelectorTerms").and_then(Value::as_array);
    terms.is_none_or(|terms| terms.iter().any(|term| matches_term(term, name, &label)))
}

/// Of the volumes that satisfy a claim the one that is reserved for it, or the smallest.
pub fn best<'a>(volumes: impl Iterator<Item = &'a Value>, claim: &Value) -> Option<&'a Value> {
    let selector = walk::at(claim, "spec.selector").and_then(|selector| LabelSelector::from_object(selector).ok());
    let mut smallest: Option<&Value> = None;
    for volume in volumes {
        if meta::deletion_timestamp(volume).is_some() || satisfies(volume, claim).is_err() {
            continue;
        }
        if walk::at(volume, "spec.claimRef").is_some() {
            if is_reserved_for(volume, claim) {
                return Some(volume);
            }
            continue;
        }
        let free = walk::text(volume, "status.phase") == Some("Available");
        let wanted = selector.as_ref().is_none_or(|selector| selector.matches_object(volume));
        if free && wanted && smallest.is_none_or(|best| capacity(volume) < capacity(best)) {
            smallest = Some(volume);
        }
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn volume(name: &str, size: &str, claim_ref: Value) -> Value {
        json!({"metadata": {"name": name, "labels": {"tier": name}}, "status": {"phase": "Available"}, "spec": {
            "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow", "claimRef": claim_ref}})
    }

    fn claim(size: &str, extra: Value) -> Value {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "a", "uid": "u"}, "spec": {
            "resources": {"requests": {"storage": size}}, "accessModes": ["ReadWriteOnce"], "storageClassName": "slow"}});
        for (key, value) in extra.as_object().into_iter().flatten() {
            claim["spec"][key] = value.clone();
        }
        claim
    }

    #[test]
    fn the_smallest_that_fits_is_chosen_unless_one_is_reserved() {
        let chosen = |volumes: &[Value], claim: &Value| best(volumes.iter(), claim).map(|v| meta::name(v).to_owned());
        let all = [
            volume("big", "10Gi", Value::Null),
            volume("fits", "2Gi", Value::Null),
            volume("small", "1Gi", Value::Null),
        ];
        assert_eq!(chosen(&all, &claim("1500Mi", json!({}))).as_deref(), Some("fits"));
        assert_eq!(chosen(&all, &claim("20Gi", json!({}))), None);
        assert_eq!(chosen(&all, &claim("1Gi", json!({"storageClassName": "fast"}))), None);
        assert_eq!(chosen(&all, &claim("1Gi", json!({"accessModes": ["ReadWriteMany"]}))), None);
        assert_eq!(
            chosen(&all, &claim("1Gi", json!({"selector": {"matchLabels": {"tier": "big"}}}))).as_deref(),
            Some("big")
        );
        let reserved =
            [volume("small", "1Gi", Value::Null), volume("mine", "5Gi", json!({"name": "c", "namespace": "a"}))];
        assert_eq!(chosen(&reserved, &claim("1Gi", json!({}))).as_deref(), Some("mine"));
        let others = [volume("theirs", "5Gi", json!({"name": "d", "namespace": "a"}))];
        assert_eq!(chosen(&others, &claim("1Gi", json!({}))), None);
    }
}
