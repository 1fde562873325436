//! What `kubectl get` shows.

use kinds::{Now, resource};
use serde_json::{Value, json};

fn now() -> Now {
    Now("2024-05-01T10:05:00Z".parse().expect("a timestamp"))
}

fn row(group: &str, plural: &str, object: &Value) -> String {
    let cells = resource(group, "v1", plural).expect("in the table").hooks.cells(object, now());
    let texts = cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned));
    texts.collect::<Vec<_>>().join(" | ")
}

/// READY, STATUS and RESTARTS of a pod with two containers and two init containers.
fn pod(status: Value, deleted: bool) -> String {
    let mut pod = json!({
        "metadata": {"name": "web", "creationTimestamp": "2024-05-01T10:00:00Z"},
        "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
        "status": status,
    });
    if deleted {
        pod["metadata"]["deletionTimestamp"] = "2024-05-01T10:04:00Z".into();
    }
    row("", "pods", &pod).split(" | ").skip(1).take(3).collect::<Vec<_>>().join(" | ")
}

#[test]
fn a_pods_status_is_told_in_a_word() {
    let running = json!({"running": {"startedAt": "2024-05-01T10:00:00Z"}});
    let crashed = json!({"name": "a", "restartCount": 1, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2024-05-01T10:02:00Z"}}});
    let done = json!({"name": "b", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    let up = json!({"name": "a", "ready": true, "state": running});
    for (status, deleted, expected) in [
        (json!({"phase": "Pending"}), false, "0/2 | Pending | 0"),
        (json!({"phase": "Pending"}), true, "0/2 | Terminating | 0"),
        (json!({"phase": "Succeeded"}), true, "0/2 | Succeeded | 0"),
        (json!({"phase": "Running", "containerStatuses": [up, up]}), false, "2/2 | Running | 0"),
        (json!({"phase": "Running", "containerStatuses": [crashed, up]}), false, "1/2 | CrashLoopBackOff | 1 (3m ago)"),
        (json!({"phase": "Running", "containerStatuses": [up, done]}), false, "1/2 | NotReady | 0"),
        (
            json!({"phase": "Running", "containerStatuses": [up, done], "conditions": [{"type": "Ready", "status": "True"}]}),
            false,
            "1/2 | Running | 0",
        ),
        (json!({"phase": "Succeeded", "containerStatuses": [done, done]}), false, "0/2 | Completed | 0"),
        (json!({"phase": "Failed", "reason": "Evicted"}), false, "0/2 | Evicted | 0"),
        (
            json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            false,
            "0/2 | ExitCode:3 | 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": running}]}),
            false,
            "0/2 | Init:0/2 | 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            false,
            "0/2 | Init:1/2 | 0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            false,
            "0/2 | Init:Error | 2",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}),
            false,
            "0/2 | Init:ImagePullBackOff | 0",
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            false,
            "0/2 | SchedulingGated | 0",
        ),
    ] {
        assert_eq!(pod(status.clone(), deleted), expected, "{status}");
    }
}

#[test]
fn a_sidecar_counts_as_a_container() {
    let pod = json!({
        "metadata": {"name": "web", "creationTimestamp": "2024-05-01T10:00:00Z"},
        "spec": {"nodeName": "n", "containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}}],
            "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]},
    });
    assert_eq!(row("", "pods", &pod), "web | 2/2 | Running | 1 | 5m | 10.0.0.1 | n | <none> | <none>");
}

#[test]
fn the_other_kinds() {
    let meta = json!({"name": "x", "creationTimestamp": "2024-05-01T10:00:00Z", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}});
    let template = json!({"spec": {"containers": [{"name": "a", "image": "i:1"}, {"name": "b", "image": "j"}]}});
    let selector = json!({"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["y", "x"]}, {"key": "d", "operator": "DoesNotExist"}]});
    let deployment = json!({"metadata": meta, "spec": {"replicas": 3, "template": template, "selector": selector},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1}});
    assert_eq!(row("apps", "deployments", &deployment), "x | 2/3 | 3 | 1 | 5m | a,b | i:1,j | a=1,b=2,c in (x,y),!d");
    let set = json!({"metadata": meta, "spec": {"replicas": 3, "template": template}, "status": {"replicas": 2, "readyReplicas": 1}});
    assert_eq!(row("apps", "replicasets", &set), "x | 3 | 2 | 1 | 5m | a,b | i:1,j | <none>");
    let node = json!({"metadata": meta, "spec": {"unschedulable": true}, "status": {
        "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.2"}],
        "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "knarr://1"}}});
    assert_eq!(
        row("", "nodes", &node),
        "x | Ready,SchedulingDisabled | control-plane,edge | 5m | v1.37.0 | 10.0.0.2 | <none> | Debian | 6.1 | knarr://1"
    );
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"},
        "type": "Normal", "reason": "Pulled", "message": "Pulled image\n", "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2024-05-01T10:00:00Z", "lastTimestamp": "2024-05-01T10:04:00Z", "count": 3});
    let shown = "60s | Normal | Pulled | pod/web | spec.containers{a} | kubelet, n | Pulled image | 5m | 3 | e";
    assert_eq!(row("", "events", &event), shown);
    let served = resource("events.k8s.io", "v1", "events").expect("in the table").hooks.served(event);
    assert_eq!(row("events.k8s.io", "events", &served), shown);
}

#[test]
fn pods_end_in_their_own_time() {
    let grace = |pod: Value, asked| resource("", "v1", "pods").expect("in the table").hooks.grace_period(&pod, asked);
    let placed = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 45}});
    assert_eq!(grace(placed.clone(), None), 45);
    assert_eq!(grace(placed.clone(), Some(5)), 5);
    assert_eq!(grace(placed, Some(0)), 0);
    assert_eq!(grace(json!({"spec": {}}), None), 0);
    assert_eq!(grace(json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}}), None), 0);
}
