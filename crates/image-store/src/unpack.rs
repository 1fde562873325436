//! Unpacks one layer into a directory that overlayfs can use as a lower directory.
//!
//! Every path of the archive is resolved with `openat2(RESOLVE_BENEATH)`: nothing outside the directory can be reached,
//! whatever the names, links and link targets in the archive are. Whiteouts become what overlayfs understands: a removed
//! file is a character device 0:0, a replaced directory carries `trusted.overlay.opaque`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use tar::EntryType;

const OPAQUE: &str = "trusted.overlay.opaque";

/// Unpacks the tar archive `plain` into the empty directory `target`. `below` are the layers under this one, lowest
/// first: directories the archive forgets take their owner and mode from there, and hard links may lead there.
pub(crate) fn layer(plain: &mut (impl Read + ?Sized), target: &Path, below: &[PathBuf]) -> anyhow::Result<()> {
    let root = open_directory(target)?;
    let mut below_fds = Vec::with_capacity(below.len());
    for path in below.iter().rev() {
        below_fds.push(open_directory(path)?);
    }
    let mut unpacker = Unpacker { root, below: below_fds, directory_times: Vec::new(), parent: None };
    let mut archive = tar::Archive::new(plain);
    for entry in archive.entries().context("read the archive")? {
        let mut entry = entry.context("read the archive")?;
        let shown = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        unpacker.entry(&mut entry).with_context(|| format!("unpack {shown:?}"))?;
    }
    unpacker.finish()
}

fn open_directory(path: &Path) -> anyhow::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
        .with_context(|| format!("open {}", path.display()))
}

struct Unpacker {
    root: OwnedFd,
    /// Topmost first.
    below: Vec<OwnedFd>,
    /// Set at the end: each new file in a directory changes its time.
    directory_times: Vec<(PathBuf, Timestamps)>,
    /// The directory of the last entry; archives come sorted.
    parent: Option<(PathBuf, OwnedFd)>,
}

/// Owner, mode, times and extended attributes of an entry.
struct Metadata {
    owner: (Uid, Gid),
    mode: Mode,
    times: Timestamps,
    xattrs: Vec<(String, Vec<u8>)>,
}

fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve)
}

/// The path inside the layer. `..` is refused; a leading `/` means the layer's own root.
fn inside(raw: &[u8]) -> anyhow::Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(raw)).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => bail!("the path leads out of the layer"),
        }
    }
    Ok(path)
}

impl Unpacker {
    fn entry(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let extensions = extensions(entry)?;
        let sparse = extensions.get("GNU.sparse.major").map(Vec::as_slice);
        let path = match (sparse, extensions.get("GNU.sparse.name")) {
            (Some(_), Some(name)) => inside(name)?,
            _ => inside(&entry.path_bytes())?,
        };
        let metadata = metadata(entry, &extensions)?;
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            // The layer's own root.
            if kind.is_dir() {
                let root = self.root.try_clone()?;
                apply(root.as_fd(), &metadata)?;
                self.directory_times.push((PathBuf::new(), metadata.times));
            }
            return Ok(());
        };
        if let Some(hidden) = name.as_bytes().strip_prefix(b".wh.") {
            let parent = self.directory(directory)?;
            return whiteout(parent, hidden);
        }
        match kind {
            EntryType::Directory => {
                let parent = self.directory(directory)?;
                make_directory(parent, name)?;
                let made = open_child(parent, name, OFlags::DIRECTORY | OFlags::RDONLY)?;
                apply(made.as_fd(), &metadata)?;
                self.directory_times.push((path, metadata.times));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let parent = self.clear(directory, name)?;
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
                let file = beneath(parent, Path::new(name), flags, Mode::from_raw_mode(0o600))?;
                let mut file = File::from(file);
                match sparse {
                    None => io::copy(entry, &mut file).map(drop).context("write the content")?,
                    Some(b"1") => sparse_content(entry, &mut file, &extensions)?,
                    Some(_) => {
                        bail!("this old form of sparse file (GNU.sparse 0.x) is not supported")
                    }
                }
                apply(file.as_fd(), &metadata)?;
                rustix::fs::futimens(&file, &metadata.times)?;
            }
            EntryType::Symlink => {
                let link = entry.link_name_bytes().context("a symbolic link without a target")?.into_owned();
                let parent = self.clear(directory, name)?;
                rustix::fs::symlinkat(OsStr::from_bytes(&link), parent, name)?;
                apply_special(parent, name, &metadata, false)?;
            }
            EntryType::Link => {
                let link = entry.link_name_bytes().context("a hard link without a target")?.into_owned();
                let link = inside(&link)?;
                self.hard_link(&link, directory, name).with_context(|| format!("link to {:?}", link.display()))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (file_type, device) = match kind {
                    EntryType::Fifo => (FileType::Fifo, 0),
                    kind => {
                        let major = entry.header().device_major()?.unwrap_or(0);
                        let minor = entry.header().device_minor()?.unwrap_or(0);
                        let file_type = match kind {
                            EntryType::Char => FileType::CharacterDevice,
                            _ => FileType::BlockDevice,
                        };
                        (file_type, rustix::fs::makedev(major, minor))
                    }
                };
                let parent = self.clear(directory, name)?;
                rustix::fs::mknodat(parent, name, file_type, metadata.mode, device)?;
                apply_special(parent, name, &metadata, true)?;
            }
            other => bail!("entries of type {:?} are not supported", char::from(other.as_byte())),
        }
        Ok(())
    }

    /// Opens a directory of the layer, making what is missing of it.
    fn directory(&mut self, path: &Path) -> anyhow::Result<BorrowedFd<'_>> {
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            let opened = self.open_or_make(path)?;
            self.parent = Some((path.to_owned(), opened));
        }
        match &self.parent {
            Some((_, parent)) => Ok(parent.as_fd()),
            None => bail!("no parent directory"),
        }
    }

    fn open_or_make(&self, path: &Path) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY;
        match beneath(self.root.as_fd(), path, flags, Mode::empty()) {
            Ok(directory) => return Ok(directory),
            Err(Errno::NOENT) => {}
            Err(Errno::XDEV) => bail!("a symbolic link on the way leads out of the layer"),
            Err(Errno::NOTDIR) if path.file_name().is_some() => {}
            Err(error) => return Err(error).context("open the parent directory"),
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("the layer's root is gone");
        };
        let parent = self.open_or_make(above)?;
        make_directory(parent.as_fd(), name)?;
        let made = open_child(parent.as_fd(), name, flags)?;
        // As in the layers below, so that an archive that names only a file does not change its directories.
        let like = self.below.iter().find_map(|layer| {
            let found = beneath(layer.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).ok()?;
            rustix::fs::fstat(&found).ok()
        });
        if let Some(stat) = like {
            rustix::fs::fchown(&made, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
            rustix::fs::fchmod(&made, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        }
        Ok(made)
    }

    /// Opens the parent directory and removes what has the name already.
    fn clear(&mut self, directory: &Path, name: &OsStr) -> anyhow::Result<BorrowedFd<'_>> {
        let parent = self.directory(directory)?.try_clone_to_owned()?;
        if remove(parent.as_fd(), name)? {
            // A directory went: the remembered one may have been inside it.
            self.parent = None;
        }
        self.directory(directory)
    }

    fn hard_link(&mut self, link: &Path, directory: &Path, name: &OsStr) -> anyhow::Result<()> {
        let (link_directory, Some(link_name)) = (link.parent().unwrap_or(Path::new("")), link.file_name()) else {
            bail!("a hard link to the root");
        };
        if link_directory == directory && link_name == name {
            bail!("a hard link to itself");
        }
        let source = match beneath(self.root.as_fd(), link_directory, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())
        {
            Ok(source) if exists(source.as_fd(), link_name)? => source,
            Ok(_) | Err(Errno::NOENT) => self.copy_up(link, link_directory, link_name)?,
            Err(Errno::XDEV) => bail!("a symbolic link on the way leads out of the layer"),
            Err(error) => return Err(error.into()),
        };
        let parent = self.clear(directory, name)?;
        rustix::fs::linkat(&source, link_name, parent, name, AtFlags::empty())?;
        Ok(())
    }

    /// Copies a file from the layers below, so that this layer can link to it.
    fn copy_up(&mut self, path: &Path, directory: &Path, name: &OsStr) -> anyhow::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        for layer in &self.below {
            let Ok(found) = beneath(layer.as_fd(), path, flags, Mode::empty()) else {
                continue;
            };
            let stat = rustix::fs::fstat(&found)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                break;
            }
            let parent = self.open_or_make(directory)?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW;
            let mut copy = File::from(beneath(parent.as_fd(), Path::new(name), flags, Mode::from_raw_mode(0o600))?);
            io::copy(&mut File::from(found), &mut copy)?;
            let seconds = |secs, nanos| Timespec { tv_sec: secs, tv_nsec: nanos };
            let modified = seconds(stat.st_mtime, i64::try_from(stat.st_mtime_nsec)?);
            let metadata = Metadata {
                owner: (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid)),
                mode: Mode::from_raw_mode(stat.st_mode & 0o7777),
                times: Timestamps { last_access: modified, last_modification: modified },
                xattrs: Vec::new(),
            };
            apply(copy.as_fd(), &metadata)?;
            rustix::fs::futimens(&copy, &metadata.times)?;
            return Ok(parent);
        }
        bail!("there is no such file, here or in the layers below")
    }

    fn finish(self) -> anyhow::Result<()> {
        for (path, times) in self.directory_times.iter().rev() {
            // A directory may have been replaced by a later entry.
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW;
            if let Ok(directory) = beneath(self.root.as_fd(), path, flags, Mode::empty()) {
                rustix::fs::futimens(&directory, times)?;
            }
        }
        Ok(())
    }
}

fn open_child(parent: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    beneath(parent, Path::new(name), flags | OFlags::NOFOLLOW, Mode::empty())
}

fn file_type(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<(FileType, u64)>> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some((FileType::from_raw_mode(stat.st_mode), stat.st_rdev))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<bool> {
    file_type(parent, name).map(|found| found.is_some())
}

/// Makes a directory, or keeps the one that is there. Over a whiteout it becomes opaque: what is below stays hidden.
fn make_directory(parent: BorrowedFd<'_>, name: &OsStr) -> anyhow::Result<()> {
    let mut opaque = false;
    match file_type(parent, name)? {
        Some((FileType::Directory, _)) => return Ok(()),
        Some((kind, device)) => {
            opaque = kind == FileType::CharacterDevice && device == 0;
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        }
        None => {}
    }
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let made = open_child(parent, name, OFlags::DIRECTORY | OFlags::RDONLY)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    if opaque {
        set_opaque(made.as_fd())?;
    }
    Ok(())
}

fn set_opaque(directory: BorrowedFd<'_>) -> anyhow::Result<()> {
    rustix::fs::fsetxattr(directory, OPAQUE, b"y", XattrFlags::empty()).context("mark the directory opaque")
}

/// Notes that the layers below must not show through. A whiteout hides lower layers only, never this one.
fn whiteout(parent: BorrowedFd<'_>, hidden: &[u8]) -> anyhow::Result<()> {
    if hidden == b".wh..opq" {
        return set_opaque(parent);
    }
    if hidden.starts_with(b".wh.") {
        // Bookkeeping of aufs.
        return Ok(());
    }
    if hidden.is_empty() || hidden == b"." || hidden == b".." {
        bail!("a whiteout without a name");
    }
    let name = OsStr::from_bytes(hidden);
    match file_type(parent, name)? {
        None => {
            let mode = Mode::from_raw_mode(0o000);
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, mode, 0).context("make the whiteout")
        }
        Some((FileType::Directory, _)) => {
            set_opaque(open_child(parent, name, OFlags::DIRECTORY | OFlags::RDONLY)?.as_fd())
        }
        Some(_) => Ok(()),
    }
}

/// Removes a name, with everything below it. True if it was a directory.
fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> anyhow::Result<bool> {
    match file_type(parent, name)? {
        None => Ok(false),
        Some((FileType::Directory, _)) => {
            let directory = open_child(parent, name, OFlags::DIRECTORY | OFlags::RDONLY)?;
            let names: Vec<_> = rustix::fs::Dir::read_from(&directory)?
                .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
                .collect::<Result<_, _>>()?;
            for child in names {
                if child.as_bytes() != b"." && child.as_bytes() != b".." {
                    remove(directory.as_fd(), OsStr::from_bytes(child.as_bytes()))?;
                }
            }
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
            Ok(true)
        }
        Some(_) => {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            Ok(false)
        }
    }
}

/// Owner first: changing it clears set-user-id bits and file capabilities.
fn apply(file: BorrowedFd<'_>, metadata: &Metadata) -> anyhow::Result<()> {
    rustix::fs::fchown(file, Some(metadata.owner.0), Some(metadata.owner.1)).context("set the owner")?;
    rustix::fs::fchmod(file, metadata.mode).context("set the mode")?;
    for (name, value) in &metadata.xattrs {
        xattr_result(name, rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()))?;
    }
    Ok(())
}

/// As [`apply`], for what cannot be opened: links, devices, pipes.
fn apply_special(parent: BorrowedFd<'_>, name: &OsStr, metadata: &Metadata, with_mode: bool) -> anyhow::Result<()> {
    let (user, group) = metadata.owner;
    rustix::fs::chownat(parent, name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW).context("set the owner")?;
    if with_mode {
        rustix::fs::chmodat(parent, name, metadata.mode, AtFlags::empty()).context("set the mode")?;
    }
    let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(name);
    for (key, value) in &metadata.xattrs {
        xattr_result(key, rustix::fs::lsetxattr(&path, key.as_str(), value, XattrFlags::empty()))?;
    }
    rustix::fs::utimensat(parent, name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW).context("set the times")
}

fn xattr_result(name: &str, result: rustix::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => {
            tracing::warn!("the file system does not support the extended attribute {name}");
            Ok(())
        }
        result => result.with_context(|| format!("set the extended attribute {name}")),
    }
}

type Extensions = HashMap<String, Vec<u8>>;

fn extensions(entry: &mut tar::Entry<'_, impl Read>) -> anyhow::Result<Extensions> {
    let mut found = HashMap::new();
    if let Some(records) = entry.pax_extensions().context("read the extended header")? {
        for record in records {
            let record = record.context("read the extended header")?;
            let key = record.key().context("read the extended header")?;
            found.insert(key.to_owned(), record.value_bytes().to_owned());
        }
    }
    Ok(found)
}

fn metadata(entry: &tar::Entry<'_, impl Read>, extensions: &Extensions) -> anyhow::Result<Metadata> {
    let header = entry.header();
    let number = |key: &str, plain: u64| -> anyhow::Result<u32> {
        let value = match extensions.get(key) {
            Some(text) => std::str::from_utf8(text)?.parse::<u64>()?,
            None => plain,
        };
        u32::try_from(value).with_context(|| format!("{key} {value} is out of range"))
    };
    let modified = match extensions.get("mtime") {
        Some(text) => decimal_time(text).context("read the time")?,
        None => Timespec { tv_sec: i64::try_from(header.mtime()?)?, tv_nsec: 0 },
    };
    let xattrs = extensions
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?, value)))
        // The overlay's own marks are ours to set.
        .filter(|(key, _)| !key.starts_with("trusted.overlay.") && !key.starts_with("user.overlay."))
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    Ok(Metadata {
        owner: (Uid::from_raw(number("uid", header.uid()?)?), Gid::from_raw(number("gid", header.gid()?)?)),
        mode: Mode::from_raw_mode(header.mode()? & 0o7777),
        times: Timestamps { last_access: modified, last_modification: modified },
        xattrs,
    })
}

/// Seconds with a fraction, as pax headers write times; may be negative.
fn decimal_time(text: &[u8]) -> anyhow::Result<Timespec> {
    let text = std::str::from_utf8(text)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse()?;
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let mut nanos: i64 = digits.parse()?;
    if whole.starts_with('-') && nanos > 0 {
        seconds -= 1;
        nanos = 1_000_000_000 - nanos;
    }
    Ok(Timespec { tv_sec: seconds, tv_nsec: nanos })
}

/// Content in the sparse format 1.0 of GNU tar: a map of decimal numbers, padded to a block, then the pieces.
fn sparse_content(entry: &mut impl Read, file: &mut File, extensions: &Extensions) -> anyhow::Result<()> {
    let real_size = extensions.get("GNU.sparse.realsize").context("a sparse file without its size")?;
    let real_size: u64 = std::str::from_utf8(real_size)?.parse()?;
    let mut used = 0usize;
    let mut number = |entry: &mut dyn Read| -> anyhow::Result<u64> {
        let mut value = 0u64;
        loop {
            let mut byte = [0u8];
            entry.read_exact(&mut byte)?;
            used += 1;
            match byte[0] {
                b'\n' => return Ok(value),
                digit @ b'0'..=b'9' => {
                    let shifted = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
                    value = shifted.context("a number in the sparse map is too large")?;
                }
                _ => bail!("the sparse map is damaged"),
            }
        }
    };
    let count = number(entry)?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push((number(entry)?, number(entry)?));
    }
    let padding = used.next_multiple_of(512) - used;
    io::copy(&mut entry.by_ref().take(padding as u64), &mut io::sink())?;
    for (offset, length) in pieces {
        file.seek(SeekFrom::Start(offset))?;
        if io::copy(&mut entry.by_ref().take(length), file)? != length {
            bail!("the sparse file ends early");
        }
    }
    file.flush()?;
    file.set_len(real_size).context("set the size")
}
