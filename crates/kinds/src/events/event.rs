//! Event of events.k8s.io: the same stored objects as the core group's, with newer names for some fields.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::core::event;
use crate::{ALL_VERBS, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "events.k8s.io",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "events.v1.Event",
    storage: "events",
    has_status: false,
    has_generation: false,
    create_by_update: true,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[
        "reason",
        "regarding.apiVersion",
        "regarding.fieldPath",
        "regarding.kind",
        "regarding.name",
        "regarding.namespace",
        "regarding.resourceVersion",
        "regarding.uid",
        "reportingController",
        "type",
    ],
    columns: event::COLUMNS,
    example: "apiVersion: events.k8s.io/v1\nkind: Event\nmetadata: {name: example, namespace: default}\n\
              regarding: {apiVersion: v1, kind: Pod, name: web, namespace: default}\n\
              reason: Scheduled\naction: Binding\nnote: Assigned default/web to node\ntype: Normal\n\
              reportingController: scheduler\nreportingInstance: scheduler-1\neventTime: 2024-05-01T10:00:00.000000Z\n",
    hooks: &Event,
};

struct Event;

/// Names here, names in the core group.
const RENAMED: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
];

fn rename(mut object: Value, api_version: &str, pairs: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    if let Some(map) = object.as_object_mut() {
        if map.contains_key("apiVersion") {
            map.insert("apiVersion".into(), api_version.into());
        }
        for (from, to) in pairs {
            if let Some(value) = map.remove(from) {
                map.insert(to.to_owned(), value);
            }
        }
    }
    object
}

impl Kind for Event {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        // Events written through the old group, and only seen here, lack what this group asks for.
        if walk::text(object, "eventTime").is_some() {
            for field in ["reportingController", "reportingInstance", "action", "reason"] {
                if walk::text(object, field).is_none() {
                    errors.push(FieldError::required(&FieldPath::new(field), ""));
                }
            }
            let length = walk::text(object, "note").map_or(0, str::len);
            if length > 1024 {
                errors.push(FieldError::invalid(&FieldPath::new("note"), "", "can have at most 1024 characters"));
            }
            if !matches!(walk::text(object, "type"), Some("Normal" | "Warning")) {
                let given = walk::text(object, "type").unwrap_or_default();
                errors.push(FieldError::invalid(&FieldPath::new("type"), given, "has invalid value: "));
            }
        } else if walk::text(object, "deprecatedLastTimestamp").is_none() {
            errors.push(FieldError::required(&FieldPath::new("eventTime"), ""));
        }
        let regarding = walk::text(object, "regarding.namespace").unwrap_or_default();
        let own = object_model::meta::namespace(object);
        if regarding != own && !(regarding.is_empty() && own == "default") {
            let path = FieldPath::new("regarding").child("namespace");
            errors.push(FieldError::invalid(&path, regarding, "does not match event.namespace"));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        event::RESOURCE.hooks.cells(&self.stored(object.clone()), now)
    }

    fn stored(&self, object: Value) -> Value {
        let mut stored = rename(object, "v1", RENAMED.into_iter());
        schema::normalise(event::RESOURCE.ty(), &mut stored);
        stored
    }

    fn served(&self, object: Value) -> Value {
        let mut served = rename(object, "events.k8s.io/v1", RENAMED.into_iter().map(|(here, core)| (core, here)));
        schema::normalise(RESOURCE.ty(), &mut served);
        served
    }
}
