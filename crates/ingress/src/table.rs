//! Ingresses, and what they name → a table of routes. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use kinds::k8s::api::core::v1::{Secret, Service, ServicePort};
use kinds::k8s::api::discovery::v1::EndpointSlice;
use kinds::k8s::api::networking::v1::{Ingress, IngressBackend, IngressClass};
use kinds::k8s::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rustls::sign::CertifiedKey;

use crate::tls;

/// The controller that classes of ours name.
pub(crate) const CONTROLLER: &str = "knarr/ingress";
/// The annotation that named the class before there was a field; it names a class as well.
const OLD_CLASS: &str = "kubernetes.io/ingress.class";

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What is there.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub ingresses: Vec<Ingress>,
    pub classes: Vec<IngressClass>,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub secrets: Vec<Secret>,
}

/// Something an Ingress names that is not so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Problem {
    pub ingress: Key,
    pub reason: &'static str,
    pub message: String,
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    /// `namespace/service:port`, for people.
    pub name: String,
    /// The endpoints that are ready.
    pub endpoints: Vec<SocketAddr>,
}

/// A path of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    exact: bool,
    /// Without a slash at its end, unless it is exact.
    path: String,
    backend: Backend,
}

/// The routes.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// Rules by host; those of `*.example.com` by `.example.com`, those of no host by the empty name.
    hosts: HashMap<String, Vec<Rule>>,
    default: Option<Backend>,
    /// Certificates by host, in the same way.
    certificates: HashMap<String, Arc<CertifiedKey>>,
    pub problems: BTreeSet<Problem>,
    /// The Ingresses that are served.
    pub served: Vec<Key>,
}

fn key_of(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// The name under which a host stands in the table.
fn place_of(host: &str) -> String {
    host.strip_prefix('*').unwrap_or(host).to_lowercase()
}

impl Table {
    /// The table for what is there.
    pub fn new(view: &View) -> Self {
        let mut table = Self::default();
        let ours: BTreeSet<&str> = (view.classes.iter())
            .filter(|class| class.spec.as_ref().and_then(|spec| spec.controller.as_deref()) == Some(CONTROLLER))
            .filter_map(|class| class.metadata.name.as_deref())
            .collect();
        let lookup = Lookup::new(view);
        let mut served: Vec<&Ingress> = view.ingresses.iter().filter(|ingress| is_ours(ingress, &ours)).collect();
        // Where two claim the same, the elder one has it.
        served.sort_by_key(|ingress| (ingress.metadata.creation_timestamp.clone(), key_of(&ingress.metadata)));
        for ingress in served {
            table.add(ingress, &lookup);
        }
        for rules in table.hosts.values_mut() {
            rules.sort_by_key(|rule| (std::cmp::Reverse(rule.path.len()), !rule.exact));
        }
        table
    }

    fn add(&mut self, ingress: &Ingress, lookup: &Lookup<'_>) {
        let key = key_of(&ingress.metadata);
        let namespace = key.0.as_str();
        let spec = ingress.spec.clone().unwrap_or_default();
        let mut problems = Vec::new();
        let rules = spec.rules.unwrap_or_default();
        for (at, tls) in spec.tls.iter().flatten().enumerate() {
            let Some(name) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            match lookup.certificate(namespace, name) {
                Err(why) => {
                    problems.push((
                        "SecretNotUsable",
                        format!("spec.tls[{at}].secretName: {why}; the certificate of knarr itself is shown instead"),
                    ));
                }
                Ok(certificate) => {
                    let named = tls.hosts.clone().unwrap_or_default();
                    // Without hosts it is for those of the rules.
                    let hosts = if named.is_empty() {
                        rules.iter().map(|rule| rule.host.clone().unwrap_or_default()).collect()
                    } else {
                        named
                    };
                    for host in hosts {
                        self.certificates.entry(place_of(&host)).or_insert_with(|| certificate.clone());
                    }
                }
            }
        }
        if let Some(default) = &spec.default_backend {
            let found = lookup.backend(namespace, default, "spec.defaultBackend", &mut problems);
            self.default = self.default.take().or(found);
        }
        for (at, rule) in rules.iter().enumerate() {
            let host = place_of(rule.host.as_deref().unwrap_or_default());
            for (number, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let field = format!("spec.rules[{at}].http.paths[{number}].backend");
                let Some(backend) = lookup.backend(namespace, &path.backend, &field, &mut problems) else { continue };
                let exact = path.path_type == "Exact";
                let text = path.path.as_deref().unwrap_or("/");
                let text = if exact { text } else { text.trim_end_matches('/') };
                let rules = self.hosts.entry(host.clone()).or_default();
                if !rules.iter().any(|rule| rule.exact == exact && rule.path == text) {
                    rules.push(Rule { exact, path: text.to_owned(), backend });
                }
            }
        }
        let problem = |(reason, message)| Problem { ingress: key.clone(), reason, message };
        self.problems.extend(problems.into_iter().map(problem));
        self.served.push(key);
    }

    /// What is said about a host: under its own name, under that of all hosts one level below its domain, or for all hosts.
    fn of_host<'a, T>(map: &'a HashMap<String, T>, host: &str) -> Option<&'a T> {
        let domain = host.find('.').map(|dot| &host[dot..]);
        map.get(host).or_else(|| map.get(domain?)).or_else(|| map.get(""))
    }

    /// Who answers a path of a host (in lower case, without a port).
    pub fn route(&self, host: &str, path: &str) -> Option<&Backend> {
        let rules = Self::of_host(&self.hosts, host);
        let matching = rules.and_then(|rules| rules.iter().find(|rule| rule.matches(path)));
        matching.map(|rule| &rule.backend).or(self.default.as_ref())
    }

    /// The certificate for a host.
    pub fn certificate(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        Self::of_host(&self.certificates, host).cloned()
    }
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        if self.exact {
            return path == self.path;
        }
        // Element by element: `/foo` is not the start of `/foobar`.
        path.strip_prefix(self.path.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn is_ours(ingress: &Ingress, ours: &BTreeSet<&str>) -> bool {
    let class = ingress.spec.as_ref().and_then(|spec| spec.ingress_class_name.as_deref());
    let old = ingress.metadata.annotations.as_ref().and_then(|all| all.get(OLD_CLASS)).map(String::as_str);
    class.or(old).is_some_and(|class| ours.contains(class)) && ingress.metadata.deletion_timestamp.is_none()
}

/// The objects by their names.
struct Lookup<'a> {
    services: BTreeMap<Key, &'a Service>,
    slices: BTreeMap<Key, Vec<&'a EndpointSlice>>,
    secrets: BTreeMap<Key, &'a Secret>,
}

type Problems = Vec<(&'static str, String)>;

impl<'a> Lookup<'a> {
    fn new(view: &'a View) -> Self {
        let mut slices: BTreeMap<Key, Vec<&EndpointSlice>> = BTreeMap::new();
        for slice in &view.slices {
            let service = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
            if let Some(service) = service {
                slices.entry((key_of(&slice.metadata).0, service.clone())).or_default().push(slice);
            }
        }
        Self {
            services: view.services.iter().map(|service| (key_of(&service.metadata), service)).collect(),
            slices,
            secrets: view.secrets.iter().map(|secret| (key_of(&secret.metadata), secret)).collect(),
        }
    }

    fn certificate(&self, namespace: &str, name: &str) -> Result<Arc<CertifiedKey>, String> {
        let secret = self.secrets.get(&(namespace.to_owned(), name.to_owned()));
        let secret = secret.ok_or_else(|| format!("there is no secret {name:?} of type kubernetes.io/tls"))?;
        let part = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            data.map(|data| data.0.as_slice()).ok_or_else(|| format!("secret {name:?} has no {key}"))
        };
        tls::certified(part("tls.crt")?, part("tls.key")?).map(Arc::new).map_err(|e| format!("secret {name:?}: {e:#}"))
    }

    /// Who is behind a backend; nobody is known behind one that names what does not exist, and it answers all the same.
    fn backend(
        &self,
        namespace: &str,
        backend: &IngressBackend,
        field: &str,
        problems: &mut Problems,
    ) -> Option<Backend> {
        let Some(named) = &backend.service else {
            problems.push(("BackendNotSupported", format!("{field}: only services are supported as backends")));
            return None;
        };
        let port = named.port.clone().unwrap_or_default();
        let wanted = port.name.clone().unwrap_or_else(|| port.number.unwrap_or(0).to_string());
        let nobody = Backend { name: format!("{namespace}/{}:{wanted}", named.name), endpoints: Vec::new() };
        let key = (namespace.to_owned(), named.name.clone());
        let Some(service) = self.services.get(&key) else {
            problems.push(("ServiceNotFound", format!("{field}.service: there is no service {:?}", named.name)));
            return Some(nobody);
        };
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let same = |one: &&ServicePort| match &port.name {
            Some(name) => one.name.as_ref() == Some(name),
            None => Some(one.port) == port.number,
        };
        let Some(found) = ports.iter().find(same) else {
            let there: Vec<String> = ports
                .iter()
                .map(|one| {
                    one.name.as_ref().map_or_else(|| one.port.to_string(), |name| format!("{} ({name})", one.port))
                })
                .collect();
            let has = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
            let message =
                format!("{field}.service.port: service {:?} has no port {wanted:?}: it has {has}", named.name);
            problems.push(("ServicePortNotFound", message));
            return Some(nobody);
        };
        Some(Backend { endpoints: self.endpoints(&key, found), ..nobody })
    }

    fn endpoints(&self, key: &Key, port: &ServicePort) -> Vec<SocketAddr> {
        let name = port.name.as_deref().unwrap_or_default();
        let (mut ready, mut ending) = (BTreeSet::new(), BTreeSet::new());
        for slice in self.slices.get(key).into_iter().flatten() {
            let mut ports = slice.ports.iter().flatten();
            let number = ports.find(|one| one.name.as_deref().unwrap_or_default() == name);
            let Some(number) = number.and_then(|one| u16::try_from(one.port?).ok()) else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                let Some(address) = endpoint.addresses.first().and_then(|text| text.parse().ok()) else { continue };
                let conditions = endpoint.conditions.clone().unwrap_or_default();
                if conditions.ready != Some(false) {
                    ready.insert(SocketAddr::new(address, number));
                } else if conditions.serving == Some(true) && conditions.terminating == Some(true) {
                    ending.insert(SocketAddr::new(address, number));
                }
            }
        }
        let chosen = if ready.is_empty() { ending } else { ready };
        chosen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(rules: Value, more: Value) -> View {
        let mut spec = json!({"ingressClassName": "knarr", "rules": rules});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let service = |name: &str| {
            let object = json!({"metadata": {"name": name, "namespace": "d"},
                "spec": {"ports": [{"name": "http", "port": 80}]}});
            kinds::typed::service_from_value(object).expect("a service")
        };
        let slice = json!({"metadata": {"name": "a-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "a"}},
            "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.42.0.2"]}, {"addresses": ["10.42.0.3"], "conditions": {"ready": false}}]});
        let ingress = json!({"metadata": {"name": "i", "namespace": "d"}, "spec": spec});
        let class = json!({"metadata": {"name": "knarr"}, "spec": {"controller": CONTROLLER}});
        View {
            ingresses: vec![kinds::typed::ingress_from_value(ingress).expect("an ingress")],
            classes: vec![kinds::typed::ingress_class_from_value(class).expect("a class")],
            services: ["a", "b", "c", "d"].map(service).to_vec(),
            slices: vec![kinds::typed::endpoint_slice_from_value(slice).expect("a slice")],
            secrets: Vec::new(),
        }
    }

    fn to(service: &str) -> Value {
        json!({"service": {"name": service, "port": {"name": "http"}}})
    }

    fn rule(host: Option<&str>, paths: &[(&str, &str, &str)]) -> Value {
        let paths: Vec<Value> = (paths.iter())
            .map(|(kind, path, service)| json!({"path": path, "pathType": kind, "backend": to(service)}))
            .collect();
        json!({"host": host, "http": {"paths": paths}})
    }

    #[test]
    fn the_longest_path_of_the_nearest_host_wins() {
        let rules = json!([
            rule(
                Some("x.test"),
                &[("Prefix", "/", "a"), ("Prefix", "/foo", "b"), ("Exact", "/foo", "c"), ("Prefix", "/foo/bar/", "d")]
            ),
            rule(Some("*.wild.test"), &[("ImplementationSpecific", "", "b")]),
            rule(None, &[("Exact", "/any", "c")]),
        ]);
        let table = Table::new(&view(rules.clone(), json!({})));
        for (host, path, expected) in [
            ("x.test", "/", "d/a:http"),
            ("x.test", "/foo", "d/c:http"),
            ("x.test", "/foo/", "d/b:http"),
            ("x.test", "/foobar", "d/a:http"),
            ("x.test", "/foo/bar", "d/d:http"),
            ("x.test", "/foo/bar/baz", "d/d:http"),
            ("one.wild.test", "/q", "d/b:http"),
            ("one.two.wild.test", "/q", ""),
            ("wild.test", "/q", ""),
            ("other.test", "/any", "d/c:http"),
            ("other.test", "/any/", ""),
        ] {
            let found = table.route(host, path).map_or("", |backend| backend.name.as_str());
            assert_eq!(found, expected, "{host}{path}");
        }
        assert_eq!(
            table.route("x.test", "/").expect("a route").endpoints,
            ["10.42.0.2:8080".parse().expect("an address")]
        );
        let table = Table::new(&view(rules, json!({"defaultBackend": to("d")})));
        assert_eq!(table.route("wild.test", "/q").expect("a route").name, "d/d:http");
    }

    #[test]
    fn what_does_not_exist_is_told_with_its_field() {
        let mut wrong = rule(Some("x.test"), &[("Prefix", "/", "typo"), ("Prefix", "/b", "b")]);
        wrong["http"]["paths"][1]["backend"]["service"]["port"] = json!({"number": 8080});
        let table = Table::new(&view(json!([wrong]), json!({"tls": [{"hosts": ["x.test"], "secretName": "gone"}]})));
        let said: Vec<String> = table.problems.iter().map(|p| format!("{}: {}", p.reason, p.message)).collect();
        assert_eq!(
            said,
            [
                "SecretNotUsable: spec.tls[0].secretName: there is no secret \"gone\" of type kubernetes.io/tls; the \
                 certificate of knarr itself is shown instead",
                "ServiceNotFound: spec.rules[0].http.paths[0].backend.service: there is no service \"typo\"",
                "ServicePortNotFound: spec.rules[0].http.paths[1].backend.service.port: service \"b\" has no port \"8080\": \
                 it has 80 (http)",
            ]
        );
        assert_eq!(table.route("x.test", "/").map(|backend| backend.endpoints.len()), Some(0));
    }

    #[test]
    fn an_ingress_of_another_class_is_left_alone() {
        let mut other = view(json!([rule(None, &[("Prefix", "/", "a")])]), json!({"ingressClassName": "nginx"}));
        assert!(Table::new(&other).served.is_empty());
        other.ingresses[0].spec.as_mut().expect("a spec").ingress_class_name = None;
        other.ingresses[0].metadata.annotations = Some([(OLD_CLASS.to_owned(), "knarr".to_owned())].into());
        assert_eq!(Table::new(&other).served.len(), 1);
    }
}
