//! Volumes that outlive pods: those of claims.
//!
//! A volume on the node's own disk is a sparse file with an ext4 of its full size, mounted through a loop device: what is
//! written beyond the size fails as on any full disk, and the kernel frees the device with the last mount. It is mounted
//! once, at its *stage*, and from there into the directory of each pod that uses it.
//!
//! A mounted ext4 grows only for those who have CAP_SYS_RESOURCE. Where that is missing (in some containers) the file
//! system is made larger from the start, and all but the size of the volume is reserved, so that nobody can fill it: less
//! is reserved when the volume grows.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use isolation::loop_device::{self, LoopDevice};
use k8s_openapi::api::core::v1::Pod;
use kinds::volumes::{LOCAL_DRIVER, capacity};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use object_model::names;
use serde_json::Value;

use crate::volumes::PodDirectory;

/// Sizes are whole numbers of these.
const BLOCK: u64 = 4096;
/// How many times its size a volume may grow to where file systems cannot.
const HEADROOM: u64 = 16;
/// The bit of CAP_SYS_RESOURCE (linux/capability.h).
const CAP_SYS_RESOURCE: u32 = 24;
/// Where mke2fs may be: it belongs to e2fsprogs, which a server's PATH need not show.
const PLACES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// A volume that a pod uses.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Name of the volume in the pod.
    pub name: String,
    /// The PersistentVolume.
    pub volume: Value,
    /// Whether the pod may only read.
    pub read_only: bool,
}

/// The volumes on this node's disk.
pub(crate) struct Disks {
    root: PathBuf,
    /// Mounting for one pod and unmounting after another exclude each other.
    lock: Mutex<()>,
}

/// One mount of this process's namespace.
struct Mounted {
    device: String,
    path: PathBuf,
    source: String,
}

fn mounts() -> anyhow::Result<Vec<Mounted>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let after = fields.iter().position(|field| *field == "-")?;
        Some(Mounted {
            device: (*fields.get(2)?).to_owned(),
            path: PathBuf::from(unescape(fields.get(4)?)),
            source: unescape(fields.get(after + 2)?),
        })
    };
    Ok(table.lines().filter_map(line).collect())
}

/// The kernel writes blanks, tabs, line ends and backslashes of paths in octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The size of a volume in bytes, as its file has it.
pub(crate) fn bytes_of(volume: &Value) -> u64 {
    u64::try_from(capacity(volume).value()).unwrap_or(0).next_multiple_of(BLOCK)
}

/// The name of a volume's data on the disk.
pub(crate) fn handle_of(volume: &Value) -> anyhow::Result<&str> {
    let handle = volume["spec"]["csi"]["volumeHandle"].as_str().unwrap_or_default();
    let problems = names::dns_subdomain(handle);
    if problems.is_empty() { Ok(handle) } else { bail!("the volumeHandle {handle:?}: {}", problems.join(", ")) }
}

/// Whether a volume is one of those on nodes' disks.
pub(crate) fn is_local(volume: &Value) -> bool {
    volume["spec"]["csi"]["driver"] == LOCAL_DRIVER
}

impl Disks {
    /// The volumes below the kubelet's data directory.
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("persistent"), lock: Mutex::new(()) }
    }

    fn hold(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.root.join(name).join("disk.ext4")
    }

    fn stage(&self, name: &str) -> PathBuf {
        self.root.join(name).join("mount")
    }

    /// Notes the size that the file system has been given.
    fn size_note(&self, name: &str) -> PathBuf {
        self.root.join(name).join("size")
    }

    /// Mounts a volume in a pod's directory. Can be done again.
    pub fn mount_for(&self, pod: &Pod, directory: &PodDirectory, wanted: &Wanted) -> anyhow::Result<()> {
        let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        let group = security.and_then(|security| security.fs_group).map(u32::try_from).transpose();
        self.mount(wanted, &directory.volume(&wanted.name), group.context("read fsGroup")?)
            .with_context(|| format!("MountVolume.SetUp failed for volume {:?}", wanted.name))
    }

    fn mount(&self, wanted: &Wanted, target: &Path, group: Option<u32>) -> anyhow::Result<()> {
        let _held = self.hold();
        if mounts()?.iter().any(|mounted| mounted.path == target) {
            return Ok(());
        }
        let spec = &wanted.volume["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (source, owned) = if is_local(&wanted.volume) {
            (self.staged(handle_of(&wanted.volume)?, bytes_of(&wanted.volume))?, true)
        } else if let Some(host) = spec.get("hostPath") {
            let path = PathBuf::from(text(&host["path"]));
            crate::volumes::host_path(&path, &text(&host["type"]))?;
            (path, false)
        } else if let Some(local) = spec.get("local") {
            let path = PathBuf::from(text(&local["path"]));
            if !path.exists() {
                bail!("path {:?} does not exist", path.display().to_string());
            }
            (path, true)
        } else {
            let known = ["capacity", "accessModes", "claimRef", "nodeAffinity", "mountOptions"];
            let fields = spec.as_object().into_iter().flatten();
            let mut kind =
                fields.filter(|(key, value)| value.is_object() && !known.contains(&key.as_str())).map(|(key, _)| key);
            bail!("volumes of type {} are not supported", kind.next().cloned().unwrap_or_default());
        };
        if let Some(group) = group.filter(|_| owned && !wanted.read_only) {
            give_to(&source, group).with_context(|| format!("give the volume to group {group}"))?;
        }
        if source.is_dir() {
            fs::create_dir_all(target)?;
        } else {
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::File::create(target)?;
        }
        let none: Option<&str> = None;
        mount(Some(&source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .with_context(|| format!("bind {}", source.display()))?;
        if wanted.read_only {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            mount(none, target, none, flags, none).context("make the mount read-only")?;
        }
        Ok(())
    }

    /// Notes how many blocks were free when the file system was empty, if all but a part of them is reserved.
    fn room_note(&self, name: &str) -> PathBuf {
        self.root.join(name).join("room")
    }

    /// Mounts a volume of ours at its stage, made where it is missing and grown where it is too small.
    fn staged(&self, name: &str, bytes: u64) -> anyhow::Result<PathBuf> {
        let (file, stage) = (self.file(name), self.stage(name));
        fs::create_dir_all(&stage).with_context(|| format!("make {}", stage.display()))?;
        let fresh = !self.size_note(name).exists();
        let reserves = fresh && !may_grow()?;
        if fresh {
            format_file(&file, if reserves { bytes.saturating_mul(HEADROOM) } else { bytes })?;
        }
        if !mounts()?.iter().any(|mounted| mounted.path == stage) {
            let device = LoopDevice::attach(&file)?;
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
            // What is deleted in the volume is free again on the node's disk, too; and what was never used takes no room.
            mount(Some(device.path()), &stage, Some("ext4"), flags, Some("discard,noinit_itable"))
                .with_context(|| format!("mount {} at {}", device.path().display(), stage.display()))?;
        }
        if fresh {
            // Programs that want an empty directory must find one.
            let found = stage.join("lost+found");
            if found.exists() {
                fs::remove_dir(found).context("empty the new volume")?;
            }
            fs::set_permissions(&stage, fs::Permissions::from_mode(0o777))?;
            if reserves {
                let free = nix::sys::statvfs::statvfs(&stage).context("read the room of the new volume")?.blocks_free();
                fs::write(self.room_note(name), free.to_string())?;
            }
            fs::write(self.size_note(name), bytes.to_string())?;
        }
        self.reserve(name, bytes)?;
        self.grow_held(name, bytes)?;
        Ok(stage)
    }

    /// Grows a volume to its new size, in use or not. Says whether it had to.
    pub fn grow(&self, name: &str, bytes: u64) -> anyhow::Result<bool> {
        let _held = self.hold();
        if self.size_note(name).exists() { self.grow_held(name, bytes) } else { Ok(false) }
    }

    /// Leaves as much of a file system with room to grow as the volume is to have. The kernel forgets that with the mount.
    fn reserve(&self, name: &str, bytes: u64) -> anyhow::Result<()> {
        let Ok(room) = fs::read_to_string(self.room_note(name)) else { return Ok(()) };
        let room: u64 = room.trim().parse().context("read the room of a volume")?;
        let stage = self.stage(name);
        let table = mounts()?;
        let Some(device) =
            table.iter().find(|mounted| mounted.path == stage).and_then(|m| Path::new(&m.source).file_name())
        else {
            return Ok(());
        };
        let block = nix::sys::statvfs::statvfs(&stage).context("read the size of its blocks")?.fragment_size();
        let wanted = bytes / block.max(1);
        if wanted > room {
            bail!(
                "the volume can grow to {} bytes at most: this kernel lets only CAP_SYS_RESOURCE grow it further",
                room * block
            );
        }
        let path = Path::new("/sys/fs/ext4").join(device).join("reserved_clusters");
        fs::write(&path, (room - wanted).to_string()).with_context(|| format!("write {}", path.display()))
    }

    fn grow_held(&self, name: &str, bytes: u64) -> anyhow::Result<bool> {
        let note = self.size_note(name);
        let noted: u64 = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if noted >= bytes {
            return Ok(false);
        }
        if self.room_note(name).exists() {
            self.reserve(name, bytes)?;
            fs::write(&note, bytes.to_string())?;
            return Ok(true);
        }
        let path = self.file(name);
        let file = fs::File::options().write(true).open(&path).with_context(|| format!("open {}", path.display()))?;
        if file.metadata()?.len() < bytes {
            file.set_len(bytes).with_context(|| format!("grow {}", path.display()))?;
        }
        let stage = self.stage(name);
        let table = mounts()?;
        let Some(mounted) = table.iter().find(|mounted| mounted.path == stage) else {
            // The next mount does the rest.
            return Ok(true);
        };
        loop_device::take_new_size(Path::new(&mounted.source))?;
        loop_device::grow_ext4(&stage, bytes)?;
        fs::write(&note, bytes.to_string())?;
        Ok(true)
    }

    /// Unmounts the stages that no pod has mounted any more. The kernel frees their devices.
    pub fn release(&self) -> anyhow::Result<()> {
        let _held = self.hold();
        let table = mounts()?;
        for staged in table.iter().filter(|mounted| self.is_stage(&mounted.path)) {
            let used = table.iter().any(|other| other.device == staged.device && other.path != staged.path);
            if !used {
                umount2(&staged.path, MntFlags::MNT_DETACH)
                    .with_context(|| format!("unmount {}", staged.path.display()))?;
            }
        }
        Ok(())
    }

    fn is_stage(&self, path: &Path) -> bool {
        path.starts_with(&self.root) && path.ends_with("mount")
    }

    /// Removes a volume and its data. Says whether it could: one that a pod has mounted stays.
    pub fn remove(&self, name: &str) -> anyhow::Result<bool> {
        let _held = self.hold();
        let stage = self.stage(name);
        let table = mounts()?;
        if let Some(staged) = table.iter().find(|mounted| mounted.path == stage) {
            if table.iter().any(|other| other.device == staged.device && other.path != stage) {
                return Ok(false);
            }
            umount2(&stage, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", stage.display()))?;
        }
        let directory = self.root.join(name);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", directory.display()))
            }
            _ => Ok(true),
        }
    }
}

/// Whether this process may grow a mounted file system.
fn may_grow() -> anyhow::Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("read the capabilities of this process")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits =
        u64::from_str_radix(effective.unwrap_or("0").trim(), 16).context("read the capabilities of this process")?;
    Ok(bits & (1 << CAP_SYS_RESOURCE) != 0)
}

/// Makes a file of this size with an ext4 in it. It takes room on the disk as it is filled.
fn format_file(file: &Path, bytes: u64) -> anyhow::Result<()> {
    let Some(program) = PLACES.iter().map(|place| Path::new(place).join("mke2fs")).find(|program| program.exists())
    else {
        bail!("make a file system: mke2fs is not installed (it is in the package e2fsprogs)");
    };
    // Under its own name only when it is whole.
    let draft = file.with_extension("draft");
    let made = fs::File::create(&draft).with_context(|| format!("make {}", draft.display()))?;
    made.set_permissions(fs::Permissions::from_mode(0o600))?;
    made.set_len(bytes).with_context(|| format!("make {} with {bytes} bytes", draft.display()))?;
    drop(made);
    #[expect(clippy::disallowed_methods, reason = "directory, environment and input are set right here")]
    let output = std::process::Command::new(&program)
        .args(["-q", "-F", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0"])
        .arg(&draft)
        .current_dir("/")
        .env_clear()
        .stdin(std::process::Stdio::null())
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        bail!("make a file system of {bytes} bytes: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&draft, file).with_context(|| format!("name {}", file.display()))
}

/// Gives everything below a path to a group that may write it, as `fsGroup` asks. Links are not followed.
fn give_to(path: &Path, group: u32) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if metadata.gid() != group {
        lchown(path, None, Some(group)).with_context(|| format!("change the group of {}", path.display()))?;
    }
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode() & 0o7777;
    // What is made in the directory belongs to the group as well.
    let wanted = mode | if metadata.is_dir() { 0o2770 } else { 0o660 };
    if mode != wanted {
        fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
            give_to(&entry?.path(), group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_of_mounts_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape("/a\\040b\\134c"), "/a b\\c");
        assert!(mounts().unwrap().iter().any(|mounted| mounted.path == Path::new("/")));
    }

    #[test]
    fn the_data_of_a_volume_is_below_one_directory() {
        let volume = |handle: &str| json!({"spec": {"csi": {"driver": LOCAL_DRIVER, "volumeHandle": handle}}});
        assert_eq!(handle_of(&volume("pvc-1")).unwrap(), "pvc-1");
        for bad in ["", "..", "../x", "/etc"] {
            assert!(handle_of(&volume(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_volume_has_whole_blocks() {
        let volume = |size: &str| json!({"spec": {"capacity": {"storage": size}}});
        assert_eq!(bytes_of(&volume("1Mi")), 1 << 20);
        assert_eq!(bytes_of(&volume("10M")), 10_002_432);
    }

    #[test]
    fn what_is_no_volume_of_this_node_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let disks = Disks::new(temp.path());
        let error = |spec: Value| {
            let volume = json!({"metadata": {"name": "v"}, "spec": spec});
            let wanted = Wanted { name: "data".into(), volume, read_only: false };
            format!("{:#}", disks.mount(&wanted, &temp.path().join("target"), None).unwrap_err())
        };
        assert_eq!(error(json!({"nfs": {"server": "s"}, "capacity": {}})), "volumes of type nfs are not supported");
        assert_eq!(error(json!({"local": {"path": "/no/such"}})), "path \"/no/such\" does not exist");
        assert!(disks.remove("v").unwrap() && !disks.grow("v", 1).unwrap());
    }
}
