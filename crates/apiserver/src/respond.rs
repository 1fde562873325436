//! Answers: objects, lists and errors in the form and view the client asked for.

use bytes::Bytes;
use client::Body;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use object_model::ApiError;
use serde_json::{Value, json};
use store::Entry;

use crate::request::{Accept, Format, View};
use crate::served::Served;
use crate::{stored, table};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
/// The media type of protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// An answer of JSON text.
pub fn json_text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, JSON, text)
}

/// An answer of a JSON value, with the newline Kubernetes ends its documents with.
pub fn json_value(status: StatusCode, value: &Value) -> Response<Body> {
    let mut text = serde_json::to_vec(value).expect("JSON values with text keys always serialise");
    text.push(b'\n');
    json_text(status, text)
}

/// An answer of text, which browsers must not take for anything else.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = typed(status, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer of a content type.
pub fn typed(status: StatusCode, content_type: &str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(client::full(text));
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

/// A document with its hash as ETag; without its content for a client that has it already.
///
/// # Errors
/// Those of what makes the answer.
pub fn tagged(
    headers: &HeaderMap,
    hash: &str,
    vary: &'static str,
    answer: impl FnOnce() -> Result<Response<Body>, ApiError>,
) -> Result<Response<Body>, ApiError> {
    let tag = format!("\"{hash}\"");
    let mut response = if headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == tag.as_bytes()) {
        let mut response = Response::new(client::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        answer()?
    };
    let out = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        out.insert(header::ETAG, tag);
    }
    out.insert(header::VARY, HeaderValue::from_static(vary));
    Ok(response)
}

/// Whether an answer is JSON.
pub fn is_json(answer: &Response<Body>) -> bool {
    answer.headers().get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(JSON.as_bytes()))
}

/// An error as a `Status`, in protobuf where the client prefers that.
pub fn error(error: &ApiError, accept: Option<&Accept>) -> Response<Body> {
    let status = error.to_status();
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let format = accept.and_then(|accept| accept.0.first()).map_or(Format::Json, |(format, _)| *format);
    // A Status has a form of each.
    let written = one(format, code, &status, "meta.v1.Status");
    let mut response = written.unwrap_or_else(|_| json_value(code, &status));
    if let Some(seconds) = error.details["retryAfterSeconds"].as_u64() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn encode(api_version: &str, kind: &str, type_name: &str, value: &Value) -> Result<Bytes, ApiError> {
    let ty = schema::type_named(type_name)
        .ok_or_else(|| ApiError::new(object_model::Reason::NotAcceptable, format!("{kind} has no protobuf form")))?;
    let raw = schema::protobuf::encode(ty, value).map_err(|e| ApiError::internal(format!("encode {kind}: {e}")))?;
    Ok(schema::protobuf::wrap_envelope(api_version, kind, &raw).into())
}

/// An object as protobuf with its envelope.
///
/// # Errors
/// When the object does not fit its type.
pub fn protobuf_object(type_name: &str, value: &Value) -> Result<Bytes, ApiError> {
    let (api_version, kind) =
        (value["apiVersion"].as_str().unwrap_or("v1"), value["kind"].as_str().unwrap_or_default());
    encode(api_version, kind, type_name, value)
}

/// One object as the client wants it.
///
/// # Errors
/// 406 when it does not come in any wanted form.
pub fn object(
    accept: &Accept,
    served: Option<&Served>,
    type_name: &str,
    status: StatusCode,
    value: &Value,
    include: table::Include,
) -> Result<Response<Body>, ApiError> {
    let (format, view) = accept.first(|format, view| match view {
        View::Object => format != Format::Protobuf || !served.is_some_and(|served| served.is_custom()),
        View::Metadata(_) => served.is_some(),
        View::Table(_) => served.is_some() && format == Format::Json,
        View::Discovery => false,
    })?;
    match (view, served) {
        (View::Table(version), Some(served)) => {
            let table = table::table(served, version, std::slice::from_ref(value), &value["metadata"], include);
            Ok(json_value(status, &table))
        }
        (View::Metadata(version), _) => one(format, status, &partial(value, version), "meta.v1.PartialObjectMetadata"),
        _ => one(format, status, value, type_name),
    }
}

/// A Scale as the client wants it.
///
/// # Errors
/// As [`object`].
pub fn scale(accept: &Accept, value: &Value, include: table::Include) -> Result<Response<Body>, ApiError> {
    let (_, view) = accept.first(|format, view| match view {
        View::Object => true,
        View::Table(_) => format == Format::Json,
        View::Metadata(_) | View::Discovery => false,
    })?;
    match view {
        View::Table(version) => Ok(json_value(StatusCode::OK, &table::of_scale(version, value, include))),
        _ => object(accept, None, "autoscaling.v1.Scale", StatusCode::OK, value, table::Include::None),
    }
}

/// A value in a form.
///
/// # Errors
/// When it does not fit its type.
pub fn one(format: Format, status: StatusCode, value: &Value, type_name: &str) -> Result<Response<Body>, ApiError> {
    match format {
        Format::Json => Ok(json_value(status, value)),
        Format::Yaml => Ok(typed(status, YAML, schema::yaml::document(value))),
        Format::Protobuf => Ok(typed(status, PROTOBUF, protobuf_object(type_name, value)?)),
    }
}

/// The `Status` of something that was done and leaves no object to show.
///
/// # Errors
/// As [`object`].
pub fn created(accept: &Accept) -> Result<Response<Body>, ApiError> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    self::status(accept, StatusCode::CREATED, &status)
}

/// A `Status`, which is what it is whatever view of objects the client asks for.
///
/// # Errors
/// 406 when it does not come in any wanted form.
pub fn status(accept: &Accept, code: StatusCode, value: &Value) -> Result<Response<Body>, ApiError> {
    let (format, _) = accept.first(|_, _| true)?;
    one(format, code, value, "meta.v1.Status")
}

/// The metadata of an object as `PartialObjectMetadata` of a version.
pub fn partial(value: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": value["metadata"],
    })
}

/// A stored object for a client that wants plain JSON, where that is the text that is stored.
pub fn text(accept: &Accept, served: &Served, status: StatusCode, entry: &Entry) -> Option<Response<Body>> {
    if accept.0.first() != Some(&(Format::Json, View::Object)) || !served.is_plain(entry.mod_revision) {
        return None;
    }
    let mut text = Vec::with_capacity(entry.value.len() + 128);
    stored::write_object(&mut text, served, entry, entry.mod_revision);
    text.push(b'\n');
    Some(json_text(status, text))
}

/// A stored object as the client wants it; in plain JSON its text is not touched.
///
/// # Errors
/// As [`object`].
pub fn entry(
    accept: &Accept,
    served: &Served,
    status: StatusCode,
    entry: &Entry,
    include: table::Include,
) -> Result<Response<Body>, ApiError> {
    if let Some(answer) = text(accept, served, status, entry) {
        return Ok(answer);
    }
    let value = stored::decode(served, entry)?;
    object(accept, Some(served), served.type_name(), status, &value, include)
}
