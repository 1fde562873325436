//! Defaults of pod specs.

use serde_json::{Value, json};

use crate::walk::{self, default, each_mut};

/// Defaults of a pod spec, in a Pod or in a template.
pub(crate) fn default_spec(spec: &mut Value) {
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "restartPolicy", "Always");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "securityContext", json!({}));
    // The old name of the field stays readable.
    if let Some(account) =
        walk::text(spec, "serviceAccountName").or_else(|| walk::text(spec, "serviceAccount")).map(str::to_owned)
    {
        default(spec, "serviceAccountName", account.clone());
        spec["serviceAccount"] = account.into();
    }
    let host_network = spec["hostNetwork"] == true;
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in each_mut(spec, list) {
            default_container(container, host_network);
        }
    }
    for volume in each_mut(spec, "volumes") {
        default_volume(volume);
    }
}

/// Defaults that a Pod has and a template has not: requests out of limits, and what admission adds.
pub(crate) fn default_pod_only(spec: &mut Value) {
    default(spec, "enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        for container in each_mut(spec, list) {
            let Some(limits) = walk::at(container, "resources.limits").and_then(Value::as_object).cloned() else {
                continue;
            };
            let requests = walk::map_at(&mut container["resources"], "requests");
            for (name, limit) in limits {
                requests.entry(name).or_insert(limit);
            }
        }
    }
    super::resources::default_requests(spec);
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        tolerate_for_a_while(spec, key);
    }
}

/// Pods survive five minutes on a node that is not well, unless they say otherwise.
fn tolerate_for_a_while(spec: &mut Value, key: &str) {
    let tolerated = walk::list(spec, "tolerations").iter().any(|toleration| {
        let any_key = walk::text(toleration, "key").is_none_or(|given| given == key);
        let any_effect = walk::text(toleration, "effect").is_none_or(|effect| effect == "NoExecute");
        any_key && any_effect
    });
    if !tolerated {
        let mut tolerations = walk::list(spec, "tolerations").to_vec();
        tolerations.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}));
        spec["tolerations"] = tolerations.into();
    }
}

fn default_container(container: &mut Value, host_network: bool) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    let policy = if is_latest(walk::text(container, "image").unwrap_or_default()) { "Always" } else { "IfNotPresent" };
    default(container, "imagePullPolicy", policy);
    for port in each_mut(container, "ports") {
        default(port, "protocol", "TCP");
        if host_network && walk::number(port, "hostPort") == 0 {
            port["hostPort"] = port["containerPort"].clone();
        }
    }
    for variable in each_mut(container, "env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(name).filter(|probe| probe.is_object()) {
            for (field, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                if walk::number(probe, field) == 0 {
                    probe[field] = value.into();
                }
            }
            default_http(probe.get_mut("httpGet"));
        }
    }
    for hook in ["/lifecycle/postStart/httpGet", "/lifecycle/preStop/httpGet"] {
        default_http(container.pointer_mut(hook));
    }
}

fn default_http(action: Option<&mut Value>) {
    if let Some(action) = action.filter(|action| action.is_object()) {
        default(action, "path", "/");
        default(action, "scheme", "HTTP");
    }
}

/// Whether an image is named with the tag `latest`, or with neither tag nor digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_volume(volume: &mut Value) {
    let Some(object) = volume.as_object_mut() else { return };
    if !object.keys().any(|key| key != "name") {
        object.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object.get_mut(source) {
            default(source, "defaultMode", 0o644);
        }
    }
    if let Some(path) = object.get_mut("hostPath") {
        // An empty type is a type of its own: no check.
        if path.get("type").is_none() {
            path["type"] = "".into();
        }
    }
    if let Some(api) = object.get_mut("downwardAPI") {
        default_field_refs(api);
    }
    if let Some(projected) = object.get_mut("projected") {
        for source in each_mut(projected, "sources") {
            if let Some(token) = source.get_mut("serviceAccountToken") {
                default(token, "expirationSeconds", 3600);
            }
            if let Some(api) = source.get_mut("downwardAPI") {
                default_field_refs(api);
            }
        }
    }
}

fn default_field_refs(source: &mut Value) {
    for item in each_mut(source, "items") {
        if let Some(field) = item.get_mut("fieldRef") {
            default(field, "apiVersion", "v1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_pulled_always_if_its_tag_may_move() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.27", false),
            ("registry.example.com:5000/nginx", true),
            ("registry.example.com:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
