//! The Node object and its lease: what this machine is, and that it is alive.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::{Patch, Resource};
use cri::v1;
use jiff::Timestamp;
use nix::sys::statvfs::statvfs;
use object_model::{Reason, time};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

const NODES: Resource = Resource { group: "", version: "v1", plural: "nodes" };
const LEASES: Resource = Resource { group: "coordination.k8s.io", version: "v1", plural: "leases" };
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often the lease is renewed (upstream's value).
const RENEW: Duration = Duration::from_secs(10);
/// How long a lease holds, in seconds (upstream's value).
const LEASE_SECONDS: i64 = 40;
/// How often the status is written although nothing changed (upstream's value).
const HEARTBEAT: Duration = Duration::from_secs(300);
/// How often it is looked at for changes.
const LOOK: Duration = Duration::from_secs(10);
/// After an error.
const RETRY: Duration = Duration::from_millis(200);
/// Pods that fit on a node.
const MAX_PODS: u32 = 250;
/// Images named in the status (upstream's value).
const MAX_IMAGES: usize = 50;
/// Below this part of free space the disk is under pressure: upstream's eviction threshold for images, which are on the same
/// file system as all else here, so that the lower one for the rest never counts.
const LEAST_FREE_PERCENT: u64 = 15;
/// Below this part of free inodes it is, too (upstream's eviction threshold).
const LEAST_INODES_PERCENT: u64 = 5;
/// Below this part of free process numbers they are under pressure (upstream has no threshold unless told one).
const LEAST_PIDS_PERCENT: u64 = 10;
/// Below this much available memory the node is under pressure (upstream's eviction threshold).
const LEAST_MEMORY: i64 = 100 << 20;

/// What does not change while the machine is up.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Logical processors.
    pub cpus: i64,
    /// Bytes of memory.
    pub memory: i64,
    kernel: String,
    os_image: String,
    machine_id: String,
    boot_id: String,
    architecture: &'static str,
}

impl Machine {
    /// Reads it from the system.
    pub fn read() -> anyhow::Result<Machine> {
        let cpus = std::thread::available_parallelism().context("count the processors")?.get();
        let line = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let release = line("/etc/os-release");
        let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        Ok(Machine {
            cpus: i64::try_from(cpus)?,
            memory: meminfo("MemTotal").context("read the size of the memory")?,
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: pretty.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned()),
            machine_id: line("/etc/machine-id"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            architecture: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            },
        })
    }
}

fn meminfo(key: &str) -> anyhow::Result<i64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kibi = line.and_then(|rest| rest.split_whitespace().next()).context("read /proc/meminfo")?;
    Ok(kibi.parse::<i64>()? * 1024)
}

/// Whether less than `percent` of `all` is free. File systems without a fixed number of inodes say that there are none.
fn low(free: u64, all: u64, percent: u64) -> bool {
    all > 0 && u128::from(free) * 100 < u128::from(all) * u128::from(percent)
}

/// How many tasks there are on the machine, and how many there can be.
fn pids() -> anyhow::Result<(u64, u64)> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("read {path}"));
    // The fourth field is "running/all".
    let load = read("/proc/loadavg")?;
    let used =
        load.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1)).context("read /proc/loadavg")?;
    let most = |path: &str| anyhow::Ok(read(path)?.trim().parse::<u64>()?);
    Ok((used.parse()?, most("/proc/sys/kernel/pid_max")?.min(most("/proc/sys/kernel/threads-max")?)))
}

/// Registers the node, keeps its status and its lease fresh.
pub(crate) async fn run(context: Arc<Context>, poke: Arc<Notify>, cancel: CancellationToken) {
    let status = async {
        let mut written: Option<(Value, Timestamp)> = None;
        loop {
            let pause = match keep_status(&context, &mut written).await {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!("keep the node's status: {error:#}");
                    written = None;
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = poke.notified() => {}
            }
        }
    };
    let lease = async {
        loop {
            let pause = match renew(&context).await {
                Ok(()) => RENEW,
                Err(error) => {
                    tracing::warn!("renew the node's lease: {error:#}");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = async { tokio::join!(status, lease); } => {}
    }
}

async fn keep_status(context: &Context, written: &mut Option<(Value, Timestamp)>) -> anyhow::Result<()> {
    let api = context.client.api(NODES);
    let name = &context.config.node_name;
    let now = client::clock::now();
    let facts = facts(context).await;
    let labels = json!({
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": context.machine.architecture,
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": context.machine.architecture,
    });
    let shown = match api.get(None, name).await {
        Ok(node) => {
            if let Some((last, at)) = written
                && *last == facts
                && now.duration_since(*at).unsigned_abs() < HEARTBEAT
            {
                return Ok(());
            }
            node
        }
        // At the first start, or because somebody has deleted it: a machine that runs is a node.
        Err(error) if error.reason == Reason::NotFound => {
            *written = None;
            let mut node = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": { "name": name, "labels": labels },
                "spec": {},
            });
            for (key, value) in &context.config.labels {
                node["metadata"]["labels"][key] = json!(value);
            }
            if !context.config.pod_cidr.is_empty() {
                node["spec"] = json!({ "podCIDR": context.config.pod_cidr, "podCIDRs": [context.config.pod_cidr] });
            }
            if !context.config.taints.is_empty() {
                node["spec"]["taints"] = json!(context.config.taints);
            }
            match api.create(None, &node).await {
                Err(error) if error.reason != Reason::AlreadyExists => return Err(error).context("register the node"),
                _ => node,
            }
        }
        Err(error) => return Err(error).context("read the node"),
    };
    let missing =
        labels.as_object().into_iter().flatten().any(|(key, value)| shown["metadata"]["labels"][key] != *value);
    if missing {
        let patch = json!({ "metadata": { "labels": labels } });
        api.patch(None, name, "", Patch::Merge, &patch).await.context("label the node")?;
    }
    let mut status = facts.clone();
    status["conditions"] = conditions(&facts["conditions"], &shown["status"]["conditions"], now);
    let patch = json!({ "status": status });
    api.patch(None, name, "status", Patch::Merge, &patch).await.context("write the node's status")?;
    *written = Some((facts, now));
    Ok(())
}

/// Stamps conditions; one whose status did not change keeps the time of its last transition. Those of others stay.
fn conditions(fresh: &Value, shown: &Value, now: Timestamp) -> Value {
    let stamp = time::seconds(now);
    let shown = shown.as_array().cloned().unwrap_or_default();
    let fresh = fresh.as_array().cloned().unwrap_or_default();
    let others = shown.iter().filter(|old| fresh.iter().all(|new| new["type"] != old["type"])).cloned();
    let mut all: Vec<Value> = others.collect();
    for mut condition in fresh.clone() {
        let old = shown.iter().find(|old| old["type"] == condition["type"] && old["status"] == condition["status"]);
        let since = old.and_then(|old| old["lastTransitionTime"].as_str()).unwrap_or(&stamp).to_owned();
        condition["lastHeartbeatTime"] = json!(stamp);
        condition["lastTransitionTime"] = json!(since);
        all.push(condition);
    }
    json!(all)
}

/// Everything of the status but the times.
async fn facts(context: &Context) -> Value {
    let (config, machine) = (&context.config, &context.machine);
    let cri = context.cri.clone();
    let version = cri.version(v1::VersionRequest { version: "v1".to_owned() }).await;
    let runtime = match &version {
        Ok(version) => format!("{}://{}", version.runtime_name, version.runtime_version),
        Err(_) => "knarr://unknown".to_owned(),
    };
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| json!({ "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message });
    let ready = match cri.status(v1::StatusRequest { verbose: false }).await {
        Ok(answer) => {
            let conditions = answer.status.unwrap_or_default().conditions;
            let unmet: Vec<String> = conditions
                .iter()
                .filter(|c| !c.status)
                .map(|c| format!("{}: {} {}", c.r#type, c.reason, c.message))
                .collect();
            if unmet.is_empty() {
                condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
            } else {
                condition("Ready", false, "KubeletNotReady", &unmet.join("; "))
            }
        }
        Err(status) => {
            let message = format!("container runtime is down: {}", status.message());
            condition("Ready", false, "KubeletNotReady", &message)
        }
    };
    let (disk_total, disk_low) = match statvfs(&config.data_dir) {
        Ok(disk) => {
            let low = low(disk.blocks_available(), disk.blocks(), LEAST_FREE_PERCENT)
                || low(disk.files_available(), disk.files(), LEAST_INODES_PERCENT);
            (disk.blocks() * disk.fragment_size(), low)
        }
        Err(_) => (0, false),
    };
    let memory_low = meminfo("MemAvailable").is_ok_and(|available| available < LEAST_MEMORY);
    let pressure = |kind: &str, on: bool, yes: &str, no: &str, thing: &str| {
        let message = format!("kubelet has {} {thing}", if on { "insufficient" } else { "sufficient" });
        condition(kind, on, if on { yes } else { no }, &message)
    };
    let disk = pressure(
        "DiskPressure",
        disk_low,
        "KubeletHasDiskPressure",
        "KubeletHasNoDiskPressure",
        "disk space available",
    );
    let memory = pressure(
        "MemoryPressure",
        memory_low,
        "KubeletHasInsufficientMemory",
        "KubeletHasSufficientMemory",
        "memory available",
    );
    let pids_low = pids().is_ok_and(|(used, all)| low(all.saturating_sub(used), all, LEAST_PIDS_PERCENT));
    let pids =
        pressure("PIDPressure", pids_low, "KubeletHasInsufficientPID", "KubeletHasSufficientPID", "PID available");
    // Rounded, so that a growing disk image does not make the node look changed at each look.
    let disk_kibi = disk_total / 1024;
    let amounts = json!({
        "cpu": machine.cpus.to_string(), "memory": format!("{}Ki", machine.memory / 1024),
        "ephemeral-storage": format!("{disk_kibi}Ki"), "pods": MAX_PODS.to_string(),
    });
    json!({
        "addresses": [
            { "type": "InternalIP", "address": context.host.ip },
            { "type": "Hostname", "address": config.node_name },
        ],
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [memory, disk, pids, ready],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": context.port } },
        "nodeInfo": {
            "machineID": machine.machine_id, "systemUUID": machine.machine_id, "bootID": machine.boot_id,
            "kernelVersion": machine.kernel, "osImage": machine.os_image, "containerRuntimeVersion": runtime,
            "kubeletVersion": config.version, "kubeProxyVersion": "", "operatingSystem": "linux",
            "architecture": machine.architecture,
        },
        "images": images(context).await,
    })
}

async fn images(context: &Context) -> Value {
    let request = v1::ListImagesRequest::default();
    let mut images = match context.cri.list_images(request).await {
        Ok(answer) => answer.images,
        Err(status) => {
            tracing::warn!("list images: {}", status.message());
            Vec::new()
        }
    };
    images.sort_by_key(|image| (std::cmp::Reverse(image.size), image.id.clone()));
    let shown = images.into_iter().take(MAX_IMAGES).map(|image| {
        let names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).take(5).collect();
        json!({ "names": names, "sizeBytes": image.size })
    });
    shown.collect()
}

async fn renew(context: &Context) -> anyhow::Result<()> {
    let api = context.client.api(LEASES);
    let name = &context.config.node_name;
    let now = time::micros(client::clock::now());
    let patch = json!({ "spec": { "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now } });
    match api.patch(Some(LEASE_NAMESPACE), name, "", Patch::Merge, &patch).await {
        Ok(_) => Ok(()),
        Err(error) if error.reason == Reason::NotFound => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": { "name": name, "namespace": LEASE_NAMESPACE },
                "spec": patch["spec"],
            });
            match api.create(Some(LEASE_NAMESPACE), &lease).await {
                Err(error) if error.reason != Reason::AlreadyExists => Err(error).context("create the lease"),
                _ => Ok(()),
            }
        }
        Err(error) => Err(error).context("renew the lease"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_begins_below_the_threshold() {
        assert!(!low(15, 100, 15));
        assert!(low(14, 100, 15));
        assert!(!low(0, 0, 5));
    }

    #[test]
    fn this_machine_has_more_process_numbers_than_processes() {
        let (used, all) = pids().unwrap();
        assert!(used > 0 && used < all, "{used} of {all}");
    }
}
