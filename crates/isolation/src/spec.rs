//! What the caller asks for, and what the shim answers: the words of the control protocol.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{capability, seccomp::Seccomp};

/// A pod sandbox: the namespaces that its containers share.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SandboxSpec {
    /// Name of the pod as the containers see it.
    pub hostname: String,
    /// Use the machine's network (and its host name) instead of an own one.
    pub host_network: bool,
    /// Use the machine's System V and POSIX message objects, and its `/dev/shm`.
    pub host_ipc: bool,
    /// Make one process namespace that containers with [`PidMode::Pod`] share.
    pub shared_pid: bool,
    /// Kernel parameters of the pod's namespaces, such as `net.ipv4.ip_unprivileged_port_start`.
    pub sysctls: BTreeMap<String, String>,
    /// Directories of the control group that the shim itself lives in.
    pub cgroup_dirs: Vec<PathBuf>,
    /// Size of the shared `/dev/shm`, in bytes.
    pub shm_size: u64,
}

/// Whose processes a container sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own.
    #[default]
    Container,
    /// Those of the pod.
    Pod,
    /// The machine's.
    Host,
    /// Those of another container of the same sandbox, by id.
    Target(String),
}

/// Whether mounts made later, on one side of a bind mount, show on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Never.
    #[default]
    Private,
    /// From the machine into the container.
    HostToContainer,
    /// Both ways.
    Bidirectional,
}

/// A file or directory of the machine that shows in the container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BindMount {
    /// Path on the machine; symbolic links are followed.
    pub source: PathBuf,
    /// Path in the container; made if missing.
    pub target: PathBuf,
    /// Not writable.
    pub readonly: bool,
    /// What is mounted below is not writable either.
    pub recursive_readonly: bool,
    /// See [`Propagation`].
    pub propagation: Propagation,
}

/// The layers of a container's root.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Rootfs {
    /// Read-only layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// Where changes go. Empty, with exactly one lower layer: that directory is the root itself.
    pub upper: PathBuf,
    /// Scratch space of overlayfs, on the file system of `upper`.
    pub work: PathBuf,
    /// An empty directory to mount on; the mount shows in the container's namespace only.
    pub mountpoint: PathBuf,
    /// Not writable.
    pub readonly: bool,
    /// `upper` is mounted again later, so it is written out when it is unmounted.
    pub durable: bool,
}

/// Who the process is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// `uid`, `name`, `uid:gid` or `name:group`, resolved in the container; empty is root.
    pub user: String,
    /// Overrides the primary group.
    pub group: Option<u32>,
    /// Further groups.
    pub additional_groups: Vec<u32>,
    /// Leave out the groups that the container's `/etc/group` gives the user.
    pub strict_groups: bool,
}

/// A resource limit of the process, see `getrlimit(2)`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Rlimit {
    /// Number of the resource, such as `RLIMIT_NOFILE`.
    pub resource: u32,
    /// What is enforced.
    pub soft: u64,
    /// How far the process may raise it; never above this process's own.
    pub hard: u64,
}

/// A container: one first process with its own view of files and processes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Unique on the machine.
    pub id: String,
    /// Root of its files.
    pub rootfs: Rootfs,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`; PATH and HOME are added if missing.
    pub env: Vec<String>,
    /// Working directory; made if missing; empty is `/`.
    pub cwd: String,
    /// Who it runs as.
    pub user: User,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep its standard input open for whoever attaches.
    pub stdin: bool,
    /// Close its standard input when the first who attached leaves.
    pub stdin_once: bool,
    /// Where its output goes, in the CRI log format. `None` drops it.
    pub log_path: Option<PathBuf>,
    /// Directories of its control group.
    pub cgroup_dirs: Vec<PathBuf>,
    /// The version 1 hierarchies to show under `/sys/fs/cgroup`; empty shows version 2.
    pub cgroup_v1_views: Vec<(String, PathBuf)>,
    /// Files of the machine that show in it.
    pub mounts: Vec<BindMount>,
    /// Device nodes: path in the container, path on the machine.
    pub devices: Vec<(PathBuf, PathBuf)>,
    /// All devices, writable `/sys` and `/proc`.
    pub privileged: bool,
    /// Capabilities it holds.
    pub capabilities: capability::Set,
    /// Capabilities that it keeps when it runs as a plain user.
    pub ambient_capabilities: capability::Set,
    /// Never gain privileges by executing a file.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Paths that show as empty.
    pub masked_paths: Vec<PathBuf>,
    /// Paths that are not writable.
    pub readonly_paths: Vec<PathBuf>,
    /// How willingly it is killed for want of memory, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Whose processes it sees.
    pub pid: PidMode,
    /// Share the machine's message objects and `/dev/shm`.
    pub host_ipc: bool,
}

/// A further process in a container that runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// The container.
    pub container: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables beside those of the container.
    pub env: Vec<String>,
    /// Another user than the container's.
    pub user: Option<User>,
    /// Another working directory than the container's; empty is that.
    pub cwd: String,
    /// Give it a terminal.
    pub tty: bool,
    /// Open its standard input.
    pub stdin: bool,
}

/// How far a container's life has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its first process waits.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process has ended.
    Exited,
}

/// Who a container's first process is, as resolved in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// User number.
    pub uid: u32,
    /// Primary group number.
    pub gid: u32,
    /// Further group numbers.
    pub groups: Vec<u32>,
}

/// A container as its shim knows it. Also written to `exit-<id>` in the sandbox directory when it ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The container.
    pub id: String,
    /// Number of its first process on the machine; 0 once it has ended.
    pub pid: i32,
    /// How far it has gone.
    pub phase: Phase,
    /// Start, in nanoseconds since 1970; 0 if it never started.
    pub started_at: i64,
    /// End, in nanoseconds since 1970; 0 while it runs.
    pub finished_at: i64,
    /// Exit status, or 128 and the signal that ended it.
    pub exit_code: i32,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
}

/// What is asked of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Create(Box<ContainerSpec>),
    Start { id: String },
    Kill { id: String, signal: i32 },
    Remove { id: String },
    Exec(ExecSpec),
    SignalExec { pid: i32, signal: i32 },
    Attach { id: String },
    CloseStdin { id: String },
    ReopenLog { id: String },
    State,
    Subscribe,
    Stop,
}

/// What a shim answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Done,
    Created { pid: i32, user: Identity },
    Exec { pid: i32 },
    Attached { tty: bool, stdin: bool },
    State(Vec<ContainerState>),
    Error(Failure),
}

/// What a shim tells whoever subscribed, or started a process and waits for its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A container has ended.
    Exited(ContainerState),
    /// The process that was started over this connection has ended.
    ExecExited {
        /// Exit status, or 128 and the signal that ended it.
        code: i32,
    },
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, for a person.
    pub message: String,
    /// Exit status that stands for it: 127 no such program, 126 not executable, 128 anything else.
    pub exit_code: i32,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
