//! Admission policies: expressions that judge what is written (ValidatingAdmissionPolicy), or change it
//! (MutatingAdmissionPolicy), where a binding applies them.

mod cache;
mod mutation;
mod params;
mod type_check;
mod validation;

use std::sync::Arc;

use object_model::meta;
use serde_json::Value;

use super::matching::{Asked, is_exempt};
use super::question::Question;
use crate::ApiServer;
use crate::served::Served;

use cache::{Binding, Policy, Sort};
pub(crate) use cache::{Policies, policies_of};
pub(crate) use mutation::{Rounds, mutate};
use params::Failure;
pub(crate) use validation::judge;

/// A policy that is to be evaluated for a question, with a binding and its parameters.
struct Invocation {
    policy: Arc<Policy>,
    binding: Arc<Binding>,
    /// The resource as which the question is matched.
    matched: Served,
    /// One object, or null where there are no parameters.
    params: Value,
}

/// Something that went wrong before a policy could be evaluated.
struct Misfit {
    policy: Arc<Policy>,
    /// `None` where the policy itself is at fault.
    binding: Option<Arc<Binding>>,
    message: String,
}

/// What is to be evaluated for a question, and the policies of which it cannot be said and whose failure matters.
async fn invocations(server: &ApiServer, sort: &Sort, asked: &Asked<'_, '_>) -> (Vec<Invocation>, Vec<Misfit>) {
    let (mut found, mut misfits) = (Vec::new(), Vec::new());
    for (policy, bindings) in sort.bound() {
        let mut misfit = |binding: Option<&Arc<Binding>>, why: &str| {
            if policy.fails {
                let what = if binding.is_some() { "binding" } else { "policy" };
                let message = format!("failed to configure {what}: {why}");
                misfits.push(Misfit { policy: policy.clone(), binding: binding.cloned(), message });
            }
        };
        let matched = match policy.matcher.matches(server, asked) {
            Ok(Some(matched)) => matched,
            Ok(None) => continue,
            Err(error) => {
                misfit(None, &error.message);
                continue;
            }
        };
        for binding in bindings {
            match binding.matcher.as_ref().map(|matcher| matcher.matches(server, asked)) {
                None | Some(Ok(Some(_))) => {}
                Some(Ok(None)) => continue,
                Some(Err(error)) => {
                    misfit(Some(binding), &error.message);
                    continue;
                }
            }
            match params::collect(server, policy, binding, asked.question.namespace).await {
                Ok(params) => found.extend(params.into_iter().map(|params| Invocation {
                    policy: policy.clone(),
                    binding: binding.clone(),
                    matched: matched.clone(),
                    params,
                })),
                Err(Failure::Binding(why)) => misfit(Some(binding), &why),
                Err(Failure::Policy(why)) => {
                    misfit(None, &why);
                    break;
                }
            }
        }
    }
    (found, misfits)
}

/// Whether nobody is asked.
fn passes(sort: &Sort, question: &Question<'_>) -> bool {
    sort.is_empty() || is_exempt(question.served)
}

/// The name by which a refusal tells of the object.
fn shown_name<'q>(question: &'q Question<'_>) -> &'q str {
    let generated = || question.object["metadata"]["generateName"].as_str().unwrap_or_default();
    [question.name.as_str(), meta::name(&question.object), generated()]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("Unknown")
}
