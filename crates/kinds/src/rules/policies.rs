//! The expressions of admission policies, compiled.

use std::collections::BTreeSet;

use expressions::{Environment, ObjectType, Program, Type};
use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use super::conditions::{self, admission_environment, namespace_object};
use super::{compile_to, has_line_breaks};

const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const MAX_AUDIT_EXPRESSION: usize = 5 * 1024;

/// What a policy does, ready to be evaluated.
///
/// A variable is known to the expressions after it as `variables.<name>`: [`Program::uses`] tells whether one is needed.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Name and condition; all must hold, or the policy does not apply.
    pub conditions: Vec<(String, Program)>,
    /// Name and value, in the order in which they may refer to each other.
    pub variables: Vec<(String, Program)>,
    /// What must hold.
    pub validations: Vec<Validation>,
    /// Key and value of what is noted down.
    pub audit: Vec<(String, Program)>,
    /// What is changed.
    pub mutations: Vec<Mutation>,
}

/// One thing that must hold.
#[derive(Debug, Clone)]
pub struct Validation {
    /// Whether it does.
    pub program: Program,
    /// The text of the expression, for messages.
    pub expression: String,
    /// What is said if not; empty for the default.
    pub message: String,
    /// Makes the message instead.
    pub message_program: Option<Program>,
    /// The reason of the refusal; empty for the default.
    pub reason: String,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// Whether the value is a JSON patch; an apply configuration otherwise.
    pub is_json_patch: bool,
    /// Makes the change.
    pub program: Program,
}

struct Compiler {
    environment: Environment,
    errors: Vec<FieldError>,
}

/// Compiles the `spec` of a validating or mutating policy. `path` is that of the spec, for errors.
pub fn policy(spec: &Value, path: &FieldPath) -> (Policy, Vec<FieldError>) {
    let mut environment = admission_environment().with_type("namespaceObject", namespace_object());
    if spec["paramKind"].is_object() {
        environment = environment.with_type("params", Type::Dyn);
    }
    let mut errors = conditions::check(&spec["matchConditions"], &path.child("matchConditions"), &environment);
    let conditions = list(spec, "matchConditions").filter_map(|condition| {
        let program = compile_to(text(condition, "expression").trim(), &environment, &[Type::Bool]).ok()?;
        Some((text(condition, "name").to_owned(), program))
    });
    let conditions = conditions.collect();
    // So that a variable which is not there is told of as a field.
    let none = ObjectType { name: "kubernetes.variables".to_owned(), fields: Some([].into()) };
    let environment = environment.with_type("variables", Type::Object(none.into()));
    let mut compiler = Compiler { environment, errors: Vec::new() };
    let variables = compiler.variables(spec, &path.child("variables"));
    let mut policy = Policy { conditions, variables, ..Policy::default() };
    for (n, validation) in list(spec, "validations").enumerate() {
        policy.validations.extend(compiler.validation(validation, &path.child("validations").index(n)));
    }
    policy.audit = compiler.audit(spec, &path.child("auditAnnotations"));
    for (n, mutation) in list(spec, "mutations").enumerate() {
        policy.mutations.extend(compiler.mutation(mutation, &path.child("mutations").index(n)));
    }
    errors.append(&mut compiler.errors);
    (policy, errors)
}

fn list<'v>(spec: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    spec[key].as_array().into_iter().flatten()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("")
}

/// Whether a text may be the name of a variable.
fn is_identifier(name: &str) -> bool {
    let reserved = ["in", "true", "false", "null"].contains(&name) || Environment::is_reserved(name);
    !reserved
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

impl Compiler {
    fn compile(&mut self, given: &str, path: &FieldPath, allowed: &[Type]) -> Option<Program> {
        match compile_to(given, &self.environment, allowed) {
            Ok(program) => Some(program),
            Err(problem) => {
                self.errors.push(FieldError::invalid(path, given, problem));
                None
            }
        }
    }

    fn variables(&mut self, spec: &Value, path: &FieldPath) -> Vec<(String, Program)> {
        let mut seen = BTreeSet::new();
        let mut variables = Vec::new();
        for (n, variable) in list(spec, "variables").enumerate() {
            let path = path.index(n);
            let (name, expression) = (text(variable, "name"), text(variable, "expression"));
            if name.trim().is_empty() {
                self.errors.push(FieldError::required(&path.child("name"), "name is not specified"));
            } else if !is_identifier(name) {
                let detail = "name is not a valid CEL identifier";
                self.errors.push(FieldError::invalid(&path.child("name"), name, detail));
            } else if !seen.insert(name) {
                self.errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            let path = path.child("expression");
            if expression.trim().is_empty() {
                self.errors.push(FieldError::required(&path, "expression is not specified"));
                continue;
            }
            match Program::compile(expression, &self.environment) {
                Ok(program) => {
                    let environment = std::mem::take(&mut self.environment);
                    self.environment = environment.with_type(&format!("variables.{name}"), program.output().clone());
                    variables.push((name.to_owned(), program));
                }
                Err(error) => {
                    self.errors.push(FieldError::invalid(&path, expression, format!("compilation failed: {error}")));
                }
            }
        }
        variables
    }

    fn validation(&mut self, validation: &Value, path: &FieldPath) -> Option<Validation> {
        let (expression, message) = (text(validation, "expression"), text(validation, "message"));
        let (trimmed, message_expression) = (message.trim(), text(validation, "messageExpression"));
        let mut program = None;
        if expression.trim().is_empty() {
            self.errors.push(FieldError::required(&path.child("expression"), "expression is not specified"));
        } else {
            program = self.compile(expression, &path.child("expression"), &[Type::Bool]);
        }
        let message_program = if message_expression.is_empty() {
            None
        } else if message_expression.trim().is_empty() {
            let detail = "must be non-empty if specified";
            let path = path.child("messageExpression");
            self.errors.push(FieldError::invalid(&path, message_expression, detail));
            None
        } else {
            self.compile(message_expression, &path.child("messageExpression"), &[Type::String])
        };
        let message_path = path.child("message");
        if !message.is_empty() && trimmed.is_empty() {
            let detail = "message must be non-empty if specified";
            self.errors.push(FieldError::invalid(&message_path, message, detail));
        } else if has_line_breaks(trimmed) {
            self.errors.push(FieldError::invalid(&message_path, message, "message must not contain line breaks"));
        } else if has_line_breaks(expression.trim()) && trimmed.is_empty() {
            let detail = "message must be specified if expression contains line breaks";
            self.errors.push(FieldError::required(&message_path, detail));
        }
        let reason = text(validation, "reason");
        if !reason.is_empty() && !REASONS.contains(&reason) {
            self.errors.push(FieldError::not_supported(&path.child("reason"), reason, &REASONS));
        }
        Some(Validation {
            program: program?,
            expression: expression.trim().to_owned(),
            message: trimmed.to_owned(),
            message_program,
            reason: reason.to_owned(),
        })
    }

    fn audit(&mut self, spec: &Value, path: &FieldPath) -> Vec<(String, Program)> {
        let mut seen = BTreeSet::new();
        let mut audit = Vec::new();
        for (n, annotation) in list(spec, "auditAnnotations").enumerate() {
            let (path, key) = (path.index(n), text(annotation, "key"));
            let expression = text(annotation, "valueExpression");
            if key.is_empty() {
                self.errors.push(FieldError::required(&path.child("key"), "key is not specified"));
            } else {
                let problems = names::qualified_name(key);
                let invalid = |problem| FieldError::invalid(&path.child("key"), key, problem);
                self.errors.extend(problems.into_iter().map(invalid));
                if !seen.insert(key) {
                    self.errors.push(FieldError::duplicate(&path.child("key"), key));
                }
            }
            let path = path.child("valueExpression");
            if expression.trim().is_empty() {
                self.errors.push(FieldError::required(&path, "valueExpression is not specified"));
            } else if expression.len() > MAX_AUDIT_EXPRESSION {
                self.errors.push(FieldError::required(&path, "must not exceed 5kb in length"));
            } else if let Some(program) = self.compile(expression, &path, &[Type::String, Type::Null]) {
                audit.push((key.to_owned(), program));
            }
        }
        audit
    }

    fn mutation(&mut self, mutation: &Value, path: &FieldPath) -> Option<Mutation> {
        let patch = ObjectType {
            name: "JSONPatch".to_owned(),
            fields: Some(
                [("op", Type::String), ("path", Type::String), ("from", Type::String), ("value", Type::Dyn)]
                    .map(|(name, ty)| (name.to_owned(), ty))
                    .into(),
            ),
        };
        let object = ObjectType { name: "Object".to_owned(), fields: None };
        let (key, is_json_patch, wanted) = match text(mutation, "patchType") {
            "JSONPatch" => ("jsonPatch", true, Type::list(Type::Object(patch.clone().into()))),
            "ApplyConfiguration" => ("applyConfiguration", false, Type::Object(object.into())),
            // What the type may be is told by the check of the object itself.
            _ => return None,
        };
        let path = path.child(key).child("expression");
        let expression = text(&mutation[key], "expression");
        if expression.trim().is_empty() {
            self.errors.push(FieldError::required(&path, "expression is not specified"));
            return None;
        }
        let before = self.environment.clone();
        self.environment = before.clone().with_message(patch).with_open_messages("Object");
        let program = self.compile(expression, &path, &[wanted]);
        self.environment = before;
        Some(Mutation { is_json_patch, program: program? })
    }
}
