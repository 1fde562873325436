//! What clients look for in the OpenAPI documents.

use schema::openapi::{Op, type_to_model_name, v2, v3};
use serde_json::{Value, json};

fn operations() -> Vec<Op> {
    let deployment = "apps.v1.Deployment";
    let item = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}";
    let op = |path: &str, verb, body: Option<&str>, response: &str, subresource| Op {
        path: path.to_owned(),
        verb,
        kind: ("apps".into(), "v1".into(), "Deployment".into()),
        body: body.map(type_to_model_name),
        response: type_to_model_name(response),
        namespaced: true,
        subresource,
        custom: false,
        method: None,
    };
    vec![
        op("/apis/apps/v1/deployments", "list", None, "apps.v1.DeploymentList", None),
        op("/apis/apps/v1/namespaces/{namespace}/deployments", "list", None, "apps.v1.DeploymentList", None),
        op("/apis/apps/v1/namespaces/{namespace}/deployments", "create", Some(deployment), deployment, None),
        op(item, "get", None, deployment, None),
        op(item, "patch", Some(deployment), deployment, None),
        op(item, "delete", Some("meta.v1.DeleteOptions"), "meta.v1.Status", None),
        op(&format!("{item}/status"), "patch", Some(deployment), deployment, Some("status")),
    ]
}

/// Every `$ref` in the document leads somewhere.
fn assert_closed(document: &Value, value: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                let pointer = reference.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            }
            object.values().for_each(|value| assert_closed(document, value));
        }
        Value::Array(list) => list.iter().for_each(|value| assert_closed(document, value)),
        _ => {}
    }
}

#[test]
fn patch_tells_that_the_server_validates() {
    for document in [v3(("apps", "v1"), &operations(), &[]), v2(&operations(), &[])] {
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        let names: Vec<_> = patch["parameters"].as_array().into_iter().flatten().map(|p| &p["name"]).collect();
        for wanted in ["fieldValidation", "dryRun", "fieldManager", "force"] {
            assert!(names.contains(&&json!(wanted)), "{wanted} in {names:?}");
        }
        assert_eq!(patch["x-kubernetes-action"], "patch");
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
    }
}

#[test]
fn documents_are_closed() {
    let document = v3(("apps", "v1"), &operations(), &[]);
    assert_closed(&document, &document);
    let document = v2(&operations(), &[]);
    assert_closed(&document, &document);
    let ids: Vec<String> = document["paths"]
        .as_object()
        .expect("object")
        .values()
        .flat_map(|path| {
            path.as_object()
                .expect("object")
                .values()
                .filter_map(|op| op["operationId"].as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        })
        .collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "{ids:?}");
    assert!(ids.contains(&"patchAppsV1NamespacedDeploymentStatus".to_owned()), "{ids:?}");
}

#[test]
fn fields_say_how_they_are_merged() {
    let document = v3(("apps", "v1"), &operations(), &[]);
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let mut spec = deployment["properties"]["spec"].clone();
    let said = spec.as_object_mut().and_then(|spec| spec.remove("description"));
    assert!(said.is_some_and(|text| text.as_str().is_some_and(|text| !text.is_empty())));
    assert_eq!(
        spec,
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentSpec"}], "default": {}}),
    );
    assert_eq!(schemas["io.k8s.api.apps.v1.DeploymentSpec"]["required"], json!(["selector", "template"]));
    assert_eq!(schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"], "TCP");
    assert_eq!(v3(("", "v1"), &operations(), &[])["paths"], json!({}));
}

#[test]
fn the_old_paths_of_watches_answer_with_events() {
    let op = |path: &str, verb| Op {
        path: format!("/api/v1/watch{path}"),
        verb,
        kind: (String::new(), "v1".into(), "Pod".into()),
        body: None,
        response: type_to_model_name("meta.v1.WatchEvent"),
        namespaced: true,
        subresource: None,
        custom: false,
        method: None,
    };
    let here = "/namespaces/{namespace}/pods";
    let named = format!("{here}/{{name}}");
    let ops = [op("/pods", "watchlist"), op(here, "watchlist"), op(&named, "watch")];
    for document in [v3(("", "v1"), &ops, &[]), v2(&ops, &[])] {
        assert_closed(&document, &document);
        for (op, (id, action)) in ops.iter().zip([
            ("watchCoreV1PodListForAllNamespaces", "watchlist"),
            ("watchCoreV1NamespacedPodList", "watchlist"),
            ("watchCoreV1NamespacedPod", "watch"),
        ]) {
            let path = &document["paths"][&op.path];
            assert_eq!(
                (&path["get"]["operationId"], &path["get"]["x-kubernetes-action"]),
                (&json!(id), &json!(action))
            );
            assert!(path["get"]["responses"]["200"].to_string().contains("meta.v1.WatchEvent"));
            let parameters = path["parameters"].as_array().expect("parameters");
            assert!(parameters.iter().any(|one| one["name"] == "allowWatchBookmarks"));
            assert!(path.to_string().contains("application/json;stream=watch"));
        }
    }
}

#[test]
fn models_are_named_as_upstream() {
    assert_eq!(type_to_model_name("core.v1.Pod"), "io.k8s.api.core.v1.Pod");
    assert_eq!(type_to_model_name("meta.v1.ObjectMeta"), "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
}

#[test]
fn what_is_connected_to_is_described_by_its_options() {
    let op = |path: &str, sub: &'static str, kind: &str, method| Op {
        path: format!("/api/v1/namespaces/{{namespace}}/pods/{{name}}/{path}"),
        verb: "connect",
        kind: (String::new(), "v1".into(), kind.into()),
        body: None,
        response: String::new(),
        namespaced: true,
        subresource: Some(sub),
        custom: false,
        method: Some(method),
    };
    let ops = [
        op("proxy/{path}", "proxy", "PodProxyOptions", "head"),
        op("portforward", "portforward", "PodPortForwardOptions", "post"),
        op("exec", "exec", "PodExecOptions", "get"),
    ];
    let at = |document: &Value, path: &str| document["paths"][&ops[0].path.replace("proxy/{path}", path)].clone();
    for document in [v3(("", "v1"), &ops, &[]), v2(&ops, &[])] {
        assert_closed(&document, &document);
        let proxy = at(&document, "proxy/{path}");
        assert_eq!(proxy["head"]["operationId"], "connectCoreV1HeadNamespacedPodProxyWithPath");
        assert_eq!(proxy["head"]["x-kubernetes-action"], "connect");
        let kind = json!({"group": "", "version": "v1", "kind": "PodProxyOptions"});
        assert_eq!(proxy["head"]["x-kubernetes-group-version-kind"], kind);
        let forward = at(&document, "portforward");
        assert_eq!(forward["post"]["operationId"], "connectCoreV1PostNamespacedPodPortforward");
        let names = |path: &Value| -> Vec<String> {
            let parameters = path["parameters"].as_array().into_iter().flatten();
            parameters.map(|one| format!("{} in {}", one["name"], one["in"]).replace('"', "")).collect()
        };
        assert_eq!(names(&proxy), ["path in query", "name in path", "namespace in path", "path in path"]);
        let wanted =
            ["stdin", "stdout", "stderr", "tty", "container", "command"].map(|name| format!("{name} in query"));
        assert_eq!(names(&at(&document, "exec"))[..6], wanted);
    }
}
