//! `cargo xtask bench api`: the API server alone under load, beside what was aimed at.
//!
//! One process makes the load, over TLS and with the administrator's certificate, on the machine that the server runs on:
//! both share its cores, so the figures are of the two together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use comfy_table::{Table, presets};
use http_body_util::BodyExt;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bench::{cpu_time, megabytes, memory};
use crate::cluster::{Cluster, Place};
use crate::host::{self, cmd};
use crate::load::{Connection, JSON, PROTOBUF, Target};

/// How long one measurement may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How many ConfigMaps are created over one, 16 and 64 connections; together they are the large list.
const CREATES: [(usize, usize); 3] = [(1, 2_000), (16, 10_000), (64, 25_000)];
/// How many there are in the small list.
const FEW: usize = 500;
/// How many bytes of data each has.
const DATA: usize = 1024;
/// For how long single objects are read.
const READING: Duration = Duration::from_secs(4);
/// How many follow one collection, and how many writes they see.
const WATCHERS: usize = 1_000;
const SEEN_WRITES: usize = 40;
/// The time between two of them.
const PAUSE: Duration = Duration::from_millis(150);

/// Options of `cargo xtask bench api`.
#[derive(clap::Args)]
pub struct Options {
    /// How often everything is measured, each time with a new server
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// Leave the last server running until Enter is pressed, to look at it
    #[arg(long)]
    hold: bool,
}

/// A measured figure: its name, and where it stands in the table.
struct Row {
    what: &'static str,
    unit: Unit,
    aim: &'static str,
    upstream: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    PerSecond,
    Millis,
    /// What a machine that is busy with other things changes least.
    Micros,
    MegabytesPerSecond,
    Bytes,
}

/// What is measured, in the order of [`measure`].
const ROWS: [Row; 18] = [
    row("creates, 1 connection", Unit::PerSecond, "1602/s", "534/s"),
    row("creates, 16 connections", Unit::PerSecond, "", "1744/s"),
    row("creates, 64 connections", Unit::PerSecond, "18472/s", "2309/s"),
    row("processor time of the server for each of these", Unit::Micros, "", ""),
    row("resident with 37,000", Unit::Bytes, "132 MB", "996 + 329 MB"),
    row("reads of one, 64 connections", Unit::PerSecond, "32570/s", "3257/s"),
    row("the same as protobuf", Unit::PerSecond, "", ""),
    row("processor time of the server for each read", Unit::Micros, "", ""),
    row("list of 500", Unit::Millis, "", "62 ms"),
    row("list of 500", Unit::MegabytesPerSecond, "328 MB/s", "41 MB/s"),
    row("list of 500 as protobuf", Unit::Millis, "", ""),
    row("list of 37,000", Unit::Millis, "", "586 ms"),
    row("list of 37,000", Unit::MegabytesPerSecond, "1232 MB/s", "154 MB/s"),
    row("list of 37,000 as protobuf", Unit::Millis, "", ""),
    row("list of 37,000 as protobuf", Unit::MegabytesPerSecond, "", ""),
    row("resident after the lists", Unit::Bytes, "", ""),
    row("write to 1,000 watchers, median", Unit::Millis, "", ""),
    row("write to 1,000 watchers, 99th percentile", Unit::Millis, "20 ms", ""),
];

const fn row(what: &'static str, unit: Unit, aim: &'static str, upstream: &'static str) -> Row {
    Row { what, unit, aim, upstream }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Millis => format!("{value:.1} ms"),
            Self::Micros => format!("{value:.0} µs"),
            Self::MegabytesPerSecond => format!("{value:.0} MB/s"),
            Self::Bytes => megabytes(value as u64),
        }
    }

    /// The better of two.
    fn better(self, a: f64, b: f64) -> f64 {
        match self {
            Self::PerSecond | Self::MegabytesPerSecond => a.max(b),
            Self::Millis | Self::Micros | Self::Bytes => a.min(b),
        }
    }
}

/// Measures servers of its own, which are gone afterwards.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_root("run a server")?;
    if cfg!(debug_assertions) {
        // What makes the load must not be what is measured.
        let hold = options.hold.then_some("--hold");
        return cmd(env!("CARGO"))
            .args(["run", "--quiet", "--release", "--package", "xtask", "--", "bench", "api", "--rounds"])
            .arg(options.rounds.to_string())
            .args(hold)
            .interactive()
            .run();
    }
    host::install(&[("curl", "curl"), ("ip", "iproute2"), ("nft", "nftables")])?;
    let knarr = host::build_release()?;
    // Nothing that the server does to the network is seen outside, and no other server is in its way.
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
    cmd("ip").args(["link", "set", "lo", "up"]).run()?;
    let mut all: Vec<Vec<f64>> = Vec::new();
    for round in 1..=options.rounds {
        let dir = tempfile::tempdir_in(host::target()?).context("create a directory for the benchmark")?;
        let server = [
            "--listen=127.0.0.1:16443",
            "--kubelet-listen=127.0.0.1:20250",
            "--pod-cidr=10.142.0.0/24",
            "--bridge=knarrbench0",
            "--cgroup-root=knarr-bench-api",
        ];
        let place = Place {
            data_dir: dir.path().join("data"),
            run_dir: dir.path().join("run"),
            server: server.map(str::to_owned).to_vec(),
        };
        let cluster = Cluster::of(&place, &knarr);
        host::say(&format!("Round {round} of {}", options.rounds));
        let measured = measure(&cluster);
        if options.hold && round == options.rounds {
            host::say(&format!("The server runs with {}; Enter ends it", cluster.kubeconfig().display()));
            std::io::stdin().read_line(&mut String::new()).context("wait for Enter")?;
        }
        // Whatever happened, nothing is left behind; the first error is the one to tell.
        let gone = cluster.stop().and_then(|()| cluster.uninstall());
        all.push(measured?);
        gone?;
    }
    println!("\n{}", table(&all));
    println!(
        "best of {} (worst); {} cores carry server and load\n\
         * upstream: API server and etcd, measured elsewhere on the same kind of machine",
        options.rounds,
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    Ok(())
}

fn table(all: &[Vec<f64>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["what", "knarr", "aim", "upstream*"]);
    for (at, row) in ROWS.iter().enumerate() {
        let values = || all.iter().map(|round| round[at]);
        let best = values().reduce(|a, b| row.unit.better(a, b)).unwrap_or_default();
        let worst = values().reduce(|a, b| if row.unit.better(a, b) == a { b } else { a }).unwrap_or_default();
        let shown = format!("{} ({})", row.unit.show(best), row.unit.show(worst));
        table.add_row([row.what, &shown, row.aim, row.upstream]);
    }
    table
}

/// One round. The load comes from one thread, so that a core is left to the server.
fn measure(cluster: &Cluster) -> anyhow::Result<Vec<f64>> {
    let pid = cluster.start()?.pid;
    let target = Target::of_kubeconfig(&cluster.kubeconfig())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(async {
        match timeout(PATIENCE, load(&target, pid)).await {
            Ok(measured) => measured,
            Err(_) => bail!("measure the API server: it did not end in {} s", PATIENCE.as_secs()),
        }
    })
}

async fn load(target: &Target, pid: Pid) -> anyhow::Result<Vec<f64>> {
    let mut one = target.connect().await?;
    for namespace in ["many", "few", "watched"] {
        let object = json!({"metadata": {"name": namespace}}).to_string();
        one.read("POST", "/api/v1/namespaces", JSON, object.into()).await?;
    }
    create(target.connections(4).await?, "few", FEW).await?;
    let mut measured = Vec::new();
    let mut each = 0.0;
    for (connections, count) in CREATES {
        let before = cpu_time(pid)?;
        let took = create(target.connections(connections).await?, "many", count).await?;
        measured.push(count as f64 / took.as_secs_f64());
        each = (cpu_time(pid)? - before) / count as f64 * 1e6;
    }
    measured.push(each);
    measured.push(resident(pid)?);
    for accept in [JSON, PROTOBUF] {
        let before = cpu_time(pid)?;
        let per_second = reads(target.connections(64).await?, accept).await?;
        measured.push(per_second);
        each = (cpu_time(pid)? - before) / (per_second * READING.as_secs_f64()) * 1e6;
    }
    measured.push(each);
    let (few, many) = ("/api/v1/namespaces/few/configmaps", "/api/v1/namespaces/many/configmaps");
    let (time, speed) = list(&mut one, few, JSON, 40).await?;
    measured.extend([time, speed]);
    let (time, _) = list(&mut one, few, PROTOBUF, 40).await?;
    measured.push(time);
    let (time, speed) = list(&mut one, many, JSON, 8).await?;
    measured.extend([time, speed]);
    let (time, speed) = list(&mut one, many, PROTOBUF, 8).await?;
    measured.extend([time, speed]);
    measured.push(resident(pid)?);
    measured.extend(fan_out(target).await?);
    ensure!(measured.len() == ROWS.len(), "measured {} figures for {} rows", measured.len(), ROWS.len());
    Ok(measured)
}

fn resident(pid: Pid) -> anyhow::Result<f64> {
    let memory = memory(pid.as_raw())?;
    Ok(memory.get("Rss").copied().with_context(|| format!("find the memory of process {pid}"))? as f64)
}

fn config_map(name: &str) -> Bytes {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": "x".repeat(DATA)}})
        .to_string()
        .into()
}

/// Creates ConfigMaps over all connections at once and says how long it took.
async fn create(connections: Vec<Connection>, namespace: &'static str, count: usize) -> anyhow::Result<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    let width = connections.len();
    for mut connection in connections {
        let next = next.clone();
        workers.spawn(async move {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, anyhow::Error>(());
                }
                let body = config_map(&format!("c{width}-{number}"));
                connection.read("POST", &path, JSON, body).await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.context("join a worker")??;
    }
    Ok(begin.elapsed())
}

/// Reads single objects over all connections at once and says how many came in a second.
async fn reads(connections: Vec<Connection>, accept: &'static str) -> anyhow::Result<f64> {
    let (width, count) = CREATES[CREATES.len() - 1];
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    for (worker, mut connection) in connections.into_iter().enumerate() {
        workers.spawn(async move {
            let mut done = 0;
            while begin.elapsed() < READING {
                // A stride that meets objects all over the collection.
                let number = (worker * 7_919 + done * 101) % count;
                let path = format!("/api/v1/namespaces/many/configmaps/c{width}-{number}");
                connection.read("GET", &path, accept, Bytes::new()).await?;
                done += 1;
            }
            Ok::<_, anyhow::Error>(done)
        });
    }
    let mut done = 0;
    while let Some(worker) = workers.join_next().await {
        done += worker.context("join a worker")??;
    }
    Ok(done as f64 / begin.elapsed().as_secs_f64())
}

/// Lists a collection again and again: the best time in milliseconds, and the megabytes in a second of it.
async fn list(connection: &mut Connection, path: &str, accept: &str, times: usize) -> anyhow::Result<(f64, f64)> {
    let mut best = (f64::MAX, 0.0);
    for _ in 0..times {
        let begin = Instant::now();
        let size = connection.read("GET", path, accept, Bytes::new()).await?;
        let seconds = begin.elapsed().as_secs_f64();
        if seconds * 1e3 < best.0 {
            best = (seconds * 1e3, size as f64 / 1e6 / seconds);
        }
    }
    Ok(best)
}

/// Lets many watchers, each on a connection of its own, follow one collection: how many milliseconds pass from before a
/// write to its arrival at a watcher, at the median and the 99th percentile.
async fn fan_out(target: &Target) -> anyhow::Result<[f64; 2]> {
    let collection = "/api/v1/namespaces/watched/configmaps";
    let mut writer = target.connect().await?;
    // A controller writes into each new namespace; what is watched afterwards are the writes of this function alone.
    while writer.read("GET", &format!("{collection}/kube-root-ca.crt"), JSON, Bytes::new()).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    let made = writer.ask("POST", collection, JSON, config_map("seen")).await?.collect().await?.to_bytes();
    let made: serde_json::Value = serde_json::from_slice(&made).context("read what was created")?;
    let revision = made["metadata"]["resourceVersion"].as_str().context("find the revision of what was created")?;
    let watch = format!("{collection}?watch=true&resourceVersion={revision}");
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    let mut watchers = JoinSet::new();
    for mut connection in target.connections(WATCHERS).await? {
        let mut events = connection.ask("GET", &watch, JSON, Bytes::new()).await?;
        let sender = sender.clone();
        watchers.spawn(async move {
            // A frame of HTTP may hold a part of an event or several; each event ends with the only newline in it.
            let _open = connection;
            while let Some(Ok(frame)) = events.frame().await {
                let now = Instant::now();
                let ends = frame.data_ref().map_or(0, |data| data.iter().filter(|b| **b == b'\n').count());
                for _ in 0..ends {
                    _ = sender.send(now);
                }
            }
        });
    }
    let mut times = Vec::with_capacity(SEEN_WRITES * WATCHERS);
    for number in 0..SEEN_WRITES {
        tokio::time::sleep(PAUSE).await;
        let patch = json!({"metadata": {"labels": {"number": number.to_string()}}}).to_string();
        let begin = Instant::now();
        writer.read("PATCH", &format!("{collection}/seen"), JSON, patch.into()).await?;
        for _ in 0..WATCHERS {
            let arrival = arrivals.recv().await.context("watch")?;
            let time = arrival.checked_duration_since(begin).context("an event came before its write")?;
            times.push(time.as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], times[times.len() * 99 / 100]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_the_best_round_and_the_worst() {
        let mut rounds = vec![vec![1.0; ROWS.len()]; 2];
        rounds[1] = vec![2.0; ROWS.len()];
        let text = table(&rounds).to_string();
        assert!(text.contains("2/s (1/s)") && text.contains("1.0 ms (2.0 ms)"), "{text}");
    }
}
