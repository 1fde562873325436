//! Custom resources: from a definition to its objects.

mod cluster;

use cluster::Cluster;
use serde_json::{Value, json};
use store::Store;

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true,
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                    "selectableFields": [{"jsonPath": ".spec.mode"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "required": ["mode"], "properties": {
                            "size": {"type": "integer", "default": 3, "maximum": 9},
                            "mode": {"type": "string", "enum": ["a", "b"]},
                            "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                                "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
                        }},
                        "status": {"type": "object", "properties": {"size": {"type": "integer"}}},
                    }}},
                },
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    })
}

fn widget(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"mode": "a", "odd": 1}, "status": {"size": 1}})
}

#[tokio::test]
async fn a_definition_is_served_from_the_moment_it_is_written() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get(WIDGETS).await.code, 404);
    let made = cluster.post(CRDS, definition()).await.ok();
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["status"]["acceptedNames"]["listKind"], "WidgetList");
    let group = cluster.get("/apis/example.com").await.ok();
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let list = cluster.get("/apis/example.com/v1").await.ok();
    let names: Vec<&str> =
        list["resources"].as_array().expect("list").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["widgets", "widgets/scale", "widgets/status"]);
    let index = cluster.get("/openapi/v3").await.ok();
    let path = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("a path");
    let document = cluster.get(path).await.ok();
    let model = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(model["properties"]["spec"]["properties"]["size"]["default"], 3);
    assert_eq!(
        model["x-kubernetes-group-version-kind"],
        json!([{"group": "example.com", "version": "v1", "kind": "Widget"}])
    );
    assert!(cluster.get("/openapi/v2").await.ok()["definitions"]["com.example.v1.WidgetList"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_learns_of_a_definition_by_a_watch_is_served_as_well() {
    let cluster = Cluster::start().await;
    let mut watch = cluster.store.watch("customresourcedefinitions/", cluster.store.revision()).expect("watch");
    let follow = async {
        for number in 0..20 {
            watch.next().await.expect("an event");
            let answer = cluster.get(&format!("/apis/example.com/v1/things{number}")).await;
            assert_eq!(answer.code, 200, "things{number}");
        }
    };
    let define = async {
        for number in 0..20 {
            let mut one = definition();
            one["metadata"]["name"] = format!("things{number}.example.com").into();
            one["spec"]["names"] = json!({"plural": format!("things{number}"), "kind": format!("Thing{number}")});
            cluster.post(CRDS, one).await.ok();
        }
    };
    tokio::join!(follow, define);
}

#[tokio::test]
async fn names_that_become_free_go_to_who_waits_for_them() {
    let cluster = Cluster::start().await;
    cluster.post(CRDS, definition()).await.ok();
    let mut other = definition();
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"]});
    let waits = cluster.post(CRDS, other).await.ok();
    assert_eq!(waits["status"]["conditions"][0]["reason"], "PluralConflict");
    assert_eq!(cluster.get("/apis/example.com/v1/gadgets").await.code, 404);
    cluster.delete(&format!("{CRDS}/widgets.example.com")).await.ok();
    cluster.until("the first is gone", || cluster.store.count("customresourcedefinitions/") == 1).await;
    for _ in 0..100 {
        if cluster.get("/apis/example.com/v1/gadgets").await.code == 200 {
            let settled = cluster.get(&format!("{CRDS}/gadgets.example.com")).await.ok();
            assert_eq!(settled["status"]["conditions"][0]["reason"], "NoConflicts");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the names are free and nobody has them");
}

#[tokio::test]
async fn nothing_new_comes_while_a_definition_goes() {
    let cluster = Cluster::start().await;
    cluster.post(CRDS, definition()).await.ok();
    let mut kept = widget("kept");
    kept["metadata"]["finalizers"] = json!(["example.com/f"]);
    cluster.post(WIDGETS, kept).await.ok();
    cluster.delete(&format!("{CRDS}/widgets.example.com")).await.ok();
    let refused = |answer: cluster::Answer| answer.code == 405;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !refused(cluster.post(&format!("{WIDGETS}?dryRun=All"), widget("new")).await) {
        assert!(std::time::Instant::now() < deadline, "objects can still be made");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let path = format!("{WIDGETS}/new?fieldManager=m");
    let new = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"mode": "a"}});
    assert!(refused(cluster.patch(&path, "application/apply-patch+yaml", new).await));
    cluster.merge(&format!("{WIDGETS}/kept"), json!({"metadata": {"finalizers": null}})).await.ok();
}

#[tokio::test]
async fn objects_are_pruned_defaulted_judged_and_shown() {
    let cluster = Cluster::start().await;
    cluster.post(CRDS, definition()).await.ok();
    let answer = cluster.post(WIDGETS, widget("w")).await;
    assert_eq!(answer.header("warning"), "299 - \"unknown field \\\"spec.odd\\\"\"");
    let made = answer.ok();
    assert_eq!((&made["spec"], made.get("status")), (&json!({"mode": "a", "size": 3}), None));
    assert_eq!(made["metadata"]["generation"], 1);
    let strict = cluster.post(&format!("{WIDGETS}?fieldValidation=Strict"), widget("x")).await;
    let why =
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.odd\"";
    assert_eq!(strict.refusal(), (400, why.to_owned()));
    let mut wrong = widget("y");
    wrong["spec"] = json!({"mode": "c", "size": "3"});
    let (code, message) = cluster.post(WIDGETS, wrong).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("spec.size in body must be of type integer: \"string\""), "{message}");
    assert!(message.contains("spec.mode: Unsupported value: \"c\": supported values: \"a\", \"b\""), "{message}");
    let older = cluster.get("/apis/example.com/v1beta1/namespaces/default/widgets/w").await;
    assert_eq!(older.header("warning"), "299 - \"example.com/v1beta1 Widget is deprecated\"");
    assert_eq!(older.ok()["apiVersion"], "example.com/v1beta1");
    let list = cluster.get(&format!("{WIDGETS}?fieldSelector=spec.mode%3Da")).await.ok();
    assert_eq!((list["kind"].as_str(), list["items"][0]["kind"].as_str()), (Some("WidgetList"), Some("Widget")));
    assert_eq!(cluster.get(&format!("{WIDGETS}?fieldSelector=spec.mode%3Db")).await.ok()["items"], json!([]));
    assert_eq!(cluster.get(&format!("{WIDGETS}?fieldSelector=spec.size%3D3")).await.code, 400);
    let scale = cluster.get(&format!("{WIDGETS}/w/scale")).await.ok();
    assert_eq!(scale["spec"]["replicas"], 3);
}

#[tokio::test]
async fn a_definition_goes_after_its_objects() {
    let cluster = Cluster::start().await;
    cluster.post(CRDS, definition()).await.ok();
    cluster.post(WIDGETS, widget("w")).await.ok();
    let going = cluster.delete(&format!("{CRDS}/widgets.example.com")).await.ok();
    assert_eq!(going["kind"], "CustomResourceDefinition");
    cluster.until("the definition is gone", || cluster.store.count("customresourcedefinitions/") == 0).await;
    assert_eq!(cluster.store.count("widgets.example.com/"), 0);
    assert_eq!(cluster.get(WIDGETS).await.code, 404);
}

#[tokio::test]
async fn definitions_that_cannot_be_are_refused() {
    let cluster = Cluster::start().await;
    let mut wrong = definition();
    wrong["metadata"]["name"] = "other".into();
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] =
        json!({"properties": {"a": {"type": "integer"}}});
    wrong["spec"]["versions"][1]["storage"] = true.into();
    let (code, message) = cluster.post(CRDS, wrong).await.refusal();
    assert_eq!(code, 422);
    for part in [
        "metadata.name: Invalid value: \"other\": must be spec.names.plural+\".\"+spec.group",
        "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        "must have exactly one version marked as storage version",
    ] {
        assert!(message.contains(part), "{part} in {message}");
    }
    cluster.post(CRDS, definition()).await.ok();
    let mut second = definition();
    second["metadata"]["name"] = "gadgets.example.com".into();
    second["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    let second = cluster.post(CRDS, second).await.ok();
    let accepted = &second["status"]["conditions"][0];
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("KindConflict")));
}

#[tokio::test]
async fn an_apply_merges_lists_by_their_keys() {
    let cluster = Cluster::start().await;
    cluster.post(CRDS, definition()).await.ok();
    let path = format!("{WIDGETS}/w");
    let apply = |manager: &'static str, parts: Value| {
        let path = format!("{path}?fieldManager={manager}");
        let body = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"mode": "a", "parts": parts}});
        let cluster = &cluster;
        async move { cluster.patch(&path, "application/apply-patch+yaml", body).await }
    };
    apply("one", json!([{"name": "a", "n": 1}])).await.ok();
    let both = apply("two", json!([{"name": "b", "n": 2}])).await.ok();
    assert_eq!(both["spec"]["parts"].as_array().map(Vec::len), Some(2));
    let (code, message) = apply("two", json!([{"name": "a", "n": 5}])).await.refusal();
    assert_eq!((code, message.contains(".spec.parts[name=\"a\"].n")), (409, true), "{message}");
    let strategic = cluster.patch(&path, "application/strategic-merge-patch+json", json!({})).await;
    assert_eq!(strategic.code, 415);
}

#[tokio::test]
async fn objects_keep_to_the_rules_of_their_definition() {
    let cluster = Cluster::start().await;
    let mut ruled = definition();
    let spec = &mut ruled["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.size != 4", "message": "four is unlucky"},
        {"rule": "self.mode == oldSelf.mode", "reason": "FieldValueForbidden", "fieldPath": ".mode"},
    ]);
    let mut wrong = ruled.clone();
    let rules = &mut wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    rules["x-kubernetes-validations"][0]["rule"] = json!("self.sise != 4");
    let (code, message) = cluster.post(CRDS, wrong).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("compilation failed: ERROR: <input>:1:5: undefined field 'sise'"), "{message}");
    cluster.post(CRDS, ruled).await.ok();
    let mut unlucky = widget("w");
    unlucky["spec"] = json!({"mode": "a", "size": 4});
    let (code, message) = cluster.post(WIDGETS, unlucky.clone()).await.refusal();
    assert_eq!((code, message.contains("spec: Invalid value: \"object\": four is unlucky")), (422, true), "{message}");
    unlucky["spec"]["size"] = json!("four");
    let (_, message) = cluster.post(WIDGETS, unlucky).await.refusal();
    assert!(message.contains("some validation rules were not checked because the object was invalid"), "{message}");
    cluster.post(WIDGETS, widget("w")).await.ok();
    let mut changed = cluster.get(&format!("{WIDGETS}/w")).await.ok();
    changed["spec"]["mode"] = json!("b");
    let (code, message) = cluster.put(&format!("{WIDGETS}/w"), changed.clone()).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("spec.mode: Forbidden: failed rule: self.mode == oldSelf.mode"), "{message}");
    changed["spec"]["mode"] = json!("a");
    changed["spec"]["size"] = json!(5);
    cluster.put(&format!("{WIDGETS}/w"), changed).await.ok();
}

/// A definition whose objects lie in the store as they are served.
fn plain_definition() -> Value {
    let mut plain = definition();
    let versions = plain["spec"]["versions"].as_array_mut().expect("versions");
    versions.truncate(1);
    plain
}

#[tokio::test]
async fn lists_and_watches_of_custom_objects_show_what_reads_of_each_show() {
    let cluster = Cluster::start().await;
    cluster.post(CRDS, plain_definition()).await.ok();
    cluster.post(WIDGETS, widget("old")).await.ok();
    let shown = async |what: &str| {
        let list = cluster.get(WIDGETS).await;
        let items = list.ok()["items"].as_array().expect("items").clone();
        // Once for the list, and for each item and its one manager: no key is there twice.
        assert_eq!(list.text().matches("\"apiVersion\"").count(), 1 + 2 * items.len(), "{what}: {}", list.text());
        for item in &items {
            let name = item["metadata"]["name"].as_str().expect("a name");
            assert_eq!(*item, cluster.get(&format!("{WIDGETS}/{name}")).await.ok(), "{what}");
            assert_eq!((&item["apiVersion"], &item["kind"]), (&json!("example.com/v1"), &json!("Widget")));
        }
        items
    };
    let items = shown("objects of the first schema").await;
    assert_eq!(items[0]["spec"], json!({"mode": "a", "size": 3}));

    // Another schema takes a field from older objects and gives them one.
    let mut changed = cluster.get(&format!("{CRDS}/widgets.example.com")).await.ok();
    let spec = &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"] = json!({"mode": {"type": "string", "default": "a"}, "odd": {"type": "integer", "default": 7}});
    changed["spec"]["versions"][0]["selectableFields"] = Value::Null;
    cluster.put(&format!("{CRDS}/widgets.example.com"), changed).await.ok();
    cluster.post(WIDGETS, widget("new")).await.ok();
    let items = shown("an older and a newer object").await;
    let specs: Vec<&Value> = items.iter().map(|item| &item["spec"]).collect();
    assert_eq!(specs, [&json!({"mode": "a", "odd": 1}), &json!({"mode": "a", "odd": 7})]);
    cluster.delete(&format!("{WIDGETS}/old")).await.ok();
    assert_eq!(shown("the newer one alone").await[0]["spec"], json!({"mode": "a", "odd": 1}));

    // Where something can be written in another form, nothing is taken as it is.
    cluster.delete(&format!("{CRDS}/widgets.example.com")).await.ok();
    cluster.until("the definition is gone", || cluster.store.count("customresourcedefinitions/") == 0).await;
    cluster.post(CRDS, definition()).await.ok();
    let beta =
        json!({"apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": {"name": "b"}, "spec": {"any": 1}});
    cluster.post(&WIDGETS.replace("/v1/", "/v1beta1/"), beta).await.ok();
    assert_eq!(shown("an object of another version").await[0]["spec"], json!({"size": 3}));
}
