//! PersistentVolume: a piece of storage, whoever it belongs to.

use object_model::{FieldError, FieldPath, meta, time};
use serde_json::{Value, json};

use super::persistent_volume_claim::{access_modes, validate_modes, validate_size};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    categories: &[],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "",
        version: "v1",
        kind: "PersistentVolume",
    }],
    type_name: "core.v1.PersistentVolume",
    storage: "persistentvolumes",
    has_status: true,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Capacity", "Its size."),
        Column::text("Access Modes", "How it may be mounted."),
        Column::text("Reclaim Policy", "What becomes of it when its claim is deleted."),
        Column::text("Status", "Whether it belongs to a claim."),
        Column::text("Claim", "The claim it belongs to."),
        Column::text("StorageClass", "The class it is of."),
        Column::text("VolumeAttributesClass", "The class of its attributes."),
        Column::text("Reason", "Why it is in that state."),
        Column::age(),
        Column::text("VolumeMode", "File system or block device.").wide(),
    ],
    example: "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: example}\n\
              spec:\n  capacity: {storage: 1Gi}\n  accessModes: [ReadWriteOnce]\n  hostPath: {path: /srv/example}\n",
    hooks: &PersistentVolume,
};

/// Holds a volume as long as a claim has it.
const PROTECTION: &str = "kubernetes.io/pv-protection";
/// Fields of the spec that do not say where the data is.
const GENERAL: [&str; 9] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "volumeMode",
    "nodeAffinity",
    "volumeAttributesClassName",
];

struct PersistentVolume;

/// The fields that say where the data is; a valid volume has one.
fn sources(spec: &Value) -> Vec<&str> {
    let fields = spec.as_object().into_iter().flatten();
    fields
        .filter(|(key, value)| !GENERAL.contains(&key.as_str()) && !value.is_null())
        .map(|(key, _)| key.as_str())
        .collect()
}

impl Kind for PersistentVolume {
    fn ties_to_nodes(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if spec.is_object() {
            walk::default(spec, "persistentVolumeReclaimPolicy", "Retain");
            walk::default(spec, "volumeMode", "Filesystem");
            if let Some(path) = spec.get_mut("hostPath").filter(|path| path.is_object())
                && path.get("type").is_none()
            {
                path["type"] = "".into();
            }
        }
        walk::map_at(object, "status");
        walk::default(&mut object["status"], "phase", "Pending");
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
        // Upstream's admission plug-in StorageObjectInUseProtection.
        meta::add_finalizer(object, PROTECTION);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        validate_modes(&mut errors, spec, &path);
        validate_size(&mut errors, &spec["capacity"]["storage"], &path.child("capacity").key("storage"));
        walk::one_of(&mut errors, spec, "persistentVolumeReclaimPolicy", &path, &["Delete", "Recycle", "Retain"]);
        walk::one_of(&mut errors, spec, "volumeMode", &path, &["Block", "Filesystem"]);
        match sources(spec).as_slice() {
            [] => errors.push(FieldError::required(&path, "must specify a volume type")),
            [_] => {}
            [_, more @ ..] => errors.extend(
                more.iter()
                    .map(|kind| FieldError::forbidden(&path.child(kind), "may not specify more than 1 volume type")),
            ),
        }
        if let Some(source) = walk::at(spec, "hostPath") {
            let path = path.child("hostPath").child("path");
            match walk::text(source, "path") {
                None => errors.push(FieldError::required(&path, "")),
                Some(text) if text.split('/').any(|part| part == "..") => {
                    errors.push(FieldError::invalid(&path, text, "must not contain '..'"));
                }
                Some(_) => {}
            }
            if walk::text(source, "path") == Some("/") && spec["persistentVolumeReclaimPolicy"] == "Recycle" {
                let why = "may not be 'recycle' for a hostPath mount of '/'";
                let at = FieldPath::new("spec").child("persistentVolumeReclaimPolicy");
                errors.push(FieldError::forbidden(&at, why));
            }
        }
        if let Some(source) = walk::at(spec, "local") {
            if walk::text(source, "path").is_none() {
                errors.push(FieldError::required(&path.child("local").child("path"), ""));
            }
            if walk::at(spec, "nodeAffinity.required").is_none() {
                let why = "Local volume requires node affinity";
                errors.push(FieldError::required(&path.child("nodeAffinity"), why));
            }
        }
        if walk::at(spec, "csi").is_some_and(|csi| walk::text(csi, "driver").is_none()) {
            errors.push(FieldError::required(&path.child("csi").child("driver"), ""));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let (now, before) = (&new["spec"], &old["spec"]);
        let source = |spec: &Value| {
            let fields = sources(spec);
            fields.into_iter().map(|field| (field.to_owned(), spec[field].clone())).collect::<Vec<_>>()
        };
        if source(now) != source(before) {
            errors.push(FieldError::forbidden(
                &path.child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            ));
        }
        walk::immutable(&mut errors, new, old, "spec.volumeMode");
        if walk::at(before, "nodeAffinity").is_some() {
            walk::immutable(&mut errors, new, old, "spec.nodeAffinity");
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let text = |path: &str| walk::text(object, path).unwrap_or_default();
        let phase = if meta::deletion_timestamp(object).is_some() { "Terminating" } else { text("status.phase") };
        let claim = match walk::at(object, "spec.claimRef") {
            Some(_) => format!("{}/{}", text("spec.claimRef.namespace"), text("spec.claimRef.name")),
            None => String::new(),
        };
        vec![
            meta::name(object).into(),
            text("spec.capacity.storage").into(),
            access_modes(walk::list(object, "spec.accessModes")).into(),
            text("spec.persistentVolumeReclaimPolicy").into(),
            phase.into(),
            claim.into(),
            text("spec.storageClassName").into(),
            walk::text(object, "spec.volumeAttributesClassName").unwrap_or("<unset>").into(),
            text("status.reason").into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            walk::text(object, "spec.volumeMode").unwrap_or("<unset>").into(),
        ]
    }
}
