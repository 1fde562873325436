//! What the store knows about one image.

use anyhow::{Context, bail};
use oci_spec::image::{ImageConfiguration, ImageManifest};
use sha2::{Digest, Sha256};

/// One image. Immutable: a changed tag makes a new value.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration, `sha256:<hex>`: what Docker calls the image id.
    pub id: String,
    /// Digest of the manifest in the store.
    pub manifest_digest: String,
    /// Full references with a tag, such as `docker.io/library/nginx:latest`, sorted.
    pub tags: Vec<String>,
    /// Full references by digest, such as `docker.io/library/nginx@sha256:…`, sorted.
    pub digests: Vec<String>,
    /// Bytes of manifest, configuration and layers as stored (compressed as they came).
    pub size: u64,
    /// Entry point, environment, user, working directory and the rest.
    pub config: ImageConfiguration,
    /// The configuration byte for byte, with the fields that OCI does not name (health check, shell).
    pub raw_config: Vec<u8>,
    /// Lowest layer first.
    pub layers: Vec<Layer>,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Digest of the blob, as compressed.
    pub digest: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Media type from the manifest.
    pub media_type: String,
    /// Digest of the uncompressed archive.
    pub diff_id: String,
    /// Digest that names this layer on top of those below it.
    pub chain_id: String,
}

impl Image {
    /// Reads an image from its manifest and configuration.
    pub(crate) fn parse(manifest_bytes: &[u8], config_bytes: &[u8]) -> anyhow::Result<Image> {
        let manifest = ImageManifest::from_reader(manifest_bytes).context("read the image manifest")?;
        let config = ImageConfiguration::from_reader(config_bytes).context("read the image configuration")?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            bail!("the manifest has {} layers, the configuration {}", manifest.layers().len(), diff_ids.len());
        }
        let mut layers: Vec<Layer> = Vec::with_capacity(diff_ids.len());
        for (descriptor, diff_id) in manifest.layers().iter().zip(diff_ids) {
            hex_of(diff_id)?;
            let chain_id = match layers.last() {
                None => diff_id.clone(),
                Some(below) => digest_of(format!("{} {diff_id}", below.chain_id).as_bytes()),
            };
            layers.push(Layer {
                digest: descriptor.digest().to_string(),
                size: descriptor.size(),
                media_type: descriptor.media_type().to_string(),
                diff_id: diff_id.clone(),
                chain_id,
            });
        }
        for layer in &layers {
            hex_of(&layer.digest)?;
        }
        let size = manifest_bytes.len() as u64
            + config_bytes.len() as u64
            + layers.iter().map(|layer| layer.size).sum::<u64>();
        Ok(Image {
            id: digest_of(config_bytes),
            manifest_digest: digest_of(manifest_bytes),
            tags: Vec::new(),
            digests: Vec::new(),
            size,
            config,
            raw_config: config_bytes.to_vec(),
            layers,
        })
    }

    /// The digests of every blob the image needs.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = &str> {
        [self.id.as_str(), self.manifest_digest.as_str()]
            .into_iter()
            .chain(self.layers.iter().map(|layer| layer.digest.as_str()))
    }

    /// Everything on disk that the image stands on: blobs by digest, unpacked layers by chain id.
    pub(crate) fn keys(&self) -> Vec<String> {
        let chains = self.layers.iter().map(|layer| layer.chain_id.as_str());
        self.blobs().chain(chains).map(str::to_owned).collect()
    }
}

/// `sha256:<hex>` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The hexadecimal part of a sha256 digest; any other text is refused, so it is safe in a path.
pub(crate) fn hex_of(digest: &str) -> anyhow::Result<&str> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) => Ok(hex),
        _ => bail!("{digest:?} is not a sha256 digest"),
    }
}
