//! Pod: containers that run together on one node.

use object_model::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::{pod_cells, pod_resize};
use crate::pod_template::{default_pod_only, default_spec, qos_class, validate_spec};
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Pod",
    plural: "pods",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[
        Subresource { name: "attach", verbs: STREAM, group: "", version: "v1", kind: "PodAttachOptions" },
        Subresource { name: "binding", verbs: &["create"], group: "", version: "v1", kind: "Binding" },
        Subresource::part("ephemeralcontainers", "", "Pod"),
        Subresource { name: "eviction", verbs: &["create"], group: "policy", version: "v1", kind: "Eviction" },
        Subresource { name: "exec", verbs: STREAM, group: "", version: "v1", kind: "PodExecOptions" },
        Subresource { name: "log", verbs: &["get"], group: "", version: "v1", kind: "Pod" },
        Subresource { name: "portforward", verbs: STREAM, group: "", version: "v1", kind: "PodPortForwardOptions" },
        Subresource::proxy("PodProxyOptions"),
        Subresource::part("resize", "", "Pod"),
        Subresource::status("", "Pod"),
    ],
    type_name: "core.v1.Pod",
    storage: "pods",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: true,
    selectable_fields: &[
        "spec.host",
        "spec.hostNetwork",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
        "status.podIPs",
    ],
    columns: &[
        Column::name(),
        Column::text("Ready", "Containers that are ready, of all."),
        Column::text("Status", "What the pod does, in a word."),
        Column::text("Restarts", "How often containers were started again, and when last."),
        Column::age(),
        Column::text("IP", "Address of the pod.").wide(),
        Column::text("Node", "Node the pod is placed on.").wide(),
        Column::text("Nominated Node", "Node on which room is being made for the pod.").wide(),
        Column::text("Readiness Gates", "Conditions that hold, of those the pod waits for.").wide(),
    ],
    example: "apiVersion: v1\nkind: Pod\nmetadata: {name: example, namespace: default}\n\
              spec:\n  containers:\n  - {name: main, image: \"busybox:1.36\", command: [sleep, infinity]}\n",
    hooks: &Pod,
};

const STREAM: &[&str] = &["create", "get"];

struct Pod;

/// Fields of a running pod that can change, in upstream's words.
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                       `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                       existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                       previously negative)";

impl Kind for Pod {
    fn ties_to_nodes(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        walk::map_at(object, "spec");
        default_spec(&mut object["spec"]);
        default_pod_only(&mut object["spec"]);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])});
        // The scheduler never looks at such a pod, so the server itself says why it waits.
        if !walk::list(&object["spec"], "schedulingGates").is_empty() {
            object["status"]["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        crate::keep_status(new, old);
        // What the class of the pod says need not be said again.
        for field in ["priority", "preemptionPolicy"] {
            if walk::at(&new["spec"], field).is_none() && new["spec"].is_object() {
                crate::copy_field(&mut new["spec"], &old["spec"], field);
            }
        }
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        crate::keep_all_but_status(new, old);
        // The class follows from the spec: whoever writes the status need not know it.
        if let Some(class) = walk::text(old, "status.qosClass") {
            walk::map_at(new, "status").insert("qosClass".into(), class.into());
        }
    }

    fn prepare_subresource_update(&self, name: &str, new: &mut Value, old: &Value) {
        match name {
            "ephemeralcontainers" => pod_resize::keep_all_but_ephemeral_containers(new, old),
            "resize" => pod_resize::keep_all_but_resources(new, old),
            _ => self.prepare_status_update(new, old),
        }
    }

    fn validate_subresource_update(&self, name: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        match name {
            "ephemeralcontainers" => pod_resize::validate_ephemeral_containers(new, old),
            "resize" => pod_resize::validate_resize(new, old),
            _ => Vec::new(),
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        validate_spec(&mut errors, &object["spec"], &FieldPath::new("spec"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        for list in ["containers", "initContainers"] {
            if walk::list(&new["spec"], list).len() != walk::list(&old["spec"], list).len() {
                let why = "pod updates may not add or remove containers";
                errors.push(FieldError::forbidden(&path.child(list), why));
                return errors;
            }
        }
        deadline(&mut errors, new, old, &path);
        tolerations(&mut errors, new, old, &path);
        if like_old_in_mutable_fields(&new["spec"], &old["spec"]) != old["spec"] {
            errors.push(FieldError::forbidden(&path, MUTABLE));
        }
        errors
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(match name {
            "spec.host" => walk::selectable(object, "spec.nodeName"),
            "spec.hostNetwork" => (object["spec"]["hostNetwork"] == true).to_string(),
            "status.podIPs" => {
                let ips = walk::list(object, "status.podIPs").iter().filter_map(|ip| walk::text(ip, "ip"));
                ips.collect::<Vec<_>>().join(",")
            }
            _ => walk::selectable(object, name),
        })
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        pod_cells::cells(object, now)
    }

    fn grace_period(&self, object: &Value, asked: Option<i64>) -> i64 {
        let finished = matches!(walk::text(object, "status.phase"), Some("Succeeded" | "Failed"));
        if finished || walk::text(object, "spec.nodeName").is_none() {
            return 0;
        }
        let own = walk::at(object, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64);
        match asked.or(own).unwrap_or(30) {
            // A negative period means at once, which upstream reads as one second.
            seconds if seconds < 0 => 1,
            seconds => seconds,
        }
    }
}

/// The new spec with the old values of all fields that may change.
fn like_old_in_mutable_fields(new: &Value, old: &Value) -> Value {
    let mut spec = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in walk::each_mut(&mut spec, list).zip(walk::list(old, list)) {
            crate::copy_field(container, before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        crate::copy_field(&mut spec, old, field);
    }
    // Gates can be opened, not closed.
    let gates = walk::list(old, "schedulingGates");
    if walk::list(new, "schedulingGates").iter().all(|gate| gates.contains(gate)) {
        crate::copy_field(&mut spec, old, "schedulingGates");
    }
    if walk::number(old, "terminationGracePeriodSeconds") < 0 && spec["terminationGracePeriodSeconds"] == 1 {
        crate::copy_field(&mut spec, old, "terminationGracePeriodSeconds");
    }
    spec
}

fn deadline(errors: &mut Vec<FieldError>, new: &Value, old: &Value, path: &FieldPath) {
    let path = path.child("activeDeadlineSeconds");
    let seconds = |pod: &Value| walk::at(pod, "spec.activeDeadlineSeconds").and_then(Value::as_i64);
    match (seconds(new), seconds(old)) {
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(&path, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                &path,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

/// Existing tolerations stay, but for their time.
fn tolerations(errors: &mut Vec<FieldError>, new: &Value, old: &Value, path: &FieldPath) {
    let timeless = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(map) = toleration.as_object_mut() {
            map.remove("tolerationSeconds");
        }
        toleration
    };
    let kept: Vec<Value> = walk::list(new, "spec.tolerations").iter().map(timeless).collect();
    if !walk::list(old, "spec.tolerations").iter().all(|toleration| kept.contains(&timeless(toleration))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&path.child("tolerations"), why));
    }
}
