//! ComponentStatus: whether a part of the control plane is well. The server answers from what it knows; nothing is stored.

use serde_json::Value;

use crate::{Column, Kind, Now, Resource, cells, walk};

pub(crate) static RESOURCE: Resource = Resource {
    kind: "ComponentStatus",
    plural: "componentstatuses",
    singular: "componentstatus",
    short_names: &["cs"],
    verbs: &["get", "list"],
    type_name: "core.v1.ComponentStatus",
    columns: &[
        Column::name(),
        Column::text("Status", "Healthy, Unhealthy or Unknown."),
        Column::text("Message", "What the component said."),
        Column::text("Error", "Why it could not be asked."),
    ],
    example: "apiVersion: v1\nkind: ComponentStatus\nmetadata: {name: etcd-0}\n\
              conditions: [{type: Healthy, status: \"True\", message: ok}]\n",
    hooks: &ComponentStatus,
    ..crate::REVIEW
};

struct ComponentStatus;

impl Kind for ComponentStatus {
    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        let healthy = walk::list(object, "conditions").iter().find(|condition| condition["type"] == "Healthy");
        let text = |field: &str| healthy.and_then(|condition| walk::text(condition, field)).unwrap_or_default();
        let status = match text("status") {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![cells::name(object), status.into(), text("message").into(), text("error").into()]
    }
}
