//! Semantic versions.

use std::cmp::Ordering;
use std::sync::Arc;

use semver::Version;

use super::{Function, Outcome, no_such_overload, text};
use crate::error::EvalError;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "semver",
        run: |args| parse(args)?.map(|version| Value::Semver(Arc::new(version))).map_err(EvalError::new),
        overloads: &[("string_to_semver", "(string) -> semver"), ("string_bool_to_semver", "(string, bool) -> semver")],
    },
    Function {
        name: "isSemver",
        run: |args| Ok(Value::Bool(parse(args)?.is_ok())),
        overloads: &[("is_semver_string", "(string) -> bool"), ("is_semver_string_bool", "(string, bool) -> bool")],
    },
    Function {
        name: "major",
        run: |args| number(args, |version| version.major),
        overloads: &[("semver_major", "semver.() -> int")],
    },
    Function {
        name: "minor",
        run: |args| number(args, |version| version.minor),
        overloads: &[("semver_minor", "semver.() -> int")],
    },
    Function {
        name: "patch",
        run: |args| number(args, |version| version.patch),
        overloads: &[("semver_patch", "semver.() -> int")],
    },
    Function {
        name: "isGreaterThan",
        run: |args| compared(args, |order| Value::Bool(order.is_gt())),
        overloads: &[("semver_is_greater_than", "semver.(semver) -> bool")],
    },
    Function {
        name: "isLessThan",
        run: |args| compared(args, |order| Value::Bool(order.is_lt())),
        overloads: &[("semver_is_less_than", "semver.(semver) -> bool")],
    },
    Function {
        name: "compareTo",
        run: |args| compared(args, |order| Value::Int(order as i64)),
        overloads: &[("semver_compare_to", "semver.(semver) -> int")],
    },
];

/// The version that a text names, or why it names none. The flag asks to be generous: `v1.2` is `1.2.0`.
fn parse(args: &[Value<'_>]) -> Result<Result<Version, String>, EvalError> {
    let (value, generous) = match args {
        [value] => (text(value)?, false),
        [value, Value::Bool(generous)] => (text(value)?, *generous),
        _ => return Err(EvalError::no_such_overload()),
    };
    let parsed = if generous { Version::parse(&normalised(value)) } else { Version::parse(value) };
    Ok(parsed.map_err(|error| error.to_string()))
}

/// Without a leading `v`, with all three numbers, and without leading zeros.
fn normalised(text: &str) -> String {
    let text = text.trim().strip_prefix('v').unwrap_or_else(|| text.trim());
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut parts: Vec<&str> = numbers.split('.').map(without_zeros).collect();
    while parts.len() < 3 {
        parts.push("0");
    }
    format!("{}{rest}", parts.join("."))
}

fn without_zeros(number: &str) -> &str {
    let trimmed = number.trim_start_matches('0');
    if trimmed.is_empty() && !number.is_empty() { "0" } else { trimmed }
}

fn number<'a>(args: &[Value<'a>], of: fn(&Version) -> u64) -> Outcome<'a> {
    match args {
        [Value::Semver(version)] => {
            i64::try_from(of(version)).map(Value::Int).map_err(|_| EvalError::new("integer overflow"))
        }
        _ => no_such_overload(),
    }
}

fn compared<'a>(args: &[Value<'a>], answer: fn(Ordering) -> Value<'a>) -> Outcome<'a> {
    match args {
        [Value::Semver(a), Value::Semver(b)] => Ok(answer(a.cmp_precedence(b))),
        _ => no_such_overload(),
    }
}
