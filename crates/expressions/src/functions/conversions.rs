//! Conversions between types, and `type()` and `dyn()`.

use std::sync::Arc;

use super::{Function, Outcome, no_such_overload, time};
use crate::error::EvalError;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function { name: "dyn", run: dynamic, overloads: &[("to_dyn", "(A) -> dyn")] },
    Function { name: "type", run: type_of, overloads: &[("type", "(A) -> type(A)")] },
    Function {
        name: "bool",
        run: to_bool,
        overloads: &[("bool_to_bool", "(bool) -> bool"), ("string_to_bool", "(string) -> bool")],
    },
    Function {
        name: "bytes",
        run: to_bytes,
        overloads: &[("bytes_to_bytes", "(bytes) -> bytes"), ("string_to_bytes", "(string) -> bytes")],
    },
    Function {
        name: "double",
        run: to_double,
        overloads: &[
            ("double_to_double", "(double) -> double"),
            ("int64_to_double", "(int) -> double"),
            ("string_to_double", "(string) -> double"),
            ("uint64_to_double", "(uint) -> double"),
        ],
    },
    Function {
        name: "int",
        run: to_int,
        overloads: &[
            ("int64_to_int64", "(int) -> int"),
            ("double_to_int64", "(double) -> int"),
            ("string_to_int64", "(string) -> int"),
            ("timestamp_to_int64", "(timestamp) -> int"),
            ("duration_to_int64", "(duration) -> int"),
            ("uint64_to_int64", "(uint) -> int"),
        ],
    },
    Function {
        name: "uint",
        run: to_uint,
        overloads: &[
            ("uint64_to_uint64", "(uint) -> uint"),
            ("double_to_uint64", "(double) -> uint"),
            ("int64_to_uint64", "(int) -> uint"),
            ("string_to_uint64", "(string) -> uint"),
        ],
    },
    Function {
        name: "string",
        run: to_string,
        overloads: &[
            ("string_to_string", "(string) -> string"),
            ("bool_to_string", "(bool) -> string"),
            ("bytes_to_string", "(bytes) -> string"),
            ("double_to_string", "(double) -> string"),
            ("duration_to_string", "(duration) -> string"),
            ("int64_to_string", "(int) -> string"),
            ("timestamp_to_string", "(timestamp) -> string"),
            ("uint64_to_string", "(uint) -> string"),
            ("ip_to_string", "(ip) -> string"),
            ("cidr_to_string", "(cidr) -> string"),
        ],
    },
    Function {
        name: "duration",
        run: to_duration,
        overloads: &[
            ("duration_to_duration", "(duration) -> duration"),
            ("int64_to_duration", "(int) -> duration"),
            ("string_to_duration", "(string) -> duration"),
        ],
    },
    Function {
        name: "timestamp",
        run: to_timestamp,
        overloads: &[
            ("timestamp_to_timestamp", "(timestamp) -> timestamp"),
            ("int64_to_timestamp", "(int) -> timestamp"),
            ("string_to_timestamp", "(string) -> timestamp"),
        ],
    },
];

fn unable(text: &str, from: &str, to: &str) -> EvalError {
    EvalError::new(format!("type conversion error from '{from}' to '{to}': cannot convert {text:?}"))
}

fn range() -> EvalError {
    EvalError::new("range error")
}

fn dynamic<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(value.clone()),
        _ => no_such_overload(),
    }
}

fn type_of<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value] => Ok(Value::Type(value.ty())),
        _ => no_such_overload(),
    }
}

fn to_bool<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(*b)),
        [Value::String(text)] => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Err(unable(other, "string", "bool")),
        },
        _ => no_such_overload(),
    }
}

fn to_bytes<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bytes(bytes)] => Ok(Value::Bytes(bytes.clone())),
        [Value::String(text)] => Ok(Value::Bytes(Arc::from(text.as_str().as_bytes()))),
        _ => no_such_overload(),
    }
}

fn to_double<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Double(n)] => Ok(Value::Double(*n)),
        [Value::Int(n)] => Ok(Value::Double(*n as f64)),
        [Value::Uint(n)] => Ok(Value::Double(*n as f64)),
        [Value::String(text)] => {
            text.as_str().parse().map(Value::Double).map_err(|_| unable(text.as_str(), "string", "double"))
        }
        _ => no_such_overload(),
    }
}

fn to_int<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(n)] => Ok(Value::Int(*n)),
        [Value::Uint(n)] => i64::try_from(*n).map(Value::Int).map_err(|_| EvalError::new("integer overflow")),
        [Value::Double(n)] if n.abs() < 9_223_372_036_854_775_807.0 => Ok(Value::Int(*n as i64)),
        [Value::Double(_)] => Err(EvalError::new("integer overflow")),
        [Value::String(text)] => {
            text.as_str().parse().map(Value::Int).map_err(|_| unable(text.as_str(), "string", "int"))
        }
        [Value::Timestamp(timestamp)] => Ok(Value::Int(timestamp.as_second())),
        [Value::Duration(duration)] => {
            i64::try_from(duration.as_nanos()).map(Value::Int).map_err(|_| EvalError::new("integer overflow"))
        }
        _ => no_such_overload(),
    }
}

fn to_uint<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let overflow = || EvalError::new("unsigned integer overflow");
    match args {
        [Value::Uint(n)] => Ok(Value::Uint(*n)),
        [Value::Int(n)] => u64::try_from(*n).map(Value::Uint).map_err(|_| overflow()),
        [Value::Double(n)] if *n >= 0.0 && *n < 18_446_744_073_709_551_615.0 => Ok(Value::Uint(*n as u64)),
        [Value::Double(_)] => Err(overflow()),
        [Value::String(text)] => {
            text.as_str().parse().map(Value::Uint).map_err(|_| unable(text.as_str(), "string", "uint"))
        }
        _ => no_such_overload(),
    }
}

/// A number as Go writes it: without an exponent where it can be read so.
pub(crate) fn double_text(n: f64) -> String {
    match n {
        _ if n.is_nan() => "NaN".to_owned(),
        _ if n.is_infinite() => if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        _ if n != 0.0 && !(1e-4..1e21).contains(&n.abs()) => {
            let text = format!("{n:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        _ => n.to_string(),
    }
}

fn to_string<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::String(_)] => Ok(args[0].clone()),
        [Value::Bool(b)] => Ok(Value::from(b.to_string())),
        [Value::Bytes(bytes)] => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::from(text.to_owned())),
            Err(_) => Err(EvalError::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        [Value::Double(n)] => Ok(Value::from(double_text(*n))),
        [Value::Int(n)] => Ok(Value::from(n.to_string())),
        [Value::Uint(n)] => Ok(Value::from(n.to_string())),
        [Value::Duration(duration)] => Ok(Value::from(time::format_duration(*duration))),
        [Value::Timestamp(timestamp)] => Ok(Value::from(time::format_timestamp(*timestamp))),
        [Value::Ip(ip)] => Ok(Value::from(ip.to_string())),
        [Value::Cidr(cidr)] => Ok(Value::from(cidr.to_string())),
        _ => no_such_overload(),
    }
}

fn to_duration<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Duration(duration)] => Ok(Value::Duration(*duration)),
        [Value::Int(n)] => Ok(Value::Duration(jiff::SignedDuration::from_nanos(*n))),
        [Value::String(text)] => match time::parse_duration(text.as_str()) {
            Some(duration) => Ok(Value::Duration(duration)),
            None => Err(unable(text.as_str(), "string", "google.protobuf.Duration")),
        },
        _ => no_such_overload(),
    }
}

fn to_timestamp<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Timestamp(timestamp)] => Ok(Value::Timestamp(*timestamp)),
        [Value::Int(n)] => jiff::Timestamp::from_second(*n).map(Value::Timestamp).map_err(|_| range()),
        [Value::String(text)] => match time::parse_timestamp(text.as_str()) {
            Some(timestamp) => Ok(Value::Timestamp(timestamp)),
            None => Err(unable(text.as_str(), "string", "google.protobuf.Timestamp")),
        },
        _ => no_such_overload(),
    }
}
