//! Keys and certificates: one authority of the cluster, and what it signs for each part.
//!
//! Everything lies below `<data-dir>/pki`, readable by root alone. A certificate is made anew at a start when it is near its
//! end or does not name what it must; the authority stays.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::FrontProxy;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// How long the authority is valid.
const AUTHORITY_DAYS: i64 = 3650;
/// How long the others are valid, and how long before that they are made anew.
const LEAF_DAYS: i64 = 365;
const RENEW_DAYS: i64 = 90;
/// Clocks of clients may be a little behind.
const SLACK_SECONDS: i64 = 3600;
const DAY: i64 = 86_400;

/// What a certificate is for.
struct Leaf<'a> {
    file: &'a str,
    name: &'a str,
    groups: &'a [&'a str],
    hosts: &'a [String],
    usage: &'a [ExtendedKeyUsagePurpose],
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The private key.
    pub key: String,
}

/// All there is.
pub struct Pki {
    /// The authority's certificate, in PEM.
    pub authority: String,
    /// The key of the authority, in PEM.
    authority_key: String,
    /// Serves the API.
    pub api: Pair,
    /// Serves the kubelet's port.
    pub kubelet: Pair,
    /// What the API server shows to kubelets.
    pub api_to_kubelet: Pair,
    /// The person who administers the cluster.
    pub admin: Pair,
    /// What the API server shows to aggregated APIs.
    front_proxy: Pair,
    /// The certificate of the authority of that, in PEM.
    pub front_proxy_authority: String,
    /// Signs the tokens of service accounts: the private key, in PEM.
    service_accounts: String,
}

/// The user name under which the API server calls kubelets.
pub const API_TO_KUBELET: &str = "kube-apiserver-kubelet-client";

/// The name by which aggregated APIs know the API server.
pub const FRONT_PROXY: &str = "front-proxy-client";

impl Pki {
    /// Reads what is there and makes what is missing or near its end. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When the directory cannot be read or written.
    pub fn ensure(dir: &Path, node: &str, hosts: &[String], now: i64) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("make directory {}", dir.display()))?;
        let (authority, issuer) = make_authority(dir, "ca", "knarr-ca", now)?;
        // An authority of its own: nobody else with a certificate of the cluster can say whose request it passes on.
        let (front_proxy_authority, front_proxy_issuer) =
            make_authority(dir, "front-proxy-ca", "knarr-front-proxy-ca", now)?;
        let node_name = format!("system:node:{node}");
        let server = [ExtendedKeyUsagePurpose::ServerAuth];
        let client = [ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = |leaf: Leaf<'_>| ensure_leaf(dir, &issuer, &leaf, now);
        Ok(Self {
            api: leaf(Leaf { file: "apiserver", name: "kube-apiserver", groups: &[], hosts, usage: &server })?,
            kubelet: leaf(Leaf {
                file: "kubelet",
                name: &node_name,
                groups: &["system:nodes"],
                hosts,
                usage: &server,
            })?,
            api_to_kubelet: leaf(Leaf {
                file: "apiserver-kubelet-client",
                name: API_TO_KUBELET,
                groups: &[],
                hosts: &[],
                usage: &client,
            })?,
            admin: leaf(Leaf {
                file: "admin",
                name: "kubernetes-admin",
                groups: &["system:masters"],
                hosts: &[],
                usage: &client,
            })?,
            front_proxy: ensure_leaf(
                dir,
                &front_proxy_issuer,
                &Leaf { file: "front-proxy-client", name: FRONT_PROXY, groups: &[], hosts: &[], usage: &client },
                now,
            )?,
            service_accounts: token_key(dir)?,
            authority_key: issuer.key().serialize_pem(),
            authority,
            front_proxy_authority,
        })
    }

    /// The key of the tokens of service accounts.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn token_key(&self) -> Result<auth::TokenKey> {
        let key = KeyPair::from_pem(&self.service_accounts).context("use the key of service accounts")?;
        auth::TokenKey::new(&key.serialize_der(), key.public_key_raw())
    }

    /// What the API server shows to aggregated APIs.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn front_proxy(&self) -> Result<FrontProxy> {
        let pair = &self.front_proxy;
        Ok(FrontProxy { certificate: certificate(&pair.certificate)?, key: key(&pair.key)? })
    }

    /// The authority as controllers sign with it.
    ///
    /// # Errors
    /// When its key cannot be used.
    pub fn signing(&self) -> Result<controllers::Authority> {
        controllers::Authority::new(&self.authority, &self.authority_key)
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.authority)?).context("trust the cluster's authority")?;
        Ok(Arc::new(roots))
    }

    /// TLS of the API: client certificates are asked for, and nobody must have one.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn api_tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        let verifier =
            WebPkiClientVerifier::builder(self.roots()?).allow_unauthenticated().build().context("verify clients")?;
        self.server(verifier, &self.api, &[b"h2", b"http/1.1"])
    }

    /// TLS of the kubelet's port: only who has a certificate of the cluster gets in.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn kubelet_tls(&self) -> Result<Arc<rustls::ServerConfig>> {
        let verifier = WebPkiClientVerifier::builder(self.roots()?).build().context("verify clients")?;
        self.server(verifier, &self.kubelet, &[b"http/1.1"])
    }

    fn server(
        &self,
        verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
        pair: &Pair,
        protocols: &[&[u8]],
    ) -> Result<Arc<rustls::ServerConfig>> {
        let mut config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate(&pair.certificate)?], key(&pair.key)?)
            .context("use the server's certificate")?;
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// TLS with which the API server calls kubelets.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn to_kubelet_tls(&self) -> Result<Arc<rustls::ClientConfig>> {
        let pair = &self.api_to_kubelet;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(vec![certificate(&pair.certificate)?], key(&pair.key)?)
            .context("use the client certificate for kubelets")?;
        Ok(Arc::new(config))
    }
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).context("read certificate")
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).context("read private key")
}

fn paths(dir: &Path, file: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{file}.crt")), dir.join(format!("{file}.key")))
}

fn make_authority(dir: &Path, file: &str, name: &str, now: i64) -> Result<(String, Issuer<'static, KeyPair>)> {
    let (certificate_path, key_path) = paths(dir, file);
    if certificate_path.exists() && key_path.exists() {
        let pem =
            fs::read_to_string(&certificate_path).with_context(|| format!("read {}", certificate_path.display()))?;
        let key = fs::read_to_string(&key_path).with_context(|| format!("read {}", key_path.display()))?;
        let key = KeyPair::from_pem(&key).with_context(|| format!("use key {}", key_path.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)
            .with_context(|| format!("use authority {}", certificate_path.display()))?;
        return Ok((pem, issuer));
    }
    let key = KeyPair::generate().context("make the authority's key")?;
    let mut params = params(name, &[], now, AUTHORITY_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let pem = params.self_signed(&key).context("sign the authority")?.pem();
    write_private(&key_path, &key.serialize_pem())?;
    write_private(&certificate_path, &pem)?;
    Ok((pem, Issuer::new(params, key)))
}

/// The key that signs tokens. It stays, or every token would end with it.
fn token_key(dir: &Path) -> Result<String> {
    let path = dir.join("sa.key");
    match fs::read_to_string(&path) {
        Ok(pem) => return Ok(pem),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    let pem = KeyPair::generate().context("make the key of service accounts")?.serialize_pem();
    write_private(&path, &pem)?;
    Ok(pem)
}

fn params(name: &str, groups: &[&str], now: i64, days: i64) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    for group in groups {
        subject.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name = subject;
    let date = |seconds: i64| {
        let t =
            jiff::Timestamp::from_second(seconds).context("a date of a certificate")?.to_zoned(jiff::tz::TimeZone::UTC);
        let (year, month, day) = (i32::from(t.year()), t.month().unsigned_abs(), t.day().unsigned_abs());
        Ok::<_, anyhow::Error>(rcgen::date_time_ymd(year, month, day))
    };
    params.not_before = date(now - SLACK_SECONDS)?;
    params.not_after = date(now + days * DAY)?;
    Ok(params)
}

fn ensure_leaf(dir: &Path, issuer: &Issuer<'_, KeyPair>, leaf: &Leaf<'_>, now: i64) -> Result<Pair> {
    let (certificate_path, key_path) = paths(dir, leaf.file);
    if let (Ok(pem), Ok(key_pem)) = (fs::read_to_string(&certificate_path), fs::read_to_string(&key_path))
        && is_good(&pem, leaf, now)
    {
        return Ok(Pair { certificate: pem, key: key_pem });
    }
    let key = KeyPair::generate().with_context(|| format!("make the key of {}", leaf.file))?;
    let mut params = params(leaf.name, leaf.groups, now, LEAF_DAYS)?;
    params.subject_alt_names = CertificateParams::new(leaf.hosts.to_vec())
        .with_context(|| format!("name the hosts of {}", leaf.file))?
        .subject_alt_names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = leaf.usage.to_vec();
    let pem = params.signed_by(&key, issuer).with_context(|| format!("sign the certificate of {}", leaf.file))?.pem();
    write_private(&key_path, &key.serialize_pem())?;
    write_private(&certificate_path, &pem)?;
    Ok(Pair { certificate: pem, key: key.serialize_pem() })
}

/// Whether a certificate names what it must and lasts long enough.
fn is_good(pem: &str, leaf: &Leaf<'_>, now: i64) -> bool {
    let Ok(der) = certificate(pem) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else { return false };
    let lasts = parsed.validity().not_after.timestamp() - now > RENEW_DAYS * DAY;
    let begun = parsed.validity().not_before.timestamp() <= now;
    let named = parsed.subject().iter_common_name().next().and_then(|n| n.as_str().ok()) == Some(leaf.name);
    let mut hosts: BTreeMap<String, ()> = BTreeMap::new();
    if let Ok(Some(names)) = parsed.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => {
                    hosts.insert((*name).to_owned(), ());
                }
                GeneralName::IPAddress(bytes) => {
                    let text = match bytes.len() {
                        4 => <[u8; 4]>::try_from(*bytes).map(|b| std::net::Ipv4Addr::from(b).to_string()),
                        _ => <[u8; 16]>::try_from(*bytes).map(|b| std::net::Ipv6Addr::from(b).to_string()),
                    };
                    hosts.extend(text.map(|t| (t, ())));
                }
                _ => {}
            }
        }
    }
    lasts && begun && named && leaf.hosts.iter().all(|h| hosts.contains_key(h))
}

/// Writes a file that only root may read, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension("tmp");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_until_they_are_near_their_end_or_name_the_wrong_hosts() {
        let dir = tempfile::tempdir().expect("directory");
        let hosts = |h: &[&str]| h.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let now = 1_800_000_000;
        let first = Pki::ensure(dir.path(), "n", &hosts(&["localhost", "127.0.0.1"]), now).expect("made");
        let again = Pki::ensure(dir.path(), "n", &hosts(&["localhost"]), now).expect("read");
        assert_eq!((&first.authority, &first.api.certificate), (&again.authority, &again.api.certificate));
        let more = Pki::ensure(dir.path(), "n", &hosts(&["localhost", "10.0.0.1"]), now).expect("renewed");
        assert_ne!(more.api.certificate, first.api.certificate);
        assert_eq!(more.admin.certificate, first.admin.certificate);
        let late = Pki::ensure(dir.path(), "n", &hosts(&["localhost"]), now + 300 * DAY).expect("renewed");
        assert_ne!(late.admin.certificate, first.admin.certificate);
        assert_eq!(late.authority, first.authority);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(dir.path().join("ca.key")).expect("there").permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }
}
