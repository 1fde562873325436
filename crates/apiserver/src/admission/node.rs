//! What kubelets may write beyond what their rights say: their own Node, Lease and CSINode, mirror pods, the status of the
//! pods on their node (upstream's NodeRestriction). Their tokens are judged where they are made.

use std::collections::BTreeSet;

use auth::node::{LEASES, name_of};
use object_model::{ApiError, meta};
use serde_json::{Map, Value};

use super::question::{Operation, Question};
use crate::ApiServer;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Labels of Kubernetes' own domains that a kubelet sets on its node.
const LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/exclude-from-external-load-balancers",
    "node.kubernetes.io/windows-build",
];
/// Domains of which a kubelet may set any label.
const DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The signers of kubelets' certificates.
const SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

type Judged = Result<(), String>;

/// Judges a request of a kubelet; those of others are none of its business.
///
/// # Errors
/// 403 in upstream's words.
pub fn judge(server: &ApiServer, question: &Question<'_>) -> Result<(), ApiError> {
    let Some(node) = name_of(&question.cx.user) else { return Ok(()) };
    let request = Request { server, node, question };
    request
        .judge()
        .map_err(|why| ApiError::forbidden(question.served.group(), question.served.plural(), &question.name, why))
}

struct Request<'a> {
    server: &'a ApiServer,
    node: &'a str,
    question: &'a Question<'a>,
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Judged {
    if holds { Ok(()) } else { Err(why()) }
}

impl Request<'_> {
    fn judge(&self) -> Judged {
        let q = self.question;
        match (q.served.group(), q.served.plural(), q.subresource) {
            _ if self.node.is_empty() => Err(format!("could not determine node from user {:?}", q.cx.user.name)),
            ("", "pods", "") => self.pod(),
            ("", "pods", "status") => self.pod_status(),
            ("", "pods", "eviction") => self.eviction(),
            ("", "pods", other) => {
                Err(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => self.of_node(),
            ("", "persistentvolumeclaims", "status") => self.claim_status(),
            ("", "persistentvolumeclaims", _) => Err("may only update PVC status".to_owned()),
            ("coordination.k8s.io", "leases", _) => {
                check(q.namespace == LEASES, || format!("can only access leases in the {LEASES:?} system namespace"))?;
                self.own("node lease")
            }
            ("storage.k8s.io", "csinodes", _) => self.own("CSINode"),
            ("resource.k8s.io", "resourceslices", _) => self.slice(),
            ("certificates.k8s.io", "certificatesigningrequests", "") => self.signing_request(),
            ("certificates.k8s.io", "podcertificaterequests", _) => self.pod_certificate(),
            _ => Ok(()),
        }
    }

    fn operation(&self) -> Operation {
        self.question.operation
    }

    /// Whether the object has the name of the node.
    fn own(&self, what: &str) -> Judged {
        check(self.question.name == self.node, || {
            format!("can only access {what} with the same name as the requesting node")
        })
    }

    fn stored(&self, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>, String> {
        self.server.stored_object(plural, namespace, name).map_err(|error| error.message)
    }

    fn pod(&self) -> Judged {
        let (q, node) = (self.question, self.node);
        match self.operation() {
            Operation::Create => self.mirror_pod(),
            Operation::Delete => check(q.old["spec"]["nodeName"] == node, || {
                format!("node {node:?} can only delete pods with spec.nodeName set to itself")
            }),
            other => Err(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                other.name()
            )),
        }
    }

    fn mirror_pod(&self) -> Judged {
        let (pod, node) = (&self.question.object, self.node);
        check(meta::annotations(pod).contains_key(MIRROR), || {
            format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods")
        })?;
        check(pod["spec"]["nodeName"] == node, || {
            format!("node {node:?} can only create pods with spec.nodeName set to itself")
        })?;
        let owners = pod["metadata"]["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
        let own = |what: &str| format!("node {node:?} can only create pods with {what} owner reference set to itself");
        let [owner] = owners else { return Err(own(if owners.is_empty() { "an" } else { "a single" })) };
        let is_node = owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
        check(is_node, || own("an"))?;
        check(owner["controller"] == true, || own("a controller"))?;
        check(owner["blockOwnerDeletion"] != true, || {
            format!("node {node:?} must not set blockOwnerDeletion on an owner reference")
        })?;
        let known = self.stored("nodes", "", node)?.ok_or_else(|| format!("nodes {node:?} not found"))?;
        check(owner["uid"] == meta::uid(&known), || {
            let given = owner["uid"].as_str().unwrap_or_default();
            format!("node {node} UID mismatch: expected {given} got {}", meta::uid(&known))
        })?;
        match referred(&pod["spec"]) {
            Some(what) => Err(format!("node {node:?} can not create pods that reference {what}")),
            None => Ok(()),
        }
    }

    fn pod_status(&self) -> Judged {
        let (new, old, node) = (&self.question.object, &self.question.old, self.node);
        check(self.operation() == Operation::Update, || format!("unexpected operation {:?}", self.operation().name()))?;
        check(old["spec"]["nodeName"] == node, || {
            format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
        })?;
        check(meta::labels(new) == meta::labels(old), || {
            format!("node {node:?} cannot update labels through pod status")
        })?;
        let claims = |pod: &Value| pod["status"]["resourceClaimStatuses"].as_array().cloned().unwrap_or_default();
        check(claims(new) == claims(old), || format!("node {node:?} cannot update resource claim statues"))
    }

    fn eviction(&self) -> Judged {
        let (q, node) = (self.question, self.node);
        let pod = self.stored("pods", q.namespace, &q.name)?;
        // Of one that is not there the eviction itself says so.
        check(pod.is_none_or(|pod| pod["spec"]["nodeName"] == node), || {
            format!("node {node} can only evict pods with spec.nodeName set to itself")
        })
    }

    fn of_node(&self) -> Judged {
        let (q, node) = (self.question, self.node);
        let (new, old) = (&q.object, &q.old);
        check(q.name == node, || format!("node {node:?} is not allowed to modify node {:?}", q.name))?;
        let forbidden = || forbidden_labels(new, old).join(", ");
        match self.operation() {
            Operation::Create => check(forbidden().is_empty(), || {
                format!("node {node:?} is not allowed to set the following labels: {}", forbidden())
            }),
            Operation::Update => {
                let list = |object: &Value, at: &str| {
                    object.pointer(at).and_then(Value::as_array).cloned().unwrap_or_default()
                };
                let same = |at: &str| list(new, at) == list(old, at);
                check(same("/spec/taints"), || format!("node {node:?} is not allowed to modify taints"))?;
                check(same("/metadata/ownerReferences"), || {
                    format!("node {node:?} is not allowed to modify ownerReferences")
                })?;
                check(forbidden().is_empty(), || format!("is not allowed to modify labels: {}", forbidden()))
            }
            _ => Ok(()),
        }
    }

    fn claim_status(&self) -> Judged {
        let rest = |claim: &Value| {
            let mut claim = claim.clone();
            for field in ["resourceVersion", "managedFields"] {
                meta::set(&mut claim, field, Value::Null);
            }
            if let Some(status) = claim["status"].as_object_mut() {
                for field in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                    status.remove(field);
                }
            }
            claim
        };
        check(rest(&self.question.object) == rest(&self.question.old), || {
            let node = self.node;
            format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions")
        })
    }

    fn slice(&self) -> Judged {
        let (q, node) = (self.question, self.node);
        let (slice, verb) = match self.operation() {
            Operation::Create => (&q.object, "create"),
            Operation::Delete => (&q.old, "delete"),
            _ => return Ok(()),
        };
        check(slice["spec"]["nodeName"] == node, || {
            format!("can only {verb} ResourceSlice with the same NodeName as the requesting node")
        })
    }

    fn signing_request(&self) -> Judged {
        let request = &self.question.object;
        let of_kubelets = request["spec"]["signerName"].as_str().is_some_and(|signer| SIGNERS.contains(&signer));
        if self.operation() != Operation::Create || !of_kubelets {
            return Ok(());
        }
        let requested = kinds::requested(request).map_err(|error| format!("unable to parse csr: {error:#}"))?;
        let own = format!("system:node:{}", self.node);
        check(requested.common_name == own, || format!("can only create a node CSR with CN={own}"))
    }

    fn pod_certificate(&self) -> Judged {
        let (q, node) = (self.question, self.node);
        check(self.operation() == Operation::Create, || format!("unexpected operation {:?}", self.operation().name()))?;
        check(q.subresource.is_empty(), || format!("unexpected subresource {:?}", q.subresource))?;
        let spec = &q.object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default();
        let place = format!("{}/{}", q.namespace, text("podName"));
        check(text("nodeName") == node, || {
            format!(
                "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {node:?}",
                text("nodeName")
            )
        })?;
        let known = self.stored("nodes", "", node)?;
        let uid = known.as_ref().map_or("", |known| meta::uid(known));
        check(!uid.is_empty() && text("nodeUID") == uid, || {
            format!(
                "PodCertificateRequest for pod {place:?} names node UID {:?}, inconsistent with the running node ({uid:?})",
                text("nodeUID")
            )
        })?;
        let pod = self.stored("pods", q.namespace, text("podName"))?;
        let pod = pod.ok_or_else(|| {
            format!(
                "while retrieving pod {place:?} named in the PodCertificateRequest: pod {:?} not found",
                text("podName")
            )
        })?;
        check(text("podUID") == meta::uid(&pod), || {
            format!(
                "PodCertificateRequest for pod {place:?} contains pod UID ({:?}) which differs from running pod {:?}",
                text("podUID"),
                meta::uid(&pod)
            )
        })?;
        check(pod["spec"]["nodeName"] == node, || {
            format!("pod {place:?} is not running on node {node:?} named in the PodCertificateRequest")
        })?;
        check(!meta::annotations(&pod).contains_key(MIRROR), || format!("pod {place:?} is a mirror pod"))?;
        let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        check(text("serviceAccountName") == account, || {
            format!(
                "PodCertificateRequest for pod {place:?} contains serviceAccountName ({:?}) that differs from running pod \
                 ({account:?})",
                text("serviceAccountName")
            )
        })?;
        let known = self.stored("serviceaccounts", q.namespace, account)?;
        let uid = known.as_ref().map_or("", |known| meta::uid(known));
        check(!uid.is_empty() && text("serviceAccountUID") == uid, || {
            format!(
                "PodCertificateRequest for pod {place:?} names service account UID {:?}, which differs from the running \
                 service account ({uid:?})",
                text("serviceAccountUID")
            )
        })
    }
}

/// The labels that differ and that no kubelet may set.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let empty = Map::new();
    let of = |object: &Value| object["metadata"]["labels"].as_object().unwrap_or(&empty).clone();
    let (new, old) = (of(new), of(old));
    let keys: BTreeSet<&String> = new.keys().chain(old.keys()).collect();
    keys.into_iter().filter(|key| new.get(*key) != old.get(*key) && is_reserved_label(key)).cloned().collect()
}

/// Whether a label of a node is not for its kubelet to set.
pub fn is_reserved_label(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let within = |parent: &str| domain.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let kubelets = LABELS.contains(&label) || DOMAINS.into_iter().any(within);
    within("node-restriction.kubernetes.io") || ((within("kubernetes.io") || within("k8s.io")) && !kubelets)
}

/// What of the API a pod refers to, as upstream names it.
fn referred(spec: &Value) -> Option<&'static str> {
    let list = |value: &Value, field: &str| value[field].as_array().cloned().unwrap_or_default();
    let given = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if given(&spec["serviceAccountName"]) {
        return Some("serviceaccounts");
    }
    if !list(spec, "imagePullSecrets").is_empty() {
        return Some("secrets");
    }
    for container in ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|f| list(spec, f)) {
        for variable in list(&container, "env").iter().map(|one| &one["valueFrom"]).chain(&list(&container, "envFrom"))
        {
            if variable["secretKeyRef"].is_object() || variable["secretRef"].is_object() {
                return Some("secrets");
            }
            if variable["configMapKeyRef"].is_object() || variable["configMapRef"].is_object() {
                return Some("configmaps");
            }
        }
    }
    if !list(spec, "resourceClaims").is_empty() {
        return Some("resourceclaims");
    }
    let sources = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ];
    let projected = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let of = |value: &Value, known: &[(&str, &'static str)]| {
        known.iter().find(|(field, _)| value[*field].is_object()).map(|(_, what)| *what)
    };
    list(spec, "volumes").iter().find_map(|volume| {
        let source = || volume.as_object()?.values().any(has_secret).then_some("secrets");
        let within = || list(&volume["projected"], "sources").iter().find_map(|one| of(one, &projected));
        of(volume, &sources).or_else(within).or_else(source)
    })
}

/// Whether a source of a volume is mounted with a secret.
fn has_secret(source: &Value) -> bool {
    ["secretRef", "secretName"].iter().any(|field| source.get(field).is_some_and(|value| !value.is_null()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_kubelet_sets_labels_of_its_own_and_of_nobody() {
        let labels = |labels: Value| json!({"metadata": {"labels": labels}});
        let set = |label: &str| forbidden_labels(&labels(json!({label: "x"})), &Value::Null).is_empty();
        for label in
            ["a", "example.com/a", "kubernetes.io/hostname", "node.kubernetes.io/x", "a.kubelet.kubernetes.io/x"]
        {
            assert!(set(label), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/control-plane",
            "node-restriction.kubernetes.io/x",
            "a.node-restriction.kubernetes.io/x",
            "x.k8s.io/a",
        ] {
            assert!(!set(label), "{label}");
        }
        let (old, new) = (labels(json!({"k8s.io/a": "1"})), labels(json!({"k8s.io/a": "1", "b": "2"})));
        assert_eq!(forbidden_labels(&new, &old), [""; 0]);
        assert_eq!(forbidden_labels(&labels(json!({})), &old), ["k8s.io/a"]);
    }

    #[test]
    fn what_a_mirror_pod_may_not_refer_to_is_found() {
        for (spec, what) in [
            (json!({"serviceAccountName": "a"}), "serviceaccounts"),
            (json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {}}}]}]}), "configmaps"),
            (json!({"containers": [{"envFrom": [{"secretRef": {}}]}]}), "secrets"),
            (json!({"volumes": [{"secret": {}}]}), "secrets (via secret volumes)"),
            (json!({"volumes": [{"projected": {"sources": [{"clusterTrustBundle": {}}]}}]}), "clustertrustbundles"),
            (json!({"volumes": [{"rbd": {"secretRef": {}}}]}), "secrets"),
        ] {
            assert_eq!(referred(&spec), Some(what));
        }
        assert_eq!(referred(&json!({"volumes": [{"hostPath": {"path": "/"}}], "containers": [{}]})), None);
    }
}
