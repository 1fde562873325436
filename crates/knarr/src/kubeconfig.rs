//! The file with which a person's kubectl reaches the cluster.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pki::Pki;

/// The administrator's kubeconfig for an address like `https://127.0.0.1:6443`.
pub fn admin(pki: &Pki, server: &str) -> String {
    let encode = |text: &str| STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: knarr\n\
         clusters:\n- name: knarr\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\n\
         users:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n\
         contexts:\n- name: knarr\n  context:\n    cluster: knarr\n    user: kubernetes-admin\n",
        encode(&pki.authority),
        encode(&pki.admin.certificate),
        encode(&pki.admin.key),
    )
}
