//! The table of all functions and operators: their names, signatures and implementations.
//!
//! A signature is written as the specification writes it: `string.(int) -> string` is a method of texts, `(A, A) -> bool`
//! a function of two values of the same type.

pub(crate) mod authorization;
pub(crate) mod conversions;
pub(crate) mod encoders;
pub(crate) mod format_text;
pub(crate) mod formats;
pub(crate) mod lists;
pub(crate) mod math;
pub(crate) mod network;
pub(crate) mod operators;
pub(crate) mod optional;
pub(crate) mod patterns;
pub(crate) mod quantity;
pub(crate) mod semver;
pub(crate) mod sets;
pub(crate) mod strings;
pub(crate) mod time;
pub(crate) mod url;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::error::EvalError;
use crate::types::Type;
use crate::value::Value;

/// What a function answers.
pub(crate) type Outcome<'a> = Result<Value<'a>, EvalError>;

/// The receiver of a method is the first argument.
pub(crate) type Run = for<'a> fn(&[Value<'a>]) -> Outcome<'a>;

/// One function, whatever the types of its arguments.
pub(crate) struct Function {
    pub name: &'static str,
    pub run: Run,
    /// Ids and signatures.
    pub overloads: &'static [(&'static str, &'static str)],
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// One signature of a function, read.
#[derive(Debug)]
pub(crate) struct Overload {
    pub id: &'static str,
    pub method: bool,
    pub arguments: Vec<Type>,
    pub result: Type,
}

/// A function and its signatures, read.
#[derive(Debug)]
pub(crate) struct Declared {
    pub function: &'static Function,
    pub overloads: Vec<Overload>,
}

const TABLES: &[&[Function]] = &[
    operators::FUNCTIONS,
    conversions::FUNCTIONS,
    strings::FUNCTIONS,
    lists::FUNCTIONS,
    sets::FUNCTIONS,
    patterns::FUNCTIONS,
    time::FUNCTIONS,
    optional::FUNCTIONS,
    math::FUNCTIONS,
    encoders::FUNCTIONS,
    url::FUNCTIONS,
    network::FUNCTIONS,
    quantity::FUNCTIONS,
    semver::FUNCTIONS,
    formats::FUNCTIONS,
    authorization::FUNCTIONS,
];

/// All rows of a name. Several libraries may have a function of the same name for other types.
static ALL: LazyLock<BTreeMap<&'static str, Vec<Declared>>> = LazyLock::new(|| {
    let mut all: BTreeMap<&'static str, Vec<Declared>> = BTreeMap::new();
    for function in TABLES.iter().copied().flatten() {
        let overloads = function.overloads.iter().map(|(id, signature)| read(id, signature)).collect();
        all.entry(function.name).or_default().push(Declared { function, overloads });
    }
    all
});

/// The functions of a name.
pub(crate) fn named(name: &str) -> &'static [Declared] {
    ALL.get(name).map_or(&[], Vec::as_slice)
}

/// Whether a function of this name exists as something else than a method.
pub(crate) fn is_global(name: &str) -> bool {
    named(name).iter().flat_map(|declared| &declared.overloads).any(|overload| !overload.method)
}

fn read(id: &'static str, signature: &str) -> Overload {
    let (left, result) = signature.split_once(" -> ").unwrap_or((signature, "dyn"));
    let (receiver, rest) = left.split_once('(').unwrap_or((left, ")"));
    // The receiver may itself have brackets: the last dot before a bracket ends it.
    let (receiver, rest) = match left.find(".(") {
        Some(at) => (Some(&left[..at]), &left[at + 2..]),
        None => (None, if receiver.is_empty() { rest } else { left }),
    };
    let rest = rest.strip_suffix(')').unwrap_or(rest);
    let mut arguments: Vec<Type> = receiver.map(read_type).into_iter().collect();
    arguments.extend(split_arguments(rest).into_iter().map(read_type));
    Overload { id, method: receiver.is_some(), arguments, result: read_type(result) }
}

/// Splits at the commas that are in no bracket.
fn split_arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    parts.extend((!last.is_empty()).then_some(last));
    parts
}

fn read_type(text: &str) -> Type {
    if let Some((name, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) {
        let inner: Vec<Arc<Type>> = split_arguments(inner).into_iter().map(|part| Arc::new(read_type(part))).collect();
        return match (name, &inner[..]) {
            ("list", [element]) => Type::List(element.clone()),
            ("map", [key, value]) => Type::Map(key.clone(), value.clone()),
            ("optional", [inner]) => Type::Optional(inner.clone()),
            ("type", [inner]) => Type::TypeType(Some(inner.clone())),
            _ => Type::Dyn,
        };
    }
    match text {
        "A" => Type::Parameter(0),
        "B" => Type::Parameter(1),
        "null" => Type::Null,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "quantity" => Type::QUANTITY,
        "url" => Type::URL,
        "ip" => Type::IP,
        "cidr" => Type::CIDR,
        "semver" => Type::SEMVER,
        "format" => Type::FORMAT,
        "authorizer" => Type::AUTHORIZER,
        "path_check" => Type::PATH_CHECK,
        "group_check" => Type::GROUP_CHECK,
        "resource_check" => Type::RESOURCE_CHECK,
        "decision" => Type::DECISION,
        _ => Type::named(text).unwrap_or(Type::Dyn),
    }
}

/// The answer of a function that has no implementation for the types of its arguments.
pub(crate) fn no_such_overload<'a>() -> Outcome<'a> {
    Err(EvalError::no_such_overload())
}

/// A text argument.
pub(crate) fn text<'v>(value: &'v Value<'_>) -> Result<&'v str, EvalError> {
    match value {
        Value::String(text) => Ok(text.as_str()),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// A whole number.
pub(crate) fn int(value: &Value<'_>) -> Result<i64, EvalError> {
    match value {
        Value::Int(n) => Ok(*n),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The only argument, as text.
pub(crate) fn only_text<'v>(args: &'v [Value<'_>]) -> Result<&'v str, EvalError> {
    match args {
        [value] => text(value),
        _ => Err(EvalError::no_such_overload()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_read_as_it_is_written() {
        let mut ids = std::collections::BTreeSet::new();
        for function in TABLES.iter().copied().flatten() {
            for (id, signature) in function.overloads {
                let overload = read(id, signature);
                let mut arguments: Vec<String> = overload.arguments.iter().map(shown).collect();
                let receiver = if overload.method { format!("{}.", arguments.remove(0)) } else { String::new() };
                let again = format!("{receiver}({}) -> {}", arguments.join(", "), shown(&overload.result));
                assert_eq!(again, *signature, "{} {id}", function.name);
                assert!(ids.insert(*id), "{id} is there twice");
            }
        }
        assert!(ids.len() > 200, "{}", ids.len());
    }

    fn shown(ty: &Type) -> String {
        let short = [
            ("kubernetes.Quantity", "quantity"),
            ("kubernetes.URL", "url"),
            ("net.IP", "ip"),
            ("net.CIDR", "cidr"),
            ("kubernetes.Semver", "semver"),
            ("kubernetes.NamedFormat", "format"),
            ("kubernetes.authorization.Authorizer", "authorizer"),
            ("kubernetes.authorization.PathCheck", "path_check"),
            ("kubernetes.authorization.GroupCheck", "group_check"),
            ("kubernetes.authorization.ResourceCheck", "resource_check"),
            ("kubernetes.authorization.Decision", "decision"),
            ("optional_type", "optional"),
            ("_var0", "A"),
            ("_var1", "B"),
        ];
        short.iter().fold(ty.to_string(), |text, (long, short)| text.replace(long, short))
    }
}
