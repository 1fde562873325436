//! ClusterRoles that gather the rules of others, like `admin`, `edit` and `view`.

use client::{Patch, Resource};
use jiff::Timestamp;
use object_model::{LabelSelector, meta};
use serde_json::{Value, json};

use crate::{Action, Controller, Key, Objects, Read, Writes};

pub(crate) const CLUSTER_ROLES: Resource =
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural: "clusterroles" };

pub(crate) const CONTROLLER: Controller = Controller {
    name: "clusterrole-aggregation-controller",
    subject: CLUSTER_ROLES,
    reads: &[Read { resource: CLUSTER_ROLES, wakes: gatherers }],
    writes: &[Writes::Shared {
        resource: CLUSTER_ROLES,
        because: "the rules of a role that gathers are this controller's",
    }],
    plan,
};

fn selectors(role: &Value) -> impl Iterator<Item = &Value> {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten()
}

/// All roles that gather: one that did take in the changed role may do so no longer.
fn gatherers(_role: &Value, objects: &dyn Objects) -> Vec<Key> {
    let roles = objects.list(CLUSTER_ROLES, "");
    roles.iter().filter(|r| r.object["aggregationRule"].is_object()).map(|r| (String::new(), r.name.clone())).collect()
}

fn plan(role: &Value, objects: &dyn Objects, _now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if !role["aggregationRule"].is_object() || meta::deletion_timestamp(role).is_some() {
        return Ok(Vec::new());
    }
    let selectors = selectors(role).map(LabelSelector::from_object).collect::<Result<Vec<_>, _>>()?;
    let mut others = objects.list(CLUSTER_ROLES, "");
    others.retain(|other| {
        other.name != meta::name(role) && selectors.iter().any(|selector| selector.matches_object(&other.object))
    });
    others.sort_by(|a, b| a.name.cmp(&b.name));
    let mut rules: Vec<&Value> = Vec::new();
    for rule in others.iter().flat_map(|other| other.object["rules"].as_array().into_iter().flatten()) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    let rules = json!(rules);
    if role["rules"] == rules || (role["rules"].is_null() && rules == json!([])) {
        return Ok(Vec::new());
    }
    Ok(vec![Action::Patch {
        resource: CLUSTER_ROLES,
        namespace: String::new(),
        name: meta::name(role).to_owned(),
        subresource: "",
        kind: Patch::Merge,
        patch: json!({"rules": rules}),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn a_role_takes_in_the_rules_of_those_it_selects() {
        let gatherer = json!({
            "metadata": {"name": "view", "labels": {"to": "edit"}}, "rules": [],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "view"}}]},
        });
        let part = |name: &str, resource: &str| json!({"metadata": {"name": name, "labels": {"to": "view"}}, "rules": [{"resources": [resource]}]});
        let roles = Fixed::default()
            .with(CLUSTER_ROLES, part("b", "pods"))
            .with(CLUSTER_ROLES, part("a", "secrets"))
            .with(CLUSTER_ROLES, part("c", "pods"))
            .with(CLUSTER_ROLES, gatherer.clone());
        let actions = plan(&gatherer, &roles, now()).expect("a plan");
        assert_eq!(
            brief(&actions).trim(),
            "patch clusterroles view  {\"rules\":[{\"resources\":[\"secrets\"]},{\"resources\":[\"pods\"]}]}"
        );
        assert_eq!(gatherers(&part("b", "pods"), &roles), [(String::new(), "view".to_owned())]);
    }
}
