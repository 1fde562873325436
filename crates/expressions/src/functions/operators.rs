//! The operators, and the functions of the standard that go with them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Function, Outcome, no_such_overload, text};
use crate::error::EvalError;
use crate::functions::time;
use crate::json;
use crate::value::{Key, List, Value};

/// The signatures of a comparison.
macro_rules! ordered {
    ($name:literal) => {
        [
            (concat!($name, "_bool"), "(bool, bool) -> bool"),
            (concat!($name, "_int64"), "(int, int) -> bool"),
            (concat!($name, "_int64_double"), "(int, double) -> bool"),
            (concat!($name, "_int64_uint64"), "(int, uint) -> bool"),
            (concat!($name, "_uint64"), "(uint, uint) -> bool"),
            (concat!($name, "_uint64_double"), "(uint, double) -> bool"),
            (concat!($name, "_uint64_int64"), "(uint, int) -> bool"),
            (concat!($name, "_double"), "(double, double) -> bool"),
            (concat!($name, "_double_int64"), "(double, int) -> bool"),
            (concat!($name, "_double_uint64"), "(double, uint) -> bool"),
            (concat!($name, "_string"), "(string, string) -> bool"),
            (concat!($name, "_bytes"), "(bytes, bytes) -> bool"),
            (concat!($name, "_timestamp"), "(timestamp, timestamp) -> bool"),
            (concat!($name, "_duration"), "(duration, duration) -> bool"),
        ]
    };
}
/// The rows. Those that do not look at all their arguments are carried out by the interpreter.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function { name: "_&&_", run: special, overloads: &[("logical_and", "(bool, bool) -> bool")] },
    Function { name: "_||_", run: special, overloads: &[("logical_or", "(bool, bool) -> bool")] },
    Function { name: "_?_:_", run: special, overloads: &[("conditional", "(bool, A, A) -> A")] },
    Function { name: "@not_strictly_false", run: special, overloads: &[("not_strictly_false", "(bool) -> bool")] },
    Function { name: "!_", run: not, overloads: &[("logical_not", "(bool) -> bool")] },
    Function { name: "_==_", run: equal, overloads: &[("equals", "(A, A) -> bool")] },
    Function { name: "_!=_", run: not_equal, overloads: &[("not_equals", "(A, A) -> bool")] },
    Function { name: "_<_", run: less, overloads: &ordered!("less") },
    Function { name: "_<=_", run: less_equal, overloads: &ordered!("less_equals") },
    Function { name: "_>_", run: greater, overloads: &ordered!("greater") },
    Function { name: "_>=_", run: greater_equal, overloads: &ordered!("greater_equals") },
    Function {
        name: "_+_",
        run: add,
        overloads: &[
            ("add_bytes", "(bytes, bytes) -> bytes"),
            ("add_double", "(double, double) -> double"),
            ("add_duration_duration", "(duration, duration) -> duration"),
            ("add_duration_timestamp", "(duration, timestamp) -> timestamp"),
            ("add_timestamp_duration", "(timestamp, duration) -> timestamp"),
            ("add_int64", "(int, int) -> int"),
            ("add_list", "(list(A), list(A)) -> list(A)"),
            ("add_string", "(string, string) -> string"),
            ("add_uint64", "(uint, uint) -> uint"),
        ],
    },
    Function {
        name: "_-_",
        run: subtract,
        overloads: &[
            ("subtract_double", "(double, double) -> double"),
            ("subtract_duration_duration", "(duration, duration) -> duration"),
            ("subtract_int64", "(int, int) -> int"),
            ("subtract_timestamp_duration", "(timestamp, duration) -> timestamp"),
            ("subtract_timestamp_timestamp", "(timestamp, timestamp) -> duration"),
            ("subtract_uint64", "(uint, uint) -> uint"),
        ],
    },
    Function {
        name: "_*_",
        run: multiply,
        overloads: &[
            ("multiply_double", "(double, double) -> double"),
            ("multiply_int64", "(int, int) -> int"),
            ("multiply_uint64", "(uint, uint) -> uint"),
        ],
    },
    Function {
        name: "_/_",
        run: divide,
        overloads: &[
            ("divide_double", "(double, double) -> double"),
            ("divide_int64", "(int, int) -> int"),
            ("divide_uint64", "(uint, uint) -> uint"),
        ],
    },
    Function {
        name: "_%_",
        run: modulo,
        overloads: &[("modulo_int64", "(int, int) -> int"), ("modulo_uint64", "(uint, uint) -> uint")],
    },
    Function {
        name: "-_",
        run: negate,
        overloads: &[("negate_double", "(double) -> double"), ("negate_int64", "(int) -> int")],
    },
    Function {
        name: "_[_]",
        run: index,
        overloads: &[
            ("index_list", "(list(A), int) -> A"),
            ("index_map", "(map(A, B), A) -> B"),
            ("optional_list_index_int", "(optional(list(A)), int) -> optional(A)"),
            ("optional_map_index_value", "(optional(map(A, B)), A) -> optional(B)"),
        ],
    },
    Function {
        name: "_[?_]",
        run: optional_index,
        overloads: &[
            ("list_optindex_optional_int", "(list(A), int) -> optional(A)"),
            ("optional_list_optindex_optional_int", "(optional(list(A)), int) -> optional(A)"),
            ("map_optindex_optional_value", "(map(A, B), A) -> optional(B)"),
            ("optional_map_optindex_optional_value", "(optional(map(A, B)), A) -> optional(B)"),
        ],
    },
    Function { name: "_?._", run: optional_select, overloads: &[("select_optional_field", "(dyn, string) -> dyn")] },
    Function {
        name: "@in",
        run: contains,
        overloads: &[("in_list", "(A, list(A)) -> bool"), ("in_map", "(A, map(A, B)) -> bool")],
    },
    Function {
        name: "size",
        run: size,
        overloads: &[
            ("size_bytes", "(bytes) -> int"),
            ("bytes_size", "bytes.() -> int"),
            ("size_list", "(list(A)) -> int"),
            ("list_size", "list(A).() -> int"),
            ("size_map", "(map(A, B)) -> int"),
            ("map_size", "map(A, B).() -> int"),
            ("size_string", "(string) -> int"),
            ("string_size", "string.() -> int"),
        ],
    },
    Function {
        name: "cel.@mapInsert",
        run: map_insert,
        overloads: &[
            ("@mapInsert_map_map", "(map(A, B), map(A, B)) -> map(A, B)"),
            ("@mapInsert_map_key_value", "(map(A, B), A, B) -> map(A, B)"),
        ],
    },
];

fn special<'a>(_: &[Value<'a>]) -> Outcome<'a> {
    no_such_overload()
}

fn overflow(what: &str) -> EvalError {
    EvalError::new(format!("{what} overflow"))
}

fn not<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Bool(b)] => Ok(Value::Bool(!b)),
        _ => no_such_overload(),
    }
}

fn equal<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(a.equals(b))),
        _ => no_such_overload(),
    }
}

fn not_equal<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(!a.equals(b))),
        _ => no_such_overload(),
    }
}

/// The order of two values; the inner `None` is that of something that is not a number.
pub(crate) fn compare(a: &Value<'_>, b: &Value<'_>) -> Result<Option<Ordering>, EvalError> {
    let is_number = |value: &Value<'_>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => Ok(Some(a.cmp(b))),
        (Value::String(a), Value::String(b)) => Ok(Some(a.as_str().cmp(b.as_str()))),
        (Value::Bytes(a), Value::Bytes(b)) => Ok(Some(a.cmp(b))),
        (Value::Timestamp(a), Value::Timestamp(b)) => Ok(Some(a.cmp(b))),
        (Value::Duration(a), Value::Duration(b)) => Ok(Some(a.cmp(b))),
        (a, b) if is_number(a) && is_number(b) => Ok(a.compare_numbers(b)),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn compared<'a>(args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(compare(a, b)?.is_some_and(holds))),
        _ => no_such_overload(),
    }
}

fn less<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    compared(args, Ordering::is_lt)
}

fn less_equal<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    compared(args, Ordering::is_le)
}

fn greater<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    compared(args, Ordering::is_gt)
}

fn greater_equal<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    compared(args, Ordering::is_ge)
}

fn add<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_add(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Uint(a), Value::Uint(b)] => {
            a.checked_add(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a + b)),
        [Value::String(a), Value::String(b)] => Ok(Value::from(format!("{}{}", a.as_str(), b.as_str()))),
        [Value::Bytes(a), Value::Bytes(b)] => Ok(Value::Bytes(a.iter().chain(b.iter()).copied().collect())),
        [Value::List(a), Value::List(b)] => a.joined(b),
        [Value::Duration(a), Value::Duration(b)] => time::sum(*a, *b).map(Value::Duration),
        [Value::Timestamp(a), Value::Duration(b)] | [Value::Duration(b), Value::Timestamp(a)] => {
            time::moved(*a, *b).map(Value::Timestamp)
        }
        _ => no_such_overload(),
    }
}

/// Adds to a list that nobody else holds, in place.
pub(crate) fn append<'a>(list: Value<'a>, other: &Value<'a>) -> Outcome<'a> {
    match (list, other) {
        (Value::List(List::Made(mut values)), Value::List(other)) => {
            Arc::make_mut(&mut values).extend(other.values()?);
            Ok(Value::List(List::Made(values)))
        }
        (list, other) => add(&[list, other.clone()]),
    }
}

fn subtract<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_sub(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Uint(a), Value::Uint(b)] => {
            a.checked_sub(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a - b)),
        [Value::Duration(a), Value::Duration(b)] => time::sum(*a, time::negated(*b)?).map(Value::Duration),
        [Value::Timestamp(a), Value::Duration(b)] => time::moved(*a, time::negated(*b)?).map(Value::Timestamp),
        [Value::Timestamp(a), Value::Timestamp(b)] => time::between(*b, *a).map(Value::Duration),
        _ => no_such_overload(),
    }
}

fn multiply<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(a), Value::Int(b)] => a.checked_mul(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Uint(a), Value::Uint(b)] => {
            a.checked_mul(*b).map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
        }
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a * b)),
        _ => no_such_overload(),
    }
}

fn divide<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("division by zero")),
        [Value::Int(a), Value::Int(b)] => a.checked_div(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a / b)),
        [Value::Double(a), Value::Double(b)] => Ok(Value::Double(a / b)),
        _ => no_such_overload(),
    }
}

fn modulo<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Err(EvalError::new("modulus by zero")),
        [Value::Int(a), Value::Int(b)] => a.checked_rem(*b).map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Uint(a), Value::Uint(b)] => Ok(Value::Uint(a % b)),
        _ => no_such_overload(),
    }
}

fn negate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(n)] => n.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        [Value::Double(n)] => Ok(Value::Double(-n)),
        _ => no_such_overload(),
    }
}

/// The element or entry, or `None` if there is none.
fn find<'a>(container: &Value<'a>, key: &Value<'a>) -> Result<Option<Value<'a>>, EvalError> {
    match container {
        Value::List(list) => match Key::of(key) {
            Ok(Key::Int(n)) => usize::try_from(n).ok().and_then(|n| list.get(n)).transpose(),
            _ => Err(EvalError::new(format!("unsupported index type '{}' in list", key.type_name()))),
        },
        Value::Map(map) => match Key::of(key) {
            Ok(key) => map.get(&key).transpose(),
            // A fraction is the key of nothing.
            Err(_) if matches!(key, Value::Double(_)) => Ok(None),
            Err(error) => Err(error),
        },
        _ => Err(EvalError::no_such_overload()),
    }
}

fn index<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(None), _] => Ok(Value::Optional(None)),
        [Value::Optional(Some(inner)), key] => index(&[Value::clone(inner), key.clone()]).map(Value::some),
        [container, key] => match find(container, key)? {
            Some(value) => Ok(value),
            None if matches!(container, Value::List(_)) => {
                Err(EvalError::new(format!("index out of bounds: {}", shown(key))))
            }
            None => Err(EvalError::no_such_key(shown(key))),
        },
        _ => no_such_overload(),
    }
}

fn shown(key: &Value<'_>) -> String {
    match key {
        Value::Double(n) => n.to_string(),
        key => Key::of(key).map_or_else(|_| key.type_name(), |key| key.to_string()),
    }
}

fn optional_index<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(None), _] => Ok(Value::Optional(None)),
        [Value::Optional(Some(inner)), key] => optional_index(&[Value::clone(inner), key.clone()]),
        [container, key] => Ok(find(container, key)?.map_or(Value::Optional(None), Value::some)),
        _ => no_such_overload(),
    }
}

fn optional_select<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Optional(_) | Value::Map(_), Value::String(_)] => optional_index(args),
        _ => no_such_overload(),
    }
}

/// The field of a value.
pub(crate) fn select<'a>(operand: &Value<'a>, field: &str) -> Outcome<'a> {
    match operand {
        Value::Map(map) => map.get(&Key::String(field.into())).unwrap_or_else(|| Err(EvalError::no_such_key(field))),
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional_index(&[Value::clone(inner), Value::from(field).into_owned()]),
        _ => no_such_overload(),
    }
}

/// Whether the field of a value is there.
pub(crate) fn has<'a>(operand: &Value<'a>, field: &str) -> Outcome<'a> {
    match operand {
        Value::Map(map) => Ok(Value::Bool(map.get(&Key::String(field.into())).transpose()?.is_some())),
        Value::Optional(None) => Ok(Value::Bool(false)),
        Value::Optional(Some(inner)) => has(inner, field),
        _ => no_such_overload(),
    }
}

fn contains<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value, Value::List(list)] => {
            for element in list.iter() {
                if element?.equals(value) {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        [key, container @ Value::Map(_)] => Ok(Value::Bool(find(container, key)?.is_some())),
        _ => no_such_overload(),
    }
}

fn size<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [value @ (Value::String(_) | Value::Bytes(_) | Value::List(_) | Value::Map(_))] => {
            i64::try_from(value.size()).map(Value::Int).map_err(|_| overflow("integer"))
        }
        _ => no_such_overload(),
    }
}

fn map_insert<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [map, rest @ ..] => insert(map.clone(), rest),
        [] => no_such_overload(),
    }
}

/// Adds to a map: a key and a value, or all entries of another.
pub(crate) fn insert<'a>(map: Value<'a>, args: &[Value<'a>]) -> Outcome<'a> {
    match (map, args) {
        (Value::Map(map), [key, value]) => json::insert(map, key, value.clone()),
        (Value::Map(mut map), [Value::Map(other)]) => {
            for key in other.keys() {
                let value = other.get(&Key::of(&key)?).unwrap_or_else(|| Err(EvalError::no_such_key(shown(&key))))?;
                match json::insert(map, &key, value)? {
                    Value::Map(more) => map = more,
                    _ => return no_such_overload(),
                }
            }
            Ok(Value::Map(map))
        }
        _ => no_such_overload(),
    }
}

/// Whether two texts relate as a predicate says.
pub(crate) fn texts<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Outcome<'a> {
    match args {
        [a, b] => Ok(Value::Bool(holds(text(a)?, text(b)?))),
        _ => no_such_overload(),
    }
}
