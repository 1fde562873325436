//! OpenAPI documents.
use serde_json::Value;
/// One served operation.
#[derive(Debug, Clone)]
pub struct Op<'a> {
    /// `/apis/apps/v1/namespaces/{namespace}/deployments/{name}`.
    pub path: String,
    /// get, list, create, update, patch, delete, deletecollection or watch.
    pub verb: &'a str,
    /// Group, version and kind acted upon.
    pub kind: (&'a str, &'a str, &'a str),
    /// Type name of the request body.
    pub body: Option<&'a str>,
    /// Type name of the response.
    pub response: &'a str,
    /// Whether the resource lives in a namespace.
    pub namespaced: bool,
    /// `status`, `scale` …
    pub subresource: Option<&'a str>,
}
/// Group document.
pub fn v3(group_version: (&str, &str), ops: &[Op<'_>]) -> Value { let _ = (group_version, ops); todo!() }
/// Swagger.
pub fn v2(ops: &[Op<'_>]) -> Value { let _ = ops; todo!() }
/// Name.
pub fn type_to_model_name(name: &str) -> String { let _ = name; todo!() }
