//! `cargo xtask demo`: a cluster, and the tutorial's walk through it, each step checked. It uses `knarr kubectl`, the client
//! that is built in.

mod rows;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, Place, PodWatch, is_ready, name, wait_for};
use crate::host::{self, Cmd, cmd};
use crate::images;

/// How long a step of the walk may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for kubectl.
const TIMEOUT: &str = "--timeout=60s";

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Options {
    /// Only one row of the tutorial, like `deployment`, or one step by its number
    #[arg(long, value_name = "ROW", value_parser = row)]
    only: Option<String>,
    /// Stop the cluster of an earlier demo and remove every trace of it; it asks first
    #[arg(long, conflicts_with = "only")]
    stop: bool,
    #[command(flatten)]
    place: Place,
}

/// Whether there is such a row, or such a step.
fn row(text: &str) -> Result<String, String> {
    let mut rows: Vec<&str> = STEPS.iter().map(|step| step.row).collect();
    rows.dedup();
    let number = text.parse::<usize>().is_ok_and(|number| (1..=STEPS.len()).contains(&number));
    if number || rows.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("the rows are {}; the steps are 1 to {}", rows.join(", "), STEPS.len()))
}

/// One step of the tutorial.
struct Step {
    /// The row of the tutorial that it is of.
    row: &'static str,
    title: &'static str,
    /// What the steps before have made, for when only this one is walked.
    before: &'static [&'static str],
    walk: fn(&Demo) -> anyhow::Result<()>,
}

const POD: &str = "simple-pod.yaml";
const DEPLOYMENT: &str = "simple-deployment.yaml";
const PATCHED: &str = "simple-deployment-patched.yaml";

const STEPS: &[Step] = &[
    Step { row: "node", title: "The node", before: &[], walk: rows::node },
    Step { row: "namespace", title: "Namespaces", before: &[], walk: rows::namespace },
    Step { row: "pod", title: "A pod of two containers", before: &[], walk: create_pod },
    Step { row: "pod", title: "How many of its containers run", before: &[POD], walk: get_pod },
    Step { row: "pod", title: "The output of one container", before: &[POD], walk: follow_logs },
    Step { row: "pod", title: "One address for all containers of a pod", before: &[POD], walk: reach_pod },
    Step { row: "pod", title: "Deleting, by name and by manifest", before: &[POD], walk: delete_pod },
    Step { row: "replicaset", title: "A ReplicaSet keeps three pods", before: &[], walk: replica_set },
    Step { row: "deployment", title: "A Deployment and its revision 1", before: &[], walk: deployment },
    Step { row: "deployment", title: "One pod more is no new revision", before: &[DEPLOYMENT], walk: scale },
    Step { row: "deployment", title: "Another image is a new revision, in steps", before: &[DEPLOYMENT], walk: update },
    Step { row: "deployment", title: "Back to the revision before", before: &[DEPLOYMENT, PATCHED], walk: undo },
    Step {
        row: "deployment",
        title: "Deleting takes everything along",
        before: &[DEPLOYMENT, PATCHED],
        walk: delete_deployment,
    },
    Step { row: "service", title: "A Service: one way to reach a set of pods", before: &[], walk: rows::service },
    Step { row: "ingress", title: "An Ingress: Services for the world outside", before: &[], walk: rows::ingress },
    Step {
        row: "settings",
        title: "ConfigMap and Secret: settings and credentials",
        before: &[],
        walk: rows::settings,
    },
    Step { row: "storage", title: "Storage on demand, of a size", before: &[], walk: rows::storage },
    Step { row: "statefulset", title: "A StatefulSet: pods with identities", before: &[], walk: rows::stateful_set },
    Step { row: "daemonset", title: "A DaemonSet: one on each node", before: &[], walk: rows::daemon_set },
    Step { row: "job", title: "Job and CronJob: pods that run to completion", before: &[], walk: rows::job },
    Step {
        row: "rights",
        title: "Role, RoleBinding and ServiceAccount: who may do what",
        before: &[],
        walk: rows::rights,
    },
    Step { row: "docker", title: "The Docker host, and how it is cleaned up", before: &[], walk: rows::docker },
];

/// Walks.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_root("run a cluster")?;
    let cluster = Cluster::build_alone(&options.place)?;
    if options.stop {
        return cluster.stop_and_remove();
    }
    host::install(&[("curl", "curl")])?;
    let images = images::make()?;
    match cluster.running() {
        Some(pid) => host::say(&format!("knarr server is running already, as process {pid}")),
        None => {
            let start = host::progress("Starting knarr server", || cluster.start())?;
            let (api, node) = (start.api.as_millis(), start.node.as_millis());
            host::say(&format!("The API was ready after {api} ms, the node after {node} ms"));
        }
    }
    host::say("Importing the images");
    cluster.import(&images)?;
    let demo = Demo { cluster };
    demo.clean()?;
    println!(
        "\n$ export KUBECONFIG={}\n$ alias kubectl='{} kubectl'\n$ cd examples/tutorial",
        demo.cluster.kubeconfig().display(),
        demo.cluster.knarr().display()
    );
    for (number, step) in (1_usize..).zip(STEPS) {
        let alone = options.only.as_ref().is_some_and(|only| *only == number.to_string());
        if options.only.as_ref().is_some_and(|only| !alone && only != step.row) {
            continue;
        }
        println!("\n## {number}. {}", step.title);
        let prepare = if alone { step.before } else { &[] };
        prepare.iter().try_for_each(|manifest| demo.quietly_apply(manifest)).context("prepare the step")?;
        (step.walk)(&demo).with_context(|| {
            format!(
                "step {number} of the tutorial ({}); the server's log is {}",
                step.title,
                demo.cluster.log().display()
            )
        })?;
    }
    demo.farewell();
    Ok(())
}

struct Demo {
    cluster: Cluster,
}

impl Demo {
    /// Shows a kubectl command and what it says; it must succeed.
    fn kubectl(&self, line: &str) -> anyhow::Result<String> {
        println!("$ kubectl {line}");
        shown(line, self.cluster.kubectl(line.split_whitespace()).output()?)
    }

    /// Says what the last command has shown, once it has been checked.
    fn note(&self, text: &str) {
        println!("→ {text}");
    }

    /// Shows a command of the shell and what it says; it must succeed.
    fn shell(&self, line: &str) -> anyhow::Result<String> {
        println!("$ {line}");
        shown(line, words(line)?.output()?)
    }

    /// What a command says; it must succeed.
    fn quietly(&self, line: &str) -> anyhow::Result<String> {
        words(line)?.read()
    }

    /// Applies a manifest of a row in which something has been changed.
    fn pipe(&self, manifest: &str, old: &str, new: &str) -> anyhow::Result<()> {
        let line = format!("sed 's/{old}/{new}/' ../rows/{manifest} | kubectl apply -f -");
        println!("$ {line}");
        let text = fs::read_to_string(host::root().join("examples/rows").join(manifest))?;
        let apply = self.cluster.kubectl(["apply", "-f", "-"]).input(&text.replace(old, new))?;
        shown(&line, apply.output()?).map(drop)
    }

    /// Shows a docker command and what it says; it must succeed.
    fn docker(&self, docker: &Path, line: &str) -> anyhow::Result<String> {
        println!("$ docker {line}");
        let host = format!("unix://{}", self.cluster.docker_socket().display());
        shown(line, cmd(docker).args(line.split_whitespace()).env("DOCKER_HOST", host).output()?)
    }

    /// Shows a command of knarr and what it says; it must succeed.
    fn knarr(&self, line: &str) -> anyhow::Result<String> {
        println!("$ knarr {line}");
        shown(line, self.cluster.command(line.split_whitespace()).output()?)
    }

    fn pods(&self, selector: &str) -> anyhow::Result<Vec<Value>> {
        items(self.cluster.get(&["pods", "--selector", selector])?)
    }

    fn replica_sets(&self) -> anyhow::Result<Vec<Value>> {
        items(self.cluster.get(&["replicasets", "--selector=app=echo"])?)
    }

    fn quietly_apply(&self, manifest: &str) -> anyhow::Result<()> {
        self.cluster.kubectl(["apply", "--filename", manifest]).read()?;
        if manifest == POD {
            self.cluster.kubectl(["wait", "--for=condition=Ready", "pod/simple-echo", TIMEOUT]).read()?;
        } else {
            self.cluster.kubectl(["rollout", "status", "deployment/echo", TIMEOUT]).read()?;
        }
        Ok(())
    }

    /// Removes what an earlier demo left.
    fn clean(&self) -> anyhow::Result<()> {
        let left = ["deployment/echo", "replicaset/echo", "pod/simple-echo"];
        let delete = ["delete", "--ignore-not-found", TIMEOUT].into_iter().chain(left);
        self.cluster.kubectl(delete).read().context("remove what an earlier demo left")?;
        rows::clean(self)?;
        self.until_no_pods()
    }

    fn until_no_pods(&self) -> anyhow::Result<()> {
        wait_for("the pods to go", PATIENCE, || Ok(self.pods("app=echo")?.is_empty()))
    }

    fn revisions(&self) -> anyhow::Result<Vec<String>> {
        let history = self.kubectl("rollout history deployment echo")?;
        let first = history.lines().filter_map(|line| line.split_whitespace().next());
        Ok(first.filter(|word| word.parse::<u32>().is_ok()).map(str::to_owned).collect())
    }

    fn farewell(&self) {
        let knarr = self.cluster.knarr().display();
        println!(
            "\nThe tutorial works, and the cluster keeps running. To use it, with any kubectl or the one that is built in:\n"
        );
        println!("  export KUBECONFIG={}", self.cluster.kubeconfig().display());
        println!("  {knarr} kubectl get nodes");
        println!("  export DOCKER_HOST=unix://{}\n", self.cluster.docker_socket().display());
        println!("Its log: {}", self.cluster.log().display());
        println!("To stop it and remove every trace: cargo xtask demo --stop{}", self.cluster.place_options());
    }
}

/// A command from its line; no word of it has a blank.
fn words(line: &str) -> anyhow::Result<Cmd> {
    let mut words = line.split_whitespace();
    Ok(cmd(words.next().context("a command has a program")?).args(words))
}

fn items(list: Value) -> anyhow::Result<Vec<Value>> {
    list["items"].as_array().cloned().context("read a list")
}

fn revision(object: &Value) -> &str {
    object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str().unwrap_or_default()
}

fn shown(line: &str, output: std::process::Output) -> anyhow::Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}{}", if text.is_empty() || text.ends_with('\n') { "" } else { "\n" });
    print!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "`{line}` ended with {}", output.status);
    Ok(text)
}

fn create_pod(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl(&format!("apply -f {POD}"))?;
    demo.kubectl(&format!("wait --for=condition=Ready pod/simple-echo {TIMEOUT}"))?;
    demo.note("nginx and an echo server run side by side, from images that were imported");
    Ok(())
}

fn get_pod(demo: &Demo) -> anyhow::Result<()> {
    let text = demo.kubectl("get pod")?;
    let row = text.lines().find(|line| line.starts_with("simple-echo ")).context("find the pod in the table")?;
    let cells: Vec<&str> = row.split_whitespace().collect();
    ensure!(cells[1..3] == ["2/2", "Running"], "the pod is not READY 2/2 and Running: {row}");
    demo.note("2/2: two containers are defined, and two of them run");
    Ok(())
}

fn follow_logs(demo: &Demo) -> anyhow::Result<()> {
    println!("$ kubectl logs -f simple-echo -c echo &");
    let mut logs = Follower::start(demo, ["logs", "-f", "simple-echo", "-c", "echo"])?;
    logs.until("start server")?;
    demo.kubectl("exec simple-echo -c nginx -- wget -qO- http://localhost:8080/from-the-pod")?;
    logs.until("from-the-pod")?;
    demo.note("the log follows: one line for each request");
    Ok(())
}

fn reach_pod(demo: &Demo) -> anyhow::Result<()> {
    let inside = demo.kubectl("exec simple-echo -c nginx -- wget -qO- http://localhost:8080/")?;
    ensure!(inside.trim() == "Hello Docker!!", "nginx does not reach echo on localhost");
    demo.note("from inside the pod, nginx's container reaches echo on localhost");
    let address = demo.kubectl("get pod simple-echo -o jsonpath={.status.podIP}")?;
    for port in ["80", "8080"] {
        let said =
            demo.shell(&format!("curl --silent --show-error --max-time 10 http://{}:{port}/", address.trim()))?;
        ensure!(said.trim() == "Hello Docker!!", "port {port} does not answer with Hello Docker!!");
    }
    demo.note("from outside, both answer on the pod's one address; port 80 is nginx, which passes on to echo");
    Ok(())
}

fn delete_pod(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("delete pod simple-echo")?;
    ensure!(demo.cluster.get(&["pods"])?["items"] == Value::Array(Vec::new()), "the pod is still there");
    demo.kubectl(&format!("apply -f {POD}"))?;
    demo.kubectl(&format!("wait --for=condition=Ready pod/simple-echo {TIMEOUT}"))?;
    demo.kubectl(&format!("delete -f {POD}"))?;
    let gone = demo.kubectl("get pod")?;
    ensure!(!gone.contains("simple-echo"), "the pod is still there");
    demo.note("gone, both times");
    Ok(())
}

fn replica_set(demo: &Demo) -> anyhow::Result<()> {
    let all_ready = format!("wait --for=jsonpath={{.status.readyReplicas}}=3 replicaset/echo {TIMEOUT}");
    demo.kubectl("apply -f simple-replicaset.yaml")?;
    demo.kubectl(&all_ready)?;
    demo.kubectl("get pod")?;
    let before = demo.pods("app=echo")?;
    ensure!(before.len() == 3, "there are {} pods", before.len());
    let victim = name(&before[0]).to_owned();
    demo.kubectl(&format!("delete pod {victim}"))?;
    wait_for("another pod in its place", PATIENCE, || {
        let pods = demo.pods("app=echo")?;
        Ok(pods.len() == 3 && pods.iter().all(is_ready))
    })?;
    demo.kubectl("get pod")?;
    let after = demo.pods("app=echo")?;
    let kept = after.iter().filter(|pod| before.iter().any(|old| name(old) == name(pod))).count();
    ensure!(after.len() == 3 && kept == 2 && after.iter().all(is_ready), "the pod was not replaced by one other");
    demo.note("three pods; one was deleted, and another stands in its place");
    demo.kubectl("delete -f simple-replicaset.yaml")?;
    demo.until_no_pods()
}

fn deployment(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl(&format!("apply -f {DEPLOYMENT}"))?;
    demo.kubectl(&format!("rollout status deployment echo {TIMEOUT}"))?;
    demo.kubectl("get pod,replicaset,deployment --selector app=echo")?;
    let sets = demo.replica_sets()?;
    ensure!(sets.len() == 1 && demo.pods("app=echo")?.len() == 3, "there is not one ReplicaSet with three pods");
    let revisions = demo.revisions()?;
    ensure!(revisions == ["1"], "the history shows the revisions {revisions:?}");
    demo.note("the Deployment made a ReplicaSet, that made the pods; the history begins with revision 1");
    Ok(())
}

fn scale(demo: &Demo) -> anyhow::Result<()> {
    let before = demo.replica_sets()?;
    let manifest = fs::read_to_string(host::root().join("examples/tutorial").join(DEPLOYMENT))?;
    let line = format!("sed 's/replicas: 3/replicas: 4/' {DEPLOYMENT} | kubectl apply -f -");
    println!("$ {line}");
    let apply = demo.cluster.kubectl(["apply", "-f", "-"]).input(&manifest.replace("replicas: 3", "replicas: 4"))?;
    shown(&line, apply.output()?)?;
    demo.kubectl(&format!("rollout status deployment echo {TIMEOUT}"))?;
    demo.kubectl("get pod,replicaset --selector app=echo")?;
    let sets = demo.replica_sets()?;
    ensure!(sets.len() == 1 && name(&sets[0]) == name(&before[0]), "there is another ReplicaSet");
    ensure!(demo.pods("app=echo")?.len() == 4, "there are not four pods");
    let revisions = demo.revisions()?;
    ensure!(revisions == ["1"], "the history shows the revisions {revisions:?}");
    demo.note("four pods, the same ReplicaSet, no new revision");
    Ok(())
}

fn update(demo: &Demo) -> anyhow::Result<()> {
    let fewest = Fewest::watch(demo)?;
    demo.kubectl(&format!("apply -f {PATCHED}"))?;
    demo.kubectl(&format!("rollout status deployment echo {TIMEOUT}"))?;
    demo.kubectl("get pod,replicaset --selector app=echo")?;
    let fewest = fewest.end();
    ensure!(fewest >= 3, "at one moment only {fewest} pods served; 25 % of 3 may be missing, rounded down: none");
    let sets = demo.replica_sets()?;
    ensure!(sets.len() == 2, "there are {} ReplicaSets", sets.len());
    let current = sets.iter().find(|set| revision(set) == "2").context("find the ReplicaSet of revision 2")?;
    let echo = &current["spec"]["template"]["spec"]["containers"][1];
    ensure!(echo["image"] == "gihyodocker/echo:patched", "revision 2 has the image {}", echo["image"]);
    let revisions = demo.revisions()?;
    ensure!(revisions == ["1", "2"], "the history shows the revisions {revisions:?}");
    let said = demo.kubectl("exec deployment/echo -c echo -- env")?;
    ensure!(said.lines().any(|line| line == "HOGE=fuga"), "the variable HOGE is not there");
    demo.note(&format!("a new ReplicaSet, revision 2; never fewer than {fewest} pods served meanwhile"));
    Ok(())
}

fn undo(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("rollout undo deployment echo")?;
    demo.kubectl(&format!("rollout status deployment echo {TIMEOUT}"))?;
    let revisions = demo.revisions()?;
    ensure!(revisions == ["2", "3"], "the history shows the revisions {revisions:?}");
    let image = demo.kubectl("get deployment echo -o jsonpath={.spec.template.spec.containers[1].image}")?;
    ensure!(image.trim() == "gihyodocker/echo:latest", "the image is {image}");
    demo.note("the old template again, as revision 3");
    Ok(())
}

fn delete_deployment(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl(&format!("delete -f {DEPLOYMENT}"))?;
    wait_for("the ReplicaSets to go", PATIENCE, || Ok(demo.replica_sets()?.is_empty()))?;
    demo.until_no_pods()?;
    demo.kubectl("get pod,replicaset,deployment --selector app=echo")?;
    demo.note("the ReplicaSets and the pods went with it");
    Ok(())
}

/// A kubectl that goes on until it is dropped, line by line.
struct Follower {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Follower {
    fn start<const N: usize>(demo: &Demo, args: [&'static str; N]) -> anyhow::Result<Self> {
        let mut child = demo.cluster.kubectl(args).start(Stdio::piped(), Stdio::inherit())?;
        let output = BufReader::new(child.stdout.take().context("read what kubectl says")?);
        let (sender, lines) = mpsc::channel();
        // It ends with the child's output, which ends when the child is killed.
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { child, lines })
    }

    /// Shows lines until one has this text.
    fn until(&mut self, text: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).with_context(|| format!("wait for a line with {text:?}"))?;
            println!("{line}");
            if line.contains(text) {
                return Ok(());
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("end kubectl: {error}");
        }
    }
}

/// Watches how many pods serve, and remembers the fewest.
struct Fewest {
    watch: PodWatch,
    ready: BTreeSet<String>,
    fewest: usize,
}

impl Fewest {
    /// Starts, and waits until the watch has shown the pods that serve now.
    fn watch(demo: &Demo) -> anyhow::Result<Self> {
        let serving = demo.pods("app=echo")?.iter().filter(|pod| is_ready(pod)).count();
        let watch = PodWatch::start(&demo.cluster, "app=echo")?;
        let mut this = Self { watch, ready: BTreeSet::new(), fewest: serving };
        while this.ready.len() < serving {
            let (_, pod) = this.watch.next(PATIENCE)?;
            this.count(&pod);
        }
        this.fewest = serving;
        Ok(this)
    }

    fn count(&mut self, pod: &Value) {
        let name = name(pod).to_owned();
        if is_ready(pod) {
            self.ready.insert(name);
        } else {
            self.ready.remove(&name);
        }
        self.fewest = self.fewest.min(self.ready.len());
    }

    fn end(mut self) -> usize {
        for (_, pod) in self.watch.rest() {
            self.count(&pod);
        }
        self.fewest
    }
}
