//! What objects use of quotas: which amounts are counted for an object, and which quotas count it.

mod pods;

use std::collections::BTreeMap;

use object_model::{Quantity, meta};
use serde_json::Value;

use crate::{Now, rules, walk};

/// Amounts by the names that quotas know them by.
pub type Amounts = BTreeMap<String, Quantity>;

/// Objects that are counted under their plain name as well (upstream's legacy aliases).
const PLAIN: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// What claims of a storage class are counted under.
const BY_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";
/// What devices of a class are counted under.
const BY_DEVICE_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// How many devices a request for all of them may come to (upstream's limit of one allocation).
const ALL_DEVICES: i64 = 32;

/// What one object uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// How much of what.
    pub amounts: Amounts,
    traits: Traits,
}

/// What scopes ask of an object.
#[derive(Debug, Clone, Default, PartialEq)]
enum Traits {
    #[default]
    None,
    Pod {
        terminating: bool,
        best_effort: bool,
        crosses_namespaces: bool,
        priority_class: String,
    },
    Claim {
        attributes_class: String,
    },
}

/// The name under which objects of any resource are counted.
pub fn count_of(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Whether objects of a resource are counted at all: events come and go as they like.
pub fn is_counted(group: &str, plural: &str) -> bool {
    plural != "events" || !matches!(group, "" | "events.k8s.io")
}

/// Whether all objects of a resource use the same: one of their kind.
pub fn is_plain(group: &str, plural: &str) -> bool {
    !matches!(
        (group, plural),
        ("", "pods" | "services" | "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims")
    )
}

/// Whether a change of an object of a resource may raise what it uses; `subresource` is that of the change.
pub fn may_grow(group: &str, plural: &str, subresource: &str) -> bool {
    match (group, plural) {
        ("", "pods") => subresource == "resize",
        ("", "services" | "persistentvolumeclaims") | ("resource.k8s.io", "resourceclaims") => subresource.is_empty(),
        _ => false,
    }
}

/// What an object of a resource uses.
pub fn usage(group: &str, plural: &str, object: &Value, now: Now) -> Usage {
    let one = || Quantity::whole(1);
    let mut amounts = Amounts::from([(count_of(group, plural), one())]);
    let mut traits = Traits::None;
    match (group, plural) {
        ("", "pods") => {
            traits = pods::traits(object);
            if pods::is_alive(object, now) {
                amounts.extend(pods::amounts(object));
            }
        }
        ("", "services") => services(&mut amounts, object),
        ("", "persistentvolumeclaims") => {
            let class = walk::text(object, "spec.volumeAttributesClassName").unwrap_or_default();
            traits = Traits::Claim { attributes_class: class.to_owned() };
            claims(&mut amounts, object);
        }
        ("resource.k8s.io", "resourceclaims") => devices(&mut amounts, object),
        ("", plural) if PLAIN.contains(&plural) => _ = amounts.insert(plural.to_owned(), one()),
        _ => {}
    }
    Usage { amounts, traits }
}

/// Which of the amounts that a quota limits are counted for objects of a resource.
pub fn counted_of<'q>(group: &str, plural: &str, hard: &'q Value) -> Vec<&'q str> {
    let count = count_of(group, plural);
    let counted = |name: &&str| {
        *name == count
            || match (group, plural) {
                ("", "pods") => pods::counts(name),
                ("", "services") => matches!(*name, "services" | "services.nodeports" | "services.loadbalancers"),
                ("", "persistentvolumeclaims") => {
                    matches!(*name, "persistentvolumeclaims" | "requests.storage") || name.contains(BY_STORAGE_CLASS)
                }
                ("resource.k8s.io", "resourceclaims") => name.ends_with(BY_DEVICE_CLASS),
                ("", plural) => PLAIN.contains(&plural) && *name == plural,
                _ => false,
            }
    };
    meta::strings(hard).into_keys().filter(counted).collect()
}

/// What containers of a pod must say because of what a quota limits, and do not: `limits.cpu for: a,b; …`.
pub fn unsaid(group: &str, plural: &str, object: &Value, counted: &[&str]) -> Option<String> {
    if (group, plural) == ("", "pods") { pods::unsaid(object, counted) } else { None }
}

impl Usage {
    /// Whether an object that uses this is within all scopes of a quota.
    pub fn is_in_scope(&self, quota: &Value) -> bool {
        let scopes = walk::list(quota, "spec.scopes").iter().filter_map(Value::as_str);
        let mut requirements = walk::list(quota, "spec.scopeSelector.matchExpressions").iter();
        scopes.into_iter().all(|scope| self.is_within(scope, "Exists", &[]))
            && requirements.all(|one| {
                let text = |field: &str| one[field].as_str().unwrap_or_default();
                self.is_within(text("scopeName"), text("operator"), walk::list(one, "values"))
            })
    }

    fn is_within(&self, scope: &str, operator: &str, values: &[Value]) -> bool {
        match (&self.traits, scope) {
            (Traits::Pod { terminating, .. }, "Terminating") => *terminating,
            (Traits::Pod { terminating, .. }, "NotTerminating") => !terminating,
            (Traits::Pod { best_effort, .. }, "BestEffort") => *best_effort,
            (Traits::Pod { best_effort, .. }, "NotBestEffort") => !best_effort,
            (Traits::Pod { crosses_namespaces, .. }, "CrossNamespacePodAffinity") => *crosses_namespaces,
            (Traits::Pod { priority_class: class, .. }, "PriorityClass")
            | (Traits::Claim { attributes_class: class }, "VolumeAttributesClass") => match operator {
                "Exists" => !class.is_empty(),
                "DoesNotExist" => class.is_empty(),
                "In" => values.iter().any(|value| value == class && !class.is_empty()),
                "NotIn" => values.iter().all(|value| value != class),
                _ => false,
            },
            _ => false,
        }
    }
}

/// Adds amounts.
pub fn add(sums: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = sums.get(name).map_or_else(|| amount.clone(), |sum| sum.plus(amount));
        sums.insert(name.clone(), sum);
    }
}

fn services(amounts: &mut Amounts, service: &Value) {
    amounts.insert("services".to_owned(), Quantity::whole(1));
    let ports = walk::list(service, "spec.ports");
    let all = i64::try_from(ports.len()).unwrap_or(i64::MAX);
    let (nodes, balancers) = match walk::text(service, "spec.type") {
        Some("NodePort") => (all, 0),
        Some("LoadBalancer") if service["spec"]["allocateLoadBalancerNodePorts"] == false => {
            let named = ports.iter().filter(|port| port["nodePort"].as_i64().unwrap_or(0) != 0).count();
            (i64::try_from(named).unwrap_or(i64::MAX), 1)
        }
        Some("LoadBalancer") => (all, 1),
        _ => (0, 0),
    };
    amounts.insert("services.nodeports".to_owned(), Quantity::whole(nodes));
    amounts.insert("services.loadbalancers".to_owned(), Quantity::whole(balancers));
}

fn claims(amounts: &mut Amounts, claim: &Value) {
    let class = walk::text(claim, "spec.storageClassName")
        .or_else(|| meta::annotations(claim).get("volume.beta.kubernetes.io/storage-class").copied())
        .filter(|class| !class.is_empty());
    let one = Quantity::whole(1);
    amounts.insert("persistentvolumeclaims".to_owned(), one.clone());
    if let Some(class) = class {
        amounts.insert(format!("{class}{BY_STORAGE_CLASS}persistentvolumeclaims"), one);
    }
    let amount = |place: &Value| place["storage"].as_str().and_then(|text| text.parse::<Quantity>().ok());
    let asked = amount(&claim["spec"]["resources"]["requests"]);
    // What is being grown to counts until it is known that it cannot be.
    let given = amount(&claim["status"]["allocatedResources"]);
    let Some(storage) = asked.into_iter().chain(given).reduce(|a, b| if b > a { b } else { a }) else { return };
    if let Some(class) = class {
        amounts.insert(format!("{class}{BY_STORAGE_CLASS}requests.storage"), storage.clone());
    }
    amounts.insert("requests.storage".to_owned(), storage);
}

fn devices(amounts: &mut Amounts, claim: &Value) {
    let count = |request: &Value| match request["allocationMode"].as_str() {
        Some("All") => ALL_DEVICES,
        _ => request["count"].as_i64().unwrap_or(1),
    };
    for request in walk::list(claim, "spec.devices.requests") {
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        // Of alternatives the one that takes most of a class counts.
        let alternatives = walk::list(request, "firstAvailable");
        for one in walk::at(request, "exactly").into_iter().chain(alternatives) {
            let entry = most.entry(one["deviceClassName"].as_str().unwrap_or_default()).or_default();
            *entry = count(one).max(*entry);
        }
        let most = most.into_iter().filter(|(class, _)| !class.is_empty());
        add(
            amounts,
            &most.map(|(class, count)| (format!("{class}{BY_DEVICE_CLASS}"), Quantity::whole(count))).collect(),
        );
    }
}

/// Whether a name is that of something that nodes have beside what all of them have.
fn is_extended(name: &str) -> bool {
    rules::is_extended_resource(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used(plural: &str, object: Value) -> String {
        let now = Now("2026-01-01T00:00:00Z".parse().expect("a time"));
        let usage = usage("", plural, &object, now);
        let parts = usage.amounts.iter().filter(|(_, amount)| !amount.is_zero());
        parts.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn objects_of_any_kind_are_counted_under_their_full_name() {
        assert_eq!(used("configmaps", json!({})), "configmaps=1 count/configmaps=1");
        assert_eq!(count_of("apps", "deployments"), "count/deployments.apps");
        let hard = json!({"count/configmaps": "1", "configmaps": "1", "pods": "1"});
        assert_eq!(counted_of("", "configmaps", &hard), ["configmaps", "count/configmaps"]);
        assert!(!is_counted("", "events"));
    }

    #[test]
    fn services_use_the_ports_and_balancers_that_they_are_given() {
        let service = |spec: Value| used("services", json!({"spec": spec}));
        let ports = json!([{"port": 1}, {"port": 2, "nodePort": 30000}]);
        assert_eq!(service(json!({"type": "ClusterIP", "ports": ports})), "count/services=1 services=1");
        assert!(service(json!({"type": "NodePort", "ports": ports})).ends_with("services.nodeports=2"));
        let balanced = service(json!({"type": "LoadBalancer", "ports": ports}));
        assert!(balanced.ends_with("services.loadbalancers=1 services.nodeports=2"), "{balanced}");
        let spared = service(json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}));
        assert!(spared.ends_with("services.nodeports=1"), "{spared}");
    }

    #[test]
    fn claims_use_storage_by_class_too() {
        let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            used("persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
             gold.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi"
        );
    }

    #[test]
    fn scopes_select_what_is_counted() {
        let now = Now("2026-01-01T00:00:00Z".parse().expect("a time"));
        let usage = |spec: Value| usage("", "pods", &json!({"spec": spec}), now);
        let plain = usage(json!({"containers": [{"name": "a"}]}));
        let is_in = |usage: &Usage, scope: &str| usage.is_in_scope(&json!({"spec": {"scopes": [scope]}}));
        assert!(is_in(&plain, "BestEffort") && is_in(&plain, "NotTerminating") && !is_in(&plain, "Terminating"));
        let busy = usage(json!({
            "activeDeadlineSeconds": 5, "priorityClassName": "high",
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
        }));
        assert!(is_in(&busy, "Terminating") && is_in(&busy, "NotBestEffort") && is_in(&busy, "PriorityClass"));
        let selects = |operator: &str, values: Value| {
            let one = json!({"scopeName": "PriorityClass", "operator": operator, "values": values});
            busy.is_in_scope(&json!({"spec": {"scopeSelector": {"matchExpressions": [one]}}}))
        };
        assert!(
            selects("In", json!(["high"])) && !selects("NotIn", json!(["high"])) && !selects("DoesNotExist", json!([]))
        );
        assert!(!is_in(&super::usage("", "configmaps", &json!({}), now), "NotBestEffort"));
    }
}
