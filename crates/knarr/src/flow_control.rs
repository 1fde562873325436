//! The priority levels and flow schemas that every cluster has: those it cannot be without, and those that it starts with.

use serde_json::{Value, json};

/// Whoever removes this annotation, or sets it to false, keeps what he has changed.
pub const KEPT: &str = "apf.kubernetes.io/autoupdate-spec";

/// A level: its name, its share, the part of it that others may use, and its queues, their hand size and their length.
type Level = (&'static str, u32, u32, Option<(u32, u32, u32)>);

const LEVELS: [Level; 7] = [
    ("catch-all", 5, 0, None),
    ("global-default", 20, 50, Some((128, 6, 50))),
    ("leader-election", 10, 0, Some((16, 4, 50))),
    ("node-high", 40, 25, Some((64, 6, 50))),
    ("system", 30, 33, Some((64, 6, 50))),
    ("workload-high", 40, 50, Some((128, 6, 50))),
    ("workload-low", 100, 90, Some((128, 6, 50))),
];

/// The priority levels.
pub fn levels() -> Vec<Value> {
    let limited = LEVELS.into_iter().map(|(name, shares, lendable, queues)| {
        let response = match queues {
            None => json!({"type": "Reject"}),
            Some((queues, hand, length)) => json!({
                "type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
            }),
        };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
    });
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    limited.chain([object("PriorityLevelConfiguration", "exempt", exempt)]).collect()
}

/// The flow schemas.
pub fn schemas() -> Vec<Value> {
    let everybody = [group("system:unauthenticated"), group("system:authenticated")];
    let nodes = [group("system:nodes")];
    let manager = [user("system:kube-controller-manager")];
    let scheduler = [user("system:kube-scheduler")];
    let leaders = [manager[0].clone(), scheduler[0].clone()];
    let of_endpoints = [manager[0].clone(), account("endpoint-controller"), account("endpointslice-controller")];
    let lease = ["get", "create", "update"];
    let leases = resources(&lease, "coordination.k8s.io", &["leases"], false);
    let old_locks = resources(&lease, "", &["endpoints", "configmaps"], false);
    let probes = json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]);
    let heartbeats = [
        resources(&["*"], "", &["nodes", "nodes/status"], true),
        resources(&["*"], "coordination.k8s.io", &["leases"], false),
    ];
    let slices = [
        resources(&lease, "", &["endpoints"], false),
        resources(&lease, "discovery.k8s.io", &["endpointslices"], false),
    ];
    vec![
        schema("exempt", "exempt", 1, None, everything(&[group("system:masters")])),
        schema("probes", "exempt", 2, None, json!({"subjects": everybody, "nonResourceRules": probes})),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            BY_USER,
            only(&leaders, &[old_locks.clone(), leases.clone()]),
        ),
        schema("endpoint-controller", "workload-high", 150, BY_USER, only(&of_endpoints, &slices)),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            BY_USER,
            only(&[account("*")], &[old_locks, leases]),
        ),
        schema("system-node-high", "node-high", 400, BY_USER, only(&nodes, &heartbeats)),
        schema("system-nodes", "system", 500, BY_USER, everything(&nodes)),
        schema("kube-controller-manager", "workload-high", 800, BY_NAMESPACE, everything(&manager)),
        schema("kube-scheduler", "workload-high", 800, BY_NAMESPACE, everything(&scheduler)),
        schema("kube-system-service-accounts", "workload-high", 900, BY_NAMESPACE, everything(&[account("*")])),
        schema("service-accounts", "workload-low", 9000, BY_USER, everything(&[group("system:serviceaccounts")])),
        schema("global-default", "global-default", 9900, BY_USER, everything(&everybody)),
        schema("catch-all", "catch-all", 10_000, BY_USER, everything(&everybody)),
    ]
}

const BY_USER: Option<&str> = Some("ByUser");
const BY_NAMESPACE: Option<&str> = Some("ByNamespace");

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {KEPT: "true"}}, "spec": spec,
    })
}

fn schema(name: &str, level: &str, precedence: u32, distinguisher: Option<&str>, rule: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
    });
    if let Some(kind) = distinguisher {
        spec["distinguisherMethod"] = json!({"type": kind});
    }
    object("FlowSchema", name, spec)
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}

fn resources(verbs: &[&str], api_group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [api_group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn only(subjects: &[Value], rules: &[Value]) -> Value {
    json!({"subjects": subjects, "resourceRules": rules})
}

fn everything(subjects: &[Value]) -> Value {
    json!({
        "subjects": subjects, "resourceRules": [resources(&["*"], "*", &["*"], true)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_valid_and_every_schema_has_its_level() {
        let names: Vec<Value> = levels().iter().map(|level| level["metadata"]["name"].clone()).collect();
        for (plural, objects) in [("prioritylevelconfigurations", levels()), ("flowschemas", schemas())] {
            let row = kinds::resource("flowcontrol.apiserver.k8s.io", "v1", plural).expect("in the table");
            for mut object in objects {
                row.default(&mut object);
                assert_eq!(row.validate(&object), vec![], "{}", object["metadata"]["name"]);
                if plural == "flowschemas" {
                    assert!(names.contains(&object["spec"]["priorityLevelConfiguration"]["name"]));
                }
            }
        }
    }
}
