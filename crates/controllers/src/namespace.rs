//! Namespaces that are being deleted are emptied, and say what they wait for.

use std::time::Duration;

use client::{Patch, Resource};
use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::runner::NAMESPACED;
use crate::{Action, Controller, NAMESPACES, Objects, PODS, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    subject: NAMESPACES,
    reads: &[],
    writes: &[
        Writes::Status,
        Writes::Shared { resource: NAMESPACES, because: "the finalizer in its spec is this controller's" },
        Writes::Anything { because: "a namespace that is deleted takes all it holds with it" },
    ],
    plan,
};

/// How long to wait before looking whether what was deleted has gone.
const RECHECK: Duration = Duration::from_millis(100);

fn plan(namespace: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(namespace).is_none() {
        return Ok(Vec::new());
    }
    let name = meta::name(namespace);
    let pending: Vec<&str> =
        namespace["spec"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !pending.contains(&"kubernetes") {
        return Ok(Vec::new());
    }
    // Pods first (Kubernetes ≥ 1.33): while they run, they may need what else is in the namespace.
    let pods = !objects.list(PODS, name).is_empty();
    let mut actions = Vec::new();
    let (mut remaining, mut finalizers) = (Vec::new(), Vec::new());
    let custom = objects.custom();
    let unknown: Vec<String> = custom.iter().filter(|(_, known)| !known).map(|(r, _)| qualified(*r)).collect();
    for resource in NAMESPACED.iter().copied().chain(custom.into_iter().map(|(resource, _)| resource)) {
        let held = objects.list(resource, name);
        if held.is_empty() {
            continue;
        }
        remaining.push(format!("{} has {} resource instances", qualified(resource), held.len()));
        for object in &held {
            finalizers.extend(meta::finalizers(&object.object).into_iter().map(str::to_owned));
            if meta::deletion_timestamp(&object.object).is_none() && (!pods || resource == PODS) {
                actions.push(Action::Delete {
                    resource,
                    namespace: name.to_owned(),
                    name: object.name.clone(),
                    options: json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}),
                    event: None,
                });
            }
        }
    }
    if remaining.is_empty() && unknown.is_empty() {
        let rest: Vec<&str> = pending.into_iter().filter(|f| *f != "kubernetes").collect();
        let mut object = namespace.clone();
        object["spec"]["finalizers"] = json!(rest);
        actions.push(Action::Update {
            resource: NAMESPACES,
            namespace: String::new(),
            name: name.to_owned(),
            subresource: "finalize",
            object,
        });
        return Ok(actions);
    }
    let conditions = conditions(namespace, &remaining, &finalizers, &unknown, now);
    if namespace["status"]["conditions"] != conditions {
        actions.push(Action::Patch {
            resource: NAMESPACES,
            namespace: String::new(),
            name: name.to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": {"conditions": conditions}}),
        });
    }
    actions.push(Action::Again(RECHECK));
    Ok(actions)
}

/// As upstream writes it here: with a dot at the end where the group is the core one.
fn qualified(resource: Resource) -> String {
    format!("{}.{}", resource.plural, resource.group)
}

/// What is wrong with resources whose objects cannot be told.
fn listing(unknown: &[String]) -> String {
    unknown.iter().map(|resource| format!("{resource} are not listed yet")).collect::<Vec<_>>().join(", ")
}

fn conditions(
    namespace: &Value,
    remaining: &[String],
    finalizers: &[String],
    unknown: &[String],
    now: Timestamp,
) -> Value {
    let old = namespace["status"]["conditions"].as_array();
    let make = |kind: &str, bad: bool, reasons: (&str, &str), message: String| {
        let status = if bad { "True" } else { "False" };
        let before = old.into_iter().flatten().find(|c| c["type"] == kind && c["status"] == status);
        let since = before
            .and_then(|b| b["lastTransitionTime"].as_str().map(str::to_owned))
            .unwrap_or_else(|| time::seconds(now));
        json!({"type": kind, "status": status, "reason": if bad { reasons.0 } else { reasons.1 }, "message": message, "lastTransitionTime": since})
    };
    let mut names: Vec<String> = finalizers.to_vec();
    names.sort_unstable();
    names.dedup();
    let counted: Vec<String> = names
        .iter()
        .map(|n| format!("{n} in {} resource instances", finalizers.iter().filter(|f| *f == n).count()))
        .collect();
    json!([
        make(
            "NamespaceDeletionDiscoveryFailure",
            false,
            ("", "ResourcesDiscovered"),
            "All resources successfully discovered".into()
        ),
        make(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("", "ParsedGroupVersions"),
            "All legacy kube types successfully parsed".into()
        ),
        make(
            "NamespaceDeletionContentFailure",
            !unknown.is_empty(),
            ("ContentDeletionFailed", "ContentDeleted"),
            if unknown.is_empty() {
                "All content successfully deleted, may be waiting on finalization".into()
            } else {
                format!("Failed to delete all resource types, {} remaining: {}", unknown.len(), listing(unknown))
            }
        ),
        make(
            "NamespaceContentRemaining",
            !remaining.is_empty(),
            ("SomeResourcesRemain", "ContentRemoved"),
            if remaining.is_empty() {
                "All content successfully removed".to_owned()
            } else {
                format!("Some resources are remaining: {}", remaining.join(", "))
            },
        ),
        make(
            "NamespaceFinalizersRemaining",
            !counted.is_empty(),
            ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
            if counted.is_empty() {
                "All content-preserving finalizers finished".to_owned()
            } else {
                format!("Some content in the namespace has finalizers remaining: {}", counted.join(", "))
            },
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn pods_go_before_the_rest_and_the_namespace_goes_last() {
        let namespace = json!({
            "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]},
        });
        let object = |name: &str| json!({"metadata": {"name": name, "namespace": "a"}});
        let config_maps = Resource { group: "", version: "v1", plural: "configmaps" };
        let both = Fixed::default().with(PODS, object("p")).with(config_maps, object("c"));
        let text = brief(&plan(&namespace, &both, now()).expect("a plan"));
        assert!(text.contains("delete pods p") && !text.contains("delete configmaps c"), "{text}");
        let one = Fixed::default().with(config_maps, object("c"));
        assert!(brief(&plan(&namespace, &one, now()).expect("a plan")).contains("delete configmaps c"));
        let text = brief(&plan(&namespace, &Fixed::default(), now()).expect("a plan"));
        assert!(text.starts_with("update namespaces a finalize"), "{text}");
    }

    #[test]
    fn custom_objects_go_too_and_what_is_not_known_of_them_is_waited_for() {
        let namespace = json!({
            "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]},
        });
        let widgets = Resource { group: "example.com", version: "v1", plural: "widgets" };
        let held = json!({"metadata": {"name": "w", "namespace": "a", "finalizers": ["example.com/f"]}});
        let mut one = Fixed::default().with(widgets, held);
        one.1.push((widgets, true));
        let text = brief(&plan(&namespace, &one, now()).expect("a plan"));
        assert!(text.contains("delete widgets w"), "{text}");
        assert!(text.contains("widgets.example.com has 1 resource instances"), "{text}");
        assert!(text.contains("example.com/f in 1 resource instances"), "{text}");
        let mut unlisted = Fixed::default();
        unlisted.1.push((widgets, false));
        let text = brief(&plan(&namespace, &unlisted, now()).expect("a plan"));
        assert!(
            !text.contains("update namespaces a finalize") && text.contains("widgets.example.com are not listed yet"),
            "{text}"
        );
    }
}
