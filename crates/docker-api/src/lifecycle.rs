//! The life of a container: start, stop, kill, restart, wait, remove; its end, and what its restart policy says then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use container_engine::{Single, SingleNetwork, SingleSpec, signal_named};
use http::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::create::{container_attributes, user_of};
use crate::error::{Answer, bad, conflict, internal, unchanged};
use crate::http::{Body, Call, empty_answer, stream_answer};
use crate::model::{Record, RestartPolicy, Status};
use crate::{Container, DockerApi, NO_CONTENT, OWNER, Progress, lock, ports, time};

/// Wait before the first restart; each further one is twice as long.
const BACK_OFF: Duration = Duration::from_millis(100);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);
/// A container that ran this long starts with the shortest wait again.
const STEADY: i64 = 10_000_000_000;
/// How long a container may take over its end when nobody says.
const GRACE: i64 = 10;
/// Longer than anybody waits; Docker's `-1`.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Whether a container that ended is to be started again.
fn wants_restart(policy: &RestartPolicy, record: &Record) -> bool {
    match policy.name.as_str() {
        _ if record.stopped_by_hand => false,
        "always" | "unless-stopped" => true,
        "on-failure" => {
            record.exit_code != 0 && (policy.maximum_retry_count == 0 || record.restarts < policy.maximum_retry_count)
        }
        _ => false,
    }
}

/// Whether a container that runs no more is started when the server starts.
fn wants_boot(policy: &RestartPolicy, record: &Record) -> bool {
    match policy.name.as_str() {
        "always" => true,
        "unless-stopped" => !record.stopped_by_hand,
        _ => wants_restart(policy, record) && record.is_running(),
    }
}

impl DockerApi {
    /// Changes what is remembered of a container, in memory and on disk.
    pub(crate) fn update(&self, container: &Container, change: impl FnOnce(&mut Record)) -> Result<()> {
        let mut record = lock(&container.record);
        let mut changed = record.clone();
        change(&mut changed);
        crate::write(&self.dir("containers", &changed.id), &changed)?;
        *record = changed;
        Ok(())
    }

    /// Takes up the containers of an earlier process.
    pub(crate) async fn adopt(&self, records: Vec<Record>) -> Result<()> {
        let mut known = BTreeMap::new();
        for record in records {
            if let Err(e) = self.images.pin(&record.image_id, &user_of(&record.id)) {
                tracing::warn!("container {}: {e:#}", record.name);
            }
            known.insert(record.id.clone(), Arc::new(Container::new(record)));
        }
        *lock(&self.containers) = known.clone();
        for single in self.engine.singles(OWNER) {
            if !known.contains_key(&single.id) {
                tracing::info!("remove container {}, which nobody remembers", single.id);
                self.engine.remove_single(&single.id).await?;
            }
        }
        for container in known.values() {
            let record = container.record();
            if record.status == Status::Removing {
                self.remove(container, true, true).await.map_err(|e| anyhow::anyhow!(e.message))?;
                continue;
            }
            match self.engine.single(&record.id) {
                Some(single) if single.running && record.is_running() => {
                    match self.publish(&record, &single.ip).await {
                        Ok(published) => *lock(&container.ports) = Some(published),
                        Err(e) => tracing::warn!("publish the ports of {}: {}", record.name, e.message),
                    }
                    container.progress.send_modify(|progress| progress.running = true);
                    self.follow(container.clone());
                }
                found => {
                    let single = found.unwrap_or_else(|| Single {
                        id: record.id.clone(),
                        finished_at: time::now(),
                        // Nobody saw the end, as after a power cut.
                        exit_code: if record.is_running() { 255 } else { record.exit_code },
                        ..Single::default()
                    });
                    if record.is_running() {
                        self.settle(container, &single).await?;
                    } else {
                        self.engine.remove_single(&record.id).await?;
                    }
                    let wants = wants_boot(&record.host().restart_policy, &record);
                    if record.host().auto_remove && record.is_running() {
                        self.remove(container, true, true).await.map_err(|e| anyhow::anyhow!(e.message))?;
                    } else if wants && let Err(e) = self.start(container).await {
                        tracing::warn!("start container {}: {}", record.name, e.message);
                    }
                }
            }
        }
        self.write_hosts().await;
        Ok(())
    }

    fn spec(&self, record: &Record) -> Result<SingleSpec> {
        let host = record.host();
        let dir = self.dir("containers", &record.id);
        let (config, id) = (&record.config, record.id.clone());
        let period = if host.cpu_period > 0 { host.cpu_period } else { 100_000 };
        let quota = if host.nano_cpus > 0 { host.nano_cpus * period / 1_000_000_000 } else { host.cpu_quota };
        let env = config.env.iter().filter_map(|variable| variable.split_once('='));
        let mounts = record.mounts.iter().map(|m| ((&m.source).into(), (&m.destination).into(), !m.rw));
        Ok(SingleSpec {
            id,
            owner: OWNER.to_owned(),
            name: record.name.clone(),
            hostname: config.hostname.clone(),
            network: match host.network_mode.as_str() {
                "host" => SingleNetwork::Host,
                "none" => SingleNetwork::Nothing,
                _ => SingleNetwork::Bridge,
            },
            dns: (host.dns.clone(), host.dns_search.clone(), host.dns_options.clone()),
            sysctls: host.sysctls.clone().into_iter().collect(),
            host_ipc: host.ipc_mode == "host",
            host_pid: host.pid_mode == "host",
            image: record.image_id.clone(),
            writable: dir.clone(),
            args: record.args.clone(),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            cwd: config.working_dir.clone(),
            user: config.user.clone(),
            tty: config.tty,
            stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            log_path: dir.join("log"),
            mounts: mounts.collect(),
            privileged: host.privileged,
            add_capabilities: host.cap_add.clone(),
            drop_capabilities: host.cap_drop.clone(),
            any_system_call: host.privileged || host.security_opt.iter().any(|one| one == "seccomp=unconfined"),
            no_new_privileges: host.security_opt.iter().any(|one| one.starts_with("no-new-privileges")),
            readonly: host.readonly_rootfs,
            memory: host.memory,
            cpu_shares: host.cpu_shares,
            cpu_quota: quota,
            cpu_period: if quota > 0 { period } else { 0 },
            cpuset_cpus: host.cpuset_cpus.clone(),
            stop_signal: signal_named(&config.stop_signal),
        })
    }

    async fn publish(&self, record: &Record, ip: &str) -> Answer<ports::Published> {
        ports::publish(&self.tasks, &self.stop, &record.name, &ports::wanted(&record.config, &record.host()), ip).await
    }

    /// Starts a container that does not run.
    pub(crate) async fn start(&self, container: &Arc<Container>) -> Answer<()> {
        let _one = container.changing.lock().await;
        let record = container.record();
        if record.status == Status::Running {
            return Err(unchanged());
        }
        if record.status == Status::Removing {
            return Err(conflict("container is marked for removal and cannot be started"));
        }
        let failed = |message: String| async move {
            let undone = self.engine.remove_single(&container.record().id).await;
            let code = exit_code_of(&message);
            let noted = self.update(container, |record| {
                record.status = if record.started == 0 { Status::Created } else { Status::Exited };
                (record.exit_code, record.error) = (code, message.clone());
                record.ip.clear();
            });
            lock(&container.attaching).clear();
            *lock(&container.ports) = None;
            if let Err(e) = undone.and(noted) {
                tracing::warn!("undo the start of a container: {e:#}");
            }
            Err(if code == 128 { internal(message) } else { bad(message) })
        };
        let ip = match self.engine.create_single(self.spec(&record)?).await {
            Ok(ip) => ip,
            Err(e) => return failed(format!("{e:#}")).await,
        };
        let published = match self.publish(&record, &ip).await {
            Ok(published) => published,
            Err(e) => return failed(e.message).await,
        };
        self.update(container, |record| {
            record.ip = ip;
            record.ports = published.bindings();
        })?;
        *lock(&container.ports) = Some(published);
        self.write_hosts().await;
        // Whoever attached before the start gets every byte.
        let attaching = std::mem::take(&mut *lock(&container.attaching));
        for waiting in attaching {
            match self.engine.attach_single(&record.id).await {
                // It may have left meanwhile.
                Ok(streams) => drop(waiting.send(streams)),
                Err(e) => tracing::warn!("attach to {}: {e:#}", record.name),
            }
        }
        if let Err(e) = self.engine.start_single(&record.id).await {
            let message = format!("{e:#}").replace("failed to start container: ", "");
            return failed(format!(
                "failed to create task for container: failed to create shim task: OCI runtime create failed: unable to start container process: {message}: unknown"
            ))
            .await;
        }
        self.update(container, |record| {
            record.status = Status::Running;
            record.started = time::now();
            (record.finished, record.exit_code, record.oom_killed) = (0, 0, false);
            record.error.clear();
            record.stopped_by_hand = false;
        })?;
        container.progress.send_modify(|progress| progress.running = true);
        self.announce("container", "start", &record.id, container_attributes(&record));
        self.follow(container.clone());
        Ok(())
    }

    /// Waits in the background for the end of a container that runs.
    fn follow(&self, container: Arc<Container>) {
        let api = self.arc();
        self.tasks.spawn(async move {
            let id = container.record().id;
            let stop = api.stop.clone();
            let end = tokio::select! {
                () = stop.cancelled() => return,
                end = api.engine.wait_single(&id) => end,
            };
            let Some(end) = end else { return };
            if let Err(e) = api.settle(&container, &end).await {
                tracing::error!("take note of the end of container {id}: {e:#}");
            }
            api.after_end(container).await;
        });
    }

    /// Notes the end of a container's program, and frees what it had while it ran.
    async fn settle(&self, container: &Arc<Container>, end: &Single) -> Result<()> {
        *lock(&container.ports) = None;
        self.engine.remove_single(&end.id).await.with_context(|| format!("clear up container {}", end.id))?;
        let restarting = {
            let mut record = container.record();
            record.exit_code = end.exit_code;
            wants_restart(&record.host().restart_policy, &record) && !self.stop.is_cancelled()
        };
        self.update(container, |record| {
            if record.status != Status::Removing {
                record.status = if restarting { Status::Restarting } else { Status::Exited };
            }
            record.finished = end.finished_at;
            record.exit_code = end.exit_code;
            record.oom_killed = end.oom_killed;
            record.ip.clear();
            record.ports.clear();
        })?;
        let record = container.record();
        let mut attributes = container_attributes(&record);
        attributes["exitCode"] = json!(end.exit_code.to_string());
        self.announce("container", "die", &record.id, attributes);
        container.progress.send_modify(|progress| {
            progress.exits += 1;
            (progress.running, progress.exit_code) = (false, end.exit_code);
        });
        self.write_hosts().await;
        Ok(())
    }

    /// What follows an end: removal, a restart, or nothing.
    async fn after_end(&self, container: Arc<Container>) {
        let record = container.record();
        if record.host().auto_remove {
            if let Err(e) = self.remove(&container, true, true).await {
                tracing::warn!("remove container {}: {}", record.name, e.message);
            }
            return;
        }
        if record.status != Status::Restarting {
            return;
        }
        let steady = record.finished - record.started > STEADY;
        let restarts = if steady { 0 } else { record.restarts };
        let wait = LONGEST_BACK_OFF.min(BACK_OFF * 2u32.saturating_pow(restarts.min(16)));
        tokio::select! {
            () = self.stop.cancelled() => return,
            () = container.give_up.notified() => return,
            () = tokio::time::sleep(wait) => {}
        }
        if container.record().status != Status::Restarting {
            return;
        }
        let counted = self.update(&container, |record| record.restarts = restarts + 1);
        let started = self.start(&container).await;
        if let Err(e) = counted.map_err(Into::into).and(started) {
            tracing::warn!("restart container {}: {}", record.name, e.message);
        }
    }

    /// Stops a container that runs; answers when it has ended.
    async fn stop(&self, container: &Arc<Container>, grace: Option<i64>) -> Answer<()> {
        let _one = container.changing.lock().await;
        let record = container.record();
        if !record.is_running() {
            return Err(unchanged());
        }
        self.update(container, |record| record.stopped_by_hand = true)?;
        if record.status == Status::Restarting {
            container.give_up.notify_waiters();
            self.update(container, |record| record.status = Status::Exited)?;
            return Ok(());
        }
        let grace = grace.or(record.config.stop_timeout).unwrap_or(GRACE);
        let grace = u64::try_from(grace).map_or(FOR_EVER, Duration::from_secs);
        let mut progress = container.progress.subscribe();
        self.engine.stop_single(&record.id, grace).await?;
        // The end is noted by whoever follows the container. An error means that the container itself has gone.
        let _ = progress.wait_for(|progress| !progress.running).await;
        self.announce("container", "stop", &record.id, container_attributes(&record));
        Ok(())
    }

    /// Removes a container, with its writable layer and log.
    pub(crate) async fn remove(&self, container: &Arc<Container>, force: bool, volumes: bool) -> Answer<()> {
        let record = container.record();
        if record.is_running() {
            if !force {
                let (state, advice) = match record.status {
                    Status::Restarting => ("restarting", "stop the container before removing or force remove"),
                    _ => ("running", "stop the container before removing or force remove"),
                };
                return Err(conflict(format!(
                    "cannot remove container \"/{}\": container is {state}: {advice}",
                    record.name
                )));
            }
            match self.stop(container, Some(0)).await {
                Err(e) if e.status != http::StatusCode::NOT_MODIFIED => return Err(e),
                _ => {}
            }
        }
        let _one = container.changing.lock().await;
        if container.progress.borrow().removed {
            return Ok(());
        }
        let record = container.record();
        if record.is_running() {
            return Err(conflict(format!("cannot remove container \"/{}\": container is running", record.name)));
        }
        self.update(container, |record| record.status = Status::Removing)?;
        self.engine.remove_single(&record.id).await?;
        let dir = self.dir("containers", &record.id);
        crate::blocking(move || remove_container_dir(&dir)).await??;
        lock(&self.containers).remove(&record.id);
        self.images.release(&record.image_id, &user_of(&record.id));
        if volumes {
            self.remove_anonymous(&record).await;
        }
        self.announce("container", "destroy", &record.id, container_attributes(&record));
        container.progress.send_modify(|progress| progress.removed = true);
        Ok(())
    }

    pub(crate) async fn container_start(&self, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        if let Err(refusal) = self.start(&container).await {
            if refusal.status != http::StatusCode::NOT_MODIFIED && container.record().host().auto_remove {
                // Its client waits for the removal.
                self.remove(&container, true, true).await?;
            }
            return Err(refusal);
        }
        Ok(empty_answer(NO_CONTENT))
    }

    pub(crate) async fn container_stop(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        self.stop(&container, call.number("t")?).await?;
        Ok(empty_answer(NO_CONTENT))
    }

    pub(crate) async fn container_restart(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        match self.stop(&container, call.number("t")?).await {
            Err(e) if e.status != http::StatusCode::NOT_MODIFIED => return Err(e),
            _ => {}
        }
        self.start(&container).await?;
        let record = container.record();
        self.announce("container", "restart", &record.id, container_attributes(&record));
        Ok(empty_answer(NO_CONTENT))
    }

    pub(crate) async fn container_kill(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        let name = call.text("signal").filter(|name| !name.is_empty()).unwrap_or("SIGKILL");
        let signal = signal_named(name).ok_or_else(|| bad(format!("Invalid signal: {name}")))?;
        let record = container.record();
        if record.status != Status::Running {
            return Err(conflict(format!("cannot kill container: {id}: container {} is not running", record.id)));
        }
        let deadly = signal == 9;
        if deadly {
            self.update(&container, |record| record.stopped_by_hand = true)?;
        }
        let mut progress = container.progress.subscribe();
        self.engine.signal_single(&record.id, signal).await?;
        if deadly {
            // As above: gone is ended.
            let _ = progress.wait_for(|progress| !progress.running).await;
        }
        self.announce("container", "kill", &record.id, container_attributes(&record));
        Ok(empty_answer(NO_CONTENT))
    }

    /// Answers at once, and says the exit status when the condition holds.
    pub(crate) fn container_wait(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        let condition = call.text("condition").unwrap_or_default().to_owned();
        if !matches!(condition.as_str(), "" | "not-running" | "next-exit" | "removed") {
            return Err(bad(format!("invalid condition: {condition:?}")));
        }
        let mut progress = container.progress.subscribe();
        let before = *progress.borrow();
        let was = container.record();
        let (sink, source) = mpsc::channel(1);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let holds = |now: &Progress| match condition.as_str() {
                "next-exit" => now.exits > before.exits,
                "removed" => now.removed,
                _ => now.exits > before.exits || !was.is_running(),
            };
            let done = tokio::select! {
                () = stop.cancelled() => return,
                () = sink.closed() => return,
                done = progress.wait_for(holds) => done.map_or(before, |now| *now),
            };
            let code = if done.exits > 0 { done.exit_code } else { was.exit_code };
            // The client may have left.
            let _ = sink.send(Bytes::from(json!({"StatusCode": code}).to_string() + "\n")).await;
        });
        Ok(stream_answer("application/json", source))
    }

    pub(crate) async fn container_delete(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        if call.flag("link") {
            return Err(bad("links are not supported"));
        }
        self.remove(&container, call.flag("force"), call.flag("v")).await?;
        Ok(empty_answer(NO_CONTENT))
    }

    pub(crate) async fn container_resize(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let record = self.find(id)?.record();
        let (Some(height), Some(width)) = (call.number("h")?, call.number("w")?) else {
            return Err(bad("bad parameter: a terminal has h and w"));
        };
        if record.status != Status::Running {
            return Err(conflict(format!("cannot resize a stopped container: container {} is not running", record.id)));
        }
        self.engine.resize_single(&record.id, width, height).await?;
        Ok(empty_answer(http::StatusCode::OK))
    }

    /// Tells whoever watches events.
    pub(crate) fn announce(&self, kind: &str, action: &str, id: &str, attributes: Value) {
        let now = time::now();
        let event = json!({
            "status": action, "id": id, "from": attributes["image"], "Type": kind, "Action": action,
            "Actor": {"ID": id, "Attributes": attributes}, "scope": "local",
            "time": now / 1_000_000_000, "timeNano": now,
        });
        // Nobody need watch.
        let _ = self.events.send(event);
    }
}

/// The exit status that stands for a start that failed.
fn exit_code_of(message: &str) -> i32 {
    if message.contains("executable file not found") || message.contains("no such file or directory") {
        127
    } else if message.contains("permission denied") || message.contains("is a directory") {
        126
    } else {
        128
    }
}

/// Removes a container's directory: first the file that remembers it, so that the rest is swept after a crash.
fn remove_container_dir(dir: &std::path::Path) -> Result<()> {
    let gone = |done: std::io::Result<()>| match done {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    gone(std::fs::remove_file(dir.join(crate::FILE)))
        .and_then(|()| gone(std::fs::remove_dir_all(dir)))
        .with_context(|| format!("remove {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_what_docker_says() {
        let of = |name: &str, code, restarts, by_hand| {
            let policy = RestartPolicy { name: name.into(), maximum_retry_count: 2 };
            let record = Record { exit_code: code, restarts, stopped_by_hand: by_hand, ..Record::default() };
            wants_restart(&policy, &record)
        };
        assert!(!of("no", 1, 0, false) && !of("", 1, 0, false));
        assert!(of("always", 0, 9, false) && !of("always", 0, 0, true));
        assert!(of("on-failure", 1, 1, false) && !of("on-failure", 1, 2, false) && !of("on-failure", 0, 0, false));
        let stopped = Record { stopped_by_hand: true, status: Status::Exited, ..Record::default() };
        let boots = |name: &str| wants_boot(&RestartPolicy { name: name.into(), maximum_retry_count: 0 }, &stopped);
        assert!(boots("always") && !boots("unless-stopped") && !boots("no"));
    }

    #[test]
    fn a_start_that_fails_has_an_exit_status() {
        let codes = ["exec: \"x\": executable file not found in $PATH", "exec /x: permission denied", "no disk"];
        assert_eq!(codes.map(exit_code_of), [127, 126, 128]);
    }
}
