//! Discovery: which groups, versions and resources there are, in the aggregated and in the plain form.

use std::collections::BTreeMap;

use bytes::Bytes;
use client::Body;
use http::{HeaderMap, Response, StatusCode, header};
use object_model::{ApiError, Reason, api_version};
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::request::{Accept, Format, View};
use crate::respond;
use crate::served::Served;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a discovery path, or `None` when the path is not one.
pub fn answer(
    path: &str,
    accept: &Accept,
    headers: &HeaderMap,
    address: &str,
) -> Option<Result<Response<Body>, ApiError>> {
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    let aggregated = || {
        accept
            .first(|format, view| format == Format::Json && matches!(view, View::Object | View::Discovery))
            .map(|(_, v)| v == View::Discovery)
    };
    let document = match parts[..] {
        ["api"] => aggregated()
            .map(|agg| if agg { (AGGREGATED, aggregate(true)) } else { ("application/json", core_versions(address)) }),
        ["apis"] => aggregated()
            .map(|agg| if agg { (AGGREGATED, aggregate(false)) } else { ("application/json", group_list()) }),
        ["api", version] => resource_list("", version).map(|d| ("application/json", d)),
        ["apis", group] => group_document(group).ok_or_else(not_there).map(|d| ("application/json", d)),
        ["apis", group, version] => resource_list(group, version).map(|d| ("application/json", d)),
        _ => return None,
    };
    Some(document.map(|(content_type, document)| tagged(headers, content_type, format!("{document}\n").into())))
}

fn not_there() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// A document with its hash as ETag, or 304 for a client that has it.
pub fn tagged(headers: &HeaderMap, content_type: &str, text: Bytes) -> Response<Body> {
    let tag = format!("\"{}\"", hash(&text));
    let mut response = if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        let mut response = Response::new(client::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::typed(StatusCode::OK, content_type, text)
    };
    let out = response.headers_mut();
    if let Ok(tag) = tag.parse() {
        out.insert(header::ETAG, tag);
    }
    out.insert(header::VARY, header::HeaderValue::from_static("Accept"));
    out.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("public"));
    response
}

/// The hash upstream names documents by: SHA-512 in upper-case hexadecimal.
pub fn hash(text: &[u8]) -> String {
    hex::encode_upper(Sha512::digest(text))
}

/// Versions and their resources by group, in the order of the table.
fn groups() -> Vec<(&'static str, BTreeMap<&'static str, Vec<Served>>)> {
    let mut groups: Vec<(&'static str, BTreeMap<&'static str, Vec<Served>>)> = Vec::new();
    for served in Served::all() {
        let (group, version) = (served.row.group, served.row.version);
        let index = groups.iter().position(|(g, _)| *g == group).unwrap_or_else(|| {
            groups.push((group, BTreeMap::new()));
            groups.len() - 1
        });
        groups[index].1.entry(version).or_default().push(served);
    }
    groups
}

fn scope(served: &Served) -> &'static str {
    if served.namespaced() { "Namespaced" } else { "Cluster" }
}

fn sorted(verbs: &[&str]) -> Vec<String> {
    let mut verbs: Vec<String> = verbs.iter().map(|v| (*v).to_owned()).collect();
    verbs.sort_unstable();
    verbs
}

fn aggregate(core: bool) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|(version, resources)| {
                    let list: Vec<Value> = resources.iter().map(aggregated_resource).collect();
                    json!({"version": version, "resources": list, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(served: &Served) -> Value {
    let row = served.row;
    let mut resource = json!({
        "resource": row.plural,
        "responseKind": {"group": row.group, "version": row.version, "kind": row.kind},
        "scope": scope(served), "singularResource": row.singular, "verbs": sorted(row.verbs),
    });
    if !row.short_names.is_empty() {
        resource["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        resource["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        resource["subresources"] = row
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

fn group_value(group: &str, versions: &BTreeMap<&'static str, Vec<Served>>) -> Value {
    let versions: Vec<Value> =
        versions.keys().map(|v| json!({"groupVersion": api_version(group, v), "version": v})).collect();
    json!({"name": group, "versions": versions, "preferredVersion": versions[0]})
}

fn group_list() -> Value {
    let list: Vec<Value> =
        groups().iter().filter(|(g, _)| !g.is_empty()).map(|(group, versions)| group_value(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": list})
}

fn group_document(group: &str) -> Option<Value> {
    let (group, versions) = groups().into_iter().find(|(g, _)| *g == group && !g.is_empty())?;
    let mut document = group_value(group, &versions);
    document["kind"] = "APIGroup".into();
    document["apiVersion"] = "v1".into();
    Some(document)
}

fn resource_list(group: &str, version: &str) -> Result<Value, ApiError> {
    let mut list = Vec::new();
    for served in Served::all().filter(|s| s.row.group == group && s.row.version == version) {
        let row = served.row;
        let mut resource = json!({
            "name": row.plural, "singularName": row.singular, "namespaced": served.namespaced(), "kind": row.kind,
            "verbs": sorted(row.verbs), "storageVersionHash": storage_hash(&served),
        });
        if !row.short_names.is_empty() {
            resource["shortNames"] = json!(row.short_names);
        }
        if !row.categories.is_empty() {
            resource["categories"] = json!(row.categories);
        }
        list.push(resource);
        for sub in row.subresources {
            let mut resource = json!({
                "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": served.namespaced(),
                "kind": sub.kind, "verbs": sorted(sub.verbs),
            });
            if (sub.group, sub.version) != (row.group, row.version) {
                resource["group"] = sub.group.into();
                resource["version"] = sub.version.into();
            }
            list.push(resource);
        }
    }
    if list.is_empty() {
        return Err(not_there());
    }
    Ok(
        json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": list}),
    )
}

/// Upstream's rule: the first eight bytes of the SHA-256 of `group/version/kind`, in base64.
fn storage_hash(served: &Served) -> String {
    use base64::Engine as _;
    let name = format!("{}/{}/{}", served.row.group, served.row.version, served.row.kind);
    base64::engine::general_purpose::STANDARD.encode(&sha2::Sha256::digest(name.as_bytes())[..8])
}
