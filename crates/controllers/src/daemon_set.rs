//! DaemonSets: one pod on each node that fits.

use std::collections::BTreeMap;
use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use object_model::node_selector::matches_term;
use object_model::{LabelSelector, meta};
use serde_json::{Value, json};

use crate::pods::{self, Owner, is_active, is_over, until_available};
use crate::revisions::{HASH_LABEL, Revisions};
use crate::rollout::share;
use crate::taints;
use crate::{
    Action, CONTROLLER_REVISIONS, Controller, DAEMON_SETS, Key, NODES, Note, Object, Objects, PODS, Read, Writes,
    controller_key,
};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "daemonset-controller",
    subject: DAEMON_SETS,
    reads: &[
        Read { resource: PODS, wakes },
        Read { resource: NODES, wakes: wakes_of_node },
        Read { resource: CONTROLLER_REVISIONS, wakes: wakes_of_revision },
    ],
    writes: &[Writes::Children(PODS), Writes::Children(CONTROLLER_REVISIONS), Writes::Status],
    plan,
};

/// The pause before a pod that has failed is replaced.
const FAILED_PAUSE: i64 = 5;

fn wakes(pod: &Value, objects: &dyn Objects) -> Vec<Key> {
    pods::wakes(pod, objects, DAEMON_SETS, "DaemonSet")
}

fn wakes_of_revision(revision: &Value, _objects: &dyn Objects) -> Vec<Key> {
    controller_key(revision, "DaemonSet").into_iter().collect()
}

fn wakes_of_node(_node: &Value, objects: &dyn Objects) -> Vec<Key> {
    objects.list(DAEMON_SETS, "").iter().map(|set| (set.namespace.clone(), set.name.clone())).collect()
}

/// Taints that pods of daemons live with: their nodes need them the more.
fn own_tolerations(host_network: bool) -> Vec<Value> {
    let mut all = vec![("not-ready", "NoExecute"), ("unreachable", "NoExecute")];
    all.extend(["disk-pressure", "memory-pressure", "pid-pressure", "unschedulable"].map(|key| (key, "NoSchedule")));
    if host_network {
        all.push(("network-unavailable", "NoSchedule"));
    }
    all.into_iter()
        .map(
            |(key, effect)| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect}),
        )
        .collect()
}

/// The spec of a pod for a node: pinned to it by name, so that the scheduler decides whether it may go there.
fn pod_spec(template: &Value, node: &str) -> Value {
    let mut spec = template["spec"].clone();
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for own in own_tolerations(spec["hostNetwork"] == true) {
        if !tolerations.contains(&own) {
            tolerations.push(own);
        }
    }
    spec["tolerations"] = tolerations.into();
    for field in ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"] {
        let path = match field {
            "affinity" => &mut spec["affinity"],
            "nodeAffinity" => &mut spec["affinity"]["nodeAffinity"],
            _ => &mut spec["affinity"]["nodeAffinity"][field],
        };
        if !path.is_object() {
            *path = json!({});
        }
    }
    spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] =
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    spec
}

/// The node that a pod is on, or is made for.
fn node_of(pod: &Value) -> Option<&str> {
    if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let terms =
        pod.pointer("/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms");
    let fields = terms?.as_array()?.iter().flat_map(|term| term["matchFields"].as_array().into_iter().flatten());
    fields.into_iter().find(|f| f["key"] == "metadata.name")?["values"][0].as_str()
}

/// Whether a node should get a pod, and whether one that is there may stay.
fn fits(template: &Value, node: &Value) -> (bool, bool) {
    let spec = &template["spec"];
    let name = meta::name(node);
    if spec["nodeName"].as_str().is_some_and(|wanted| !wanted.is_empty() && wanted != name) {
        return (false, false);
    }
    let labels = meta::labels(node);
    let selected = meta::strings(&spec["nodeSelector"]).iter().all(|(key, value)| labels.get(key) == Some(value));
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let wanted = required["nodeSelectorTerms"]
        .as_array()
        .is_none_or(|terms| terms.iter().any(|term| matches_term(term, name, |key| labels.get(key).copied())));
    if !selected || !wanted {
        return (false, false);
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    tolerations.extend(own_tolerations(spec["hostNetwork"] == true));
    let untolerated = |effect: &str| {
        let taints = node["spec"]["taints"].as_array().into_iter().flatten();
        taints
            .filter(|taint| taint["effect"] == effect)
            .any(|taint| !tolerations.iter().any(|t| taints::tolerates(t, taint)))
    };
    let stays = !untolerated("NoExecute");
    (stays && !untolerated("NoSchedule"), stays)
}

/// A set and its pods by node.
struct View<'a> {
    set: &'a Value,
    owner: Owner<'a>,
    now: Timestamp,
    /// Every node, whether it should have a pod, whether one may stay, and the pods that are there, oldest first.
    nodes: BTreeMap<String, (bool, bool, Vec<Object>)>,
    hash: String,
}

impl View<'_> {
    fn is_available(&self, pod: &Object) -> bool {
        is_active(&pod.object)
            && until_available(&pod.object, self.set["spec"]["minReadySeconds"].as_i64().unwrap_or(0), self.now)
                == Some(0)
    }

    fn is_new(&self, pod: &Object) -> bool {
        meta::labels(&pod.object).get(HASH_LABEL) == Some(&self.hash.as_str())
    }

    fn desired(&self) -> i64 {
        i64::try_from(self.nodes.values().filter(|(should, ..)| *should).count()).unwrap_or(i64::MAX)
    }

    /// How many nodes may be without their pod, and how many may have two, during an update.
    fn allowances(&self) -> (i64, i64) {
        let rolling = &self.set["spec"]["updateStrategy"]["rollingUpdate"];
        let desired = self.desired();
        (share(&rolling["maxUnavailable"], desired, true), share(&rolling["maxSurge"], desired, true))
    }

    fn rolls(&self) -> bool {
        self.set["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    }

    fn create(&self, node: &str) -> Action {
        let template = &self.set["spec"]["template"];
        let mut pod = self.owner.pod(template);
        pod["metadata"]["generateName"] = format!("{}-", meta::name(self.set)).into();
        if !pod["metadata"]["labels"].is_object() {
            pod["metadata"]["labels"] = json!({});
        }
        pod["metadata"]["labels"][HASH_LABEL] = self.hash.clone().into();
        pod["spec"] = pod_spec(template, node);
        self.owner.create(pod)
    }
}

fn plan(set: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let selector = LabelSelector::from_object(&set["spec"]["selector"])?;
    let owner = Owner { object: set, api_version: "apps/v1", kind: "DaemonSet", finalizer: "" };
    let (own, mut actions) = owner.claim(objects, &selector);
    if meta::deletion_timestamp(set).is_some() {
        return Ok(actions);
    }
    let revisions = Revisions::of(&owner, objects)?;
    actions.extend(revisions.actions.iter().cloned());
    let template = &set["spec"]["template"];
    let mut nodes: BTreeMap<String, (bool, bool, Vec<Object>)> = objects
        .list(NODES, "")
        .iter()
        .map(|node| {
            let (should, stays) = fits(template, &node.object);
            (node.name.clone(), (should, stays, Vec::new()))
        })
        .collect();
    for pod in own {
        let node = node_of(&pod.object).unwrap_or_default().to_owned();
        nodes.entry(node).or_insert((false, false, Vec::new())).2.push(pod);
    }
    for (.., pods) in nodes.values_mut() {
        pods.sort_by_key(|p| (p.object["metadata"]["creationTimestamp"].as_str().map(str::to_owned), p.name.clone()));
    }
    let view = View { set, owner, now, nodes, hash: revisions.hash.clone() };
    let mut work = keep(&view);
    if work.is_empty() && view.rolls() {
        work = roll(&view);
    }
    actions.extend(work);
    let live: Vec<&str> = view
        .nodes
        .values()
        .flat_map(|(.., pods)| pods)
        .filter_map(|p| meta::labels(&p.object).get(HASH_LABEL).copied())
        .collect();
    let limit = set["spec"]["revisionHistoryLimit"].as_u64().and_then(|l| usize::try_from(l).ok()).unwrap_or(10);
    actions.extend(revisions.forget_old(limit, &live));
    actions.extend(status(&view));
    Ok(actions)
}

/// Makes the pods that are missing and deletes those that should not be there.
fn keep(view: &View<'_>) -> Vec<Action> {
    let (_, surge) = view.allowances();
    let mut actions = Vec::new();
    for (node, (should, stays, pods)) in &view.nodes {
        if !stays {
            actions.extend(pods.iter().filter(|p| is_active(&p.object)).map(|pod| view.owner.delete(pod)));
            continue;
        }
        let mut waits = false;
        for pod in pods.iter().filter(|p| is_over(&p.object) && meta::deletion_timestamp(&p.object).is_none()) {
            let failed = pod.object["status"]["phase"] == "Failed";
            let left = ended(&pod.object, view.now).as_second() + FAILED_PAUSE - view.now.as_second();
            if left > 0 {
                waits = true;
                actions.push(Action::Again(Duration::from_secs(left.unsigned_abs())));
                continue;
            }
            let (reason, word) =
                if failed { ("FailedDaemonPod", "failed") } else { ("SucceededDaemonPod", "succeeded") };
            let full = format!("{}/{}", pod.namespace, pod.name);
            let message = format!("Found {word} daemon pod {full} on node {node}, will try to kill it");
            actions.push(Action::Event(Note::warning(view.set, reason, message)));
            actions.push(view.owner.delete(pod));
        }
        if pods.is_empty() && *should && !waits {
            actions.push(view.create(node));
        }
        // Of two of the same revision the older one stays; during an update that surges, one of each.
        let active: Vec<&Object> = pods.iter().filter(|p| is_active(&p.object)).collect();
        for new in [true, false] {
            let alike = active.iter().filter(|p| view.is_new(p) == new).skip(1);
            actions.extend(alike.map(|pod| view.owner.delete(pod)));
        }
        let old = active.iter().find(|p| !view.is_new(p));
        let new = active.iter().find(|p| view.is_new(p));
        if let (Some(old), Some(new)) = (old, new)
            && (surge == 0 || !view.rolls() || view.is_available(new))
        {
            actions.push(view.owner.delete(old));
        }
    }
    actions
}

fn ended(pod: &Value, now: Timestamp) -> Timestamp {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let last =
        statuses.filter_map(|s| object_model::time::parse(s["state"]["terminated"]["finishedAt"].as_str()?)).max();
    let made = pod["metadata"]["creationTimestamp"].as_str().and_then(object_model::time::parse);
    last.or(made).unwrap_or(now)
}

/// One step of a rolling update: replace, or make a second pod beside, as many as are allowed.
fn roll(view: &View<'_>) -> Vec<Action> {
    let (unavailable, surge) = view.allowances();
    let should = || view.nodes.iter().filter(|(_, (should, ..))| *should);
    let mut actions = Vec::new();
    if surge > 0 {
        let two = should().filter(|(_, (.., pods))| pods.iter().filter(|p| is_active(&p.object)).count() > 1).count();
        let mut left = surge - i64::try_from(two).unwrap_or(0);
        for (node, (.., pods)) in should() {
            let mut active = pods.iter().filter(|p| is_active(&p.object));
            let Some(old) = active.next().filter(|p| !view.is_new(p)) else { continue };
            if active.next().is_some() {
                continue;
            }
            // In place of one that does not serve anyway, another may always come.
            if left > 0 || !view.is_available(old) {
                actions.push(view.create(node));
                left -= 1;
            }
        }
        return actions;
    }
    let missing = should().filter(|(_, (.., pods))| !pods.iter().any(|p| view.is_available(p))).count();
    let mut left = unavailable - i64::try_from(missing).unwrap_or(0);
    for (_, (.., pods)) in should() {
        let Some(old) = pods.iter().find(|p| is_active(&p.object) && !view.is_new(p)) else { continue };
        if !view.is_available(old) {
            actions.push(view.owner.delete(old));
        } else if left > 0 {
            actions.push(view.owner.delete(old));
            left -= 1;
        }
    }
    actions
}

fn status(view: &View<'_>) -> Vec<Action> {
    let desired = view.desired();
    let nodes = |wanted: &dyn Fn(&(bool, bool, Vec<Object>)) -> bool| view.nodes.values().filter(|n| wanted(n)).count();
    let with = |what: &dyn Fn(&Object) -> bool| nodes(&|(should, _, pods)| *should && pods.iter().any(what));
    let ready = |pod: &Object| is_active(&pod.object) && pods::ready_since(&pod.object).is_some();
    let available = with(&|pod| view.is_available(pod));
    let status = json!({
        "desiredNumberScheduled": desired,
        "currentNumberScheduled": with(&|_| true),
        "numberMisscheduled": nodes(&|(should, _, pods)| !should && !pods.is_empty()),
        "numberReady": with(&ready),
        "numberAvailable": available,
        "numberUnavailable": desired - i64::try_from(available).unwrap_or(0),
        "updatedNumberScheduled": with(&|pod| is_active(&pod.object) && view.is_new(pod)),
        "observedGeneration": meta::generation(view.set),
    });
    let before = &view.set["status"];
    let same = status.as_object().into_iter().flatten().all(|(k, v)| before.get(k).unwrap_or(&json!(0)) == v);
    let mut actions = Vec::new();
    if !same {
        actions.push(Action::Patch {
            resource: DAEMON_SETS,
            namespace: meta::namespace(view.set).to_owned(),
            name: meta::name(view.set).to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        });
    }
    let min_ready = view.set["spec"]["minReadySeconds"].as_i64().unwrap_or(0);
    let pods = view.nodes.values().flat_map(|(.., pods)| pods);
    let soonest = pods.filter_map(|p| until_available(&p.object, min_ready, view.now)).filter(|s| *s > 0).min();
    actions.extend(soonest.map(|s| Action::Again(Duration::from_secs(s.unsigned_abs()))));
    actions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};
    use expect_test::{Expect, expect};

    fn set(image: &str, rolling: Value) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": "a", "uid": "d", "generation": 1},
            "spec": {"selector": {"matchLabels": {"app": "agent"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
                "template": {"metadata": {"labels": {"app": "agent"}}, "spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"image": image}]}}},
            "status": {},
        })
    }

    fn node(name: &str, disk: &str, taint: &str) -> Value {
        let taints = if taint.is_empty() { json!([]) } else { json!([{"key": "k", "effect": taint}]) };
        json!({"metadata": {"name": name, "labels": {"disk": disk}}, "spec": {"taints": taints}})
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Value {
        let conditions = if ready {
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"}])
        } else {
            json!([])
        };
        json!({"metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "agent", HASH_LABEL: hash},
            "ownerReferences": [{"kind": "DaemonSet", "name": "agent", "uid": "d", "controller": true}]},
            "spec": {"nodeName": node}, "status": {"phase": "Running", "conditions": conditions}})
    }

    fn check(set: &Value, objects: Fixed, expected: &Expect) {
        let shown: Vec<Action> = plan(set, &objects, now())
            .expect("a plan")
            .into_iter()
            .filter(|a| !matches!(a, Action::Create { resource, .. } if *resource == CONTROLLER_REVISIONS))
            .collect();
        expected.assert_eq(&brief(&shown));
    }

    #[test]
    fn each_node_that_fits_gets_one_and_no_other_keeps_one() {
        let objects = Fixed::default()
            .with(NODES, node("fits", "ssd", ""))
            .with(NODES, node("other-label", "hdd", ""))
            .with(NODES, node("tainted", "ssd", "NoSchedule"))
            .with(PODS, pod("misplaced", "other-label", "x", true))
            .with(PODS, pod("stays", "tainted", "x", true));
        check(
            &set("one", json!({"maxUnavailable": 1, "maxSurge": 0})),
            objects,
            &expect![[r#"
            create pods agent- replicas=null
            delete pods misplaced
            patch daemonsets agent status {"status":{"currentNumberScheduled":0,"desiredNumberScheduled":1,"numberAvailable":0,"numberMisscheduled":2,"numberReady":0,"numberUnavailable":1,"observedGeneration":1,"updatedNumberScheduled":0}}
        "#]],
        );
    }

    #[test]
    fn a_pod_is_pinned_to_its_node_by_name() {
        let spec = pod_spec(&json!({"spec": {"containers": []}}), "node-1");
        assert_eq!(node_of(&json!({"spec": spec})), Some("node-1"));
        assert_eq!(spec["tolerations"].as_array().map(Vec::len), Some(6));
    }

    #[test]
    fn an_update_replaces_as_many_at_a_time_as_may_be_missing() {
        let objects = || {
            ["a", "b", "c"].iter().fold(Fixed::default(), |all, name| {
                all.with(NODES, node(name, "ssd", "")).with(PODS, pod(&format!("old-{name}"), name, "x", *name != "c"))
            })
        };
        check(
            &set("two", json!({"maxUnavailable": 2, "maxSurge": 0})),
            objects(),
            &expect![[r#"
            delete pods old-a
            delete pods old-c
            patch daemonsets agent status {"status":{"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":2,"numberMisscheduled":0,"numberReady":2,"numberUnavailable":1,"observedGeneration":1,"updatedNumberScheduled":0}}
        "#]],
        );
        check(
            &set("two", json!({"maxUnavailable": 0, "maxSurge": 1})),
            objects(),
            &expect![[r#"
            create pods agent- replicas=null
            create pods agent- replicas=null
            patch daemonsets agent status {"status":{"currentNumberScheduled":3,"desiredNumberScheduled":3,"numberAvailable":2,"numberMisscheduled":0,"numberReady":2,"numberUnavailable":1,"observedGeneration":1,"updatedNumberScheduled":0}}
        "#]],
        );
    }
}
