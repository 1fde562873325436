//! Watching objects.

mod cluster;

use cluster::{Cluster, MAPS, PODS, labelled, map, pod, revision};
use serde_json::json;
use store::Store;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_the_state() {
    let c = Cluster::start().await;
    c.post(MAPS, map("a")).await.ok();
    let mut events = c.watch(&format!("{MAPS}?watch=true"), "").await;
    assert_eq!(events.brief().await, "ADDED a");
    c.merge(&format!("{MAPS}/a"), json!({"data": {"b": "2"}})).await.ok();
    assert_eq!(events.brief().await, "MODIFIED a");
}

#[tokio::test]
async fn the_old_path_of_a_watch_may_name_one_object() {
    let c = Cluster::start().await;
    for name in ["a", "b"] {
        c.post(MAPS, map(name)).await.ok();
    }
    let mut events = c.watch("/api/v1/watch/namespaces/default/configmaps/b", "").await;
    c.merge(&format!("{MAPS}/a"), json!({"data": {"b": "2"}})).await.ok();
    c.merge(&format!("{MAPS}/b"), json!({"data": {"b": "2"}})).await.ok();
    assert_eq!([events.brief().await, events.brief().await], ["ADDED b", "MODIFIED b"]);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_that_says_so() {
    let c = Cluster::start().await;
    c.post(MAPS, map("a")).await.ok();
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = c.watch(&format!("{MAPS}?{query}"), "").await;
    assert_eq!(events.brief().await, "ADDED a");
    let bookmark = events.next().await.expect("a bookmark");
    assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(revision(&bookmark["object"]), c.store.revision());
    let refused = c.get(&format!("{MAPS}?watch=1&sendInitialEvents=true")).await.refusal();
    assert_eq!(refused.0, 422);
}

#[tokio::test]
async fn a_deletion_carries_its_own_revision() {
    let c = Cluster::start().await;
    let made = c.post(MAPS, map("a")).await.ok();
    let mut events = c.watch(&format!("{MAPS}?watch=1&resourceVersion={}", revision(&made)), "").await;
    c.delete(&format!("{MAPS}/a")).await.ok();
    let event = events.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["data"]), (&json!("DELETED"), &made["data"]));
    assert_eq!(revision(&event["object"]), c.store.revision());
}

#[tokio::test]
async fn an_object_that_enters_or_leaves_a_selector_is_added_or_deleted() {
    let c = Cluster::start().await;
    let start = revision(&c.post(MAPS, labelled("a", "x")).await.ok());
    let mut events = c.watch(&format!("{MAPS}?watch=1&resourceVersion={start}&labelSelector=tier%3Dy"), "").await;
    let path = format!("{MAPS}/a");
    for (tier, brief) in [("y", "ADDED a"), ("x", "DELETED a")] {
        let object = c.merge(&path, json!({"metadata": {"labels": {"tier": tier}}})).await.ok();
        let event = events.next().await.expect("an event");
        assert_eq!(format!("{} a", event["type"].as_str().expect("a type")), brief);
        assert_eq!(revision(&event["object"]), revision(&object));
    }
}

#[tokio::test]
async fn a_field_selector_follows_pods_to_their_node() {
    let c = Cluster::start().await;
    let mut events = c.watch(&format!("{PODS}?watch=1&fieldSelector=spec.nodeName%3Dn"), "").await;
    c.post(PODS, pod("p", "")).await.ok();
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n"}});
    c.post(&format!("{PODS}/p/binding"), binding).await.ok();
    assert_eq!(events.brief().await, "ADDED p");
}

#[tokio::test]
async fn a_start_that_is_too_old_is_told_in_the_stream() {
    let c = Cluster::start().await;
    c.post(MAPS, map("a")).await.ok();
    c.post(MAPS, map("b")).await.ok();
    c.store.compact(c.store.revision()).await.expect("compact");
    let mut events = c.watch(&format!("{MAPS}?watch=1&resourceVersion=1"), "").await;
    let event = events.next().await.expect("an event");
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(event["object"]["message"].as_str().expect("text").starts_with("too old resource version: 1 ("));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_bookmark_is_of_the_newest_revision_though_nothing_here_changed() {
    let c = Cluster::start().await;
    let start = c.store.revision();
    let query = format!("watch=1&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={start}");
    let mut events = c.watch(&format!("{PODS}?{query}"), "").await;
    let newest = revision(&c.post(MAPS, map("a")).await.ok());
    let bookmark = events.next().await.expect("the bookmark before the end");
    assert_eq!((&bookmark["type"], revision(&bookmark["object"])), (&json!("BOOKMARK"), newest));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn only_the_first_table_of_a_watch_tells_of_the_columns() {
    let c = Cluster::start().await;
    c.post(PODS, pod("p", "n")).await.ok();
    c.post(PODS, pod("q", "n")).await.ok();
    let mut events = c.watch(&format!("{PODS}?watch=1"), TABLE).await;
    let (first, second) = (events.next().await.expect("first"), events.next().await.expect("second"));
    assert_eq!(first["object"]["columnDefinitions"][0]["name"], "Name");
    assert!(second["object"]["columnDefinitions"].is_null());
    assert_eq!(second["object"]["rows"][0]["cells"][0], "q");
}

#[tokio::test]
async fn a_protobuf_watch_is_framed_by_length_and_its_objects_are_enveloped() {
    let c = Cluster::start().await;
    c.post(MAPS, map("a")).await.ok();
    let mut events = c.watch(&format!("{MAPS}?watch=1"), "application/vnd.kubernetes.protobuf").await;
    let frame = events.frame().await;
    assert_eq!(frame[..7], *b"\x0a\x05ADDED");
    let at = frame.windows(4).position(|w| w == b"k8s\0").expect("an envelope");
    let envelope = schema::protobuf::unwrap_envelope(&frame[at..]).expect("an envelope");
    let ty = schema::type_named("core.v1.ConfigMap").expect("a type");
    assert_eq!(schema::protobuf::decode(ty, envelope.raw).expect("decode")["metadata"]["name"], "a");
}

#[tokio::test]
async fn two_watches_of_one_revision_see_the_same() {
    let c = Cluster::start().await;
    let start = c.store.revision();
    for i in 0..50 {
        c.post(MAPS, map(&format!("m{}", i % 10))).await;
        c.delete(&format!("{MAPS}/m{}", i % 7)).await;
    }
    let end = revision(&c.post(MAPS, map("z")).await.ok());
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut events = c.watch(&format!("{MAPS}?watch=1&resourceVersion={start}"), "").await;
        let mut all = Vec::new();
        while all.last().is_none_or(|(_, at)| *at != end) {
            let event = events.next().await.expect("an event");
            all.push((event["type"].clone(), revision(&event["object"])));
        }
        seen.push(all);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].is_sorted_by(|a, b| a.1 < b.1));
}
