//! `cargo xtask bench`: how long things take and how much memory they need, beside what was aimed at.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use comfy_table::{Table, presets};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::cluster::{Cluster, Place, PodWatch, is_ready, name, wait_for};
use crate::{bench_api, host, images};

/// How long pods may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The size of the Deployment.
const MANY: usize = 100;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// How often a start and a single pod are measured
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// How many seconds to look at the idle server
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    idle: u16,
}

/// What is measured apart from the whole cluster.
#[derive(clap::Subcommand)]
enum Part {
    /// Measure the API server under load: creates, reads, lists, watches and memory
    Api(bench_api::Options),
}

/// Measures a cluster of its own, which is gone afterwards.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(Part::Api(options)) = &options.part {
        return bench_api::run(options);
    }
    host::need_root("run a cluster")?;
    host::install(&[("curl", "curl")])?;
    let images = images::make()?;
    let dir = tempfile::tempdir_in(host::target()?).context("create a directory for the benchmark")?;
    let server = [
        "--listen=127.0.0.1:16443",
        "--kubelet-listen=127.0.0.1:20250",
        "--pod-cidr=10.142.0.0/24",
        "--bridge=knarrbench0",
        "--cgroup-root=knarr-bench",
    ];
    let cluster = Cluster::build(&Place {
        data_dir: dir.path().join("data"),
        run_dir: dir.path().join("run"),
        server: server.map(str::to_owned).to_vec(),
    })?;
    let measured = measure(options, &cluster, &images);
    // Whatever happened, nothing is left behind; the first error is the one to tell.
    let gone = cluster.stop().and_then(|()| cluster.uninstall());
    println!("\n{}", measured?);
    println!(
        "* upstream: API server, controllers, scheduler, kubelet, proxy, etcd, containerd 1.6 and runc, measured elsewhere on the same kind of machine"
    );
    gone
}

fn measure(options: &Options, cluster: &Cluster, images: &[images::Made]) -> anyhow::Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["what", "knarr", "aim", "upstream*"]);

    let fresh = host::progress("The first start", || cluster.start())?;
    table.add_row(["first start: API ready", &millis(fresh.api), "500 ms", "3.3 s"]);
    table.add_row(["first start: node Ready", &millis(fresh.node), "500 ms", ""]);
    cluster.import(images)?;
    let mut pid = fresh.pid;
    let (mut api, mut node) = (Vec::new(), Vec::new());
    host::progress("Starting again", || {
        for _ in 0..options.rounds {
            cluster.stop()?;
            let start = cluster.start()?;
            pid = start.pid;
            api.push(start.api);
            node.push(start.node);
        }
        Ok(())
    })?;
    table.add_row(["start again: API ready (median)", &millis(median(&mut api)), "500 ms", ""]);
    table.add_row(["start again: node Ready (median)", &millis(median(&mut node)), "500 ms", ""]);

    let idle = host::progress("Looking at the idle server", || Idle::look(pid, options.idle))?;
    let (resident, share) = (megabytes(idle.resident), megabytes(idle.proportional));
    table.add_row(["idle: resident (PSS)", &format!("{resident} ({share})"), "60 MB", "724 MB"]);
    table.add_row([
        format!("idle: CPU over {} s", options.idle),
        format!("{:.2} %", idle.cpu),
        "0.3 %".into(),
        "".into(),
    ]);

    let mut times = Vec::new();
    host::progress("One pod", || {
        for round in 0..options.rounds {
            times.push(pods(cluster, &format!("one-{round}"), 1)?);
            gone(cluster, &format!("one-{round}"))?;
        }
        Ok(())
    })?;
    table.add_row(["one pod: apply to Ready (median)", &millis(median(&mut times)), "150 ms", "990 ms"]);

    let many = host::progress(&format!("{MANY} pods"), || pods(cluster, "many", MANY))?;
    table.add_row([&format!("{MANY} pods: apply to all Ready"), &millis(many), "5 s", "18–25 s"]);
    let shims = shims(cluster.knarr())?;
    ensure!(shims.len() >= MANY, "there are only {} shims for {MANY} pods", shims.len());
    let private = shims.values().sum::<u64>() / shims.len() as u64;
    table.add_row(["for each pod: shim, private", &format!("{} kB", private / 1000), "1 MB", "13.5 MB"]);
    let busy = Idle::look(pid, 1)?;
    let (resident, share) = (megabytes(busy.resident), megabytes(busy.proportional));
    table.add_row([
        format!("server with {MANY} pods: resident (PSS)"),
        format!("{resident} ({share})"),
        "".into(),
        "".into(),
    ]);
    let begin = Instant::now();
    host::progress("Deleting them", || gone(cluster, "many"))?;
    table.add_row([&format!("{MANY} pods: delete to all gone"), &millis(begin.elapsed()), "", ""]);
    Ok(table)
}

/// Applies a Deployment and says how long it takes from the start of `kubectl apply` until all its pods are Ready.
fn pods(cluster: &Cluster, app: &str, count: usize) -> anyhow::Result<Duration> {
    // The image is here: what is measured is the pods, and not how long a registry takes not to answer.
    let manifest = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": app },
        "spec": {
            "replicas": count,
            "selector": { "matchLabels": { "app": app } },
            "template": {
                "metadata": { "labels": { "app": app } },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "echo", "image": "gihyodocker/echo:latest", "imagePullPolicy": "IfNotPresent",
                    }],
                },
            },
        },
    });
    let watch = PodWatch::start(cluster, &format!("app={app}"))?;
    let begin = Instant::now();
    cluster.kubectl(["apply", "--filename=-"]).input(&manifest.to_string())?.read()?;
    let mut ready = BTreeMap::new();
    while ready.len() < count {
        if begin.elapsed() > PATIENCE {
            bail!("{} of {count} pods are Ready after {} s", ready.len(), PATIENCE.as_secs());
        }
        let (at, pod) = watch.next(PATIENCE)?;
        if is_ready(&pod) {
            ready.entry(name(&pod).to_owned()).or_insert(at);
        }
    }
    let last = ready.into_values().max().context("there is a pod")?;
    Ok(last - begin)
}

fn gone(cluster: &Cluster, app: &str) -> anyhow::Result<()> {
    cluster.kubectl(["delete", "deployment", app]).read()?;
    wait_for("the pods to go", PATIENCE, || {
        let left = cluster.get(&["pods", "--selector", &format!("app={app}")])?;
        Ok(left["items"].as_array().is_some_and(Vec::is_empty))
    })
}

/// What the idle server costs.
struct Idle {
    /// Bytes.
    resident: u64,
    /// Bytes.
    proportional: u64,
    /// Per cent of one core.
    cpu: f64,
}

impl Idle {
    fn look(pid: Pid, seconds: u16) -> anyhow::Result<Self> {
        let before = cpu_time(pid)?;
        let begin = Instant::now();
        sleep(Duration::from_secs(seconds.into()));
        let cpu = (cpu_time(pid)? - before) / begin.elapsed().as_secs_f64() * 100.0;
        let memory = memory(pid.as_raw())?;
        let of = |field: &str| memory.get(field).copied().with_context(|| format!("find {field} of process {pid}"));
        Ok(Self { resident: of("Rss")?, proportional: of("Pss")?, cpu })
    }
}

/// Seconds of processor time so far.
pub fn cpu_time(pid: Pid) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("read the times of {pid}"))?;
    // The second field is a name in parentheses, which may hold anything; utime and stime are fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u32 = fields.split_whitespace().skip(11).take(2).filter_map(|f| f.parse::<u32>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("ask for the length of a tick")?;
    Ok(f64::from(ticks) / f64::from(i32::try_from(per_second)?))
}

/// The fields of a process's `smaps_rollup`, in bytes.
pub fn memory(pid: i32) -> anyhow::Result<BTreeMap<String, u64>> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let fields = text.lines().filter_map(|line| {
        let (field, rest) = line.split_once(':')?;
        Some((field.to_owned(), rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024))
    });
    Ok(fields.collect())
}

/// The shims of the pods, and the bytes that each has for itself alone.
fn shims(knarr: &Path) -> anyhow::Result<BTreeMap<i32, u64>> {
    let mut shims = BTreeMap::new();
    for entry in fs::read_dir("/proc").context("read the list of processes")? {
        let entry = entry.context("read the list of processes")?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // A process may end while it is looked at.
        let ours = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == knarr);
        let shim = fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "knarr-shim");
        if ours && shim {
            let memory = memory(pid)?;
            let private = ["Private_Clean", "Private_Dirty"].iter().filter_map(|field| memory.get(*field)).sum();
            shims.insert(pid, private);
        }
    }
    Ok(shims)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> String {
    match time.as_millis() {
        short @ 0..10_000 => format!("{short} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

/// Bytes for people.
pub fn megabytes(bytes: u64) -> String {
    // To a tenth of a megabyte, which has 10⁶ bytes.
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!(megabytes(13_480_000), "13.4 MB");
        assert_eq!(millis(Duration::from_millis(480)), "480 ms");
        assert_eq!(millis(Duration::from_millis(18_340)), "18.3 s");
        assert_eq!(median(&mut [3, 1, 2].map(Duration::from_secs)), Duration::from_secs(2));
    }

    #[test]
    fn the_memory_and_time_of_a_process_are_read() {
        let own = Pid::this();
        assert!(memory(own.as_raw()).unwrap()["Rss"] > 100_000);
        assert!(cpu_time(own).unwrap() >= 0.0);
    }
}
