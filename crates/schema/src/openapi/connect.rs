//! Operations that connect a client with something else: streams of a pod, and proxies.

use serde_json::{Value, json};

use super::{Dialect, Op, capital, content, parameter, tag};
use crate::{Shape, type_for};

/// What the path and the query hold: the options of the stream are a type of the table.
pub(super) fn parameters(dialect: Dialect, op: &Op) -> Vec<Value> {
    let (group, version, kind) = &op.kind;
    let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
    let fields =
        type_for(&api_version, kind).and_then(|ty| ty.as_struct()).into_iter().flat_map(|options| options.fields);
    let asked = fields.filter(|field| !field.inline && !["kind", "apiVersion"].contains(&field.json));
    let mut all: Vec<Value> = asked
        .map(|field| {
            let ty = match field.ty.shape() {
                Shape::Bool => "boolean",
                Shape::Int32 | Shape::Int64 => "integer",
                // One that may come several times is described as one.
                _ => "string",
            };
            parameter(dialect, field.json, "query", ty)
        })
        .collect();
    let inside = ["name", "namespace", "path"].into_iter().filter(|name| op.path.contains(&format!("{{{name}}}")));
    all.extend(inside.map(|name| parameter(dialect, name, "path", "string")));
    all
}

pub(super) fn operation(dialect: Dialect, op: &Op, method: &str) -> Value {
    let (group, version, kind) = &op.kind;
    let tag = tag(op);
    let text = json!({"type": "string"});
    let media = &["*/*"];
    let mut operation = json!({
        "operationId": operation_id(op, &tag, method),
        "tags": [tag],
        "x-kubernetes-action": "connect",
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        "responses": {
            "200": match dialect {
                Dialect::V2 => json!({"description": "OK", "schema": text}),
                Dialect::V3 => json!({"description": "OK", "content": content(media, &text)}),
            },
            "401": {"description": "Unauthorized"},
        },
    });
    if dialect == Dialect::V2 {
        operation["consumes"] = json!(media);
        operation["produces"] = json!(media);
        operation["schemes"] = json!(["https"]);
    }
    operation
}

/// `connectCoreV1GetNamespacedPodProxyWithPath`.
fn operation_id(op: &Op, tag: &str, method: &str) -> String {
    let tag: String = tag.split('_').map(capital).collect();
    let subresource = op.subresource.unwrap_or_default();
    // `PodPortForwardOptions` of `portforward` belong to a Pod.
    let kind = op.kind.2.trim_end_matches("Options");
    let parent = kind.len().checked_sub(subresource.len()).and_then(|end| kind.get(..end)).unwrap_or(kind);
    let place = if op.namespaced { "Namespaced" } else { "" };
    let more = if op.path.ends_with("{path}") { "WithPath" } else { "" };
    format!("connect{tag}{}{place}{parent}{}{more}", capital(method), capital(subresource))
}
