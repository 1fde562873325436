//! Evaluates compiled rules for an object, and for its change.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use expressions::{EvalError, Value as CelValue};
use object_model::{FieldError, FieldPath};
use serde_json::Value;

use super::PER_CALL_LIMIT;
use super::schema_rules::{CompiledRules, ListIdentity, Node, Rule};

/// How long an evaluated message may be.
const MAX_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl CompiledRules {
    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// What is wrong with an object, or with its change. Rules that hold of an unchanged part already are not asked again.
    /// What the evaluations cost is taken from the budget.
    pub fn validate(&self, object: &Value, old: Option<&Value>, budget: &mut u64) -> Vec<FieldError> {
        let mut walk = Walk { errors: Vec::new(), ratchets: true, budget };
        if let Some(root) = &self.root {
            // Stopping early has left an error that says so.
            let _ = walk.node(root, &FieldPath::default(), object, Old { value: old, unchanged: false, same: old });
        }
        walk.errors
    }

    /// The rules at the root of the schema and below it.
    pub fn root(&self) -> Rules<'_> {
        Rules(self.root.as_deref())
    }
}

/// The rules at one place of a schema and below it.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'r>(Option<&'r Node>);

impl<'r> Rules<'r> {
    /// Those of a field.
    #[must_use]
    pub fn property(self, name: &str) -> Self {
        Self(self.0.and_then(|node| node.properties.get(name)))
    }

    /// Those of the elements of a list.
    #[must_use]
    pub fn items(self) -> Self {
        Self(self.0.and_then(|node: &'r Node| node.items.as_deref()))
    }

    /// Those of the values of a map.
    #[must_use]
    pub fn values(self) -> Self {
        Self(self.0.and_then(|node: &'r Node| node.additional.as_deref()))
    }

    /// What is wrong with the default of this place, which is at `path`. For rules about changes it is the old value as
    /// well.
    pub fn of_default(self, path: &FieldPath, default: &Value, budget: &mut u64) -> Vec<FieldError> {
        let mut walk = Walk { errors: Vec::new(), ratchets: false, budget };
        if let Some(node) = self.0 {
            // Stopping early has left an error that says so.
            let _ = walk.node(node, path, default, Old { value: Some(default), same: None, unchanged: false });
        }
        walk.errors
    }
}

/// What is known of a part in the old object.
#[derive(Clone, Copy)]
struct Old<'a> {
    /// Its counterpart for transition rules.
    value: Option<&'a Value>,
    /// Its counterpart where it is only asked whether anything changed: sets have those as well.
    same: Option<&'a Value>,
    /// Whether something above is unchanged as a whole.
    unchanged: bool,
}

struct Walk<'b> {
    errors: Vec<FieldError>,
    /// Whether rules are not asked again of what is unchanged.
    ratchets: bool,
    budget: &'b mut u64,
}

impl Walk<'_> {
    fn node(&mut self, node: &Node, path: &FieldPath, value: &Value, old: Old<'_>) -> ControlFlow<()> {
        // What is null has no rules of its own: only what is around it can tell whether it may be.
        if value.is_null() {
            return ControlFlow::Continue(());
        }
        let unchanged = self.ratchets && (old.unchanged || old.same == Some(value));
        let old = Old { value: old.value.filter(|old| !old.is_null()), unchanged, ..old };
        self.rules(node, path, value, old)?;
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    let below = Old {
                        value: old.value.and_then(|old| old.get(key)),
                        same: old.same.and_then(|old| old.get(key)),
                        unchanged,
                    };
                    if let Some(additional) = &node.additional {
                        self.node(additional, &path.key(key), field, below)?;
                    }
                    if let Some(property) = node.properties.get(key) {
                        self.node(property, &path.child(key), field, below)?;
                    }
                }
            }
            Value::Array(elements) => {
                let Some(items) = &node.items else { return ControlFlow::Continue(()) };
                let counterparts = Counterparts::of(&node.list, old.value.or(old.same));
                for (n, element) in elements.iter().enumerate() {
                    let same = counterparts.find(element);
                    let value = same.filter(|_| matches!(node.list, ListIdentity::Map(_)));
                    self.node(items, &path.index(n), element, Old { value, same, unchanged })?;
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn rules(&mut self, node: &Node, path: &FieldPath, value: &Value, old: Old<'_>) -> ControlFlow<()> {
        let Some(declaration) = node.declaration() else { return ControlFlow::Continue(()) };
        for rule in &node.rules {
            let skipped = if rule.uses_old { old.value.is_none() && !rule.optional_old } else { old.unchanged };
            if skipped {
                continue;
            }
            if *self.budget == 0 {
                self.errors.push(FieldError::invalid(path, node.ty.as_str(), OUT_OF_BUDGET));
                return ControlFlow::Break(());
            }
            let variables = CelValue::declared(value, declaration).and_then(|this| {
                let before = old.value.map(|old| CelValue::declared(old, declaration)).transpose()?;
                let before = match before {
                    Some(before) if rule.optional_old => Some(before.some()),
                    None if rule.optional_old => Some(CelValue::Optional(None)),
                    before => before,
                };
                let mut variables = vec![("self", this)];
                variables.extend(before.map(|before| ("oldSelf", before)));
                Ok(variables)
            });
            let invalid = |detail: String| FieldError::invalid(path, node.ty.as_str(), detail);
            let variables = match variables {
                Ok(variables) => variables,
                Err(error) => {
                    self.errors.push(invalid(format!("{error} evaluating rule: {}", rule.shown())));
                    continue;
                }
            };
            let mut call = PER_CALL_LIMIT;
            let result = rule.program.evaluate(&variables, &mut call);
            if self.spend(PER_CALL_LIMIT - call).is_break() {
                self.errors.push(invalid(OUT_OF_BUDGET.to_owned()));
                return ControlFlow::Break(());
            }
            match result {
                Ok(CelValue::Bool(true)) => {}
                Ok(_) => self.failed(node, rule, path, &variables)?,
                Err(error @ EvalError::CostExceeded) => {
                    self.errors.push(invalid(format!(
                        "'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        rule.shown()
                    )));
                    return ControlFlow::Break(());
                }
                Err(EvalError::Failed(message)) if message.starts_with("no such overload") => {
                    self.errors.push(invalid(format!(
                        "'{message}': call arguments did not match a supported operator, function or macro signature for \
                         rule: {}",
                        rule.shown()
                    )));
                }
                Err(error) => self.errors.push(invalid(format!("{error} evaluating rule: {}", rule.shown()))),
            }
        }
        ControlFlow::Continue(())
    }

    fn spend(&mut self, cost: u64) -> ControlFlow<()> {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                *self.budget = left;
                ControlFlow::Continue(())
            }
            None => {
                *self.budget = 0;
                ControlFlow::Break(())
            }
        }
    }

    /// Tells of a rule that does not hold.
    fn failed(
        &mut self,
        node: &Node,
        rule: &Rule,
        path: &FieldPath,
        variables: &[(&str, CelValue<'_>)],
    ) -> ControlFlow<()> {
        let path = match rule.field_path.as_str() {
            "" => path.clone(),
            below => path.child(below),
        };
        let mut detail = rule.default_message();
        if let Some(program) = &rule.message_program {
            let mut call = PER_CALL_LIMIT;
            let result = program.evaluate(variables, &mut call);
            let stop = if self.spend(PER_CALL_LIMIT - call).is_break() {
                Some(
                    "messageExpression evaluation failed due to running out of cost budget, no further validation rules \
                     will be run"
                        .to_owned(),
                )
            } else if result == Err(EvalError::CostExceeded) {
                Some(format!(
                    "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                    rule.message_text
                ))
            } else {
                None
            };
            if let Some(detail) = stop {
                self.errors.push(FieldError::invalid(&path, node.ty.as_str(), detail));
                return ControlFlow::Break(());
            }
            // A message that cannot be had is replaced by the one that says what failed.
            if let Ok(CelValue::String(message)) = result {
                let message = message.as_str().trim();
                if !message.is_empty() && message.len() <= MAX_MESSAGE && !message.contains('\n') {
                    detail = message.to_owned();
                }
            }
        }
        self.errors.push(match rule.reason.as_str() {
            "FieldValueForbidden" => FieldError::forbidden(&path, detail),
            "FieldValueRequired" => FieldError::required(&path, detail),
            "FieldValueDuplicate" => FieldError::duplicate(&path, node.ty.as_str()),
            _ => FieldError::invalid(&path, node.ty.as_str(), detail),
        });
        ControlFlow::Continue(())
    }
}

impl Rule {
    /// How messages name the rule.
    fn shown(&self) -> &str {
        let message = self.message.trim();
        if message.is_empty() { self.text.trim() } else { message }
    }

    fn default_message(&self) -> String {
        let message = self.message.trim();
        if message.is_empty() { format!("failed rule: {}", self.text.trim()) } else { message.to_owned() }
    }
}

/// The elements of an old list by what identifies them.
enum Counterparts<'a> {
    None,
    Set(BTreeMap<String, &'a Value>),
    Map(&'a [(String, Option<Value>)], BTreeMap<String, &'a Value>),
}

impl<'a> Counterparts<'a> {
    fn of(list: &'a ListIdentity, old: Option<&'a Value>) -> Self {
        let elements = || old.and_then(Value::as_array).into_iter().flatten();
        match list {
            ListIdentity::Atomic => Self::None,
            ListIdentity::Set => Self::Set(elements().map(|element| (element.to_string(), element)).collect()),
            ListIdentity::Map(keys) => {
                Self::Map(keys, elements().map(|element| (identity(keys, element), element)).collect())
            }
        }
    }

    fn find(&self, element: &Value) -> Option<&'a Value> {
        match self {
            Self::None => None,
            Self::Set(old) => old.get(&element.to_string()).copied(),
            Self::Map(keys, old) => old.get(&identity(keys, element)).copied(),
        }
    }
}

fn identity(keys: &[(String, Option<Value>)], element: &Value) -> String {
    let values = keys.iter().map(|(key, default)| {
        let value = element.get(key).or(default.as_ref());
        value.map_or_else(|| "null".to_owned(), Value::to_string)
    });
    values.collect::<Vec<_>>().join(",")
}
