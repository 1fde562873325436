//! VolumeAttachment: the wish that a volume is attached to a node.

use object_model::{FieldError, FieldPath, names};
use serde_json::{Value, json};

use super::GROUP;
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    subresources: &[Subresource::status(GROUP, "VolumeAttachment")],
    type_name: "storage.v1.VolumeAttachment",
    storage: "volumeattachments",
    has_status: true,
    unconditional_update: false,
    columns: &[
        Column::name(),
        Column { format: "name", ..Column::text("Attacher", "The driver that attaches it.") },
        Column::text("PV", "The volume."),
        Column::text("Node", "The node."),
        Column::boolean("Attached", "Whether it is attached."),
        Column::age(),
    ],
    example: "apiVersion: storage.k8s.io/v1\nkind: VolumeAttachment\nmetadata: {name: example}\n\
              spec: {attacher: csi.example.com, nodeName: node-1, source: {persistentVolumeName: disk}}\n",
    hooks: &VolumeAttachment,
    ..crate::CLUSTER
};

struct VolumeAttachment;

const MAX_METADATA: usize = 256 * 1024;
const MAX_MESSAGE: usize = 1024;

impl Kind for VolumeAttachment {
    fn ties_to_nodes(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"attached": false});
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        rules::driver_name(&mut errors, spec, "attacher", &path);
        let source = path.child("source");
        match (walk::text(spec, "source.persistentVolumeName"), walk::at(spec, "source.inlineVolumeSpec")) {
            (None, None) => {
                let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(FieldError::required(&source, why));
            }
            (Some(_), Some(_)) => {
                let why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
                errors.push(FieldError::forbidden(&source, why));
            }
            (Some(name), None) => {
                rules::named(&mut errors, name, &source.child("persistentVolumeName"), names::dns_subdomain);
            }
            (None, Some(_)) => {}
        }
        let node = spec["nodeName"].as_str().unwrap_or_default();
        rules::named(&mut errors, node, &path.child("nodeName"), names::dns_subdomain);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec");
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        let status = &new["status"];
        let metadata = object_model::meta::strings(&status["attachmentMetadata"]);
        if metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_METADATA {
            errors.push(FieldError::too_long(&path.child("attachmentMetadata"), MAX_METADATA));
        }
        for field in ["attachError", "detachError"] {
            let (error, path) = (&status[field], path.child(field));
            if walk::text(error, "message").is_some_and(|message| message.len() > MAX_MESSAGE) {
                errors.push(FieldError::too_long(&path.child("message"), MAX_MESSAGE));
            }
            if let Some(code) = walk::at(error, "errorCode") {
                crate::pod_template::range(&mut errors, code, &path.child("errorCode"), 0, i64::from(i32::MAX));
            }
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            cells::name(object),
            cells::text(object, "spec.attacher"),
            cells::text(object, "spec.source.persistentVolumeName"),
            cells::text(object, "spec.nodeName"),
            cells::flag(object, "status.attached"),
            cells::age(object, now),
        ]
    }
}
