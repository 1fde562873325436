//! What a program does with the `kube` crate: typed and dynamic objects, watchers, patches and server-side apply, and a
//! kind of its own.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::runtime::conditions::is_crd_established;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, reflector};
use kube::{Client, Config, CustomResource, CustomResourceExt, Discovery, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::node::{Node, PATIENCE};

/// A kind of the program's own.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, JsonSchema)]
#[kube(group = "kube.knarr.example", version = "v1", kind = "Crate", namespaced, status = "CrateStatus")]
struct CrateSpec {
    size: u32,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, JsonSchema)]
struct CrateStatus {
    #[serde(default)]
    loaded: bool,
}

async fn client(node: &Node) -> Client {
    let kubeconfig = Kubeconfig::read_from(node.data().join("admin.kubeconfig")).expect("read the kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}

fn refusal<T>(outcome: kube::Result<T>) -> (u16, String) {
    match outcome {
        Err(kube::Error::Api(status)) => (status.code, status.reason),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a refusal was expected"),
    }
}

#[test]
fn the_kube_crate_does_what_programs_do_with_it() {
    let mut node = Node::empty();
    node.start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = client(&node).await;
        tokio::time::timeout(PATIENCE, program(client)).await.expect("it ends");
    });
}

async fn program(client: Client) {
    assert_eq!(client.apiserver_version().await.expect("a version").minor, "37");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "rust"}})).expect("a namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("create");
    assert_eq!(refusal(namespaces.create(&PostParams::default(), &namespace).await), (409, "AlreadyExists".to_owned()));
    typed(&client).await;
    watched(&client).await;
    defined(&client).await;
    namespaces.delete("rust", &DeleteParams::foreground()).await.expect("delete");
}

/// Objects, selectors, pages, patches and conflicts.
async fn typed(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    for number in 0..7 {
        let map = json!({
            "metadata": {"name": format!("map-{number}"), "labels": {"odd": (number % 2).to_string()}},
            "data": {"n": number.to_string()},
        });
        maps.create(&PostParams::default(), &serde_json::from_value(map).expect("a map")).await.expect("create");
    }
    let odd = maps.list(&ListParams::default().labels("odd=1")).await.expect("list");
    assert_eq!(odd.iter().map(|map| map.name_any()).collect::<Vec<_>>(), ["map-1", "map-3", "map-5"]);
    let (mut names, mut params) = (Vec::new(), ListParams::default().limit(3));
    loop {
        let page = maps.list(&params).await.expect("a page");
        names.extend(page.iter().map(|map| map.name_any()).filter(|name| name.starts_with("map-")));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names.len(), 7);
    let one = maps.get("map-1").await.expect("get");
    let merge = Patch::Merge(json!({"data": {"more": "yes"}}));
    let patched = maps.patch("map-1", &PatchParams::default(), &merge).await.expect("patch");
    assert_eq!(patched.data.map(|data| data.len()), Some(2));
    let stale = maps.replace("map-1", &PostParams::default(), &one).await;
    assert_eq!(refusal(stale), (409, "Conflict".to_owned()));
    assert!(maps.get_opt("none").await.expect("an answer").is_none());
    assert_eq!(maps.get_metadata("map-1").await.expect("metadata").labels()["odd"], "1");
    let apply = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"n": "one"}}));
    let params = PatchParams::apply("a");
    assert_eq!(refusal(maps.patch("map-1", &params, &apply).await), (409, "Conflict".to_owned()));
    let forced = maps.patch("map-1", &params.force(), &apply).await.expect("apply");
    assert_eq!(forced.data.expect("data")["n"], "one");
}

/// A watcher that lists and follows, one that streams its list, and a reflector.
async fn watched(client: &Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "rust");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut events = Box::pin(watcher::watcher(maps.clone(), config));
        let mut first = Vec::new();
        loop {
            match events.try_next().await.expect("an event").expect("no end") {
                Event::InitApply(map) => first.push(map.name_any()),
                Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(first.iter().filter(|name| name.starts_with("map-")).count(), 7);
        let label = Patch::Merge(json!({"metadata": {"labels": {"seen": first.len().to_string()}}}));
        maps.patch("map-2", &PatchParams::default(), &label).await.expect("patch");
        maps.create(&PostParams::default(), &named("late")).await.expect("create");
        maps.delete("late", &DeleteParams::default()).await.expect("delete");
        let mut said = Vec::new();
        while said.last().is_none_or(|last| last != "delete late") {
            match events.try_next().await.expect("an event").expect("no end") {
                Event::Apply(map) => said.push(format!("apply {}", map.name_any())),
                Event::Delete(map) => said.push(format!("delete {}", map.name_any())),
                _ => {}
            }
        }
        assert!(said.ends_with(&["apply late", "delete late"].map(str::to_owned)), "{said:?}");
    }
    let (store, writer) = reflector::store();
    let stream = watcher::watcher(maps, watcher::Config::default()).default_backoff().reflect(writer).applied_objects();
    let drained = stream.try_for_each(|_| async { Ok(()) });
    tokio::select! {
        outcome = drained => panic!("the watcher ended: {outcome:?}"),
        ready = store.wait_until_ready() => ready.expect("the store is filled"),
    }
    assert!(store.len() >= 7);
}

fn named(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("a map")
}

/// A kind that the program defines, typed and dynamic.
async fn defined(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("kube").force();
    let definition = Crate::crd();
    let name = definition.name_any();
    definitions.patch(&name, &params, &Patch::Apply(&definition)).await.expect("define");
    await_condition(definitions.clone(), &name, is_crd_established()).await.expect("it is established");
    let crates: Api<Crate> = Api::namespaced(client.clone(), "rust");
    let wanted = Crate::new("one", CrateSpec { size: 3, labels: vec!["oak".to_owned()] });
    let made = crates.patch("one", &params, &Patch::Apply(&wanted)).await.expect("apply");
    assert_eq!(made.spec.size, 3);
    let again = crates.patch("one", &params, &Patch::Apply(&wanted)).await.expect("apply");
    assert_eq!(again.resource_version(), made.resource_version());
    let loaded = Patch::Merge(json!({"status": {"loaded": true}}));
    let status = crates.patch_status("one", &PatchParams::default(), &loaded).await.expect("patch the status");
    assert!(status.status.is_some_and(|status| status.loaded));
    let wrong = crates.patch("one", &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": "big"}}))).await;
    assert_eq!(refusal(wrong), (422, "Invalid".to_owned()));
    let discovery = Discovery::new(client.clone()).run_aggregated().await.expect("discover");
    let kind = GroupVersionKind::gvk("kube.knarr.example", "v1", "Crate");
    let (resource, capabilities) = discovery.resolve_gvk(&kind).expect("it is discovered");
    assert!(resource == ApiResource::erase::<Crate>(&()) && capabilities.supports_operation("watch"));
    let dynamic: Api<DynamicObject> = Api::namespaced_with(client.clone(), "rust", &resource);
    let object = dynamic.get("one").await.expect("get");
    assert_eq!(object.data["spec"]["labels"], json!(["oak"]));
    crates.delete("one", &DeleteParams::default()).await.expect("delete");
    assert!(crates.get_opt("one").await.expect("an answer").is_none());
    definitions.delete(&name, &DeleteParams::default()).await.expect("delete the definition");
}
