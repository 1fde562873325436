//! The files of containers: `docker cp`, `docker diff`, and what a new volume gets from an image.
//!
//! Paths belong to the container and may lead anywhere by symbolic links, so they are only followed by a thread whose root
//! is that of the container. Mounts that this needs are made in a namespace of that thread and end with it.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;

use crate::error::{Answer, bad, missing};
use crate::http::{Body, Call, empty_answer, stream_answer};
use crate::model::Record;
use crate::{DockerApi, blocking, time};

/// Bits of Go's file modes for what is not a plain file.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_SYMLINK: u32 = 1 << 27;

/// Where the root of a container is.
#[derive(Clone)]
enum Root {
    /// It runs: the process whose root it is.
    Live(i32),
    /// It does not: its layers, topmost first, and where changes go.
    Still { lower: Vec<PathBuf>, writable: Option<PathBuf>, mountpoint: PathBuf },
}

/// Runs `work` on a thread of its own, whose root is that of the container.
fn inside<T: Send>(root: &Root, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let body = || -> Result<T> {
        let at = match root {
            Root::Live(pid) => {
                unshare(CloneFlags::CLONE_FS).context("leave the root of the others")?;
                PathBuf::from(format!("/proc/{pid}/root"))
            }
            Root::Still { lower, writable, mountpoint } => {
                unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).context("make a namespace for mounts")?;
                let none: Option<&str> = None;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keep mounts here")?;
                show(lower, writable.as_deref(), mountpoint)?
            }
        };
        nix::unistd::chroot(&at).context("enter the container's root")?;
        nix::unistd::chdir("/").context("enter the container's root")?;
        work()
    };
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(_) => Err(anyhow!("the thread for the container's files panicked")),
    })
}

/// Puts layers on each other; where the result shows.
fn show(lower: &[PathBuf], writable: Option<&Path>, mountpoint: &Path) -> Result<PathBuf> {
    if let (None, [only]) = (writable, lower) {
        return Ok(only.clone());
    }
    fs::create_dir_all(mountpoint).with_context(|| format!("make {}", mountpoint.display()))?;
    let names: Vec<String> = lower.iter().map(|dir| dir.display().to_string()).collect();
    let mut options = format!("lowerdir={}", names.join(":"));
    if let Some(writable) = writable {
        options += &format!(",upperdir={0}/upper,workdir={0}/work", writable.display());
    }
    mount(Some("overlay"), mountpoint, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("put the container's layers on each other")?;
    Ok(mountpoint.to_owned())
}

/// Copies what layers have at `path` into an empty directory, with owners and modes. Nothing there is nothing to copy.
pub(crate) fn copy_up(lower: &[PathBuf], scratch: &Path, path: &str, target: &Path) -> Result<()> {
    let view = tempfile::tempdir_in(scratch).context("make a directory for the image's files")?;
    let root = Root::Still { lower: lower.to_vec(), writable: None, mountpoint: view.path().to_owned() };
    let mut file = tempfile::tempfile_in(scratch).context("make a file for the image's files")?;
    let mut writer = file.try_clone().context("share the file")?;
    let found = inside(&root, || {
        let Ok(metadata) = fs::metadata(path) else { return Ok(false) };
        if !metadata.is_dir() {
            return Ok(false);
        }
        let mut tar = tar::Builder::new(&mut writer);
        tar.follow_symlinks(false);
        tar.append_dir_all(".", path).context("read the image's files")?;
        tar.finish().context("read the image's files")?;
        Ok(true)
    })?;
    if !found {
        return Ok(());
    }
    file.rewind().context("read the image's files")?;
    unpack(file, target)
}

/// Unpacks an archive into a directory, with owners and modes.
fn unpack(file: File, target: &Path) -> Result<()> {
    let mut archive = tar::Archive::new(file);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.unpack(target).with_context(|| format!("unpack into {}", target.display()))
}

/// Bytes on disk of the plain files below a directory.
pub(crate) fn disk_size(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        if found.is_dir() {
            bytes += disk_size(&entry.path());
        } else if found.is_file() {
            bytes += found.blocks() * 512 / found.nlink().max(1);
        }
    }
    bytes
}

/// What Docker tells of a path before it sends it.
fn path_stat(path: &Path) -> Result<Value> {
    let found = fs::symlink_metadata(path)?;
    let mut mode = found.mode() & 0o777;
    if found.is_dir() {
        mode |= GO_DIRECTORY;
    }
    if found.file_type().is_symlink() {
        mode |= GO_SYMLINK;
    }
    let target = fs::read_link(path).map(|target| target.display().to_string()).unwrap_or_default();
    let name = path.file_name().map_or_else(|| "/".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(json!({
        "name": name, "size": found.len(), "mode": mode, "linkTarget": target,
        "mtime": time::text(found.mtime() * 1_000_000_000 + found.mtime_nsec()),
    }))
}

/// What `docker diff` tells: path and 0 for changed, 1 for added, 2 for removed.
fn changes(upper: &Path, lower: &[PathBuf], below: &Path, found: &mut Vec<(String, u8)>) {
    for entry in fs::read_dir(upper.join(below)).into_iter().flatten().flatten() {
        let path = below.join(entry.file_name());
        let Ok(metadata) = entry.metadata() else { continue };
        let known = lower.iter().any(|layer| fs::symlink_metadata(layer.join(&path)).is_ok());
        let removed = metadata.file_type().is_char_device() && metadata.rdev() == 0;
        let kind = match (removed, known) {
            (true, _) => 2,
            (false, true) => 0,
            (false, false) => 1,
        };
        found.push((format!("/{}", path.display()), kind));
        if metadata.is_dir() {
            changes(upper, lower, &path, found);
        }
    }
}

impl DockerApi {
    async fn root_of(&self, record: &Record, path: &str) -> Answer<Root> {
        if let Some(pid) = self.engine.pid_of_single(&record.id).await {
            return Ok(Root::Live(pid));
        }
        if let Some(mount) = record.mounts.iter().find(|mount| Path::new(path).starts_with(&mount.destination)) {
            return Err(crate::error::unsupported(&format!(
                "copying below {} while the container does not run: its mounts are not there then, and that",
                mount.destination
            )));
        }
        let image = self
            .images
            .resolve(&record.image_id)
            .ok_or_else(|| missing(format!("No such image: {}", record.image_id)))?;
        let lower = self.images.lower_dirs(&image).await?;
        let dir = self.dir("containers", &record.id);
        for name in ["upper", "work", "rootfs"] {
            fs::create_dir_all(dir.join(name)).map_err(anyhow::Error::new)?;
        }
        Ok(Root::Still { lower, mountpoint: dir.join("rootfs"), writable: Some(dir) })
    }

    pub(crate) async fn container_changes(&self, id: &str) -> Answer<Value> {
        let record = self.find(id)?.record();
        let image = self
            .images
            .resolve(&record.image_id)
            .ok_or_else(|| missing(format!("No such image: {}", record.image_id)))?;
        let lower = self.images.lower_dirs(&image).await?;
        let upper = self.dir("containers", &record.id).join("upper");
        let mut found = blocking(move || {
            let mut found = Vec::new();
            changes(&upper, &lower, Path::new(""), &mut found);
            found
        })
        .await?;
        found.sort();
        // What the engine puts files over is not the container's doing.
        found.retain(|(path, _)| !matches!(path.as_str(), "/etc/hostname" | "/etc/hosts" | "/etc/resolv.conf"));
        Ok(found.into_iter().map(|(path, kind)| json!({"Path": path, "Kind": kind})).collect())
    }

    pub(crate) async fn container_archive(&self, mut call: Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        let record = container.record();
        let path = call.text("path").unwrap_or_default().to_owned();
        if path.is_empty() {
            return Err(bad("bad parameter: path cannot be empty"));
        }
        // Cleaned: no `.` and no slash at the end.
        let path: PathBuf = Path::new("/").join(&path).components().collect();
        // No start or removal meanwhile: two mounts of one writable layer would spoil it.
        let _one = container.changing.lock().await;
        let root = self.root_of(&record, &path.display().to_string()).await?;
        let missing_path =
            |path: &Path| missing(format!("Could not find the file {} in container {id}", path.display()));
        if call.method == Method::PUT {
            let mut upload = self.scratch()?;
            while let Some(frame) = call.body.frame().await {
                let frame = frame.map_err(|e| bad(format!("read the archive: {e}")))?;
                if let Some(data) = frame.data_ref() {
                    upload.write_all(data).map_err(anyhow::Error::new)?;
                }
            }
            let mut file = upload.reopen().map_err(anyhow::Error::new)?;
            let target = path.clone();
            let done = blocking(move || {
                inside(&root, || {
                    if !fs::metadata(&target).is_ok_and(|found| found.is_dir()) {
                        return Ok(false);
                    }
                    file.rewind()?;
                    unpack(file, &target).map(|()| true)
                })
            })
            .await??;
            return if done { Ok(empty_answer(StatusCode::OK)) } else { Err(missing_path(&path)) };
        }
        let head = call.method == Method::HEAD;
        let file = self.scratch()?;
        let mut writer = file.reopen().map_err(anyhow::Error::new)?;
        let source = path.clone();
        let stat = blocking(move || {
            inside(&root, || {
                let Ok(stat) = path_stat(&source) else { return Ok(None) };
                if head {
                    return Ok(Some(stat));
                }
                let name = source.file_name().map_or_else(|| PathBuf::from("."), PathBuf::from);
                let mut tar = tar::Builder::new(&mut writer);
                tar.follow_symlinks(false);
                let found = fs::symlink_metadata(&source)?;
                if found.is_dir() {
                    tar.append_dir_all(&name, &source)?;
                } else if found.is_file() || found.file_type().is_symlink() {
                    tar.append_path_with_name(&source, &name)?;
                } else {
                    bail!("copy {}: it is neither a file nor a directory", source.display());
                }
                tar.finish()?;
                Ok(Some(stat))
            })
        })
        .await??;
        let stat = stat.ok_or_else(|| missing_path(&path))?;
        let encoded = base64::engine::general_purpose::STANDARD.encode(stat.to_string());
        let mut response =
            if head { empty_answer(StatusCode::OK) } else { self.send_file(file, "application/x-tar").await? };
        let header = HeaderValue::from_str(&encoded).map_err(|e| bad(e.to_string()))?;
        response.headers_mut().insert("X-Docker-Container-Path-Stat", header);
        Ok(response)
    }

    /// Sends a file that goes when it is sent.
    pub(crate) async fn send_file(&self, file: tempfile::NamedTempFile, kind: &'static str) -> Answer<Response<Body>> {
        let mut reader = tokio::fs::File::open(file.path()).await.map_err(anyhow::Error::new)?;
        let (outbox, pieces) = mpsc::channel(4);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let send = async {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                    if outbox.send(Bytes::copy_from_slice(&buffer[..count])).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! { () = stop.cancelled() => {}, () = send => {} }
            drop(file);
        });
        Ok(stream_answer(kind, pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        fs::create_dir_all(upper.join("etc")).unwrap();
        fs::create_dir_all(lower.join("etc")).unwrap();
        fs::write(upper.join("etc/new"), "x").unwrap();
        fs::write(upper.join("etc/old"), "x").unwrap();
        fs::write(lower.join("etc/old"), "y").unwrap();
        let mut found = Vec::new();
        changes(&upper, &[lower], Path::new(""), &mut found);
        found.sort();
        assert_eq!(found, [("/etc".to_owned(), 0), ("/etc/new".to_owned(), 1), ("/etc/old".to_owned(), 0)]);
        assert!(disk_size(&upper) >= 2);
    }
}
