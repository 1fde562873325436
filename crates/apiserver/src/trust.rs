//! Whom the server trusts when it calls others over TLS.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use client::AnyCertificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Where a host keeps the authorities that it trusts, on the distributions that knarr runs on.
const HOST_AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// Who the server says it is.
pub(crate) struct Identity {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// Trust in a bundle of authorities in PEM; in those of the host where the bundle is empty; in anybody where `blind`.
///
/// # Errors
/// When a certificate or key cannot be used.
pub(crate) fn trust(bundle: &[u8], blind: bool, identity: Option<Identity>) -> Result<Arc<ClientConfig>> {
    let builder = if blind {
        let provider = CryptoProvider::get_default().cloned().context("find the provider of cryptography")?;
        ClientConfig::builder().dangerous().with_custom_certificate_verifier(AnyCertificate::new(provider))
    } else {
        let (mut roots, mut given) = (RootCertStore::empty(), Vec::new());
        let of_host = HOST_AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
        let text = if bundle.is_empty() { &of_host } else { bundle };
        for certificate in CertificateDer::pem_slice_iter(text) {
            let certificate =
                certificate.map_err(|error| anyhow::anyhow!("read an authority's certificate: {error}"))?;
            // What this host trusts may hold certificates that cannot be authorities; a bundle that is given may not.
            let added = roots.add(certificate.clone());
            if !bundle.is_empty() {
                added.context("trust an authority")?;
                given.push(certificate);
            }
        }
        if bundle.is_empty() {
            ClientConfig::builder().with_root_certificates(roots)
        } else {
            ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(Bundle::new(roots, given)?))
        }
    };
    let config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate], identity.key)
            .context("use the certificate of the front proxy")?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

/// Takes whom the authorities of a bundle vouch for, and who shows one of its certificates: what signs itself is often made
/// as an authority, and serves nevertheless (Go takes that, and WebPKI by itself does not).
#[derive(Debug)]
struct Bundle {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Bundle {
    fn new(roots: RootCertStore, certificates: Vec<CertificateDer<'static>>) -> Result<Self> {
        let authorities = WebPkiServerVerifier::builder(Arc::new(roots)).build().context("trust a bundle")?;
        Ok(Self { authorities, certificates })
    }
}

/// Whether a certificate is valid now, and for servers.
fn serves(certificate: &CertificateDer<'_>, now: UnixTime) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let time = i64::try_from(now.as_secs()).ok().and_then(|at| ASN1Time::from_timestamp(at).ok());
    let usage = match parsed.extended_key_usage() {
        Ok(Some(usage)) => usage.value.any || usage.value.server_auth,
        Ok(None) => true,
        Err(_) => false,
    };
    usage && time.is_some_and(|time| parsed.validity().is_valid_at(time))
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        revocation: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.authorities.verify_server_cert(certificate, between, name, revocation, now);
        if verdict.is_ok() || !self.certificates.contains(certificate) || !serves(certificate, now) {
            return verdict;
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
