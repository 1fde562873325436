//! Namespaces, cgroups v1 and v2, mounts, capabilities, seccomp, the first process and its shim.
//!
//! A pod is kept by a *shim*: the same binary, executed again with an argument that only this crate knows, with one
//! thread and an event loop. The server talks to it over a socket ([`Shim`]) and may come and go. The only crate with
//! `unsafe`.

pub mod capability;
pub mod cgroup;
mod client;
mod log;
pub mod loop_device;
pub mod memory;
mod mount;
mod process;
pub mod seccomp;
mod shim;
mod spec;
mod user;
mod wire;

pub use client::{Attached, Exec, Nursery, Shim, read_event, recorded_exit, set_terminal_size};
pub use log::timestamp as rfc3339;
pub use mount::unmount;
pub use spec::{
    BindMount, ContainerSpec, ContainerState, Event, ExecSpec, Failure, Identity, Phase, PidMode, Propagation, Rlimit,
    Rootfs, SandboxSpec, User,
};

/// Becomes the parent of shims if that is what this process was started for; `None` means to go on with the program.
///
/// Call it first in `main`, before any thread exists: a shim forks, and a fork of a process with threads is broken.
pub fn dispatch(mut args: impl Iterator<Item = std::ffi::OsString>) -> Option<std::process::ExitCode> {
    (args.nth(1)? == shim::ARGUMENT).then(shim::nursery)
}
