//! YAML as Kubernetes writes it: keys in order, lists at their key's depth, quotes only where needed.

use serde_json::Value;

/// A value as a YAML document.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(value, 0, false, &mut out),
        Value::Array(list) if !list.is_empty() => write_list(value, 0, &mut out),
        other => out = scalar(other, 0) + "\n",
    }
    out
}

fn pad(depth: usize) -> String {
    "  ".repeat(depth)
}

fn write_map(value: &Value, depth: usize, inline_first: bool, out: &mut String) {
    for (index, (key, one)) in value.as_object().into_iter().flatten().enumerate() {
        if !(inline_first && index == 0) {
            *out += &pad(depth);
        }
        *out += &plain_or_quoted(key);
        out.push(':');
        match one {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                write_map(one, depth + 1, false, out);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push('\n');
                write_list(one, depth, out);
            }
            other => {
                let column = depth * 2 + plain_or_quoted(key).chars().count() + 2;
                *out += &format!(" {}\n", folded(&scalar(other, depth + 1), column, depth + 1));
            }
        }
    }
}

/// Breaks a long line at blanks beyond the eightieth column, as Go's writer does. Text of several lines stays.
fn folded(text: &str, column: usize, depth: usize) -> String {
    if text.contains('\n') || text.starts_with('"') {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut column) = (String::new(), column);
    for (index, c) in chars.iter().enumerate() {
        let alone =
            *c == ' ' && index > 0 && chars[index - 1] != ' ' && chars.get(index + 1).is_some_and(|next| *next != ' ');
        if alone && column > 80 {
            out.push('\n');
            out += &pad(depth);
            column = depth * 2;
        } else {
            out.push(*c);
            column += 1;
        }
    }
    out
}

fn write_list(value: &Value, depth: usize, out: &mut String) {
    for one in value.as_array().into_iter().flatten() {
        *out += &pad(depth);
        *out += "- ";
        match one {
            Value::Object(map) if !map.is_empty() => write_map(one, depth + 1, true, out),
            Value::Array(list) if !list.is_empty() => {
                let mut inner = String::new();
                write_list(one, depth + 1, &mut inner);
                *out += inner.trim_start();
            }
            other => *out += &format!("{}\n", folded(&scalar(other, depth + 1), depth * 2 + 2, depth + 1)),
        }
    }
}

fn scalar(value: &Value, depth: usize) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Object(_) => "{}".into(),
        Value::Array(_) => "[]".into(),
        Value::String(text) if text.contains('\n') && is_printable(text) => block(text, depth),
        Value::String(text) => plain_or_quoted(text),
        other => other.to_string(),
    }
}

fn is_printable(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()) && !text.starts_with([' ', '\n'])
}

/// Text of several lines.
fn block(text: &str, depth: usize) -> String {
    let keep = match (text.ends_with('\n'), text.ends_with("\n\n")) {
        (_, true) => "+",
        (true, _) => "",
        _ => "-",
    };
    let body = text.strip_suffix('\n').unwrap_or(text);
    let lines = body.split('\n').map(|line| if line.is_empty() { String::new() } else { pad(depth) + line });
    format!("|{keep}\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// Words and numbers that would be read as something else than text.
fn is_ambiguous(text: &str) -> bool {
    let words =
        ["null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", ".nan", ".inf", "-.inf", "+.inf", "=", "<<"];
    let lower = text.to_lowercase();
    let number = || {
        let digits = text.replace('_', "");
        digits.parse::<f64>().is_ok() && !lower.contains("inf") && !lower.contains("nan")
            || digits
                .trim_start_matches(['-', '+'])
                .strip_prefix("0x")
                .is_some_and(|h| u64::from_str_radix(h, 16).is_ok())
            || digits
                .trim_start_matches(['-', '+'])
                .strip_prefix("0o")
                .is_some_and(|h| u64::from_str_radix(h, 8).is_ok())
            || digits
                .trim_start_matches(['-', '+'])
                .strip_prefix("0b")
                .is_some_and(|h| u64::from_str_radix(h, 2).is_ok())
    };
    // A time such as 2026-11-23T15:00:00Z, or a day; and numbers to the base of sixty.
    let time = text.len() >= 10
        && text.as_bytes()[4] == b'-'
        && text[..4].bytes().all(|b| b.is_ascii_digit())
        && (text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::Date>().is_ok());
    let sixty =
        text.contains(':') && text.split(':').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    words.contains(&lower.as_str()) || number() || time || sixty
}

fn plain_or_quoted(text: &str) -> String {
    let special = text.is_empty()
        || text.starts_with([
            '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`',
        ]) && !(text.starts_with(['-', '?', ':']) && text.len() > 1 && !text[1..].starts_with(' '))
        || text.starts_with(' ')
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || text == "---";
    if text.chars().any(|c| c.is_control()) {
        return double(text);
    }
    if is_ambiguous(text) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    if special {
        return if text.is_empty() { "\"\"".to_owned() } else { format!("'{}'", text.replace('\'', "''")) };
    }
    text.to_owned()
}

fn double(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\t' => out += "\\t",
            '\r' => out += "\\r",
            c if c.is_control() => out += &format!("\\x{:02x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn yaml_is_written_as_kubernetes_writes_it() {
        let value = json!({
            "a": [1, {"b": "x", "c": []}, [2]], "empty": {}, "none": null, "number": "1", "yes": "yes", "time": "2026-11-23T15:00:00Z",
            "text": "two\nlines\n", "colon": "a: b", "star": "*", "dash": "-x", "path": "/a:80", "blank": "", "image": "busybox:1",
        });
        expect![[r#"
            a:
            - 1
            - b: x
              c: []
            - - 2
            blank: ""
            colon: 'a: b'
            dash: -x
            empty: {}
            image: busybox:1
            none: null
            number: "1"
            path: /a:80
            star: '*'
            text: |
              two
              lines
            time: "2026-11-23T15:00:00Z"
            "yes": "yes"
        "#]]
        .assert_eq(&document(&value));
    }
}
