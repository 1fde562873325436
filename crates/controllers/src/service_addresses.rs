//! The objects of addresses of Services. The API server makes them and takes them away; what a crash or somebody's hand left
//! amiss is repaired here.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use client::Resource;
use jiff::Timestamp;
use kinds::{ADDRESS_ALLOCATOR, MANAGED_BY, Network};
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::service_cidr::RANGES;
use crate::{Action, Controller, Key, Note, Objects, Read, SERVICES, Writes};

pub(crate) const ADDRESSES: Resource = Resource { group: "networking.k8s.io", version: "v1", plural: "ipaddresses" };

pub(crate) const KEEPER: Controller = Controller {
    name: "ipallocator-repair-controller",
    subject: SERVICES,
    reads: &[Read { resource: ADDRESSES, wakes: service_of }, Read { resource: RANGES, wakes: |_, _| Vec::new() }],
    writes: &[Writes::Shared { resource: ADDRESSES, because: "it makes those of Services that are missing" }],
    plan: keep,
};

pub(crate) const CLEANER: Controller = Controller {
    name: "ipallocator-cleanup-controller",
    subject: ADDRESSES,
    reads: &[Read { resource: SERVICES, wakes: addresses_of }],
    writes: &[Writes::Shared { resource: ADDRESSES, because: "it deletes those of Services that are gone" }],
    plan: clean,
};

/// How long the server has for its own work before that counts as forgotten (upstream's time for what is left over).
const PATIENCE: i64 = 60;

fn service_of(address: &Value, _objects: &dyn Objects) -> Vec<Key> {
    let parent = &address["spec"]["parentRef"];
    let text = |field: &str| parent[field].as_str().unwrap_or_default().to_owned();
    if parent["resource"] == "services" { vec![(text("namespace"), text("name"))] } else { Vec::new() }
}

fn addresses_of(service: &Value, _objects: &dyn Objects) -> Vec<Key> {
    addresses(service).map(|address| (String::new(), address.to_string())).collect()
}

/// The addresses of version 4 that a Service has been given.
fn addresses(service: &Value) -> impl Iterator<Item = Ipv4Addr> {
    service["spec"]["clusterIPs"].as_array().into_iter().flatten().filter_map(|text| text.as_str()?.parse().ok())
}

/// How long an object still counts as new, in seconds.
fn is_new_for(object: &Value, now: Timestamp) -> i64 {
    let since = object["metadata"]["creationTimestamp"].as_str().and_then(time::parse);
    since.map_or(0, |since| since.as_second() + PATIENCE - now.as_second())
}

fn keep(service: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let (namespace, name) = (meta::namespace(service), meta::name(service));
    let mut actions = Vec::new();
    for address in addresses(service) {
        let text = address.to_string();
        let tell = |reason, what: &str| Note::warning(service, reason, format!("Cluster IP [IPv4]: {text} {what}"));
        let ranges = objects.list(RANGES, "");
        let mut networks = ranges.iter().flat_map(|range| range.object["spec"]["cidrs"].as_array()).flatten();
        let inside = |text: &Value| Network::parse(text.as_str()?).map(|one| one.contains(IpAddr::V4(address)));
        if !ranges.is_empty() && !networks.any(|text| inside(text) == Some(true)) {
            let what = "is not within any configured Service CIDR; please recreate service";
            actions.push(Action::Event(tell("ClusterIPOutOfRange", what)));
            continue;
        }
        let Some(found) = objects.get(ADDRESSES, "", &text) else {
            let left = is_new_for(service, now);
            if left > 0 {
                actions.push(Action::Again(Duration::from_secs(left.unsigned_abs())));
                continue;
            }
            let object = json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
                "metadata": {"name": text, "labels": {
                    MANAGED_BY: ADDRESS_ALLOCATOR, "ipaddress.kubernetes.io/ip-family": "IPv4",
                }},
                "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
            });
            actions.push(Action::Create {
                resource: ADDRESSES,
                namespace: String::new(),
                object,
                event: Some(tell("ClusterIPNotAllocated", "is not allocated; repairing")),
            });
            continue;
        };
        let parent = &found.object["spec"]["parentRef"];
        if parent["resource"] != "services" || parent["namespace"] != namespace || parent["name"] != name {
            let other = objects.get(
                SERVICES,
                parent["namespace"].as_str().unwrap_or_default(),
                parent["name"].as_str().unwrap_or_default(),
            );
            if other.is_some_and(|other| addresses(&other.object).any(|one| one == address)) {
                let what = "was assigned to multiple services; please recreate service";
                actions.push(Action::Event(tell("ClusterIPAlreadyAllocated", what)));
            }
        }
    }
    Ok(actions)
}

fn clean(address: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let ours = meta::labels(address).get(MANAGED_BY).is_some_and(|by| *by == ADDRESS_ALLOCATOR);
    if !ours || meta::deletion_timestamp(address).is_some() {
        return Ok(Vec::new());
    }
    let parent = &address["spec"]["parentRef"];
    let text = |field: &str| parent[field].as_str().unwrap_or_default();
    let service = objects.get(SERVICES, text("namespace"), text("name")).filter(|_| parent["resource"] == "services");
    let (reason, why) = match service {
        Some(service) if addresses(&service.object).any(|one| one.to_string() == meta::name(address)) => {
            return Ok(Vec::new());
        }
        Some(_) => ("IPAddressWrongReference", "has a wrong reference; cleaning up"),
        None => ("IPAddressNotAllocated", "appears to have leaked: cleaning up"),
    };
    let left = is_new_for(address, now);
    if left > 0 {
        return Ok(vec![Action::Again(Duration::from_secs(left.unsigned_abs()))]);
    }
    let message =
        format!("IPAddress: {} for Service {}/{} {why}", meta::name(address), text("namespace"), text("name"));
    Ok(vec![Action::Delete {
        resource: ADDRESSES,
        namespace: String::new(),
        name: meta::name(address).to_owned(),
        options: json!({
            "kind": "DeleteOptions", "apiVersion": "v1",
            "preconditions": {"uid": meta::uid(address), "resourceVersion": meta::resource_version(address)},
        }),
        event: Some(Note::warning(address, reason, message)),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    const OLD: &str = "2025-12-31T23:00:00Z";
    const NEW: &str = "2025-12-31T23:59:30Z";

    fn service(name: &str, address: &str, since: &str) -> Value {
        json!({
            "metadata": {"namespace": "d", "name": name, "creationTimestamp": since},
            "spec": {"clusterIP": address, "clusterIPs": [address]},
        })
    }

    fn address(name: &str, service: &str, since: &str) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": since, "labels": {MANAGED_BY: ADDRESS_ALLOCATOR}},
            "spec": {"parentRef": {"resource": "services", "namespace": "d", "name": service}},
        })
    }

    fn range() -> Value {
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.0.0.0/24"]}})
    }

    #[test]
    fn an_address_that_is_missing_is_made_when_the_server_has_had_its_time() {
        let objects = || Fixed::default().with(RANGES, range());
        let said = |service: &Value, objects: Fixed| brief(&keep(service, &objects, now()).expect("a plan"));
        assert_eq!(said(&service("a", "10.0.0.9", NEW), objects()), "again in 30s\n");
        assert!(said(&service("a", "10.0.0.9", OLD), objects()).starts_with("create ipaddresses 10.0.0.9"));
        assert_eq!(said(&service("a", "None", OLD), objects()), "");
        let there = || objects().with(ADDRESSES, address("10.0.0.9", "a", OLD));
        assert_eq!(said(&service("a", "10.0.0.9", OLD), there()), "");
        let shared = there().with(SERVICES, service("a", "10.0.0.9", OLD));
        assert!(said(&service("b", "10.0.0.9", OLD), shared).starts_with("event ClusterIPAlreadyAllocated"));
        assert!(said(&service("b", "10.9.0.9", OLD), objects()).starts_with("event ClusterIPOutOfRange"));
    }

    #[test]
    fn an_address_goes_when_its_service_has_gone_or_has_another() {
        let said = |objects: Fixed, since: &str| {
            brief(&clean(&address("10.0.0.9", "a", since), &objects, now()).expect("a plan"))
        };
        let gone = "delete ipaddresses 10.0.0.9\n";
        assert_eq!(said(Fixed::default(), OLD), gone);
        assert_eq!(said(Fixed::default(), NEW), "again in 30s\n");
        assert_eq!(said(Fixed::default().with(SERVICES, service("a", "10.0.0.8", OLD)), OLD), gone);
        assert_eq!(said(Fixed::default().with(SERVICES, service("a", "10.0.0.9", OLD)), OLD), "");
        let mut foreign = address("10.0.0.9", "a", OLD);
        foreign["metadata"]["labels"] = json!({});
        assert_eq!(clean(&foreign, &Fixed::default(), now()).expect("a plan"), []);
    }
}
