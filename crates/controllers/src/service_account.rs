//! Every namespace has the account `default`, which pods act as that name no other.

use client::Resource;
use jiff::Timestamp;
use object_model::meta;
use serde_json::{Value, json};

use crate::{Action, Controller, Key, NAMESPACES, Objects, Read, Writes, core};

pub(crate) const SERVICE_ACCOUNTS: Resource = core("serviceaccounts");

pub(crate) const CONTROLLER: Controller = Controller {
    name: "service-account-controller",
    subject: NAMESPACES,
    reads: &[Read { resource: SERVICE_ACCOUNTS, wakes: namespace_of }],
    writes: &[Writes::Shared {
        resource: SERVICE_ACCOUNTS,
        because: "the account belongs to whoever uses the namespace",
    }],
    plan,
};

const NAME: &str = "default";

fn namespace_of(account: &Value, _objects: &dyn Objects) -> Vec<Key> {
    if meta::name(account) == NAME { vec![(String::new(), meta::namespace(account).to_owned())] } else { Vec::new() }
}

fn plan(namespace: &Value, objects: &dyn Objects, _now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let name = meta::name(namespace);
    if meta::deletion_timestamp(namespace).is_some() || objects.get(SERVICE_ACCOUNTS, name, NAME).is_some() {
        return Ok(Vec::new());
    }
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": name}});
    Ok(vec![Action::Create { resource: SERVICE_ACCOUNTS, namespace: name.to_owned(), object, event: None }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn a_namespace_gets_its_account_unless_it_is_going() {
        let mut namespace = json!({"metadata": {"name": "a"}});
        let actions = plan(&namespace, &Fixed::default(), now()).expect("a plan");
        assert_eq!(brief(&actions).trim(), "create serviceaccounts default replicas=null");
        let has = Fixed::default().with(SERVICE_ACCOUNTS, json!({"metadata": {"name": "default", "namespace": "a"}}));
        assert_eq!(plan(&namespace, &has, now()).expect("a plan"), []);
        namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(plan(&namespace, &Fixed::default(), now()).expect("a plan"), []);
    }
}
