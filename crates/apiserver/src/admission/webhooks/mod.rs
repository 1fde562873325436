//! Webhooks: servers outside that are asked before something is written (upstream's MutatingAdmissionWebhook and
//! ValidatingAdmissionWebhook).
//!
//! The configurations are kept ready to be used. A write of one makes a new set before it is answered, so that the next
//! request meets it; requests under way go on with theirs.

mod hook;
mod review;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use kinds::Webhooks as Phase;
use object_model::{ApiError, meta};
use serde_json::Value;
use store::Store;

use self::hook::Hook;
use super::expressions::{body_type, kind_of};
use super::measures::{Rejection, Step};
use super::question::Question;
use crate::served::{Served, schema_of};
use crate::{ApiServer, stored};

/// All webhooks, in the order in which they are asked: by the name of their configuration, then as that lists them.
#[derive(Default)]
pub struct Webhooks {
    mutating: Vec<Arc<Hook>>,
    validating: Vec<Arc<Hook>>,
    /// The configurations by collection and name, each with its revision and its webhooks.
    configurations: BTreeMap<(String, String), (u64, Phase, Vec<Arc<Hook>>)>,
}

impl Webhooks {
    /// Those of the stored configurations. What has not changed since `before` is taken from there.
    ///
    /// # Errors
    /// When a configuration cannot be read.
    pub fn of(store: &dyn Store, before: &Self) -> Result<Self, ApiError> {
        let mut all = Self::default();
        for served in Served::built_in() {
            let Some(phase) = served.hooks().webhooks() else { continue };
            let range = store.range(&served.prefix(), None, 0, None).map_err(|e| ApiError::internal(&e))?;
            for entry in range.entries {
                let configuration = stored::decode(&served, &entry)?;
                let name = meta::name(&configuration).to_owned();
                let key = (served.storage.clone(), name);
                let hooks = match before.configurations.get(&key) {
                    Some((revision, _, hooks)) if *revision == entry.mod_revision => hooks.clone(),
                    _ => {
                        let entries = configuration["webhooks"].as_array().into_iter().flatten();
                        entries.map(|hook| Arc::new(Hook::of(&key.1, hook))).collect()
                    }
                };
                all.configurations.insert(key, (entry.mod_revision, phase, hooks));
            }
        }
        for (_, phase, hooks) in all.configurations.values() {
            match phase {
                Phase::Mutating => all.mutating.extend(hooks.iter().cloned()),
                Phase::Validating => all.validating.extend(hooks.iter().cloned()),
            }
        }
        Ok(all)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mutating.is_empty() && self.validating.is_empty()
    }

    /// Whether there are any that may change an object.
    pub fn mutate(&self) -> bool {
        !self.mutating.is_empty()
    }
}

impl ApiServer {
    /// The webhooks that there are now.
    pub(crate) fn webhooks(&self) -> Arc<Webhooks> {
        self.webhooks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows a write of a configuration.
    pub(crate) fn follow_webhooks(&self, served: &Served) {
        if served.hooks().webhooks().is_none() {
            return;
        }
        // Within the lock, so that of two writes at once the newer one counts.
        let mut webhooks = self.webhooks.write().unwrap_or_else(PoisonError::into_inner);
        match Webhooks::of(self.store.as_ref(), &webhooks) {
            Ok(new) => *webhooks = Arc::new(new),
            Err(error) => tracing::error!("read the configurations of webhooks: {error}"),
        }
    }
}

/// Which webhooks are asked a second time.
#[derive(Default)]
pub(super) struct Rounds {
    second: bool,
    asked: HashSet<String>,
    due: HashSet<String>,
}

impl Rounds {
    /// Begins the second round, in which nobody is asked for the first time.
    pub fn again(&mut self) {
        self.second = true;
    }

    /// The object has changed: those who have been asked before, and want to know of that, are due.
    pub fn changed(&mut self) {
        self.due.extend(self.asked.drain());
    }
}

/// Why a webhook's word does not count.
enum Failure {
    /// It could not be asked, or its answer makes no sense: its policy says what follows.
    Call(String),
    /// The request ends.
    Request(ApiError),
}

/// The configurations themselves are nobody's business: else one that refuses everything could not be taken away again.
fn is_exempt(question: &Question<'_>) -> bool {
    question.served.group() == "admissionregistration.k8s.io"
}

/// Asks those who may change the object, one after the other; whether one did.
///
/// # Errors
/// The refusal of one, or that it is required and cannot be asked.
pub(super) async fn mutate(
    server: &ApiServer,
    question: &mut Question<'_>,
    rounds: &mut Rounds,
) -> Result<bool, ApiError> {
    let webhooks = server.webhooks();
    if webhooks.mutating.is_empty() || is_exempt(question) {
        return Ok(false);
    }
    let mut changed = false;
    for hook in &webhooks.mutating {
        let Some(shown) = shown(server, hook, question).await? else { continue };
        if rounds.second && !rounds.due.contains(&hook.id) {
            continue;
        }
        match ask_to_mutate(server, hook, question, &shown).await {
            Ok(Some(object)) => {
                if object != question.object {
                    question.object = object;
                    changed = true;
                    rounds.changed();
                }
            }
            Ok(None) => {}
            Err(Failure::Call(why)) => fail(server, hook, question, &why, Step::Mutate)?,
            Err(Failure::Request(error)) => return Err(error),
        }
        if hook.is_reinvoked {
            rounds.asked.insert(hook.id.clone());
        }
    }
    Ok(changed)
}

/// Asks those who may refuse the object, all at the same time.
///
/// # Errors
/// As [`mutate`]; of several, that of the first.
pub(super) async fn judge(server: &ApiServer, question: &Question<'_>) -> Result<(), ApiError> {
    let webhooks = server.webhooks();
    if webhooks.validating.is_empty() || is_exempt(question) {
        return Ok(());
    }
    let mut wanted = Vec::new();
    for hook in &webhooks.validating {
        wanted.extend(shown(server, hook, question).await?.map(|shown| (hook, shown)));
    }
    let asked = wanted.iter().map(|(hook, shown)| async move {
        match ask(server, hook, question, shown, false).await {
            Ok(_) => Ok(()),
            Err(Failure::Call(why)) => fail(server, hook, question, &why, Step::Judge),
            Err(Failure::Request(error)) => Err(error),
        }
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// What follows when a webhook could not be asked.
fn fail(server: &ApiServer, hook: &Hook, question: &Question<'_>, why: &str, phase: Step) -> Result<(), ApiError> {
    let measures = &server.metrics.admission;
    if hook.required {
        measures.rejection(&hook.name, phase, question.operation, Rejection::Call, 0);
        return Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", hook.name)));
    }
    measures.fail_open(&hook.name, phase);
    tracing::warn!("failed calling webhook {:?}, going on without it: {why}", hook.name);
    Ok(())
}

/// A request as a webhook sees it.
struct Shown {
    /// The resource in the version of the webhook.
    served: Served,
    /// The objects in that version; none where it is that of the request.
    converted: Option<(Value, Value)>,
}

impl Shown {
    fn objects<'a>(&'a self, question: &'a Question<'_>) -> (&'a Value, &'a Value) {
        match &self.converted {
            Some((object, old)) => (object, old),
            None => (&question.object, &question.old),
        }
    }
}

/// A request as this webhook sees it; `None` if it is not asked.
async fn shown(server: &ApiServer, hook: &Hook, question: &Question<'_>) -> Result<Option<Shown>, ApiError> {
    let Some(served) = hook.wants(server, question)? else { return Ok(None) };
    let same = (served.group(), served.version()) == (question.served.group(), question.served.version());
    let converted = if same || !is_whole(&served, question) {
        None
    } else {
        let object = server.in_form(question.served, &served, &question.object).await?.into_owned();
        Some((object, server.in_form(question.served, &served, &question.old).await?.into_owned()))
    };
    let shown = Shown { served, converted };
    let met = hook.is_met(server, question, &shown.served, shown.objects(question))?;
    Ok(met.then_some(shown))
}

/// Whether the request carries the object, and not something about it.
fn is_whole(served: &Served, question: &Question<'_>) -> bool {
    kind_of(served, question.subresource).2 == served.kind()
}

/// Asks one webhook: the patch that it wants, if any.
async fn ask(
    server: &ApiServer,
    hook: &Hook,
    question: &Question<'_>,
    shown: &Shown,
    mutating: bool,
) -> Result<Option<Value>, Failure> {
    let (measures, operation) = (&server.metrics.admission, question.operation);
    let phase = if mutating { Step::Mutate } else { Step::Judge };
    if question.dry_run && hook.has_side_effects {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        measures.rejection(&hook.name, phase, operation, Rejection::Internal, 400);
        return Err(Failure::Request(ApiError::bad_request(why)));
    }
    let uid = uuid::Uuid::new_v4().to_string();
    let review = review::review(hook, question, &shown.served, &uid, shown.objects(question));
    let begin = Instant::now();
    let answered = server.ask_webhook(&hook.webhook, &review, hook.timeout).await;
    let took = begin.elapsed();
    let answer = answered
        .map_err(|error| format!("failed to call webhook: {error:#}"))
        .and_then(|answered| review::answer(hook, &answered, &uid, mutating));
    let (rejected, code) = match &answer {
        Ok(answer) => (answer.denial.is_some(), answer.denial.as_ref().map_or(200, |denial| denial.code)),
        // What is no answer counts as none, as upstream counts it.
        Err(_) => (hook.required, 0),
    };
    measures.webhook(&hook.name, phase, operation, rejected, code, took);
    let answer = answer.map_err(Failure::Call)?;
    if answer.denial.is_some() {
        measures.rejection(&hook.name, phase, operation, Rejection::Denied, code);
    }
    answer.warnings.into_iter().for_each(|warning| question.cx.warn(warning));
    match answer.denial {
        Some(denial) => Err(Failure::Request(denial)),
        None => Ok(answer.patch),
    }
}

/// Asks one webhook: the object as it wants it, if it wants it otherwise.
async fn ask_to_mutate(
    server: &ApiServer,
    hook: &Hook,
    question: &Question<'_>,
    shown: &Shown,
) -> Result<Option<Value>, Failure> {
    let Some(patch) = ask(server, hook, question, shown, true).await? else { return Ok(None) };
    let (object, _) = shown.objects(question);
    if object.is_null() {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(Failure::Request(ApiError::internal(why)));
    }
    let patched = schema::json_patch(object, &patch).map_err(|e| Failure::Request(ApiError::internal(e)))?;
    let patched = read(&shown.served, question, object, patched).map_err(Failure::Request)?;
    if shown.converted.is_none() {
        return Ok(Some(patched));
    }
    let object = server.in_form(&shown.served, question.served, &patched).await.map_err(Failure::Request)?;
    Ok(Some(object.into_owned()))
}

/// Reads what a patch made of an object, as if a client had sent it: what is not known is dropped, defaults are set.
fn read(served: &Served, question: &Question<'_>, before: &Value, patched: Value) -> Result<Value, ApiError> {
    let unreadable = |why: String| ApiError::internal(format!("read the object as a webhook left it: {why}"));
    for field in ["apiVersion", "kind"] {
        if patched[field] != before[field] {
            return Err(unreadable(format!("its {field} is {}, and was {}", patched[field], before[field])));
        }
    }
    let whole = is_whole(served, question);
    let ty = if whole { served.ty } else { schema_of(&body_type(served, question.subresource))? };
    let mut object = schema::conform(ty, patched).map_err(|error| unreadable(error.to_string()))?.value;
    if !whole {
        schema::apply_defaults(ty, &mut object);
        return Ok(object);
    }
    if let Some(structure) = &served.structure {
        structure.prune(&mut object);
    }
    served.default(&mut object);
    Ok(object)
}
