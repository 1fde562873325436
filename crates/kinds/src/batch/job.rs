//! Job: pods that run to their end, as many and as often as asked for.

use object_model::{FieldError, FieldPath, LabelSelector, meta, names, time};
use serde_json::{Value, json};

use crate::pod_template::{containers_and_images, default_spec, range, validate_metadata_and_spec};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, scale, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "batch",
    version: "v1",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    short_names: &[],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[Subresource { name: "status", verbs: OBJECT_VERBS, group: "batch", version: "v1", kind: "Job" }],
    type_name: "batch.v1.Job",
    storage: "jobs",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &["status.successful"],
    columns: &[
        Column::name(),
        Column::text("Status", "What the job does, in a word."),
        Column::text("Completions", "Pods that succeeded, of those wanted."),
        Column::text("Duration", "Time between start and end."),
        Column::age(),
        Column::text("Containers", "Names of the template's containers.").wide(),
        Column::text("Images", "Images of the template's containers.").wide(),
        Column::text("Selector", "Labels by which the pods are found.").wide(),
    ],
    example: "apiVersion: batch/v1\nkind: Job\nmetadata: {name: example, namespace: default, uid: \"1\"}\n\
              spec:\n  template:\n    spec:\n      restartPolicy: Never\n\
              \x20     containers: [{name: main, image: \"busybox:1.36\", command: [\"true\"]}]\n",
    hooks: &Job,
};

/// The labels by which a job's pods are known, old and new.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];
/// The most pods of an indexed job at a time (upstream's limit).
const MAX_INDEXED_PARALLELISM: i64 = 100_000;

struct Job;

impl Kind for Job {
    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.as_object().is_some_and(|labels| !labels.is_empty())
            && object["metadata"]["labels"].as_object().is_none_or(serde_json::Map::is_empty)
        {
            object["metadata"]["labels"] = labels;
        }
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        if walk::at(spec, "completions").is_none() && walk::at(spec, "parallelism").is_none() {
            spec["completions"] = 1.into();
        }
        walk::default(spec, "parallelism", 1);
        let per_index = walk::at(spec, "backoffLimitPerIndex").is_some();
        walk::default(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
        walk::default(spec, "completionMode", "NonIndexed");
        walk::default(spec, "suspend", false);
        walk::default(spec, "manualSelector", false);
        let replacement = if walk::at(spec, "podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
        walk::default(spec, "podReplacementPolicy", replacement);
        if let Some(policy) = spec.get_mut("podFailurePolicy") {
            for rule in walk::each_mut(policy, "rules") {
                for pattern in walk::each_mut(rule, "onPodConditions") {
                    walk::default(pattern, "status", "True");
                }
            }
        }
        if let Some(pod) = spec.pointer_mut("/template/spec") {
            default_spec(pod);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        crate::reset_status(object);
        generate_selector(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        validate_job_spec(&mut errors, spec, &path);
        let Some(selector) = walk::at(spec, "selector") else {
            errors.push(FieldError::required(&path.child("selector"), ""));
            return errors;
        };
        crate::meta::selector(&mut errors, selector, &path.child("selector"));
        let labels = &spec["template"]["metadata"]["labels"];
        let labels_path = path.child("template").child("metadata").child("labels");
        if spec["manualSelector"] != true {
            let uid = meta::uid(object);
            let expected = json!({"matchLabels": {UID_LABELS[0]: uid}});
            if *selector != expected && *selector != json!({"matchLabels": {UID_LABELS[1]: uid}}) {
                let why = "`selector` not auto-generated";
                errors.push(FieldError::invalid(&path.child("selector"), selector.clone(), why));
            }
            let wanted = UID_LABELS.map(|label| (label, uid));
            for (label, value) in wanted.into_iter().chain(NAME_LABELS.map(|label| (label, meta::name(object)))) {
                if labels[label] != value {
                    let why = format!("must be '{value}'");
                    errors.push(FieldError::invalid(&labels_path.key(label), labels[label].clone(), why));
                }
            }
        }
        if LabelSelector::from_object(selector).is_ok_and(|s| !s.matches_object(&spec["template"])) {
            let why = "`selector` does not match template `labels`";
            errors.push(FieldError::invalid(&labels_path, labels.clone(), why));
        }
        if spec["completionMode"] == "Indexed" && walk::number(spec, "completions") > 0 {
            let hostname = format!("{}-{}", meta::name(object), walk::number(spec, "completions") - 1);
            let problems = names::dns_label(&hostname);
            let name = FieldPath::new("metadata").child("name");
            errors.extend(problems.into_iter().map(|why| {
                let why = format!("will not able to create pod with invalid DNS hostname: {why}");
                FieldError::invalid(&name, meta::name(object), why)
            }));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let elastic = new["spec"]["completionMode"] == "Indexed"
            && new["spec"]["completions"] == new["spec"]["parallelism"]
            && walk::at(&new["spec"], "completions").is_some();
        if !elastic {
            walk::immutable(&mut errors, new, old, "spec.completions");
        }
        for field in
            ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            walk::immutable(&mut errors, new, old, &format!("spec.{field}"));
        }
        let mut before = old.clone();
        // Where it may run can be decided while it waits for its first start.
        if old["spec"]["suspend"] == true && walk::at(old, "status.startTime").is_none() {
            for pointer in ["/spec/template/metadata/labels", "/spec/template/metadata/annotations"] {
                copy(&mut before, new, pointer);
            }
            for field in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                copy(&mut before, new, &format!("/spec/template/spec/{field}"));
            }
        }
        walk::immutable(&mut errors, new, &before, "spec.template");
        errors
    }

    fn orphans_dependents(&self) -> bool {
        true
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        (name == "status.successful").then(|| walk::number(object, "status.succeeded").to_string())
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["spec"]["template"]);
        let succeeded = walk::number(object, "status.succeeded");
        let completions = match walk::at(object, "spec.completions").and_then(Value::as_i64) {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None => match walk::number(object, "spec.parallelism") {
                parallel if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
                _ => format!("{succeeded}/1"),
            },
        };
        let moment = |path: &str| walk::text(object, path).and_then(time::parse);
        let failed = condition(object, "Failed").and_then(|c| time::parse(c["lastTransitionTime"].as_str()?));
        let duration = moment("status.startTime").map(|start| {
            let end = moment("status.completionTime").or(failed).unwrap_or(now.0);
            time::human_duration(end.as_second() - start.as_second())
        });
        vec![
            meta::name(object).into(),
            status_word(object).into(),
            completions.into(),
            duration.unwrap_or_default().into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            containers.into(),
            images.into(),
            scale::selector_cell(&object["spec"]["selector"]).into(),
        ]
    }
}

/// The condition of a type, if it holds.
fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    walk::list(object, "status.conditions").iter().find(|c| c["type"] == kind && c["status"] == "True")
}

fn status_word(object: &Value) -> &'static str {
    let holds = |kind: &str| condition(object, kind).is_some();
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if meta::deletion_timestamp(object).is_some() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

/// Gives the pods labels that no other job's pods have, and the job a selector for them.
fn generate_selector(object: &mut Value) {
    if !object["spec"].is_object() || object["spec"]["manualSelector"] == true {
        return;
    }
    let (name, uid) = (meta::name(object).to_owned(), meta::uid(object).to_owned());
    let labels = walk::map_at(walk::value_at(&mut object["spec"]["template"], "metadata"), "labels");
    for (keys, value) in [(UID_LABELS, &uid), (NAME_LABELS, &name)] {
        for key in keys {
            labels.entry(key).or_insert_with(|| value.clone().into());
        }
    }
    let selector = walk::map_at(walk::value_at(&mut object["spec"], "selector"), "matchLabels");
    if !selector.contains_key(UID_LABELS[1]) {
        selector.entry(UID_LABELS[0]).or_insert_with(|| uid.into());
    }
}

/// Takes the value at a pointer from another object.
fn copy(to: &mut Value, from: &Value, pointer: &str) {
    let Some((parent, field)) = pointer.rsplit_once('/') else { return };
    if let Some(parent) = to.pointer_mut(parent)
        && let Some(source) = from.pointer(&pointer[..pointer.len() - field.len() - 1])
    {
        crate::copy_field(parent, source, field);
    }
}

/// What is wrong with the spec of a Job, in a Job or in the template of a CronJob.
pub(super) fn validate_job_spec(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        walk::not_negative(errors, spec, field, path);
    }
    walk::one_of(errors, spec, "completionMode", path, &["Indexed", "NonIndexed"]);
    walk::one_of(errors, spec, "podReplacementPolicy", path, &["Failed", "TerminatingOrFailed"]);
    let indexed = spec["completionMode"] == "Indexed";
    let completions = walk::at(spec, "completions").and_then(Value::as_i64);
    if indexed {
        if completions.is_none() {
            let why = format!("when completion mode is {}", "Indexed");
            errors.push(FieldError::required(&path.child("completions"), why));
        }
        let parallel = walk::number(spec, "parallelism");
        if parallel > MAX_INDEXED_PARALLELISM {
            let why =
                format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
            errors.push(FieldError::invalid(&path.child("parallelism"), parallel, why));
        }
    } else {
        if walk::at(spec, "backoffLimitPerIndex").is_some() {
            let given = spec["backoffLimitPerIndex"].clone();
            let why = "requires indexed completion mode";
            errors.push(FieldError::invalid(&path.child("backoffLimitPerIndex"), given, why));
        }
        if walk::at(spec, "successPolicy").is_some() {
            let given = spec["successPolicy"].clone();
            errors.push(FieldError::invalid(&path.child("successPolicy"), given, "requires indexed completion mode"));
        }
    }
    if walk::at(spec, "maxFailedIndexes").is_some() && walk::at(spec, "backoffLimitPerIndex").is_none() {
        errors.push(FieldError::required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    failure_policy(errors, spec, &path.child("podFailurePolicy"));
    success_policy(errors, spec, &path.child("successPolicy"));
    let template = path.child("template");
    let pod = template.child("spec");
    validate_metadata_and_spec(errors, &spec["template"], &template);
    if walk::text(&spec["template"]["spec"], "restartPolicy").is_none_or(|policy| policy == "Always") {
        let why = "valid values: \"OnFailure\", \"Never\"";
        errors.push(FieldError::required(&pod.child("restartPolicy"), why));
    }
    if walk::at(spec, "podFailurePolicy").is_some() && spec["template"]["spec"]["restartPolicy"] != "Never" {
        let given = spec["template"]["spec"]["restartPolicy"].clone();
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(&pod.child("restartPolicy"), given, why));
    }
}

fn failure_policy(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    for (index, rule) in walk::list(spec, "podFailurePolicy.rules").iter().enumerate() {
        let path = path.child("rules").index(index);
        match walk::text(rule, "action") {
            None => errors.push(FieldError::required(
                &path.child("action"),
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            )),
            Some("FailIndex") if walk::at(spec, "backoffLimitPerIndex").is_none() => {
                let why = "requires the backoffLimitPerIndex to be set";
                errors.push(FieldError::invalid(&path.child("action"), "FailIndex", why));
            }
            Some(_) => walk::one_of(errors, rule, "action", &path, &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        let codes = walk::at(rule, "onExitCodes");
        let conditions = !walk::list(rule, "onPodConditions").is_empty();
        match (codes, conditions) {
            (Some(_), true) => {
                let why = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(FieldError::invalid(&path, rule.clone(), why));
            }
            (None, false) => {
                let why = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(FieldError::invalid(&path, rule.clone(), why));
            }
            _ => {}
        }
        let Some(codes) = codes else { continue };
        let path = path.child("onExitCodes");
        walk::one_of(errors, codes, "operator", &path, &["In", "NotIn"]);
        let values = walk::list(codes, "values");
        if values.is_empty() {
            errors.push(FieldError::invalid(
                &path.child("values"),
                codes["values"].clone(),
                "at least one value is required",
            ));
        }
        if codes["operator"] == "In" && values.contains(&json!(0)) {
            errors.push(FieldError::invalid(&path.child("values"), 0, "must not be 0 for the In operator"));
        }
        if let Some(name) = walk::text(codes, "containerName") {
            let pod = &spec["template"]["spec"];
            let mut all = walk::list(pod, "containers").iter().chain(walk::list(pod, "initContainers"));
            if !all.any(|container| container["name"] == name) {
                let why = "must be one of the container or initContainer names in the pod template";
                errors.push(FieldError::invalid(&path.child("containerName"), name, why));
            }
        }
    }
}

fn success_policy(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let Some(policy) = walk::at(spec, "successPolicy") else { return };
    let rules = walk::list(policy, "rules");
    if rules.is_empty() {
        errors.push(FieldError::required(
            &path.child("rules"),
            "at least one rules must be specified when the successPolicy is specified",
        ));
    }
    let completions = walk::number(spec, "completions");
    for (index, rule) in rules.iter().enumerate() {
        let path = path.child("rules").index(index);
        if let Some(count) = walk::at(rule, "succeededCount") {
            range(errors, count, &path.child("succeededCount"), 1, completions.max(1));
        }
        match walk::text(rule, "succeededIndexes") {
            None if walk::at(rule, "succeededCount").is_none() => {
                let why = "at least one of succeededCount or succeededIndexes must be specified";
                errors.push(FieldError::required(&path, why));
            }
            Some(text) if crate::indexes::parse(text, completions).is_none() => {
                let why = "error parsing succeededIndexes: must be a list of numbers and ranges below completions";
                errors.push(FieldError::invalid(&path.child("succeededIndexes"), text, why));
            }
            _ => {}
        }
    }
}
