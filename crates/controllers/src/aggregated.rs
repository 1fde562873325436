//! What aggregated APIs hold in a namespace that is being deleted. Nobody follows their objects: they are asked, and told to
//! delete them, until there is nothing left.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use client::{Client, Resource};
use http::{Method, Request};
use object_model::{ApiError, Reason};
use serde_json::{Value, json};

use crate::Objects;
use crate::api_registration::API_SERVICES;

/// A version of a group that somebody else answers for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Whether it answers, as its APIService says.
    pub available: bool,
}

/// What a version of a group holds in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swept {
    /// It cannot be told what resources there are.
    Unknown(String),
    /// What could not be deleted or listed, by resource.
    Failed(Vec<(String, String)>),
    /// How many objects are left by resource, and the finalizers that they wait for.
    Left(Vec<(String, usize)>, Vec<String>),
}

/// The versions of groups that Services answer for, by their APIServices.
pub(crate) fn versions(objects: &dyn Objects) -> Vec<Version> {
    let of = |service: &Value| {
        let spec = &service["spec"];
        spec["service"].is_object().then(|| Version {
            group: spec["group"].as_str().unwrap_or_default().to_owned(),
            version: spec["version"].as_str().unwrap_or_default().to_owned(),
            available: object_model::meta::has_condition(service, "Available"),
        })
    };
    let mut all: Vec<Version> = objects.list(API_SERVICES, "").iter().filter_map(|one| of(&one.object)).collect();
    all.sort_unstable();
    all
}

/// What was found, by the uid of the namespace and the version of the group.
#[derive(Debug, Default)]
pub(crate) struct Findings(Mutex<HashMap<String, HashMap<String, Swept>>>);

impl Findings {
    /// What was found last.
    pub fn get(&self, namespace_uid: &str, version: &str) -> Option<Swept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(namespace_uid)?.get(version).cloned()
    }

    /// Notes what was found.
    pub fn note(&self, namespace_uid: &str, version: &str, swept: Swept) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(namespace_uid.to_owned()).or_default().insert(version.to_owned(), swept);
    }

    /// The namespace has gone.
    pub fn forget(&self, namespace_uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(namespace_uid);
    }
}

/// One resource that an aggregated API has in namespaces.
struct Held {
    resource: Resource,
    /// Whether a collection is deleted at once.
    at_once: bool,
    /// Whether it can be asked what there is.
    listed: bool,
}

/// Deletes what a version of a group has in a namespace, and says what is left.
pub(crate) async fn sweep(client: &Client, group: &str, version: &str, namespace: &str) -> Swept {
    let resources = match resources(client, group, version).await {
        Ok(resources) => resources,
        Err(error) => return Swept::Unknown(error.message),
    };
    let (mut left, mut finalizers, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for held in resources {
        let name = format!("{}.{}", held.resource.plural, held.resource.group);
        match empty(client, &held, namespace).await {
            Ok(items) if items.is_empty() => {}
            Ok(items) => {
                left.push((name, items.len()));
                let of = |item: &Value| object_model::meta::finalizers(item).into_iter().map(str::to_owned).collect();
                finalizers.extend(items.iter().flat_map(|item| -> Vec<String> { of(item) }));
            }
            Err(error) => failed.push((name, error.message)),
        }
    }
    if failed.is_empty() { Swept::Left(left, finalizers) } else { Swept::Failed(failed) }
}

async fn ask(client: &Client, method: Method, path: &str, body: Value) -> Result<Value, ApiError> {
    let body = if body.is_null() { client::empty() } else { client::full(body.to_string()) };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(http::header::ACCEPT, "application/json")
        .body(body)
        .map_err(|error| ApiError::bad_request(format!("build request: {error}")))?;
    let bytes = client.request(request).await?;
    serde_json::from_slice(&bytes).map_err(|error| ApiError::internal(format!("read answer: {error}")))
}

/// The resources of a version whose objects live in namespaces and can be deleted.
async fn resources(client: &Client, group: &str, version: &str) -> Result<Vec<Held>, ApiError> {
    let document = ask(client, Method::GET, &format!("/apis/{group}/{version}"), Value::Null).await?;
    let all = document["resources"].as_array().into_iter().flatten();
    let held = all.filter(|resource| resource["namespaced"] == true).filter_map(|resource| {
        let name = resource["name"].as_str().filter(|name| !name.contains('/'))?;
        let can =
            |verb: &str| resource["verbs"].as_array().is_some_and(|verbs| verbs.iter().any(|known| known == verb));
        can("delete").then(|| Held {
            resource: Resource::named(group, version, name),
            at_once: can("deletecollection"),
            listed: can("list"),
        })
    });
    Ok(held.collect())
}

/// Deletes the objects of a resource in a namespace: those that are there afterwards.
async fn empty(client: &Client, held: &Held, namespace: &str) -> Result<Vec<Value>, ApiError> {
    let Resource { group, version, plural } = held.resource;
    let path = format!("/apis/{group}/{version}/namespaces/{namespace}/{plural}");
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    // A collection that cannot be listed or deleted says so, whatever discovery promised: it is passed over, as upstream does.
    let unable = |error: &ApiError| matches!(error.reason, Reason::NotFound | Reason::MethodNotAllowed);
    let list = || async {
        if !held.listed {
            return Ok(Vec::new());
        }
        match ask(client, Method::GET, &path, Value::Null).await {
            Ok(list) => Ok(list["items"].as_array().cloned().unwrap_or_default()),
            Err(error) if unable(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    if held.at_once {
        match ask(client, Method::DELETE, &path, options).await {
            Err(error) if !unable(&error) => return Err(error),
            _ => {}
        }
        return list().await;
    }
    for item in list().await? {
        let one = format!("{path}/{}", object_model::meta::name(&item));
        match ask(client, Method::DELETE, &one, options.clone()).await {
            Err(error) if !unable(&error) => return Err(error),
            _ => {}
        }
    }
    list().await
}
