//! The plan of one pod: what to do next, from what is asked for and what is there. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::status::{Phase, phase};
use crate::view::{
    Failure, ImageProgress, Memory, Runtime, Stage, Volumes, grace, init_containers, is_sidecar, main_containers,
    restarts, waits_until,
};

/// One thing to do. Steps of one plan do not depend on each other and are taken at the same time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Make the pod's directories and fill its volumes.
    PrepareVolumes,
    /// Get the image of a container, by its pull policy.
    Pull {
        /// Container name.
        container: String,
    },
    /// Make the sandbox.
    RunSandbox {
        /// Its number.
        attempt: u32,
    },
    /// Make and start a container.
    Start {
        /// Container name.
        container: String,
        /// Its number.
        attempt: u32,
        /// The sandbox to put it in.
        sandbox: String,
    },
    /// End a container.
    Kill {
        /// Container id.
        id: String,
        /// Container name.
        container: String,
        /// Seconds it gets.
        grace: i64,
        /// Why, for the event.
        why: String,
    },
    /// Remove a dead container.
    RemoveContainer {
        /// Container id.
        id: String,
    },
    /// End everything in a sandbox and take its network down.
    StopSandbox {
        /// Sandbox id.
        id: String,
    },
    /// Remove a stopped sandbox with its containers.
    RemoveSandbox {
        /// Sandbox id.
        id: String,
    },
    /// Report the end, take the pod out of the API and clean up.
    Finish,
}

/// What to do now, and when to look again if nothing happens before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be taken now.
    pub steps: Vec<Step>,
    /// When to look again.
    pub wake: Option<Timestamp>,
}

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
pub const PULL_ERROR_SHOWN: SignedDuration = SignedDuration::from_secs(2);

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Plans for a pod. `gone` says that the pod is no longer in the API, by force.
pub fn plan_pod(pod: &Pod, runtime: &Runtime, memory: &Memory, gone: bool, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let leaving = gone || pod.metadata.deletion_timestamp.is_some();
    if leaving || matches!(phase(pod, runtime, memory), Phase::Succeeded | Phase::Failed) {
        end(pod, runtime, memory, leaving, &mut plan);
        return plan;
    }
    if let Some(deadline) = deadline(pod) {
        plan.wake_at(deadline);
    }
    for container in runtime.containers.iter().filter(|container| container.stage == Stage::Running) {
        if let Some(why) = memory.condemned.get(&container.id) {
            plan.steps.push(kill(container.id.clone(), &container.name, grace(pod), why));
        }
    }
    collect(pod, runtime, memory, &mut plan);
    let Some(sandbox) = runtime.ready_sandbox() else {
        // What is left of a sandbox that died goes before the next one comes.
        if let Some(dead) = runtime.sandboxes.first() {
            for container in &runtime.containers {
                if container.stage == Stage::Running {
                    let why = "Pod sandbox changed, it will be killed and re-created.";
                    plan.steps.push(kill(container.id.clone(), &container.name, grace(pod), why));
                }
            }
            if !plan.steps.iter().all(|step| matches!(step, Step::RemoveContainer { .. } | Step::RemoveSandbox { .. }))
            {
                return plan;
            }
            sandbox_next(dead.attempt + 1, memory, now, &mut plan);
        } else {
            sandbox_next(0, memory, now, &mut plan);
        }
        let inits = init_containers(pod);
        let first = if inits.is_empty() { main_containers(pod) } else { &inits[..1] };
        for container in first {
            image_next(container, memory, now, &mut plan);
        }
        return plan;
    };
    for (container, attempt) in runnable(pod, runtime, memory, &sandbox.id, now, &mut plan) {
        if memory.volumes != Volumes::Ready {
            volumes_next(memory, now, &mut plan);
            continue;
        }
        if !image_next(container, memory, now, &mut plan) {
            continue;
        }
        match memory.starts.get(&container.name) {
            Some(failure) if failure.until > now => plan.wake_at(failure.until),
            _ => {
                plan.steps.push(Step::Start { container: container.name.clone(), attempt, sandbox: sandbox.id.clone() })
            }
        }
    }
    plan
}

fn kill(id: String, container: &str, grace: i64, why: &str) -> Step {
    Step::Kill { id, container: container.to_owned(), grace, why: why.to_owned() }
}

/// Ends what runs; then the sandbox; then, if the pod is leaving, the pod.
fn end(pod: &Pod, runtime: &Runtime, memory: &Memory, leaving: bool, plan: &mut Plan) {
    for container in runtime.containers.iter().filter(|container| container.stage == Stage::Running) {
        let why = format!("Stopping container {}", container.name);
        plan.steps.push(kill(container.id.clone(), &container.name, grace(pod), &why));
    }
    let working = memory.underway.iter().any(|step| !matches!(step, Step::Pull { .. } | Step::Finish));
    if !plan.steps.is_empty() || working {
        return;
    }
    for sandbox in runtime.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        plan.steps.push(Step::StopSandbox { id: sandbox.id.clone() });
    }
    if leaving && plan.steps.is_empty() {
        plan.steps.push(Step::Finish);
    }
}

/// The dead that nobody needs: containers older than the last but one of their name (its logs are "previous"), containers
/// that were made and never started, sandboxes before the newest.
fn collect(pod: &Pod, runtime: &Runtime, memory: &Memory, plan: &mut Plan) {
    let all = init_containers(pod).iter().chain(main_containers(pod));
    for container in all {
        let starting = memory
            .underway
            .iter()
            .any(|step| matches!(step, Step::Start { container: name, .. } if *name == container.name));
        let mut kept = 0;
        for state in runtime.containers.iter().filter(|state| state.name == container.name) {
            let unfinished = state.stage == Stage::Created;
            if !unfinished {
                kept += 1;
            }
            if (unfinished && !starting) || (kept > 2 && state.is_dead()) {
                plan.steps.push(Step::RemoveContainer { id: state.id.clone() });
            }
        }
    }
    for old in runtime.sandboxes.iter().skip(1) {
        let step = if old.ready {
            Step::StopSandbox { id: old.id.clone() }
        } else if runtime.containers.iter().any(|state| state.sandbox == old.id) && runtime.ready_sandbox().is_none() {
            continue;
        } else {
            Step::RemoveSandbox { id: old.id.clone() }
        };
        plan.steps.push(step);
    }
}

fn sandbox_next(attempt: u32, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    match (&memory.volumes, &memory.sandbox) {
        (Volumes::Ready, Some(failure)) if failure.until > now => plan.wake_at(failure.until),
        (Volumes::Ready, _) => plan.steps.push(Step::RunSandbox { attempt }),
        _ => volumes_next(memory, now, plan),
    }
}

fn volumes_next(memory: &Memory, now: Timestamp, plan: &mut Plan) {
    match &memory.volumes {
        Volumes::Failed(failure) if failure.until > now => plan.wake_at(failure.until),
        Volumes::Ready => {}
        _ if plan.steps.contains(&Step::PrepareVolumes) => {}
        _ => plan.steps.push(Step::PrepareVolumes),
    }
}

/// Whether the image is there; if not, what to do about it.
fn image_next(container: &Container, memory: &Memory, now: Timestamp, plan: &mut Plan) -> bool {
    match memory.images.get(&container.name) {
        Some(ImageProgress::Ready(_)) => return true,
        Some(ImageProgress::Failed(failure)) if failure.until > now => {
            plan.wake_at(failure.until);
            if shows_error(failure, now) {
                plan.wake_at(failure.at + PULL_ERROR_SHOWN);
            }
        }
        _ => plan.steps.push(Step::Pull { container: container.name.clone() }),
    }
    false
}

/// Whether a failed pull is so fresh that the error itself is shown and not the pause after it.
pub fn shows_error(failure: &Failure, now: Timestamp) -> bool {
    now < failure.at + PULL_ERROR_SHOWN
}

/// The containers that should start now, each with its number.
fn runnable<'a>(
    pod: &'a Pod,
    runtime: &Runtime,
    memory: &Memory,
    sandbox: &str,
    now: Timestamp,
    plan: &mut Plan,
) -> Vec<(&'a Container, u32)> {
    let mut wanted = Vec::new();
    let mut want = |container: &'a Container, plan: &mut Plan| {
        let latest = runtime.latest(&container.name);
        match latest.and_then(|dead| waits_until(memory, dead, now)) {
            Some(until) => plan.wake_at(until),
            None => wanted.push((container, next_attempt(pod, runtime, &container.name))),
        }
    };
    let mains_began = main_containers(pod).iter().any(|c| runtime.latest_in(sandbox, &c.name).is_some());
    for container in init_containers(pod) {
        let sidecar = is_sidecar(container);
        match runtime.latest_in(sandbox, &container.name) {
            // Its container was collected long ago.
            None if mains_began && !sidecar => {}
            None => {
                want(container, plan);
                return wanted;
            }
            Some(state) if state.is_dead() => {
                if sidecar || state.exit_code != 0 || state.stage == Stage::Unknown {
                    want(container, plan);
                    if !mains_began {
                        return wanted;
                    }
                }
            }
            Some(state) => {
                let started = memory.probes.get(&state.id).is_some_and(|results| results.started);
                let passed = sidecar && state.stage == Stage::Running && (started || container.startup_probe.is_none());
                if !passed && !mains_began {
                    return wanted;
                }
            }
        }
    }
    for container in main_containers(pod) {
        match runtime.latest_in(sandbox, &container.name) {
            None => want(container, plan),
            Some(state) if state.is_dead() && restarts(pod, container, state.exit_code) => want(container, plan),
            Some(_) => {}
        }
    }
    wanted
}

/// One more than the last container of the name, or than the status remembers if the runtime has forgotten it.
pub fn next_attempt(pod: &Pod, runtime: &Runtime, name: &str) -> u32 {
    if let Some(latest) = runtime.latest(name) {
        let remade = latest.stage == Stage::Created;
        return if remade { latest.attempt } else { latest.attempt + 1 };
    }
    let Some(status) = &pod.status else { return 0 };
    let lists = [&status.container_statuses, &status.init_container_statuses];
    let known = lists.into_iter().flatten().flatten().find(|status| status.name == name);
    match known {
        Some(known) if known.container_id.is_some() => u32::try_from(known.restart_count).unwrap_or(0) + 1,
        _ => 0,
    }
}

/// When the pod's time is up.
pub fn deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    start.checked_add(SignedDuration::from_secs(seconds)).ok()
}
