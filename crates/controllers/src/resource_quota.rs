//! ResourceQuotas say what they limit and how much of it is used. The API server notes what is new; here follows what goes.

use std::time::Duration;

use client::Resource;
use jiff::Timestamp;
use kinds::Now;
use kinds::quota::{self, Amounts};
use object_model::{Quantity, meta};
use serde_json::{Value, json};

use crate::runner::NAMESPACED;
use crate::{
    Action, BUDGETS, CLAIMS, CONTROLLER_REVISIONS, CRON_JOBS, Controller, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES,
    ENDPOINTS, INGRESSES, JOBS, Key, Objects, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Read, SERVICES,
    STATEFUL_SETS, Writes, core, root_ca::CONFIG_MAPS, service_account::SERVICE_ACCOUNTS,
};

const QUOTAS: Resource = core("resourcequotas");
pub(crate) const SECRETS: Resource = core("secrets");
const RESOURCE_CLAIMS: Resource = Resource { group: "resource.k8s.io", version: "v1", plural: "resourceclaims" };

pub(crate) const CONTROLLER: Controller = Controller {
    name: "resourcequota-controller",
    subject: QUOTAS,
    reads: &[
        Read { resource: PODS, wakes },
        Read { resource: SERVICES, wakes },
        Read { resource: CLAIMS, wakes },
        Read { resource: RESOURCE_CLAIMS, wakes },
        Read { resource: CONFIG_MAPS, wakes },
        Read { resource: SECRETS, wakes },
        Read { resource: SERVICE_ACCOUNTS, wakes },
        Read { resource: REPLICATION_CONTROLLERS, wakes },
        Read { resource: REPLICA_SETS, wakes },
        Read { resource: DEPLOYMENTS, wakes },
        Read { resource: STATEFUL_SETS, wakes },
        Read { resource: DAEMON_SETS, wakes },
        Read { resource: JOBS, wakes },
        Read { resource: CRON_JOBS, wakes },
        Read { resource: INGRESSES, wakes },
        Read { resource: ENDPOINTS, wakes },
        Read { resource: ENDPOINT_SLICES, wakes },
        Read { resource: CONTROLLER_REVISIONS, wakes },
        Read { resource: BUDGETS, wakes },
    ],
    writes: &[Writes::Status],
    plan,
};

/// How often quotas are counted anew of which nothing tells that something has gone: of other kinds, and of pods that end.
const RECHECK: Duration = Duration::from_secs(1);

fn wakes(object: &Value, objects: &dyn Objects) -> Vec<Key> {
    let quotas = objects.list(QUOTAS, meta::namespace(object));
    quotas.iter().map(|quota| (quota.namespace.clone(), quota.name.clone())).collect()
}

fn plan(quota: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let namespace = meta::namespace(quota);
    let hard = &quota["spec"]["hard"];
    let mut used = Amounts::new();
    let mut recheck = false;
    for resource in NAMESPACED.iter().copied().chain(objects.custom().into_iter().map(|(resource, _)| resource)) {
        let (group, plural) = (resource.group, resource.plural);
        let counted = quota::counted_of(group, plural, hard);
        if counted.is_empty() || !quota::is_counted(group, plural) {
            continue;
        }
        let told = resource == QUOTAS || CONTROLLER.reads.iter().any(|read| read.resource == resource);
        recheck |= !told;
        let held = objects.list(resource, namespace);
        let mut sums: Amounts = counted.iter().map(|name| ((*name).to_owned(), Quantity::whole(0))).collect();
        for object in &held {
            // Of what uses no more than a place the object itself is not kept.
            let usage = quota::usage(group, plural, &object.object, Now(now));
            recheck |= meta::deletion_timestamp(&object.object).is_some();
            if usage.is_in_scope(quota) {
                for (name, sum) in &mut sums {
                    *sum = usage.amounts.get(name).map_or_else(|| sum.clone(), |amount| sum.plus(amount));
                }
            }
        }
        used.extend(sums);
    }
    let used: serde_json::Map<String, Value> =
        used.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
    let mut actions = Vec::new();
    let status = json!({"hard": if hard.is_object() { hard.clone() } else { json!({}) }, "used": used});
    if ["hard", "used"].iter().any(|field| quota["status"][field] != status[field]) {
        let mut object = quota.clone();
        object["status"] = status;
        actions.push(Action::Update {
            resource: QUOTAS,
            namespace: namespace.to_owned(),
            name: meta::name(quota).to_owned(),
            subresource: "status",
            object,
        });
    }
    actions.extend(recheck.then_some(Action::Again(RECHECK)));
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    fn quota(hard: Value) -> Value {
        json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}})
    }

    #[test]
    fn what_is_used_follows_from_what_is_there() {
        let pod = |name: &str, phase: &str| {
            json!({
                "metadata": {"name": name, "namespace": "a"}, "status": {"phase": phase},
                "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "200m"}}}]},
            })
        };
        let widgets = Resource { group: "example.com", version: "v1", plural: "widgets" };
        let mut objects = Fixed::default()
            .with(PODS, pod("one", "Running"))
            .with(PODS, pod("two", "Running"))
            .with(PODS, pod("three", "Succeeded"))
            .with(SECRETS, json!({"metadata": {"name": "s", "namespace": "b"}}))
            .with(widgets, json!({"metadata": {"name": "w", "namespace": "a"}}));
        objects.1.push((widgets, true));
        let hard = json!({
            "pods": "5", "count/pods": "5", "requests.cpu": "1", "secrets": "1", "count/widgets.example.com": "3",
        });
        let text = brief(&plan(&quota(hard.clone()), &objects, now()).expect("a plan"));
        let used = json!({
            "count/pods": "3", "count/widgets.example.com": "1", "pods": "2", "requests.cpu": "400m", "secrets": "0",
        });
        let status = json!({"hard": hard, "used": used});
        assert_eq!(text, format!("update resourcequotas q status {status}\nagain in 1s\n"));
    }

    #[test]
    fn a_quota_that_is_right_is_left_alone() {
        let mut quota = quota(json!({"configmaps": "2"}));
        quota["status"] = json!({"hard": {"configmaps": "2"}, "used": {"configmaps": "1"}});
        let objects = Fixed::default().with(CONFIG_MAPS, json!({"metadata": {"name": "m", "namespace": "a"}}));
        assert_eq!(brief(&plan(&quota, &objects, now()).expect("a plan")), "");
    }
}
