//! Connections to an object: `exec`, `attach`, `portforward`, `proxy`. What is judged are their options, as the query has them.

use object_model::ApiError;
use schema::Shape;
use serde_json::{Value, json};

use super::chain;
use super::expressions::{body_type, kind_of};
use super::question::{Operation, Question};
use crate::ApiServer;
use crate::context::Context;
use crate::request::ResourceRequest;
use crate::served::{Served, schema_of};

impl ApiServer {
    /// Asks everybody who has a say about a connection. `path` is what follows the name of the subresource, where the
    /// connection goes on to a path. Returned is the query that says the options as somebody has changed them, if somebody
    /// did.
    ///
    /// # Errors
    /// Whatever one of them says against it.
    pub(crate) async fn admit_connect(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        path: &str,
    ) -> Result<Option<String>, ApiError> {
        if chain::is_idle(self) {
            return Ok(None);
        }
        let mut question = Question::of(cx, request, served, Operation::Connect)?;
        question.object = options(cx, served, &request.subresource, path)?;
        let changed = chain::admit(self, &mut question).await?;
        Ok(changed.then(|| query(&question.object)))
    }
}

/// Options as a query. The path is no part of it.
fn query(options: &Value) -> String {
    let mut parts = Vec::new();
    for (name, value) in options.as_object().into_iter().flatten() {
        if matches!(name.as_str(), "kind" | "apiVersion" | "path") {
            continue;
        }
        let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
        parts.extend(values.iter().map(|value| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("{name}={}", percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC))
        }));
    }
    parts.join("&")
}

/// The options of a connection. Which there are is told by their type.
fn options(cx: &Context, served: &Served, subresource: &str, path: &str) -> Result<Value, ApiError> {
    let ty = schema_of(&body_type(served, subresource))?;
    let (group, version, kind) = kind_of(served, subresource);
    let mut options = json!({"kind": kind, "apiVersion": object_model::api_version(group, version)});
    for field in ty.as_struct().into_iter().flat_map(|ty| ty.fields) {
        let name = field.json;
        let value = match field.ty.shape() {
            Shape::Bool => Value::from(cx.query.flag(name)),
            Shape::String if name == "path" && !path.is_empty() => format!("/{}", path.trim_start_matches('/')).into(),
            Shape::String => cx.query.get(name).into(),
            Shape::List(item) => {
                let is_number = matches!(item.shape(), Shape::Int32);
                let values = cx.query.all(name).flat_map(|text| text.split(if is_number { ',' } else { '\0' }));
                values
                    .map(|text| if is_number { number(name, text) } else { Ok(text.into()) })
                    .collect::<Result<_, _>>()?
            }
            _ => continue,
        };
        let zero = [json!(false), json!(""), json!([])].contains(&value);
        if !zero {
            options[name] = value;
        }
    }
    Ok(options)
}

fn number(name: &str, text: &str) -> Result<Value, ApiError> {
    let number = text.parse::<i32>().map(Value::from);
    number.map_err(|_| ApiError::bad_request(format!("invalid value for {name}: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_a_query_again() {
        let options = json!({
            "kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "container": "a b", "command": ["sh", "-c"],
        });
        assert_eq!(query(&options), "command=sh&command=%2Dc&container=a%20b&stdin=true");
    }
}
