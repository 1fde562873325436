//! What pods use of quotas: what their containers ask for together, as long as they are to run.

use std::collections::{BTreeMap, BTreeSet};

use object_model::{Quantity, meta, time};
use serde_json::Value;

use super::{Amounts, Traits, add, is_extended};
use crate::pod_template::qos_class;
use crate::{Now, walk};

/// What every container must ask for when a quota limits it (upstream's rule, which it calls a mistake).
const REQUIRED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Whether a quota's amount is one that pods use.
pub(super) fn counts(name: &str) -> bool {
    let bare = name.strip_prefix("requests.");
    name == "pods"
        || COMPUTE.contains(&bare.or(name.strip_prefix("limits.")).unwrap_or(name))
        || bare.unwrap_or(name).starts_with("hugepages-")
        || bare.is_some_and(is_extended)
}

/// Whether a pod is to run, or to end in time: one that has ended uses nothing but its place in the store.
pub(super) fn is_alive(pod: &Value, now: Now) -> bool {
    if matches!(walk::text(pod, "status.phase"), Some("Failed" | "Succeeded")) {
        return false;
    }
    let ends = meta::deletion_timestamp(pod).and_then(time::parse);
    let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
    // The grace period is added to the end of itself, which is what upstream does.
    match (ends, grace) {
        (Some(ends), Some(grace)) => ends.as_second().saturating_add(grace) >= now.0.as_second(),
        _ => true,
    }
}

pub(super) fn traits(pod: &Value) -> Traits {
    let spec = &pod["spec"];
    Traits::Pod {
        terminating: spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0),
        best_effort: walk::text(pod, "status.qosClass").unwrap_or_else(|| qos_class(spec)) == "BestEffort",
        crosses_namespaces: crosses_namespaces(&spec["affinity"]),
        priority_class: walk::text(pod, "spec.priorityClassName").unwrap_or_default().to_owned(),
    }
}

/// Whether an affinity looks at pods of other namespaces.
fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| !walk::list(term, "namespaces").is_empty() || term["namespaceSelector"].is_object();
    ["podAffinity", "podAntiAffinity"].into_iter().map(|field| &affinity[field]).any(|affinity| {
        walk::list(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || walk::list(affinity, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| crosses(&weighted["podAffinityTerm"]))
    })
}

/// What a living pod uses.
pub(super) fn amounts(pod: &Value) -> Amounts {
    let mut all = named(&total(pod, "requests"), &total(pod, "limits"));
    all.insert("pods".to_owned(), Quantity::whole(1));
    all
}

/// Requests and limits by the names that quotas know them by.
fn named(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut all = Amounts::new();
    for (name, amount) in requests {
        let compute = COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-");
        if compute {
            all.insert(name.clone(), amount.clone());
        }
        if compute || is_extended(name) {
            all.insert(format!("requests.{name}"), amount.clone());
        }
    }
    let limits = limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str()));
    all.extend(limits.map(|(name, amount)| (format!("limits.{name}"), amount.clone())));
    all
}

/// What the containers of a pod ask for together: those that run at the same time, or the most that one of those before
/// them needs beside the sidecars that are up by then.
fn total(pod: &Value, of: &str) -> Amounts {
    let spec = &pod["spec"];
    let mut total = Amounts::new();
    for container in walk::list(spec, "containers") {
        add(&mut total, &asked(pod, "containerStatuses", container, of));
    }
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in walk::list(spec, "initContainers") {
        let own = asked(pod, "initContainerStatuses", container, of);
        if container["restartPolicy"] == "Always" {
            add(&mut sidecars, &own);
            raise(&mut most, &sidecars);
        } else {
            let mut together = sidecars.clone();
            add(&mut together, &own);
            raise(&mut most, &together);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &most);
    // What the pod says as a whole stands for what its containers say.
    for (name, amount) in parsed(&spec["resources"][of]) {
        total.insert(name, amount);
    }
    let overhead = parsed(&spec["overhead"]).into_iter();
    let counted = overhead.filter(|(name, _)| of == "requests" || total.get(name).is_some_and(|sum| !sum.is_zero()));
    let counted: Amounts = counted.collect();
    add(&mut total, &counted);
    total
}

/// What a container asks for; of one that is being resized, what it has as well, where that is more.
fn asked(pod: &Value, statuses: &str, container: &Value, of: &str) -> Amounts {
    let mut asked = parsed(&container["resources"][of]);
    let mut statuses = walk::list(&pod["status"], statuses).iter();
    if let Some(status) = statuses.find(|status| status["name"] == container["name"]) {
        raise(&mut asked, &parsed(&status["resources"][of]));
        if of == "requests" {
            raise(&mut asked, &parsed(&status["allocatedResources"]));
        }
    }
    asked
}

fn parsed(map: &Value) -> Amounts {
    let parsed = meta::strings(map).into_iter();
    parsed.filter_map(|(name, text)| Some((name.to_owned(), text.parse().ok()?))).collect()
}

/// Raises amounts to those of another set where these are more.
fn raise(amounts: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        if amounts.get(name).is_none_or(|known| known < amount) {
            amounts.insert(name.clone(), amount.clone());
        }
    }
}

/// What containers must say and do not.
pub(super) fn unsaid(pod: &Value, counted: &[&str]) -> Option<String> {
    let spec = &pod["spec"];
    let as_a_whole = &spec["resources"];
    if ["requests", "limits"].iter().any(|of| as_a_whole[of].as_object().is_some_and(|map| !map.is_empty())) {
        return None;
    }
    let required = counted.iter().copied().filter(|name| REQUIRED.contains(name));
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in required {
        for container in walk::list(spec, "containers").iter().chain(walk::list(spec, "initContainers")) {
            let said = named(&parsed(&container["resources"]["requests"]), &parsed(&container["resources"]["limits"]));
            if !said.contains_key(name) {
                missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
            }
        }
    }
    let parts = missing.into_iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.into_iter().collect();
        format!("{name} for: {}", containers.join(","))
    });
    let text = parts.collect::<Vec<_>>().join("; ");
    (!text.is_empty()).then(|| format!("must specify {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(amounts: &Amounts) -> String {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_pod_uses_what_its_containers_ask_for_together() {
        let asks = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}});
        let mut sidecar = asks("100m");
        sidecar["restartPolicy"] = "Always".into();
        let mut pod =
            json!({"spec": {"containers": [asks("200m"), asks("300m")], "initContainers": [sidecar, asks("1")]}});
        assert_eq!(text(&amounts(&pod)), "cpu=1100m limits.cpu=6 pods=1 requests.cpu=1100m");
        pod["spec"]["overhead"] = json!({"cpu": "100m", "memory": "1Mi"});
        assert_eq!(
            text(&amounts(&pod)),
            "cpu=1200m limits.cpu=6100m memory=1Mi pods=1 requests.cpu=1200m requests.memory=1Mi"
        );
        let special = json!({"requests": {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}});
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": special}]}});
        assert_eq!(
            text(&amounts(&pod)),
            "hugepages-2Mi=4Mi pods=1 requests.example.com/gpu=2 requests.hugepages-2Mi=4Mi"
        );
        assert!(counts("requests.example.com/gpu") && !counts("example.com/gpu") && !counts("requests.storage"));
        assert!(counts("limits.ephemeral-storage") && counts("requests.hugepages-2Mi") && !counts("services"));
    }

    #[test]
    fn a_pod_that_has_ended_is_counted_as_an_object_alone() {
        let now = Now("2026-01-01T00:00:00Z".parse().expect("a time"));
        assert!(!is_alive(&json!({"status": {"phase": "Failed"}}), now));
        let leaving = |grace: i64| json!({"metadata": {"deletionTimestamp": "2025-12-31T23:59:50Z", "deletionGracePeriodSeconds": grace}});
        assert!(is_alive(&leaving(30), now) && !is_alive(&leaving(5), now));
    }

    #[test]
    fn what_is_limited_must_be_said_by_every_container() {
        let pod = json!({"spec": {"containers": [
            {"name": "b"}, {"name": "a", "resources": {"limits": {"memory": "1Gi"}}},
        ]}});
        assert_eq!(
            unsaid(&pod, &["limits.cpu", "limits.memory", "pods", "limits.ephemeral-storage"]).as_deref(),
            Some("must specify limits.cpu for: a,b; limits.memory for: b")
        );
        assert_eq!(unsaid(&pod, &["pods"]), None);
    }
}
