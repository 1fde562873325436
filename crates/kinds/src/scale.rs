//! The autoscaling/v1 Scale view of kinds that have replicas.

use object_model::{FieldError, FieldPath};
use serde_json::{Map, Value, json};

use crate::walk;

/// Where an object keeps what its Scale shows, each a dotted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The number that is wanted.
    pub spec: String,
    /// The number that there is.
    pub status: String,
    /// The selector of the pods, as an object or as text.
    pub selector: Option<String>,
}

impl Paths {
    /// Where the built-in kinds keep them.
    pub fn built_in() -> Self {
        Self {
            spec: "spec.replicas".to_owned(),
            status: "status.replicas".to_owned(),
            selector: Some("spec.selector".to_owned()),
        }
    }
}

/// The Scale of an object.
pub fn of(paths: &Paths, object: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": walk::number(object, &paths.status)});
    match paths.selector.as_deref().and_then(|path| walk::at(object, path)) {
        Some(Value::String(text)) => status["selector"] = text.as_str().into(),
        Some(selector) => status["selector"] = selector_text(selector).into(),
        None => {}
    }
    // Upstream leaves zero out of the spec, and keeps it in the status.
    let spec = match walk::number(object, &paths.spec) {
        0 => json!({}),
        replicas => json!({"replicas": replicas}),
    };
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec, "status": status})
}

/// Writes the replicas of a Scale into the object.
///
/// # Errors
/// What is wrong with the Scale: a negative number, or the revision or uid of another object (`None`).
pub fn set(paths: &Paths, object: &mut Value, scale: &Value) -> Result<(), Option<FieldError>> {
    let replicas = walk::number(scale, "spec.replicas");
    if replicas < 0 {
        let path = FieldPath::new("spec").child("replicas");
        return Err(Some(FieldError::invalid(&path, replicas, walk::NOT_NEGATIVE)));
    }
    for (field, current) in
        [("uid", object_model::meta::uid(object)), ("resourceVersion", object_model::meta::resource_version(object))]
    {
        if walk::text(&scale["metadata"], field).is_some_and(|given| given != current) {
            return Err(None);
        }
    }
    let (parents, last) = paths.spec.rsplit_once('.').map_or(("", paths.spec.as_str()), |split| split);
    let mut place = object;
    for name in parents.split('.').filter(|name| !name.is_empty()) {
        place = walk::value_at(place, name);
    }
    if let Some(map) = place.as_object_mut() {
        map.insert(last.to_owned(), replicas.into());
    }
    Ok(())
}

/// A label selector object in the text form, sorted: `a=b,c in (d,e),!f`. Old kinds have a map of labels instead.
pub(crate) fn selector_text(selector: &Value) -> String {
    // Older kinds select by plain labels.
    let plain = selector.as_object().is_some_and(|map| map.values().any(Value::is_string));
    let labels = if plain { selector } else { &selector["matchLabels"] };
    let mut parts: Vec<(String, String)> = object_model::meta::strings(labels)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), format!("{key}={value}")))
        .collect();
    for expression in walk::list(selector, "matchExpressions") {
        let key = expression["key"].as_str().unwrap_or_default();
        let mut values: Vec<&str> = walk::list(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_owned(), part));
    }
    parts.sort();
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join(",")
}

/// The selector for a table cell, `<none>` if it says nothing.
pub(crate) fn selector_cell(selector: &Value) -> String {
    let text = selector_text(selector);
    if text.is_empty() { "<none>".to_owned() } else { text }
}
