//! Tests of the plan of Jobs.

use super::*;
use crate::testing::{Fixed, brief, now};
use expect_test::{Expect, expect};

fn job(spec: Value, status: Value) -> Value {
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pi", "namespace": "a", "uid": "j"},
        "spec": {"completions": 2, "parallelism": 1, "backoffLimit": 6, "selector": {"matchLabels": {"c": "j"}},
            "template": {"metadata": {"labels": {"c": "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}}},
        "status": {"startTime": "2026-01-01T00:00:00Z"},
    });
    for (field, extra) in [("spec", spec), ("status", status)] {
        for (key, value) in extra.as_object().into_iter().flatten() {
            job[field][key] = value.clone();
        }
    }
    job
}

/// A pod whose container ended `ago` seconds before now.
fn pod(name: &str, phase: &str, ago: i64, tracked: bool) -> Value {
    let end = time::seconds(Timestamp::from_second(now().as_second() - ago).expect("a time"));
    let ended = matches!(phase, "Succeeded" | "Failed");
    json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"c": "j"},
            "finalizers": if tracked { json!([TRACKING]) } else { json!([]) },
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": "j", "controller": true}]},
        "status": {"phase": phase, "containerStatuses": if ended {
            json!([{"name": "c", "state": {"terminated": {"exitCode": i32::from(phase == "Failed"), "finishedAt": end}}}])
        } else { json!([]) }},
    })
}

fn with_index(mut pod: Value, index: i64) -> Value {
    pod["metadata"]["annotations"] = json!({INDEX: index.to_string()});
    pod
}

fn check(job: &Value, pods: &[Value], expected: &Expect) {
    let objects = pods.iter().fold(Fixed::default(), |all, pod| all.with(PODS, pod.clone()));
    expected.assert_eq(&brief(&plan(job, &objects, now()).expect("a plan")));
}

#[test]
fn a_new_job_gets_as_many_pods_as_may_run_at_once() {
    check(
        &job(json!({"completions": 5, "parallelism": 2}), json!({"startTime": null})),
        &[],
        &expect![[r#"
        patch jobs pi status {"status":{"active":2,"completedIndexes":null,"conditions":[],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":0,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
        create pods pi- replicas=null
        create pods pi- replicas=null
    "#]],
    );
}

#[test]
fn the_end_of_a_pod_is_noted_before_its_finalizer_goes_and_counted_after() {
    check(
        &job(json!({}), json!({"active": 1})),
        &[pod("p", "Succeeded", 1, true)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":1,"completedIndexes":null,"conditions":[],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":0,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":["p"]}}}
        patch pods p  {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"p"}}
        create pods pi- replicas=null
    "#]],
    );
    let noted = json!({"active": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}});
    check(
        &job(json!({}), noted),
        &[pod("p", "Succeeded", 1, false), pod("q", "Running", 0, true)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":1,"completedIndexes":null,"conditions":[],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":1,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
    "#]],
    );
}

#[test]
fn the_last_success_completes_the_job() {
    let noted = json!({"active": 1, "succeeded": 1, "uncountedTerminatedPods": {"succeeded": ["p"]}});
    check(
        &job(json!({}), noted),
        &[pod("p", "Succeeded", 1, false)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":0,"completedIndexes":null,"completionTime":"2026-01-01T00:00:00Z","conditions":[{"lastProbeTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"SuccessCriteriaMet"},{"lastProbeTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","message":"Reached expected number of succeeded pods","reason":"CompletionsReached","status":"True","type":"Complete"}],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":2,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
        event Completed Job completed
    "#]],
    );
}

#[test]
fn after_a_failure_the_next_pod_waits_longer_each_time() {
    check(
        &job(json!({}), json!({"failed": 1})),
        &[pod("p", "Failed", 4, false)],
        &expect![[r#"
        again in 6s
    "#]],
    );
    check(
        &job(json!({}), json!({"failed": 2})),
        &[pod("p", "Failed", 30, false), pod("q", "Failed", 5, false)],
        &expect![[r#"
            again in 15s
        "#]],
    );
}

#[test]
fn too_many_failures_fail_the_job_and_end_what_runs() {
    let tight = json!({"backoffLimit": 0, "parallelism": 2});
    check(
        &job(tight.clone(), json!({})),
        &[pod("p", "Failed", 1, true), pod("q", "Running", 0, true)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":0,"completedIndexes":null,"conditions":[{"lastProbeTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","message":"Job has reached the specified backoff limit","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"}],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":0,"terminating":1,"uncountedTerminatedPods":{"failed":["p"],"succeeded":null}}}
        patch pods p  {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"p"}}
        delete pods q
    "#]],
    );
    let failing = json!({"failed": 2, "conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]});
    check(
        &job(tight, failing),
        &[pod("p", "Failed", 1, false)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":0,"completedIndexes":null,"conditions":[{"message":"m","reason":"BackoffLimitExceeded","status":"True","type":"FailureTarget"},{"lastProbeTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","message":"m","reason":"BackoffLimitExceeded","status":"True","type":"Failed"}],"failed":2,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":0,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
        event BackoffLimitExceeded m
    "#]],
    );
}

#[test]
fn a_job_that_takes_too_long_fails() {
    let late = json!({"startTime": "2025-12-31T23:59:00Z", "active": 1});
    check(
        &job(json!({"activeDeadlineSeconds": 60}), late),
        &[pod("p", "Running", 0, true)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":0,"completedIndexes":null,"conditions":[{"lastProbeTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","message":"Job was active longer than specified deadline","reason":"DeadlineExceeded","status":"True","type":"FailureTarget"}],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2025-12-31T23:59:00Z","succeeded":0,"terminating":1,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
        delete pods p
    "#]],
    );
}

#[test]
fn a_suspended_job_ends_its_pods_without_counting_them() {
    check(
        &job(json!({"suspend": true}), json!({"active": 1})),
        &[pod("p", "Running", 0, true)],
        &expect![[r#"
        patch jobs pi status {"status":{"active":0,"completedIndexes":null,"conditions":[{"lastProbeTime":"2026-01-01T00:00:00Z","lastTransitionTime":"2026-01-01T00:00:00Z","message":"Job suspended","reason":"JobSuspended","status":"True","type":"Suspended"}],"failed":0,"failedIndexes":null,"ready":0,"startTime":null,"succeeded":0,"terminating":1,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
        patch pods p  {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"p"}}
        delete pods p
        event Suspended Job suspended
    "#]],
    );
}

#[test]
fn an_indexed_job_makes_the_indexes_that_are_missing() {
    let spec = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2});
    check(
        &job(spec, json!({"completedIndexes": "0", "succeeded": 1, "active": 2})),
        &[with_index(pod("p", "Succeeded", 1, true), 1), with_index(pod("q", "Running", 0, true), 2)],
        &expect![[r#"
            patch jobs pi status {"status":{"active":2,"completedIndexes":"0,1","conditions":[],"failed":0,"failedIndexes":null,"ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":2,"terminating":0,"uncountedTerminatedPods":{"failed":null,"succeeded":null}}}
            patch pods p  {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"p"}}
            create pods pi-3- replicas=null
        "#]],
    );
}

#[test]
fn an_index_that_fails_for_good_does_not_stop_the_others() {
    let spec =
        json!({"completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": i32::MAX, "parallelism": 2});
    check(
        &job(spec, json!({"active": 1})),
        &[with_index(pod("p", "Failed", 1, true), 0), with_index(pod("q", "Running", 0, true), 1)],
        &expect![[r#"
            patch jobs pi status {"status":{"active":1,"completedIndexes":"","conditions":[],"failed":0,"failedIndexes":"0","ready":0,"startTime":"2026-01-01T00:00:00Z","succeeded":0,"terminating":0,"uncountedTerminatedPods":{"failed":["p"],"succeeded":null}}}
            patch pods p  {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"p"}}
        "#]],
    );
}

#[test]
fn a_job_that_is_deleted_lets_its_pods_go() {
    let mut gone = job(json!({}), json!({}));
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    check(
        &gone,
        &[pod("p", "Running", 0, true)],
        &expect![[r#"
        patch pods p  {"metadata":{"$deleteFromPrimitiveList/finalizers":["batch.kubernetes.io/job-tracking"],"uid":"p"}}
    "#]],
    );
}
