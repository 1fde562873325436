//! Nodes: what they can hold, cordon and drain, taints, and one that is kept for management.

use crate::node::{Node, eventually};

const SLEEPER: &str =
    "containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '100000']}]";

fn pod(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {spec} {SLEEPER}}}}}"
    )
}

fn reason(node: &Node, pod: &str) -> String {
    node.ok(&format!("get events --field-selector reason=FailedScheduling,involvedObject.name={pod} -o jsonpath={{.items[*].message}}"))
}

#[test]
fn a_node_tells_what_it_has_and_is_cordoned_and_drained() {
    let node = Node::ready();
    let shown = node.get("node/node-1");
    for what in ["capacity", "allocatable"] {
        for resource in ["cpu", "memory", "pods", "ephemeral-storage"] {
            assert!(shown["status"][what][resource].is_string(), "{what} {resource}");
        }
    }
    assert_eq!(node.ok("get node node-1 --no-headers").split_whitespace().nth(2), Some("control-plane"));
    assert!(node.get("lease/node-1 -n kube-node-lease")["spec"]["renewTime"].is_string());
    node.apply(&pod("bare", ""));
    node.apply(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 2, selector: {matchLabels: {a: d}}, template: \
         {metadata: {labels: {a: d}}, spec: {containers: [{name: c, image: busybox, imagePullPolicy: IfNotPresent, command: [sleep, '100000']}], \
         terminationGracePeriodSeconds: 0}}}}",
    );
    node.ok("wait --for=condition=Ready pod/bare --timeout=60s");
    node.ok("rollout status deployment/d --timeout=60s");
    let refused = node.try_kubectl("drain node-1 --timeout=30s");
    assert!(
        refused.err.contains("cannot delete Pods that declare no controller")
            || refused.err.contains("declare no controller"),
        "{}",
        refused.err
    );
    node.ok("drain node-1 --force --timeout=30s");
    assert!(node.ok("get node node-1").contains("Ready,SchedulingDisabled"));
    eventually("the taint of a cordoned node", || {
        node.ok("describe node node-1").contains("node.kubernetes.io/unschedulable:NoSchedule").then_some(())
    });
    node.apply(&pod("waits", ""));
    eventually("a pod says why it waits", || {
        reason(&node, "waits").contains("0/1 nodes are available: 1 node(s) were unschedulable").then_some(())
    });
    node.ok("uncordon node-1");
    node.ok("wait --for=condition=Ready pod/waits --timeout=60s");
    node.ok("rollout status deployment/d --timeout=60s");
    let events = node.ok("get events");
    assert!(!events.contains("FailedMount"), "a pod that goes at once leaves no complaint: {events}");
}

#[test]
fn taints_keep_pods_off_and_send_them_away_unless_they_are_tolerated() {
    let node = Node::ready();
    node.apply(&pod("goes", ""));
    node.apply(&pod("stays", "tolerations: [{key: work, operator: Exists}],"));
    node.apply(&pod(
        "lingers",
        "tolerations: [{key: work, operator: Exists, effect: NoExecute, tolerationSeconds: 2}],",
    ));
    node.ok("wait --for=condition=Ready pod --all --timeout=60s");
    node.ok("taint node node-1 work=no:NoExecute");
    eventually("the pod without patience has gone", || {
        node.try_kubectl("get pod goes").err.contains("not found").then_some(())
    });
    assert_eq!(node.try_kubectl("get pod lingers").code(), 0);
    eventually("patience has ended", || node.try_kubectl("get pod lingers").err.contains("not found").then_some(()));
    assert!(node.ok("get events").contains("Marking for deletion Pod default/goes"));
    assert_eq!(node.ok("get pod stays -o jsonpath={.status.phase}"), "Running");
    node.apply(&pod("kept-out", ""));
    eventually("a pod names the taint", || {
        reason(&node, "kept-out").contains("had untolerated taint(s)").then_some(())
    });
    node.ok("taint node node-1 work-");
    node.ok("wait --for=condition=Ready pod/kept-out --timeout=60s");
    // A node that somebody deletes comes back, with its pods.
    let before = node.get("node/node-1")["metadata"]["uid"].clone();
    node.ok("delete node node-1");
    eventually("the node has registered again", || {
        let said = node.try_kubectl("get node node-1 -o jsonpath={.metadata.uid}");
        (said.status.success() && before != said.out.as_str()).then_some(())
    });
    assert_eq!(node.ok("get pod stays -o jsonpath={.status.phase}"), "Running");
    // Mistakes.
    assert!(node.try_kubectl("taint node node-1 work=no:Never").err.contains("invalid taint effect: Never"));
    assert!(node.try_kubectl("taint node x work=no:NoExecute").err.contains("nodes \"x\" not found"));
    assert!(node.try_kubectl("drain node-1 --grace-period=-5 --pod-selector=a=,").code() != 0);
}

#[test]
fn a_node_kept_for_management_takes_no_application_pods() {
    let mut node = Node::empty();
    node.options = ["--node-taint", "node-role.kubernetes.io/control-plane:NoSchedule", "--node-label", "room=north"]
        .map(str::to_owned)
        .to_vec();
    node.start();
    node.apply(&pod("app", ""));
    let own = "tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}],";
    node.apply(&pod("manager", &format!("nodeSelector: {{room: north}}, {own}")));
    eventually("an application waits", || {
        reason(&node, "app").contains("node-role.kubernetes.io/control-plane").then_some(())
    });
    eventually("what manages is placed", || {
        (node.ok("get pod manager -o jsonpath={.spec.nodeName}") == "node-1").then_some(())
    });
    assert_eq!(node.ok("get pod app -o jsonpath={.spec.nodeName}"), "");
}
