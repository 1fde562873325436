//! EndpointSlices tell who is behind a Service, and in which state.

use std::collections::BTreeMap;

use object_model::meta;
use serde_json::{Value, json};

use crate::service_pods::{Backend, Port, backends, is_selecting, labels_of, owner_of, services_of, unknown_ports};
use crate::{Action, Controller, ENDPOINT_SLICES, Key, Note, Object, Objects, PODS, Read, SERVICES, Writes};

pub(crate) const CONTROLLER: Controller = Controller {
    name: "endpointslice-controller",
    subject: SERVICES,
    reads: &[Read { resource: PODS, wakes: services_of }, Read { resource: ENDPOINT_SLICES, wakes: service_of }],
    writes: &[Writes::Children(ENDPOINT_SLICES)],
    plan,
};

/// The label that names a slice's Service.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that says who keeps a slice, and this controller's value of it.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Most endpoints of one slice (upstream's default).
const SLICE_MAX: usize = 100;

pub(crate) fn service_of(slice: &Value, _: &dyn Objects) -> Vec<Key> {
    let name = slice["metadata"]["labels"][SERVICE_NAME].as_str();
    name.map(|name| (meta::namespace(slice).to_owned(), name.to_owned())).into_iter().collect()
}

fn plan(service: &Value, objects: &dyn Objects, _now: jiff::Timestamp) -> anyhow::Result<Vec<Action>> {
    if meta::deletion_timestamp(service).is_some() {
        return Ok(Vec::new());
    }
    let mut slices = objects.list(ENDPOINT_SLICES, meta::namespace(service));
    slices.retain(|slice| {
        let labels = &slice.object["metadata"]["labels"];
        labels[SERVICE_NAME] == meta::name(service) && labels[MANAGED_BY] == MANAGER
    });
    if !is_selecting(service) {
        return Ok(slices.iter().map(delete).collect());
    }
    let backends = backends(service, objects);
    let labels = labels_of(service, &[(SERVICE_NAME, meta::name(service)), (MANAGED_BY, MANAGER)]);
    let mut groups: BTreeMap<&[Port], Vec<&Backend>> = BTreeMap::new();
    for backend in &backends {
        groups.entry(&backend.ports).or_default().push(backend);
    }
    if groups.is_empty() {
        // One that is empty says that the Service has been seen.
        groups.insert(&[], Vec::new());
    }
    let mut actions = Vec::new();
    for (ports, mut group) in groups {
        let ports = json!(ports.iter().map(port_value).collect::<Vec<_>>());
        // Endpoints stay in the slice in which they are, so that a change of one rewrites one slice.
        let (own, others): (Vec<Object>, Vec<Object>) =
            slices.into_iter().partition(|slice| same_ports(&slice.object["ports"], &ports));
        slices = others;
        let mut kept: Vec<(Object, Vec<Value>)> = Vec::new();
        for slice in own {
            let mut endpoints = Vec::new();
            for endpoint in slice.object["endpoints"].as_array().into_iter().flatten() {
                let uid = &endpoint["targetRef"]["uid"];
                if let Some(at) = group.iter().position(|backend| backend.target["uid"] == *uid) {
                    endpoints.push(endpoint_value(group.swap_remove(at)));
                }
            }
            kept.push((slice, endpoints));
        }
        let mut rest = group.into_iter().map(endpoint_value).collect::<Vec<_>>();
        rest.sort_by_cached_key(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap_or_default().to_owned());
        for (_, endpoints) in &mut kept {
            let room = SLICE_MAX.saturating_sub(endpoints.len()).min(rest.len());
            endpoints.extend(rest.drain(..room));
        }
        let full = kept.iter().any(|(_, endpoints)| !endpoints.is_empty());
        let mut spare = !full && rest.is_empty();
        for (slice, endpoints) in kept {
            if endpoints.is_empty() && !std::mem::take(&mut spare) {
                actions.push(delete(&slice));
            } else {
                actions.extend(update(&slice, &labels, endpoints, &ports));
            }
        }
        if spare {
            actions.push(create(service, &labels, Vec::new(), &ports));
        }
        for endpoints in rest.chunks(SLICE_MAX) {
            actions.push(create(service, &labels, endpoints.to_vec(), &ports));
        }
    }
    actions.extend(slices.iter().map(delete));
    // Once for each change, and not at every look.
    if !actions.is_empty()
        && let Some(message) = unknown_ports(service, &backends)
    {
        actions.push(Action::Event(Note::warning(service, "UnknownTargetPort", message)));
    }
    Ok(actions)
}

pub(crate) fn same_ports(stored: &Value, wanted: &Value) -> bool {
    stored.as_array().map_or(&[][..], Vec::as_slice) == wanted.as_array().map_or(&[][..], Vec::as_slice)
}

fn port_value(port: &Port) -> Value {
    let mut value = json!({"name": port.name, "port": port.number, "protocol": port.protocol});
    if let Some(protocol) = &port.app_protocol {
        value["appProtocol"] = protocol.as_str().into();
    }
    value
}

fn endpoint_value(backend: &Backend) -> Value {
    let mut value = json!({
        "addresses": [backend.address],
        "conditions": {"ready": backend.ready, "serving": backend.serving, "terminating": backend.terminating},
        "targetRef": backend.target,
    });
    for (field, text) in [("hostname", &backend.hostname), ("nodeName", &backend.node)] {
        if let Some(text) = text {
            value[field] = text.as_str().into();
        }
    }
    value
}

fn create(service: &Value, labels: &Value, endpoints: Vec<Value>, ports: &Value) -> Action {
    Action::Create {
        resource: ENDPOINT_SLICES,
        namespace: meta::namespace(service).to_owned(),
        object: json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "generateName": format!("{}-", meta::name(service)), "namespace": meta::namespace(service),
                "labels": labels, "ownerReferences": [owner_of(service)],
            },
            "endpoints": endpoints, "ports": ports,
        }),
        event: None,
    }
}

fn update(slice: &Object, labels: &Value, endpoints: Vec<Value>, ports: &Value) -> Option<Action> {
    let mut object = slice.object.clone();
    if object["endpoints"].as_array().map_or(&[][..], Vec::as_slice) == endpoints
        && object["metadata"]["labels"] == *labels
        && same_ports(&object["ports"], ports)
    {
        return None;
    }
    object["apiVersion"] = "discovery.k8s.io/v1".into();
    object["kind"] = "EndpointSlice".into();
    object["metadata"]["labels"] = labels.clone();
    object["endpoints"] = endpoints.into();
    object["ports"] = ports.clone();
    Some(Action::Update {
        resource: ENDPOINT_SLICES,
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
        subresource: "",
        object,
    })
}

pub(crate) fn delete(slice: &Object) -> Action {
    Action::Delete {
        resource: ENDPOINT_SLICES,
        namespace: slice.namespace.clone(),
        name: slice.name.clone(),
        options: json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": slice.uid}}),
        event: None,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::testing::{Fixed, now};

    fn pod(name: &str, ready: bool, more: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "x"}},
            "spec": {"nodeName": "n", "containers": [{"ports": [{"name": "web", "containerPort": 8080}]}]},
            "status": {"podIP": format!("10.0.0.{}", name.len()), "phase": "Running",
                "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        });
        for (pointer, value) in more.as_object().into_iter().flatten() {
            let (parent, last) = pointer.rsplit_once('/').expect("a pointer");
            pod.pointer_mut(parent).expect("a parent")[last] = value.clone();
        }
        pod
    }

    fn service(target: Value) -> Value {
        json!({"metadata": {"name": "s", "namespace": "d", "uid": "s", "labels": {"team": "a"}},
            "spec": {"selector": {"app": "x"}, "clusterIP": "10.96.0.9", "ports": [{"port": 80, "targetPort": target}]}})
    }

    fn brief(actions: &[Action]) -> String {
        let endpoints = |object: &Value| -> String {
            let one = |e: &Value| {
                let c = &e["conditions"];
                let (address, ready, serving, ending) =
                    (&e["addresses"][0], &c["ready"], &c["serving"], &c["terminating"]);
                format!(" {address} ready={ready} serving={serving} terminating={ending} {}", e["hostname"])
            };
            let all: Vec<String> = object["endpoints"].as_array().into_iter().flatten().map(one).collect();
            format!("{} ports={}{}", all.len(), object["ports"], all.first().cloned().unwrap_or_default())
        };
        let line = |action: &Action| match action {
            Action::Create { object, .. } => format!("create {}\n", endpoints(object)),
            Action::Update { name, object, .. } => format!("update {name} {}\n", endpoints(object)),
            Action::Delete { name, .. } => format!("delete {name}\n"),
            Action::Event(note) => format!("event {} {}\n", note.reason, note.message),
            other => format!("{other:?}\n"),
        };
        actions.iter().map(line).collect()
    }

    fn check(service: &Value, objects: &Fixed, expected: Expect) {
        expected.assert_eq(&brief(&plan(service, objects, now()).expect("a plan")));
    }

    #[test]
    fn pods_become_endpoints_in_their_state() {
        let one = Fixed::default().with(PODS, pod("a", true, json!({})));
        check(
            &service(json!("web")),
            &one,
            expect![[r#"
            create 1 ports=[{"name":"","port":8080,"protocol":"TCP"}] "10.0.0.1" ready=true serving=true terminating=false null
        "#]],
        );
        let ending = json!({"/metadata/deletionTimestamp": "2026-01-01T00:00:00Z", "/spec/hostname": "h", "/spec/subdomain": "s"});
        let one = Fixed::default().with(PODS, pod("a", true, ending));
        check(
            &service(json!(80)),
            &one,
            expect![[r#"
            create 1 ports=[{"name":"","port":80,"protocol":"TCP"}] "10.0.0.1" ready=false serving=true terminating=true "h"
        "#]],
        );
        let done = Fixed::default().with(PODS, pod("a", true, json!({"/status/phase": "Failed"})));
        check(
            &service(json!(80)),
            &done,
            expect![[r#"
            create 0 ports=[]
        "#]],
        );
        let typo = Fixed::default().with(PODS, pod("a", true, json!({})));
        check(
            &service(json!("wbe")),
            &typo,
            expect![[r#"
            create 1 ports=[] "10.0.0.1" ready=true serving=true terminating=false null
            event UnknownTargetPort port 80: no container of the selected pods has a port that is named "wbe"
        "#]],
        );
    }

    #[test]
    fn what_is_as_it_should_be_is_not_written_and_what_changed_is_written_once() {
        let service = service(json!(80));
        let pods =
            |ready| Fixed::default().with(PODS, pod("a", true, json!({}))).with(PODS, pod("bb", ready, json!({})));
        let actions = plan(&service, &pods(true), now()).expect("a plan");
        let [Action::Create { object, .. }] = &actions[..] else { panic!("{actions:?}") };
        let mut slice = object.clone();
        slice["metadata"]["name"] = "s-1".into();
        slice["metadata"]["uid"] = "s-1".into();
        check(&service, &pods(true).with(ENDPOINT_SLICES, slice.clone()), expect![""]);
        check(
            &service,
            &pods(false).with(ENDPOINT_SLICES, slice.clone()),
            expect![[r#"
            update s-1 2 ports=[{"name":"","port":80,"protocol":"TCP"}] "10.0.0.1" ready=true serving=true terminating=false null
        "#]],
        );
        check(
            &service,
            &Fixed::default().with(ENDPOINT_SLICES, slice.clone()),
            expect![[r#"
            create 0 ports=[]
            delete s-1
        "#]],
        );
        let mut external = service.clone();
        external["spec"]["selector"] = Value::Null;
        check(
            &external,
            &pods(true).with(ENDPOINT_SLICES, slice),
            expect![[r#"
            delete s-1
        "#]],
        );
    }

    #[test]
    fn a_slice_holds_a_hundred() {
        let many = (0..250).fold(Fixed::default(), |all, n| all.with(PODS, pod(&format!("{n:03}"), true, json!({}))));
        let actions = plan(&service(json!(80)), &many, now()).expect("a plan");
        let sizes: Vec<usize> =
            (actions.iter())
                .map(|a| {
                    if let Action::Create { object, .. } = a {
                        object["endpoints"].as_array().unwrap().len()
                    } else {
                        0
                    }
                })
                .collect();
        assert_eq!(sizes, [100, 100, 50]);
    }
}
