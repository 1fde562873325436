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

    /// With one more type of which expressions may make values: `Name{field: value}`.
    #[must_use]
    pub fn with_message(mut self, ty: ObjectType) -> Self {
        self.messages.insert(ty.name.clone(), Arc::new(ty));
        self
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Declaration> {
        self.variables.get(name)
    }

    pub(crate) fn message(&self, name: &str) -> Option<&Arc<ObjectType>> {
        self.messages.get(name)
    }
}
