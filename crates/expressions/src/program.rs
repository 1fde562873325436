//! A compiled expression.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::Regex;

use crate::ast::{Expr, Kind};
use crate::cost::CostEstimate;
use crate::environment::Environment;
use crate::error::{CompileError, EvalError};
use crate::functions::patterns;
use crate::interpreter::Interpreter;
use crate::types::Type;
use crate::value::Value;
use crate::{checker, estimate, parser};

/// An expression that has been parsed and checked. Clones share it.
#[derive(Debug, Clone)]
pub struct Program(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    expr: Expr,
    output: Type,
    estimate: CostEstimate,
    uses: BTreeSet<String>,
    patterns: BTreeMap<String, Regex>,
}

impl Program {
    /// Parses and checks a text.
    pub fn compile(text: &str, environment: &Environment) -> Result<Self, CompileError> {
        let failed = |issues| CompileError::new(text, issues);
        let mut parsed = parser::parse(text).map_err(failed)?;
        let checked = checker::check(&mut parsed.expr, &parsed.offsets, environment).map_err(failed)?;
        let estimate = estimate::estimate(&parsed.expr, &checked, environment);
        let mut patterns = BTreeMap::new();
        read_patterns(&parsed.expr, &mut patterns);
        let output = checked.types[parsed.expr.id].clone();
        Ok(Self(Arc::new(Compiled { expr: parsed.expr, output, estimate, uses: checked.uses, patterns })))
    }

    /// The type of its values.
    pub fn output(&self) -> &Type {
        &self.0.output
    }

    /// What an evaluation costs, as far as declared sizes tell.
    pub fn estimate(&self) -> CostEstimate {
        self.0.estimate
    }

    /// Whether it refers to a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.0.uses.contains(variable)
    }

    /// The value for some variables. What it cost is taken from the budget; an evaluation that would cost more ends with
    /// [`EvalError::CostExceeded`], and leaves nothing of the budget.
    pub fn evaluate<'a>(&self, variables: &[(&str, Value<'a>)], budget: &mut u64) -> Result<Value<'a>, EvalError> {
        self.evaluate_with(variables, &|_| None, budget)
    }

    /// The same, where the values of some variables are only made when the expression asks for them by `later`.
    pub fn evaluate_with<'a>(
        &self,
        variables: &[(&str, Value<'a>)],
        later: &dyn Fn(&str) -> Option<Result<Value<'a>, EvalError>>,
        budget: &mut u64,
    ) -> Result<Value<'a>, EvalError> {
        let mut interpreter =
            Interpreter { patterns: &self.0.patterns, variables, later, locals: Vec::new(), cost: 0, limit: *budget };
        let result = interpreter.evaluate(&self.0.expr);
        *budget = budget.saturating_sub(interpreter.cost);
        result
    }
}

/// Reads the patterns that stand in the text. One that is wrong is told where it is used.
fn read_patterns(expr: &Expr, patterns: &mut BTreeMap<String, Regex>) {
    if let Kind::Call(call) = &expr.kind
        && patterns::takes_pattern(&call.function)
    {
        for argument in &call.args {
            if let Kind::Literal(Value::String(text)) = &argument.kind
                && let Ok(regex) = patterns::compile(text.as_str())
            {
                patterns.insert(text.as_str().to_owned(), regex);
            }
        }
    }
    expr.children(&mut |child| read_patterns(child, patterns));
}
