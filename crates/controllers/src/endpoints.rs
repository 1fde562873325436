//! Endpoints: the older form of EndpointSlices, for those who still read it.

use std::collections::BTreeMap;

use object_model::meta;
use serde_json::{Value, json};

use crate::service_pods::{Backend, Port, backends, is_selecting, labels_of, owner_of, services_of};
use crate::{Action, Controller, ENDPOINTS, Key, Objects, PODS, Read, SERVICES, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpoints-controller",
    subject: SERVICES,
    reads: &[Read { resource: PODS, wakes: services_of }, Read { resource: ENDPOINTS, wakes: service_of }],
    writes: &[Writes::Children(ENDPOINTS)],
    plan,
};

/// Most addresses of one object, and the annotation of one that had more (upstream's).
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

fn service_of(endpoints: &Value, _: &dyn Objects) -> Vec<Key> {
    vec![(meta::namespace(endpoints).to_owned(), meta::name(endpoints).to_owned())]
}

fn plan(service: &Value, objects: &dyn Objects, _now: jiff::Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(service).is_some() || !is_selecting(service) {
        return Ok(Vec::new());
    }
    let mut backends = backends(service, objects);
    // Those on their way out are known to EndpointSlices only.
    backends.retain(|backend| !backend.terminating || backend.ready);
    backends.sort_by(|a, b| a.address.cmp(&b.address));
    let over = backends.len() > MOST;
    backends.truncate(MOST);
    let mut groups: BTreeMap<&[Port], [Vec<Value>; 2]> = BTreeMap::new();
    for backend in &backends {
        let group = groups.entry(&backend.ports).or_default();
        group[usize::from(!backend.ready)].push(address_value(backend));
    }
    let subsets: Vec<Value> = groups
        .into_iter()
        .filter(|(ports, _)| !ports.is_empty() || service["spec"]["ports"].is_null())
        .map(|(ports, lists)| {
            let mut subset = json!({});
            for (field, list) in ["addresses", "notReadyAddresses"].into_iter().zip(lists) {
                if !list.is_empty() {
                    subset[field] = list.into();
                }
            }
            if !ports.is_empty() {
                subset["ports"] = ports.iter().map(port_value).collect();
            }
            subset
        })
        .collect();
    let labels = labels_of(service, &[("endpoints.kubernetes.io/managed-by", "endpoint-controller")]);
    let (namespace, name) = (meta::namespace(service), meta::name(service));
    let annotations = if over { json!({OVER_CAPACITY: "truncated"}) } else { json!({}) };
    let Some(stored) = objects.get(ENDPOINTS, namespace, name) else {
        return Ok(vec![Action::Create {
            resource: ENDPOINTS,
            namespace: namespace.to_owned(),
            object: json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": {"name": name, "namespace": namespace, "labels": labels, "annotations": annotations,
                    "ownerReferences": [owner_of(service)]},
                "subsets": subsets,
            }),
            event: None,
        }]);
    };
    let mut object = stored.object.clone();
    let had = object["metadata"]["annotations"].get(OVER_CAPACITY).is_some();
    if object["subsets"].as_array().map_or(&[][..], Vec::as_slice) == subsets
        && object["metadata"]["labels"] == labels
        && had == over
    {
        return Ok(Vec::new());
    }
    object["apiVersion"] = "v1".into();
    object["kind"] = "Endpoints".into();
    object["metadata"]["labels"] = labels;
    object["metadata"]["annotations"] = annotations;
    object["subsets"] = subsets.into();
    Ok(vec![Action::Update {
        resource: ENDPOINTS,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: "",
        object,
    }])
}

fn port_value(port: &Port) -> Value {
    let mut value = json!({"port": port.number, "protocol": port.protocol});
    for (field, text) in [("name", Some(&port.name)), ("appProtocol", port.app_protocol.as_ref())] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            value[field] = text.as_str().into();
        }
    }
    value
}

fn address_value(backend: &Backend) -> Value {
    let mut value = json!({"ip": backend.address, "targetRef": backend.target});
    for (field, text) in [("hostname", &backend.hostname), ("nodeName", &backend.node)] {
        if let Some(text) = text {
            value[field] = text.as_str().into();
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, now};

    #[test]
    fn ready_and_unready_pods_stand_apart_and_nothing_is_written_twice() {
        let pod = |name: &str, address: &str, ready: &str| {
            json!({"metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "x"}}, "spec": {},
                "status": {"podIP": address, "conditions": [{"type": "Ready", "status": ready}]}})
        };
        let service = json!({"metadata": {"name": "s", "namespace": "d", "uid": "s"},
            "spec": {"selector": {"app": "x"}, "ports": [{"port": 80, "targetPort": 8080}]}});
        let objects =
            Fixed::default().with(PODS, pod("a", "10.0.0.2", "True")).with(PODS, pod("b", "10.0.0.1", "False"));
        let actions = plan(&service, &objects, now()).expect("a plan");
        let [Action::Create { object, .. }] = &actions[..] else { panic!("{actions:?}") };
        let subset = &object["subsets"][0];
        assert_eq!(subset["addresses"][0]["ip"], "10.0.0.2");
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subset["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        let stored = objects.with(ENDPOINTS, object.clone());
        assert_eq!(plan(&service, &stored, now()).expect("a plan"), []);
    }
}
