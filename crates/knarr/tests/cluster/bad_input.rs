//! Bad input, one by one: a clear error, the right status, and nothing half made.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;

use crate::node::{Node, Said, eventually, run};

fn assert_says(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code(), code, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: NAME}, spec: {containers: [{name: main, image: busybox}]}}";

#[test]
fn a_manifest_that_is_wrong_is_refused_with_its_reason() {
    let node = Node::ready();
    let apply = |text: &str| node.with_input("apply -f -", text);
    assert_says(&apply("apiVersion: v1\nkind: Pod\nmetadata: {name: x\n"), 1, &["error converting YAML to JSON"]);
    // Before it says so with validation on, kubectl lists custom resource definitions, which are not served yet.
    let unknown_kind = node.with_input("apply -f -", "{apiVersion: v1, kind: Cat, metadata: {name: x}}");
    assert_says(&unknown_kind, 1, &["no matches for kind \"Cat\" in version \"v1\""]);
    let unknown_field = apply(&POD.replace("NAME", "x").replace("image:", "imagee: a, image:"));
    assert_says(&unknown_field, 1, &["BadRequest", "unknown field \"spec.containers[0].imagee\""]);
    let bad_name = apply(&POD.replace("NAME", "Not_A_Label"));
    assert_says(&bad_name, 1, &["metadata.name: Invalid value: \"Not_A_Label\"", "RFC 1123"]);
    let no_containers = apply("{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}");
    assert_says(&no_containers, 1, &["spec.containers: Required value"]);
    let no_namespace = node.with_input("create -n nowhere -f -", &POD.replace("NAME", "x"));
    assert_says(&no_namespace, 1, &["NotFound", "namespaces \"nowhere\" not found"]);
    assert_says(&node.try_kubectl("get pod nobody"), 1, &["(NotFound)", "pods \"nobody\" not found"]);
    assert_says(&node.try_kubectl("get cats"), 1, &["the server doesn't have a resource type \"cats\""]);
    assert_says(&node.try_kubectl("exec nobody -- true"), 1, &["pods \"nobody\" not found"]);
    assert!(node.list("pods").is_empty(), "something was half made");
}

#[test]
fn a_request_that_is_wrong_has_the_status_that_kubernetes_has() {
    let node = Node::ready();
    let server = node.ok("config view -o jsonpath={.clusters[0].cluster.server}");
    let status = |method: &str, path: &str, body: &str, content: &str| {
        // The administrator's key and certificate, out of the kubeconfig.
        for (field, file) in [("client-certificate-data", "cert"), ("client-key-data", "key")] {
            let data = node.ok(&format!("config view --raw -o jsonpath={{.users[0].user.{field}}}"));
            fs::write(node.path(file), crate::node::shell(&format!("echo {data} | base64 -d"))).expect("write a file");
        }
        let line = format!(
            "curl -sk --cert {} --key {} -o /dev/null -w '%{{http_code}}' -X {method} -H 'Content-Type: {content}' -d '{body}' {server}{path}",
            node.path("cert").display(),
            node.path("key").display(),
        );
        crate::node::shell(&line)
    };
    let pods = "/api/v1/namespaces/default/pods";
    let json = "application/json";
    assert_eq!(status("POST", pods, "{\"kind\": ", json), "400");
    assert_eq!(status("POST", pods, "a: [", "application/yaml"), "400");
    assert_eq!(status("POST", pods, "<pod/>", "application/xml"), "415");
    assert_eq!(
        status("POST", pods, "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"x\"}}", json),
        "400"
    );
    let invalid = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"X\"},\"spec\":{\"containers\":[]}}";
    assert_eq!(status("POST", pods, invalid, json), "422");
    let map = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"twice\"}}";
    assert_eq!(status("POST", "/api/v1/namespaces/default/configmaps", map, json), "201");
    assert_eq!(status("POST", "/api/v1/namespaces/default/configmaps", map, json), "409");
    assert_eq!(status("GET", "/api/v1/namespaces/default/cats", "", json), "404");
    assert_eq!(status("GET", "/nowhere", "", json), "404");
    assert_eq!(status("PUT", "/api/v1/namespaces", "", json), "405");
    let code = crate::node::shell(&format!("curl -sk -o /dev/null -w '%{{http_code}}' {server}{pods}"));
    assert_eq!(code, "403", "a stranger");
}

#[test]
fn a_pod_whose_image_is_nowhere_says_so_and_waits() {
    let node = Node::ready();
    node.apply("{apiVersion: v1, kind: Pod, metadata: {name: lost}, spec: {containers: [{name: main, image: 'nobody/nothing:1'}]}}");
    let reason = "get pod lost -o jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    eventually("the pod tells why", || {
        ["ErrImagePull", "ImagePullBackOff"].contains(&node.ok(reason).as_str()).then_some(())
    });
    eventually("an event tells why", || {
        let events = node.ok("describe pod lost");
        (events.contains("Failed to pull image \"nobody/nothing:1\"")).then_some(())
    });
    node.apply("{apiVersion: v1, kind: Pod, metadata: {name: never}, spec: {containers: [{name: main, image: 'nobody/nothing:1', imagePullPolicy: Never}]}}");
    let reason = "get pod never -o jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    eventually("the pod tells why", || (node.ok(reason) == "ErrImageNeverPull").then_some(()));
    node.ok("delete pod lost never");
}

#[test]
fn an_image_that_is_here_satisfies_a_pull_that_no_registry_answers() {
    let node = Node::ready();
    node.apply("{apiVersion: v1, kind: Pod, metadata: {name: local}, spec: {containers: [{name: main, image: 'gihyodocker/echo:latest'}]}}");
    node.ok("wait --for=condition=Ready pod/local --timeout=60s");
    assert_eq!(node.ok("get pod local -o jsonpath={.spec.containers[0].imagePullPolicy}"), "Always");
    eventually("the event says where it is from", || {
        node.ok("describe pod local").contains("local store").then_some(())
    });
}

#[test]
fn a_server_that_cannot_start_says_why_and_leaves_nothing() {
    let node = Node::empty();
    let taken = TcpListener::bind("0.0.0.0:6443").expect("take the port");
    let said = run(&mut node.server());
    assert_says(&said, 1, &["0.0.0.0:6443", "has the port", &format!("process {}", std::process::id()), "--listen"]);
    drop(taken);
    let taken = TcpListener::bind("0.0.0.0:10250").expect("take the port");
    let said = run(&mut node.server());
    assert_says(&said, 1, &["0.0.0.0:10250", "has the port", "--kubelet-listen"]);
    drop(taken);
    assert!(node.processes().is_empty() && !node.data().join("store").exists());

    let mut server = node.server();
    let said = run(server.arg("--pod-cidr=everywhere"));
    assert_ne!(said.code(), 0, "{said:?}");
    assert!(said.err.contains("everywhere"), "{said:?}");
    let said = run(node.knarr("server").arg("--cats"));
    assert_says(&said, 2, &["unexpected argument '--cats'"]);
    let said = run(node.knarr("image").args(["import", "/nowhere.tar"]).args(node.dirs()));
    assert_says(&said, 1, &["import /nowhere.tar", "No such file"]);
    fs::write(node.path("noise.tar"), "noise").expect("write a file");
    let said = run(node.knarr("image").arg("import").arg(node.path("noise.tar")).args(node.dirs()));
    assert_says(&said, 1, &["import ", "noise.tar"]);
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() {
    let node = Node::ready();
    let mut second = node.server();
    let said = run(second.args(["--listen=127.0.0.1:7443", "--kubelet-listen=127.0.0.1:11250"]));
    assert_says(&said, 1, &["is in use by another knarr", &format!("process {}", node.pid()), "--data-dir"]);
    assert_eq!(node.ok("get --raw /readyz"), "ok");
}

#[test]
fn without_root_the_server_says_that_it_needs_it() {
    let node = Node::empty();
    let knarr = node.installed();
    for subcommand in [&["server"][..], &["image", "list"], &["uninstall", "--yes"]] {
        #[expect(clippy::disallowed_methods, reason = "the tests' helper does not change users")]
        let mut command = std::process::Command::new(&knarr);
        let said = run(command.args(subcommand).uid(65534).gid(65534));
        assert_says(&said, 1, &["needs root", "sudo"]);
    }
    #[expect(clippy::disallowed_methods, reason = "the tests' helper does not change users")]
    let help = run(std::process::Command::new(&knarr).arg("--help").uid(65534).gid(65534));
    assert!(help.status.success() && help.out.contains("knarr server"), "{help:?}");
    assert!(!node.data().exists());
}
