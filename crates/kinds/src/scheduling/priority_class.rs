//! PriorityClass: how important pods are, by a name.

use object_model::{FieldError, FieldPath, meta};
use serde_json::Value;

use crate::{Column, Kind, Now, Resource, cells, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    type_name: "scheduling.v1.PriorityClass",
    storage: "priorityclasses",
    has_generation: true,
    columns: &[
        Column::name(),
        Column::number("Value", "The priority of its pods."),
        Column::boolean("Global-Default", "Whether pods that name no class are of this one."),
        Column::age(),
        Column::text("PreemptionPolicy", "Whether its pods may take the place of others."),
    ],
    example: "apiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: example}\nvalue: 1000\n",
    hooks: &PriorityClass,
    ..crate::CLUSTER
};

struct PriorityClass;

/// The classes that every cluster has, and their values.
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];
const SYSTEM_PREFIX: &str = "system-";
/// The highest value that anybody else may give.
const HIGHEST: i64 = 1_000_000_000;

impl Kind for PriorityClass {
    fn default(&self, object: &mut Value) {
        walk::default(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (name, value) = (meta::name(object), walk::number(object, "value"));
        if name.starts_with(SYSTEM_PREFIX) {
            if let Some(why) = not_a_system_class(name, value, object["globalDefault"] == true) {
                let why = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.push(FieldError::forbidden(&FieldPath::new("metadata").child("name"), why));
            }
        } else if value > HIGHEST {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.push(FieldError::forbidden(&FieldPath::new("value"), why));
        }
        let path = FieldPath::default();
        walk::one_of(&mut errors, object, "preemptionPolicy", &path, &["PreemptLowerPriority", "Never"]);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if walk::number(new, "value") != walk::number(old, "value") {
            errors.push(FieldError::forbidden(&FieldPath::new("value"), "may not be changed in an update."));
        }
        walk::immutable(&mut errors, new, old, "preemptionPolicy");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![
            cells::name(object),
            walk::number(object, "value").into(),
            cells::flag(object, "globalDefault"),
            cells::age(object, now),
            cells::text(object, "preemptionPolicy"),
        ]
    }
}

fn not_a_system_class(name: &str, value: i64, global: bool) -> Option<String> {
    let Some((_, known)) = SYSTEM.iter().find(|(known, _)| *known == name) else {
        return Some(format!("{name} is not a known system priority class"));
    };
    if value != *known {
        return Some(format!("value of {name} PriorityClass must be {known}"));
    }
    global.then(|| format!("globalDefault of {name} PriorityClass must be false"))
}
