//! Admission: what a request must satisfy beyond its own fields. The order in which everybody is asked is in [`chain`];
//! here is what the server itself has to say.
//!
//! Kinds named here, and why: Namespace, because objects may only be made in one that exists and stays (upstream's
//! NamespaceLifecycle); Pod and ServiceAccount, because a pod acts as an account (upstream's ServiceAccount);
//! PersistentVolumeClaim, because it grows as its class allows; both, because there are limits of what they ask for;
//! PriorityClass, because one only is the default; roles and bindings, by [`kinds::Kind::is_policy`], because nobody gives
//! away more than they have.

mod certificates;
pub(crate) mod chain;
mod connect;
mod default_class;
mod escalation;
mod evaluation;
pub(crate) mod expressions;
mod limits;
mod matching;
pub(crate) mod measures;
pub(crate) mod node;
pub(crate) mod policies;
mod priority;
pub(crate) mod question;
pub(crate) mod quota;
mod runtime_class;
mod service_account;
mod storage;
pub(crate) mod webhooks;

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
    certificates::admit_create(server, user, served, object)?;
    if served.is("scheduling.k8s.io", "PriorityClass") {
        priority::judge_class(server, object)?;
    }
    if !served.namespaced() {
        return Ok(());
    }
    if is_terminating(server, namespace)? {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(ApiError::forbidden(served.group(), served.plural(), meta::name(object), why)
            .cause("NamespaceTerminating", &format!("namespace {namespace} is being terminated")));
    }
    if served.is_core("Pod") {
        priority::admit(server, object)?;
        runtime_class::admit(server, object)?;
        limits::admit_pod(server, namespace, object)?;
        service_account::admit(server, namespace, object).await?;
        served.default(object);
    }
    if served.is_core("PersistentVolumeClaim") {
        limits::judge_claim(server, namespace, object)?;
    }
    Ok(())
}

/// Whether a namespace is being deleted. Every creation asks that, so its object is only read where it may say so.
///
/// # Errors
/// 404 when it does not exist.
fn is_terminating(server: &ApiServer, namespace: &str) -> Result<bool, ApiError> {
    const SAYS_SO: &[u8] = b"\"deletionTimestamp\"";
    let served = Served::find("", "v1", "namespaces")?;
    let entry = server.store.get(&served.key("", namespace)).ok_or_else(|| served.not_found(namespace))?;
    if memchr::memmem::find(&entry.value, SAYS_SO).is_none() {
        return Ok(false);
    }
    Ok(meta::deletion_timestamp(&stored::decode(&served, &entry)?).is_some())
}

/// A namespace.
///
/// # Errors
/// 404 when it does not exist.
fn holder(server: &ApiServer, namespace: &str) -> Result<Value, ApiError> {
    server.object(&Served::find("", "v1", "namespaces")?, "", namespace)
}

/// The stored objects of a kind: of one namespace, or all of them.
fn all(server: &ApiServer, group: &str, plural: &str, namespace: &str) -> Result<Vec<Value>, ApiError> {
    let served = Served::find(group, "v1", plural)?;
    let prefix = served.namespace_prefix(namespace);
    let range = server.store.range(&prefix, None, 0, None).map_err(|e| ApiError::internal(&e))?;
    range.entries.iter().map(|entry| stored::decode(&served, entry)).collect()
}

/// A stored object that lives in no namespace.
fn one(server: &ApiServer, group: &str, plural: &str, name: &str) -> Result<Option<Value>, ApiError> {
    let served = Served::find(group, "v1", plural)?;
    server.store.get(&served.key("", name)).map(|entry| stored::decode(&served, &entry)).transpose()
}

/// Judges a change.
///
/// # Errors
/// 403 when it is not allowed.
pub fn admit_update(
    server: &ApiServer,
    user: &User,
    served: &Served,
    (namespace, subresource): (&str, &str),
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    if served.hooks().is_policy() {
        escalation::judge(server, user, served, namespace, new, Some(old))?;
    }
    if served.is_core("PersistentVolumeClaim") && subresource.is_empty() {
        storage::judge_growth(server, new, old)?;
        limits::judge_claim(server, namespace, new)?;
    }
    if served.is_core("Pod") && subresource == "resize" {
        limits::judge_pod(server, namespace, new)?;
    }
    if served.is("scheduling.k8s.io", "PriorityClass") {
        priority::judge_class(server, new)?;
    }
    certificates::judge_update(server, user, served, subresource, new, old)?;
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
