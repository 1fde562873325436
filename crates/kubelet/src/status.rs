//! The status of one pod, from what is asked for and what is there. Pure.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use object_model::{Quantity, time};
use serde_json::{Value, json};

use crate::plan::shows_error;
use crate::view::{
    ContainerState, Failure, ImageProgress, Memory, Runtime, Stage, init_containers, is_sidecar, main_containers,
    restarts, waits_until,
};

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers have started yet.
    Pending,
    /// All have started, and some run or will run again.
    Running,
    /// All ended well.
    Succeeded,
    /// All ended, not all well.
    Failed,
}

impl Phase {
    /// The word of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

/// Quality of service, from requests and limits.
pub fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in init_containers(pod).iter().chain(main_containers(pod)) {
        let resources = container.resources.clone().unwrap_or_default();
        let amount = |map: &Option<std::collections::BTreeMap<String, _>>, key: &str| -> Option<Quantity> {
            let quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = map.as_ref()?.get(key)?;
            quantity.0.parse().ok().filter(|quantity: &Quantity| *quantity != Quantity::whole(0))
        };
        for key in ["cpu", "memory"] {
            let limit = amount(&resources.limits, key);
            let request = amount(&resources.requests, key).or_else(|| limit.clone());
            any |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && limit == request;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// The pod's phase. A pod that has ended stays ended.
pub fn phase(pod: &Pod, runtime: &Runtime, memory: &Memory) -> Phase {
    if memory.ended.is_some() {
        return Phase::Failed;
    }
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return Phase::Succeeded,
        Some("Failed") => return Phase::Failed,
        _ => {}
    }
    if pod.metadata.deletion_timestamp.is_some() {
        // A pod that is deleted and has stopped ends like one that ended by itself.
        let mut ends = main_containers(pod).iter().map(|container| runtime.latest(&container.name));
        let stopped = runtime.containers.iter().all(ContainerState::is_dead);
        if stopped && ends.clone().all(|state| state.is_some()) {
            let well = ends.all(|state| state.is_some_and(|state| state.exit_code == 0));
            return if well { Phase::Succeeded } else { Phase::Failed };
        }
    }
    let mains_began = main_containers(pod).iter().any(|container| runtime.latest(&container.name).is_some());
    for container in init_containers(pod).iter().filter(|container| !is_sidecar(container)) {
        match runtime.latest(&container.name) {
            Some(state) if state.is_dead() && state.exit_code != 0 => {
                let fatal = !restarts(pod, container, state.exit_code);
                return if fatal { Phase::Failed } else { Phase::Pending };
            }
            Some(state) if state.is_dead() => {}
            None if mains_began => {}
            _ => return Phase::Pending,
        }
    }
    let (mut waiting, mut running, mut again, mut failed) = (false, false, false, false);
    for container in main_containers(pod) {
        match runtime.latest(&container.name) {
            None => waiting = true,
            Some(state) if state.stage == Stage::Created => {
                waiting |= runtime.previous(&container.name).is_none();
                again = true;
            }
            Some(state) if state.stage == Stage::Running => running = true,
            Some(state) => {
                again |= restarts(pod, container, state.exit_code);
                failed |= state.exit_code != 0;
            }
        }
    }
    match (waiting, running || again, failed) {
        (true, ..) => Phase::Pending,
        (false, true, _) => Phase::Running,
        (false, false, true) => Phase::Failed,
        (false, false, false) => Phase::Succeeded,
    }
}

/// The addresses of the node the pod is on.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// The node's address.
    pub ip: String,
}

/// The whole status that the pod should show now. `previous` is the status it shows: times of conditions that did not
/// change are kept, and so are conditions that belong to others.
pub fn status_of(
    pod: &Pod,
    runtime: &Runtime,
    memory: &Memory,
    previous: &Value,
    host: &Host,
    now: Timestamp,
) -> Value {
    let phase = phase(pod, runtime, memory);
    let spec = pod.spec.as_ref();
    let container_status =
        |container: &Container, init: bool| container_status(pod, container, init, runtime, memory, now);
    let inits: Vec<Value> = init_containers(pod).iter().map(|container| container_status(container, true)).collect();
    let mains: Vec<Value> = main_containers(pod).iter().map(|container| container_status(container, false)).collect();
    let mut status = json!({
        "phase": phase.as_str(),
        "hostIP": host.ip,
        "hostIPs": [{ "ip": host.ip }],
        "startTime": previous["startTime"].as_str().map_or_else(|| time::seconds(now), str::to_owned),
        "qosClass": qos_class(pod),
        "containerStatuses": mains,
    });
    if !inits.is_empty() {
        status["initContainerStatuses"] = json!(inits);
    }
    if let Some(generation) = pod.metadata.generation {
        status["observedGeneration"] = json!(generation);
    }
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let sandbox = runtime.sandboxes.first();
    let ips: Vec<String> = match sandbox {
        Some(sandbox) if host_network && sandbox.ready => vec![host.ip.clone()],
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    if let Some(first) = ips.first() {
        status["podIP"] = json!(first);
        status["podIPs"] = ips.iter().map(|ip| json!({ "ip": ip })).collect();
    }
    if let Some((reason, message)) = &memory.ended {
        status["reason"] = json!(reason);
        status["message"] = json!(message);
    } else if matches!(phase, Phase::Failed) {
        for key in ["reason", "message"] {
            if let Some(text) = previous[key].as_str() {
                status[key] = json!(text);
            }
        }
    }
    status["conditions"] = conditions(pod, runtime, phase, &status, previous, now);
    status
}

fn container_status(
    pod: &Pod,
    container: &Container,
    init: bool,
    runtime: &Runtime,
    memory: &Memory,
    now: Timestamp,
) -> Value {
    let latest = runtime.latest(&container.name).filter(|state| state.stage != Stage::Created);
    let previous = match latest {
        Some(latest) => {
            runtime.containers.iter().find(|state| state.name == container.name && state.attempt < latest.attempt)
        }
        None => None,
    };
    let image = container.image.clone().unwrap_or_default();
    let known = known_status(pod, &container.name);
    let mut status = json!({
        "name": container.name,
        "image": latest.map(|state| state.image.clone()).filter(|image| !image.is_empty() && !image.starts_with("sha256:")).unwrap_or(image),
        "imageID": latest.map(|state| state.image_id.clone()).unwrap_or_default(),
        "restartCount": latest.map_or_else(|| known.map_or(0, |known| known.restart_count), |state| i32::try_from(state.attempt).unwrap_or(i32::MAX)),
        "ready": false,
        "started": false,
        "lastState": {},
    });
    if let Some(state) = latest {
        status["containerID"] = json!(container_id(&state.id));
    }
    if let Some(previous) = previous.filter(|state| state.is_dead()) {
        status["lastState"] = json!({ "terminated": terminated(previous) });
    }
    match latest {
        Some(state) if state.stage == Stage::Running => {
            let results = memory.probes.get(&state.id).copied().unwrap_or_default();
            let started = container.startup_probe.is_none() || results.started;
            let ready = started && (container.readiness_probe.is_none() || results.ready);
            let started_at = state.started.or(state.created).map(time::seconds);
            status["state"] = json!({ "running": { "startedAt": started_at } });
            status["started"] = json!(started);
            status["ready"] = json!(ready && (!init || is_sidecar(container)));
        }
        Some(state) => {
            let next = waiting(container, memory, Some(state), pod, now)
                .filter(|_| will_restart(pod, container, init, state, memory, runtime));
            match next {
                Some(waiting) => {
                    status["lastState"] = json!({ "terminated": terminated(state) });
                    status["state"] = json!({ "waiting": waiting });
                }
                None => status["state"] = json!({ "terminated": terminated(state) }),
            }
            // An init container that has done its work is ready, and stays so.
            status["ready"] = json!(init && !is_sidecar(container) && state.exit_code == 0);
        }
        None => {
            let gone = pod.metadata.deletion_timestamp.is_some()
                || matches!(phase(pod, runtime, memory), Phase::Failed | Phase::Succeeded);
            // What the runtime has forgotten, the status remembers.
            let remembered = known.and_then(|known| known.state.as_ref()?.terminated.as_ref()).filter(|_| gone);
            status["state"] = match remembered {
                Some(terminated) => json!({ "terminated": terminated }),
                None => {
                    json!({ "waiting": waiting(container, memory, None, pod, now).unwrap_or_else(|| creating(pod, init, runtime)) })
                }
            };
        }
    }
    status
}

fn known_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a k8s_openapi::api::core::v1::ContainerStatus> {
    let status = pod.status.as_ref()?;
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name)
}

fn will_restart(
    pod: &Pod,
    container: &Container,
    init: bool,
    state: &ContainerState,
    memory: &Memory,
    runtime: &Runtime,
) -> bool {
    let ending = pod.metadata.deletion_timestamp.is_some()
        || matches!(phase(pod, runtime, memory), Phase::Failed | Phase::Succeeded);
    let done = init && !is_sidecar(container) && state.exit_code == 0;
    !ending && !done && restarts(pod, container, state.exit_code)
}

fn creating(pod: &Pod, init: bool, runtime: &Runtime) -> Value {
    let inits_done = init_containers(pod).iter().all(|container| {
        runtime
            .latest(&container.name)
            .is_some_and(|state| is_sidecar(container) || (state.is_dead() && state.exit_code == 0))
    });
    // Main containers behind init containers, and init containers themselves, wait for their turn.
    let reason = if init || !inits_done { "PodInitializing" } else { "ContainerCreating" };
    json!({ "reason": reason })
}

/// Why a container does not run, where there is more to say than "soon".
fn waiting(
    container: &Container,
    memory: &Memory,
    dead: Option<&ContainerState>,
    pod: &Pod,
    now: Timestamp,
) -> Option<Value> {
    let say = |failure: &Failure| Some(json!({ "reason": failure.reason, "message": failure.message }));
    if let Some(ImageProgress::Failed(failure)) = memory.images.get(&container.name) {
        if shows_error(failure, now) {
            return say(failure);
        }
        let image = container.image.as_deref().unwrap_or_default();
        let message = format!("Back-off pulling image \"{image}\": {}: {}", failure.reason, failure.message);
        let reason = if failure.reason == "ErrImagePull" { "ImagePullBackOff" } else { &failure.reason };
        return Some(json!({ "reason": reason, "message": message }));
    }
    if let Some(failure) = memory.starts.get(&container.name) {
        // A start that fails again and again is told by its reason once, and is a crash loop from then on.
        let was_made = matches!(failure.reason.as_str(), "RunContainerError" | "PostStartHookError");
        let loops = was_made && dead.is_some_and(|dead| dead.attempt > 0 && waits_until(memory, dead, now).is_some());
        if !loops {
            return say(failure);
        }
    }
    let dead = dead?;
    waits_until(memory, dead, now)?;
    let pause = memory.restarts.get(&container.name)?.pause;
    Some(json!({
        "reason": "CrashLoopBackOff",
        "message": format!("back-off {} restarting failed container={} pod={}", go_duration(pause.as_secs()), container.name, crate::view::full_name(pod)),
    }))
}

/// Seconds as Go writes durations: `10s`, `2m40s`.
fn go_duration(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

/// How the API names a container of this runtime.
pub fn container_id(id: &str) -> String {
    format!("knarr://{id}")
}

fn terminated(state: &ContainerState) -> Value {
    let reason = match (state.reason.as_str(), state.stage, state.exit_code) {
        ("", Stage::Unknown, _) => "ContainerStatusUnknown",
        ("", _, 0) => "Completed",
        ("", ..) => "Error",
        (reason, ..) => reason,
    };
    let mut terminated = json!({
        "exitCode": state.exit_code,
        "reason": reason,
        "startedAt": state.started.map(time::seconds),
        "finishedAt": state.finished.map(time::seconds),
        "containerID": container_id(&state.id),
    });
    if !state.message.is_empty() {
        terminated["message"] = json!(state.message);
    }
    terminated
}

fn conditions(pod: &Pod, runtime: &Runtime, phase: Phase, status: &Value, previous: &Value, now: Timestamp) -> Value {
    let old = |kind: &str| previous["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind);
    let finished = phase == Phase::Succeeded;
    let list = |key: &str| status[key].as_array().cloned().unwrap_or_default();
    let names = |statuses: &[Value]| {
        let names: Vec<&str> = statuses.iter().filter_map(|status| status["name"].as_str()).collect();
        names.join(" ")
    };
    let inits: Vec<Value> = {
        let undone = |status: &Value, container: &Container| {
            let key = if is_sidecar(container) { "started" } else { "ready" };
            status[key] != json!(true)
        };
        let all = list("initContainerStatuses");
        all.into_iter()
            .zip(init_containers(pod))
            .filter(|(status, container)| undone(status, container))
            .map(|(status, _)| status)
            .collect()
    };
    let began = main_containers(pod).iter().any(|container| runtime.latest(&container.name).is_some());
    let unready: Vec<Value> =
        list("containerStatuses").into_iter().filter(|status| status["ready"] != json!(true)).collect();
    let sandbox_ready = runtime
        .ready_sandbox()
        .is_some_and(|s| !s.ips.is_empty() || pod.spec.as_ref().and_then(|s| s.host_network) == Some(true));
    type Verdict = (bool, Option<&'static str>, Option<String>);
    let initialized: Verdict = match () {
        () if finished => (true, Some("PodCompleted"), None),
        () if inits.is_empty() || began => (true, None, None),
        () => (
            false,
            Some("ContainersNotInitialized"),
            Some(format!("containers with incomplete status: [{}]", names(&inits))),
        ),
    };
    let containers_ready: Verdict = match phase {
        Phase::Succeeded => (false, Some("PodCompleted"), None),
        Phase::Failed => (false, Some("PodFailed"), None),
        _ if unready.is_empty() => (true, None, None),
        _ => {
            (false, Some("ContainersNotReady"), Some(format!("containers with unready status: [{}]", names(&unready))))
        }
    };
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref()).unwrap_or_default();
    let closed: Vec<&str> = gates
        .iter()
        .map(|gate| gate.condition_type.as_str())
        .filter(|kind| old(kind).is_none_or(|c| c["status"] != "True"))
        .collect();
    let ready = match (containers_ready.0, closed.first()) {
        (true, Some(_)) => (
            false,
            Some("ReadinessGatesNotReady"),
            Some(format!("the status of pod readiness gates [{}] is not True", closed.join(" "))),
        ),
        _ => containers_ready.clone(),
    };
    let mine: [(&str, Verdict); 5] = [
        ("PodReadyToStartContainers", (sandbox_ready, None, None)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", (true, None, None)),
    ];
    let mut conditions: Vec<Value> = mine
        .iter()
        .map(|(kind, (holds, reason, message))| {
            let word = if *holds { "True" } else { "False" };
            let since = old(kind)
                .filter(|old| old["status"] == word)
                .and_then(|old| old["lastTransitionTime"].as_str().map(str::to_owned));
            let mut condition = json!({
                "type": kind, "status": word, "lastProbeTime": null,
                "lastTransitionTime": since.unwrap_or_else(|| time::seconds(now)),
            });
            if let Some(reason) = reason {
                condition["reason"] = json!(reason);
            }
            if let Some(message) = message {
                condition["message"] = json!(message);
            }
            if let Some(generation) = pod.metadata.generation {
                condition["observedGeneration"] = json!(generation);
            }
            condition
        })
        .collect();
    let others = previous["conditions"].as_array().into_iter().flatten();
    conditions.extend(others.filter(|condition| mine.iter().all(|(kind, _)| condition["type"] != *kind)).cloned());
    json!(conditions)
}
