//! What the handlers of one request share.

use std::sync::Mutex;

use auth::User;
use bytes::Bytes;
use client::Body;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt, Limited};
use object_model::{ApiError, FieldError, FieldPath, Reason};
use schema::{DecodeError, Decoded, Structural, Type};
use serde_json::Value;

use crate::request::{Accept, Query, ResourceRequest};
use crate::served::Served;

/// The longest body of a request, in bytes (upstream's limit).
pub const BODY_MAX: usize = 3 << 20;

/// One request, taken apart.
pub struct Context {
    /// Who asks.
    pub user: User,
    /// The query.
    pub query: Query,
    /// What forms the client accepts.
    pub accept: Accept,
    /// The method.
    pub method: Method,
    /// The headers.
    pub headers: HeaderMap,
    /// What the client is to be warned of.
    warnings: Mutex<Vec<String>>,
}

/// How strictly a body is read (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Unknown and duplicate fields are dropped.
    Ignore,
    /// They are dropped, and the client is warned.
    Warn,
    /// They fail the request.
    Strict,
}

impl Context {
    /// The context of a request by a user.
    pub fn new(user: User, request: &Request<Body>) -> Self {
        Self {
            user,
            query: Query::of(request.uri()),
            accept: Accept::of(request.headers()),
            method: request.method().clone(),
            headers: request.headers().clone(),
            warnings: Mutex::default(),
        }
    }

    /// Adds a warning. What has been said already is not said again.
    pub fn warn(&self, text: String) {
        let mut warnings = self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// The warnings so far.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// What upstream calls the options of this method.
    pub fn options_kind(&self) -> &'static str {
        match self.method {
            Method::POST => "CreateOptions",
            Method::PUT => "UpdateOptions",
            Method::DELETE => "DeleteOptions",
            _ => "PatchOptions",
        }
    }

    /// Whether nothing is to be stored.
    ///
    /// # Errors
    /// 422 for a value other than `All`.
    pub fn dry_run(&self) -> Result<bool, ApiError> {
        match self.query.get("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(unsupported(self.options_kind(), "dryRun", other, &["All"])),
        }
    }

    /// How strictly the body is read.
    ///
    /// # Errors
    /// 422 for an unknown value.
    pub fn strictness(&self) -> Result<Strictness, ApiError> {
        match self.query.get("fieldValidation") {
            "Ignore" => Ok(Strictness::Ignore),
            "" | "Warn" => Ok(Strictness::Warn),
            "Strict" => Ok(Strictness::Strict),
            other => Err(unsupported(self.options_kind(), "fieldValidation", other, &["Ignore", "Strict", "Warn"])),
        }
    }

    /// The media type of the body.
    pub fn content_type(&self) -> &str {
        let text = self.headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("application/json");
        text.split(';').next().unwrap_or_default().trim()
    }

    /// Reads a body as an object of a type.
    ///
    /// # Errors
    /// 415 for an unknown media type, 400 for a body that does not parse or, when strict, has unknown fields.
    pub fn decode(&self, ty: &'static Type, body: &[u8]) -> Result<Value, ApiError> {
        if self.content_type() == "application/vnd.kubernetes.protobuf" {
            self.strictness()?;
            return decode_protobuf(ty, body);
        }
        let decoded = self.decode_text(ty, body)?;
        let (version, kind) = version_and_kind(ty);
        self.judge_body(decoded, version, kind)
    }

    fn decode_text(&self, ty: &'static Type, body: &[u8]) -> Result<Decoded, ApiError> {
        self.strictness()?;
        let decoded = match self.content_type() {
            "application/json" => schema::decode_json(ty, body),
            "application/yaml" => schema::decode_yaml(ty, body),
            _ => {
                return Err(unsupported_media_type(&[
                    "application/json",
                    "application/yaml",
                    "application/vnd.kubernetes.protobuf",
                ]));
            }
        };
        let (version, kind) = version_and_kind(ty);
        decoded.map_err(|e| {
            ApiError::bad_request(match e {
                DecodeError::Malformed(text) => format!(
                    "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {text}"
                ),
                DecodeError::Type { message, .. } => {
                    format!("{kind} in version {version:?} cannot be handled as a {kind}: {message}")
                }
            })
        })
    }

    /// Reads a body in YAML as an object of a type.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_yaml(&self, ty: &'static Type, body: &[u8]) -> Result<Value, ApiError> {
        let decoded = schema::decode_yaml(ty, body)
            .map_err(|error| ApiError::bad_request(format!("error decoding YAML: {error}")))?;
        self.judge(decoded).map_err(ApiError::bad_request)
    }

    /// Reads the configuration of a server-side apply: YAML, or JSON, which is YAML as well.
    ///
    /// # Errors
    /// 400 for a body that does not parse or, when strict, has unknown fields.
    pub fn decode_configuration(
        &self,
        request: &ResourceRequest,
        served: &Served,
        body: &[u8],
    ) -> Result<Value, ApiError> {
        self.strictness()?;
        let refuse = |why: &str| {
            let (ResourceRequest { namespace, name, .. }, version, kind) =
                (request, served.api_version(), served.kind());
            // The core group has no name, but keeps its slash here.
            let version = if version.contains('/') { version } else { format!("/{version}") };
            let object = format!("{namespace}/{name}; {version}, Kind={kind}");
            ApiError::bad_request(format!("failed to create typed patch object ({object}): {why}"))
        };
        let mut decoded = schema::decode_yaml(served.ty, body).map_err(|error| match error {
            DecodeError::Malformed(text) => ApiError::bad_request(format!("error decoding YAML: {text}")),
            DecodeError::Type { message, .. } => refuse(&message),
        })?;
        if decoded.value["metadata"]["managedFields"].as_array().is_some_and(|list| !list.is_empty()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        if let Some(structure) = &served.structure {
            decoded.problems.extend(structure.prune(&mut decoded.value));
        }
        // A manager cannot own what the schema does not have, however strictly the rest is read.
        let unknown = |problem: &String| {
            let path = problem.strip_prefix("unknown field \"")?.strip_suffix('"')?;
            let path = schema::fields::readable(served.place(), &decoded.value, path);
            Some(format!("{path}: field not declared in schema"))
        };
        let undeclared: Vec<String> = decoded.problems.iter().filter_map(unknown).collect();
        match &undeclared[..] {
            [] => self.judge(decoded).map_err(|why| {
                // Where a key comes twice is told as Go's reader of YAML tells it.
                let twice = schema::key_given_twice(body).map(|(line, key)| {
                    format!("error strict decoding YAML: yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")
                });
                ApiError::bad_request(twice.unwrap_or(why))
            }),
            [one] => Err(refuse(one)),
            several => Err(refuse(&format!("errors:\n  {}", several.join("\n  ")))),
        }
    }

    /// Reads a body as an object of a resource. Of what a definition describes, fields that it does not know are dropped.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_object(&self, served: &Served, body: &[u8]) -> Result<Value, ApiError> {
        let Some(structure) = &served.structure else { return self.decode(served.ty, body) };
        if self.content_type() == "application/vnd.kubernetes.protobuf" {
            return Err(unsupported_media_type(&["application/json", "application/yaml"]));
        }
        let mut decoded = self.decode_text(served.ty, body)?;
        decoded.problems.extend(structure.prune(&mut decoded.value));
        self.judge_body(decoded, served.version(), served.kind())
    }

    /// Reads what a patch made of an object; a refusal shows the patch.
    ///
    /// # Errors
    /// 422 where it is no object of its type or, when strict, has unknown fields.
    pub fn decode_patched(
        &self,
        ty: &'static Type,
        structure: Option<&Structural>,
        patched: Value,
        patch: &Value,
    ) -> Result<Value, ApiError> {
        self.strictness()?;
        let refuse = |why: String| {
            let error = FieldError::invalid(&FieldPath::new("patch"), patch.to_string(), why);
            ApiError::invalid("", "", "", &[error])
        };
        let mut decoded = schema::conform(ty, patched).map_err(|e| refuse(e.to_string()))?;
        if let Some(structure) = structure {
            decoded.problems.extend(structure.prune(&mut decoded.value));
        }
        self.judge(decoded).map_err(refuse)
    }

    /// Takes a decoded body, or refuses or warns of its problems.
    fn judge_body(&self, decoded: Decoded, version: &str, kind: &str) -> Result<Value, ApiError> {
        self.judge(decoded).map_err(|why| {
            ApiError::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
        })
    }

    /// Takes a decoded object, or refuses or warns of its problems.
    fn judge(&self, decoded: Decoded) -> Result<Value, String> {
        if !decoded.problems.is_empty() {
            match self.strictness() {
                Ok(Strictness::Strict) => {
                    return Err(format!("strict decoding error: {}", decoded.problems.join(", ")));
                }
                Ok(Strictness::Warn) => decoded.problems.iter().for_each(|p| self.warn(p.clone())),
                Ok(Strictness::Ignore) | Err(_) => {}
            }
        }
        Ok(decoded.value)
    }
}

/// 422 for a query parameter with a value it does not know.
pub fn unsupported(options: &str, field: &str, value: &str, supported: &[&str]) -> ApiError {
    let error = FieldError::not_supported(&FieldPath::new(field), value, supported);
    ApiError::invalid("meta.k8s.io", options, "", &[error])
}

/// What upstream's texts call a type: `v1` and `Pod`.
fn version_and_kind(ty: &'static Type) -> (&'static str, &'static str) {
    let (package, kind) = ty.name.rsplit_once('.').unwrap_or(("", ty.name));
    (package.rsplit('.').next().unwrap_or_default(), kind)
}

fn decode_protobuf(ty: &'static Type, body: &[u8]) -> Result<Value, ApiError> {
    let bad = |e: schema::protobuf::Error| ApiError::bad_request(format!("decode protobuf body: {}", e.0));
    let envelope = schema::protobuf::unwrap_envelope(body).map_err(bad)?;
    let mut value = schema::protobuf::decode(ty, envelope.raw).map_err(bad)?;
    value["apiVersion"] = envelope.api_version.into();
    value["kind"] = envelope.kind.into();
    Ok(value)
}

/// 415, naming what is accepted.
pub fn unsupported_media_type(accepted: &[&str]) -> ApiError {
    ApiError::new(
        Reason::UnsupportedMediaType,
        format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        ),
    )
}

/// 413, saying which limit is exceeded.
pub fn too_large(why: &str) -> ApiError {
    ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
}

/// Reads the whole body.
///
/// # Errors
/// 413 when it is longer than [`BODY_MAX`], 400 when the client breaks off.
pub async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(&format!("limit is {BODY_MAX}"))),
        Err(error) => Err(ApiError::bad_request(format!("read body: {error}"))),
    }
}
