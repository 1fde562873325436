//! The functions of numbers.

use std::cmp::Ordering;

use super::operators::compare;
use super::{Function, Outcome, no_such_overload};
use crate::error::EvalError;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "math.greatest",
        run: |args| extreme(args, Ordering::Greater),
        overloads: &[
            ("math_greatest_list", "(list(dyn)) -> dyn"),
            ("math_greatest_int", "(int) -> int"),
            ("math_greatest_uint", "(uint) -> uint"),
            ("math_greatest_double", "(double) -> double"),
            ("math_greatest_int_int", "(int, int) -> int"),
            ("math_greatest_uint_uint", "(uint, uint) -> uint"),
            ("math_greatest_double_double", "(double, double) -> double"),
            ("math_greatest_dyn_dyn", "(dyn, dyn) -> dyn"),
        ],
    },
    Function {
        name: "math.least",
        run: |args| extreme(args, Ordering::Less),
        overloads: &[
            ("math_least_list", "(list(dyn)) -> dyn"),
            ("math_least_int", "(int) -> int"),
            ("math_least_uint", "(uint) -> uint"),
            ("math_least_double", "(double) -> double"),
            ("math_least_int_int", "(int, int) -> int"),
            ("math_least_uint_uint", "(uint, uint) -> uint"),
            ("math_least_double_double", "(double, double) -> double"),
            ("math_least_dyn_dyn", "(dyn, dyn) -> dyn"),
        ],
    },
    row("math.ceil", |args| round(args, f64::ceil), &[("math_ceil_double", "(double) -> double")]),
    row("math.floor", |args| round(args, f64::floor), &[("math_floor_double", "(double) -> double")]),
    row("math.round", |args| round(args, f64::round), &[("math_round_double", "(double) -> double")]),
    row("math.trunc", |args| round(args, f64::trunc), &[("math_trunc_double", "(double) -> double")]),
    Function {
        name: "math.abs",
        run: |args| match args {
            [Value::Int(n)] => n.checked_abs().map(Value::Int).ok_or_else(|| EvalError::new("integer overflow")),
            [Value::Uint(n)] => Ok(Value::Uint(*n)),
            [Value::Double(n)] => Ok(Value::Double(n.abs())),
            _ => no_such_overload(),
        },
        overloads: &[
            ("math_abs_double", "(double) -> double"),
            ("math_abs_int", "(int) -> int"),
            ("math_abs_uint", "(uint) -> uint"),
        ],
    },
    Function {
        name: "math.sign",
        run: |args| match args {
            [Value::Int(n)] => Ok(Value::Int(n.signum())),
            [Value::Uint(n)] => Ok(Value::Uint((*n).min(1))),
            [Value::Double(n)] if *n == 0.0 || n.is_nan() => Ok(Value::Double(*n)),
            [Value::Double(n)] => Ok(Value::Double(n.signum())),
            _ => no_such_overload(),
        },
        overloads: &[
            ("math_sign_double", "(double) -> double"),
            ("math_sign_int", "(int) -> int"),
            ("math_sign_uint", "(uint) -> uint"),
        ],
    },
    row("math.isInf", |args| is(args, f64::is_infinite), &[("math_isInf_double", "(double) -> bool")]),
    row("math.isNaN", |args| is(args, f64::is_nan), &[("math_isNaN_double", "(double) -> bool")]),
    row("math.isFinite", |args| is(args, f64::is_finite), &[("math_isFinite_double", "(double) -> bool")]),
];

/// A row in one line.
const fn row(name: &'static str, run: super::Run, overloads: &'static [(&'static str, &'static str)]) -> Function {
    Function { name, run, overloads }
}

fn round<'a>(args: &[Value<'a>], how: fn(f64) -> f64) -> Outcome<'a> {
    match args {
        [Value::Double(n)] => Ok(Value::Double(how(*n))),
        _ => no_such_overload(),
    }
}

fn is<'a>(args: &[Value<'a>], holds: fn(f64) -> bool) -> Outcome<'a> {
    match args {
        [Value::Double(n)] => Ok(Value::Bool(holds(*n))),
        _ => no_such_overload(),
    }
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering) -> Outcome<'a> {
    let values = match args {
        [Value::List(list)] => list.values()?,
        _ => args.to_vec(),
    };
    let is_number = |value: &Value<'a>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    if !values.iter().all(is_number) {
        return no_such_overload();
    }
    let mut values = values.into_iter();
    let mut best = values.next().ok_or_else(|| EvalError::new("argument must not be empty"))?;
    for value in values {
        if compare(&value, &best)? == Some(wanted) {
            best = value;
        }
    }
    Ok(best)
}
