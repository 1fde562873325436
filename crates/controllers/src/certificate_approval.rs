//! Kubelets get their certificates without anybody's consent, where a role says that they may.

use auth::{Attributes, Policy, User};
use client::Resource;
use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::certificate_signing::{KUBELET_CLIENT, REQUESTS, is_issued, kubelet_client};
use crate::cluster_role_aggregation::CLUSTER_ROLES;
use crate::{Action, Controller, Key, Objects, Read, Writes};

const BINDINGS: Resource =
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural: "clusterrolebindings" };

pub(crate) const CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-approving-controller",
    subject: REQUESTS,
    reads: &[Read { resource: CLUSTER_ROLES, wakes: nobody }, Read { resource: BINDINGS, wakes: nobody }],
    writes: &[
        Writes::Shared { resource: REQUESTS, because: "consent is a subresource that whoever may consent writes" },
        Writes::InTheNameOf { verb: "approve", signers: &[KUBELET_CLIENT] },
    ],
    plan,
};

/// A request is judged by the roles that there are when it is made.
fn nobody(_: &Value, _: &dyn Objects) -> Vec<Key> {
    Vec::new()
}

fn plan(request: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let answered =
        meta::has_condition(request, "Approved") || meta::has_condition(request, "Denied") || is_issued(request);
    let spec = &request["spec"];
    if answered || spec["signerName"] != KUBELET_CLIENT {
        return Ok(Vec::new());
    }
    let texts =
        |field: &str| -> Vec<&str> { spec[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
    let requested = kinds::requested(request)?;
    if kubelet_client(&requested, &texts("usages")).is_err() {
        return Ok(Vec::new());
    }
    let name = spec["username"].as_str().unwrap_or_default();
    let groups = texts("groups").into_iter().map(str::to_owned).collect();
    let user = User { name: name.to_owned(), groups, ..User::default() };
    let policy = policy(objects);
    let may = |subresource: &str| {
        let attributes = Attributes {
            user: &user,
            verb: "create",
            group: REQUESTS.group,
            resource: format!("{}/{subresource}", REQUESTS.plural).into(),
            namespace: "",
            name: "",
            path: "",
            fields: "",
        };
        policy.verdict(&attributes).0
    };
    let message = if name == requested.common_name && may("selfnodeclient") {
        "Auto approving self kubelet client certificate after SubjectAccessReview."
    } else if may("nodeclient") {
        "Auto approving kubelet client certificate after SubjectAccessReview."
    } else {
        return Ok(Vec::new());
    };
    let mut approved = request.clone();
    let condition = json!({
        "type": "Approved", "status": "True", "reason": "AutoApproved", "message": message,
        "lastUpdateTime": time::seconds(now),
    });
    match approved["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => approved["status"]["conditions"] = json!([condition]),
    }
    Ok(vec![Action::Update {
        resource: REQUESTS,
        namespace: String::new(),
        name: meta::name(request).to_owned(),
        subresource: "approval",
        object: approved,
    }])
}

/// The roles that hold in the whole cluster.
fn policy(objects: &dyn Objects) -> Policy {
    let mut policy = Policy::default();
    for (resource, kind) in [(CLUSTER_ROLES, "ClusterRole"), (BINDINGS, "ClusterRoleBinding")] {
        for object in objects.list(resource, "") {
            policy.observe(kind, "", &object.name, Some(&object.object));
        }
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    /// For `system:node:a` of `system:nodes`.
    const PKCS10: &str = include_str!("testing/node.csr");

    fn request(username: &str) -> Value {
        json!({"metadata": {"name": "r"}, "status": {}, "spec": {
            "signerName": KUBELET_CLIENT, "usages": ["digital signature", "client auth"], "username": username,
            "groups": ["system:bootstrappers"], "request": PKCS10.trim(),
        }})
    }

    fn allowing(subresource: &str) -> Fixed {
        let role = json!({"metadata": {"name": "join"}, "rules": [{
            "apiGroups": ["certificates.k8s.io"], "verbs": ["create"],
            "resources": [format!("certificatesigningrequests/{subresource}")],
        }]});
        let binding = json!({
            "metadata": {"name": "join"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "join"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers"}],
        });
        Fixed::default().with(CLUSTER_ROLES, role).with(BINDINGS, binding)
    }

    fn said(request: &Value, objects: &Fixed) -> String {
        brief(&plan(request, objects, now()).expect("a plan"))
    }

    #[test]
    fn a_kubelet_whose_role_allows_it_gets_consent() {
        assert!(
            said(&request("token"), &allowing("nodeclient"))
                .starts_with("update certificatesigningrequests r approval")
        );
        assert_eq!(said(&request("token"), &allowing("selfnodeclient")), "", "only for its own name");
        assert_ne!(said(&request("system:node:a"), &allowing("selfnodeclient")), "");
        assert_eq!(said(&request("token"), &Fixed::default()), "");
        let mut denied = request("token");
        denied["status"]["conditions"] = json!([{"type": "Denied", "status": "True"}]);
        assert_eq!(said(&denied, &allowing("nodeclient")), "");
    }
}
