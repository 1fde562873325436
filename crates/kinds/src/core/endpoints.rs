//! Endpoints: the older form of EndpointSlices, one object for each Service.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use super::service_rules::address_rules;
use crate::{ALL_VERBS, Column, Kind, Now, Resource, Scope, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[],
    type_name: "core.v1.Endpoints",
    storage: "endpoints",
    has_status: false,
    has_generation: false,
    create_by_update: true,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[Column::name(), Column::text("Endpoints", "Addresses and ports that are ready."), Column::age()],
    example: "apiVersion: v1\nkind: Endpoints\nmetadata: {name: example, namespace: default}\n\
              subsets:\n- addresses: [{ip: 10.0.0.1}]\n  ports: [{port: 80}]\n",
    hooks: &Endpoints,
};

struct Endpoints;

/// How many endpoints a cell shows before it only counts (upstream's number).
pub(crate) const SHOWN: usize = 3;

/// The first few of many, as cells show them.
pub(crate) fn shown(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

impl Kind for Endpoints {
    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn default(&self, object: &mut Value) {
        for subset in walk::each_mut(object, "subsets") {
            for port in walk::each_mut(subset, "ports").filter(|port| port.is_object()) {
                walk::default(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (index, subset) in walk::list(object, "subsets").iter().enumerate() {
            let path = FieldPath::new("subsets").index(index);
            let lists = ["addresses", "notReadyAddresses"];
            if lists.iter().all(|list| walk::list(subset, list).is_empty()) {
                errors.push(FieldError::required(&path, "must specify `addresses` or `notReadyAddresses`"));
            }
            for list in lists {
                for (index, address) in walk::list(subset, list).iter().enumerate() {
                    let path = path.child(list).index(index);
                    address_rules(&mut errors, &address["ip"], &path.child("ip"));
                    if let Some(name) = walk::text(address, "hostname") {
                        let path = path.child("hostname");
                        errors.extend(names::dns_label(name).into_iter().map(|w| FieldError::invalid(&path, name, w)));
                    }
                }
            }
            let ports = walk::list(subset, "ports");
            for (index, port) in ports.iter().enumerate() {
                let path = path.child("ports").index(index);
                match walk::text(port, "name") {
                    None if ports.len() > 1 => errors.push(FieldError::required(&path.child("name"), "")),
                    None => {}
                    Some(name) => {
                        let path = path.child("name");
                        errors.extend(names::dns_label(name).into_iter().map(|w| FieldError::invalid(&path, name, w)));
                    }
                }
                let number = walk::number(port, "port");
                if !(1..=65535).contains(&number) {
                    let why = "must be between 1 and 65535, inclusive";
                    errors.push(FieldError::invalid(&path.child("port"), number, why));
                }
                walk::one_of(&mut errors, port, "protocol", &path, &["SCTP", "TCP", "UDP"]);
            }
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let mut all = Vec::new();
        for subset in walk::list(object, "subsets") {
            let addresses: Vec<&str> =
                walk::list(subset, "addresses").iter().filter_map(|a| a["ip"].as_str()).collect();
            let ports = walk::list(subset, "ports");
            if ports.is_empty() {
                all.extend(addresses.iter().map(|address| (*address).to_owned()));
            }
            for port in ports {
                let number = walk::number(port, "port");
                all.extend(addresses.iter().map(|address| format!("{address}:{number}")));
            }
        }
        vec![
            object_model::meta::name(object).into(),
            shown(&all).into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}
