//! The index file: which images there are and what they are called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The content of `index.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// By image id.
    pub(crate) images: BTreeMap<String, Entry>,
}

/// One image of the index.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Digest of the manifest.
    pub(crate) manifest: String,
    /// Full references, by tag and by digest. A reference belongs to one image only.
    #[serde(default)]
    pub(crate) references: BTreeSet<String>,
}

impl Index {
    /// Reads the index; a store that never held an image has none.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Index> {
        match fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("read the image index {}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(error).with_context(|| format!("read the image index {}", path.display())),
        }
    }

    /// Replaces the index file: readers see the old content or the new, also after a power cut.
    pub(crate) fn write(&self, path: &Path, tmp: &Path) -> anyhow::Result<()> {
        let write = || -> anyhow::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(tmp)?;
            serde_json::to_writer_pretty(&mut file, self)?;
            file.flush()?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            sync_parent(path)
        };
        write().with_context(|| format!("write the image index {}", path.display()))
    }

    /// Gives a reference to an image, taking it from whoever had it.
    pub(crate) fn assign(&mut self, reference: &str, id: &str) {
        for entry in self.images.values_mut() {
            entry.references.remove(reference);
        }
        if let Some(entry) = self.images.get_mut(id) {
            entry.references.insert(reference.to_owned());
        }
    }
}

/// Makes a rename in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
