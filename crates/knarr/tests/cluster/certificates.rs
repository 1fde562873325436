//! Certificates that people and kubelets ask for by the API.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::node::{Node, eventually, shell};

/// Makes a key and a request for this subject, and returns the request in PEM.
fn requested(node: &Node, file: &str, subject: &str) -> String {
    let (key, request) = (node.path(&format!("{file}.key")), node.path(&format!("{file}.csr")));
    shell(&format!(
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {} -subj '{subject}' -out {} 2>&1",
        key.display(),
        request.display()
    ));
    fs::read_to_string(request).expect("read the request")
}

fn manifest(name: &str, pem: &str, signer: &str, usages: &str) -> String {
    format!(
        "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {name}}}, \
         spec: {{request: {}, signerName: kubernetes.io/{signer}, usages: [{usages}], expirationSeconds: 7200}}}}",
        STANDARD.encode(pem)
    )
}

/// Waits for the certificate of a request and keeps it.
fn issued(node: &Node, name: &str) {
    let text = eventually("the certificate is there", || {
        let text = node.ok(&format!("get csr {name} -o jsonpath={{.status.certificate}}"));
        (!text.is_empty()).then_some(text)
    });
    fs::write(node.path(&format!("{name}.crt")), STANDARD.decode(text).expect("base64"))
        .expect("write the certificate");
}

#[test]
fn a_certificate_that_was_approved_says_who_somebody_is() {
    let node = Node::ready();
    let pem = requested(&node, "ann", "/O=cooks/O=bakers/CN=ann");
    node.apply(&manifest("ann", &pem, "kube-apiserver-client", "client auth"));
    assert!(node.ok("get csr ann").contains("Pending"));
    node.ok("certificate approve ann");
    issued(&node, "ann");
    assert!(node.ok("get csr ann").contains("Approved,Issued"));
    let shown = shell(&format!("openssl x509 -in {} -noout -subject -enddate", node.path("ann.crt").display()));
    assert!(shown.contains("ann"), "{shown}");

    let admin = fs::read_to_string(node.data().join("admin.kubeconfig")).expect("read the kubeconfig");
    let (start, rest) = admin.split_once("    client-certificate-data:").expect("a certificate");
    let end = rest.split_once("contexts:").expect("contexts").1;
    let (certificate, key) = (node.path("ann.crt"), node.path("ann.key"));
    let config = node.path("ann.kubeconfig");
    let credentials = format!("    client-certificate: {}\n    client-key: {}\n", certificate.display(), key.display());
    fs::write(&config, format!("{start}{credentials}contexts:{end}")).expect("write the kubeconfig");
    let as_ann = |line: &str| node.try_kubectl(&format!("--kubeconfig {} {line}", config.display()));
    let who = as_ann("auth whoami -o jsonpath={.status.userInfo}");
    assert!(["\"ann\"", "cooks", "bakers"].iter().all(|word| who.out.contains(word)), "{who:?}");
    assert!(as_ann("get pods").err.contains("User \"ann\" cannot list resource \"pods\""));
    node.ok("create rolebinding cooks --clusterrole=view --group=bakers");
    eventually("the role counts", || (as_ann("get pods").code() == 0).then_some(()));

    // What its signer does not give is said to have failed.
    node.apply(&manifest("wide", &pem, "kube-apiserver-client", "client auth, cert sign"));
    node.ok("certificate approve wide");
    eventually("the request has failed", || {
        let why = node.ok("get csr wide -o jsonpath={.status.conditions[?(@.type=='Failed')].message}");
        why.contains("invalid usage for client certificate: cert sign").then_some(())
    });
}

#[test]
fn a_request_that_somebody_else_has_signed_is_refused_and_a_kubelets_own_is_approved() {
    let node = Node::ready();
    let pem = requested(&node, "kubelet", "/O=system:nodes/CN=system:node:other");
    let mut lines: Vec<String> = pem.lines().map(str::to_owned).collect();
    let body = lines.len() - 2;
    let der = STANDARD.decode(lines[1..=body].concat()).expect("base64");
    let mut forged = der.clone();
    // The last byte of the signature.
    *forged.last_mut().expect("bytes") ^= 1;
    lines.splice(1..=body, [STANDARD.encode(forged)]);
    let usages = "client auth, digital signature";
    let bad = manifest("forged", &(lines.join("\n") + "\n"), "kube-apiserver-client-kubelet", usages);
    let refused = node.with_input("create -f -", &bad);
    assert!(refused.code() == 1 && refused.err.contains("spec.request: Invalid value"), "{refused:?}");
    node.apply(&manifest("kubelet", &pem, "kube-apiserver-client-kubelet", usages));
    issued(&node, "kubelet");
    let why = node.ok("get csr kubelet -o jsonpath={.status.conditions[0].reason}");
    assert_eq!(why, "AutoApproved");
}
