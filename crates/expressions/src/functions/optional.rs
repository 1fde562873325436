//! Values that may be missing.

use super::{Function, Outcome, no_such_overload};
use crate::error::EvalError;
use crate::value::Value;

/// `or` and `orValue` look at their argument even where it is not needed: an error in it is one in any case.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "optional.of",
        run: |args| match args {
            [value] => Ok(value.clone().some()),
            _ => no_such_overload(),
        },
        overloads: &[("optional_of", "(A) -> optional(A)")],
    },
    Function {
        name: "optional.ofNonZeroValue",
        run: |args| match args {
            [value] if is_zero(value) => Ok(Value::Optional(None)),
            [value] => Ok(value.clone().some()),
            _ => no_such_overload(),
        },
        overloads: &[("optional_ofNonZeroValue", "(A) -> optional(A)")],
    },
    Function {
        name: "optional.none",
        run: |_| Ok(Value::Optional(None)),
        overloads: &[("optional_none", "() -> optional(A)")],
    },
    Function {
        name: "hasValue",
        run: |args| match args {
            [Value::Optional(inner)] => Ok(Value::Bool(inner.is_some())),
            _ => no_such_overload(),
        },
        overloads: &[("optional_hasValue", "optional(A).() -> bool")],
    },
    Function { name: "value", run: value, overloads: &[("optional_value", "optional(A).() -> A")] },
    Function {
        name: "or",
        run: |args| match args {
            [Value::Optional(Some(_)), Value::Optional(_)] => Ok(args[0].clone()),
            [Value::Optional(None), other @ Value::Optional(_)] => Ok(other.clone()),
            _ => no_such_overload(),
        },
        overloads: &[("optional_or_optional", "optional(A).(optional(A)) -> optional(A)")],
    },
    Function {
        name: "orValue",
        run: |args| match args {
            [Value::Optional(Some(inner)), _] => Ok(Value::clone(inner)),
            [Value::Optional(None), other] => Ok(other.clone()),
            _ => no_such_overload(),
        },
        overloads: &[("optional_orValue_value", "optional(A).(A) -> A")],
    },
    Function {
        name: "optional.unwrap",
        run: unwrap,
        overloads: &[("optional_unwrap", "(list(optional(A))) -> list(A)")],
    },
    Function {
        name: "unwrapOpt",
        run: unwrap,
        overloads: &[("optional_unwrapOpt", "list(optional(A)).() -> list(A)")],
    },
];

/// The values of a list that are not missing.
fn unwrap<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list)] = args else { return no_such_overload() };
    let mut values = Vec::new();
    for value in list.values()? {
        match value {
            Value::Optional(inner) => values.extend(inner.map(|inner| Value::clone(&inner))),
            _ => return no_such_overload(),
        }
    }
    Ok(Value::from(values))
}

fn value<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(Some(inner))] => Ok(Value::clone(inner)),
        [Value::Optional(None)] => Err(EvalError::new("optional.none() dereference")),
        _ => no_such_overload(),
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(n) => *n == 0.0,
        Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_) => value.size() == 0,
        Value::Duration(duration) => duration.is_zero(),
        _ => false,
    }
}
