//! The pods behind a Service, and the ports at which they are reached: what both forms of endpoints are made from. Pure.

use object_model::{LabelSelector, meta};
use serde_json::{Value, json};

use crate::{Key, Object, Objects, PODS, SERVICES};

/// A port of a Service as one pod offers it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub name: String,
    pub protocol: String,
    pub number: i64,
    pub app_protocol: Option<String>,
}

/// A pod behind a Service.
pub(crate) struct Backend {
    pub address: String,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub hostname: Option<String>,
    pub node: Option<String>,
    pub ports: Vec<Port>,
    pub target: Value,
}

/// Whether the control plane keeps endpoints for this Service: not for names of elsewhere, nor where there is no selector
/// and somebody else says who is behind it.
pub(crate) fn is_selecting(service: &Value) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| !selector.is_empty()) && service["spec"]["type"] != "ExternalName"
}

fn selector(service: &Value) -> Option<LabelSelector> {
    is_selecting(service)
        .then(|| LabelSelector::from_object(&json!({"matchLabels": service["spec"]["selector"]})).ok())
        .flatten()
}

/// The Services that a change of a pod concerns.
pub(crate) fn services_of(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    let services = objects.list(SERVICES, meta::namespace(pod));
    let selecting = services.iter().filter(|s| selector(&s.object).is_some_and(|l| l.matches_object(pod)));
    selecting.map(|service| (service.namespace.clone(), service.name.clone())).collect()
}

/// A headless Service has no address of its own.
pub(crate) fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

/// The number of a port that a Service names by the name of a port of the pod's containers.
fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<i64> {
    let main = pod["spec"]["containers"].as_array().into_iter().flatten();
    // Sidecars serve, too.
    let init = pod["spec"]["initContainers"].as_array().into_iter().flatten();
    let containers = main.chain(init.filter(|container| container["restartPolicy"] == "Always"));
    let mut ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let fits = |port: &&Value| port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol;
    ports.find(fits).and_then(|port| port["containerPort"].as_i64())
}

/// The ports of a Service at a pod; those whose name the pod does not know are left out.
fn ports(service: &Value, pod: &Value) -> Vec<Port> {
    let wanted = service["spec"]["ports"].as_array().into_iter().flatten();
    let found = wanted.filter_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::String(name) => named_port(pod, name, protocol)?,
            target => target.as_i64().or_else(|| port["port"].as_i64())?,
        };
        Some(Port {
            name: port["name"].as_str().unwrap_or_default().to_owned(),
            protocol: protocol.to_owned(),
            number,
            app_protocol: port["appProtocol"].as_str().map(str::to_owned),
        })
    });
    found.collect()
}

/// The pods behind a Service that have an address and may still serve, in the order of their names.
pub(crate) fn backends(service: &Value, objects: &dyn Objects) -> Vec<Backend> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let publish = service["spec"]["publishNotReadyAddresses"] == true;
    let pods: Vec<Object> = objects.list(PODS, meta::namespace(service));
    let behind = pods.iter().filter(|pod| selector.matches_object(&pod.object));
    let backends = behind.filter_map(|cached| {
        let pod = &cached.object;
        // On a node whose only address is that of loopback, pods in its network cannot be endpoints: none may be loopback.
        let address = pod["status"]["podIP"]
            .as_str()
            .filter(|address| address.parse::<std::net::IpAddr>().is_ok_and(|address| !address.is_loopback()))?;
        if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let terminating = meta::deletion_timestamp(pod).is_some();
        let serving = is_ready(pod);
        let hostname = pod["spec"]["hostname"].as_str().filter(|_| pod["spec"]["subdomain"] == meta::name(service));
        Some(Backend {
            address: address.to_owned(),
            ready: publish || (serving && !terminating),
            serving: publish || serving,
            terminating,
            hostname: hostname.map(str::to_owned),
            node: pod["spec"]["nodeName"].as_str().map(str::to_owned),
            ports: ports(service, pod),
            target: json!({
                "kind": "Pod", "namespace": cached.namespace, "name": cached.name, "uid": cached.uid,
            }),
        })
    });
    backends.collect()
}

/// What to tell a person about a Service that reaches no pod although some match: a port's name that none of them has.
pub(crate) fn unknown_ports(service: &Value, backends: &[Backend]) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let unknown = ports.iter().find(|port| {
        let name = port["name"].as_str().unwrap_or_default();
        port["targetPort"].is_string()
            && !backends.is_empty()
            && backends.iter().all(|backend| backend.ports.iter().all(|known| known.name != name))
    })?;
    let (number, target) = (&unknown["port"], unknown["targetPort"].as_str().unwrap_or_default());
    Some(format!("port {number}: no container of the selected pods has a port that is named {target:?}"))
}

/// The owner that makes what belongs to a Service go with it.
pub(crate) fn owner_of(service: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "name": meta::name(service), "uid": meta::uid(service),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Labels of a Service that its endpoints carry as well, with those of their controller.
pub(crate) fn labels_of(service: &Value, own: &[(&str, &str)]) -> Value {
    let mut labels = json!({});
    for (key, value) in meta::labels(service) {
        labels[key] = value.into();
    }
    for (key, value) in own {
        labels[*key] = (*value).into();
    }
    if is_headless(service) {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    labels
}
