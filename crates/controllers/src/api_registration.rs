//! APIServices of the versions that definitions make: who lists them sees all that is served.

use client::Resource;
use jiff::Timestamp;
use object_model::meta;
use serde_json::{Value, json};

use crate::custom::{Custom, DEFINITIONS};
use crate::{Action, Controller, Key, Objects, Read, Writes};

pub(crate) const API_SERVICES: Resource =
    Resource { group: "apiregistration.k8s.io", version: "v1", plural: "apiservices" };

/// The label of those that come and go with what they stand for (upstream's).
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Makes them.
pub(crate) const REGISTRAR: Controller = Controller {
    name: "crd-registration-controller",
    subject: DEFINITIONS,
    reads: &[Read { resource: API_SERVICES, wakes: definitions_of }],
    writes: &[Writes::Children(API_SERVICES)],
    plan: register,
};

/// Removes those that stand for nothing any more.
pub(crate) const CLEANER: Controller = Controller {
    name: "crd-registration-cleanup-controller",
    subject: API_SERVICES,
    reads: &[Read { resource: DEFINITIONS, wakes: services_of }],
    writes: &[Writes::Shared { resource: API_SERVICES, because: "it deletes those that the registrar made" }],
    plan: clean,
};

fn definitions_of(service: &Value, objects: &dyn Objects) -> Vec<Key> {
    let all = objects.list(DEFINITIONS, "");
    let same = all.iter().filter(|one| one.object["spec"]["group"] == service["spec"]["group"]);
    same.map(|one| (String::new(), one.name.clone())).collect()
}

fn services_of(definition: &Value, objects: &dyn Objects) -> Vec<Key> {
    let all = objects.list(API_SERVICES, "");
    let same = all.iter().filter(|one| one.object["spec"]["group"] == definition["spec"]["group"]);
    same.map(|one| (String::new(), one.name.clone())).collect()
}

fn register(definition: &Value, objects: &dyn Objects, _now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let Some(custom) = Custom::of(definition) else { return Ok(Vec::new()) };
    let group = custom.resource.group;
    let missing = |version: &&String| objects.get(API_SERVICES, "", &format!("{version}.{group}")).is_none();
    let create = |version: &String| Action::Create {
        resource: API_SERVICES,
        namespace: String::new(),
        object: json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: "true"}},
            // After the built-in groups, as upstream has it.
            "spec": {"group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 100},
        }),
        event: None,
    };
    Ok(custom.versions().iter().filter(missing).map(create).collect())
}

fn clean(service: &Value, objects: &dyn Objects, _now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let (group, version) = (&service["spec"]["group"], &service["spec"]["version"]);
    let served = |custom: Custom| {
        *group == custom.resource.group && custom.versions().iter().any(|served| *version == served.as_str())
    };
    if service["metadata"]["labels"][MANAGED] != "true"
        || objects.list(DEFINITIONS, "").iter().filter_map(|one| Custom::of(&one.object)).any(served)
    {
        return Ok(Vec::new());
    }
    Ok(vec![Action::Delete {
        resource: API_SERVICES,
        namespace: String::new(),
        name: meta::name(service).to_owned(),
        options: json!({"preconditions": {"uid": meta::uid(service)}}),
        event: None,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    fn definition(version: &str) -> Value {
        json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "versions": [{"name": version, "served": true, "storage": true}, {"name": "v0", "served": false}],
            },
            "status": {
                "acceptedNames": {"plural": "widgets", "kind": "Widget"},
                "conditions": [{"type": "Established", "status": "True"}],
            },
        })
    }

    fn service(name: &str, managed: &str) -> Value {
        let (version, group) = name.split_once('.').expect("a version and a group");
        json!({"metadata": {"name": name, "labels": {MANAGED: managed}}, "spec": {"group": group, "version": version}})
    }

    #[test]
    fn each_version_that_a_definition_serves_has_an_api_service_and_no_other() {
        let there = Fixed::default().with(DEFINITIONS, definition("v1"));
        let made = register(&definition("v1"), &there, now()).expect("a plan");
        assert_eq!(brief(&made).trim(), "create apiservices v1.example.com replicas=null");
        let there = there.with(API_SERVICES, service("v1.example.com", "true"));
        assert!(register(&definition("v1"), &there, now()).expect("a plan").is_empty());
        assert!(clean(&service("v1.example.com", "true"), &there, now()).expect("a plan").is_empty());
        assert!(clean(&service("v1.apps", "onstart"), &there, now()).expect("a plan").is_empty());
        let gone = clean(&service("v0.example.com", "true"), &there, now()).expect("a plan");
        assert!(matches!(&gone[..], [Action::Delete { name, .. }] if name == "v0.example.com"));
        assert_eq!(services_of(&definition("v1"), &there), [(String::new(), "v1.example.com".to_owned())]);
    }
}
