//! Approved requests for certificates of Kubernetes' own signers: those that ask for what their signer gives get it.

use std::time::Duration;

use client::Resource;
use jiff::Timestamp;
use kinds::Requested;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::{Action, Controller, Objects, Writes};

pub(crate) const REQUESTS: Resource =
    Resource { group: "certificates.k8s.io", version: "v1", plural: "certificatesigningrequests" };
/// Whose certificates the API server takes for who they say.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// The same for kubelets, and for the ports of kubelets.
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

pub(crate) const CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-signing-controller",
    subject: REQUESTS,
    reads: &[],
    writes: &[
        Writes::Status,
        Writes::InTheNameOf { verb: "sign", signers: &[CLIENT, KUBELET_CLIENT, KUBELET_SERVING] },
    ],
    plan,
};

/// How long a certificate is valid at most, and at least (upstream's defaults).
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(600);

/// Whether a request has its certificate.
pub(crate) fn is_issued(request: &Value) -> bool {
    request["status"]["certificate"].as_str().is_some_and(|certificate| !certificate.is_empty())
}

fn plan(request: &Value, _objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if !meta::has_condition(request, "Approved") || meta::has_condition(request, "Failed") || is_issued(request) {
        return Ok(Vec::new());
    }
    let usages: Vec<&str> =
        request["spec"]["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let requested = kinds::requested(request)?;
    let judged = match request["spec"]["signerName"].as_str().unwrap_or_default() {
        CLIENT => client_usages(&usages),
        KUBELET_CLIENT => kubelet_client(&requested, &usages),
        KUBELET_SERVING => kubelet_serving(&requested, &usages),
        _ => return Ok(Vec::new()),
    };
    if let Err(why) = judged {
        let mut failed = request.clone();
        let at = time::seconds(now);
        let condition = json!({
            "type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why, "lastUpdateTime": at,
        });
        if let Some(conditions) = failed["status"]["conditions"].as_array_mut() {
            conditions.push(condition);
        }
        return Ok(vec![Action::Update {
            resource: REQUESTS,
            namespace: String::new(),
            name: meta::name(request).to_owned(),
            subresource: "status",
            object: failed,
        }]);
    }
    let asked = request["spec"]["expirationSeconds"].as_u64().map(Duration::from_secs);
    let valid = asked.map_or(LONGEST, |asked| asked.clamp(SHORTEST, LONGEST));
    Ok(vec![Action::Sign { resource: REQUESTS, name: meta::name(request).to_owned(), object: request.clone(), valid }])
}

fn client_usages(usages: &[&str]) -> Result<(), String> {
    if let Some(other) = usages.iter().find(|u| !["digital signature", "key encipherment", "client auth"].contains(u)) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if usages.contains(&"client auth") {
        Ok(())
    } else {
        Err("missing required usage for client certificate: client auth".to_owned())
    }
}

/// What a kubelet's certificate must be for, with or without what keys other than RSA have no use for.
fn exactly(usages: &[&str], purpose: &'static str) -> Result<(), String> {
    let mut given = usages.to_vec();
    given.sort_unstable();
    given.dedup();
    let mut wanted = vec!["digital signature", "key encipherment", purpose];
    wanted.sort_unstable();
    let shorter: Vec<&str> = wanted.iter().copied().filter(|usage| *usage != "key encipherment").collect();
    if given == wanted || given == shorter {
        Ok(())
    } else {
        Err(format!("usages did not match [{}]", wanted.join(" ")))
    }
}

fn of_nodes(requested: &Requested) -> Result<(), String> {
    if requested.organizations == ["system:nodes"] {
        Ok(())
    } else {
        Err("subject organization is not system:nodes".to_owned())
    }
}

fn of_a_node(requested: &Requested) -> Result<(), String> {
    if requested.common_name.starts_with("system:node:") {
        Ok(())
    } else {
        Err("subject common name does not begin with system:node:".to_owned())
    }
}

fn without(names: usize, what: &str) -> Result<(), String> {
    if names == 0 { Ok(()) } else { Err(format!("{what} subjectAltNames are not allowed")) }
}

/// Whether a kubelet may ask for this to be known by to the API server.
pub(crate) fn kubelet_client(requested: &Requested, usages: &[&str]) -> Result<(), String> {
    of_nodes(requested)?;
    without(requested.dns_names, "DNS")?;
    without(requested.addresses, "IP")?;
    without(requested.mails, "Email")?;
    without(requested.uris, "URI")?;
    exactly(usages, "client auth")?;
    of_a_node(requested)
}

fn kubelet_serving(requested: &Requested, usages: &[&str]) -> Result<(), String> {
    of_nodes(requested)?;
    if requested.dns_names + requested.addresses == 0 {
        return Err("DNS or IP subjectAltName is required".to_owned());
    }
    without(requested.mails, "Email")?;
    without(requested.uris, "URI")?;
    exactly(usages, "server auth")?;
    of_a_node(requested)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Requested {
        Requested {
            common_name: "system:node:a".to_owned(),
            organizations: vec!["system:nodes".to_owned()],
            ..Requested::default()
        }
    }

    #[test]
    fn a_client_asks_for_the_usages_of_clients() {
        assert_eq!(client_usages(&["client auth", "digital signature", "key encipherment"]), Ok(()));
        assert_eq!(client_usages(&["client auth"]), Ok(()));
        let said = |usages: &[&str]| client_usages(usages).expect_err("refused");
        assert_eq!(said(&["digital signature"]), "missing required usage for client certificate: client auth");
        assert_eq!(said(&["client auth", "cert sign"]), "invalid usage for client certificate: cert sign");
    }

    #[test]
    fn a_kubelet_asks_for_its_own_name_and_for_nothing_else() {
        let client = ["client auth", "digital signature"];
        assert_eq!(kubelet_client(&node(), &client), Ok(()));
        assert_eq!(kubelet_client(&node(), &["key encipherment", "client auth", "digital signature"]), Ok(()));
        let said = |requested: Requested, usages: &[&str]| kubelet_client(&requested, usages).expect_err("refused");
        assert_eq!(
            said(node(), &["client auth"]),
            "usages did not match [client auth digital signature key encipherment]"
        );
        let masters = Requested { organizations: vec!["system:nodes".into(), "system:masters".into()], ..node() };
        assert_eq!(said(masters, &client), "subject organization is not system:nodes");
        let other = Requested { common_name: "admin".into(), ..node() };
        assert_eq!(said(other, &client), "subject common name does not begin with system:node:");
        assert_eq!(said(Requested { dns_names: 1, ..node() }, &client), "DNS subjectAltNames are not allowed");
        assert_eq!(said(Requested { uris: 1, ..node() }, &client), "URI subjectAltNames are not allowed");
        let server = ["digital signature", "server auth"];
        assert_eq!(kubelet_serving(&Requested { addresses: 1, ..node() }, &server), Ok(()));
        assert_eq!(kubelet_serving(&node(), &server), Err("DNS or IP subjectAltName is required".to_owned()));
        assert_eq!(
            kubelet_serving(&Requested { dns_names: 1, mails: 1, ..node() }, &server),
            Err("Email subjectAltNames are not allowed".to_owned())
        );
    }
}
