//! What is wrong with a Service, in upstream's words.

use std::net::Ipv4Addr;

use object_model::{FieldError, FieldPath, names};
use serde_json::{Value, json};

use super::service::{is_external, type_of};
use crate::{meta, walk};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PORT_RANGE: &str = "must be between 1 and 65535, inclusive";
const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
/// The longest time for which a client stays with a pod, in seconds: a day.
const LONGEST_STICKY: i64 = 86_400;

/// Everything wrong with the spec.
pub(super) fn validate(spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    let kind = type_of(spec);
    let headless = walk::text(spec, "clusterIP") == Some("None");
    if walk::list(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required(&path.child("ports"), ""));
    }
    match kind {
        "LoadBalancer" => {
            for (index, port) in walk::list(spec, "ports").iter().enumerate() {
                // The node's own port; upstream protects it by its number, too.
                if walk::number(port, "port") == 10250 {
                    let why = "may not expose port 10250 externally since it is used by kubelet";
                    errors.push(FieldError::invalid(&path.child("ports").index(index).child("port"), 10250, why));
                }
            }
            no_headless(&mut errors, headless, "LoadBalancer", &path);
        }
        "NodePort" => no_headless(&mut errors, headless, "NodePort", &path),
        "ExternalName" => external_name(&mut errors, spec, &path),
        _ => {}
    }
    ports(&mut errors, spec, &path.child("ports"));
    meta::label_map(&mut errors, &spec["selector"], &path.child("selector"));
    walk::one_of(&mut errors, spec, "sessionAffinity", &path, &["ClientIP", "None"]);
    affinity(&mut errors, spec, &path.child("sessionAffinityConfig"));
    walk::one_of(&mut errors, spec, "type", &path, &TYPES);
    for (index, address) in walk::list(spec, "externalIPs").iter().enumerate() {
        address_rules(&mut errors, address, &path.child("externalIPs").index(index));
    }
    addresses(&mut errors, spec, &path);
    only_for_load_balancers(&mut errors, spec, &path);
    policies(&mut errors, spec, &path);
    errors
}

fn no_headless(errors: &mut Vec<FieldError>, headless: bool, kind: &str, path: &FieldPath) {
    if headless {
        let why = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), "None", why));
    }
}

fn external_name(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    if let Some(address) = walk::text(spec, "clusterIP") {
        let why = "may not be set for ExternalName services";
        errors.push(FieldError::invalid(&path.child("clusterIPs"), json!([address]), why));
    }
    let path = path.child("externalName");
    match walk::text(spec, "externalName") {
        None => errors.push(FieldError::required(&path, "")),
        Some(name) => {
            let problems = names::dns_subdomain(name.strip_suffix('.').unwrap_or(name));
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, name, why)));
        }
    }
}

fn port_number(errors: &mut Vec<FieldError>, value: i64, path: &FieldPath) {
    if !(1..=65535).contains(&value) {
        errors.push(FieldError::invalid(path, value, PORT_RANGE));
    }
}

fn ports(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let ports = walk::list(spec, "ports");
    let node_ports = matches!(type_of(spec), "NodePort" | "LoadBalancer");
    let (mut seen, mut taken, mut named) = (Vec::new(), Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match walk::text(port, "name") {
            None if ports.len() > 1 => errors.push(FieldError::required(&path.child("name"), "")),
            None => {}
            Some(name) => {
                let problems = names::dns_label(name);
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
                if named.contains(&name) {
                    errors.push(FieldError::duplicate(&path.child("name"), name));
                }
                named.push(name);
            }
        }
        let number = walk::number(port, "port");
        port_number(errors, number, &path.child("port"));
        let protocol = walk::text(port, "protocol").unwrap_or_default();
        if protocol.is_empty() {
            errors.push(FieldError::required(&path.child("protocol"), ""));
        }
        walk::one_of(errors, port, "protocol", &path, &["SCTP", "TCP", "UDP"]);
        match walk::at(port, "targetPort") {
            Some(Value::String(name)) => {
                let problems = names::port_name(name);
                let path = path.child("targetPort");
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, name.as_str(), why)));
            }
            Some(target) => port_number(errors, target.as_i64().unwrap_or(0), &path.child("targetPort")),
            None => {}
        }
        if let Some(name) = walk::text(port, "appProtocol") {
            let path = path.child("appProtocol");
            errors.extend(names::qualified_name(name).into_iter().map(|why| FieldError::invalid(&path, name, why)));
        }
        if seen.contains(&(protocol, number)) {
            errors.push(FieldError::duplicate(&path, json!({"protocol": protocol, "port": number})));
        }
        seen.push((protocol, number));
        let node_port = walk::number(port, "nodePort");
        if node_port == 0 {
            continue;
        }
        if !node_ports {
            let why = format!("may not be used when `type` is '{}'", type_of(spec));
            errors.push(FieldError::forbidden(&path.child("nodePort"), why));
        } else if taken.contains(&(protocol, node_port)) {
            let shown = json!({"protocol": protocol, "nodePort": node_port});
            errors.push(FieldError::duplicate(&path.child("nodePort"), shown));
        }
        taken.push((protocol, node_port));
    }
}

fn affinity(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let Some(config) = walk::at(spec, "sessionAffinityConfig") else { return };
    if spec["sessionAffinity"] == "None" {
        let why = "must not be set when session affinity is None";
        errors.push(FieldError::forbidden(path, why));
        return;
    }
    let seconds = walk::number(config, "clientIP.timeoutSeconds");
    if !(1..=LONGEST_STICKY).contains(&seconds) {
        let why = format!("must be greater than 0 and less than {LONGEST_STICKY}");
        errors.push(FieldError::invalid(&path.child("clientIP").child("timeoutSeconds"), seconds, why));
    }
}

/// What is wrong with an address that traffic is to go to.
pub(crate) fn address_rules(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    let text = value.as_str().unwrap_or_default();
    let Ok(address) = text.parse::<Ipv4Addr>() else {
        if text.parse::<std::net::Ipv6Addr>().is_err() {
            errors.push(FieldError::invalid(path, text, NO_ADDRESS));
        }
        return;
    };
    let special = [
        (address.is_unspecified(), "may not be unspecified (0.0.0.0)"),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (address.is_link_local(), "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            address.is_multicast() && address.octets()[..3] == [224, 0, 0],
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ];
    errors.extend(special.iter().filter(|(is, _)| *is).map(|(_, why)| FieldError::invalid(path, text, *why)));
}

fn addresses(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    if type_of(spec) == "ExternalName" {
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if walk::at(spec, field).is_some() {
                errors.push(FieldError::forbidden(&path.child(field), "may not be set for ExternalName services"));
            }
        }
        return;
    }
    for (index, family) in walk::list(spec, "ipFamilies").iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        match family.as_str().unwrap_or_default() {
            "IPv4" => {}
            "IPv6" => errors.push(FieldError::invalid(&path, "IPv6", "not configured on this cluster")),
            other => errors.push(FieldError::not_supported(&path, other, &["IPv4", "IPv6"])),
        }
    }
    walk::one_of(errors, spec, "ipFamilyPolicy", path, &["PreferDualStack", "RequireDualStack", "SingleStack"]);
    if spec["ipFamilyPolicy"] == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid(&path.child("ipFamilyPolicy"), "RequireDualStack", why));
    }
    let list = walk::list(spec, "clusterIPs");
    let path = path.child("clusterIPs");
    if let Some(first) = list.first()
        && *first != spec["clusterIP"]
    {
        let why = "first value must match `clusterIP`";
        errors.push(FieldError::invalid(&path, Value::from(list), why));
    }
    if list.len() > 1 {
        let why = "may only hold up to 1 value on a cluster without dual-stack";
        errors.push(FieldError::invalid(&path, Value::from(list), why));
    }
    for (index, address) in list.iter().enumerate().filter(|(_, address)| **address != "None") {
        if address.as_str().unwrap_or_default().parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(&path.index(index), address.clone(), NO_ADDRESS));
        }
    }
}

fn only_for_load_balancers(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let balanced = type_of(spec) == "LoadBalancer";
    let why = "may only be used when `type` is 'LoadBalancer'";
    for field in ["loadBalancerSourceRanges", "allocateLoadBalancerNodePorts", "loadBalancerClass"] {
        if !balanced && walk::at(spec, field).is_some_and(|value| *value != json!([])) {
            errors.push(FieldError::forbidden(&path.child(field), why));
        }
    }
    for (index, range) in walk::list(spec, "loadBalancerSourceRanges").iter().enumerate() {
        let text = range.as_str().unwrap_or_default();
        let valid = text.trim().split_once('/').is_some_and(|(address, bits)| {
            address.parse::<Ipv4Addr>().is_ok() && bits.parse::<u8>().is_ok_and(|bits| bits <= 32)
        });
        if !valid {
            let path = path.child("loadBalancerSourceRanges").index(index);
            let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(FieldError::invalid(&path, text, why));
        }
    }
    if let Some(class) = walk::text(spec, "loadBalancerClass") {
        let path = path.child("loadBalancerClass");
        errors.extend(names::qualified_name(class).into_iter().map(|why| FieldError::invalid(&path, class, why)));
    }
}

fn policies(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let set = ["Cluster", "Local"];
    match walk::text(spec, "externalTrafficPolicy") {
        Some(policy) if !is_external(spec) => {
            let why = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(&path.child("externalTrafficPolicy"), policy, why));
        }
        _ => walk::one_of(errors, spec, "externalTrafficPolicy", path, &set),
    }
    walk::one_of(errors, spec, "internalTrafficPolicy", path, &set);
}

/// Everything wrong with a change: the address stays for as long as the service has one.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("spec");
    if type_of(new) != "ExternalName"
        && type_of(old) != "ExternalName"
        && walk::text(old, "clusterIP").is_some()
        && new["clusterIP"] != old["clusterIP"]
    {
        let why = "may not change once set";
        errors.push(FieldError::invalid(&path.child("clusterIPs").index(0), json!([new["clusterIP"]]), why));
    }
    let class = |spec: &Value| walk::text(spec, "loadBalancerClass").map(str::to_owned);
    if type_of(new) == "LoadBalancer" && type_of(old) == "LoadBalancer" && class(new) != class(old) {
        let why = "may not change once set";
        errors.push(FieldError::invalid(&path.child("loadBalancerClass"), class(new), why));
    }
    errors
}
