//! The server's side of a shim: starting one, finding one again, and asking it for things.
//!
//! Calls block for the milliseconds that they take; an asynchronous caller makes them from a blocking task.

use std::{
    fs,
    io::Read as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    shim,
    spec::{ContainerSpec, ContainerState, Event, ExecSpec, Identity, Request, Response, SandboxSpec},
    wire,
};

/// How long a shim may take to answer. Stopping a pod waits for the kernel to bury its processes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts shims: a process with one thread that forks them, see [`crate::dispatch`]. It ends with this value, the shims
/// do not.
#[derive(Debug)]
pub struct Nursery {
    exe: PathBuf,
    process: Mutex<(Child, UnixStream)>,
}

impl Nursery {
    /// Starts the process from `exe`, a binary whose `main` begins with [`crate::dispatch`].
    pub fn start(exe: &Path) -> Result<Self> {
        Ok(Self { exe: exe.to_owned(), process: Mutex::new(Self::spawn(exe)?) })
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that starts the parent of shims")]
    fn spawn(exe: &Path) -> Result<(Child, UnixStream)> {
        let (ours, theirs) = wire::pair().context("make a socket pair")?;
        let child = Command::new(exe)
            .arg(shim::ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", exe.display()))?;
        Ok((child, ours))
    }

    /// Starts a shim for the sandbox directory `dir`, which must exist. Returns when the pod's namespaces exist, with the
    /// process number of the shim.
    pub fn shim(&self, dir: &Path, spec: &SandboxSpec) -> Result<(Shim, i32)> {
        fs::write(dir.join("spec.json"), serde_json::to_vec(spec).context("encode the sandbox's specification")?)
            .context("write the sandbox's specification")?;
        let log = fs::File::create(dir.join("shim.log")).context("create the shim's log")?;
        let (mut word, ready) = std::io::pipe().context("make a pipe")?;
        {
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            let fds = [ready.as_raw_fd(), log.as_raw_fd()];
            if wire::send(&process.1, &dir, &fds).is_err() {
                // It holds nothing that a new one could not do as well.
                let (mut old, _) = std::mem::replace(&mut *process, Self::spawn(&self.exe)?);
                old.wait().context("bury the parent of shims")?;
                wire::send(&process.1, &dir, &fds)?;
            }
        }
        drop((ready, log));
        let mut answer = String::new();
        word.read_to_string(&mut answer).context("listen to the shim")?;
        match answer.trim().strip_prefix("ready ").and_then(|pid| pid.parse().ok()) {
            Some(pid) => Ok((Shim { dir: dir.to_owned() }, pid)),
            None if answer.trim().is_empty() => {
                let log = fs::read_to_string(dir.join("shim.log")).unwrap_or_default();
                bail!("start the pod's shim: it ended without a word: {}", log.trim())
            }
            None => bail!("start the pod's shim: {}", answer.trim()),
        }
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        let (child, socket) = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It reads the end of the socket and ends; then there is only its number to give back.
        let _ = socket.shutdown(std::net::Shutdown::Both);
        let _ = child.wait();
    }
}

/// The shim of one sandbox. Cheap to clone: it is only the way to its socket.
#[derive(Clone, Debug)]
pub struct Shim {
    dir: PathBuf,
}

/// A process started by [`Shim::exec`].
#[derive(Debug)]
pub struct Exec {
    /// Its number on the machine.
    pub pid: i32,
    /// Its output, or all of its terminal, which is read and written.
    pub stdout: OwnedFd,
    /// Its error output, if it has no terminal.
    pub stderr: Option<OwnedFd>,
    /// Its input, if asked for and if it has no terminal.
    pub stdin: Option<OwnedFd>,
    /// Tells the end of the process: one [`Event::ExecExited`] frame, see [`read_event`].
    pub exit: UnixStream,
}

/// The streams of a container's first process.
#[derive(Debug)]
pub struct Attached {
    /// True if the streams are one terminal.
    pub tty: bool,
    /// What it prints from now on.
    pub stdout: OwnedFd,
    /// What it prints as errors from now on.
    pub stderr: OwnedFd,
    /// Its input or its terminal, if it was created with one.
    pub stdin: Option<OwnedFd>,
}

impl Shim {
    /// The shim that was started for `dir` before, if it answers.
    pub fn find(dir: &Path) -> Option<Self> {
        let shim = Self { dir: dir.to_owned() };
        shim.connect().ok()?;
        Some(shim)
    }

    fn connect(&self) -> Result<UnixStream> {
        // By way of an open directory, a path of any length fits a socket address.
        let dir = fs::File::open(&self.dir).context("open the sandbox directory")?;
        let path = format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), shim::SOCKET);
        UnixStream::connect(path).context("connect to the pod's shim")
    }

    fn ask(&self, request: &Request) -> Result<(Response, Vec<OwnedFd>, UnixStream)> {
        let socket = self.connect()?;
        socket.set_read_timeout(Some(PATIENCE)).context("set a timeout")?;
        wire::send(&socket, request, &[])?;
        match wire::receive(&socket)? {
            Some((Response::Error(failure), _)) => Err(failure.into()),
            Some((response, fds)) => Ok((response, fds, socket)),
            None => bail!("ask the pod's shim: it closed the connection"),
        }
    }

    /// Prepares a container up to the point where only its program is missing. Answers the process number on the
    /// machine, and who it will be.
    pub fn create(&self, spec: ContainerSpec) -> Result<(i32, Identity)> {
        match self.ask(&Request::Create(Box::new(spec)))?.0 {
            Response::Created { pid, user } => Ok((pid, user)),
            other => bail!("create a container: the shim answered {other:?}"),
        }
    }

    /// Runs the program of a container. Fails with [`crate::Failure`] if there is no such program.
    pub fn start_container(&self, id: &str) -> Result<()> {
        self.ask(&Request::Start { id: id.to_owned() }).map(drop)
    }

    /// Sends a signal to the first process of a container; none there is success.
    pub fn kill(&self, id: &str, signal: i32) -> Result<()> {
        self.ask(&Request::Kill { id: id.to_owned(), signal }).map(drop)
    }

    /// Forgets a container that has ended.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.ask(&Request::Remove { id: id.to_owned() }).map(drop)
    }

    /// Runs a further process in a container. Fails with [`crate::Failure`] if there is no such program.
    pub fn exec(&self, spec: ExecSpec) -> Result<Exec> {
        let (tty, stdin) = (spec.tty, spec.stdin);
        let (response, fds, exit) = self.ask(&Request::Exec(spec))?;
        let Response::Exec { pid } = response else { bail!("run a command: the shim answered {response:?}") };
        exit.set_read_timeout(None).context("set a timeout")?;
        let mut fds = fds.into_iter();
        let stdout = fds.next().context("receive the output")?;
        let stderr = if tty { None } else { Some(fds.next().context("receive the error output")?) };
        let stdin = if tty || !stdin { None } else { Some(fds.next().context("receive the input")?) };
        Ok(Exec { pid, stdout, stderr, stdin, exit })
    }

    /// Sends a signal to a process that [`Shim::exec`] started; one that has ended is success.
    pub fn signal_exec(&self, pid: i32, signal: i32) -> Result<()> {
        self.ask(&Request::SignalExec { pid, signal }).map(drop)
    }

    /// Joins the streams of a container's first process.
    pub fn attach(&self, id: &str) -> Result<Attached> {
        let (response, fds, _) = self.ask(&Request::Attach { id: id.to_owned() })?;
        let Response::Attached { tty, stdin } = response else { bail!("attach: the shim answered {response:?}") };
        let mut fds = fds.into_iter();
        let stdout = fds.next().context("receive the output")?;
        let stderr = fds.next().context("receive the error output")?;
        let stdin = if stdin { Some(fds.next().context("receive the input")?) } else { None };
        Ok(Attached { tty, stdout, stderr, stdin })
    }

    /// Lets go of a container's input, if it was created to end with the first who attached.
    pub fn close_stdin(&self, id: &str) -> Result<()> {
        self.ask(&Request::CloseStdin { id: id.to_owned() }).map(drop)
    }

    /// Goes on in a new log file of the same name.
    pub fn reopen_log(&self, id: &str) -> Result<()> {
        self.ask(&Request::ReopenLog { id: id.to_owned() }).map(drop)
    }

    /// All containers of the sandbox.
    pub fn state(&self) -> Result<Vec<ContainerState>> {
        match self.ask(&Request::State)?.0 {
            Response::State(state) => Ok(state),
            other => bail!("read the state: the shim answered {other:?}"),
        }
    }

    /// All containers of the sandbox now, and a socket that tells each end from now on, see [`read_event`]. It closes
    /// when the shim ends.
    pub fn subscribe(&self) -> Result<(Vec<ContainerState>, UnixStream)> {
        let (response, _, socket) = self.ask(&Request::Subscribe)?;
        socket.set_read_timeout(None).context("set a timeout")?;
        match response {
            Response::State(state) => Ok((state, socket)),
            other => bail!("subscribe: the shim answered {other:?}"),
        }
    }

    /// Ends every container and the shim. The pod's namespaces go with it.
    pub fn stop(&self) -> Result<()> {
        self.ask(&Request::Stop).map(drop)
    }
}

/// The next event, blocking; `None` when the shim has closed the connection.
pub fn read_event(socket: &UnixStream) -> Result<Option<Event>> {
    Ok(wire::receive(socket)?.map(|(event, _)| event))
}

/// What the shim recorded when a container ended, for a caller that comes later than the shim lived.
pub fn recorded_exit(dir: &Path, id: &str) -> Option<ContainerState> {
    serde_json::from_slice(&fs::read(dir.join(format!("exit-{id}"))).ok()?).ok()
}

/// Sets the size of a terminal, in characters. The programs in it are told by a signal.
pub fn set_terminal_size(terminal: std::os::fd::BorrowedFd<'_>, width: u16, height: u16) -> Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call reads one winsize.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    nix::errno::Errno::result(done).context("set the size of the terminal")?;
    Ok(())
}
