//! Images: the one store that pods use as well.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use image_store::{Auth, Image, Name, PullError, RemoveError};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::{Answer, Refusal, bad, conflict, internal, missing};
use crate::filters::Filters;
use crate::http::{Body, Call, empty_answer, stream_answer};
use crate::model::Labels;
use crate::{DockerApi, blocking, names, time};

/// What a removal has done, in Docker's words.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    /// `{"Untagged": …}` and `{"Deleted": …}`, in order.
    pub rows: Vec<Value>,
    /// Bytes that the disk gets back.
    pub freed: u64,
}

pub(crate) fn labels_of(image: &Image) -> Labels {
    let config = image.config.config().as_ref();
    config.and_then(|config| config.labels().clone()).unwrap_or_default().into_iter().collect()
}

/// When an image was built, in nanoseconds since 1970.
pub(crate) fn created_of(image: &Image) -> i64 {
    image.config.created().as_deref().map_or(0, time::read)
}

fn familiar_all(names: &[String]) -> Vec<String> {
    names.iter().map(|name| names::familiar(name)).collect()
}

impl DockerApi {
    pub(crate) fn image(&self, name: &str) -> Answer<Arc<Image>> {
        self.images.resolve(name).ok_or_else(|| missing(format!("No such image: {}", names::with_tag(name))))
    }

    /// Bytes on disk of an image, with what it shares.
    pub(crate) fn image_size(&self, id: &str) -> u64 {
        let image = self.images.resolve(id);
        image.map_or(0, |image| self.images.parts(&image).iter().map(|(_, bytes)| bytes).sum())
    }

    /// Every image as lists show it; with the bytes it shares and how many containers use it, pods' among them.
    pub(crate) fn image_summaries(&self, images: &[Arc<Image>]) -> Vec<Value> {
        let all = self.images.list();
        let mut users_of_part: BTreeMap<String, usize> = BTreeMap::new();
        for image in &all {
            // An image may have one layer twice.
            let parts: BTreeSet<String> = self.images.parts(image).into_iter().map(|(key, _)| key).collect();
            for key in parts {
                *users_of_part.entry(key).or_default() += 1;
            }
        }
        let summary = |image: &Arc<Image>| {
            let parts: BTreeMap<String, u64> = self.images.parts(image).into_iter().collect();
            let size: u64 = parts.values().sum();
            let shared: u64 =
                parts.iter().filter(|(key, _)| users_of_part.get(*key).is_some_and(|n| *n > 1)).map(|(_, b)| b).sum();
            json!({
                "Id": image.id, "ParentId": "", "RepoTags": familiar_all(&image.tags),
                "RepoDigests": familiar_all(&image.digests), "Created": created_of(image) / 1_000_000_000,
                "Size": size, "SharedSize": shared, "VirtualSize": size, "Labels": labels_of(image),
                "Containers": self.containers_using(&image.id).len(),
            })
        };
        images.iter().map(summary).collect()
    }

    /// Who uses an image: containers of Docker's by their id, those of pods by the engine's.
    pub(crate) fn containers_using(&self, id: &str) -> Vec<String> {
        let users = self.images.users(id).into_iter();
        // A container that runs holds its image twice, for itself and for the engine.
        users
            .map(|user| user.strip_prefix("docker ").map_or(user.clone(), str::to_owned))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    pub(crate) async fn image_list(&self, call: &Call) -> Answer<Value> {
        let known = ["before", "dangling", "label", "reference", "since", "until"];
        let filters = Filters::read(call.text("filters"), &known)?;
        let dangling = filters.flag("dangling")?;
        let until = filters.until(time::now())?;
        let moment = |name: &str| -> Answer<Option<i64>> {
            filters
                .get(name)
                .and_then(|all| all.first())
                .map(|word| self.image(word).map(|one| created_of(&one)))
                .transpose()
        };
        let (before, since) = (moment("before")?, moment("since")?);
        let old_filter = call.text("filter").filter(|word| !word.is_empty());
        let fits = |image: &Image, pattern: &str| {
            image.tags.iter().any(|full| {
                let name = names::familiar(full);
                let repository = name.rsplit_once(':').map_or(name.as_str(), |(repository, _)| repository);
                names::matches_pattern(pattern, &name) || names::matches_pattern(pattern, repository)
            })
        };
        let mut images: Vec<Arc<Image>> = self.images.list();
        images.retain(|image| {
            dangling.is_none_or(|dangling| dangling == image.tags.is_empty())
                && filters.labels(&labels_of(image))
                && filters.any("reference", |pattern| fits(image, pattern))
                && old_filter.is_none_or(|pattern| fits(image, pattern))
                && until.is_none_or(|until| created_of(image) <= until)
                && before.is_none_or(|moment| created_of(image) < moment)
                && since.is_none_or(|moment| created_of(image) > moment)
        });
        images.sort_by_key(|image| std::cmp::Reverse(created_of(image)));
        let api = self.arc();
        Ok(Value::Array(blocking(move || api.image_summaries(&images)).await?))
    }

    pub(crate) async fn image_inspect(&self, name: &str) -> Answer<Value> {
        let image = self.image(name)?;
        let raw: Value = serde_json::from_slice(&image.raw_config)?;
        let (api, id) = (self.arc(), image.id.clone());
        let size = blocking(move || api.image_size(&id)).await?;
        Ok(json!({
            "Id": image.id, "RepoTags": familiar_all(&image.tags), "RepoDigests": familiar_all(&image.digests),
            "Parent": "", "Comment": "", "Created": raw["created"], "Author": raw["author"].as_str().unwrap_or_default(),
            "Config": raw["config"], "Architecture": raw["architecture"], "Os": raw["os"], "Size": size,
            "GraphDriver": {"Name": "overlay2", "Data": {}}, "DockerVersion": "",
            "RootFS": {"Type": "layers", "Layers": image.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>()},
            "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        }))
    }

    pub(crate) fn image_history(&self, name: &str) -> Answer<Value> {
        let image = self.image(name)?;
        let raw: Value = serde_json::from_slice(&image.raw_config)?;
        let mut layers = image.layers.iter();
        let mut rows = Vec::new();
        for step in raw["history"].as_array().cloned().unwrap_or_default() {
            let size = if step["empty_layer"] == true { 0 } else { layers.next().map_or(0, |layer| layer.size) };
            rows.push(json!({
                "Id": "<missing>", "Created": time::read(step["created"].as_str().unwrap_or_default()) / 1_000_000_000,
                "CreatedBy": step["created_by"].as_str().unwrap_or_default(), "Tags": null, "Size": size,
                "Comment": step["comment"].as_str().unwrap_or_default(),
            }));
        }
        // Layers that the history does not tell of.
        for layer in layers {
            rows.push(json!({"Id": "<missing>", "Created": created_of(&image) / 1_000_000_000, "CreatedBy": "",
                             "Tags": null, "Size": layer.size, "Comment": ""}));
        }
        rows.reverse();
        if let Some(first) = rows.first_mut() {
            first["Id"] = json!(image.id);
            first["Tags"] = json!(familiar_all(&image.tags));
        }
        Ok(Value::Array(rows))
    }

    pub(crate) fn image_tag(&self, call: &Call, name: &str) -> Answer<Response<Body>> {
        let image = self.image(name)?;
        let repository = call.text("repo").unwrap_or_default();
        let tag = call.text("tag").filter(|tag| !tag.is_empty()).unwrap_or("latest");
        let reference = format!("{repository}:{tag}");
        Name::parse(&reference).map_err(|_| bad("invalid reference format"))?;
        self.images.tag(&image.id, &reference)?;
        self.announce("image", "tag", &image.id, json!({"name": reference}));
        Ok(empty_answer(StatusCode::CREATED))
    }

    pub(crate) async fn image_load(&self, mut call: Call) -> Answer<Response<Body>> {
        let mut upload = self.scratch()?;
        while let Some(frame) = call.body.frame().await {
            let frame = frame.map_err(|e| bad(format!("read the archive: {e}")))?;
            if let Some(data) = frame.data_ref() {
                upload.write_all(data).map_err(|e| internal(format!("write the archive: {e}")))?;
            }
        }
        let images = self.images.clone();
        // Loading what is not an archive is the caller's mistake.
        let loaded = blocking(move || images.import_named(upload.path())).await?.map_err(|e| {
            // The cause may quote bytes of what is not an archive.
            let cause = format!("{e:#}");
            bad(format!("load images: {}", cause.lines().next().unwrap_or("it is no archive")))
        })?;
        let mut text = String::new();
        for (image, references) in &loaded {
            let said = if references.is_empty() {
                format!("Loaded image ID: {}\n", image.id)
            } else {
                references.iter().map(|name| format!("Loaded image: {}\n", names::familiar(name))).collect()
            };
            text += &format!("{}\n", json!({"stream": said}));
            self.announce("image", "load", &image.id, json!({"name": image.id}));
        }
        let mut response = Response::new(crate::http::full(text));
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        Ok(response)
    }

    pub(crate) async fn image_save(&self, call: &Call, names: Vec<String>) -> Answer<Response<Body>> {
        let mut references = Vec::new();
        for name in names.into_iter().chain(call.text("names").map(str::to_owned)).filter(|name| !name.is_empty()) {
            self.image(&name)?;
            references.push(name);
        }
        let file = self.scratch()?;
        let (images, path) = (self.images.clone(), file.path().to_owned());
        blocking(move || images.export_docker_archive(&references, &path)).await??;
        self.send_file(file, "application/x-tar").await
    }

    pub(crate) async fn image_pull(&self, call: &Call) -> Answer<Response<Body>> {
        let name = call.text("fromImage").unwrap_or_default();
        if name.is_empty() {
            return Err(crate::error::unsupported("importing a plain file system as an image"));
        }
        let reference = match call.text("tag").filter(|tag| !tag.is_empty()) {
            Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
            Some(tag) => format!("{name}:{tag}"),
            None => name.to_owned(),
        };
        let parsed = Name::parse(&reference).map_err(|_| bad("invalid reference format"))?;
        let shown = names::familiar(&parsed.full());
        let before = self.images.resolve(&reference).map(|image| image.id.clone());
        let auth = call.headers.get("X-Registry-Auth").and_then(|value| value.to_str().ok()).and_then(credentials);
        let pulled = self.images.pull(&reference, auth).await.map_err(|e| match e {
            PullError::NotFound { .. } => missing(format!("manifest for {shown} not found: manifest unknown")),
            PullError::Unauthorized { cause, .. } => Refusal {
                status: StatusCode::NOT_FOUND,
                message: format!(
                    "pull access denied for {shown}, repository does not exist or may require 'docker login': {cause}"
                ),
            },
            other => internal(format!("pull {shown}: {other}")),
        })?;
        let repository = parsed.repository();
        let digest = pulled.digests.iter().find_map(|full| full.strip_prefix(&format!("{repository}@")));
        let fresh = before.as_deref() != Some(pulled.id.as_str());
        let state = if fresh { "Downloaded newer image for" } else { "Image is up to date for" };
        let (outbox, pieces) = mpsc::channel(4);
        let mut rows = vec![json!({
            "status": format!("Pulling from {}", names::familiar(&repository).trim_start_matches("docker.io/")),
            "id": parsed.full().rsplit_once(':').map_or("latest", |(_, tag)| tag),
        })];
        rows.extend(digest.map(|digest| json!({"status": format!("Digest: {digest}")})));
        rows.push(json!({"status": format!("Status: {state} {shown}")}));
        self.announce("image", "pull", &pulled.id, json!({"name": shown}));
        self.tasks.spawn(async move {
            for row in rows {
                if outbox.send(Bytes::from(row.to_string() + "\r\n")).await.is_err() {
                    return;
                }
            }
        });
        Ok(stream_answer("application/json", pieces))
    }

    pub(crate) async fn image_remove(&self, call: &Call, name: &str) -> Answer<Value> {
        let _alone = self.pruning.write().await;
        let (api, name, force) = (self.arc(), name.to_owned(), call.flag("force"));
        let deleted = blocking(move || api.remove_image(&name, force)).await??;
        Ok(Value::Array(deleted.rows))
    }

    /// Whether a container of Docker's runs; all others that use an image belong to pods, and count as running.
    fn may_be_forced(&self, user: &str) -> bool {
        self.find(user).is_ok_and(|container| !container.record().is_running())
    }

    /// Takes a name away from an image, and the image with its last name; or the image by its id.
    pub(crate) fn remove_image(&self, name: &str, force: bool) -> Answer<Deleted> {
        let image = self.image(name)?;
        let short = names::short(&image.id);
        let users = self.containers_using(&image.id);
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let by_id = image.id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(hex) && hex.len() >= 4);
        let running = users.iter().find(|user| !self.may_be_forced(user));
        let refuse = |user: &String, what: &str, force: &str| {
            conflict(format!(
                "conflict: unable to delete {short} ({force}) - image is being used by {what} container {}",
                names::short(user)
            ))
        };
        if !by_id {
            let full = Name::parse(name).map_err(|_| bad("invalid reference format"))?.full();
            let others = image.tags.iter().filter(|tag| **tag != full).count();
            let last = others == 0;
            let untagged = json!({"Untagged": names::familiar(&full)});
            if !last {
                self.images.forget_name(&full).map_err(removal)?;
                return Ok(Deleted { rows: vec![untagged], freed: 0 });
            }
            if let Some(user) = users.first() {
                // What a pod uses keeps its name as well: the pod asks for it again when it starts anew.
                if !force || running.is_some() {
                    let user = running.unwrap_or(user);
                    let force = if running.is_some() { "cannot be forced" } else { "must force" };
                    return Err(conflict(format!(
                        "conflict: unable to remove repository reference \"{name}\" ({force}) - container {} is using its referenced image {short}",
                        names::short(user)
                    )));
                }
                self.images.forget_name(&full).map_err(removal)?;
                return Ok(Deleted { rows: vec![untagged], freed: 0 });
            }
            return self.delete_image(&image);
        }
        if let Some(user) = running {
            return Err(refuse(user, "running", "cannot be forced"));
        }
        let repositories: BTreeSet<String> =
            image.tags.iter().filter_map(|tag| Name::parse(tag).ok()).map(|name| name.repository()).collect();
        if repositories.len() > 1 && !force {
            return Err(conflict(format!(
                "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
            )));
        }
        if let Some(user) = users.first() {
            if !force {
                return Err(refuse(user, "stopped", "must be forced"));
            }
            // Its names go; the files stay as long as the container may start again.
            let mut rows = Vec::new();
            for full in image.tags.iter().chain(&image.digests) {
                self.images.forget_name(full).map_err(removal)?;
                rows.push(json!({"Untagged": names::familiar(full)}));
            }
            return Ok(Deleted { rows, freed: 0 });
        }
        self.delete_image(&image)
    }

    /// Removes an image with all its names.
    pub(crate) fn delete_image(&self, image: &Image) -> Answer<Deleted> {
        let removed = self.images.remove(&image.id).map_err(removal)?;
        let mut rows: Vec<Value> = removed.untagged.iter().map(|n| json!({"Untagged": names::familiar(n)})).collect();
        rows.push(json!({"Deleted": image.id}));
        self.announce("image", "delete", &image.id, json!({"name": image.id}));
        Ok(Deleted { rows, freed: removed.freed })
    }
}

fn removal(error: RemoveError) -> Refusal {
    match error {
        RemoveError::NotFound(name) => missing(format!("No such image: {name}")),
        RemoveError::InUse { image, user } => conflict(format!(
            "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
            names::short(&image),
            names::short(&user)
        )),
        RemoveError::Other(e) => e.into(),
    }
}

/// Credentials as clients send them: JSON in base64 for URLs.
fn credentials(header: &str) -> Option<Auth> {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    let bytes = URL_SAFE
        .decode(header)
        .or_else(|_| URL_SAFE_NO_PAD.decode(header))
        .or_else(|_| STANDARD.decode(header))
        .ok()?;
    let said: Value = serde_json::from_slice(&bytes).ok()?;
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    if !text("registrytoken").is_empty() {
        return Some(Auth::Bearer(text("registrytoken")));
    }
    (!text("username").is_empty()).then(|| Auth::Basic { username: text("username"), password: text("password") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_base64() {
        let header = base64::engine::general_purpose::URL_SAFE.encode(r#"{"username":"u","password":"p"}"#);
        assert!(matches!(credentials(&header), Some(Auth::Basic { username, .. }) if username == "u"));
        assert!(credentials("e30=").is_none() && credentials("%").is_none());
    }
}
