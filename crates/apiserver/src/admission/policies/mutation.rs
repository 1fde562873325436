//! Changes what is written by the mutating policies.

use std::collections::BTreeSet;
use std::time::Instant;

use expressions::Value as CelValue;
use kinds::cel::{Mutation, RUNTIME_BUDGET};
use object_model::{ApiError, Reason, api_version, meta};
use schema::PatchError;
use schema::fields::{self, Place};
use serde_json::Value;

use super::cache::Sort;
use super::{Invocation, invocations, passes, shown_name};
use crate::ApiServer;
use crate::admission::evaluation::{Scene, Sight};
use crate::admission::expressions::kind_of;
use crate::admission::matching::Asked;
use crate::admission::measures::Step;
use crate::admission::question::Question;
use crate::served::Served;

/// Policy, binding and parameters of an invocation.
type Key = (String, String, String, String);

/// What is known from one round of mutations to the next: upstream asks a policy once more if something changed after it,
/// and the policy says that it wants that.
#[derive(Default)]
pub(crate) struct Rounds {
    /// Whether a round has been.
    begun: bool,
    /// Those who have been asked, and want to be asked again.
    asked: BTreeSet<Key>,
    /// Those of them after whom something changed.
    due: BTreeSet<Key>,
    /// The object as the last round left it.
    output: Value,
}

/// Why a mutation is not carried out.
enum Failure {
    /// The policy is at fault.
    Policy(String),
    /// Whatever the policy says of failures.
    Request(ApiError),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Policy(message)
    }
}

/// Changes an object as the policies say that are bound to the request: in the first round all of them, in another one
/// those who are due. Whether any of them had something to change.
///
/// # Errors
/// The refusal of a policy that cannot be evaluated, or 404 when the namespace is not there.
pub(crate) async fn mutate(
    server: &ApiServer,
    question: &mut Question<'_>,
    rounds: &mut Rounds,
) -> Result<bool, ApiError> {
    let policies = server.policies();
    if passes(&policies.mutating, question) {
        return Ok(false);
    }
    let again = std::mem::replace(&mut rounds.begun, true);
    if again && rounds.output != question.object {
        rounds.all_are_due();
    }
    if again && rounds.due.is_empty() {
        return Ok(false);
    }
    let begin = Instant::now();
    let outcome = rounds.ask(server, &policies.mutating, question, again).await;
    server.metrics.admission.policies(Step::Mutate, question.operation, outcome.is_err(), begin.elapsed());
    let changed = outcome?;
    rounds.output.clone_from(&question.object);
    Ok(changed)
}

impl Rounds {
    fn all_are_due(&mut self) {
        self.due.append(&mut self.asked);
    }

    async fn ask(
        &mut self,
        server: &ApiServer,
        sort: &Sort,
        question: &mut Question<'_>,
        again: bool,
    ) -> Result<bool, ApiError> {
        let asked = Asked::new(question);
        let (invocations, misfits) = invocations(server, sort, &asked).await;
        let holder = asked.holder(server)?.cloned();
        let mut errors: Vec<(String, Option<Reason>)> = Vec::new();
        for misfit in misfits {
            let binding = misfit.binding.as_ref().map(|binding| binding.name.as_str());
            errors.push((told(&misfit.policy.name, binding, &misfit.message), None));
        }
        let mut changed = false;
        for invocation in &invocations {
            let (policy, binding) = (&invocation.policy, &invocation.binding);
            let scene = Scene::new(server, question, &invocation.matched, holder.as_ref());
            let mut object = server.in_form(question.served, &invocation.matched, &question.object).await?.into_owned();
            let old = server.in_form(question.served, &invocation.matched, &question.old).await?.into_owned();
            let sight = Sight { object: &object, old: &old, params: &invocation.params };
            let mut fail = |message: String| {
                if policy.fails {
                    errors.push((told(&policy.name, Some(&binding.name), &message), Some(Reason::Invalid)));
                }
            };
            match scene.conditions_hold(&policy.compiled.conditions, sight, policy.fails) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(message) => {
                    fail(message);
                    continue;
                }
            }
            let key = key(invocation);
            if (again && !self.due.remove(&key)) || !object.is_object() {
                continue;
            }
            for mutation in &policy.compiled.mutations {
                let sight = Sight { object: &object, old: &old, params: &invocation.params };
                match mutated(invocation, mutation, &scene, sight, question.subresource) {
                    Ok(new) => object = new,
                    Err(Failure::Policy(message)) => {
                        fail(message);
                        continue;
                    }
                    Err(Failure::Request(error)) => return Err(error),
                }
                changed = true;
            }
            let object = server.in_form(&invocation.matched, question.served, &object).await?.into_owned();
            if object != question.object {
                question.object = object;
                self.all_are_due();
            }
            if policy.again && !again {
                self.asked.insert(key);
            }
        }
        if changed {
            self.all_are_due();
        }
        let Some((message, reason)) = errors.first() else { return Ok(changed) };
        let (group, plural) = (question.served.group(), question.served.plural());
        let mut error = ApiError::forbidden(group, plural, shown_name(question), "");
        // Upstream leaves the code of what is forbidden.
        error.message.clone_from(message);
        error.reason = reason.unwrap_or(error.reason);
        Err(errors.iter().fold(error, |error, (message, _)| error.cause("", message)))
    }
}

fn key(invocation: &Invocation) -> Key {
    let params = &invocation.params;
    let owned = str::to_owned;
    (
        invocation.policy.name.clone(),
        invocation.binding.name.clone(),
        owned(meta::namespace(params)),
        owned(meta::name(params)),
    )
}

fn told(policy: &str, binding: Option<&str>, message: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {message}"),
        None => format!("policy {policy:?} denied request: {message}"),
    }
}

/// What one mutation makes of the object that it sees, with defaults.
fn mutated(
    invocation: &Invocation,
    mutation: &Mutation,
    scene: &Scene,
    sight: Sight<'_>,
    subresource: &str,
) -> Result<Value, Failure> {
    let form = Form::of(&invocation.matched, subresource)?;
    let mut course = scene.course(sight, &invocation.policy.compiled.variables, RUNTIME_BUDGET);
    let value = course.evaluate(&mutation.expression).map_err(|out| out.to_string())??;
    if let Some(wrong) = value.misnamed() {
        return Err(Failure::Policy(format!("type mismatch: {wrong}")));
    }
    let mut object = if mutation.is_json_patch {
        form.patched(sight.object, &value)?
    } else {
        form.applied(sight.object, &value).map_err(|why| format!("error applying patch: {why}"))?
    };
    form.default(&mut object);
    Ok(object)
}

/// What is known of the objects that are changed: those of a resource, or those that a subresource carries instead.
enum Form<'s> {
    Resource(&'s Served),
    Part { ty: &'static schema::Type, api_version: String, kind: &'s str },
}

impl<'s> Form<'s> {
    fn of(served: &'s Served, subresource: &str) -> Result<Self, Failure> {
        let (group, version, kind) = kind_of(served, subresource);
        if kind == served.kind() && group == served.group() {
            return Ok(Self::Resource(served));
        }
        let api_version = api_version(group, version);
        match schema::type_for(&api_version, kind) {
            Some(ty) => Ok(Self::Part { ty, api_version, kind }),
            None => Err(Failure::Request(ApiError::internal(format!("no schema of {api_version}, Kind={kind}")))),
        }
    }

    fn place(&self) -> Place<'_> {
        match self {
            Self::Resource(served) => served.place(),
            Self::Part { ty, .. } => Place::from(*ty),
        }
    }

    fn default(&self, object: &mut Value) {
        match self {
            Self::Resource(served) => served.default(object),
            Self::Part { ty, .. } => {
                schema::apply_defaults(ty, object);
                schema::normalise(ty, object);
            }
        }
    }

    /// A value read as an object of this form, with what is unknown in it.
    fn read(&self, value: Value) -> Result<schema::Decoded, String> {
        let (ty, structure) = match self {
            Self::Resource(served) => (served.ty, served.structure.as_deref()),
            Self::Part { ty, .. } => (*ty, None),
        };
        let mut decoded = schema::conform(ty, value).map_err(|error| error.to_string())?;
        if let Some(structure) = structure {
            decoded.problems.extend(structure.prune(&mut decoded.value));
        }
        Ok(decoded)
    }

    /// An object into which a configuration is merged.
    fn applied(&self, object: &Value, value: &CelValue<'_>) -> Result<Value, String> {
        let mut configuration = value.to_json().map_err(|error| error.to_string())?;
        let (api_version, kind) = match self {
            Self::Resource(served) => (served.api_version(), served.kind()),
            Self::Part { api_version, kind, .. } => (api_version.clone(), *kind),
        };
        configuration["apiVersion"] = api_version.into();
        configuration["kind"] = kind.into();
        let unreadable = |why: String| format!("failed to convert patch object to typed object: {why}");
        let decoded = self.read(configuration.clone()).map_err(unreadable)?;
        let unknown = decoded.problems.iter().filter_map(|problem| {
            let path = problem.strip_prefix("unknown field \"")?.strip_suffix('"')?;
            Some(format!("{}: field not declared in schema", fields::readable(self.place(), &configuration, path)))
        });
        match &unknown.collect::<Vec<_>>()[..] {
            [] => {}
            [one] => return Err(unreadable(one.clone())),
            several => return Err(unreadable(format!("errors:\n  {}", several.join("\n  ")))),
        }
        let atomics = fields::atomics(self.place(), &decoded.value);
        if !atomics.is_empty() {
            let paths = atomics.join(", ");
            return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}"));
        }
        Ok(fields::merge_configuration(self.place(), object, &decoded.value))
    }

    /// An object to which a list of operations is applied. Where a test among them fails, nothing is changed.
    fn patched(&self, object: &Value, value: &CelValue<'_>) -> Result<Value, Failure> {
        let mut operations = value.to_json().map_err(|error| {
            format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}")
        })?;
        for operation in operations.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            operation.entry("path").or_insert_with(|| "".into());
        }
        let patched = match schema::json_patch(object, &operations) {
            Ok(patched) => patched,
            Err(PatchError::TestFailed(_)) => return Ok(object.clone()),
            Err(error) => return Err(Failure::Policy(format!("JSON Patch: {error}"))),
        };
        let decoded = self.read(patched).map_err(|error| Failure::Request(ApiError::internal(error)))?;
        let custom = matches!(self, Self::Resource(served) if served.is_custom());
        if !custom && !decoded.problems.is_empty() {
            let why = format!("strict decoding error: {}", decoded.problems.join(", "));
            return Err(Failure::Request(ApiError::internal(why)));
        }
        Ok(decoded.value)
    }
}
