//! What the API answers when it cannot do what was asked: a status and one sentence, in Docker's words.

use http::StatusCode;

/// A refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub status: StatusCode,
    pub message: String,
}

/// An answer, or a refusal.
pub(crate) type Answer<T> = Result<T, Refusal>;

fn refusal(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { status, message: message.into() }
}

/// What is asked makes no sense.
pub(crate) fn bad(message: impl Into<String>) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, message)
}

/// What is named does not exist.
pub(crate) fn missing(message: impl Into<String>) -> Refusal {
    refusal(StatusCode::NOT_FOUND, message)
}

/// It may not be done as things are.
pub(crate) fn conflict(message: impl Into<String>) -> Refusal {
    refusal(StatusCode::CONFLICT, message)
}

/// Docker has it, knarr does not.
pub(crate) fn unsupported(what: &str) -> Refusal {
    refusal(StatusCode::NOT_IMPLEMENTED, format!("{what} is not supported by knarr"))
}

/// Nothing is to be done: no error, but no success either.
pub(crate) fn unchanged() -> Refusal {
    refusal(StatusCode::NOT_MODIFIED, "")
}

pub(crate) fn internal(message: impl Into<String>) -> Refusal {
    refusal(StatusCode::INTERNAL_SERVER_ERROR, message)
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        internal(format!("{error:#}"))
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        bad(format!("bad parameter: {error}"))
    }
}
