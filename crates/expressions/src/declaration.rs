//! What is known of data before it is seen: its type, how large it may be, and how its lists compare.

use crate::lexer::is_reserved;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{ObjectType, Type};

/// The declared shape of a variable or of a part of it.
#[derive(Debug, Clone)]
pub struct Declaration {
    pub(crate) ty: Type,
    /// The greatest size (characters, bytes, elements or entries), if anything is known.
    pub(crate) max_size: Option<u64>,
    pub(crate) shape: Shape,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Plain,
    List { items: Arc<Declaration>, kind: ListKind },
    Map { values: Arc<Declaration> },
    Object { fields: Arc<BTreeMap<String, Field>> },
}

/// How a list is compared and added to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListKind {
    /// As a whole, element by element.
    Atomic,
    /// Without regard to the order.
    Set,
    /// By the keys of its elements, without regard to the order.
    Map(Arc<[String]>),
}

/// One declared field.
#[derive(Debug, Clone)]
pub struct Field {
    /// The key in the JSON object, which may not be a name in an expression.
    pub key: String,
    /// What the field holds.
    pub declaration: Declaration,
}

impl Declaration {
    /// Of a type, with nothing known about sizes.
    pub fn of(ty: Type) -> Self {
        Self { ty, max_size: None, shape: Shape::Plain }
    }

    /// Of a type without parts, whose size has a bound. What has no size has the bound 0.
    pub fn sized(ty: Type, max_size: u64) -> Self {
        Self { ty, max_size: Some(max_size), shape: Shape::Plain }
    }

    /// Of a list.
    pub fn list(items: Self, kind: ListKind, max_items: u64) -> Self {
        let ty = Type::list(items.ty.clone());
        Self { ty, max_size: Some(max_items), shape: Shape::List { items: Arc::new(items), kind } }
    }

    /// Of a map from texts.
    pub fn map(values: Self, max_entries: u64) -> Self {
        let ty = Type::map(values.ty.clone());
        Self { ty, max_size: Some(max_entries), shape: Shape::Map { values: Arc::new(values) } }
    }

    /// Of an object, whose fields are known by the names that expressions use.
    pub fn object(name: &str, fields: BTreeMap<String, Field>) -> Self {
        let types = fields.iter().map(|(name, field)| (name.clone(), field.declaration.ty.clone())).collect();
        let ty = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields: Some(types) }));
        Self { ty, max_size: Some(0), shape: Shape::Object { fields: Arc::new(fields) } }
    }

    /// Of the same thing where it may be missing.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { ty: Type::optional(self.ty), max_size: self.max_size, shape: self.shape }
    }

    /// The type.
    pub fn ty(&self) -> &Type {
        &self.ty
    }

    /// The part below a step of an expression.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match &self.shape {
            Shape::Object { fields } => fields.get(name).map(|field| &field.declaration),
            _ => None,
        }
    }

    /// What the elements of a list or the values of a map are.
    pub(crate) fn element(&self) -> Option<&Self> {
        match &self.shape {
            Shape::List { items, .. } => Some(items),
            Shape::Map { values } => Some(values),
            _ => None,
        }
    }
}

/// The name by which expressions know a JSON key; `None` if they cannot name it.
pub fn escape(key: &str) -> Option<String> {
    if is_reserved(key) {
        return Some(format!("__{key}__"));
    }
    if !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let mut name = String::with_capacity(key.len());
    let mut rest = key;
    while let Some(c) = rest.chars().next() {
        match c {
            '_' if rest.starts_with("__") => {
                name.push_str("__underscores__");
                rest = &rest[2..];
                continue;
            }
            '.' => name.push_str("__dot__"),
            '-' => name.push_str("__dash__"),
            '/' => name.push_str("__slash__"),
            _ if c.is_ascii_alphanumeric() || c == '_' => name.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_no_names_are_escaped() {
        for (key, name) in [
            ("plain", Some("plain")),
            ("namespace", Some("__namespace__")),
            ("a-b.c/d__e", Some("a__dash__b__dot__c__slash__d__underscores__e")),
            ("x_y", Some("x_y")),
            ("int", Some("int")),
            ("1a", None),
            ("ä", None),
            ("a b", None),
        ] {
            assert_eq!(escape(key).as_deref(), name, "{key}");
        }
    }
}
