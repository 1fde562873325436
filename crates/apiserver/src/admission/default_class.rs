//! Gives the cluster's default class to objects that name none, as their kind says ([`kinds::DefaultClass`]).

use kinds::DefaultClass;
use object_model::{ApiError, meta};
use serde_json::Value;

use crate::ApiServer;

/// Completes an object. Where several classes are the default, the newest is meant (upstream's rule).
///
/// # Errors
/// 500 when the stored classes cannot be read.
pub fn admit(server: &ApiServer, class: &DefaultClass, object: &mut Value) -> Result<(), ApiError> {
    let mut newest: Option<(String, String)> = None;
    for found in super::all(server, class.group, class.plural, "")? {
        if meta::annotations(&found).get(class.annotation) != Some(&"true") {
            continue;
        }
        let created = found["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
        // Of those made at the same time, the first by name.
        if newest.as_ref().is_none_or(|(at, _)| created > *at) {
            newest = Some((created, meta::name(&found).to_owned()));
        }
    }
    if let Some((_, name)) = newest
        && let Some((parent, field)) = class.field.rsplit_once('/')
        && let Some(parent) = object.pointer_mut(parent).and_then(Value::as_object_mut)
    {
        parent.insert(field.to_owned(), name.into());
    }
    Ok(())
}
