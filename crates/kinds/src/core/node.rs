//! Node: a machine that runs pods.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    categories: &[],
    scope: Scope::Cluster,
    verbs: ALL_VERBS,
    subresources: &[Subresource::proxy("NodeProxyOptions"), Subresource::status("", "Node")],
    type_name: "core.v1.Node",
    storage: "nodes",
    has_status: true,
    has_generation: false,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &["spec.unschedulable"],
    columns: &[
        Column::name(),
        Column::text("Status", "Whether the node is ready, and whether pods may be placed on it."),
        Column::text("Roles", "Roles the node has by its labels."),
        Column::age(),
        Column::text("Version", "Version of the node's agent."),
        Column::text("Internal-IP", "Address inside the cluster.").wide(),
        Column::text("External-IP", "Address reachable from outside.").wide(),
        Column::text("OS-Image", "Operating system.").wide(),
        Column::text("Kernel-Version", "Kernel.").wide(),
        Column::text("Container-Runtime", "Container runtime and its version.").wide(),
    ],
    example: "apiVersion: v1\nkind: Node\nmetadata: {name: example}\nspec:\n  taints: [{key: example.com/only, effect: NoSchedule}]\n",
    hooks: &Node,
};

struct Node;

impl Kind for Node {
    fn default(&self, object: &mut Value) {
        // What a node does not say it keeps to itself, it offers.
        if let Some(capacity) = walk::at(object, "status.capacity").cloned()
            && walk::at(object, "status.allocatable").is_none()
        {
            walk::map_at(object, "status").insert("allocatable".into(), capacity);
        }
    }

    // A node registers itself together with its status.
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let taints = walk::list(object, "spec.taints");
        let path = FieldPath::new("spec").child("taints");
        for (index, taint) in taints.iter().enumerate() {
            let path = path.index(index);
            let key = walk::text(taint, "key").unwrap_or_default();
            let value = walk::text(taint, "value").unwrap_or_default();
            let problems = names::qualified_name(key);
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("key"), key, why)));
            let problems = names::label_value(value);
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("value"), value, why)));
            if walk::text(taint, "effect").is_none() {
                errors.push(FieldError::required(&path.child("effect"), ""));
            }
            walk::one_of(&mut errors, taint, "effect", &path, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
            let same = |other: &Value| other["key"] == taint["key"] && other["effect"] == taint["effect"];
            if taints[..index].iter().any(same) {
                errors.push(FieldError::duplicate(&path, taint.clone()));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["podCIDR", "podCIDRs", "providerID"] {
            let path = format!("spec.{field}");
            let before = walk::at(old, &path);
            if before.is_some() && before != walk::at(new, &path) {
                let path = FieldPath::new("spec").child(field);
                errors.push(FieldError::forbidden(&path, "node updates may not change it once set"));
            }
        }
        errors
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "spec.unschedulable").then(|| (object["spec"]["unschedulable"] == true).to_string())
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let info = |field: &str| walk::text(&object["status"]["nodeInfo"], field).unwrap_or("<unknown>").to_owned();
        vec![
            object_model::meta::name(object).into(),
            status(object).into(),
            roles(object).into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            walk::text(object, "status.nodeInfo.kubeletVersion").unwrap_or_default().into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            info("osImage").into(),
            info("kernelVersion").into(),
            info("containerRuntimeVersion").into(),
        ]
    }
}

fn status(object: &Value) -> String {
    let ready = walk::list(object, "status.conditions").iter().find(|condition| condition["type"] == "Ready");
    let mut text = match ready.map(|condition| condition["status"] == "True") {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        text.push_str(",SchedulingDisabled");
    }
    text
}

fn roles(object: &Value) -> String {
    let mut roles: Vec<&str> = object_model::meta::labels(object)
        .into_iter()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            None if key == "kubernetes.io/role" => Some(value),
            role => role,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address(object: &Value, kind: &str) -> String {
    let found = walk::list(object, "status.addresses").iter().find(|address| address["type"] == kind);
    found.and_then(|address| address["address"].as_str()).unwrap_or("<none>").to_owned()
}
