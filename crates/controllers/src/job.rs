//! Jobs run pods to their end and count each exactly once.
//!
//! A pod carries a finalizer until its end is counted, in two steps: first its uid (or its index) goes into the status,
//! then the finalizer goes, then the uid becomes one more in the number. Whatever stops between two steps, no pod is lost
//! and none counts twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use kinds::indexes;
use object_model::{LabelSelector, meta, time};
use serde_json::{Value, json};

use crate::job_policy::{self, Verdict};
use crate::pods::{self, BURST, Owner, is_active, is_over, rank, ready_since};
use crate::{Action, Controller, JOBS, Key, Note, Object, Objects, PODS, Read, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "job-controller",
    subject: JOBS,
    reads: &[Read { resource: PODS, wakes }],
    writes: &[Writes::Children(PODS), Writes::Status],
    plan,
};

/// The finalizer of pods that have not been counted yet.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Label and annotation with the number of a pod of an indexed job.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The pause after the first failure, in seconds; it doubles (upstream's values).
const FIRST_PAUSE: i64 = 10;
/// The longest pause, in seconds.
const LONGEST_PAUSE: i64 = 600;

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    pods::wakes(pod, objects, JOBS, "Job")
}

/// The condition of a type, if it holds.
pub(crate) fn condition<'a>(job: &'a Value, kind: &str) -> Option<&'a Value> {
    job["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind && c["status"] == "True")
}

/// The condition that says that a job has ended, if it has.
pub(crate) fn finished(job: &Value) -> Option<&Value> {
    condition(job, "Complete").or_else(|| condition(job, "Failed"))
}

/// The index of a pod of an indexed job.
pub(crate) fn index_of(pod: &Value) -> Option<i64> {
    meta::annotations(pod).get(INDEX)?.parse().ok()
}

/// What is known of a job and its pods while its plan is made.
struct View<'a> {
    job: &'a Value,
    owner: Owner<'a>,
    own: &'a [Object],
    now: Timestamp,
    indexed: bool,
    completions: Option<i64>,
    parallelism: i64,
    suspended: bool,
}

impl View<'_> {
    fn spec(&self, field: &str) -> Option<i64> {
        self.job["spec"][field].as_i64()
    }

    fn active(&self) -> Vec<&Object> {
        self.own.iter().filter(|p| is_active(&p.object)).collect()
    }

    /// Pods that are being deleted and have not ended yet.
    fn terminating(&self) -> usize {
        self.own.iter().filter(|p| meta::deletion_timestamp(&p.object).is_some() && !is_over(&p.object)).count()
    }

    fn replaces_only_failed(&self) -> bool {
        self.job["spec"]["podReplacementPolicy"] == "Failed"
    }

    /// Whether a pod counts as failed. One that is being deleted does at once, unless the job waits for its end.
    fn has_failed(&self, pod: &Value) -> bool {
        match pod["status"]["phase"].as_str() {
            Some("Failed") => true,
            Some("Succeeded") => false,
            _ => meta::deletion_timestamp(pod).is_some() && !self.replaces_only_failed(),
        }
    }

    fn verdict(&self, pod: &Value) -> Verdict {
        job_policy::failure(&self.job["spec"]["podFailurePolicy"], pod)
    }
}

/// What has been counted so far.
#[derive(Default)]
struct Count {
    succeeded: i64,
    failed: i64,
    /// Uids that are in the status and not yet in the numbers.
    pending_succeeded: BTreeSet<String>,
    pending_failed: BTreeSet<String>,
    completed: BTreeSet<i64>,
    failed_indexes: BTreeSet<i64>,
}

impl Count {
    fn read(job: &Value, completions: Option<i64>) -> Self {
        let status = &job["status"];
        let uids = |field: &str| {
            let list = status["uncountedTerminatedPods"][field].as_array();
            list.into_iter().flatten().filter_map(|uid| uid.as_str().map(str::to_owned)).collect()
        };
        let set = |field: &str| {
            let text = status[field].as_str().unwrap_or_default();
            indexes::parse(text, completions.unwrap_or(i64::MAX)).unwrap_or_default()
        };
        Self {
            succeeded: status["succeeded"].as_i64().unwrap_or(0),
            failed: status["failed"].as_i64().unwrap_or(0),
            pending_succeeded: uids("succeeded"),
            pending_failed: uids("failed"),
            completed: set("completedIndexes"),
            failed_indexes: set("failedIndexes"),
        }
    }

    /// Moves what has lost its finalizer into the numbers.
    fn settle(&mut self, own: &[Object]) {
        let held: BTreeSet<&str> = own.iter().filter(|p| is_tracked(&p.object)).map(|p| p.uid.as_str()).collect();
        for (pending, number) in
            [(&mut self.pending_succeeded, &mut self.succeeded), (&mut self.pending_failed, &mut self.failed)]
        {
            let before = pending.len();
            pending.retain(|uid| held.contains(uid.as_str()));
            *number += i64::try_from(before - pending.len()).unwrap_or(0);
        }
    }

    /// Notes the pods that have ended since. Returns a failure that ends the whole job, if there is one.
    fn note(&mut self, view: &View<'_>) -> Option<String> {
        let mut fatal = None;
        for pod in view.own.iter().filter(|p| is_tracked(&p.object)) {
            let index = index_of(&pod.object).filter(|i| view.completions.is_none_or(|c| (0..c).contains(i)));
            if view.indexed && index.is_none() {
                continue;
            }
            if pod.object["status"]["phase"] == "Succeeded" {
                match index.filter(|_| view.indexed) {
                    Some(index) => {
                        self.completed.insert(index);
                    }
                    None => {
                        self.pending_succeeded.insert(pod.uid.clone());
                    }
                }
            } else if view.has_failed(&pod.object) {
                match view.verdict(&pod.object) {
                    Verdict::Ignore => continue,
                    Verdict::FailJob(message) => fatal = fatal.or(Some(message)),
                    Verdict::FailIndex => self.failed_indexes.extend(index),
                    Verdict::Count => {}
                }
                self.pending_failed.insert(pod.uid.clone());
            }
        }
        if view.indexed {
            self.succeeded = i64::try_from(self.completed.len()).unwrap_or(i64::MAX);
        }
        if let Some(limit) = view.spec("backoffLimitPerIndex") {
            for (index, failures) in failures_by_index(view) {
                if failures > limit && !self.completed.contains(&index) {
                    self.failed_indexes.insert(index);
                }
            }
        }
        self.failed_indexes.retain(|index| !self.completed.contains(index));
        fatal
    }

    fn all_succeeded(&self) -> i64 {
        self.succeeded + i64::try_from(self.pending_succeeded.len()).unwrap_or(0)
    }

    fn all_failed(&self) -> i64 {
        self.failed + i64::try_from(self.pending_failed.len()).unwrap_or(0)
    }

    fn is_settled(&self) -> bool {
        self.pending_succeeded.is_empty() && self.pending_failed.is_empty()
    }
}

fn is_tracked(pod: &Value) -> bool {
    meta::finalizers(pod).contains(&TRACKING)
}

/// How many pods of each index have failed, of those that count.
fn failures_by_index(view: &View<'_>) -> BTreeMap<i64, i64> {
    let mut failures = BTreeMap::new();
    for pod in view.own.iter().filter(|p| view.has_failed(&p.object) && view.verdict(&p.object) != Verdict::Ignore) {
        if let Some(index) = index_of(&pod.object) {
            *failures.entry(index).or_insert(0) += 1;
        }
    }
    failures
}

fn plan(job: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if job["spec"]["managedBy"].as_str().is_some_and(|by| by != "kubernetes.io/job-controller") {
        return Ok(Vec::new());
    }
    let selector = LabelSelector::from_object(&job["spec"]["selector"])?;
    let owner = Owner { object: job, api_version: "batch/v1", kind: "Job", finalizer: TRACKING };
    let (own, mut actions) = owner.claim(objects, &selector);
    let release = |pods: &[Object]| -> Vec<Action> {
        pods.iter().filter(|p| is_tracked(&p.object)).map(|p| pods::strip(PODS, p, TRACKING)).collect()
    };
    if meta::deletion_timestamp(job).is_some() || finished(job).is_some() {
        actions.extend(release(&own));
        return Ok(actions);
    }
    let completions = job["spec"]["completions"].as_i64();
    let view = View {
        job,
        owner,
        own: &own,
        now,
        indexed: job["spec"]["completionMode"] == "Indexed",
        completions,
        parallelism: job["spec"]["parallelism"].as_i64().unwrap_or(1),
        suspended: job["spec"]["suspend"] == true,
    };
    let mut count = Count::read(job, completions);
    count.settle(&own);
    let fatal = count.note(&view);

    let mut conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let mut start = job["status"]["startTime"].as_str().map(str::to_owned);
    let mut events = Vec::new();
    suspension(&view, &mut conditions, &mut start, &mut events);
    let holds = |kind: &str, list: &[Value]| list.iter().find(|c| c["type"] == kind && c["status"] == "True").cloned();
    if holds("FailureTarget", &conditions).is_none() && holds("SuccessCriteriaMet", &conditions).is_none() {
        if let Some((reason, message)) = failure(&view, &count, fatal, start.as_deref()) {
            conditions.push(make_condition("FailureTarget", reason, &message, now));
        } else if let Some((reason, message)) = success(&view, &count) {
            conditions.push(make_condition("SuccessCriteriaMet", reason, message, now));
        }
    }
    let verdict = holds("FailureTarget", &conditions).or_else(|| holds("SuccessCriteriaMet", &conditions));
    let active = view.active();
    let mut work = Vec::new();
    let mut completion_time = None;
    if let Some(verdict) = &verdict {
        if verdict["type"] == "FailureTarget" {
            work.extend(active.iter().map(|pod| view.owner.delete(pod)));
        } else {
            work.extend(let_go(&view, &active));
        }
        if active.is_empty() && view.terminating() == 0 && count.is_settled() {
            let (reason, message) = (known(&verdict["reason"]), verdict["message"].as_str().unwrap_or_default());
            if verdict["type"] == "FailureTarget" {
                conditions.push(make_condition("Failed", reason, message, now));
                events.push(Note::warning(job, reason, message));
            } else {
                conditions.push(make_condition("Complete", reason, message, now));
                completion_time = Some(time::seconds(now));
                events.push(Note::normal(job, "Completed", "Job completed"));
            }
        }
    } else if view.suspended {
        work.extend(let_go(&view, &active));
    } else {
        work.extend(manage(&view, &count, &active));
        if let (Some(deadline), Some(start)) =
            (view.spec("activeDeadlineSeconds"), start.as_deref().and_then(time::parse))
        {
            let left = start.as_second() + deadline - now.as_second();
            work.push(Action::Again(Duration::from_secs(left.max(1).unsigned_abs())));
        }
    }
    let made = work.iter().filter(|a| matches!(a, Action::Create { .. })).count();
    let removed = work.iter().filter(|a| matches!(a, Action::Delete { .. })).count();
    let mut status = json!({
        "conditions": conditions,
        "startTime": start,
        "active": active.len() + made - removed,
        "terminating": view.terminating() + removed,
        "ready": active.iter().filter(|p| ready_since(&p.object).is_some()).count(),
        "succeeded": count.succeeded,
        "failed": count.failed,
        "completedIndexes": view.indexed.then(|| indexes::format(&count.completed)),
        "failedIndexes": view.spec("backoffLimitPerIndex").map(|_| indexes::format(&count.failed_indexes)),
        "uncountedTerminatedPods": uncounted(&count),
    });
    if let Some(time) = completion_time {
        status["completionTime"] = time.into();
    }
    if differs(&status, &job["status"]) {
        actions.push(Action::Patch {
            resource: JOBS,
            namespace: meta::namespace(job).to_owned(),
            name: meta::name(job).to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        });
    }
    // Only what the status has noted may lose its finalizer.
    let over = |pod: &&Object| is_tracked(&pod.object) && (is_over(&pod.object) || view.has_failed(&pod.object));
    actions.extend(own.iter().filter(over).map(|pod| pods::strip(PODS, pod, TRACKING)));
    actions.extend(work);
    actions.extend(events.into_iter().map(Action::Event));
    Ok(actions)
}

fn uncounted(count: &Count) -> Value {
    let mut value = json!({"succeeded": null, "failed": null});
    for (field, pending) in [("succeeded", &count.pending_succeeded), ("failed", &count.pending_failed)] {
        if !pending.is_empty() {
            value[field] = json!(pending);
        }
    }
    value
}

/// Whether a patch would change the status; what is not there is zero, empty or nothing.
fn differs(patch: &Value, status: &Value) -> bool {
    match (patch, status) {
        (Value::Object(patch), _) => patch.iter().any(|(key, value)| differs(value, &status[key])),
        (patch, Value::Null) => !(patch.is_null() || *patch == json!(0) || *patch == json!("") || *patch == json!([])),
        (patch, status) => patch != status,
    }
}

/// The reasons of conditions, which events have as well.
fn known(reason: &Value) -> &'static str {
    const REASONS: [&str; 8] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "FailedIndexes",
        "MaxFailedIndexesExceeded",
        "CompletionsReached",
        "SuccessPolicy",
        "Failed",
    ];
    REASONS.into_iter().find(|known| reason == known).unwrap_or("Failed")
}

fn make_condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let now = time::seconds(now);
    json!({"type": kind, "status": "True", "lastProbeTime": now, "lastTransitionTime": now, "reason": reason, "message": message})
}

/// Starts the clock, or stops it while the job is suspended.
fn suspension(view: &View<'_>, conditions: &mut Vec<Value>, start: &mut Option<String>, events: &mut Vec<Note>) {
    let was = conditions.iter().any(|c| c["type"] == "Suspended" && c["status"] == "True");
    let (status, reason, message) = match (view.suspended, was) {
        (true, false) => ("True", "JobSuspended", "Job suspended"),
        (false, true) => ("False", "JobResumed", "Job resumed"),
        (true, true) => return,
        (false, false) => {
            start.get_or_insert_with(|| time::seconds(view.now));
            return;
        }
    };
    conditions.retain(|c| c["type"] != "Suspended");
    let mut condition = make_condition("Suspended", reason, message, view.now);
    condition["status"] = status.into();
    conditions.push(condition);
    *start = (!view.suspended).then(|| time::seconds(view.now));
    events.push(Note::normal(view.job, if view.suspended { "Suspended" } else { "Resumed" }, message));
}

/// Why the job has failed, if it has.
fn failure(
    view: &View<'_>,
    count: &Count,
    fatal: Option<String>,
    start: Option<&str>,
) -> Option<(&'static str, String)> {
    if let Some(message) = fatal {
        return Some(("PodFailurePolicy", message));
    }
    let limit = view.spec("backoffLimit").unwrap_or(6);
    if count.all_failed() > limit || restarted_too_often(view, limit) {
        return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
    }
    if let (Some(deadline), Some(start), false) =
        (view.spec("activeDeadlineSeconds"), start.and_then(time::parse), view.suspended)
        && view.now.as_second() - start.as_second() >= deadline
    {
        return Some(("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
    }
    let failed = i64::try_from(count.failed_indexes.len()).unwrap_or(0);
    if view.spec("maxFailedIndexes").is_some_and(|max| failed > max) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(("MaxFailedIndexesExceeded", message.to_owned()));
    }
    let ended = failed + count.all_succeeded();
    if failed > 0 && view.completions.is_some_and(|all| ended >= all) {
        return Some(("FailedIndexes", "Job has failed indexes".to_owned()));
    }
    None
}

/// Pods that restart their own containers fail with these restarts.
fn restarted_too_often(view: &View<'_>, limit: i64) -> bool {
    if view.job["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure" {
        return false;
    }
    let mut restarts = 0;
    for pod in view.active() {
        for list in ["initContainerStatuses", "containerStatuses"] {
            let statuses = pod.object["status"][list].as_array().into_iter().flatten();
            restarts += statuses.filter_map(|s| s["restartCount"].as_i64()).sum::<i64>();
        }
    }
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Why the job has succeeded, if it has.
fn success(view: &View<'_>, count: &Count) -> Option<(&'static str, &'static str)> {
    let succeeded = count.all_succeeded();
    let reached = match view.completions {
        // A queue of work: one success says that there is no more of it, and those at work end by themselves.
        None => succeeded > 0 && view.active().is_empty(),
        Some(wanted) => succeeded >= wanted,
    };
    if reached && count.failed_indexes.is_empty() {
        return Some(("CompletionsReached", "Reached expected number of succeeded pods"));
    }
    job_policy::succeeds(&view.job["spec"]["successPolicy"], &count.completed, view.completions.unwrap_or(0))
        .then_some(("SuccessPolicy", "Matched rules at index 0"))
}

/// Deletes pods that are not wanted any more. They do not count as failures, so they lose the finalizer first.
fn let_go(view: &View<'_>, pods: &[&Object]) -> Vec<Action> {
    let strips = pods.iter().filter(|p| is_tracked(&p.object)).map(|p| pods::strip(PODS, p, TRACKING));
    strips.chain(pods.iter().map(|p| view.owner.delete(p))).collect()
}

/// Makes missing pods and deletes those too many.
fn manage(view: &View<'_>, count: &Count, active: &[&Object]) -> Vec<Action> {
    let succeeded = count.all_succeeded();
    let running = i64::try_from(active.len()).unwrap_or(i64::MAX);
    let failed_indexes = i64::try_from(count.failed_indexes.len()).unwrap_or(0);
    let wanted = match view.completions {
        // Once one has found the queue empty, no more are started.
        None if succeeded > 0 => running.min(view.parallelism),
        None => view.parallelism,
        Some(all) => view.parallelism.min((all - succeeded - failed_indexes).max(0)),
    };
    let mut excess: Vec<&Object> = Vec::new();
    if view.indexed {
        let mut seen = BTreeSet::new();
        let mut sorted = active.to_vec();
        sorted.sort_by_key(|p| p.object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned());
        excess.extend(sorted.iter().filter(|p| {
            let wanted =
                index_of(&p.object).filter(|i| !count.completed.contains(i) && !count.failed_indexes.contains(i));
            wanted.filter(|i| view.completions.is_some_and(|c| *i < c)).is_none_or(|i| !seen.insert(i))
        }));
    }
    let kept = running - i64::try_from(excess.len()).unwrap_or(0);
    if kept > wanted {
        let mut ranked: Vec<&Object> =
            active.iter().copied().filter(|p| !excess.iter().any(|e| e.uid == p.uid)).collect();
        ranked.sort_by_cached_key(|p| rank(&p.object));
        excess.extend(ranked.into_iter().take(usize::try_from(kept - wanted).unwrap_or(0)));
    }
    if !excess.is_empty() {
        return let_go(view, &excess);
    }
    let waiting = if view.replaces_only_failed() { i64::try_from(view.terminating()).unwrap_or(0) } else { 0 };
    let missing = usize::try_from(wanted - running - waiting).unwrap_or(0).min(BURST);
    if missing == 0 {
        return Vec::new();
    }
    if view.indexed { make_indexed(view, count, missing) } else { make(view, missing) }
}

fn make(view: &View<'_>, missing: usize) -> Vec<Action> {
    let left = pause_left(view, None);
    if left > 0 {
        return vec![Action::Again(Duration::from_secs(left.unsigned_abs()))];
    }
    let pod = || {
        let mut pod = view.owner.pod(&view.job["spec"]["template"]);
        pod["metadata"]["generateName"] = format!("{}-", meta::name(view.job)).into();
        view.owner.create(pod)
    };
    (0..missing).map(|_| pod()).collect()
}

fn make_indexed(view: &View<'_>, count: &Count, missing: usize) -> Vec<Action> {
    let per_index = view.spec("backoffLimitPerIndex").is_some();
    if !per_index {
        let left = pause_left(view, None);
        if left > 0 {
            return vec![Action::Again(Duration::from_secs(left.unsigned_abs()))];
        }
    }
    let blocks = |pod: &Value| {
        is_active(pod) || (view.replaces_only_failed() && meta::deletion_timestamp(pod).is_some() && !is_over(pod))
    };
    let taken: BTreeSet<i64> =
        view.own.iter().filter(|p| blocks(&p.object)).filter_map(|p| index_of(&p.object)).collect();
    let free = (0..view.completions.unwrap_or(0)).filter(|index| {
        !count.completed.contains(index) && !count.failed_indexes.contains(index) && !taken.contains(index)
    });
    let mut actions = Vec::new();
    let mut soonest: Option<i64> = None;
    for index in free {
        if actions.len() == missing {
            break;
        }
        let left = if per_index { pause_left(view, Some(index)) } else { 0 };
        if left > 0 {
            soonest = Some(soonest.map_or(left, |s| s.min(left)));
        } else {
            actions.push(view.owner.create(indexed_pod(view, index)));
        }
    }
    actions.extend(soonest.map(|left| Action::Again(Duration::from_secs(left.unsigned_abs()))));
    actions
}

/// A pod that knows its index: by its name, host name, label, annotation and environment.
fn indexed_pod(view: &View<'_>, index: i64) -> Value {
    let mut pod = view.owner.pod(&view.job["spec"]["template"]);
    let name = format!("{}-{index}", meta::name(view.job));
    pod["metadata"]["generateName"] = format!("{name}-").into();
    for field in ["labels", "annotations"] {
        if !pod["metadata"][field].is_object() {
            pod["metadata"][field] = json!({});
        }
        pod["metadata"][field][INDEX] = index.to_string().into();
    }
    pod["spec"]["hostname"] = name.into();
    let variable = json!({"name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"fieldPath": format!("metadata.labels['{INDEX}']")}}});
    for list in ["initContainers", "containers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            match container["env"].as_array_mut() {
                Some(env) if env.iter().any(|v| v["name"] == variable["name"]) => {}
                Some(env) => env.push(variable.clone()),
                None => container["env"] = json!([variable]),
            }
        }
    }
    pod
}

/// How many seconds the next pod has still to wait, of all or of one index: the pause doubles with each failure in a row.
fn pause_left(view: &View<'_>, index: Option<i64>) -> i64 {
    let ended = |pod: &&Object| {
        let counts = pod.object["status"]["phase"] == "Succeeded"
            || (view.has_failed(&pod.object) && view.verdict(&pod.object) != Verdict::Ignore);
        counts && index.is_none_or(|index| index_of(&pod.object) == Some(index))
    };
    let mut ends: Vec<(Timestamp, bool)> = view
        .own
        .iter()
        .filter(ended)
        .map(|p| (end_of(&p.object, view.now), p.object["status"]["phase"] != "Succeeded"))
        .collect();
    ends.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let failures = ends.iter().take_while(|(_, failed)| *failed).count();
    let Some((last, true)) = ends.first().copied() else { return 0 };
    let doubled = u32::try_from(failures - 1).ok().and_then(|n| 2_i64.checked_pow(n));
    let pause = doubled.and_then(|d| d.checked_mul(FIRST_PAUSE)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
    last.as_second() + pause - view.now.as_second()
}

/// When a pod ended: with its last container, or when it was told to.
fn end_of(pod: &Value, now: Timestamp) -> Timestamp {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let last = statuses.filter_map(|s| time::parse(s["state"]["terminated"]["finishedAt"].as_str()?)).max();
    last.or_else(|| time::parse(meta::deletion_timestamp(pod)?)).unwrap_or(now).min(now)
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;
