//! Compiles the validation rules of a structural schema (`x-kubernetes-validations`) and says what is wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use expressions::{Declaration, Environment, Program, Type};
use object_model::{FieldError, FieldPath};
use serde_json::Value;

use super::declare::{Declared, MAX_REQUEST, declare, embedded};
use super::{ESTIMATED_LIMIT, ESTIMATED_TOTAL_LIMIT, Mistake, compile_to, field_path, has_line_breaks};

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
/// How many rules are named if all together are too expensive.
const MOST_EXPENSIVE: usize = 4;

/// All rules of a schema, ready to be evaluated.
#[derive(Debug, Clone)]
pub struct CompiledRules {
    /// `None` if there is no rule at all.
    pub(super) root: Option<Arc<Node>>,
}

/// The rules at one place of a schema, and below it. Places without any are left out.
#[derive(Debug)]
pub(super) struct Node {
    pub rules: Vec<Rule>,
    /// What expressions see here; without it there are no rules.
    pub declaration: Option<Declared>,
    /// The schema's type, which messages show instead of the value.
    pub ty: String,
    pub properties: BTreeMap<String, Self>,
    pub items: Option<Box<Self>>,
    pub additional: Option<Box<Self>>,
    pub list: ListIdentity,
}

/// How the elements of a list are found in the old one.
#[derive(Debug, PartialEq)]
pub(super) enum ListIdentity {
    /// Not at all.
    Atomic,
    /// The same value.
    Set,
    /// By these keys, which may have defaults.
    Map(Vec<(String, Option<Value>)>),
}

#[derive(Debug)]
pub(super) struct Rule {
    pub program: Program,
    pub text: String,
    pub message: String,
    pub message_program: Option<Program>,
    pub message_text: String,
    pub reason: String,
    /// Below the place of the rule; empty for the place itself.
    pub field_path: FieldPath,
    pub uses_old: bool,
    pub optional_old: bool,
}

impl std::fmt::Debug for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.declaration.ty())
    }
}

/// What is handed down on the walk through a schema.
#[derive(Clone)]
struct Place {
    path: FieldPath,
    /// How often the place may occur in an object; `None` without a bound.
    cardinality: Option<u64>,
    /// The list above whose elements have no counterpart in the old object.
    uncorrelatable: Option<FieldPath>,
    resource: bool,
}

#[derive(Default)]
struct Compiler {
    /// Mistakes that keep rules from being compiled at all, here and above.
    shape: Vec<FieldError>,
    errors: Vec<FieldError>,
    total: u64,
    expensive: Vec<(u64, FieldPath)>,
}

/// Compiles all rules of the schema of a resource. `path` is that of the schema, for errors.
pub fn compile(schema: &Value, path: &FieldPath) -> (CompiledRules, Vec<FieldError>) {
    let mut compiler = Compiler::default();
    let place = Place { path: path.clone(), cardinality: Some(1), uncorrelatable: None, resource: true };
    let root = compiler.node(schema, &place);
    let mut errors = compiler.shape;
    errors.append(&mut compiler.errors);
    if compiler.total > ESTIMATED_TOTAL_LIMIT {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errors.extend(compiler.expensive.iter().map(|(_, path)| FieldError::forbidden(path, detail)));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.push(FieldError::forbidden(path, excess(what, compiler.total, ESTIMATED_TOTAL_LIMIT)));
    }
    (CompiledRules { root: root.map(Arc::new) }, errors)
}

fn excess(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        _ if factor > 100.0 => "more than 100x".to_owned(),
        // Never by a factor of 1.0.
        _ if factor < 1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

impl Compiler {
    /// The rules of a schema and of what is below it.
    fn node(&mut self, schema: &Value, place: &Place) -> Option<Node> {
        let wrong_before = self.shape.len();
        let mut properties = BTreeMap::new();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let below =
                Place { path: place.path.child("properties").key(name), resource: embedded(property), ..place.clone() };
            properties.extend(self.node(property, &below).map(|node| (name.clone(), node)));
        }
        let additional = schema
            .get("additionalProperties")
            .filter(|values| values.is_object())
            .and_then(|values| self.node(values, &place.many(schema, "additionalProperties", "maxProperties", values)));
        let list = list_identity(schema);
        let items = schema.get("items").and_then(|items| {
            let mut below = place.many(schema, "items", "maxItems", items);
            if !matches!(list, ListIdentity::Map(_)) {
                below.uncorrelatable.get_or_insert_with(|| place.path.clone());
            }
            self.node(items, &below)
        });
        let given = schema["x-kubernetes-validations"].as_array().map_or(&[][..], Vec::as_slice);
        for (n, rule) in given.iter().enumerate() {
            self.check_shape(rule, schema, &place.path.child("x-kubernetes-validations").index(n));
        }
        let declared = (!given.is_empty()).then(|| declare(schema, "self", place.resource)).flatten();
        let mut rules = Vec::new();
        // What is wrong with the form of rules at or below this place comes first: the rest may follow from it.
        if self.shape.len() == wrong_before && !given.is_empty() {
            match &declared {
                None => self.errors.push(FieldError::invalid(
                    &place.path.child("x-kubernetes-validations"),
                    schema["type"].clone(),
                    "rules are not allowed where expressions do not see the data",
                )),
                Some(declared) => {
                    for (n, rule) in given.iter().enumerate() {
                        let path = place.path.child("x-kubernetes-validations").index(n);
                        rules.extend(self.rule(rule, schema, declared, place, &path));
                    }
                }
            }
        }
        let ty = schema["type"].as_str().unwrap_or("").to_owned();
        let empty = rules.is_empty() && properties.is_empty() && items.is_none() && additional.is_none();
        let (items, additional) = (items.map(Box::new), additional.map(Box::new));
        (!empty).then_some(Node { rules, declaration: declared, ty, properties, items, additional, list })
    }

    /// What can be said of a rule without compiling it.
    fn check_shape(&mut self, rule: &Value, schema: &Value, path: &FieldPath) {
        let text = |key: &str| rule[key].as_str().unwrap_or("");
        let (expression, message) = (text("rule").trim(), text("message"));
        let errors = &mut self.shape;
        if expression.is_empty() {
            errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            let detail = "message must be non-empty if specified";
            errors.push(FieldError::invalid(&path.child("message"), message, detail));
        } else if message.len() > 2048 {
            let detail = "message must have a maximum length of 2048 characters";
            let start: String = message.chars().take(10).collect();
            errors.push(FieldError::invalid(&path.child("message"), format!("{start}..."), detail));
        } else if has_line_breaks(message.trim()) {
            let detail = "message must not contain line breaks";
            errors.push(FieldError::invalid(&path.child("message"), message, detail));
        } else if has_line_breaks(expression) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(&path.child("message"), detail));
        }
        if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(&path.child("messageExpression"), detail));
        }
        if let Some(reason) = rule["reason"].as_str()
            && !REASONS.contains(&reason)
        {
            errors.push(FieldError::not_supported(&path.child("reason"), reason, &REASONS));
        }
        let target = text("fieldPath");
        if !target.is_empty() {
            let path = path.child("fieldPath");
            if target.trim().is_empty() {
                errors.push(FieldError::invalid(&path, target, "fieldPath must be non-empty if specified"));
            }
            if has_line_breaks(target) {
                errors.push(FieldError::invalid(&path, target, "fieldPath must not contain line breaks"));
            }
            if let Err(problem) = field_path::parse(target, schema) {
                let detail = format!("fieldPath must be a valid path: {problem}");
                errors.push(FieldError::invalid(&path, target, detail));
            }
        }
    }

    fn rule(
        &mut self,
        rule: &Value,
        schema: &Value,
        declared: &Declared,
        place: &Place,
        path: &FieldPath,
    ) -> Option<Rule> {
        let text = |key: &str| rule[key].as_str().unwrap_or("").to_owned();
        let optional_old = rule["optionalOldSelf"] == true;
        let old = declared.declaration.clone();
        let environment = Environment::new()
            .with("self", declared.declaration.clone())
            .with("oldSelf", if optional_old { old.optional() } else { old });
        let (expression, message_text) = (text("rule"), text("messageExpression"));
        let program = match compile_to(&expression, &environment, &[Type::Bool]) {
            Ok(program) => program,
            Err(mistake) => {
                let problem = match mistake {
                    Mistake::Output(_) => "cel expression must evaluate to a bool".to_owned(),
                    mistake => mistake.to_string(),
                };
                self.errors.push(FieldError::invalid(&path.child("rule"), rule.clone(), problem));
                return None;
            }
        };
        let times = place.cardinality.unwrap_or(MAX_REQUEST / (declared.min_size + 1));
        let cost = program.estimate().max.saturating_mul(times);
        self.observe("estimated rule cost", cost, &path.child("rule"));
        let message_program = if message_text.is_empty() {
            None
        } else {
            let path = path.child("messageExpression");
            match compile_to(&message_text, &environment, &[Type::String]) {
                Ok(program) => {
                    self.observe("estimated messageExpression cost", program.estimate().max, &path);
                    Some(program)
                }
                Err(mistake) => {
                    let problem = match mistake {
                        Mistake::Output(_) => "must evaluate to a string".to_owned(),
                        mistake => mistake.to_string(),
                    };
                    self.errors.push(FieldError::invalid(&path, rule.clone(), format!("messageExpression {problem}")));
                    None
                }
            }
        };
        let uses_old = program.uses("oldSelf");
        match (&place.uncorrelatable, uses_old) {
            (Some(within), true) => {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {within}");
                self.errors.push(FieldError::invalid(&path.child("rule"), expression.clone(), detail));
            }
            (_, false) if !rule["optionalOldSelf"].is_null() => {
                let detail = "may not be set if oldSelf is not used in rule";
                let given = rule["optionalOldSelf"].clone();
                self.errors.push(FieldError::invalid(&path.child("optionalOldSelf"), given, detail));
            }
            _ => {}
        }
        // The form has been checked, so that a path is there.
        let field_path = field_path::parse(&text("fieldPath"), schema).unwrap_or_default();
        Some(Rule {
            program,
            text: expression,
            message: text("message"),
            message_program,
            message_text,
            reason: text("reason"),
            field_path,
            uses_old,
            optional_old,
        })
    }

    fn observe(&mut self, what: &str, cost: u64, path: &FieldPath) {
        if cost > ESTIMATED_LIMIT {
            self.errors.push(FieldError::forbidden(path, excess(what, cost, ESTIMATED_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        // What is less than a hundredth of the limit is not worth naming.
        if cost >= ESTIMATED_TOTAL_LIMIT / 100 {
            self.expensive.push((cost, path.clone()));
            self.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
            self.expensive.truncate(MOST_EXPENSIVE);
        }
    }
}

impl Place {
    /// The place of all elements of a list or map.
    fn many(&self, schema: &Value, below: &str, bound: &str, element: &Value) -> Self {
        let most = schema[bound].as_i64().map(|most| u64::try_from(most).unwrap_or(0));
        Self {
            path: self.path.child(below),
            cardinality: self.cardinality.zip(most).map(|(all, most)| all.saturating_mul(most)),
            uncorrelatable: self.uncorrelatable.clone(),
            resource: embedded(element),
        }
    }
}

fn list_identity(schema: &Value) -> ListIdentity {
    match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => ListIdentity::Set,
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            let keys = keys.filter_map(Value::as_str).map(|key| {
                let default = schema["items"]["properties"].get(key).and_then(|property| property.get("default"));
                (key.to_owned(), default.cloned())
            });
            ListIdentity::Map(keys.collect())
        }
        _ => ListIdentity::Atomic,
    }
}

impl Node {
    /// What expressions see here.
    pub fn declaration(&self) -> Option<&Declaration> {
        self.declaration.as_ref().map(|declared| &declared.declaration)
    }
}
