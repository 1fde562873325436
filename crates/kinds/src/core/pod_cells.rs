//! The table row of a Pod: its one-word status and its restarts.

use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::Value;

use crate::{Now, walk};

/// What the columns READY, STATUS and RESTARTS say.
struct Summary {
    ready: i64,
    total: i64,
    reason: String,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

pub(super) fn cells(pod: &Value, now: Now) -> Vec<Value> {
    let summary = summary(pod);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            let ago = time::human_duration(now.0.as_second() - at.as_second());
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let or_none = |path: &str| Value::from(walk::text(pod, path).unwrap_or("<none>"));
    let ip = match walk::list(pod, "status.podIPs").first().and_then(|ip| walk::text(ip, "ip")) {
        Some(ip) => Value::from(ip),
        None => or_none("status.podIP"),
    };
    vec![
        object_model::meta::name(pod).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        time::age(walk::text(pod, "metadata.creationTimestamp"), now.0).into(),
        ip,
        or_none("spec.nodeName"),
        or_none("status.nominatedNodeName"),
        readiness_gates(pod).into(),
    ]
}

fn readiness_gates(pod: &Value) -> String {
    let gates = walk::list(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open =
        gates.iter().filter(|gate| meta::has_condition(pod, walk::text(gate, "conditionType").unwrap_or_default()));
    format!("{}/{}", open.count(), gates.len())
}

/// Why a container ended, in one word.
fn end_reason(terminated: &Value) -> String {
    match (walk::text(terminated, "reason"), walk::number(terminated, "signal")) {
        (Some(reason), _) => reason.to_owned(),
        (None, 0) => format!("ExitCode:{}", walk::number(terminated, "exitCode")),
        (None, signal) => format!("Signal:{signal}"),
    }
}

fn last_end(status: &Value) -> Option<Timestamp> {
    walk::text(status, "lastState.terminated.finishedAt").and_then(time::parse)
}

fn summary(pod: &Value) -> Summary {
    let phase = walk::text(pod, "status.phase").unwrap_or_default();
    let mut reason = walk::text(pod, "status.reason").unwrap_or(phase).to_owned();
    let gated = walk::list(pod, "status.conditions")
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated");
    if gated {
        reason = "SchedulingGated".to_owned();
    }
    let init = walk::list(pod, "spec.initContainers");
    let is_sidecar = |name: &Value| init.iter().any(|c| c["name"] == *name && c["restartPolicy"] == "Always");
    let sidecars = init.iter().filter(|container| is_sidecar(&container["name"])).count();
    let total = (walk::list(pod, "spec.containers").len() + sidecars) as i64;
    let mut ready = 0;
    let (mut restarts, mut last_restart) = (0, None);
    let (mut sidecar_restarts, mut last_sidecar_restart) = (0, None);
    let mut initialising = false;
    for (index, status) in walk::list(pod, "status.initContainerStatuses").iter().enumerate() {
        let count = walk::number(status, "restartCount");
        restarts += count;
        last_restart = last_restart.max(last_end(status));
        let sidecar = is_sidecar(&status["name"]);
        if sidecar {
            sidecar_restarts += count;
            last_sidecar_restart = last_sidecar_restart.max(last_end(status));
        }
        let terminated = walk::at(status, "state.terminated");
        let waiting = walk::text(status, "state.waiting.reason").filter(|reason| *reason != "PodInitializing");
        if terminated.is_some_and(|terminated| walk::number(terminated, "exitCode") == 0) {
            continue;
        }
        if sidecar && status["started"] == true {
            ready += i64::from(status["ready"] == true);
            continue;
        }
        reason = match (terminated, waiting) {
            (Some(terminated), _) => format!("Init:{}", end_reason(terminated)),
            (None, Some(waiting)) => format!("Init:{waiting}"),
            (None, None) => format!("Init:{index}/{}", init.len()),
        };
        initialising = true;
        break;
    }
    if !initialising || meta::has_condition(pod, "Initialized") {
        restarts = sidecar_restarts;
        last_restart = last_sidecar_restart;
        let mut running = false;
        for status in walk::list(pod, "status.containerStatuses").iter().rev() {
            restarts += walk::number(status, "restartCount");
            last_restart = last_restart.max(last_end(status));
            if let Some(waiting) = walk::text(status, "state.waiting.reason") {
                reason = waiting.to_owned();
            } else if let Some(terminated) = walk::at(status, "state.terminated") {
                reason = end_reason(terminated);
            } else if status["ready"] == true && walk::at(status, "state.running").is_some() {
                running = true;
                ready += 1;
            }
        }
        // One container is done, another goes on: the pod is not completed.
        if reason == "Completed" && running {
            reason = if meta::has_condition(pod, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
    if object_model::meta::deletion_timestamp(pod).is_some() {
        if walk::text(pod, "status.reason") == Some("NodeLost") {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }
    Summary { ready, total, reason, restarts, last_restart }
}
