//! Jobs that have ended go after `ttlSecondsAfterFinished`.

use std::time::Duration;

use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::job::finished;
use crate::{Action, Controller, JOBS, Objects, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "ttl-after-finished-controller",
    subject: JOBS,
    reads: &[],
    writes: &[Writes::Shared { resource: JOBS, because: "it deletes Jobs whose time after their end is up" }],
    plan,
};

fn plan(job: &Value, _objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let ttl = job["spec"]["ttlSecondsAfterFinished"].as_i64();
    let ended = finished(job).and_then(|c| time::parse(c["lastTransitionTime"].as_str()?));
    let (Some(ttl), Some(ended), None) = (ttl, ended, meta::deletion_timestamp(job)) else { return Ok(Vec::new()) };
    let left = ended.as_second().saturating_add(ttl) - now.as_second();
    if left > 0 {
        return Ok(vec![Action::Again(Duration::from_secs(left.unsigned_abs()))]);
    }
    Ok(vec![Action::Delete {
        resource: JOBS,
        namespace: meta::namespace(job).to_owned(),
        name: meta::name(job).to_owned(),
        options: json!({
            "kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground",
            "preconditions": {"uid": meta::uid(job), "resourceVersion": meta::resource_version(job)},
        }),
        event: None,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn a_job_goes_when_its_time_after_the_end_is_up() {
        let check = |ttl: i64| {
            let job = json!({"metadata": {"name": "j", "namespace": "a"}, "spec": {"ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": "2025-12-31T23:59:50Z"}]}});
            brief(&plan(&job, &Fixed::default(), now()).expect("a plan"))
        };
        assert_eq!(check(10), "delete jobs j\n");
        assert_eq!(check(30), "again in 20s\n");
    }
}
