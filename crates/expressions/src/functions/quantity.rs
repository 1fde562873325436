//! Exact amounts with suffixes: `100m`, `1.5Gi`.

use std::cmp::Ordering;
use std::fmt;

use super::{Function, Outcome, no_such_overload, only_text};
use crate::error::EvalError;
use crate::value::Value;

/// An amount in units of 10⁻⁹, which is as fine as amounts get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
}

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "quantity",
        run: |args| parse(only_text(args)?).map(Value::Quantity).ok_or_else(invalid),
        overloads: &[("string_to_quantity", "(string) -> quantity")],
    },
    Function {
        name: "isQuantity",
        run: |args| Ok(Value::Bool(parse(only_text(args)?).is_some())),
        overloads: &[("is_quantity_string", "(string) -> bool")],
    },
    Function {
        name: "sign",
        run: |args| with(args, |quantity| Ok(Value::Int(quantity.nanos.signum() as i64))),
        overloads: &[("quantity_sign", "quantity.() -> int")],
    },
    Function {
        name: "isInteger",
        run: |args| with(args, |quantity| Ok(Value::Bool(quantity.whole().is_some()))),
        overloads: &[("quantity_is_integer", "quantity.() -> bool")],
    },
    Function {
        name: "asInteger",
        run: |args| {
            with(args, |quantity| {
                quantity.whole().map(Value::Int).ok_or_else(|| EvalError::new("cannot convert value to integer"))
            })
        },
        overloads: &[("quantity_as_integer", "quantity.() -> int")],
    },
    Function {
        name: "asApproximateFloat",
        run: |args| with(args, |quantity| Ok(Value::Double(quantity.nanos as f64 / NANO as f64))),
        overloads: &[("quantity_as_approximate_float", "quantity.() -> double")],
    },
    Function {
        name: "isGreaterThan",
        run: |args| compared(args, Ordering::is_gt),
        overloads: &[("quantity_is_greater_than", "quantity.(quantity) -> bool")],
    },
    Function {
        name: "isLessThan",
        run: |args| compared(args, Ordering::is_lt),
        overloads: &[("quantity_is_less_than", "quantity.(quantity) -> bool")],
    },
    Function {
        name: "compareTo",
        run: |args| match args {
            [Value::Quantity(a), Value::Quantity(b)] => Ok(Value::Int(a.cmp(b) as i64)),
            _ => no_such_overload(),
        },
        overloads: &[("quantity_compare_to", "quantity.(quantity) -> int")],
    },
    Function {
        name: "add",
        run: |args| changed(args, i128::checked_add),
        overloads: &[
            ("quantity_add", "quantity.(quantity) -> quantity"),
            ("quantity_add_int", "quantity.(int) -> quantity"),
        ],
    },
    Function {
        name: "sub",
        run: |args| changed(args, i128::checked_sub),
        overloads: &[
            ("quantity_sub", "quantity.(quantity) -> quantity"),
            ("quantity_sub_int", "quantity.(int) -> quantity"),
        ],
    },
];

fn invalid() -> EvalError {
    EvalError::new("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
}

fn with<'a>(args: &[Value<'a>], answer: fn(&Quantity) -> Outcome<'a>) -> Outcome<'a> {
    match args {
        [Value::Quantity(quantity)] => answer(quantity),
        _ => no_such_overload(),
    }
}

fn compared<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [Value::Quantity(a), Value::Quantity(b)] => Ok(Value::Bool(holds(a.cmp(b)))),
        _ => no_such_overload(),
    }
}

fn changed<'a>(args: &[Value<'a>], by: fn(i128, i128) -> Option<i128>) -> Outcome<'a> {
    let (a, b) = match args {
        [Value::Quantity(a), Value::Quantity(b)] => (a, b.nanos),
        [Value::Quantity(a), Value::Int(b)] => (a, i128::from(*b) * NANO),
        _ => return no_such_overload(),
    };
    let nanos = by(a.nanos, b).ok_or_else(|| EvalError::new("quantity overflow"))?;
    Ok(Value::Quantity(Quantity { nanos }))
}

impl Quantity {
    fn whole(&self) -> Option<i64> {
        if self.nanos % NANO == 0 { i64::try_from(self.nanos / NANO).ok() } else { None }
    }
}

/// Division that rounds away from zero, as amounts finer than the finest are.
fn div_up(a: i128, b: i128) -> i128 {
    if a % b == 0 { a / b } else { a / b + 1 }
}

/// Reads an amount.
pub(crate) fn parse(text: &str) -> Option<Quantity> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let fraction = i32::try_from(fraction.len()).ok()?;
    let (multiplied, shift) = match BINARY.iter().find(|(name, _)| *name == suffix) {
        Some((_, bits)) => (digits.checked_mul(1 << bits)?, 9 - fraction),
        None => {
            let exponent = match DECIMAL.iter().find(|(name, _)| *name == suffix) {
                Some((_, exponent)) => *exponent,
                None => suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
            };
            (digits, exponent.checked_add(9)?.checked_sub(fraction)?)
        }
    };
    let power = 10_i128.checked_pow(shift.unsigned_abs());
    let nanos = match (shift >= 0, power) {
        _ if multiplied == 0 => 0,
        (true, power) => multiplied.checked_mul(power?)?,
        (false, Some(power)) => div_up(multiplied, power),
        (false, None) => 1,
    };
    Some(Quantity { nanos: if text.starts_with('-') { -nanos } else { nanos } })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest suffix that leaves a whole number.
        for (suffix, exponent) in DECIMAL.iter().rev() {
            let unit = 10_i128.pow((exponent + 9).unsigned_abs());
            if self.nanos != 0 && self.nanos % unit == 0 {
                return write!(f, "{}{suffix}", self.nanos / unit);
            }
        }
        f.write_str("0")
    }
}
