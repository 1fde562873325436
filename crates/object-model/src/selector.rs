//! Label selectors and field selectors: the text form of requests and the object form of specs.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::names;

/// A selector that could not be read; the message goes to the client as a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

/// A label selector. Without requirements it matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// The selector that matches nothing: what a missing selector in a spec means.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Reads the text form: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// When the text does not parse, naming what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for part in split_outside_parentheses(text) {
            let part = part.trim();
            if part.is_empty() {
                if text.trim().is_empty() {
                    continue;
                }
                return Err(SelectorError(format!(
                    "unable to parse requirement: found '', expected: identifier in {text:?}"
                )));
            }
            requirements.push(parse_requirement(part)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    /// Reads the object form: `matchLabels` and `matchExpressions`. Null matches nothing.
    ///
    /// # Errors
    /// When an expression has an unknown operator.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let mut requirements: Vec<Requirement> = crate::meta::strings(&selector["matchLabels"])
            .into_iter()
            .map(|(k, v)| Requirement { key: k.to_owned(), operator: Operator::In(vec![v.to_owned()]) })
            .collect();
        for e in selector["matchExpressions"].as_array().into_iter().flatten() {
            let key = e["key"].as_str().unwrap_or_default().to_owned();
            let values: Vec<String> =
                e["values"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            let operator = match e["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In(values),
                "NotIn" => Operator::NotIn(values),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            requirements.push(Requirement { key, operator });
        }
        Ok(Self { requirements, nothing: false })
    }

    /// A selector of exact matches, the form old kinds use.
    pub fn from_map(map: &BTreeMap<String, String>) -> Self {
        Self {
            requirements: map
                .iter()
                .map(|(k, v)| Requirement { key: k.clone(), operator: Operator::In(vec![v.clone()]) })
                .collect(),
            nothing: false,
        }
    }

    /// Whether the labels match.
    pub fn matches(&self, labels: &BTreeMap<&str, &str>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|r| {
                let value = labels.get(r.key.as_str()).copied();
                let number = || value.and_then(|v| v.parse::<i64>().ok());
                match &r.operator {
                    Operator::In(values) => value.is_some_and(|v| values.iter().any(|x| x == v)),
                    Operator::NotIn(values) => value.is_none_or(|v| values.iter().all(|x| x != v)),
                    Operator::Exists => value.is_some(),
                    Operator::DoesNotExist => value.is_none(),
                    Operator::Greater(n) => number().is_some_and(|v| v > *n),
                    Operator::Less(n) => number().is_some_and(|v| v < *n),
                }
            })
    }

    /// Whether the labels of the object match.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.is_everything() || self.matches(&crate::meta::labels(object))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nothing {
            return f.write_str("<none>");
        }
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match &r.operator {
                Operator::In(v) if v.len() == 1 => write!(f, "{}={}", r.key, v[0])?,
                Operator::NotIn(v) if v.len() == 1 => write!(f, "{}!={}", r.key, v[0])?,
                Operator::In(v) => write!(f, "{} in ({})", r.key, v.join(","))?,
                Operator::NotIn(v) => write!(f, "{} notin ({})", r.key, v.join(","))?,
                Operator::Exists => f.write_str(&r.key)?,
                Operator::DoesNotExist => write!(f, "!{}", r.key)?,
                Operator::Greater(n) => write!(f, "{}>{n}", r.key)?,
                Operator::Less(n) => write!(f, "{}<{n}", r.key)?,
            }
        }
        Ok(())
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_requirement(part: &str) -> Result<Requirement, SelectorError> {
    let fail = |what: &str| SelectorError(format!("unable to parse requirement: {what} in {part:?}"));
    let one = |key: &str, value: &str, positive: bool| {
        let value = value.trim();
        let bad = names::label_value(value);
        if !bad.is_empty() {
            return Err(fail(&format!("values[0]: Invalid value: {value:?}: {}", bad.join("; "))));
        }
        let values = vec![value.to_owned()];
        Ok((key.trim().to_owned(), if positive { Operator::In(values) } else { Operator::NotIn(values) }))
    };
    let (key, operator) = if let Some(key) = part.strip_prefix('!') {
        (key.trim().to_owned(), Operator::DoesNotExist)
    } else if let Some((key, value)) = part.split_once("!=") {
        one(key, value, false)?
    } else if let Some((key, value)) = part.split_once("==") {
        one(key, value, true)?
    } else if let Some((key, value)) = part.split_once('=') {
        one(key, value, true)?
    } else if let Some((key, value)) = part.split_once('>') {
        (
            key.trim().to_owned(),
            Operator::Greater(
                value.trim().parse().map_err(|_| fail("for 'Gt', 'Lt' operators, the value must be an integer"))?,
            ),
        )
    } else if let Some((key, value)) = part.split_once('<') {
        (
            key.trim().to_owned(),
            Operator::Less(
                value.trim().parse().map_err(|_| fail("for 'Gt', 'Lt' operators, the value must be an integer"))?,
            ),
        )
    } else if let Some((head, rest)) = part.split_once('(') {
        let values = rest.trim_end().strip_suffix(')').ok_or_else(|| fail("found '', expected: ',' or ')'"))?;
        let values: Vec<String> = values.split(',').map(|v| v.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => (key.to_owned(), Operator::In(values)),
            [key, "notin"] => (key.to_owned(), Operator::NotIn(values)),
            _ => return Err(fail("expected: in, notin, =, ==, !=, gt, lt")),
        }
    } else {
        (part.to_owned(), Operator::Exists)
    };
    let bad = names::qualified_name(&key);
    if !bad.is_empty() {
        return Err(fail(&format!("key: Invalid value: {key:?}: {}", bad.join("; "))));
    }
    Ok(Requirement { key, operator })
}

/// A field selector: terms `path=value` or `path!=value`, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    /// Path, value, and whether they must be equal.
    pub terms: Vec<(String, String, bool)>,
}

impl FieldSelector {
    /// Reads `a=b,c!=d,e==f`, with `\\`, `\,` and `\=` escaped in values.
    ///
    /// # Errors
    /// When a term has no operator or an escape is unknown.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let at = term
                .find(['=', '!'])
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")))?;
            let (path, rest) = term.split_at(at);
            let (value, equal) = if let Some(v) = rest.strip_prefix("!=") {
                (v, false)
            } else if let Some(v) = rest.strip_prefix("==") {
                (v, true)
            } else if let Some(v) = rest.strip_prefix('=') {
                (v, true)
            } else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            terms.push((path.to_owned(), unescape(value)?, equal));
        }
        Ok(Self { terms })
    }

    /// Whether there are no terms.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the fields, as `field` reads them (an unset field is the empty string), satisfy every term.
    pub fn matches(&self, field: impl Fn(&str) -> Option<String>) -> bool {
        self.terms.iter().all(|(path, value, equal)| (field(path).unwrap_or_default() == *value) == *equal)
    }

    /// The value a path must have, where a term fixes it.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|(p, _, equal)| p == path && *equal).map(|(_, v, _)| v.as_str())
    }
}

fn split_terms(text: &str) -> Vec<&str> {
    let (mut start, mut escaped, mut parts) = (0, false, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(e @ ('\\' | ',' | '=')) => out.push(e),
                other => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence \"\\{}\"",
                        other.map(String::from).unwrap_or_default()
                    )));
                }
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels<'a>(pairs: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
        pairs.iter().copied().collect()
    }

    #[test]
    fn label_selectors_match_as_documented() {
        let l = labels(&[("app", "echo"), ("tier", "web")]);
        for (selector, want) in [
            ("", true),
            ("app=echo", true),
            ("app==echo,tier!=db", true),
            ("app in (a, echo),tier notin (db)", true),
            ("app,!gone", true),
            ("app=other", false),
            ("gone", false),
            ("gone!=x", true),
        ] {
            assert_eq!(LabelSelector::parse(selector).expect(selector).matches(&l), want, "{selector}");
        }
        for bad in ["a=b=c,", "in (a", "a in", "-x=1", "a=b c"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_missing_selector_matches_nothing_and_an_empty_one_everything() {
        let l = labels(&[("a", "b")]);
        assert!(!LabelSelector::from_object(&Value::Null).expect("null").matches(&l));
        assert!(LabelSelector::from_object(&json!({})).expect("empty").matches(&l));
    }

    #[test]
    fn field_selectors_unescape_their_values() {
        let s = FieldSelector::parse(r"metadata.name=a\,b,status.phase!=Running").expect("parses");
        assert_eq!(s.exact("metadata.name"), Some("a,b"));
        assert!(s.matches(|p| Some(if p == "metadata.name" { "a,b".into() } else { "Pending".into() })));
        assert!(FieldSelector::parse("nonsense").is_err());
    }
}
