//! Evaluates the expressions of webhooks and policies for a request: what they see, and what they may cost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use expressions::{Access, EvalError, Value as CelValue};
use kinds::cel::{CONDITIONS_BUDGET, Expression, PER_CALL_LIMIT};
use serde_json::{Value, json};

use super::expressions::{authorizer, request};
use super::matching::Asked;
use super::question::Question;
use crate::ApiServer;
use crate::served::Served;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// What expressions see of a request, beside the object and the parameters.
pub(crate) struct Scene {
    /// `request`.
    request: Value,
    /// `namespaceObject`; null for what lives in no namespace.
    namespace: Value,
    /// `authorizer` and `authorizer.requestResource`; nobody can be asked when the server goes away.
    access: Option<(Access, Access)>,
}

/// The objects that expressions see.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'v> {
    /// `object`.
    pub object: &'v Value,
    /// `oldObject`.
    pub old: &'v Value,
    /// `params`.
    pub params: &'v Value,
}

impl Scene {
    /// What there is to see of a question, matched as a resource; `holder` is the namespace it is about.
    pub fn new(server: &ApiServer, question: &Question<'_>, matched: &Served, holder: Option<&Value>) -> Self {
        Self {
            request: request(question, matched),
            namespace: holder.map_or(Value::Null, shown_namespace),
            access: authorizer(server, question),
        }
    }

    /// A sequence of evaluations that share a budget and what has been made of `variables`.
    pub fn course<'p, 'v>(
        &'v self,
        sight: Sight<'v>,
        variables: &'p [(String, Expression)],
        budget: u64,
    ) -> Course<'p, 'v> {
        let mut seen = vec![
            ("object", CelValue::dynamic(sight.object)),
            ("oldObject", CelValue::dynamic(sight.old)),
            ("request", CelValue::dynamic(&self.request)),
            ("params", CelValue::dynamic(sight.params)),
            ("namespaceObject", CelValue::dynamic(&self.namespace)),
        ];
        if let Some((anything, own)) = &self.access {
            seen.push(("authorizer", CelValue::Access(anything.clone())));
            seen.push(("authorizer.requestResource", CelValue::Access(own.clone())));
        }
        Course { seen, variables, made: RefCell::default(), spent: Cell::new(0), budget }
    }

    /// Whether all conditions hold. One that is false decides, whatever is wrong with the others.
    ///
    /// # Errors
    /// What is wrong with conditions, where that is not to be ignored.
    pub fn conditions_hold(
        &self,
        conditions: &[(String, Expression)],
        sight: Sight<'_>,
        fails: bool,
    ) -> Result<bool, String> {
        if conditions.is_empty() {
            return Ok(true);
        }
        let mut course = self.course(sight, &[], CONDITIONS_BUDGET);
        let mut errors: Vec<String> = Vec::new();
        for (_, condition) in conditions {
            match course.evaluate(condition) {
                Ok(Ok(CelValue::Bool(false))) => return Ok(false),
                Ok(Ok(_)) => {}
                Ok(Err(error)) if errors.contains(&error) => {}
                Ok(Err(error)) => errors.push(error),
                Err(out) if fails => return Err(out.to_string()),
                Err(_) => return Ok(false),
            }
        }
        match &errors[..] {
            [] => Ok(true),
            _ if !fails => Ok(false),
            [one] => Err(one.clone()),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}

/// The budget does not reach: nothing more is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfBudget;

impl std::fmt::Display for OutOfBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(OUT_OF_BUDGET)
    }
}

/// Evaluations after each other.
pub(crate) struct Course<'p, 'v> {
    seen: Vec<(&'static str, CelValue<'v>)>,
    /// What is made when an expression asks for it, by name.
    variables: &'p [(String, Expression)],
    made: RefCell<BTreeMap<&'p str, Result<CelValue<'v>, EvalError>>>,
    /// What the variables of the current evaluation have cost.
    spent: Cell<u64>,
    budget: u64,
}

impl<'v> Course<'_, 'v> {
    /// What is left of the budget.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The value of an expression, or why it has none.
    ///
    /// # Errors
    /// When the budget does not reach.
    pub fn evaluate(&mut self, expression: &Expression) -> Result<Result<CelValue<'v>, String>, OutOfBudget> {
        let mut call = PER_CALL_LIMIT;
        let result = expression.program.evaluate_with(&self.seen, &|name| self.variable(name), &mut call);
        let cost = (PER_CALL_LIMIT - call).saturating_add(self.spent.take());
        self.budget = self.budget.checked_sub(cost).ok_or(OutOfBudget)?;
        Ok(result.map_err(|error| format!("expression '{}' resulted in error: {error}", expression.text)))
    }

    /// The value of a variable, made when it is first asked for.
    fn variable(&self, name: &str) -> Option<Result<CelValue<'v>, EvalError>> {
        let name = name.strip_prefix("variables.")?;
        if let Some(made) = self.made.borrow().get(name) {
            return Some(made.clone());
        }
        let (name, expression) = self.variables.iter().find(|(known, _)| known == name)?;
        let mut call = PER_CALL_LIMIT;
        let value = expression.program.evaluate_with(&self.seen, &|name| self.variable(name), &mut call);
        self.spent.set(self.spent.get().saturating_add(PER_CALL_LIMIT - call));
        let value = value
            .map_err(|error| EvalError::Failed(format!("composited variable {name:?} fails to evaluate: {error}")));
        self.made.borrow_mut().insert(name, value.clone());
        Some(value)
    }
}

/// What expressions see of a namespace.
fn shown_namespace(holder: &Value) -> Value {
    const SHOWN: [&str; 12] = [
        "name",
        "generateName",
        "namespace",
        "labels",
        "annotations",
        "uid",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "resourceVersion",
        "finalizers",
    ];
    let metadata = holder["metadata"].as_object().into_iter().flatten();
    let metadata = metadata.filter(|(field, _)| SHOWN.contains(&field.as_str()));
    let metadata: serde_json::Map<_, _> = metadata.map(|(field, value)| (field.clone(), value.clone())).collect();
    let part = |field: &str| holder.get(field).cloned().unwrap_or_else(|| json!({}));
    json!({"metadata": metadata, "spec": part("spec"), "status": part("status")})
}

impl Asked<'_, '_> {
    /// What there is to see of the question.
    ///
    /// # Errors
    /// 404 when its namespace is not there.
    pub fn scene(&self, server: &ApiServer, matched: &Served) -> Result<Scene, object_model::ApiError> {
        Ok(Scene::new(server, self.question, matched, self.holder(server)?))
    }
}
