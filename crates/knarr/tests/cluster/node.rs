//! A machine of its own for a test: namespaces, directories, a server, and the clients to it.

#![expect(clippy::disallowed_methods, reason = "this is the helper through which the tests run programs")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a program has said.
#[derive(Debug)]
pub struct Said {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The exit status as a number.
    pub fn code(&self) -> i32 {
        self.status.code().expect("it ended by itself")
    }
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Said {
    let output = command.output().unwrap_or_else(|e| panic!("run {command:?}: {e}"));
    Said {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program by its line; it must succeed.
pub fn shell(line: &str) -> String {
    let said = run(Command::new("sh").args(["-c", line]));
    assert!(said.status.success(), "{line}: {said:?}");
    said.out
}

/// A directory that `cargo xtask` fills.
pub fn made(what: &str, by: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let path = target.join(what);
    assert!(path.exists(), "{} is missing: run `cargo xtask {by}` first", path.display());
    path
}

/// The archive of an image.
pub fn archive(name: &str) -> PathBuf {
    made(&format!("knarr-images/{name}.tar"), "images")
}

/// kubectl 1.37.
pub fn kubectl() -> PathBuf {
    made("clients/kubectl-1.37/kubectl", "clients")
}

/// A kubectl of another version: the machine's own, or the one that `cargo xtask clients` fetched in its stead.
pub fn other_kubectl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path).map(|dir| dir.join("kubectl")).find(|file| file.is_file());
    own.unwrap_or_else(|| made("clients/kubectl-1.32/kubectl", "clients"))
}

/// helm, of the same wheel as kubectl.
pub fn helm() -> PathBuf {
    made("clients/kubectl-1.37/helm", "clients")
}

/// A directory of the examples.
pub fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name).display().to_string()
}

/// Brings one more image to a machine.
pub fn import(node: &Node, name: &str) {
    let said = run(node.knarr("image").arg("import").args(node.dirs()).arg(archive(name)));
    assert!(said.status.success(), "{said:?}");
}

/// A manifest of the tests.
pub fn manifest(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name).display().to_string()
}

/// Waits until something is there.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{what}: not after {} s", PATIENCE.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A machine with a server, or the place for one.
pub struct Node {
    dir: TempDir,
    server: Option<Child>,
    cgroup: String,
    /// More options of `knarr server`.
    pub options: Vec<String>,
}

impl Node {
    /// A machine without knarr. Puts this thread, and what it starts from now on, into namespaces of their own.
    pub fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(nix::unistd::geteuid().is_root(), "the whole-cluster tests need root");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("make namespaces");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("keep mounts to this namespace");
        let dir = tempfile::tempdir().expect("make a directory");
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=755")).expect("mount a tmpfs");
        shell("busybox ip link set lo up");
        let cgroup = format!("knarr-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self { dir, server: None, cgroup, options: Vec::new() }
    }

    /// A machine whose server is ready and has the tutorial's images.
    pub fn ready() -> Self {
        let mut node = Self::empty();
        let names =
            ["gihyodocker-nginx-latest", "gihyodocker-echo-latest", "gihyodocker-echo-patched", "busybox-latest"];
        let import = run(node.knarr("image").arg("import").args(node.dirs()).args(names.map(archive)));
        assert!(import.status.success(), "{import:?}");
        node.start();
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    pub fn dirs(&self) -> [String; 2] {
        [format!("--data-dir={}", self.data().display()), format!("--run-dir={}", self.path("run").display())]
    }

    /// A `knarr` subcommand.
    pub fn knarr(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_knarr"));
        command.arg(subcommand).env_remove("KNARR_LOG").stdin(Stdio::null());
        command
    }

    /// `knarr server` with the options of this machine.
    pub fn server(&self) -> Command {
        let mut command = self.knarr("server");
        command
            .args(self.dirs())
            .arg(format!("--cgroup-root={}", self.cgroup))
            .arg("--node-name=node-1")
            .args(&self.options);
        command
    }

    /// Starts the server and waits until it says that it is ready; how long that took.
    pub fn start(&mut self) -> Duration {
        assert!(self.server.is_none(), "the server runs already");
        let log = File::options().create(true).append(true).open(self.path("log")).expect("open the log");
        let begin = Instant::now();
        let mut child = self.server().stdout(Stdio::piped()).stderr(log).spawn().expect("start the server");
        let out = child.stdout.take().expect("its output");
        self.server = Some(child);
        let lines = lines(out);
        let first = lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the server does not get ready: {e}"));
        assert!(first.starts_with("knarr is ready"), "{first}");
        begin.elapsed()
    }

    /// The server's process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.server.as_ref().expect("a server runs").id().cast_signed())
    }

    /// Sends the server a signal and waits for its end.
    pub fn signal(&mut self, signal: Signal) -> ExitStatus {
        kill(self.pid(), signal).expect("send a signal");
        let mut server = self.server.take().expect("a server runs");
        let begin = Instant::now();
        loop {
            if let Some(status) = server.try_wait().expect("wait for the server") {
                return status;
            }
            if begin.elapsed() > PATIENCE {
                server.kill().expect("kill the server");
                server.wait().expect("wait for the server");
                panic!("the server does not end after {signal}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// `knarr uninstall`.
    pub fn uninstall(&self) -> Said {
        let mut uninstall = self.knarr("uninstall");
        run(uninstall.args(self.dirs()).arg(format!("--cgroup-root={}", self.cgroup)).arg("--yes"))
    }

    fn client(&self, kubectl: &Path) -> Command {
        let mut command = Command::new(kubectl);
        command
            .env("KUBECONFIG", self.data().join("admin.kubeconfig"))
            .env("HOME", self.path("home"))
            .stdin(Stdio::null());
        command
    }

    /// kubectl 1.37 with these words.
    pub fn kubectl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.client(&kubectl());
        command.args(args);
        command
    }

    /// [`other_kubectl`] with these words.
    pub fn other_kubectl_with(&self, line: &str) -> Command {
        let mut command = self.client(&other_kubectl());
        command.args(line.split_whitespace());
        command
    }

    /// Runs a line with [`other_kubectl`].
    pub fn other_kubectl(&self, line: &str) -> Said {
        run(&mut self.other_kubectl_with(line))
    }

    /// docker's command line with these words, against the server's socket.
    pub fn docker<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = std::env::split_paths(&path).map(|dir| dir.join("docker")).find(|file| file.is_file());
        let mut command = Command::new(own.unwrap_or_else(|| made("clients/docker/docker", "clients")));
        command
            .env("DOCKER_HOST", format!("unix://{}", self.path("run/docker.sock").display()))
            .env("HOME", self.path("home"))
            .stdin(Stdio::null())
            .args(args);
        command
    }

    /// Runs a kubectl line, whatever its end.
    pub fn try_kubectl(&self, line: &str) -> Said {
        run(&mut self.kubectl(line.split_whitespace()))
    }

    /// Runs a kubectl line that must succeed; what it said.
    pub fn ok(&self, line: &str) -> String {
        let said = self.try_kubectl(line);
        assert!(said.status.success(), "kubectl {line}: {}{}", said.out, said.err);
        said.out
    }

    /// The same with something on its standard input.
    pub fn with_input(&self, line: &str, input: &str) -> Said {
        let mut file = tempfile::tempfile().expect("make a file");
        file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("write a file");
        run(self.kubectl(line.split_whitespace()).stdin(file))
    }

    /// Applies a manifest that must be right.
    pub fn apply(&self, text: &str) {
        let said = self.with_input("apply -f -", text);
        assert!(said.status.success(), "apply: {}{}", said.out, said.err);
    }

    /// An object or a list, as JSON.
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("get {what} -o json"))).expect("kubectl's JSON")
    }

    /// The items of a list.
    pub fn list(&self, what: &str) -> Vec<Value> {
        self.get(what)["items"].as_array().expect("a list").clone()
    }

    /// Starts a kubectl line that goes on, and hands out what it says line by line.
    pub fn follow(&self, line: &str) -> Follower {
        Follower::start(&mut self.kubectl(line.split_whitespace()))
    }

    /// What a server in the cluster answers.
    pub fn http(&self, address: &str, port: u16) -> Result<String, String> {
        let said = run(Command::new("curl").args(["-sS", "--max-time", "5", &format!("http://{address}:{port}/")]));
        if said.status.success() { Ok(said.out) } else { Err(said.err) }
    }

    /// The last lines of the server's log.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// A copy of the binary that everybody may read, as one that was installed.
    pub fn installed(&self) -> PathBuf {
        let copy = self.path("knarr");
        fs::copy(env!("CARGO_BIN_EXE_knarr"), &copy).expect("copy the binary");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("let everybody run it");
        copy
    }

    /// Processes of the binary other than the server: number and name. These tests run one at a time.
    pub fn processes(&self) -> Vec<(Pid, String)> {
        let all = fs::read_dir("/proc").expect("read the processes").flatten();
        let all = all.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            let exe = fs::read_link(entry.path().join("exe")).ok()?;
            (exe == Path::new(env!("CARGO_BIN_EXE_knarr"))).then(|| (Pid::from_raw(pid), name.trim().to_owned()))
        });
        all.filter(|(pid, _)| self.server.is_none() || *pid != self.pid()).collect()
    }

    /// The shims: one for each pod.
    pub fn shims(&self) -> Vec<Pid> {
        self.processes().into_iter().filter(|(_, name)| name == "knarr-shim").map(|(pid, _)| pid).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the last of the server's log\n{}\n---", self.log());
        }
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself, which a test that cares has noticed.
            _ = server.kill();
            _ = server.wait();
        }
        if self.data().exists() {
            let said = self.uninstall();
            if !said.status.success() {
                eprintln!("clean up: {said:?}");
                for (pid, _) in self.processes() {
                    _ = kill(pid, Signal::SIGKILL);
                }
                assert!(thread::panicking(), "knarr uninstall failed: {said:?}");
            }
        }
    }
}

/// A kubectl that goes on until it is dropped.
pub struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follower {
    /// Starts a program that goes on.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("start {command:?}: {e}"));
        let lines = lines(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    /// The next line that has this text.
    pub fn until(&self, text: &str) -> String {
        let begin = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|e| panic!("wait for {text:?}: {e}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// The next line, or nothing when the program has ended.
    pub fn next(&self) -> Option<String> {
        self.lines.recv_timeout(PATIENCE).ok()
    }

    /// The next line, if it is there already.
    pub fn try_next(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The lines of a stream as they come; the thread ends with the stream.
fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

/// Names of objects.
pub fn names(objects: &[Value]) -> Vec<String> {
    objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Whether a pod serves: Ready, and not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}
