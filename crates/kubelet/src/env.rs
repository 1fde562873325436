//! The environment of a container: `$(NAME)` expansion and the places where values come from. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use object_model::Quantity;

use crate::view::container as find_container;

/// A ConfigMap or a Secret that a pod names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A ConfigMap of the pod's namespace.
    ConfigMap(String),
    /// A Secret of the pod's namespace.
    Secret(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::ConfigMap(name) => write!(f, "configmap \"{name}\""),
            Source::Secret(name) => write!(f, "secret \"{name}\""),
        }
    }
}

/// The data of the sources; `None` for one that does not exist.
pub type Sources = BTreeMap<Source, Option<BTreeMap<String, Vec<u8>>>>;

/// What the downward API can tell beside the pod object.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The node's name.
    pub node_name: String,
    /// The node's address.
    pub host_ip: String,
    /// The pod's addresses.
    pub pod_ips: Vec<String>,
    /// CPU of the node, in thousandths: the limit of a container without one.
    pub node_cpu_milli: i64,
    /// Memory of the node in bytes.
    pub node_memory: i64,
    /// Variables that tell of Services. They yield to those that the container sets itself.
    pub services: BTreeMap<String, String>,
}

/// Replaces `$(NAME)` by its value; `$$` stands for `$`; what is not defined stays as it is.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => out.push_str(&value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// The ConfigMaps and Secrets that a container's environment needs.
pub fn sources_of(container: &Container) -> BTreeSet<Source> {
    let mut found = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        found.extend(from.config_map_ref.as_ref().map(|reference| Source::ConfigMap(reference.name.clone())));
        found.extend(from.secret_ref.as_ref().map(|reference| Source::Secret(reference.name.clone())));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        found.extend(from.config_map_key_ref.as_ref().map(|reference| Source::ConfigMap(reference.name.clone())));
        found.extend(from.secret_key_ref.as_ref().map(|reference| Source::Secret(reference.name.clone())));
    }
    found
}

/// The environment, in order; a later definition of a name replaces the earlier one. An error is a sentence for people.
pub fn environment(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<(String, String)>, String> {
    let mut values: Vec<(String, String)> = Vec::new();
    fn set(values: &mut Vec<(String, String)>, name: &str, value: String) {
        match values.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => values.push((name.to_owned(), value)),
        }
    }
    let data = |source: &Source, optional: bool| match sources.get(source) {
        Some(Some(data)) => Ok(Some(data)),
        _ if optional => Ok(None),
        _ => Err(format!("{source} not found")),
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (source, optional) = match (&from.config_map_ref, &from.secret_ref) {
            (Some(reference), _) => (Source::ConfigMap(reference.name.clone()), reference.optional),
            (None, Some(reference)) => (Source::Secret(reference.name.clone()), reference.optional),
            (None, None) => continue,
        };
        for (key, value) in data(&source, optional.unwrap_or(false))?.into_iter().flatten() {
            set(&mut values, &format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (None, Some(from)) => {
                if let Some(field) = &from.field_ref {
                    field_value(pod, field, facts)?
                } else if let Some(resource) = &from.resource_field_ref {
                    resource_value(pod, container, resource, facts)?
                } else {
                    let (source, key, optional) = match (&from.config_map_key_ref, &from.secret_key_ref) {
                        (Some(r), _) => (Source::ConfigMap(r.name.clone()), &r.key, r.optional),
                        (None, Some(r)) => (Source::Secret(r.name.clone()), &r.key, r.optional),
                        (None, None) => {
                            return Err(format!("environment variable {} has an unsupported source", var.name));
                        }
                    };
                    let optional = optional.unwrap_or(false);
                    match data(&source, optional)?.and_then(|data| data.get(key)) {
                        Some(value) => String::from_utf8_lossy(value).into_owned(),
                        None if optional => continue,
                        None => {
                            return Err(format!("couldn't find key {key} in {source}"));
                        }
                    }
                }
            }
            (value, _) => {
                let lookup = |name: &str| {
                    let own = values.iter().find(|(known, _)| known == name).map(|(_, value)| value);
                    own.or_else(|| facts.services.get(name)).cloned()
                };
                expand(value.as_deref().unwrap_or_default(), lookup)
            }
        };
        set(&mut values, &var.name, value);
    }
    for (name, value) in &facts.services {
        if !values.iter().any(|(known, _)| known == name) {
            values.push((name.clone(), value.clone()));
        }
    }
    Ok(values)
}

/// A field of the pod, as the downward API names it.
pub fn field_value(pod: &Pod, field: &ObjectFieldSelector, facts: &Facts) -> Result<String, String> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    let all = |map: &Option<BTreeMap<String, String>>| {
        let lines: Vec<String> = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect();
        lines.join("\n")
    };
    let one = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    let path = field.field_path.as_str();
    Ok(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => all(&metadata.labels),
        "metadata.annotations" => all(&metadata.annotations),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => {
            let key = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
            if let Some(key) = key("metadata.labels") {
                one(&metadata.labels, key)
            } else if let Some(key) = key("metadata.annotations") {
                one(&metadata.annotations, key)
            } else {
                return Err(format!("unsupported fieldPath: {path}"));
            }
        }
    })
}

/// A request or limit of a container, divided by the divisor and rounded up.
pub fn resource_value(
    pod: &Pod,
    own: &Container,
    field: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let container = match field.container_name.as_deref() {
        None | Some("") => own,
        Some(name) => find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
    };
    let unsupported = || format!("unsupported container resource: {}", field.resource);
    let (kind, resource) = field.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.clone().unwrap_or_default();
    let map = match kind {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(unsupported()),
    };
    let amount = match map.as_ref().and_then(|map| map.get(resource)) {
        Some(amount) => Some(amount.0.parse::<Quantity>().map_err(|error| error.to_string())?),
        None => None,
    };
    // In thousandths, so that CPU keeps its fractions.
    let milli = match (&amount, kind, resource) {
        (Some(amount), ..) => i128::from(amount.milli_value()),
        (None, "limits", "cpu") => i128::from(facts.node_cpu_milli),
        (None, "limits", "memory") => i128::from(facts.node_memory) * 1000,
        _ => 0,
    };
    let divisor = match &field.divisor {
        Some(divisor) => divisor.0.parse::<Quantity>().map_err(|error| error.to_string())?.milli_value(),
        None => 0,
    };
    let divisor = if divisor <= 0 { 1000 } else { i128::from(divisor) };
    Ok(((milli + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_are_expanded_and_the_rest_stays() {
        let value = |name: &str| (name == "A").then(|| "1".to_owned());
        for (text, expected) in [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$(B)", "$(B)"),
            ("$A $ $( $(A", "$A $ $( $(A"),
            ("$$$(A)", "$1"),
            ("", ""),
        ] {
            assert_eq!(expand(text, value), expected, "{text}");
        }
    }

    #[test]
    fn values_come_from_every_source_in_order() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u", "labels": { "app": "x" } },
            "spec": { "containers": [{ "name": "c",
                "resources": { "limits": { "cpu": "1500m", "memory": "64Mi" } },
                "envFrom": [{ "prefix": "CM_", "configMapRef": { "name": "cm" } }],
                "env": [
                    { "name": "PLAIN", "value": "v" },
                    { "name": "BOTH", "value": "$(PLAIN)-$(CM_key)-$(LATER)" },
                    { "name": "LATER", "value": "l" },
                    { "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } },
                    { "name": "LABEL", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                    { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
                    { "name": "MEM", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
                    { "name": "SECRET", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
                    { "name": "GONE", "valueFrom": { "secretKeyRef": { "name": "none", "key": "k", "optional": true } } }
                ] }] }
        }))
        .unwrap();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let data = |key: &str, value: &str| Some(BTreeMap::from([(key.to_owned(), value.as_bytes().to_vec())]));
        let mut sources = Sources::from([
            (Source::ConfigMap("cm".into()), data("key", "from map")),
            (Source::Secret("s".into()), data("k", "hush")),
        ]);
        let facts = Facts { pod_ips: vec!["10.0.0.9".into()], ..Facts::default() };
        let values = environment(&pod, container, &sources, &facts).unwrap();
        let lines: Vec<String> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
        expect_test::expect![[r#"
            CM_key=from map
            PLAIN=v
            BOTH=v-from map-$(LATER)
            LATER=l
            IP=10.0.0.9
            LABEL=x
            CPU=2
            MEM=64
            SECRET=hush"#]]
        .assert_eq(&lines.join("\n"));
        sources.remove(&Source::Secret("s".into()));
        let error = environment(&pod, container, &sources, &facts).unwrap_err();
        assert_eq!(error, "secret \"s\" not found");
        assert_eq!(sources_of(container).len(), 3);
    }
}
