//! PodTemplate: a template of pods that stands for itself.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::pod_template::{containers_and_images, default_spec, validate_metadata_and_spec};
use crate::{Column, Kind, Now, Resource, cells};

pub(crate) static RESOURCE: Resource = Resource {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    type_name: "core.v1.PodTemplate",
    storage: "podtemplates",
    has_generation: true,
    columns: &[
        Column::name(),
        Column::text("Containers", "Names of the template's containers."),
        Column::text("Images", "Images of the template's containers."),
        Column::text("Pod Labels", "Labels of the template."),
    ],
    example: "apiVersion: v1\nkind: PodTemplate\nmetadata: {name: example, namespace: default}\n\
              template:\n  metadata: {labels: {app: example}}\n\
              \x20 spec: {containers: [{name: main, image: \"nginx:1.27\"}]}\n",
    hooks: &PodTemplate,
    ..crate::NAMESPACED
};

struct PodTemplate;

impl Kind for PodTemplate {
    fn default(&self, object: &mut Value) {
        if let Some(pod) = object.pointer_mut("/template/spec") {
            default_spec(pod);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_metadata_and_spec(&mut errors, &object["template"], &FieldPath::new("template"));
        errors
    }

    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("template") != old.get("template")
    }

    fn cells(&self, object: &Value, _now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["template"]);
        let labels = cells::labels(&object["template"]["metadata"]["labels"]);
        vec![cells::name(object), containers.into(), images.into(), labels]
    }
}
