//! The envelope of every object: metadata, selectors, quantities, field errors and [`ApiError`].
//!
//! Everything here is pure: no clock, no randomness, no IO. Time and ids are handed in.

mod error;
mod field;
pub mod jsonpath;
pub mod meta;
pub mod names;
pub mod node_selector;
mod page;
mod quantity;
pub mod selector;
pub mod time;

pub use error::{ApiError, Reason};
pub use field::{FieldError, FieldErrorKind, FieldPath};
pub use page::Continue;
pub use quantity::{ParseQuantityError, Quantity};
pub use selector::{FieldSelector, LabelSelector, SelectorError};

/// Group, version and plural name: what a request path names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupVersionResource {
    /// API group, empty for the core group.
    pub group: String,
    /// API version inside the group, like `v1`.
    pub version: String,
    /// Plural resource name, like `pods`.
    pub resource: String,
}

/// `group/version`, or just `version` for the core group: the `apiVersion` of an object.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `resource.group`, or just `resource` for the core group: how messages name a resource.
pub fn group_resource(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
