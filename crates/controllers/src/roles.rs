//! What the controllers may do: a role for each, which follows from its row.

use client::Resource;
use serde_json::{Value, json};

use crate::{CONTROLLERS, Controller, Writes, garbage_collector};

/// The controllers by name, each with the rules of its role.
pub fn rules() -> Vec<(&'static str, Value)> {
    let collector = json!([
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["delete", "get", "list", "patch", "update", "watch"]},
    ]);
    CONTROLLERS
        .iter()
        .map(|controller| (controller.name, rules_of(controller)))
        .chain([(garbage_collector::NAME, collector)])
        .collect()
}

fn rules_of(controller: &Controller) -> Value {
    let rule = |resource: Resource, names: Vec<String>, verbs: &[&str]| json!({"apiGroups": [resource.group], "resources": names, "verbs": verbs});
    let plain = |resource: Resource| vec![resource.plural.to_owned()];
    let mut rules = vec![
        json!({"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]}),
        rule(controller.subject, plain(controller.subject), &["get", "list", "watch"]),
    ];
    for read in controller.reads {
        rules.push(rule(read.resource, plain(read.resource), &["get", "list", "watch"]));
    }
    for writes in controller.writes {
        rules.push(match writes {
            Writes::Children(resource) => {
                rule(*resource, plain(*resource), &["create", "delete", "get", "list", "patch", "update", "watch"])
            }
            Writes::Status => {
                let status = format!("{}/status", controller.subject.plural);
                rule(controller.subject, vec![status], &["patch", "update"])
            }
            Writes::Shared { resource, .. } => shared(*resource, rule),
            Writes::InTheNameOf { verb, signers } => json!({
                "apiGroups": [controller.subject.group], "resources": ["signers"], "resourceNames": signers,
                "verbs": [verb],
            }),
            Writes::Anything { .. } => json!({
                "apiGroups": ["*"], "resources": ["*"], "verbs": ["delete", "deletecollection", "get", "list", "watch"],
            }),
        });
    }
    rules.dedup();
    rules.into()
}

/// The rule for a resource that a controller writes as others do, with all that lies below it.
fn shared(resource: Resource, rule: impl Fn(Resource, Vec<String>, &[&str]) -> Value) -> Value {
    let mut names = vec![resource.plural.to_owned()];
    let mut verbs = vec!["create", "delete", "get", "list", "patch", "update", "watch"];
    if let Some(row) = kinds::resource(resource.group, resource.version, resource.plural) {
        names.extend(row.subresources.iter().map(|sub| format!("{}/{}", resource.plural, sub.name)));
        if row.hooks.is_policy() {
            // It puts together what others were allowed to write.
            verbs.push("escalate");
        }
    }
    rule(resource, names, &verbs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_holds_what_its_controller_declares() {
        let all = rules();
        let (_, rules) = all.iter().find(|(name, _)| *name == "replicaset-controller").expect("a role");
        let text = rules.to_string();
        assert!(text.contains(r#""resources":["pods"],"verbs":["create","delete""#), "{text}");
        assert!(
            text.contains(r#"{"apiGroups":["apps"],"resources":["replicasets/status"],"verbs":["patch","update"]}"#)
        );
        assert!(!text.contains("secrets"), "{text}");
    }
}
