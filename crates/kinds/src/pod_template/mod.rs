//! What Pods and the templates of Pods have in common: defaults, validation, quality of service.

mod container;
mod defaults;
mod placement;
mod quality;
mod resources;
mod security;
mod volume;

pub(crate) use container::{amounts, container_resource_name, is_not_overcommitted};
pub(crate) use defaults::{default_pod_only, default_spec};
pub(crate) use quality::qos_class;

use object_model::{FieldError, FieldPath, LabelSelector, names};
use serde_json::Value;

use crate::{meta, rules, walk};

/// What is wrong with a pod spec.
pub(crate) fn validate_spec(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let volumes = volume::validate(errors, spec, path);
    container::validate_all(errors, spec, path, &volumes);
    walk::one_of(errors, spec, "restartPolicy", path, &["Always", "Never", "OnFailure"]);
    if walk::text(spec, "restartPolicy").is_none() {
        errors.push(FieldError::required(&path.child("restartPolicy"), ""));
    }
    dns(errors, spec, path);
    walk::not_negative(errors, spec, "terminationGracePeriodSeconds", path);
    if let Some(seconds) = walk::at(spec, "activeDeadlineSeconds") {
        range(errors, seconds, &path.child("activeDeadlineSeconds"), 1, i64::from(i32::MAX));
    }
    meta::label_map(errors, &spec["nodeSelector"], &path.child("nodeSelector"));
    for field in ["hostname", "subdomain"] {
        name(errors, spec, field, path, names::dns_label);
    }
    hostname_override(errors, spec, path);
    for field in ["nodeName", "serviceAccountName", "priorityClassName", "runtimeClassName"] {
        name(errors, spec, field, path, names::dns_subdomain);
    }
    tolerations(errors, spec, &path.child("tolerations"));
    for (index, secret) in walk::list(spec, "imagePullSecrets").iter().enumerate() {
        if walk::text(secret, "name").is_none() {
            errors.push(FieldError::required(&path.child("imagePullSecrets").index(index).child("name"), ""));
        }
    }
    for (index, alias) in walk::list(spec, "hostAliases").iter().enumerate() {
        let path = path.child("hostAliases").index(index);
        let ip = walk::text(alias, "ip").unwrap_or_default();
        if ip.parse::<std::net::IpAddr>().is_err() {
            errors.push(FieldError::invalid(&path.child("ip"), ip, "must be a valid IP address"));
        }
        for (index, host) in walk::list(alias, "hostnames").iter().filter_map(Value::as_str).enumerate() {
            rules::named(errors, host, &path.child("hostnames").index(index), names::dns_subdomain);
        }
    }
    security::pod(errors, spec, path);
    for (index, gate) in walk::list(spec, "readinessGates").iter().enumerate() {
        let kind = walk::text(gate, "conditionType").unwrap_or_default();
        let path = path.child("readinessGates").index(index).child("conditionType");
        rules::named(errors, kind, &path, names::qualified_name);
    }
    gates(errors, spec, &path.child("schedulingGates"));
    placement::topology_spread(errors, spec, &path.child("topologySpreadConstraints"));
    if let Some(affinity) = walk::at(spec, "affinity") {
        placement::affinity(errors, affinity, &path.child("affinity"));
    }
    if let Some(os) = walk::at(spec, "os") {
        rules::required_choice(errors, os, "name", &path.child("os"), &["linux", "windows"]);
    }
    walk::one_of(errors, spec, "preemptionPolicy", path, &["PreemptLowerPriority", "Never"]);
    resources::validate(errors, spec, path);
    amounts(errors, &spec["overhead"], &path.child("overhead"));
    claims(errors, spec, &path.child("resourceClaims"));
}

fn hostname_override(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let Some(host) = walk::at(spec, "hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.child("hostnameOverride");
    rules::named(errors, host, &path, names::dns_subdomain);
    if host.len() > 64 {
        errors.push(FieldError::invalid(&path, host, "must be no more than 64 characters"));
    }
    for field in ["hostNetwork", "setHostnameAsFQDN"] {
        if spec[field] == true {
            errors.push(FieldError::forbidden(&path, format!("may not be specified when {field} is true")));
        }
    }
}

fn gates(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let gates = walk::list(spec, "schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let name = gate["name"].as_str().unwrap_or_default();
        rules::named(errors, name, &path.index(index).child("name"), names::qualified_name);
    }
    rules::unique(errors, gates.iter().map(|gate| walk::text(gate, "name")), |index| path.index(index).child("name"));
}

fn claims(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let claims = walk::list(spec, "resourceClaims");
    for (index, claim) in claims.iter().enumerate() {
        let path = path.index(index);
        rules::required_name(errors, claim, "name", &path, names::dns_label);
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given: Vec<&str> = sources.into_iter().filter(|source| walk::at(claim, source).is_some()).collect();
        match given.as_slice() {
            [] => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(&path, claim.clone(), why));
            }
            [source] => rules::named_field(errors, claim, source, &path, names::dns_subdomain),
            _ => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(&path, claim.clone(), why));
            }
        }
    }
    rules::unique(errors, claims.iter().map(|claim| walk::text(claim, "name")), |index| {
        path.index(index).child("name")
    });
}

/// What is wrong with the template of a controller whose pods run for ever, given its selector.
pub(crate) fn validate_template(
    errors: &mut Vec<FieldError>,
    template: &Value,
    selector: &Value,
    owner: &str,
    path: &FieldPath,
) {
    let metadata = path.child("metadata");
    if let Ok(parsed) = LabelSelector::from_object(selector)
        && !parsed.is_everything()
        && !parsed.matches_object(template)
    {
        let labels = template["metadata"].get("labels").cloned().unwrap_or_else(|| serde_json::json!({}));
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&metadata.child("labels"), labels, why));
    }
    validate_metadata_and_spec(errors, template, path);
    let spec = path.child("spec");
    if let Some(policy @ ("Never" | "OnFailure")) = walk::text(&template["spec"], "restartPolicy") {
        errors.push(FieldError::not_supported(&spec.child("restartPolicy"), policy, &["Always"]));
    }
    if walk::at(&template["spec"], "activeDeadlineSeconds").is_some() {
        let why = format!("activeDeadlineSeconds in {owner} is not Supported");
        errors.push(FieldError::forbidden(&spec.child("activeDeadlineSeconds"), why));
    }
}

/// What is wrong with a template, whoever makes pods of it.
pub(crate) fn validate_metadata_and_spec(errors: &mut Vec<FieldError>, template: &Value, path: &FieldPath) {
    let metadata = path.child("metadata");
    meta::labels(errors, &template["metadata"], &metadata);
    meta::annotations(errors, &template["metadata"], &metadata.child("annotations"));
    validate_spec(errors, &template["spec"], &path.child("spec"));
}

/// What is wrong with the selector of a controller.
pub(crate) fn validate_selector(errors: &mut Vec<FieldError>, spec: &Value, owner: &str, path: &FieldPath) {
    let path = path.child("selector");
    let Some(selector) = walk::at(spec, "selector") else {
        errors.push(FieldError::required(&path, ""));
        return;
    };
    meta::selector(errors, selector, &path);
    if LabelSelector::from_object(selector).is_ok_and(|selector| selector.is_everything()) {
        errors.push(FieldError::invalid(&path, selector.clone(), format!("empty selector is invalid for {owner}")));
    }
}

/// Names and images of a template's containers, as the wide table shows them.
pub(crate) fn containers_and_images(template: &Value) -> (String, String) {
    let column = |field: &str| {
        let containers = walk::list(template, "spec.containers").iter();
        containers.filter_map(|c| walk::text(c, field)).collect::<Vec<_>>().join(",")
    };
    (column("name"), column("image"))
}

pub(crate) fn range(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath, from: i64, to: i64) {
    if !value.as_i64().is_some_and(|number| (from..=to).contains(&number)) {
        errors.push(FieldError::invalid(path, value.clone(), format!("must be between {from} and {to}, inclusive")));
    }
}

fn name(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath, rule: fn(&str) -> Vec<String>) {
    if let Some(text) = walk::text(object, field) {
        errors.extend(rule(text).into_iter().map(|why| FieldError::invalid(&path.child(field), text, why)));
    }
}

fn dns(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    walk::one_of(errors, spec, "dnsPolicy", path, &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]);
    if walk::text(spec, "dnsPolicy") == Some("None") {
        let why = "must provide `dnsConfig` when `dnsPolicy` is None";
        if walk::at(spec, "dnsConfig").is_none() {
            errors.push(FieldError::required(&path.child("dnsConfig"), why));
        } else if walk::list(spec, "dnsConfig.nameservers").is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.push(FieldError::required(&path.child("dnsConfig").child("nameservers"), why));
        }
    }
    let config = path.child("dnsConfig");
    let servers = config.child("nameservers");
    for (field, most, what) in [("nameservers", 3, "nameservers"), ("searches", 32, "search paths")] {
        let given = walk::list(&spec["dnsConfig"], field);
        if given.len() > most {
            let why = format!("must not have more than {most} {what}");
            errors.push(FieldError::invalid(&config.child(field), Value::from(given), why));
        }
    }
    for (index, domain) in walk::list(spec, "dnsConfig.searches").iter().filter_map(Value::as_str).enumerate() {
        // A search path may be the root, and end in a dot.
        let bare = domain.strip_suffix('.').unwrap_or(domain);
        if !bare.is_empty() {
            rules::named(errors, bare, &config.child("searches").index(index), names::dns_subdomain);
        }
    }
    for (index, option) in walk::list(spec, "dnsConfig.options").iter().enumerate() {
        if walk::text(option, "name").is_none() {
            let path = config.child("options").index(index);
            errors.push(FieldError::required(&path, "must not be empty"));
        }
    }
    for (index, server) in walk::list(spec, "dnsConfig.nameservers").iter().enumerate() {
        if server.as_str().is_none_or(|server| server.parse::<std::net::IpAddr>().is_err()) {
            errors.push(FieldError::invalid(&servers.index(index), server.clone(), "must be a valid IP address"));
        }
    }
}

/// What is wrong with the tolerations of a pod, or of all pods of a class.
pub(crate) fn tolerations(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    for (index, toleration) in walk::list(spec, "tolerations").iter().enumerate() {
        let path = path.index(index);
        let key = walk::text(toleration, "key");
        if let Some(key) = key {
            let problems = names::qualified_name(key);
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("key"), key, why)));
        }
        walk::one_of(errors, toleration, "operator", &path, &["Equal", "Exists", "Gt", "Lt"]);
        walk::one_of(errors, toleration, "effect", &path, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        let exists = toleration["operator"] == "Exists";
        if key.is_none() && !exists {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            let operator = walk::text(toleration, "operator").unwrap_or_default();
            errors.push(FieldError::invalid(&path.child("operator"), operator, why));
        }
        if exists && walk::text(toleration, "value").is_some() {
            let why = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&path.child("operator"), toleration["value"].clone(), why));
        }
        if walk::at(toleration, "tolerationSeconds").is_some() && toleration["effect"] != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            let effect = walk::text(toleration, "effect").unwrap_or_default();
            errors.push(FieldError::invalid(&path.child("effect"), effect, why));
        }
    }
}
