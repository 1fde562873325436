//! Jobs and CronJobs: they run to their end, fail as they say, and come by the clock.

use crate::node::{Node, Said, eventually};

/// A Job of busybox with this shell line; `spec` goes into its spec, `pod` into its pod's.
fn job(name: &str, spec: &str, pod: &str, line: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: Job, metadata: {{name: {name}}}, spec: {{{spec} template: {{spec: {{restartPolicy: Never, {pod} \
         containers: [{{name: main, image: busybox, command: [sh, -c, '{line}']}}]}}}}}}}}"
    )
}

fn cron_job(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: batch/v1, kind: CronJob, metadata: {{name: {name}}}, spec: {{{spec}, jobTemplate: {{spec: {{template: {{spec: \
         {{restartPolicy: OnFailure, containers: [{{name: main, image: busybox, command: [sh, -c, 'date; echo hello']}}]}}}}}}}}}}}}"
    )
}

fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code(), 1, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

#[test]
fn a_job_runs_its_pods_to_their_end_and_counts_each_once() {
    let node = Node::ready();
    node.apply(&job("pi", "completions: 3, parallelism: 2,", "", "echo 3.14159"));
    node.ok("wait --for=condition=Complete job/pi --timeout=60s");
    let table = node.ok("get jobs");
    let row: Vec<&str> = table.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!(row[..3], ["pi", "Complete", "3/3"], "{table}");
    let found = node.get("job/pi");
    assert_eq!((&found["status"]["succeeded"], found["status"].get("active")), (&3.into(), None), "{found}");
    let pods = node.list("pods -l job-name=pi");
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod["status"]["phase"] == "Succeeded" && pod["metadata"]["finalizers"].is_null()));
    assert_eq!(node.ok("logs job/pi"), "3.14159\n");
    assert!(node.ok("describe job pi").contains("Job completed"));

    let indexed = "completionMode: Indexed, completions: 3, parallelism: 3, ttlSecondsAfterFinished: 3,";
    node.apply(&job("by-number", indexed, "", "echo $JOB_COMPLETION_INDEX on $(hostname)"));
    node.ok("wait --for=condition=Complete job/by-number --timeout=60s");
    assert_eq!(node.ok("get job by-number -o jsonpath={.status.completedIndexes}"), "0-2");
    let logs = node.ok("logs -l batch.kubernetes.io/job-completion-index=1");
    assert_eq!(logs, "1 on by-number-1\n");
    eventually("its time after the end is up", || {
        node.try_kubectl("get job by-number").err.contains("not found").then_some(())
    });
    eventually("its pods go with it", || node.list("pods -l job-name=by-number").is_empty().then_some(()));

    node.apply(&job("later", "suspend: true,", "", "true"));
    eventually("it waits", || {
        (node.ok("get job later -o jsonpath={.status.conditions[0].type}") == "Suspended").then_some(())
    });
    assert!(node.list("pods -l job-name=later").is_empty());
    node.ok("patch job later -p {\"spec\":{\"suspend\":false}}");
    node.ok("wait --for=condition=Complete job/later --timeout=60s");
    node.ok("delete job pi later");
    eventually("the pods go", || node.list("pods").is_empty().then_some(()));
}

#[test]
fn a_job_that_fails_says_why_and_is_tried_as_often_as_it_may() {
    let node = Node::ready();
    node.apply(&job("never", "backoffLimit: 0,", "", "exit 3"));
    node.apply(&job("slow", "activeDeadlineSeconds: 1,", "terminationGracePeriodSeconds: 0,", "sleep 1000"));
    let policy = "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]},";
    node.apply(&job("strict", policy, "", "exit 42"));
    node.apply(&job("twice", "backoffLimit: 1,", "", "exit 1"));
    let again = job("again", "backoffLimit: 3,", "", "test -e /shared/x || { touch /shared/x; exit 1; }")
        .replace("restartPolicy: Never", "restartPolicy: OnFailure, volumes: [{name: v, emptyDir: {}}]")
        .replace("image: busybox", "image: busybox, volumeMounts: [{name: v, mountPath: /shared}]");
    node.apply(&again);
    let reason = |name: &str| {
        node.ok(&format!("get job {name} -o jsonpath={{.status.conditions[?(@.type==\"Failed\")].reason}}"))
    };
    for (name, why) in [
        ("never", "BackoffLimitExceeded"),
        ("slow", "DeadlineExceeded"),
        ("strict", "PodFailurePolicy"),
        ("twice", "BackoffLimitExceeded"),
    ] {
        node.ok(&format!("wait --for=condition=Failed job/{name} --timeout=60s"));
        assert_eq!(reason(name), why, "{name}");
    }
    assert_eq!(node.list("pods -l job-name=never").len(), 1);
    assert_eq!(node.list("pods -l job-name=twice").len(), 2, "one more try, after a pause");
    let message = node.ok("get job strict -o jsonpath={.status.conditions[?(@.type==\"Failed\")].message}");
    assert!(message.contains("failed with exit code 42 matching FailJob rule at index 0"), "{message}");
    assert!(node.ok("describe job never").contains("Job has reached the specified backoff limit"));
    eventually("what ran too long is gone", || node.list("pods -l job-name=slow").is_empty().then_some(()));
    node.ok("wait --for=condition=Complete job/again --timeout=60s");
    assert_eq!(
        node.ok("get pods -l job-name=again -o jsonpath={.items[*].status.containerStatuses[0].restartCount}"),
        "1"
    );
}

#[test]
fn a_cron_job_makes_jobs_by_the_clock_and_by_hand() {
    let node = Node::ready();
    node.apply(&cron_job("hello", "schedule: '@every 1s'"));
    let name = eventually("a job starts", || {
        node.list("jobs").first().map(|job| job["metadata"]["name"].as_str().expect("a name").to_owned())
    });
    let minute: i64 = name.strip_prefix("hello-").and_then(|n| n.parse().ok()).expect("the minute in its name");
    let found = node.get(&format!("job/{name}"));
    let scheduled = found["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"].as_str();
    let last = node.ok("get cronjob hello -o jsonpath={.status.lastScheduleTime}");
    assert_eq!(scheduled, Some(last.as_str()));
    let at: i64 = crate::node::shell(&format!("date -d {last} +%s")).trim().parse().expect("seconds");
    assert_eq!(at / 60, minute);
    node.ok("patch cronjob hello -p {\"spec\":{\"suspend\":true}}");
    node.ok(&format!("wait --for=condition=Complete job/{name} --timeout=60s"));
    assert!(node.ok(&format!("logs job/{name}")).ends_with("hello\n"));
    eventually("the end is noted", || {
        let status = node.get("cronjob/hello")["status"].clone();
        (status["active"].is_null() && status["lastSuccessfulTime"].is_string()).then_some(())
    });
    assert!(node.ok("describe cronjob hello").contains(&format!("Created job {name}")));

    assert_eq!(node.ok("create job by-hand --from=cronjob/hello"), "job.batch/by-hand created\n");
    node.ok("wait --for=condition=Complete job/by-hand --timeout=60s");
    let table = node.ok("get cronjobs");
    assert!(table.lines().nth(1).is_some_and(|row| row.contains("@every 1s") && row.contains("True")), "{table}");
    node.ok("delete cronjob hello");
    eventually("its jobs and their pods go", || {
        (node.list("jobs").is_empty() && node.list("pods").is_empty()).then_some(())
    });
}

#[test]
fn jobs_that_are_wrong_are_refused_with_the_field_and_the_reason() {
    let node = Node::ready();
    let apply = |text: &str| node.with_input("apply -f -", text);
    let always = job("x", "", "", "true").replace("restartPolicy: Never,", "");
    refused(
        &apply(&always),
        &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""],
    );
    let selector = job("x", "selector: {matchLabels: {app: x}},", "", "true");
    refused(&apply(&selector), &["spec.selector: Invalid value", "`selector` not auto-generated"]);
    let indexed = job("x", "completionMode: Indexed, parallelism: 2,", "", "true");
    refused(&apply(&indexed), &["spec.completions: Required value: when completion mode is Indexed"]);
    refused(
        &apply(&job("x", "parallelism: -1,", "", "true")),
        &["spec.parallelism: Invalid value: -1: must be greater than or equal to 0"],
    );
    node.apply(&job("kept", "suspend: true,", "", "true"));
    let changed = apply(&job("kept", "suspend: true,", "", "false"));
    refused(&changed, &["spec.template: Invalid value", "field is immutable"]);
    assert_eq!(node.ok("get job kept -o jsonpath={.spec.template.spec.containers[0].command[2]}"), "true");

    let six = apply(&cron_job("x", "schedule: '0 * * * * *'"));
    refused(
        &six,
        &["spec.schedule: Invalid value: \"0 * * * * *\": expected exactly 5 fields, found 6: [0 * * * * *]"],
    );
    let late = apply(&cron_job("x", "schedule: '0 24 * * *'"));
    refused(&late, &["spec.schedule", "end of range (24) above maximum (23): 24"]);
    let zone = apply(&cron_job("x", "schedule: '@daily', timeZone: Mars/Olympus"));
    refused(&zone, &["spec.timeZone: Invalid value: \"Mars/Olympus\": unknown time zone Mars/Olympus"]);
    let long = apply(&cron_job(&"x".repeat(53), "schedule: '@daily'"));
    refused(&long, &["metadata.name", "must be no more than 52 characters"]);
    let policy = apply(&cron_job("x", "schedule: '@daily', concurrencyPolicy: Never"));
    refused(&policy, &["spec.concurrencyPolicy: Unsupported value: \"Never\"", "\"Allow\", \"Forbid\", \"Replace\""]);
    refused(&node.try_kubectl("create job x --from=cronjob/nobody"), &["cronjobs.batch \"nobody\" not found"]);
    assert_eq!(crate::node::names(&node.list("jobs,cronjobs")), ["kept"], "something was half made");
}
