//! Judges a request by the validating policies.

use expressions::Value as CelValue;
use kinds::cel::{RUNTIME_BUDGET, Validation};
use object_model::{ApiError, Reason};
use std::time::Instant;

use super::cache::{Binding, Policies, Policy};
use super::{invocations, passes, shown_name};
use crate::ApiServer;
use crate::admission::evaluation::{Course, OutOfBudget, Scene, Sight};
use crate::admission::matching::Asked;
use crate::admission::measures::Step;
use crate::admission::question::Question;

/// How long an evaluated message may be.
const MAX_MESSAGE: usize = 5 * 1024;

/// Why something is refused.
struct Denial {
    message: String,
    /// Empty for the usual one.
    reason: String,
}

/// Judges a request by all policies that are bound to it. What they only warn of is added to the answer.
///
/// # Errors
/// The refusal of the first that says no, usually 422; or 404 when the namespace is not there.
pub(crate) async fn judge(server: &ApiServer, question: &Question<'_>) -> Result<(), ApiError> {
    let policies = server.policies();
    if passes(&policies.validating, question) {
        return Ok(());
    }
    let begin = Instant::now();
    let outcome = ask(server, &policies, question).await;
    server.metrics.admission.policies(Step::Judge, question.operation, outcome.is_err(), begin.elapsed());
    outcome
}

async fn ask(server: &ApiServer, policies: &Policies, question: &Question<'_>) -> Result<(), ApiError> {
    let asked = Asked::new(question);
    let (invocations, misfits) = invocations(server, &policies.validating, &asked).await;
    let mut denials: Vec<(String, String)> = Vec::new();
    for misfit in misfits {
        denials.push((told(&misfit.policy, misfit.binding.as_deref(), &misfit.message), String::new()));
    }
    for invocation in &invocations {
        let (policy, binding) = (&invocation.policy, &invocation.binding);
        let object = server.in_form(question.served, &invocation.matched, &question.object).await?;
        let old = server.in_form(question.served, &invocation.matched, &question.old).await?;
        let scene = asked.scene(server, &invocation.matched)?;
        let sight = Sight { object: &object, old: &old, params: &invocation.params };
        let (failed, broken) = verdict(policy, &scene, sight);
        for denial in failed {
            for action in &binding.actions {
                match action.as_str() {
                    "Deny" => {
                        let message = told(policy, Some(binding), &denial.message);
                        denials.push((message, denial.reason.clone()));
                    }
                    "Warn" => question.cx.warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, denial.message
                    )),
                    _ => tracing::info!(
                        "validation of {} {}/{} failed for policy {} with binding {}: {}",
                        question.served.plural(),
                        question.namespace,
                        question.name,
                        policy.name,
                        binding.name,
                        denial.message
                    ),
                }
            }
        }
        denials.extend(broken.into_iter().map(|message| (told(policy, Some(binding), &message), String::new())));
    }
    match denials.into_iter().next() {
        Some((message, reason)) => Err(refusal(question, &message, &reason)),
        None => Ok(()),
    }
}

fn told(policy: &Policy, binding: Option<&Binding>, message: &str) -> String {
    match binding {
        Some(binding) => format!(
            "ValidatingAdmissionPolicy '{}' with binding '{}' denied request: {message}",
            policy.name, binding.name
        ),
        None => format!("ValidatingAdmissionPolicy '{}' denied request: {message}", policy.name),
    }
}

/// A refusal in the form of upstream: worded as forbidden, whatever its reason and code.
fn refusal(question: &Question<'_>, message: &str, reason: &str) -> ApiError {
    let mut error =
        ApiError::forbidden(question.served.group(), question.served.plural(), shown_name(question), message);
    error.reason = Reason::parse(reason).unwrap_or(Reason::Invalid);
    error.code = error.reason.code();
    error.cause("", message)
}

/// What a policy has against what it sees, as its binding may be about; and what is wrong with its audit annotations, which
/// no binding can soften.
fn verdict(policy: &Policy, scene: &Scene, sight: Sight<'_>) -> (Vec<Denial>, Vec<String>) {
    let broken = |message: String| {
        let denial = Denial { message, reason: String::new() };
        (if policy.fails { vec![denial] } else { Vec::new() }, Vec::new())
    };
    match scene.conditions_hold(&policy.compiled.conditions, sight, policy.fails) {
        Ok(true) => {}
        Ok(false) => return (Vec::new(), Vec::new()),
        Err(message) => return broken(message),
    }
    let denials = match denials(policy, scene, sight) {
        Ok(denials) => denials,
        Err(out) => return broken(out.to_string()),
    };
    match annotations(policy, scene, sight) {
        Ok(errors) => (denials, errors),
        Err(out) => broken(out.to_string()),
    }
}

fn denials(policy: &Policy, scene: &Scene, sight: Sight<'_>) -> Result<Vec<Denial>, OutOfBudget> {
    let variables = &policy.compiled.variables;
    let mut course = scene.course(sight, variables, RUNTIME_BUDGET);
    let mut results = Vec::with_capacity(policy.compiled.validations.len());
    for validation in &policy.compiled.validations {
        let result = course.evaluate(&validation.expression)?;
        results.push(result.map(|value| value == CelValue::Bool(true)));
    }
    let mut messages = scene.course(sight, variables, course.budget());
    let mut denials = Vec::new();
    let mut out_of_budget = false;
    for (validation, result) in policy.compiled.validations.iter().zip(results) {
        let denial = match result {
            Ok(true) => continue,
            Err(message) => policy.fails.then(|| Denial { message, reason: String::new() }),
            Ok(false) => match message(validation, &mut messages) {
                Ok(message) if !out_of_budget => Some(Denial { message, reason: validation.reason.clone() }),
                _ => {
                    out_of_budget = true;
                    let message = format!("failed messageExpression: {OutOfBudget}");
                    policy.fails.then_some(Denial { message, reason: String::new() })
                }
            },
        };
        denials.extend(denial);
    }
    Ok(denials)
}

/// What is said of a validation that does not hold.
fn message(validation: &Validation, course: &mut Course<'_, '_>) -> Result<String, OutOfBudget> {
    // A message that cannot be had is replaced by the one that says what failed.
    if let Some(expression) = &validation.message_expression
        && let Ok(CelValue::String(text)) = course.evaluate(expression)?
    {
        let text = text.as_str().trim();
        if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
            return Ok(text.to_owned());
        }
    }
    Ok(match validation.message.as_str() {
        "" => format!("failed expression: {}", validation.expression.text.trim()),
        message => message.to_owned(),
    })
}

/// Evaluates the audit annotations, of which no log is kept: only what is wrong with them is told.
fn annotations(policy: &Policy, scene: &Scene, sight: Sight<'_>) -> Result<Vec<String>, OutOfBudget> {
    let mut course = scene.course(sight, &policy.compiled.variables, RUNTIME_BUDGET);
    let mut errors = Vec::new();
    for (_, expression) in &policy.compiled.audit {
        match course.evaluate(expression)? {
            Ok(CelValue::String(_) | CelValue::Null) => {}
            Ok(other) => errors.push(format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                expression.text,
                other.type_name()
            )),
            Err(error) if policy.fails => errors.push(error),
            Err(_) => {}
        }
    }
    Ok(errors)
}
