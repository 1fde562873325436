//! Pulls from registries, with a short memory of those that do not answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures::stream::{self, TryStreamExt};
use oci_client::client::{Client, ClientConfig, ClientProtocol, linux_amd64_resolver};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{OciDescriptor, OciManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};

use crate::error::PullError;
use crate::image::{Image, digest_of};
use crate::reference::Name;
use crate::store::ImageStore;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(2);
/// How long the registry may take for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(30);
/// How long "nobody answers" is believed: a hundred pods that start together ask once.
const REMEMBER: Duration = Duration::from_secs(10);
/// Layers fetched at the same time.
const PARALLEL: usize = 3;

const MANIFEST_TYPES: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];

/// Credentials for a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Auth {
    /// User and password.
    Basic {
        /// The user's name.
        username: String,
        /// The password or access token.
        password: String,
    },
    /// A registry token, sent as it is.
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(…)")
    }
}

type Outcome = Result<Arc<Image>, PullError>;
type Key = (String, Option<Auth>);

/// Pulls under way, and registries that did not answer lately.
#[derive(Default)]
pub(crate) struct Pulls {
    running: Mutex<HashMap<Key, WeakShared<BoxFuture<'static, Outcome>>>>,
    silent: Mutex<HashMap<String, (Instant, String)>>,
}

impl ImageStore {
    /// Pulls an image for linux/amd64. Callers who want the same reference at the same time share one pull; dropping all
    /// of them ends it. Blobs that are here are not fetched again. Registries on loopback are spoken to over plain HTTP.
    pub async fn pull(self: &Arc<Self>, reference: &str, auth: Option<Auth>) -> Result<Arc<Image>, PullError> {
        let name = Name::parse(reference).map_err(other)?;
        let key = (name.full(), auth.clone());
        let pull: Shared<BoxFuture<'static, Outcome>> = {
            let mut running = self.pulls.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
            match running.get(&key).and_then(WeakShared::upgrade) {
                Some(pull) => pull,
                None => {
                    let store = self.clone();
                    let pull = async move { store.pull_alone(name, auth).await }.boxed().shared();
                    if let Some(weak) = pull.downgrade() {
                        running.insert(key, weak);
                    }
                    pull
                }
            }
        };
        pull.await
    }

    async fn pull_alone(self: Arc<Self>, name: Name, auth: Option<Auth>) -> Outcome {
        let registry = name.registry().to_owned();
        {
            let mut silent = self.pulls.silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.retain(|_, (since, _)| since.elapsed() < REMEMBER);
            if let Some((_, cause)) = silent.get(&registry) {
                return Err(PullError::Unreachable { registry, cause: cause.clone() });
            }
        }
        let outcome = self.fetch(&name, auth).await;
        if let Err(PullError::Unreachable { registry, cause }) = &outcome {
            let mut silent = self.pulls.silent.lock().unwrap_or_else(PoisonError::into_inner);
            silent.insert(registry.clone(), (Instant::now(), cause.clone()));
        }
        outcome
    }

    async fn fetch(self: &Arc<Self>, name: &Name, auth: Option<Auth>) -> Outcome {
        let failed = |error| classify(name, error);
        let auth = match auth {
            None => RegistryAuth::Anonymous,
            Some(Auth::Basic { username, password }) => RegistryAuth::Basic(username, password),
            Some(Auth::Bearer(token)) => RegistryAuth::Bearer(token),
        };
        let plain = is_loopback(name.registry());
        knock(name.reference().resolve_registry(), plain)
            .await
            .map_err(|cause| PullError::Unreachable { registry: name.registry().to_owned(), cause })?;
        let client = Client::try_from(ClientConfig {
            protocol: if plain { ClientProtocol::Http } else { ClientProtocol::Https },
            connect_timeout: Some(CONNECT),
            read_timeout: Some(STALL),
            user_agent: concat!("knarr/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
        .map_err(failed)?;
        // A reference by digest is asked for by digest alone.
        let reference = match name.digest() {
            Some(digest) => name.reference().clone_with_digest(digest.to_owned()),
            None => name.reference().clone(),
        };
        let greeting = client.auth(&reference, &auth, RegistryOperation::Pull);
        match tokio::time::timeout(FIRST_ANSWER, greeting).await {
            Ok(answer) => answer.map(drop).map_err(failed)?,
            Err(_) => {
                return Err(PullError::Unreachable {
                    registry: name.registry().to_owned(),
                    cause: format!("no answer within {} s", FIRST_ANSWER.as_secs()),
                });
            }
        }
        let (top, top_digest) = manifest(&client, &reference, &auth).await.map_err(failed)?;
        let parse =
            |bytes: &[u8]| serde_json::from_slice::<OciManifest>(bytes).context("read the manifest").map_err(other);
        let (bytes, parsed) = match parse(&top)? {
            OciManifest::Image(parsed) => (top, parsed),
            OciManifest::ImageIndex(index) => {
                let digest = linux_amd64_resolver(&index.manifests)
                    .ok_or_else(|| PullError::Other(format!("{}: no image for linux/amd64", name.full())))?;
                let one = reference.clone_with_digest(digest);
                let (bytes, _) = manifest(&client, &one, &auth).await.map_err(failed)?;
                match parse(&bytes)? {
                    OciManifest::Image(parsed) => (bytes, parsed),
                    OciManifest::ImageIndex(_) => {
                        return Err(PullError::Other(format!("{}: an index inside an index", name.full())));
                    }
                }
            }
        };
        let _busy = self.busy(
            parsed
                .layers
                .iter()
                .chain([&parsed.config])
                .map(|descriptor| descriptor.digest.clone())
                .chain([digest_of(&bytes)]),
        );
        stream::iter(parsed.layers.iter().chain([&parsed.config]).map(Ok))
            .try_for_each_concurrent(PARALLEL, |descriptor| self.fetch_blob(&client, &reference, descriptor, name))
            .await?;
        let mut references = vec![format!("{}@{top_digest}", name.repository())];
        if name.digest().is_none() {
            references.push(name.full());
        }
        let (store, config) = (self.clone(), parsed.config.digest.clone());
        let add = move || -> anyhow::Result<Arc<Image>> {
            let image = Image::parse(&bytes, &store.read_blob(&config)?)?;
            store.put_blob(&image.manifest_digest, &bytes)?;
            store.add(image, &references)
        };
        tokio::task::spawn_blocking(add)
            .await
            .map_err(|error| PullError::Other(format!("store {}: {error}", name.full())))?
            .map_err(|error| PullError::Other(format!("store {}: {error:#}", name.full())))
    }

    async fn fetch_blob(
        self: &Arc<Self>,
        client: &Client,
        reference: &Reference,
        descriptor: &OciDescriptor,
        name: &Name,
    ) -> Result<(), PullError> {
        let digest = &descriptor.digest;
        self.blob_path(digest).map_err(other)?;
        if self.has_blob(digest) {
            return Ok(());
        }
        let file = tempfile::NamedTempFile::new_in(self.tmp()).map_err(other)?;
        let sink = tokio::fs::File::from_std(file.reopen().map_err(other)?);
        client.pull_blob(reference, descriptor, sink).await.map_err(|error| classify(name, error))?;
        let (store, digest, size) = (self.clone(), digest.clone(), descriptor.size);
        let keep = move || -> anyhow::Result<()> {
            let stored = file.as_file().metadata()?.len();
            if i64::try_from(stored)? != size {
                bail!("blob {digest} has {stored} bytes, the manifest says {size}");
            }
            store.adopt_blob(&digest, file)
        };
        tokio::task::spawn_blocking(keep).await.map_err(other)?.map_err(other)
    }
}

/// Finds out whether anybody is at the registry's address, with one limit over the look-up of the name and the connection:
/// a name server that is silent would hold up a pull for much longer than a registry that is.
async fn knock(registry: &str, plain: bool) -> Result<(), String> {
    let proxies = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
    if !plain && proxies.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        // The proxy knows the way; this host may not.
        return Ok(());
    }
    let has_port = registry.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { registry.to_owned() } else { format!("{registry}:{}", if plain { 80 } else { 443 }) };
    match tokio::time::timeout(CONNECT, tokio::net::TcpStream::connect(&address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("connect to {address}: {error}")),
        Err(_) => Err(format!("connect to {address}: no answer within {} s", CONNECT.as_secs())),
    }
}

async fn manifest(
    client: &Client,
    reference: &Reference,
    auth: &RegistryAuth,
) -> Result<(Vec<u8>, String), OciDistributionError> {
    let (bytes, _) = client.pull_manifest_raw(reference, auth, MANIFEST_TYPES).await?;
    let digest = digest_of(&bytes);
    Ok((bytes.to_vec(), digest))
}

fn is_loopback(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => registry,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn other(error: impl Into<anyhow::Error>) -> PullError {
    PullError::Other(format!("{:#}", error.into()))
}

/// An error with all its causes in one line, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn classify(name: &Name, error: OciDistributionError) -> PullError {
    use OciDistributionError as E;
    let reference = name.full();
    match &error {
        E::RequestError(request) if request.is_connect() || request.is_timeout() => {
            PullError::Unreachable { registry: name.registry().to_owned(), cause: chain(request) }
        }
        E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => {
            PullError::Unauthorized { reference, cause: chain(&error) }
        }
        E::ImageManifestNotFoundError(_) | E::ServerError { code: 404, .. } => PullError::NotFound { reference },
        E::RegistryError { envelope, .. } => {
            let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
            if has(&[OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::NotFound]) {
                PullError::NotFound { reference }
            } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                PullError::Unauthorized { reference, cause: chain(&error) }
            } else {
                PullError::Other(format!("{reference}: {}", chain(&error)))
            }
        }
        _ => PullError::Other(format!("{reference}: {}", chain(&error))),
    }
}
