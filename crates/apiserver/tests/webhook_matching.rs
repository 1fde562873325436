//! Which requests webhooks are asked about, and what they are told.

mod cluster;
mod hooks;
mod peer;

use cluster::{ACCOUNTS, Cluster, DEPLOYMENTS, MAPS, PODS, deployment, labelled, map, pod};
use hooks::{CONFIGURATIONS, Hooks, MUTATING, VALIDATING, configuration, entry, patch};
use serde_json::{Value, json};
use store::{Durability, Expect, Op, Store, Write};

/// Rules for all operations on a resource of the core group.
fn all(resource: &str) -> Value {
    json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}])
}

/// A webhook that consents to everything.
async fn consenting() -> Hooks {
    Hooks::start(|_, _| json!({"allowed": true})).await
}

/// What has been asked, in short.
fn brief(hooks: &Hooks) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let line = |request: Value| {
        let resource = text(&request["resource"]["resource"]);
        let resource = match request["subResource"].as_str() {
            Some(sub) => format!("{resource}/{sub}"),
            None => resource,
        };
        format!("{} {resource} {}", text(&request["operation"]), text(&request["name"]))
    };
    hooks.take().into_iter().map(|(_, request)| line(request)).collect()
}

#[tokio::test]
async fn a_review_tells_all_of_the_request() {
    let cluster = Cluster::start().await;
    let hooks = consenting().await;
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "v.example.com", all("configmaps"))])).await.ok();
    let mut user = auth::User::authenticated("eve", &["system:masters"]);
    user.uid = "7".to_owned();
    user.extra.insert("example.com/x".to_owned(), vec!["y".to_owned()]);
    let path = format!("{MAPS}?fieldManager=me&fieldValidation=Strict");
    let made = cluster.raw_as(Some(user), "POST", &path, &[], map("m").to_string()).await.ok();
    let (query, review) = hooks.last.lock().expect("a lock").clone();
    assert_eq!(query, "timeout=10s");
    assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("AdmissionReview"), &json!("admission.k8s.io/v1")));
    let mut request = review["request"].clone();
    assert!(request["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{request}");
    assert_eq!(request["object"]["metadata"]["uid"], made["metadata"]["uid"]);
    for field in ["uid", "object"] {
        request.as_object_mut().expect("an object").remove(field);
    }
    let (kind, resource) = (
        json!({"group": "", "version": "v1", "kind": "ConfigMap"}),
        json!({"group": "", "version": "v1", "resource": "configmaps"}),
    );
    assert_eq!(
        request,
        json!({
            "kind": kind, "requestKind": kind, "resource": resource, "requestResource": resource,
            "name": "m", "namespace": "default", "operation": "CREATE", "oldObject": null, "dryRun": false,
            "userInfo": {
                "username": "eve", "uid": "7", "groups": ["system:masters", "system:authenticated"],
                "extra": {"example.com/x": ["y"]},
            },
            "options": {
                "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me",
                "fieldValidation": "Strict",
            },
        })
    );
    cluster.merge(&format!("{MAPS}/m"), json!({"data": {"a": "2"}})).await.ok();
    let (_, request) = hooks.take().remove(1);
    assert_eq!((&request["operation"], &request["options"]["kind"]), (&json!("UPDATE"), &json!("UpdateOptions")));
    assert_eq!((&request["oldObject"]["data"]["a"], &request["object"]["data"]["a"]), (&json!("1"), &json!("2")));
    assert_eq!(request["oldObject"]["kind"], "ConfigMap");
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    cluster.raw("DELETE", &format!("{MAPS}/m"), &[], options.to_string()).await.ok();
    let (_, request) = hooks.take().remove(0);
    assert_eq!((&request["object"], &request["oldObject"]["data"]["a"]), (&Value::Null, &json!("2")));
    assert_eq!(
        request["options"],
        json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0})
    );
}

#[tokio::test]
async fn the_older_form_of_reviews_is_spoken_where_it_is_wanted_first() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": true, "uid": "whatever"})).await;
    let mut old = entry(&hooks, "v.example.com", all("configmaps"));
    old["admissionReviewVersions"] = json!(["v2", "v1beta1", "v1"]);
    cluster.post(VALIDATING, configuration("v", [old])).await.ok();
    cluster.post(MAPS, map("m")).await.ok();
    assert_eq!(hooks.last.lock().expect("a lock").1["apiVersion"], "admission.k8s.io/v1beta1");
}

#[tokio::test]
async fn selectors_leave_namespaces_and_objects_out() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": false})).await;
    let mut hook = entry(&hooks, "v.example.com", all("*"));
    hook["namespaceSelector"] = json!({"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]});
    hook["objectSelector"] = json!({"matchLabels": {"tier": "a"}});
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
    cluster.post(MAPS, labelled("old", "a")).await.ok();
    cluster.post(VALIDATING, configuration("v", [hook])).await.ok();
    assert_eq!(cluster.post(MAPS, labelled("x", "a")).await.code, 400);
    cluster.post(MAPS, labelled("x", "b")).await.ok();
    // What it was counts as well as what it is to be.
    assert_eq!(cluster.merge(&format!("{MAPS}/x"), json!({"metadata": {"labels": {"tier": "a"}}})).await.code, 400);
    assert_eq!(cluster.merge(&format!("{MAPS}/old"), json!({"metadata": {"labels": {"tier": "b"}}})).await.code, 400);
    // A namespace is selected by the labels that it is to have itself.
    let namespace = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
    assert_eq!(cluster.post("/api/v1/namespaces", namespace("n", json!({"tier": "a"}))).await.code, 400);
    cluster.post("/api/v1/namespaces", namespace("n", json!({"tier": "a", "skip": "yes"}))).await.ok();
    cluster.post("/api/v1/namespaces/n/configmaps", labelled("x", "a")).await.ok();
    cluster.delete(&path).await.ok();
    cluster.merge(&format!("{MAPS}/old"), json!({"metadata": {"labels": {"tier": "b"}}})).await.ok();
}

#[tokio::test]
async fn scopes_and_subresources_are_told_apart() {
    let cluster = Cluster::start().await;
    let hooks = consenting().await;
    let rule = |scope: &str, resource: &str| {
        let mut rules = all(resource);
        rules[0]["scope"] = scope.into();
        rules
    };
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "v.example.com", rule("Cluster", "*"))])).await.ok();
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.ok();
    cluster.post(PODS, pod("p", "")).await.ok();
    assert_eq!(brief(&hooks), ["CREATE namespaces n"]);
    let hook =
        |scope: &str, resource: &str| json!({"webhooks": [entry(&hooks, "v.example.com", rule(scope, resource))]});
    cluster.merge(&path, hook("Namespaced", "*/*")).await.ok();
    cluster.merge("/api/v1/namespaces/n", json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    let status = json!({"status": {"phase": "Running"}});
    cluster.merge(&format!("{PODS}/p/status"), status.clone()).await.ok();
    assert_eq!(brief(&hooks), ["UPDATE pods/status p"]);
    cluster.merge(&path, hook("*", "pods")).await.ok();
    cluster.merge(&format!("{PODS}/p/status"), status).await.ok();
    assert_eq!(brief(&hooks).len(), 0);
    cluster.merge(&format!("{PODS}/p"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(brief(&hooks), ["UPDATE pods p"]);
}

#[tokio::test]
async fn bindings_evictions_and_tokens_are_judged() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, request| match request["subResource"].as_str() {
        Some("token") => patch(json!([{"op": "replace", "path": "/spec/expirationSeconds", "value": 900}])),
        Some("eviction") => json!({"allowed": false, "status": {"message": "it stays"}}),
        _ => json!({"allowed": true}),
    })
    .await;
    let mut rules = all("*/*");
    rules[0]["operations"] = json!(["CREATE", "DELETE"]);
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "m.example.com", rules)])).await.ok();
    cluster.post(PODS, pod("p", "")).await.ok();
    cluster.post(&format!("{PODS}/p/binding"), json!({"target": {"name": "node"}})).await.ok();
    let (_, message) = cluster.post(&format!("{PODS}/p/eviction"), json!({"metadata": {"name": "p"}})).await.refusal();
    assert_eq!(message, "admission webhook \"m.example.com\" denied the request: it stays");
    let token = json!({"spec": {"expirationSeconds": 7200, "audiences": []}});
    let token = cluster.post(&format!("{ACCOUNTS}/default/token"), token).await.ok();
    assert_eq!(token["spec"]["expirationSeconds"], 900);
    let kinds: Vec<Value> = hooks.take().into_iter().map(|(_, request)| request["kind"]["kind"].clone()).collect();
    assert_eq!(kinds, ["Pod", "Binding", "Eviction", "TokenRequest"]);
}

#[tokio::test]
async fn conditions_keep_requests_away() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": false})).await;
    let mut hook = entry(&hooks, "v.example.com", all("configmaps"));
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
    let condition = |text: &str| json!([{"name": "one", "expression": text}]);
    hook["matchConditions"] = condition("object.metadata.name != 'skip-me'");
    cluster.post(VALIDATING, configuration("v", [hook.clone()])).await.ok();
    cluster.post(MAPS, map("skip-me")).await.ok();
    assert_eq!(cluster.post(MAPS, map("a")).await.code, 400);
    for (text, wanted) in [
        ("request.operation == 'CREATE' && request.userInfo.username == 'admin'", 400),
        ("request.resource.resource == 'configmaps' && request.namespace != 'default'", 201),
        ("oldObject == null && !request.dryRun", 400),
        ("authorizer.group('').resource('configmaps').namespace('default').check('create').allowed()", 400),
        ("!authorizer.requestResource.check('create').allowed()", 201),
        // It cannot be said, and the webhook is required.
        ("object.data.missing == 'x'", 403),
    ] {
        hook["matchConditions"] = condition(text);
        cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
        assert_eq!(cluster.post(MAPS, map("b")).await.code, wanted, "{text}");
        if wanted == 201 {
            // Creations alone are judged by these.
            cluster.delete(&format!("{MAPS}/b")).await;
            cluster.merge(&path, json!({"webhooks": []})).await.ok();
            cluster.delete(&format!("{MAPS}/b")).await;
        }
    }
    let (_, message) = cluster.post(MAPS, map("b")).await.refusal();
    assert!(
        message
            .starts_with("configmaps \"b\" is forbidden: expression 'object.data.missing == 'x'' resulted in error:"),
        "{message}"
    );
    // One condition that is false decides, whatever is wrong with the others.
    hook["matchConditions"] = json!([
        {"name": "one", "expression": "object.data.missing == 'x'"}, {"name": "two", "expression": "false"},
    ]);
    cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
    cluster.post(MAPS, map("b")).await.ok();
    hook["failurePolicy"] = "Ignore".into();
    hook["matchConditions"] = condition("object.data.missing == 'x'");
    cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
    cluster.post(MAPS, map("c")).await.ok();
}

#[tokio::test]
async fn a_request_is_shown_in_the_version_that_the_rules_name() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, request| match request["kind"]["kind"].as_str() {
        Some("Widget") => {
            patch(json!([{"op": "add", "path": "/data/mutation", "value": request["object"]["apiVersion"]}]))
        }
        _ => patch(json!([{"op": "add", "path": "/spec/targetCPUUtilizationPercentage", "value": 33}])),
    })
    .await;
    let rules = |group: &str, resource: &str| json!([{"operations": ["CREATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]);
    cluster.post(hooks::CRDS, hooks::widgets()).await.ok();
    let scalers = entry(&hooks, "scalers.example.com", rules("autoscaling", "horizontalpodautoscalers"));
    let mut widgets = entry(&hooks, "widgets.example.com", rules("example.com", "widgets"));
    cluster.post(MUTATING, configuration("m", [scalers, widgets.clone()])).await.ok();
    let scaler = json!({
        "metadata": {"name": "s"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}},
    });
    let made = cluster.post("/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", scaler).await.ok();
    assert_eq!(made["apiVersion"], "autoscaling/v2");
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 33, "{made}");
    let (_, request) = hooks.take().remove(0);
    assert_eq!(request["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!((&request["kind"]["version"], &request["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!((&request["resource"]["version"], &request["requestResource"]["version"]), (&json!("v1"), &json!("v2")));
    let path = "/apis/example.com/v2/namespaces/default/widgets";
    let made = cluster.post(path, json!({"metadata": {"name": "w"}, "data": {"given": "1"}})).await.ok();
    assert_eq!((&made["apiVersion"], &made["data"]["mutation"]), (&json!("example.com/v2"), &json!("example.com/v1")));
    // Who wants its own version exactly is not asked about another.
    widgets["matchPolicy"] = "Exact".into();
    let path_of = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/m");
    cluster.merge(&path_of, json!({"webhooks": [widgets]})).await.ok();
    let made = cluster.post(path, json!({"metadata": {"name": "x"}, "data": {"given": "1"}})).await.ok();
    assert_eq!(made["data"], json!({"given": "1"}));
}

#[tokio::test]
async fn a_dry_run_asks_those_alone_who_leave_nothing_behind() {
    let cluster = Cluster::start().await;
    let hooks = consenting().await;
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v");
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "v.example.com", all("configmaps"))])).await.ok();
    cluster.post(&format!("{MAPS}?dryRun=All"), map("a")).await.ok();
    let (_, request) = hooks.take().remove(0);
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    assert_eq!(cluster.get(&format!("{MAPS}/a")).await.code, 404);
    cluster.delete(&path).await.ok();
    // Such a webhook can only be left from another time: nobody may write one now.
    let mut hook = entry(&hooks, "v.example.com", all("configmaps"));
    hook["sideEffects"] = "Unknown".into();
    assert_eq!(cluster.post(VALIDATING, configuration("v", [hook.clone()])).await.code, 422);
    let text = format!(r#""name":"old"}},"webhooks":[{hook}]}}"#);
    let key = "validatingwebhookconfigurations/old".to_owned();
    let write = Write { key, expect: Expect::Absent, op: Op::Put(text.into()), durability: Durability::Synced };
    cluster.store.write(write).await.expect("written");
    cluster.post(VALIDATING, configuration("w", [])).await.ok();
    let (code, message) = cluster.post(&format!("{MAPS}?dryRun=All"), map("a")).await.refusal();
    let text = "admission webhook \"v.example.com\" does not support dry run";
    assert_eq!((code, message.as_str(), hooks.take().len()), (400, text, 0));
    cluster.post(MAPS, map("a")).await.ok();
}

#[tokio::test]
async fn warnings_reach_the_client_once() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": true, "warnings": ["it is old"]})).await;
    let both = ["a.example.com", "b.example.com"].map(|name| entry(&hooks, name, all("configmaps")));
    cluster.post(VALIDATING, configuration("v", both)).await.ok();
    let answer = cluster.post(MAPS, map("a")).await;
    let warnings: Vec<_> = answer.headers.get_all("warning").iter().collect();
    assert_eq!(warnings, ["299 - \"it is old\""]);
}

#[tokio::test]
async fn nobody_is_asked_about_webhooks_themselves_or_about_questions() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": false})).await;
    let anything =
        json!([{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "scope": "*"}]);
    for path in [MUTATING, VALIDATING] {
        cluster.post(path, configuration("all", [entry(&hooks, "all.example.com", anything.clone())])).await.ok();
    }
    assert_eq!(cluster.post(MAPS, map("a")).await.code, 400);
    let path = format!("{VALIDATING}/all");
    cluster.merge(&path, json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    cluster.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.ok();
    cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": "x"}})).await.ok();
    for path in [MUTATING, VALIDATING] {
        cluster.delete(path).await.ok();
    }
    cluster.post(MAPS, map("a")).await.ok();
}

#[tokio::test]
async fn definitions_and_their_objects_can_be_refused() {
    let cluster = Cluster::start().await;
    let hooks =
        Hooks::start(|_, request| json!({"allowed": request["object"]["metadata"]["labels"]["bad"].is_null()})).await;
    let rules = json!([
        {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["customresourcedefinitions", "widgets"]},
    ]);
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "v.example.com", rules)])).await.ok();
    let mut bad = hooks::widgets();
    bad["metadata"]["labels"] = json!({"bad": "yes"});
    assert_eq!(cluster.post(hooks::CRDS, bad).await.code, 400);
    cluster.post(hooks::CRDS, hooks::widgets()).await.ok();
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let widget = |labels: Value| json!({"metadata": {"name": "w", "labels": labels}});
    assert_eq!(cluster.post(path, widget(json!({"bad": "yes"}))).await.code, 400);
    cluster.post(path, widget(json!({}))).await.ok();
    assert_eq!(cluster.merge(&format!("{path}/w"), widget(json!({"bad": "yes"}))).await.code, 400);
    assert_eq!(cluster.merge(&format!("{path}/w/status"), widget(json!({"bad": "yes"}))).await.code, 200);
}

#[tokio::test]
async fn a_generated_name_is_known_to_those_who_judge_and_not_to_those_who_change() {
    let cluster = Cluster::start().await;
    let hooks = consenting().await;
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "m.example.com", all("configmaps"))])).await.ok();
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "v.example.com", all("configmaps"))])).await.ok();
    let made = cluster.post(MAPS, json!({"metadata": {"generateName": "g-"}})).await.ok();
    let asked = hooks.take();
    assert_eq!((&asked[0].1["name"], &asked[0].1["object"]["metadata"]["name"]), (&Value::Null, &Value::Null));
    assert_eq!(
        (&asked[1].1["name"], &asked[1].1["object"]["metadata"]["name"]),
        (&made["metadata"]["name"], &made["metadata"]["name"])
    );
    // Every object of a collection is judged by itself.
    cluster.post(MAPS, map("other")).await.ok();
    hooks.take();
    cluster.delete(MAPS).await.ok();
    assert_eq!(hooks.take().len(), 4);
    cluster.post(DEPLOYMENTS, deployment("d")).await.ok();
    assert_eq!(hooks.take().len(), 0);
}

#[tokio::test]
async fn managers_that_a_webhook_makes_unreadable_stay_as_they_were() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| {
        let broken =
            json!([{"manager": "x", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"odd": {}}}]);
        patch(json!([{"op": "replace", "path": "/metadata/managedFields", "value": broken}]))
    })
    .await;
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "m.example.com", all("configmaps"))])).await.ok();
    let answer = cluster.post(&format!("{MAPS}?fieldManager=me"), map("a")).await;
    assert_eq!(answer.ok()["metadata"]["managedFields"][0]["manager"], "me");
    assert!(answer.header("warning").contains("managedFields was in an invalid state after admission"));
}
