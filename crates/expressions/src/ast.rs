//! The tree of an expression after its macros are expanded.

use std::sync::Arc;

use crate::functions::Function;
use crate::value::Value;

/// How deep a tree may be. The recursive parts of the crate rely on it.
pub(crate) const MAX_DEPTH: usize = 250;

/// How many nodes a tree may have. Macros repeat parts, so that a short text could make a huge tree.
pub(crate) const MAX_NODES: usize = 100_000;

/// The variable in which a macro gathers its result. No text can name it.
pub(crate) const ACCUMULATOR: &str = "@result";

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    /// Unique in the program, an index into the checker's tables. A part that a macro repeats keeps its id.
    pub id: usize,
    pub depth: usize,
    pub nodes: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Literal(Value<'static>),
    Ident(Arc<str>),
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        /// Asks whether the field is there: `has(a.b)`.
        test: bool,
    },
    Call(Box<Call>),
    List {
        elements: Vec<Expr>,
        /// Which elements are left out if they have no value: `[?a]`.
        optional: Vec<bool>,
    },
    Map(Vec<Entry>),
    Message {
        name: Arc<str>,
        entries: Vec<Entry>,
    },
    Fold(Box<Fold>),
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub function: Arc<str>,
    pub target: Option<Expr>,
    pub args: Vec<Expr>,
    /// Set by the checker.
    pub bound: Option<&'static Function>,
}

/// One entry of a map, or one field of a message, whose key is a literal then.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Expr,
    pub value: Expr,
    /// Left out if the value has none: `{?a: b}`.
    pub optional: bool,
}

/// What the macros over lists and maps become.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub variable: Arc<str>,
    pub second: Option<Arc<str>>,
    pub range: Expr,
    pub accumulator: Arc<str>,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Fold {
    /// Whether it only names a value: nothing is walked over.
    pub fn is_binding(&self) -> bool {
        &*self.accumulator != ACCUMULATOR
    }
}

impl Expr {
    /// Calls `visit` for each part that is directly below.
    pub fn children<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => visit(operand),
            Kind::Call(call) => call.target.iter().chain(&call.args).for_each(visit),
            Kind::List { elements, .. } => elements.iter().for_each(visit),
            Kind::Map(entries) => entries.iter().for_each(|entry| {
                visit(&entry.key);
                visit(&entry.value);
            }),
            Kind::Message { entries, .. } => entries.iter().for_each(|entry| visit(&entry.value)),
            Kind::Fold(fold) => {
                [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result].into_iter().for_each(visit);
            }
        }
    }

    /// The dotted name, if the expression is one: `a.b.c`.
    pub fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.to_string()),
            Kind::Select { operand, field, test: false } => Some(format!("{}.{field}", operand.qualified_name()?)),
            _ => None,
        }
    }
}
