//! Why a command did not succeed: what it says on standard error, and its exit status.

use object_model::ApiError;

/// A failure, worded as kubectl words it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Lines for standard error; empty when everything was said already.
    pub message: String,
    /// Exit status.
    pub code: u8,
}

/// What a command comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl From<object_model::jsonpath::JsonPathError> for Failure {
    fn from(why: object_model::jsonpath::JsonPathError) -> Self {
        error(why.0)
    }
}

/// A mistake of the caller: `error: …`.
pub(crate) fn error(message: impl AsRef<str>) -> Failure {
    Failure { message: format!("error: {}", message.as_ref()), code: 1 }
}

/// Everything was said already.
pub(crate) fn said(code: u8) -> Failure {
    Failure { message: String::new(), code }
}

/// What the server answered.
pub(crate) fn from_server(error: &ApiError) -> Failure {
    // An answer that is no Status has no reason to name.
    let message = if error.message.starts_with("the server could not find the requested resource") {
        "Error from server (NotFound): the server could not find the requested resource".to_owned()
    } else {
        format!("Error from server ({}): {}", error.reason.as_str(), error.message)
    };
    Failure { message, code: 1 }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        from_server(&error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        match error.downcast_ref::<ApiError>() {
            Some(answer) => from_server(answer),
            None => self::error(format!("{error:#}")),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        self::error(error.to_string())
    }
}
