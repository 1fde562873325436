//! Roles, bindings, service accounts and their tokens.

use std::fs;

use serde_json::Value;

use crate::node::{Node, eventually};

/// The claims of a token.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let body = token.trim().split('.').nth(1).expect("three parts");
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).expect("base64");
    serde_json::from_slice(&bytes).expect("claims")
}

/// A kubeconfig like the administrator's, with a token for its credentials.
fn kubeconfig(node: &Node, name: &str, token: &str) -> String {
    let admin = fs::read_to_string(node.data().join("admin.kubeconfig")).expect("read the kubeconfig");
    let (start, rest) = admin.split_once("    client-certificate-data:").expect("a certificate");
    let end = rest.split_once("contexts:").expect("contexts").1;
    let path = node.path(name);
    fs::write(&path, format!("{start}    token: {}\ncontexts:{end}", token.trim())).expect("write the kubeconfig");
    path.display().to_string()
}

#[test]
fn an_account_may_do_what_its_role_says_and_no_more() {
    let node = Node::ready();
    for name in ["default", "docker", "kube-public", "kube-system", "kube-node-lease"] {
        eventually("each namespace has its account and the authority", || {
            let there = |what: &str| node.try_kubectl(&format!("get -n {name} {what}")).code() == 0;
            (there("serviceaccount default") && there("configmap kube-root-ca.crt")).then_some(())
        });
    }
    node.ok("create serviceaccount reader");
    node.ok("create role reads-pods --verb=get,list --resource=pods");
    node.ok("create rolebinding reader --role=reads-pods --serviceaccount=default:reader");
    let may = |what: &str, who: &str| {
        node.try_kubectl(&format!("auth can-i {what} --as system:serviceaccount:default:{who}")).out.trim().to_owned()
    };
    assert_eq!(may("list pods", "reader"), "yes");
    assert_eq!(may("delete pods", "reader"), "no");
    assert_eq!(may("list pods -n kube-system", "reader"), "no");
    assert_eq!(may("list pods", "default"), "no");
    assert_eq!(node.ok("auth can-i create deployments").trim(), "yes");
    let list = node.ok("auth can-i --list --as system:serviceaccount:default:reader");
    assert!(list.lines().any(|line| line.starts_with("pods ") && line.contains("[get list]")), "{list}");

    // The same with a token, over the wire.
    let token = node.ok("create token reader --duration 20m");
    let said = claims(&token);
    assert_eq!(said["sub"], "system:serviceaccount:default:reader");
    assert_eq!(said["exp"].as_i64().zip(said["iat"].as_i64()).map(|(end, start)| end - start), Some(1200));
    let config = kubeconfig(&node, "reader.kubeconfig", &token);
    let as_reader = |line: &str| node.try_kubectl(&format!("--kubeconfig {config} {line}"));
    assert_eq!(as_reader("get pods").err.trim(), "No resources found in default namespace.");
    let refused = as_reader("get secrets");
    assert_eq!(
        refused.err.trim(),
        "Error from server (Forbidden): secrets is forbidden: User \"system:serviceaccount:default:reader\" cannot list \
         resource \"secrets\" in API group \"\" in the namespace \"default\""
    );
    assert!(as_reader("auth whoami").out.contains("system:serviceaccounts:default"));
    // What changes counts at once, and what is gone is worth nothing.
    node.ok("create clusterrolebinding viewer --clusterrole=view --serviceaccount=default:reader");
    assert_eq!(as_reader("get configmaps -A").code(), 0);
    assert_ne!(as_reader("get secrets").code(), 0, "view does not show secrets");
    node.ok("delete clusterrolebinding viewer");
    assert_ne!(as_reader("get configmaps").code(), 0);
    node.ok("delete serviceaccount reader");
    assert!(as_reader("get pods").err.contains("must be logged in"), "{}", as_reader("get pods").err);
    let forged = kubeconfig(&node, "forged.kubeconfig", &token.replace('.', ".A"));
    assert!(node.try_kubectl(&format!("--kubeconfig {forged} get pods")).err.contains("must be logged in"));
}

#[test]
fn mistakes_with_roles_are_told_and_nobody_gives_away_more_than_they_have() {
    let node = Node::ready();
    node.ok("create serviceaccount helper");
    node.ok("create rolebinding helper --clusterrole=admin --serviceaccount=default:helper");
    eventually("the role admin has gathered its rules", || {
        (node.try_kubectl("auth can-i create roles --as system:serviceaccount:default:helper").code() == 0)
            .then_some(())
    });
    let helper = |line: &str| node.try_kubectl(&format!("--as system:serviceaccount:default:helper {line}"));
    assert_eq!(helper("create role own --verb=get --resource=pods").code(), 0);
    let refused = helper("create role more --verb=get --resource=nodes");
    assert!(
        refused.err.contains("is attempting to grant RBAC permissions not currently held:")
            && refused.err.contains("{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"),
        "{}",
        refused.err
    );
    let refused = helper("create rolebinding root --clusterrole=cluster-admin --serviceaccount=default:helper");
    assert!(refused.err.contains("not currently held"), "{}", refused.err);

    // A role for a kind that does not exist: kubectl asks discovery.
    let refused = node.try_kubectl("create role wrong --verb=get --resource=podz");
    assert!(refused.err.contains("the server doesn't have a resource type \"podz\""), "{}", refused.err);
    // A binding to a role that is not there says so when it matters.
    node.ok("create rolebinding lost --role=nowhere --serviceaccount=default:lost");
    let refused = node.try_kubectl("get pods --as system:serviceaccount:default:lost");
    assert!(refused.err.contains("RBAC: role.rbac.authorization.k8s.io \"nowhere\" not found"), "{}", refused.err);
    let refused = node.with_input(
        "apply -f -",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: bad}\n\
         roleRef: {kind: Rolle, name: x, apiGroup: rbac.authorization.k8s.io}\n\
         subjects: [{kind: ServiceAccount, name: app}]\n",
    );
    assert!(
        refused.err.contains("roleRef.kind: Unsupported value: \"Rolle\": supported values: \"ClusterRole\", \"Role\"")
            && refused.err.contains("subjects[0].namespace: Required value"),
        "{}",
        refused.err
    );
    let refused = node.with_input(
        "apply -f -",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: bad}\nrules: [{resources: [pods]}]\n",
    );
    assert!(
        refused.err.contains("rules[0].verbs: Required value")
            && refused.err.contains("rules[0].apiGroups: Required value"),
        "{}",
        refused.err
    );
    let changed = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: helper}\n\
                   roleRef: {kind: ClusterRole, name: view, apiGroup: rbac.authorization.k8s.io}\n";
    assert!(node.with_input("apply -f -", changed).err.contains("cannot change roleRef"));
    let refused = node.with_input(
        "create -f -",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {serviceAccountName: nobody, containers: [{name: c, image: i}]}\n",
    );
    assert_eq!(
        refused.err.trim(),
        "Error from server (Forbidden): error when creating \"STDIN\": pods \"p\" is forbidden: error looking up service \
         account default/nobody: serviceaccount \"nobody\" not found"
    );
    assert!(
        node.try_kubectl("create token helper --duration 1m")
            .err
            .contains("may not specify a duration less than 10 minutes")
    );
}

#[test]
fn a_pod_has_the_token_of_its_account_and_files_that_follow_their_sources() {
    let mut node = Node::ready();
    node.ok("create configmap settings --from-literal=colour=red");
    node.ok("create secret generic pass --from-literal=word=one");
    node.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {tier: a}}\nspec:\n  containers:\n  - name: c\n    \
         image: busybox\n    imagePullPolicy: IfNotPresent\n    command: [sleep, '100000']\n    env:\n    \
         - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}\n    volumeMounts:\n    \
         - {name: s, mountPath: /settings}\n    - {name: w, mountPath: /word}\n    - {name: l, mountPath: /labels}\n  volumes:\n  \
         - {name: s, configMap: {name: settings}}\n  - {name: w, secret: {secretName: pass}}\n  \
         - {name: l, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}\n",
    );
    node.ok("wait --for=condition=Ready pod/p --timeout=60s");
    let own = "/var/run/secrets/kubernetes.io/serviceaccount";
    let read = |node: &Node, path: &str| node.ok(&format!("exec p -- cat {path}"));
    let said = claims(&read(&node, &format!("{own}/token")));
    assert_eq!(said["kubernetes.io"]["pod"]["name"], "p");
    assert_eq!(said["kubernetes.io"]["serviceaccount"]["name"], "default");
    assert_eq!(read(&node, &format!("{own}/namespace")), "default");
    assert!(read(&node, &format!("{own}/ca.crt")).starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(read(&node, "/settings/colour"), "red");
    let change = |node: &Node, colour: &str, word: &str, label: &str| {
        node.ok(&format!("patch configmap settings -p {{\"data\":{{\"colour\":\"{colour}\",\"{colour}\":\"new\"}}}}"));
        node.ok(&format!("patch secret pass -p {{\"stringData\":{{\"word\":\"{word}\"}}}}"));
        node.ok(&format!("label pod p tier={label} --overwrite"));
        eventually("the files have followed", || {
            let all = read(node, "/settings/colour") + &read(node, "/word/word") + &read(node, "/labels/labels");
            (all == format!("{colour}{word}tier=\"{label}\"")).then_some(())
        });
        assert_eq!(read(node, &format!("/settings/{colour}")), "new");
    };
    change(&node, "blue", "two", "b");
    // A server that comes later follows as well, and gives the pod a new token.
    let before = read(&node, &format!("{own}/token"));
    node.signal(nix::sys::signal::Signal::SIGKILL);
    node.start();
    eventually("a new token is in place", || (read(&node, &format!("{own}/token")) != before).then_some(()));
    change(&node, "green", "three", "c");
    assert_eq!(
        node.ok("exec p -- env").lines().find(|line| line.starts_with("COLOUR=")),
        Some("COLOUR=red"),
        "what a process was started with stays"
    );
    node.ok("delete pod p --now");
    // The token ends with its pod.
    let token = kubeconfig(&node, "gone.kubeconfig", &before);
    assert!(node.try_kubectl(&format!("--kubeconfig {token} auth whoami")).err.contains("must be logged in"));
}
