//! The default system call filter, as a BPF program.
//!
//! What is refused follows the default profile that the container engines share: calls that reach the machine rather
//! than the container, unless the container holds the capability that governs them. A call that is newer than this
//! table is answered as if the kernel did not have it, so that programs fall back instead of failing.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::capability::{self, Set};

/// Which system calls a container may make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// All of them.
    #[default]
    Unconfined,
    /// All but those that reach the machine.
    RuntimeDefault,
}

/// The newest call that this table knows (`map_shadow_stack`, `futex_*`, `mseal` and what came until Linux 6.12).
const NEWEST: i64 = 462;

/// `SECCOMP_RET_ERRNO`, `SECCOMP_RET_ALLOW` and `SECCOMP_RET_KILL_PROCESS` of `linux/seccomp.h`.
const RETURN_ERRNO: u32 = 0x0005_0000;
const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_KILL: u32 = 0x8000_0000;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Flags of `clone` that make namespaces.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

/// Never allowed, whatever the container holds.
const NEVER: &[i64] = &[
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_userfaultfd,
    libc::SYS_nfsservctl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
];

/// Allowed to whoever holds the capability.
const GOVERNED: &[(&str, &[i64])] = &[
    (
        "SYS_ADMIN",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_setns,
            libc::SYS_unshare,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_mount_setattr,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_fanotify_init,
            libc::SYS_lookup_dcookie,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ],
    ),
    ("SYS_MODULE", &[libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime]),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    ("SYS_PACCT", &[libc::SYS_acct]),
    ("SYS_PTRACE", &[libc::SYS_kcmp, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev]),
    (
        "SYS_NICE",
        &[
            libc::SYS_get_mempolicy,
            libc::SYS_set_mempolicy,
            libc::SYS_mbind,
            libc::SYS_move_pages,
            libc::SYS_migrate_pages,
        ],
    ),
    ("BPF", &[libc::SYS_bpf]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
    ("SYSLOG", &[libc::SYS_syslog]),
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    #[cfg(target_arch = "x86_64")]
    ("SYS_RAWIO", &[libc::SYS_iopl, libc::SYS_ioperm]),
];

/// Where `struct seccomp_data` has the call's number, the architecture, and the low half of an argument.
const NUMBER: u32 = 0;
const ARCHITECTURE_FIELD: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

fn statement(code: u32, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k: value }
}

fn jump(test: u32, value: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: if_true, jf: if_false, k: value }
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn answer(value: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

/// The default filter for a process that holds `capabilities`.
pub(crate) fn default_filter(capabilities: Set) -> Vec<libc::sock_filter> {
    let refuse = RETURN_ERRNO | libc::EPERM as u32;
    let unknown = RETURN_ERRNO | libc::ENOSYS as u32;
    let mut program = vec![
        load(ARCHITECTURE_FIELD),
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(RETURN_KILL),
        load(NUMBER),
        jump(libc::BPF_JGT, NEWEST as u32, 0, 1),
        answer(unknown),
    ];
    if !capability::has(capabilities, "SYS_ADMIN") {
        // The flags of clone3 are behind a pointer that a filter cannot follow: programs then use clone.
        program.extend([jump(libc::BPF_JEQ, libc::SYS_clone3 as u32, 0, 1), answer(unknown)]);
        program.extend([
            jump(libc::BPF_JEQ, libc::SYS_clone as u32, 0, 4),
            load(argument(0)),
            jump(libc::BPF_JSET, NEW_NAMESPACES, 0, 1),
            answer(refuse),
            load(NUMBER),
        ]);
    }
    // A socket to the hypervisor leaves the network namespace.
    program.extend([
        jump(libc::BPF_JEQ, libc::SYS_socket as u32, 0, 4),
        load(argument(0)),
        jump(libc::BPF_JEQ, libc::AF_VSOCK as u32, 0, 1),
        answer(refuse),
        load(NUMBER),
    ]);
    let governed =
        GOVERNED.iter().filter(|(name, _)| !capability::has(capabilities, name)).flat_map(|(_, calls)| calls.iter());
    let mut refused: Vec<i64> = NEVER.iter().chain(governed).copied().collect();
    refused.sort_unstable();
    for call in refused {
        program.extend([jump(libc::BPF_JEQ, call as u32, 0, 1), answer(refuse)]);
    }
    program.push(answer(RETURN_ALLOW));
    program
}

/// Puts the filter on this process, for good. Needs `no_new_privs` or CAP_SYS_ADMIN.
pub(crate) fn install(program: &[libc::sock_filter]) -> Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from `filter`, which outlives the call, and does not write to them.
    let done = unsafe {
        libc::syscall(libc::SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, 0, &program)
    };
    nix::errno::Errno::result(done).context("load the seccomp filter")?;
    Ok(())
}
