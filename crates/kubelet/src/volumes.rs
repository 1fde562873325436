//! The files of a pod: volumes, `/etc/hosts`, termination messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use cri::v1;
use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Pod, Volume, VolumeMount};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use object_model::Quantity;

use crate::env::{Facts, Source, Sources, expand, field_value, resource_value};
use crate::view::container as find_container;

/// One file of a volume made from data: path inside the volume, content, mode.
type Payload = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// Tokens for a pod's service account, by audience and life in seconds.
pub type Tokens = BTreeMap<(String, i64), String>;

/// The directory of a pod and what is in it.
#[derive(Debug, Clone)]
pub struct PodDirectory {
    root: PathBuf,
}

impl PodDirectory {
    /// The directory of the pod with this uid under the kubelet's data directory.
    pub fn new(data: &Path, uid: &str) -> PodDirectory {
        PodDirectory { root: data.join("pods").join(uid) }
    }

    /// Where a volume is.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.root.join("volumes").join(name)
    }

    /// The pod's `/etc/hosts`.
    pub fn hosts(&self) -> PathBuf {
        self.root.join("etc-hosts")
    }

    /// The termination message of one container.
    pub fn message(&self, container: &str, attempt: u32) -> PathBuf {
        self.root.join("containers").join(container).join(format!("{attempt}.message"))
    }

    /// Unmounts and removes everything. What a pod mounted from the host is not touched: only mounts below the directory
    /// are undone, and they are undone before anything is removed.
    pub fn remove(&self) -> anyhow::Result<()> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
        let mut below: Vec<PathBuf> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .map(|path| PathBuf::from(path.replace("\\040", " ")))
            .filter(|path| path.starts_with(&self.root))
            .collect();
        below.sort();
        for path in below.iter().rev() {
            umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", path.display()))?;
        }
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The ConfigMaps and Secrets that a pod's volumes need.
pub fn sources_of(pod: &Pod) -> BTreeSet<Source> {
    let mut found = BTreeSet::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        found.extend(volume.config_map.as_ref().map(|source| Source::ConfigMap(source.name.clone())));
        found.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()).map(Source::Secret));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            found.extend(source.config_map.as_ref().map(|source| Source::ConfigMap(source.name.clone())));
            found.extend(source.secret.as_ref().map(|source| Source::Secret(source.name.clone())));
        }
    }
    found
}

/// The service account tokens that a pod's volumes need: audience and life in seconds.
pub fn tokens_of(pod: &Pod) -> BTreeSet<(String, i64)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let sources =
        volumes.flat_map(|volume| volume.projected.iter()).flat_map(|projected| projected.sources.iter().flatten());
    sources
        .filter_map(|source| source.service_account_token.as_ref())
        .map(|token| (token.audience.clone().unwrap_or_default(), token.expiration_seconds.unwrap_or(3600)))
        .collect()
}

/// Makes the pod's directories and fills its volumes. Can be done again.
pub fn prepare(
    directory: &PodDirectory,
    pod: &Pod,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
) -> anyhow::Result<()> {
    fs::create_dir_all(directory.root.join("volumes")).context("make the pod's directory")?;
    fs::set_permissions(&directory.root, fs::Permissions::from_mode(0o750)).context("make the pod's directory")?;
    fill(directory, pod, sources, tokens, facts, |_| true)
}

/// Fills those volumes of a pod that are chosen.
fn fill(
    directory: &PodDirectory,
    pod: &Pod,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
    chosen: fn(&Volume) -> bool,
) -> anyhow::Result<()> {
    let spec = pod.spec.clone().unwrap_or_default();
    let group = spec.security_context.as_ref().and_then(|security| security.fs_group);
    let group = group.map(u32::try_from).transpose().context("read fsGroup")?;
    for volume in spec.volumes.iter().flatten().filter(|volume| chosen(volume)) {
        one(directory, pod, volume, sources, tokens, facts, group)
            .with_context(|| format!("MountVolume.SetUp failed for volume {:?}", volume.name))?;
    }
    Ok(())
}

/// Whether a volume is made from what can change while the pod runs.
fn is_made_from_data(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// Whether any volume of a pod can change while it runs.
pub fn changes(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(is_made_from_data)
}

/// Brings the files of a running pod up to date. What has not changed is not touched.
pub fn refresh(
    directory: &PodDirectory,
    pod: &Pod,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
) -> anyhow::Result<()> {
    fill(directory, pod, sources, tokens, facts, is_made_from_data)
}

fn one(
    directory: &PodDirectory,
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
    tokens: &Tokens,
    facts: &Facts,
    group: Option<u32>,
) -> anyhow::Result<()> {
    if volume.persistent_volume_claim.is_some() {
        // Mounted by those who keep volumes that outlive pods.
        return Ok(());
    }
    let path = directory.volume(&volume.name);
    if let Some(source) = &volume.host_path {
        return host_path(Path::new(&source.path), source.type_.as_deref().unwrap_or_default());
    }
    if let Some(source) = &volume.empty_dir {
        if !path.exists() {
            fs::create_dir_all(&path)?;
            if source.medium.as_deref() == Some("Memory") {
                let size = source.size_limit.as_ref().and_then(|size| size.0.parse::<Quantity>().ok());
                let options =
                    size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={}", size.value()));
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
                mount(Some("tmpfs"), &path, Some("tmpfs"), flags, Some(options.as_str())).context("mount tmpfs")?;
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
            if group.is_some() {
                chown(&path, None, group)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o2777))?;
            }
        }
        return Ok(());
    }
    let data = |source: Source, items: Option<&[KeyToPath]>, optional: Option<bool>, mode: u32, files: &mut Payload| {
        let optional = optional.unwrap_or(false);
        let Some(Some(content)) = sources.get(&source) else {
            if optional {
                return Ok(());
            }
            bail!("{source} not found");
        };
        match items.filter(|items| !items.is_empty()) {
            None => files.extend(content.iter().map(|(key, value)| (PathBuf::from(key), (value.clone(), mode)))),
            Some(items) => {
                for item in items {
                    let Some(value) = content.get(&item.key) else {
                        if optional {
                            continue;
                        }
                        bail!("{source} references non-existent config key: {}", item.key);
                    };
                    let mode = item.mode.map_or(mode, i32::unsigned_abs);
                    files.insert(inside(&item.path)?, (value.clone(), mode));
                }
            }
        }
        Ok(())
    };
    let downward = |items: Option<&[DownwardAPIVolumeFile]>, mode: u32, files: &mut Payload| -> anyhow::Result<()> {
        for item in items.unwrap_or_default() {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => field_value(pod, field, facts),
                (None, Some(field)) => {
                    let name = field.container_name.as_deref().unwrap_or_default();
                    match find_container(pod, name) {
                        Some(container) => resource_value(pod, container, field, facts),
                        None => Err(format!("container {name} not found")),
                    }
                }
                (None, None) => Err("a file without a source".to_owned()),
            };
            let value = value.map_err(anyhow::Error::msg)?;
            files.insert(inside(&item.path)?, (value.into_bytes(), item.mode.map_or(mode, i32::unsigned_abs)));
        }
        Ok(())
    };
    let mode = |mode: Option<i32>| mode.map_or(0o644, i32::unsigned_abs);
    let mut files = Payload::new();
    if let Some(source) = &volume.config_map {
        data(
            Source::ConfigMap(source.name.clone()),
            source.items.as_deref(),
            source.optional,
            mode(source.default_mode),
            &mut files,
        )?;
    } else if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        data(Source::Secret(name), source.items.as_deref(), source.optional, mode(source.default_mode), &mut files)?;
    } else if let Some(source) = &volume.downward_api {
        downward(source.items.as_deref(), mode(source.default_mode), &mut files)?;
    } else if let Some(projected) = &volume.projected {
        let mode = mode(projected.default_mode);
        for source in projected.sources.iter().flatten() {
            if let Some(part) = &source.config_map {
                data(Source::ConfigMap(part.name.clone()), part.items.as_deref(), part.optional, mode, &mut files)?;
            } else if let Some(part) = &source.secret {
                data(Source::Secret(part.name.clone()), part.items.as_deref(), part.optional, mode, &mut files)?;
            } else if let Some(part) = &source.downward_api {
                downward(part.items.as_deref(), mode, &mut files)?;
            } else if let Some(part) = &source.service_account_token {
                let key = (part.audience.clone().unwrap_or_default(), part.expiration_seconds.unwrap_or(3600));
                let token = tokens.get(&key).context("no token was issued")?;
                files.insert(inside(&part.path)?, (token.clone().into_bytes(), mode));
            } else {
                bail!("this kind of projection is not supported");
            }
        }
    } else {
        let value = serde_json::to_value(volume)?;
        let kind = value.as_object().and_then(|fields| fields.keys().find(|key| *key != "name").cloned());
        // A volume without a source is an emptyDir.
        let Some(kind) = kind else {
            return Ok(fs::create_dir_all(&path)?);
        };
        bail!("volumes of type {kind} are not supported");
    }
    write_payload(&path, &files, group)
}

/// A relative path that stays where it is.
fn inside(path: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(path);
    if path.as_os_str().is_empty() || !path.components().all(|component| matches!(component, Component::Normal(_))) {
        bail!("the path {:?} leads out of the volume", path.display());
    }
    Ok(path.to_owned())
}

/// The mode of a file: a pod's group may read what is its own.
fn file_mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o040 } else { mode }
}

/// Whether a directory holds just these files.
fn holds(directory: &Path, files: &Payload, group: Option<u32>) -> bool {
    let is_there = |(name, (content, mode)): (&PathBuf, &(Vec<u8>, u32))| {
        let path = directory.join(name);
        let same_mode =
            fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 == file_mode(*mode, group));
        same_mode && fs::read(&path).is_ok_and(|there| there == *content)
    };
    files_below(directory).is_ok_and(|count| count == files.len()) && files.iter().all(is_there)
}

fn files_below(directory: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { files_below(&entry.path())? } else { 1 };
    }
    Ok(count)
}

/// Puts the files in place all at once: they live in a directory of their own behind the link `..data`, which is replaced.
fn write_payload(path: &Path, files: &Payload, group: Option<u32>) -> anyhow::Result<()> {
    fs::create_dir_all(path)?;
    let old = fs::read_link(path.join("..data")).ok();
    if old.as_deref().is_some_and(|old| holds(&path.join(old), files, group)) {
        return Ok(());
    }
    let number = old
        .as_deref()
        .and_then(Path::to_str)
        .and_then(|name| name.strip_prefix("..v"))
        .and_then(|n| n.parse::<u64>().ok());
    let name = format!("..v{}", number.map_or(0, |number| number + 1));
    let fresh = path.join(&name);
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir(&fresh)?;
    for (file, (content, mode)) in files {
        let target = fresh.join(file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = fs::File::create(&target)?;
        out.write_all(content)?;
        out.set_permissions(fs::Permissions::from_mode(file_mode(*mode, group)))?;
        chown(&target, None, group)?;
    }
    let link = path.join("..data_tmp");
    if fs::symlink_metadata(&link).is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&name, &link)?;
    fs::rename(&link, path.join("..data"))?;
    let tops: BTreeSet<&std::ffi::OsStr> = files.keys().filter_map(|file| file.iter().next()).collect();
    for top in &tops {
        let link = path.join(top);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(top), &link)?;
        }
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let stale = !file_name.to_string_lossy().starts_with("..") && !tops.contains(file_name.as_os_str());
        if stale {
            fs::remove_file(entry.path())?;
        }
    }
    match old {
        Some(old) if old != Path::new(&name) => Ok(fs::remove_dir_all(path.join(old))?),
        _ => Ok(()),
    }
}

/// Checks, or makes, what a path of the host is to be.
pub(crate) fn host_path(path: &Path, kind: &str) -> anyhow::Result<()> {
    let found = fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let is = |check: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(check);
    let fits = match kind {
        "" => {
            if found.is_none() {
                fs::create_dir_all(path)?;
            }
            true
        }
        "DirectoryOrCreate" => {
            if found.is_none() {
                fs::create_dir_all(path)?;
            }
            found.is_none() || is(fs::FileType::is_dir)
        }
        "FileOrCreate" => {
            if found.is_none() {
                fs::File::create(path)?;
            }
            found.is_none() || is(fs::FileType::is_file)
        }
        "Directory" => is(fs::FileType::is_dir),
        "File" => is(fs::FileType::is_file),
        "Socket" => is(FileTypeExt::is_socket),
        "CharDevice" => is(FileTypeExt::is_char_device),
        "BlockDevice" => is(FileTypeExt::is_block_device),
        other => bail!("hostPath type {other:?} is not known"),
    };
    if !fits {
        bail!("hostPath type check failed: {} is not a {kind}", path.display());
    }
    Ok(())
}

/// The mounts of a container: its volumes, `/etc/hosts` and the place for its termination message.
pub fn mounts(
    directory: &PodDirectory,
    pod: &Pod,
    container: &Container,
    attempt: u32,
    env: &[(String, String)],
) -> anyhow::Result<Vec<v1::Mount>> {
    let spec = pod.spec.clone().unwrap_or_default();
    let mut mounts = Vec::new();
    for (number, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(volume) = spec.volumes.iter().flatten().find(|volume| volume.name == wanted.name) else {
            bail!("volume {:?} of mount {} is not defined", wanted.name, wanted.mount_path);
        };
        let base = match &volume.host_path {
            Some(source) => PathBuf::from(&source.path),
            None => directory.volume(&volume.name),
        };
        let data = volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some();
        let host = match sub_path(wanted, env) {
            None => base,
            Some(sub) => {
                let place =
                    directory.root.join("subpaths").join(&wanted.name).join(&container.name).join(number.to_string());
                bind_sub_path(&base, &inside(&sub)?, &place)
                    .with_context(|| format!("prepare subPath {sub:?} of volume {:?}", wanted.name))?;
                place
            }
        };
        mounts.push(v1::Mount {
            container_path: wanted.mount_path.clone(),
            host_path: host.display().to_string(),
            readonly: wanted.read_only == Some(true) || data,
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => v1::MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => v1::MountPropagation::PropagationBidirectional,
                _ => v1::MountPropagation::PropagationPrivate,
            } as i32,
            ..v1::Mount::default()
        });
    }
    let mut file = |path: PathBuf, target: &str| {
        if !mounts.iter().any(|mount| mount.container_path == target) {
            let host_path = path.display().to_string();
            mounts.push(v1::Mount { container_path: target.to_owned(), host_path, ..v1::Mount::default() });
        }
    };
    if spec.host_network != Some(true) {
        file(directory.hosts(), "/etc/hosts");
    }
    let message = directory.message(&container.name, attempt);
    if let Some(parent) = message.parent() {
        fs::create_dir_all(parent).context("make the place for the termination message")?;
    }
    fs::write(&message, "").context("make the place for the termination message")?;
    fs::set_permissions(&message, fs::Permissions::from_mode(0o666))?;
    file(message, container.termination_message_path.as_deref().unwrap_or("/dev/termination-log"));
    Ok(mounts)
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Option<String> {
    let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let path = match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(path), _) if !path.is_empty() => path.clone(),
        (_, Some(path)) => expand(path, lookup),
        _ => return None,
    };
    (!path.is_empty()).then_some(path)
}

/// Binds a path inside a volume to `place`. What is bound is what was opened: a container that swaps the path for a link
/// meanwhile cannot make it lead out of the volume.
fn bind_sub_path(base: &Path, sub: &Path, place: &Path) -> anyhow::Result<()> {
    let root = fs::File::open(base)?;
    let open = |path: &Path| {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&root, path, how)
    };
    let mut walked = PathBuf::new();
    let mut parent = None;
    for component in sub.components() {
        walked.push(component);
        let found = match open(&walked) {
            Err(nix::errno::Errno::ENOENT) => {
                let name = Path::new(component.as_os_str());
                let mode = nix::sys::stat::Mode::from_bits_truncate(0o750);
                match &parent {
                    Some(parent) => nix::sys::stat::mkdirat(parent, name, mode)?,
                    None => nix::sys::stat::mkdirat(&root, name, mode)?,
                }
                open(&walked)
            }
            found => found,
        };
        parent = Some(found.with_context(|| format!("open {}", walked.display()))?);
    }
    let Some(target) = parent else { bail!("an empty path") };
    let source = PathBuf::from(format!("/proc/self/fd/{}", target.as_raw_fd()));
    if fs::symlink_metadata(place).is_ok() {
        // Left from the container before; it may not be mounted any more.
        let _ = umount2(place, MntFlags::MNT_DETACH);
    } else if fs::metadata(&source)?.is_dir() {
        fs::create_dir_all(place)?;
    } else {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::File::create(place)?;
    }
    let none: Option<&str> = None;
    mount(Some(&source), place, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).context("bind it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(volume: serde_json::Value) -> Pod {
        let mut volume = volume;
        volume["name"] = json!("v");
        serde_json::from_value(
            json!({ "metadata": { "name": "p" }, "spec": { "containers": [], "volumes": [volume] } }),
        )
        .unwrap()
    }

    #[test]
    fn data_volumes_are_replaced_at_once_and_bad_ones_are_named() {
        let temp = tempfile::tempdir().unwrap();
        let directory = PodDirectory::new(temp.path(), "u");
        let content = |pairs: &[(&str, &str)]| {
            Some(
                pairs
                    .iter()
                    .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
                    .collect::<BTreeMap<_, _>>(),
            )
        };
        let source = Source::ConfigMap("cm".into());
        let facts = Facts::default();
        let prepare = |pod: &Pod, sources: &Sources| super::prepare(&directory, pod, sources, &Tokens::new(), &facts);
        let config_map = pod(json!({ "configMap": { "name": "cm", "defaultMode": 0o400 } }));
        prepare(&config_map, &Sources::from([(source.clone(), content(&[("a", "1"), ("b", "2")]))])).unwrap();
        let volume = directory.volume("v");
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "1");
        assert_eq!(fs::metadata(volume.join("a")).unwrap().permissions().mode() & 0o777, 0o400);
        prepare(&config_map, &Sources::from([(source.clone(), content(&[("a", "3")]))])).unwrap();
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "3");
        assert!(!volume.join("b").exists());
        let error = |volume, sources: &Sources| format!("{:#}", prepare(&pod(volume), sources).unwrap_err());
        let found = [
            error(json!({ "configMap": { "name": "cm" } }), &Sources::from([(source.clone(), None)])),
            error(
                json!({ "configMap": { "name": "cm", "items": [{ "key": "a", "path": "../x" }] } }),
                &Sources::from([(source, content(&[("a", "1")]))]),
            ),
            error(json!({ "nfs": { "server": "s", "path": "/" } }), &Sources::new()),
            error(json!({ "hostPath": { "path": "/no/such", "type": "Directory" } }), &Sources::new()),
        ];
        expect_test::expect![[r#"
            MountVolume.SetUp failed for volume "v": configmap "cm" not found
            MountVolume.SetUp failed for volume "v": the path "../x" leads out of the volume
            MountVolume.SetUp failed for volume "v": volumes of type nfs are not supported
            MountVolume.SetUp failed for volume "v": hostPath type check failed: /no/such is not a Directory"#]]
        .assert_eq(&found.join("\n"));
        directory.remove().unwrap();
        assert!(!volume.exists());
    }

    #[test]
    fn a_sub_path_cannot_leave_its_volume() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path().join("volume");
        fs::create_dir(&base).unwrap();
        symlink("/etc", base.join("away")).unwrap();
        for sub in ["away", "away/x"] {
            let place = temp.path().join("place");
            assert!(bind_sub_path(&base, Path::new(sub), &place).is_err(), "{sub}");
        }
        assert!(inside("../x").is_err() && inside("/x").is_err() && inside("a/b").is_ok());
    }
}
