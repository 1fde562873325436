//! Volumes: directories that outlive the containers that use them.

use std::fs;
use std::path::PathBuf;

use http::{Response, StatusCode};
use image_store::Image;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Answer, bad, conflict, missing};
use crate::filters::Filters;
use crate::http::{Body, Call, empty_answer, json_answer};
use crate::model::{Labels, Record, Volume};
use crate::{DockerApi, NO_CONTENT, archive, lock, names, time};

/// The label by which Docker knows a volume that nobody named.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct VolumeRequest {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<Labels>,
    labels: Option<Labels>,
}

impl DockerApi {
    /// The files of a volume.
    pub(crate) fn volume_data(&self, name: &str) -> PathBuf {
        self.dir("volumes", name).join("_data")
    }

    /// Every container that has a volume, by volume and id.
    pub(crate) fn volume_users(&self, name: &str) -> Vec<String> {
        let containers = lock(&self.containers);
        let users = containers.values().filter(|one| lock(&one.record).mounts.iter().any(|mount| mount.name == name));
        users.map(|one| lock(&one.record).id.clone()).collect()
    }

    fn make_volume(&self, name: &str, labels: Labels, anonymous: bool) -> Answer<Volume> {
        let volume = Volume { name: name.to_owned(), created: time::now(), labels, anonymous };
        fs::create_dir_all(self.volume_data(name)).map_err(|e| bad(format!("create {name}: {e}")))?;
        crate::write(&self.dir("volumes", name), &volume)?;
        lock(&self.volumes).insert(name.to_owned(), volume.clone());
        self.announce("volume", "create", name, json!({"driver": "local"}));
        Ok(volume)
    }

    /// The volume that a container asks for: the one of that name, or a new one; and whether it is new.
    pub(crate) fn volume_for(&self, name: &str, _container: &str) -> Answer<(Volume, bool)> {
        if name.is_empty() {
            let labels = Labels::from([(ANONYMOUS.to_owned(), String::new())]);
            return Ok((self.make_volume(&names::new_id(), labels, true)?, true));
        }
        if !names::is_valid(name) {
            return Err(invalid_name(name));
        }
        let known = lock(&self.volumes).get(name).cloned();
        match known {
            // An empty one is filled from the image, however old it is.
            Some(volume) => {
                let empty = fs::read_dir(self.volume_data(name)).is_ok_and(|mut entries| entries.next().is_none());
                Ok((volume, empty))
            }
            None => Ok((self.make_volume(name, Labels::new(), false)?, true)),
        }
    }

    /// Copies what an image has at a path into a new volume.
    pub(crate) async fn fill_volume(&self, name: &str, image: &Image, path: &str) -> anyhow::Result<()> {
        let lower = self.images.lower_dirs(image).await?;
        let (target, path) = (self.volume_data(name), path.to_owned());
        let scratch = self.config.data_dir.join("tmp");
        crate::blocking(move || archive::copy_up(&lower, &scratch, &path, &target)).await?
    }

    /// Removes the volumes of a container that has gone, if nobody named them and nobody else uses them.
    pub(crate) async fn remove_anonymous(&self, record: &Record) {
        for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
            let anonymous = lock(&self.volumes).get(&mount.name).is_some_and(|volume| volume.anonymous);
            if anonymous
                && self.volume_users(&mount.name).is_empty()
                && let Err(e) = self.drop_volume(&mount.name).await
            {
                tracing::warn!("remove volume {}: {}", mount.name, e.message);
            }
        }
    }

    /// Removes a volume that nobody uses; the bytes that the disk gets back.
    pub(crate) async fn drop_volume(&self, name: &str) -> Answer<u64> {
        let dir = self.dir("volumes", name);
        let freed = crate::blocking(move || {
            let freed = archive::disk_size(&dir.join("_data"));
            // First the file that remembers it: what is left after a crash is swept.
            fs::remove_file(dir.join(crate::FILE)).and_then(|()| fs::remove_dir_all(&dir)).map(|()| freed)
        });
        let freed = freed.await?.map_err(|e| crate::error::internal(format!("remove {name}: {e}")))?;
        lock(&self.volumes).remove(name);
        self.announce("volume", "destroy", name, json!({"driver": "local"}));
        Ok(freed)
    }

    pub(crate) fn describe_volume(&self, volume: &Volume) -> Value {
        json!({
            "CreatedAt": time::text(volume.created / 1_000_000_000 * 1_000_000_000).replace(".000000000", ""),
            "Driver": "local", "Labels": volume.labels, "Mountpoint": self.volume_data(&volume.name),
            "Name": volume.name, "Options": {}, "Scope": "local",
        })
    }

    pub(crate) fn volume_list(&self, call: &Call) -> Answer<Value> {
        let filters = Filters::read(call.text("filters"), &["dangling", "driver", "label", "name"])?;
        let dangling = filters.flag("dangling")?;
        let volumes: Vec<Volume> = lock(&self.volumes).values().cloned().collect();
        let chosen = volumes.iter().filter(|volume| {
            filters.any("name", |word| volume.name.contains(word))
                && filters.any("driver", |word| word == "local")
                && filters.labels(&volume.labels)
                && dangling.is_none_or(|dangling| dangling == self.volume_users(&volume.name).is_empty())
        });
        Ok(json!({"Volumes": chosen.map(|volume| self.describe_volume(volume)).collect::<Vec<_>>(), "Warnings": null}))
    }

    pub(crate) async fn volume_create(&self, mut call: Call) -> Answer<Response<Body>> {
        let request: VolumeRequest = call.json().await?;
        let _no_prune = self.pruning.read().await;
        let driver = request.driver.unwrap_or_default();
        let name = request.name.unwrap_or_default();
        if !matches!(driver.as_str(), "" | "local") {
            return Err(missing(format!(
                "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
            )));
        }
        if let Some(option) = request.driver_opts.unwrap_or_default().keys().next() {
            return Err(bad(format!(
                "create {name}: invalid option: {option:?}: volumes of knarr are plain directories"
            )));
        }
        let mut labels = request.labels.unwrap_or_default();
        let anonymous = name.is_empty();
        let name = if anonymous { names::new_id() } else { name };
        if !names::is_valid(&name) {
            return Err(invalid_name(&name));
        }
        if anonymous {
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        let known = lock(&self.volumes).get(&name).cloned();
        let volume = match known {
            Some(volume) => volume,
            None => self.make_volume(&name, labels, anonymous)?,
        };
        Ok(json_answer(StatusCode::CREATED, &self.describe_volume(&volume)))
    }

    pub(crate) fn volume_inspect(&self, name: &str) -> Answer<Value> {
        let volume = lock(&self.volumes).get(name).cloned();
        volume.map(|volume| self.describe_volume(&volume)).ok_or_else(|| missing(format!("get {name}: no such volume")))
    }

    pub(crate) async fn volume_remove(&self, call: &Call, name: &str) -> Answer<Response<Body>> {
        let _alone = self.pruning.write().await;
        if !lock(&self.volumes).contains_key(name) {
            if call.flag("force") {
                return Ok(empty_answer(NO_CONTENT));
            }
            return Err(missing(format!("get {name}: no such volume")));
        }
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        self.drop_volume(name).await?;
        Ok(empty_answer(NO_CONTENT))
    }
}

fn invalid_name(name: &str) -> crate::error::Refusal {
    bad(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    ))
}
