//! CEL as Kubernetes speaks it: validation rules, match conditions, admission policies and selectors.
//!
//! An [`Environment`] says which variables there are; [`Program::compile`] parses and checks a text and estimates what it
//! may cost; [`Program::evaluate`] carries it out within a budget. There is no clock and no randomness, and nothing an
//! expression says makes the process panic.

mod ast;
mod checker;
mod cost;
mod declaration;
mod environment;
mod error;
mod estimate;
mod functions;
mod interpreter;
mod json;
mod lexer;
mod macros;
mod parser;
mod program;
mod types;
mod unify;
mod value;

pub use cost::CostEstimate;
pub use declaration::{Declaration, Field, ListKind, escape};
pub use environment::Environment;
pub use error::{CompileError, EvalError};
pub use functions::authorization::{Access, Authorize, Decision, Question};
pub use functions::time::parse_duration;
pub use lexer::is_reserved;
pub use program::Program;
pub use types::{ObjectType, Type};
pub use value::{Key, List, Map, Text, Value};
