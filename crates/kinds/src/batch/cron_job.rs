//! CronJob: Jobs that are made again and again, by the clock.

use object_model::{FieldError, FieldPath, meta, names, time};
use serde_json::Value;

use super::job::validate_job_spec;
use crate::pod_template::{containers_and_images, default_spec};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, cron, scale, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "batch",
    version: "v1",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource {
        name: "status",
        verbs: OBJECT_VERBS,
        group: "batch",
        version: "v1",
        kind: "CronJob",
    }],
    type_name: "batch.v1.CronJob",
    storage: "cronjobs",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Schedule", "When it runs."),
        Column::text("Timezone", "The clock it runs by."),
        Column { kind: "boolean", ..Column::text("Suspend", "Whether it makes no new jobs.") },
        Column::number("Active", "Jobs that run."),
        Column::text("Last Schedule", "Time since it last made a job."),
        Column::age(),
        Column::text("Containers", "Names of the template's containers.").wide(),
        Column::text("Images", "Images of the template's containers.").wide(),
        Column::text("Selector", "Labels by which the pods are found.").wide(),
    ],
    example: "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: example, namespace: default}\n\
              spec:\n  schedule: \"*/5 * * * *\"\n  jobTemplate:\n    spec:\n      template:\n        spec:\n\
              \x20         restartPolicy: OnFailure\n\
              \x20         containers: [{name: main, image: \"busybox:1.36\", command: [\"true\"]}]\n",
    hooks: &CronJob,
};

/// The longest name: eleven characters of time are put behind it, and the whole is a label of pods.
const NAME_MAX: usize = 52;

struct CronJob;

impl Kind for CronJob {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        walk::default(spec, "concurrencyPolicy", "Allow");
        walk::default(spec, "suspend", false);
        walk::default(spec, "successfulJobsHistoryLimit", 3);
        walk::default(spec, "failedJobsHistoryLimit", 1);
        if let Some(pod) = spec.pointer_mut("/jobTemplate/spec/template/spec") {
            default_spec(pod);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        match walk::text(spec, "schedule") {
            None => errors.push(FieldError::required(&path.child("schedule"), "")),
            Some(text) if text.contains("TZ") => {
                let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
                errors.push(FieldError::invalid(&path.child("schedule"), text, why));
            }
            Some(text) => {
                if let Err(why) = cron::parse(text) {
                    errors.push(FieldError::invalid(&path.child("schedule"), text, why));
                }
            }
        }
        if let Some(name) = walk::at(spec, "timeZone").and_then(Value::as_str) {
            let path = path.child("timeZone");
            if name.is_empty() {
                errors.push(FieldError::invalid(&path, name, "timeZone must be nil or non-empty string"));
            } else if name.eq_ignore_ascii_case("local") {
                let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
                errors.push(FieldError::invalid(&path, name, why));
            } else if let Err(why) = cron::zone(Some(name)) {
                errors.push(FieldError::invalid(&path, name, why));
            }
        }
        for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            walk::not_negative(&mut errors, spec, field, &path);
        }
        walk::one_of(&mut errors, spec, "concurrencyPolicy", &path, &["Allow", "Forbid", "Replace"]);
        let template = path.child("jobTemplate");
        crate::meta::labels(&mut errors, &spec["jobTemplate"]["metadata"], &template.child("metadata"));
        let job = &spec["jobTemplate"]["spec"];
        let path = template.child("spec");
        validate_job_spec(&mut errors, job, &path);
        if walk::at(job, "selector").is_some() {
            let given = job["selector"].clone();
            errors.push(FieldError::invalid(&path.child("selector"), given, "`selector` will be auto-generated"));
        }
        if job["manualSelector"] == true {
            errors.push(FieldError::not_supported(&path.child("manualSelector"), true, &["nil", "false"]));
        }
        errors
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        let mut problems = names::dns_subdomain(name);
        if name.len() > NAME_MAX {
            problems.push(format!("must be no more than {NAME_MAX} characters"));
        }
        problems
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let job = &object["spec"]["jobTemplate"]["spec"];
        let (containers, images) = containers_and_images(&job["template"]);
        let last = walk::text(object, "status.lastScheduleTime");
        let since = last.map_or_else(|| "<none>".to_owned(), |last| time::age(Some(last), now.0));
        vec![
            meta::name(object).into(),
            walk::text(object, "spec.schedule").unwrap_or_default().into(),
            walk::text(object, "spec.timeZone").unwrap_or("<none>").into(),
            match walk::at(object, "spec.suspend") {
                None => "<unset>",
                Some(Value::Bool(true)) => "True",
                Some(_) => "False",
            }
            .into(),
            i64::try_from(walk::list(object, "status.active").len()).unwrap_or(i64::MAX).into(),
            since.into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            containers.into(),
            images.into(),
            scale::selector_cell(&job["selector"]).into(),
        ]
    }
}
