//! Every namespace has the ConfigMap `kube-root-ca.crt`: the authority by which pods know the API server.

use client::{Patch, Resource};
use jiff::Timestamp;
use object_model::meta;
use serde_json::{Value, json};

use crate::{Action, Controller, Key, NAMESPACES, Objects, Read, Writes, core};

pub(crate) const CONFIG_MAPS: Resource = core("configmaps");

pub(crate) const CONTROLLER: Controller = Controller {
    name: "root-ca-certificate-publisher",
    subject: NAMESPACES,
    reads: &[Read { resource: CONFIG_MAPS, wakes: namespace_of }],
    writes: &[Writes::Shared { resource: CONFIG_MAPS, because: "one ConfigMap of each namespace is the cluster's" }],
    plan,
};

const NAME: &str = "kube-root-ca.crt";

fn namespace_of(map: &Value, _objects: &dyn Objects) -> Vec<Key> {
    if meta::name(map) == NAME { vec![(String::new(), meta::namespace(map).to_owned())] } else { Vec::new() }
}

fn plan(namespace: &Value, objects: &dyn Objects, _now: Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(namespace).is_some() {
        return Ok(Vec::new());
    }
    let name = meta::name(namespace).to_owned();
    let data = json!({"ca.crt": objects.root_ca()});
    // What the map holds is not kept in memory for this. The server writes nothing for a patch that changes nothing.
    if objects.get(CONFIG_MAPS, &name, NAME).is_some() {
        return Ok(vec![Action::Patch {
            resource: CONFIG_MAPS,
            namespace: name,
            name: NAME.to_owned(),
            subresource: "",
            kind: Patch::Merge,
            patch: json!({"data": data}),
        }]);
    }
    let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as \
                 the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
                 Kubernetes clusters.";
    let metadata = json!({"name": NAME, "namespace": name, "annotations": {"kubernetes.io/description": about}});
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
    Ok(vec![Action::Create { resource: CONFIG_MAPS, namespace: name, object, event: None }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    #[test]
    fn a_map_that_was_changed_is_set_right() {
        let namespace = json!({"metadata": {"name": "a"}});
        let actions = plan(&namespace, &Fixed::default(), now()).expect("a plan");
        assert_eq!(brief(&actions).trim(), "create configmaps kube-root-ca.crt replicas=null");
        let has = Fixed::default().with(CONFIG_MAPS, json!({"metadata": {"name": NAME, "namespace": "a"}}));
        let actions = plan(&namespace, &has, now()).expect("a plan");
        assert_eq!(brief(&actions).trim(), "patch configmaps kube-root-ca.crt  {\"data\":{\"ca.crt\":\"\"}}");
    }
}
