//! `"%s is %d".format([a, b])`.

use crate::error::EvalError;
use crate::functions::conversions::double_text;
use crate::functions::time;
use crate::value::{Key, List, Value};

/// The most digits behind the point.
const MAX_PRECISION: usize = 100;
/// How deep a value may be that is shown.
const MAX_DEPTH: usize = 64;

fn error(message: impl Into<String>) -> EvalError {
    EvalError::new(message)
}

/// The text with each clause replaced by its argument.
pub(crate) fn format(text: &str, values: &List<'_>) -> Result<String, EvalError> {
    let mut result = String::new();
    let mut chars = text.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            result.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            result.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            let parsed: usize = digits.parse().map_err(|_| error("error parsing formatting precision"))?;
            if parsed > MAX_PRECISION {
                return Err(error(format!("precision {parsed} exceeds the limit {MAX_PRECISION}")));
            }
            precision = Some(parsed);
        }
        let clause = chars.next().ok_or_else(|| error("unexpected end of string"))?;
        let value = values.get(next).ok_or_else(|| error(format!("index {next} out of range")))??;
        next += 1;
        result.push_str(&one(clause, precision, &value)?);
    }
    Ok(result)
}

fn one(clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, EvalError> {
    let unfit = |what: &str| {
        error(format!(
            "error during formatting: {what} clause can only be used on {}, was given {}",
            allowed(clause),
            value.type_name()
        ))
    };
    match clause {
        's' => shown(value, 0),
        'd' => match value {
            Value::Int(n) => Ok(n.to_string()),
            Value::Uint(n) => Ok(n.to_string()),
            Value::Double(n) if !n.is_finite() => Ok(special(*n).to_owned()),
            _ => Err(unfit("decimal")),
        },
        'f' | 'e' => {
            let number = match value {
                Value::Double(n) => *n,
                Value::Int(n) => *n as f64,
                Value::Uint(n) => *n as f64,
                _ => return Err(unfit(if clause == 'f' { "fixed-point" } else { "scientific" })),
            };
            let precision = precision.unwrap_or(6);
            Ok(if !number.is_finite() {
                special(number).to_owned()
            } else if clause == 'f' {
                format!("{number:.precision$}")
            } else {
                let text = format!("{number:.precision$e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                format!("{digits} × 10{}", raised(exponent))
            })
        }
        'b' => match value {
            Value::Bool(b) => Ok(u8::from(*b).to_string()),
            Value::Int(n) => Ok(signed(*n, |n| format!("{n:b}"))),
            Value::Uint(n) => Ok(format!("{n:b}")),
            _ => Err(unfit("binary")),
        },
        'o' => match value {
            Value::Int(n) => Ok(signed(*n, |n| format!("{n:o}"))),
            Value::Uint(n) => Ok(format!("{n:o}")),
            _ => Err(unfit("octal")),
        },
        'x' | 'X' => {
            let hex = match value {
                Value::Int(n) => signed(*n, |n| format!("{n:x}")),
                Value::Uint(n) => format!("{n:x}"),
                Value::String(text) => text.as_str().bytes().map(|byte| format!("{byte:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => return Err(unfit("hex")),
            };
            Ok(if clause == 'X' { hex.to_uppercase() } else { hex })
        }
        other => Err(error(format!("could not parse formatting clause: unrecognized formatting clause \"{other}\""))),
    }
}

/// An exponent of at least two digits, above the line.
fn raised(exponent: &str) -> String {
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ("⁻", digits),
        None => ("", exponent),
    };
    let small = |digit: char| digit.to_digit(10).and_then(|digit| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(digit as usize));
    format!("{sign}{}", format!("{digits:0>2}").chars().filter_map(small).collect::<String>())
}

fn allowed(clause: char) -> &'static str {
    match clause {
        'd' | 'o' => "integers",
        'b' => "integers and bools",
        'x' | 'X' => "integers, byte buffers, and strings",
        _ => "doubles",
    }
}

fn signed(n: i64, shown: fn(u64) -> String) -> String {
    format!("{}{}", if n < 0 { "-" } else { "" }, shown(n.unsigned_abs()))
}

fn special(n: f64) -> &'static str {
    match n {
        _ if n.is_nan() => "NaN",
        _ if n > 0.0 => "Infinity",
        _ => "-Infinity",
    }
}

/// A value as `%s` shows it.
fn shown(value: &Value<'_>, depth: usize) -> Result<String, EvalError> {
    if depth > MAX_DEPTH {
        return Err(error("value is too deep to be formatted"));
    }
    Ok(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) if n.is_finite() => double_text(*n),
        Value::Double(n) => special(*n).to_owned(),
        Value::String(text) => text.as_str().to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Duration(duration) => time::format_duration(*duration),
        Value::Timestamp(timestamp) => time::format_timestamp(*timestamp),
        Value::Type(ty) => ty.runtime_name().to_owned(),
        Value::List(list) => {
            let items = list.iter().map(|item| shown(&item?, depth + 1)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for key in map.keys() {
                let value = map.get(&Key::of(&key)?).transpose()?.unwrap_or(Value::Null);
                entries.push(format!("{}: {}", shown(&key, depth + 1)?, shown(&value, depth + 1)?));
            }
            format!("{{{}}}", entries.join(", "))
        }
        other => {
            let what = other.type_name();
            return Err(error(format!(
                "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, \
                 maps, lists, types, durations, and timestamps, was given {what}"
            )));
        }
    })
}
