//! The store itself: what it holds, who uses it, and what may go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use crate::error::RemoveError;
use crate::image::{Image, Layer, hex_of};
use crate::index::{Entry, Index, sync_parent};
use crate::pull::Pulls;
use crate::reference::Name;
use crate::unpack;

/// All images of a node. See the crate's page for the layout on disk.
pub struct ImageStore {
    root: PathBuf,
    state: Mutex<State>,
    /// One lock for each layer being unpacked, by chain id.
    unpacking: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    pub(crate) pulls: Pulls,
    /// Held while the store is open: two owners would sweep each other's work.
    _lock: File,
}

#[derive(Default)]
struct State {
    index: Index,
    images: BTreeMap<String, Arc<Image>>,
    /// Image id → user → how many times.
    pins: HashMap<String, BTreeMap<String, usize>>,
    /// Digests and chain ids that someone is adding or using right now, and how many do.
    busy: HashMap<String, usize>,
    /// Bytes of unpacked layers, by chain id, as far as somebody asked.
    sizes: HashMap<String, u64>,
}

/// What a removal did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removed {
    /// References that are gone.
    pub untagged: Vec<String>,
    /// The id of the image, if the image itself went.
    pub deleted: Option<String>,
    /// Bytes freed: blobs and unpacked layers that no other image uses.
    pub freed: u64,
}

/// Keeps digests from being collected while it lives.
pub(crate) struct Busy<'a> {
    store: &'a ImageStore,
    keys: Vec<String>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for key in &self.keys {
            if let Some(count) = state.busy.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    state.busy.remove(key);
                }
            }
        }
    }
}

impl ImageStore {
    /// Opens the store under `root`, making it if there is none. Sweeps what a crash left half made. Fails if another
    /// process has the store open.
    pub fn open(root: &Path) -> anyhow::Result<Arc<ImageStore>> {
        let open = || -> anyhow::Result<Arc<ImageStore>> {
            for directory in ["blobs/sha256", "layers", "tmp"] {
                fs::create_dir_all(root.join(directory))?;
            }
            let lock = File::options().create(true).truncate(false).write(true).open(root.join("lock"))?;
            if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
                bail!("another process is using it");
            }
            let store = ImageStore {
                root: fs::canonicalize(root)?,
                state: Mutex::default(),
                unpacking: Mutex::default(),
                pulls: Pulls::default(),
                _lock: lock,
            };
            store.load()?;
            store.sweep()?;
            Ok(Arc::new(store))
        };
        open().with_context(|| format!("open the image store {}", root.display()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn blob_path(&self, digest: &str) -> anyhow::Result<PathBuf> {
        Ok(self.root.join("blobs/sha256").join(hex_of(digest)?))
    }

    fn layer_path(&self, chain_id: &str) -> anyhow::Result<PathBuf> {
        Ok(self.root.join("layers").join(hex_of(chain_id)?))
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    fn load(&self) -> anyhow::Result<()> {
        let mut index = Index::read(&self.root.join("index.json"))?;
        let mut images = BTreeMap::new();
        let mut lost = Vec::new();
        for (id, entry) in &index.images {
            match self.read_image(id, entry) {
                Ok(image) => {
                    images.insert(id.clone(), Arc::new(image));
                }
                Err(error) => {
                    tracing::error!("image {id} is damaged and dropped from the index: {error:#}");
                    lost.push(id.clone());
                }
            }
        }
        for id in lost {
            index.images.remove(&id);
        }
        let mut state = self.state();
        state.index = index;
        state.images = images;
        Ok(())
    }

    fn read_image(&self, id: &str, entry: &Entry) -> anyhow::Result<Image> {
        let read = |digest: &str| -> anyhow::Result<Vec<u8>> {
            let path = self.blob_path(digest)?;
            fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let image = Image::parse(&read(&entry.manifest)?, &read(id)?)?;
        if image.id != id || image.manifest_digest != entry.manifest {
            bail!("its manifest or configuration does not have the digest it is stored under");
        }
        for layer in &image.layers {
            let path = self.blob_path(&layer.digest)?;
            let size = fs::metadata(&path).with_context(|| format!("read {}", path.display()))?.len();
            if size != layer.size {
                bail!("{} has {size} bytes instead of {}", path.display(), layer.size);
            }
        }
        Ok(named(image, entry))
    }

    /// Removes what no image of the index needs: left-overs of a crash.
    fn sweep(&self) -> anyhow::Result<()> {
        let mut state = self.state();
        for entry in fs::read_dir(self.tmp())? {
            remove_any(&entry?.path())?;
        }
        self.collect(&mut state).map(drop)
    }

    /// Removes blobs and layers that neither an image nor a caller needs. Returns the bytes freed.
    fn collect(&self, state: &mut State) -> anyhow::Result<u64> {
        let mut blobs: HashSet<&str> = HashSet::new();
        let mut chains: HashSet<&str> = HashSet::new();
        for image in state.images.values() {
            blobs.extend(image.blobs());
            chains.extend(image.layers.iter().map(|layer| layer.chain_id.as_str()));
        }
        let mut freed = 0;
        for (directory, used) in [("blobs/sha256", &blobs), ("layers", &chains)] {
            for entry in fs::read_dir(self.root.join(directory))? {
                let entry = entry?;
                let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
                if used.contains(digest.as_str()) || state.busy.contains_key(&digest) {
                    continue;
                }
                freed += tree_size(&entry.path());
                // Renamed first: a crash half way must not leave a layer that looks whole.
                let grave = tempfile::Builder::new().prefix("gone-").tempdir_in(self.tmp())?;
                fs::rename(entry.path(), grave.path().join("x"))
                    .with_context(|| format!("remove {}", entry.path().display()))?;
                remove_any(&grave.path().join("x"))?;
            }
        }
        Ok(freed)
    }

    /// Keeps `keys` (digests, chain ids) from being collected until the guard is dropped.
    pub(crate) fn busy(&self, keys: impl IntoIterator<Item = String>) -> Busy<'_> {
        let keys: Vec<String> = keys.into_iter().collect();
        let mut state = self.state();
        for key in &keys {
            *state.busy.entry(key.clone()).or_default() += 1;
        }
        Busy { store: self, keys }
    }

    /// Whether the store holds a blob.
    pub(crate) fn has_blob(&self, digest: &str) -> bool {
        self.blob_path(digest).is_ok_and(|path| path.exists())
    }

    /// Reads a blob, such as a manifest, whole.
    pub fn read_blob(&self, digest: &str) -> anyhow::Result<Vec<u8>> {
        let path = self.blob_path(digest)?;
        fs::read(&path).with_context(|| format!("read the blob {digest}"))
    }

    /// Stores bytes under their digest. The caller keeps the digest busy.
    pub(crate) fn put_blob(&self, digest: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(self.tmp()).context("write a blob")?;
        file.write_all(bytes).context("write a blob")?;
        self.adopt_blob(digest, file)
    }

    /// Moves a complete, verified file into the store. The caller keeps the digest busy.
    pub(crate) fn adopt_blob(&self, digest: &str, file: tempfile::NamedTempFile) -> anyhow::Result<()> {
        let path = self.blob_path(digest)?;
        file.as_file().sync_all().with_context(|| format!("write the blob {digest}"))?;
        file.persist(&path).with_context(|| format!("store the blob {digest}"))?;
        sync_parent(&path)
    }

    /// Enters an image whose blobs are all in the store, unpacks it, and gives it these references.
    pub(crate) fn add(&self, image: Image, references: &[String]) -> anyhow::Result<Arc<Image>> {
        let _new = self.busy(image.keys());
        let known = self.state().images.get(&image.id).cloned();
        // The same image compressed in another way: keep the blobs that are here.
        let image = match known {
            Some(known) => (*known).clone(),
            None => image,
        };
        let _kept = self.busy(image.keys());
        self.unpack(&image)?;
        for digest in image.blobs() {
            if !self.has_blob(digest) {
                bail!("blob {digest} of image {} is missing", image.id);
            }
        }
        let mut state = self.state();
        let mut index = state.index.clone();
        index
            .images
            .entry(image.id.clone())
            .or_insert_with(|| Entry { manifest: image.manifest_digest.clone(), ..Entry::default() });
        for reference in references {
            index.assign(reference, &image.id);
        }
        let id = image.id.clone();
        state.images.entry(id.clone()).or_insert_with(|| Arc::new(image));
        self.commit(&mut state, index)?;
        state.images.get(&id).cloned().context("enter the image")
    }

    /// Writes the index and brings the images in memory in line with it.
    fn commit(&self, state: &mut State, index: Index) -> anyhow::Result<()> {
        let written =
            if index == state.index { Ok(()) } else { index.write(&self.root.join("index.json"), &self.tmp()) };
        if written.is_ok() {
            state.index = index;
        }
        let State { index, images, .. } = state;
        images.retain(|id, image| match index.images.get(id) {
            None => false,
            Some(entry) => {
                let fresh = named((**image).clone(), entry);
                if fresh.tags != image.tags || fresh.digests != image.digests {
                    *image = Arc::new(fresh);
                }
                true
            }
        });
        written
    }

    /// The image with this name, id or unique beginning of an id (with or without `sha256:`).
    pub fn resolve(&self, name_or_id: &str) -> Option<Arc<Image>> {
        let state = self.state();
        find(&state, name_or_id)
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Arc<Image>> {
        self.state().images.values().cloned().collect()
    }

    /// Gives an image one more name; takes the name from the image that had it.
    pub fn tag(&self, name_or_id: &str, reference: &str) -> anyhow::Result<Arc<Image>> {
        let name = Name::parse(reference)?;
        if name.digest().is_some() {
            bail!("tag {reference}: a name with a digest cannot be given");
        }
        let mut state = self.state();
        let image =
            find(&state, name_or_id).with_context(|| format!("tag {reference}: no such image: {name_or_id}"))?;
        let mut index = state.index.clone();
        index.assign(&name.full(), &image.id);
        self.commit(&mut state, index)?;
        state.images.get(&image.id).cloned().context("tag the image")
    }

    /// Takes a name away; with its last tag the image goes too. Refused if that image is in use.
    pub fn untag(&self, reference: &str) -> Result<Removed, RemoveError> {
        let not_found = || RemoveError::NotFound(reference.to_owned());
        let full = Name::parse(reference)?.full();
        let mut state = self.state();
        let id = state
            .index
            .images
            .iter()
            .find(|(_, entry)| entry.references.contains(&full))
            .map(|(id, _)| id.clone())
            .ok_or_else(not_found)?;
        let mut index = state.index.clone();
        let Some(entry) = index.images.get_mut(&id) else {
            return Err(not_found());
        };
        entry.references.remove(&full);
        if !entry.references.iter().any(|reference| !is_digest(reference)) {
            return self.drop_image(&mut state, &id);
        }
        self.commit(&mut state, index)?;
        Ok(Removed { untagged: vec![full], deleted: None, freed: 0 })
    }

    /// Takes a name away and leaves the image, nameless if that was its last name.
    pub fn forget_name(&self, reference: &str) -> Result<Removed, RemoveError> {
        let full = Name::parse(reference)?.full();
        let mut state = self.state();
        let mut index = state.index.clone();
        if !index.images.values_mut().any(|entry| entry.references.remove(&full)) {
            return Err(RemoveError::NotFound(reference.to_owned()));
        }
        self.commit(&mut state, index)?;
        Ok(Removed { untagged: vec![full], deleted: None, freed: 0 })
    }

    /// Who holds an image.
    pub fn users(&self, id: &str) -> Vec<String> {
        self.state().pins.get(id).map(|users| users.keys().cloned().collect()).unwrap_or_default()
    }

    /// Removes an image with all its names, and the blobs and layers that no other image uses. Refused while pinned.
    pub fn remove(&self, name_or_id: &str) -> Result<Removed, RemoveError> {
        let mut state = self.state();
        let image = find(&state, name_or_id).ok_or_else(|| RemoveError::NotFound(name_or_id.to_owned()))?;
        self.drop_image(&mut state, &image.id)
    }

    fn drop_image(&self, state: &mut State, id: &str) -> Result<Removed, RemoveError> {
        if let Some(user) = state.pins.get(id).and_then(|users| users.keys().next()) {
            return Err(RemoveError::InUse { image: id.to_owned(), user: user.clone() });
        }
        let mut index = state.index.clone();
        let untagged = index.images.remove(id).map(|entry| entry.references.into_iter().collect()).unwrap_or_default();
        self.commit(state, index)?;
        let freed = self.collect(state)?;
        Ok(Removed { untagged, deleted: Some(id.to_owned()), freed })
    }

    /// Holds an image for a user, such as a container. Pins live in memory: whoever holds containers pins their images
    /// again after opening the store. The same user may pin several times.
    pub fn pin(&self, id: &str, user: &str) -> anyhow::Result<()> {
        let mut state = self.state();
        if !state.images.contains_key(id) {
            bail!("pin image {id} for {user}: no such image");
        }
        *state.pins.entry(id.to_owned()).or_default().entry(user.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Undoes one [`pin`](Self::pin).
    pub fn release(&self, id: &str, user: &str) {
        let mut state = self.state();
        if let Some(users) = state.pins.get_mut(id) {
            if let Some(count) = users.get_mut(user) {
                *count -= 1;
                if *count == 0 {
                    users.remove(user);
                }
            }
            if users.is_empty() {
                state.pins.remove(id);
            }
        }
    }

    /// What an image stands on, by key, with the bytes of each on disk. Images that share a key share its bytes.
    pub fn parts(&self, image: &Image) -> Vec<(String, u64)> {
        let mut parts = Vec::new();
        for key in image.blobs().map(str::to_owned) {
            let bytes = self.blob_path(&key).map_or(0, |path| tree_size(&path));
            parts.push((key, bytes));
        }
        for layer in &image.layers {
            let known = self.state().sizes.get(&layer.chain_id).copied();
            let bytes = known.unwrap_or_else(|| {
                let Some(path) = self.layer_path(&layer.chain_id).ok().filter(|path| path.exists()) else { return 0 };
                // Layers never change once they are there.
                let bytes = tree_size(&path);
                self.state().sizes.insert(layer.chain_id.clone(), bytes);
                bytes
            });
            parts.push((format!("layer {}", layer.chain_id), bytes));
        }
        parts
    }

    /// Bytes on disk: blobs and unpacked layers of all images.
    pub fn size(&self) -> u64 {
        tree_size(&self.root.join("blobs")) + tree_size(&self.root.join("layers"))
    }

    /// The image's layers as directories for overlayfs, topmost first. Unpacks what is not unpacked yet; callers who ask
    /// at the same time share the work.
    pub async fn lower_dirs(self: &Arc<Self>, image: &Image) -> anyhow::Result<Vec<PathBuf>> {
        if let Some(ready) = self.unpacked(image)? {
            return Ok(ready);
        }
        let (store, image) = (self.clone(), image.clone());
        tokio::task::spawn_blocking(move || store.unpack(&image)).await.context("unpack the image")?
    }

    fn unpacked(&self, image: &Image) -> anyhow::Result<Option<Vec<PathBuf>>> {
        let mut directories = Vec::with_capacity(image.layers.len());
        for layer in image.layers.iter().rev() {
            let path = self.layer_path(&layer.chain_id)?;
            if !path.exists() {
                return Ok(None);
            }
            directories.push(path);
        }
        Ok(Some(directories))
    }

    fn unpack(&self, image: &Image) -> anyhow::Result<Vec<PathBuf>> {
        let _busy = self.busy(image.keys());
        let mut below: Vec<PathBuf> = Vec::new();
        for layer in &image.layers {
            let path = self.layer_path(&layer.chain_id)?;
            let lock = {
                let mut locks = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
                locks.entry(layer.chain_id.clone()).or_default().clone()
            };
            let result = {
                let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
                if path.exists() { Ok(()) } else { self.unpack_layer(layer, &below, &path) }
            };
            let mut locks = self.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            drop(lock);
            if locks.get(&layer.chain_id).is_some_and(|lock| Arc::strong_count(lock) == 1) {
                locks.remove(&layer.chain_id);
            }
            drop(locks);
            result.with_context(|| format!("unpack layer {} of image {}", layer.digest, image.id))?;
            below.push(path);
        }
        below.reverse();
        Ok(below)
    }

    fn unpack_layer(&self, layer: &Layer, below: &[PathBuf], path: &Path) -> anyhow::Result<()> {
        let blob = File::open(self.blob_path(&layer.digest)?).context("open the blob")?;
        let work = tempfile::Builder::new().prefix("layer-").tempdir_in(self.tmp())?;
        let target = work.path().join("x");
        fs::create_dir(&target)?;
        let mut plain = Hashed::new(crate::decompress::reader(blob)?);
        unpack::layer(&mut plain, &target, below)?;
        let diff_id = plain.finish().context("read the layer to its end")?;
        if diff_id != layer.diff_id {
            bail!("the unpacked content has digest {diff_id}, the image says {}", layer.diff_id);
        }
        rustix::fs::syncfs(File::open(&target)?).context("sync the layer to disk")?;
        fs::rename(&target, path).context("move the layer into place")?;
        sync_parent(path)
    }
}

/// A reader that computes the digest of what passes.
pub(crate) struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Hashed { inner, hash: Sha256::new() }
    }

    /// Reads what is left and returns the digest of everything.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(format!("sha256:{}", hex::encode(self.hash.finalize())))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}

fn named(mut image: Image, entry: &Entry) -> Image {
    let (digests, tags) = entry.references.iter().cloned().partition(|reference| is_digest(reference));
    image.digests = digests;
    image.tags = tags;
    image
}

fn is_digest(reference: &str) -> bool {
    reference.contains('@')
}

fn find(state: &State, name_or_id: &str) -> Option<Arc<Image>> {
    let hex = name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id);
    if let Some(image) = state.images.get(&format!("sha256:{hex}")) {
        return Some(image.clone());
    }
    if let Ok(name) = Name::parse(name_or_id) {
        let full = name.full();
        let by_name = state.index.images.iter().find(|(_, entry)| entry.references.contains(&full));
        if let Some((id, _)) = by_name {
            return state.images.get(id).cloned();
        }
        // A reference by digest also finds an image that came under the same digest from an archive.
        if let Some(digest) = name.digest() {
            let by_digest = state.images.values().find(|image| {
                image.manifest_digest == digest
                    && image.tags.iter().chain(&image.digests).any(|reference| {
                        Name::parse(reference).is_ok_and(|other| other.repository() == name.repository())
                    })
            });
            return by_digest.cloned();
        }
    }
    let is_prefix = hex.len() >= 4 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut candidates = state.images.iter().filter(|(id, _)| is_prefix && id["sha256:".len()..].starts_with(hex));
    match (candidates.next(), candidates.next()) {
        (Some((_, image)), None) => Some(image.clone()),
        _ => None,
    }
}

fn remove_any(path: &Path) -> anyhow::Result<()> {
    let remove = || match fs::symlink_metadata(path)?.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    remove().with_context(|| format!("remove {}", path.display()))
}

/// Bytes on disk of all files below a path; a file with several names counts once.
fn tree_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut seen = HashSet::new();
    walkdir::WalkDir::new(path)
        .into_iter()
        .filter_map(|entry| entry.ok()?.metadata().ok())
        .filter(|metadata| metadata.is_file() && (metadata.nlink() == 1 || seen.insert(metadata.ino())))
        .map(|metadata| metadata.blocks() * 512)
        .sum()
}
