//! The autoscaling/v1 Scale view of kinds that have replicas.

use object_model::ApiError;
use serde_json::{Map, Value, json};

use crate::{Resource, walk};

/// The Scale of an object; `None` if its kind has none.
pub fn of(resource: &Resource, object: &Value) -> Option<Value> {
    resource.subresource("scale")?;
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": walk::number(object, "status.replicas")});
    if let Some(selector) = walk::at(object, "spec.selector") {
        status["selector"] = selector_text(selector).into();
    }
    Some(json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": walk::number(object, "spec.replicas")},
        "status": status,
    }))
}

/// Writes the replicas of a Scale into the object.
///
/// # Errors
/// When the kind has no scale, the Scale is negative, or was made of another revision or object.
pub fn set(resource: &Resource, object: &mut Value, scale: &Value) -> Result<(), ApiError> {
    let name = object_model::meta::name(object).to_owned();
    if resource.subresource("scale").is_none() {
        return Err(ApiError::not_found(resource.group, resource.plural, &name));
    }
    let replicas = walk::number(scale, "spec.replicas");
    if replicas < 0 {
        let path = object_model::FieldPath::new("spec").child("replicas");
        let error = object_model::FieldError::invalid(&path, replicas, walk::NOT_NEGATIVE);
        return Err(ApiError::invalid("autoscaling", "Scale", &name, &[error]));
    }
    for (field, current) in
        [("uid", object_model::meta::uid(object)), ("resourceVersion", object_model::meta::resource_version(object))]
    {
        if walk::text(&scale["metadata"], field).is_some_and(|given| given != current) {
            return Err(ApiError::stale(resource.group, resource.plural, &name));
        }
    }
    walk::map_at(object, "spec").insert("replicas".into(), replicas.into());
    Ok(())
}

/// A label selector object in the text form, sorted: `a=b,c in (d,e),!f`. Old kinds have a map of labels instead.
pub(crate) fn selector_text(selector: &Value) -> String {
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
