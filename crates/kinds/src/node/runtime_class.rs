//! RuntimeClass: how the containers of a pod are run.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::pod_template::{amounts, tolerations};
use crate::{Column, Kind, Now, Resource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    type_name: "node.v1.RuntimeClass",
    storage: "runtimeclasses",
    create_by_update: true,
    unconditional_update: false,
    columns: &[Column::name(), Column::text("Handler", "How the runtime calls it."), Column::age()],
    example: "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: example}\nhandler: runc\n\
              overhead: {podFixed: {memory: 10Mi}}\nscheduling: {nodeSelector: {runtime: runc}}\n",
    hooks: &RuntimeClass,
    ..crate::CLUSTER
};

struct RuntimeClass;

impl Kind for RuntimeClass {
    fn default(&self, object: &mut Value) {
        if let Some(scheduling) = object.get_mut("scheduling") {
            for toleration in walk::each_mut(scheduling, "tolerations").filter(|toleration| toleration.is_object()) {
                walk::default(toleration, "operator", "Equal");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let handler = object["handler"].as_str().unwrap_or_default();
        rules::named(&mut errors, handler, &FieldPath::new("handler"), names::dns_label);
        amounts(&mut errors, &object["overhead"]["podFixed"], &FieldPath::new("overhead").child("podFixed"));
        let path = FieldPath::new("scheduling");
        crate::meta::label_map(&mut errors, &object["scheduling"]["nodeSelector"], &path.child("nodeSelector"));
        tolerations(&mut errors, &object["scheduling"], &path.child("tolerations"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "handler");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![cells::name(object), cells::text(object, "handler"), cells::age(object, now)]
    }
}
