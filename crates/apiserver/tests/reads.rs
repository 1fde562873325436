//! Reading objects: pages, revisions, views, discovery, schemas, refusals.

mod cluster;

use auth::User;
use cluster::{Cluster, DEPLOYMENTS, MAPS, PODS, deployment, labelled, map, pod, revision};
use serde_json::{Value, json};
use store::Store;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|i| i["metadata"]["name"].as_str()).collect()
}

#[tokio::test]
async fn pages_come_from_one_snapshot_and_expire_with_a_way_to_go_on() {
    let c = Cluster::start().await;
    for name in ["a", "b", "c", "d"] {
        c.post(MAPS, map(name)).await.ok();
    }
    let first = c.get(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(2)));
    assert!(first["items"][0].get("kind").is_none());
    c.delete(&format!("{MAPS}/c")).await.ok();
    let next = format!("{MAPS}?limit=2&continue={}", first["metadata"]["continue"].as_str().expect("a token"));
    let second = c.get(&next).await.ok();
    assert_eq!((names(&second), revision(&second)), (vec!["c", "d"], revision(&first)));
    assert!(second["metadata"].get("continue").is_none());
    assert_eq!(c.get(&format!("{next}&resourceVersion=1")).await.code, 400);
    c.store.compact(c.store.revision()).await.expect("compact");
    let expired = c.get(&next).await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")));
    let token = expired.json()["metadata"]["continue"].as_str().expect("a token").to_owned();
    assert_eq!(names(&c.get(&format!("{MAPS}?continue={token}")).await.ok()), ["d"]);
}

#[tokio::test]
async fn a_list_can_be_of_an_exact_revision() {
    let c = Cluster::start().await;
    let at = revision(&c.post(MAPS, map("a")).await.ok());
    c.post(MAPS, map("b")).await.ok();
    let exact = c.get(&format!("{MAPS}?resourceVersion={at}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!((names(&exact), revision(&exact)), (vec!["a"], at));
}

#[tokio::test]
async fn a_revision_of_the_future_is_waited_for_and_then_refused() {
    let c = Cluster::start().await;
    let refused = c.get(&format!("{MAPS}?resourceVersion=99999999")).await;
    let (code, message) = refused.refusal();
    assert_eq!((code, refused.header("retry-after")), (504, "1"));
    assert!(message.starts_with("Too large resource version: 99999999, current: "), "{message}");
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    c.post(MAPS, map("x")).await.ok();
    assert_eq!(c.get(&format!("{MAPS}/x?resourceVersion=99999999")).await.code, 504);
    assert_eq!(c.get(&format!("{MAPS}/x?resourceVersion=x")).await.code, 400);
}

#[tokio::test]
async fn selectors_choose_and_bad_ones_are_refused_in_kubectls_words() {
    let c = Cluster::start().await;
    c.post(MAPS, labelled("a", "x")).await.ok();
    c.post(MAPS, labelled("b", "y")).await.ok();
    assert_eq!(names(&c.get(&format!("{MAPS}?labelSelector=tier+in+(x,z)")).await.ok()), ["a"]);
    assert_eq!(names(&c.get(&format!("{MAPS}?labelSelector=!tier")).await.ok()), [""; 0]);
    assert_eq!(names(&c.get(&format!("{MAPS}?fieldSelector=metadata.name!%3Da")).await.ok()), ["b"]);
    assert_eq!(c.get(&format!("{MAPS}?labelSelector=a+in+(b")).await.code, 400);
    let unknown = c.get(&format!("{PODS}?fieldSelector=foo%3Dbar")).await.refusal();
    assert_eq!(unknown, (400, "field label not supported: foo".to_owned()));
}

#[tokio::test]
async fn impossible_list_options_are_refused() {
    let c = Cluster::start().await;
    for (query, code) in [
        ("resourceVersion=abc", 400),
        ("continue=abc", 400),
        ("limit=abc", 400),
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422),
        ("resourceVersion=1&resourceVersionMatch=Foo", 422),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0", 422),
    ] {
        assert_eq!(c.get(&format!("{MAPS}?{query}")).await.refusal().0, code, "{query}");
    }
}

#[tokio::test]
async fn a_table_has_the_columns_of_its_kind_and_metadata_in_its_rows() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "n")).await.ok();
    let table = c.raw("GET", PODS, &[("accept", TABLE)], "").await.ok();
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(columns[..5], ["Name", "Ready", "Status", "Restarts", "Age"]);
    let cells = table["rows"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells[..3], [json!("p"), json!("0/1"), json!("Pending")]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let whole = c.raw("GET", &format!("{PODS}?includeObject=Object"), &[("accept", TABLE)], "").await.ok();
    assert_eq!(whole["rows"][0]["object"]["spec"]["nodeName"], "n");
}

#[tokio::test]
async fn a_table_that_cannot_be_is_refused_and_a_status_is_no_table() {
    let c = Cluster::start().await;
    c.post(MAPS, map("x")).await.ok();
    let refused = c.raw("GET", &format!("{MAPS}?includeObject=All"), &[("accept", TABLE)], "").await.refusal();
    let why = "Unable to convert to Table as requested: includeObject: Invalid value: \"All\": must be 'Metadata', \
               'Object', 'None', or empty";
    assert_eq!(refused, (400, why.to_owned()));
    let alone = TABLE.split_once(',').expect("a list").0;
    assert_eq!(c.raw("DELETE", &format!("{MAPS}/x"), &[("accept", alone)], "").await.ok()["kind"], "Status");
}

#[tokio::test]
async fn metadata_alone_can_be_asked_for() {
    let c = Cluster::start().await;
    c.post(MAPS, map("x")).await.ok();
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = c.raw("GET", MAPS, &[("accept", accept)], "").await.ok();
    assert_eq!((&list["kind"], names(&list)), (&json!("PartialObjectMetadataList"), vec!["x"]));
    assert!(list["items"][0].get("data").is_none());
}

#[tokio::test]
async fn metadata_alone_comes_in_the_old_version_too() {
    let c = Cluster::start().await;
    c.post(MAPS, map("x")).await.ok();
    let accept = "application/json;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io";
    let one = c.raw("GET", &format!("{MAPS}/x"), &[("accept", accept)], "").await.ok();
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("PartialObjectMetadata"), &json!("meta.k8s.io/v1beta1")));
}

#[tokio::test]
async fn objects_lists_and_errors_come_as_yaml_and_watches_do_not() {
    let c = Cluster::start().await;
    c.post(MAPS, map("x")).await.ok();
    let yaml = [("accept", "application/yaml")];
    for (path, code, part) in [
        (format!("{MAPS}/x"), 200, "data:\n  a: \"1\"\n"),
        (MAPS.to_owned(), 200, "kind: ConfigMapList\n"),
        (format!("{MAPS}/y"), 404, "message: configmaps \"y\" not found\n"),
    ] {
        let answer = c.raw("GET", &path, &yaml, "").await;
        assert_eq!((answer.code, answer.header("content-type")), (code, "application/yaml"));
        assert!(answer.text().contains(part), "{}", answer.text());
    }
    assert_eq!(c.raw("GET", &format!("{MAPS}?watch=1"), &yaml, "").await.code, 406);
}

#[tokio::test]
async fn a_page_of_any_form_tells_how_many_are_left() {
    let c = Cluster::start().await;
    for name in ["a", "b", "c"] {
        c.post(MAPS, map(name)).await.ok();
    }
    let path = format!("{MAPS}?limit=1");
    let table = c.raw("GET", &path, &[("accept", TABLE)], "").await.ok();
    assert_eq!(
        (&table["metadata"]["remainingItemCount"], table["rows"].as_array().map(Vec::len)),
        (&json!(2), Some(1))
    );
    let list = c.raw("GET", &path, &[("accept", PROTOBUF)], "").await;
    let envelope = schema::protobuf::unwrap_envelope(&list.bytes).expect("an envelope");
    let ty = schema::type_named("core.v1.ConfigMapList").expect("a type");
    let list = schema::protobuf::decode(ty, envelope.raw).expect("decode");
    assert_eq!((names(&list), &list["metadata"]["remainingItemCount"]), (vec!["a"], &json!(2)));
    let selected = c.get(&format!("{path}&labelSelector=!x")).await.ok();
    assert!(selected["metadata"]["continue"].is_string() && selected["metadata"].get("remainingItemCount").is_none());
}

#[tokio::test]
async fn protobuf_is_read_and_written_where_it_is_preferred() {
    let c = Cluster::start().await;
    let ty = schema::type_named("core.v1.ConfigMap").expect("a type");
    let body = schema::protobuf::encode(ty, &map("x")).expect("encode");
    let body = schema::protobuf::wrap_envelope("v1", "ConfigMap", &body);
    let accept = format!("{PROTOBUF},application/json");
    let headers = [("content-type", PROTOBUF), ("accept", accept.as_str())];
    let made = c.raw("POST", MAPS, &headers, body).await;
    assert_eq!((made.code, made.header("content-type")), (201, PROTOBUF));
    let envelope = schema::protobuf::unwrap_envelope(&made.bytes).expect("an envelope");
    assert_eq!((envelope.api_version.as_str(), envelope.kind.as_str()), ("v1", "ConfigMap"));
    assert_eq!(schema::protobuf::decode(ty, envelope.raw).expect("decode")["data"], json!({"a": "1"}));
    let list = c.raw("GET", MAPS, &headers[1..], "").await;
    assert_eq!(schema::protobuf::unwrap_envelope(&list.bytes).expect("an envelope").kind, "ConfigMapList");
    let missing = c.raw("GET", &format!("{MAPS}/y"), &headers[1..], "").await;
    assert_eq!((missing.code, missing.header("content-type")), (404, PROTOBUF));
    assert_eq!(schema::protobuf::unwrap_envelope(&missing.bytes).expect("an envelope").kind, "Status");
}

#[tokio::test]
async fn a_list_of_many_pieces_is_whole_in_both_forms() {
    let c = Cluster::start().await;
    let sizes = [0, 10, 90_000, 1, 33_000, 32_768, 7];
    for (number, size) in sizes.iter().enumerate() {
        let mut object = map(&format!("m{number}"));
        object["data"]["a"] = "x".repeat(*size).into();
        c.post(MAPS, object).await.ok();
    }
    let list = c.get(MAPS).await.ok();
    let lengths = |list: &Value| -> Vec<usize> {
        let items = list["items"].as_array().expect("items").iter();
        items.map(|item| item["data"]["a"].as_str().map_or(0, str::len)).collect()
    };
    assert_eq!(lengths(&list), sizes);
    let answer = c.raw("GET", MAPS, &[("accept", PROTOBUF)], "").await;
    let envelope = schema::protobuf::unwrap_envelope(&answer.bytes).expect("an envelope");
    let ty = schema::type_named("core.v1.ConfigMapList").expect("a type");
    let decoded = schema::protobuf::decode(ty, envelope.raw).expect("decodes");
    assert_eq!((lengths(&decoded), revision(&decoded)), (sizes.to_vec(), revision(&list)));
    let page = c.get(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!((lengths(&page), &page["metadata"]["remainingItemCount"]), (vec![0, 10], &json!(5)));
}

#[tokio::test]
async fn discovery_comes_in_both_forms_and_is_not_sent_twice() {
    let c = Cluster::start().await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let both = format!("{aggregated},application/json");
    let new = c.raw("GET", "/apis", &[("accept", &both)], "").await;
    assert_eq!((new.header("content-type"), &new.json()["kind"]), (aggregated, &json!("APIGroupDiscoveryList")));
    let again = c.raw("GET", "/apis", &[("accept", &both), ("if-none-match", new.header("etag"))], "").await;
    assert_eq!((again.code, again.bytes.len()), (304, 0));
    assert_eq!(c.get("/apis").await.ok()["kind"], "APIGroupList");
    let pods = c.get("/api/v1").await.ok();
    let found = pods["resources"].as_array().expect("resources").iter().find(|r| r["name"] == "pods").cloned();
    let found = found.expect("pods");
    assert_eq!((&found["singularName"], &found["shortNames"]), (&json!("pod"), &json!(["po"])));
}

#[tokio::test]
async fn schemas_are_named_by_their_hash_and_old_names_lead_to_new_ones() {
    let c = Cluster::start().await;
    let index = c.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().expect("a path").to_owned();
    let document = c.get(&url).await;
    assert!(document.header("cache-control").contains("immutable"));
    let patch = &document.json()["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(patch["parameters"].as_array().expect("parameters").iter().any(|p| p["name"] == "fieldValidation"));
    let stale = c.get("/openapi/v3/apis/apps/v1?hash=OLD").await;
    assert_eq!((stale.code, stale.header("location")), (301, url.as_str()));
}

#[tokio::test]
async fn schemas_come_as_messages_to_those_who_ask_for_them() {
    let c = Cluster::start().await;
    for (path, version, first) in
        [("/openapi/v2", "v2", b"\x0a\x032.0"), ("/openapi/v3/apis/apps/v1", "v3", b"\x0a\x053.0")]
    {
        let media = format!("application/com.github.proto-openapi.spec.{version}.v1.0+protobuf");
        for asked in [media.clone(), media.replace(".v1.0", "@v1.0"), format!("text/html, {media}, application/json")] {
            let answer = c.raw("GET", path, &[("accept", &asked)], "").await;
            assert_eq!((answer.code, answer.header("content-type")), (200, media.as_str()), "{path} {asked}");
            assert!(answer.bytes.starts_with(first), "{:?}", &answer.bytes[..8]);
            assert_eq!(answer.header("etag"), c.get(path).await.header("etag"));
            let known = [("accept", asked.as_str()), ("if-none-match", answer.header("etag"))];
            assert_eq!(c.raw("GET", path, &known, "").await.code, 304);
        }
        let answer = c.raw("GET", path, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
        assert_eq!(answer.code, 406);
    }
    let index = c.raw("GET", "/openapi/v3", &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
    assert!(index.ok()["paths"]["api/v1"].is_object());
    let document = c.get("/openapi/v2").await.ok();
    let watch = |path: &str| document["paths"][path]["get"]["operationId"].clone();
    assert_eq!(watch("/api/v1/watch/nodes/{name}"), "watchCoreV1Node");
    assert_eq!(watch("/apis/apps/v1/watch/deployments"), "watchAppsV1DeploymentListForAllNamespaces");
    assert!(document["paths"]["/api/v1/watch/bindings"].is_null());
}

#[tokio::test]
async fn a_body_that_is_not_the_object_is_refused_and_nothing_is_made() {
    let c = Cluster::start().await;
    let before = c.store.revision();
    for (body, content_type, code, text) in [
        ("{\"a\":", "application/json", 400, "the object provided is unrecognized (must be of type ConfigMap)"),
        ("a: [b", "application/yaml", 400, "error converting YAML to JSON"),
        ("x", "text/plain", 415, "accepted media types include: application/json"),
        (r#"{"kind":"Secret","apiVersion":"v1"}"#, "application/json", 400, "cannot be handled as a ConfigMap"),
        (
            r#"{"kind":"ConfigMap","apiVersion":"v2"}"#,
            "application/json",
            400,
            "does not match the expected API version (v1)",
        ),
        (
            r#"{"metadata":{"name":1}}"#,
            "application/json",
            400,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number",
        ),
        (
            r#"{"metadata":{"name":"A_b"}}"#,
            "application/json",
            422,
            "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain",
        ),
        (r#"{"metadata":{}}"#, "application/json", 422, "name or generateName is required"),
        (
            r#"{"metadata":{"name":"a","namespace":"b"}}"#,
            "application/json",
            400,
            "does not match the namespace sent on the request",
        ),
        (
            r#"{"metadata":{"name":"a","resourceVersion":"5"}}"#,
            "application/json",
            400,
            "resourceVersion should not be set",
        ),
    ] {
        let (got, message) = c.raw("POST", MAPS, &[("content-type", content_type)], body).await.refusal();
        assert!(got == code && message.contains(text), "{body}: {got} {message}");
    }
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                  d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert_eq!(c.raw("POST", MAPS, &[("content-type", "application/yaml")], laughs).await.refusal().0, 400);
    assert_eq!(c.raw("POST", MAPS, &[], "[".repeat(100_000)).await.refusal().0, 400);
    assert_eq!(c.raw("POST", MAPS, &[], " ".repeat((3 << 20) + 1)).await.refusal().0, 413);
    assert_eq!(c.store.revision(), before);
}

#[tokio::test]
async fn a_patch_that_cannot_be_is_refused_with_the_code_of_its_fault() {
    let c = Cluster::start().await;
    c.post(MAPS, map("x")).await.ok();
    let before = c.store.revision();
    for (body, kind, code) in [
        ("{", "application/merge-patch+json", 400),
        ("[1]", "application/merge-patch+json", 400),
        (r#"{"op":"add"}"#, "application/json-patch+json", 400),
        (r#"[{"op":"nope","path":"/a"}]"#, "application/json-patch+json", 400),
        (r#"[{"op":"remove","path":"/data/z"}]"#, "application/json-patch+json", 422),
        (r#"[{"op":"add","path":"/data","value":5}]"#, "application/json-patch+json", 422),
        (r#"{"metadata":{"name":"y"}}"#, "application/merge-patch+json", 400),
        (r#"{"metadata":{"uid":"y"}}"#, "application/merge-patch+json", 409),
        ("a: b", "application/apply-patch+yaml", 422),
        ("{}", "application/json", 415),
    ] {
        let path = format!("{MAPS}/x");
        let (got, message) = c.raw("PATCH", &path, &[("content-type", kind)], body).await.refusal();
        assert_eq!(got, code, "{body}: {message}");
    }
    assert_eq!(c.store.revision(), before);
}

#[tokio::test]
async fn methods_and_paths_that_are_not_there_say_so() {
    let c = Cluster::start().await;
    c.post(DEPLOYMENTS, deployment("d")).await.ok();
    assert_eq!(c.get("/foo").await.bytes, "404 page not found\n");
    let text = "the server could not find the requested resource".to_owned();
    assert_eq!(c.get("/api/v1/foos").await.refusal(), (404, text));
    assert_eq!(c.get(&format!("{DEPLOYMENTS}/e")).await.refusal().1, "deployments.apps \"e\" not found");
    for (method, path) in [("POST", format!("{MAPS}/x")), ("PUT", MAPS.to_owned()), ("PATCH", MAPS.to_owned())] {
        assert_eq!(c.raw(method, &path, &[], "{}").await.refusal().0, 405, "{method} {path}");
    }
    assert_eq!(c.post("/api/v1/configmaps", map("x")).await.refusal().0, 405);
    let nowhere = c.post("/api/v1/namespaces/no/configmaps", map("x")).await.refusal();
    assert_eq!(nowhere, (404, "namespaces \"no\" not found".to_owned()));
    assert_eq!(c.raw("GET", MAPS, &[("accept", "text/html")], "").await.refusal().0, 406);
    assert_eq!(c.raw("GET", "/healthz", &[("accept", "text/plain")], "").await.bytes, "ok");
}

#[tokio::test]
async fn who_may_not_is_told_what_and_where() {
    let c = Cluster::start().await;
    let (code, message) = c.raw_as(None, "GET", PODS, &[], "").await.refusal();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \
         \"default\""
    );
    let bob = User::authenticated("bob", &[]);
    let (_, message) = c.raw_as(Some(bob.clone()), "GET", "/api/v1/nodes/n", &[], "").await.refusal();
    assert_eq!(
        message,
        "nodes \"n\" is forbidden: User \"bob\" cannot get resource \"nodes\" in API group \"\" at the cluster scope"
    );
    let review = c.raw_as(Some(bob), "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &[], "{}").await;
    assert_eq!((review.code, &review.json()["status"]["userInfo"]["username"]), (201, &json!("bob")));
}

#[tokio::test]
async fn people_get_indented_answers_and_scrapers_their_metrics() {
    let cluster = Cluster::start().await;
    let plain = cluster.get("/api/v1/namespaces/default").await;
    assert_eq!(plain.bytes.iter().filter(|b| **b == b'\n').count(), 1);
    let pretty = cluster.get("/api/v1/namespaces/default?pretty=true").await;
    assert!(pretty.bytes.starts_with(b"{\n  \""), "{:?}", pretty.bytes);
    let curl = cluster.raw("GET", "/version", &[("user-agent", "curl/8.0")], "").await;
    assert!(curl.bytes.starts_with(b"{\n  \""));
    cluster.get("/api/v1/namespaces/default/endpoints").await.ok();
    let mut events = cluster.watch("/api/v1/namespaces?watch=1", "application/json").await;
    assert_eq!(events.next().await.expect("an event")["type"], "ADDED");
    let metrics = cluster.get("/metrics").await;
    let text = String::from_utf8(metrics.bytes.to_vec()).expect("text");
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let row = "apiserver_request_total{code=\"200\",dry_run=\"\",group=\"\",resource=\"namespaces\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 2";
    assert!(text.contains(row), "{text}");
    for row in [
        "apiserver_storage_objects{resource=\"namespaces\"} 1",
        "apiserver_watch_events_total{group=\"\",resource=\"namespaces\",version=\"v1\"} 1",
        "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1",
        "apiserver_response_sizes_count{group=\"\",resource=\"namespaces\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 2",
    ] {
        assert!(text.contains(row), "{row} in {text}");
    }
}

#[tokio::test]
async fn long_lists_are_compressed_for_who_takes_it() {
    let cluster = Cluster::start().await;
    for index in 0..40 {
        let mut object = map(&format!("m{index}"));
        object["data"]["a"] = "x".repeat(8000).into();
        cluster.post(MAPS, object).await.ok();
    }
    let answer = cluster.raw("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert!(answer.bytes.len() < 100_000, "{}", answer.bytes.len());
    assert_eq!(cluster.get(MAPS).await.ok()["items"].as_array().map(Vec::len), Some(40));
}

#[tokio::test]
async fn the_server_tells_of_its_paths_and_its_health() {
    let c = Cluster::start().await;
    let paths = c.get("/").await.ok();
    let paths: Vec<&str> = paths["paths"].as_array().expect("paths").iter().filter_map(|path| path.as_str()).collect();
    for path in ["/apis/apps/v1", "/apis/batch", "/healthz/ping", "/openapi/v3", "/readyz/shutdown", "/version"] {
        assert!(paths.contains(&path), "{path}");
    }
    assert!(paths.is_sorted());
    for path in ["/livez", "/livez/etcd", "/readyz/informer-sync", "/healthz?exclude=etcd"] {
        assert_eq!(c.get(path).await.text(), "ok", "{path}");
    }
    let verbose = c.get("/readyz?verbose&exclude=etcd&exclude=nothing").await.text();
    assert!(verbose.contains("[+]ping ok\n[+]etcd excluded: ok\n"), "{verbose}");
    let said = "warn: some health checks cannot be excluded: no matches for [\"nothing\"]\nreadyz check passed\n";
    assert!(verbose.ends_with(said), "{verbose}");
    assert_eq!(c.get("/livez/nothing").await.code, 404);
    assert!(c.get("/version").await.text().starts_with("{\n  \""));
}

#[tokio::test]
async fn a_scale_has_a_table_of_its_own() {
    let c = Cluster::start().await;
    c.post(DEPLOYMENTS, deployment("web")).await.ok();
    let table = c.raw("GET", &format!("{DEPLOYMENTS}/web/scale"), &[("accept", TABLE)], "").await.ok();
    let columns = table["columnDefinitions"].as_array().expect("columns");
    let names: Vec<&str> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
    assert_eq!(names, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "web");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_timeout_that_is_none_is_refused() {
    let c = Cluster::start().await;
    let (code, message) = c.post(&format!("{MAPS}?timeout=soon"), map("a")).await.refusal();
    assert_eq!((code, message.as_str()), (400, "invalid timeout specified in the request URL"));
    c.post(&format!("{MAPS}?timeout=30s"), map("a")).await.ok();
}
