//! Certificates: by the name that the client asks for, always as of now.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::Current;

/// A certificate with its key, from PEM.
pub(crate) fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().context("read tls.crt")?;
    anyhow::ensure!(!chain.is_empty(), "tls.crt holds no certificate in PEM");
    let key = PrivateKeyDer::from_pem_slice(key).context("read tls.key")?;
    let certified = CertifiedKey::new(chain, any_supported_type(&key).context("use tls.key")?);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => anyhow::bail!("tls.key is not the key of tls.crt"),
    }
}

/// A certificate that this server makes for itself, for hosts without one of their own.
pub(crate) fn own() -> Result<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed(vec!["ingress.knarr.local".to_owned()])
        .context("make a certificate for hosts without one")?;
    certified(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes())
}

/// Chooses the certificate of a connection.
#[derive(Debug)]
pub(crate) struct Resolver {
    pub current: Current,
    pub own: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let host = hello.server_name().unwrap_or_default().to_lowercase();
        Some(self.current.get().certificate(&host).unwrap_or_else(|| self.own.clone()))
    }
}
