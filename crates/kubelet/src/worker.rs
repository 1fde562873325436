//! One worker for each pod: looks, plans, acts, reports, and sleeps until something happens.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use client::{EventType, Patch};
use cri::v1;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use object_model::Reason;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, PODS};
use crate::cri_config::POD_UID;
use crate::plan::{Step, deadline, plan_pod};
use crate::probe::Kind;
use crate::prober::Probers;
use crate::refresh::{Issued, Refresher};
use crate::status::status_of;
use crate::steps::{Outcome, take};
use crate::view::{
    Backoff, Memory, ProbeResults, Runtime, Stage, container, full_name, init_containers, main_containers, restarts,
    waits_until,
};
use crate::volumes::{PodDirectory, changes};

/// The pause after a step of tidying that failed.
const TIDY_PAUSE: SignedDuration = SignedDuration::from_secs(1);

/// What a worker is told about its pod.
#[derive(Clone)]
pub(crate) struct Wanted {
    /// The newest version of the pod.
    pub(crate) pod: Arc<Pod>,
    /// It is no longer in the API.
    pub(crate) gone: bool,
}

/// What a probe found out.
pub(crate) struct Verdict {
    pub(crate) container_id: String,
    pub(crate) kind: Kind,
    pub(crate) good: bool,
}

struct Worker {
    context: Arc<Context>,
    uid: String,
    memory: Memory,
    /// The status as last written.
    written: Option<Value>,
    tasks: JoinSet<Outcome>,
    steps: HashMap<Id, Step>,
    held: BTreeMap<Step, Timestamp>,
    probers: Probers,
    /// Dead containers whose pause before the next start has been told.
    told: HashSet<String>,
    /// The tokens that were put in place and nobody renews yet.
    issued: Option<Issued>,
    refresher: Option<Refresher>,
}

/// Runs one pod until it is gone (true) or the kubelet stops (false).
pub(crate) async fn run(
    context: Arc<Context>,
    mut wanted: watch::Receiver<Wanted>,
    wake: Arc<Notify>,
    cancel: CancellationToken,
) -> bool {
    let first = wanted.borrow().pod.clone();
    let (verdicts, mut heard) = mpsc::channel(16);
    let mut worker = Worker {
        uid: first.metadata.uid.clone().unwrap_or_default(),
        memory: Memory { probes: remembered(&first), ..Memory::default() },
        written: None,
        tasks: JoinSet::new(),
        steps: HashMap::new(),
        held: BTreeMap::new(),
        probers: Probers::new(context.clone(), verdicts),
        told: HashSet::new(),
        issued: None,
        refresher: None,
        context,
    };
    loop {
        let now_wanted = wanted.borrow_and_update().clone();
        let again = match worker.turn(&now_wanted, &wanted).await {
            Ok(Turn::Finished) => return true,
            Ok(Turn::Again(at)) => at,
            Err(error) => {
                tracing::error!(pod = worker.uid, "{error:#}");
                Some(client::clock::now() + TIDY_PAUSE)
            }
        };
        let pause = async {
            match again {
                Some(at) => {
                    let pause = at.duration_since(client::clock::now());
                    tokio::time::sleep(pause.try_into().unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return false,
            changed = wanted.changed() => if changed.is_err() { return false },
            () = wake.notified() => {}
            Some(done) = worker.tasks.join_next_with_id() => worker.settle(done),
            Some(verdict) = heard.recv() => worker.hear(&verdict, &now_wanted.pod),
            () = pause => {}
        }
        while let Some(done) = worker.tasks.try_join_next_with_id() {
            worker.settle(done);
        }
    }
}

enum Turn {
    Again(Option<Timestamp>),
    Finished,
}

/// What the status says about containers that were running when the kubelet started: readiness does not flap because of
/// a restart.
fn remembered(pod: &Pod) -> BTreeMap<String, ProbeResults> {
    let status = pod.status.clone().unwrap_or_default();
    let all = status.container_statuses.into_iter().chain(status.init_container_statuses).flatten();
    all.filter_map(|status| {
        let id = status.container_id?.strip_prefix("knarr://")?.to_owned();
        Some((id, ProbeResults { started: status.started.unwrap_or(false), ready: status.ready }))
    })
    .collect()
}

impl Worker {
    async fn turn(&mut self, wanted: &Wanted, news: &watch::Receiver<Wanted>) -> anyhow::Result<Turn> {
        let pod = &wanted.pod;
        let runtime = look(&self.context, pod, &self.uid).await?;
        let now = client::clock::now();
        if self.memory.ended.is_none() && deadline(pod).is_some_and(|deadline| deadline <= now) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.context.event(pod, None, EventType::Normal, "DeadlineExceeded", message);
            self.memory.ended = Some(("DeadlineExceeded".to_owned(), message.to_owned()));
        }
        self.probers.keep(pod, &runtime, &mut self.memory);
        self.tell_pauses(pod, &runtime, now);
        if self.refresher.is_none() && runtime.containers.iter().any(|c| c.stage == Stage::Running) && changes(pod) {
            self.refresher = Some(Refresher::start(self.context.clone(), news.clone(), self.issued.take()));
        }
        let plan = plan_pod(pod, &runtime, &self.memory, wanted.gone, now);
        let mut wake = plan.wake;
        let mut finish = false;
        self.held.retain(|_, until| *until > now);
        for step in plan.steps {
            if step == Step::Finish {
                finish = true;
            } else if let Some(until) = self.held.get(&step) {
                wake = Some(wake.map_or(*until, |wake| wake.min(*until)));
            } else if self.memory.underway.insert(step.clone()) {
                let task = take(self.context.clone(), pod.clone(), runtime.clone(), self.memory.clone(), step.clone());
                let handle = self.tasks.spawn(task);
                self.steps.insert(handle.id(), step);
            }
        }
        if !wanted.gone {
            self.report(pod, &runtime, now).await;
        }
        if finish {
            self.finish(wanted, &runtime).await?;
            return Ok(Turn::Finished);
        }
        Ok(Turn::Again(wake))
    }

    /// Records an event for each container that died and has to wait.
    fn tell_pauses(&mut self, pod: &Pod, runtime: &Runtime, now: Timestamp) {
        self.told.retain(|id| runtime.containers.iter().any(|state| state.id == *id));
        for own in init_containers(pod).iter().chain(main_containers(pod)) {
            let Some(dead) = runtime.latest(&own.name).filter(|state| state.is_dead()) else { continue };
            let waits = restarts(pod, own, dead.exit_code) && waits_until(&self.memory, dead, now).is_some();
            if waits && self.told.insert(dead.id.clone()) {
                let message = format!("Back-off restarting failed container {} in pod {}", own.name, full_name(pod));
                self.context.event(pod, Some(&own.name), EventType::Warning, "BackOff", &message);
            }
        }
    }

    /// Writes the status if it is not what was written last.
    async fn report(&mut self, pod: &Pod, runtime: &Runtime, now: Timestamp) {
        let shown =
            pod.status.as_ref().and_then(|status| serde_json::to_value(status).ok()).unwrap_or_else(|| json!({}));
        let mut previous = self.written.clone().unwrap_or_else(|| shown.clone());
        previous["conditions"] = conditions_of_others(&previous, &shown);
        let status = status_of(pod, runtime, &self.memory, &previous, &self.context.host, now);
        let known = self.written.as_ref().unwrap_or(&shown);
        if without_nulls(&status) == without_nulls(known) {
            return;
        }
        let mut patch = json!({ "metadata": { "uid": self.uid }, "status": status });
        for key in known.as_object().into_iter().flat_map(|known| known.keys()) {
            const MINE: [&str; 6] =
                ["podIP", "podIPs", "reason", "message", "initContainerStatuses", "containerStatuses"];
            if MINE.contains(&key.as_str()) && status.get(key).is_none() {
                patch["status"][key] = Value::Null;
            }
        }
        let namespace = pod.metadata.namespace.as_deref();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        match self.context.client.api(PODS).patch(namespace, name, "status", Patch::Merge, &patch).await {
            Ok(_) => self.written = Some(status),
            Err(error) if matches!(error.reason, Reason::NotFound | Reason::Conflict) => {
                tracing::debug!(pod = name, "status is not wanted any more: {error}");
            }
            Err(error) => {
                tracing::warn!(pod = name, "write status: {error}");
                self.held.insert(Step::Finish, now + TIDY_PAUSE);
            }
        }
    }

    async fn finish(&mut self, wanted: &Wanted, runtime: &Runtime) -> anyhow::Result<()> {
        let pod = &wanted.pod;
        if let Some(refresher) = self.refresher.take() {
            refresher.stop().await;
        }
        if !wanted.gone {
            let options = json!({
                "apiVersion": "v1", "kind": "DeleteOptions",
                "gracePeriodSeconds": 0, "preconditions": { "uid": self.uid },
            });
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            match self.context.client.api(PODS).delete(pod.metadata.namespace.as_deref(), name, &options).await {
                Err(error) if !matches!(error.reason, Reason::NotFound | Reason::Conflict) => {
                    return Err(anyhow::Error::new(error).context(format!("delete pod {name}")));
                }
                _ => {}
            }
        }
        for sandbox in &runtime.sandboxes {
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            self.context.cri.remove_pod_sandbox(request).await?;
        }
        let directory = PodDirectory::new(&self.context.config.data_dir, &self.uid);
        let logs = self.context.log_directory(pod);
        let context = self.context.clone();
        tokio::task::spawn_blocking(move || {
            directory.remove()?;
            context.disks.release()?;
            match std::fs::remove_dir_all(&logs) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(anyhow::Error::new(error).context(format!("remove {}", logs.display())))
                }
                _ => Ok(()),
            }
        })
        .await?
    }

    /// Notes what a step came to.
    fn settle(&mut self, done: Result<(Id, Outcome), tokio::task::JoinError>) {
        let now = client::clock::now();
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Outcome::Failed(format!("{error}"))),
        };
        let Some(step) = self.steps.remove(&id) else { return };
        self.memory.underway.remove(&step);
        match outcome {
            Outcome::Done => {}
            Outcome::Failed(error) => {
                tracing::warn!(pod = self.uid, ?step, "{error}");
                self.held.insert(step, now + TIDY_PAUSE);
            }
            Outcome::Image(container, progress) => {
                self.memory.images.insert(container, progress);
            }
            Outcome::Volumes(volumes, issued) => {
                self.memory.volumes = volumes;
                self.issued = issued;
            }
            Outcome::Sandbox(failure) => self.memory.sandbox = failure,
            Outcome::Started { container, died } => {
                self.memory.images.remove(&container);
                self.memory.starts.remove(&container);
                self.grow_pause(container, died, now);
            }
            Outcome::NotStarted { container, failure, condemn, died } => {
                // What was made and could not be run ended, as far as restarts go; a configuration that is not whole did not.
                if matches!(failure.reason.as_str(), "RunContainerError" | "PostStartHookError") {
                    self.grow_pause(container.clone(), died, now);
                }
                // The image may have gone meanwhile: look again.
                self.memory.images.remove(&container);
                self.memory.starts.insert(container, failure);
                if let Some((id, why)) = condemn {
                    self.memory.condemned.insert(id, why);
                }
            }
        }
    }

    /// Notes that a container was started after one that died: the next pause is longer.
    fn grow_pause(&mut self, container: String, died: Option<Timestamp>, now: Timestamp) {
        if let Some(died) = died {
            let old = self.memory.restarts.get(&container).copied();
            self.memory.restarts.insert(container, Backoff::after_restart(old, died, now));
        }
    }

    fn hear(&mut self, verdict: &Verdict, pod: &Pod) {
        let results = self.memory.probes.entry(verdict.container_id.clone()).or_default();
        match (verdict.kind, verdict.good) {
            (Kind::Readiness, good) => results.ready = good,
            (Kind::Startup, true) => results.started = true,
            (Kind::Liveness, true) => {}
            (Kind::Startup | Kind::Liveness, false) => {
                let name = self.probers.name_of(&verdict.container_id).unwrap_or_default();
                let word = verdict.kind.as_str().to_ascii_lowercase();
                let fate = match container(pod, &name) {
                    Some(own) if crate::view::restarts(pod, own, 1) => "will be restarted",
                    _ => "will be killed",
                };
                self.memory
                    .condemned
                    .insert(verdict.container_id.clone(), format!("Container {name} failed {word} probe, {fate}"));
            }
        }
    }
}

/// Conditions that others set, as the API shows them now, beside those of ours as they were written.
fn conditions_of_others(previous: &Value, shown: &Value) -> Value {
    const MINE: [&str; 5] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];
    let list = |value: &Value, mine: bool| -> Vec<Value> {
        let all = value["conditions"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|c| c["type"].as_str().is_some_and(|kind| MINE.contains(&kind)) == mine).collect()
    };
    json!([list(previous, true), list(shown, false)].concat())
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// Asks the runtime for everything it holds for a pod.
pub(crate) async fn look(context: &Context, pod: &Pod, uid: &str) -> anyhow::Result<Runtime> {
    let cri = context.cri.clone();
    let labels = HashMap::from([(POD_UID.to_owned(), uid.to_owned())]);
    let filter = v1::PodSandboxFilter { label_selector: labels.clone(), ..v1::PodSandboxFilter::default() };
    let listed = cri.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }).await?.items;
    let mut sandboxes = Vec::with_capacity(listed.len());
    for sandbox in listed {
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.id, verbose: false };
        match cri.pod_sandbox_status(request).await {
            Ok(answer) => sandboxes.extend(answer.status),
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status.into()),
        }
    }
    let filter = v1::ContainerFilter { label_selector: labels, ..v1::ContainerFilter::default() };
    let listed = cri.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await?.containers;
    let mut containers = Vec::with_capacity(listed.len());
    for found in listed {
        let request = v1::ContainerStatusRequest { container_id: found.id, verbose: false };
        match cri.container_status(request).await {
            Ok(answer) => {
                if let Some(status) = answer.status {
                    containers.push((found.pod_sandbox_id, status));
                }
            }
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status.into()),
        }
    }
    let mut runtime = Runtime::new(sandboxes, containers);
    for state in runtime.containers.iter_mut().filter(|state| state.stage == Stage::Exited) {
        if let Some(message) = crate::logs::termination_message(context, pod, state) {
            state.message = message;
        }
    }
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_do_not_make_a_status_different() {
        let left = json!({ "a": null, "b": [{ "c": null, "d": 1 }] });
        assert_eq!(without_nulls(&left), json!({ "b": [{ "d": 1 }] }));
    }

    #[test]
    fn a_new_worker_remembers_nothing_but_readiness() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "status": { "containerStatuses": [
            { "name": "c", "containerID": "knarr://x", "ready": true, "started": true, "restartCount": 2, "image": "i", "imageID": "i" }
        ] } }))
        .unwrap();
        assert_eq!(remembered(&pod)["x"], ProbeResults { started: true, ready: true });
    }
}
