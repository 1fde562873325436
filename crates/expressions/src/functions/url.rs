//! URLs: absolute ones, and absolute paths.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Function, Outcome, no_such_overload, only_text};
use crate::error::EvalError;
use crate::value::{Key, Map, Value};

/// The parts of a URL, as its text has them.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "url",
        run: |args| parse(only_text(args)?).map(|url| Value::Url(Arc::new(url))),
        overloads: &[("string_to_url", "(string) -> url")],
    },
    Function {
        name: "isURL",
        run: |args| Ok(Value::Bool(parse(only_text(args)?).is_ok())),
        overloads: &[("is_url_string", "(string) -> bool")],
    },
    Function {
        name: "getScheme",
        run: |args| part(args, |url| url.scheme.clone()),
        overloads: &[("url_get_scheme", "url.() -> string")],
    },
    Function {
        name: "getHost",
        run: |args| part(args, |url| url.host.clone()),
        overloads: &[("url_get_host", "url.() -> string")],
    },
    Function {
        name: "getHostname",
        run: |args| part(args, |url| split_host(&url.host).0.to_owned()),
        overloads: &[("url_get_hostname", "url.() -> string")],
    },
    Function {
        name: "getPort",
        run: |args| part(args, |url| split_host(&url.host).1.to_owned()),
        overloads: &[("url_get_port", "url.() -> string")],
    },
    Function {
        name: "getEscapedPath",
        run: |args| part(args, |url| escaped(&url.path)),
        overloads: &[("url_get_escaped_path", "url.() -> string")],
    },
    Function { name: "getQuery", run: query, overloads: &[("url_get_query", "url.() -> map(string, list(string))")] },
];

impl Url {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn parse(text: &str) -> Result<Url, EvalError> {
    let invalid =
        |why: &str| EvalError::new(format!("URL parse error during conversion from string: parse {text:?}: {why}"));
    if text.is_empty() {
        return Err(invalid("empty url"));
    }
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err(invalid("net/url: invalid control character in URL"));
    }
    let (scheme, rest) = match text.find([':', '/', '?', '#']) {
        Some(at) if text[at..].starts_with(':') && is_scheme(&text[..at]) => (&text[..at], &text[at + 1..]),
        Some(0) if text.starts_with(':') => return Err(invalid("missing protocol scheme")),
        Some(at) if text[at..].starts_with(':') => {
            return Err(invalid("first path segment in URL cannot contain colon"));
        }
        _ => ("", text),
    };
    // A fragment is no part of what a request names: it is read as a part of the path.
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !rest.starts_with('/') {
        return Err(invalid("invalid URI for request"));
    }
    let (host, path) = match rest.strip_prefix("//") {
        Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
            let end = rest.find('/').unwrap_or(rest.len());
            rest.split_at(end)
        }
        _ => ("", rest),
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let (name, port) = split_host(host);
    if !port.bytes().all(|byte| byte.is_ascii_digit()) || (host.ends_with(':') && name.is_empty() && host.len() > 1) {
        return Err(invalid(&format!("invalid port \":{port}\" after host")));
    }
    if name.contains([' ', '<', '>', '"', '^', '`', '{', '|', '}', '\\']) {
        return Err(invalid("invalid character in host name"));
    }
    for piece in [host, path] {
        if let Some(wrong) = wrong_escape(piece) {
            return Err(invalid(&format!("invalid URL escape {wrong:?}")));
        }
    }
    Ok(Url {
        text: text.to_owned(),
        scheme: scheme.to_ascii_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// The name and the port of a host. Brackets around an IPv6 address are no part of the name.
fn split_host(host: &str) -> (&str, &str) {
    if let Some(rest) = host.strip_prefix('[')
        && let Some((name, after)) = rest.split_once(']')
    {
        return (name, after.strip_prefix(':').unwrap_or(after));
    }
    host.rsplit_once(':').unwrap_or((host, ""))
}

fn wrong_escape(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    let wrong = bytes.iter().enumerate().find(|(at, byte)| **byte == b'%' && !(hex(at + 1) && hex(at + 2)));
    wrong.map(|(at, _)| String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)]).into_owned())
}

/// The path with everything escaped that may not be written.
fn escaped(path: &str) -> String {
    let mut result = String::with_capacity(path.len());
    for byte in path.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte);
        if plain {
            result.push(char::from(byte));
        } else {
            result.push_str(&format!("%{byte:02X}"));
        }
    }
    result
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &rest[2..];
            }
            other => bytes.push(*other),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn part<'a>(args: &[Value<'a>], of: fn(&Url) -> String) -> Outcome<'a> {
    match args {
        [Value::Url(url)] => Ok(Value::from(of(url))),
        _ => no_such_overload(),
    }
}

fn query<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Url(url)] = args else { return no_such_overload() };
    let mut entries: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
    for piece in url.query.split('&').filter(|piece| !piece.is_empty() && !piece.contains(';')) {
        let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
        if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
            entries.entry(Key::String(key.into())).or_default().push(Value::from(value));
        }
    }
    let entries = entries.into_iter().map(|(key, values)| (key, Value::from(values))).collect();
    Ok(Value::Map(Map::Made { entries: Arc::new(entries), ty: None }))
}

/// What is wrong with a text as a URI.
pub(crate) fn problem(text: &str) -> Option<String> {
    parse(text).err().map(|error| error.to_string())
}
