//! Containers that are alone in their sandbox, for callers other than CRI: one word to make both, one to remove both.
//!
//! CRI neither lists these nor hears of them. Shims keep them like all others, and the next start adopts them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use cri::v1;
use isolation::{Event, ExecSpec, Failure, Shim, User, cgroup::Usage};

use crate::{
    Container, Engine, blocking, containers::Beside, convert, lock, new_id, now, record::SandboxRecord,
    streams::Stream, watch,
};

/// Where a container's packets go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Over the node's bridge, with an address of its own.
    #[default]
    Bridge,
    /// The machine's own network.
    Host,
    /// Nowhere.
    Nothing,
}

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct SingleSpec {
    /// Its id: 64 hexadecimal digits, unique on the machine.
    pub id: String,
    /// Who makes it; the key of [`Engine::singles`].
    pub owner: String,
    /// Its name, for messages.
    pub name: String,
    /// Name of the machine as it sees it.
    pub hostname: String,
    /// See [`Network`].
    pub network: Network,
    /// Servers, search domains and options of its resolver; all empty for the machine's.
    pub dns: (Vec<String>, Vec<String>, Vec<String>),
    /// Kernel parameters of its namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Use the machine's message objects and shared memory.
    pub host_ipc: bool,
    /// See the machine's processes.
    pub host_pid: bool,
    /// Id of the image.
    pub image: String,
    /// Directory of the writable layer, which outlives the container.
    pub writable: PathBuf,
    /// Program and arguments, whole.
    pub args: Vec<String>,
    /// Variables beside those of the image.
    pub env: Vec<(String, String)>,
    /// Working directory; empty is the image's.
    pub cwd: String,
    /// `uid`, `name`, `uid:gid` or `name:group`; empty is the image's.
    pub user: String,
    /// Give it a terminal.
    pub tty: bool,
    /// Keep its standard input open for whoever attaches.
    pub stdin: bool,
    /// Close its standard input when the first who attached leaves.
    pub stdin_once: bool,
    /// Where its output goes, in the CRI log format; empty drops it.
    pub log_path: PathBuf,
    /// Path on the machine, path in the container, read-only.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
    /// All devices and capabilities.
    pub privileged: bool,
    /// Capabilities beside the usual ones.
    pub add_capabilities: Vec<String>,
    /// Capabilities that are taken away.
    pub drop_capabilities: Vec<String>,
    /// Let it make every system call.
    pub any_system_call: bool,
    /// No new privileges by executing a file.
    pub no_new_privileges: bool,
    /// Its root is not writable.
    pub readonly: bool,
    /// Most memory in bytes; 0 for no limit.
    pub memory: i64,
    /// Relative weight on the processors; 0 for the usual one.
    pub cpu_shares: i64,
    /// Microseconds of processor time in each period; 0 for no limit.
    pub cpu_quota: i64,
    /// Length of that period in microseconds; 0 for the usual one.
    pub cpu_period: i64,
    /// Allowed processors, such as `0-1`; empty for all.
    pub cpuset_cpus: String,
    /// Number of the signal that asks it to stop; `None` is the image's.
    pub stop_signal: Option<i32>,
}

/// A container as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Single {
    /// Its id.
    pub id: String,
    /// Its program runs.
    pub running: bool,
    /// Its program has ended, or could not be started.
    pub ended: bool,
    /// Start and end in nanoseconds since 1970, 0 before each.
    pub started_at: i64,
    /// See `started_at`.
    pub finished_at: i64,
    /// Exit status, or 128 and the signal that ended it.
    pub exit_code: i32,
    /// The kernel killed a process of it for want of memory.
    pub oom_killed: bool,
    /// Its address on the bridge; empty without one.
    pub ip: String,
}

/// The streams of a process.
pub struct Streams {
    /// What it reads, or its terminal.
    pub stdin: Option<Arc<Stream>>,
    /// What it prints, or all that its terminal shows.
    pub stdout: Arc<Stream>,
    /// What it prints as errors, without a terminal.
    pub stderr: Option<Arc<Stream>>,
    /// It has a terminal.
    pub tty: bool,
}

/// A further process in a container.
pub struct Command {
    /// Its number on the machine.
    pub pid: i32,
    /// Its streams.
    pub streams: Streams,
    exit: tokio::net::UnixStream,
}

impl Command {
    /// Waits for its end; its exit status, or 128 and the signal that ended it.
    pub async fn wait(&mut self) -> Result<i32> {
        match watch::next_event(&mut self.exit).await? {
            Some(Event::ExecExited { code }) => Ok(code),
            // The container has ended under it.
            _ => Ok(137),
        }
    }
}

fn strings(list: &[String]) -> Vec<String> {
    list.to_vec()
}

impl SingleSpec {
    fn sandbox(&self) -> SandboxRecord {
        let node = |yes: bool, other| if yes { v1::NamespaceMode::Node } else { other };
        let (servers, searches, options) = self.dns.clone();
        let own_dns = !(servers.is_empty() && searches.is_empty() && options.is_empty());
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: self.name.clone(),
                namespace: self.owner.clone(),
                uid: self.id.clone(),
                attempt: 0,
            }),
            hostname: self.hostname.clone(),
            log_directory: self.log_path.parent().map(|dir| dir.display().to_string()).unwrap_or_default(),
            dns_config: own_dns.then_some(v1::DnsConfig { servers, searches, options }),
            linux: Some(v1::LinuxPodSandboxConfig {
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        network: node(self.network == Network::Host, v1::NamespaceMode::Pod).into(),
                        pid: node(self.host_pid, v1::NamespaceMode::Container).into(),
                        ipc: node(self.host_ipc, v1::NamespaceMode::Pod).into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                sysctls: self.sysctls.iter().cloned().collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        SandboxRecord {
            id: new_id(),
            config: Some(config),
            created_at: now(),
            owner: self.owner.clone(),
            unconnected: self.network == Network::Nothing,
            ..SandboxRecord::default()
        }
    }

    fn container(&self, namespaces: v1::NamespaceOption) -> v1::ContainerConfig {
        use v1::security_profile::ProfileType;
        let profile = if self.any_system_call { ProfileType::Unconfined } else { ProfileType::RuntimeDefault };
        let paths =
            |list: &[&str]| if self.privileged { Vec::new() } else { list.iter().map(|p| (*p).into()).collect() };
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: self.name.clone(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: self.image.clone(), ..Default::default() }),
            command: self.args.clone(),
            working_dir: self.cwd.clone(),
            envs: self.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
            mounts: self
                .mounts
                .iter()
                .map(|(source, target, readonly)| v1::Mount {
                    host_path: source.display().to_string(),
                    container_path: target.display().to_string(),
                    readonly: *readonly,
                    ..Default::default()
                })
                .collect(),
            log_path: self.log_path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            stdin: self.stdin,
            stdin_once: self.stdin_once,
            tty: self.tty,
            linux: Some(v1::LinuxContainerConfig {
                resources: Some(v1::LinuxContainerResources {
                    memory_limit_in_bytes: self.memory,
                    cpu_shares: self.cpu_shares,
                    cpu_quota: self.cpu_quota,
                    cpu_period: self.cpu_period,
                    cpuset_cpus: self.cpuset_cpus.clone(),
                    ..Default::default()
                }),
                security_context: Some(v1::LinuxContainerSecurityContext {
                    capabilities: Some(v1::Capability {
                        add_capabilities: strings(&self.add_capabilities),
                        drop_capabilities: strings(&self.drop_capabilities),
                        ..Default::default()
                    }),
                    privileged: self.privileged,
                    namespace_options: Some(namespaces),
                    run_as_username: self.user.clone(),
                    readonly_rootfs: self.readonly,
                    no_new_privs: self.no_new_privileges,
                    masked_paths: paths(&convert::MASKED),
                    readonly_paths: paths(&convert::READONLY),
                    seccomp: Some(v1::SecurityProfile { profile_type: profile.into(), ..Default::default() }),
                    ..Default::default()
                }),
            }),
            ..Default::default()
        }
    }
}

impl Engine {
    /// Makes a container up to the point where only its program is missing. Its address, empty without one.
    pub async fn create_single(&self, spec: SingleSpec) -> Result<String> {
        let sandbox = spec.sandbox();
        let namespaces = sandbox.namespaces();
        let sandbox_id = self.bring_up(sandbox).await.map_err(said)?;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.clone(),
            config: Some(spec.container(namespaces)),
            sandbox_config: None,
        };
        let beside = Beside {
            id: spec.id.clone(),
            owner: spec.owner.clone(),
            writable: spec.writable.display().to_string(),
            stop_signal: spec.stop_signal,
        };
        if let Err(e) = self.create_container(request, beside).await {
            self.remove_sandbox(&sandbox_id).await.context("undo a half made container")?;
            return Err(said(e));
        }
        let ip = self.sandbox(&sandbox_id).map(|sandbox| lock(&sandbox.record).ip.clone());
        Ok(ip.unwrap_or_default())
    }

    /// Runs the program of a container.
    pub async fn start_single(&self, id: &str) -> Result<()> {
        self.start_container(id).await.map_err(said)
    }

    fn single_of(&self, container: &Container) -> Single {
        let record = lock(&container.record).clone();
        let ip = self.sandbox(&record.sandbox_id).map(|sandbox| lock(&sandbox.record).ip.clone());
        Single {
            id: record.id,
            running: record.started_at != 0 && record.finished_at == 0,
            ended: record.finished_at != 0,
            started_at: record.started_at,
            finished_at: record.finished_at,
            exit_code: record.exit_code,
            oom_killed: record.oom_killed,
            ip: ip.unwrap_or_default(),
        }
    }

    /// The containers of an owner.
    pub fn singles(&self, owner: &str) -> Vec<Single> {
        let all: Vec<_> = lock(&self.containers).values().cloned().collect();
        all.iter().filter(|one| lock(&one.record).owner == owner).map(|one| self.single_of(one)).collect()
    }

    /// One container by its whole id.
    pub fn single(&self, id: &str) -> Option<Single> {
        let container = lock(&self.containers).get(id).cloned()?;
        Some(self.single_of(&container))
    }

    /// Waits for the end of a container's program; `None` if there is no such container.
    pub async fn wait_single(&self, id: &str) -> Option<Single> {
        let container = lock(&self.containers).get(id).cloned()?;
        let mut ended = container.ended.subscribe();
        ended.wait_for(|ended| *ended).await.ok()?;
        Some(self.single_of(&container))
    }

    /// Asks a container to stop by its signal, and kills it after `grace`.
    pub async fn stop_single(&self, id: &str, grace: Duration) -> Result<()> {
        self.stop_container(id, grace).await
    }

    /// Sends a signal to a container's first process.
    pub async fn signal_single(&self, id: &str, signal: i32) -> Result<()> {
        let (shim, id) = self.shim_of_single(id)?;
        blocking(move || shim.kill(&id, signal)).await
    }

    /// Removes a container, killing it if it runs. Its writable layer and its log stay.
    pub async fn remove_single(&self, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        let sandbox = lock(&container.record).sandbox_id.clone();
        self.remove_sandbox(&sandbox).await
    }

    fn shim_of_single(&self, id: &str) -> Result<(Shim, String)> {
        let container = self.container(id).map_err(said)?;
        let (sandbox, id) = {
            let record = lock(&container.record);
            (record.sandbox_id.clone(), record.id.clone())
        };
        Ok((self.shim_of(&sandbox)?, id))
    }

    /// Number of a container's first process on the machine; `None` if there is none.
    pub async fn pid_of_single(&self, id: &str) -> Option<i32> {
        let (shim, id) = self.shim_of_single(id).ok()?;
        let states = blocking(move || shim.state()).await.ok()?;
        states.into_iter().find(|state| state.id == id).map(|state| state.pid).filter(|pid| *pid > 0)
    }

    /// Joins the streams of a container's first process.
    pub async fn attach_single(&self, id: &str) -> Result<Streams> {
        let (shim, id) = self.shim_of_single(id)?;
        let attached = blocking(move || shim.attach(&id)).await?;
        Ok(Streams {
            stdin: attached.stdin.map(Stream::new).transpose()?.map(Arc::new),
            stdout: Arc::new(Stream::new(attached.stdout)?),
            stderr: if attached.tty { None } else { Some(Arc::new(Stream::new(attached.stderr)?)) },
            tty: attached.tty,
        })
    }

    /// Lets go of a container's input, if it was made to end with the first who attached.
    pub async fn close_stdin_of_single(&self, id: &str) -> Result<()> {
        let (shim, id) = self.shim_of_single(id)?;
        blocking(move || shim.close_stdin(&id)).await
    }

    /// Sets the size of a container's terminal.
    pub async fn resize_single(&self, id: &str, width: u16, height: u16) -> Result<()> {
        let streams = self.attach_single(id).await?;
        match streams.stdin.filter(|_| streams.tty) {
            Some(terminal) => terminal.resize(width, height),
            None => Ok(()),
        }
    }

    /// Runs a further process in a container.
    pub async fn exec_single(&self, spec: ExecSpec) -> Result<Command> {
        let tty = spec.tty;
        let (_, exec) = self.start_exec(spec).await.map_err(said)?;
        exec.exit.set_nonblocking(true).context("wait for the command")?;
        let stdout = Arc::new(Stream::new(exec.stdout)?);
        let stdin = match exec.stdin {
            Some(stdin) => Some(Arc::new(Stream::new(stdin)?)),
            None => tty.then(|| stdout.clone()),
        };
        let stderr = exec.stderr.map(Stream::new).transpose()?.map(Arc::new);
        let exit = tokio::net::UnixStream::from_std(exec.exit).context("wait for the command")?;
        Ok(Command { pid: exec.pid, streams: Streams { stdin, stdout, stderr, tty }, exit })
    }

    /// Replaces the file `/etc/hosts` of a container.
    pub fn set_hosts_of_single(&self, id: &str, text: &str) -> Result<()> {
        let container = self.container(id).map_err(said)?;
        let sandbox = lock(&container.record).sandbox_id.clone();
        // Written in place: the container has this very file.
        std::fs::write(self.sandbox_run(&sandbox).join("hosts"), text).context("write the container's hosts")
    }

    /// What a container has used.
    pub async fn usage_of_single(&self, id: &str) -> Result<Usage> {
        let container = self.container(id).map_err(said)?;
        let group = self.hierarchies.group(&lock(&container.record).cgroup);
        blocking(move || Ok(group.usage())).await
    }

    /// Runs a process as `user` when a container's exec names one.
    pub fn user_named(user: &str) -> User {
        User { user: user.to_owned(), ..User::default() }
    }

    /// The address of the node on the containers' bridge, and their range.
    pub fn bridge_network(&self) -> (String, String, String) {
        (self.config.bridge.clone(), self.network.gateway().to_string(), self.network.cidr().to_string())
    }
}

/// A status as a plain error. What the shim said of a program stays findable as [`Failure`].
fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::Error::new(Failure { message: status.message().to_owned(), exit_code: 128 })
}
