//! What kubectl shows and does.

use std::time::Duration;

use crate::node::{Node, eventually, manifest, names, run};

fn running_pod() -> Node {
    let node = Node::ready();
    node.ok(&format!("apply -f {}", manifest("simple-pod.yaml")));
    node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    node
}

fn columns(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

#[test]
fn get_shows_tables_names_and_objects() {
    let node = running_pod();
    let table = node.ok("get pod -o wide");
    let rows = columns(&table);
    let header = ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"];
    assert_eq!(rows[0], header, "{table}");
    assert_eq!(rows[1][..4], ["simple-echo", "2/2", "Running", "0"]);
    assert_eq!(rows[1][6..], ["node-1", "<none>", "<none>"]);
    assert_eq!(node.ok("get pod -o name"), "pod/simple-echo\n");
    assert!(node.ok("get pod simple-echo -o yaml").starts_with("apiVersion: v1\nkind: Pod\nmetadata:\n"));
    let pod = node.get("pod simple-echo");
    assert_eq!((pod["apiVersion"].as_str(), pod["kind"].as_str()), (Some("v1"), Some("Pod")));
    assert_eq!(pod["status"]["phase"], "Running");
    let nodes = node.ok("get nodes");
    let row: Vec<&str> = nodes.lines().nth(1).expect("a node").split_whitespace().collect();
    assert_eq!(row[..2], ["node-1", "Ready"], "{nodes}");
    assert!(row[4].starts_with("v1.37."), "{nodes}");
    let namespaces = names(&node.list("namespaces"));
    assert_eq!(namespaces, ["default", "docker", "kube-node-lease", "kube-public", "kube-system"]);
    assert!(node.ok("get all").contains("pod/simple-echo"));
    assert!(node.ok("api-resources").contains("deployments"));
    assert!(node.ok("explain pod.spec.containers").contains("FIELDS"));
}

#[test]
fn describe_tells_of_containers_and_events() {
    let node = running_pod();
    let text = eventually("the events are there", || {
        let text = node.ok("describe pod simple-echo");
        (text.matches("Started").count() >= 2).then_some(text)
    });
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "Name: simple-echo",
        "Node: node-1/",
        "Status: Running",
        "BACKEND_HOST: localhost:8080",
        "Ready True",
        "Normal Scheduled",
        "Normal Pulled",
        "Normal Created",
    ] {
        assert!(plain.contains(words), "{words:?} is not in\n{text}");
    }
    let text = node.ok("describe node node-1");
    let plain = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["Ready True", "Capacity:", "Allocatable:", "default simple-echo"] {
        assert!(plain.contains(words), "{words:?} is not in\n{text}");
    }
}

#[test]
fn logs_and_exec_reach_the_container() {
    let node = running_pod();
    assert!(node.ok("logs simple-echo -c echo").contains("start server"));
    assert!(node.ok("logs simple-echo -c echo --tail=1 --timestamps").contains('T'));
    let refused = node.try_kubectl("logs simple-echo -c cat");
    assert_eq!(refused.code(), 1);
    assert!(refused.err.contains("container cat is not valid for pod simple-echo"), "{refused:?}");
    assert_eq!(node.ok("exec simple-echo -c echo -- echo out"), "out\n");
    assert_eq!(node.with_input("exec -i simple-echo -c echo -- cat", "through and back").out, "through and back");
    let failed =
        run(&mut node.kubectl(["exec", "simple-echo", "-c", "echo", "--", "sh", "-c", "echo bad >&2; exit 7"]));
    assert_eq!((failed.code(), failed.err.lines().next()), (7, Some("bad")));
    // The size comes by a channel of its own, a moment after the command has begun; until then it is nothing.
    let kubectl = node.kubectl([
        "exec",
        "-it",
        "simple-echo",
        "-c",
        "echo",
        "--",
        "sh",
        "-c",
        "'tty; until stty size | grep 99; do sleep 0.1; done'",
    ]);
    let line: Vec<String> =
        std::iter::once(kubectl.get_program()).chain(kubectl.get_args()).map(|w| w.display().to_string()).collect();
    let config = node.data().join("admin.kubeconfig");
    let said = crate::node::shell(&format!(
        "KUBECONFIG={} script --quiet --return --command \"stty rows 33 cols 99; {}\" /dev/null < /dev/null",
        config.display(),
        line.join(" ")
    ));
    assert!(said.contains("/dev/pts/0") && said.contains("33 99"), "{said:?}");
}

#[test]
fn scale_wait_watch_and_rollout_follow_a_deployment() {
    let node = Node::ready();
    let watch = node.follow("get deployment --watch");
    node.ok(&format!("apply -f {}", manifest("simple-deployment.yaml")));
    watch.until("3/3");
    assert_eq!(node.ok("scale deployment echo --replicas=1"), "deployment.apps/echo scaled\n");
    watch.until("1/1");
    eventually("the others go", || (node.list("pods").len() == 1).then_some(()));
    node.ok("wait --for=condition=Available deployment/echo --timeout=60s");
    let late = node.try_kubectl("wait --for=jsonpath={.status.readyReplicas}=9 deployment/echo --timeout=1s");
    assert!(late.code() == 1 && late.err.contains("timed out waiting"), "{late:?}");
    assert_eq!(
        node.ok("set image deployment/echo echo=gihyodocker/echo:patched"),
        "deployment.apps/echo image updated\n"
    );
    let said = node.ok("rollout status deployment echo --timeout=60s");
    assert!(said.ends_with("successfully rolled out\n"), "{said}");
    let revision = node.ok("rollout history deployment echo --revision=2");
    assert!(revision.contains("gihyodocker/echo:patched"), "{revision}");
    assert_eq!(node.ok("rollout restart deployment echo"), "deployment.apps/echo restarted\n");
    node.ok("rollout status deployment echo --timeout=60s");
    assert_eq!(node.list("replicasets").len(), 3);
    assert_eq!(
        node.ok("delete deployment echo --cascade=foreground --timeout=60s"),
        "deployment.apps \"echo\" deleted from default namespace\n"
    );
    assert!(node.list("pods").is_empty() && node.list("replicasets").is_empty());
}

#[test]
fn a_namespace_takes_what_is_in_it_along() {
    let node = Node::ready();
    node.ok("create namespace team");
    node.ok(&format!("apply -n team -f {}", manifest("simple-deployment.yaml")));
    node.ok("rollout status deployment echo -n team --timeout=60s");
    node.ok("create configmap settings -n team --from-literal=a=b");
    node.ok("delete namespace team --timeout=60s");
    assert!(node.list("pods -A").is_empty() && node.list("deployments -A").is_empty());
    assert_eq!(node.try_kubectl("get configmap settings -n team").code(), 1);
}

#[test]
fn another_version_of_kubectl_works_as_well() {
    let node = Node::ready();
    let other = |line: &str| {
        let said = node.other_kubectl(line);
        assert!(said.status.success(), "{line}: {said:?}");
        said.out
    };
    assert_eq!(other(&format!("apply -f {}", manifest("simple-pod.yaml"))), "pod/simple-echo created\n");
    other("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    assert!(other("get pod").contains("2/2"));
    assert!(other("describe pod simple-echo").contains("simple-echo"));
    assert_eq!(other("exec simple-echo -c nginx -- wget -qO- http://localhost:80/"), "Hello Docker!!");
    assert!(other("logs simple-echo -c echo").contains("received request"));
    other("delete pod simple-echo");
}

#[test]
fn a_pod_has_the_limits_and_volumes_that_it_asks_for() {
    let node = Node::ready();
    node.apply(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: green}}\n---\n\
         {apiVersion: v1, kind: Secret, metadata: {name: credentials}, stringData: {word: sesame}}\n---\n\
         {apiVersion: v1, kind: Pod, metadata: {name: whole}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 1,\n\
         \x20 containers: [{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000'],\n\
         \x20   env: [{name: WORD, valueFrom: {secretKeyRef: {name: credentials, key: word}}}],\n\
         \x20   resources: {limits: {memory: 32Mi, cpu: 250m}},\n\
         \x20   volumeMounts: [{name: settings, mountPath: /settings}, {name: scratch, mountPath: /scratch}]}],\n\
         \x20 volumes: [{name: settings, configMap: {name: settings}}, {name: scratch, emptyDir: {}}]}}",
    );
    node.ok("wait --for=condition=Ready pod/whole --timeout=60s");
    assert!(node.ok("exec whole -- env").lines().any(|line| line == "WORD=sesame"));
    assert_eq!(node.ok("exec whole -- cat /settings/colour"), "green");
    assert_eq!(node.ok("exec whole -- touch /scratch/file"), "");
    let limit = run(&mut node.kubectl([
        "exec",
        "whole",
        "--",
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max",
    ]));
    assert_eq!(limit.out, "33554432\n", "{limit:?}");
    let begin = std::time::Instant::now();
    node.ok("delete pod whole");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
