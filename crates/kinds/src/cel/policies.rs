//! The expressions of admission policies, compiled.

use expressions::{Environment, ObjectType, Program, Type};
use object_model::{FieldError, FieldPath};
use serde_json::Value;

use super::compile_to;
use super::conditions::{self, admission_environment, namespace_object};

/// What a policy does, ready to be evaluated.
///
/// A variable is known to the expressions after it as `variables.<name>`.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Name and condition; all must hold, or the policy does not apply.
    pub conditions: Vec<(String, Expression)>,
    /// Name and value, in the order in which they may refer to each other.
    pub variables: Vec<(String, Expression)>,
    /// What must hold.
    pub validations: Vec<Validation>,
    /// Key and value of what is noted down.
    pub audit: Vec<(String, Expression)>,
    /// What is changed.
    pub mutations: Vec<Mutation>,
}

/// A compiled expression, and its text for messages.
#[derive(Debug, Clone)]
pub struct Expression {
    /// The text.
    pub text: String,
    /// What it means.
    pub program: Program,
}

/// One thing that must hold.
#[derive(Debug, Clone)]
pub struct Validation {
    /// Whether it does.
    pub expression: Expression,
    /// What is said if not; empty for the default.
    pub message: String,
    /// Makes the message instead.
    pub message_expression: Option<Expression>,
    /// The reason of the refusal; empty for the default.
    pub reason: String,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Mutation {
    /// Whether the value is a JSON patch; an apply configuration otherwise.
    pub is_json_patch: bool,
    /// Makes the change.
    pub expression: Expression,
}

struct Compiler {
    environment: Environment,
    errors: Vec<FieldError>,
}

/// Compiles the `spec` of a validating or mutating policy; the errors are those of its expressions. `path` is that of the
/// spec, for errors.
pub fn policy(spec: &Value, path: &FieldPath) -> (Policy, Vec<FieldError>) {
    let mut environment = admission_environment().with_type("namespaceObject", namespace_object());
    if spec["paramKind"].is_object() {
        environment = environment.with_type("params", Type::Dyn);
    }
    let mut errors = conditions::check(&spec["matchConditions"], &path.child("matchConditions"), &environment);
    let conditions = conditions::compiled(&spec["matchConditions"], &environment);
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

impl Compiler {
    /// A program of what is given. That an expression is missing is told by the check of the policy's form.
    fn compile(&mut self, holder: &Value, field: &str, path: &FieldPath, allowed: &[Type]) -> Option<Expression> {
        let given = text(holder, field);
        if given.trim().is_empty() {
            return None;
        }
        match compile_to(given, &self.environment, allowed) {
            Ok(program) => Some(Expression { text: given.to_owned(), program }),
            Err(problem) => {
                self.errors.push(FieldError::invalid(&path.child(field), given, problem.to_string()));
                None
            }
        }
    }

    fn variables(&mut self, spec: &Value, path: &FieldPath) -> Vec<(String, Expression)> {
        let mut variables = Vec::new();
        for (n, variable) in list(spec, "variables").enumerate() {
            let Some(expression) = self.compile(variable, "expression", &path.index(n), &[]) else { continue };
            let name = text(variable, "name");
            let environment = std::mem::take(&mut self.environment);
            let ty = expression.program.output().clone();
            self.environment = environment.with_type(&format!("variables.{name}"), ty);
            variables.push((name.to_owned(), expression));
        }
        variables
    }

    fn validation(&mut self, validation: &Value, path: &FieldPath) -> Option<Validation> {
        let expression = self.compile(validation, "expression", path, &[Type::Bool]);
        let before = self.environment.clone();
        // Messages do not ask what somebody may do.
        self.environment = before.clone().without("authorizer").without("authorizer.requestResource");
        let message_expression = self.compile(validation, "messageExpression", path, &[Type::String]);
        self.environment = before;
        Some(Validation {
            expression: expression?,
            message: text(validation, "message").trim().to_owned(),
            message_expression,
            reason: text(validation, "reason").to_owned(),
        })
    }

    fn audit(&mut self, spec: &Value, path: &FieldPath) -> Vec<(String, Expression)> {
        let annotations = list(spec, "auditAnnotations").enumerate().filter_map(|(n, annotation)| {
            let expression =
                self.compile(annotation, "valueExpression", &path.index(n), &[Type::String, Type::Null])?;
            Some((text(annotation, "key").to_owned(), expression))
        });
        annotations.collect()
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
            _ => return None,
        };
        let before = self.environment.clone();
        self.environment = before.clone().with_message(patch).with_open_messages("Object");
        let expression = self.compile(&mutation[key], "expression", &path.child(key), &[wanted]);
        self.environment = before;
        Some(Mutation { is_json_patch, expression: expression? })
    }
}
