//! PersistentVolumeClaim: the wish for a volume.

use object_model::{FieldError, FieldPath, Quantity, meta, time};
use serde_json::{Value, json};

use crate::volumes::DEFAULT_CLASS;
use crate::{ALL_VERBS, Column, DefaultClass, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "",
        version: "v1",
        kind: "PersistentVolumeClaim",
    }],
    type_name: "core.v1.PersistentVolumeClaim",
    storage: "persistentvolumeclaims",
    has_status: true,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Status", "Whether it has its volume."),
        Column::text("Volume", "The volume it has."),
        Column::text("Capacity", "The size of that."),
        Column::text("Access Modes", "How that may be mounted."),
        Column::text("StorageClass", "The class it asks for."),
        Column::text("VolumeAttributesClass", "The class of attributes it asks for."),
        Column::age(),
        Column::text("VolumeMode", "File system or block device.").wide(),
    ],
    example: "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: example, namespace: default}\n\
              spec:\n  accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}\n",
    hooks: &PersistentVolumeClaim,
};

/// How a volume may be mounted, with the short forms of tables.
pub(super) const ACCESS_MODES: [(&str, &str); 4] =
    [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
/// Holds a claim as long as a pod uses it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

struct PersistentVolumeClaim;

/// Defaults of a claim, alone or in a template.
pub(crate) fn default_claim(object: &mut Value) {
    if object["spec"].is_object() {
        walk::default(&mut object["spec"], "volumeMode", "Filesystem");
    }
    walk::map_at(object, "status");
    walk::default(&mut object["status"], "phase", "Pending");
}

impl Kind for PersistentVolumeClaim {
    // An empty name means no class, and is a choice.
    fn default_class(&self, object: &Value) -> Option<DefaultClass> {
        (!object["spec"]["storageClassName"].is_string()).then_some(DefaultClass {
            group: "storage.k8s.io",
            plural: "storageclasses",
            annotation: DEFAULT_CLASS,
            field: "/spec/storageClassName",
        })
    }

    fn default(&self, object: &mut Value) {
        default_claim(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending"});
        // Upstream's admission plug-in StorageObjectInUseProtection.
        meta::add_finalizer(object, PROTECTION);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_spec(&mut errors, &object["spec"], &FieldPath::new("spec"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let (mut like_old, before) = (new["spec"].clone(), &old["spec"]);
        // The binder names the volume, once; a class may be given later to a claim that has none.
        if walk::text(before, "volumeName").is_none() {
            crate::copy_field(&mut like_old, before, "volumeName");
        }
        if walk::at(before, "storageClassName").is_none() {
            crate::copy_field(&mut like_old, before, "storageClassName");
        }
        crate::copy_field(&mut like_old, before, "volumeAttributesClassName");
        let (asked, had) = (storage(new), storage(old));
        if let Some(requests) = like_old.pointer_mut("/resources/requests") {
            crate::copy_field(requests, &before["resources"]["requests"], "storage");
        }
        let immutable = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                         bound claims";
        if like_old != *before || (asked != had && walk::text(old, "status.phase") != Some("Bound")) {
            errors.push(FieldError::forbidden(&path, immutable));
        }
        let capacity = walk::text(old, "status.capacity.storage").and_then(|text| text.parse::<Quantity>().ok());
        if let (Some(asked), Some(had)) = (asked, had)
            && asked < had
            && capacity.is_none_or(|capacity| asked < capacity)
        {
            let path = path.child("resources").child("requests").child("storage");
            errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let text = |path: &str| walk::text(object, path).unwrap_or_default();
        let phase = if meta::deletion_timestamp(object).is_some() { "Terminating" } else { text("status.phase") };
        let volume = text("spec.volumeName");
        let (capacity, modes) = if volume.is_empty() {
            ("", String::new())
        } else {
            (text("status.capacity.storage"), access_modes(walk::list(object, "status.accessModes")))
        };
        vec![
            meta::name(object).into(),
            phase.into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            text("spec.storageClassName").into(),
            walk::text(object, "spec.volumeAttributesClassName").unwrap_or("<unset>").into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            walk::text(object, "spec.volumeMode").unwrap_or("<unset>").into(),
        ]
    }
}

/// The size that a claim asks for.
fn storage(claim: &Value) -> Option<Quantity> {
    walk::text(claim, "spec.resources.requests.storage")?.parse().ok()
}

/// Modes in short: `RWO,ROX`.
pub(super) fn access_modes(modes: &[Value]) -> String {
    let has = |mode: &str| modes.iter().any(|given| given == mode);
    ACCESS_MODES.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}

/// Checks access modes: there are some, and each is known.
pub(super) fn validate_modes(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let modes = walk::list(spec, "accessModes");
    let path = path.child("accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(&path, "at least 1 access mode is required"));
    }
    for mode in modes {
        if !ACCESS_MODES.iter().any(|(known, _)| mode == known) {
            let mut known: Vec<&str> = ACCESS_MODES.iter().map(|(mode, _)| *mode).collect();
            known.sort_unstable();
            errors.push(FieldError::not_supported(&path, mode.clone(), &known));
        }
    }
    if modes.len() > 1 && modes.contains(&json!("ReadWriteOncePod")) {
        let why = "may not use ReadWriteOncePod with other access modes";
        errors.push(FieldError::forbidden(&path, why));
    }
}

/// Checks a size: there, readable, and more than nothing.
pub(super) fn validate_size(errors: &mut Vec<FieldError>, size: &Value, path: &FieldPath) {
    let Some(text) = size.as_str() else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    if !text.parse::<Quantity>().is_ok_and(|size| size.value() > 0 && !size.is_negative()) {
        errors.push(FieldError::invalid(path, text, "must be greater than zero"));
    }
}

/// What is wrong with the spec of a claim, alone or in a template.
pub(crate) fn validate_spec(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    validate_modes(errors, spec, path);
    if let Some(selector) = walk::at(spec, "selector") {
        crate::meta::selector(errors, selector, &path.child("selector"));
    }
    let storage = path.child("resources").key("storage");
    validate_size(errors, &spec["resources"]["requests"]["storage"], &storage);
    walk::one_of(errors, spec, "volumeMode", path, &["Block", "Filesystem"]);
    if let Some(name) = walk::text(spec, "storageClassName") {
        let path = path.child("storageClassName");
        let problems = object_model::names::dns_subdomain(name);
        errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, name, why)));
    }
}
