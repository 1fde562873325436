//! Streams and proxies as real clients use them: port-forward, exec without WebSocket, `kubectl proxy`, the Python client.

#![expect(clippy::disallowed_methods, reason = "the tests run programs")]

use std::path::Path;
use std::process::{Command, Stdio};

use crate::node::{Follower, Node, eventually, made, manifest, run};

/// Says whether kubectl uses WebSocket.
const WEBSOCKETS: [&str; 2] = ["KUBECTL_PORT_FORWARD_WEBSOCKETS", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS"];

/// A pod `simple-echo`, and a Deployment `echo` with a Service in front of it.
fn served() -> Node {
    let node = Node::ready();
    node.ok(&format!("apply -f {} -f {}", manifest("simple-pod.yaml"), manifest("simple-deployment.yaml")));
    node.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: echo}, spec: {selector: {app: echo}, \
         ports: [{name: http, port: 8000, targetPort: 80}]}}",
    );
    node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    node.ok("wait --for=condition=Available deployment/echo --timeout=60s");
    node
}

fn port_of(line: &str) -> u16 {
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("127.0.0.1:")).expect("an address");
    address.parse().expect("a port")
}

#[test]
fn ports_are_forwarded_over_websocket_and_over_spdy() {
    let node = served();
    for websockets in ["true", "false"] {
        for line in [
            "port-forward pod/simple-echo :8080",
            "port-forward service/echo :8000",
            "port-forward deployment/echo :80",
        ] {
            for mut command in [node.kubectl(line.split_whitespace()), node.other_kubectl_with(line)] {
                let log = node.path("forward.log");
                command.arg("--v=4").stderr(std::fs::File::create(&log).expect("make a file"));
                let forward = Follower::start(command.envs(WEBSOCKETS.map(|name| (name, websockets))));
                let port = port_of(&forward.until("Forwarding from 127.0.0.1"));
                for _ in 0..3 {
                    let said = node.http("127.0.0.1", port);
                    assert!(said.as_ref().is_ok_and(|said| said.contains("Hello")), "{command:?}: {said:?}");
                }
                // Nobody had to try the other way.
                let said = std::fs::read_to_string(&log).expect("read a file");
                assert!(!said.contains("fallback"), "{command:?}: {said}");
            }
        }
    }
    // Nobody listens there: the client is told, and goes away.
    let mut refused = node.kubectl(["port-forward", "pod/simple-echo", ":9"]);
    let log = node.path("refused.log");
    let forward = Follower::start(refused.stderr(std::fs::File::create(&log).expect("make a file")));
    let port = port_of(&forward.until("Forwarding from 127.0.0.1"));
    assert!(node.http("127.0.0.1", port).is_err());
    eventually("the client says why", || {
        let said = std::fs::read_to_string(&log).expect("read a file");
        said.contains("failed to connect to localhost:9 inside namespace").then_some(())
    });
}

#[test]
fn commands_run_over_spdy_where_a_client_wants_it() {
    let node = served();
    let spdy = |line: &str| {
        let mut commands = [node.kubectl(line.split_whitespace()), node.other_kubectl_with(line)];
        commands.iter_mut().for_each(|command| _ = command.envs(WEBSOCKETS.map(|name| (name, "false"))));
        commands
    };
    for mut command in spdy("exec simple-echo -c echo -- echo out") {
        assert_eq!(run(&mut command).out, "out\n");
    }
    for mut command in spdy("exec -i simple-echo -c echo -- cat") {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start kubectl");
        std::io::Write::write_all(&mut child.stdin.take().expect("its input"), b"through and back").expect("write");
        let output = child.wait_with_output().expect("wait for kubectl");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "through and back");
    }
    let mut failing = node.kubectl(["exec", "simple-echo", "-c", "echo", "--", "sh", "-c", "echo bad >&2; exit 7"]);
    let said = run(failing.envs(WEBSOCKETS.map(|name| (name, "false"))));
    assert_eq!((said.code(), said.err.lines().next()), (7, Some("bad")));
}

#[test]
fn what_pods_services_and_nodes_serve_is_reached_through_the_server() {
    let node = served();
    let place = "/api/v1/namespaces/default";
    for path in ["pods/simple-echo:8080", "pods/http:simple-echo:80", "services/echo:http", "services/http:echo:8000"] {
        let said = node.ok(&format!("get --raw {place}/{path}/proxy/"));
        assert!(said.contains("Hello"), "{path}: {said}");
    }
    let refused = node.try_kubectl(&format!("get --raw {place}/services/echo/proxy/"));
    assert!(refused.err.contains("no endpoints available for service \"echo\""), "{refused:?}");
    assert_eq!(node.ok("get --raw /api/v1/nodes/node-1/proxy/healthz"), "ok");
    assert!(node.ok("get --raw /api/v1/nodes/node-1/proxy/pods").contains("simple-echo"));

    let proxy = node.follow("proxy --port=0");
    let port = port_of(&proxy.until("Starting to serve on"));
    let get = |path: &str| {
        let said =
            run(Command::new("curl").args(["-sSL", "--max-time", "5", &format!("http://127.0.0.1:{port}{path}")]));
        assert!(said.status.success(), "{path}: {said:?}");
        said.out
    };
    // The redirect to the folder is followed.
    assert!(get(&format!("{place}/pods/simple-echo:8080/proxy")).contains("Hello"));
    assert!(get("/version").contains("gitVersion"));
}

#[test]
fn the_python_client_runs_commands_and_forwards_ports() {
    let node = served();
    let mut python = Command::new("python3");
    python
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/streams.py"))
        .env("PYTHONPATH", made("clients/python", "clients"))
        .env("KUBECONFIG", node.data().join("admin.kubeconfig"))
        .env("HOME", node.path("home"));
    let said = run(python.stdin(Stdio::null()));
    assert!(said.status.success() && said.out == "all of it\n", "{}{}", said.out, said.err);
}
