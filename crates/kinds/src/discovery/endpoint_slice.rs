//! EndpointSlice: up to a thousand of the endpoints of a Service.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::core::endpoints::shown;
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    short_names: &[],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "discovery.v1.EndpointSlice",
    storage: "endpointslices",
    has_status: false,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("AddressType", "What the addresses are."),
        Column::text("Ports", "Ports of all endpoints."),
        Column::text("Endpoints", "Addresses of the endpoints."),
        Column::age(),
    ],
    example: "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
              metadata: {name: example, namespace: default, labels: {kubernetes.io/service-name: example}}\n\
              addressType: IPv4\nendpoints: [{addresses: [10.0.0.1]}]\nports: [{port: 80}]\n",
    hooks: &EndpointSlice,
};

struct EndpointSlice;

/// Most endpoints of one slice, and most ports (upstream's limits).
const MOST_ENDPOINTS: usize = 1000;
const MOST_PORTS: usize = 20_000;

impl Kind for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in walk::each_mut(object, "ports").filter(|port| port.is_object()) {
            walk::default(port, "protocol", "TCP");
            if port["name"].is_null() {
                port["name"] = "".into();
            }
        }
    }

    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        ["endpoints", "ports", "addressType"].iter().any(|field| new.get(*field) != old.get(*field))
            || new["metadata"].get("labels") != old["metadata"].get("labels")
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = walk::text(object, "addressType").unwrap_or_default();
        let path = FieldPath::new("addressType");
        match kind {
            "" => errors.push(FieldError::required(&path, "")),
            "IPv4" | "IPv6" | "FQDN" => {}
            other => errors.push(FieldError::not_supported(&path, other, &["FQDN", "IPv4", "IPv6"])),
        }
        let path = FieldPath::new("endpoints");
        let endpoints = walk::list(object, "endpoints");
        if endpoints.len() > MOST_ENDPOINTS {
            errors.push(FieldError::too_many(&path, endpoints.len(), MOST_ENDPOINTS));
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            endpoint_rules(&mut errors, endpoint, kind, &path.index(index));
        }
        ports(&mut errors, object);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "addressType");
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let ports = walk::list(object, "ports").iter().map(|port| match walk::number(port, "port") {
            0 => "*".to_owned(),
            number => number.to_string(),
        });
        let ports: Vec<String> = ports.collect();
        let addresses = walk::list(object, "endpoints").iter().flat_map(|endpoint| walk::list(endpoint, "addresses"));
        let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
        let unset = |text: String| if text == "<none>" { "<unset>".to_owned() } else { text };
        vec![
            object_model::meta::name(object).into(),
            walk::text(object, "addressType").unwrap_or_default().into(),
            unset(shown(&ports)).into(),
            unset(shown(&addresses)).into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}

fn endpoint_rules(errors: &mut Vec<FieldError>, endpoint: &Value, kind: &str, path: &FieldPath) {
    let addresses = walk::list(endpoint, "addresses");
    let list = path.child("addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(&list, "must contain at least 1 address"));
    }
    if addresses.len() > 100 {
        errors.push(FieldError::too_many(&list, addresses.len(), 100));
    }
    for (index, address) in addresses.iter().enumerate() {
        let path = list.index(index);
        let text = address.as_str().unwrap_or_default();
        match kind {
            "IPv4" if text.parse::<std::net::Ipv4Addr>().is_err() => {
                errors.push(FieldError::invalid(&path, text, "must be a valid IPv4 address"));
            }
            "IPv6" if text.parse::<std::net::Ipv6Addr>().is_err() => {
                errors.push(FieldError::invalid(&path, text, "must be a valid IPv6 address"));
            }
            "IPv4" => crate::core::address_rules(errors, address, &path),
            "FQDN" => {
                let problems = names::dns_subdomain(text.strip_suffix('.').unwrap_or(text));
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, text, why)));
            }
            _ => {}
        }
    }
    if let Some(name) = walk::text(endpoint, "hostname") {
        let path = path.child("hostname");
        errors.extend(names::dns_label(name).into_iter().map(|why| FieldError::invalid(&path, name, why)));
    }
    if let Some(name) = walk::text(endpoint, "nodeName") {
        let path = path.child("nodeName");
        errors.extend(names::dns_subdomain(name).into_iter().map(|why| FieldError::invalid(&path, name, why)));
    }
}

fn ports(errors: &mut Vec<FieldError>, object: &Value) {
    let path = FieldPath::new("ports");
    let ports = walk::list(object, "ports");
    if ports.len() > MOST_PORTS {
        errors.push(FieldError::too_many(&path, ports.len(), MOST_PORTS));
    }
    let mut named = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = walk::text(port, "name").unwrap_or_default();
        if named.contains(&name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        named.push(name);
        if !name.is_empty() {
            let problems = names::dns_label(name);
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
        }
        walk::one_of(errors, port, "protocol", &path, &["SCTP", "TCP", "UDP"]);
        if let Some(number) = walk::at(port, "port").and_then(Value::as_i64)
            && !(1..=65535).contains(&number)
        {
            errors.push(FieldError::invalid(&path.child("port"), number, "must be between 1 and 65535, inclusive"));
        }
    }
}
