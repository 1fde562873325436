//! OpenAPI v2 and v3, made from the table of kinds when first asked for.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use client::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use object_model::{ApiError, Reason};
use schema::openapi::Op;
use serde_json::json;

use crate::discovery::{hash, tagged};
use crate::request::Query;
use crate::respond;
use crate::served::Served;

/// Texts only: as values the documents would take ten times the memory, for ever.
struct Documents {
    index: String,
    /// By the path below `/openapi/v3/`: text and hash.
    v3: BTreeMap<String, (String, String)>,
    v2: String,
}

fn documents() -> &'static Documents {
    static DOCUMENTS: OnceLock<Documents> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let mut by_version: BTreeMap<String, ((&str, &str), Vec<Op<'static>>)> = BTreeMap::new();
        for served in Served::all() {
            let row = served.row;
            let path = if row.group.is_empty() {
                format!("api/{}", row.version)
            } else {
                format!("apis/{}/{}", row.group, row.version)
            };
            by_version
                .entry(path)
                .or_insert_with(|| ((row.group, row.version), Vec::new()))
                .1
                .extend(operations(&served));
        }
        let mut v3 = BTreeMap::new();
        let mut paths = serde_json::Map::new();
        for (path, (group_version, ops)) in &by_version {
            let text = schema::openapi::v3(*group_version, ops).to_string();
            let hash = hash(text.as_bytes());
            paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
            v3.insert(path.clone(), (text, hash));
        }
        let all: Vec<Op<'static>> = by_version.into_values().flat_map(|(_, ops)| ops).collect();
        Documents { index: json!({"paths": paths}).to_string(), v3, v2: schema::openapi::v2(&all).to_string() }
    })
}

/// The operations of a resource and its object-like subresources.
fn operations(served: &Served) -> Vec<Op<'static>> {
    let row = served.row;
    let group_path = if row.group.is_empty() {
        format!("/api/{}", row.version)
    } else {
        format!("/apis/{}/{}", row.group, row.version)
    };
    let place = if served.namespaced() { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{group_path}{place}/{}", row.plural);
    let own = row.type_name;
    let list = schema::type_named(&format!("{own}List")).map_or(own, |t| t.name);
    let mut ops = Vec::new();
    let mut op = |path: String, verb, kind, body, response, subresource| {
        ops.push(Op { path, verb, kind, body, response, namespaced: served.namespaced(), subresource });
    };
    let kind = (row.group, row.version, row.kind);
    let object = format!("{collection}/{{name}}");
    for verb in row.verbs.iter().copied() {
        match verb {
            // A watch is a list with a parameter, and has no operation of its own here.
            "watch" => {}
            "list" => op(collection.clone(), verb, kind, None, list, None),
            "deletecollection" => op(collection.clone(), verb, kind, None, "meta.v1.Status", None),
            "create" => op(collection.clone(), verb, kind, Some(own), own, None),
            "update" | "patch" => op(object.clone(), verb, kind, Some(own), own, None),
            "delete" => op(object.clone(), verb, kind, Some("meta.v1.DeleteOptions"), "meta.v1.Status", None),
            _ => op(object.clone(), verb, kind, None, own, None),
        }
    }
    for sub in row.subresources.iter().filter(|s| matches!(s.name, "status" | "scale")) {
        let type_name = if sub.name == "scale" { "autoscaling.v1.Scale" } else { own };
        for verb in sub.verbs.iter().copied() {
            let body = matches!(verb, "update" | "patch").then_some(type_name);
            op(
                format!("{object}/{}", sub.name),
                verb,
                (sub.group, sub.version, sub.kind),
                body,
                type_name,
                Some(sub.name),
            );
        }
    }
    ops
}

/// Answers a path below `/openapi`, or `None` when it is none.
pub fn answer(path: &str, query: &Query, headers: &HeaderMap) -> Option<Result<Response<Body>, ApiError>> {
    let rest = path.strip_prefix("/openapi/")?.trim_end_matches('/');
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // Clients write the version in this media type with `@` or with a dot.
    if rest == "v2" && accept.contains("com.github.proto-openapi.spec.v2") {
        // Asked for once in a while, so it is not kept beside the text.
        let document = serde_json::from_str(&documents().v2).map_err(|e| ApiError::internal(e.to_string()));
        let message = document.map(|document| schema::swagger::encode(&document));
        return Some(message.map(|m| respond::typed(StatusCode::OK, schema::swagger::MEDIA_TYPE, m)));
    }
    let accepts_json = accept.is_empty() || accept.contains("json") || accept.contains("*/*");
    if !accepts_json {
        return Some(Err(ApiError::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json",
        )));
    }
    Some(match rest {
        "v2" => Ok(tagged(headers, "application/json", documents().v2.as_str().into())),
        "v3" => Ok(tagged(headers, "application/json", documents().index.as_str().into())),
        _ => match rest.strip_prefix("v3/").and_then(|p| documents().v3.get_key_value(p)) {
            Some((path, (text, hash))) => Ok(version_document(path, text, hash, query.get("hash"))),
            None => Err(ApiError::new(Reason::NotFound, "the server could not find the requested resource")),
        },
    })
}

fn version_document(path: &str, text: &'static str, hash: &str, asked: &str) -> Response<Body> {
    if !asked.is_empty() && asked != hash {
        let mut response = Response::new(client::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return response;
    }
    let mut response = respond::typed(StatusCode::OK, "application/json", text);
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{hash}\"")) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if !asked.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
    }
    response
}
