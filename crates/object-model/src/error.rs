//! [`ApiError`]: what a client is told when a request fails, as a `Status` object.

use std::fmt;

use serde_json::{Value, json};

use crate::{FieldError, group_resource};

/// The closed list of machine-readable reasons of a `Status` that clients branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the reasons themselves
pub enum Reason {
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    UnsupportedMediaType,
    AlreadyExists,
    Conflict,
    Expired,
    RequestEntityTooLarge,
    Invalid,
    TooManyRequests,
    InternalError,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The reason that a code mostly stands for.
    pub fn of_code(code: u16) -> Self {
        match code {
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            409 => Self::Conflict,
            410 => Self::Expired,
            422 => Self::Invalid,
            429 => Self::TooManyRequests,
            503 => Self::ServiceUnavailable,
            504 => Self::Timeout,
            _ => Self::InternalError,
        }
    }

    /// The text of the reason on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Expired => "Expired",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::Invalid => "Invalid",
            Self::TooManyRequests => "TooManyRequests",
            Self::InternalError => "InternalError",
            Self::ServerTimeout => "ServerTimeout",
            Self::ServiceUnavailable => "ServiceUnavailable",
            Self::Timeout => "Timeout",
        }
    }

    /// The reason with this text, if it is one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        const ALL: [Reason; 17] = [
            Reason::BadRequest,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::MethodNotAllowed,
            Reason::NotAcceptable,
            Reason::UnsupportedMediaType,
            Reason::AlreadyExists,
            Reason::Conflict,
            Reason::Expired,
            Reason::RequestEntityTooLarge,
            Reason::Invalid,
            Reason::TooManyRequests,
            Reason::InternalError,
            Reason::ServerTimeout,
            Reason::ServiceUnavailable,
            Reason::Timeout,
        ];
        ALL.into_iter().find(|r| r.as_str() == text)
    }
}

/// A failed request: everything a `Status` object tells about it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// Machine-readable reason.
    pub reason: Reason,
    /// The reason as somebody else gave it, who is free to give any or none: it is told instead of ours.
    pub stated: Option<String>,
    /// HTTP status code; normally that of the reason.
    pub code: u16,
    /// The sentence a person reads.
    pub message: String,
    /// `details` of the Status (name, group, kind, causes, retryAfterSeconds), or null.
    pub details: Value,
    /// `metadata.continue` of the Status: how to go on after an expired list.
    pub continue_token: Option<String>,
}

impl ApiError {
    /// An error with a reason and a message and no details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            stated: None,
            code: reason.code(),
            message: message.into(),
            details: Value::Null,
            continue_token: None,
        }
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500: something failed inside.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 404: `pods "x" not found`.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self {
            details: details(group, resource, name),
            ..Self::new(Reason::NotFound, format!("{} \"{name}\" not found", group_resource(group, resource)))
        }
    }

    /// 409: `pods "x" already exists`.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self {
            details: details(group, resource, name),
            ..Self::new(Reason::AlreadyExists, format!("{} \"{name}\" already exists", group_resource(group, resource)))
        }
    }

    /// 409: the object is not in the state the request was made for.
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        Self {
            details: details(group, resource, name),
            ..Self::new(
                Reason::Conflict,
                format!("Operation cannot be fulfilled on {} \"{name}\": {why}", group_resource(group, resource)),
            )
        }
    }

    /// 409: the resourceVersion in the request is not the current one.
    pub fn stale(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403: `pods "x" is forbidden: why`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let subject = match (resource.is_empty(), name.is_empty()) {
            (true, _) => "forbidden".to_owned(),
            (false, true) => format!("{} is forbidden", group_resource(group, resource)),
            (false, false) => format!("{} \"{name}\" is forbidden", group_resource(group, resource)),
        };
        Self { details: details(group, resource, name), ..Self::new(Reason::Forbidden, format!("{subject}: {why}")) }
    }

    /// 422: `Pod "x" is invalid: …`, with one cause for each field error.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let text = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|e| json!({"reason": e.kind.reason(), "message": e.body(), "field": e.path.as_str()}))
            .collect();
        let mut details = details(group, kind, name);
        details["causes"] = Value::Array(causes);
        Self {
            details,
            ..Self::new(Reason::Invalid, format!("{} \"{name}\" is invalid: {text}", group_resource(group, kind)))
        }
    }

    /// 405: the resource does not know this verb.
    pub fn method_not_allowed() -> Self {
        Self::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
    }

    /// Adds `retryAfterSeconds` to the details.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        if !self.details.is_object() {
            self.details = json!({});
        }
        self.details["retryAfterSeconds"] = seconds.into();
        self
    }

    /// Adds a cause (`reason`, `message`) to the details; the reason may be empty.
    #[must_use]
    pub fn cause(self, reason: &str, message: &str) -> Self {
        if reason.is_empty() {
            return self.with_cause(json!({"message": message}));
        }
        self.with_cause(json!({"reason": reason, "message": message}))
    }

    /// Whether one of the causes has this reason.
    pub fn has_cause(&self, reason: &str) -> bool {
        self.details["causes"].as_array().into_iter().flatten().any(|cause| cause["reason"] == reason)
    }

    /// Adds a cause that is about a field.
    #[must_use]
    pub fn cause_at(self, reason: &str, message: &str, field: &str) -> Self {
        self.with_cause(json!({"reason": reason, "message": message, "field": field}))
    }

    fn with_cause(mut self, cause: Value) -> Self {
        if !self.details.is_object() {
            self.details = json!({});
        }
        match self.details.get_mut("causes").and_then(Value::as_array_mut) {
            Some(causes) => causes.push(cause),
            None => self.details["causes"] = json!([cause]),
        }
        self
    }

    /// The error as a `Status` object of `v1`.
    pub fn to_status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.clone().into();
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.stated.as_deref().unwrap_or(self.reason.as_str()),
            "code": self.code,
        });
        if let (Some(""), Some(status)) = (self.stated.as_deref(), status.as_object_mut()) {
            status.remove("reason");
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        } else if self.reason == Reason::NotFound {
            // kubectl looks into the details of every 404, to tell a missing subresource from a missing object.
            status["details"] = json!({});
        }
        status
    }

    /// The error with the code its reason stands for, where the transport's code says nothing (an event of a watch).
    #[must_use]
    pub fn with_own_code(mut self) -> Self {
        self.code = self.reason.code();
        self
    }

    /// The error a server reported as `Status`, or a generic one where the body is not a Status.
    pub fn from_status(code: u16, body: &[u8]) -> Self {
        let fallback_reason = Reason::of_code(code);
        let Ok(status) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            return Self { code, ..Self::new(fallback_reason, text) };
        };
        let reason = status["reason"].as_str().and_then(Reason::parse).unwrap_or(fallback_reason);
        let message = status["message"].as_str().unwrap_or(reason.as_str()).to_owned();
        Self { code, details: status["details"].clone(), ..Self::new(reason, message) }
    }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    details
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FieldPath;

    #[test]
    fn an_invalid_object_lists_a_cause_for_each_field() {
        let path = FieldPath::new("spec").child("x");
        let error = ApiError::invalid(
            "apps",
            "Deployment",
            "d",
            &[FieldError::required(&path, ""), FieldError::duplicate(&path, "y")],
        );
        assert_eq!(
            error.message,
            r#"Deployment.apps "d" is invalid: [spec.x: Required value, spec.x: Duplicate value: "y"]"#
        );
        assert_eq!(error.to_status()["details"]["causes"][1]["reason"], "FieldValueDuplicate");
        assert_eq!(error.code, 422);
    }

    #[test]
    fn a_status_survives_the_wire() {
        let error = ApiError::not_found("", "pods", "x");
        let back = ApiError::from_status(404, error.to_status().to_string().as_bytes());
        assert_eq!(back, error);
    }
}
