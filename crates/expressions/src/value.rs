//! The values that expressions are about. Those made from JSON are read where an expression looks at them.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::declaration::{Declaration, Field, ListKind, Shape};
use crate::error::EvalError;
use crate::functions::authorization::{Access, Decision, Stage};
use crate::functions::formats::Format;
use crate::functions::network::Cidr;
use crate::functions::quantity::Quantity;
use crate::functions::url::Url;
use crate::json;
use crate::types::Type;

/// One value. Clones share what is large.
#[derive(Debug, Clone)]
pub enum Value<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating-point number.
    Double(f64),
    /// Text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A span of time.
    Duration(jiff::SignedDuration),
    /// A moment.
    Timestamp(jiff::Timestamp),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A value that may be missing.
    Optional(Option<Arc<Value<'a>>>),
    /// A type.
    Type(Type),
    /// An exact amount.
    Quantity(Quantity),
    /// A URL.
    Url(Arc<Url>),
    /// An IP address.
    Ip(IpAddr),
    /// A range of IP addresses.
    Cidr(Cidr),
    /// A semantic version.
    Semver(Arc<semver::Version>),
    /// A named format.
    Format(&'static Format),
    /// A question to an authoriser, as far as it has been asked.
    Access(Access),
    /// What an authoriser said.
    Decision(Arc<Decision>),
}

impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

/// Text of the data, or made by an expression.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Of the data.
    Borrowed(&'a str),
    /// Made by an expression.
    Shared(Arc<str>),
}

impl<'a> Text<'a> {
    /// The characters.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }

    /// A part of the text, from byte to byte. Of the data it is no copy.
    pub(crate) fn part(&self, range: std::ops::Range<usize>) -> Value<'a> {
        match self {
            Self::Borrowed(text) => Value::from(&text[range]),
            Self::Shared(text) => Value::from(text[range].to_owned()),
        }
    }
}

/// A list of the data, or made by an expression.
#[derive(Debug, Clone)]
pub enum List<'a> {
    #[doc(hidden)]
    Json { items: &'a [serde_json::Value], declaration: Option<&'a Declaration> },
    #[doc(hidden)]
    Made(Arc<Vec<Value<'a>>>),
}

/// A map or object of the data, or made by an expression.
#[derive(Debug, Clone)]
pub enum Map<'a> {
    #[doc(hidden)]
    Json { entries: &'a serde_json::Map<String, serde_json::Value>, declaration: Option<&'a Declaration> },
    #[doc(hidden)]
    Made { entries: Arc<BTreeMap<Key, Value<'a>>>, ty: Option<Arc<str>> },
}

/// What may be the key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number. Signed and unsigned ones are the same key.
    Int(i128),
    /// Text.
    String(Arc<str>),
}

impl Key {
    /// The value as a key, if it may be one. Whole floating-point numbers find the same entry.
    pub(crate) fn of(value: &Value<'_>) -> Result<Self, EvalError> {
        match value {
            Value::Bool(b) => Ok(Self::Bool(*b)),
            Value::Int(n) => Ok(Self::Int(i128::from(*n))),
            Value::Uint(n) => Ok(Self::Int(i128::from(*n))),
            Value::Double(n) if n.fract() == 0.0 && n.abs() < 1e19 => Ok(Self::Int(*n as i128)),
            Value::String(text) => Ok(Self::String(text.as_str().into())),
            other => Err(EvalError::new(format!("unsupported key type: {}", other.type_name()))),
        }
    }

    fn value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => match i64::try_from(*n) {
                Ok(n) => Value::Int(n),
                Err(_) => Value::Uint(u64::try_from(*n).unwrap_or(u64::MAX)),
            },
            Self::String(text) => Value::String(Text::Shared(text.clone())),
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(values: Vec<Value<'a>>) -> Self {
        Self::List(List::Made(Arc::new(values)))
    }
}

impl<'a> Value<'a> {
    /// The value of JSON about which nothing is declared.
    pub fn dynamic(json: &'a serde_json::Value) -> Self {
        json::dynamic(json)
    }

    /// The value of JSON of a declared shape, or what does not fit.
    pub fn declared(json: &'a serde_json::Value, declaration: &'a Declaration) -> Result<Self, EvalError> {
        json::declared(json, declaration)
    }

    /// A value that is present where it might be missing.
    #[must_use]
    pub fn some(self) -> Self {
        Self::Optional(Some(Arc::new(self)))
    }

    /// A map with names for keys.
    pub fn object(fields: impl IntoIterator<Item = (&'static str, Value<'a>)>) -> Self {
        let entries = fields.into_iter().map(|(name, value)| (Key::String(name.into()), value)).collect();
        Self::Map(Map::Made { entries: Arc::new(entries), ty: None })
    }

    /// The value as JSON, as upstream renders it.
    pub fn to_json(&self) -> Result<serde_json::Value, EvalError> {
        json::of(self)
    }

    /// What is wrong with the names of the types of objects within objects: each is that of the object around it and the
    /// field, as in `Object{spec: Object.spec{}}`. `None` if nothing is wrong.
    pub fn misnamed(&self) -> Option<String> {
        self.misnamed_at("")
    }

    fn misnamed_at(&self, expected: &str) -> Option<String> {
        match self {
            Self::Map(Map::Made { ty: Some(name), entries }) => {
                let root = |name: &str| name.split('.').next().unwrap_or_default().to_owned();
                // What is of another family is the root of its own.
                if root(name) == root(expected) && **name != *expected {
                    return Some(format!(
                        "unexpected type name {name:?}, expected {expected:?}, which matches field name path from root {} \
                         type",
                        root(name)
                    ));
                }
                entries.iter().find_map(|(field, value)| value.misnamed_at(&format!("{name}.{field}")))
            }
            Self::Map(Map::Made { ty: None, entries }) => {
                entries.values().find_map(|value| value.misnamed_at(expected))
            }
            Self::List(List::Made(values)) => values.iter().find_map(|value| value.misnamed_at(expected)),
            _ => None,
        }
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> String {
        self.ty().runtime_name().to_owned()
    }

    pub(crate) fn ty(&self) -> Type {
        let dynamic = || Arc::new(Type::Dyn);
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) => Type::List(dynamic()),
            Self::Map(Map::Json { declaration: Some(Declaration { ty: ty @ Type::Object(_), .. }), .. }) => ty.clone(),
            Self::Map(Map::Made { ty: Some(name), .. }) => {
                Type::Object(Arc::new(crate::types::ObjectType { name: name.to_string(), fields: None }))
            }
            Self::Map(_) => Type::Map(dynamic(), dynamic()),
            Self::Optional(_) => Type::Optional(dynamic()),
            Self::Type(_) => Type::TypeType(None),
            Self::Quantity(_) => Type::QUANTITY,
            Self::Url(_) => Type::URL,
            Self::Ip(_) => Type::IP,
            Self::Cidr(_) => Type::CIDR,
            Self::Semver(_) => Type::SEMVER,
            Self::Format(_) => Type::FORMAT,
            Self::Access(access) => match access.stage {
                Stage::Nothing => Type::AUTHORIZER,
                Stage::Path => Type::PATH_CHECK,
                Stage::Group => Type::GROUP_CHECK,
                Stage::Resource => Type::RESOURCE_CHECK,
            },
            Self::Decision(_) => Type::DECISION,
        }
    }

    /// Text that depends on nothing else.
    pub(crate) fn into_owned(self) -> Value<'static> {
        match self {
            Self::String(text) => Value::String(Text::Shared(text.as_str().into())),
            Self::Bool(b) => Value::Bool(b),
            Self::Int(n) => Value::Int(n),
            Self::Uint(n) => Value::Uint(n),
            Self::Double(n) => Value::Double(n),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            _ => Value::Null,
        }
    }

    /// What `size()` is; 1 for what has none, as the cost has it.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.as_str().chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(list) => list.len(),
            Self::Map(map) => map.len(),
            Self::Ip(ip) => byte_length(*ip),
            Self::Cidr(cidr) => byte_length(cidr.address),
            Self::Url(url) => url.text().chars().count(),
            _ => 1,
        };
        size as u64
    }

    /// Whether two values are the same. Numbers of different types are compared by their amount.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::String(a), Value::String(b)) => a.as_str() == b.as_str(),
            (Self::Bytes(a), Value::Bytes(b)) => a == b,
            (Self::Duration(a), Value::Duration(b)) => a == b,
            (Self::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Self::List(a), Value::List(b)) => a.equals(b),
            (Self::Map(a), Value::Map(b)) => a.equals(b),
            (Self::Optional(a), Value::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b),
                _ => false,
            },
            (Self::Type(a), Value::Type(b)) => a.runtime_name() == b.runtime_name(),
            (Self::Quantity(a), Value::Quantity(b)) => a == b,
            (Self::Url(a), Value::Url(b)) => a.text() == b.text(),
            (Self::Ip(a), Value::Ip(b)) => a == b,
            (Self::Cidr(a), Value::Cidr(b)) => a == b,
            // What follows the plus says how a version was built, not which it is.
            (Self::Semver(a), Value::Semver(b)) => a.cmp_precedence(b) == Ordering::Equal,
            (Self::Format(a), Value::Format(b)) => a.name == b.name,
            (Self::Decision(a), Value::Decision(b)) => a == b,
            (Self::Int(a), Value::Int(b)) => a == b,
            _ => self.compare_numbers(other) == Some(Ordering::Equal),
        }
    }

    /// The order of two numbers of any types.
    pub(crate) fn compare_numbers(&self, other: &Value<'_>) -> Option<Ordering> {
        let whole = |value: &Value<'_>| match value {
            Value::Int(n) => Some(i128::from(*n)),
            Value::Uint(n) => Some(i128::from(*n)),
            _ => None,
        };
        match (self, other) {
            (Self::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), b) => compare_double(*a, whole(b)?),
            (a, Value::Double(b)) => compare_double(*b, whole(a)?).map(Ordering::reverse),
            (a, b) => Some(whole(a)?.cmp(&whole(b)?)),
        }
    }
}

fn byte_length(ip: IpAddr) -> usize {
    if ip.is_ipv4() { 4 } else { 16 }
}

/// Exact, unlike a conversion of the whole number would be.
fn compare_double(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a.abs() >= 1e30 {
        return Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let floor = a.floor();
    Some((floor as i128).cmp(&b).then(if a > floor { Ordering::Greater } else { Ordering::Equal }))
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json { items, .. } => items.len(),
            Self::Made(values) => values.len(),
        }
    }

    /// The element at an index. The outer `None` says that there is none.
    pub(crate) fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json { items, declaration } => {
                items.get(index).map(|item| json::part(item, declaration.and_then(Declaration::element)))
            }
            Self::Made(values) => values.get(index).cloned().map(Ok),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn values(&self) -> Result<Vec<Value<'a>>, EvalError> {
        self.iter().collect()
    }

    fn kind(&self) -> &ListKind {
        match self {
            Self::Json { declaration: Some(Declaration { shape: Shape::List { kind, .. }, .. }), .. } => kind,
            _ => &ListKind::Atomic,
        }
    }

    /// What makes an element the same as another in a set or a list with keys.
    fn identity(&self, element: &Value<'_>) -> Result<String, EvalError> {
        match (self.kind(), element) {
            (ListKind::Map(keys), Value::Map(map)) => {
                let keys =
                    keys.iter().map(|key| map.by_json_key(key).map_or(Ok(serde_json::Value::Null), |v| v.to_json()));
                Ok(serde_json::Value::Array(keys.collect::<Result<_, _>>()?).to_string())
            }
            _ => Ok(element.to_json()?.to_string()),
        }
    }

    fn equals(&self, other: &List<'_>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        let (Ok(ours), Ok(theirs)) = (self.values(), other.values()) else { return false };
        if *self.kind() == ListKind::Atomic {
            return ours.iter().zip(&theirs).all(|(a, b)| a.equals(b));
        }
        let known: Result<BTreeMap<String, &Value<'a>>, EvalError> =
            ours.iter().map(|value| Ok((self.identity(value)?, value))).collect();
        known.is_ok_and(|known| {
            theirs.iter().all(|b| {
                let same = self.identity(b).ok().and_then(|identity| known.get(&identity));
                same.is_some_and(|a| a.equals(b))
            })
        })
    }

    /// Both lists as one: sets keep one of each, and lists with keys take the later value of a key.
    pub(crate) fn joined(&self, other: &Self) -> Result<Value<'a>, EvalError> {
        let mut values = self.values()?;
        if *self.kind() == ListKind::Atomic {
            values.extend(other.values()?);
            return Ok(values.into());
        }
        let mut places = BTreeMap::new();
        for (place, value) in values.iter().enumerate() {
            places.insert(self.identity(value)?, place);
        }
        for value in other.iter() {
            let value = value?;
            match places.entry(self.identity(&value)?) {
                Entry::Occupied(place) => values[*place.get()] = value,
                Entry::Vacant(place) => {
                    place.insert(values.len());
                    values.push(value);
                }
            }
        }
        Ok(values.into())
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json { entries, .. } => entries.len(),
            Self::Made { entries, .. } => entries.len(),
        }
    }

    /// The value of a key or field. The outer `None` says that there is none.
    pub(crate) fn get(&self, key: &Key) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Self::Json { entries, declaration } => {
                let Key::String(name) = key else { return None };
                match declaration.map(|declaration| &declaration.shape) {
                    Some(Shape::Object { fields }) => {
                        // A declared field that is null is taken as absent.
                        let field = fields.get(&**name)?;
                        let value = entries.get(&field.key).filter(|value| !value.is_null());
                        value.map(|value| json::declared(value, &field.declaration))
                    }
                    _ => {
                        let part = declaration.and_then(Declaration::element);
                        entries.get(&**name).map(|value| json::part(value, part))
                    }
                }
            }
            Self::Made { entries, .. } => entries.get(key).cloned().map(Ok),
        }
    }

    fn by_json_key(&self, key: &str) -> Option<Value<'a>> {
        match self {
            Self::Json { entries, .. } => entries.get(key).map(json::dynamic),
            Self::Made { entries, .. } => entries.get(&Key::String(key.into())).cloned(),
        }
    }

    /// The keys, as values. Those of an object which no declared field has are not seen.
    pub(crate) fn keys(&self) -> Vec<Value<'a>> {
        match self {
            Self::Json { entries, declaration } => match declaration.map(|declaration| &declaration.shape) {
                Some(Shape::Object { fields }) => {
                    let given = |field: &Field| entries.get(&field.key).is_some_and(|value| !value.is_null());
                    let present = fields.iter().filter(|(_, field)| given(field));
                    present.map(|(name, _)| Value::from(name.clone())).collect()
                }
                _ => entries.keys().map(|key| Value::from(key.as_str())).collect(),
            },
            Self::Made { entries, .. } => entries.keys().map(Key::value).collect(),
        }
    }

    fn equals(&self, other: &Map<'_>) -> bool {
        if let (Self::Json { entries: ours, declaration }, Map::Json { entries: theirs, .. }) = (self, other) {
            // What is kept without a declaration counts as well, although no expression can look at it.
            return ours.len() == theirs.len()
                && ours.iter().all(|(key, a)| {
                    let part = declaration.and_then(|declaration| match &declaration.shape {
                        Shape::Object { fields } => {
                            fields.values().find(|field| field.key == *key).map(|field| &field.declaration)
                        }
                        _ => declaration.element(),
                    });
                    theirs.get(key).is_some_and(|b| a == b || json_equals(a, b, part))
                });
        }
        self.len() == other.len()
            && self.keys().iter().all(|key| {
                let Ok(key) = Key::of(key) else { return false };
                match (self.get(&key), other.get(&key)) {
                    (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
                    _ => false,
                }
            })
    }
}

fn json_equals(a: &serde_json::Value, b: &serde_json::Value, declaration: Option<&Declaration>) -> bool {
    match (json::part(a, declaration), json::part(b, declaration)) {
        (Ok(a), Ok(b)) => a.equals(&b),
        _ => false,
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(b) => write!(f, "{b}"),
            Self::Int(n) => write!(f, "{n}"),
            Self::String(text) => f.write_str(text),
        }
    }
}
