//! Keeps the probes of one pod's running containers going.

use std::collections::HashMap;
use std::sync::Arc;

use client::EventType::Warning;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::probe::{self, Kind, Streak, Timing};
use crate::steps::exec_sync;
use crate::view::{ContainerState, Memory, Runtime, Stage, container as find_container, init_containers, is_sidecar};
use crate::worker::Verdict;

/// The probes of one pod. Dropping it ends them.
pub(crate) struct Probers {
    context: Arc<Context>,
    verdicts: mpsc::Sender<Verdict>,
    running: HashMap<(String, Kind), AbortHandle>,
    names: HashMap<String, String>,
    tasks: JoinSet<()>,
}

impl Probers {
    pub(crate) fn new(context: Arc<Context>, verdicts: mpsc::Sender<Verdict>) -> Probers {
        Probers { context, verdicts, running: HashMap::new(), names: HashMap::new(), tasks: JoinSet::new() }
    }

    /// The container with this id, while it is probed.
    pub(crate) fn name_of(&self, id: &str) -> Option<String> {
        self.names.get(id).cloned()
    }

    /// Starts the probes of containers that came, ends those of containers that went.
    pub(crate) fn keep(&mut self, pod: &Arc<Pod>, runtime: &Runtime, memory: &mut Memory) {
        while self.tasks.try_join_next().is_some() {}
        let alive = |id: &str| runtime.containers.iter().any(|state| state.id == id && state.stage == Stage::Running);
        self.names.retain(|id, _| alive(id));
        self.running.retain(|(id, _), task| {
            let keep = alive(id);
            if !keep {
                task.abort();
            }
            keep
        });
        memory.probes.retain(|id, _| alive(id));
        memory.condemned.retain(|id, _| alive(id));
        let leaving = pod.metadata.deletion_timestamp.is_some();
        for state in runtime.containers.iter().filter(|state| state.stage == Stage::Running) {
            let Some(container) = find_container(pod, &state.name) else { continue };
            let plain_init = init_containers(pod).iter().any(|init| init.name == state.name && !is_sidecar(init));
            if plain_init {
                continue;
            }
            let started = container.startup_probe.is_none()
                || memory.probes.get(&state.id).is_some_and(|results| results.started);
            let wanted = [
                (Kind::Startup, &container.startup_probe, !started && !leaving),
                (Kind::Readiness, &container.readiness_probe, started),
                (Kind::Liveness, &container.liveness_probe, started && !leaving),
            ];
            for (kind, probe, on) in wanted {
                let key = (state.id.clone(), kind);
                match (probe, on) {
                    (Some(probe), true) if !self.running.contains_key(&key) => {
                        self.names.insert(state.id.clone(), state.name.clone());
                        let asking = ask_on(
                            self.context.clone(),
                            pod.clone(),
                            runtime,
                            state,
                            container,
                            kind,
                            probe,
                            self.verdicts.clone(),
                        );
                        self.running.insert(key, self.tasks.spawn(asking));
                    }
                    (_, false) => {
                        if let Some(task) = self.running.remove(&key) {
                            task.abort();
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

#[allow(clippy::too_many_arguments)] // all of it is what one probe is about
fn ask_on(
    context: Arc<Context>,
    pod: Arc<Pod>,
    runtime: &Runtime,
    state: &ContainerState,
    container: &Container,
    kind: Kind,
    probe: &Probe,
    verdicts: mpsc::Sender<Verdict>,
) -> impl Future<Output = ()> + Send + 'static {
    let timing = Timing::of(probe);
    let (id, container, probe) = (state.id.clone(), container.clone(), probe.clone());
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let pod_ip = runtime
        .sandboxes
        .iter()
        .find(|sandbox| sandbox.id == state.sandbox)
        .and_then(|sandbox| sandbox.ips.first().cloned());
    let pod_ip = pod_ip.filter(|_| !host_network).unwrap_or_else(|| context.host.ip.clone());
    let began = state.started;
    async move {
        let age = began.map_or_else(Default::default, |began| client::clock::now().duration_since(began));
        let wait = timing.initial_delay.saturating_sub(age.try_into().unwrap_or_default());
        tokio::time::sleep(wait).await;
        let mut ticks = tokio::time::interval(timing.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut streak = Streak::default();
        let mut told = None;
        loop {
            ticks.tick().await;
            let answer =
                tokio::time::timeout(timing.timeout, once(&context, &container, &probe, &id, &pod_ip, timing)).await;
            let good = match answer {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    let message = format!("{} probe failed: {error:#}", kind.as_str());
                    context.event(&pod, Some(&container.name), Warning, "Unhealthy", &message);
                    false
                }
                Err(_) => {
                    let message =
                        format!("{} probe failed: timeout after {} s", kind.as_str(), timing.timeout.as_secs());
                    context.event(&pod, Some(&container.name), Warning, "Unhealthy", &message);
                    false
                }
            };
            let verdict = streak.count(good, &timing);
            if verdict.is_some() && verdict != told {
                told = verdict;
                let verdict = Verdict { container_id: id.clone(), kind, good };
                if verdicts.send(verdict).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn once(
    context: &Context,
    container: &Container,
    probe: &Probe,
    id: &str,
    pod_ip: &str,
    timing: Timing,
) -> anyhow::Result<()> {
    if let Some(exec) = &probe.exec {
        let seconds = i64::try_from(timing.timeout.as_secs()).unwrap_or(i64::MAX);
        exec_sync(context, id, exec.command.clone().unwrap_or_default(), seconds).await
    } else if let Some(action) = &probe.http_get {
        probe::http(container, action, pod_ip).await
    } else if let Some(action) = &probe.tcp_socket {
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
        probe::tcp(host, probe::port_number(container, &action.port)?).await
    } else {
        anyhow::bail!("this kind of probe is not supported")
    }
}
