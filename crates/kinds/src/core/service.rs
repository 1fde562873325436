//! Service: one name and one address for a changing set of pods.

use object_model::{FieldError, FieldPath};
use serde_json::{Map, Value, json};

use super::{service_cells, service_rules};
use crate::{ALL_VERBS, Claim, Column, Kind, Now, Pool, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Service",
    plural: "services",
    singular: "service",
    short_names: &["svc"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource::proxy("ServiceProxyOptions"), Subresource::status("", "Service")],
    type_name: "core.v1.Service",
    storage: "services",
    has_status: true,
    has_generation: false,
    create_by_update: true,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &["spec.clusterIP", "spec.type"],
    columns: &[
        Column::name(),
        Column::text("Type", "How the service is reached."),
        Column::text("Cluster-IP", "Address inside the cluster."),
        Column::text("External-IP", "Addresses from outside the cluster."),
        Column::text("Port(s)", "Ports, with those of the nodes."),
        Column::age(),
        Column::text("Selector", "Labels of the pods behind it.").wide(),
    ],
    example: "apiVersion: v1\nkind: Service\nmetadata: {name: example, namespace: default}\n\
              spec:\n  selector: {app: example}\n  ports: [{port: 80}]\n",
    hooks: &Service,
};

struct Service;

/// Seconds for which a client stays with a pod, unless the service says otherwise (upstream's default).
const STICKY_SECONDS: i64 = 10_800;

/// The type, `ClusterIP` where it is not set yet.
pub(super) fn type_of(spec: &Value) -> &str {
    walk::text(spec, "type").unwrap_or("ClusterIP")
}

/// Whether services of this type are reached at ports of nodes.
fn has_node_ports(spec: &Value) -> bool {
    matches!(type_of(spec), "NodePort" | "LoadBalancer")
}

/// Whether the service is reached from outside: then its external traffic policy counts.
pub(super) fn is_external(spec: &Value) -> bool {
    has_node_ports(spec) || (type_of(spec) == "ClusterIP" && !walk::list(spec, "externalIPs").is_empty())
}

fn has_address(spec: &Value) -> bool {
    type_of(spec) != "ExternalName"
}

fn spec_mut(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("spec").and_then(Value::as_object_mut)
}

/// A key by which a port of the old object is found again in the new one.
fn port_key(port: &Value) -> (&str, i64) {
    (walk::text(port, "protocol").unwrap_or("TCP"), walk::number(port, "port"))
}

impl Kind for Service {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        walk::default(spec, "type", "ClusterIP");
        walk::default(spec, "sessionAffinity", "None");
        match spec["sessionAffinity"].as_str() {
            Some("None") => _ = spec.as_object_mut().map(|spec| spec.remove("sessionAffinityConfig")),
            Some("ClientIP") => {
                walk::map_at(spec, "sessionAffinityConfig");
                walk::map_at(&mut spec["sessionAffinityConfig"], "clientIP");
                walk::default(&mut spec["sessionAffinityConfig"]["clientIP"], "timeoutSeconds", STICKY_SECONDS);
            }
            _ => {}
        }
        for port in walk::each_mut(spec, "ports").filter(|port| port.is_object()) {
            walk::default(port, "protocol", "TCP");
            let unset = walk::at(port, "targetPort").is_none_or(|target| *target == 0 || *target == "");
            if unset && !port["port"].is_null() {
                port["targetPort"] = port["port"].clone();
            }
        }
        if is_external(spec) {
            walk::default(spec, "externalTrafficPolicy", "Cluster");
        }
        if matches!(type_of(spec), "ClusterIP" | "NodePort" | "LoadBalancer") {
            walk::default(spec, "internalTrafficPolicy", "Cluster");
            walk::default(spec, "ipFamilyPolicy", "SingleStack");
            if walk::list(spec, "ipFamilies").is_empty() {
                spec["ipFamilies"] = json!(["IPv4"]);
            }
        }
        if type_of(spec) == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"].is_null() {
            spec["allocateLoadBalancerNodePorts"] = true.into();
        }
        // Either of the two names of the address brings the other.
        if let Some(first) = walk::list(spec, "clusterIPs").first().cloned() {
            walk::default(spec, "clusterIP", first);
        } else if let Some(address) = walk::text(spec, "clusterIP").map(str::to_owned) {
            spec["clusterIPs"] = json!([address]);
        }
        let Some(status) = object.get_mut("status").and_then(|status| status.get_mut("loadBalancer")) else { return };
        for ingress in walk::each_mut(status, "ingress").filter(|ingress| walk::text(ingress, "ip").is_some()) {
            walk::default(ingress, "ipMode", "VIP");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        crate::keep_status(new, old);
        follow_the_changed_name(new, &old["spec"]);
        keep_allocated(new, &old["spec"]);
        drop_what_the_type_has_not(new, &old["spec"]);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        service_rules::validate(&object["spec"])
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        service_rules::validate_update(&new["spec"], &old["spec"])
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        object_model::names::dns_label_1035(name)
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        service_cells::cells(object, now)
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        let spec = &object["spec"];
        let path = FieldPath::new("spec");
        let mut claims = Vec::new();
        let address = walk::text(spec, "clusterIP");
        if has_address(spec) && address != Some("None") {
            claims.push(Claim {
                pool: Pool::Address,
                value: address.map(str::to_owned),
                fields: vec!["/spec/clusterIP".to_owned(), "/spec/clusterIPs/0".to_owned()],
                path: path.child("clusterIPs"),
            });
        }
        if !has_node_ports(spec) {
            return claims;
        }
        let unasked = type_of(spec) == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] == false;
        for (index, port) in walk::list(spec, "ports").iter().enumerate() {
            let number = walk::number(port, "nodePort");
            if number == 0 && unasked {
                continue;
            }
            claims.push(Claim {
                pool: Pool::NodePort,
                value: (number != 0).then(|| number.to_string()),
                fields: vec![format!("/spec/ports/{index}/nodePort")],
                path: path.child("ports").index(index).child("nodePort"),
            });
        }
        claims
    }
}

/// The address has two names. Who changes or empties one of them and leaves the other as it was means both.
fn follow_the_changed_name(new: &mut Value, old: &Value) {
    let Some(spec) = new.get_mut("spec").filter(|spec| spec["clusterIPs"] == old["clusterIPs"]) else { return };
    match walk::text(spec, "clusterIP").map(str::to_owned) {
        Some(address) if spec["clusterIP"] != old["clusterIP"] => spec["clusterIPs"] = json!([address]),
        None => _ = spec.as_object_mut().map(|spec| spec.remove("clusterIPs")),
        Some(_) => {}
    }
}

/// A write that leaves out what the cluster has given the service keeps it.
fn keep_allocated(new: &mut Value, old: &Value) {
    let spec = &new["spec"];
    if has_address(spec) && has_address(old) && walk::text(spec, "clusterIP").is_none() {
        let address = [old["clusterIP"].clone(), old["clusterIPs"].clone()];
        if let Some(spec) = spec_mut(new) {
            let [ip, ips] = address;
            spec.insert("clusterIP".to_owned(), ip);
            spec.insert("clusterIPs".to_owned(), ips);
        }
    }
    if has_node_ports(&new["spec"]) && has_node_ports(old) {
        let given: Vec<i64> = walk::list(&new["spec"], "ports").iter().map(|p| walk::number(p, "nodePort")).collect();
        for port in walk::each_mut(&mut new["spec"], "ports").filter(|port| walk::number(port, "nodePort") == 0) {
            let before = walk::list(old, "ports").iter().find(|before| port_key(before) == port_key(port));
            let number = before.map_or(0, |before| walk::number(before, "nodePort"));
            // One that another port of the new object asks for is no longer this one's.
            if number != 0 && !given.contains(&number) {
                port["nodePort"] = number.into();
            }
        }
    }
}

/// A change of type takes along what the old type had and the new one cannot have, unless the client has set it anew.
fn drop_what_the_type_has_not(new: &mut Value, old: &Value) {
    let spec = &new["spec"];
    let mut dropped = Vec::new();
    if has_address(old) && !has_address(spec) && spec["clusterIP"] == old["clusterIP"] {
        dropped.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if is_external(old) && !is_external(spec) && spec["externalTrafficPolicy"] == old["externalTrafficPolicy"] {
        dropped.push("externalTrafficPolicy");
    }
    if type_of(old) == "LoadBalancer" && type_of(spec) != "LoadBalancer" {
        for field in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if spec[field] == old[field] {
                dropped.push(field);
            }
        }
    }
    let numbers = |spec: &Value| -> Vec<i64> {
        walk::list(spec, "ports").iter().map(|port| walk::number(port, "nodePort")).filter(|n| *n != 0).collect()
    };
    let had = numbers(old);
    let same = numbers(spec).iter().all(|number| had.contains(number));
    if has_node_ports(old) && !has_node_ports(spec) && same {
        for port in walk::each_mut(&mut new["spec"], "ports").filter_map(Value::as_object_mut) {
            port.remove("nodePort");
        }
    }
    if let Some(spec) = spec_mut(new) {
        dropped.iter().for_each(|field| _ = spec.remove(*field));
    }
}
