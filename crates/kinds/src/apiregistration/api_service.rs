//! APIService: who answers for a version of an API group.

use object_model::{FieldError, FieldPath, meta, names};
use serde_json::{Value, json};

use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

const GROUP: &str = "apiregistration.k8s.io";

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    categories: &["api-extensions"],
    subresources: &[Subresource::status(GROUP, "APIService")],
    type_name: "apiregistration.v1.APIService",
    storage: "apiservices",
    has_status: true,
    unconditional_update: false,
    columns: &[
        Column::name(),
        Column::text("Service", "The Service that answers, or Local."),
        Column::text("Available", "Whether it answers."),
        Column::age(),
    ],
    example: "apiVersion: apiregistration.k8s.io/v1\nkind: APIService\nmetadata: {name: v1.example.com}\n\
              spec:\n  group: example.com\n  version: v1\n  groupPriorityMinimum: 1000\n  versionPriority: 10\n\
              \x20 service: {name: api, namespace: default}\n",
    hooks: &ApiService,
    ..crate::CLUSTER
};

struct ApiService;

impl Kind for ApiService {
    fn default(&self, object: &mut Value) {
        if let Some(service) = object.pointer_mut("/spec/service") {
            walk::default(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
        // What the server itself answers needs nobody to look after it.
        if walk::at(object, "spec.service").is_none() {
            object["status"] = json!({"conditions": [{
                "type": "Available", "status": "True", "reason": "Local",
                "message": "Local APIServices are always available",
                "lastTransitionTime": object["metadata"]["creationTimestamp"],
            }]});
        }
    }

    fn aggregates(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        let text = |field: &str| walk::text(spec, field).unwrap_or_default();
        let (group, version) = (text("group"), text("version"));
        let name = format!("{version}.{group}");
        if meta::name(object) != name {
            let why = format!("must be `spec.version+\".\"+spec.group`: {name:?}");
            errors.push(FieldError::invalid(&FieldPath::new("metadata").child("name"), meta::name(object), why));
        }
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required(&path.child("group"), why));
        }
        rules::named_field(&mut errors, spec, "group", &path, names::dns_subdomain);
        rules::named(&mut errors, version, &path.child("version"), names::dns_label_1035);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let number = walk::number(spec, field);
            if !(1..=most).contains(&number) {
                let why = format!("must be positive and less than {most}");
                errors.push(FieldError::invalid(&path.child(field), number, why));
            }
        }
        let bundle = walk::text(spec, "caBundle");
        let blind = spec["insecureSkipTLSVerify"] == true;
        let skip = path.child("insecureSkipTLSVerify");
        let Some(service) = walk::at(spec, "service") else {
            if let Some(bundle) = bundle {
                let why = "local APIServices may not have a caBundle";
                let bytes = format!("{} bytes", bundle.len() / 4 * 3);
                errors.push(FieldError::invalid(&path.child("caBundle"), bytes, why));
            }
            if blind {
                errors.push(FieldError::invalid(&skip, true, "local APIServices may not have insecureSkipTLSVerify"));
            }
            return errors;
        };
        for field in ["namespace", "name"] {
            rules::required(&mut errors, service, field, &path.child("service"));
        }
        if blind && bundle.is_some() {
            errors.push(FieldError::invalid(&skip, true, "may not be true if caBundle is present"));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status").child("conditions");
        for (index, condition) in walk::list(new, "status.conditions").iter().enumerate() {
            rules::required_choice(&mut errors, condition, "status", &path.index(index), &["True", "False", "Unknown"]);
        }
        errors
    }

    fn name_problems(&self, name: &str) -> Vec<String> {
        names::path_segment(name)
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let service = walk::at(object, "spec.service").map_or_else(
            || "Local".to_owned(),
            |service| {
                let text = |field: &str| walk::text(service, field).unwrap_or_default();
                format!("{}/{}", text("namespace"), text("name"))
            },
        );
        let available = walk::list(object, "status.conditions").iter().find(|c| c["type"] == "Available");
        let available = available.map_or_else(
            || "Unknown".to_owned(),
            |condition| match (walk::text(condition, "status"), walk::text(condition, "reason")) {
                (Some("True"), _) => "True".to_owned(),
                (status, reason) => format!("{} ({})", status.unwrap_or("Unknown"), reason.unwrap_or_default()),
            },
        );
        vec![cells::name(object), service.into(), available.into(), cells::age(object, now)]
    }
}
