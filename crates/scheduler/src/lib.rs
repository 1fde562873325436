//! The scheduler: queue → snapshot → plugins → bind.
//!
//! [`place`] is a pure function of a pod and a [`Snapshot`]. What it asks is the table [`PLUGINS`]; the order of the rows is
//! the order of execution. To add a plugin: a file with a `PLUGIN` row, and two lines in `plugins.rs`.

mod plugins;
mod runner;
mod snapshot;
mod volumes;

pub use plugins::{PLUGINS, Plugin, RetryOn};
pub use runner::Scheduler;
pub use snapshot::{Amounts, NodeInfo, PodInfo, Snapshot};
pub use volumes::{Volumes, Waiting};

use std::collections::BTreeMap;

/// Why no node fits: how many nodes each plugin refused, by its reason.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NoFit {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many nodes each reason holds for.
    pub reasons: BTreeMap<String, usize>,
    /// Why the pod can go to no node at all, whatever the nodes are like.
    pub everywhere: Option<String>,
    /// The plugins that refused: only what changes for one of them can help.
    pub plugins: Vec<&'static str>,
}

impl std::fmt::Display for NoFit {
    /// The sentence of upstream's event: `0/1 nodes are available: 1 Insufficient cpu.`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        if let Some(reason) = &self.everywhere {
            return write!(f, "0/{} nodes are available: {reason}.", self.nodes);
        }
        let mut reasons: Vec<String> = self.reasons.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        reasons.sort_unstable();
        write!(f, "0/{} nodes are available: {}.", self.nodes, reasons.join(", "))
    }
}

/// The node for a pod: of those that no plugin refuses the one with the highest score, of equal ones the emptiest.
///
/// # Errors
/// [`NoFit`] when every node is refused.
pub fn place(pod: &PodInfo, snapshot: &Snapshot) -> Result<String, NoFit> {
    let mut no_fit = NoFit { nodes: snapshot.nodes.len(), ..NoFit::default() };
    if let Some(reason) = &pod.volumes.blocked {
        return Err(NoFit { everywhere: Some(reason.clone()), plugins: vec!["VolumeBinding"], ..no_fit });
    }
    let mut best: Option<(i64, std::cmp::Reverse<i64>, &str)> = None;
    for node in snapshot.nodes.values() {
        let refusal = PLUGINS.iter().find_map(|p| {
            let filter = p.filter?;
            filter(pod, node).err().map(|reasons| (p.name, reasons))
        });
        if let Some((plugin, reasons)) = refusal {
            for reason in reasons {
                *no_fit.reasons.entry(reason).or_insert(0) += 1;
            }
            if !no_fit.plugins.contains(&plugin) {
                no_fit.plugins.push(plugin);
            }
            continue;
        }
        let score: i64 = PLUGINS.iter().filter_map(|p| p.score.map(|s| s(pod, node) * p.weight)).sum();
        let candidate = (score, std::cmp::Reverse(node.requested.pods), node.name.as_str());
        if best.is_none_or(|b| (candidate.0, candidate.1) > (b.0, b.1)) {
            best = Some(candidate);
        }
    }
    best.map(|(_, _, name)| name.to_owned()).ok_or(no_fit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, cpu: &str, extra: Value) -> Value {
        let mut node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {},
            "status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "2"}},
        });
        if let Some(map) = extra.as_object() {
            for (key, value) in map {
                node["spec"][key] = value.clone();
            }
        }
        node
    }

    fn pod(cpu: &str, extra: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "a", "uid": "u"},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        });
        if let Some(map) = extra.as_object() {
            for (key, value) in map {
                pod["spec"][key] = value.clone();
            }
        }
        pod
    }

    fn check(pod: &Value, nodes: &[Value], expected: Result<&str, &str>) {
        let mut snapshot = Snapshot::default();
        nodes.iter().for_each(|n| snapshot.set_node(n));
        let placed = place(&PodInfo::of(pod), &snapshot).map_err(|e| e.to_string());
        assert_eq!(placed.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_pod_goes_where_it_fits_best() {
        check(&pod("500m", json!({})), &[node("a", "1", json!({})), node("b", "4", json!({}))], Ok("b"));
        check(&pod("2", json!({})), &[node("a", "1", json!({}))], Err("0/1 nodes are available: 1 Insufficient cpu."));
        check(&pod("1", json!({})), &[], Err("no nodes available to schedule pods"));
    }

    #[test]
    fn cordoned_and_tainted_nodes_take_only_what_tolerates_them() {
        let cordoned = node("a", "4", json!({"unschedulable": true}));
        check(&pod("1", json!({})), &[cordoned], Err("0/1 nodes are available: 1 node(s) were unschedulable."));
        let tainted = node("a", "4", json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}));
        check(
            &pod("1", json!({})),
            std::slice::from_ref(&tainted),
            Err("0/1 nodes are available: 1 node(s) had untolerated taint(s) {k: v}."),
        );
        check(&pod("1", json!({"tolerations": [{"key": "k", "operator": "Exists"}]})), &[tainted], Ok("a"));
    }

    #[test]
    fn selectors_and_affinity_name_the_nodes() {
        let nodes = [node("a", "4", json!({})), node("b", "4", json!({}))];
        check(&pod("1", json!({"nodeSelector": {"kubernetes.io/hostname": "b"}})), &nodes, Ok("b"));
        let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["a", "b"]}]}]}}}});
        check(
            &pod("1", affinity),
            &nodes,
            Err("0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."),
        );
    }

    #[test]
    fn a_pod_goes_where_its_volumes_are() {
        let mut snapshot = Snapshot::default();
        ["a", "b"].iter().for_each(|name| snapshot.set_node(&node(name, "4", json!({}))));
        let placed = |volumes: Volumes| {
            let mut wanted = PodInfo::of(&pod("1", json!({})));
            wanted.volumes = volumes;
            place(&wanted, &snapshot).map_err(|e| e.to_string())
        };
        let on = |name: &str| {
            json!({"metadata": {"name": name}, "status": {"phase": "Available"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}]}]}}}})
        };
        let missing = Volumes { blocked: Some("persistentvolumeclaim \"x\" not found".into()), ..Volumes::default() };
        assert_eq!(placed(missing), Err("0/2 nodes are available: persistentvolumeclaim \"x\" not found.".into()));
        assert_eq!(placed(Volumes { bound: vec![on("b")], ..Volumes::default() }), Ok("b".into()));
        let lost = "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.";
        assert_eq!(placed(Volumes { bound: vec![on("c")], ..Volumes::default() }), Err(lost.into()));
        let waiting = |candidates: Vec<Value>, provisioned: bool| {
            let waiting = vec![Waiting { claim: json!({}), candidates, provisioned }];
            Volumes { waiting, ..Volumes::default() }
        };
        assert_eq!(placed(waiting(vec![on("a")], false)), Ok("a".into()));
        assert!(placed(waiting(vec![], true)).is_ok());
        let none = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.";
        assert_eq!(placed(waiting(vec![], false)), Err(none.into()));
    }

    #[test]
    fn what_runs_on_a_node_counts() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(&node("a", "1", json!({})));
        let mut running = pod("800m", json!({"nodeName": "a"}));
        running["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        snapshot.set_pod(&running);
        let mut wanted = pod("100m", json!({}));
        wanted["metadata"]["uid"] = "v".into();
        assert_eq!(place(&PodInfo::of(&wanted), &snapshot).as_deref(), Ok("a"));
        wanted["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080, "hostPort": 80}]);
        assert_eq!(
            place(&PodInfo::of(&wanted), &snapshot).unwrap_err().to_string(),
            "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
        );
        snapshot.forget_pod("u");
        assert_eq!(place(&PodInfo::of(&wanted), &snapshot).as_deref(), Ok("a"));
        // A pod may ask for more than its containers do.
        wanted["spec"]["resources"] = json!({"requests": {"cpu": "1100m"}});
        assert!(place(&PodInfo::of(&wanted), &snapshot).unwrap_err().to_string().contains("Insufficient cpu"));
    }
}
