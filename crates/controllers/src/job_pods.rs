//! Pods whose Job is gone: nobody will count them any more, so nothing holds them.

use jiff::Timestamp;
use object_model::meta;
use serde_json::Value;

use crate::job::TRACKING;
use crate::{Action, Controller, JOBS, Key, Objects, PODS, Read, Writes, pods};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "job-pod-controller",
    subject: PODS,
    reads: &[Read { resource: JOBS, wakes }],
    writes: &[Writes::Shared { resource: PODS, because: "the finalizer of Jobs outlives them" }],
    plan,
};

fn wakes(job: &Value, objects: &dyn Objects) -> Vec<Key> {
    let pods = objects.list(PODS, meta::namespace(job));
    let own = pods.iter().filter(|p| meta::controller_of(&p.object).is_some_and(|o| o.uid == meta::uid(job)));
    own.map(|p| (p.namespace.clone(), p.name.clone())).collect()
}

fn plan(pod: &Value, objects: &dyn Objects, _now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if !meta::finalizers(pod).contains(&TRACKING) {
        return Ok(Vec::new());
    }
    let namespace = meta::namespace(pod);
    let counted = meta::controller_of(pod).is_some_and(|owner| {
        owner.kind == "Job" && objects.get(JOBS, namespace, &owner.name).is_some_and(|job| job.uid == owner.uid)
    });
    if counted {
        return Ok(Vec::new());
    }
    let found = objects.get(PODS, namespace, meta::name(pod)).filter(|found| found.uid == meta::uid(pod));
    Ok(found.iter().map(|pod| pods::strip(PODS, pod, TRACKING)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};
    use serde_json::json;

    #[test]
    fn a_pod_is_held_as_long_as_its_job_is_there() {
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "uid": "p", "finalizers": [TRACKING],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}]}});
        let job = |uid: &str| json!({"metadata": {"name": "j", "namespace": "a", "uid": uid}});
        let held = Fixed::default().with(PODS, pod.clone()).with(JOBS, job("j"));
        assert_eq!(brief(&plan(&pod, &held, now()).expect("a plan")), "");
        let replaced = Fixed::default().with(PODS, pod.clone()).with(JOBS, job("other"));
        assert!(brief(&plan(&pod, &replaced, now()).expect("a plan")).starts_with("patch pods p"));
    }
}
