//! The file with which a person's kubectl reaches the cluster.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::pki::{Pki, write_private};

/// Writes the administrator's kubeconfig, unless the one that is there still leads to this cluster: its owner may have
/// chosen a namespace in it, or added other clusters.
///
/// # Errors
/// When it cannot be read or written.
pub fn keep(path: &Path, pki: &Pki, server: &str) -> Result<()> {
    let there = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let credentials = [&pki.authority, &pki.admin.certificate, &pki.admin.key].map(|text| STANDARD.encode(text));
    if there.contains(server) && credentials.iter().all(|one| there.contains(one)) {
        return Ok(());
    }
    write_private(path, &admin(pki, server))
}

/// The administrator's kubeconfig for an address like `https://127.0.0.1:6443`.
fn admin(pki: &Pki, server: &str) -> String {
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
