//! Building the file tree of a container, inside its own mount namespace.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _, fs::MetadataExt as _, fs::symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, mknod},
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::spec::{BindMount, ContainerSpec, Propagation, Rootfs};

const NONE: Option<&str> = None;

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Default)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY` of `linux/mount.h`.
const READ_ONLY: u64 = 1;

fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string; `attr` is a whole mount_attr, and its true size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            attr as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    nix::errno::Errno::result(done).context("set mount attributes")?;
    Ok(())
}

/// A copy of the mount at `path`, attached nowhere yet.
fn detached(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(rustix::fs::CWD, path, flags).with_context(|| format!("open {} to mount it", path.display()))
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, c"", rustix::fs::CWD, target, flags).with_context(|| format!("mount on {}", target.display()))
}

/// What must be opened while the machine's files are still in sight.
pub(crate) struct Sources {
    binds: Vec<(OwnedFd, bool, BindMount)>,
    cgroups: Vec<(String, OwnedFd)>,
    devices: Vec<(PathBuf, SFlag, u64, u32)>,
}

impl Sources {
    /// Opens the sources of a container's mounts and looks at its devices.
    pub fn open(spec: &ContainerSpec) -> Result<Self> {
        let mut binds = Vec::new();
        for bind in &spec.mounts {
            let is_dir = fs::metadata(&bind.source)
                .with_context(|| format!("find mount source {}", bind.source.display()))?
                .is_dir();
            binds.push((detached(&bind.source)?, is_dir, bind.clone()));
        }
        // Outer paths first, so that no mount hides one made before it; the order is kept among equals.
        binds.sort_by_key(|(_, _, bind)| bind.target.components().count());
        let mut cgroups = Vec::new();
        for (name, dir) in &spec.cgroup_v1_views {
            cgroups.push((name.clone(), detached(dir)?));
        }
        let mut wanted = spec.devices.clone();
        if spec.privileged {
            wanted.extend(machine_devices(Path::new("/dev"))?.into_iter().map(|path| (path.clone(), path)));
        }
        let mut devices = Vec::new();
        for (inside, outside) in wanted {
            let found = fs::metadata(&outside).with_context(|| format!("find device {}", outside.display()))?;
            let kind = if found.file_type().is_char_device() {
                SFlag::S_IFCHR
            } else if found.file_type().is_block_device() {
                SFlag::S_IFBLK
            } else {
                bail!("{} is not a device", outside.display());
            };
            devices.push((inside, kind, found.rdev(), found.mode() & 0o777));
        }
        Ok(Self { binds, cgroups, devices })
    }
}

/// The device nodes of the machine, without terminals and what is mounted below `/dev`.
fn machine_devices(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?.flatten() {
        let name = entry.file_name();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && !["pts", "shm", "mqueue", "fd", ".udev"].iter().any(|skip| name == *skip) {
            found.extend(machine_devices(&entry.path())?);
        } else if (kind.is_char_device() || kind.is_block_device()) && name != "console" && name != "ptmx" {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// Mounts the root and makes it `/`; the machine's files are out of sight afterwards.
pub(crate) fn enter_root(rootfs: &Rootfs) -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE).context("cut mount propagation")?;
    let point = &rootfs.mountpoint;
    match overlay(rootfs) {
        Ok(()) => {}
        Err(new) => overlay_by_options(rootfs).with_context(|| format!("mount the layers ({new:#})"))?,
    }
    nix::unistd::chdir(point).with_context(|| format!("enter {}", point.display()))?;
    nix::unistd::pivot_root(".", ".").context("make the container's root the root")?;
    // The old root now lies on top of the new one.
    umount2(".", MntFlags::MNT_DETACH).context("detach the machine's root")?;
    nix::unistd::chdir("/").context("enter the container's root")
}

fn overlay(rootfs: &Rootfs) -> Result<()> {
    if rootfs.upper.as_os_str().is_empty() {
        let [only] = rootfs.lower.as_slice() else { bail!("a root without changes needs exactly one layer") };
        return attach(&detached(only)?, &rootfs.mountpoint);
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).context("open overlayfs")?;
    let set = |key: &str, value: &Path| {
        fsconfig_set_string(fs.as_fd(), key, value).with_context(|| format!("set {key}={}", value.display()))
    };
    for layer in &rootfs.lower {
        set("lowerdir+", layer)?;
    }
    set("upperdir", &rootfs.upper)?;
    set("workdir", &rootfs.work)?;
    if !rootfs.durable {
        // Nothing reads the layer after a crash of the machine, so it need not be written out when it is unmounted.
        fsconfig_set_flag(fs.as_fd(), "volatile").context("set volatile")?;
    }
    fsconfig_create(fs.as_fd()).context("create the overlay")?;
    let made = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).context("mount")?;
    attach(&made, &rootfs.mountpoint)
}

fn overlay_by_options(rootfs: &Rootfs) -> Result<()> {
    if rootfs.upper.as_os_str().is_empty() {
        bail!("mount {} as root", rootfs.mountpoint.display());
    }
    let layers: Vec<String> = rootfs.lower.iter().map(|layer| layer.display().to_string()).collect();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", layers.join(":"), rootfs.upper.display(), rootfs.work.display());
    mount(Some("overlay"), &rootfs.mountpoint, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mount an overlay with {options}"))
}

fn make_dir(path: &str) -> Result<()> {
    match fs::create_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e).with_context(|| format!("make {path}")),
        _ => Ok(()),
    }
}

fn mount_on(kind: &str, path: &str, flags: MsFlags, options: &str) -> Result<()> {
    make_dir(path)?;
    mount(Some(kind), path, Some(kind), flags, Some(options)).with_context(|| format!("mount {kind} on {path}"))
}

/// Mounts everything else. Runs with the container's root as `/`, so that no path can lead outside.
pub(crate) fn populate(spec: &ContainerSpec, sources: Sources) -> Result<()> {
    let hard = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let sys = if spec.privileged { hard } else { hard | MsFlags::MS_RDONLY };
    mount_on("proc", "/proc", hard, "")?;
    mount_on("tmpfs", "/dev", MsFlags::MS_NOSUID | MsFlags::MS_STRICTATIME, "mode=755,size=65536k")?;
    let pts = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount_on("devpts", "/dev/pts", pts, "newinstance,ptmxmode=0666,mode=0620,gid=5")?;
    mount_on("mqueue", "/dev/mqueue", hard, "")?;
    mount_on("sysfs", "/sys", sys, "")?;
    cgroups(&sources, sys)?;
    devices(&sources)?;
    for (mount, is_dir, bind) in &sources.binds {
        place(mount, *is_dir, bind)
            .with_context(|| format!("mount {} on {}", bind.source.display(), bind.target.display()))?;
    }
    for path in &spec.masked_paths {
        mask(path)?;
    }
    for path in &spec.readonly_paths {
        if path.exists() {
            let copy = detached(path)?;
            mount_setattr(copy.as_fd(), true, &MountAttr { set: READ_ONLY, ..MountAttr::default() })?;
            attach(&copy, path)?;
        }
    }
    if spec.rootfs.readonly {
        let root = fs::File::open("/").context("open /")?;
        mount_setattr(root.as_fd(), false, &MountAttr { set: READ_ONLY, ..MountAttr::default() })
            .context("make the root read-only")?;
    }
    Ok(())
}

fn cgroups(sources: &Sources, flags: MsFlags) -> Result<()> {
    let at = "/sys/fs/cgroup";
    if sources.cgroups.is_empty() {
        return mount_on("cgroup2", at, flags, "");
    }
    mount(Some("tmpfs"), at, Some("tmpfs"), flags - MsFlags::MS_RDONLY, Some("mode=755,size=64k"))
        .context("mount a directory for cgroups")?;
    let readonly = if flags.contains(MsFlags::MS_RDONLY) { READ_ONLY } else { 0 };
    for (name, mount) in &sources.cgroups {
        let target = format!("{at}/{name}");
        make_dir(&target)?;
        mount_setattr(mount.as_fd(), true, &MountAttr { set: readonly, ..MountAttr::default() })?;
        attach(mount, Path::new(&target))?;
        for one in name.split(',').filter(|one| one != name) {
            symlink(name, format!("{at}/{one}")).with_context(|| format!("link cgroup {one}"))?;
        }
    }
    if readonly != 0 {
        let dir = fs::File::open(at).context("open the cgroup directory")?;
        mount_setattr(dir.as_fd(), false, &MountAttr { set: READ_ONLY, ..MountAttr::default() })?;
    }
    Ok(())
}

fn devices(sources: &Sources) -> Result<()> {
    // The mode of a node is what is asked for, whatever the caller's umask.
    let old = nix::sys::stat::umask(Mode::empty());
    let nodes = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in nodes {
        let path = format!("/dev/{name}");
        mknod(path.as_str(), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), libc::makedev(major, minor))
            .with_context(|| format!("make {path}"))?;
    }
    let links = [
        ("/proc/self/fd", "/dev/fd"),
        ("/proc/self/fd/0", "/dev/stdin"),
        ("/proc/self/fd/1", "/dev/stdout"),
        ("/proc/self/fd/2", "/dev/stderr"),
        ("pts/ptmx", "/dev/ptmx"),
        ("/proc/kcore", "/dev/core"),
    ];
    for (target, link) in links {
        symlink(target, link).with_context(|| format!("link {link}"))?;
    }
    make_dir("/dev/shm")?;
    for (path, kind, number, mode) in &sources.devices {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        match mknod(path, *kind, Mode::from_bits_truncate(*mode), *number) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("make device {}", path.display())),
        }
    }
    nix::sys::stat::umask(old);
    Ok(())
}

fn place(mount: &OwnedFd, is_dir: bool, bind: &BindMount) -> Result<()> {
    if is_dir {
        make_dir(&bind.target.to_string_lossy())?;
    } else if !bind.target.exists() {
        if let Some(parent) = bind.target.parent() {
            make_dir(&parent.to_string_lossy())?;
        }
        // Opening follows a link whose end is missing, and makes that.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&bind.target)
            .with_context(|| format!("make {}", bind.target.display()))?;
    }
    let propagation = match bind.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::HostToContainer => libc::MS_SLAVE,
        Propagation::Bidirectional => libc::MS_SHARED,
    };
    mount_setattr(mount.as_fd(), true, &MountAttr { propagation, ..MountAttr::default() })?;
    if bind.readonly || bind.recursive_readonly {
        mount_setattr(mount.as_fd(), bind.recursive_readonly, &MountAttr { set: READ_ONLY, ..MountAttr::default() })?;
    }
    attach(mount, &bind.target)
}

fn mask(path: &Path) -> Result<()> {
    let Ok(found) = fs::metadata(path) else {
        return Ok(());
    };
    let context = || format!("mask {}", path.display());
    if found.is_dir() {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_RDONLY, Some("size=0k")).with_context(context)
    } else {
        mount(Some("/dev/null"), path, NONE, MsFlags::MS_BIND, NONE).with_context(context)
    }
}

/// Mounts the `/dev/shm` that the containers of a pod share.
pub(crate) fn shared_memory(path: &Path, size: u64) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let options = CString::new(format!("mode=1777,size={size}")).context("encode mount options")?;
    mount(Some("shm"), path, Some("tmpfs"), flags, Some(options.as_c_str()))
        .with_context(|| format!("mount shared memory on {}", path.display()))
}

/// Unmounts whatever is at `path`; nothing there is success.
pub fn unmount(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => return Ok(()),
            Err(e) => {
                return Err(e).with_context(|| format!("unmount {}", path.as_os_str().as_bytes().escape_ascii()));
            }
        }
    }
}
