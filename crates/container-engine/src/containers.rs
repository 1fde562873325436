//! The life of a container: create, start, stop, remove, and running commands in it.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use cri::v1;
use image_store::Image;
use isolation::{
    BindMount, ContainerSpec, ContainerState, Exec, ExecSpec, Failure, Identity, Rootfs, Shim, recorded_exit,
};
use tonic::Status;

use crate::{
    Container, Engine, blocking, convert, lock, new_id, now, record,
    record::{ContainerRecord, SandboxRecord},
    sandboxes::{note, remove_dir},
};

/// How long a killed process may take to be gone.
const BURIAL: Duration = Duration::from_secs(30);

const SIGTERM: i32 = nix::sys::signal::SIGTERM as i32;
const SIGKILL: i32 = nix::sys::signal::SIGKILL as i32;

/// Exit code of a container whose program could not be run, as the kubelet's users know it.
const START_ERROR: i32 = 128;

/// Exit code of a container whose end nobody saw.
const UNKNOWN: i32 = 255;

/// What a caller other than CRI says of a container beside CRI's words.
#[derive(Default)]
pub(crate) struct Beside {
    /// Its id; a new one if empty.
    pub id: String,
    pub owner: String,
    /// Directory of the writable layer.
    pub writable: String,
    /// Number of the signal that asks it to stop.
    pub stop_signal: Option<i32>,
}

impl Engine {
    pub(crate) async fn create_container(
        &self,
        request: v1::CreateContainerRequest,
        beside: Beside,
    ) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("the container has no configuration"))?;
        if config.metadata.is_none() {
            return Err(Status::invalid_argument("the container has no metadata"));
        }
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let _one = sandbox.changing.lock().await;
        let sandbox_record = lock(&sandbox.record).clone();
        let shim = lock(&sandbox.shim)
            .clone()
            .ok_or_else(|| Status::failed_precondition(format!("pod sandbox {} is not running", sandbox_record.id)))?;
        let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.images.resolve(&name).ok_or_else(|| Status::not_found(format!("image {name:?} not found")))?;
        let lower = self.images.lower_dirs(&image).await.map_err(crate::status)?;

        let id = if beside.id.is_empty() { new_id() } else { beside.id };
        let stop_signal = beside
            .stop_signal
            .or_else(|| convert::signal(config.stop_signal()))
            .or_else(|| convert::signal_named(image.config.config().as_ref()?.stop_signal().as_ref()?))
            .unwrap_or(SIGTERM);
        let log_path = match (sandbox_record.config().log_directory.as_str(), config.log_path.as_str()) {
            ("", _) | (_, "") => String::new(),
            (dir, path) => PathBuf::from(dir).join(path).to_string_lossy().into_owned(),
        };
        let record = ContainerRecord {
            cgroup: format!("{}/{id}", self.cgroup_parent(&sandbox_record)),
            sandbox_id: sandbox_record.id.clone(),
            created_at: now(),
            image_id: image.id.clone(),
            image_ref: image.digests.first().cloned().unwrap_or_else(|| image.id.clone()),
            resources: config.linux.as_ref().and_then(|linux| linux.resources.clone()),
            config: Some(config),
            log_path,
            stop_signal,
            id: id.clone(),
            owner: beside.owner,
            writable: beside.writable,
            ..ContainerRecord::default()
        };
        let image_id = image.id.clone();
        self.images.pin(&image_id, &id).map_err(crate::status)?;
        let engine = self.arc();
        let half_made = record.clone();
        let made = blocking(move || {
            let made = engine.make_container(record, &sandbox_record, &image, lower, &shim);
            if made.is_err()
                && let Err(e) = engine.sweep_container(&half_made)
            {
                tracing::warn!(container = half_made.id, "undo a half made container: {e:#}");
            }
            made
        })
        .await;
        let record = match made {
            Ok(record) => record,
            Err(e) => {
                self.images.release(&image_id, &id);
                return Err(Status::unknown(format!("create container: {e:#}")));
            }
        };
        let sandbox_id = record.sandbox_id.clone();
        lock(&self.containers).insert(id.clone(), Arc::new(Container::new(record)));
        self.announce(&sandbox_id, &id, v1::ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    fn make_container(
        &self,
        mut record: ContainerRecord,
        sandbox: &SandboxRecord,
        image: &Image,
        lower: Vec<PathBuf>,
        shim: &Shim,
    ) -> Result<ContainerRecord> {
        let (data, writable) = (self.container_data(&record.id), self.writable(&record));
        fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
        let fresh = !writable.join("upper").exists();
        for dir in ["upper", "work", "rootfs"] {
            fs::create_dir_all(writable.join(dir)).with_context(|| format!("make {}", writable.join(dir).display()))?;
        }
        if fresh {
            // A root that others may not enter would lock out every plain user.
            fs::set_permissions(writable.join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .context("open the writable layer")?;
        }
        record::write(&data, &record)?;
        let spec = self.container_spec(&record, sandbox, image, lower)?;
        let (_, identity) = shim.create(spec)?;
        record.user = Some(linux_user(identity));
        record.complete = true;
        record::write(&data, &record)?;
        Ok(record)
    }

    fn container_spec(
        &self,
        record: &ContainerRecord,
        sandbox: &SandboxRecord,
        image: &Image,
        lower: Vec<PathBuf>,
    ) -> Result<ContainerSpec> {
        let config = record.config();
        let linux = config.linux.clone().unwrap_or_default();
        let security = linux.security_context.clone().unwrap_or_default();
        let asked = linux.resources.clone().unwrap_or_default();
        let namespaces = security.namespace_options.clone().unwrap_or_else(|| sandbox.namespaces());
        let mut devices = Vec::new();
        let mut rules = Vec::new();
        for device in &config.devices {
            let found = fs::metadata(&device.host_path).with_context(|| format!("find device {}", device.host_path))?;
            let kind = if found.file_type().is_block_device() { 'b' } else { 'c' };
            let number = found.rdev();
            let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
            rules.push((major, minor, kind, device.permissions.clone()));
            devices.push((PathBuf::from(&device.container_path), PathBuf::from(&device.host_path)));
        }
        let group = self.hierarchies.group(&record.cgroup);
        note(&group.create()?);
        let mut limits = convert::resources(&asked);
        limits.devices = convert::device_rules(security.privileged, &rules);
        note(&group.set(&limits)?);

        let mut mounts = convert::mounts(&config.mounts)?;
        let run = self.sandbox_run(&sandbox.id);
        for (name, target) in
            [("hostname", "/etc/hostname"), ("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts")]
        {
            if !mounts.iter().any(|mount| mount.target.as_os_str() == target) {
                mounts.push(BindMount { source: run.join(name), target: target.into(), ..BindMount::default() });
            }
        }
        let host_ipc = sandbox.namespaces().ipc() == v1::NamespaceMode::Node;
        if host_ipc && !mounts.iter().any(|mount| mount.target.as_os_str() == "/dev/shm") {
            mounts.push(BindMount { source: "/dev/shm".into(), target: "/dev/shm".into(), ..BindMount::default() });
        }
        let (masked_paths, readonly_paths) = convert::guarded_paths(linux.security_context.as_ref());
        let (capabilities, ambient_capabilities) = convert::capabilities(&security)?;
        let image_cwd =
            image.config.config().as_ref().and_then(|config| config.working_dir().clone()).unwrap_or_default();
        let data = self.writable(record);
        Ok(ContainerSpec {
            id: record.id.clone(),
            rootfs: Rootfs {
                lower,
                upper: data.join("upper"),
                work: data.join("work"),
                mountpoint: data.join("rootfs"),
                readonly: security.readonly_rootfs,
                durable: !record.writable.is_empty(),
            },
            args: convert::args(&config, &image.config),
            env: convert::env(&config, &image.config, &sandbox.config().hostname),
            cwd: if config.working_dir.is_empty() { image_cwd } else { config.working_dir.clone() },
            user: convert::user(&security, &image.config)?,
            tty: config.tty,
            stdin: config.stdin,
            stdin_once: config.stdin_once,
            log_path: (!record.log_path.is_empty()).then(|| PathBuf::from(&record.log_path)),
            cgroup_dirs: group.dirs(),
            cgroup_v1_views: group.v1_views(),
            mounts,
            devices,
            privileged: security.privileged,
            capabilities,
            ambient_capabilities,
            no_new_privileges: security.no_new_privs,
            seccomp: convert::seccomp(&security)?,
            masked_paths,
            readonly_paths,
            oom_score_adj: Some(i32::try_from(asked.oom_score_adj).unwrap_or(0).clamp(-1000, 1000)),
            rlimits: Vec::new(),
            pid: convert::pid_mode(&namespaces),
            host_ipc,
        })
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        let _one = container.changing.lock().await;
        let record = lock(&container.record).clone();
        if record.state() != v1::ContainerState::ContainerCreated {
            return Err(Status::failed_precondition(format!(
                "container {} is in state {}: only a created one can be started",
                record.id,
                record.state().as_str_name()
            )));
        }
        let shim = self.shim_of(&record.sandbox_id).map_err(crate::status)?;
        let (started, full_id) = (now(), record.id.clone());
        // Before the start, so that the end of a very short container does not come first.
        self.update(&container, |record| record.started_at = started).map_err(crate::status)?;
        if let Err(e) = blocking(move || shim.start_container(&full_id)).await {
            let message = format!("failed to start container: {e:#}");
            let ended = self.update(&container, |record| {
                record.finished_at = now();
                (record.exit_code, record.reason, record.message) = (START_ERROR, "StartError".into(), message.clone());
            });
            ended.map_err(crate::status)?;
            container.ended.send_replace(true);
            return Err(Status::unknown(message));
        }
        self.announce(&record.sandbox_id, &record.id, v1::ContainerEventType::ContainerStartedEvent);
        Ok(())
    }

    /// Changes a container's record, in memory and on disk.
    pub(crate) fn update(&self, container: &Container, change: impl FnOnce(&mut ContainerRecord)) -> Result<()> {
        let mut record = lock(&container.record);
        let mut changed = record.clone();
        change(&mut changed);
        record::write(&self.container_data(&changed.id), &changed)?;
        *record = changed;
        Ok(())
    }

    /// Takes note of the end of a container's first process. Hearing of it twice is harmless.
    pub(crate) fn note_end(&self, container: &Container, state: &ContainerState) -> Result<()> {
        let (sandbox, id) = {
            let record = lock(&container.record);
            if record.finished_at != 0 {
                return Ok(());
            }
            (record.sandbox_id.clone(), record.id.clone())
        };
        self.update(container, |record| {
            if state.started_at != 0 {
                record.started_at = state.started_at;
            }
            record.finished_at = state.finished_at;
            record.exit_code = state.exit_code;
            record.oom_killed = state.oom_killed;
            record.reason = match (state.oom_killed, state.exit_code) {
                (true, _) => "OOMKilled".into(),
                (false, 0) => "Completed".into(),
                (false, _) => "Error".into(),
            };
        })?;
        container.ended.send_replace(true);
        self.announce(&sandbox, &id, v1::ContainerEventType::ContainerStoppedEvent);
        Ok(())
    }

    /// Takes note of the end of a container whose shim has ended too.
    pub(crate) async fn settle_end(&self, container: &Container) -> Result<()> {
        let record = lock(&container.record).clone();
        if record.finished_at != 0 {
            return Ok(());
        }
        let state = recorded_exit(&self.sandbox_run(&record.sandbox_id), &record.id).unwrap_or(ContainerState {
            id: record.id.clone(),
            pid: 0,
            phase: isolation::Phase::Exited,
            started_at: record.started_at,
            finished_at: now(),
            exit_code: UNKNOWN,
            oom_killed: false,
        });
        self.note_end(container, &state)
    }

    /// Asks a container to stop, and kills it after `grace`. One that has stopped or is unknown is success.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        let record = lock(&container.record).clone();
        if record.state() == v1::ContainerState::ContainerExited {
            return Ok(());
        }
        let Ok(shim) = self.shim_of(&record.sandbox_id) else {
            return self.settle_end(&container).await;
        };
        let mut ended = container.ended.subscribe();
        let running = record.state() == v1::ContainerState::ContainerRunning;
        for (signal, patience) in [(record.stop_signal, grace), (SIGKILL, BURIAL)] {
            if signal == record.stop_signal && (grace.is_zero() || !running) {
                continue;
            }
            let (shim, id) = (shim.clone(), record.id.clone());
            blocking(move || shim.kill(&id, signal)).await.with_context(|| format!("stop container {}", record.id))?;
            if tokio::time::timeout(patience, ended.wait_for(|ended| *ended)).await.is_ok() {
                return Ok(());
            }
        }
        anyhow::bail!("stop container {}: it does not end", record.id)
    }

    /// Removes a container, killing it if it runs; an unknown one is success.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(id, Duration::ZERO).await?;
        let _one = container.changing.lock().await;
        let record = lock(&container.record).clone();
        let shim = self.shim_of(&record.sandbox_id).ok();
        let engine = self.arc();
        let sweeping = record.clone();
        blocking(move || {
            if let Some(shim) = shim {
                shim.remove(&sweeping.id)?;
            }
            engine.sweep_container(&sweeping)
        })
        .await
        .with_context(|| format!("remove container {}", record.id))?;
        if lock(&self.containers).remove(&record.id).is_some() {
            self.images.release(&record.image_id, &record.id);
            self.announce(&record.sandbox_id, &record.id, v1::ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    /// Where a container's writable layer is.
    pub(crate) fn writable(&self, record: &ContainerRecord) -> PathBuf {
        if record.writable.is_empty() { self.container_data(&record.id) } else { PathBuf::from(&record.writable) }
    }

    pub(crate) fn sweep_container(&self, record: &ContainerRecord) -> Result<()> {
        if !record.cgroup.is_empty() {
            self.hierarchies.group(&record.cgroup).remove()?;
        }
        remove_dir(&self.container_data(&record.id))
    }

    /// Starts a further process in a container that runs.
    pub(crate) async fn start_exec(&self, mut spec: ExecSpec) -> Result<(Shim, Exec), Status> {
        let container = self.container(&spec.container)?;
        let record = lock(&container.record).clone();
        if record.state() != v1::ContainerState::ContainerRunning {
            let state = record.state().as_str_name();
            return Err(Status::unknown(format!("container {} is not running: it is in state {state}", record.id)));
        }
        if spec.args.is_empty() {
            return Err(Status::invalid_argument("no command specified"));
        }
        spec.container = record.id;
        let shim = self.shim_of(&record.sandbox_id).map_err(crate::status)?;
        let asking = shim.clone();
        let exec = blocking(move || asking.exec(spec)).await.map_err(|e| match e.downcast_ref::<Failure>() {
            Some(failure) => Status::unknown(format!("failed to exec in container: {failure}")),
            None => crate::status(e),
        })?;
        Ok((shim, exec))
    }
}

impl Container {
    pub(crate) fn new(record: ContainerRecord) -> Self {
        let ended = tokio::sync::watch::channel(record.finished_at != 0).0;
        Self { record: record.into(), ended, changing: tokio::sync::Mutex::default() }
    }
}

fn linux_user(identity: Identity) -> v1::LinuxContainerUser {
    v1::LinuxContainerUser {
        uid: identity.uid.into(),
        gid: identity.gid.into(),
        supplemental_groups: identity.groups.into_iter().map(i64::from).collect(),
    }
}
