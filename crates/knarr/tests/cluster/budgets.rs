//! Disruption budgets: a drain takes no more pods away than may be missing.

use crate::node::{Node, eventually};

const SET: &str = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web}, spec: {replicas: 2, podManagementPolicy: Parallel, \
    selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, \
    containers: [{name: main, image: busybox, command: [sleep, '1000']}]}}}}";

fn budget(spec: &str) -> String {
    format!(
        "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: web}}, spec: {{{spec}, selector: {{matchLabels: {{app: web}}}}}}}}"
    )
}

#[test]
fn a_drain_leaves_as_many_pods_as_the_budget_wants() {
    let node = Node::ready();
    node.apply(SET);
    node.ok("rollout status statefulset web --timeout=60s");
    node.apply(&budget("minAvailable: 2"));
    eventually("the budget knows its pods", || {
        (node.ok("get pdb web -o jsonpath={.status.currentHealthy}/{.status.desiredHealthy}") == "2/2").then_some(())
    });
    let said = node.try_kubectl("drain node-1 --timeout=2s");
    assert_eq!(said.code(), 1, "{said:?}");
    assert!(said.err.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{said:?}");
    assert_eq!(node.list("pods").len(), 2, "none was taken");

    node.ok("delete pdb web");
    node.apply(&budget("maxUnavailable: 1"));
    eventually("one may go", || (node.ok("get pdb web -o jsonpath={.status.disruptionsAllowed}") == "1").then_some(()));
    // The node is cordoned: the pod that goes has nowhere to come back to, so the other one must stay.
    let said = node.try_kubectl("drain node-1 --timeout=4s");
    assert!(said.out.contains("evicting pod default/web-") && said.err.contains("disruption budget"), "{said:?}");
    let nodes = node.ok("get pods -o jsonpath={.items[*].spec.nodeName}");
    assert_eq!(nodes, "node-1", "one runs, the other waits");
    let table = node.ok("get pdb web");
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..4], ["web", "N/A", "1", "0"], "{table}");
    node.ok("delete pdb web");
    node.ok("drain node-1 --timeout=30s");

    for (spec, words) in [
        ("minAvailable: 1, maxUnavailable: 1", "minAvailable and maxUnavailable cannot be both set"),
        ("minAvailable: '150%'", "spec.minAvailable: Invalid value: \"150%\": must not be greater than 100%"),
        ("minAvailable: -1", "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
    ] {
        let said = node.with_input("apply -f -", &budget(spec));
        assert!(said.code() == 1 && said.err.contains(words), "{said:?}");
    }
}
