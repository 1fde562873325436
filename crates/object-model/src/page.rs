//! Where a paged list goes on: the token that a page ends with and the next one begins with.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::ApiError;

/// The place in a list behind a page. Opaque to clients; the layout is upstream's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Continue {
    v: String,
    rv: i64,
    start: String,
}

impl Continue {
    /// The place after the key `start` in the list of a revision; without one in whatever is newest.
    pub fn after(start: &str, revision: Option<u64>) -> Self {
        let rv = revision.and_then(|revision| i64::try_from(revision).ok()).unwrap_or(-1);
        Self { v: "meta.k8s.io/v1".to_owned(), rv, start: start.to_owned() }
    }

    /// As it is told to clients.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("strings and numbers always serialise"))
    }

    /// Reads what a client gives back.
    ///
    /// # Errors
    /// 400 when it is nothing that [`Continue::encode`] made.
    pub fn decode(token: &str) -> Result<Self, ApiError> {
        URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| ApiError::bad_request("continue key is not valid: the token could not be read"))
    }

    /// The last key of the page before.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// The revision of the list; `None` for the newest.
    pub fn revision(&self) -> Option<u64> {
        u64::try_from(self.rv).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made() {
        for token in [Continue::after("pods/a/b", Some(7)), Continue::after("", None)] {
            assert_eq!(Continue::decode(&token.encode()).expect("reads"), token);
        }
        assert_eq!(Continue::after("x", None).revision(), None);
        for broken in ["", "x", "e30", "eyJ2IjoxfQ"] {
            assert!(Continue::decode(broken).is_err(), "{broken}");
        }
    }
}
