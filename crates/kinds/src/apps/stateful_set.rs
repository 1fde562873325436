//! StatefulSet: pods with stable names and volumes of their own, started and stopped in order.

use object_model::{FieldError, FieldPath, meta, names, time};
use serde_json::{Value, json};

use crate::core::persistent_volume_claim;
use crate::pod_template::{containers_and_images, default_spec, validate_selector, validate_template};
use crate::{ALL_VERBS, Column, Kind, Now, OBJECT_VERBS, Resource, Scope, Subresource, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    subresources: &[
        Subresource { name: "scale", verbs: OBJECT_VERBS, group: "autoscaling", version: "v1", kind: "Scale" },
        Subresource { name: "status", verbs: OBJECT_VERBS, group: "apps", version: "v1", kind: "StatefulSet" },
    ],
    type_name: "apps.v1.StatefulSet",
    storage: "statefulsets",
    has_status: true,
    has_generation: true,
    create_by_update: false,
    unconditional_update: true,
    graceful: false,
    selectable_fields: &[],
    columns: &[
        Column::name(),
        Column::text("Ready", "Pods that are ready, of those wanted."),
        Column::age(),
        Column::text("Containers", "Names of the template's containers.").wide(),
        Column::text("Images", "Images of the template's containers.").wide(),
    ],
    example: "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: example, namespace: default}\n\
              spec:\n  serviceName: example\n  selector: {matchLabels: {app: example}}\n  template:\n\
              \x20   metadata: {labels: {app: example}}\n\
              \x20   spec:\n      containers: [{name: main, image: \"nginx:1.27\"}]\n\
              \x20 volumeClaimTemplates:\n  - metadata: {name: data}\n\
              \x20   spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n",
    hooks: &StatefulSet,
};

/// Fields that can be changed.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

struct StatefulSet;

impl Kind for StatefulSet {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            return;
        }
        walk::default(spec, "replicas", 1);
        walk::default(spec, "podManagementPolicy", "OrderedReady");
        walk::default(spec, "revisionHistoryLimit", 10);
        walk::default(spec, "persistentVolumeClaimRetentionPolicy", json!({}));
        let retention = &mut spec["persistentVolumeClaimRetentionPolicy"];
        walk::default(retention, "whenDeleted", "Retain");
        walk::default(retention, "whenScaled", "Retain");
        walk::map_at(spec, "updateStrategy");
        let strategy = &mut spec["updateStrategy"];
        walk::default(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            walk::default(strategy, "rollingUpdate", json!({}));
            walk::default(&mut strategy["rollingUpdate"], "partition", 0);
        }
        for claim in walk::each_mut(spec, "volumeClaimTemplates") {
            persistent_volume_claim::default_claim(claim);
        }
        if let Some(pod) = spec.pointer_mut("/template/spec") {
            default_spec(pod);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
            walk::not_negative(&mut errors, spec, field, &path);
        }
        if let Some(policy) = walk::text(spec, "podManagementPolicy")
            && !["OrderedReady", "Parallel"].contains(&policy)
        {
            let why = "must be 'OrderedReady' or 'Parallel'";
            errors.push(FieldError::invalid(&path.child("podManagementPolicy"), policy, why));
        }
        let strategy = &spec["updateStrategy"];
        let strategy_path = path.child("updateStrategy");
        match walk::text(strategy, "type") {
            None => errors.push(FieldError::required(&strategy_path, "")),
            Some("OnDelete") if walk::at(strategy, "rollingUpdate").is_some() => {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                let given = strategy["rollingUpdate"].clone();
                errors.push(FieldError::invalid(&strategy_path.child("rollingUpdate"), given, why));
            }
            Some("OnDelete") => {}
            Some("RollingUpdate") => {
                let path = strategy_path.child("rollingUpdate");
                walk::not_negative(&mut errors, &strategy["rollingUpdate"], "partition", &path);
                if strategy["rollingUpdate"]["maxUnavailable"] == 0 {
                    errors.push(FieldError::invalid(&path.child("maxUnavailable"), 0, "cannot be 0"));
                }
            }
            Some(_) => {
                let why = "must be 'RollingUpdate' or 'OnDelete'";
                errors.push(FieldError::invalid(&strategy_path, strategy.clone(), why));
            }
        }
        let retention = &spec["persistentVolumeClaimRetentionPolicy"];
        let retention_path = path.child("persistentVolumeClaimRetentionPolicy");
        for field in ["whenDeleted", "whenScaled"] {
            walk::one_of(&mut errors, retention, field, &retention_path, &["Delete", "Retain"]);
        }
        walk::not_negative(&mut errors, &spec["ordinals"], "start", &path.child("ordinals"));
        validate_selector(&mut errors, spec, "statefulset", &path);
        let template = path.child("template");
        // The claims become volumes of the pods: what mounts them is right.
        let mut pod = spec["template"].clone();
        let claims = walk::list(spec, "volumeClaimTemplates").iter().filter_map(|c| walk::text(c, "metadata.name"));
        let mut volumes = walk::list(&pod, "spec.volumes").to_vec();
        for name in claims {
            volumes.retain(|volume| volume["name"] != name);
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
        if !volumes.is_empty() && pod["spec"].is_object() {
            pod["spec"]["volumes"] = volumes.into();
        }
        validate_template(&mut errors, &pod, &spec["selector"], "StatefulSet", &template);
        for (index, claim) in walk::list(spec, "volumeClaimTemplates").iter().enumerate() {
            let path = path.child("volumeClaimTemplates").index(index);
            if walk::text(claim, "metadata.name").is_none() {
                errors.push(FieldError::required(&path.child("metadata").child("name"), ""));
            }
            persistent_volume_claim::validate_spec(&mut errors, &claim["spec"], &path.child("spec"));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut like_old = new["spec"].clone();
        for field in MUTABLE {
            crate::copy_field(&mut like_old, &old["spec"], field);
        }
        if like_old == old["spec"] {
            return Vec::new();
        }
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                   'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                   'minReadySeconds' are forbidden";
        vec![FieldError::forbidden(&FieldPath::new("spec"), why)]
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        names::dns_label(name)
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let (containers, images) = containers_and_images(&object["spec"]["template"]);
        let (ready, wanted) = (walk::number(object, "status.readyReplicas"), walk::number(object, "spec.replicas"));
        vec![
            meta::name(object).into(),
            format!("{ready}/{wanted}").into(),
            time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into(),
            containers.into(),
            images.into(),
        ]
    }
}
