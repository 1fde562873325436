//! The process that keeps a pod: parent of its containers, keeper of its namespaces, writer of its logs.
//!
//! One thread and one event loop. It knows nothing of the server that started it and goes on when that ends; the next
//! one finds it by its socket. It stays small: a machine runs hundreds of these.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    sched::{CloneFlags, setns, unshare},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        prctl,
        signal::{self, SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2},
};

use crate::{
    cgroup,
    log::{Lines, Log, now, timestamp},
    mount,
    process::{self, ChildStreams, FromChild, Process},
    spec::{
        ContainerSpec, ContainerState, Event, ExecSpec, Failure, Identity, Phase, PidMode, Request, Response,
        SandboxSpec,
    },
    wire,
};

/// First argument that makes the binary the parent of shims.
pub(crate) const ARGUMENT: &str = "__pod-shims";

/// Name of the control socket in the sandbox directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// How long a client may take over one frame; it would hold up the pod's logs.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process that every shim is forked from. It reads sandbox directories from a socket, its standard input, and ends
/// when the server that started it does; the shims go on.
///
/// Forking and not executing each time is quick, and what the dynamic linker has written into the pages of a large
/// binary is there once for all shims.
pub(crate) fn nursery() -> ExitCode {
    // SAFETY: marks descriptors as not inherited; none is closed, so no owner is surprised.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // SAFETY: descriptor 0 is the socket that this process was started with, and nothing here reads standard input.
    let server = unsafe { <UnixStream as std::os::fd::FromRawFd>::from_raw_fd(0) };
    if let Err(e) = nix::unistd::setsid().map(drop).and_then(|()| prctl::set_name(c"knarr-nursery")) {
        eprintln!("leave the server's session: {e}");
        return ExitCode::FAILURE;
    }
    loop {
        let (dir, fds) = match wire::receive::<PathBuf>(&server) {
            Ok(Some(request)) => request,
            Ok(None) => return ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e:#}");
                return ExitCode::FAILURE;
            }
        };
        match clone_process(0) {
            Ok(Some(pid)) => {
                drop(fds);
                let _ = waitpid(Pid::from_raw(pid), None);
            }
            // The process in between ends at once, so that the shim belongs to nobody who could wait for it.
            Ok(None) => match clone_process(0) {
                Ok(None) => {
                    std::mem::forget(server);
                    return hatch(&dir, fds);
                }
                _ => return ExitCode::SUCCESS,
            },
            Err(e) => eprintln!("{e:#}"),
        }
    }
}

/// Becomes the shim of one sandbox.
fn hatch(dir: &Path, fds: Vec<OwnedFd>) -> ExitCode {
    let null = fs::File::open("/dev/null");
    if let (Ok(null), [ready, log]) = (null, fds.as_slice()) {
        for (fd, number) in [(null.as_raw_fd(), 0), (ready.as_raw_fd(), 1), (log.as_raw_fd(), 2)] {
            // SAFETY: 0, 1 and 2 are the standard streams, which no object in this process owns.
            unsafe { libc::dup2(fd, number) };
        }
    }
    drop(fds);
    let shim = match Shim::new(dir) {
        Ok(shim) => shim,
        Err(e) => {
            println!("{e:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("ready {}", std::process::id());
    // The starter waits for the end of this stream; everything from here on goes to the log.
    // SAFETY: 1 and 2 are the standard streams, which no object in this process owns.
    unsafe { libc::dup2(2, 1) };
    match shim.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{} {e:#}", timestamp(now()));
            ExitCode::FAILURE
        }
    }
}

struct Shim {
    dir: PathBuf,
    spec: SandboxSpec,
    listener: UnixListener,
    signals: SignalFd,
    epoll: Epoll,
    own_pid_namespace: fs::File,
    /// Keeps the shared process namespace, if there is one.
    pause: Option<i32>,
    containers: BTreeMap<String, Container>,
    /// Processes started by exec, and who waits for them.
    further: BTreeMap<i32, UnixStream>,
    subscribers: Vec<UnixStream>,
}

struct Container {
    process: Process,
    pid_mode: PidMode,
    state: ContainerState,
    /// The first process waits at the other end.
    waiting: Option<UnixStream>,
    stdin: Option<OwnedFd>,
    stdin_once: bool,
    outputs: Vec<Output>,
    log: Option<Log>,
    attached: Vec<[OwnedFd; 2]>,
    oom_kills_before: u64,
}

/// One stream of a container that is read here.
struct Output {
    fd: OwnedFd,
    lines: Lines,
    is_stderr: bool,
}

impl Shim {
    fn new(dir: &Path) -> Result<Self> {
        nix::unistd::setsid().context("start a session")?;
        let spec = fs::read(dir.join("spec.json")).context("read the sandbox's specification")?;
        let spec: SandboxSpec = serde_json::from_slice(&spec).context("decode the sandbox's specification")?;
        prctl::set_child_subreaper(true).context("become the parent of orphans")?;
        prctl::set_name(c"knarr-shim").context("set the process name")?;
        // A shim that is killed takes its pod with it. Lowering needs a capability that the machine may withhold.
        let _ = fs::write("/proc/self/oom_score_adj", "-998");
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        for group in &spec.cgroup_dirs {
            fs::write(group.join("cgroup.procs"), "0").with_context(|| format!("enter cgroup {}", group.display()))?;
        }
        let mut flags = CloneFlags::empty();
        if !spec.host_network {
            flags |= CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS;
        }
        if !spec.host_ipc {
            flags |= CloneFlags::CLONE_NEWIPC;
        }
        unshare(flags).context("make the pod's namespaces")?;
        if !spec.host_network && !spec.hostname.is_empty() {
            nix::unistd::sethostname(&spec.hostname).context("set the host name")?;
        }
        for (name, value) in &spec.sysctls {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            fs::write(&path, value).with_context(|| format!("set sysctl {name}={value}"))?;
        }
        if !spec.host_ipc {
            let shm = dir.join("shm");
            fs::create_dir_all(&shm).context("make a directory for shared memory")?;
            mount::shared_memory(&shm, spec.shm_size)?;
        }
        let own_pid_namespace = fs::File::open("/proc/self/ns/pid").context("open the process namespace")?;
        let pause = if spec.shared_pid { Some(start_pause()?) } else { None };

        // A path of any length fits a socket address when it is relative.
        nix::unistd::chdir(dir).context("enter the sandbox directory")?;
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).context("listen on the control socket")?;
        fs::set_permissions(SOCKET, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .context("guard the control socket")?;
        nix::unistd::chdir("/").context("leave the sandbox directory")?;

        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block().context("block SIGCHLD")?;
        let signals =
            SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("open a signalfd")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("open an epoll")?;
        for fd in [listener.as_fd(), signals.as_fd()] {
            epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, fd.as_raw_fd() as u64)).context("watch a descriptor")?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            spec,
            listener,
            signals,
            epoll,
            own_pid_namespace,
            pause,
            containers: BTreeMap::new(),
            further: BTreeMap::new(),
            subscribers: Vec::new(),
        })
    }

    fn run(mut self) -> Result<()> {
        loop {
            let mut events = [EpollEvent::empty(); 8];
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.context("wait for events")?,
            };
            for event in &events[..count] {
                let fd = event.data() as RawFd;
                if fd == self.signals.as_raw_fd() {
                    while let Ok(Some(_)) = self.signals.read_signal() {}
                    self.reap();
                } else if fd == self.listener.as_raw_fd() {
                    match self.serve() {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(e) => eprintln!("{} serve a request: {e:#}", timestamp(now())),
                    }
                } else {
                    self.read_output(fd);
                }
            }
        }
    }

    /// Answers one request. True if it was the last.
    fn serve(&mut self) -> Result<bool> {
        let (socket, _) = self.listener.accept().context("accept a connection")?;
        socket.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
        socket.set_write_timeout(Some(PATIENCE)).context("set a timeout")?;
        let Some((request, _)) = wire::receive::<Request>(&socket)? else {
            return Ok(false);
        };
        if matches!(request, Request::Stop) {
            self.stop()?;
            wire::send(&socket, &Response::Done, &[])?;
            return Ok(true);
        }
        if matches!(request, Request::Subscribe) {
            wire::send(&socket, &Response::State(self.state()), &[])?;
            self.subscribers.push(socket);
            return Ok(false);
        }
        let (response, fds) = match self.handle(request) {
            Ok(answer) => answer,
            Err(e) => {
                let failure = match e.downcast::<Failure>() {
                    Ok(failure) => failure,
                    Err(other) => Failure { message: format!("{other:#}"), exit_code: 128 },
                };
                (Response::Error(failure), Vec::new())
            }
        };
        let numbers: Vec<RawFd> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        wire::send(&socket, &response, &numbers)?;
        if let Response::Exec { pid } = response {
            self.further.insert(pid, socket);
            // It may have ended before anybody was there to be told.
            self.reap();
        }
        Ok(false)
    }

    fn state(&self) -> Vec<ContainerState> {
        self.containers.values().map(|container| container.state.clone()).collect()
    }

    fn find(&mut self, id: &str) -> Result<&mut Container> {
        self.containers.get_mut(id).ok_or_else(|| anyhow!("no container {id} in this sandbox"))
    }

    fn handle(&mut self, request: Request) -> Result<(Response, Vec<OwnedFd>)> {
        let done = || Ok((Response::Done, Vec::new()));
        match request {
            Request::Create(spec) => {
                let (pid, user) = self.create(*spec)?;
                Ok((Response::Created { pid, user }, Vec::new()))
            }
            Request::Start { id } => {
                self.start(&id)?;
                done()
            }
            Request::Kill { id, signal } => {
                let container = self.find(&id)?;
                if container.state.pid > 0 {
                    send_signal(container.state.pid, signal)?;
                }
                done()
            }
            Request::Remove { id } => {
                if self.containers.get(&id).is_some_and(|container| container.state.pid > 0) {
                    bail!("remove container {id}: it still runs");
                }
                self.containers.remove(&id);
                let _ = fs::remove_file(self.dir.join(format!("exit-{id}")));
                done()
            }
            Request::Exec(spec) => {
                let (pid, fds) = self.exec(spec)?;
                Ok((Response::Exec { pid }, fds))
            }
            Request::SignalExec { pid, signal } => {
                if self.further.contains_key(&pid) {
                    send_signal(pid, signal)?;
                }
                done()
            }
            Request::Attach { id } => {
                let container = self.find(&id)?;
                if container.state.phase == Phase::Exited {
                    bail!("container {id} is not running");
                }
                let (out, their_out) = stream_pipe()?;
                let (err, their_err) = stream_pipe()?;
                set_nonblocking(their_out.as_fd())?;
                set_nonblocking(their_err.as_fd())?;
                container.attached.push([their_out, their_err]);
                let mut fds = vec![out, err];
                if let Some(stdin) = &container.stdin {
                    fds.push(stdin.try_clone().context("share the standard input")?);
                }
                let (tty, stdin) = (container.process.tty, container.stdin.is_some());
                Ok((Response::Attached { tty, stdin }, fds))
            }
            Request::CloseStdin { id } => {
                let container = self.find(&id)?;
                if container.stdin_once && !container.process.tty {
                    container.stdin = None;
                }
                done()
            }
            Request::ReopenLog { id } => {
                if let Some(log) = &mut self.find(&id)?.log {
                    log.reopen().context("reopen the log")?;
                }
                done()
            }
            Request::State => Ok((Response::State(self.state()), Vec::new())),
            Request::Subscribe | Request::Stop => bail!("this request is answered elsewhere"),
        }
    }

    /// Forks with the process namespace that `mode` names. `None` in the child.
    fn fork(&self, mode: &PidMode) -> Result<Option<i32>> {
        let target = match mode {
            PidMode::Container => return clone_process(libc::CLONE_NEWNS | libc::CLONE_NEWPID),
            PidMode::Host => None,
            PidMode::Pod => Some(self.pause.context("the sandbox has no shared process namespace")?),
            PidMode::Target(id) => Some(
                self.containers
                    .get(id)
                    .map(|container| container.state.pid)
                    .filter(|pid| *pid > 0)
                    .ok_or_else(|| anyhow!("target container {id} is not running"))?,
            ),
        };
        self.fork_beside(target, libc::CLONE_NEWNS)
    }

    /// Forks into the process namespace of `target`. `None` in the child.
    fn fork_beside(&self, target: Option<i32>, flags: libc::c_int) -> Result<Option<i32>> {
        let Some(target) = target else {
            return clone_process(flags);
        };
        let namespace =
            fs::File::open(format!("/proc/{target}/ns/pid")).context("open the container's process namespace")?;
        setns(namespace, CloneFlags::CLONE_NEWPID).context("enter the container's process namespace")?;
        let forked = clone_process(flags);
        if !matches!(forked, Ok(None)) {
            setns(&self.own_pid_namespace, CloneFlags::CLONE_NEWPID).context("return to the own process namespace")?;
        }
        forked
    }

    fn create(&mut self, spec: ContainerSpec) -> Result<(i32, Identity)> {
        if self.containers.contains_key(&spec.id) {
            bail!("create container {}: it exists", spec.id);
        }
        let log = match &spec.log_path {
            Some(path) => Some(Log::open(path.clone()).with_context(|| format!("open log {}", path.display()))?),
            None => None,
        };
        let (ours, theirs) = wire::pair().context("make a socket pair")?;
        let mut streams = ChildStreams::default();
        let mut outputs = Vec::new();
        let mut stdin = None;
        if !spec.tty {
            for (name, is_stderr) in [("stdout", false), ("stderr", true)] {
                let (read, write) = stream_pipe()?;
                set_nonblocking(read.as_fd())?;
                outputs.push(Output { fd: read, lines: Lines::new(name), is_stderr });
                *(if is_stderr { &mut streams.stderr } else { &mut streams.stdout }) = Some(write);
            }
            if spec.stdin {
                let (read, write) = stream_pipe()?;
                (streams.stdin, stdin) = (Some(read), Some(write));
            }
        }
        let shm = (!spec.host_ipc).then(|| self.dir.join("shm"));
        let oom_kills_before = cgroup::oom_kills(&spec.cgroup_dirs);
        let Some(pid) = self.fork(&spec.pid)? else {
            drop(ours);
            process::container(&spec, shm, streams, theirs)
        };
        drop((theirs, streams));
        let (identity, master) = match await_child(&ours) {
            Ok(Some(ready)) => ready,
            Ok(None) => {
                self.discard(pid);
                bail!("create container {}: its first process ended early", spec.id);
            }
            Err(e) => {
                self.discard(pid);
                return Err(e);
            }
        };
        if let Some(master) = master {
            // The kernel wants a terminal's own buffer read and written by one descriptor each.
            stdin = Some(master.try_clone().context("share the terminal")?);
            set_nonblocking(master.as_fd())?;
            outputs.push(Output { fd: master, lines: Lines::new("stdout"), is_stderr: false });
        }
        for output in &outputs {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, output.fd.as_raw_fd() as u64);
            self.epoll.add(output.fd.as_fd(), event).context("watch the container's output")?;
        }
        let mut process = Process::of(&spec);
        process.args = Vec::new();
        let state = ContainerState {
            id: spec.id.clone(),
            pid,
            phase: Phase::Created,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            oom_killed: false,
        };
        let container = Container {
            process,
            pid_mode: spec.pid,
            state,
            waiting: Some(ours),
            stdin,
            stdin_once: spec.stdin_once,
            outputs,
            log,
            attached: Vec::new(),
            oom_kills_before,
        };
        self.containers.insert(spec.id, container);
        Ok((pid, identity))
    }

    /// Ends a child that did not get far.
    fn discard(&mut self, pid: i32) {
        let _ = send_signal(pid, libc::SIGKILL);
        let _ = waitpid(Pid::from_raw(pid), None);
    }

    fn start(&mut self, id: &str) -> Result<()> {
        let container = self.find(id)?;
        let Some(socket) = container.waiting.take() else { bail!("container {id} has been started before") };
        (&socket).write_all(b"!").context("give the word to start")?;
        container.state.started_at = now();
        container.state.phase = Phase::Running;
        // The socket closes when the program begins; before that only bad news can come.
        if let Some((message, _)) = wire::receive::<FromChild>(&socket)?
            && let FromChild::Failed(failure) = message
        {
            return Err(failure.into());
        }
        Ok(())
    }

    fn exec(&mut self, spec: ExecSpec) -> Result<(i32, Vec<OwnedFd>)> {
        let container = self.find(&spec.container)?;
        if container.state.phase != Phase::Running || container.state.pid == 0 {
            bail!("container {} is not running", spec.container);
        }
        let init = container.state.pid;
        let mut process = container.process.clone();
        process.args = spec.args;
        for variable in spec.env {
            let name = variable.split_inclusive('=').next().unwrap_or_default().to_owned();
            process.env.retain(|one| !one.starts_with(&name));
            process.env.push(variable);
        }
        process.tty = spec.tty;
        if spec.tty && !process.env.iter().any(|one| one.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        if let Some(user) = spec.user {
            process.user = user;
        }
        if !spec.cwd.is_empty() {
            process.cwd = spec.cwd;
        }
        let target = (container.pid_mode != PidMode::Host).then_some(init);
        let (ours, theirs) = wire::pair().context("make a socket pair")?;
        let mut streams = ChildStreams::default();
        let mut fds = Vec::new();
        if !spec.tty {
            let (out, their_out) = stream_pipe()?;
            let (err, their_err) = stream_pipe()?;
            (streams.stdout, streams.stderr) = (Some(their_out), Some(their_err));
            fds.extend([out, err]);
            if spec.stdin {
                let (their_in, stdin) = stream_pipe()?;
                streams.stdin = Some(their_in);
                fds.push(stdin);
            }
        }
        let Some(pid) = self.fork_beside(target, 0)? else {
            drop(ours);
            process::further(&process, init, streams, theirs)
        };
        drop((theirs, streams));
        let outcome = await_child(&ours).and_then(|ready| {
            let (_, master) = ready.context("run the command: its process ended early")?;
            match wire::receive::<FromChild>(&ours)? {
                Some((FromChild::Failed(failure), _)) => Err(failure.into()),
                _ => Ok(master),
            }
        });
        match outcome {
            Ok(master) => {
                fds.extend(master);
                Ok((pid, fds))
            }
            Err(e) => {
                self.discard(pid);
                Err(e)
            }
        }
    }

    /// Collects every process that has ended.
    fn reap(&mut self) {
        loop {
            let (pid, code) = match waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return,
                Err(nix::errno::Errno::EINTR) | Ok(_) => continue,
                Err(e) => {
                    eprintln!("{} wait for processes: {e}", timestamp(now()));
                    return;
                }
            };
            if let Some(socket) = self.further.remove(&pid) {
                // Whoever waited for it may have gone.
                let _ = wire::send(&socket, &Event::ExecExited { code }, &[]);
            } else if let Some(id) = self.containers.values().find(|c| c.state.pid == pid).map(|c| c.state.id.clone()) {
                self.ended(&id, code);
            }
        }
    }

    fn ended(&mut self, id: &str, code: i32) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if container.pid_mode != PidMode::Container {
            // Where the first process is not number one, its children outlive it.
            cgroup::kill_all(&container.process.cgroup_dirs);
        }
        let numbers: Vec<RawFd> = container.outputs.iter().map(|output| output.fd.as_raw_fd()).collect();
        for fd in numbers {
            while self.read_output(fd) {}
        }
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let mut rest = Vec::new();
        let time = now();
        for mut output in container.outputs.drain(..) {
            output.lines.finish(&timestamp(time), &mut rest);
        }
        if let Some(log) = &mut container.log
            && let Err(e) = log.write(&rest)
        {
            eprintln!("{} write the log of {id}: {e}", timestamp(time));
        }
        container.attached.clear();
        (container.stdin, container.waiting, container.log) = (None, None, None);
        let state = &mut container.state;
        state.pid = 0;
        state.phase = Phase::Exited;
        state.finished_at = time;
        state.exit_code = code;
        state.oom_killed = cgroup::oom_kills(&container.process.cgroup_dirs) > container.oom_kills_before;
        let state = state.clone();
        if let Err(e) = record(&self.dir, &state) {
            eprintln!("{} record the end of {id}: {e:#}", timestamp(time));
        }
        let event = Event::Exited(state);
        self.subscribers.retain(|socket| wire::send(socket, &event, &[]).is_ok());
    }

    /// Takes what there is to read of one output. True if there may be more.
    fn read_output(&mut self, fd: RawFd) -> bool {
        let Some(container) = self.containers.values_mut().find(|c| c.outputs.iter().any(|o| o.fd.as_raw_fd() == fd))
        else {
            return false;
        };
        let Some(position) = container.outputs.iter().position(|output| output.fd.as_raw_fd() == fd) else {
            return false;
        };
        let mut buffer = [0; 8192];
        let output = &mut container.outputs[position];
        let count = match nix::unistd::read(&output.fd, &mut buffer) {
            Err(nix::errno::Errno::EAGAIN) => return false,
            Err(nix::errno::Errno::EINTR) => return true,
            // The last program has let go of its side: an error from a terminal, the end of a pipe.
            Ok(0) | Err(_) => {
                let mut rest = Vec::new();
                output.lines.finish(&timestamp(now()), &mut rest);
                let _ = self.epoll.delete(output.fd.as_fd());
                container.outputs.remove(position);
                if let Some(log) = &mut container.log {
                    let _ = log.write(&rest);
                }
                return false;
            }
            Ok(count) => count,
        };
        let bytes = &buffer[..count];
        if let Some(log) = &mut container.log {
            let mut lines = Vec::with_capacity(count + 64);
            output.lines.push(bytes, &timestamp(now()), &mut lines);
            if let Err(e) = log.write(&lines) {
                eprintln!("{} write the log of {}: {e}", timestamp(now()), container.state.id);
            }
        }
        let index = usize::from(output.is_stderr);
        container.attached.retain(|streams| pass_on(streams[index].as_fd(), bytes));
        true
    }

    /// Ends every container, and leaves nothing mounted.
    fn stop(&mut self) -> Result<()> {
        for container in self.containers.values().filter(|container| container.state.pid > 0) {
            let _ = send_signal(container.state.pid, libc::SIGKILL);
            if container.pid_mode != PidMode::Container {
                cgroup::kill_all(&container.process.cgroup_dirs);
            }
        }
        while let Some(pid) = self.containers.values().map(|c| c.state.pid).find(|pid| *pid > 0) {
            let code = match waitpid(Pid::from_raw(pid), None) {
                Ok(WaitStatus::Exited(_, code)) => code,
                Err(nix::errno::Errno::EINTR) => continue,
                _ => 128 + libc::SIGKILL,
            };
            if let Some(id) = self.containers.values().find(|c| c.state.pid == pid).map(|c| c.state.id.clone()) {
                self.ended(&id, code);
            }
        }
        if let Some(pause) = self.pause.take() {
            self.discard(pause);
        }
        if !self.spec.host_ipc {
            mount::unmount(&self.dir.join("shm"))?;
        }
        let _ = fs::remove_file(self.dir.join(SOCKET));
        Ok(())
    }
}

/// Writes the end of a container where it is found even if nobody listens now.
fn record(dir: &Path, state: &ContainerState) -> Result<()> {
    let path = dir.join(format!("exit-{}", state.id));
    let fresh = dir.join(format!("exit-{}.new", state.id));
    fs::write(&fresh, serde_json::to_vec(state).context("encode")?).context("write")?;
    fs::rename(&fresh, &path).context("rename")
}

/// Passes output to somebody who attached. False if that one has gone, or does not read for a while.
fn pass_on(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    use nix::poll::{PollFd, PollFlags, poll};
    while !bytes.is_empty() {
        match nix::unistd::write(stream, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => {
                let mut wanted = [PollFd::new(stream, PollFlags::POLLOUT)];
                if !matches!(poll(&mut wanted, 200u16), Ok(ready) if ready > 0) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
    true
}

/// The child's first word: who it is, and its terminal. `None` if it ended without one.
fn await_child(socket: &UnixStream) -> Result<Option<(Identity, Option<OwnedFd>)>> {
    match wire::receive::<FromChild>(socket)? {
        Some((FromChild::Ready(identity), fds)) => Ok(Some((identity, fds.into_iter().next()))),
        Some((FromChild::Failed(failure), _)) => Err(failure.into()),
        None => Ok(None),
    }
}

fn stream_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe2(OFlag::O_CLOEXEC).context("make a pipe")
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GETFL).context("read flags")?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).context("set flags")?;
    Ok(())
}

fn send_signal(pid: i32, number: i32) -> Result<()> {
    // SAFETY: passes two numbers. `kill` of nix knows no real-time signals.
    match nix::errno::Errno::result(unsafe { libc::kill(pid, number) }) {
        Ok(_) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("send signal {number} to process {pid}")),
    }
}

/// A fork into new namespaces. `None` in the child.
fn clone_process(flags: libc::c_int) -> Result<Option<i32>> {
    // SAFETY: without CLONE_VM and without a stack this is a fork; this process has one thread, so the child may go on
    // as if it were the parent. The order of the last two arguments differs between machines: both are zero.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
    match nix::errno::Errno::result(pid).context("fork")? {
        0 => Ok(None),
        pid => Ok(Some(pid as i32)),
    }
}

/// Starts the process that keeps a shared process namespace and buries its orphans.
fn start_pause() -> Result<i32> {
    if let Some(pid) = clone_process(libc::CLONE_NEWPID)? {
        return Ok(pid);
    }
    // Ignored children are buried by the kernel. Failing here leaves a namespace that fills with dead processes.
    // SAFETY: sets a disposition that runs no code of ours.
    let _ = unsafe { signal::signal(Signal::SIGCHLD, signal::SigHandler::SigIgn) };
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    // SAFETY: descriptor 1 tells the starter of the shim that it is ready: this process must not hold it.
    unsafe { libc::dup2(2, 1) };
    loop {
        nix::unistd::pause();
    }
}
