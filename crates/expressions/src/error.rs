//! What goes wrong while compiling and while evaluating, worded as cel-go words it.

use std::fmt;

/// One mistake in an expression's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Offset of the place, in characters.
    pub(crate) offset: usize,
    /// What is wrong.
    pub(crate) message: String,
}

/// An expression that does not compile. Its display shows each place below the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    text: String,
    issues: Vec<Issue>,
}

/// How many mistakes are told of one text.
const MAX_ISSUES: usize = 100;

impl CompileError {
    pub(crate) fn new(text: &str, mut issues: Vec<Issue>) -> Self {
        issues.sort_by_key(|issue| issue.offset);
        issues.truncate(MAX_ISSUES);
        Self { text: text.to_owned(), issues }
    }

    /// What is wrong, without the places.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.issues.iter().map(|issue| issue.message.as_str())
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, issue) in self.issues.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            let before: Vec<char> = self.text.chars().take(issue.offset).collect();
            let line = before.iter().filter(|c| **c == '\n').count();
            let column = before.iter().rev().take_while(|c| **c != '\n').count();
            let shown = self.text.split('\n').nth(line).unwrap_or("").replace('\t', " ");
            let dots = ".".repeat(column);
            write!(f, "ERROR: <input>:{}:{}: {}\n | {shown}\n | {dots}^", line + 1, column + 1, issue.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileError {}

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalError {
    /// It would have cost more than it may.
    CostExceeded,
    /// Anything else: a missing key, a division by zero …
    Failed(String),
}

impl EvalError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }

    pub(crate) fn no_such_key(key: impl fmt::Display) -> Self {
        Self::Failed(format!("no such key: {key}"))
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CostExceeded => f.write_str("operation cancelled: actual cost limit exceeded"),
            Self::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for EvalError {}
