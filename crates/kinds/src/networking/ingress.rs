//! Ingress: which Service answers which host and path.

use object_model::{FieldError, FieldPath, meta, names};
use serde_json::{Value, json};

use crate::{ALL_VERBS, Column, DefaultClass, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "networking.k8s.io",
    version: "v1",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    categories: &[],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "networking.k8s.io",
        version: "v1",
        kind: "Ingress",
    }],
    type_name: "networking.v1.Ingress",
    storage: "ingresses",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Class", "Class of those who serve it."),
        Column::text("Hosts", "Hosts that it has rules for."),
        Column::text("Address", "Where it is reached."),
        Column::text("Ports", "80, and 443 where there is TLS."),
        Column::age(),
    ],
    example: "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: example, namespace: default}\n\
              spec:\n  rules:\n  - host: example.com\n    http:\n      paths:\n      - path: /\n        pathType: Prefix\n\
              \x20       backend: {service: {name: example, port: {number: 80}}}\n",
    hooks: &Ingress,
};

struct Ingress;

/// The annotation that named the class before there was a field.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

impl Kind for Ingress {
    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn default_class(&self, object: &Value) -> Option<DefaultClass> {
        let named = !object["spec"]["ingressClassName"].is_null() || meta::annotations(object).contains_key(OLD_CLASS);
        (!named).then_some(DefaultClass {
            group: "networking.k8s.io",
            plural: "ingressclasses",
            annotation: "ingressclass.kubernetes.io/is-default-class",
            field: "/spec/ingressClassName",
        })
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        let rules = walk::list(spec, "rules");
        if rules.is_empty() && walk::at(spec, "defaultBackend").is_none() {
            let why = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid(&path, Value::from(rules), why));
        }
        let (old, class) = (meta::annotations(object).get(OLD_CLASS).copied(), walk::text(spec, "ingressClassName"));
        if let (Some(old), Some(class)) = (old, class)
            && old != class
        {
            let path = FieldPath::new("annotations").child(OLD_CLASS);
            let why = "must match `ingressClassName` when both are specified";
            errors.push(FieldError::invalid(&path, old, why));
        }
        if let Some(class) = walk::text(spec, "ingressClassName") {
            let path = path.child("ingressClassName");
            errors.extend(names::dns_subdomain(class).into_iter().map(|why| FieldError::invalid(&path, class, why)));
        }
        if let Some(default) = walk::at(spec, "defaultBackend") {
            backend(&mut errors, default, &path.child("defaultBackend"));
        }
        for (index, tls) in walk::list(spec, "tls").iter().enumerate() {
            let path = path.child("tls").index(index);
            for (index, host) in walk::list(tls, "hosts").iter().filter_map(Value::as_str).enumerate() {
                host_rules(&mut errors, host, &path.child("hosts").index(index));
            }
            if let Some(name) = walk::text(tls, "secretName") {
                let path = path.child("secretName");
                errors.extend(names::dns_subdomain(name).into_iter().map(|why| FieldError::invalid(&path, name, why)));
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            let path = path.child("rules").index(index);
            if let Some(host) = walk::text(rule, "host") {
                host_rules(&mut errors, host, &path.child("host"));
            }
            let Some(http) = walk::at(rule, "http") else { continue };
            let path = path.child("http").child("paths");
            let paths = walk::list(http, "paths");
            if paths.is_empty() {
                errors.push(FieldError::required(&path, ""));
            }
            for (index, one) in paths.iter().enumerate() {
                path_rules(&mut errors, one, &path.index(index));
                backend(&mut errors, &one["backend"], &path.index(index).child("backend"));
            }
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let spec = &object["spec"];
        let hosts = walk::list(spec, "rules").iter().filter_map(|rule| walk::text(rule, "host"));
        let mut hosts: Vec<&str> = hosts.collect();
        let more = hosts.len().saturating_sub(3);
        hosts.truncate(3);
        let hosts = match (hosts.is_empty(), more) {
            (true, _) => "*".to_owned(),
            (_, 0) => hosts.join(","),
            _ => format!("{} + {more} more...", hosts.join(",")),
        };
        let given = walk::list(object, "status.loadBalancer.ingress").iter();
        let given: Vec<&str> =
            given.filter_map(|one| walk::text(one, "ip").or_else(|| walk::text(one, "hostname"))).collect();
        let ports = if walk::list(spec, "tls").is_empty() { "80" } else { "80, 443" };
        vec![
            meta::name(object).into(),
            walk::text(spec, "ingressClassName").unwrap_or("<none>").into(),
            hosts.into(),
            given.join(",").into(),
            ports.into(),
            object_model::time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
        ]
    }
}

fn host_rules(errors: &mut Vec<FieldError>, host: &str, path: &FieldPath) {
    if host.parse::<std::net::IpAddr>().is_ok() {
        errors.push(FieldError::invalid(path, host, "must be a DNS name, not an IP address"));
    } else if !host.contains('*') {
        errors.extend(names::dns_subdomain(host).into_iter().map(|why| FieldError::invalid(path, host, why)));
    } else if host.strip_prefix("*.").is_none_or(|rest| !names::dns_subdomain(rest).is_empty()) {
        let why = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist \
                   of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
                   '*.example.com', regex used for validation is \
                   '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        errors.push(FieldError::invalid(path, host, why));
    }
}

fn path_rules(errors: &mut Vec<FieldError>, one: &Value, at: &FieldPath) {
    let kinds = ["Exact", "ImplementationSpecific", "Prefix"];
    let kind = walk::text(one, "pathType");
    let path = walk::text(one, "path").unwrap_or_default();
    let field = at.child("path");
    match kind {
        None => errors.push(FieldError::required(&at.child("pathType"), "pathType must be specified")),
        Some(kind) if !kinds.contains(&kind) => {
            errors.push(FieldError::not_supported(&at.child("pathType"), kind, &kinds));
        }
        Some("ImplementationSpecific") if path.is_empty() => {}
        Some(_) if !path.starts_with('/') => {
            errors.push(FieldError::invalid(&field, path, "must be an absolute path"));
        }
        Some("ImplementationSpecific") => {}
        Some(_) => {
            let wrong = ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| path.contains(**part));
            errors.extend(wrong.map(|part| FieldError::invalid(&field, path, format!("must not contain '{part}'"))));
            let ends = ["/..", "/."].iter().filter(|end| path.ends_with(**end));
            errors.extend(ends.map(|end| FieldError::invalid(&field, path, format!("cannot end with '{end}'"))));
        }
    }
}

fn backend(errors: &mut Vec<FieldError>, backend: &Value, path: &FieldPath) {
    match (walk::at(backend, "service"), walk::at(backend, "resource")) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(path, "", "cannot set both resource and service backends"));
        }
        (None, None) => errors.push(FieldError::required(path, "resource or service backend is required")),
        (None, Some(_)) => {}
        (Some(service), None) => {
            let path = path.child("service");
            match walk::text(service, "name") {
                None => errors.push(FieldError::required(&path.child("name"), "")),
                Some(name) => {
                    let path = path.child("name");
                    let problems = names::dns_label_1035(name);
                    errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path, name, why)));
                }
            }
            let port = path.child("port");
            let number = walk::number(service, "port.number");
            match (walk::text(service, "port.name"), number) {
                (Some(_), number) if number != 0 => {
                    errors.push(FieldError::invalid(&port, "", "cannot set both port name & port number"));
                }
                (Some(name), _) => {
                    let path = port.child("name");
                    errors.extend(names::port_name(name).into_iter().map(|why| FieldError::invalid(&path, name, why)));
                }
                (None, 0) => errors.push(FieldError::required(&port, "port name or number is required")),
                (None, number) if !(1..=65535).contains(&number) => {
                    let why = "must be between 1 and 65535, inclusive";
                    errors.push(FieldError::invalid(&port.child("number"), number, why));
                }
                (None, _) => {}
            }
        }
    }
}
