//! The types of expressions and values.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Anything: checked when it is evaluated.
    Dyn,
    /// The type of `null`.
    Null,
    /// `true` and `false`.
    Bool,
    /// A signed number of 64 bits.
    Int,
    /// An unsigned number of 64 bits.
    Uint,
    /// A floating-point number.
    Double,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// A span of time.
    Duration,
    /// A moment.
    Timestamp,
    /// A list of elements of one type.
    List(Arc<Type>),
    /// A map from keys to values.
    Map(Arc<Type>, Arc<Type>),
    /// Something with named fields.
    Object(Arc<ObjectType>),
    /// A value that may be missing.
    Optional(Arc<Type>),
    /// The type of a type, if it is known which.
    TypeType(Option<Arc<Type>>),
    /// A type of a library, known by its name alone.
    Opaque(&'static str),
    /// Stands for a type that is not known yet. No compiled program has one.
    #[doc(hidden)]
    Parameter(usize),
}

/// The name and fields of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectType {
    /// What messages call it.
    pub name: String,
    /// The type of each field, by the name that expressions use. `None`: any field may be named, and is dynamic.
    pub fields: Option<BTreeMap<String, Type>>,
}

impl Type {
    /// An exact amount, as of resources.
    pub const QUANTITY: Self = Self::Opaque("kubernetes.Quantity");
    /// A URL.
    pub const URL: Self = Self::Opaque("kubernetes.URL");
    /// An IP address.
    pub const IP: Self = Self::Opaque("net.IP");
    /// A range of IP addresses.
    pub const CIDR: Self = Self::Opaque("net.CIDR");
    /// A semantic version.
    pub const SEMVER: Self = Self::Opaque("kubernetes.Semver");
    /// A named format of texts.
    pub const FORMAT: Self = Self::Opaque("kubernetes.NamedFormat");
    /// Whom to ask what somebody may do.
    pub const AUTHORIZER: Self = Self::Opaque("kubernetes.authorization.Authorizer");
    /// A question about a path.
    pub const PATH_CHECK: Self = Self::Opaque("kubernetes.authorization.PathCheck");
    /// A question about an API group.
    pub const GROUP_CHECK: Self = Self::Opaque("kubernetes.authorization.GroupCheck");
    /// A question about a resource.
    pub const RESOURCE_CHECK: Self = Self::Opaque("kubernetes.authorization.ResourceCheck");
    /// The answer to a question.
    pub const DECISION: Self = Self::Opaque("kubernetes.authorization.Decision");

    /// A list of `element`.
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// A map from texts to `value`.
    pub fn map(value: Self) -> Self {
        Self::Map(Arc::new(Self::String), Arc::new(value))
    }

    /// A value of `inner` that may be missing.
    pub fn optional(inner: Self) -> Self {
        Self::Optional(Arc::new(inner))
    }

    /// The types it is made of.
    pub(crate) fn parameters(&self) -> Vec<&Self> {
        match self {
            Self::List(inner) | Self::Optional(inner) | Self::TypeType(Some(inner)) => vec![inner],
            Self::Map(key, value) => vec![key, value],
            _ => Vec::new(),
        }
    }

    /// The same type with each parameter replaced.
    pub(crate) fn replace(&self, with: &mut dyn FnMut(usize) -> Self) -> Self {
        match self {
            Self::Parameter(n) => with(*n),
            Self::List(inner) => Self::list(inner.replace(with)),
            Self::Optional(inner) => Self::optional(inner.replace(with)),
            Self::TypeType(Some(inner)) => Self::TypeType(Some(Arc::new(inner.replace(with)))),
            Self::Map(key, value) => Self::Map(Arc::new(key.replace(with)), Arc::new(value.replace(with))),
            other => other.clone(),
        }
    }

    /// The name by which expressions know the type: `type(1) == int`.
    pub(crate) fn runtime_name(&self) -> &str {
        match self {
            Self::Dyn | Self::Parameter(_) => "dyn",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Object(object) => &object.name,
            Self::Optional(_) => "optional_type",
            Self::TypeType(_) => "type",
            Self::Opaque(name) => name,
        }
    }

    /// The type that an identifier names.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let dynamic = || Arc::new(Self::Dyn);
        let known = [
            Self::Null,
            Self::Bool,
            Self::Int,
            Self::Uint,
            Self::Double,
            Self::String,
            Self::Bytes,
            Self::Duration,
            Self::Timestamp,
            Self::List(dynamic()),
            Self::Map(dynamic(), dynamic()),
            Self::Optional(dynamic()),
            Self::TypeType(None),
            Self::QUANTITY,
            Self::URL,
            Self::IP,
            Self::CIDR,
            Self::SEMVER,
            Self::FORMAT,
        ];
        known.into_iter().find(|ty| ty.runtime_name() == name)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::List(element) => write!(f, "list({element})"),
            Self::Map(key, value) => write!(f, "map({key}, {value})"),
            Self::Optional(inner) => write!(f, "optional_type({inner})"),
            Self::TypeType(Some(inner)) => write!(f, "type({inner})"),
            Self::Parameter(n) => write!(f, "_var{n}"),
            other => f.write_str(other.runtime_name()),
        }
    }
}
