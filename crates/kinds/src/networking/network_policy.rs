//! NetworkPolicy: who may reach the pods of a namespace, and whom they may reach.

use object_model::{FieldError, FieldPath, names};
use serde_json::{Value, json};

use crate::pod_template::range;
use crate::{Column, Kind, Now, Resource, cells, rules, scale, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    kind: "NetworkPolicy",
    plural: "networkpolicies",
    singular: "networkpolicy",
    short_names: &["netpol"],
    type_name: "networking.v1.NetworkPolicy",
    storage: "networkpolicies",
    has_generation: true,
    columns: &[Column::name(), Column::text("Pod-Selector", "Labels of the pods it is about."), Column::age()],
    example: "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: example, namespace: default}\n\
              spec:\n  podSelector: {matchLabels: {app: example}}\n  ingress:\n\
              \x20 - from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]\n\
              \x20   ports: [{port: 80}, {port: 8000, endPort: 8080}]\n",
    hooks: &NetworkPolicy,
    ..crate::NAMESPACED
};

struct NetworkPolicy;

/// Lists of rules, and the peers in them.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];
const TYPES: [&str; 2] = ["Ingress", "Egress"];

impl Kind for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        for (rules, _) in DIRECTIONS {
            for rule in walk::each_mut(spec, rules) {
                for port in walk::each_mut(rule, "ports").filter(|port| port.is_object()) {
                    walk::default(port, "protocol", "TCP");
                }
            }
        }
        if walk::list(spec, "policyTypes").is_empty() {
            let egress = !walk::list(spec, "egress").is_empty();
            spec["policyTypes"] = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        crate::meta::selector(&mut errors, &spec["podSelector"], &path.child("podSelector"));
        for (rules, peers) in DIRECTIONS {
            for (index, rule) in walk::list(spec, rules).iter().enumerate() {
                let path = path.child(rules).index(index);
                for (index, one) in walk::list(rule, "ports").iter().enumerate() {
                    port(&mut errors, one, &path.child("ports").index(index));
                }
                for (index, one) in walk::list(rule, peers).iter().enumerate() {
                    peer(&mut errors, one, &path.child(peers).index(index));
                }
            }
        }
        let types = walk::list(spec, "policyTypes");
        let path = path.child("policyTypes");
        if types.len() > TYPES.len() {
            let why = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid(&path, Value::from(types), why));
            return errors;
        }
        for (index, kind) in types.iter().filter_map(Value::as_str).enumerate() {
            if !TYPES.contains(&kind) {
                errors.push(FieldError::not_supported(&path.index(index), kind, &TYPES));
            }
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let selector = scale::selector_cell(&object["spec"]["podSelector"]);
        vec![cells::name(object), selector.into(), cells::age(object, now)]
    }
}

fn port(errors: &mut Vec<FieldError>, port: &Value, path: &FieldPath) {
    walk::one_of(errors, port, "protocol", path, &["TCP", "UDP", "SCTP"]);
    let (at, end_at) = (path.child("port"), path.child("endPort"));
    let end = walk::at(port, "endPort");
    let mut refuse_end = |why: &str| errors.extend(end.map(|end| FieldError::invalid(&end_at, end.clone(), why)));
    match walk::at(port, "port") {
        None => refuse_end("may not be specified when `port` is not specified"),
        Some(Value::String(name)) => {
            refuse_end("may not be specified when `port` is non-numeric");
            rules::named(errors, name, &at, names::port_name);
        }
        Some(number) => {
            range(errors, number, &at, 1, 65535);
            let Some(end) = end else { return };
            if end.as_i64() < number.as_i64() {
                errors.push(FieldError::invalid(&end_at, end.clone(), "must be greater than or equal to `port`"));
            }
            range(errors, end, &end_at, 1, 65535);
        }
    }
}

fn peer(errors: &mut Vec<FieldError>, peer: &Value, path: &FieldPath) {
    let mut selectors = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = walk::at(peer, field) {
            selectors += 1;
            crate::meta::selector(errors, selector, &path.child(field));
        }
    }
    match walk::at(peer, "ipBlock") {
        None if selectors == 0 => errors.push(FieldError::required(path, "must specify a peer")),
        None => {}
        Some(block) => {
            block_rules(errors, block, &path.child("ipBlock"));
            if selectors > 0 {
                errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer"));
            }
        }
    }
}

fn block_rules(errors: &mut Vec<FieldError>, block: &Value, path: &FieldPath) {
    let Some(text) = rules::required(errors, block, "cidr", path) else { return };
    let Some((network, length)) = rules::network(text) else {
        errors.push(FieldError::invalid(&path.child("cidr"), text, rules::NOT_A_NETWORK));
        return;
    };
    for (index, text) in walk::list(block, "except").iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("except").index(index);
        match rules::network(text) {
            None => errors.push(FieldError::invalid(&path, text, rules::NOT_A_NETWORK)),
            Some((inner, inner_length)) => {
                let within = inner.is_ipv4() == network.is_ipv4()
                    && inner_length > length
                    && rules::masked(inner, length) == rules::masked(network, length);
                if !within {
                    errors.push(FieldError::invalid(&path, text, "must be a strict subset of `cidr`"));
                }
            }
        }
    }
}
