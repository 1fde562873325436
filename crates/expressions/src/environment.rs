//! What an expression may refer to.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::declaration::Declaration;
use crate::types::{ObjectType, Type};

/// The variables and message types that an expression may name. All functions are always there.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, Declaration>,
    messages: BTreeMap<String, Arc<ObjectType>>,
    open_messages: Vec<String>,
}

impl Environment {
    /// Without any variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, declaration: Declaration) -> Self {
        self.variables.insert(name.to_owned(), declaration);
        self
    }

    /// With one more variable, about whose size nothing is known.
    #[must_use]
    pub fn with_type(self, name: &str, ty: Type) -> Self {
        self.with(name, Declaration::of(ty))
    }

    /// Without a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    /// With one more type of which expressions may make values: `Name{field: value}`.
    #[must_use]
    pub fn with_message(mut self, ty: ObjectType) -> Self {
        self.messages.insert(ty.name.clone(), Arc::new(ty));
        self
    }

    /// With types of any fields, of which expressions may make values: one of this name, and those whose names begin with
    /// it and a dot.
    #[must_use]
    pub fn with_open_messages(mut self, name: &str) -> Self {
        self.open_messages.push(name.to_owned());
        self
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Declaration> {
        self.variables.get(name)
    }

    pub(crate) fn message(&self, name: &str) -> Option<Arc<ObjectType>> {
        let below = |open: &String| {
            name.strip_prefix(open.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if self.open_messages.iter().any(below) {
            return Some(Arc::new(ObjectType { name: name.to_owned(), fields: None }));
        }
        self.messages.get(name).cloned()
    }
}
