//! A Service of type LoadBalancer gets the addresses of the nodes, unless another one has its ports there already.

use std::collections::BTreeSet;

use client::Patch;
use object_model::meta;
use serde_json::{Value, json};

use crate::{Action, Controller, ENDPOINT_SLICES, INGRESSES, Key, NODES, Note, Objects, Read, SERVICES, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "service-lb-controller",
    subject: SERVICES,
    reads: &[
        Read { resource: SERVICES, wakes: rivals },
        Read { resource: NODES, wakes: all },
        Read { resource: ENDPOINT_SLICES, wakes: pending },
        Read { resource: INGRESSES, wakes: all },
    ],
    writes: &[Writes::Status],
    plan,
};

/// Whether this controller provides for the Service: one with a class is for somebody else.
fn is_ours(service: &Value) -> bool {
    service["spec"]["type"] == "LoadBalancer" && service["spec"]["loadBalancerClass"].is_null()
}

fn has_address(service: &Value) -> bool {
    service["status"]["loadBalancer"]["ingress"].as_array().is_some_and(|list| !list.is_empty())
}

fn key(service: &crate::Object) -> Key {
    (service.namespace.clone(), service.name.clone())
}

/// Ports and protocols of a Service.
fn ports(service: &Value) -> BTreeSet<(i64, &str)> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    ports.map(|port| (port["port"].as_i64().unwrap_or(0), port["protocol"].as_str().unwrap_or("TCP"))).collect()
}

fn all(_: &Value, objects: &dyn Objects) -> Vec<Key> {
    let services = objects.list(SERVICES, "");
    services.iter().filter(|s| is_ours(&s.object) || has_address(&s.object)).map(key).collect()
}

/// Those that wait for ports which an endpoint on a node has had.
fn pending(slice: &Value, objects: &dyn Objects) -> Vec<Key> {
    let numbers: Vec<i64> =
        slice["ports"].as_array().into_iter().flatten().filter_map(|port| port["port"].as_i64()).collect();
    let services = objects.list(SERVICES, "");
    let concerned = services.iter().filter(|s| {
        is_ours(&s.object) && !has_address(&s.object) && ports(&s.object).iter().any(|(n, _)| numbers.contains(n))
    });
    concerned.map(key).collect()
}

/// Those that want a port of this one.
fn rivals(service: &Value, objects: &dyn Objects) -> Vec<Key> {
    if !is_ours(service) {
        return Vec::new();
    }
    let wanted = ports(service);
    let services = objects.list(SERVICES, "");
    let rivals = services.iter().filter(|s| {
        is_ours(&s.object)
            && !has_address(&s.object)
            && s.uid != meta::uid(service)
            && !wanted.is_disjoint(&ports(&s.object))
    });
    rivals.map(key).collect()
}

/// The addresses at which nodes are reached: those of outside if there are any.
fn addresses(objects: &dyn Objects) -> BTreeSet<String> {
    let nodes = objects.list(NODES, "");
    let of = |kind: &str| -> BTreeSet<String> {
        let all = nodes.iter().flat_map(|node| node.object["status"]["addresses"].as_array().into_iter().flatten());
        all.filter(|a| a["type"] == kind).filter_map(|a| a["address"].as_str().map(str::to_owned)).collect()
    };
    let outside = of("ExternalIP");
    if outside.is_empty() { of("InternalIP") } else { outside }
}

/// Who has one of the ports already, if anybody.
fn taken(service: &Value, addresses: &BTreeSet<String>, objects: &dyn Objects) -> Option<String> {
    let wanted = ports(service);
    let age = |s: &Value| {
        (s["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(), meta::uid(s).to_owned())
    };
    for other in objects.list(SERVICES, "") {
        if !is_ours(&other.object) || other.uid == meta::uid(service) {
            continue;
        }
        // Who has an address keeps it; of those that have, or have not, the elder goes first.
        let rank = |s: &Value| (!has_address(s), age(s));
        let theirs = ports(&other.object);
        if let Some((number, protocol)) = wanted.intersection(&theirs).next()
            && rank(&other.object) < rank(service)
        {
            return Some(format!("port {number}/{protocol} is used by service {}/{}", other.namespace, other.name));
        }
    }
    // Ingresses, where they tell their ports: those of this cluster's own server do.
    for ingress in objects.list(INGRESSES, "").iter().filter(|_| !has_address(service)) {
        let given = ingress.object["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let on_node = given.filter(|one| one["ip"].as_str().is_some_and(|ip| addresses.contains(ip)));
        let mut ports = on_node.flat_map(|one| one["ports"].as_array().into_iter().flatten());
        let number = ports.find_map(|port| port["port"].as_i64().filter(|number| wanted.contains(&(*number, "TCP"))));
        if let Some(number) = number {
            return Some(format!("port {number}/TCP is used by ingress {}/{}", ingress.namespace, ingress.name));
        }
    }
    // Servers that share the node's network: the API, and pods with hostNetwork.
    for slice in objects.list(ENDPOINT_SLICES, "") {
        let mut endpoints = slice.object["endpoints"].as_array().into_iter().flatten();
        let on_node =
            endpoints.any(|endpoint| endpoint["addresses"][0].as_str().is_some_and(|a| addresses.contains(a)));
        let mut ports = slice.object["ports"].as_array().into_iter().flatten();
        let port = ports.find_map(|port| {
            let key = (port["port"].as_i64()?, port["protocol"].as_str()?);
            wanted.contains(&key).then_some(key)
        });
        if let Some((number, protocol)) = port.filter(|_| on_node) {
            let name = slice.object["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or(&slice.name);
            return Some(format!("port {number}/{protocol} of the node is used by {}/{name}", slice.namespace));
        }
    }
    None
}

fn plan(service: &Value, objects: &dyn Objects, _now: jiff::Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(service).is_some() || (!is_ours(service) && !has_address(service)) {
        return Ok(Vec::new());
    }
    if service["spec"]["type"] == "LoadBalancer" && !is_ours(service) {
        return Ok(Vec::new());
    }
    let mut note = None;
    let mut wanted = json!([]);
    if is_ours(service) {
        let addresses = addresses(objects);
        match taken(service, &addresses, objects) {
            Some(why) => {
                let message = format!("Error syncing load balancer: {why}");
                note = Some(Note::warning(service, "SyncLoadBalancerFailed", message));
            }
            None => {
                wanted = addresses.iter().map(|address| json!({"ip": address, "ipMode": "VIP"})).collect();
                note = Some(Note::normal(service, "EnsuredLoadBalancer", "Ensured load balancer"));
            }
        }
    }
    let current = service["status"]["loadBalancer"]["ingress"].as_array();
    let same = current.map_or(&[][..], Vec::as_slice) == wanted.as_array().map_or(&[][..], Vec::as_slice);
    let mut actions = Vec::new();
    if !same {
        let ingress = if wanted == json!([]) { Value::Null } else { wanted };
        actions.push(Action::Patch {
            resource: SERVICES,
            namespace: meta::namespace(service).to_owned(),
            name: meta::name(service).to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": {"loadBalancer": {"ingress": ingress}}}),
        });
    }
    // Trouble is told at each look, and counted in one event; success once.
    actions.extend(note.filter(|note| !same || note.kind == client::EventType::Warning).map(Action::Event));
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    fn service(name: &str, created: &str, port: i64) -> Value {
        json!({"metadata": {"name": name, "namespace": "d", "uid": name, "creationTimestamp": created},
            "spec": {"type": "LoadBalancer", "ports": [{"port": port, "protocol": "TCP"}]}, "status": {"loadBalancer": {}}})
    }

    #[test]
    fn the_first_gets_the_nodes_address_and_the_second_waits() {
        let node = json!({"metadata": {"name": "n"}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}});
        let (first, second) = (service("a", "2026-01-01T00:00:00Z", 80), service("b", "2026-01-02T00:00:00Z", 80));
        let objects = Fixed::default().with(NODES, node).with(SERVICES, first.clone()).with(SERVICES, second.clone());
        let said = |service: &Value| brief(&plan(service, &objects, now()).expect("a plan"));
        assert_eq!(
            said(&first),
            "patch services a status {\"status\":{\"loadBalancer\":{\"ingress\":[{\"ip\":\"192.0.2.1\",\"ipMode\":\"VIP\"}]}}}\n\
             event EnsuredLoadBalancer Ensured load balancer\n"
        );
        assert_eq!(
            said(&second),
            "event SyncLoadBalancerFailed Error syncing load balancer: port 80/TCP is used by service d/a\n"
        );
        assert_eq!(rivals(&first, &objects), [("d".to_owned(), "b".to_owned())]);
        let mut back = first;
        back["status"]["loadBalancer"]["ingress"] = json!([{"ip": "192.0.2.1", "ipMode": "VIP"}]);
        assert_eq!(said(&back), "");
        back["spec"]["type"] = "ClusterIP".into();
        assert_eq!(said(&back), "patch services a status {\"status\":{\"loadBalancer\":{\"ingress\":null}}}\n");
    }
}
