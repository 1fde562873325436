//! Event of the core group: something that happened to an object. The stored form of both Event kinds.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "core.v1.Event",
    storage: "events",
    has_status: false,
    has_generation: false,
    create_by_update: true,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ],
    columns: COLUMNS,
    example: "apiVersion: v1\nkind: Event\nmetadata: {name: example, namespace: default}\n\
              involvedObject: {apiVersion: v1, kind: Pod, name: web, namespace: default}\n\
              reason: Started\nmessage: Started container web\ntype: Normal\ncount: 1\n\
              source: {component: kubelet, host: node}\nfirstTimestamp: 2024-05-01T10:00:00Z\n\
              lastTimestamp: 2024-05-01T10:00:00Z\n",
    hooks: &Event,
};

struct Event;

pub(crate) const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "Time since it last happened."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "Why, in one word."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "Part of the object it happened to.").wide(),
    Column::text("Source", "Who reported it.").wide(),
    Column::text("Message", "What happened, in a sentence."),
    Column::text("First Seen", "Time since it first happened.").wide(),
    Column::text("Count", "How often it happened.").wide(),
    Column { priority: 1, ..Column::name() },
];

impl Kind for Event {
    /// Upstream's default of `--event-ttl`.
    fn time_to_live(&self) -> Option<u32> {
        Some(3600)
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let involved = walk::text(object, "involvedObject.namespace").unwrap_or_default();
        let own = object_model::meta::namespace(object);
        // Events of cluster-scoped objects live in the default namespace.
        let fits = involved == own || involved.is_empty() && own == "default";
        let path = FieldPath::new("involvedObject").child("namespace");
        if fits { Vec::new() } else { vec![FieldError::invalid(&path, involved, "does not match event.namespace")] }
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        match name {
            "source" => {
                let source = walk::selectable(object, "source.component");
                Some(if source.is_empty() { walk::selectable(object, "reportingComponent") } else { source })
            }
            _ => Some(walk::selectable(object, name)),
        }
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let age = |at: Option<&str>| object_model::time::age(at, now.0);
        let first = walk::text(object, "firstTimestamp").or_else(|| walk::text(object, "eventTime"));
        let last =
            walk::text(object, "series.lastObservedTime").or_else(|| walk::text(object, "lastTimestamp")).or(first);
        let count = match walk::number(object, "series.count") {
            0 => walk::number(object, "count").max(1),
            count => count,
        };
        let component = walk::text(object, "source.component")
            .or_else(|| walk::text(object, "reportingComponent"))
            .unwrap_or_default();
        let host = walk::text(object, "source.host").or_else(|| walk::text(object, "reportingInstance"));
        let source = host.map_or_else(|| component.to_owned(), |host| format!("{component}, {host}"));
        let kind = walk::text(object, "involvedObject.kind").unwrap_or_default().to_lowercase();
        let name = walk::text(object, "involvedObject.name").unwrap_or_default();
        let text = |field: &str| Value::from(walk::text(object, field).unwrap_or_default().trim());
        vec![
            age(last).into(),
            text("type"),
            text("reason"),
            if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() },
            text("involvedObject.fieldPath"),
            source.into(),
            text("message"),
            age(first).into(),
            count.to_string().into(),
            object_model::meta::name(object).into(),
        ]
    }
}
