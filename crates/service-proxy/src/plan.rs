//! Services and EndpointSlices → rules. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use kinds::k8s::api::core::v1::{Pod, Service, ServicePort};
use kinds::k8s::api::discovery::v1::EndpointSlice;

use crate::Config;

/// Seconds for which a client stays with a pod where the Service does not say (upstream's default).
const STICKY_SECONDS: i32 = 10_800;

/// The changing part of the rules. What does not change is in `script`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ruleset {
    /// Rules by chain: one for each port of a Service, one more where it is reached from outside.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets of clients that stay with an endpoint, and for how many seconds.
    pub sticky: BTreeMap<String, i32>,
    /// `address . protocol . port` to what is done with the first packet of a connection.
    pub services: BTreeMap<String, String>,
    /// `protocol . port` at any address of the node.
    pub node_ports: BTreeMap<String, String>,
    /// The same two for Services that nobody is behind: refused, or dropped.
    pub refused: BTreeMap<String, String>,
    pub refused_node_ports: BTreeMap<String, String>,
    /// `address . address` of each pod that may reach itself through a Service.
    pub hairpins: BTreeSet<String>,
    /// Endpoints of UDP ports: the kernel's memory of flows to one that is gone has to be wiped.
    pub udp: BTreeSet<(Ipv4Addr, u16)>,
}

/// An endpoint of one port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Endpoint {
    address: Ipv4Addr,
    port: u16,
    local: bool,
}

fn protocol_of(port: &ServicePort) -> String {
    port.protocol.as_deref().unwrap_or("TCP").to_lowercase()
}

/// The rules for what there is.
pub(crate) fn ruleset<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    config: &Config,
) -> Ruleset {
    let mut behind: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices.into_iter().filter(|slice| slice.address_type == "IPv4") {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        if let Some(name) = name {
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            behind.entry((namespace, name)).or_default().push(slice);
        }
    }
    let mut rules = Ruleset::default();
    for service in services {
        let spec = service.spec.clone().unwrap_or_default();
        let address = spec.cluster_ip.as_deref().and_then(|address| address.parse::<Ipv4Addr>().ok());
        // Headless ones and names of elsewhere are the business of the DNS alone.
        let Some(address) = address.filter(|_| spec.type_.as_deref() != Some("ExternalName")) else { continue };
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let slices = behind.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        for port in spec.ports.iter().flatten() {
            let port =
                Port { service, port, address, id: format!("{namespace}/{name}/{}/{}", protocol_of(port), port.port) };
            port.add(&mut rules, &endpoints(slices, port.port, config));
        }
    }
    rules
}

/// The endpoints of a port: those that are ready; where there are none, those that still serve while they end.
fn endpoints(slices: &[&EndpointSlice], port: &ServicePort, config: &Config) -> Vec<Endpoint> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let same = |p: &&kinds::k8s::api::discovery::v1::EndpointPort| {
            p.name.as_deref().unwrap_or_default() == wanted
                && p.protocol.as_deref().unwrap_or("TCP") == port.protocol.as_deref().unwrap_or("TCP")
        };
        let number = slice.ports.iter().flatten().find(same).and_then(|p| u16::try_from(p.port?).ok());
        let Some(number) = number else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else { continue };
            let local = endpoint.node_name.as_deref() == Some(&config.node_name);
            let one = Endpoint { address, port: number, local };
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            if conditions.ready != Some(false) {
                ready.insert(one);
            } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
                ending.insert(one);
            }
        }
    }
    let chosen = if ready.is_empty() { ending } else { ready };
    chosen.into_iter().collect()
}

/// A port of the node that a container asks for as its own (`hostPort`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// Namespace, name, protocol and number, for the name of the chain.
    id: String,
    /// The only address at which it is asked for; empty for all of the node's.
    at: String,
    protocol: String,
    number: i32,
    address: Ipv4Addr,
    port: i32,
}

/// The host ports of a pod that runs and has an address of its own.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let (Some(spec), Some(status)) = (&pod.spec, &pod.status) else { return Vec::new() };
    let address = status.pod_ip.as_deref().and_then(|address| address.parse().ok());
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    let Some(address) = address.filter(|_| !over && spec.host_network != Some(true)) else { return Vec::new() };
    let place = |text: &Option<String>| text.clone().unwrap_or_default();
    let sidecars = spec.init_containers.iter().flatten().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let asked = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
        let at = port.host_ip.clone().filter(|at| at != "0.0.0.0").unwrap_or_default();
        let id = format!("{}/{}/{protocol}/{number}", place(&pod.metadata.namespace), place(&pod.metadata.name));
        Some(HostPort { id, at, protocol, number, address, port: port.container_port })
    });
    asked.collect()
}

impl Ruleset {
    /// Adds the host ports of pods. A port that a Service has already stays the Service's.
    pub fn add_host_ports<'a>(&mut self, ports: impl IntoIterator<Item = &'a HostPort>) {
        for port in ports {
            let HostPort { id, at, protocol, number, address, port } = port;
            let chain = format!("host-{id}");
            let target = format!("goto {chain}");
            if at.is_empty() {
                self.node_ports.entry(format!("{protocol} . {number}")).or_insert(target);
            } else if at.parse::<Ipv4Addr>().is_ok() {
                self.services.entry(format!("{at} . {protocol} . {number}")).or_insert(target);
            } else {
                continue;
            }
            self.chains.insert(chain, vec![format!("meta l4proto {protocol} dnat ip to {address}:{port}")]);
            self.hairpins.insert(format!("{address} . {address}"));
        }
    }
}

/// One port of one Service.
struct Port<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    address: Ipv4Addr,
    id: String,
}

impl Port<'_> {
    fn add(&self, rules: &mut Ruleset, endpoints: &[Endpoint]) {
        let spec = self.service.spec.clone().unwrap_or_default();
        let protocol = protocol_of(self.port);
        if protocol == "udp" {
            rules.udp.extend(endpoints.iter().map(|endpoint| (endpoint.address, endpoint.port)));
        }
        for endpoint in endpoints {
            rules.hairpins.insert(format!("{0} . {0}", endpoint.address));
        }
        let key = |address: &str| format!("{address} . {protocol} . {}", self.port.port);
        let local: Vec<Endpoint> = endpoints.iter().filter(|endpoint| endpoint.local).cloned().collect();
        // Traffic from inside.
        let inside_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        let inside = if inside_local { &local[..] } else { endpoints };
        let refusal = |all: &[Endpoint]| if all.is_empty() { "goto refuse" } else { "drop" };
        let chain = format!("svc-{}", self.id);
        let inside_key = key(&self.address.to_string());
        if inside.is_empty() {
            rules.refused.insert(inside_key, refusal(endpoints).to_owned());
        } else {
            let spread = self.spread(rules, inside);
            rules.chains.insert(chain.clone(), spread);
            rules.services.insert(inside_key, format!("goto {chain}"));
        }
        // Traffic from outside: at other addresses, and at the node's ports.
        let balanced: Vec<String> = self.balanced();
        let others: Vec<String> = spec.external_ips.clone().unwrap_or_default();
        let node_port = self.port.node_port.filter(|number| *number > 0);
        if balanced.is_empty() && others.is_empty() && node_port.is_none() {
            return;
        }
        let outside_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let outside = if outside_local { &local[..] } else { endpoints };
        let node_key = node_port.map(|number| format!("{protocol} . {number}"));
        if outside.is_empty() {
            let refusal = refusal(endpoints).to_owned();
            for address in balanced.iter().chain(&others) {
                rules.refused.insert(key(address), refusal.clone());
            }
            rules.refused_node_ports.extend(node_key.map(|key| (key, refusal)));
            return;
        }
        let external = format!("ext-{}", self.id);
        let steps = if outside_local {
            self.spread(rules, outside)
        } else if inside_local {
            let mut steps = vec![MARK.to_owned()];
            steps.extend(self.spread(rules, outside));
            steps
        } else {
            // The source is rewritten only where the packet leaves for another node, whose answer would not come back here.
            vec![MARK.to_owned(), format!("goto {chain}")]
        };
        rules.chains.insert(external.clone(), steps);
        for address in &others {
            rules.services.insert(key(address), format!("goto {external}"));
        }
        rules.node_ports.extend(node_key.map(|key| (key, format!("goto {external}"))));
        let ranges = spec.load_balancer_source_ranges.unwrap_or_default();
        let ranges: Vec<&str> = ranges.iter().map(|range| range.trim()).collect();
        let entry = if ranges.is_empty() || balanced.is_empty() {
            external
        } else {
            let guard = format!("lb-{}", self.id);
            let allowed = format!("ip saddr != {{ {} }} drop", ranges.join(", "));
            rules.chains.insert(guard.clone(), vec![allowed, format!("goto {external}")]);
            guard
        };
        for address in &balanced {
            rules.services.insert(key(address), format!("goto {entry}"));
        }
    }

    /// The addresses that a load balancer has given.
    fn balanced(&self) -> Vec<String> {
        let status = self.service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let given = status.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
        let given = given.filter(|one| one.ip_mode.as_deref().unwrap_or("VIP") == "VIP");
        given.filter_map(|one| one.ip.clone()).filter(|ip| ip.parse::<Ipv4Addr>().is_ok()).collect()
    }

    /// Rules that send each new connection to one of the endpoints.
    fn spread(&self, rules: &mut Ruleset, endpoints: &[Endpoint]) -> Vec<String> {
        let spec = self.service.spec.clone().unwrap_or_default();
        let protocol = protocol_of(self.port);
        let number = endpoints.len();
        if spec.session_affinity.as_deref() != Some("ClientIP") {
            let all: Vec<String> = (endpoints.iter().enumerate())
                .map(|(index, endpoint)| format!("{index} : {} . {}", endpoint.address, endpoint.port))
                .collect();
            let all = all.join(", ");
            return vec![format!("meta l4proto {protocol} dnat ip to numgen random mod {number} map {{ {all} }}")];
        }
        let seconds = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
        let seconds = seconds.unwrap_or(STICKY_SECONDS);
        let mut steps = Vec::new();
        let mut verdicts = Vec::new();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let place = format!("{}/{}/{}", self.id, endpoint.address, endpoint.port);
            let (chain, set) = (format!("ep-{place}"), format!("sticky-{place}/{seconds}"));
            steps.push(format!("ip saddr @{set} goto {chain}"));
            verdicts.push(format!("{index} : goto {chain}"));
            let remember = format!("update @{set} {{ ip saddr }}");
            let send = format!("meta l4proto {protocol} dnat ip to {}:{}", endpoint.address, endpoint.port);
            rules.chains.insert(chain, vec![remember, send]);
            rules.sticky.insert(set, seconds);
        }
        steps.push(format!("numgen random mod {number} vmap {{ {} }}", verdicts.join(", ")));
        steps
    }
}

/// Marks a packet whose source is rewritten if it leaves this node for a pod of another.
const MARK: &str = "meta mark set meta mark | 0x4000";
