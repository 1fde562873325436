//! What containers and sandboxes use.

use cri::v1;
use isolation::cgroup::Usage;

use crate::{Container, Engine, Sandbox, lock, now};

fn value(number: Option<u64>) -> Option<v1::UInt64Value> {
    number.map(|value| v1::UInt64Value { value })
}

fn cpu(usage: &Usage) -> v1::CpuUsage {
    v1::CpuUsage { timestamp: now(), usage_core_nano_seconds: value(usage.cpu_nanos), ..Default::default() }
}

fn memory(usage: &Usage, limit: Option<u64>) -> v1::MemoryUsage {
    v1::MemoryUsage {
        timestamp: now(),
        working_set_bytes: value(usage.working_set),
        available_bytes: value(limit.zip(usage.working_set).map(|(limit, used)| limit.saturating_sub(used))),
        usage_bytes: value(usage.memory),
        rss_bytes: value(usage.rss),
        page_faults: value(usage.page_faults.map(|(minor, _)| minor)),
        major_page_faults: value(usage.page_faults.map(|(_, major)| major)),
        psi: None,
    }
}

impl Engine {
    pub(crate) fn container_stats(&self, container: &Container) -> v1::ContainerStats {
        let record = lock(&container.record).clone();
        let config = record.config();
        let usage = self.hierarchies.group(&record.cgroup).usage();
        let limit = record.resources.as_ref().and_then(|r| u64::try_from(r.memory_limit_in_bytes).ok());
        let upper = self.writable(&record).join("upper");
        let (bytes, inodes) = size_of(&upper);
        v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                id: record.id,
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            cpu: Some(cpu(&usage)),
            memory: Some(memory(&usage, limit.filter(|limit| *limit > 0))),
            writable_layer: Some(v1::FilesystemUsage {
                timestamp: now(),
                fs_id: Some(v1::FilesystemIdentifier {
                    mountpoint: self.config.data_dir.to_string_lossy().into_owned(),
                }),
                used_bytes: value(Some(bytes)),
                inodes_used: value(Some(inodes)),
            }),
            swap: None,
            io: None,
        }
    }

    pub(crate) fn sandbox_stats(&self, sandbox: &Sandbox) -> v1::PodSandboxStats {
        let record = lock(&sandbox.record).clone();
        let config = record.config();
        let usage = self.hierarchies.group(&self.cgroup_parent(&record)).usage();
        let containers = self.containers_of(&record.id);
        v1::PodSandboxStats {
            linux: Some(v1::LinuxPodSandboxStats {
                cpu: Some(cpu(&usage)),
                memory: Some(memory(&usage, None)),
                network: network(record.shim_pid).filter(|_| !record.stopped && !record.host_network()),
                process: Some(v1::ProcessUsage { timestamp: now(), process_count: value(usage.pids) }),
                containers: containers.iter().map(|container| self.container_stats(container)).collect(),
                io: None,
            }),
            attributes: Some(v1::PodSandboxAttributes {
                id: record.id,
                metadata: config.metadata,
                labels: config.labels,
                annotations: config.annotations,
            }),
            windows: None,
        }
    }
}

/// What has gone over the pod's `eth0`, seen from inside.
fn network(pid: i32) -> Option<v1::NetworkUsage> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"))?;
    let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Some(v1::NetworkUsage {
        timestamp: now(),
        default_interface: Some(v1::NetworkInterfaceUsage {
            name: "eth0".into(),
            rx_bytes: value(fields.first().copied()),
            rx_errors: value(fields.get(2).copied()),
            tx_bytes: value(fields.get(8).copied()),
            tx_errors: value(fields.get(10).copied()),
        }),
        interfaces: Vec::new(),
    })
}

/// Bytes on disk and files below `dir`.
fn size_of(dir: &std::path::Path) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let (mut bytes, mut files) = (0, 0);
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(found) = entry.metadata() else { continue };
        bytes += found.blocks() * 512;
        files += 1;
        if found.is_dir() {
            let (more_bytes, more_files) = size_of(&entry.path());
            bytes += more_bytes;
            files += more_files;
        }
    }
    (bytes, files)
}
