//! Services: one address and one name for pods that come and go.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::node::{Node, archive, eventually, run, shell};

/// The address of the machine on its only network.
pub const MACHINE: &str = "192.0.2.10";

/// Another machine on the same network: a network namespace of its own.
pub struct Outside(Child);

impl Outside {
    /// What a server says to it; an error is curl's exit status.
    pub fn http(&self, url: &str) -> Result<String, i32> {
        self.curl(&[url])
    }

    /// Runs curl there.
    pub fn curl(&self, args: &[&str]) -> Result<String, i32> {
        let target = self.0.id().to_string();
        let mut command = program("nsenter");
        let said = run(command.args(["-t", &target, "-n", "curl", "-sS", "--max-time", "5"]).args(args));
        if said.status.success() { Ok(said.out) } else { Err(said.code()) }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It waits for its input to end, and may have ended by itself.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the tests run programs")]
fn program(name: &str) -> Command {
    Command::new(name)
}

/// A machine on a network, and another one beside it.
pub fn connected() -> (Node, Outside) {
    let node = Node::empty();
    shell(&format!(
        "busybox ip link add ext0 type veth && busybox ip link set veth0 name ext1 && busybox ip addr add {MACHINE}/24 dev ext0 && \
         busybox ip link set ext0 up"
    ));
    let mut waiting = program("unshare");
    let waiting = waiting.args(["-n", "sleep", "600"]).stdin(Stdio::null());
    let outside = Outside(waiting.spawn().expect("start unshare"));
    let pid = outside.0.id();
    let own = fs::read_link("/proc/thread-self/ns/net").expect("the own namespace");
    eventually("the other namespace is there", || {
        fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own).then_some(())
    });
    shell(&format!("busybox ip link set ext1 netns {pid}"));
    shell(&format!(
        "nsenter -t {pid} -n sh -c 'busybox ip link set lo up && busybox ip addr add 192.0.2.20/24 dev ext1 && \
         busybox ip link set ext1 up'"
    ));
    (node, outside)
}

/// The same with a server that is ready and has images.
fn ready() -> (Node, Outside) {
    let (mut node, outside) = connected();
    let names = ["gihyodocker-nginx-latest", "gihyodocker-echo-latest", "busybox-latest"];
    let import = run(node.knarr("image").arg("import").args(node.dirs()).args(names.map(archive)));
    assert!(import.status.success(), "{import:?}");
    node.start();
    (node, outside)
}

/// Pods that say their name, and are ready while they have a file; and a pod to ask from.
const PODS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: busybox
        imagePullPolicy: IfNotPresent
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; cp /www/index.html /www/ready; exec httpd -f -p 8080 -h /www']
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /ready, port: http}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers:
  - {name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '1000']}
  - name: host
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, 'mkdir /www; echo host >/www/index.html; exec httpd -f -p 8081 -h /www']
    ports: [{containerPort: 8081, hostPort: 9081}]
---
";

fn wait_for_pods(node: &Node) {
    node.ok("rollout status deployment web --timeout=60s");
    node.ok("wait --for=condition=Ready pod/client --timeout=60s");
}

/// The names of those who answer many requests.
fn answering(mut ask: impl FnMut() -> String) -> Vec<String> {
    let mut names: Vec<String> = (0..24).map(|_| ask().trim().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

fn path(node: &Node, what: &str, path: &str) -> String {
    node.ok(&format!("get {what} -o jsonpath={{{path}}}"))
}

#[test]
fn another_range_gives_addresses_and_stays_until_they_are_given_back() {
    let (node, _outside) = ready();
    node.apply(&format!(
        "{PODS}
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {{name: more}}
spec: {{cidrs: [203.0.113.0/24]}}
"
    ));
    let ready = "-o jsonpath={.status.conditions[?(@.type=='Ready')].status}";
    eventually("the range is ready", || (node.ok(&format!("get servicecidr more {ready}")) == "True").then_some(()));
    assert_eq!(node.ok(&format!("get servicecidr kubernetes {ready}")), "True");
    node.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: far}, \
         spec: {clusterIP: 203.0.113.10, selector: {app: web}, ports: [{port: 80, targetPort: http}]}}",
    );
    wait_for_pods(&node);
    eventually("it is reached from a pod", || {
        let said = node.try_kubectl("exec client -c main -- wget -qO- http://203.0.113.10/");
        said.out.starts_with("web-").then_some(())
    });
    assert_eq!(path(&node, "ipaddress 203.0.113.10", ".spec.parentRef.name"), "far");
    assert_eq!(path(&node, "ipaddress 10.96.0.1", ".spec.parentRef.name"), "kubernetes");
    node.ok("delete servicecidr more --wait=false");
    eventually("the range says what it waits for", || {
        let why = node.ok("get servicecidr more -o jsonpath={.status.conditions[?(@.type=='Ready')].reason}");
        (why == "Terminating").then_some(())
    });
    let refused = node.try_kubectl("create service clusterip late --tcp=80 --clusterip=203.0.113.11");
    assert!(refused.err.contains("is not in the valid range"), "{refused:?}");
    node.ok("delete service far");
    node.ok("wait --for=delete ipaddress/203.0.113.10 servicecidr/more --timeout=60s");
}

#[test]
fn a_service_is_reached_from_everywhere_and_follows_readiness() {
    let (node, outside) = ready();
    node.apply(&format!(
        "{PODS}
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: LoadBalancer
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: http, nodePort: 30080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec: {{clusterIP: None, selector: {{app: web}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: sticky}}
spec:
  selector: {{app: web}}
  sessionAffinity: ClientIP
  ports: [{{port: 80, targetPort: http}}]
"
    ));
    wait_for_pods(&node);
    let address = path(&node, "service web", ".spec.clusterIP");
    assert!(address.starts_with("10.96."), "{address}");
    let inside = |url: &str| node.ok(&format!("exec client -c main -- wget -qO- {url}"));
    let both = eventually("both pods answer", || {
        let names = answering(|| node.http(&address, 80).unwrap_or_default());
        (names.len() == 2 && !names[0].is_empty()).then_some(names)
    });
    assert_eq!(answering(|| inside("http://web/")), both, "by its name, from a pod");
    assert_eq!(answering(|| outside.http(&format!("http://{MACHINE}:30080/")).expect("an answer")), both);
    assert_eq!(answering(|| node.http("127.0.0.1", 30080).expect("an answer")), both, "at the node's port on loopback");
    eventually("the load balancer has the node's address", || {
        (path(&node, "service web", ".status.loadBalancer.ingress[0].ip") == MACHINE).then_some(())
    });
    eventually("it answers", || outside.http(&format!("http://{MACHINE}/")).ok());
    let sticky = path(&node, "service sticky", ".spec.clusterIP");
    assert_eq!(answering(|| node.http(&sticky, 80).expect("an answer")).len(), 1, "a client stays with its pod");
    let on_host = outside.http(&format!("http://{MACHINE}:9081/"));
    assert_eq!(on_host, Ok("host\n".to_owned()), "a port that a container asks for on the node");
    // A pod that reaches itself through the Service.
    assert_eq!(answering(|| node.ok(&format!("exec {} -- wget -qO- http://web/", both[0]))), both);

    let names = node.ok("exec client -c main -- cat /etc/resolv.conf");
    assert!(names.starts_with("search default.svc.cluster.local svc.cluster.local cluster.local"), "{names}");
    assert!(names.ends_with("nameserver 10.96.0.10\noptions ndots:5\n"), "{names}");
    let found = node.ok("exec client -c main -- nslookup headless.default.svc.cluster.local");
    for pod in &both {
        assert!(found.contains(&path(&node, &format!("pod {pod}"), ".status.podIP")), "{found}");
    }
    let missing = node.try_kubectl("exec client -c main -- nslookup headles.default.svc.cluster.local");
    assert!(missing.out.contains("NXDOMAIN"), "{missing:?}");
    assert!(node.ok("exec client -c main -- nslookup 10.96.0.1").contains("kubernetes.default.svc.cluster.local"));
    let variables = node.ok("exec client -c main -- env");
    assert!(variables.contains("KUBERNETES_SERVICE_HOST=10.96.0.1\n"), "{variables}");
    // The certificate of the API names the Service; who is nobody may read the version.
    let version = shell(&format!(
        "curl -sS --cacert {} --resolve kubernetes.default.svc:443:10.96.0.1 https://kubernetes.default.svc/version",
        node.data().join("pki/ca.crt").display()
    ));
    assert!(version.contains("gitVersion"), "{version}");

    // Not ready any more: no new connection goes there.
    node.ok(&format!("exec {} -- rm /www/ready", both[0]));
    eventually("the unready pod is left out", || {
        (answering(|| node.http(&address, 80).unwrap_or_default()) == both[1..]).then_some(())
    });
    let slices = node.list("endpointslices -l kubernetes.io/service-name=web");
    let ready =
        slices[0]["endpoints"].as_array().expect("endpoints").iter().filter(|e| e["conditions"]["ready"] == true);
    assert_eq!((slices.len(), ready.count()), (1, 1));
    assert!(node.ok("describe service web").contains("Endpoints:"));
    let table = node.ok("get service web");
    assert!(table.contains("LoadBalancer") && table.contains("80:30080/TCP"), "{table}");
}

#[test]
fn services_go_on_without_the_server_and_are_gone_with_it_uninstalled() {
    let (mut node, outside) = ready();
    node.apply(&format!(
        "{PODS}{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{type: NodePort, selector: {{app: web}}, \
         ports: [{{port: 80, targetPort: http, nodePort: 30080}}]}}}}"
    ));
    wait_for_pods(&node);
    let url = format!("http://{MACHINE}:30080/");
    eventually("it answers", || outside.http(&url).ok());
    node.signal(Signal::SIGKILL);
    let names = answering(|| outside.http(&url).expect("an answer without the server"));
    assert_eq!(names.len(), 2);
    let stop = Arc::new(AtomicBool::new(false));
    let failed = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut failed = 0;
            while !stop.load(Ordering::Relaxed) {
                failed += usize::from(outside.http(&url).is_err());
            }
            failed
        });
        node.start();
        node.ok("get services");
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("no panic")
    });
    assert_eq!(failed, 0, "while the server started again");
    // Addresses and ports are remembered.
    let taken = node.try_kubectl("create service nodeport other --tcp=80 --node-port=30080");
    assert!(taken.err.contains("provided port is already allocated"), "{taken:?}");
    node.ok("delete service web");
    node.ok("create service nodeport other --tcp=80 --node-port=30080");
    node.signal(Signal::SIGTERM);
    assert!(node.uninstall().status.success());
    assert_eq!(shell("nft list ruleset"), "");
}

#[test]
fn a_rolling_update_under_load_fails_no_request() {
    let (node, outside) = ready();
    let deployment = |image: &str| {
        format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: front}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: front}}}}
  strategy: {{rollingUpdate: {{maxUnavailable: 1, maxSurge: 1}}}}
  template:
    metadata: {{labels: {{app: front}}, annotations: {{revision: '{image}'}}}}
    spec:
      containers:
      - name: nginx
        image: gihyodocker/nginx:latest
        env: [{{name: BACKEND_HOST, value: 'localhost:8080'}}]
        ports: [{{containerPort: 80}}]
        readinessProbe: {{httpGet: {{path: /, port: 80}}, periodSeconds: 1}}
        lifecycle: {{preStop: {{sleep: {{seconds: 1}}}}}}
      - name: echo
        image: gihyodocker/echo:latest
        lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: front}}
spec: {{type: NodePort, selector: {{app: front}}, ports: [{{port: 80, nodePort: 30081}}]}}
"
        )
    };
    node.apply(&deployment("1"));
    node.ok("rollout status deployment front --timeout=60s");
    let url = format!("http://{MACHINE}:30081/");
    eventually("it answers", || outside.http(&url).ok());
    let stop = AtomicBool::new(false);
    let (answered, failed) = thread::scope(|scope| {
        let ask = || {
            let (mut answered, mut failed) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                match outside.curl(&["-f", &url]) {
                    Ok(_) => answered += 1,
                    Err(code) => failed.push(code),
                }
            }
            (answered, failed)
        };
        let asking = [scope.spawn(ask), scope.spawn(ask)];
        for revision in ["2", "3"] {
            node.apply(&deployment(revision));
            node.ok("rollout status deployment front --timeout=60s");
        }
        eventually("the last of the old pods ends", || (node.list("pods").len() == 3).then_some(()));
        stop.store(true, Ordering::Relaxed);
        let counts = asking.map(|asking| asking.join().expect("no panic"));
        counts.into_iter().fold((0, Vec::new()), |(a, mut f), (answered, failed)| {
            f.extend(failed);
            (a + answered, f)
        })
    });
    assert!(answered > 50, "only {answered} requests were made");
    assert_eq!(failed, Vec::<i32>::new(), "curl's exit states, of {answered} requests");
}

#[test]
fn mistakes_with_services_are_named() {
    let (node, outside) = ready();
    let refused = |line: &str, words: &str| {
        let said = node.try_kubectl(line);
        assert!(!said.status.success() && said.err.contains(words), "{line}: {said:?}");
    };
    let range = "spec.ports[0].nodePort: Invalid value: 40000: provided port is not in the valid range. The range of valid \
                 ports is 30000-32767";
    refused("create service nodeport bad --tcp=80 --node-port=40000", range);
    refused(
        "create service clusterip bad --tcp=80 --clusterip=10.97.0.9",
        "failed to allocate IP 10.97.0.9: the provided IP (10.97.0.9) is not in the valid range. The range of valid IPs is \
         10.96.0.0/16",
    );
    refused("create service clusterip bad --tcp=80 --clusterip=10.96.0.1", "provided IP is already allocated");
    let apply = |spec: &str, words: &str| {
        let text = format!("{{apiVersion: v1, kind: Service, metadata: {{name: bad}}, spec: {spec}}}");
        let said = node.with_input("apply -f -", &text);
        assert!(!said.status.success() && said.err.contains(words), "{spec}: {said:?}");
    };
    apply("{selector: {a: b}, ports: [{port: 80}, {port: 81}]}", "spec.ports[0].name: Required value");
    apply(
        "{selector: {a: b}, ports: [{port: 80, targetPort: Not_A_Name}]}",
        "spec.ports[0].targetPort: Invalid value: \"Not_A_Name\": must contain only alpha-numeric characters",
    );
    apply("{selector: {a: b}}", "spec.ports: Required value");
    apply(
        "{selector: {a: b}, type: NodePorts, ports: [{port: 80}]}",
        "spec.type: Unsupported value: \"NodePorts\": supported values:",
    );
    apply(
        "{selector: {a: b}, ports: [{port: 80, nodePort: 30001}]}",
        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
    );
    assert_eq!(node.list("services").len(), 1, "something was half made");

    node.apply(&format!(
        "{PODS}
{{apiVersion: v1, kind: Service, metadata: {{name: typo}}, spec: {{type: NodePort, selector: {{app: wbe}},
  ports: [{{port: 80, nodePort: 30080}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: name}}, spec: {{selector: {{app: web}},
  ports: [{{port: 80, targetPort: htpp}}]}}}}
---
{{apiVersion: v1, kind: Service, metadata: {{name: first}}, spec: {{type: LoadBalancer, selector: {{app: web}},
  ports: [{{port: 80, targetPort: http}}]}}}}
"
    ));
    wait_for_pods(&node);
    refused("create service nodeport bad --tcp=80 --node-port=30080", "provided port is already allocated");
    // Nobody is behind it: refused at once, from everywhere, and `describe` shows the empty list.
    let address = path(&node, "service typo", ".spec.clusterIP");
    eventually("it is refused", || node.http(&address, 80).is_err_and(|e| e.contains("(7)")).then_some(()));
    assert_eq!(outside.http(&format!("http://{MACHINE}:30080/")), Err(7), "curl could not connect");
    let asked = node.try_kubectl("exec client -c main -- wget -qO- http://typo/");
    assert!(asked.err.contains("Connection refused"), "{asked:?}");
    assert!(node.ok("describe service typo").lines().any(|line| line.trim_end() == "Endpoints:"));
    eventually("the port's name is told", || {
        let said = node.ok("describe service name");
        said.contains("port 80: no container of the selected pods has a port that is named \"htpp\"").then_some(())
    });
    let address = path(&node, "service name", ".spec.clusterIP");
    refused(
        &format!("patch service name -p {{\"spec\":{{\"clusterIP\":\"{}\"}}}}", "10.96.9.9"),
        "may not change once set",
    );
    assert_eq!(path(&node, "service name", ".spec.clusterIP"), address);
    // A second load balancer for a port waits until the first is gone.
    eventually("the first has its address", || {
        (!path(&node, "service first", ".status.loadBalancer").eq("{}")).then_some(())
    });
    node.ok("create service loadbalancer second --tcp=80:8080");
    eventually("the second says what it waits for", || {
        node.ok("describe service second").contains("port 80/TCP is used by service default/first").then_some(())
    });
    assert!(node.ok("get service second").contains("<pending>"));
    node.ok("delete service first");
    eventually("the second has its address", || {
        (path(&node, "service second", ".status.loadBalancer.ingress[0].ip") == MACHINE).then_some(())
    });
}
