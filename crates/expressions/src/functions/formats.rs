//! Named formats of texts: `format.dns1123Label().validate(name)`.

use super::{Function, Outcome, no_such_overload, only_text, time, url};
use crate::value::Value;
use base64::Engine as _;

/// A format and how texts of it are recognised.
#[derive(Debug)]
pub struct Format {
    /// The name by which expressions know it.
    pub(crate) name: &'static str,
    /// How long the pattern is that upstream checks it with: the cost follows from it.
    pub(crate) pattern_size: u64,
    problems: fn(&str) -> Vec<String>,
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                         and must start and end with an alphanumeric character (e.g. 'example.com', regex used for \
                         validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                          alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', \
                          regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                         an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
                         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                           and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or \
                           '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", pattern_size: 30, problems: |text| label(text, 63, LABEL) },
    Format { name: "dns1123Subdomain", pattern_size: 60, problems: subdomain },
    Format { name: "dns1035Label", pattern_size: 30, problems: |text| label(text, 63, LABEL_1035) },
    Format { name: "qualifiedName", pattern_size: 60, problems: qualified_name },
    Format { name: "dns1123LabelPrefix", pattern_size: 30, problems: |text| label(&masked(text), 63, LABEL) },
    Format { name: "dns1123SubdomainPrefix", pattern_size: 60, problems: |text| subdomain(&masked(text)) },
    Format { name: "dns1035LabelPrefix", pattern_size: 30, problems: |text| label(&masked(text), 63, LABEL_1035) },
    Format { name: "labelValue", pattern_size: 40, problems: label_value },
    Format { name: "uri", pattern_size: 1000, problems: |text| url::problem(text).into_iter().collect() },
    Format { name: "uuid", pattern_size: 60, problems: |text| one(!is_uuid(text), "does not match the UUID format") },
    Format {
        name: "byte",
        pattern_size: 1000,
        problems: |text| one(base64::engine::general_purpose::STANDARD.decode(text).is_err(), "invalid base64"),
    },
    Format {
        name: "date",
        pattern_size: 1000,
        problems: |text| one(text.len() != 10 || time::parse_format_timestamp(text).is_none(), "invalid date"),
    },
    Format {
        name: "datetime",
        pattern_size: 1000,
        problems: |text| one(text.len() == 10 || time::parse_format_timestamp(text).is_none(), "invalid datetime"),
    },
];

/// The row of a format's constructor.
macro_rules! constructor {
    ($index:literal, $function:literal) => {
        Function {
            name: $function,
            run: |_| Ok(Value::Format(&FORMATS[$index])),
            overloads: &[($function, "() -> format")],
        }
    };
}

pub(crate) const FUNCTIONS: &[Function] = &[
    constructor!(0, "format.dns1123Label"),
    constructor!(1, "format.dns1123Subdomain"),
    constructor!(2, "format.dns1035Label"),
    constructor!(3, "format.qualifiedName"),
    constructor!(4, "format.dns1123LabelPrefix"),
    constructor!(5, "format.dns1123SubdomainPrefix"),
    constructor!(6, "format.dns1035LabelPrefix"),
    constructor!(7, "format.labelValue"),
    constructor!(8, "format.uri"),
    constructor!(9, "format.uuid"),
    constructor!(10, "format.byte"),
    constructor!(11, "format.date"),
    constructor!(12, "format.datetime"),
    Function {
        name: "format.named",
        run: |args| {
            let name = only_text(args)?;
            let found = FORMATS.iter().find(|format| format.name == name).map(Value::Format);
            Ok(found.map_or(Value::Optional(None), Value::some))
        },
        overloads: &[("format_named", "(string) -> optional(format)")],
    },
    Function {
        name: "validate",
        run: validate,
        overloads: &[("format_validate", "format.(string) -> optional(list(string))")],
    },
];

fn validate<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let [Value::Format(format), Value::String(text)] = args else { return no_such_overload() };
    let problems = (format.problems)(text.as_str());
    if problems.is_empty() {
        return Ok(Value::Optional(None));
    }
    Ok(Value::from(problems.into_iter().map(Value::from).collect::<Vec<_>>()).some())
}

fn one(wrong: bool, message: &str) -> Vec<String> {
    if wrong { vec![message.to_owned()] } else { Vec::new() }
}

/// A prefix may end with a dash, as something follows it.
fn masked(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(start) if text.len() > 1 => format!("{start}a"),
        _ => text.to_owned(),
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty() && text.chars().all(|c| inner(c) || c == '-') && text.starts_with(inner) && text.ends_with(inner)
}

fn label(text: &str, most: usize, message: &str) -> Vec<String> {
    let mut problems = one(text.len() > most, &format!("must be no more than {most} characters"));
    let letter_first = message != LABEL_1035 || text.starts_with(|c: char| c.is_ascii_lowercase());
    problems.extend(one(!is_label(text) || !letter_first, message));
    problems
}

fn subdomain(text: &str) -> Vec<String> {
    let mut problems = one(text.len() > 253, "must be no more than 253 characters");
    problems.extend(one(!text.split('.').all(is_label), SUBDOMAIN));
    problems
}

fn is_name(text: &str) -> bool {
    let end = |c: char| c.is_ascii_alphanumeric();
    !text.is_empty()
        && text.starts_with(end)
        && text.ends_with(end)
        && text.chars().all(|c| end(c) || matches!(c, '-' | '_' | '.'))
}

fn qualified_name(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((prefix, name)) if !name.contains('/') => {
            problems.extend(one(prefix.is_empty(), "prefix part must be non-empty"));
            if !prefix.is_empty() {
                problems.extend(subdomain(prefix).into_iter().map(|problem| format!("prefix part {problem}")));
            }
            name
        }
        Some(_) => {
            let message = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', with an optional DNS \
                           subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![message.to_owned()];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else {
        problems.extend(one(name.len() > 63, "name part must be no more than 63 characters"));
    }
    problems.extend(one(!is_name(name), NAME_PART));
    problems
}

fn label_value(text: &str) -> Vec<String> {
    let mut problems = one(text.len() > 63, "must be no more than 63 characters");
    problems.extend(one(!text.is_empty() && !is_name(text), LABEL_VALUE));
    problems
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    match parts[..] {
        [only] => only.len() == 32 && hex(only),
        [..] => parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| hex(part)),
    }
}
