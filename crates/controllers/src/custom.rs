//! Custom resources: which ones there are by their definitions, and a cache of the objects of each.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use client::{Cache, Client, ListParams, Reflector, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::garbage_collector::GarbageCollector;
use crate::runner::{Caches, decode_metadata};

/// The definitions.
pub(crate) const DEFINITIONS: Resource =
    Resource { group: "apiextensions.k8s.io", version: "v1", plural: "customresourcedefinitions" };

/// How long a cache outlives its definition. The objects go before it, but each watch tells its news in its own time: the
/// ends of the last objects may come after that of their definition.
const GRACE: Duration = Duration::from_secs(1);

/// What a definition makes of one resource, as far as controllers care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Custom {
    /// The resource, in the version it is read in.
    pub resource: Resource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    kind: String,
    versions: Vec<String>,
}

impl Custom {
    /// The resource of a definition: none before it is established, or where no version is served.
    pub fn of(definition: &Value) -> Option<Self> {
        let spec = &definition["spec"];
        let mut conditions = definition["status"]["conditions"].as_array().into_iter().flatten();
        if !conditions.any(|c| c["type"] == "Established" && c["status"] == "True") {
            return None;
        }
        let all = spec["versions"].as_array().map_or(&[][..], Vec::as_slice);
        let served: Vec<&Value> = all.iter().filter(|version| version["served"] == true).collect();
        // What is stored needs no conversion, and so no webhook.
        let version = served.iter().find(|version| version["storage"] == true).or(served.first())?;
        let names = &definition["status"]["acceptedNames"];
        Some(Self {
            resource: Resource::named(
                spec["group"].as_str()?,
                version["name"].as_str()?,
                names["plural"].as_str().filter(|plural| !plural.is_empty())?,
            ),
            namespaced: spec["scope"] == "Namespaced",
            kind: names["kind"].as_str()?.to_owned(),
            versions: served.iter().filter_map(|version| version["name"].as_str()).map(str::to_owned).collect(),
        })
    }

    /// All versions that are served.
    pub fn versions(&self) -> &[String] {
        &self.versions
    }

    /// Whether objects of this `apiVersion` and kind are its objects.
    pub fn is(&self, api_version: &str, kind: &str) -> bool {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kind == kind && self.resource.group == group && self.versions.iter().any(|served| served == version)
    }
}

/// Keeps of a definition what [`Custom::of`] reads, and the metadata: schemas are large.
pub(crate) fn decode_definition(text: &[u8]) -> Result<Value, serde_json::Error> {
    #[derive(Deserialize, Serialize)]
    struct Definition {
        metadata: Value,
        spec: Spec,
        #[serde(default)]
        status: Value,
    }
    #[derive(Deserialize, Serialize)]
    struct Spec {
        group: String,
        scope: String,
        versions: Vec<Version>,
    }
    #[derive(Deserialize, Serialize)]
    struct Version {
        name: String,
        #[serde(default)]
        served: bool,
        #[serde(default)]
        storage: bool,
    }
    let mut definition: Definition = serde_json::from_slice(text)?;
    // They hold the names of all fields of the schemas.
    if let Some(metadata) = definition.metadata.as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("annotations");
    }
    serde_json::to_value(definition)
}

/// One custom resource that is followed.
struct Followed {
    custom: Custom,
    cache: Cache<Value>,
    since: Instant,
    /// When its cache stops, if its definition is gone.
    ends: Option<Instant>,
    stop: CancellationToken,
}

/// The custom resources that are followed, by the names of their definitions.
#[derive(Default)]
pub(crate) struct CustomResources(RwLock<BTreeMap<String, Followed>>);

impl CustomResources {
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, Followed>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache of a resource.
    pub fn cache(&self, resource: Resource) -> Option<Cache<Value>> {
        self.read().values().find(|one| one.custom.resource == resource).map(|one| one.cache.clone())
    }

    /// The resource of a kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<Custom> {
        self.read().values().find(|one| one.custom.is(api_version, kind)).map(|one| one.custom.clone())
    }

    /// Those whose objects live in namespaces, each with whether its objects are known yet.
    pub fn namespaced(&self) -> Vec<(Resource, bool)> {
        let all = self.read();
        let namespaced = all.values().filter(|one| one.custom.namespaced);
        namespaced.map(|one| (one.custom.resource, one.cache.is_synced())).collect()
    }

    /// One whose objects are not known yet, though they may be soon: it is followed for less than `patience`.
    pub fn expected(&self, patience: Duration) -> Option<Resource> {
        let all = self.read();
        let young = all.values().find(|one| !one.cache.is_synced() && one.since.elapsed() < patience);
        young.map(|one| one.custom.resource)
    }
}

/// Starts and stops the caches of custom resources as definitions come, change and go.
pub(crate) struct Follower {
    reader: Client,
    caches: Arc<Caches>,
    collector: GarbageCollector,
    tasks: TaskTracker,
    cancel: CancellationToken,
    changed: Arc<Notify>,
}

impl Follower {
    pub fn new(
        reader: &Client,
        caches: &Arc<Caches>,
        collector: &GarbageCollector,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        if let Some(definitions) = caches.cache(DEFINITIONS) {
            let changed = changed.clone();
            definitions.on_change(move |_| changed.notify_one());
        }
        Self {
            reader: reader.clone(),
            caches: caches.clone(),
            collector: collector.clone(),
            tasks: tasks.clone(),
            cancel: cancel.clone(),
            changed,
        }
    }

    /// Follows the definitions until cancelled.
    pub async fn run(self) {
        loop {
            let next = self.renew();
            let ends = async {
                match next {
                    Some(moment) => tokio::time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = self.changed.notified() => {}
                () = ends => {}
            }
        }
    }

    /// Brings what is followed to what is defined; when to look again for what ends.
    pub fn renew(&self) -> Option<Instant> {
        let now = Instant::now();
        let definitions = self.caches.cache(DEFINITIONS).map(|cache| cache.all()).unwrap_or_default();
        let defined: BTreeMap<String, Custom> =
            definitions.iter().filter_map(|one| Some((one.name.clone(), Custom::of(&one.object)?))).collect();
        let (mut stopped, mut started) = (Vec::new(), Vec::new());
        let mut followed = self.caches.custom.0.write().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|name, one| {
            let stays = match defined.get(name) {
                Some(custom)
                    if (custom.resource, custom.namespaced) == (one.custom.resource, one.custom.namespaced) =>
                {
                    one.custom = custom.clone();
                    one.ends = None;
                    true
                }
                // It is read in another way from now on.
                Some(_) => false,
                None => *one.ends.get_or_insert(now + GRACE) > now,
            };
            if !stays {
                one.stop.cancel();
                stopped.push(one.custom.resource);
            }
            stays
        });
        for (name, custom) in defined {
            if followed.contains_key(&name) {
                continue;
            }
            let (cache, stop) = (Cache::new(), self.cancel.child_token());
            started.push((custom.resource, cache.clone(), stop.clone()));
            followed.insert(name, Followed { custom, cache, since: now, ends: None, stop });
        }
        let next = followed.values().filter_map(|one| one.ends).min();
        drop(followed);
        let stopped: HashSet<Resource> = stopped.into_iter().collect();
        self.collector.forget(&stopped);
        for (resource, cache, stop) in started {
            self.collector.follow(resource, &cache);
            let reflector = Reflector {
                api: self.reader.api(resource),
                params: ListParams::default(),
                decode: decode_metadata,
                cache,
            };
            self.tasks.spawn(reflector.run(stop));
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(established: &str) -> Value {
        let text = json!({
            "metadata": {"name": "widgets.example.com", "uid": "1", "managedFields": [{}]},
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
                "versions": [
                    {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
                    {"name": "v1", "served": true, "storage": true},
                    {"name": "v1beta1", "served": false, "storage": false},
                ],
            },
            "status": {
                "acceptedNames": {"plural": "widgets", "kind": "Widget"},
                "conditions": [{"type": "Established", "status": established}],
            },
        });
        decode_definition(text.to_string().as_bytes()).expect("decodes")
    }

    #[test]
    fn a_resource_is_read_in_the_version_it_is_stored_in() {
        assert_eq!(Custom::of(&definition("False")), None);
        let mut definition = definition("True");
        assert!(!definition.to_string().contains("openAPIV3Schema"), "{definition}");
        let custom = Custom::of(&definition).expect("a resource");
        assert_eq!(custom.resource, Resource { group: "example.com", version: "v1", plural: "widgets" });
        assert!(custom.namespaced);
        assert!(custom.is("example.com/v1", "Widget") && custom.is("example.com/v2", "Widget"));
        assert!(!custom.is("example.com/v1beta1", "Widget") && !custom.is("example.org/v1", "Widget"));
        definition["spec"]["versions"][1]["served"] = false.into();
        assert_eq!(Custom::of(&definition).expect("a resource").resource.version, "v2");
    }
}
