//! Loop devices: a file as a disk. The kernel frees a device when the last mount of it goes.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Numbers of the kernel's interface (linux/loop.h).
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// `_IOW('f', 16, __u64)`: grows a mounted ext4 to so many blocks (linux/ext4.h).
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
/// The major number of loop devices.
const MAJOR: u64 = 7;
/// How often another device is asked for when somebody else was faster.
const TRIES: usize = 32;

/// `struct loop_config` with its `struct loop_info64`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A file that is a block device for as long as this is kept or the device is mounted.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// Makes a file a block device.
    ///
    /// # Errors
    /// When the kernel has no loop devices, or the file cannot be opened for writing.
    pub fn attach(file: &Path) -> Result<Self> {
        let backing =
            OpenOptions::new().read(true).write(true).open(file).with_context(|| format!("open {}", file.display()))?;
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .context("open /dev/loop-control: the kernel needs the module loop")?;
        for _ in 0..TRIES {
            let number = ioctl(&control, LOOP_CTL_GET_FREE, 0).context("find a free loop device")?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            make_node(&path, number)?;
            let opened = OpenOptions::new().read(true).write(true).open(&path);
            let device = opened.with_context(|| format!("open {}", path.display()))?;
            match configure(&device, &backing) {
                Ok(()) => return Ok(Self { path, _device: device }),
                // Somebody else has taken it meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error).with_context(|| format!("set up {}", path.display())),
            }
        }
        bail!("find a free loop device: all that were offered were taken at once")
    }

    /// Where the device is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn configure(device: &File, backing: &File) -> std::io::Result<()> {
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).unwrap_or(u32::MAX),
        block_size: 0,
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one `struct loop_config`, which this is, during the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, std::ptr::from_ref(&config)) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn ioctl(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> std::io::Result<i32> {
    // SAFETY: the requests used with this take a number and no pointer.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(done) }
}

/// Where /dev is no devtmpfs, the kernel's new devices have no node yet.
fn make_node(path: &Path, number: i32) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let device = libc::makedev(MAJOR as u32, number.unsigned_abs());
    match nix::sys::stat::mknod(
        path,
        nix::sys::stat::SFlag::S_IFBLK,
        nix::sys::stat::Mode::from_bits_truncate(0o600),
        device,
    ) {
        Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
    }
}

/// Tells a loop device that its file has grown.
///
/// # Errors
/// When it is no loop device.
pub fn take_new_size(device: &Path) -> Result<()> {
    let file = File::open(device).with_context(|| format!("open {}", device.display()))?;
    ioctl(&file, LOOP_SET_CAPACITY, 0).with_context(|| format!("tell {} its new size", device.display()))?;
    Ok(())
}

/// Grows a mounted ext4 to `bytes`. One that has that size already stays as it is.
///
/// # Errors
/// When the kernel refuses.
pub fn grow_ext4(mounted: &Path, bytes: u64) -> Result<()> {
    let root = File::open(mounted).with_context(|| format!("open {}", mounted.display()))?;
    let block = nix::sys::statfs::fstatfs(&root).context("read the size of its blocks")?.block_size();
    let blocks: u64 = bytes / u64::try_from(block).unwrap_or(4096).max(1);
    // SAFETY: the kernel reads one 64-bit number, which this is, during the call.
    let done = unsafe { libc::ioctl(root.as_raw_fd(), EXT4_IOC_RESIZE_FS, std::ptr::from_ref(&blocks)) };
    if done < 0 {
        return Err(std::io::Error::last_os_error())
            .with_context(|| format!("grow the file system at {}", mounted.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_the_kernels_layout() {
        // struct loop_info64 has 232 bytes, and 8 before and 64 after it make the whole.
        assert_eq!(size_of::<LoopConfig>(), 8 + 232 + 64);
        assert_eq!(std::mem::offset_of!(LoopConfig, flags), 8 + 52);
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = LoopDevice::attach(Path::new("/nowhere/disk")).expect_err("there is no such file");
        assert!(format!("{error:#}").starts_with("open /nowhere/disk"), "{error:#}");
    }
}
