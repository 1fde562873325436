//! Units of cost: ranges that are estimated, and what a call costs when it is carried out.
//!
//! One unit is about 50 nanoseconds. Both sides must agree with upstream, as limits are set in these units.

use crate::error::EvalError;
use crate::value::{Key, Value};

/// A unit for each ten characters that are walked over.
pub(crate) const TEXT: f64 = 0.1;
/// A unit for each four characters of a pattern, times the text.
pub(crate) const PATTERN: f64 = 0.25;
/// Making a list.
pub(crate) const LIST: u64 = 10;
/// Making a map.
pub(crate) const MAP: u64 = 30;
/// Making a message.
pub(crate) const MESSAGE: u64 = 40;

/// Asking an authoriser.
pub(crate) const AUTHORIZATION: u64 = 350_000;

/// The least and the most that something costs, or the least and the greatest size of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CostEstimate {
    /// At least.
    pub min: u64,
    /// At most; the greatest number if there is no bound.
    pub max: u64,
}

impl CostEstimate {
    pub(crate) const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    pub(crate) const fn fixed(units: u64) -> Self {
        Self { min: units, max: units }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(crate) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub(crate) fn scaled(self, factor: f64) -> Self {
        Self { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    /// What covers both.
    pub(crate) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// Rounded up. A number too large becomes the greatest.
pub(crate) fn scale(n: u64, factor: f64) -> u64 {
    (n as f64 * factor).ceil() as u64
}

/// What a call has cost, from its arguments (the receiver first) and its answer.
pub(crate) fn of_call(function: &str, args: &[Value<'_>], answer: &Result<Value<'_>, EvalError>) -> u64 {
    let size = |n: usize| args.get(n).map_or(1, Value::size);
    let is_text = |n: usize| matches!(args.get(n), Some(Value::String(_)));
    match function {
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => args.first().map_or(0, traversal),
        "url"
        | "jsonpatch.escapeKey"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => scale(size(0), TEXT),
        "replace" | "split" => scale(size(0), 2.0 * TEXT),
        "join" => scale(answer.as_ref().map_or(1, Value::size), 2.0 * TEXT),
        "matches" | "find" | "findAll" => scale(size(0) + 1, TEXT).saturating_mul(scale(size(1), PATTERN)),
        "ip" if is_text(0) => scale(size(0), TEXT),
        "ip.isCanonical" => scale(size(0), 2.0 * TEXT),
        "containsIP" => scale(2 * size(0), TEXT) + if is_text(1) { scale(size(1), TEXT) } else { 0 },
        "containsCIDR" => {
            let parsing = if is_text(1) { scale(size(1), TEXT) } else { 0 };
            scale(2 * size(0), TEXT) + scale(size(0), TEXT) + 1 + parsing
        }
        "validate" => match args.first() {
            Some(Value::Format(format)) => scale(size(1) + 1, TEXT).saturating_mul(scale(format.pattern_size, PATTERN)),
            _ => 1,
        },
        "startsWith" | "endsWith" | "bytes" => scale(size(0), TEXT),
        "string" if matches!(args.first(), Some(Value::Bytes(_))) => scale(size(0), TEXT),
        "@in" if matches!(args.get(1), Some(Value::List(_))) => size(1),
        "_==_" | "_!=_" => match args.first() {
            Some(
                Value::Quantity(_)
                | Value::Ip(_)
                | Value::Cidr(_)
                | Value::Format(_)
                | Value::Url(_)
                | Value::Semver(_),
            ) => 1,
            _ => scale(size(0).min(size(1)), TEXT),
        },
        "_<_" | "_<=_" | "_>_" | "_>=_" if matches!(args.first(), Some(Value::String(_) | Value::Bytes(_))) => {
            scale(size(0).min(size(1)), TEXT)
        }
        "_+_" if matches!(args.first(), Some(Value::String(_) | Value::Bytes(_))) => scale(size(0) + size(1), TEXT),
        // Upstream joins lists without a copy. Here long ones are copied, which must not be for nothing.
        "_+_" if matches!(args.first(), Some(Value::List(_))) => 1 + (size(0) + size(1)) / 10,
        "contains" => scale(size(0), TEXT).saturating_mul(scale(size(1), TEXT)),
        // So dear that two of them are all that one evaluation may ask.
        "check" => AUTHORIZATION,
        "fieldSelector" | "labelSelector" => of_selector(CostEstimate::fixed(size(1))).max,
        // Those of whole lists that upstream charges by their length.
        "sets.contains" | "sets.intersects" => size(0).saturating_mul(size(1)) + 1,
        "sets.equivalent" => size(0).saturating_mul(size(1)).saturating_mul(2) + 1,
        "distinct" => size(0).saturating_mul(size(0)).max(1),
        "sort" | "slice" | "flatten" | "reverse" | "optional.unwrap" | "unwrapOpt" => size(0).max(1),
        "lists.range" => answer.as_ref().map_or(1, Value::size).max(1),
        "format" => scale(size(0), TEXT),
        _ => 1,
    }
}

/// What reading a selector costs: its text, and a list and a record for every two characters at worst.
pub(crate) fn of_selector(size: CostEstimate) -> CostEstimate {
    let requirements = size.scaled(0.5).scaled((LIST + MESSAGE) as f64);
    CostEstimate::fixed(LIST).plus(size.scaled(TEXT)).plus(requirements)
}

/// What walking over everything in a value costs.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.as_str().len() as f64 * TEXT) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TEXT) as u64,
        Value::List(list) => list.iter().map(|item| item.as_ref().map_or(1, traversal)).sum(),
        Value::Map(map) => {
            let entry = |key: &Value<'_>| {
                let value = Key::of(key).ok().and_then(|key| map.get(&key));
                traversal(key) + value.map_or(1, |value| value.as_ref().map_or(1, traversal))
            };
            map.keys().iter().map(entry).sum()
        }
        _ => 1,
    }
}
