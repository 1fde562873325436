//! What the scheduler knows of nodes and pods.

use std::collections::{BTreeMap, HashMap};

use object_model::{Quantity, meta};
use serde_json::Value;

use crate::Volumes;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Thousandths of a CPU.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes.
    pub ephemeral_storage: i64,
    /// Pods.
    pub pods: i64,
    /// Everything else, by name.
    pub other: BTreeMap<String, i64>,
}

impl Amounts {
    /// Reads a map of quantities.
    pub fn of(map: &Value) -> Self {
        let mut amounts = Self::default();
        for (name, text) in meta::strings(map) {
            let Ok(quantity) = text.parse::<Quantity>() else { continue };
            match name {
                "cpu" => amounts.milli_cpu = quantity.milli_value(),
                "memory" => amounts.memory = quantity.value(),
                "ephemeral-storage" => amounts.ephemeral_storage = quantity.value(),
                "pods" => amounts.pods = quantity.value(),
                other => {
                    amounts.other.insert(other.to_owned(), quantity.value());
                }
            }
        }
        amounts
    }

    fn combine(&mut self, other: &Self, with: impl Fn(i64, i64) -> i64) {
        self.milli_cpu = with(self.milli_cpu, other.milli_cpu);
        self.memory = with(self.memory, other.memory);
        self.ephemeral_storage = with(self.ephemeral_storage, other.ephemeral_storage);
        self.pods = with(self.pods, other.pods);
        for (name, amount) in &other.other {
            let mine = self.other.entry(name.clone()).or_insert(0);
            *mine = with(*mine, *amount);
        }
    }

    fn add(&mut self, other: &Self) {
        self.combine(other, |a, b| a + b);
    }

    fn subtract(&mut self, other: &Self) {
        self.combine(other, |a, b| a - b);
    }
}

/// A port on the node's own addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    ip: String,
    protocol: String,
    port: i64,
}

impl HostPort {
    /// Whether both cannot be had at once: an unset address is every address.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

/// A taint of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

/// What of a pod matters for its place.
#[derive(Debug, Clone)]
pub struct PodInfo {
    /// What it requests.
    pub requests: Amounts,
    /// Labels its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// `spec.affinity.nodeAffinity`.
    pub node_affinity: Value,
    /// Ports it wants on the node.
    pub ports: Vec<HostPort>,
    /// Its volumes. They are not in the pod: whoever follows claims and volumes fills them in.
    pub volumes: Volumes,
    tolerations: Value,
}

impl PodInfo {
    /// Reads a pod.
    pub fn of(pod: &Value) -> Self {
        let spec = &pod["spec"];
        let containers = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
        let host_network = spec["hostNetwork"].as_bool().unwrap_or(false);
        let text = |v: &Value, default: &str| v.as_str().unwrap_or(default).to_owned();
        let ports = containers("containers")
            .iter()
            .flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default())
            .filter_map(|p| {
                let port = p["hostPort"].as_i64().filter(|p| *p > 0);
                let port = if host_network { port.or(p["containerPort"].as_i64()) } else { port }?;
                Some(HostPort { ip: text(&p["hostIP"], ""), protocol: text(&p["protocol"], "TCP"), port })
            })
            .collect();
        let affinity = &spec["affinity"]["nodeAffinity"];
        Self {
            requests: requests(spec),
            node_selector: meta::strings(&spec["nodeSelector"])
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect(),
            node_affinity: affinity.clone(),
            ports,
            volumes: Volumes::default(),
            tolerations: spec["tolerations"].clone(),
        }
    }

    /// Whether the pod tolerates a taint (upstream's rule: an empty key with Exists tolerates all, an empty effect each).
    pub fn tolerates(&self, key: &str, value: &str, effect: &str) -> bool {
        self.tolerations.as_array().into_iter().flatten().any(|t| {
            let field = |name: &str| t[name].as_str().unwrap_or_default();
            let exists = field("operator") == "Exists";
            (field("effect").is_empty() || field("effect") == effect)
                && (field("key") == key || (field("key").is_empty() && exists))
                && (exists || field("value") == value)
        })
    }
}

/// What a pod requests: the sum of its containers, or the most an init container needs beside the sidecars started before.
fn requests(spec: &Value) -> Amounts {
    let of = |c: &Value| Amounts::of(&c["resources"]["requests"]);
    let max = |a: i64, b: i64| a.max(b);
    let mut total = Amounts::default();
    for container in spec["containers"].as_array().into_iter().flatten() {
        total.add(&of(container));
    }
    let (mut sidecars, mut init) = (Amounts::default(), Amounts::default());
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            sidecars.add(&own);
            init.combine(&sidecars, max);
        } else {
            let mut together = sidecars.clone();
            together.add(&own);
            init.combine(&together, max);
        }
    }
    total.add(&sidecars);
    total.combine(&init, max);
    // What the pod asks for as a whole is never less than what its containers ask for.
    total.combine(&Amounts::of(&spec["resources"]["requests"]), max);
    total.add(&Amounts::of(&spec["overhead"]));
    total
}

/// A node and what runs there.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Whether it is cordoned.
    pub unschedulable: bool,
    /// What it has for pods.
    pub allocatable: Amounts,
    /// What its pods request, and their number.
    pub requested: Amounts,
    used_ports: HashMap<String, Vec<HostPort>>,
}

impl NodeInfo {
    /// The ports its pods have on it.
    pub fn ports(&self) -> impl Iterator<Item = &HostPort> {
        self.used_ports.values().flatten()
    }
}

/// All nodes and the pods on them.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeInfo>,
    /// Node, requests and ports of each placed pod by uid.
    pods: HashMap<String, (String, Amounts, Vec<HostPort>)>,
}

impl Snapshot {
    /// Takes in a node, new or changed.
    pub fn set_node(&mut self, node: &Value) {
        let name = meta::name(node).to_owned();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        let mut info = NodeInfo {
            name: name.clone(),
            labels: meta::labels(node).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            taints: taints
                .map(|t| Taint { key: text(&t["key"]), value: text(&t["value"]), effect: text(&t["effect"]) })
                .collect(),
            unschedulable: node["spec"]["unschedulable"].as_bool().unwrap_or(false),
            allocatable: Amounts::of(&node["status"]["allocatable"]),
            ..NodeInfo::default()
        };
        for (uid, (_, requests, ports)) in self.pods.iter().filter(|(_, (on, ..))| *on == name) {
            occupy(&mut info, uid, requests, ports);
        }
        self.nodes.insert(name, info);
    }

    /// Forgets a node.
    pub fn forget_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Takes in a pod that has a node; one that has ended needs no room any more.
    pub fn set_pod(&mut self, pod: &Value) {
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        if node.is_empty() || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
            self.forget_pod(meta::uid(pod));
        } else {
            self.assume(meta::uid(pod), &PodInfo::of(pod), node);
        }
    }

    /// Counts a pod for a node, before or after the API says so.
    pub fn assume(&mut self, uid: &str, pod: &PodInfo, node: &str) {
        self.forget_pod(uid);
        if let Some(info) = self.nodes.get_mut(node) {
            occupy(info, uid, &pod.requests, &pod.ports);
        }
        self.pods.insert(uid.to_owned(), (node.to_owned(), pod.requests.clone(), pod.ports.clone()));
    }

    /// Frees what a pod holds. Says whether it held anything.
    pub fn forget_pod(&mut self, uid: &str) -> bool {
        let Some((node, requests, _)) = self.pods.remove(uid) else { return false };
        if let Some(info) = self.nodes.get_mut(&node) {
            info.requested.subtract(&requests);
            info.requested.pods -= 1;
            info.used_ports.remove(uid);
        }
        true
    }
}

fn occupy(node: &mut NodeInfo, uid: &str, requests: &Amounts, ports: &[HostPort]) {
    node.requested.add(requests);
    node.requested.pods += 1;
    if !ports.is_empty() {
        node.used_ports.insert(uid.to_owned(), ports.to_vec());
    }
}
