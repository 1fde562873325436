//! The ImageService of CRI: its words on those of `image-store`.

use std::{collections::HashMap, pin::Pin};

use base64::Engine as _;
use cri::v1::{self, image_service_server::ImageService};
use futures::{Stream, StreamExt as _, stream};
use image_store::{Auth, Image, PullError, RemoveError};
use tonic::{Request, Response, Status};

use crate::{Engine, blocking, now, status};

fn image(image: &Image) -> v1::Image {
    let user = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let name = user.split(':').next().unwrap_or_default();
    let uid = name.parse().ok().map(|value| v1::Int64Value { value });
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size.max(1),
        username: if uid.is_some() { String::new() } else { name.to_owned() },
        uid,
        spec: None,
        pinned: false,
    }
}

/// Credentials as the kubelet passes them: a user, a token, or both in one base64 text.
fn auth(auth: v1::AuthConfig) -> Result<Option<Auth>, Status> {
    if !auth.registry_token.is_empty() {
        return Ok(Some(Auth::Bearer(auth.registry_token)));
    }
    if !auth.username.is_empty() {
        return Ok(Some(Auth::Basic { username: auth.username, password: auth.password }));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let invalid = || Status::invalid_argument("the registry credentials are not base64 of user:password");
    let text = base64::engine::general_purpose::STANDARD.decode(auth.auth).map_err(|_| invalid())?;
    let text = String::from_utf8(text).map_err(|_| invalid())?;
    let (username, password) = text.split_once(':').ok_or_else(invalid)?;
    Ok(Some(Auth::Basic { username: username.into(), password: password.trim_end_matches('\0').into() }))
}

impl Engine {
    fn images_that(&self, filter: Option<v1::ImageFilter>) -> Vec<v1::Image> {
        let name = filter.and_then(|filter| filter.image).map(|image| image.image).unwrap_or_default();
        if name.is_empty() {
            return self.images.list().iter().map(|one| image(one)).collect();
        }
        self.images.resolve(&name).iter().map(|one| image(one)).collect()
    }
}

#[tonic::async_trait]
impl ImageService for Engine {
    async fn list_images(
        &self,
        request: Request<v1::ListImagesRequest>,
    ) -> Result<Response<v1::ListImagesResponse>, Status> {
        Ok(Response::new(v1::ListImagesResponse { images: self.images_that(request.into_inner().filter) }))
    }

    type StreamImagesStream = Pin<Box<dyn Stream<Item = Result<v1::StreamImagesResponse, Status>> + Send>>;

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let images = self.images_that(request.into_inner().filter);
        let one_each = images.into_iter().map(|image| Ok(v1::StreamImagesResponse { images: vec![image] }));
        Ok(Response::new(stream::iter(one_each).boxed()))
    }

    async fn image_status(
        &self,
        request: Request<v1::ImageStatusRequest>,
    ) -> Result<Response<v1::ImageStatusResponse>, Status> {
        let request = request.into_inner();
        let found = self.images.resolve(&request.image.unwrap_or_default().image);
        let mut info = HashMap::new();
        if let Some(found) = found.as_ref().filter(|_| request.verbose) {
            info.insert("imageSpec".into(), String::from_utf8_lossy(&found.raw_config).into_owned());
        }
        Ok(Response::new(v1::ImageStatusResponse { image: found.map(|found| image(&found)), info }))
    }

    async fn pull_image(
        &self,
        request: Request<v1::PullImageRequest>,
    ) -> Result<Response<v1::PullImageResponse>, Status> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        let auth = auth(request.auth.unwrap_or_default())?;
        let pulled = self.images.pull(&name, auth).await.map_err(|e| {
            let message = format!("pull image {name}: {e}");
            match e {
                PullError::Unreachable { .. } => Status::unavailable(message),
                PullError::NotFound { .. } => Status::not_found(message),
                PullError::Unauthorized { .. } => Status::permission_denied(message),
                PullError::Other(_) => Status::unknown(message),
            }
        })?;
        Ok(Response::new(v1::PullImageResponse { image_ref: pulled.id.clone() }))
    }

    async fn remove_image(
        &self,
        request: Request<v1::RemoveImageRequest>,
    ) -> Result<Response<v1::RemoveImageResponse>, Status> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let images = self.images.clone();
        let removed = blocking(move || Ok(images.remove(&name))).await.map_err(status)?;
        match removed {
            Ok(_) | Err(RemoveError::NotFound(_)) => Ok(Response::new(v1::RemoveImageResponse {})),
            Err(e @ RemoveError::InUse { .. }) => Err(Status::failed_precondition(e.to_string())),
            Err(e) => Err(Status::unknown(format!("remove image: {e}"))),
        }
    }

    async fn image_fs_info(
        &self,
        _: Request<v1::ImageFsInfoRequest>,
    ) -> Result<Response<v1::ImageFsInfoResponse>, Status> {
        let images = self.images.clone();
        let used = blocking(move || Ok(images.size())).await.map_err(status)?;
        let usage = v1::FilesystemUsage {
            timestamp: now(),
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: self.config.data_dir.to_string_lossy().into_owned() }),
            used_bytes: Some(v1::UInt64Value { value: used }),
            inodes_used: None,
        };
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![usage.clone()],
            container_filesystems: vec![usage],
        }))
    }
}
