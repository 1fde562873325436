//! The priority levels and flow schemas that every cluster has: those it cannot be without, and those that it starts with.

use anyhow::{Context, Result};
use client::{Api, Patch, clock};
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::first_objects::all;

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

/// Says in the status of every flow schema whether its level is there.
///
/// # Errors
/// When one cannot be read or written.
pub async fn mark_dangling(levels: &Api, schemas: &Api) -> Result<()> {
    let levels = all(levels).await?;
    for schema in all(schemas).await? {
        let name = meta::name(&schema);
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        let missing = levels.iter().all(|other| meta::name(other) != level);
        if let Some(conditions) = with_dangling(&schema["status"]["conditions"], level, missing) {
            let patch = json!({"status": {"conditions": conditions}});
            schemas.patch(None, name, "status", Patch::Merge, &patch).await.with_context(|| format!("write {name}"))?;
        }
    }
    Ok(())
}

/// The conditions of a flow schema with the one that says whether its level is missing; `None` if they say so already.
fn with_dangling(conditions: &Value, level: &str, missing: bool) -> Option<Vec<Value>> {
    const KIND: &str = "Dangling";
    let (status, reason) = if missing { ("True", "NotFound") } else { ("False", "Found") };
    let mut all = conditions.as_array().cloned().unwrap_or_default();
    if all.iter().any(|condition| condition["type"] == KIND && condition["status"] == status) {
        return None;
    }
    let what = if missing { "but there is no such object" } else { "and it exists" };
    all.retain(|condition| condition["type"] != KIND);
    all.push(json!({
        "type": KIND, "status": status, "reason": reason, "lastTransitionTime": time::seconds(clock::now()),
        "message": format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {what}"),
    }));
    Some(all)
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
    fn a_schema_says_whether_its_level_is_missing_and_says_it_once() {
        let first = with_dangling(&Value::Null, "low", false).expect("something to say");
        assert_eq!((&first[0]["type"], &first[0]["status"]), (&json!("Dangling"), &json!("False")));
        assert_eq!(with_dangling(&json!(first), "low", false), None);
        assert_eq!(with_dangling(&json!(first), "low", true).expect("news")[0]["status"], "True");
    }

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
