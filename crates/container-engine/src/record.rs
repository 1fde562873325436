//! What is remembered about sandboxes and containers on disk: one small file each, replaced atomically.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, Result};
use cri::v1;
use prost::Message;

/// Name of the file in the directory of a sandbox or container.
const FILE: &str = "record";

/// A sandbox.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct SandboxRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub config: Option<v1::PodSandboxConfig>,
    /// Nanoseconds since 1970.
    #[prost(int64, tag = "3")]
    pub created_at: i64,
    /// Everything about it has been made. Without this it is half made, and swept at the next start.
    #[prost(bool, tag = "4")]
    pub complete: bool,
    /// It has been stopped.
    #[prost(bool, tag = "5")]
    pub stopped: bool,
    #[prost(string, tag = "6")]
    pub runtime_handler: String,
    /// Process number of the shim, for whoever looks for it by hand.
    #[prost(int32, tag = "7")]
    pub shim_pid: i32,
    #[prost(string, tag = "8")]
    pub ip: String,
    /// Who made it, if not a caller of CRI; CRI does not list it then.
    #[prost(string, tag = "9")]
    pub owner: String,
    /// It has a network of its own that leads nowhere.
    #[prost(bool, tag = "10")]
    pub unconnected: bool,
}

impl SandboxRecord {
    pub fn config(&self) -> v1::PodSandboxConfig {
        self.config.clone().unwrap_or_default()
    }

    /// Which namespaces it shares with the machine.
    pub fn namespaces(&self) -> v1::NamespaceOption {
        let linux = self.config.as_ref().and_then(|config| config.linux.as_ref());
        linux.and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone()).unwrap_or_default()
    }

    pub fn host_network(&self) -> bool {
        self.namespaces().network() == v1::NamespaceMode::Node
    }

    /// The control group that holds those of its containers.
    pub fn cgroup_parent(&self) -> String {
        let linux = self.config.as_ref().and_then(|config| config.linux.as_ref());
        linux.map(|linux| linux.cgroup_parent.clone()).unwrap_or_default()
    }
}

/// A container.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ContainerRecord {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub sandbox_id: String,
    #[prost(message, optional, tag = "3")]
    pub config: Option<v1::ContainerConfig>,
    /// Nanoseconds since 1970, like the other times.
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    /// 0 before the start.
    #[prost(int64, tag = "5")]
    pub started_at: i64,
    /// 0 before the end.
    #[prost(int64, tag = "6")]
    pub finished_at: i64,
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    #[prost(string, tag = "8")]
    pub reason: String,
    #[prost(string, tag = "9")]
    pub message: String,
    #[prost(string, tag = "10")]
    pub image_id: String,
    #[prost(string, tag = "11")]
    pub image_ref: String,
    #[prost(message, optional, tag = "12")]
    pub user: Option<v1::LinuxContainerUser>,
    #[prost(bool, tag = "13")]
    pub complete: bool,
    #[prost(string, tag = "14")]
    pub cgroup: String,
    #[prost(string, tag = "15")]
    pub log_path: String,
    /// Number of the signal that asks it to stop.
    #[prost(int32, tag = "16")]
    pub stop_signal: i32,
    #[prost(message, optional, tag = "17")]
    pub resources: Option<v1::LinuxContainerResources>,
    /// As that of its sandbox.
    #[prost(string, tag = "18")]
    pub owner: String,
    /// Directory of its writable layer, if that is to outlive it; empty is one of its own.
    #[prost(string, tag = "19")]
    pub writable: String,
    /// The kernel killed a process of it for want of memory.
    #[prost(bool, tag = "20")]
    pub oom_killed: bool,
}

impl ContainerRecord {
    pub fn config(&self) -> v1::ContainerConfig {
        self.config.clone().unwrap_or_default()
    }

    pub fn state(&self) -> v1::ContainerState {
        match (self.finished_at, self.started_at) {
            (0, 0) => v1::ContainerState::ContainerCreated,
            (0, _) => v1::ContainerState::ContainerRunning,
            _ => v1::ContainerState::ContainerExited,
        }
    }
}

/// Writes a record into `dir`; after a crash there is the old one or the new one.
pub(crate) fn write(dir: &Path, record: &impl Message) -> Result<()> {
    let fresh = dir.join("record.new");
    let mut file = fs::File::create(&fresh).with_context(|| format!("write {}", fresh.display()))?;
    file.write_all(&record.encode_to_vec()).with_context(|| format!("write {}", fresh.display()))?;
    fs::rename(&fresh, dir.join(FILE)).with_context(|| format!("replace the record in {}", dir.display()))
}

/// Every record below `dir`, by the name of its directory. What cannot be read is half made: `None`.
pub(crate) fn read_all<R: Message + Default>(dir: &Path) -> Result<Vec<(String, Option<R>)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry.with_context(|| format!("list {}", dir.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let record = fs::read(entry.path().join(FILE)).ok().and_then(|bytes| R::decode(bytes.as_slice()).ok());
        found.push((name, record));
    }
    Ok(found)
}
