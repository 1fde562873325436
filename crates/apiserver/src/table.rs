//! Objects as rows of a table: what `kubectl get` prints.

use kinds::Now;
use object_model::{ApiError, FieldError, FieldPath, time};
use serde_json::{Value, json};

use crate::context::Context;
use crate::request::View;
use crate::respond::partial;
use crate::served::Served;

/// What of the object goes along with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

impl Include {
    /// Reads the query parameter `includeObject` of a request that asks for a table.
    ///
    /// # Errors
    /// 400 for a value that there is not.
    pub fn of(cx: &Context) -> Result<Self, ApiError> {
        match cx.query.get("includeObject") {
            "Object" => Ok(Self::Object),
            "None" => Ok(Self::None),
            "" | "Metadata" => Ok(Self::Metadata),
            other if cx.accept.0.iter().any(|(_, view)| matches!(view, View::Table(_))) => {
                let path = FieldPath::new("includeObject");
                let error = FieldError::invalid(&path, other, "must be 'Metadata', 'Object', 'None', or empty");
                Err(ApiError::bad_request(format!("Unable to convert to Table as requested: {error}")))
            }
            _ => Ok(Self::Metadata),
        }
    }
}

/// The table of some objects.
pub fn table(served: &Served, version: &str, objects: &[Value], metadata: &Value, include: Include) -> Value {
    let list_metadata: serde_json::Map<String, Value> = ["resourceVersion", "continue", "remainingItemCount"]
        .into_iter()
        .filter_map(|key| metadata.get(key).map(|v| (key.to_owned(), v.clone())))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": list_metadata,
        "columnDefinitions": columns(served),
        "rows": rows(served, version, objects, include),
    })
}

/// The table of a Scale.
pub fn of_scale(version: &str, scale: &Value, include: Include) -> Value {
    let texts = |name: &str, help: &str| column(name, "integer", "", 0, help);
    let mut row = json!({"cells": [
        scale["metadata"]["name"],
        scale["spec"]["replicas"].as_i64().unwrap_or(0),
        scale["status"]["replicas"].as_i64().unwrap_or(0),
        time::age(scale["metadata"]["creationTimestamp"].as_str(), client::clock::now()),
    ]});
    match include {
        Include::None => {}
        Include::Object => row["object"] = scale.clone(),
        Include::Metadata => {
            row["object"] = partial(scale, version);
        }
    }
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {"resourceVersion": scale["metadata"]["resourceVersion"]},
        "columnDefinitions": [
            column("Name", "string", "name", 0, NAME_HELP),
            texts("Desired", "Replicas that are wanted."),
            texts("Available", "Replicas that there are."),
            column("Age", "string", "", 0, CREATED_HELP),
        ],
        "rows": [row],
    })
}

/// The column definitions.
pub fn columns(served: &Served) -> Vec<Value> {
    if served.columns.is_empty() {
        return vec![column("Name", "string", "name", 0, NAME_HELP), column("Created At", "date", "", 0, CREATED_HELP)];
    }
    served.columns.iter().map(|c| column(&c.name, &c.kind, &c.format, c.priority, &c.description)).collect()
}

const NAME_HELP: &str = "Name identifies the object within its namespace.";
const CREATED_HELP: &str = "When the server created the object.";

fn column(name: &str, kind: &str, format: &str, priority: i64, description: &str) -> Value {
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

/// The rows.
pub fn rows(served: &Served, version: &str, objects: &[Value], include: Include) -> Vec<Value> {
    let now = Now(client::clock::now());
    objects
        .iter()
        .map(|object| {
            let cells = if served.columns.is_empty() {
                vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
            } else {
                served.hooks().cells(object, now)
            };
            let mut row = json!({"cells": cells});
            match include {
                Include::None => {}
                Include::Object => {
                    row["object"] = object.clone();
                    row["object"]["kind"] = served.kind().into();
                    row["object"]["apiVersion"] = served.api_version().into();
                }
                Include::Metadata => {
                    row["object"] = partial(object, version);
                }
            }
            row
        })
        .collect()
}
