//! Quotas: how much all objects of a namespace may use together (upstream's ResourceQuota).
//!
//! What is used is counted from the store, under a lock that is held until the new object is in it: so two requests that
//! fit one by one and not together never both pass, whatever the status of the quota says at the time. The status is
//! written before the lock is let go. A controller follows what is deleted or ends by itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use client::clock;
use kinds::Now;
use kinds::quota::{self, Amounts, Usage};
use object_model::{ApiError, Quantity, meta};
use serde_json::{Value, json};
use store::{Expect, StoreError};
use tokio::sync::{Mutex as Lock, OwnedMutexGuard};

use super::question::{Operation, Question};
use crate::served::Served;
use crate::{ApiServer, stored};

/// How often the status of a quota is written anew on what somebody else wrote meanwhile.
const TRIES: usize = 5;

/// What the objects of a namespace use, by their keys and as of their revisions: so that each is read once.
type Known = HashMap<Arc<str>, (u64, Arc<Usage>)>;

/// The locks of the namespaces that have quotas.
#[derive(Default)]
pub struct Quotas(Mutex<HashMap<String, Arc<Lock<Known>>>>);

impl Quotas {
    fn of(&self, namespace: &str) -> Arc<Lock<Known>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(namespace.to_owned()).or_default().clone()
    }

    /// Forgets a namespace that has no quotas any more, unless somebody is still being granted something there.
    fn forget(&self, namespace: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(namespace).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(namespace);
        }
    }
}

/// A use of quotas that has been granted. Until it is dropped nobody else is granted any in the namespace.
pub(crate) struct Charge {
    namespace: String,
    /// What is used of each quota when the object is stored.
    used: Vec<(String, Amounts)>,
    _held: OwnedMutexGuard<Known>,
}

/// Grants what a request uses of the quotas of its namespace; `None` where that is nothing.
///
/// # Errors
/// 403 when a quota would be exceeded, or limits something that the object does not say.
pub(crate) async fn charge(server: &ApiServer, question: &Question<'_>) -> Result<Option<Charge>, ApiError> {
    let (served, namespace) = (question.served, question.namespace);
    let (group, plural) = (served.group(), served.plural());
    let counts = match question.operation {
        Operation::Create => question.subresource.is_empty() && quota::is_counted(group, plural),
        Operation::Update => quota::may_grow(group, plural, question.subresource),
        Operation::Delete | Operation::Connect => false,
    };
    if !counts || !served.namespaced() || !served.is_stored() {
        return Ok(None);
    }
    let quotas = Served::find("", "v1", "resourcequotas")?;
    if server.store.count(&quotas.namespace_prefix(namespace)) == 0 {
        server.quotas.forget(namespace);
        return Ok(None);
    }
    let mut known = server.quotas.of(namespace).lock_owned().await;
    let now = Now(clock::now());
    let usage = quota::usage(group, plural, &question.object, now);
    let before = (!question.old.is_null()).then(|| quota::usage(group, plural, &question.old, now));
    let name = if question.name.is_empty() { meta::name(&question.object) } else { &question.name };
    let refuse = |why: String| ApiError::forbidden(group, plural, name, why);
    let mut concerned = Vec::new();
    for entry in server
        .store
        .range(&quotas.namespace_prefix(namespace), None, 0, None)
        .map_err(|e| ApiError::internal(&e))?
        .entries
    {
        let quota = stored::decode(&quotas, &entry)?;
        let counted = quota::counted_of(group, plural, &quota["spec"]["hard"]);
        if counted.is_empty() || !usage.is_in_scope(&quota) {
            continue;
        }
        if let Some(unsaid) = quota::unsaid(group, plural, &question.object, &counted) {
            return Err(refuse(format!("failed quota: {}: {unsaid}", meta::name(&quota))));
        }
        let counted: Vec<String> = counted.into_iter().map(str::to_owned).collect();
        concerned.push((quota, counted));
    }
    let mut used_of_all = Vec::new();
    for (quota, counted) in concerned {
        let before = before.as_ref().filter(|before| before.is_in_scope(&quota));
        let more = difference(&usage, before, &counted);
        if more.is_empty() {
            continue;
        }
        let used = used(server, served, namespace, &quota, &counted, &mut known)?;
        let mut wanted = used.clone();
        quota::add(&mut wanted, &more);
        let hard = amounts(&quota["spec"]["hard"]);
        let zero = Quantity::whole(0);
        let exceeded: Vec<&String> = more
            .iter()
            .filter(|(name, more)| **more > zero && hard.get(*name).is_some_and(|hard| wanted.get(*name) > Some(hard)))
            .map(|(name, _)| name)
            .collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Amounts| {
                let parts = exceeded.iter().map(|name| format!("{name}={}", amounts.get(*name).unwrap_or(&zero)));
                parts.collect::<Vec<_>>().join(",")
            };
            return Err(refuse(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                meta::name(&quota),
                shown(&more),
                shown(&used),
                shown(&hard)
            )));
        }
        used_of_all.push((meta::name(&quota).to_owned(), wanted));
    }
    let charge = Charge { namespace: namespace.to_owned(), used: used_of_all, _held: known };
    Ok(Some(charge).filter(|charge| !charge.used.is_empty() && !question.dry_run))
}

fn amounts(map: &Value) -> Amounts {
    let parsed = meta::strings(map).into_iter();
    parsed.filter_map(|(name, text)| Some((name.to_owned(), text.parse().ok()?))).collect()
}

/// How much more of what is counted an object uses than before.
fn difference(usage: &Usage, before: Option<&Usage>, counted: &[String]) -> Amounts {
    let zero = Quantity::whole(0);
    let more = counted.iter().map(|name| {
        let new = usage.amounts.get(name).unwrap_or(&zero);
        let old = before.and_then(|before| before.amounts.get(name)).unwrap_or(&zero);
        (name.clone(), new.minus(old))
    });
    more.filter(|(_, more)| !more.is_zero()).collect()
}

/// What the stored objects of a resource use of a quota.
fn used(
    server: &ApiServer,
    served: &Served,
    namespace: &str,
    quota: &Value,
    counted: &[String],
    known: &mut Known,
) -> Result<Amounts, ApiError> {
    let (group, plural) = (served.group(), served.plural());
    let prefix = served.namespace_prefix(namespace);
    if quota::is_plain(group, plural) {
        let count = Quantity::whole(i64::try_from(server.store.count(&prefix)).unwrap_or(i64::MAX));
        return Ok(counted.iter().map(|name| (name.clone(), count.clone())).collect());
    }
    let range = server.store.range(&prefix, None, 0, None).map_err(|e| ApiError::internal(&e))?;
    let mut sums: Amounts = counted.iter().map(|name| (name.clone(), Quantity::whole(0))).collect();
    let mut alive = Known::with_capacity(range.entries.len());
    for entry in &range.entries {
        let usage = match known.remove(&entry.key) {
            Some((revision, usage)) if revision == entry.mod_revision => usage,
            _ => {
                let object = stored::decode(served, entry)?;
                let usage = Arc::new(quota::usage(group, plural, &object, Now(clock::now())));
                if meta::deletion_timestamp(&object).is_some() {
                    // What this one uses changes as time goes by.
                    add_to(&mut sums, &usage, quota);
                    continue;
                }
                usage
            }
        };
        add_to(&mut sums, &usage, quota);
        alive.insert(entry.key.clone(), (entry.mod_revision, usage));
    }
    known.retain(|key, _| !key.starts_with(&prefix));
    known.extend(alive);
    Ok(sums)
}

fn add_to(sums: &mut Amounts, usage: &Usage, quota: &Value) {
    if usage.is_in_scope(quota) {
        for (name, sum) in sums {
            if let Some(amount) = usage.amounts.get(name) {
                *sum = sum.plus(amount);
            }
        }
    }
}

/// Writes into the quotas what is used of them, now that the object is stored.
pub(crate) async fn note(server: &ApiServer, charge: Option<Charge>) {
    let Some(charge) = charge else { return };
    for (name, used) in &charge.used {
        if let Err(error) = write_used(server, &charge.namespace, name, used).await {
            // The controller of quotas will count again.
            tracing::warn!("write what is used of quota {}/{name}: {error}", charge.namespace);
        }
    }
}

async fn write_used(server: &ApiServer, namespace: &str, name: &str, used: &Amounts) -> Result<(), ApiError> {
    let quotas = Served::find("", "v1", "resourcequotas")?;
    for _ in 0..TRIES {
        let Some(entry) = server.store.get(&quotas.key(namespace, name)) else { return Ok(()) };
        let mut quota = stored::decode(&quotas, &entry)?;
        let before = quota["status"].clone();
        if !quota["status"]["used"].is_object() {
            quota["status"]["used"] = json!({});
        }
        for (name, amount) in used {
            quota["status"]["used"][name.as_str()] = amount.to_string().into();
        }
        if quota["status"] == before {
            return Ok(());
        }
        match server.put(&quotas, namespace, name, Expect::Revision(entry.mod_revision), &quota).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Mismatch(_)) => {}
            Err(error) => return Err(crate::write::store_failed(&error)),
        }
    }
    Err(quotas.stale(name))
}
