//! The life of a pod sandbox: run, stop, remove.

use std::{fs, os::fd::OwnedFd, sync::Arc};

use anyhow::{Context as _, Result};
use cri::v1;
use isolation::{SandboxSpec, Shim, cgroup::Group};
use tonic::Status;

use crate::{Engine, Sandbox, blocking, lock, new_id, now, record, record::SandboxRecord};

/// Size of a pod's `/dev/shm`, in bytes: what the container engines agree on.
const SHARED_MEMORY: u64 = 64 << 20;

impl Engine {
    /// The control group of a sandbox's own process.
    pub(crate) fn sandbox_group(&self, record: &SandboxRecord) -> Group {
        self.hierarchies.group(&format!("{}/{}", self.cgroup_parent(record), record.id))
    }

    /// The control group that holds a sandbox's containers.
    pub(crate) fn cgroup_parent(&self, record: &SandboxRecord) -> String {
        let parent = record.cgroup_parent();
        if parent.is_empty() { format!("{}/{}", self.config.cgroup_root, record.id) } else { parent }
    }

    /// Makes a sandbox. What was made is undone if a later step fails.
    pub(crate) async fn run_sandbox(&self, request: v1::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("the sandbox has no configuration"))?;
        if config.metadata.is_none() {
            return Err(Status::invalid_argument("the sandbox has no metadata"));
        }
        if !request.runtime_handler.is_empty() {
            let handler = &request.runtime_handler;
            return Err(Status::invalid_argument(format!("runtime handler {handler:?} is not known: use the default")));
        }
        let record = SandboxRecord {
            id: new_id(),
            config: Some(config),
            created_at: now(),
            runtime_handler: request.runtime_handler,
            ..SandboxRecord::default()
        };
        self.bring_up(record).await
    }

    /// Makes the sandbox that a fresh record describes.
    pub(crate) async fn bring_up(&self, record: SandboxRecord) -> Result<String, Status> {
        self.check_sandbox(&record)?;
        let metadata = record.config().metadata.unwrap_or_default();
        let id = record.id.clone();
        let engine = self.arc();
        let half_made = record.clone();
        let made = blocking(move || {
            let made = engine.make_sandbox(record);
            if made.is_err() {
                // The cause is in the answer; what cannot be undone now is swept at the next start.
                if let Err(e) = engine.sweep_sandbox(&half_made) {
                    tracing::warn!(sandbox = half_made.id, "undo a half made sandbox: {e:#}");
                }
            }
            made
        })
        .await;
        let (record, shim) = made.map_err(|e| {
            let e = e.context(format!("run pod sandbox {}/{}", metadata.namespace, metadata.name));
            Status::unknown(format!("{e:#}"))
        })?;
        let sandbox = Arc::new(Sandbox {
            record: record.into(),
            shim: Some(shim.clone()).into(),
            changing: tokio::sync::Mutex::default(),
        });
        lock(&self.sandboxes).insert(id.clone(), sandbox);
        self.watch(&id, shim).await.map_err(crate::status)?;
        self.announce(&id, &id, v1::ContainerEventType::ContainerCreatedEvent);
        self.announce(&id, &id, v1::ContainerEventType::ContainerStartedEvent);
        Ok(id)
    }

    fn check_sandbox(&self, record: &SandboxRecord) -> Result<(), Status> {
        // Port mappings are not this engine's: who makes the rules of the node's network leads host ports to the address.
        let userns = record.namespaces().userns_options;
        if userns.is_some_and(|options| options.mode() == v1::NamespaceMode::Pod) {
            return Err(Status::unimplemented("user namespaces are not supported"));
        }
        Ok(())
    }

    fn make_sandbox(&self, mut record: SandboxRecord) -> Result<(SandboxRecord, Shim)> {
        let (data, run) = (self.sandbox_data(&record.id), self.sandbox_run(&record.id));
        for dir in [&data, &run] {
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        }
        // From here on the record tells what to sweep if this process ends in between.
        record::write(&data, &record)?;
        let group = self.sandbox_group(&record);
        note(&group.create()?);
        let config = record.config();
        let namespaces = record.namespaces();
        let linux = config.linux.clone().unwrap_or_default();
        let spec = SandboxSpec {
            hostname: config.hostname.clone(),
            host_network: record.host_network(),
            host_ipc: namespaces.ipc() == v1::NamespaceMode::Node,
            shared_pid: namespaces.pid() == v1::NamespaceMode::Pod,
            sysctls: linux.sysctls.into_iter().collect(),
            cgroup_dirs: group.dirs(),
            shm_size: SHARED_MEMORY,
        };
        let (shim, pid) = self.nursery.shim(&run, &spec)?;
        record.shim_pid = pid;
        if !record.host_network() {
            let namespace: OwnedFd =
                fs::File::open(format!("/proc/{pid}/ns/net")).context("open the pod's network")?.into();
            if record.unconnected {
                self.network.attach_to_nothing(&namespace)?;
            } else {
                record.ip = self.network.attach(&record.id, &namespace)?.to_string();
            }
        }
        write_files(&run, &record)?;
        record.complete = true;
        record::write(&data, &record)?;
        Ok((record, shim))
    }

    /// Removes everything of a sandbox that is half made or no longer wanted.
    pub(crate) fn sweep_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        let (data, run) = (self.sandbox_data(&record.id), self.sandbox_run(&record.id));
        self.halt_sandbox(record)?;
        let parent = self.cgroup_parent(record);
        if record.cgroup_parent().is_empty() {
            self.hierarchies.group(&parent).remove()?;
        } else if parent.starts_with(&format!("{}/", self.config.cgroup_root)) {
            // It came into being with its first sandbox; a caller that limits it makes it anew before the next.
            self.hierarchies.group(&parent).remove_if_empty();
        }
        for dir in [run, data] {
            remove_dir(&dir)?;
        }
        Ok(())
    }

    /// Ends a sandbox's processes and frees its network; may be repeated.
    fn halt_sandbox(&self, record: &SandboxRecord) -> Result<()> {
        let run = self.sandbox_run(&record.id);
        if let Some(shim) = Shim::find(&run) {
            shim.stop()?;
        }
        if run.join("shm").exists() {
            isolation::unmount(&run.join("shm"))?;
        }
        self.network.detach(&record.id)?;
        // The shim itself may need a moment to leave; what else is in there is killed.
        self.sandbox_group(record).remove()
    }

    /// Stops a sandbox and every container in it; one that is stopped or unknown is success.
    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _one = sandbox.changing.lock().await;
        let mut record = lock(&sandbox.record).clone();
        if record.stopped {
            return Ok(());
        }
        let engine = self.arc();
        let halting = record.clone();
        blocking(move || engine.halt_sandbox(&halting)).await.with_context(|| format!("stop pod sandbox {id}"))?;
        *lock(&sandbox.shim) = None;
        for container in self.containers_of(&record.id) {
            self.settle_end(&container).await?;
        }
        record.stopped = true;
        record.ip.clear();
        record::write(&self.sandbox_data(&record.id), &record)?;
        let id = record.id.clone();
        *lock(&sandbox.record) = record;
        self.announce(&id, &id, v1::ContainerEventType::ContainerStoppedEvent);
        Ok(())
    }

    /// Removes a sandbox and everything in it; an unknown one is success.
    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(id).await?;
        let record = lock(&sandbox.record).clone();
        for container in self.containers_of(&record.id) {
            let id = lock(&container.record).id.clone();
            self.remove_container(&id).await?;
        }
        let _one = sandbox.changing.lock().await;
        let engine = self.arc();
        let sweeping = record.clone();
        blocking(move || engine.sweep_sandbox(&sweeping)).await.with_context(|| format!("remove pod sandbox {id}"))?;
        self.announce(&record.id, &record.id, v1::ContainerEventType::ContainerDeletedEvent);
        lock(&self.sandboxes).remove(&record.id);
        Ok(())
    }
}

/// Says what limits the machine cannot enforce.
pub(crate) fn note(notes: &[String]) {
    for note in notes {
        tracing::warn!("{note}");
    }
}

/// Removes a directory; none there is success.
pub(crate) fn remove_dir(dir: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Files that show in every container of the sandbox.
fn write_files(run: &std::path::Path, record: &SandboxRecord) -> Result<()> {
    let config = record.config();
    let machine = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let resolv = match &config.dns_config {
        Some(dns) => resolv_conf(dns),
        None => machine("/etc/resolv.conf"),
    };
    let hostname = if config.hostname.is_empty() { machine("/etc/hostname") } else { format!("{}\n", config.hostname) };
    let hosts = if record.host_network() {
        machine("/etc/hosts")
    } else {
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{}\n", record.ip, config.hostname)
    };
    for (name, text) in [("resolv.conf", resolv), ("hostname", hostname), ("hosts", hosts)] {
        fs::write(run.join(name), text).with_context(|| format!("write the sandbox's {name}"))?;
    }
    Ok(())
}

fn resolv_conf(dns: &v1::DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_file_has_search_servers_and_options() {
        let own = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        let dns = v1::DnsConfig {
            servers: own(&["10.43.0.10"]),
            searches: own(&["a.svc", "svc"]),
            options: own(&["ndots:5"]),
        };
        assert_eq!(resolv_conf(&dns), "search a.svc svc\nnameserver 10.43.0.10\noptions ndots:5\n");
    }
}
