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
