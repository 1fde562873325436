//! What others bring to a cluster: the definitions of well-known operators, unchanged, and clients in other languages.

#![expect(clippy::disallowed_methods, reason = "tests run programs of other languages")]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::node::{Node, eventually, made, run};

#[test]
fn definitions_of_operators_are_taken_unchanged() {
    let mut node = Node::empty();
    node.start();
    let operators = made("clients/operators", "clients").display().to_string();
    let dask = format!("{operators}/dask/dask_kubernetes/operator");
    let definitions = format!("{dask}/deployment/helm/dask-kubernetes-operator/crds");
    node.ok(&format!("apply --server-side -f {definitions} -f {operators}/kopf/examples/crd.yaml"));
    // The peerings come in one file with objects of the kinds that it defines.
    eventually("the peerings are there", || {
        let said = node.try_kubectl(&format!("apply --server-side -f {operators}/kopf/peering.yaml"));
        said.status.success().then_some(())
    });
    node.ok("wait --for=condition=Established crd --all --timeout=30s");
    assert_eq!(node.list("crd").len(), 7);

    // Examples of both; what they leave out is filled in, and a second time changes nothing.
    let resources = format!("{dask}/controller/tests/resources");
    for (file, what) in [
        (format!("{resources}/simplecluster.yaml"), "daskcluster/simple"),
        (format!("{resources}/simplejob.yaml"), "daskjob/simple-job"),
        (format!("{resources}/simpleworkergroup.yaml"), "daskworkergroup/simple-additional"),
        (format!("{operators}/kopf/examples/obj.yaml"), "kopfexample/kopf-example-1"),
    ] {
        node.ok(&format!("apply --server-side -f {file}"));
        let object = node.get(what);
        assert!(object["spec"].as_object().is_some_and(|spec| !spec.is_empty()), "{object}");
        node.ok(&format!("apply --server-side -f {file}"));
        assert_eq!(node.get(what)["metadata"]["resourceVersion"], object["metadata"]["resourceVersion"], "{what}");
    }
    assert!(node.ok("get kex").contains("DURATION   CHILDREN   MESSAGE"));
    assert!(node.ok("explain daskcluster.spec.worker.spec.containers.livenessProbe").contains("httpGet"));
    let scaled = node.ok("scale daskworkergroup simple-additional --replicas=3");
    assert!(scaled.contains("scaled"), "{scaled}");
    assert_eq!(node.ok("get daskworkergroup simple-additional -o jsonpath={.spec.worker.replicas}"), "3");
    let wrong = "{apiVersion: kubernetes.dask.org/v1, kind: DaskAutoscaler, metadata: {name: x}, spec: {cluster: a}}";
    let said = node.with_input("apply --server-side -f -", wrong);
    assert!(said.code() == 1 && said.err.contains("spec.minimum: Required value"), "{said:?}");
    node.ok("delete crd --all --timeout=60s");
    assert!(node.list("crd").is_empty());
}

/// Those that make no other object than an example of theirs; some are hundreds of kilobytes long.
#[test]
fn definitions_of_a_dozen_projects_are_taken_unchanged() {
    let mut node = Node::empty();
    node.start();
    let all = made("clients/operators/kopium", "clients").display().to_string();
    let known = [
        ("agent-crd", "agent", "agents.agent-install.openshift.io"),
        ("applications.argoproj.io", "app", "applications.argoproj.io"),
        ("certificates.cert-manager.io", "cert", "certificates.cert-manager.io"),
        ("destinationrule-crd", "destinationrule", "destinationrules.networking.istio.io"),
        ("podmonitors.monitoring.coreos.com", "podmon", "podmonitors.monitoring.coreos.com"),
        ("prometheusrules.monitoring.coreos.com", "pr", "prometheusrules.monitoring.coreos.com"),
        ("servicemonitors.monitoring.coreos.com", "servicemon", "servicemonitors.monitoring.coreos.com"),
        ("server-crd", "server", "servers.policy.linkerd.io"),
        ("serverauth-crd", "serverauth", "serverauthorizations.policy.linkerd.io"),
        ("httproute-crd", "httproute", "httproutes.gateway.networking.k8s.io"),
    ];
    let without_example = [
        "cluster-crd",
        "cmd/generate/crds/apis.apigatewayv2.services.k8s.aws",
        "cmd/generate/crds/argocdexports.argoproj.io",
        "cmd/generate/crds/authorizers.apigatewayv2.services.k8s.aws",
        "cmd/generate/crds/externalsecrets.external-secrets.io",
        "cmd/generate/crds/postgresqls.acid.zalan.do",
    ];
    let files = known.iter().map(|(definition, ..)| *definition).chain(without_example);
    let files: String = files.map(|file| format!(" -f {all}/{file}.yaml")).collect();
    node.ok(&format!("apply --server-side{files}"));
    node.ok("wait --for=condition=Established crd --all --timeout=30s");
    let versions = |node: &Node| -> Vec<String> {
        node.list("crd").iter().map(|one| one["metadata"]["resourceVersion"].to_string()).collect()
    };
    let before = versions(&node);
    assert_eq!(before.len(), known.len() + without_example.len());
    node.ok(&format!("apply --server-side{files}"));
    assert_eq!(versions(&node), before);

    for (_, example, resource) in known {
        let file = format!("{all}/{example}.yaml");
        node.ok(&format!("apply --server-side --validate=strict -f {file}"));
        let object = node.get(&format!("{resource}/gen"));
        assert!(object["spec"].as_object().is_some_and(|spec| !spec.is_empty()), "{object}");
        node.ok(&format!("apply --server-side -f {file}"));
        assert_eq!(
            node.get(&format!("{resource}/gen"))["metadata"]["resourceVersion"],
            object["metadata"]["resourceVersion"]
        );
    }
    let wrong = "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: x}, spec: {secretName: s, issuerRef: {}, \
                 privateKey: {algorithm: Rot13}}}";
    let said = node.with_input("apply --server-side -f -", wrong);
    assert_eq!(said.code(), 1, "{said:?}");
    for part in ["spec.issuerRef.name: Required value", "spec.privateKey.algorithm: Unsupported value: \"Rot13\""] {
        assert!(said.err.contains(part), "{part} in {}", said.err);
    }
    // What is filled in of a route that names nothing but a Service.
    let route = node.get("httproutes.gateway.networking.k8s.io/gen");
    assert_eq!(route["spec"]["rules"][0]["matches"][0]["path"]["value"], "/", "{route}");
    assert!(node.ok("explain applications.spec.source.helm.parameters").contains("forceString"));
    node.ok("delete crd --all --timeout=60s");
    assert!(node.list("crd").is_empty());
}

#[test]
fn the_python_client_does_what_programs_do_with_it() {
    let mut node = Node::empty();
    node.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/client.py");
    let mut python = Command::new("python3");
    python
        .arg(script)
        .env("PYTHONPATH", made("clients/python", "clients"))
        .env("KUBECONFIG", node.data().join("admin.kubeconfig"))
        .env("HOME", node.path("home"));
    let said = run(python.stdin(Stdio::null()));
    assert!(said.status.success() && said.out == "all of it\n", "{}{}", said.out, said.err);
}

#[test]
fn the_javascript_client_does_what_programs_do_with_it() {
    let mut node = Node::empty();
    node.start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/javascript/client.mjs");
    let client = made("clients/javascript", "clients");
    let mut javascript = Command::new(client.join("node"));
    javascript
        .arg(script)
        .env("NODE_PATH", client.join("node_modules"))
        .env("KUBECONFIG", node.data().join("admin.kubeconfig"))
        .env("HOME", node.path("home"));
    let said = run(javascript.stdin(Stdio::null()));
    assert!(said.status.success() && said.out == "all of it\n", "{}{}", said.out, said.err);
}
