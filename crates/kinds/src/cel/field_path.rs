//! The `fieldPath` of a rule: names and keys below the place of the rule, like `.spec['a-b']`.

use object_model::FieldPath;
use serde_json::Value;

/// The path that a text means, if it leads to a field of the schema.
pub(super) fn parse(text: &str, schema: &Value) -> Result<FieldPath, String> {
    let mut path = FieldPath::default();
    let mut schema = schema;
    let mut rest = text;
    while let Some(start) = rest.chars().next() {
        let name = match start {
            '.' => {
                rest = &rest[1..];
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
                if end == 0 && rest.is_empty() {
                    return Err("unexpected end of JSON path".to_owned());
                }
                let (name, after) = rest.split_at(end);
                rest = after;
                name.to_owned()
            }
            '[' => {
                let (name, after) = quoted(&rest[1..])?;
                rest = after;
                name
            }
            _ => {
                let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(start.len_utf8());
                return Err(format!("expected [ or . but got: {}", &rest[..end]));
            }
        };
        let missing = || "does not refer to a valid field".to_owned();
        if let Some(properties) = schema["properties"].as_object() {
            schema = properties.get(&name).ok_or_else(missing)?;
            path = path.child(&name);
        } else if schema["additionalProperties"].is_object() {
            schema = &schema["additionalProperties"];
            path = path.key(&name);
        } else {
            return Err(missing());
        }
    }
    Ok(path)
}

/// The text of `'…']` at the start, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let Some(inner) = text.strip_prefix('\'') else {
        let end = text.find(['.', '[', ']']).unwrap_or(text.len());
        return Err(match &text[..end] {
            "" => "unexpected end of JSON path".to_owned(),
            token => format!("expected single quoted string but got {token}"),
        });
    };
    let mut name = String::new();
    let mut chars = inner.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => {
                let after = &inner[at + 1..];
                let end = || match after.chars().next() {
                    Some(c) => format!("expected ] but got {c}"),
                    None => "unexpected end of JSON path".to_owned(),
                };
                return Ok((name, after.strip_prefix(']').ok_or_else(end)?));
            }
            '\\' => {
                let escaped = chars.next().map(|(_, c)| c);
                name.push(match escaped {
                    Some('a') => '\u{7}',
                    Some('b') => '\u{8}',
                    Some('f') => '\u{c}',
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some('v') => '\u{b}',
                    Some(c @ ('\'' | '\\')) => c,
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(format!("invalid string literal: invalid escape char \\{other}"));
                    }
                });
            }
            _ => name.push(c),
        }
    }
    Err(format!("expected single quoted string but got {text}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_leads_to_a_field_or_is_refused() {
        let schema = json!({"properties": {
            "a": {"properties": {"b-c": {"type": "string"}}},
            "m": {"additionalProperties": {"type": "string"}},
        }});
        for (text, path) in [
            (".a", Ok("a")),
            (".a.b-c", Ok("a.b-c")),
            (".a['b-c']", Ok("a.b-c")),
            ("['a']", Ok("a")),
            (".m.x", Ok("m[x]")),
            (".m['it\\'s']", Ok("m[it's]")),
            (".x", Err("does not refer to a valid field")),
            (".a.b-c.d", Err("does not refer to a valid field")),
            ("a", Err("expected [ or . but got: a")),
            (".", Err("unexpected end of JSON path")),
            (".m[x]", Err("expected single quoted string but got x")),
            (".m['x'", Err("unexpected end of JSON path")),
            (".m['\\q']", Err("invalid string literal: invalid escape char \\q")),
        ] {
            let found = parse(text, &schema).map(|path| path.to_string());
            assert_eq!(found, path.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }
}
