//! Writes images to a file, as `docker save` does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use crate::image::hex_of;
use crate::reference::Name;
use crate::store::ImageStore;

impl ImageStore {
    /// Writes images to a docker archive that any engine can load. A reference keeps its name in the archive, an image id
    /// does not. The file appears when it is complete.
    pub fn export_docker_archive(&self, references: &[String], path: &Path) -> anyhow::Result<()> {
        self.export(references, path).with_context(|| format!("export to {}", path.display()))
    }

    fn export(&self, references: &[String], path: &Path) -> anyhow::Result<()> {
        let mut images = BTreeMap::new();
        for reference in references {
            let image = self.resolve(reference).with_context(|| format!("no such image: {reference}"))?;
            let tag = Name::parse(reference).map(|name| name.full()).ok().filter(|full| image.tags.contains(full));
            let (_, tags) = images.entry(image.id.clone()).or_insert_with(|| (image, BTreeSet::new()));
            tags.extend(tag);
        }
        let _busy = self.busy(images.values().flat_map(|(image, _)| image.keys()));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut archive = tar::Builder::new(tempfile::NamedTempFile::new_in(directory)?);
        let mut written = BTreeSet::new();
        let mut listed = Vec::new();
        for (image, tags) in images.values() {
            for digest in image.layers.iter().map(|layer| &layer.digest).chain([&image.id]) {
                if written.insert(digest.clone()) {
                    let mut blob =
                        File::open(self.blob_path(digest)?).with_context(|| format!("open blob {digest}"))?;
                    let mut header = tar::Header::new_gnu();
                    header.set_size(blob.metadata()?.len());
                    header.set_mode(0o644);
                    archive.append_data(&mut header, inside(digest)?, &mut blob)?;
                }
            }
            let layers = image.layers.iter().map(|layer| inside(&layer.digest)).collect::<anyhow::Result<Vec<_>>>()?;
            listed.push(json!({ "Config": inside(&image.id)?, "RepoTags": tags, "Layers": layers }));
        }
        let manifest = serde_json::to_vec(&listed)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(manifest.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "manifest.json", &*manifest)?;
        let mut file = archive.into_inner()?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

fn inside(digest: &str) -> anyhow::Result<String> {
    Ok(format!("blobs/sha256/{}", hex_of(digest)?))
}
