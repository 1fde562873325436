//! The tutorial, from its first line to its last.

use crate::node::{Node, eventually, is_ready, manifest, names};

fn revisions(node: &Node) -> Vec<String> {
    let history = node.ok("rollout history deployment echo");
    let first = history.lines().filter_map(|line| line.split_whitespace().next());
    first.filter(|word| word.parse::<u32>().is_ok()).map(str::to_owned).collect()
}

fn rolled_out(node: &Node) {
    let said = node.ok("rollout status deployment echo --timeout=60s");
    assert!(said.ends_with("deployment \"echo\" successfully rolled out\n"), "{said}");
}

#[test]
fn the_pod_of_the_tutorial_runs_and_answers_and_goes() {
    let node = Node::ready();
    let pod = manifest("simple-pod.yaml");
    assert_eq!(node.ok(&format!("apply -f {pod}")), "pod/simple-echo created\n");
    node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    assert_eq!(node.shims().len(), 1);
    let table = node.ok("get pod");
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..4], ["simple-echo", "2/2", "Running", "0"]);

    let logs = node.follow("logs -f simple-echo -c echo");
    logs.until("start server");
    let inside = node.ok("exec simple-echo -c nginx -- wget -qO- http://localhost:8080/from-the-pod");
    assert_eq!(inside, "Hello Docker!!");
    logs.until("/from-the-pod");

    let address = node.ok("get pod simple-echo -o jsonpath={.status.podIP}");
    for port in [80, 8080] {
        assert_eq!(node.http(&address, port).as_deref(), Ok("Hello Docker!!"), "port {port}");
    }

    assert!(node.ok("delete pod simple-echo").starts_with("pod \"simple-echo\" deleted"));
    assert_eq!(node.list("pods"), [] as [serde_json::Value; 0]);
    node.ok(&format!("apply -f {pod}"));
    node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    node.ok(&format!("delete -f {pod}"));
    let said = node.try_kubectl("get pod");
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", "No resources found in default namespace.\n"));
    eventually("the shims end", || node.shims().is_empty().then_some(()));
}

#[test]
fn a_replica_set_keeps_three_pods() {
    let node = Node::ready();
    node.ok(&format!("apply -f {}", manifest("simple-replicaset.yaml")));
    let three = "wait --for=jsonpath={.status.readyReplicas}=3 replicaset/echo --timeout=60s";
    node.ok(three);
    let before = names(&node.list("pods"));
    assert_eq!(before.len(), 3);
    node.ok(&format!("delete pod {}", before[0]));
    let after = eventually("another pod stands in its place", || {
        let pods = node.list("pods");
        (pods.len() == 3 && pods.iter().all(is_ready)).then(|| names(&pods))
    });
    assert!(!after.contains(&before[0]) && after.contains(&before[1]) && after.contains(&before[2]), "{after:?}");
    node.ok(&format!("delete -f {}", manifest("simple-replicaset.yaml")));
    eventually("the pods go", || node.list("pods").is_empty().then_some(()));
}

#[test]
fn a_deployment_goes_through_its_revisions() {
    let node = Node::ready();
    let simple = manifest("simple-deployment.yaml");
    node.ok(&format!("apply -f {simple}"));
    rolled_out(&node);
    assert_eq!(revisions(&node), ["1"]);
    let first = names(&node.list("replicasets"));
    assert_eq!((first.len(), node.list("pods").len()), (1, 3));

    let four = std::fs::read_to_string(&simple).expect("the manifest").replace("replicas: 3", "replicas: 4");
    node.apply(&four);
    rolled_out(&node);
    assert_eq!((names(&node.list("replicasets")), revisions(&node)), (first.clone(), vec!["1".to_owned()]));
    assert_eq!(node.list("pods").len(), 4);

    let watch = node.follow("get pods -l app=echo --watch -o jsonpath={.metadata.name}|{.metadata.deletionTimestamp}|{.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}");
    let mut serving = std::collections::BTreeSet::new();
    let mut fewest = usize::MAX;
    let mut count = |line: &str| {
        let [name, ending, ready] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        if ending.is_empty() && ready == "True" {
            serving.insert(name.to_owned())
        } else {
            serving.remove(name)
        };
        serving.len()
    };
    while count(&watch.next().expect("the watch goes on")) < 4 {}
    node.ok(&format!("apply -f {}", manifest("simple-deployment-patched.yaml")));
    rolled_out(&node);
    while let Some(line) = watch.try_next() {
        fewest = fewest.min(count(&line));
    }
    assert!(fewest >= 3, "at one moment only {fewest} pods served");
    assert_eq!(revisions(&node), ["1", "2"]);
    assert_eq!(node.list("replicasets").len(), 2);
    assert!(node.ok("exec deployment/echo -c echo -- env").lines().any(|line| line == "HOGE=fuga"));

    assert_eq!(node.ok("rollout undo deployment echo"), "deployment.apps/echo rolled back\n");
    rolled_out(&node);
    assert_eq!(revisions(&node), ["2", "3"]);
    let image = node.ok("get deployment echo -o jsonpath={.spec.template.spec.containers[1].image}");
    assert_eq!(image, "gihyodocker/echo:latest");

    node.ok(&format!("delete -f {simple}"));
    eventually("the ReplicaSets go", || node.list("replicasets").is_empty().then_some(()));
    eventually("the pods go", || node.list("pods").is_empty().then_some(()));
}
