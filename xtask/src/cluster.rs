//! A running knarr, as the demo and the benchmark use it.

use std::fs::{self, File};
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Pid;
use serde_json::Value;

use crate::clients::{self, Kubectl};
use crate::host::{self, Cmd, cmd};
use crate::images::Made;

/// Where knarr lives if nothing else is said.
const DATA_DIR: &str = "/var/lib/knarr";
const RUN_DIR: &str = "/run/knarr";
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Where a cluster lives, and what it is started with.
#[derive(clap::Args, Clone)]
pub struct Place {
    /// Where knarr keeps what outlives a reboot
    #[arg(long, default_value = DATA_DIR)]
    pub data_dir: PathBuf,
    /// Where knarr keeps its sockets
    #[arg(long, default_value = RUN_DIR)]
    pub run_dir: PathBuf,
    /// Further options for `knarr server`, after `--`
    #[arg(last = true)]
    pub server: Vec<String>,
}

/// A knarr that was built, and the client to it.
pub struct Cluster {
    place: Place,
    knarr: PathBuf,
    client: Client,
}

/// What stands for kubectl.
pub enum Client {
    /// `knarr kubectl`.
    BuiltIn,
    /// The real one.
    Real(Kubectl),
}

/// How long a start took.
pub struct Start {
    /// The server's process.
    pub pid: Pid,
    /// From the start of the program until `/readyz` says ok.
    pub api: Duration,
    /// From the start of the program until the node is Ready.
    pub node: Duration,
}

impl Cluster {
    /// Builds knarr, to be used with the real kubectl, which is fetched.
    pub fn build(place: &Place) -> anyhow::Result<Self> {
        Ok(Self { place: place.clone(), knarr: host::build_release()?, client: Client::Real(clients::kubectl()?) })
    }

    /// Builds knarr, to be used with the client that is built in.
    pub fn build_alone(place: &Place) -> anyhow::Result<Self> {
        Ok(Self::of(place, &host::build_release()?))
    }

    /// A knarr that is built, with the client that is built in.
    pub fn of(place: &Place, knarr: &Path) -> Self {
        Self { place: place.clone(), knarr: knarr.to_owned(), client: Client::BuiltIn }
    }

    /// The program.
    pub fn knarr(&self) -> &Path {
        &self.knarr
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.place.data_dir.join("admin.kubeconfig")
    }

    /// Where the server's log goes.
    pub fn log(&self) -> PathBuf {
        self.place.data_dir.join("server.log")
    }

    /// A kubectl with these arguments, in the directory of the tutorial's manifests.
    pub fn kubectl<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        let client = match &self.client {
            Client::BuiltIn => cmd(&self.knarr).arg("kubectl"),
            Client::Real(kubectl) => cmd(&kubectl.path),
        };
        client
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env_remove("KUBECTL_KUBERC")
            .dir(&host::root().join("examples/tutorial"))
    }

    /// Where docker's command line finds the server.
    pub fn docker_socket(&self) -> PathBuf {
        self.place.run_dir.join("docker.sock")
    }

    /// A `knarr` with these arguments, for this cluster.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Cmd {
        cmd(&self.knarr).args(args).arg(format!("--run-dir={}", self.place.run_dir.display()))
    }

    /// What `kubectl get … -o json` says.
    pub fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        let args = ["get"].into_iter().chain(args.iter().copied()).chain(["--output=json"]);
        serde_json::from_str(&self.kubectl(args).read()?).context("read kubectl's JSON")
    }

    /// The process of the running server.
    pub fn running(&self) -> Option<Pid> {
        let socket = UnixStream::connect(self.place.run_dir.join("knarr.sock")).ok()?;
        // The credentials of a connected socket are those of the process that listens.
        getsockopt(&socket, PeerCredentials).ok().map(|peer| Pid::from_raw(peer.pid()))
    }

    /// Imports images, through the server if it runs.
    pub fn import(&self, images: &[Made]) -> anyhow::Result<()> {
        let import = cmd(&self.knarr).args(["image", "import"]).args(self.dirs());
        print!("{}", import.args(images.iter().map(|image| &image.archive)).read()?);
        Ok(())
    }

    fn dirs(&self) -> [String; 2] {
        let Place { data_dir, run_dir, .. } = &self.place;
        [format!("--data-dir={}", data_dir.display()), format!("--run-dir={}", run_dir.display())]
    }

    /// Starts the server apart from this terminal and waits until API and node are Ready.
    pub fn start(&self) -> anyhow::Result<Start> {
        fs::create_dir_all(&self.place.data_dir)
            .with_context(|| format!("create {}", self.place.data_dir.display()))?;
        let log = File::options().create(true).append(true).open(self.log()).context("open the server's log")?;
        let said_before = usize::try_from(log.metadata().context("look at the server's log")?.len())?;
        let begin = Instant::now();
        let mut child = cmd(&self.knarr)
            .arg("server")
            .args(self.dirs())
            .args(&self.place.server)
            .dir(Path::new("/"))
            .start(log.try_clone()?, log)?;
        let mut api = None;
        loop {
            if let Some(status) = child.try_wait().context("look after the server")? {
                bail!("knarr server ended with {status}:\n{}", self.log_end());
            }
            if begin.elapsed() > Duration::from_secs(60) {
                bail!("knarr server is not ready after 60 s:\n{}", self.log_end());
            }
            if api.is_none() && self.answers("/readyz") {
                api = Some(begin.elapsed());
            }
            let said = fs::read(self.log()).with_context(|| format!("read {}", self.log().display()))?;
            if let Some(api) = api
                && String::from_utf8_lossy(&said[said_before..]).contains("knarr is ready")
            {
                return Ok(Start { pid: Pid::from_raw(child.id().cast_signed()), api, node: begin.elapsed() });
            }
            sleep(LOOK);
        }
    }

    /// Whether the API answers ok at a path. Asks with curl, which starts quicker than kubectl.
    fn answers(&self, path: &str) -> bool {
        let config = fs::read_to_string(self.kubeconfig()).unwrap_or_default();
        let Some(server) =
            config.split_whitespace().map(|w| w.trim_matches(['"', ','])).find(|w| w.starts_with("https://"))
        else {
            return false;
        };
        let curl = cmd("curl").args(["--silent", "--insecure", "--fail", "--max-time", "5"]);
        curl.arg(format!("{server}{path}")).output().is_ok_and(|output| output.status.success())
    }

    /// The last lines of the server's log.
    pub fn log_end(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_else(|e| format!("read {}: {e}", self.log().display()));
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Stops the server; pods keep running.
    pub fn stop(&self) -> anyhow::Result<()> {
        let Some(pid) = self.running() else { return Ok(()) };
        kill(pid, Signal::SIGTERM).with_context(|| format!("stop the server, process {pid}"))?;
        // A child that nobody has waited for yet stays as a zombie, which is an end as well.
        let ended = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
        wait_for("the end of the server", Duration::from_secs(30), || Ok(ended()))
    }

    /// Asks; then stops the server and all pods, and removes everything that knarr made.
    pub fn stop_and_remove(&self) -> anyhow::Result<()> {
        let place = self.place.data_dir.display();
        if self.running().is_none() && !self.place.data_dir.exists() && !self.place.run_dir.exists() {
            return self.uninstall();
        }
        print!("This stops the cluster and deletes all objects, images and volumes in {place}. Go on? [y/N] ");
        std::io::stdout().flush().context("ask")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("read the answer")?;
        ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "nothing was stopped or removed");
        self.stop()?;
        self.uninstall()
    }

    /// Stops all pods and removes everything that knarr made. The server must have been stopped.
    pub fn uninstall(&self) -> anyhow::Result<()> {
        cmd(&self.knarr).arg("uninstall").args(self.dirs()).args(&self.place.server).arg("--yes").run()
    }

    /// The options that say where this cluster is, as they are typed; none for the usual place.
    pub fn place_options(&self) -> String {
        let Place { data_dir, run_dir, server } = &self.place;
        let mut options = String::new();
        for (option, path, usual) in [("data-dir", data_dir, DATA_DIR), ("run-dir", run_dir, RUN_DIR)] {
            if path != Path::new(usual) {
                options.push_str(&format!(" --{option} {}", path.display()));
            }
        }
        if !server.is_empty() {
            options.push_str(&format!(" -- {}", server.join(" ")));
        }
        options
    }
}

/// A `kubectl get --watch` of pods, as it goes.
pub struct PodWatch {
    child: Child,
    seen: mpsc::Receiver<(Instant, Value)>,
}

impl PodWatch {
    /// Starts to watch the pods that a selector selects.
    pub fn start(cluster: &Cluster, selector: &str) -> anyhow::Result<Self> {
        let args = ["get", "pods", "--selector", selector, "--watch", "--output=json"];
        let mut child = cluster.kubectl(args).start(Stdio::piped(), Stdio::inherit())?;
        let output = BufReader::new(child.stdout.take().context("read what kubectl says")?);
        let (sender, seen) = mpsc::channel();
        // It ends with the child's output, which ends when the child is killed.
        thread::spawn(move || {
            let pods = serde_json::Deserializer::from_reader(output).into_iter::<Value>().map_while(Result::ok);
            pods.map(|pod| (Instant::now(), pod)).try_for_each(|pod| sender.send(pod))
        });
        Ok(Self { child, seen })
    }

    /// The next state of a pod, and when it was seen; an error when none comes for so long.
    pub fn next(&self, patience: Duration) -> anyhow::Result<(Instant, Value)> {
        self.seen.recv_timeout(patience).context("wait for news of pods")
    }

    /// What has been seen and not been asked for yet.
    pub fn rest(&self) -> Vec<(Instant, Value)> {
        self.seen.try_iter().collect()
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("end kubectl: {error}");
        }
    }
}

/// The name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Whether a pod serves: Ready, and not on its way out.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
    ready && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Waits until something holds.
pub fn wait_for(what: &str, patience: Duration, mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begin = Instant::now();
    while !holds()? {
        if begin.elapsed() > patience {
            bail!("wait for {what}: it did not come in {} s", patience.as_secs());
        }
        sleep(LOOK);
    }
    Ok(())
}
