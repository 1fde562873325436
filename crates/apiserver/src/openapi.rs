//! OpenAPI v2 and v3, made from what is served when first asked for.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::sync::OnceLock;

use bytes::Bytes;
use client::Body;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use object_model::{ApiError, Reason};
use schema::messages::{v2, v3};
use schema::openapi::{Op, Own};
use serde_json::{Value, json};

use crate::catalogue::Catalogue;
use crate::discovery::{hash, tagged};
use crate::finish::takes_gzip;
use crate::request::Query;
use crate::served::{Served, no_such_resource};
use crate::{respond, swagger_parts};

/// The documents, each compressed: as values they would take a hundred times the memory, for ever.
pub struct Documents {
    index: String,
    /// By the path below `/openapi/v3/`, those that hold no built-in resource.
    v3: BTreeMap<String, Text>,
    v2: OnceLock<Text>,
}

/// A document as it is kept.
struct Text {
    /// gzip (RFC 1952), which most clients take as it is.
    gzip: Bytes,
    /// Of the plain text.
    hash: String,
}

impl Text {
    fn of(text: &str) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Nothing that is written into memory fails to be.
        let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
        Self { gzip: written.unwrap_or_default().into(), hash: hash(text.as_bytes()) }
    }

    fn plain(&self) -> Result<Vec<u8>, ApiError> {
        let mut text = Vec::new();
        GzDecoder::new(&self.gzip[..]).read_to_end(&mut text).map_err(ApiError::internal)?;
        Ok(text)
    }

    /// The document for a client, in the form that it takes; without its content for one that has it already.
    fn answer(&self, headers: &HeaderMap, form: Form) -> Result<Response<Body>, ApiError> {
        respond::tagged(headers, &self.hash, "Accept, Accept-Encoding", || match form {
            Form::Json if takes_gzip(headers) => {
                let mut response = respond::typed(StatusCode::OK, "application/json", self.gzip.clone());
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                Ok(response)
            }
            Form::Json => Ok(respond::typed(StatusCode::OK, "application/json", self.plain()?)),
            // Asked for once in a while, so it is not kept beside the text.
            Form::Protobuf(media_type, encode) => {
                let document = serde_json::from_slice(&self.plain()?).map_err(|e| ApiError::internal(e.to_string()))?;
                Ok(respond::typed(StatusCode::OK, media_type, encode(&document)))
            }
        })
    }
}

/// The form of a document that a client takes.
#[derive(Clone, Copy)]
enum Form {
    Json,
    /// The media type, and how a document is written in it.
    Protobuf(&'static str, fn(&Value) -> Vec<u8>),
}

impl Form {
    /// The first form of a header `Accept` that documents of a version, `v2` or `v3`, come in.
    fn of(accept: &str, version: &str) -> Option<Self> {
        if accept.is_empty() {
            return Some(Self::Json);
        }
        let (media_type, encode): (_, fn(&Value) -> Vec<u8>) = match version {
            "v2" => (v2::MEDIA_TYPE, v2::encode),
            _ => (v3::MEDIA_TYPE, v3::encode),
        };
        accept.split(',').find_map(|clause| match clause.split(';').next().unwrap_or_default().trim() {
            "*/*" | "application/*" | "application/json" => Some(Self::Json),
            // Clients write the version in this media type with `@` or with a dot.
            other if other.replace('@', ".") == media_type => Some(Self::Protobuf(media_type, encode)),
            _ => None,
        })
    }
}

/// The documents of the built-in resources, which never change.
fn built_in() -> &'static BTreeMap<String, Text> {
    static DOCUMENTS: OnceLock<BTreeMap<String, Text>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| versions(Served::built_in()))
}

fn path_of(served: &Served) -> String {
    if served.group().is_empty() {
        format!("api/{}", served.version())
    } else {
        format!("apis/{}/{}", served.group(), served.version())
    }
}

fn versions(resources: impl Iterator<Item = Served>) -> BTreeMap<String, Text> {
    let mut by_path: BTreeMap<String, Vec<Served>> = BTreeMap::new();
    for served in resources {
        by_path.entry(path_of(&served)).or_default().push(served);
    }
    let documents = by_path.into_iter().map(|(path, resources)| {
        let group_version = (resources[0].group(), resources[0].version());
        let ops: Vec<Op> = resources.iter().flat_map(operations).collect();
        let own: Vec<Own> = resources.iter().flat_map(own_models).collect();
        (path, Text::of(&schema::openapi::v3(group_version, &ops, &own).to_string()))
    });
    documents.collect()
}

impl Documents {
    /// The documents of a catalogue.
    pub fn of(catalogue: &Catalogue) -> Self {
        let mut v3 = versions(catalogue.custom().iter().cloned());
        for remote in catalogue.remotes() {
            if let Some(document) = &remote.openapi {
                v3.insert(format!("apis/{}/{}", remote.group, remote.version), Text::of(&document.0));
            }
        }
        let paths: serde_json::Map<String, Value> = built_in()
            .iter()
            .chain(&v3)
            .map(|(path, version)| (path.clone(), version.hash.clone()))
            .map(|(path, hash)| {
                let url = format!("/openapi/v3/{path}?hash={hash}");
                (path, json!({"serverRelativeURL": url}))
            })
            .collect();
        Self { index: json!({"paths": paths}).to_string(), v3, v2: OnceLock::new() }
    }

    fn version(&self, path: &str) -> Option<&Text> {
        built_in().get(path).or_else(|| self.v3.get(path))
    }

    fn v2(&self, catalogue: &Catalogue) -> &Text {
        self.v2.get_or_init(|| {
            let ops: Vec<Op> = catalogue.all().flat_map(|served| operations(&served)).collect();
            let own: Vec<Own> = catalogue.custom().iter().flat_map(own_models).collect();
            let mut document = schema::openapi::v2(&ops, &own);
            for part in catalogue.remotes().iter().filter_map(|remote| remote.swagger.as_deref()) {
                swagger_parts::merge(&mut document, part.clone());
            }
            Text::of(&document.to_string())
        })
    }
}

/// The name of a custom kind's model: the group's parts in reverse, the version and the kind.
fn model_name(served: &Served, kind: &str) -> String {
    let mut parts: Vec<&str> = served.group().split('.').collect();
    parts.reverse();
    format!("{}.{}.{kind}", parts.join("."), served.version())
}

/// The models of a custom resource: its objects and its lists.
fn own_models(served: &Served) -> Vec<Own> {
    let Some(schema) = &served.openapi else { return Vec::new() };
    let kind = (served.group().to_owned(), served.version().to_owned(), served.kind().to_owned());
    vec![Own {
        name: model_name(served, served.kind()),
        list: model_name(served, served.list_kind()),
        kind,
        list_kind: served.list_kind().to_owned(),
        schema: schema.clone(),
    }]
}

/// The operations of a resource and its object-like subresources.
fn operations(served: &Served) -> Vec<Op> {
    let place = if served.namespaced() { "/namespaces/{namespace}" } else { "" };
    let collection = format!("/{}{place}/{}", path_of(served), served.plural());
    let (own, list) = if served.is_custom() {
        (model_name(served, served.kind()), model_name(served, served.list_kind()))
    } else {
        let own = served.type_name();
        let list = schema::type_named(&format!("{own}List")).map_or(own, |t| t.name);
        (schema::openapi::type_to_model_name(own), schema::openapi::type_to_model_name(list))
    };
    let model = schema::openapi::type_to_model_name;
    let status = model("meta.v1.Status");
    let kind = (served.group().to_owned(), served.version().to_owned(), served.kind().to_owned());
    let mut ops = Vec::new();
    let mut op = |path: String, verb, kind: (String, String, String), body: Option<String>, response: String, sub| {
        let (namespaced, custom) = (served.namespaced(), served.is_custom());
        ops.push(Op { path, verb, kind, body, response, namespaced, subresource: sub, custom, method: None });
    };
    let object = format!("{collection}/{{name}}");
    for verb in served.verbs.iter().copied() {
        match verb {
            // What definitions make is not told of below these paths, which are deprecated.
            "watch" if served.is_custom() => {}
            "watch" => {
                let event = model("meta.v1.WatchEvent");
                let old = |path: &str| format!("/{}/watch{path}", path_of(served));
                let all = format!("/{}", served.plural());
                let here = format!("{place}{all}");
                op(old(&here), "watchlist", kind.clone(), None, event.clone(), None);
                op(old(&format!("{here}/{{name}}")), verb, kind.clone(), None, event.clone(), None);
                if served.namespaced() {
                    op(old(&all), "watchlist", kind.clone(), None, event, None);
                }
            }
            "list" => {
                op(collection.clone(), verb, kind.clone(), None, list.clone(), None);
                if served.namespaced() {
                    let everywhere = format!("/{}/{}", path_of(served), served.plural());
                    op(everywhere, verb, kind.clone(), None, list.clone(), None);
                }
            }
            "deletecollection" => op(collection.clone(), verb, kind.clone(), None, status.clone(), None),
            "create" => op(collection.clone(), verb, kind.clone(), Some(own.clone()), own.clone(), None),
            "update" | "patch" => op(object.clone(), verb, kind.clone(), Some(own.clone()), own.clone(), None),
            "delete" => {
                op(object.clone(), verb, kind.clone(), Some(model("meta.v1.DeleteOptions")), status.clone(), None);
            }
            _ => op(object.clone(), verb, kind.clone(), None, own.clone(), None),
        }
    }
    let mut connected = Vec::new();
    for sub in &served.subresources {
        let api_version = object_model::api_version(&sub.group, &sub.version);
        let of_parent = (&sub.group, &sub.version, &sub.kind) == (&kind.0, &kind.1, &kind.2);
        let body = if of_parent {
            own.clone()
        } else {
            match schema::type_for(&api_version, &sub.kind).filter(|_| !sub.kind.ends_with("Options")) {
                Some(ty) => model(ty.name),
                // Streams and proxies have no objects for bodies.
                None => {
                    connected.push(sub);
                    continue;
                }
            }
        };
        for verb in sub.verbs.iter().copied() {
            let sent = matches!(verb, "create" | "update" | "patch").then(|| body.clone());
            let kind = (sub.group.clone(), sub.version.clone(), sub.kind.clone());
            op(format!("{object}/{}", sub.name), verb, kind, sent, body.clone(), Some(sub.name));
        }
    }
    for sub in connected {
        let path = format!("{object}/{}", sub.name);
        // What is proxied may be anything; a stream begins with one of two methods.
        let (paths, methods) = match sub.verbs.contains(&"delete") {
            true => (
                vec![format!("{path}/{{path}}"), path],
                &["delete", "get", "head", "options", "patch", "post", "put"][..],
            ),
            false => (vec![path], &["get", "post"][..]),
        };
        ops.extend(paths.iter().flat_map(|path| methods.iter().map(|method| (path.clone(), *method))).map(
            |(path, method)| Op {
                path,
                verb: "connect",
                kind: (sub.group.clone(), sub.version.clone(), sub.kind.clone()),
                body: None,
                response: String::new(),
                namespaced: served.namespaced(),
                subresource: Some(sub.name),
                custom: false,
                method: Some(method),
            },
        ));
    }
    ops
}

/// Answers a path below `/openapi`, or `None` when it is none.
pub fn answer(
    path: &str,
    query: &Query,
    headers: &HeaderMap,
    catalogue: &Catalogue,
) -> Option<Result<Response<Body>, ApiError>> {
    let rest = path.strip_prefix("/openapi/")?.trim_end_matches('/');
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let documents = catalogue.documents();
    let document = match rest {
        // Where the others lie is told in JSON alone.
        "v3" => return Some(tagged(headers, "application/json", documents.index.clone().into())),
        "v2" => Some((documents.v2(catalogue), None)),
        _ => rest.strip_prefix("v3/").and_then(|path| Some((documents.version(path)?, Some(path)))),
    };
    let Some((text, path)) = document else { return Some(Err(no_such_resource())) };
    let Some(form) = Form::of(accept, &rest[..2]) else {
        return Some(Err(ApiError::new(
            Reason::NotAcceptable,
            "only the following media types are accepted: application/json",
        )));
    };
    Some(match path {
        Some(path) => version_document(headers, path, text, query.get("hash"), form),
        None => text.answer(headers, form),
    })
}

/// A year, as caches count: what a hash names never changes.
const YEAR: i64 = 365 * 24 * 3600;

fn version_document(
    headers: &HeaderMap,
    path: &str,
    version: &Text,
    asked: &str,
    form: Form,
) -> Result<Response<Body>, ApiError> {
    let hash = &version.hash;
    if !asked.is_empty() && asked != hash {
        let mut response = Response::new(client::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        if let Ok(location) = HeaderValue::from_str(&format!("/openapi/v3/{path}?hash={hash}")) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        return Ok(response);
    }
    let mut response = version.answer(headers, form)?;
    let headers = response.headers_mut();
    if !asked.is_empty() {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        let expires = jiff::Timestamp::from_second(client::clock::now().as_second() + YEAR);
        // RFC 9110: dates of HTTP are in GMT.
        let text = expires.map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
        if let Some(value) = text.ok().and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(header::EXPIRES, value);
        }
    }
    Ok(response)
}
