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
    /// connection goes on to a path. Returned are the options as somebody has changed them, if somebody did.
    ///
    /// # Errors
    /// Whatever one of them says against it.
    pub(crate) async fn admit_connect(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        path: &str,
    ) -> Result<Option<Value>, ApiError> {
        if chain::is_idle(self) {
            return Ok(None);
        }
        let mut question = Question::of(cx, request, served, Operation::Connect)?;
        question.object = options(cx, served, &request.subresource, path)?;
        let changed = chain::admit(self, &mut question).await?;
        Ok(changed.then_some(question.object))
    }
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
