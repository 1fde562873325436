//! ServiceCIDR: a range of addresses for Services.

use std::net::IpAddr;

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    kind: "ServiceCIDR",
    plural: "servicecidrs",
    singular: "servicecidr",
    subresources: &[Subresource::status("networking.k8s.io", "ServiceCIDR")],
    type_name: "networking.v1.ServiceCIDR",
    storage: "servicecidrs",
    has_status: true,
    columns: &[Column::name(), Column::text("CIDRs", "The ranges, one of each family."), Column::age()],
    example: "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: example}\n\
              spec: {cidrs: [10.96.0.0/16]}\n",
    hooks: &ServiceCidr,
    ..crate::CLUSTER
};

struct ServiceCidr;

fn ranges(object: &Value) -> &[Value] {
    walk::list(object, "spec.cidrs")
}

impl Kind for ServiceCidr {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("cidrs");
        let given = ranges(object);
        if given.is_empty() {
            return vec![FieldError::required(&path, "at least one CIDR required")];
        }
        if given.len() > 2 {
            return vec![FieldError::invalid(&path, object["spec"].clone(), "may only hold up to 2 values")];
        }
        for (index, text) in given.iter().filter_map(Value::as_str).enumerate() {
            rules::named(&mut errors, text, &path.index(index), network_problems);
        }
        let families: Vec<bool> =
            given.iter().filter_map(Value::as_str).filter_map(rules::network).map(|(a, _)| a.is_ipv4()).collect();
        if let [first, second] = families[..]
            && first == second
        {
            let why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errors.push(FieldError::invalid(&path, Value::from(given), why));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec").child("cidrs");
        let (new, old) = (ranges(new), ranges(old));
        // A range of the other family can be added.
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            return vec![FieldError::invalid(&path, Value::from(new), walk::IMMUTABLE)];
        }
        for (index, (new, _)) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old) {
            errors.push(FieldError::invalid(&path.index(index), new.clone(), walk::IMMUTABLE));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let ranges: Vec<&str> = ranges(object).iter().filter_map(Value::as_str).collect();
        vec![cells::name(object), ranges.join(",").into(), cells::age(object, now)]
    }
}

fn network_problems(text: &str) -> Vec<String> {
    let Some((address, length)) = rules::network(text) else { return vec![rules::NOT_A_NETWORK.to_owned()] };
    let network: IpAddr = rules::masked(address, length);
    if network != address {
        return vec!["must not have bits set beyond the prefix length".to_owned()];
    }
    let canonical = format!("{network}/{length}");
    if canonical == text { Vec::new() } else { vec![format!("must be in canonical form ({canonical:?})")] }
}
