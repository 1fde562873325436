//! Rules that users write in CEL: validation rules of custom resources, match conditions and admission policies.

mod conditions;
mod declare;
mod field_path;
mod policies;
mod schema_rules;
mod type_check;
mod validate;

pub use conditions::{compiled_conditions, device_selector, match_conditions};
pub use policies::{Expression, Mutation, Policy, Validation, policy};
pub use schema_rules::{CompiledRules, compile};
pub use type_check::{Checked, type_of_schema, type_of_table, warnings};
pub use validate::Rules;

use std::fmt;

use expressions::{CompileError, Environment, Program, Type};

/// What one evaluation may cost.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// What all evaluations for one object may cost.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// What the match conditions of one webhook or policy may cost.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;
/// What one rule may be estimated to cost, over all places where it is evaluated.
const ESTIMATED_LIMIT: u64 = 10_000_000;
/// What all rules of a schema may be estimated to cost.
const ESTIMATED_TOTAL_LIMIT: u64 = 100_000_000;

/// Why an expression is of no use.
enum Mistake {
    /// It does not compile.
    Compilation(CompileError),
    /// Its values are of none of these types.
    Output(Vec<Type>),
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compilation(error) => write!(f, "compilation failed: {error}"),
            Self::Output(allowed) => match &allowed[..] {
                [only] => write!(f, "must evaluate to {only}"),
                several => {
                    let names = several.iter().map(|ty| ty.to_string().replace("null", "null_type"));
                    write!(f, "must evaluate to one of [{}]", names.collect::<Vec<_>>().join(" "))
                }
            },
        }
    }
}

/// A program whose values have one of the types (any, if none is named), or what is wrong with the text.
fn compile_to(text: &str, environment: &Environment, allowed: &[Type]) -> Result<Program, Mistake> {
    let program = Program::compile(text, environment).map_err(Mistake::Compilation)?;
    if allowed.is_empty() || *program.output() == Type::Dyn || allowed.contains(program.output()) {
        return Ok(program);
    }
    Err(Mistake::Output(allowed.to_vec()))
}

/// Whether a text has more than one line.
fn has_line_breaks(text: &str) -> bool {
    text.contains(['\n', '\r'])
}
