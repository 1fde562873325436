//! TLS towards pods: a probe asks whether somebody answers, not who.

use std::sync::Arc;

use anyhow::Context;
use client::AnyCertificate;
use rustls::ClientConfig;
use tokio_rustls::TlsConnector;

/// A connector that accepts whatever certificate a pod shows.
pub(crate) fn trust_all() -> anyhow::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("set up TLS for probes")?
        .dangerous()
        .with_custom_certificate_verifier(AnyCertificate::new(provider))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
