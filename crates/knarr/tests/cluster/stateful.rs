//! StatefulSets and DaemonSets: names that stay, order, one pod for each node, and revisions.

use crate::node::{Node, Said, eventually, is_ready, names};

fn set(kind: &str, name: &str, spec: &str, line: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: {name}}}, spec: {{selector: {{matchLabels: {{app: {name}}}}}, {spec} \
         template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: main, image: busybox, command: [sh, -c, '{line}']}}]}}}}}}}}"
    )
}

fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code(), 1, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

/// Numbers of revisions, from `kubectl rollout history`.
fn revisions(node: &Node, what: &str) -> Vec<String> {
    let history = node.ok(&format!("rollout history {what}"));
    let first = history.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|word| word.parse::<u32>().is_ok()).map(str::to_owned).collect()
}

#[test]
fn a_stateful_set_keeps_names_and_order() {
    let node = Node::ready();
    let watch = node.follow("get pods --watch -o jsonpath={.metadata.name}|{.metadata.deletionTimestamp}|{.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}");
    node.apply(&set("StatefulSet", "web", "serviceName: web, replicas: 3,", "sleep 1000"));
    node.ok("rollout status statefulset web --timeout=60s");
    assert_eq!(names(&node.list("pods")), ["web-0", "web-1", "web-2"]);
    let mut seen: Vec<String> = Vec::new();
    let mut ready: Vec<String> = Vec::new();
    while ready.len() < 3 {
        let line = watch.next().expect("the watch goes on");
        let [name, _, state] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if !seen.contains(&name.to_owned()) {
            assert_eq!(seen.len(), ready.len(), "{name} came before the one in front of it was ready");
            seen.push(name.to_owned());
        }
        if state == "True" && !ready.contains(&name.to_owned()) {
            ready.push(name.to_owned());
        }
    }
    assert_eq!(node.ok("exec web-1 -- hostname"), "web-1\n");
    let pod = node.get("pod/web-1");
    assert_eq!(
        (&pod["spec"]["subdomain"], &pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"]),
        (&"web".into(), &"1".into())
    );

    let uid = |name: &str| node.ok(&format!("get pod {name} -o jsonpath={{.metadata.uid}}"));
    let before = uid("web-1");
    node.ok("delete pod web-1");
    eventually("the same name is back", || {
        let pods = node.list("pods");
        (pods.len() == 3 && pods.iter().all(is_ready) && uid("web-1") != before).then_some(())
    });
    node.ok("scale statefulset web --replicas=1");
    eventually("the highest numbers go", || (names(&node.list("pods")) == ["web-0"]).then_some(()));
    let table = node.ok("get statefulset");
    assert!(table.lines().nth(1).is_some_and(|row| row.starts_with("web    1/1")), "{table}");
    node.ok("delete statefulset web");
    eventually("the pods go", || node.list("pods").is_empty().then_some(()));
}

#[test]
fn a_stateful_set_goes_through_its_revisions_as_far_as_its_partition() {
    let node = Node::ready();
    let spec = "replicas: 2, podManagementPolicy: Parallel,";
    node.apply(&set("StatefulSet", "web", spec, "sleep 1000"));
    node.ok("rollout status statefulset web --timeout=60s");
    let line = |name: &str| node.ok(&format!("get pod {name} -o jsonpath={{.spec.containers[0].command[2]}}"));
    let part = format!("{spec} updateStrategy: {{type: RollingUpdate, rollingUpdate: {{partition: 1}}}},");
    node.apply(&set("StatefulSet", "web", &part, "sleep 2000"));
    let said = node.ok("rollout status statefulset web --timeout=60s");
    assert!(said.contains("partitioned roll out complete: 1 new pods have been updated"), "{said}");
    assert_eq!((line("web-0"), line("web-1")), ("sleep 1000".into(), "sleep 2000".into()));
    node.ok("delete pod web-0");
    node.ok("wait --for=create pod/web-0 --timeout=60s");
    assert_eq!(line("web-0"), "sleep 1000", "below the partition the old revision comes back");
    node.apply(&set("StatefulSet", "web", spec, "sleep 2000"));
    node.ok("rollout status statefulset web --timeout=60s");
    assert_eq!(
        (line("web-0"), revisions(&node, "statefulset web")),
        ("sleep 2000".into(), vec!["1".into(), "2".into()])
    );
    node.ok("rollout undo statefulset web");
    node.ok("rollout status statefulset web --timeout=60s");
    assert_eq!(
        (line("web-1"), revisions(&node, "statefulset web")),
        ("sleep 1000".into(), vec!["2".into(), "3".into()])
    );
    let found = node.get("statefulset/web");
    assert_eq!(found["status"]["currentRevision"], found["status"]["updateRevision"]);
    node.ok("rollout restart statefulset web");
    node.ok("rollout status statefulset web --timeout=60s");
    assert_eq!(revisions(&node, "statefulset web").len(), 3);
    node.ok("delete statefulset web");
    eventually("the revisions go with it", || node.list("controllerrevisions").is_empty().then_some(()));
}

#[test]
fn a_daemon_set_has_a_pod_on_each_node_that_fits() {
    let node = Node::ready();
    node.apply(&set("DaemonSet", "agent", "", "sleep 1000"));
    let said = node.ok("rollout status daemonset agent --timeout=60s");
    assert!(said.contains("daemon set \"agent\" successfully rolled out"), "{said}");
    let pods = node.list("pods");
    assert_eq!((pods.len(), &pods[0]["spec"]["nodeName"]), (1, &"node-1".into()));
    let table = node.ok("get daemonset agent");
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..7], ["agent", "1", "1", "1", "1", "1", "<none>"], "{table}");

    node.apply(&set("DaemonSet", "agent", "", "sleep 2000"));
    node.ok("rollout status daemonset agent --timeout=60s");
    assert_eq!(revisions(&node, "daemonset agent"), ["1", "2"]);
    node.ok("rollout undo daemonset agent");
    node.ok("rollout status daemonset agent --timeout=60s");
    let line = "get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].command[2]}";
    assert_eq!(node.ok(line), "sleep 1000");

    let picky =
        set("DaemonSet", "agent", "", "sleep 1000").replace("containers:", "nodeSelector: {disk: ssd}, containers:");
    node.apply(&picky);
    eventually("no node fits", || node.list("pods").is_empty().then_some(()));
    node.ok("label node node-1 disk=ssd");
    node.ok("rollout status daemonset agent --timeout=60s");
    assert_eq!(node.list("pods").len(), 1);
    // A cordoned node keeps the pods of its daemons, and gets new ones.
    node.ok("cordon node-1");
    node.ok("delete pod -l app=agent");
    eventually("another stands in its place", || {
        let pods = node.list("pods");
        (pods.len() == 1 && is_ready(&pods[0])).then_some(())
    });
    node.ok("uncordon node-1");
    node.ok("label node node-1 disk-");
    eventually("the node fits no more", || node.list("pods").is_empty().then_some(()));
    node.ok("delete daemonset agent");
}

#[test]
fn sets_that_are_wrong_are_refused_with_the_field_and_the_reason() {
    let node = Node::ready();
    let apply = |text: &str| node.with_input("apply -f -", text);
    let labels = set("StatefulSet", "x", "", "true").replace("labels: {app: x}", "labels: {app: other}");
    refused(
        &apply(&labels),
        &["spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`"],
    );
    let labels = set("DaemonSet", "x", "", "true").replace("labels: {app: x}", "labels: {app: other}");
    refused(&apply(&labels), &["`selector` does not match template `labels`"]);
    let no_selector = set("DaemonSet", "x", "", "true").replace("selector: {matchLabels: {app: x}},", "");
    refused(&apply(&no_selector), &["spec.selector: Required value"]);
    let never = set("StatefulSet", "x", "", "true").replace("containers:", "restartPolicy: Never, containers:");
    refused(
        &apply(&never),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    let replicas = set("DaemonSet", "x", "replicas: 3,", "true");
    refused(&apply(&replicas), &["unknown field \"spec.replicas\""]);
    let still = "updateStrategy: {rollingUpdate: {maxUnavailable: 0}},";
    refused(
        &apply(&set("DaemonSet", "x", still, "true")),
        &["maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0"],
    );
    let mount = set("StatefulSet", "x", "", "true")
        .replace("image: busybox", "image: busybox, volumeMounts: [{name: data, mountPath: /d}]");
    refused(&apply(&mount), &["volumeMounts[0].name: Not found: \"data\""]);

    node.apply(&set("StatefulSet", "kept", "replicas: 0, serviceName: one,", "true"));
    let moved = apply(&set("StatefulSet", "kept", "replicas: 0, serviceName: two,", "true"));
    refused(&moved, &["spec: Forbidden: updates to statefulset spec for fields other than 'replicas'"]);
    node.apply(&set("DaemonSet", "kept", "", "sleep 1000"));
    let other = set("DaemonSet", "kept", "", "sleep 1000").replace("app: kept", "app: other");
    refused(&apply(&other), &["spec.selector: Invalid value", "field is immutable"]);
    assert_eq!(node.ok("get statefulset kept -o jsonpath={.spec.serviceName}"), "one");
    assert_eq!(node.list("statefulsets,daemonsets").len(), 2, "something was half made");
}
