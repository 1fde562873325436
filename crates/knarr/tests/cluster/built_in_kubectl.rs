//! `knarr kubectl` beside the real kubectl: the same words on the same cluster.

#![expect(clippy::disallowed_methods, reason = "one test runs the binary under another name")]

use std::fs;
use std::io::{BufRead as _, BufReader, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use crate::node::{Node, PATIENCE, Said, eventually, manifest, run, shell};

/// The built-in kubectl with these words.
fn built_in(node: &Node, args: &[&str]) -> Command {
    let mut command = node.knarr("kubectl");
    command.args(args).env("KUBECONFIG", node.data().join("admin.kubeconfig")).env("HOME", node.path("home"));
    command
}

fn ours(node: &Node, line: &str) -> Said {
    run(&mut built_in(node, &line.split_whitespace().collect::<Vec<_>>()))
}

/// A line that must succeed; what it said.
fn ok(node: &Node, line: &str) -> String {
    let said = ours(node, line);
    assert!(said.status.success(), "knarr kubectl {line}: {}{}", said.out, said.err);
    said.out
}

fn with_input(node: &Node, line: &str, input: &str) -> Said {
    let mut file = tempfile::tempfile().expect("make a file");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("write a file");
    run(built_in(node, &line.split_whitespace().collect::<Vec<_>>()).stdin(file))
}

/// Both say the same, and end with the same status. Ages may tick between the two, so some more tries are given.
fn assert_same(node: &Node, lines: &[&str]) {
    let mut wrong = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut last = String::new();
        let same = (0..5).any(|_| {
            let (real, own) = (run(&mut node.kubectl(&words)), run(&mut built_in(node, &words)));
            last = format!(
                "### kubectl {line}\n--- real {:?}\n{}{}--- own {:?}\n{}{}",
                real.status, real.out, real.err, own.status, own.out, own.err
            );
            real.status.code() == own.status.code() && real.out == own.out && real.err == own.err
        });
        if !same {
            wrong.push(last);
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), lines.len(), wrong.join("\n"));
}

#[test]
fn the_built_in_kubectl_says_what_kubectl_says() {
    let node = Node::ready();
    for file in ["simple-pod.yaml", "simple-deployment.yaml"] {
        ok(&node, &format!("apply -f {}", manifest(file)));
    }
    assert_eq!(
        ok(&node, "rollout status deployment echo --timeout=60s").lines().last(),
        Some("deployment \"echo\" successfully rolled out")
    );
    assert_eq!(
        ok(&node, "wait pod/simple-echo --for=condition=Ready --timeout=60s"),
        "pod/simple-echo condition met\n"
    );
    // Ages of whole minutes would not help: what is compared is drawn within the same second, or tried again.
    assert_same(
        &node,
        &[
            "get pods",
            "get pods -o wide",
            "get pods -A",
            "get all",
            "get pods,deploy,rs",
            "get po/simple-echo deploy/echo",
            "get pods -l app=echo --show-labels",
            "get pods --field-selector=status.phase=Failed",
            "get pods --no-headers",
            "get deploy echo -o yaml",
            "get deploy echo -o json",
            "get pods -o name",
            "get pods -o yaml",
            "get nodes -o yaml",
            "get pods -o jsonpath={.items[*].metadata.name}",
            "get deploy,rs -o name",
            "get nodes -o wide",
            "get ns",
            "get cm -A -o yaml",
            "get pods -o custom-columns=N:.metadata.name,P:.status.phase",
            "get pods -n kube-system",
            "api-resources",
            "describe pod simple-echo",
            "describe deployment echo",
            "describe rs",
            "describe node node-1",
            "describe ns default",
            "describe cm -n kube-system",
            "rollout history deployment echo",
            "rollout history deployment/echo --revision=1",
            "rollout status deployment echo",
            "scale deployment echo --replicas=3",
            "wait pod/simple-echo --for=condition=Ready",
            "wait pod/simple-echo --for=jsonpath={.status.phase}=Running",
            "logs simple-echo -c echo",
            "logs simple-echo",
            "logs deploy/echo -c nginx --tail=2",
            "exec simple-echo -c nginx -- cat /etc/hostname",
            "exec deploy/echo -c nginx -- id -u",
            "config current-context",
            "config view",
            "auth can-i create pods",
            "create ns default",
            "get svc -A",
            "get svc kubernetes -o yaml",
            "describe svc kubernetes",
            "get endpointslices",
            "get sa -A",
            "describe sa default",
        ],
    );
}

#[test]
fn mistakes_are_answered_in_kubectls_words() {
    let node = Node::ready();
    ok(&node, &format!("apply -f {}", manifest("simple-pod.yaml")));
    ok(&node, "wait pod/simple-echo --for=condition=Ready --timeout=60s");
    assert_same(
        &node,
        &[
            "get pod nope",
            "get cats",
            "get pods nope simple-echo",
            "get cm -n nowhere",
            "get -o bad pods",
            "get pods --foo",
            "get pods -x",
            "get pods -o",
            "get",
            "get pods --context=zz",
            "get pods --kubeconfig=/nope",
            "describe pod nope",
            "logs",
            "logs nope",
            "logs simple-echo -c nope",
            "exec simple-echo",
            "exec nope -- true",
            "exec simple-echo ls",
            "exec simple-echo -c nginx -- nosuch",
            "exec simple-echo -c nginx -- sh -c exit\\ 3",
            "delete pod nope",
            "delete pod",
            "delete cats x",
            "delete -f /nowhere",
            "apply -f /nowhere",
            "rollout history deployment nope",
            "rollout undo deployment nope",
            "scale deployment nope --replicas=3",
            "wait pod/nope --for=condition=Ready",
            "wait pod/simple-echo --for=foo",
            "wait pod/simple-echo --for=condition=Never --timeout=1s",
            "wait pods -l no=pod --for=condition=Ready",
            "label pod nope a=b",
            "cordon nope",
            "create namespace A_b",
            "config use-context nope",
        ],
    );
    let same = |input: &str| {
        let real = node.with_input("apply -f -", input);
        let own = with_input(&node, "apply -f -", input);
        assert_eq!((own.code(), &own.out, &own.err), (real.code(), &real.out, &real.err), "{input}");
    };
    same("{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}");
    same("{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: a, imagee: b}]}}");
    same("{apiVersion: v1, kind: Pod, metadata: {name: X}, spec: {containers: [{name: A_b}]}}");
    let unknown = with_input(&node, "apply -f -", "{apiVersion: v1, kind: Cat, metadata: {name: x}}");
    assert!(
        unknown.code() == 1 && unknown.err.contains("no matches for kind \"Cat\" in version \"v1\""),
        "{unknown:?}"
    );
    assert_eq!(node.list("pods").len(), 1, "nothing was half made, and nothing lost");
}

#[test]
fn the_tutorial_needs_no_kubectl() {
    let node = Node::ready();
    // Nothing says where the cluster is but knarr's own data directory, and the binary is called kubectl.
    let kubectl = |line: &str| {
        let mut command = Command::new(node.installed());
        command
            .arg0("kubectl")
            .args(line.split_whitespace())
            .env("KNARR_DATA_DIR", node.data())
            .env_remove("KUBECONFIG");
        let said = run(command.env("HOME", node.path("home")).stdin(Stdio::null()));
        assert!(said.status.success(), "kubectl {line}: {said:?}");
        said.out
    };
    assert_eq!(kubectl(&format!("apply -f {}", manifest("simple-pod.yaml"))), "pod/simple-echo created\n");
    kubectl("wait pod/simple-echo --for=condition=Ready --timeout=60s");
    assert!(kubectl("get pod").lines().any(|line| line.starts_with("simple-echo   2/2     Running")));
    let address = kubectl("get pod simple-echo -o jsonpath={.status.podIP}");
    assert!(node.http(&address, 80).expect("nginx answers").contains("Hello Docker!!"));
    eventually("the log has the request", || {
        kubectl("logs simple-echo -c echo").contains("received request").then_some(())
    });
    assert_eq!(kubectl("delete pod simple-echo --now"), "pod \"simple-echo\" deleted from default namespace\n");

    kubectl(&format!("apply -f {}", manifest("simple-deployment.yaml")));
    kubectl("rollout status deployment echo --timeout=60s");
    assert_eq!(
        kubectl(&format!("apply -f {}", manifest("simple-deployment.yaml"))),
        "deployment.apps/echo unchanged\n"
    );
    // One of both may go on where the other began.
    assert_eq!(
        node.ok(&format!("apply -f {}", manifest("simple-deployment.yaml"))),
        "deployment.apps/echo unchanged\n"
    );
    assert_eq!(kubectl("scale deployment echo --replicas=4"), "deployment.apps/echo scaled\n");
    assert_eq!(
        kubectl(&format!("apply -f {}", manifest("simple-deployment-patched.yaml"))),
        "deployment.apps/echo configured\n"
    );
    kubectl("rollout status deployment echo --timeout=60s");
    assert_eq!(
        kubectl("rollout history deployment echo"),
        "deployment.apps/echo \nREVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n\n"
    );
    assert_eq!(kubectl("rollout undo deployment echo"), "deployment.apps/echo rolled back\n");
    kubectl("rollout status deployment echo --timeout=60s");
    assert!(kubectl("rollout history deployment echo").contains("\n3         <none>\n"));
    assert_eq!(kubectl("rollout pause deployment echo"), "deployment.apps/echo paused\n");
    assert_eq!(kubectl("rollout resume deployment echo"), "deployment.apps/echo resumed\n");
    assert_eq!(kubectl("rollout restart deployment echo"), "deployment.apps/echo restarted\n");
    kubectl("rollout status deployment echo --timeout=60s");
    let said = kubectl(&format!("delete -f {}", manifest("simple-deployment.yaml")));
    assert_eq!(said, "deployment.apps \"echo\" deleted from default namespace\n");
    eventually("the pods go with it", || kubectl("get pods,rs -o name").is_empty().then_some(()));

    assert_eq!(kubectl("create namespace team"), "namespace/team created\n");
    assert_eq!(kubectl("label ns team a=b c=d"), "namespace/team labeled\n");
    assert_eq!(kubectl("label ns team a- "), "namespace/team unlabeled\n");
    assert_eq!(kubectl("annotate ns team why=because"), "namespace/team annotated\n");
    assert_eq!(kubectl("get ns team -o jsonpath={.metadata.labels.c}{.metadata.annotations.why}"), "dbecause");
    assert_eq!(kubectl("cordon node-1"), "node/node-1 cordoned\n");
    assert!(kubectl("get nodes").contains("Ready,SchedulingDisabled"));
    assert_eq!(kubectl("uncordon node-1"), "node/node-1 uncordoned\n");
    assert_eq!(kubectl("delete ns team"), "namespace \"team\" deleted\n");
}

#[test]
fn streams_go_both_ways_and_manifests_are_merged() {
    let node = Node::ready();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: shell, labels: {a: '1', b: '2'}}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers:\n  - {name: main, image: busybox, imagePullPolicy: Never, stdin: true, command: [sh, -c, 'i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done']}\n";
    let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {x: '1', y: '2'}\n";
    let said = with_input(&node, "apply -f -", &format!("{pod}{map}"));
    assert_eq!(said.out, "pod/shell created\nconfigmap/settings created\n");

    // A watch shows each change under the first header.
    let mut watch = built_in(&node, &["get", "pods", "-w"]).stdout(Stdio::piped()).spawn().expect("start a watch");
    let mut lines = BufReader::new(watch.stdout.take().expect("its output")).lines().map_while(Result::ok);
    assert!(lines.next().expect("a header").starts_with("NAME    READY   STATUS"));
    assert!(lines.any(|line| line.contains("1/1     Running")), "the pod runs");
    watch.kill().and_then(|()| watch.wait()).expect("end the watch");

    // What another has changed stays, what the manifest drops goes.
    node.ok("label pod shell other=z");
    let said = with_input(
        &node,
        "apply -f -",
        &format!("{}{}", pod.replace(", b: '2'", ", c: '3'"), map.replace(", y: '2'", "")),
    );
    assert_eq!(said.out, "pod/shell configured\nconfigmap/settings configured\n");
    assert_eq!(node.ok("get pod shell -o jsonpath={.metadata.labels}"), "{\"a\":\"1\",\"c\":\"3\",\"other\":\"z\"}");
    assert_eq!(node.ok("get cm settings -o jsonpath={.data}"), "{\"x\":\"1\"}");

    // Logs that are followed, input that is piped, a terminal.
    let mut follow =
        built_in(&node, &["logs", "-f", "shell", "--tail=1"]).stdout(Stdio::piped()).spawn().expect("follow");
    let seen = BufReader::new(follow.stdout.take().expect("its output")).lines().map_while(Result::ok).take(5).count();
    follow.kill().and_then(|()| follow.wait()).expect("end it");
    assert_eq!(seen, 5, "not within {PATIENCE:?}");
    assert_eq!(with_input(&node, "exec -i shell -- wc -c", &"x".repeat(100_000)).out.trim(), "100000");
    let own = env!("CARGO_BIN_EXE_knarr");
    let config = node.data().join("admin.kubeconfig").display().to_string();
    let said = shell(&format!(
        "script -qec 'stty cols 91 rows 33; {own} kubectl --kubeconfig {config} exec -it shell -- sh -c \"sleep 0.3; stty size; tty\"' /dev/null < /dev/null"
    ));
    assert!(said.contains("33 91") && said.contains("/dev/pts/"), "{said:?}");

    // A directory, and selectors.
    let dir = node.path("manifests");
    fs::create_dir(&dir).expect("make a directory");
    for name in ["one", "two"] {
        fs::write(dir.join(format!("{name}.yaml")), map.replace("settings", name)).expect("write a manifest");
    }
    let dir = dir.display().to_string();
    assert_eq!(ok(&node, &format!("apply -f {dir}")), "configmap/one created\nconfigmap/two created\n");
    assert_eq!(
        ok(&node, &format!("delete -f {dir}")),
        "configmap \"one\" deleted from default namespace\nconfigmap \"two\" deleted from default namespace\n"
    );
    assert_eq!(ok(&node, "delete pods -l a=1"), "pod \"shell\" deleted from default namespace\n");
    assert!(node.list("pods").is_empty());
}
