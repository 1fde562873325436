//! JSONPath templates: `{.items[*].metadata.name}`, `{range …}{end}`, filters and quoted text.

use serde_json::Value;

/// A path or a template that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPathError(pub String);

impl std::fmt::Display for JsonPathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JsonPathError {}

type Outcome<T> = Result<T, JsonPathError>;

fn error(why: impl Into<String>) -> JsonPathError {
    JsonPathError(why.into())
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    /// Every element or value.
    Each,
    Index(i64),
    Slice(Option<i64>, Option<i64>),
    /// Elements for which a path compares to a value.
    Filter(Vec<Step>, Option<(String, Value)>),
    /// Everything below, whatever depth.
    Below,
}

/// A part of a template.
#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

/// Fills a template.
///
/// # Errors
/// Where it cannot be read.
pub fn render(template: &str, value: &Value) -> Outcome<String> {
    let mut rest = template;
    let parts = parts(&mut rest, false)?;
    let mut out = String::new();
    write(&parts, value, value, &mut out);
    Ok(out)
}

/// The values that a bare path (`.status.phase`, `{.status.phase}`) leads to.
///
/// # Errors
/// Where it cannot be read.
pub fn find(path: &str, value: &Value) -> Outcome<Vec<Value>> {
    let path = path.trim().trim_start_matches('{').trim_end_matches('}');
    let path = if path.starts_with(['.', '[', '$']) { path.to_owned() } else { format!(".{path}") };
    Ok(follow(&steps(&path)?, &[value]).into_iter().cloned().collect())
}

fn parts(rest: &mut &str, inside: bool) -> Outcome<Vec<Part>> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            parts.push(Part::Text((*rest).to_owned()));
            *rest = "";
            break;
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        *rest = &rest[open + 1..];
        let close = closing(rest).ok_or_else(|| error("error parsing jsonpath: unclosed action"))?;
        let action = rest[..close].trim();
        *rest = &rest[close + 1..];
        if action == "end" {
            return if inside { Ok(parts) } else { Err(error("error parsing jsonpath: not in range, nothing to end")) };
        } else if let Some(path) = action.strip_prefix("range ") {
            let path = steps(path.trim())?;
            parts.push(Part::Range(path, self::parts(rest, true)?));
        } else if let Some(text) = quoted(action) {
            parts.push(Part::Text(text));
        } else {
            parts.push(Part::Path(steps(action)?));
        }
    }
    if inside { Err(error("error parsing jsonpath: unclosed range")) } else { Ok(parts) }
}

/// Where the brace of an action closes, quotes left out.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '}') => return Some(index),
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inner.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"").replace("\\'", "'"))
}

fn steps(path: &str) -> Outcome<Vec<Step>> {
    let wrong = || error(format!("error parsing jsonpath {path}: unrecognized character or unclosed bracket"));
    let mut rest = path.strip_prefix('$').or_else(|| path.strip_prefix('@')).unwrap_or(path);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Below);
            rest = after;
            if rest.starts_with('[') {
                continue;
            }
            rest = key(rest, &mut steps);
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = key(after, &mut steps);
        } else if let Some(after) = rest.strip_prefix('[') {
            let end = bracket(after).ok_or_else(wrong)?;
            steps.push(inside(after[..end].trim()).ok_or_else(wrong)?);
            rest = &after[end + 1..];
        } else {
            return Err(wrong());
        }
    }
    Ok(steps)
}

/// Reads a key, in which a backslash protects a dot.
fn key<'a>(text: &'a str, steps: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((index, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => {
                end = index;
                break;
            }
            c => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => steps.push(Step::Each),
        _ => steps.push(Step::Key(name)),
    }
    &text[end..]
}

fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(index),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn inside(text: &str) -> Option<Step> {
    if text == "*" {
        return Some(Step::Each);
    }
    if let Some(name) = quoted(text) {
        return Some(Step::Key(name));
    }
    if let Some(condition) = text.strip_prefix("?(").and_then(|c| c.strip_suffix(')')) {
        for operator in ["==", "!=", ">=", "<=", ">", "<"] {
            if let Some((left, right)) = condition.split_once(operator) {
                let right = right.trim();
                let value = quoted(right).map(Value::String).or_else(|| serde_json::from_str(right).ok())?;
                return Some(Step::Filter(steps(left.trim()).ok()?, Some((operator.to_owned(), value))));
            }
        }
        return Some(Step::Filter(steps(condition.trim()).ok()?, None));
    }
    if let Some((from, to)) = text.split_once(':') {
        let number = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        return Some(Step::Slice(number(from.trim())?, number(to.trim())?));
    }
    text.parse().ok().map(Step::Index)
}

fn follow<'a>(steps: &[Step], from: &[&'a Value]) -> Vec<&'a Value> {
    let mut current: Vec<&Value> = from.to_vec();
    for step in steps {
        current = current.into_iter().flat_map(|value| next(step, value)).collect();
    }
    current
}

fn next<'a>(step: &Step, value: &'a Value) -> Vec<&'a Value> {
    let elements = || value.as_array().map(Vec::as_slice).unwrap_or_default();
    let at = |index: i64| if index < 0 { elements().len() as i64 + index } else { index };
    match step {
        Step::Key(name) => match value {
            Value::Object(map) => map.get(name).into_iter().collect(),
            _ => Vec::new(),
        },
        Step::Each => match value {
            Value::Array(list) => list.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Index(index) => usize::try_from(at(*index)).ok().and_then(|i| elements().get(i)).into_iter().collect(),
        Step::Slice(from, to) => {
            let (from, to) = (at(from.unwrap_or(0)), at(to.unwrap_or(elements().len() as i64)));
            elements()
                .iter()
                .enumerate()
                .filter(|(i, _)| (*i as i64) >= from && (*i as i64) < to)
                .map(|(_, v)| v)
                .collect()
        }
        Step::Filter(path, condition) => {
            let keep = |one: &&Value| {
                let found = follow(path, &[*one]);
                let Some((operator, wanted)) = condition else { return !found.is_empty() };
                found.iter().any(|value| compare(value, operator, wanted))
            };
            elements().iter().filter(keep).collect()
        }
        Step::Below => {
            let mut all = vec![value];
            let children: Vec<&Value> = next(&Step::Each, value);
            all.extend(children.into_iter().flat_map(|child| next(&Step::Below, child)));
            all
        }
    }
}

fn compare(value: &Value, operator: &str, wanted: &Value) -> bool {
    match operator {
        "==" => value == wanted,
        "!=" => value != wanted,
        _ => {
            let (Some(a), Some(b)) = (value.as_f64(), wanted.as_f64()) else { return false };
            match operator {
                ">" => a > b,
                "<" => a < b,
                ">=" => a >= b,
                _ => a <= b,
            }
        }
    }
}

/// A value as templates show it: text without quotes.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn write(parts: &[Part], root: &Value, here: &Value, out: &mut String) {
    for part in parts {
        match part {
            Part::Text(text) => *out += text,
            Part::Path(path) => {
                let found = follow(path, &[here]);
                let found = if found.is_empty() && !std::ptr::eq(root, here) { follow(path, &[root]) } else { found };
                *out += &found.into_iter().map(text).collect::<Vec<_>>().join(" ");
            }
            Part::Range(path, inner) => {
                for one in follow(path, &[here]) {
                    write(inner, root, one, out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_filled() {
        let value = json!({"items": [
            {"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1},
            {"metadata": {"name": "b"}, "n": 2},
        ]});
        let of = |template: &str| render(template, &value).map_err(|e| e.0).unwrap();
        assert_eq!(of("{.items[*].metadata.name}"), "a b");
        assert_eq!(of("{range .items[*]}{.metadata.name}={.n}{\"\\n\"}{end}"), "a=1\nb=2\n");
        assert_eq!(of("{.items[0].metadata.labels.x\\.y/z} {.items[-1].n}"), "1 2");
        assert_eq!(of("{.items[?(@.n==2)].metadata.name}"), "b");
        assert_eq!(of("{.items[?(@.metadata.name==\"a\")].n} {..name}"), "1 a b");
        assert_eq!(of("{.items[0].metadata.labels['x.y/z']}"), "1");
        assert!(render("{.a", &value).is_err() && render("{.a[}", &value).is_err());
        assert_eq!(find("{.items[1].n}", &value).unwrap(), [json!(2)]);
    }
}
