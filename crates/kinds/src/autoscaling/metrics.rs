//! Metrics of autoscalers: how a table shows them, and how the annotations of version 1 write them.

use serde_json::{Map, Value};

use crate::walk;

/// Fields that hold a metric's source, one of which is set.
pub(super) const FIELDS: [&str; 5] = ["object", "pods", "resource", "containerResource", "external"];

/// How many metrics a table shows.
const SHOWN: usize = 2;

/// A field of a source: its name in version 1, its place in version 2.
type Names = (&'static str, &'static str);

const AVERAGES: [Names; 2] = [("averageUtilization", "averageUtilization"), ("averageValue", "averageValue")];

/// The field that holds the source of a type: `ContainerResource` is in `containerResource`.
pub(super) fn field_of(kind: &str) -> String {
    let mut letters = kind.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// What a table shows of metrics and what they are now.
pub(super) fn shown(wanted: &[Value], current: &[Value]) -> String {
    if wanted.is_empty() {
        return "<none>".to_owned();
    }
    let parts = wanted.iter().enumerate().map(|(index, metric)| {
        let field = field_of(metric["type"].as_str().unwrap_or_default());
        let (source, now) = (&metric[&field], current.get(index).map(|now| &now[&field]["current"]));
        let now = |name: &str| now.and_then(|now| walk::at(now, name)).map(text);
        let now =
            |name: &str, unit: &str| now(name).map_or_else(|| "<unknown>".to_owned(), |now| format!("{now}{unit}"));
        let target = |name: &str| walk::at(&source["target"], name).map(text);
        let name = source["name"].as_str().unwrap_or_default();
        match field.as_str() {
            "external" | "object" => match target("averageValue") {
                Some(target) => format!("{}/{target} (avg)", now("averageValue", "")),
                None => format!("{}/{}", now("value", ""), target("value").unwrap_or_default()),
            },
            "pods" => format!("{}/{}", now("averageValue", ""), target("averageValue").unwrap_or_default()),
            "resource" | "containerResource" => match target("averageValue") {
                Some(target) => format!("{name}: {}/{target}", now("averageValue", "")),
                None => {
                    let target = target("averageUtilization").map_or_else(|| "<auto>".to_owned(), |t| format!("{t}%"));
                    format!("{name}: {}/{target}", now("averageUtilization", "%"))
                }
            },
            _ => "<unknown type>".to_owned(),
        }
    });
    let parts: Vec<String> = parts.collect();
    let first = parts[..parts.len().min(SHOWN)].join(", ");
    if parts.len() > SHOWN { format!("{first} + {} more...", parts.len() - SHOWN) } else { first }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a metric is the one that version 1 has a field for.
pub(super) fn is_cpu_utilization(metric: &Value, amounts: &str) -> bool {
    metric["type"] == "Resource"
        && metric["resource"]["name"] == "cpu"
        && walk::at(&metric["resource"][amounts], "averageUtilization").is_some()
}

/// A metric as the annotations of version 1 write it. `amounts` is `target` for what is wanted, `current` for what is.
pub(super) fn to_v1(metric: &Value, amounts: &str) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), metric["type"].clone());
    for field in FIELDS.iter().filter(|field| walk::at(metric, field).is_some()) {
        let mut source = Map::new();
        for (old, place) in names(field, amounts) {
            if let Some(value) = metric[*field].pointer(&place).filter(|value| !value.is_null()) {
                source.insert(old, value.clone());
            }
        }
        out.insert((*field).to_owned(), Value::Object(source));
    }
    Value::Object(out)
}

/// A metric out of an annotation of version 1.
pub(super) fn from_v1(metric: &Value, amounts: &str) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), metric["type"].clone());
    for field in FIELDS.iter().filter(|field| walk::at(metric, field).is_some()) {
        let mut source = Value::Object(Map::new());
        for (old, place) in names(field, amounts) {
            if let Some(value) = metric[*field].get(&old).filter(|value| !value.is_null()) {
                put(&mut source, &place, value.clone());
            }
        }
        if amounts == "target" {
            let given = walk::value_at(&mut source, "target");
            let kind = if walk::at(given, "averageUtilization").is_some() {
                "Utilization"
            } else if walk::at(given, "averageValue").is_some() {
                "AverageValue"
            } else {
                "Value"
            };
            given["type"] = kind.into();
        } else {
            walk::value_at(&mut source, "current");
        }
        out.insert((*field).to_owned(), source);
    }
    Value::Object(out)
}

/// Names in version 1 and JSON pointers in version 2 of a source's fields.
fn names(field: &str, amounts: &str) -> Vec<(String, String)> {
    let prefixed = |name: &str| {
        let mut letters = name.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        format!("{amounts}{}{}", first.map(String::from).unwrap_or_default(), letters.as_str())
    };
    let place = |name: &str| format!("/{amounts}/{name}");
    let plain: &[Names] = match field {
        "resource" => &[("name", "/name")],
        "containerResource" => &[("name", "/name"), ("container", "/container")],
        "pods" => &[("metricName", "/metric/name"), ("selector", "/metric/selector")],
        "object" => &[("target", "/describedObject"), ("metricName", "/metric/name"), ("selector", "/metric/selector")],
        _ => &[("metricName", "/metric/name"), ("metricSelector", "/metric/selector")],
    };
    let mut all: Vec<(String, String)> =
        plain.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).collect();
    match field {
        "resource" | "containerResource" => {
            all.extend(AVERAGES.iter().map(|(old, new)| (prefixed(old), place(new))));
        }
        "pods" => all.push((prefixed("averageValue"), place("averageValue"))),
        "object" => {
            all.push((prefixed("value"), place("value")));
            // This one has no prefix, whatever it is of.
            all.push(("averageValue".to_owned(), place("averageValue")));
        }
        _ => {
            all.push((prefixed("value"), place("value")));
            all.push((prefixed("averageValue"), place("averageValue")));
        }
    }
    all
}

/// Sets the value at a JSON pointer of one or two steps.
fn put(object: &mut Value, pointer: &str, value: Value) {
    let steps: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
    match steps[..] {
        [outer, inner] => {
            walk::map_at(object, outer).insert(inner.to_owned(), value);
        }
        [only] => object[only] = value,
        _ => {}
    }
}
