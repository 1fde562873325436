//! The names of the cluster, and what is known of each. Pure.
//!
//! After Kubernetes' DNS-Based Service Discovery, version 1.1.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use kinds::k8s::api::core::v1::Service;
use kinds::k8s::api::discovery::v1::{Endpoint, EndpointSlice};

/// What a name stands for. Names are in lower case and have no dot at their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address(Ipv4Addr),
    Service { port: u16, target: String },
    Alias(String),
    Name(String),
    Text(&'static str),
}

/// The kinds of question that the cluster's names can answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Address,
    Service,
    Name,
    Text,
    Alias,
    Any,
    Other,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// These, all of the name that was asked for.
    Found(Vec<Data>),
    /// The name is another name for this one.
    Alias(String),
    /// The name exists and has nothing of this kind.
    Empty,
    /// The name does not exist.
    NoSuchName,
    /// The name is not of the cluster.
    Elsewhere,
}

/// An IPv4 range: its first address and the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub network: Ipv4Addr,
    /// How many bits all its addresses share.
    pub prefix: u8,
}

impl Range {
    fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(address) & mask == u32::from(self.network) & mask
    }
}

/// Everything the cluster has a name for.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    domain: String,
    ranges: Vec<Range>,
    records: HashMap<String, Vec<Data>>,
    /// Names that exist because others lie below them.
    above: HashSet<String>,
}

impl Zone {
    /// The zone of a cluster with these Services. Addresses in `ranges` have names here or nowhere.
    pub fn new<'a>(
        domain: &str,
        ranges: &[Range],
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
    ) -> Self {
        let mut zone = Self { domain: domain.to_owned(), ranges: ranges.to_vec(), ..Self::default() };
        zone.add(format!("dns-version.{domain}"), Data::Text("1.1.0"));
        for empty in ["svc", "pod"] {
            zone.above.insert(format!("{empty}.{domain}"));
        }
        let mut behind: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in slices.into_iter().filter(|slice| slice.address_type == "IPv4") {
            let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
            if let Some(name) = name {
                behind.entry((slice.metadata.namespace.as_deref().unwrap_or_default(), name)).or_default().push(slice);
            }
        }
        for service in services {
            let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
            let name = service.metadata.name.as_deref().unwrap_or_default();
            zone.add_service(service, behind.get(&(namespace, name)).map_or(&[][..], Vec::as_slice));
        }
        zone
    }

    fn add(&mut self, name: String, data: Data) {
        let mut above = name.as_str();
        while let Some((_, parent)) = above.split_once('.')
            && parent.len() >= self.domain.len()
            && self.above.insert(parent.to_owned())
        {
            above = parent;
        }
        let all = self.records.entry(name).or_default();
        if !all.contains(&data) {
            all.push(data);
        }
    }

    fn add_service(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let spec = service.spec.clone().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let own = format!("{name}.{namespace}.svc.{}", self.domain);
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.unwrap_or_default();
            self.add(own, Data::Alias(target.trim_end_matches('.').to_lowercase()));
            return;
        }
        let address = spec.cluster_ip.as_deref().and_then(|address| address.parse::<Ipv4Addr>().ok());
        if let Some(address) = address {
            self.add(own.clone(), Data::Address(address));
            self.add(reverse(address), Data::Name(own.clone()));
            for port in spec.ports.iter().flatten() {
                let record = Data::Service { port: u16::try_from(port.port).unwrap_or(0), target: own.clone() };
                if let Some(label) = port_label(port.name.as_deref(), port.protocol.as_deref()) {
                    self.add(format!("{label}.{own}"), record);
                }
            }
        } else {
            // A headless service exists also while nobody is behind it.
            self.above.insert(own.clone());
            self.above.insert(format!("{namespace}.svc.{}", self.domain));
        }
        for slice in slices {
            for endpoint in slice.endpoints.iter().flatten() {
                let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false);
                let Some(at) = endpoint.addresses.first().and_then(|at| at.parse::<Ipv4Addr>().ok()) else { continue };
                if ready {
                    self.add_endpoint(&own, address.is_none(), slice, endpoint, at);
                }
            }
        }
    }

    fn add_endpoint(&mut self, own: &str, headless: bool, slice: &EndpointSlice, endpoint: &Endpoint, at: Ipv4Addr) {
        let label = endpoint.hostname.clone().unwrap_or_else(|| at.to_string().replace('.', "-"));
        let member = format!("{label}.{own}");
        self.add(member.clone(), Data::Address(at));
        if endpoint.hostname.is_some() {
            self.add(reverse(at), Data::Name(member.clone()));
        }
        if !headless {
            return;
        }
        self.add(own.to_owned(), Data::Address(at));
        for port in slice.ports.iter().flatten() {
            let number = port.port.and_then(|number| u16::try_from(number).ok());
            let (Some(label), Some(port)) = (port_label(port.name.as_deref(), port.protocol.as_deref()), number) else {
                continue;
            };
            self.add(format!("{label}.{own}"), Data::Service { port, target: member.clone() });
        }
    }

    /// The answer to a question about a name, in lower case and without a dot at its end.
    pub fn answer(&self, name: &str, kind: Kind) -> Answer {
        if let Some(all) = self.records.get(name) {
            if let Some(Data::Alias(target)) = all.first()
                && kind != Kind::Alias
            {
                return Answer::Alias(target.clone());
            }
            let found: Vec<Data> = all.iter().filter(|data| fits(data, kind)).cloned().collect();
            return if found.is_empty() { Answer::Empty } else { Answer::Found(found) };
        }
        if self.above.contains(name) || name == self.domain {
            return Answer::Empty;
        }
        if let Some(rest) = name.strip_suffix(&self.domain).and_then(|rest| rest.strip_suffix('.')) {
            return match pod_address(rest) {
                Some(address) if matches!(kind, Kind::Address | Kind::Any) => {
                    Answer::Found(vec![Data::Address(address)])
                }
                Some(_) => Answer::Empty,
                None => Answer::NoSuchName,
            };
        }
        match forward(name) {
            Some(address) if self.ranges.iter().any(|range| range.contains(address)) => Answer::NoSuchName,
            _ => Answer::Elsewhere,
        }
    }
}

fn fits(data: &Data, kind: Kind) -> bool {
    kind == Kind::Any
        || matches!(
            (data, kind),
            (Data::Address(_), Kind::Address)
                | (Data::Service { .. }, Kind::Service)
                | (Data::Name(_), Kind::Name)
                | (Data::Text(_), Kind::Text)
                | (Data::Alias(_), Kind::Alias)
        )
}

/// `_http._tcp`; a port without a name has none here either.
fn port_label(name: Option<&str>, protocol: Option<&str>) -> Option<String> {
    let name = name.filter(|name| !name.is_empty())?;
    Some(format!("_{name}._{}", protocol.unwrap_or("TCP").to_lowercase()))
}

/// The address in `10-42-0-7.default.pod`.
fn pod_address(rest: &str) -> Option<Ipv4Addr> {
    let (label, place) = rest.strip_suffix(".pod")?.split_once('.')?;
    (!place.is_empty() && !place.contains('.')).then(|| label.replace('-', ".").parse().ok())?
}

/// `7.0.42.10.in-addr.arpa`
fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// The address of a name below `in-addr.arpa`.
fn forward(name: &str) -> Option<Ipv4Addr> {
    let labels: Vec<&str> = name.strip_suffix(".in-addr.arpa")?.split('.').rev().collect();
    labels.join(".").parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn zone() -> Zone {
        let service = |name: &str, spec: Value| {
            let object = json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec});
            kinds::typed::service_from_value(object).expect("a service")
        };
        let services = [
            service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}]})),
            service("db", json!({"clusterIP": "None"})),
            service("nobody", json!({"clusterIP": "None"})),
            service("away", json!({"type": "ExternalName", "externalName": "Example.com."})),
        ];
        let slice = json!({"metadata": {"name": "x", "namespace": "d", "labels": {"kubernetes.io/service-name": "db"}},
        "addressType": "IPv4", "ports": [{"name": "pg", "port": 5432, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.42.0.2"], "conditions": {"ready": true}, "hostname": "db-0"},
            {"addresses": ["10.42.0.3"], "conditions": {"ready": true}},
            {"addresses": ["10.42.0.4"], "conditions": {"ready": false}},
        ]});
        let slice = kinds::typed::endpoint_slice_from_value(slice).expect("a slice");
        let range = Range { network: Ipv4Addr::new(10, 96, 0, 0), prefix: 16 };
        Zone::new("cluster.local", &[range], &services, [&slice])
    }

    #[test]
    fn names_have_what_the_specification_says() {
        let zone = zone();
        let address = |text: &str| Data::Address(text.parse().expect("an address"));
        let found = |all: Vec<Data>| Answer::Found(all);
        let service = |port, target: &str| Data::Service { port, target: target.to_owned() };
        for (name, kind, expected) in [
            ("web.d.svc.cluster.local", Kind::Address, found(vec![address("10.96.0.5")])),
            ("web.d.svc.cluster.local", Kind::Other, Answer::Empty),
            ("_http._tcp.web.d.svc.cluster.local", Kind::Service, found(vec![service(80, "web.d.svc.cluster.local")])),
            ("_tcp.web.d.svc.cluster.local", Kind::Service, Answer::Empty),
            ("5.0.96.10.in-addr.arpa", Kind::Name, found(vec![Data::Name("web.d.svc.cluster.local".to_owned())])),
            ("6.0.96.10.in-addr.arpa", Kind::Name, Answer::NoSuchName),
            ("6.0.0.1.in-addr.arpa", Kind::Name, Answer::Elsewhere),
            ("db.d.svc.cluster.local", Kind::Address, found(vec![address("10.42.0.2"), address("10.42.0.3")])),
            ("db-0.db.d.svc.cluster.local", Kind::Address, found(vec![address("10.42.0.2")])),
            ("10-42-0-3.db.d.svc.cluster.local", Kind::Address, found(vec![address("10.42.0.3")])),
            ("2.0.42.10.in-addr.arpa", Kind::Name, found(vec![Data::Name("db-0.db.d.svc.cluster.local".to_owned())])),
            (
                "_pg._tcp.db.d.svc.cluster.local",
                Kind::Service,
                found(vec![
                    service(5432, "db-0.db.d.svc.cluster.local"),
                    service(5432, "10-42-0-3.db.d.svc.cluster.local"),
                ]),
            ),
            ("nobody.d.svc.cluster.local", Kind::Address, Answer::Empty),
            ("away.d.svc.cluster.local", Kind::Address, Answer::Alias("example.com".to_owned())),
            ("typo.d.svc.cluster.local", Kind::Address, Answer::NoSuchName),
            ("d.svc.cluster.local", Kind::Address, Answer::Empty),
            ("e.svc.cluster.local", Kind::Address, Answer::NoSuchName),
            ("cluster.local", Kind::Address, Answer::Empty),
            ("10-42-0-9.d.pod.cluster.local", Kind::Address, found(vec![address("10.42.0.9")])),
            ("x.d.pod.cluster.local", Kind::Address, Answer::NoSuchName),
            ("example.com", Kind::Address, Answer::Elsewhere),
            ("notcluster.local", Kind::Address, Answer::Elsewhere),
        ] {
            assert_eq!(zone.answer(name, kind), expected, "{name} {kind:?}");
        }
    }
}
