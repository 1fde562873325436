//! The plan and the status of a pod, for many states: text in, text out.

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kubelet::{
    Backoff, ContainerState, Failure, Host, ImageProgress, Memory, ProbeResults, Runtime, Sandbox, Stage, Step,
    Volumes, plan_pod, qos_class, status_of,
};
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

#[derive(Clone)]
struct Case {
    pod: Pod,
    runtime: Runtime,
    memory: Memory,
    gone: bool,
}

/// A pod with nothing in the runtime, and its volumes ready.
fn case(spec: Value) -> Case {
    let metadata = json!({ "name": "p", "namespace": "n", "uid": "u", "generation": 3 });
    let pod = serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap();
    let memory = Memory { volumes: Volumes::Ready, ..Memory::default() };
    Case { pod, runtime: Runtime::default(), memory, gone: false }
}

fn one(policy: &str) -> Case {
    case(json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": "ia" }] }))
}

fn two() -> Case {
    case(json!({ "containers": [{ "name": "a", "image": "ia" }, { "name": "b", "image": "ib:1" }] }))
}

fn failure(reason: &str, ago: i64, pause: i64) -> Failure {
    let at = now() - seconds(ago);
    Failure { reason: reason.into(), message: "because".into(), at, until: at + seconds(pause), pause: seconds(pause) }
}

impl Case {
    fn sandbox(mut self, ready: bool) -> Self {
        let attempt = u32::try_from(self.runtime.sandboxes.len()).unwrap();
        let sandbox = Sandbox { id: format!("s{attempt}"), attempt, ready, ips: vec!["10.0.0.2".into()] };
        self.runtime.sandboxes.insert(0, sandbox);
        self
    }
    fn images(mut self, names: &[&str]) -> Self {
        let ready = || ImageProgress::Ready("sha256:1".into());
        self.memory.images.extend(names.iter().map(|name| ((*name).to_owned(), ready())));
        self
    }
    fn has(mut self, name: &str, attempt: u32, stage: Stage, exit_code: i32) -> Self {
        let state = ContainerState {
            id: format!("{name}{attempt}"),
            sandbox: self.runtime.sandboxes[0].id.clone(),
            name: name.into(),
            attempt,
            stage,
            created: Some(now() - seconds(61)),
            started: (stage != Stage::Created).then(|| now() - seconds(60)),
            finished: (stage == Stage::Exited).then(|| now() - seconds(5)),
            exit_code,
            reason: String::new(),
            message: String::new(),
            image: format!("docker.io/library/i{name}:latest"),
            image_id: "sha256:1".into(),
        };
        self.runtime.containers.insert(0, state);
        self
    }
    fn running(self, name: &str) -> Self {
        self.has(name, 0, Stage::Running, 0)
    }
    fn dead(self, name: &str, exit_code: i32) -> Self {
        self.has(name, 0, Stage::Exited, exit_code)
    }
    fn deleted(mut self, grace: i64) -> Self {
        self.pod.metadata.deletion_timestamp = Some(Time(now()));
        self.pod.metadata.deletion_grace_period_seconds = Some(grace);
        self
    }
    fn with(mut self, change: impl FnOnce(&mut Memory)) -> Self {
        change(&mut self.memory);
        self
    }
    fn backing_off(self, pause: i64) -> Self {
        let backoff = Backoff { pause: seconds(pause), grown: now() - seconds(30) };
        self.with(|memory| {
            memory.restarts.insert("a".into(), backoff);
        })
    }
    fn plan(&self) -> String {
        let plan = plan_pod(&self.pod, &self.runtime, &self.memory, self.gone, now());
        let mut lines: Vec<String> = plan.steps.iter().map(|step| format!("{step:?}")).collect();
        lines.extend(plan.wake.map(|wake| format!("look again in {} s", wake.duration_since(now()).as_secs())));
        lines.join("\n")
    }
    fn status(&self) -> Value {
        let host = Host { ip: "192.0.2.1".into() };
        status_of(&self.pod, &self.runtime, &self.memory, &json!({}), &host, now())
    }
    /// Phase, conditions that hold, and each container in a line.
    fn shows(&self) -> String {
        let status = self.status();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = status["conditions"].as_array().unwrap().iter();
        let holds: Vec<String> = conditions.filter(|c| c["status"] == "True").map(|c| text(&c["type"])).collect();
        let mut lines = vec![format!("{}: {}", text(&status["phase"]), holds.join(" "))];
        for key in ["initContainerStatuses", "containerStatuses"] {
            for container in status[key].as_array().into_iter().flatten() {
                let (name, state, last) = (text(&container["name"]), &container["state"], &container["lastState"]);
                let ready = if container["ready"] == true { "ready" } else { "not ready" };
                lines.push(format!("  {name} {ready} restarts {} {state} last {last}", container["restartCount"]));
            }
        }
        lines.join("\n")
    }
}

fn check(cases: &[(&str, String)], expected: Expect) {
    let parts: Vec<String> = cases.iter().map(|(title, text)| format!("# {title}\n{text}")).collect();
    expected.assert_eq(&parts.join("\n"));
}

#[test]
fn a_new_pod_gets_volumes_then_a_sandbox_then_containers_while_images_come() {
    let broken = failure("FailedMount", 1, 2);
    check(
        &[
            ("new", two().with(|m| m.volumes = Volumes::Unprepared).plan()),
            ("no volume", two().images(&["a", "b"]).with(|m| m.volumes = Volumes::Failed(broken)).plan()),
            ("volumes ready", two().images(&["a"]).plan()),
            ("no sandbox", two().images(&["a", "b"]).with(|m| m.sandbox = Some(failure("x", 1, 4))).plan()),
            ("sandbox ready", two().sandbox(true).images(&["b"]).plan()),
            ("all run", two().sandbox(true).running("a").running("b").plan()),
            (
                "pull failed",
                two()
                    .sandbox(true)
                    .running("b")
                    .with(|m| drop(m.images.insert("a".into(), ImageProgress::Failed(failure("ErrImagePull", 1, 10)))))
                    .plan(),
            ),
            (
                "start failed",
                two()
                    .sandbox(true)
                    .running("b")
                    .images(&["a"])
                    .with(|m| drop(m.starts.insert("a".into(), failure("x", 1, 4))))
                    .plan(),
            ),
        ],
        expect![[r##"
            # new
            PrepareVolumes
            Pull { container: "a" }
            Pull { container: "b" }
            # no volume
            look again in 1 s
            # volumes ready
            RunSandbox { attempt: 0 }
            Pull { container: "b" }
            # no sandbox
            look again in 3 s
            # sandbox ready
            Pull { container: "a" }
            Start { container: "b", attempt: 0, sandbox: "s0" }
            # all run

            # pull failed
            look again in 1 s
            # start failed
            look again in 3 s"##]],
    );
}

#[test]
fn init_containers_run_in_order_and_sidecars_stay() {
    let base = |policy: &str| {
        let inits = json!([{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }, { "name": "j" }]);
        case(json!({ "restartPolicy": policy, "initContainers": inits, "containers": [{ "name": "a" }] }))
            .sandbox(true)
            .images(&["i", "s", "j", "a"])
    };
    check(
        &[
            ("first", base("Always").plan()),
            ("first runs", base("Always").running("i").plan()),
            ("first failed", base("Always").dead("i", 1).plan()),
            ("first failed for good", base("Never").dead("i", 1).plan()),
            ("first done", base("Always").dead("i", 0).plan()),
            ("sidecar runs", base("Always").dead("i", 0).running("s").plan()),
            ("all done", base("Always").dead("i", 0).running("s").dead("j", 0).plan()),
            ("sidecar died", base("Always").dead("i", 0).dead("s", 0).dead("j", 0).running("a").plan()),
            ("work done", base("Never").dead("i", 0).running("s").dead("j", 0).dead("a", 0).plan()),
        ],
        expect![[r##"
            # first
            Start { container: "i", attempt: 0, sandbox: "s0" }
            # first runs

            # first failed
            Start { container: "i", attempt: 1, sandbox: "s0" }
            # first failed for good
            StopSandbox { id: "s0" }
            # first done
            Start { container: "s", attempt: 0, sandbox: "s0" }
            # sidecar runs
            Start { container: "j", attempt: 0, sandbox: "s0" }
            # all done
            Start { container: "a", attempt: 0, sandbox: "s0" }
            # sidecar died
            Start { container: "s", attempt: 1, sandbox: "s0" }
            # work done
            Kill { id: "s0", container: "s", grace: 30, why: "Stopping container s" }"##]],
    );
}

#[test]
fn restarts_follow_the_policy_and_wait_longer_each_time() {
    let dead = |policy: &str, code| one(policy).sandbox(true).images(&["a"]).dead("a", code);
    check(
        &[
            ("Always, 0", dead("Always", 0).plan()),
            ("OnFailure, 1", dead("OnFailure", 1).plan()),
            ("OnFailure, 0", dead("OnFailure", 0).plan()),
            ("Never, 1", dead("Never", 1).plan()),
            ("ended 5 s ago, pause 20 s", dead("Always", 1).backing_off(20).plan()),
            ("ended 5 s ago, pause 5 s", dead("Always", 1).backing_off(5).plan()),
        ],
        expect![[r##"
            # Always, 0
            Start { container: "a", attempt: 1, sandbox: "s0" }
            # OnFailure, 1
            Start { container: "a", attempt: 1, sandbox: "s0" }
            # OnFailure, 0
            StopSandbox { id: "s0" }
            # Never, 1
            StopSandbox { id: "s0" }
            # ended 5 s ago, pause 20 s
            look again in 15 s
            # ended 5 s ago, pause 5 s
            Start { container: "a", attempt: 1, sandbox: "s0" }"##]],
    );
    let mut last = None;
    let pauses = [0; 7].map(|_| {
        last = Some(Backoff::after_restart(last, now(), now()));
        last.unwrap().pause.as_secs()
    });
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    let late = now() + Backoff::RESET;
    assert_eq!(Backoff::after_restart(last, late, late).pause, Backoff::FIRST);
}

#[test]
fn what_is_left_over_is_cleared_away() {
    let created = one("Always").sandbox(true).images(&["a"]).has("a", 0, Stage::Created, 0);
    check(
        &[
            ("sandbox died", two().sandbox(false).running("a").images(&["a", "b"]).plan()),
            ("and its containers", two().sandbox(false).dead("a", 137).images(&["a", "b"]).plan()),
            ("a new one is there", two().sandbox(false).dead("a", 137).sandbox(true).images(&["a", "b"]).plan()),
            (
                "three of a name",
                one("Always")
                    .sandbox(true)
                    .has("a", 0, Stage::Exited, 1)
                    .has("a", 1, Stage::Exited, 1)
                    .has("a", 2, Stage::Running, 0)
                    .plan(),
            ),
            ("never started", created.plan()),
        ],
        expect![[r##"
            # sandbox died
            Kill { id: "a0", container: "a", grace: 30, why: "Pod sandbox changed, it will be killed and re-created." }
            # and its containers
            RunSandbox { attempt: 1 }
            # a new one is there
            RemoveSandbox { id: "s0" }
            Start { container: "a", attempt: 1, sandbox: "s1" }
            Start { container: "b", attempt: 0, sandbox: "s1" }
            # three of a name
            RemoveContainer { id: "a0" }
            # never started
            RemoveContainer { id: "a0" }"##]],
    );
}

#[test]
fn a_pod_that_leaves_is_ended_from_the_inside_out() {
    let starting = Step::Start { container: "a".into(), attempt: 0, sandbox: "s0".into() };
    let mut forced = two().sandbox(true).running("a");
    forced.gone = true;
    check(
        &[
            ("running", two().deleted(7).sandbox(true).running("a").dead("b", 0).plan()),
            ("stopped", two().deleted(7).sandbox(true).dead("a", 143).dead("b", 0).plan()),
            ("sandbox stopped", two().deleted(7).sandbox(false).dead("a", 143).dead("b", 0).plan()),
            ("never began", two().deleted(7).plan()),
            ("just starting", two().deleted(7).sandbox(true).with(|m| m.underway = [starting].into()).plan()),
            ("by force", forced.plan()),
        ],
        expect![[r##"
            # running
            Kill { id: "a0", container: "a", grace: 7, why: "Stopping container a" }
            # stopped
            StopSandbox { id: "s0" }
            # sandbox stopped
            Finish
            # never began
            Finish
            # just starting

            # by force
            Kill { id: "a0", container: "a", grace: 30, why: "Stopping container a" }"##]],
    );
}

#[test]
fn a_condemned_container_is_killed_and_started_again() {
    let why = "Container a failed liveness probe, will be restarted";
    let base = || one("Always").sandbox(true).with(|m| drop(m.condemned.insert("a0".into(), why.into())));
    check(
        &[("runs", base().running("a").plan()), ("died", base().images(&["a"]).dead("a", 137).plan())],
        expect![[r##"
        # runs
        Kill { id: "a0", container: "a", grace: 30, why: "Container a failed liveness probe, will be restarted" }
        # died
        Start { container: "a", attempt: 1, sandbox: "s0" }"##]],
    );
}

#[test]
fn restart_counts_go_on_when_the_runtime_has_forgotten_a_container() {
    let mut case = one("Always").sandbox(true).images(&["a"]);
    let known = json!([{ "name": "a", "containerID": "knarr://old", "restartCount": 4, "image": "", "imageID": "", "ready": true }]);
    case.pod.status = serde_json::from_value(json!({ "containerStatuses": known })).unwrap();
    expect![[r#"Start { container: "a", attempt: 5, sandbox: "s0" }"#]].assert_eq(&case.plan());
}

#[test]
fn the_status_follows_a_pod_through_its_life() {
    let init = |policy: &str| {
        case(json!({ "restartPolicy": policy, "initContainers": [{ "name": "i" }], "containers": [{ "name": "a" }] }))
            .sandbox(true)
    };
    let pull = |ago| ImageProgress::Failed(failure("ErrImagePull", ago, 10));
    let base = |policy: &str| one(policy).sandbox(true);
    check(
        &[
            ("new", two().shows()),
            ("one of two runs", two().sandbox(true).running("a").shows()),
            ("both run", two().sandbox(true).running("a").running("b").shows()),
            ("init", init("Always").running("i").shows()),
            ("init done", init("Always").dead("i", 0).running("a").shows()),
            ("init failed", init("Never").dead("i", 3).shows()),
            ("pull failed just now", base("Always").with(|m| drop(m.images.insert("a".into(), pull(1)))).shows()),
            ("pull failed before", base("Always").with(|m| drop(m.images.insert("a".into(), pull(5)))).shows()),
            (
                "bad config",
                base("Always")
                    .with(|m| drop(m.starts.insert("a".into(), failure("CreateContainerConfigError", 1, 9))))
                    .shows(),
            ),
            ("crash loop", base("Always").dead("a", 1).backing_off(160).shows()),
            ("runs again", base("Always").dead("a", 1).has("a", 1, Stage::Running, 0).shows()),
            ("done", base("Never").dead("a", 0).shows()),
            ("failed", base("Never").dead("a", 2).shows()),
            ("deleted", base("Always").dead("a", 143).deleted(5).shows()),
        ],
        expect![[r##"
            # new
            Pending: Initialized PodScheduled
              a not ready restarts 0 {"waiting":{"reason":"ContainerCreating"}} last {}
              b not ready restarts 0 {"waiting":{"reason":"ContainerCreating"}} last {}
            # one of two runs
            Pending: PodReadyToStartContainers Initialized PodScheduled
              a ready restarts 0 {"running":{"startedAt":"2026-01-01T11:59:00Z"}} last {}
              b not ready restarts 0 {"waiting":{"reason":"ContainerCreating"}} last {}
            # both run
            Running: PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
              a ready restarts 0 {"running":{"startedAt":"2026-01-01T11:59:00Z"}} last {}
              b ready restarts 0 {"running":{"startedAt":"2026-01-01T11:59:00Z"}} last {}
            # init
            Pending: PodReadyToStartContainers PodScheduled
              i not ready restarts 0 {"running":{"startedAt":"2026-01-01T11:59:00Z"}} last {}
              a not ready restarts 0 {"waiting":{"reason":"PodInitializing"}} last {}
            # init done
            Running: PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
              i ready restarts 0 {"terminated":{"containerID":"knarr://i0","exitCode":0,"finishedAt":"2026-01-01T11:59:55Z","reason":"Completed","startedAt":"2026-01-01T11:59:00Z"}} last {}
              a ready restarts 0 {"running":{"startedAt":"2026-01-01T11:59:00Z"}} last {}
            # init failed
            Failed: PodReadyToStartContainers PodScheduled
              i not ready restarts 0 {"terminated":{"containerID":"knarr://i0","exitCode":3,"finishedAt":"2026-01-01T11:59:55Z","reason":"Error","startedAt":"2026-01-01T11:59:00Z"}} last {}
              a not ready restarts 0 {"waiting":{"reason":"PodInitializing"}} last {}
            # pull failed just now
            Pending: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"waiting":{"message":"because","reason":"ErrImagePull"}} last {}
            # pull failed before
            Pending: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"waiting":{"message":"Back-off pulling image \"ia\": ErrImagePull: because","reason":"ImagePullBackOff"}} last {}
            # bad config
            Pending: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"waiting":{"message":"because","reason":"CreateContainerConfigError"}} last {}
            # crash loop
            Running: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"waiting":{"message":"back-off 2m40s restarting failed container=a pod=p_n(u)","reason":"CrashLoopBackOff"}} last {"terminated":{"containerID":"knarr://a0","exitCode":1,"finishedAt":"2026-01-01T11:59:55Z","reason":"Error","startedAt":"2026-01-01T11:59:00Z"}}
            # runs again
            Running: PodReadyToStartContainers Initialized Ready ContainersReady PodScheduled
              a ready restarts 1 {"running":{"startedAt":"2026-01-01T11:59:00Z"}} last {"terminated":{"containerID":"knarr://a0","exitCode":1,"finishedAt":"2026-01-01T11:59:55Z","reason":"Error","startedAt":"2026-01-01T11:59:00Z"}}
            # done
            Succeeded: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"terminated":{"containerID":"knarr://a0","exitCode":0,"finishedAt":"2026-01-01T11:59:55Z","reason":"Completed","startedAt":"2026-01-01T11:59:00Z"}} last {}
            # failed
            Failed: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"terminated":{"containerID":"knarr://a0","exitCode":2,"finishedAt":"2026-01-01T11:59:55Z","reason":"Error","startedAt":"2026-01-01T11:59:00Z"}} last {}
            # deleted
            Failed: PodReadyToStartContainers Initialized PodScheduled
              a not ready restarts 0 {"terminated":{"containerID":"knarr://a0","exitCode":143,"finishedAt":"2026-01-01T11:59:55Z","reason":"Error","startedAt":"2026-01-01T11:59:00Z"}} last {}"##]],
    );
}

#[test]
fn probes_decide_readiness() {
    let probed = |results: Option<(bool, bool)>| {
        let container = json!({ "name": "a", "readinessProbe": {}, "startupProbe": {} });
        let case = case(json!({ "containers": [container] })).sandbox(true).running("a").with(|m| {
            m.probes.extend(results.map(|(started, ready)| ("a0".to_owned(), ProbeResults { started, ready })));
        });
        let status = case.status()["containerStatuses"][0].clone();
        (status["started"] == true, status["ready"] == true)
    };
    assert_eq!(probed(None), (false, false));
    assert_eq!(probed(Some((true, false))), (true, false));
    assert_eq!(probed(Some((true, true))), (true, true));
    assert_eq!(probed(Some((false, true))), (false, false));
}

#[test]
fn the_whole_status_has_upstreams_fields() {
    let status = one("Always").sandbox(true).running("a").status();
    expect![[r#"
        {
          "conditions": [
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-01-01T12:00:00Z",
              "observedGeneration": 3,
              "status": "True",
              "type": "PodReadyToStartContainers"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-01-01T12:00:00Z",
              "observedGeneration": 3,
              "status": "True",
              "type": "Initialized"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-01-01T12:00:00Z",
              "observedGeneration": 3,
              "status": "True",
              "type": "Ready"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-01-01T12:00:00Z",
              "observedGeneration": 3,
              "status": "True",
              "type": "ContainersReady"
            },
            {
              "lastProbeTime": null,
              "lastTransitionTime": "2026-01-01T12:00:00Z",
              "observedGeneration": 3,
              "status": "True",
              "type": "PodScheduled"
            }
          ],
          "containerStatuses": [
            {
              "containerID": "knarr://a0",
              "image": "docker.io/library/ia:latest",
              "imageID": "sha256:1",
              "lastState": {},
              "name": "a",
              "ready": true,
              "restartCount": 0,
              "started": true,
              "state": {
                "running": {
                  "startedAt": "2026-01-01T11:59:00Z"
                }
              }
            }
          ],
          "hostIP": "192.0.2.1",
          "hostIPs": [
            {
              "ip": "192.0.2.1"
            }
          ],
          "observedGeneration": 3,
          "phase": "Running",
          "podIP": "10.0.0.2",
          "podIPs": [
            {
              "ip": "10.0.0.2"
            }
          ],
          "qosClass": "BestEffort",
          "startTime": "2026-01-01T12:00:00Z"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&status).unwrap());
}

#[test]
fn times_of_conditions_change_only_with_them_and_those_of_others_stay() {
    let case = one("Always").sandbox(true).running("a");
    let previous = json!({ "startTime": "2025-01-01T00:00:00Z", "conditions": [
        { "type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:01Z" },
        { "type": "Initialized", "status": "False", "lastTransitionTime": "2025-01-01T00:00:01Z" },
        { "type": "my/gate", "status": "True" }
    ] });
    let status = status_of(&case.pod, &case.runtime, &case.memory, &previous, &Host::default(), now());
    let find =
        |kind: &str| status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).cloned().unwrap();
    assert_eq!(status["startTime"], "2025-01-01T00:00:00Z");
    assert_eq!(find("Ready")["lastTransitionTime"], "2025-01-01T00:00:01Z");
    assert_eq!(find("Initialized")["lastTransitionTime"], "2026-01-01T12:00:00Z");
    assert_eq!(find("my/gate")["status"], "True");
}

#[test]
fn quality_of_service_follows_requests_and_limits() {
    let class =
        |resources: Value| qos_class(&case(json!({ "containers": [{ "name": "a", "resources": resources }] })).pod);
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(class(json!({ "requests": { "cpu": "1" } })), "Burstable");
    assert_eq!(class(json!({ "limits": { "cpu": "1", "memory": "1Gi" } })), "Guaranteed");
    assert_eq!(class(json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } })), "Burstable");
}
