//! CSIDriver: what the cluster has to know of a driver of volumes.

use object_model::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::GROUP;
use crate::{Column, Kind, Now, Resource, cells, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "CSIDriver",
    plural: "csidrivers",
    singular: "csidriver",
    type_name: "storage.v1.CSIDriver",
    storage: "csidrivers",
    has_generation: true,
    unconditional_update: false,
    columns: &[
        Column::name(),
        Column::boolean("AttachRequired", "Whether volumes are attached to nodes."),
        Column::boolean("PodInfoOnMount", "Whether the driver is told of the pod."),
        Column::boolean("StorageCapacity", "Whether the driver says how much room it has."),
        Column::text("TokenRequests", "Whom tokens are made for that the driver gets."),
        Column::boolean("RequiresRepublish", "Whether volumes are published again from time to time."),
        Column::text("Modes", "How long its volumes live."),
        Column::age(),
    ],
    example: "apiVersion: storage.k8s.io/v1\nkind: CSIDriver\nmetadata: {name: csi.example.com}\n\
              spec: {attachRequired: false, volumeLifecycleModes: [Ephemeral]}\n",
    hooks: &CsiDriver,
    ..crate::CLUSTER
};

struct CsiDriver;

const MODES: [&str; 2] = ["Persistent", "Ephemeral"];
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
const MIN_UPDATE_SECONDS: i64 = 10;

impl Kind for CsiDriver {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        walk::default(spec, "attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            walk::default(spec, field, false);
        }
        walk::default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if walk::list(spec, "volumeLifecycleModes").is_empty() {
            spec["volumeLifecycleModes"] = json!(["Persistent"]);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        walk::one_of(&mut errors, spec, "fsGroupPolicy", &path, &["File", "None", "ReadWriteOnceWithFSType"]);
        let requests = walk::list(spec, "tokenRequests");
        for (index, request) in requests.iter().enumerate() {
            let path = path.child("tokenRequests").index(index);
            let audience = request["audience"].as_str().unwrap_or_default();
            if requests[..index].iter().any(|other| other["audience"].as_str().unwrap_or_default() == audience) {
                errors.push(FieldError::duplicate(&path.child("audience"), audience));
                continue;
            }
            let Some(seconds) = walk::at(request, "expirationSeconds").and_then(Value::as_i64) else { continue };
            let at = path.child("expirationSeconds");
            if seconds < MIN_TOKEN_SECONDS {
                let why = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(&at, seconds, why));
            }
            if seconds > MAX_TOKEN_SECONDS {
                let why = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(&at, seconds, why));
            }
        }
        for mode in walk::list(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
            if !MODES.contains(&mode) {
                errors.push(FieldError::not_supported(&path.child("volumeLifecycleModes"), mode, &MODES));
            }
        }
        if let Some(seconds) = walk::at(spec, "nodeAllocatableUpdatePeriodSeconds").and_then(Value::as_i64)
            && seconds < MIN_UPDATE_SECONDS
        {
            let path = path.child("nodeAllocatableUpdatePeriodSeconds");
            errors.push(FieldError::invalid(&path, seconds, "must be greater than or equal to 10 seconds"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new["spec"]["attachRequired"] != old["spec"]["attachRequired"] {
            // Upstream calls the field so here.
            let path = FieldPath::new("spec").child("attachedRequired");
            errors.push(FieldError::invalid(&path, new["spec"]["attachRequired"].clone(), walk::IMMUTABLE));
        }
        walk::immutable(&mut errors, new, old, "spec.volumeLifecycleModes");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let texts = |path: &str, field: Option<&str>| {
            let items = walk::list(object, path).iter();
            let items = items.filter_map(|item| field.map_or(Some(item), |field| item.get(field))?.as_str());
            items.collect::<Vec<_>>().join(",")
        };
        let requests = match walk::at(object, "spec.tokenRequests") {
            None => "<unset>".to_owned(),
            Some(_) => texts("spec.tokenRequests", Some("audience")),
        };
        let modes = texts("spec.volumeLifecycleModes", None);
        vec![
            cells::name(object),
            walk::at(object, "spec.attachRequired").and_then(Value::as_bool).unwrap_or(true).into(),
            cells::flag(object, "spec.podInfoOnMount"),
            cells::flag(object, "spec.storageCapacity"),
            requests.into(),
            cells::flag(object, "spec.requiresRepublish"),
            if modes.is_empty() { "<none>".into() } else { modes.into() },
            cells::age(object, now),
        ]
    }
}
