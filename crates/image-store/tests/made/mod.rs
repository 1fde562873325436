//! Makes images for tests.
#![allow(dead_code)]

use std::fs;
use std::path::Path;

use serde_json::json;
use sha2::{Digest, Sha256};

/// One entry of a layer.
#[derive(Debug, Clone)]
pub struct Item {
    kind: tar::EntryType,
    path: String,
    target: String,
    content: String,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
    xattr: Option<(String, String)>,
}

impl Item {
    fn new(kind: tar::EntryType, path: &str) -> Item {
        Item {
            kind,
            path: path.to_owned(),
            target: String::new(),
            content: String::new(),
            mode: 0o644,
            owner: (0, 0),
            mtime: 1_000_000_000,
            device: (0, 0),
            xattr: None,
        }
    }
    pub fn file(path: &str, content: &str) -> Item {
        Item { content: content.to_owned(), ..Item::new(tar::EntryType::Regular, path) }
    }
    pub fn dir(path: &str, mode: u32) -> Item {
        Item { mode, ..Item::new(tar::EntryType::Directory, path) }
    }
    pub fn symlink(path: &str, target: &str) -> Item {
        Item { target: target.to_owned(), ..Item::new(tar::EntryType::Symlink, path) }
    }
    pub fn hard_link(path: &str, target: &str) -> Item {
        Item { target: target.to_owned(), ..Item::new(tar::EntryType::Link, path) }
    }
    pub fn fifo(path: &str) -> Item {
        Item::new(tar::EntryType::Fifo, path)
    }
    pub fn device(path: &str, major: u32, minor: u32) -> Item {
        Item { device: (major, minor), ..Item::new(tar::EntryType::Char, path) }
    }
    pub fn owner(self, user: u64, group: u64) -> Item {
        Item { owner: (user, group), ..self }
    }
    pub fn mode(self, mode: u32) -> Item {
        Item { mode, ..self }
    }
    pub fn mtime(self, mtime: u64) -> Item {
        Item { mtime, ..self }
    }
    pub fn xattr(self, key: &str, value: &str) -> Item {
        Item { xattr: Some((key.to_owned(), value.to_owned())), ..self }
    }
}

/// A layer's archive. Paths go in as they are, also those that no honest tool would write.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        if let Some((key, value)) = &item.xattr {
            let key = format!("SCHILY.xattr.{key}");
            builder.append_pax_extensions([(key.as_str(), value.as_bytes())]).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(item.owner.0);
        header.set_gid(item.owner.1);
        header.set_mtime(item.mtime);
        header.set_size(item.content.len() as u64);
        header.set_device_major(item.device.0).unwrap();
        header.set_device_minor(item.device.1).unwrap();
        header.as_gnu_mut().unwrap().linkname[..item.target.len()].copy_from_slice(item.target.as_bytes());
        if item.path.len() > 99 {
            builder.append_data(&mut header, &item.path, item.content.as_bytes()).unwrap();
        } else {
            header.as_gnu_mut().unwrap().name[..item.path.len()].copy_from_slice(item.path.as_bytes());
            header.set_cksum();
            builder.append(&header, item.content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

/// An image, not yet in any file.
pub struct Built {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Built {
    pub fn id(&self) -> String {
        digest(&self.config)
    }
    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|layer| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest(layer), "size": layer.len() }))
            .collect();
        serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": self.id(), "size": self.config.len() },
            "layers": layers,
        }))
        .unwrap()
    }
}

pub fn build(layers: &[Vec<Item>]) -> Built {
    let layers: Vec<Vec<u8>> = layers.iter().map(|items| tar(items)).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/hello"], "Env": null },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    Built { config: serde_json::to_vec(&config).unwrap(), layers }
}

/// A file as `docker save` of old wrote it.
pub fn docker_archive(path: &Path, images: &[(&Built, &[&str])]) {
    let mut builder = tar::Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let mut listed = Vec::new();
    for (number, (built, names)) in images.iter().enumerate() {
        let config = format!("{}.json", &built.id()["sha256:".len()..]);
        add(&config, &built.config);
        let mut layers = Vec::new();
        for (layer, bytes) in built.layers.iter().enumerate() {
            let name = format!("{number}-{layer}/layer.tar");
            add(&name, bytes);
            layers.push(name);
        }
        let names: Vec<String> = names
            .iter()
            .map(|name| if name.contains(':') { (*name).to_owned() } else { format!("{name}:latest") })
            .collect();
        listed.push(json!({ "Config": config, "RepoTags": names, "Layers": layers }));
    }
    add("manifest.json", &serde_json::to_vec(&listed).unwrap());
    builder.into_inner().unwrap();
}

/// An OCI layout, with an index inside the index as build tools write it.
pub fn layout(path: &Path, built: &Built, name: &str) {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = digest(bytes);
        fs::write(blobs.join(&digest["sha256:".len()..]), bytes).unwrap();
        json!({ "digest": digest, "size": bytes.len() })
    };
    put(&built.config);
    for layer in &built.layers {
        put(layer);
    }
    let mut image = put(&built.manifest());
    image["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json");
    image["platform"] = json!({ "os": "linux", "architecture": "amd64" });
    let mut foreign = image.clone();
    foreign["digest"] = json!(format!("sha256:{}", "1".repeat(64)));
    foreign["platform"]["architecture"] = json!("arm64");
    let index = |entries: serde_json::Value| json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries });
    let mut inner = put(&serde_json::to_vec(&index(json!([foreign, image]))).unwrap());
    inner["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    inner["annotations"] = json!({ "io.containerd.image.name": name });
    fs::write(path.join("index.json"), serde_json::to_vec(&index(json!([inner]))).unwrap()).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
