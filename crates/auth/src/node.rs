//! What kubelets may: their own node, the pods on it, and what these refer to (upstream's node authoriser).
//!
//! A [`Graph`] knows which object belongs to which nodes. It is told of each object that ties others to a node when that is
//! written, so that a verdict is a look into a map.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use object_model::selector::FieldSelector;
use serde_json::Value;

use crate::{Attributes, Rule, User};

/// Where the leases of nodes are.
pub const LEASES: &str = "kube-node-lease";

/// The name of the node that a user is the kubelet of; empty where it says none. `None` for all others.
pub fn name_of(user: &User) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

/// What pods refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Pod,
    Secret,
    ConfigMap,
    Claim,
    ResourceClaim,
    Account,
}

/// Namespace and name.
type Place = (String, String);
/// An object that pods refer to.
type Thing = (Kind, Place);

/// What a pod on a node refers to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ties {
    node: String,
    things: BTreeSet<Thing>,
}

/// What a volume is for: its claim, and the secrets that it is mounted with.
#[derive(Debug, Default, PartialEq, Eq)]
struct Volume {
    claim: Place,
    secrets: BTreeSet<Place>,
}

/// Which objects belong to which nodes.
#[derive(Debug, Default)]
pub struct Graph {
    pods: HashMap<Place, Ties>,
    /// The nodes of what pods refer to, with the number of pods there that do.
    nodes: HashMap<Thing, BTreeMap<String, usize>>,
    volumes: HashMap<String, Volume>,
    /// The volumes that are mounted with a secret.
    by_secret: HashMap<Place, BTreeSet<String>>,
    /// What names its node itself: by resource, namespace and name.
    named: HashMap<&'static str, HashMap<Place, String>>,
}

/// Resources that name their node themselves, and where.
const NAMING: [(&str, &str); 3] = [
    ("volumeattachments", "/spec/nodeName"),
    ("resourceslices", "/spec/nodeName"),
    ("podcertificaterequests", "/spec/nodeName"),
];

impl Graph {
    /// Takes note of an object as it stands now, or that there is none any more. Other resources are passed over.
    pub fn observe(&mut self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let place = (namespace.to_owned(), name.to_owned());
        match resource {
            "pods" => self.observe_pod(place, object.and_then(Ties::of)),
            "persistentvolumes" => self.observe_volume(name, object.map(Volume::of)),
            _ => {
                let Some((resource, at)) = NAMING.into_iter().find(|(known, _)| *known == resource) else { return };
                let node = object.and_then(|object| object.pointer(at)).and_then(Value::as_str);
                let all = self.named.entry(resource).or_default();
                match node.filter(|node| !node.is_empty()) {
                    Some(node) => _ = all.insert(place, node.to_owned()),
                    None => _ = all.remove(&place),
                }
            }
        }
    }

    fn observe_pod(&mut self, place: Place, ties: Option<Ties>) {
        if self.pods.get(&place) == ties.as_ref() {
            return;
        }
        if let Some(old) = self.pods.remove(&place) {
            for thing in old.things {
                let Some(nodes) = self.nodes.get_mut(&thing) else { continue };
                if let Some(count) = nodes.get_mut(&old.node) {
                    *count -= 1;
                    if *count == 0 {
                        nodes.remove(&old.node);
                    }
                }
                if nodes.is_empty() {
                    self.nodes.remove(&thing);
                }
            }
        }
        if let Some(new) = ties {
            for thing in &new.things {
                *self.nodes.entry(thing.clone()).or_default().entry(new.node.clone()).or_default() += 1;
            }
            self.pods.insert(place, new);
        }
    }

    fn observe_volume(&mut self, name: &str, volume: Option<Volume>) {
        if let Some(old) = self.volumes.remove(name) {
            for secret in old.secrets {
                if let Some(volumes) = self.by_secret.get_mut(&secret) {
                    volumes.remove(name);
                    if volumes.is_empty() {
                        self.by_secret.remove(&secret);
                    }
                }
            }
        }
        if let Some(new) = volume {
            for secret in &new.secrets {
                self.by_secret.entry(secret.clone()).or_default().insert(name.to_owned());
            }
            self.volumes.insert(name.to_owned(), new);
        }
    }

    fn refers(&self, node: &str, kind: Kind, place: &Place) -> bool {
        self.nodes.get(&(kind, place.clone())).is_some_and(|nodes| nodes.contains_key(node))
    }

    fn mounts(&self, node: &str, volume: &str) -> bool {
        self.volumes.get(volume).is_some_and(|volume| self.refers(node, Kind::Claim, &volume.claim))
    }

    /// Whether an object is of any concern to a node.
    fn reaches(&self, node: &str, resource: &str, place: &Place) -> bool {
        let kind = match resource {
            "pods" => Kind::Pod,
            "configmaps" => Kind::ConfigMap,
            "persistentvolumeclaims" => Kind::Claim,
            "resourceclaims" => Kind::ResourceClaim,
            "serviceaccounts" => Kind::Account,
            "secrets" => {
                let by_volume = || self.by_secret.get(place).into_iter().flatten().any(|name| self.mounts(node, name));
                return self.refers(node, Kind::Secret, place) || by_volume();
            }
            "persistentvolumes" => return self.mounts(node, &place.1),
            other => {
                let owner = self.named.get(other).and_then(|all| all.get(place));
                return owner.is_some_and(|owner| owner == node);
            }
        };
        self.refers(node, kind, place)
    }

    /// Whether a kubelet's request is allowed: by what the object is to the node, or by the rules that all nodes have.
    ///
    /// # Errors
    /// Why not, in upstream's words; empty where there is nothing to say.
    pub fn judge(&self, node: &str, rules: &[Rule], a: &Attributes<'_>) -> Result<(), String> {
        if node.is_empty() {
            return Err(format!("unknown node for user {:?}", a.user.name));
        }
        let request = Request { graph: self, node, a };
        let (resource, sub) = a.resource.split_once('/').unwrap_or((&a.resource, ""));
        match (a.group, resource) {
            ("", "secrets" | "configmaps") => request.read_in_namespace(resource, sub),
            ("", "persistentvolumeclaims") if sub == "status" => request.update_status(resource),
            ("", "persistentvolumeclaims" | "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => request.get(resource, sub),
            ("", "serviceaccounts") if sub.is_empty() && a.verb == "get" => request.get(resource, sub),
            ("", "serviceaccounts") => request.create_token(sub),
            ("coordination.k8s.io", "leases") => request.lease(),
            ("storage.k8s.io", "csinodes") => request.csi_node(sub),
            ("resource.k8s.io", "resourceslices") => request.resource_slice(sub),
            ("certificates.k8s.io", "podcertificaterequests") => request.certificate(sub),
            ("", "nodes") => request.of_node(sub),
            ("", "pods") => request.of_pod(sub),
            _ if rules.iter().any(|rule| rule.allows(a)) => Ok(()),
            _ => Err(String::new()),
        }
    }
}

/// One request of a kubelet.
struct Request<'a> {
    graph: &'a Graph,
    node: &'a str,
    a: &'a Attributes<'a>,
}

type Judged = Result<(), String>;

impl Request<'_> {
    fn of(&self, verbs: &[&str]) -> bool {
        verbs.contains(&self.a.verb)
    }

    fn related(&self, resource: &str) -> Judged {
        if self.a.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        let place = (self.a.namespace.to_owned(), self.a.name.to_owned());
        check(
            self.graph.reaches(self.node, resource, &place),
            format!("no relationship found between node '{}' and this object", self.node),
        )
    }

    /// Whether a list or a watch is of what a field selector leaves of this node.
    fn selects(&self, field: &str) -> bool {
        let selector = FieldSelector::parse(self.a.fields);
        let wanted = |(path, value, equal): &(String, String, bool)| *equal && path == field && value == self.node;
        selector.is_ok_and(|selector| selector.terms.iter().any(wanted))
    }

    fn get(&self, resource: &str, sub: &str) -> Judged {
        check(self.a.verb == "get", "can only get individual resources of this type")?;
        check(sub.is_empty(), "cannot get subresource")?;
        self.related(resource)
    }

    fn read_in_namespace(&self, resource: &str, sub: &str) -> Judged {
        check(self.of(&["get", "list", "watch"]), "can only read resources of this type")?;
        check(sub.is_empty(), "cannot read subresource")?;
        check(!self.a.namespace.is_empty(), "can only read namespaced object of this type")?;
        self.related(resource)
    }

    fn update_status(&self, resource: &str) -> Judged {
        check(self.of(&["get", "update", "patch"]), "can only get/update/patch this type")?;
        self.related(resource)
    }

    fn create_token(&self, sub: &str) -> Judged {
        let named = self.a.verb == "create" && !self.a.name.is_empty();
        check(named, "can only create tokens for individual service accounts")?;
        check(sub == "token", "can only create token subresource of serviceaccount")?;
        self.related("serviceaccounts")
    }

    fn lease(&self) -> Judged {
        let known = self.of(&["get", "create", "update", "patch", "delete"]);
        check(known, "can only get, create, update, patch, or delete a node lease")?;
        let system = self.a.namespace == LEASES;
        check(system, format!("can only access leases in the {LEASES:?} system namespace"))?;
        // A creation does not name its object in the path: admission looks at what is created.
        let own = self.a.verb == "create" || self.a.name == self.node;
        check(own, "can only access node lease with the same name as the requesting node")
    }

    fn csi_node(&self, sub: &str) -> Judged {
        let known = self.of(&["get", "create", "update", "patch", "delete"]);
        check(known, "can only get, create, update, patch, or delete a CSINode")?;
        check(sub.is_empty(), "cannot authorize CSINode subresources")?;
        let own = self.a.verb == "create" || self.a.name == self.node;
        check(own, "can only access CSINode with the same name as the requesting node")
    }

    fn resource_slice(&self, sub: &str) -> Judged {
        check(sub.is_empty(), "cannot authorize ResourceSlice subresources")?;
        match self.a.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related("resourceslices"),
            "watch" | "list" | "deletecollection" => check(
                self.selects("spec.nodeName") || self.selects("nodeName"),
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                      delete, deletecollection"
                    .to_owned(),
            ),
        }
    }

    fn certificate(&self, sub: &str) -> Judged {
        check(sub.is_empty(), "nodes may not access the status subresource of PodCertificateRequests")?;
        match self.a.verb {
            "create" => Ok(()),
            "get" => self.related("podcertificaterequests"),
            "list" | "watch" => check(
                self.selects("spec.nodeName"),
                "can only list/watch podcertificaterequests with nodeName field selector",
            ),
            verb => Err(format!("nodes may not {verb} podcertificaterequests")),
        }
    }

    fn of_node(&self, sub: &str) -> Judged {
        let node = self.node;
        match (sub, self.a.verb, self.a.name) {
            // Admission sees to it that it is its own.
            ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
            ("", "get" | "list" | "watch", name) if name == node => Ok(()),
            ("", "get" | "list" | "watch", "") => {
                Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("", "get" | "list" | "watch", name) => {
                Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
            }
            _ => Err(String::new()),
        }
    }

    fn of_pod(&self, sub: &str) -> Judged {
        match (sub, self.a.verb) {
            ("", "get") => self.related("pods"),
            ("", "list" | "watch") if self.selects("spec.nodeName") => Ok(()),
            ("", "list" | "watch") if !self.a.name.is_empty() => self.related("pods"),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".to_owned()),
            // Admission sees to it that they are its own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

fn check(holds: bool, why: impl Into<String>) -> Judged {
    if holds { Ok(()) } else { Err(why.into()) }
}

fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

impl Ties {
    /// What a pod ties to its node; `None` as long as it has none.
    fn of(pod: &Value) -> Option<Self> {
        let spec = &pod["spec"];
        let metadata = &pod["metadata"];
        let name = text(&metadata["name"])?;
        let mut ties = Self { node: text(&spec["nodeName"])?.to_owned(), things: BTreeSet::new() };
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        let mut tie = |kind: Kind, name: Option<&str>| {
            ties.things.extend(name.map(|name| (kind, (namespace.to_owned(), name.to_owned()))));
        };
        tie(Kind::Pod, Some(name));
        // A node writes mirror pods itself, and must not be able to give itself a right by one.
        if !metadata["annotations"]["kubernetes.io/config.mirror"].is_null() {
            return Some(ties);
        }
        tie(Kind::Account, text(&spec["serviceAccountName"]));
        list(spec, "imagePullSecrets").for_each(|secret| tie(Kind::Secret, text(&secret["name"])));
        let containers = ["initContainers", "containers", "ephemeralContainers"].into_iter();
        for container in containers.flat_map(|field| list(spec, field)) {
            for from in list(container, "env").map(|variable| &variable["valueFrom"]) {
                tie(Kind::Secret, text(&from["secretKeyRef"]["name"]));
                tie(Kind::ConfigMap, text(&from["configMapKeyRef"]["name"]));
            }
            for from in list(container, "envFrom") {
                tie(Kind::Secret, text(&from["secretRef"]["name"]));
                tie(Kind::ConfigMap, text(&from["configMapRef"]["name"]));
            }
        }
        for volume in list(spec, "volumes") {
            tie(Kind::ConfigMap, text(&volume["configMap"]["name"]));
            tie(Kind::Claim, text(&volume["persistentVolumeClaim"]["claimName"]));
            if volume["ephemeral"].is_object() {
                let claim = text(&volume["name"]).map(|volume| format!("{name}-{volume}"));
                tie(Kind::Claim, claim.as_deref());
            }
            for source in list(&volume["projected"], "sources") {
                tie(Kind::Secret, text(&source["secret"]["name"]));
                tie(Kind::ConfigMap, text(&source["configMap"]["name"]));
            }
            for source in volume.as_object().into_iter().flat_map(|fields| fields.values()) {
                tie(Kind::Secret, text(&source["secretName"]));
                tie(Kind::Secret, text(&source["secretRef"]["name"]));
                tie(Kind::Secret, text(&source["nodePublishSecretRef"]["name"]));
            }
        }
        for claim in list(spec, "resourceClaims") {
            tie(Kind::ResourceClaim, text(&claim["resourceClaimName"]));
        }
        let status = &pod["status"];
        for claim in list(status, "resourceClaimStatuses").chain([&status["extendedResourceClaimStatus"]]) {
            tie(Kind::ResourceClaim, text(&claim["resourceClaimName"]));
        }
        Some(ties)
    }
}

impl Volume {
    fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        let owned = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let claim = (owned(&spec["claimRef"]["namespace"]), owned(&spec["claimRef"]["name"]));
        let mut secrets = BTreeSet::new();
        for source in spec.as_object().into_iter().flat_map(|fields| fields.values()) {
            // Those of controllers are no business of the kubelet.
            for field in ["secretRef", "nodeStageSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"] {
                let reference = &source[field];
                let namespace = text(&reference["namespace"]).unwrap_or(&claim.0);
                secrets.extend(text(&reference["name"]).map(|name| (namespace.to_owned(), name.to_owned())));
            }
            let namespace = text(&source["secretNamespace"]).unwrap_or(&claim.0);
            secrets.extend(text(&source["secretName"]).map(|name| (namespace.to_owned(), name.to_owned())));
        }
        Self { claim, secrets }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bootstrap;

    fn graph() -> Graph {
        let mut graph = Graph::default();
        let pod = json!({
            "metadata": {"namespace": "a", "name": "p"},
            "spec": {
                "nodeName": "n", "serviceAccountName": "app", "imagePullSecrets": [{"name": "pull"}],
                "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "key"}}}], "envFrom": [{"configMapRef": {"name": "env"}}]}],
                "volumes": [
                    {"name": "s", "secret": {"secretName": "files"}}, {"name": "c", "configMap": {"name": "conf"}},
                    {"name": "d", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "ephemeral": {}},
                    {"name": "t", "projected": {"sources": [{"configMap": {"name": "root"}}, {"secret": {"name": "more"}}]}},
                ],
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}],
            },
        });
        graph.observe("pods", "a", "p", Some(&pod));
        let volume = json!({"spec": {
            "claimRef": {"namespace": "a", "name": "data"}, "csi": {"nodeStageSecretRef": {"namespace": "s", "name": "stage"}},
        }});
        graph.observe("persistentvolumes", "", "v", Some(&volume));
        graph.observe("volumeattachments", "", "va", Some(&json!({"spec": {"nodeName": "n"}})));
        graph.observe("resourceslices", "", "slice", Some(&json!({"spec": {"nodeName": "n"}})));
        graph
    }

    fn judge(graph: &Graph, node: &str, ask: &str) -> Result<(), String> {
        let user = User::authenticated(&format!("system:node:{node}"), &["system:nodes"]);
        let parts: Vec<&str> = ask.split(' ').collect();
        let [verb, group, resource, namespace, name, fields] = parts[..] else { panic!("{ask}") };
        let given = |part| if part == "-" { "" } else { part };
        let a = Attributes {
            user: &user,
            verb,
            group: given(group),
            resource: resource.into(),
            namespace: given(namespace),
            name: given(name),
            path: "",
            fields: given(fields),
        };
        graph.judge(name_of(&user).expect("a node"), &bootstrap::node_rules(), &a)
    }

    #[test]
    fn a_node_reads_what_its_pods_refer_to_and_nobody_else_does() {
        let mut graph = graph();
        let asked = [
            "get - secrets a pull -",
            "get - secrets a key -",
            "watch - secrets a files -",
            "list - secrets a more -",
            "get - secrets s stage -",
            "get - configmaps a env -",
            "get - configmaps a conf -",
            "get - configmaps a root -",
            "get - persistentvolumeclaims a data -",
            "get - persistentvolumeclaims a p-e -",
            "patch - persistentvolumeclaims/status a data -",
            "get - persistentvolumes - v -",
            "get storage.k8s.io volumeattachments - va -",
            "get resource.k8s.io resourceclaims a gpu -",
            "patch resource.k8s.io resourceslices - slice -",
            "create - serviceaccounts/token a app -",
            "get - pods a p -",
        ];
        for ask in asked {
            assert_eq!(judge(&graph, "n", ask), Ok(()), "{ask}");
            let refused = judge(&graph, "other", ask).expect_err(ask);
            assert_eq!(refused, "no relationship found between node 'other' and this object", "{ask}");
        }
        graph.observe("pods", "a", "p", None);
        for ask in asked.into_iter().filter(|ask| !ask.contains("volumeattachments") && !ask.contains("slices")) {
            assert!(judge(&graph, "n", ask).is_err(), "{ask}");
        }
        assert!(graph.nodes.is_empty() && graph.pods.is_empty());
    }

    #[test]
    fn a_thing_is_a_nodes_until_the_last_pod_that_refers_to_it_has_gone() {
        let mut graph = graph();
        let other = json!({
            "metadata": {"namespace": "a", "name": "q"}, "spec": {"nodeName": "n", "imagePullSecrets": [{"name": "pull"}]},
        });
        graph.observe("pods", "a", "q", Some(&other));
        graph.observe("pods", "a", "p", None);
        assert_eq!(judge(&graph, "n", "get - secrets a pull -"), Ok(()));
        assert!(judge(&graph, "n", "get - secrets a key -").is_err());
        graph.observe("pods", "a", "q", None);
        assert!(judge(&graph, "n", "get - secrets a pull -").is_err());
        let mut mirror = other;
        mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        graph.observe("pods", "a", "q", Some(&mirror));
        assert!(judge(&graph, "n", "get - secrets a pull -").is_err());
        assert_eq!(judge(&graph, "n", "get - pods a q -"), Ok(()));
    }

    #[test]
    fn what_is_refused_is_said_in_upstreams_words() {
        let graph = graph();
        for (ask, why) in [
            ("delete - secrets a pull -", "can only read resources of this type"),
            ("list - secrets - - -", "can only read namespaced object of this type"),
            ("list - secrets a - -", "No Object name found"),
            ("list - persistentvolumes - - -", "can only get individual resources of this type"),
            ("get - nodes - - -", "node 'n' cannot read all nodes, only its own Node object"),
            ("get - nodes - m -", "node 'n' cannot read 'm', only its own Node object"),
            ("delete - nodes - n -", ""),
            ("list - pods - - -", "can only list/watch pods with spec.nodeName field selector"),
            ("list - pods - - spec.nodeName=m", "can only list/watch pods with spec.nodeName field selector"),
            ("update - pods a p -", ""),
            ("create - serviceaccounts a app -", "can only create token subresource of serviceaccount"),
            (
                "list coordination.k8s.io leases kube-node-lease - -",
                "can only get, create, update, patch, or delete a node lease",
            ),
            (
                "get coordination.k8s.io leases a n -",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            (
                "get coordination.k8s.io leases kube-node-lease m -",
                "can only access node lease with the same name as the requesting node",
            ),
            ("get storage.k8s.io csinodes - m -", "can only access CSINode with the same name as the requesting node"),
            ("create apps deployments a - -", ""),
        ] {
            assert_eq!(judge(&graph, "n", ask), Err(why.to_owned()), "{ask}");
        }
        for ask in [
            "list - pods - - spec.nodeName=n",
            "get - nodes - n -",
            "patch - nodes/status - n -",
            "update coordination.k8s.io leases kube-node-lease n -",
            "list - services - - -",
            "create certificates.k8s.io certificatesigningrequests - - -",
            "list resource.k8s.io resourceslices - - spec.nodeName=n",
        ] {
            assert_eq!(judge(&graph, "n", ask), Ok(()), "{ask}");
        }
        let stranger = User::authenticated("system:node:n", &[]);
        assert_eq!(name_of(&stranger), None);
    }
}
