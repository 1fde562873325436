//! Discovery: which groups, versions and resources there are, in the aggregated and in the plain form.

use bytes::Bytes;
use client::Body;
use http::{HeaderMap, Response, StatusCode, header};
use object_model::{ApiError, api_version};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::catalogue::{Catalogue, Group};
use crate::request::{Accept, Format, View};
use crate::respond;
use crate::served::{Served, no_such_resource};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a discovery path, or `None` when the path is not one.
pub fn answer(
    path: &str,
    accept: &Accept,
    headers: &HeaderMap,
    address: &str,
    catalogue: &Catalogue,
) -> Option<Result<Response<Body>, ApiError>> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let aggregated = || {
        accept
            .first(|format, view| format == Format::Json && matches!(view, View::Object | View::Discovery))
            .map(|(_, v)| v == View::Discovery)
    };
    let document = match parts[..] {
        ["api"] => aggregated().map(|agg| {
            if agg { (AGGREGATED, aggregate(catalogue, true)) } else { ("application/json", core_versions(address)) }
        }),
        ["apis"] => aggregated().map(|agg| {
            if agg { (AGGREGATED, aggregate(catalogue, false)) } else { ("application/json", group_list(catalogue)) }
        }),
        ["api", version] => resource_list(catalogue, "", version).map(|d| ("application/json", d)),
        ["apis", group] => {
            group_document(catalogue, group).ok_or_else(no_such_resource).map(|d| ("application/json", d))
        }
        ["apis", group, version] => resource_list(catalogue, group, version).map(|d| ("application/json", d)),
        _ => return None,
    };
    Some(document.and_then(|(content_type, document)| tagged(headers, content_type, format!("{document}\n").into())))
}

/// A document of discovery, which caches may keep.
///
/// # Errors
/// None of its own.
pub fn tagged(headers: &HeaderMap, content_type: &str, text: Bytes) -> Result<Response<Body>, ApiError> {
    let hash = hash(&text);
    let mut response =
        respond::tagged(headers, &hash, "Accept", || Ok(respond::typed(StatusCode::OK, content_type, text)))?;
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("public"));
    Ok(response)
}

/// The hash upstream names documents by: SHA-512 in upper-case hexadecimal.
pub fn hash(text: &[u8]) -> String {
    hex::encode_upper(Sha512::digest(text))
}

fn scope(served: &Served) -> &'static str {
    if served.namespaced() { "Namespaced" } else { "Cluster" }
}

fn sorted(verbs: &[&str]) -> Vec<String> {
    let mut verbs: Vec<String> = verbs.iter().map(|v| (*v).to_owned()).collect();
    verbs.sort_unstable();
    verbs
}

fn aggregate(catalogue: &Catalogue, core: bool) -> Value {
    let groups = catalogue.groups().into_iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|group| {
            let versions = group.versions.iter().map(|version| {
                let mut list: Vec<Value> = version.resources.iter().map(aggregated_resource).collect();
                list.extend(version.remote.iter().flat_map(|remote| remote.aggregated()));
                let stale = version.remote.as_ref().is_some_and(|remote| !remote.available);
                json!({"version": version.name, "resources": list, "freshness": if stale { "Stale" } else { "Current" }})
            });
            let versions: Vec<Value> = versions.collect();
            json!({"metadata": {"name": group.name, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(served: &Served) -> Value {
    let mut resource = json!({
        "resource": served.plural(),
        "responseKind": {"group": served.group(), "version": served.version(), "kind": served.kind()},
        "scope": scope(served), "singularResource": served.singular(), "verbs": sorted(served.verbs),
    });
    if !served.short_names.is_empty() {
        resource["shortNames"] = json!(served.short_names);
    }
    if !served.categories.is_empty() {
        resource["categories"] = json!(served.categories);
    }
    if !served.subresources.is_empty() {
        resource["subresources"] = served
            .subresources
            .iter()
            .map(|s| {
                json!({
                    "subresource": s.name, "verbs": sorted(s.verbs),
                    "responseKind": {"group": s.group, "version": s.version, "kind": s.kind},
                })
            })
            .collect();
    }
    resource
}

fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group_value(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| json!({"groupVersion": api_version(&group.name, &version.name), "version": version.name}))
        .collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions[0]})
}

fn group_list(catalogue: &Catalogue) -> Value {
    let list: Vec<Value> = catalogue.groups().iter().filter(|group| !group.name.is_empty()).map(group_value).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

fn group_document(catalogue: &Catalogue, name: &str) -> Option<Value> {
    let group = catalogue.groups().into_iter().find(|group| group.name == name && !name.is_empty())?;
    let mut document = group_value(&group);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn resource_list(catalogue: &Catalogue, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut list = Vec::new();
    for served in catalogue.all().filter(|s| s.group() == group && s.version() == version) {
        let mut resource = json!({
            "name": served.plural(), "singularName": served.singular(), "namespaced": served.namespaced(),
            "kind": served.kind(), "verbs": sorted(served.verbs),
        });
        if served.is_stored() {
            resource["storageVersionHash"] = storage_hash(&served).into();
        }
        if !served.short_names.is_empty() {
            resource["shortNames"] = json!(served.short_names);
        }
        if !served.categories.is_empty() {
            resource["categories"] = json!(served.categories);
        }
        list.push(resource);
        for sub in &served.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", served.plural(), sub.name), "singularName": "",
                "namespaced": served.namespaced(), "kind": sub.kind, "verbs": sorted(sub.verbs),
            });
            if (sub.group.as_str(), sub.version.as_str()) != (served.group(), served.version()) {
                resource["group"] = sub.group.as_str().into();
                resource["version"] = sub.version.as_str().into();
            }
            list.push(resource);
        }
    }
    if list.is_empty() {
        return Err(no_such_resource());
    }
    let group_version = api_version(group, version);
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list}))
}

/// Upstream's rule: the first eight bytes of the SHA-256 of `group/version/kind`, in base64.
fn storage_hash(served: &Served) -> String {
    use base64::Engine as _;
    let name = format!("{}/{}/{}", served.group(), served.version(), served.kind());
    base64::engine::general_purpose::STANDARD.encode(&sha2::Sha256::digest(name.as_bytes())[..8])
}
