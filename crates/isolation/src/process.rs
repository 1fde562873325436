//! The child's side: from a fork of the shim to the container's program.

use std::{
    ffi::CString,
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    fcntl::{OFlag, open},
    sched::{CloneFlags, setns, unshare},
    sys::{prctl, signal, stat::Mode},
    unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid, setsid},
};
use serde::{Deserialize, Serialize};

use crate::{
    capability, mount, seccomp,
    spec::{ContainerSpec, Failure, Identity, Rlimit, User},
    user, wire,
};

/// What the search path is in a container that does not say.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the child tells the shim before it runs the program.
#[derive(Serialize, Deserialize)]
pub(crate) enum FromChild {
    /// Everything is in place; a terminal's other side may come along.
    Ready(Identity),
    /// It cannot be.
    Failed(Failure),
}

/// Everything about a process that is not about its container.
#[derive(Clone)]
pub(crate) struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub user: User,
    pub tty: bool,
    pub capabilities: capability::Set,
    pub ambient: capability::Set,
    pub no_new_privileges: bool,
    pub seccomp: seccomp::Seccomp,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: i32,
    pub cgroup_dirs: Vec<PathBuf>,
}

impl Process {
    pub fn of(spec: &ContainerSpec) -> Self {
        Self {
            args: spec.args.clone(),
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            tty: spec.tty,
            capabilities: spec.capabilities,
            ambient: spec.ambient_capabilities,
            no_new_privileges: spec.no_new_privileges,
            seccomp: if spec.privileged { seccomp::Seccomp::Unconfined } else { spec.seccomp },
            rlimits: spec.rlimits.clone(),
            oom_score_adj: spec.oom_score_adj.unwrap_or(0),
            cgroup_dirs: spec.cgroup_dirs.clone(),
        }
    }
}

/// The child's ends of the standard streams; absent ones become `/dev/null`.
#[derive(Default)]
pub(crate) struct ChildStreams {
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// The first process of a container: prepares everything, reports, waits for the word, and becomes the program.
pub(crate) fn container(spec: &ContainerSpec, shm: Option<PathBuf>, streams: ChildStreams, shim: UnixStream) -> ! {
    let process = Process::of(spec);
    let run = || -> Result<()> {
        begin(&process)?;
        let mut spec = spec.clone();
        if let Some(source) = shm {
            let target = PathBuf::from("/dev/shm");
            spec.mounts.insert(0, crate::spec::BindMount { source, target, ..Default::default() });
        }
        if spec.cgroup_v1_views.is_empty() {
            unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")?;
        }
        let sources = mount::Sources::open(&spec)?;
        let null = open_null()?;
        mount::enter_root(&spec.rootfs)?;
        mount::populate(&spec, sources)?;
        let identity = settle(&process, streams, null, &shim)?;
        // The word to go is any one byte; a shim that goes away closes the socket instead.
        let mut word = [0; 1];
        std::io::Read::read_exact(&mut &shim, &mut word).context("wait for the word to start")?;
        become_program(&process, identity)
    };
    fail(&shim, run().err())
}

/// A further process of a container whose first process is `init`.
pub(crate) fn further(process: &Process, init: i32, streams: ChildStreams, shim: UnixStream) -> ! {
    let run = || -> Result<()> {
        begin(process)?;
        let null = open_null()?;
        let namespace = |name: &str| {
            fs::File::open(format!("/proc/{init}/ns/{name}")).with_context(|| format!("open the {name} namespace"))
        };
        let (mnt, cgroup) = (namespace("mnt")?, namespace("cgroup")?);
        setns(cgroup, CloneFlags::CLONE_NEWCGROUP).context("enter the cgroup namespace")?;
        setns(mnt, CloneFlags::CLONE_NEWNS).context("enter the mount namespace")?;
        let identity = settle(process, streams, null, &shim)?;
        become_program(process, identity)
    };
    fail(&shim, run().err())
}

fn fail(shim: &UnixStream, error: Option<anyhow::Error>) -> ! {
    let error = error.unwrap_or_else(|| anyhow!("run the program: it returned"));
    let failure = match error.downcast::<Failure>() {
        Ok(failure) => failure,
        Err(other) => Failure { message: format!("{other:#}"), exit_code: 128 },
    };
    let code = failure.exit_code;
    // A shim that has gone cannot be told.
    let _ = wire::send(shim, &FromChild::Failed(failure), &[]);
    // SAFETY: ends this forked child at once, without the exit handlers of the program it was forked from.
    unsafe { libc::_exit(code) }
}

fn open_null() -> Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).context("open /dev/null")
}

/// What comes before the machine's files go out of sight.
fn begin(process: &Process) -> Result<()> {
    signal::sigprocmask(signal::SigmaskHow::SIG_SETMASK, Some(&signal::SigSet::empty()), None)
        .context("unblock signals")?;
    // SAFETY: puts back the default action, which runs no code of ours. Rust ignores SIGPIPE in its own programs.
    unsafe { signal::signal(signal::SIGPIPE, signal::SigHandler::SigDfl) }.context("reset SIGPIPE")?;
    setsid().context("start a session")?;
    for dir in &process.cgroup_dirs {
        fs::write(dir.join("cgroup.procs"), "0").with_context(|| format!("enter cgroup {}", dir.display()))?;
    }
    // Lowering needs a capability that a machine may withhold; the process then is killed a little more willingly.
    if fs::write("/proc/self/oom_score_adj", process.oom_score_adj.to_string()).is_err() && process.oom_score_adj > 0 {
        return Err(anyhow!("set oom_score_adj to {}", process.oom_score_adj));
    }
    Ok(())
}

/// Finds out who it is, connects the standard streams and reports.
fn settle(process: &Process, streams: ChildStreams, null: OwnedFd, shim: &UnixStream) -> Result<Identity> {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let resolved = user::resolve(&process.user, &file("/etc/passwd"), &file("/etc/group"))?;
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    if !fs::exists(cwd).unwrap_or(false) {
        // On a read-only root it cannot be made; entering it says so below.
        let _ = fs::create_dir_all(cwd);
    }
    let mut master = None;
    if process.tty {
        let (ours, theirs) = terminal()?;
        connect(theirs.as_raw_fd(), 0)?;
        connect(theirs.as_raw_fd(), 1)?;
        connect(theirs.as_raw_fd(), 2)?;
        // SAFETY: makes descriptor 0, a terminal, the controlling one of this session; no memory is passed.
        let done = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        nix::errno::Errno::result(done).context("take the terminal")?;
        master = Some(ours);
    } else {
        for (stream, number) in [(streams.stdin, 0), (streams.stdout, 1), (streams.stderr, 2)] {
            connect(stream.as_ref().unwrap_or(&null).as_raw_fd(), number)?;
        }
    }
    // A plain user must be able to open /dev/stdout again.
    let owner = Uid::from_raw(resolved.identity.uid);
    for stream in [std::io::stdin().as_fd(), std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        let is_null = nix::sys::stat::fstat(stream).is_ok_and(|found| found.st_rdev == libc::makedev(1, 3));
        if !is_null && !owner.is_root() {
            fchown(stream, Some(owner), None).context("hand over the standard streams")?;
        }
    }
    let fds: Vec<RawFd> = master.iter().map(|fd: &OwnedFd| fd.as_raw_fd()).collect();
    wire::send(shim, &FromChild::Ready(resolved.identity.clone()), &fds)?;
    // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
    unsafe { std::env::set_var("KNARR_HOME", resolved.home.as_deref().unwrap_or("/")) };
    Ok(resolved.identity)
}

fn connect(fd: RawFd, number: RawFd) -> Result<()> {
    // SAFETY: both are numbers only; `number` is 0, 1 or 2, which nobody in this process owns as an object.
    let done = unsafe { libc::dup2(fd, number) };
    nix::errno::Errno::result(done).context("connect a standard stream")?;
    Ok(())
}

/// Opens a terminal of the container: our side, the program's side.
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let ours = open("/dev/pts/ptmx", flags, Mode::empty()).context("open a terminal")?;
    let unlock: libc::c_int = 0;
    // SAFETY: the call reads one int.
    let done = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &unlock) };
    nix::errno::Errno::result(done).context("unlock the terminal")?;
    // SAFETY: the call takes flags by value and answers a new descriptor.
    let theirs = unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    let theirs = nix::errno::Errno::result(theirs).context("open the terminal's other side")?;
    // SAFETY: the kernel has just opened it for us; nobody else knows it.
    Ok((ours, unsafe { std::os::fd::FromRawFd::from_raw_fd(theirs) }))
}

/// Gives up what the program may not have, and becomes the program. Only returns on failure.
fn become_program(process: &Process, identity: Identity) -> Result<()> {
    for limit in &process.rlimits {
        set_limit(*limit)?;
    }
    let filter = match process.seccomp {
        seccomp::Seccomp::Unconfined => None,
        seccomp::Seccomp::RuntimeDefault => Some(seccomp::default_filter(process.capabilities)),
    };
    let cwd = if process.cwd.is_empty() { "/" } else { process.cwd.as_str() };
    let entered = nix::unistd::chdir(cwd);
    // Without no_new_privileges a filter can only be put on while this process may still administer the machine.
    if let Some(filter) = filter.as_ref().filter(|_| !process.no_new_privileges) {
        seccomp::install(filter)?;
    }
    capability::bound(process.capabilities | process.ambient)?;
    prctl::set_keepcaps(true).context("keep capabilities over the change of user")?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).context("set groups")?;
    let (gid, uid) = (Gid::from_raw(identity.gid), Uid::from_raw(identity.uid));
    setresgid(gid, gid, gid).context("set the group")?;
    setresuid(uid, uid, uid).context("set the user")?;
    if entered.is_err() {
        // Some directories open only to their owner.
        nix::unistd::chdir(cwd).with_context(|| format!("enter the working directory {cwd}"))?;
    }
    capability::apply(process.capabilities, process.ambient)?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().context("set no_new_privs")?;
    }
    // The change of user has cleared it; from here on a container does not outlive its shim.
    prctl::set_pdeathsig(signal::SIGKILL).context("tie the process to its shim")?;
    if let Some(filter) = filter.as_ref().filter(|_| process.no_new_privileges) {
        seccomp::install(filter)?;
    }
    Err(execute(&process.args, &process.env).into())
}

fn set_limit(limit: Rlimit) -> Result<()> {
    let mut current = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit.
    let got = unsafe { libc::getrlimit(limit.resource as _, &mut current) };
    nix::errno::Errno::result(got).context("read a resource limit")?;
    let hard = limit.hard.min(current.rlim_max);
    let wanted = libc::rlimit { rlim_cur: limit.soft.min(hard), rlim_max: hard };
    // SAFETY: the call reads one rlimit.
    let set = unsafe { libc::setrlimit(limit.resource as _, &wanted) };
    nix::errno::Errno::result(set).context("set a resource limit")?;
    Ok(())
}

/// Replaces this process by the program. What comes back is why that failed.
fn execute(args: &[String], env: &[String]) -> Failure {
    let failed = |exit_code, message| Failure { message, exit_code };
    let Some(program) = args.first() else {
        return failed(127, "no command specified".into());
    };
    let mut env = env.to_vec();
    let has = |env: &[String], name: &str| env.iter().any(|one| one.starts_with(name));
    if !has(&env, "PATH=") {
        env.push(DEFAULT_PATH.into());
    }
    if !has(&env, "HOME=") {
        env.push(format!("HOME={}", std::env::var("KNARR_HOME").unwrap_or_default()));
    }
    let strings = |list: &[String]| list.iter().map(|one| CString::new(one.as_str())).collect::<Result<Vec<_>, _>>();
    let (Ok(argv), Ok(envp)) = (strings(args), strings(&env)) else {
        return failed(126, "exec: an argument contains a NUL byte".into());
    };
    let is_path = program.contains('/');
    let path = env.iter().rev().find_map(|one| one.strip_prefix("PATH=")).unwrap_or_default();
    let candidates: Vec<String> = if is_path {
        vec![program.clone()]
    } else {
        path.split(':').map(|dir| format!("{}/{program}", if dir.is_empty() { "." } else { dir })).collect()
    };
    let mut denied = false;
    for candidate in candidates {
        let Ok(name) = CString::new(candidate.as_str()) else {
            continue;
        };
        use nix::errno::Errno;
        match nix::unistd::execve(&name, &argv, &envp) {
            Ok(never) => match never {},
            Err(Errno::ENOENT | Errno::ENOTDIR) if !fs::exists(&candidate).unwrap_or(false) => {}
            Err(Errno::EACCES) => denied |= !fs::metadata(&candidate).is_ok_and(|found| found.is_dir()) || is_path,
            Err(e) => {
                return failed(126, format!("exec {candidate}: {}", e.desc().to_lowercase()));
            }
        }
    }
    match (denied, is_path) {
        (true, _) => failed(126, format!("exec: {program:?}: permission denied")),
        (false, true) => failed(127, format!("exec: {program:?}: stat {program}: no such file or directory")),
        (false, false) => failed(127, format!("exec: {program:?}: executable file not found in $PATH")),
    }
}
