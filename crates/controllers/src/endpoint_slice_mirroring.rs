//! Endpoints that somebody wrote by hand become EndpointSlices, which is where everybody looks.

use std::collections::BTreeMap;

use object_model::meta::{self, OwnerReference};
use serde_json::{Value, json};

use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME, delete, same_ports, service_of};
use crate::service_pods::is_selecting;
use crate::{Action, Controller, ENDPOINT_SLICES, ENDPOINTS, Key, Object, Objects, Read, SERVICES, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpointslicemirroring-controller",
    subject: ENDPOINTS,
    reads: &[Read { resource: SERVICES, wakes: of_same_name }, Read { resource: ENDPOINT_SLICES, wakes: service_of }],
    writes: &[Writes::Children(ENDPOINT_SLICES)],
    plan,
};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label that says that there are slices already.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// An annotation of Endpoints that were never meant to lead anywhere: they served as a lock.
const LOCK: &str = "control-plane.alpha.kubernetes.io/leader";
/// What `kubectl apply` notes is of the Endpoints alone.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most endpoints of one set of ports (upstream's default).
const MOST: usize = 1000;

fn of_same_name(service: &Value, _: &dyn Objects) -> Vec<Key> {
    vec![(meta::namespace(service).to_owned(), meta::name(service).to_owned())]
}

/// Whether these are to be mirrored: somebody wrote them for a Service that selects no pods.
fn is_meant(endpoints: &Value, objects: &dyn Objects) -> bool {
    let service = objects.get(SERVICES, meta::namespace(endpoints), meta::name(endpoints));
    service.is_some_and(|service| !is_selecting(&service.object))
        && endpoints["metadata"]["labels"][SKIP] != "true"
        && endpoints["metadata"]["annotations"][LOCK].is_null()
        && meta::deletion_timestamp(endpoints).is_none()
}

fn plan(endpoints: &Value, objects: &dyn Objects, _now: jiff::Timestamp) -> anyhow::Result<Vec<Action>> {
    let mut slices = objects.list(ENDPOINT_SLICES, meta::namespace(endpoints));
    slices.retain(|slice| {
        let labels = &slice.object["metadata"]["labels"];
        labels[SERVICE_NAME] == meta::name(endpoints) && labels[MANAGED_BY] == MANAGER
    });
    let wanted = if is_meant(endpoints, objects) { mirrored(endpoints) } else { Vec::new() };
    let mut actions = Vec::new();
    for slice in wanted {
        let same = |other: &Object| {
            other.object["addressType"] == slice["addressType"] && same_ports(&other.object["ports"], &slice["ports"])
        };
        match slices.iter().position(same) {
            Some(at) => actions.extend(update(&slices.swap_remove(at), slice)),
            None => actions.push(Action::Create {
                resource: ENDPOINT_SLICES,
                namespace: meta::namespace(endpoints).to_owned(),
                object: slice,
                event: None,
            }),
        }
    }
    actions.extend(slices.iter().map(delete));
    Ok(actions)
}

/// The slices of some Endpoints: one for each family of addresses and each set of ports.
fn mirrored(endpoints: &Value) -> Vec<Value> {
    let mut groups: BTreeMap<(&str, String), (&Value, Vec<Value>)> = BTreeMap::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            for address in subset[field].as_array().into_iter().flatten() {
                let ip = address["ip"].as_str().unwrap_or_default();
                let family = if ip.contains(':') { "IPv6" } else { "IPv4" };
                let group = groups.entry((family, subset["ports"].to_string()));
                let (_, group) = group.or_insert_with(|| (&subset["ports"], Vec::new()));
                if group.len() < MOST {
                    group.push(endpoint(address, ready));
                }
            }
        }
    }
    let metadata = metadata(endpoints);
    let slice = |((family, _), (ports, group)): ((&str, String), (&Value, Vec<Value>))| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family, "metadata": metadata,
            "endpoints": group, "ports": ports.as_array().map(|ports| ports.iter().map(port).collect::<Vec<_>>()),
        })
    };
    groups.into_iter().map(slice).collect()
}

fn metadata(endpoints: &Value) -> Value {
    let of = &endpoints["metadata"];
    let mut labels = if of["labels"].is_object() { of["labels"].clone() } else { json!({}) };
    labels[SERVICE_NAME] = meta::name(endpoints).into();
    labels[MANAGED_BY] = MANAGER.into();
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Endpoints".to_owned(),
        name: meta::name(endpoints).to_owned(),
        uid: meta::uid(endpoints).to_owned(),
        controller: true,
        block_owner_deletion: true,
    };
    let mut metadata = json!({
        "generateName": format!("{}-", meta::name(endpoints)), "namespace": meta::namespace(endpoints),
        "labels": labels, "ownerReferences": [owner.to_value()],
    });
    let mut annotations = of["annotations"].as_object().cloned().unwrap_or_default();
    annotations.remove(APPLIED);
    if !annotations.is_empty() {
        metadata["annotations"] = annotations.into();
    }
    metadata
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}

/// A port of a slice, with the name and the protocol that it has where none is given.
fn port(of: &Value) -> Value {
    let mut port = of.clone();
    for (field, usual) in [("name", ""), ("protocol", "TCP")] {
        if port[field].is_null() {
            port[field] = usual.into();
        }
    }
    port
}

/// Makes a slice what it should be, if it is not.
fn update(slice: &Object, wanted: Value) -> Option<Action> {
    let mut object = slice.object.clone();
    object["apiVersion"] = wanted["apiVersion"].clone();
    object["kind"] = wanted["kind"].clone();
    object["endpoints"] = wanted["endpoints"].clone();
    for field in ["labels", "annotations"] {
        meta::set(&mut object, field, wanted["metadata"][field].clone());
    }
    let is = &slice.object;
    let same = ["labels", "annotations"].iter().all(|field| is["metadata"][field] == object["metadata"][field])
        && is["endpoints"] == object["endpoints"];
    (!same).then(|| Action::Update {
        resource: ENDPOINT_SLICES,
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
        subresource: "",
        object,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, now};

    fn service(selector: Value) -> Value {
        json!({"metadata": {"name": "s", "namespace": "d", "uid": "s"}, "spec": {"selector": selector}})
    }

    fn endpoints(address: &str) -> Value {
        json!({
            "metadata": {"name": "s", "namespace": "d", "uid": "e", "labels": {"a": "b"}},
            "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "p", "port": 80, "protocol": "TCP"}]}],
        })
    }

    fn made(endpoints: &Value) -> Value {
        let objects = Fixed::default().with(SERVICES, service(Value::Null));
        match plan(endpoints, &objects, now()).expect("a plan").remove(0) {
            Action::Create { object, .. } => object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn endpoints_by_hand_become_a_slice_that_belongs_to_them() {
        let slice = made(&endpoints("10.1.2.3"));
        assert_eq!(slice["endpoints"], json!([{"addresses": ["10.1.2.3"], "conditions": {"ready": true}}]));
        assert_eq!((&slice["addressType"], &slice["ports"][0]["port"]), (&json!("IPv4"), &json!(80)));
        assert_eq!(slice["metadata"]["labels"], json!({"a": "b", SERVICE_NAME: "s", MANAGED_BY: MANAGER}));
        assert_eq!(slice["metadata"]["ownerReferences"][0]["kind"], "Endpoints");
    }

    #[test]
    fn a_change_is_written_once_and_a_selector_ends_the_mirroring() {
        let mut slice = made(&endpoints("10.1.2.3"));
        slice["metadata"]["name"] = "s-1".into();
        let with =
            |selector: Value| Fixed::default().with(SERVICES, service(selector)).with(ENDPOINT_SLICES, slice.clone());
        let plan = |address: &str, objects: &Fixed| plan(&endpoints(address), objects, now()).expect("a plan");
        assert_eq!(plan("10.1.2.3", &with(Value::Null)), []);
        let [Action::Update { object, .. }] = &plan("10.2.3.4", &with(Value::Null))[..] else { panic!("no update") };
        assert_eq!(object["endpoints"][0]["addresses"], json!(["10.2.3.4"]));
        let ended = plan("10.1.2.3", &with(json!({"app": "x"})));
        assert!(matches!(&ended[..], [Action::Delete { name, .. }] if name == "s-1"), "{ended:?}");
    }

    #[test]
    fn what_has_slices_already_or_is_a_lock_is_left_alone() {
        let objects = Fixed::default().with(SERVICES, service(Value::Null));
        for (field, key, value) in [("labels", SKIP, "true"), ("annotations", LOCK, "x")] {
            let mut endpoints = endpoints("10.1.2.3");
            endpoints["metadata"][field][key] = value.into();
            assert_eq!(plan(&endpoints, &objects, now()).expect("a plan"), []);
        }
        assert_eq!(plan(&endpoints("10.1.2.3"), &Fixed::default(), now()).expect("a plan"), []);
    }
}
