//! CronJobs make Jobs by the clock.

use std::time::Duration;

use client::Patch;
use jiff::Timestamp;
use kinds::cron::{self, Schedule};
use object_model::meta::{self, OwnerReference};
use object_model::time;
use serde_json::{Value, json};

use crate::job::finished;
use crate::pods::only_this;
use crate::{Action, CRON_JOBS, Controller, JOBS, Key, Note, Object, Objects, Read, Writes, controller_key};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "cronjob-controller",
    subject: CRON_JOBS,
    reads: &[Read { resource: JOBS, wakes }],
    writes: &[Writes::Children(JOBS), Writes::Status],
    plan,
};

/// When a Job was to start, in its time zone.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How many starts may have been missed before that is told (upstream's number).
const MANY_MISSED: usize = 100;

fn wakes(job: &Value, _objects: &dyn Objects) -> Vec<Key> {
    controller_key(job, "CronJob").into_iter().collect()
}

fn plan(cron_job: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let mut actions = Vec::new();
    let own: Vec<Object> = objects
        .list(JOBS, meta::namespace(cron_job))
        .into_iter()
        .filter(|j| meta::controller_of(&j.object).is_some_and(|o| o.uid == meta::uid(cron_job)))
        .collect();
    let mut status = Status::read(cron_job);
    status.look(cron_job, &own, &mut actions);
    actions.extend(forget_old(cron_job, &own));
    if meta::deletion_timestamp(cron_job).is_none() && cron_job["spec"]["suspend"] != true {
        start(cron_job, &own, &mut status, now, &mut actions)?;
    }
    actions.extend(status.write(cron_job));
    Ok(actions)
}

/// The status while it is worked on.
struct Status {
    active: Vec<Value>,
    last_schedule: Option<String>,
    last_successful: Option<String>,
}

impl Status {
    fn read(cron_job: &Value) -> Self {
        let status = &cron_job["status"];
        let text = |field: &str| status[field].as_str().map(str::to_owned);
        Self {
            active: status["active"].as_array().cloned().unwrap_or_default(),
            last_schedule: text("lastScheduleTime"),
            last_successful: text("lastSuccessfulTime"),
        }
    }

    /// Takes over what has become of the Jobs.
    fn look(&mut self, cron_job: &Value, own: &[Object], actions: &mut Vec<Action>) {
        let before = std::mem::take(&mut self.active);
        for reference in &before {
            let name = reference["name"].as_str().unwrap_or_default();
            match own.iter().find(|job| reference["uid"] == job.uid.as_str()) {
                None => {
                    let message = format!("Active job went missing: {name}");
                    actions.push(Action::Event(Note::normal(cron_job, "MissingJob", message)));
                }
                Some(job) => match finished(&job.object) {
                    Some(condition) => {
                        let end = condition["type"].as_str().unwrap_or_default();
                        let message = format!("Saw completed job: {name}, condition: {end}");
                        actions.push(Action::Event(Note::normal(cron_job, "SawCompletedJob", message)));
                    }
                    None => self.active.push(reference.clone()),
                },
            }
        }
        for job in own {
            let known = before.iter().any(|reference| reference["uid"] == job.uid.as_str());
            let ours = meta::annotations(&job.object).contains_key(SCHEDULED);
            if finished(&job.object).is_none() && ours && !known {
                self.active.push(reference(job));
            }
            let completed = job.object["status"]["completionTime"].as_str();
            if let Some(end) = completed.filter(|end| self.last_successful.as_deref().is_none_or(|last| last < *end)) {
                self.last_successful = Some(end.to_owned());
            }
        }
    }

    fn write(self, cron_job: &Value) -> Option<Action> {
        let status = json!({
            "active": if self.active.is_empty() { Value::Null } else { self.active.into() },
            "lastScheduleTime": self.last_schedule,
            "lastSuccessfulTime": self.last_successful,
        });
        let same = status.as_object().into_iter().flatten().all(|(key, value)| cron_job["status"][key] == *value);
        (!same).then(|| Action::Patch {
            resource: CRON_JOBS,
            namespace: meta::namespace(cron_job).to_owned(),
            name: meta::name(cron_job).to_owned(),
            subresource: "status",
            kind: Patch::Merge,
            patch: json!({"status": status}),
        })
    }
}

fn reference(job: &Object) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "namespace": job.namespace, "name": job.name,
        "uid": job.uid, "resourceVersion": job.resource_version})
}

fn delete(cron_job: &Value, job: &Object) -> Action {
    let mut options = only_this(job);
    options["propagationPolicy"] = "Background".into();
    Action::Delete {
        resource: JOBS,
        namespace: job.namespace.clone(),
        name: job.name.clone(),
        options,
        event: Some(Note::normal(cron_job, "SuccessfulDelete", format!("Deleted job {}", job.name))),
    }
}

/// Deletes ended Jobs beyond the limits of history, oldest first.
fn forget_old(cron_job: &Value, own: &[Object]) -> Vec<Action> {
    let mut actions = Vec::new();
    for (kind, field) in [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")] {
        let Some(limit) = cron_job["spec"][field].as_u64().and_then(|limit| usize::try_from(limit).ok()) else {
            continue;
        };
        let ended = |job: &&Object| finished(&job.object).is_some_and(|c| c["type"] == kind);
        let mut ended: Vec<&Object> =
            own.iter().filter(ended).filter(|j| meta::deletion_timestamp(&j.object).is_none()).collect();
        ended.sort_by_key(|j| (j.object["status"]["startTime"].as_str().map(str::to_owned), j.name.clone()));
        let excess = ended.len().saturating_sub(limit);
        actions.extend(ended.into_iter().take(excess).map(|job| delete(cron_job, job)));
    }
    actions
}

/// Starts what is due, and says when to look again.
fn start(
    cron_job: &Value,
    own: &[Object],
    status: &mut Status,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> anyhow::Result<()> {
    let spec = &cron_job["spec"];
    let read = || -> Result<_, String> {
        let zone = cron::zone(spec["timeZone"].as_str())?;
        Ok((cron::parse(spec["schedule"].as_str().unwrap_or_default())?, zone))
    };
    let (schedule, zone) = match read() {
        Ok(read) => read,
        Err(why) => {
            actions.push(Action::Event(Note::warning(
                cron_job,
                "UnparseableSchedule",
                format!("unparseable schedule: {why}"),
            )));
            return Ok(());
        }
    };
    let due = due(cron_job, &schedule, &zone, status, now, actions);
    if let Some(at) = due {
        let name = format!("{}-{}", meta::name(cron_job), at.as_second().div_euclid(60));
        let deadline = spec["startingDeadlineSeconds"].as_i64();
        let stamp = time::seconds(at);
        if status.last_schedule.as_deref() == Some(stamp.as_str()) || own.iter().any(|job| job.name == name) {
            // Made already.
            status.last_schedule = Some(stamp);
        } else if deadline.is_some_and(|deadline| at.as_second() + deadline < now.as_second()) {
            let message = format!("Missed scheduled time to start a job: {stamp}");
            actions.push(Action::Event(Note::warning(cron_job, "MissSchedule", message)));
        } else if spec["concurrencyPolicy"] == "Forbid" && !status.active.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            actions.push(Action::Event(Note::normal(cron_job, "JobAlreadyActive", message)));
        } else {
            if spec["concurrencyPolicy"] == "Replace" {
                let active = |job: &&Object| status.active.iter().any(|r| r["uid"] == job.uid.as_str());
                actions.extend(own.iter().filter(active).map(|job| delete(cron_job, job)));
                status.active.clear();
            }
            let local = at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
            actions.push(create(
                cron_job,
                &name,
                local.strip_suffix("+00:00").map_or(local.clone(), |utc| format!("{utc}Z")),
            ));
            status.last_schedule = Some(stamp);
        }
    }
    if let Some(next) = schedule.next(now, &zone) {
        let wait = next.duration_since(now);
        // A little later than on the dot: clocks are read in whole seconds.
        actions.push(Action::Again(Duration::try_from(wait).unwrap_or_default() + Duration::from_millis(20)));
    }
    Ok(())
}

/// The latest start that was due and is not made yet.
fn due(
    cron_job: &Value,
    schedule: &Schedule,
    zone: &jiff::tz::TimeZone,
    status: &Status,
    now: Timestamp,
    actions: &mut Vec<Action>,
) -> Option<Timestamp> {
    let made = time::parse(cron_job["metadata"]["creationTimestamp"].as_str()?)?;
    let mut from = status.last_schedule.as_deref().and_then(time::parse).unwrap_or(made);
    if let Some(deadline) = cron_job["spec"]["startingDeadlineSeconds"].as_i64() {
        let earliest = now.as_second().saturating_sub(deadline);
        // A start on the very edge still counts.
        from = from.max(Timestamp::from_second(earliest.saturating_sub(1)).unwrap_or(from));
    }
    let due = schedule.last(from, now, zone)?;
    let mut missed = 0;
    let mut at = from;
    while let Some(next) = schedule.next(at, zone).filter(|next| *next <= now && missed <= MANY_MISSED) {
        missed += 1;
        at = next;
    }
    if missed > MANY_MISSED {
        let message = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        actions.push(Action::Event(Note::warning(cron_job, "TooManyMissedTimes", message)));
    }
    Some(due)
}

fn create(cron_job: &Value, name: &str, scheduled: String) -> Action {
    let template = &cron_job["spec"]["jobTemplate"];
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "CronJob".to_owned(),
        name: meta::name(cron_job).to_owned(),
        uid: meta::uid(cron_job).to_owned(),
        controller: true,
        block_owner_deletion: true,
    };
    let mut annotations = template["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    annotations.insert(SCHEDULED.to_owned(), scheduled.into());
    Action::Create {
        resource: JOBS,
        namespace: meta::namespace(cron_job).to_owned(),
        object: json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {
                "name": name, "namespace": meta::namespace(cron_job), "annotations": annotations,
                "labels": template["metadata"]["labels"], "ownerReferences": [owner.to_value()],
            },
            "spec": template["spec"],
        }),
        event: Some(Note::normal(cron_job, "SuccessfulCreate", format!("Created job {name}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief};
    use expect_test::{Expect, expect};

    fn cron_job(spec: Value, status: Value) -> Value {
        let mut cron_job = json!({
            "apiVersion": "batch/v1", "kind": "CronJob",
            "metadata": {"name": "hello", "namespace": "a", "uid": "c", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 1,
                "jobTemplate": {"spec": {"template": {}}}},
            "status": status,
        });
        for (key, value) in spec.as_object().into_iter().flatten() {
            cron_job["spec"][key] = value.clone();
        }
        cron_job
    }

    fn job(name: &str, end: Option<&str>) -> Value {
        let mut job = json!({"metadata": {"name": name, "namespace": "a", "uid": name, "annotations": {SCHEDULED: "x"},
            "ownerReferences": [{"kind": "CronJob", "name": "hello", "uid": "c", "controller": true}]},
            "status": {"startTime": name}});
        if let Some(end) = end {
            job["status"]["completionTime"] = end.into();
            job["status"]["conditions"] = json!([{"type": "Complete", "status": "True"}]);
        }
        job
    }

    fn check(cron_job: &Value, jobs: &[Value], now: &str, expected: &Expect) {
        let objects = jobs.iter().fold(Fixed::default(), |all, job| all.with(JOBS, job.clone()));
        let now = now.parse().expect("a time");
        expected.assert_eq(&brief(&plan(cron_job, &objects, now).expect("a plan")));
    }

    #[test]
    fn a_job_starts_when_it_is_due_and_bears_its_minute() {
        check(
            &cron_job(json!({}), json!({})),
            &[],
            "2026-01-01T00:04:00Z",
            &expect![[r#"
            again in 60s
        "#]],
        );
        check(
            &cron_job(json!({}), json!({})),
            &[],
            "2026-01-01T00:05:00Z",
            &expect![[r#"
            create jobs hello-29453765 replicas=null
            again in 300s
            patch cronjobs hello status {"status":{"active":null,"lastScheduleTime":"2026-01-01T00:05:00Z","lastSuccessfulTime":null}}
        "#]],
        );
        let started = json!({"lastScheduleTime": "2026-01-01T00:05:00Z"});
        check(
            &cron_job(json!({}), started),
            &[job("hello-29453765", None)],
            "2026-01-01T00:06:00Z",
            &expect![[r#"
            again in 240s
            patch cronjobs hello status {"status":{"active":[{"apiVersion":"batch/v1","kind":"Job","name":"hello-29453765","namespace":"a","resourceVersion":"","uid":"hello-29453765"}],"lastScheduleTime":"2026-01-01T00:05:00Z","lastSuccessfulTime":null}}
        "#]],
        );
    }

    #[test]
    fn of_missed_runs_only_the_last_is_made_and_none_that_is_too_late() {
        check(
            &cron_job(json!({}), json!({})),
            &[],
            "2026-01-01T01:02:00Z",
            &expect![[r#"
            create jobs hello-29453820 replicas=null
            again in 180s
            patch cronjobs hello status {"status":{"active":null,"lastScheduleTime":"2026-01-01T01:00:00Z","lastSuccessfulTime":null}}
        "#]],
        );
        check(
            &cron_job(json!({"startingDeadlineSeconds": 60}), json!({})),
            &[],
            "2026-01-01T01:02:00Z",
            &expect![[r#"
                again in 180s
            "#]],
        );
    }

    #[test]
    fn the_policy_says_what_happens_while_one_still_runs() {
        let active = json!({"active": [{"name": "old", "uid": "old"}], "lastScheduleTime": "2026-01-01T00:05:00Z"});
        for policy in ["Forbid", "Replace"] {
            let cron_job = cron_job(json!({"concurrencyPolicy": policy}), active.clone());
            let expected = if policy == "Forbid" {
                expect![[r#"
                event JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid
                again in 300s
            "#]]
            } else {
                expect![[r#"
                delete jobs old
                create jobs hello-29453770 replicas=null
                again in 300s
                patch cronjobs hello status {"status":{"active":null,"lastScheduleTime":"2026-01-01T00:10:00Z","lastSuccessfulTime":null}}
            "#]]
            };
            check(&cron_job, &[job("old", None)], "2026-01-01T00:10:00Z", &expected);
        }
    }

    #[test]
    fn old_ends_are_forgotten_and_new_ones_noted() {
        let active = json!({"active": [{"name": "two", "uid": "two"}], "lastScheduleTime": "2026-01-01T00:05:00Z"});
        let jobs = [job("one", Some("2026-01-01T00:01:00Z")), job("two", Some("2026-01-01T00:05:30Z"))];
        check(
            &cron_job(json!({}), active),
            &jobs,
            "2026-01-01T00:06:00Z",
            &expect![[r#"
            event SawCompletedJob Saw completed job: two, condition: Complete
            delete jobs one
            again in 240s
            patch cronjobs hello status {"status":{"active":null,"lastScheduleTime":"2026-01-01T00:05:00Z","lastSuccessfulTime":"2026-01-01T00:05:30Z"}}
        "#]],
        );
    }

    #[test]
    fn a_suspended_one_starts_nothing() {
        check(&cron_job(json!({"suspend": true}), json!({})), &[], "2026-01-01T01:00:00Z", &expect![[""]]);
    }
}
