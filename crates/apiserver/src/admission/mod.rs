//! Built-in admission: what a request must satisfy beyond its own fields.
//!
//! Kinds named here, and why: Namespace, because objects may only be made in one that exists and stays (upstream's
//! NamespaceLifecycle); Pod and ServiceAccount, because a pod acts as an account (upstream's ServiceAccount);
//! PersistentVolumeClaim, because it grows as its class allows; roles and
//! bindings, by [`kinds::Kind::is_policy`], because nobody gives away more than they have.

mod default_class;
mod escalation;
mod service_account;
mod storage;

use auth::User;
use object_model::{ApiError, meta};
use serde_json::Value;

use crate::ApiServer;
use crate::served::Served;
use crate::stored;

/// Namespaces that may not be deleted (upstream's immortal namespaces).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Judges a creation. The object may be completed.
///
/// # Errors
/// 404 when the namespace does not exist, 403 when it is being deleted or something else is not allowed.
pub async fn admit_create(
    server: &ApiServer,
    user: &User,
    served: &Served,
    namespace: &str,
    object: &mut Value,
) -> Result<(), ApiError> {
    if served.hooks().is_policy() {
        escalation::judge(server, user, served, namespace, object, None)?;
    }
    if let Some(class) = served.hooks().default_class(object) {
        default_class::admit(server, &class, object)?;
    }
    if !served.namespaced() {
        return Ok(());
    }
    let namespaces = Served::find("", "v1", "namespaces")?;
    let Some(entry) = server.store.get(&namespaces.key("", namespace)) else {
        return Err(ApiError::not_found("", "namespaces", namespace));
    };
    let holder = stored::decode(&namespaces, &entry)?;
    if meta::deletion_timestamp(&holder).is_some() {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(ApiError::forbidden(served.group(), served.plural(), meta::name(object), why)
            .cause("NamespaceTerminating", &format!("namespace {namespace} is being terminated")));
    }
    if served.is_core("Pod") {
        classes(object)?;
        service_account::admit(server, namespace, object).await?;
        served.default(object);
    }
    Ok(())
}

/// Refuses a pod that names a class which does not exist (upstream's RuntimeClass and Priority plugins). Neither kind is
/// served yet; the two priorities that every cluster has are known.
fn classes(pod: &Value) -> Result<(), ApiError> {
    const PRIORITIES: [&str; 2] = ["system-cluster-critical", "system-node-critical"];
    let named = |field: &str| pod["spec"][field].as_str().filter(|name| !name.is_empty());
    let refuse = |why: String| Err(ApiError::forbidden("", "pods", meta::name(pod), why));
    if let Some(class) = named("runtimeClassName") {
        return refuse(format!("pod rejected: RuntimeClass {class:?} not found"));
    }
    match named("priorityClassName").filter(|class| !PRIORITIES.contains(class)) {
        Some(class) => refuse(format!("no PriorityClass with name {class} was found")),
        None => Ok(()),
    }
}

/// Judges a change.
///
/// # Errors
/// 403 when it is not allowed.
pub fn admit_update(
    server: &ApiServer,
    user: &User,
    served: &Served,
    namespace: &str,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    if served.hooks().is_policy() {
        escalation::judge(server, user, served, namespace, new, Some(old))?;
    }
    if served.is_core("PersistentVolumeClaim") {
        storage::judge_growth(server, new, old)?;
    }
    Ok(())
}

/// Judges a deletion.
///
/// # Errors
/// 403 for a namespace the cluster cannot be without.
pub fn admit_delete(served: &Served, name: &str) -> Result<(), ApiError> {
    if served.is_core("Namespace") && IMMORTAL.contains(&name) {
        return Err(ApiError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}
