//! Reads images from files: archives of `docker save`, and OCI layouts as a directory or an archive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use oci_spec::image::{DescriptorBuilder, Digest, ImageIndex, ImageManifest, ImageManifestBuilder, MediaType};
use serde::Deserialize;

use crate::decompress::{self, Compression};
use crate::image::{Image, digest_of};
use crate::reference::Name;
use crate::store::{Hashed, ImageStore};

/// Manifests, indexes and configurations are small; anything larger is not one.
const MAX_JSON: u64 = 16 << 20;

/// One element of `manifest.json` of a docker archive.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The files of an archive, spread out under names of ours; or a directory as it is.
enum Source {
    Archive {
        /// Path inside the archive → file.
        files: HashMap<PathBuf, PathBuf>,
        /// Path inside the archive → path inside the archive.
        links: HashMap<PathBuf, PathBuf>,
        _scratch: tempfile::TempDir,
    },
    Directory(PathBuf),
}

impl ImageStore {
    /// Imports all images of a docker archive (plain, gzip or zstd) or an OCI layout (a directory, or an archive of one).
    /// All or nothing: after an error, the store is as before. Blocks while it reads.
    pub fn import(&self, path: &Path) -> anyhow::Result<Vec<Arc<Image>>> {
        let imported = self.import_from(path).with_context(|| format!("import {}", path.display()))?;
        Ok(imported.into_iter().map(|(image, _)| image).collect())
    }

    /// As [`import`](Self::import), with the references that the archive gave each image.
    pub fn import_named(&self, path: &Path) -> anyhow::Result<Vec<(Arc<Image>, Vec<String>)>> {
        self.import_from(path)
    }

    fn import_from(&self, path: &Path) -> anyhow::Result<Vec<(Arc<Image>, Vec<String>)>> {
        let source = Source::open(path, &self.tmp())?;
        let found = if source.has("manifest.json") {
            self.read_docker(&source)?
        } else if source.has("index.json") {
            self.read_layout(&source)?
        } else {
            bail!("it is neither a docker archive (no manifest.json) nor an OCI layout (no index.json)");
        };
        if found.is_empty() {
            bail!("it holds no image");
        }
        let _busy = self.busy(found.iter().flat_map(|found| found.image.keys()));
        for found in &found {
            for (digest, content) in &found.blobs {
                match content {
                    Content::Bytes(bytes) => self.put_blob(digest, bytes)?,
                    Content::File(path) => self.copy_blob(digest, path)?,
                }
            }
        }
        let fresh: HashSet<String> =
            found.iter().map(|f| f.image.id.clone()).filter(|id| self.resolve(id).is_none()).collect();
        let mut images: Vec<(Arc<Image>, Vec<String>)> = Vec::new();
        for found in found {
            match self.add(found.image, &found.references) {
                Ok(image) => images.push((image, found.references)),
                Err(error) => {
                    for (image, _) in images.iter().filter(|(image, _)| fresh.contains(&image.id)) {
                        if let Err(undo) = self.remove(&image.id) {
                            tracing::error!("take back {} after a failed import: {undo}", image.id);
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(images)
    }

    fn copy_blob(&self, digest: &str, path: &Path) -> anyhow::Result<()> {
        if self.has_blob(digest) {
            return Ok(());
        }
        let mut copy = tempfile::NamedTempFile::new_in(self.tmp())?;
        let mut reader = Hashed::new(File::open(path)?);
        io::copy(&mut reader, &mut copy).with_context(|| format!("store the blob {digest}"))?;
        let actual = reader.finish()?;
        if actual != digest {
            bail!("a blob has digest {actual} instead of {digest}");
        }
        self.adopt_blob(digest, copy)
    }

    fn read_docker(&self, source: &Source) -> anyhow::Result<Vec<Found>> {
        let listed: Vec<DockerImage> =
            serde_json::from_slice(&source.json("manifest.json")?).context("read manifest.json")?;
        listed.iter().map(|image| docker_image(source, image)).collect()
    }

    fn read_layout(&self, source: &Source) -> anyhow::Result<Vec<Found>> {
        let index = ImageIndex::from_reader(&*source.json("index.json")?).context("read index.json")?;
        let mut found = Vec::new();
        for descriptor in index.manifests() {
            let references = layout_names(descriptor.annotations().as_ref())?;
            let manifest = layout_manifest(source, descriptor.digest().as_ref(), 0)?;
            found.push(layout_image(source, manifest, references)?);
        }
        Ok(found)
    }
}

/// An image of the source, and where its blobs are.
struct Found {
    image: Image,
    references: Vec<String>,
    blobs: BTreeMap<String, Content>,
}

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

fn docker_image(source: &Source, listed: &DockerImage) -> anyhow::Result<Found> {
    let config = source.json(&listed.config)?;
    let mut blobs = BTreeMap::new();
    let mut layers = Vec::new();
    for name in &listed.layers {
        let path = source.path(name)?;
        let mut file = File::open(&path).with_context(|| format!("open {name}"))?;
        let mut start = [0u8; 4];
        let count = file.read(&mut start).with_context(|| format!("read {name}"))?;
        let media_type = match decompress::sniff(&start[..count]) {
            Compression::None => MediaType::ImageLayer,
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd => MediaType::ImageLayerZstd,
        };
        let size = file.metadata()?.len();
        let digest = Hashed::new(File::open(&path)?).finish().with_context(|| format!("read {name}"))?;
        layers.push(DescriptorBuilder::default().media_type(media_type).size(size).digest(parsed(&digest)?).build()?);
        blobs.insert(digest, Content::File(path));
    }
    let config_digest = digest_of(&config);
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(
            DescriptorBuilder::default()
                .media_type(MediaType::ImageConfig)
                .size(config.len() as u64)
                .digest(parsed(&config_digest)?)
                .build()?,
        )
        .layers(layers)
        .build()?
        .to_string()?
        .into_bytes();
    let image = Image::parse(&manifest, &config)?;
    let tags = listed.repo_tags.iter().flatten();
    let references = tags.map(|tag| Name::parse(tag).map(|name| name.full())).collect::<anyhow::Result<_>>()?;
    blobs.insert(image.manifest_digest.clone(), Content::Bytes(manifest));
    blobs.insert(image.id.clone(), Content::Bytes(config));
    Ok(Found { image, references, blobs })
}

fn parsed(digest: &str) -> anyhow::Result<Digest> {
    digest.parse().with_context(|| format!("read the digest {digest}"))
}

/// Names that other tools write into a layout: a full name, or a bare tag, which names no repository and says nothing.
fn layout_names(annotations: Option<&HashMap<String, String>>) -> anyhow::Result<Vec<String>> {
    let annotation = |key: &str| annotations.and_then(|all| all.get(key));
    let full = annotation("io.containerd.image.name")
        .or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/'])));
    full.map(|name| Name::parse(name).map(|name| name.full())).into_iter().collect()
}

fn layout_manifest(source: &Source, digest: &str, depth: usize) -> anyhow::Result<Vec<u8>> {
    let bytes = source.blob(digest)?;
    let Ok(index) = ImageIndex::from_reader(&*bytes) else {
        return Ok(bytes);
    };
    if depth > 2 {
        bail!("indexes are nested too deeply");
    }
    let fits = |descriptor: &&oci_spec::image::Descriptor| {
        descriptor.platform().as_ref().is_none_or(|platform| {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == "amd64"
        })
    };
    let chosen = index.manifests().iter().find(fits).context("it holds no image for linux/amd64")?;
    layout_manifest(source, chosen.digest().as_ref(), depth + 1)
}

fn layout_image(source: &Source, manifest: Vec<u8>, references: Vec<String>) -> anyhow::Result<Found> {
    let read = ImageManifest::from_reader(&*manifest).context("read the image manifest")?;
    let config = source.blob(read.config().digest().as_ref())?;
    let image = Image::parse(&manifest, &config)?;
    let mut blobs = BTreeMap::new();
    for layer in &image.layers {
        blobs.insert(layer.digest.clone(), Content::File(source.path(&blob_name(&layer.digest)?)?));
    }
    blobs.insert(image.manifest_digest.clone(), Content::Bytes(manifest));
    blobs.insert(image.id.clone(), Content::Bytes(config));
    Ok(Found { image, references, blobs })
}

fn blob_name(digest: &str) -> anyhow::Result<String> {
    Ok(format!("blobs/sha256/{}", crate::image::hex_of(digest)?))
}

/// A path inside an archive without `.`; `None` if it leads outside.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

impl Source {
    fn open(path: &Path, tmp: &Path) -> anyhow::Result<Source> {
        if fs::metadata(path)?.is_dir() {
            return Ok(Source::Directory(path.to_owned()));
        }
        let scratch = tempfile::Builder::new().prefix("import-").tempdir_in(tmp)?;
        let mut archive = tar::Archive::new(decompress::reader(File::open(path)?)?);
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let not_tar = "read it as a tar archive";
        for entry in archive.entries().context(not_tar)? {
            let mut entry = entry.context(not_tar)?;
            let name = entry.path().context(not_tar)?.into_owned();
            let Some(inside) = normal(&name) else { bail!("the path {name:?} leads out of the archive") };
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let target = scratch.path().join(files.len().to_string());
                let mut file = File::create(&target).context("spread out the archive")?;
                io::copy(&mut entry, &mut file).context("spread out the archive")?;
                files.insert(inside, target);
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name().context(not_tar)?.context("a link without a target")?;
                let base = if kind.is_symlink() { inside.parent().unwrap_or(Path::new("")) } else { Path::new("") };
                if let Some(target) = normal(&base.join(target)) {
                    links.insert(inside, target);
                }
            }
        }
        if files.is_empty() {
            bail!("it is not an archive, or an empty one");
        }
        Ok(Source::Archive { files, links, _scratch: scratch })
    }

    fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let missing = || format!("{name} is missing from it");
        let mut inside = normal(Path::new(name)).with_context(missing)?;
        match self {
            Source::Directory(root) => {
                let path = root.join(inside);
                if !path.is_file() {
                    bail!(missing());
                }
                Ok(path)
            }
            Source::Archive { files, links, .. } => {
                for _ in 0..8 {
                    if let Some(file) = files.get(&inside) {
                        return Ok(file.clone());
                    }
                    inside = links.get(&inside).with_context(missing)?.clone();
                }
                bail!("links go in a circle at {name}")
            }
        }
    }

    fn has(&self, name: &str) -> bool {
        self.path(name).is_ok()
    }

    fn json(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.path(name)?;
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_JSON + 1).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
        if bytes.len() as u64 > MAX_JSON {
            bail!("{name} is too large");
        }
        Ok(bytes)
    }

    /// A small blob of a layout, checked against its digest.
    fn blob(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let bytes = self.json(&blob_name(digest)?)?;
        let actual = digest_of(&bytes);
        if actual != digest {
            bail!("the blob {digest} has the digest {actual}");
        }
        Ok(bytes)
    }
}
