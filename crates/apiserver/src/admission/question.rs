//! What is asked of those who judge a request beyond the rules of its kind: webhooks, policies, quotas.

use serde_json::Value;

use crate::context::Context;
use crate::served::Served;

/// What a request does, as webhooks and policies name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A new object.
    Create,
    /// A change of an object or of a subresource of it.
    Update,
    /// The deletion of an object.
    Delete,
    /// A connection to an object: `exec`, `attach`, `portforward`, `proxy`.
    Connect,
}

impl Operation {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Connect];

    /// As it is written in rules and reviews.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// A request that is to be judged.
pub(crate) struct Question<'a> {
    /// The request: its user, its query.
    pub cx: &'a Context,
    /// The resource.
    pub served: &'a Served,
    /// The subresource; empty for the object itself.
    pub subresource: &'a str,
    /// What is done.
    pub operation: Operation,
    /// The namespace; empty for what lives in none.
    pub namespace: &'a str,
    /// The name; empty when it is still to be generated.
    pub name: String,
    /// The object as it shall be, or the options of a connection; null for a deletion.
    pub object: Value,
    /// The object as it is; null for a creation or a connection.
    pub old: Value,
    /// The options that the body of the request gave; null where the query says all ([`Self::options`]).
    pub options: Value,
    /// Whether nothing may happen outside.
    pub dry_run: bool,
}
