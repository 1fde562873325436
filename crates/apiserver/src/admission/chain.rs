//! Who has a say in a request, in their order: the server itself, policies and webhooks that may change the object; then,
//! when it is complete, policies and webhooks that may refuse it. Quotas come last ([`super::quota`]), when all others have
//! consented.

use std::time::Instant;

use object_model::ApiError;
use serde_json::{Value, json};

use super::measures::Step;
use super::question::{Operation, Question};
use super::{policies, webhooks};
use crate::context::Context;
use crate::request::ResourceRequest;
use crate::served::Served;
use crate::{ApiServer, managers};

impl<'a> Question<'a> {
    /// The question of a request, as yet without objects.
    ///
    /// # Errors
    /// 422 for an unknown `dryRun`.
    pub fn of(
        cx: &'a Context,
        request: &'a ResourceRequest,
        served: &'a Served,
        operation: Operation,
    ) -> Result<Self, ApiError> {
        Ok(Self {
            cx,
            served,
            subresource: &request.subresource,
            operation,
            namespace: &request.namespace,
            name: request.name.clone(),
            object: Value::Null,
            old: Value::Null,
            options: Value::Null,
            dry_run: cx.dry_run()?,
        })
    }

    /// The options of the request: as its body gave them, or as the query has them. They are made for those who ask, and
    /// mostly nobody does.
    pub fn options(&self) -> Value {
        if self.options.is_null() { options(self.cx, self.operation) } else { self.options.clone() }
    }
}

/// The options of a request, as the query gives them. A patch counts as the update or the creation that it comes to.
fn options(cx: &Context, operation: Operation) -> Value {
    let kind = match operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
    if operation != Operation::Delete {
        for field in ["fieldManager", "fieldValidation"] {
            if cx.query.has(field) {
                options[field] = cx.query.get(field).into();
            }
        }
    }
    if cx.query.has("dryRun") {
        options["dryRun"] = json!([cx.query.get("dryRun")]);
    }
    options
}

/// Whether nobody outside has a say in any request.
pub(crate) fn is_idle(server: &ApiServer) -> bool {
    server.webhooks().is_empty() && server.policies().is_empty()
}

/// Asks those who may change the object; whether somebody outside did.
///
/// # Errors
/// Whatever one of them says against the request.
pub(crate) async fn mutate(server: &ApiServer, question: &mut Question<'_>) -> Result<bool, ApiError> {
    let begin = Instant::now();
    let outcome = ask_to_mutate(server, question).await;
    server.metrics.admission.step(Step::Mutate, question.operation, outcome.is_err(), begin.elapsed());
    outcome
}

async fn ask_to_mutate(server: &ApiServer, question: &mut Question<'_>) -> Result<bool, ApiError> {
    complete(server, question).await?;
    if !server.webhooks().mutate() && server.policies().mutating.is_empty() {
        return Ok(false);
    }
    let before = managers::noted(&question.object);
    let (mut by_policies, mut by_webhooks) = (policies::Rounds::default(), webhooks::Rounds::default());
    let mut changed = policies::mutate(server, question, &mut by_policies).await?;
    changed |= webhooks::mutate(server, question, &mut by_webhooks).await?;
    if changed {
        // What was complete may not be so any more: everybody has another look, and that is the last one.
        let left = question.object.clone();
        complete(server, question).await?;
        policies::mutate(server, question, &mut by_policies).await?;
        if question.object != left {
            by_webhooks.changed();
        }
        by_webhooks.again();
        webhooks::mutate(server, question, &mut by_webhooks).await?;
        managers::restore_if_broken(&mut question.object, before, question.cx);
    }
    Ok(changed)
}

/// What the server itself adds to new objects.
async fn complete(server: &ApiServer, question: &mut Question<'_>) -> Result<(), ApiError> {
    if question.operation == Operation::Create && question.subresource.is_empty() && question.served.is_stored() {
        let (user, served, namespace) = (&question.cx.user, question.served, question.namespace);
        return super::admit_create(server, user, served, namespace, &mut question.object).await;
    }
    Ok(())
}

/// Asks those who may refuse the object, which is complete and valid now.
///
/// # Errors
/// As [`mutate`].
pub(crate) async fn judge(server: &ApiServer, question: &Question<'_>) -> Result<(), ApiError> {
    let begin = Instant::now();
    let outcome = ask_to_judge(server, question).await;
    server.metrics.admission.step(Step::Judge, question.operation, outcome.is_err(), begin.elapsed());
    outcome
}

async fn ask_to_judge(server: &ApiServer, question: &Question<'_>) -> Result<(), ApiError> {
    super::node::judge(server, question)?;
    if question.operation == Operation::Update {
        let place = (question.namespace, question.subresource);
        super::admit_update(server, &question.cx.user, question.served, place, &question.object, &question.old)?;
    }
    policies::judge(server, question).await?;
    webhooks::judge(server, question).await
}

/// Asks everybody about something that is carried out and not stored: a deletion, a binding, a connection.
///
/// # Errors
/// As [`mutate`].
pub(crate) async fn admit(server: &ApiServer, question: &mut Question<'_>) -> Result<bool, ApiError> {
    let changed = mutate(server, question).await?;
    judge(server, question).await?;
    Ok(changed)
}
