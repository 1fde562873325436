//! What the server serves: rows of `kinds::RESOURCES`, with what is derived from them.

use kinds::{Resource, Scope, Subresource};
use object_model::{ApiError, api_version};
use schema::Type;

/// The schema of a type that the server itself names.
///
/// # Errors
/// 500 when the table of types does not hold it.
pub fn schema_of(name: &str) -> Result<&'static Type, ApiError> {
    schema::type_named(name).ok_or_else(|| ApiError::internal(format!("no schema of {name}")))
}

/// One served resource.
#[derive(Clone, Copy)]
pub struct Served {
    /// The row.
    pub row: &'static Resource,
    /// The schema of its objects.
    pub ty: &'static Type,
}

impl Served {
    /// The resource a request names.
    ///
    /// # Errors
    /// 404 when it is not served.
    pub fn find(group: &str, version: &str, plural: &str) -> Result<Self, ApiError> {
        kinds::RESOURCES
            .iter()
            .find(|r| r.group == group && r.version == version && r.plural == plural)
            .and_then(|row| Self::of(row))
            .ok_or_else(|| {
                ApiError::new(object_model::Reason::NotFound, "the server could not find the requested resource")
            })
    }

    /// A row as it is served.
    pub fn of(row: &'static Resource) -> Option<Self> {
        Some(Self { row, ty: schema::type_named(row.type_name)? })
    }

    /// All served resources.
    pub fn all() -> impl Iterator<Item = Self> {
        kinds::RESOURCES.iter().filter_map(|row| Self::of(row))
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        api_version(self.row.group, self.row.version)
    }

    /// Whether this kind is a view of a collection that is stored in the form of another kind.
    pub fn converts(&self) -> bool {
        kinds::RESOURCES
            .iter()
            .find(|r| r.is_stored() && r.storage == self.row.storage)
            .is_some_and(|first| !std::ptr::eq(*first, self.row))
    }

    /// Whether its objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        matches!(self.row.scope, Scope::Namespaced)
    }

    /// Whether this is the kind `kind` of a group: for the few places that may name a kind.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.row.group == group && self.row.kind == kind
    }

    /// Whether this is the kind `kind` of the core group: for the few places that may name a kind.
    pub fn is_core(&self, kind: &str) -> bool {
        self.is("", kind)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.row.subresources.iter().find(|s| s.name == name)
    }

    /// The start of all its keys in the store.
    pub fn prefix(&self) -> String {
        format!("{}/", self.row.storage)
    }

    /// The start of the keys of a namespace, or of all where it is empty.
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() || !self.namespaced() {
            self.prefix()
        } else {
            format!("{}/{namespace}/", self.row.storage)
        }
    }

    /// The key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced() {
            format!("{}/{namespace}/{name}", self.row.storage)
        } else {
            format!("{}/{name}", self.row.storage)
        }
    }

    /// 404 for an object of this resource.
    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(self.row.group, self.row.plural, name)
    }

    /// 409 for an object of this resource that has changed meanwhile.
    pub fn stale(&self, name: &str) -> ApiError {
        ApiError::stale(self.row.group, self.row.plural, name)
    }
}
