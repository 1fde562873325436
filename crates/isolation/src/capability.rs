//! Capabilities by name, and putting a set of them on the calling process.

use anyhow::{Context as _, Result, bail};

/// Names in the order of their numbers, without the `CAP_` prefix (`linux/capability.h`).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities: bit `n` is the capability with the number `n`.
pub type Set = u64;

/// Every capability that is known here.
pub const ALL: Set = (1 << NAMES.len()) - 1;

/// What a container gets that asks for nothing: the set that containerd and Docker give.
pub const DEFAULT: Set = bit(0)
    | bit(1)
    | bit(3)
    | bit(4)
    | bit(5)
    | bit(6)
    | bit(7)
    | bit(8)
    | bit(10)
    | bit(13)
    | bit(18)
    | bit(27)
    | bit(29)
    | bit(31);

const fn bit(number: u32) -> Set {
    1 << number
}

/// The bit of a capability, named with or without `CAP_`, in any case. `ALL` is every one.
pub fn named(name: &str) -> Result<Set> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if plain == "ALL" {
        return Ok(ALL);
    }
    match NAMES.iter().position(|known| *known == plain) {
        Some(number) => Ok(1 << number),
        None => bail!("unknown capability {name:?}"),
    }
}

/// `DEFAULT` with some added and some dropped. `ALL` counts before single names, in both lists.
pub fn adjusted<'a>(
    add: impl IntoIterator<Item = &'a str> + Clone,
    drop: impl IntoIterator<Item = &'a str> + Clone,
) -> Result<Set> {
    let mut set = DEFAULT;
    let is_all = |name: &&str| named(name).is_ok_and(|bits| bits == ALL);
    if add.clone().into_iter().any(|name| is_all(&name)) {
        set = ALL;
    }
    if drop.clone().into_iter().any(|name| is_all(&name)) {
        set = 0;
    }
    for name in add.into_iter().filter(|name| !is_all(name)) {
        set |= named(name)?;
    }
    for name in drop.into_iter().filter(|name| !is_all(name)) {
        set &= !named(name)?;
    }
    Ok(set)
}

/// True if `set` has the capability with this name.
pub(crate) fn has(set: Set, name: &str) -> bool {
    named(name).is_ok_and(|bits| set & bits != 0)
}

/// Takes away from the bounding set what is not in `set`, for good.
pub(crate) fn bound(set: Set) -> Result<()> {
    for number in 0..64 {
        // SAFETY: reads a flag of this process; no memory is passed.
        let present = unsafe { libc::prctl(libc::PR_CAPBSET_READ, number as libc::c_ulong, 0, 0, 0) };
        if present < 0 {
            break;
        }
        if present == 1 && set & (1 << number) == 0 {
            // SAFETY: as above.
            let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) };
            nix::errno::Errno::result(done).context("drop a capability from the bounding set")?;
        }
    }
    Ok(())
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION: u32 = 0x2008_0522;

/// Gives this process `set` (as far as it has those itself), of which `ambient` survive an exec by a plain user.
pub(crate) fn apply(set: Set, ambient: Set) -> Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: the header and two data entries are what version 3 of the call reads and writes.
    let got = unsafe { libc::syscall(libc::SYS_capget, &mut header, data.as_mut_ptr()) };
    nix::errno::Errno::result(got).context("read capabilities")?;
    let have = u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32;
    let (set, ambient) = (set & have, ambient & have);
    let words = |bits: Set| [bits as u32, (bits >> 32) as u32];
    let (granted, kept) = (words(set | ambient), words(ambient));
    for i in 0..2 {
        data[i] = Data { effective: granted[i], permitted: granted[i], inheritable: kept[i] };
    }
    // SAFETY: as above, read only.
    let done = unsafe { libc::syscall(libc::SYS_capset, &header, data.as_ptr()) };
    nix::errno::Errno::result(done).context("set capabilities")?;
    for number in (0..64).filter(|number| ambient & (1 << number) != 0) {
        // SAFETY: changes a flag of this process; no memory is passed.
        let done = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
                number as libc::c_ulong,
                0,
                0,
            )
        };
        nix::errno::Errno::result(done).context("raise an ambient capability")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_with_or_without_prefix() {
        assert_eq!(named("cap_net_admin").unwrap(), 1 << 12);
        assert_eq!(named("NET_ADMIN").unwrap(), 1 << 12);
        assert_eq!(named("NET_EVERYTHING").unwrap_err().to_string(), "unknown capability \"NET_EVERYTHING\"");
    }

    #[test]
    fn all_counts_before_single_names() {
        assert_eq!(adjusted(["NET_BIND_SERVICE"], ["ALL"]).unwrap(), 1 << 10);
        assert_eq!(adjusted(["ALL"], ["SYS_ADMIN"]).unwrap(), ALL & !(1 << 21));
        assert_eq!(adjusted([], []).unwrap(), DEFAULT);
    }
}
