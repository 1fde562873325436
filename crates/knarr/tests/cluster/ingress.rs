//! Ingress: hosts, paths and certificates, to real nginx pods.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::node::{Node, archive, eventually, run};
use crate::services::{MACHINE, Outside, connected};

/// nginx in front of the echo server, another server that shows what it was sent, and one that speaks another protocol.
const PODS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: gihyodocker/nginx:latest
        env: [{name: BACKEND_HOST, value: 'localhost:8080'}]
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
      - {name: echo, image: 'gihyodocker/echo:latest'}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: files, labels: {app: files}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "mkdir -p /www/cgi-bin /www/static; echo files >/www/static/index.html; printf '#!/bin/sh\necho\nenv\n' >/www/cgi-bin/env; chmod +x /www/cgi-bin/env; exec httpd -f -p 8080 -h /www"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: files}
spec: {selector: {app: files}, ports: [{port: 8000, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: raw, labels: {app: raw}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command:
    - sh
    - -c
    - |
      cat >/serve <<'END'
      #!/bin/sh
      while read -r line && [ ${#line} -gt 1 ]; do :; done
      printf 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n'
      read -r line && echo pong
      END
      chmod +x /serve
      exec nc -ll -p 8080 -e /serve
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: raw}
spec: {selector: {app: raw}, ports: [{port: 80, targetPort: 8080}]}
"#;

fn ready() -> (Node, Outside) {
    let (mut node, outside) = connected();
    let names = ["gihyodocker-nginx-latest", "gihyodocker-echo-latest", "busybox-latest"];
    let import = run(node.knarr("image").arg("import").args(node.dirs()).args(names.map(archive)));
    assert!(import.status.success(), "{import:?}");
    node.start();
    node.apply(PODS);
    (node, outside)
}

/// Applies an Ingress with these fields of its spec.
fn ingress(node: &Node, name: &str, spec: &str) {
    node.apply(&format!(
        "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: {name}}}, spec: {spec}}}"
    ));
}

fn path(kind: &str, path: &str, service: &str, port: &str) -> String {
    format!("{{path: {path}, pathType: {kind}, backend: {{service: {{name: {service}, port: {{{port}}}}}}}}}")
}

/// The status and the body of what a host answers there.
fn ask(outside: &Outside, more: &[&str], url: &str) -> (String, String) {
    let all = [
        "--resolve",
        "shop.test:80:192.0.2.10",
        "--resolve",
        "shop.test:443:192.0.2.10",
        "--resolve",
        "a.wild.test:80:192.0.2.10",
        "--resolve",
        "raw.test:80:192.0.2.10",
        "-w",
        "\n%{http_code}",
    ];
    let said = outside.curl(&[&all[..], more, &[url]].concat()).unwrap_or_else(|code| format!("\ncurl {code}"));
    let (body, status) = said.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn certificate(node: &Node, name: &str) -> String {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("make a certificate");
    let (crt, key) = (node.path("tls.crt"), node.path("tls.key"));
    fs::write(&crt, made.cert.pem()).expect("write a file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("write a file");
    format!("--cert={} --key={}", crt.display(), key.display())
}

#[test]
fn hosts_paths_and_certificates_lead_to_pods() {
    let (node, outside) = ready();
    let classes = node.ok("get ingressclass");
    assert!(classes.contains("knarr") && classes.contains("knarr/ingress"), "{classes}");
    node.ok(&format!("create secret tls shop {}", certificate(&node, "shop.test")));
    let rules = [
        path("Prefix", "/", "shop", "name: http"),
        path("Prefix", "/static", "files", "number: 8000"),
        path("Exact", "/cgi-bin/env", "files", "number: 8000"),
    ];
    ingress(
        &node,
        "shop",
        &format!(
            "{{tls: [{{hosts: [shop.test], secretName: shop}}], rules: [{{host: shop.test, http: {{paths: [{}]}}}}, \
             {{host: '*.wild.test', http: {{paths: [{}]}}}}, {{host: raw.test, http: {{paths: [{}]}}}}]}}",
            rules.join(", "),
            path("ImplementationSpecific", "/", "files", "number: 8000"),
            path("Prefix", "/", "raw", "number: 80"),
        ),
    );
    node.ok("rollout status deployment shop --timeout=60s");
    node.ok("wait --for=condition=Ready pod --all --timeout=60s");
    let table = eventually("it has its address", || {
        let table = node.ok("get ingress shop");
        table.contains(MACHINE).then_some(table)
    });
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..6], ["shop", "knarr", "shop.test,*.wild.test,raw.test", MACHINE, "80,", "443"]);
    eventually("nginx answers", || {
        (ask(&outside, &[], "http://shop.test/") == ("200".to_owned(), "Hello Docker!!".to_owned())).then_some(())
    });
    assert_eq!(ask(&outside, &[], "http://shop.test/static/").1, "files\n");
    assert_eq!(ask(&outside, &[], "http://a.wild.test/static/index.html").1, "files\n");
    assert_eq!(
        ask(&outside, &[], "http://shop.test/staticx").1,
        "Hello Docker!!",
        "a path ends with a slash or at its end"
    );
    let unknown = ask(&outside, &[], &format!("http://{MACHINE}/x"));
    assert_eq!(unknown.0, "404");
    assert!(unknown.1.contains("no Ingress has a rule for host \"192.0.2.10\" and path \"/x\""), "{unknown:?}");
    let seen = ask(&outside, &["-H", "X-Forwarded-For: 6.6.6.6"], "http://shop.test/cgi-bin/env").1;
    for line in ["HTTP_X_FORWARDED_FOR=192.0.2.20", "HTTP_X_FORWARDED_PROTO=http", "HTTP_X_FORWARDED_HOST=shop.test"] {
        assert!(seen.lines().any(|seen| seen == line), "{line} in {seen}");
    }

    let trusted = node.path("tls.crt").display().to_string();
    let secure = ask(&outside, &["--cacert", &trusted, "-w", "\n%{http_version}"], "https://shop.test/");
    assert_eq!(secure, ("2".to_owned(), "Hello Docker!!".to_owned()), "HTTP/2 with the certificate of the Secret");
    let own = ask(&outside, &["--cacert", &trusted], &format!("https://{MACHINE}/"));
    assert_eq!(own.0, "curl 60", "another host has another certificate, which is not trusted");
    // A new certificate is used at once.
    node.ok("delete secret shop");
    node.ok(&format!("create secret tls shop {}", certificate(&node, "shop.test")));
    let trusted = node.path("tls.crt").display().to_string();
    eventually("the new certificate is shown", || {
        (ask(&outside, &["--cacert", &trusted], "https://shop.test/").0 == "200").then_some(())
    });

    let mut stream = TcpStream::connect((MACHINE, 80)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set a deadline");
    let request = "GET / HTTP/1.1\r\nHost: raw.test\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("ask");
    let mut said = Vec::new();
    let mut until = |stream: &mut TcpStream, end: &str| {
        while !String::from_utf8_lossy(&said).contains(end) {
            let mut some = [0; 512];
            let length = stream.read(&mut some).expect("an answer");
            assert!(length > 0, "it ended after {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&some[..length]);
        }
        String::from_utf8_lossy(&said).into_owned()
    };
    let head = until(&mut stream, "\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols"), "{head}");
    stream.write_all(b"ping\n").expect("say something");
    until(&mut stream, "pong\n");
    drop(stream);

    // Pods that go are not asked any more; without any there is an answer that says so.
    node.ok("scale deployment shop --replicas=0");
    let nobody = eventually("nobody is there", || {
        let said = ask(&outside, &[], "http://shop.test/");
        (said.0 == "503").then_some(said.1)
    });
    assert_eq!(nobody, "503: nobody is ready behind service default/shop:http\n");
}

#[test]
fn mistakes_with_ingresses_are_named() {
    let (mut node, outside) = ready();
    let refused = |spec: &str, words: &str| {
        let text =
            format!("{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: bad}}, spec: {spec}}}");
        let said = node.with_input("apply -f -", &text);
        assert!(!said.status.success() && said.err.contains(words), "{spec}: {said:?}");
    };
    let one = |path: &str| format!("{{rules: [{{http: {{paths: [{path}]}}}}]}}");
    refused("{}", "either `defaultBackend` or `rules` must be specified");
    refused(
        &one("{path: /, backend: {service: {name: shop, port: {number: 80}}}}"),
        "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
    );
    refused(
        &one(&path("Prefix", "shop", "shop", "number: 80")),
        "paths[0].path: Invalid value: \"shop\": must be an absolute path",
    );
    refused(&one(&path("Prefix", "/", "shop", "number: 80, name: http")), "cannot set both port name & port number");
    refused(
        &format!("{{rules: [{{host: {MACHINE}, http: {{paths: [{}]}}}}]}}", path("Prefix", "/", "shop", "number: 80")),
        "spec.rules[0].host: Invalid value: \"192.0.2.10\": must be a DNS name, not an IP address",
    );
    assert!(node.list("ingress").is_empty());

    let rules = [path("Prefix", "/", "shpo", "number: 80"), path("Prefix", "/port", "shop", "number: 8080")];
    ingress(
        &node,
        "typos",
        &format!("{{tls: [{{secretName: gone}}], rules: [{{http: {{paths: [{}]}}}}]}}", rules.join(", ")),
    );
    eventually("what does not exist is told", || {
        let said = node.ok("describe ingress typos");
        let told = [
            "spec.rules[0].http.paths[0].backend.service: there is no service \"shpo\"",
            "service \"shop\" has no port \"8080\": it has 80 (http)",
            "there is no secret \"gone\" of type kubernetes.io/tls",
        ];
        told.iter().all(|words| said.contains(words)).then_some(())
    });
    eventually("it answers so", || {
        let said = ask(&outside, &[], "http://shop.test/");
        (said == ("503".to_owned(), "503: nobody is ready behind service default/shpo:80\n".to_owned())).then_some(())
    });
    // A load balancer does not take the port away from under it.
    node.ok("create service loadbalancer late --tcp=80:80");
    eventually("it waits", || {
        node.ok("describe service late").contains("port 80/TCP is used by ingress default/typos").then_some(())
    });
    // The mistake mended, it works; a class that nobody serves is left alone.
    ingress(&node, "typos", &one(&path("Prefix", "/", "shop", "number: 80")));
    eventually("it works", || (ask(&outside, &[], "http://shop.test/").0 == "200").then_some(()));
    ingress(
        &node,
        "other",
        &format!(
            "{{ingressClassName: nginx, rules: [{{host: raw.test, http: {{paths: [{}]}}}}]}}",
            path("Prefix", "/", "raw", "number: 80")
        ),
    );
    assert_eq!(ask(&outside, &[], "http://raw.test/").1, "Hello Docker!!", "the rule for all hosts answers");
    assert!(!node.ok("get ingress other").contains(MACHINE));

    // Somebody else has the port: the cluster goes on, and says who it is.
    assert_eq!(node.signal(nix::sys::signal::Signal::SIGTERM).code(), Some(0));
    let squatter = std::net::TcpListener::bind("0.0.0.0:80").expect("take the port");
    node.start();
    node.ok("get nodes");
    let log = node.log();
    assert!(log.contains("Ingresses are not served here: Ingress over HTTP cannot listen on 0.0.0.0:80"), "{log}");
    assert!(log.contains(&format!("(process {})", std::process::id())) && log.contains("--ingress-http"), "{log}");
    drop(squatter);
}
