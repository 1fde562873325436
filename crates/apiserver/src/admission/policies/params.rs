//! The parameters of a policy: objects of the kind that it names, chosen by its binding.

use object_model::{LabelSelector, api_version, meta};
use serde_json::Value;

use super::cache::{Binding, Policy};
use crate::served::Served;
use crate::{ApiServer, stored};

/// Why a policy has no parameters.
pub(super) enum Failure {
    /// The policy itself is at fault.
    Policy(String),
    /// The binding is, or what it names.
    Binding(String),
}

/// The parameters with which a policy is evaluated, each by itself; null where it has none. `namespace` is that of the
/// request.
///
/// # Errors
/// When they cannot be found and must be there.
pub(super) async fn collect(
    server: &ApiServer,
    policy: &Policy,
    binding: &Binding,
    namespace: &str,
) -> Result<Vec<Value>, Failure> {
    let (kind, reference) = (&policy.param_kind, &binding.param_ref);
    if kind.is_null() {
        return Ok(vec![Value::Null]);
    }
    let served = served_of(server, kind).ok_or_else(|| {
        let text = |field: &str| kind[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        // The core group has no name, but keeps its slash here.
        let version = if version.contains('/') { version.to_owned() } else { format!("/{version}") };
        Failure::Policy(format!("failed to find resource referenced by paramKind: '{version}, Kind={kind}'"))
    })?;
    if reference.is_null() {
        return Ok(vec![Value::Null]);
    }
    let given = reference["namespace"].as_str().unwrap_or_default();
    let refuse = |why: &str| Err(Failure::Binding(why.to_owned()));
    let namespace = match (served.namespaced(), given.is_empty()) {
        (true, false) => given,
        (true, true) if namespace.is_empty() => {
            return refuse("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources");
        }
        (true, true) => namespace,
        (false, true) => "",
        (false, false) => {
            return refuse("paramRef.namespace must not be provided for a cluster-scoped `paramKind`");
        }
    };
    let found = find(server, &served, namespace, reference).await?;
    if found.is_empty() && reference["parameterNotFoundAction"] == "Deny" {
        return refuse("no params found for policy binding with `Deny` parameterNotFoundAction");
    }
    Ok(found)
}

/// The resource whose objects are of a kind.
fn served_of(server: &ApiServer, kind: &Value) -> Option<Served> {
    server.catalogue().all().find(|served| {
        let version = api_version(served.group(), served.version());
        served.is_stored() && kind["kind"] == served.kind() && kind["apiVersion"] == version
    })
}

async fn find(server: &ApiServer, served: &Served, namespace: &str, reference: &Value) -> Result<Vec<Value>, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| Failure::Binding(error.to_string());
    let entries = match reference["name"].as_str() {
        Some(name) => server.store.get(&served.key(namespace, name)).into_iter().collect(),
        None => {
            let range = server.store.range(&served.namespace_prefix(namespace), None, 0, None);
            range.map_err(|error| unreadable(&error))?.entries
        }
    };
    let mut objects = Vec::with_capacity(entries.len());
    for entry in entries {
        objects.push(stored::decode(served, &entry).map_err(|error| unreadable(&error))?);
    }
    if reference["name"].is_null() {
        let selector = LabelSelector::from_object(&reference["selector"]).map_err(|error| unreadable(&error))?;
        objects.retain(|object| selector.is_everything() || selector.matches(&meta::labels(object)));
    }
    server.shown(served, objects).await.map_err(|error| unreadable(&error))
}
