//! The loop: takes the most urgent pod without a node, places it, binds it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::{Cache, Client, EventType, ListParams, Patch, Recorder, Reflector, Resource, WorkQueue, clock};
use object_model::{ApiError, Reason, meta, time};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::volumes::{self, CLAIMS, CLASSES, Caches, Choice, VOLUMES};
use crate::{NoFit, PLUGINS, PodInfo, RetryOn, Snapshot, place};

const PODS: Resource = Resource { group: "", version: "v1", plural: "pods" };
const NODES: Resource = Resource { group: "", version: "v1", plural: "nodes" };
/// The name pods ask for when they want this scheduler.
const NAME: &str = "default-scheduler";
/// Binding that failed for a passing reason is tried again after this.
const BIND_AGAIN: Duration = Duration::from_millis(500);
/// How long volumes may take to be bound or made (upstream's default).
const VOLUMES_TIMEOUT: Duration = Duration::from_secs(600);

/// Urgency, age and key: the order of the queue.
type Place = (i64, String, String, String);

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    /// Pods that wait for a try, most urgent first.
    waiting: BTreeMap<Place, String>,
    places: HashMap<String, Place>,
    /// Pods that fit nowhere, with the plugins that refused them.
    refused: HashMap<String, (Place, Vec<&'static str>)>,
    /// Pods that were given a node which the API does not show yet.
    assumed: HashSet<String>,
}

impl State {
    fn enqueue(&mut self, uid: &str, place: Place) {
        self.places.insert(uid.to_owned(), place.clone());
        self.waiting.insert(place, uid.to_owned());
    }

    fn forget(&mut self, uid: &str) {
        if let Some(place) = self.places.remove(uid) {
            self.waiting.remove(&place);
        }
        self.refused.remove(uid);
    }

    /// Tries pods again that a plugin refused which this may help.
    fn retry(&mut self, on: RetryOn) {
        let helps = |name: &str| PLUGINS.iter().any(|p| p.name == name && p.retry_on.contains(&on));
        let again: Vec<String> = self
            .refused
            .iter()
            .filter(|(_, (_, plugins))| plugins.is_empty() || plugins.iter().any(|p| helps(p)))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in again {
            if let Some((place, _)) = self.refused.remove(&uid) {
                self.enqueue(&uid, place);
            }
        }
    }
}

/// The scheduler.
pub struct Scheduler {
    client: Client,
}

impl Scheduler {
    /// A scheduler that talks through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Runs until cancelled, and ends when everything it started has ended.
    pub async fn run(self, cancel: CancellationToken) {
        let tasks = TaskTracker::new();
        let (recorder, record) = Recorder::new(&self.client, NAME, "", cancel.clone());
        tasks.spawn(record);
        let state: Arc<Mutex<State>> = Arc::default();
        let changed = Arc::new(Notify::new());
        let (pods, nodes) = (Cache::new(), Cache::new());
        follow_pods(&pods, &state, &changed);
        follow_nodes(&nodes, &state, &changed);
        let caches = Caches::default();
        let bound = Arc::new(Notify::new());
        for cache in [&caches.claims, &caches.volumes, &caches.classes] {
            follow_volumes(cache, &state, &changed, &bound);
        }
        for (resource, cache) in [
            (PODS, &pods),
            (NODES, &nodes),
            (CLAIMS, &caches.claims),
            (VOLUMES, &caches.volumes),
            (CLASSES, &caches.classes),
        ] {
            let reflector = Reflector {
                api: self.client.api(resource),
                params: ListParams::default(),
                decode: |text| serde_json::from_slice(text),
                cache: cache.clone(),
            };
            tasks.spawn(reflector.run(cancel.clone()));
        }
        for cache in [&nodes, &caches.claims, &caches.volumes, &caches.classes] {
            tokio::select! { () = cancel.cancelled() => {}, () = cache.synced() => {} }
        }
        let again = WorkQueue::new();
        let retry = {
            let (again, state, changed) = (again.clone(), state.clone(), changed.clone());
            async move {
                while let Some(key) = again.next().await {
                    again.done(&key);
                    let (uid, place): (String, Place) = key;
                    lock(&state).enqueue(&uid, place);
                    changed.notify_one();
                }
            }
        };
        tasks.spawn(retry);
        loop {
            let next = lock(&state).waiting.pop_first();
            let Some((at, uid)) = next else {
                tokio::select! { () = cancel.cancelled() => break, () = changed.notified() => continue }
            };
            lock(&state).places.remove(&uid);
            let Some(pod) = pods.get(&at.2, &at.3).filter(|p| p.uid == uid) else { continue };
            let mut object = pod.object.clone();
            object["apiVersion"] = "v1".into();
            object["kind"] = "Pod".into();
            let mut info = PodInfo::of(&object);
            let mut choices = Vec::new();
            let placed = {
                let mut state = lock(&state);
                // Under the lock: a claim that comes a moment later finds the pod among the refused.
                info.volumes = caches.of(&object);
                let placed = place(&info, &state.snapshot);
                match &placed {
                    Ok(node) => {
                        if let Some(found) = state.snapshot.nodes.get(node) {
                            let label = |key: &str| found.labels.get(key).map(String::as_str);
                            choices = volumes::choices(&info.volumes, node, label);
                        }
                        state.snapshot.assume(&uid, &info, node);
                        state.assumed.insert(uid.clone());
                    }
                    Err(no_fit) => {
                        state.refused.insert(uid.clone(), (at.clone(), no_fit.plugins.clone()));
                    }
                }
                placed
            };
            let work = Work { client: self.client.clone(), recorder: recorder.clone(), object, uid, at };
            match placed {
                Ok(node) => {
                    let (state, again) = (state.clone(), again.clone());
                    let (caches, bound, cancel) = (caches.clone(), bound.clone(), cancel.clone());
                    tasks.spawn(async move {
                        let ready = tokio::select! {
                            () = cancel.cancelled() => return,
                            ready = work.bind_volumes(choices, &caches, &bound) => ready,
                        };
                        if ready {
                            work.bind(&node, &state, &again).await;
                        } else {
                            work.give_up(&state, &again);
                        }
                    });
                }
                Err(no_fit) => {
                    tasks.spawn(async move { work.tell(&no_fit).await });
                }
            }
        }
        again.close();
        tasks.close();
        tasks.wait().await;
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn follow_pods(pods: &Cache<Value>, state: &Arc<Mutex<State>>, changed: &Arc<Notify>) {
    let (state, changed) = (state.clone(), changed.clone());
    pods.on_change(move |change| {
        let mut state = lock(&state);
        let Some(new) = change.new else {
            if let Some(old) = change.old {
                state.forget(&old.uid);
                state.assumed.remove(&old.uid);
                if state.snapshot.forget_pod(&old.uid) {
                    state.retry(RetryOn::PodGone);
                    changed.notify_one();
                }
            }
            return;
        };
        let pod = &new.object;
        let on_node = pod["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
        if on_node {
            state.forget(&new.uid);
            state.assumed.remove(&new.uid);
            state.snapshot.set_pod(pod);
            if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
                state.retry(RetryOn::PodGone);
                changed.notify_one();
            }
            return;
        }
        let gated = pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty());
        if pod["spec"]["schedulerName"].as_str().unwrap_or(NAME) != NAME
            || meta::deletion_timestamp(pod).is_some()
            || gated
        {
            state.forget(&new.uid);
            return;
        }
        // Only a change of what it asks for gives a refused pod another try; the status is the scheduler's own doing.
        let asks_anew = change.old.is_none_or(|old| old.object["spec"] != pod["spec"] || old.uid != new.uid);
        if asks_anew && !state.assumed.contains(&new.uid) {
            let priority = -pod["spec"]["priority"].as_i64().unwrap_or(0);
            let since = pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
            state.forget(&new.uid);
            state.enqueue(&new.uid, (priority, since, new.namespace.clone(), new.name.clone()));
            changed.notify_one();
        }
    });
}

fn follow_nodes(nodes: &Cache<Value>, state: &Arc<Mutex<State>>, changed: &Arc<Notify>) {
    let (state, changed) = (state.clone(), changed.clone());
    nodes.on_change(move |change| {
        let mut state = lock(&state);
        match change.new {
            Some(node) => {
                let matters = |n: &Value| {
                    (n["spec"].clone(), n["metadata"]["labels"].clone(), n["status"]["allocatable"].clone())
                };
                if change.old.is_some_and(|old| matters(&old.object) == matters(&node.object)) {
                    return;
                }
                state.snapshot.set_node(&node.object);
                state.retry(RetryOn::Node);
                changed.notify_one();
            }
            None => {
                if let Some(old) = change.old {
                    state.snapshot.forget_node(&old.name);
                }
            }
        }
    });
}

/// Volumes that change may make room for refused pods, and are waited for by placed ones.
fn follow_volumes(cache: &Cache<Value>, state: &Arc<Mutex<State>>, changed: &Arc<Notify>, bound: &Arc<Notify>) {
    let (state, changed, bound) = (state.clone(), changed.clone(), bound.clone());
    cache.on_change(move |change| {
        if change.new.is_some_and(|new| volumes::matters(change.old, &new.object)) {
            lock(&state).retry(RetryOn::Volume);
            changed.notify_one();
            bound.notify_waiters();
        }
    });
}

/// What follows a decision about one pod.
struct Work {
    client: Client,
    recorder: Recorder,
    object: Value,
    uid: String,
    at: Place,
}

impl Work {
    /// Has the pod's claims get their volumes on the chosen node, and waits until they have them.
    async fn bind_volumes(&self, choices: Vec<Choice>, caches: &Caches, bound: &Notify) -> bool {
        for Choice { resource, namespace, name, patch } in choices {
            let namespace = (!namespace.is_empty()).then_some(namespace.as_str());
            if let Err(error) = self.client.api(resource).patch(namespace, &name, "", Patch::Merge, &patch).await {
                tracing::debug!("choose a volume for pod {}: {error}", meta::name(&self.object));
                return false;
            }
        }
        let wait = async {
            loop {
                let change = bound.notified();
                if caches.are_bound(&self.object) {
                    return;
                }
                change.await;
            }
        };
        tokio::time::timeout(VOLUMES_TIMEOUT, wait).await.is_ok()
    }

    /// Takes the pod off its node again and has it tried anew.
    fn give_up(self, state: &Mutex<State>, again: &WorkQueue<(String, Place)>) {
        {
            let mut state = lock(state);
            state.assumed.remove(&self.uid);
            state.snapshot.forget_pod(&self.uid);
        }
        again.add_after((self.uid, self.at), BIND_AGAIN);
    }

    async fn bind(self, node: &str, state: &Mutex<State>, again: &WorkQueue<(String, Place)>) {
        let (namespace, name) = (meta::namespace(&self.object), meta::name(&self.object));
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "namespace": namespace, "uid": self.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        match self.client.api(PODS).create_subresource(Some(namespace), name, "binding", &binding).await {
            Ok(_) => {
                let message = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.event(&self.object, None, EventType::Normal, "Scheduled", message);
            }
            Err(error) => {
                {
                    let mut state = lock(state);
                    state.assumed.remove(&self.uid);
                    state.snapshot.forget_pod(&self.uid);
                }
                // Gone, bound by another, or being deleted: nothing is left to do.
                if !matches!(error.reason, Reason::NotFound | Reason::Conflict) {
                    tracing::warn!("bind pod {namespace}/{name} to {node}: {error}");
                    again.add_after((self.uid, self.at), BIND_AGAIN);
                }
            }
        }
    }

    /// Says in the pod's status and in an event why it has no node.
    async fn tell(self, no_fit: &NoFit) {
        let (namespace, name) = (meta::namespace(&self.object), meta::name(&self.object));
        let message = no_fit.to_string();
        self.recorder.event(&self.object, None, EventType::Warning, "FailedScheduling", message.clone());
        let conditions = self.object["status"]["conditions"].as_array();
        let old = conditions.into_iter().flatten().find(|c| c["type"] == "PodScheduled");
        if old.is_some_and(|c| c["status"] == "False" && c["message"] == message) {
            return;
        }
        let condition = json!({
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
            "lastProbeTime": null, "lastTransitionTime": time::seconds(clock::now()),
        });
        let patch = json!({"metadata": {"uid": self.uid}, "status": {"conditions": [condition]}});
        let patched: Result<Value, ApiError> =
            self.client.api(PODS).patch(Some(namespace), name, "status", Patch::Strategic, &patch).await;
        if let Err(error) = patched
            && !matches!(error.reason, Reason::NotFound | Reason::Conflict)
        {
            tracing::warn!("report that pod {namespace}/{name} has no node: {error}");
        }
    }
}
