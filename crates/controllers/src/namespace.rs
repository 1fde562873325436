//! Namespaces that are being deleted are emptied, and say what they wait for.

use std::time::Duration;

use client::{Patch, Resource};
use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::aggregated::versions;
use crate::api_registration::API_SERVICES;
use crate::runner::NAMESPACED;
use crate::{Action, Controller, NAMESPACES, Objects, PODS, Read, Swept, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    subject: NAMESPACES,
    reads: &[Read { resource: API_SERVICES, wakes: |_, _| Vec::new() }],
    writes: &[
        Writes::Status,
        Writes::Shared { resource: NAMESPACES, because: "the finalizer in its spec is this controller's" },
        Writes::Anything { because: "a namespace that is deleted takes all it holds with it" },
    ],
    plan,
};

/// How long to wait before looking whether what was deleted has gone.
const RECHECK: Duration = Duration::from_millis(100);
/// The same, where somebody else has to answer for that.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

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
    let mut trouble = Trouble {
        failed: unknown.iter().map(|resource| format!("{resource} are not listed yet")).collect(),
        undiscovered: Vec::new(),
    };
    let waits_for_us = !remaining.is_empty() || !unknown.is_empty();
    let mut waits = waits_for_us;
    for held in versions(objects) {
        let version = format!("{}/{}", held.group, held.version);
        let found = objects.swept(meta::uid(namespace), &version);
        if !held.available {
            trouble.undiscovered.push(format!("{version}: stale GroupVersion discovery: {version}"));
            continue;
        }
        match found {
            Some(Swept::Left(left, _)) if left.is_empty() => continue,
            Some(Swept::Left(left, of)) => {
                remaining
                    .extend(left.iter().map(|(resource, count)| format!("{resource} has {count} resource instances")));
                finalizers.extend(of);
            }
            Some(Swept::Unknown(why)) => trouble.undiscovered.push(format!("{version}: {why}")),
            Some(Swept::Failed(all)) => {
                trouble.failed.extend(all.iter().map(|(resource, why)| format!("{resource}: {why}")));
            }
            None => {}
        }
        waits = true;
        if !pods {
            actions.push(Action::Sweep {
                group: held.group,
                version: held.version,
                namespace: name.to_owned(),
                uid: meta::uid(namespace).to_owned(),
            });
        }
    }
    if !waits && trouble.undiscovered.is_empty() {
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
    let conditions = conditions(namespace, &remaining, &finalizers, &trouble, now);
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
    let never_swept = actions.iter().any(|action| match action {
        Action::Sweep { group, version, uid, .. } => objects.swept(uid, &format!("{group}/{version}")).is_none(),
        _ => false,
    });
    actions.push(Action::Again(if waits_for_us || never_swept { RECHECK } else { SWEEP_AGAIN }));
    Ok(actions)
}

/// As upstream writes it here: with a dot at the end where the group is the core one.
fn qualified(resource: Resource) -> String {
    format!("{}.{}", resource.plural, resource.group)
}

/// What keeps a namespace from being emptied.
struct Trouble {
    /// What could not be deleted, and why.
    failed: Vec<String>,
    /// Of whose resources nothing can be told, and why.
    undiscovered: Vec<String>,
}

fn conditions(
    namespace: &Value,
    remaining: &[String],
    finalizers: &[String],
    trouble: &Trouble,
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
            !trouble.undiscovered.is_empty(),
            ("DiscoveryFailed", "ResourcesDiscovered"),
            if trouble.undiscovered.is_empty() {
                "All resources successfully discovered".into()
            } else {
                format!(
                    "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
                    trouble.undiscovered.len(),
                    trouble.undiscovered.join(", ")
                )
            }
        ),
        make(
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("", "ParsedGroupVersions"),
            "All legacy kube types successfully parsed".into()
        ),
        make(
            "NamespaceDeletionContentFailure",
            !trouble.failed.is_empty(),
            ("ContentDeletionFailed", "ContentDeleted"),
            if trouble.failed.is_empty() {
                "All content successfully deleted, may be waiting on finalization".into()
            } else {
                let count = trouble.failed.len();
                format!("Failed to delete all resource types, {count} remaining: {}", trouble.failed.join(", "))
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
    fn aggregated_apis_are_swept_and_those_that_do_not_answer_are_waited_for() {
        let namespace = json!({
            "metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes"]},
        });
        let service = |available: &str| {
            json!({
                "metadata": {"name": "v1.e"}, "spec": {"group": "e", "version": "v1", "service": {"name": "s"}},
                "status": {"conditions": [{"type": "Available", "status": available}]},
            })
        };
        let said = |available: &str, swept: Option<Swept>| {
            let mut objects = Fixed::default().with(API_SERVICES, service(available));
            objects.2.extend(swept.map(|swept| ("e/v1".to_owned(), swept)));
            brief(&plan(&namespace, &objects, now()).expect("a plan"))
        };
        let first = said("True", None);
        assert!(first.starts_with("sweep e/v1 a\n") && first.ends_with("again in 0s\n"), "{first}");
        let left = said("True", Some(Swept::Left(vec![("pies.e".into(), 2)], vec!["e/f".into()])));
        assert!(left.starts_with("sweep e/v1 a\n") && left.ends_with("again in 1s\n"), "{left}");
        assert!(
            left.contains("pies.e has 2 resource instances") && left.contains("e/f in 1 resource instances"),
            "{left}"
        );
        let failed = said("True", Some(Swept::Failed(vec![("pies.e".into(), "no".into())])));
        assert!(failed.contains("Failed to delete all resource types, 1 remaining: pies.e: no"), "{failed}");
        let gone = said("True", Some(Swept::Left(Vec::new(), Vec::new())));
        assert!(gone.starts_with("update namespaces a finalize"), "{gone}");
        let silent = said("False", None);
        assert!(silent.contains(r#""reason":"DiscoveryFailed","status":"True""#), "{silent}");
        assert!(silent.contains("e/v1: stale GroupVersion discovery: e/v1") && !silent.contains("sweep"), "{silent}");
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
