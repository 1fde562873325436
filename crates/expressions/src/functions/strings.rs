//! The functions of texts.

use std::fmt::Write as _;

use super::{Function, Outcome, format_text, int, no_such_overload, only_text, operators, text};
use crate::error::EvalError;
use crate::value::Value;

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "contains",
        run: |args| operators::texts(args, |text, part| text.contains(part)),
        overloads: &[("contains_string", "string.(string) -> bool")],
    },
    Function {
        name: "startsWith",
        run: |args| operators::texts(args, |text, part| text.starts_with(part)),
        overloads: &[("starts_with_string", "string.(string) -> bool")],
    },
    Function {
        name: "endsWith",
        run: |args| operators::texts(args, |text, part| text.ends_with(part)),
        overloads: &[("ends_with_string", "string.(string) -> bool")],
    },
    Function { name: "charAt", run: char_at, overloads: &[("string_char_at_int", "string.(int) -> string")] },
    Function {
        name: "indexOf",
        run: |args| find(args, false),
        overloads: &[
            ("string_index_of_string", "string.(string) -> int"),
            ("string_index_of_string_int", "string.(string, int) -> int"),
        ],
    },
    Function {
        name: "lastIndexOf",
        run: |args| find(args, true),
        overloads: &[
            ("string_last_index_of_string", "string.(string) -> int"),
            ("string_last_index_of_string_int", "string.(string, int) -> int"),
        ],
    },
    Function {
        name: "lowerAscii",
        run: |args| Ok(Value::from(only_text(args)?.to_ascii_lowercase())),
        overloads: &[("string_lower_ascii", "string.() -> string")],
    },
    Function {
        name: "upperAscii",
        run: |args| Ok(Value::from(only_text(args)?.to_ascii_uppercase())),
        overloads: &[("string_upper_ascii", "string.() -> string")],
    },
    Function {
        name: "replace",
        run: replace,
        overloads: &[
            ("string_replace_string_string", "string.(string, string) -> string"),
            ("string_replace_string_string_int", "string.(string, string, int) -> string"),
        ],
    },
    Function {
        name: "split",
        run: split,
        overloads: &[
            ("string_split_string", "string.(string) -> list(string)"),
            ("string_split_string_int", "string.(string, int) -> list(string)"),
        ],
    },
    Function {
        name: "substring",
        run: substring,
        overloads: &[
            ("string_substring_int", "string.(int) -> string"),
            ("string_substring_int_int", "string.(int, int) -> string"),
        ],
    },
    Function {
        name: "trim",
        run: |args| match args {
            [Value::String(text)] => {
                let whole = text.as_str();
                let start = whole.len() - whole.trim_start().len();
                Ok(text.part(start..start + whole.trim().len()))
            }
            _ => no_such_overload(),
        },
        overloads: &[("string_trim", "string.() -> string")],
    },
    Function {
        name: "reverse",
        run: |args| Ok(Value::from(only_text(args)?.chars().rev().collect::<String>())),
        overloads: &[("string_reverse", "string.() -> string")],
    },
    Function {
        name: "join",
        run: join,
        overloads: &[
            ("list_join", "list(string).() -> string"),
            ("list_join_string", "list(string).(string) -> string"),
        ],
    },
    Function {
        name: "format",
        run: |args| match args {
            [Value::String(text), Value::List(values)] => format_text::format(text.as_str(), values).map(Value::from),
            _ => no_such_overload(),
        },
        overloads: &[("string_format", "string.(list(dyn)) -> string")],
    },
    Function { name: "strings.quote", run: quote, overloads: &[("strings_quote", "(string) -> string")] },
];

fn out_of_range(index: i64) -> EvalError {
    EvalError::new(format!("index out of range: {index}"))
}

/// The byte at which a character starts; the end is allowed.
fn byte_of(text: &str, index: i64) -> Result<usize, EvalError> {
    let wanted = usize::try_from(index).map_err(|_| out_of_range(index))?;
    let mut starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    starts.nth(wanted).ok_or_else(|| out_of_range(index))
}

fn char_at<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::String(value), index] = args else { return no_such_overload() };
    let start = byte_of(value.as_str(), int(index)?)?;
    let length = value.as_str()[start..].chars().next().map_or(0, char::len_utf8);
    Ok(value.part(start..start + length))
}

fn find<'a>(args: &[Value<'a>], last: bool) -> Outcome<'a> {
    let (value, part, from) = match args {
        [value, part] => (text(value)?, text(part)?, None),
        [value, part, from] => (text(value)?, text(part)?, Some(int(from)?)),
        _ => return no_such_overload(),
    };
    let from = from.map(|from| byte_of(value, from)).transpose()?;
    let found = if last {
        // The match may start at the index at the latest, and so may end behind it.
        let end = from.map_or(value.len(), |from| value.len().min(from.saturating_add(part.len())));
        let end = (end..=value.len()).find(|end| value.is_char_boundary(*end)).unwrap_or(value.len());
        value[..end].rfind(part).filter(|at| from.is_none_or(|from| *at <= from))
    } else {
        let from = from.unwrap_or(0);
        value[from..].find(part).map(|at| at + from)
    };
    let index = found.map(|at| value[..at].chars().count());
    Ok(Value::Int(index.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1)))
}

fn replace<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (value, from, to, limit) = match args {
        [value, from, to] => (text(value)?, text(from)?, text(to)?, -1),
        [value, from, to, limit] => (text(value)?, text(from)?, text(to)?, int(limit)?),
        _ => return no_such_overload(),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let count = value.matches(from).count().min(limit);
    if to.len() > from.len() && value.len().saturating_add(count.saturating_mul(to.len())) > MAX_TEXT {
        return Err(EvalError::new("result of replace is too long"));
    }
    Ok(Value::from(value.replacen(from, to, limit)))
}

/// How long a text may become when it grows by more than what the expression says.
const MAX_TEXT: usize = 64 << 20;

fn split<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (Value::String(value), separator, limit) = (match args {
        [value, separator] => (value, text(separator)?, -1),
        [value, separator, limit] => (value, text(separator)?, int(limit)?),
        _ => return no_such_overload(),
    }) else {
        return no_such_overload();
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let whole = value.as_str();
    if limit == 0 {
        return Ok(Value::from(Vec::new()));
    }
    if separator.is_empty() {
        // Between any two characters, and not before the first and after the last.
        let mut starts: Vec<usize> = whole.char_indices().map(|(at, _)| at).take(limit).collect();
        starts.push(whole.len());
        return Ok(Value::from(starts.windows(2).map(|pair| value.part(pair[0]..pair[1])).collect::<Vec<_>>()));
    }
    let mut parts = Vec::new();
    let mut start = 0;
    for (at, _) in whole.match_indices(separator).take(limit - 1) {
        parts.push(value.part(start..at));
        start = at + separator.len();
    }
    parts.push(value.part(start..whole.len()));
    Ok(Value::from(parts))
}

fn substring<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (Value::String(value), start, end) = (match args {
        [value, start] => (value, int(start)?, None),
        [value, start, end] => (value, int(start)?, Some(int(end)?)),
        _ => return no_such_overload(),
    }) else {
        return no_such_overload();
    };
    let first = byte_of(value.as_str(), start)?;
    let last = end.map_or(Ok(value.as_str().len()), |end| byte_of(value.as_str(), end))?;
    if first > last {
        let end = end.unwrap_or_default();
        return Err(EvalError::new(format!("invalid substring range. start: {start}, end: {end}")));
    }
    Ok(value.part(first..last))
}

fn join<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (list, separator) = match args {
        [Value::List(list)] => (list, ""),
        [Value::List(list), separator] => (list, text(separator)?),
        _ => return no_such_overload(),
    };
    let mut joined = String::new();
    for (n, value) in list.iter().enumerate() {
        let value = value?;
        if n > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text(&value)?);
        if joined.len() > MAX_TEXT {
            return Err(EvalError::new("result of join is too long"));
        }
    }
    Ok(Value::from(joined))
}

fn quote<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let mut quoted = String::from("\"");
    for c in only_text(args)?.chars() {
        match c {
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            '\\' | '"' => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\{c}");
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    Ok(Value::from(quoted))
}
