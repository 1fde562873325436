//! The prunes: what nobody uses goes, and the answer says what went and how many bytes the disk got back.
//!
//! While one runs, nothing is created that it could take away half made.

use serde_json::{Value, json};

use crate::error::Answer;
use crate::filters::Filters;
use crate::http::Call;
use crate::{DockerApi, archive, blocking, images, lock, time};

impl DockerApi {
    pub(crate) async fn prune_containers(&self, call: &Call) -> Answer<Value> {
        let filters = Filters::read(call.text("filters"), &["label", "label!", "until"])?;
        let until = filters.until(time::now())?;
        let _alone = self.pruning.write().await;
        let (mut deleted, mut freed) = (Vec::new(), 0);
        for record in self.records() {
            if record.is_running()
                || until.is_some_and(|until| record.created > until)
                || !filters.labels(&record.config.labels)
            {
                continue;
            }
            let Ok(container) = self.find(&record.id) else { continue };
            let dir = self.dir("containers", &record.id);
            let size = blocking(move || archive::disk_size(&dir)).await?;
            match self.remove(&container, false, false).await {
                Ok(()) => {
                    deleted.push(record.id);
                    freed += size;
                }
                // It was started meanwhile.
                Err(e) => tracing::info!("leave container {}: {}", record.name, e.message),
            }
        }
        Ok(json!({"ContainersDeleted": deleted, "SpaceReclaimed": freed}))
    }

    pub(crate) async fn prune_images(&self, call: &Call) -> Answer<Value> {
        let filters = Filters::read(call.text("filters"), &["dangling", "label", "label!", "until"])?;
        let only_dangling = filters.flag("dangling")?.unwrap_or(true);
        let until = filters.until(time::now())?;
        let _alone = self.pruning.write().await;
        let api = self.arc();
        blocking(move || {
            let (mut rows, mut freed) = (Vec::new(), 0);
            for image in api.images.list() {
                if (only_dangling && !image.tags.is_empty())
                    || until.is_some_and(|until| images::created_of(&image) > until)
                    || !filters.labels(&images::labels_of(&image))
                    || !api.containers_using(&image.id).is_empty()
                {
                    continue;
                }
                match api.delete_image(&image) {
                    Ok(deleted) => {
                        rows.extend(deleted.rows);
                        freed += deleted.freed;
                    }
                    // Somebody began to use it meanwhile.
                    Err(e) => tracing::info!("leave image {}: {}", image.id, e.message),
                }
            }
            Ok(json!({"ImagesDeleted": rows, "SpaceReclaimed": freed}))
        })
        .await?
    }

    pub(crate) async fn prune_volumes(&self, call: &Call) -> Answer<Value> {
        let filters = Filters::read(call.text("filters"), &["all", "label", "label!"])?;
        // Clients before 1.42 knew no other prune than that of all volumes.
        let all = filters.flag("all")?.unwrap_or(call.version < (1, 42));
        let _alone = self.pruning.write().await;
        let volumes: Vec<_> = lock(&self.volumes).values().cloned().collect();
        let (mut deleted, mut freed) = (Vec::new(), 0);
        for volume in volumes {
            if !(all || volume.anonymous)
                || !filters.labels(&volume.labels)
                || !self.volume_users(&volume.name).is_empty()
            {
                continue;
            }
            freed += self.drop_volume(&volume.name).await?;
            deleted.push(volume.name);
        }
        Ok(json!({"VolumesDeleted": deleted, "SpaceReclaimed": freed}))
    }

    pub(crate) async fn prune_networks(&self, call: &Call) -> Answer<Value> {
        let filters = Filters::read(call.text("filters"), &["label", "label!", "until"])?;
        let until = filters.until(time::now())?;
        let _alone = self.pruning.write().await;
        let networks: Vec<_> = lock(&self.networks).values().cloned().collect();
        let mut deleted = Vec::new();
        for network in networks {
            let unused = self.network_users(&network.name).is_empty();
            if unused && until.is_none_or(|until| network.created <= until) && filters.labels(&network.labels) {
                self.drop_network(&network)?;
                deleted.push(network.name);
            }
        }
        Ok(json!({"NetworksDeleted": deleted}))
    }
}
