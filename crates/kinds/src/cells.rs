//! Cells of tables that many kinds have.

use object_model::{meta, time};
use serde_json::Value;

use crate::{Now, walk};

/// The name.
pub(crate) fn name(object: &Value) -> Value {
    meta::name(object).into()
}

/// Time since the object was created.
pub(crate) fn age(object: &Value, now: Now) -> Value {
    time::age(walk::text(object, "metadata.creationTimestamp"), now.0).into()
}

/// When the object was created.
pub(crate) fn created(object: &Value) -> Value {
    walk::text(object, "metadata.creationTimestamp").unwrap_or("<unknown>").into()
}

/// The text at a dotted path.
pub(crate) fn text(object: &Value, path: &str) -> Value {
    walk::text(object, path).unwrap_or_default().into()
}

/// The text at a dotted path, `<none>` where there is none.
pub(crate) fn text_or_none(object: &Value, path: &str) -> Value {
    walk::text(object, path).unwrap_or("<none>").into()
}

/// Whether a dotted path is true.
pub(crate) fn flag(object: &Value, path: &str) -> Value {
    walk::at(object, path).and_then(Value::as_bool).unwrap_or(false).into()
}

/// The length of the list at a dotted path.
pub(crate) fn count(object: &Value, path: &str) -> Value {
    walk::list(object, path).len().into()
}

/// Labels as `a=b,c=d`, `<none>` where there are none.
pub(crate) fn labels(map: &Value) -> Value {
    let pairs: Vec<String> = meta::strings(map).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",").into() }
}
