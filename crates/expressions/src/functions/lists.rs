//! The functions of lists.

use std::cmp::Ordering;

use super::operators::compare;
use super::{Function, Outcome, int, no_such_overload};
use crate::error::EvalError;
use crate::value::{List, Value};

/// The signatures of a function of lists whose elements have an order.
macro_rules! of_ordered {
    ($id:literal, $result:tt) => {
        &[
            (concat!("list_int_", $id), of_ordered!(@ "int", $result)),
            (concat!("list_uint_", $id), of_ordered!(@ "uint", $result)),
            (concat!("list_double_", $id), of_ordered!(@ "double", $result)),
            (concat!("list_bool_", $id), of_ordered!(@ "bool", $result)),
            (concat!("list_duration_", $id), of_ordered!(@ "duration", $result)),
            (concat!("list_timestamp_", $id), of_ordered!(@ "timestamp", $result)),
            (concat!("list_string_", $id), of_ordered!(@ "string", $result)),
            (concat!("list_bytes_", $id), of_ordered!(@ "bytes", $result)),
        ]
    };
    (@ $ty:literal, element) => {
        concat!("list(", $ty, ").() -> ", $ty)
    };
    (@ $ty:literal, list) => {
        concat!("list(", $ty, ").() -> list(", $ty, ")")
    };
    (@ $ty:literal, bool) => {
        concat!("list(", $ty, ").() -> bool")
    };
}

/// How long a list may be that an expression makes of a number.
const MAX_RANGE: i64 = 1_000_000;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function { name: "isSorted", run: is_sorted, overloads: of_ordered!("is_sorted_bool", bool) },
    Function { name: "min", run: |args| extreme(args, Ordering::Less), overloads: of_ordered!("min", element) },
    Function { name: "max", run: |args| extreme(args, Ordering::Greater), overloads: of_ordered!("max", element) },
    Function { name: "sort", run: sort, overloads: of_ordered!("sort", list) },
    Function {
        name: "sum",
        run: sum,
        overloads: &[
            ("list_int_sum_int", "list(int).() -> int"),
            ("list_uint_sum_uint", "list(uint).() -> uint"),
            ("list_double_sum_double", "list(double).() -> double"),
            ("list_duration_sum_duration", "list(duration).() -> duration"),
        ],
    },
    Function {
        name: "indexOf",
        run: |args| index(args, false),
        overloads: &[("list_a_index_of_int", "list(A).(A) -> int")],
    },
    Function {
        name: "lastIndexOf",
        run: |args| index(args, true),
        overloads: &[("list_a_last_index_of_int", "list(A).(A) -> int")],
    },
    Function {
        name: "flatten",
        run: flatten,
        overloads: &[
            ("list_flatten", "list(list(A)).() -> list(A)"),
            ("list_flatten_int", "list(dyn).(int) -> list(dyn)"),
        ],
    },
    Function { name: "slice", run: slice, overloads: &[("list_slice", "list(A).(int, int) -> list(A)")] },
    Function { name: "distinct", run: distinct, overloads: &[("list_distinct", "list(A).() -> list(A)")] },
    Function {
        name: "reverse",
        run: |args| match args {
            [Value::List(list)] => list.values().map(|mut values| {
                values.reverse();
                Value::from(values)
            }),
            _ => no_such_overload(),
        },
        overloads: &[("list_reverse", "list(A).() -> list(A)")],
    },
    Function { name: "lists.range", run: range, overloads: &[("lists_range", "(int) -> list(int)")] },
    Function {
        name: "first",
        run: |args| end(args, |list| list.get(0)),
        overloads: &[("list_first", "list(A).() -> optional(A)")],
    },
    Function {
        name: "last",
        run: |args| end(args, |list| list.len().checked_sub(1).and_then(|last| list.get(last))),
        overloads: &[("list_last", "list(A).() -> optional(A)")],
    },
];

fn only_list<'a>(args: &[Value<'a>]) -> Result<Vec<Value<'a>>, EvalError> {
    match args {
        [Value::List(list)] => list.values(),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn is_sorted<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    for pair in only_list(args)?.windows(2) {
        if compare(&pair[0], &pair[1])? == Some(Ordering::Greater) {
            return Ok(Value::Bool(false));
        }
    }
    Ok(Value::Bool(true))
}

fn extreme<'a>(args: &[Value<'a>], wanted: Ordering) -> Outcome<'a> {
    let mut values = only_list(args)?.into_iter();
    let name = if wanted == Ordering::Less { "min" } else { "max" };
    let mut best = values.next().ok_or_else(|| EvalError::new(format!("{name} called on empty list")))?;
    for value in values {
        if compare(&value, &best)? == Some(wanted) {
            best = value;
        }
    }
    Ok(best)
}

fn sort<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut values = only_list(args)?;
    if let Some(first) = values.first() {
        for value in &values {
            compare(first, value)?;
        }
    }
    // Comparable, as was just seen; what is not a number has no place of its own.
    values.sort_by(|a, b| compare(a, b).ok().flatten().unwrap_or(Ordering::Equal));
    Ok(Value::from(values))
}

fn sum<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut values = only_list(args)?.into_iter();
    // The sum of nothing is a number, whatever the list would have held.
    let Some(mut total) = values.next() else { return Ok(Value::Int(0)) };
    if !matches!(total, Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::Duration(_)) {
        return no_such_overload();
    }
    for value in values {
        total = super::operators::append(total, &value)?;
    }
    Ok(total)
}

fn index<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let [Value::List(list), wanted] = args else { return no_such_overload() };
    let values = list.values()?;
    let same = |value: &Value<'a>| value.equals(wanted);
    let index = if last { values.iter().rposition(same) } else { values.iter().position(same) };
    Ok(Value::Int(index.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1)))
}

fn flatten<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, depth) = match args {
        [Value::List(list)] => (list, 1),
        [Value::List(list), depth] => (list, int(depth)?),
        _ => return no_such_overload(),
    };
    if depth < 0 {
        return Err(EvalError::new("level must be non-negative"));
    }
    let mut values = list.values()?;
    for _ in 0..depth {
        if !values.iter().any(|value| matches!(value, Value::List(_))) {
            break;
        }
        let mut flat = Vec::new();
        for value in values {
            match value {
                Value::List(inner) => flat.extend(inner.values()?),
                other => flat.push(other),
            }
        }
        values = flat;
    }
    Ok(Value::from(values))
}

fn slice<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::List(list), start, end] = args else { return no_such_overload() };
    let (start, end) = (int(start)?, int(end)?);
    if start < 0 || end < 0 {
        return Err(EvalError::new(format!("cannot slice({start}, {end}), negative indexes not supported")));
    }
    if start > end {
        return Err(EvalError::new(format!(
            "cannot slice({start}, {end}), start index must be less than or equal to end index"
        )));
    }
    let values = list.values()?;
    let part =
        usize::try_from(start).ok().zip(usize::try_from(end).ok()).and_then(|(start, end)| values.get(start..end));
    match part {
        Some(part) => Ok(Value::from(part.to_vec())),
        None => Err(EvalError::new(format!("cannot slice({start}, {end}), list is length {}", list.len()))),
    }
}

fn distinct<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut seen = super::sets::Seen::default();
    let mut kept = Vec::new();
    for value in only_list(args)? {
        if seen.insert(&value) {
            kept.push(value);
        }
    }
    Ok(Value::from(kept))
}

fn range<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Int(n)] if *n > MAX_RANGE => Err(EvalError::new(format!("lists.range({n}): size exceeds limit"))),
        [Value::Int(n)] => Ok(Value::from((0..*n).map(Value::Int).collect::<Vec<_>>())),
        _ => no_such_overload(),
    }
}

fn end<'a>(args: &[Value<'a>], pick: fn(&List<'a>) -> Option<Outcome<'a>>) -> Outcome<'a> {
    match args {
        [Value::List(list)] => Ok(pick(list).transpose()?.map_or(Value::Optional(None), Value::some)),
        _ => no_such_overload(),
    }
}
