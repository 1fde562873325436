//! Regular expressions, in the syntax of RE2.

use regex::Regex;

use super::{Function, Outcome, int, no_such_overload, text};
use crate::error::EvalError;
use crate::value::Value;

/// The rows. The interpreter carries these out with the patterns that it has read already.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "matches",
        run: |args| run("matches", args, None),
        overloads: &[("matches", "(string, string) -> bool"), ("matches_string", "string.(string) -> bool")],
    },
    Function {
        name: "find",
        run: |args| run("find", args, None),
        overloads: &[("string_find_string", "string.(string) -> string")],
    },
    Function {
        name: "findAll",
        run: |args| run("findAll", args, None),
        overloads: &[
            ("string_find_all_string", "string.(string) -> list(string)"),
            ("string_find_all_string_int", "string.(string, int) -> list(string)"),
        ],
    },
];

/// The names of the functions whose second argument is a pattern.
pub(crate) fn takes_pattern(function: &str) -> bool {
    FUNCTIONS.iter().any(|row| row.name == function)
}

/// One of the functions, with its pattern if it has been read before.
pub(crate) fn run<'a>(function: &str, args: &[Value<'a>], known: Option<&Regex>) -> Outcome<'a> {
    let (Value::String(value), pattern, limit) = (match args {
        [value, pattern] => (value, text(pattern)?, -1),
        [value, pattern, limit] => (value, text(pattern)?, int(limit)?),
        _ => return no_such_overload(),
    }) else {
        return no_such_overload();
    };
    let compiled;
    let regex = match known {
        Some(regex) => regex,
        None => {
            compiled = compile(pattern)?;
            &compiled
        }
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let whole = value.as_str();
    Ok(match function {
        "matches" => Value::Bool(regex.is_match(whole)),
        "find" => value.part(regex.find(whole).map_or(0..0, |found| found.range())),
        _ => {
            let found = regex.find_iter(whole).take(limit).map(|found| value.part(found.range()));
            Value::from(found.collect::<Vec<_>>())
        }
    })
}

/// Reads a pattern.
pub(crate) fn compile(pattern: &str) -> Result<Regex, EvalError> {
    let invalid = |error: &dyn std::fmt::Display| EvalError::new(format!("error parsing regexp: {error}"));
    Regex::new(&translate(pattern)).map_err(|error| match error {
        regex::Error::Syntax(text) => invalid(&text.lines().last().unwrap_or("").trim_start_matches("error: ")),
        other => invalid(&other),
    })
}

/// A pattern of RE2 in the syntax of `regex`: its classes know ASCII only, and brackets, braces and doubled signs mean
/// less in it.
fn translate(pattern: &str) -> String {
    let chars: Vec<char> = pattern.chars().collect();
    let mut result = String::with_capacity(pattern.len() + 16);
    let (mut at, mut class_start) = (0, None);
    while let Some(c) = chars.get(at).copied() {
        let rest = &chars[at..];
        let in_class = class_start.is_some();
        match (c, rest.get(1).copied()) {
            ('\\', Some('Q')) => {
                at += 2;
                while at < chars.len() && !chars[at..].starts_with(&['\\', 'E']) {
                    result.push_str(&regex::escape(&chars[at].to_string()));
                    at += 1;
                }
                at += 2;
                continue;
            }
            ('\\', Some(escaped)) => {
                result.push_str(match (escaped, in_class) {
                    ('d', true) => "0-9",
                    ('w', true) => "0-9A-Za-z_",
                    ('s', true) => "\\t\\n\\x0C\\r ",
                    ('d', false) => "[0-9]",
                    ('w', false) => "[0-9A-Za-z_]",
                    ('s', false) => "[\\t\\n\\x0C\\r ]",
                    ('D', _) => "[^0-9]",
                    ('W', _) => "[^0-9A-Za-z_]",
                    ('S', _) => "[^\\t\\n\\x0C\\r ]",
                    ('b', false) => "(?-u:\\b)",
                    _ => "",
                });
                if !matches!(escaped, 'd' | 'w' | 's' | 'D' | 'W' | 'S') && (escaped != 'b' || in_class) {
                    result.extend(['\\', escaped]);
                }
                at += 2;
                continue;
            }
            ('[', Some(':')) if in_class && posix_class(rest).is_some() => {
                let length = posix_class(rest).unwrap_or(1);
                result.extend(&rest[..length]);
                at += length;
                continue;
            }
            ('[', _) if !in_class => {
                result.push('[');
                at += 1;
                if chars.get(at) == Some(&'^') {
                    result.push('^');
                    at += 1;
                }
                class_start = Some(at);
                if chars.get(at) == Some(&']') {
                    result.push_str("\\]");
                    at += 1;
                }
                continue;
            }
            (']', _) if in_class => {
                class_start = None;
                result.push(']');
            }
            ('[' | '&' | '~', _) if in_class => result.extend(['\\', c]),
            ('-', Some('-')) if in_class => result.push_str("\\-"),
            ('{', _) if !in_class && !is_repetition(rest) => result.push_str("\\{"),
            ('}', _) if !in_class && !closes_repetition(&chars[..at]) => result.push_str("\\}"),
            _ => result.push(c),
        }
        at += 1;
    }
    result
}

/// How long the `[:name:]` at the start is.
fn posix_class(chars: &[char]) -> Option<usize> {
    let end = chars.windows(2).skip(2).position(|pair| pair == [':', ']'])? + 2;
    chars[2..end].iter().all(|c| c.is_ascii_lowercase() || *c == '^').then_some(end + 2)
}

/// Whether `{2}`, `{2,}` or `{2,3}` is at the start.
fn is_repetition(chars: &[char]) -> bool {
    let Some(end) = chars.iter().position(|c| *c == '}') else { return false };
    let inner: String = chars[1..end].iter().collect();
    let (first, second) = inner.split_once(',').unwrap_or((&inner, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    !first.is_empty() && digits(first) && digits(second)
}

fn closes_repetition(before: &[char]) -> bool {
    before.iter().rposition(|c| *c == '{').is_some_and(|open| {
        let mut piece = before[open..].to_vec();
        piece.push('}');
        is_repetition(&piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        for (pattern, value, matches) in [
            (r"^\d+$", "٣", false),
            (r"^\d+$", "42", true),
            (r"^[\w.-]+$", "a-b.c_1", true),
            (r"^[[a]$", "[", true),
            (r"^[]a]$", "]", true),
            (r"^[^]]$", "]", false),
            (r"^[[:alpha:]_]+$", "ab_", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^a{$", "a{", true),
            (r"^{a}$", "{a}", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"\bfoo\b", "a foo b", true),
            (r"^[a&&b]+$", "a&b", true),
            (r"^\S+$", "ä", true),
            (r"^[^\s]+$", "a b", false),
            (r"(?i)^ABC$", "abc", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(value), matches, "{pattern} {value}");
        }
        assert!(compile("(").is_err());
    }
}
