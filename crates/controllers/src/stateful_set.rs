//! StatefulSets: pods with numbers, each with volumes of its own, started and stopped in order.

use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use object_model::LabelSelector;
use object_model::meta;
use serde_json::{Value, json};

use crate::pods::{self, Owner, is_over, only_this, until_available};
use crate::revisions::{HASH_LABEL, Revisions, template_of};
use crate::rollout::share;
use crate::{
    Action, CLAIMS, CONTROLLER_REVISIONS, Controller, Key, Note, Object, Objects, PODS, Read, STATEFUL_SETS, Writes,
    controller_key,
};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "statefulset-controller",
    subject: STATEFUL_SETS,
    reads: &[
        Read { resource: PODS, wakes },
        Read { resource: CONTROLLER_REVISIONS, wakes: wakes_of_revision },
        Read { resource: CLAIMS, wakes: |_, _| Vec::new() },
    ],
    writes: &[Writes::Children(PODS), Writes::Children(CONTROLLER_REVISIONS), Writes::Children(CLAIMS), Writes::Status],
    plan,
};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    pods::wakes(pod, objects, STATEFUL_SETS, "StatefulSet")
}

fn wakes_of_revision(revision: &Value, _objects: &dyn Objects) -> Vec<Key> {
    controller_key(revision, "StatefulSet").into_iter().collect()
}

/// The number of a pod of this set, by its name.
fn ordinal(set: &str, pod: &str) -> Option<i64> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok().filter(|n: &i64| *n >= 0)
}

/// A set and its pods while its plan is made.
struct View<'a> {
    set: &'a Value,
    owner: Owner<'a>,
    objects: &'a dyn Objects,
    now: Timestamp,
    /// Number of the first pod, and one after the last.
    start: i64,
    end: i64,
    /// Pods that should be there, by number; and those that are.
    slots: Vec<Option<Object>>,
    /// Pods that are too many, the highest number first.
    condemned: Vec<(i64, Object)>,
    /// Names of the revision most pods are made from, and of the newest.
    current: String,
    update: String,
    new_template: Value,
    current_template: Value,
}

impl View<'_> {
    fn name(&self) -> &str {
        meta::name(self.set)
    }

    fn in_order(&self) -> bool {
        self.set["spec"]["podManagementPolicy"] != "Parallel"
    }

    fn min_ready(&self) -> i64 {
        self.set["spec"]["minReadySeconds"].as_i64().unwrap_or(0)
    }

    fn is_available(&self, pod: &Value) -> bool {
        until_available(pod, self.min_ready(), self.now) == Some(0)
    }

    fn is_healthy(&self, pod: &Value) -> bool {
        pods::ready_since(pod).is_some() && !is_leaving(pod)
    }

    fn rolling(&self) -> Option<&Value> {
        let strategy = &self.set["spec"]["updateStrategy"];
        (strategy["type"] == "RollingUpdate").then(|| &strategy["rollingUpdate"])
    }

    fn partition(&self) -> i64 {
        self.rolling().map_or(0, |rolling| rolling["partition"].as_i64().unwrap_or(0))
    }

    /// Whether a new pod of this number is made from the revision before the newest.
    fn wants_current(&self, number: i64) -> bool {
        self.rolling().is_some() && number < self.start + self.partition()
    }

    /// Name of a claim for a pod.
    fn claim_name(&self, template: &Value, number: i64) -> String {
        format!("{}-{}-{number}", meta::name(template), self.name())
    }

    fn claim_templates(&self) -> Vec<&Value> {
        self.set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten().collect()
    }
}

fn is_leaving(pod: &Value) -> bool {
    meta::deletion_timestamp(pod).is_some()
}

fn revision_of(pod: &Value) -> &str {
    meta::labels(pod).get(HASH_LABEL).copied().unwrap_or_default()
}

fn plan(set: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let selector = LabelSelector::from_object(&set["spec"]["selector"])?;
    let owner = Owner { object: set, api_version: "apps/v1", kind: "StatefulSet", finalizer: "" };
    let (own, mut actions) = owner.claim_named(objects, &selector, &|pod| ordinal(meta::name(set), pod).is_some());
    if meta::deletion_timestamp(set).is_some() {
        return Ok(actions);
    }
    let revisions = Revisions::of(&owner, objects)?;
    actions.extend(revisions.actions.iter().cloned());
    let start = set["spec"]["ordinals"]["start"].as_i64().unwrap_or(0);
    let wanted = set["spec"]["replicas"].as_i64().unwrap_or(1);
    let mut slots: Vec<Option<Object>> = vec![None; usize::try_from(wanted).unwrap_or(0)];
    let mut condemned = Vec::new();
    for pod in own {
        let Some(number) = ordinal(meta::name(set), &pod.name) else { continue };
        match usize::try_from(number - start).ok().and_then(|at| slots.get_mut(at)) {
            Some(slot) => *slot = Some(pod),
            None => condemned.push((number, pod)),
        }
    }
    condemned.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    let known = set["status"]["currentRevision"].as_str().filter(|name| !name.is_empty());
    let current = known.unwrap_or(&revisions.name).to_owned();
    let template = set["spec"]["template"].clone();
    let current_template = revisions
        .stored
        .iter()
        .find(|r| r.name == current)
        .map_or_else(|| template.clone(), |r| template_of(&r.object));
    let view = View {
        set,
        owner,
        objects,
        now,
        start,
        end: start + wanted,
        slots,
        condemned,
        current,
        update: revisions.name.clone(),
        new_template: template,
        current_template,
    };
    actions.extend(keep_claims(&view));
    let work = keep_pods(&view).unwrap_or_else(|| roll(&view));
    let live: Vec<&str> = view
        .slots
        .iter()
        .flatten()
        .chain(view.condemned.iter().map(|(_, pod)| pod))
        .map(|pod| revision_of(&pod.object))
        .chain([view.current.as_str()])
        .collect();
    let limit = set["spec"]["revisionHistoryLimit"].as_u64().and_then(|l| usize::try_from(l).ok()).unwrap_or(10);
    actions.extend(work);
    actions.extend(revisions.forget_old(limit, &live));
    actions.extend(status(&view));
    Ok(actions)
}

/// The one or more steps towards the right number of pods; `None` when they are all there.
fn keep_pods(view: &View<'_>) -> Option<Vec<Action>> {
    let in_order = view.in_order();
    let mut actions = Vec::new();
    let mut waits = false;
    for (number, slot) in (view.start..).zip(&view.slots) {
        match slot {
            None => {
                actions.extend(create(view, number));
                waits = true;
            }
            Some(pod) if is_over(&pod.object) && !is_leaving(&pod.object) => {
                let failed = pod.object["status"]["phase"] == "Failed";
                let full = format!("{}/{}", pod.namespace, view.name());
                let (reason, word) =
                    if failed { ("RecreatingFailedPod", "failed") } else { ("RecreatingTerminatedPod", "terminated") };
                let message = format!("StatefulSet {full} is recreating {word} Pod {}", pod.name);
                actions.push(Action::Event(Note::warning(view.set, reason, message)));
                actions.push(delete(view, pod));
                waits = true;
            }
            // In order, each waits for those before it.
            Some(pod) if in_order => waits = is_leaving(&pod.object) || !view.is_available(&pod.object),
            Some(_) => {}
        }
        if in_order && waits {
            return Some(actions);
        }
    }
    for (at, (_, pod)) in view.condemned.iter().enumerate() {
        if is_leaving(&pod.object) {
            if in_order {
                return Some(actions);
            }
            continue;
        }
        // A sick one holds the others up, unless it is the last that is left to go.
        let last = at + 1 == view.condemned.len();
        if in_order && !last && !view.is_available(&pod.object) && !is_over(&pod.object) {
            return Some(actions);
        }
        actions.push(delete(view, pod));
        if in_order {
            return Some(actions);
        }
    }
    (!actions.is_empty() || waits).then_some(actions)
}

/// Replaces pods of older revisions, the highest number first, as many at a time as may be unavailable.
fn roll(view: &View<'_>) -> Vec<Action> {
    let Some(rolling) = view.rolling() else { return Vec::new() };
    let wanted = view.end - view.start;
    let most = match &rolling["maxUnavailable"] {
        Value::Null => 1,
        value => share(value, wanted, false).max(1),
    };
    let busy = |pod: &&Object| {
        is_leaving(&pod.object) || (revision_of(&pod.object) == view.update && !view.is_healthy(&pod.object))
    };
    let mut left = most - i64::try_from(view.slots.iter().flatten().filter(busy).count()).unwrap_or(i64::MAX);
    let mut actions = Vec::new();
    for (at, slot) in view.slots.iter().enumerate().rev() {
        let Some(pod) = slot else { continue };
        let number = view.start + i64::try_from(at).unwrap_or(i64::MAX);
        if number < view.start + view.partition() || left <= 0 {
            break;
        }
        if revision_of(&pod.object) != view.update && !is_leaving(&pod.object) {
            actions.push(delete(view, pod));
            left -= 1;
        }
    }
    actions
}

fn delete(view: &View<'_>, pod: &Object) -> Action {
    let message = format!("delete Pod {} in StatefulSet {} successful", pod.name, view.name());
    Action::Delete {
        resource: PODS,
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        options: only_this(pod),
        event: Some(Note::normal(view.set, "SuccessfulDelete", message)),
    }
}

/// A pod and the claims it needs.
fn create(view: &View<'_>, number: i64) -> Vec<Action> {
    let (template, revision) = if view.wants_current(number) {
        (&view.current_template, &view.current)
    } else {
        (&view.new_template, &view.update)
    };
    let name = format!("{}-{number}", view.name());
    let mut pod = view.owner.pod(template);
    pod["metadata"]["name"] = name.clone().into();
    if !pod["metadata"]["labels"].is_object() {
        pod["metadata"]["labels"] = json!({});
    }
    pod["metadata"]["labels"][POD_NAME] = name.clone().into();
    pod["metadata"]["labels"][POD_INDEX] = number.to_string().into();
    pod["metadata"]["labels"][HASH_LABEL] = revision.clone().into();
    pod["spec"]["hostname"] = name.clone().into();
    if let Some(service) = view.set["spec"]["serviceName"].as_str().filter(|service| !service.is_empty()) {
        pod["spec"]["subdomain"] = service.into();
    }
    let mut volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let mut actions = Vec::new();
    for template in view.claim_templates() {
        let claim = view.claim_name(template, number);
        volumes.retain(|volume| volume["name"] != template["metadata"]["name"]);
        volumes.push(json!({"name": meta::name(template), "persistentVolumeClaim": {"claimName": claim}}));
        if view.objects.get(CLAIMS, meta::namespace(view.set), &claim).is_none() {
            actions.push(create_claim(view, template, &claim, &name));
        }
    }
    if !volumes.is_empty() {
        pod["spec"]["volumes"] = volumes.into();
    }
    let message = format!("create Pod {name} in StatefulSet {} successful", view.name());
    actions.push(Action::Create {
        resource: PODS,
        namespace: meta::namespace(view.set).to_owned(),
        object: pod,
        event: Some(Note::normal(view.set, "SuccessfulCreate", message)),
    });
    actions
}

fn create_claim(view: &View<'_>, template: &Value, name: &str, pod: &str) -> Action {
    let mut labels = template["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    for (key, value) in meta::strings(&view.set["spec"]["selector"]["matchLabels"]) {
        labels.insert(key.to_owned(), value.into());
    }
    let mut metadata = json!({
        "name": name, "namespace": meta::namespace(view.set), "labels": labels,
        "annotations": template["metadata"]["annotations"],
    });
    if view.set["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete" {
        metadata["ownerReferences"] = json!([view.owner.reference()]);
    }
    let message = format!("create Claim {name} Pod {pod} in StatefulSet {} success", view.name());
    Action::Create {
        resource: CLAIMS,
        namespace: meta::namespace(view.set).to_owned(),
        object: json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template["spec"]}),
        event: Some(Note::normal(view.set, "SuccessfulCreate", message)),
    }
}

/// Gives the claims of pods the owners that the retention policy wants: what owns a claim takes it along when it goes.
fn keep_claims(view: &View<'_>) -> Vec<Action> {
    let policy = &view.set["spec"]["persistentVolumeClaimRetentionPolicy"];
    let (deleted, scaled) = (policy["whenDeleted"] == "Delete", policy["whenScaled"] == "Delete");
    let kept = (view.start..).zip(&view.slots).filter_map(|(n, slot)| Some((n, slot.as_ref()?, false)));
    let leaving = view.condemned.iter().map(|(n, pod)| (*n, pod, true));
    let mut actions = Vec::new();
    for (number, pod, condemned) in kept.chain(leaving) {
        for template in view.claim_templates() {
            let name = view.claim_name(template, number);
            let Some(claim) = view.objects.get(CLAIMS, meta::namespace(view.set), &name) else { continue };
            let by_pod = json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid});
            let is_ours = |owner: &meta::OwnerReference| {
                owner.uid == meta::uid(view.set) || (owner.kind == "Pod" && owner.name == pod.name)
            };
            let before = meta::owners(&claim.object);
            let mut owners: Vec<Value> =
                before.iter().filter(|o| !is_ours(o)).map(meta::OwnerReference::to_value).collect();
            if condemned && scaled {
                owners.push(by_pod);
            } else if deleted {
                owners.push(view.owner.reference());
            }
            let uids = |list: &[Value]| list.iter().map(|o| o["uid"].clone()).collect::<Vec<_>>();
            let had: Vec<Value> = before.iter().map(|o| o.uid.clone().into()).collect();
            if uids(&owners) != had {
                actions.push(Action::Patch {
                    resource: CLAIMS,
                    namespace: claim.namespace.clone(),
                    name: claim.name.clone(),
                    subresource: "",
                    kind: Patch::Merge,
                    patch: json!({"metadata": {"uid": claim.uid, "ownerReferences": owners}}),
                });
            }
        }
    }
    actions
}

fn status(view: &View<'_>) -> Vec<Action> {
    let all: Vec<&Object> = view.slots.iter().flatten().chain(view.condemned.iter().map(|(_, pod)| pod)).collect();
    let count = |what: &dyn Fn(&Value) -> bool| all.iter().filter(|pod| what(&pod.object)).count();
    let of = |revision: &str| count(&|pod| !is_leaving(pod) && revision_of(pod) == revision);
    let ready = count(&|pod| view.is_healthy(pod));
    let (mut current, updated) = (of(&view.current), of(&view.update));
    let mut current_revision = view.current.as_str();
    let wanted = view.slots.len();
    // The newest revision is the current one once all pods are made from it and serve.
    if view.rolling().is_some() && updated == wanted && ready == wanted && all.len() == wanted {
        current = updated;
        current_revision = &view.update;
    }
    let status = json!({
        "observedGeneration": meta::generation(view.set),
        "replicas": all.len(), "readyReplicas": ready,
        "availableReplicas": count(&|pod| view.is_healthy(pod) && view.is_available(pod)),
        "currentReplicas": current, "updatedReplicas": updated,
        "currentRevision": current_revision, "updateRevision": view.update,
    });
    let before = &view.set["status"];
    let same = status.as_object().into_iter().flatten().all(|(k, v)| before.get(k).unwrap_or(&json!(0)) == v);
    let mut actions = Vec::new();
    if !same {
        actions.push(Action::Patch {
            resource: STATEFUL_SETS,
            namespace: meta::namespace(view.set).to_owned(),
            name: view.name().to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        });
    }
    let soonest =
        all.iter().filter_map(|p| until_available(&p.object, view.min_ready(), view.now)).filter(|s| *s > 0).min();
    actions.extend(soonest.map(|s| Action::Again(Duration::from_secs(s.unsigned_abs()))));
    actions
}

#[cfg(test)]
#[path = "stateful_set_tests.rs"]
mod tests;
