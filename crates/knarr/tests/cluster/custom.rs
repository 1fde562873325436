//! Custom resources in a whole cluster: their objects own and are owned, and go with their namespace.

use std::fs;
use std::time::Duration;

use crate::node::{Node, eventually};

fn uid(node: &Node, what: &str) -> String {
    node.ok(&format!("get {what} -n team -o jsonpath={{.metadata.uid}}"))
}

fn gone(node: &Node, what: &str) {
    eventually(&format!("{what} goes"), || {
        node.try_kubectl(&format!("get {what}")).err.contains("not found").then_some(())
    });
}

/// Applies an object in the namespace, with an owner.
fn owned(node: &Node, head: &str, name: &str, owner: [&str; 3], uid: &str) {
    let [api_version, kind, of] = owner;
    node.apply(&format!(
        "{{{head}, metadata: {{name: {name}, namespace: team, ownerReferences: [{{apiVersion: {api_version}, kind: {kind}, \
         name: {of}, uid: {uid}}}]}}}}"
    ));
}

/// The processor time that the server has used so far, in ticks.
fn ticks(node: &Node) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.pid())).expect("read the server's times");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// The ticks used within some quiet seconds.
fn idle(node: &Node) -> u64 {
    std::thread::sleep(Duration::from_secs(2));
    let before = ticks(node);
    std::thread::sleep(Duration::from_secs(5));
    ticks(node) - before
}

const WIDGET: &str = "apiVersion: example.com/v1, kind: Widget";
const CONFIG_MAP: &str = "apiVersion: v1, kind: ConfigMap";

#[test]
fn custom_objects_own_and_are_owned_and_go_with_their_namespace() {
    let node = Node::ready();
    let idle_before = idle(&node);
    node.apply(
        "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: widgets.example.com}, spec: {group: example.com, \
         scope: Namespaced, names: {plural: widgets, kind: Widget}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: \
         {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}}]}}",
    );
    node.ok("create namespace team");
    node.apply(&format!("{{{WIDGET}, metadata: {{name: w, namespace: team}}, spec: {{size: 3}}}}"));
    owned(&node, CONFIG_MAP, "of-widget", ["example.com/v1", "Widget", "w"], &uid(&node, "widget/w"));
    node.ok("delete widget w -n team --timeout=30s");
    gone(&node, "configmap of-widget -n team");

    node.ok("create configmap m -n team");
    owned(&node, WIDGET, "of-map", ["v1", "ConfigMap", "m"], &uid(&node, "configmap/m"));
    node.ok("delete configmap m -n team --timeout=30s");
    gone(&node, "widget of-map -n team");

    let held = "{name: held, namespace: team, finalizers: [example.com/hold]}";
    node.apply(&format!("{{{WIDGET}, metadata: {held}}}"));
    owned(&node, CONFIG_MAP, "of-held", ["example.com/v1", "Widget", "held"], &uid(&node, "widget/held"));
    let idle_after = idle(&node);
    // A tick is 10 ms: what polls would use one every few looks.
    assert!(idle_after <= idle_before + 10, "{idle_before} ticks without custom resources, {idle_after} with one");
    node.ok("delete namespace team --wait=false");
    eventually("the namespace says what it waits for", || {
        let text = node.ok("get namespace team -o jsonpath={.status.conditions[*].message}");
        let told = text.contains("widgets.example.com has 1 resource instances") && text.contains("example.com/hold");
        told.then_some(())
    });
    gone(&node, "configmap of-held -n team");
    node.ok("patch widget held -n team --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    gone(&node, "namespace team");
    assert!(node.list("widgets -A").is_empty());
    let log = node.log();
    assert!(!log.contains("widgets"), "{log}");
}
