//! What outlives the server: pods, objects, and a clean end.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::node::{Node, eventually, manifest};

/// Container ids and restart counts by pod and container.
fn containers(node: &Node) -> BTreeMap<String, (String, i64)> {
    let mut found = BTreeMap::new();
    for pod in node.list("pods") {
        for status in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let name = format!("{}/{}", text(&pod["metadata"]["name"]), text(&status["name"]));
            found.insert(name, (text(&status["containerID"]), status["restartCount"].as_i64().unwrap_or(-1)));
        }
    }
    found
}

fn tutorial_pod(node: &Node) -> String {
    node.ok(&format!("apply -f {}", manifest("simple-pod.yaml")));
    node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    node.ok("get pod simple-echo -o jsonpath={.status.podIP}")
}

#[test]
fn a_killed_server_leaves_pods_serving_and_the_next_start_adopts_them() {
    let mut node = Node::ready();
    let address = tutorial_pod(&node);
    let before = containers(&node);
    assert_eq!(before.len(), 2);
    for round in 0..3 {
        assert_eq!(node.signal(Signal::SIGKILL).signal(), Some(9));
        assert_eq!(node.http(&address, 80).as_deref(), Ok("Hello Docker!!"), "round {round}");
        let took = node.start();
        assert!(took < Duration::from_secs(3), "the node was Ready after {took:?}");
        assert_eq!(containers(&node), before, "round {round}");
        node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
        assert_eq!(node.http(&address, 80).as_deref(), Ok("Hello Docker!!"), "round {round}");
    }
    assert_eq!(node.ok("exec simple-echo -c nginx -- echo still here"), "still here\n");
    assert!(node.ok("logs simple-echo -c echo").contains("start server"));
    node.ok("delete pod simple-echo");
    assert!(node.http(&address, 80).is_err(), "a deleted pod still answers");
    eventually("the shim ends", || node.shims().is_empty().then_some(()));
}

#[test]
fn a_container_that_ends_while_the_server_is_away_is_started_again_by_the_next() {
    let mut node = Node::ready();
    node.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: brief}, spec: {terminationGracePeriodSeconds: 0, containers: [{
          name: main, image: busybox, imagePullPolicy: IfNotPresent,
          command: [sh, -c, 'test -e /tmp/again && exec sleep 1000; touch /tmp/again; exec sleep 2'],
          volumeMounts: [{name: tmp, mountPath: /tmp}]}], volumes: [{name: tmp, emptyDir: {}}]}}",
    );
    node.ok("wait --for=condition=Ready pod/brief --timeout=60s");
    let first = containers(&node)["brief/main"].clone();
    assert_eq!(first.1, 0);
    node.signal(Signal::SIGKILL);
    // It sleeps for two seconds from its start; only its end matters, and that comes while nobody looks.
    std::thread::sleep(Duration::from_millis(2500));
    node.start();
    let second = eventually("the container is started again", || {
        let now = containers(&node)["brief/main"].clone();
        (now.1 == 1).then_some(now)
    });
    assert_ne!(second.0, first.0);
    let status = &node.get("pod brief")["status"]["containerStatuses"][0];
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 0, "{status}");
}

#[test]
fn what_was_acknowledged_survives_a_kill_amid_writes() {
    let mut node = Node::ready();
    let mut acknowledged: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..3 {
        let mut maps = String::new();
        for number in 0..400 {
            writeln!(maps, "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m-{round}-{number}}}, data: {{k: \"{number}\"}}}}").unwrap();
        }
        std::fs::write(node.path("maps.yaml"), maps).expect("write the manifest");
        let creating = node.follow(&format!("create -f {}", node.path("maps.yaml").display()));
        let mut said = Vec::new();
        while said.len() < 60 + 40 * round {
            said.push(creating.next().expect("kubectl goes on"));
        }
        node.signal(Signal::SIGKILL);
        while let Some(line) = creating.next() {
            said.push(line);
        }
        assert!(said.len() < 400, "the kill came too late");
        for line in said {
            let name = line.strip_prefix("configmap/").and_then(|l| l.strip_suffix(" created")).expect("a name");
            let number = name.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a number");
            acknowledged.insert(name.to_owned(), number);
        }
        node.start();
        let kept: BTreeMap<String, String> = node
            .list("configmaps")
            .iter()
            .map(|m| {
                (m["metadata"]["name"].as_str().unwrap().to_owned(), m["data"]["k"].as_str().unwrap_or("").to_owned())
            })
            .collect();
        for (name, number) in &acknowledged {
            assert_eq!(kept.get(name), Some(&number.to_string()), "{name} after round {round}");
        }
    }
}

#[test]
fn sigterm_ends_the_server_cleanly_and_leaves_pods_running() {
    let mut node = Node::ready();
    let address = tutorial_pod(&node);
    let before = containers(&node);
    let begin = std::time::Instant::now();
    // Somebody watches, as somebody always does.
    let watch = node.follow("get pods --watch");
    watch.until("simple-echo");
    assert_eq!(node.signal(Signal::SIGTERM).code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
    assert!(!node.path("run/knarr.sock").exists() && !node.path("run/cri.sock").exists(), "a socket was left");
    assert_eq!(node.http(&address, 80).as_deref(), Ok("Hello Docker!!"));
    node.start();
    assert_eq!(containers(&node), before);
}
