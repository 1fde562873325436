//! Values judged by a structural schema, in the words of upstream's validator, for which people search.

use regex::Regex;
use serde_json::{Map, Value};

use super::{Kind, Structural, format};

/// How many bytes of automaton a pattern may take.
const PATTERN_BYTES: usize = 1 << 20;

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationKind {
    /// A field that must be there is missing.
    Required,
    /// The value does not fit.
    Invalid,
    /// The value is of another type.
    TypeInvalid,
    /// The value is not one of a set.
    NotSupported,
    /// The text is too long.
    TooLong,
    /// There are too many.
    TooMany,
    /// The value is there already.
    Duplicate,
}

/// A step from an object or a list to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field.
    Field(String),
    /// A key of a map.
    Key(String),
    /// An element.
    Index(usize),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// What kind of mistake it is.
    pub kind: ViolationKind,
    /// Where it is.
    pub steps: Vec<Step>,
    /// The value, where the message shows it.
    pub value: Option<Value>,
    /// What is wrong, or what would be right.
    pub detail: String,
    /// The values that are supported, the limit, or nothing.
    pub supported: Vec<String>,
    /// The limit that is passed.
    pub limit: usize,
}

impl Violation {
    /// JSON pointer of the value that the judgement rests on: of a missing field, the object without it.
    pub fn judged(&self) -> String {
        let count = self.steps.len() - usize::from(self.kind == ViolationKind::Required && !self.steps.is_empty());
        self.steps[..count]
            .iter()
            .map(|step| match step {
                Step::Field(name) | Step::Key(name) => format!("/{}", name.replace('~', "~0").replace('/', "~1")),
                Step::Index(index) => format!("/{index}"),
            })
            .collect()
    }
}

/// What a schema asks of a value beyond its structure; of the members of a union, their structure too.
#[derive(Debug, Default)]
pub(super) struct Rules {
    enumeration: Option<Vec<Value>>,
    format: Option<String>,
    pattern: Option<(String, Option<Regex>)>,
    maximum: Option<(f64, bool)>,
    minimum: Option<(f64, bool)>,
    multiple_of: Option<f64>,
    lengths: (Option<u64>, Option<u64>),
    items: (Option<u64>, Option<u64>),
    properties: (Option<u64>, Option<u64>),
    unique: bool,
    required: Vec<String>,
    all_of: Vec<Structural>,
    any_of: Vec<Structural>,
    one_of: Vec<Structural>,
    not: Option<Box<Structural>>,
}

impl Rules {
    pub(super) fn of(schema: &Value) -> Self {
        let number = |field: &str| schema[field].as_f64();
        let count = |field: &str| schema[field].as_u64();
        let schemas =
            |field: &str| schema[field].as_array().into_iter().flatten().map(Structural::of).collect::<Vec<_>>();
        let required = schema["required"].as_array().into_iter().flatten();
        Self {
            enumeration: schema["enum"].as_array().filter(|list| !list.is_empty()).cloned(),
            format: schema["format"].as_str().map(str::to_owned),
            pattern: schema["pattern"]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(|text| (text.to_owned(), regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES).build().ok())),
            maximum: number("maximum").map(|limit| (limit, schema["exclusiveMaximum"] == true)),
            minimum: number("minimum").map(|limit| (limit, schema["exclusiveMinimum"] == true)),
            multiple_of: number("multipleOf").filter(|of| *of != 0.0),
            lengths: (count("minLength"), count("maxLength")),
            items: (count("minItems"), count("maxItems")),
            properties: (count("minProperties"), count("maxProperties")),
            unique: schema["uniqueItems"] == true,
            required: required.filter_map(Value::as_str).map(str::to_owned).collect(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: schema["not"].is_object().then(|| Box::new(Structural::of(&schema["not"]))),
        }
    }
}

/// Judges a whole object. Its metadata, name and kind are judged elsewhere.
pub(super) fn object(schema: &Structural, value: &Value, found: &mut Vec<Violation>) {
    Judge { steps: Vec::new(), found }.value(schema, value);
}

struct Judge<'f> {
    steps: Vec<Step>,
    found: &'f mut Vec<Violation>,
}

impl Judge<'_> {
    /// The path as upstream's sentences name it.
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.steps {
            match step {
                Step::Field(name) | Step::Key(name) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(name);
                }
                Step::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        if path.is_empty() { "<nil>".to_owned() } else { path }
    }

    fn push(&mut self, kind: ViolationKind, value: Option<Value>, detail: String) {
        let steps = self.steps.clone();
        self.found.push(Violation { kind, steps, value, detail, supported: Vec::new(), limit: 0 });
    }

    fn invalid(&mut self, value: &Value, why: &str) {
        let detail = format!("{} in body should {why}", self.path());
        self.push(ViolationKind::Invalid, Some(value.clone()), detail);
    }

    fn too(&mut self, kind: ViolationKind, value: Value, limit: u64) {
        self.push(kind, Some(value), String::new());
        if let Some(last) = self.found.last_mut() {
            last.limit = usize::try_from(limit).unwrap_or(usize::MAX);
        }
    }

    fn within(&mut self, step: Step, schema: &Structural, value: &Value) {
        self.steps.push(step);
        self.value(schema, value);
        self.steps.pop();
    }

    fn value(&mut self, schema: &Structural, value: &Value) {
        if value.is_null() && (schema.nullable || (schema.kind == Kind::Any && !schema.int_or_string)) {
            return;
        }
        if let Some(wanted) = mismatch(schema, value) {
            let is = type_name(value);
            let detail = format!("{} in body must be of type {wanted}: {is:?}", self.path());
            self.push(ViolationKind::TypeInvalid, Some(is.into()), detail);
            return;
        }
        let rules = &schema.rules;
        match value {
            Value::String(text) => self.text(rules, value, text),
            Value::Number(number) => self.number(rules, value, number.as_f64().unwrap_or(0.0)),
            Value::Array(list) => self.list(schema, value, list),
            Value::Object(map) => self.map(schema, value, map),
            _ => {}
        }
        if let Some(supported) = &rules.enumeration
            && !supported.iter().any(|one| same(one, value))
        {
            let shown = value.as_str().map_or_else(|| value.clone(), Value::from);
            self.push(ViolationKind::NotSupported, Some(shown), String::new());
            if let Some(last) = self.found.last_mut() {
                last.supported =
                    supported.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
            }
        }
        self.unions(rules, value);
    }

    fn text(&mut self, rules: &Rules, value: &Value, text: &str) {
        let length = text.chars().count() as u64;
        if let (_, Some(most)) = rules.lengths
            && length > most
        {
            self.too(ViolationKind::TooLong, value.clone(), most);
        }
        if let (Some(least), _) = rules.lengths
            && length < least
        {
            self.invalid(value, &format!("be at least {least} chars long"));
        }
        if let Some((pattern, regex)) = &rules.pattern
            && !regex.as_ref().is_some_and(|regex| regex.is_match(text))
        {
            self.invalid(value, &format!("match '{pattern}'"));
        }
        if let Some(name) = &rules.format
            && !format::fits(name, text)
        {
            let detail = format!("{} in body must be of type {name}: {text:?}", self.path());
            self.push(ViolationKind::Invalid, Some(value.clone()), detail);
        }
    }

    fn number(&mut self, rules: &Rules, value: &Value, number: f64) {
        match rules.maximum {
            Some((limit, true)) if number >= limit => self.invalid(value, &format!("be less than {}", plain(limit))),
            Some((limit, false)) if number > limit => {
                self.invalid(value, &format!("be less than or equal to {}", plain(limit)));
            }
            _ => {}
        }
        match rules.minimum {
            Some((limit, true)) if number <= limit => self.invalid(value, &format!("be greater than {}", plain(limit))),
            Some((limit, false)) if number < limit => {
                self.invalid(value, &format!("be greater than or equal to {}", plain(limit)));
            }
            _ => {}
        }
        if let Some(of) = rules.multiple_of
            && (number / of).fract() != 0.0
        {
            self.invalid(value, &format!("be a multiple of {}", plain(of)));
        }
        let fits = match rules.format.as_deref() {
            Some("int32") => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Some("int64") => value.as_i64().is_some(),
            _ => true,
        };
        if !fits {
            let name = rules.format.as_deref().unwrap_or_default();
            let detail = format!("{} in body must be of type {name}: {value}", self.path());
            self.push(ViolationKind::Invalid, Some(value.clone()), detail);
        }
    }

    fn list(&mut self, schema: &Structural, value: &Value, list: &[Value]) {
        let count = list.len() as u64;
        if let (_, Some(most)) = schema.rules.items
            && count > most
        {
            self.too(ViolationKind::TooMany, count.into(), most);
        }
        if let (Some(least), _) = schema.rules.items
            && count < least
        {
            self.invalid(value, &format!("have at least {least} items"));
        }
        if schema.rules.unique && (1..list.len()).any(|at| list[..at].contains(&list[at])) {
            self.invalid(value, "have unique items");
        }
        self.sets(schema, list);
        if let Some(items) = &schema.items {
            for (index, item) in list.iter().enumerate() {
                self.within(Step::Index(index), items, item);
            }
        }
    }

    /// Elements of lists that are sets or maps occur once.
    fn sets(&mut self, schema: &Structural, list: &[Value]) {
        let key_of = |item: &Value| match schema.list_type.as_deref() {
            Some("set") => Some(item.clone()),
            Some("map") => {
                let keys = schema.list_map_keys.iter();
                let pairs: Map<String, Value> =
                    keys.filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone()))).collect();
                Some(Value::Object(pairs))
            }
            _ => None,
        };
        let mut seen: Vec<Value> = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let Some(key) = key_of(item) else { return };
            if seen.contains(&key) {
                self.steps.push(Step::Index(index));
                self.push(ViolationKind::Duplicate, Some(key), String::new());
                self.steps.pop();
            } else {
                seen.push(key);
            }
        }
    }

    fn map(&mut self, schema: &Structural, value: &Value, map: &Map<String, Value>) {
        let count = map.len() as u64;
        if let (_, Some(most)) = schema.rules.properties
            && count > most
        {
            self.too(ViolationKind::TooMany, count.into(), most);
        }
        if let (Some(least), _) = schema.rules.properties
            && count < least
        {
            self.invalid(value, &format!("have at least {least} properties"));
        }
        for name in schema.rules.required.iter().filter(|name| !map.contains_key(*name)) {
            self.steps.push(Step::Field(name.clone()));
            self.push(ViolationKind::Required, None, String::new());
            self.steps.pop();
        }
        if schema.embedded {
            for name in ["apiVersion", "kind"].iter().filter(|name| !map.get(**name).is_some_and(Value::is_string)) {
                self.steps.push(Step::Field((*name).to_owned()));
                self.push(ViolationKind::Required, None, "must not be empty".to_owned());
                self.steps.pop();
            }
        }
        let whole = self.steps.is_empty() || schema.embedded;
        for (name, value) in map {
            if whole && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            match (schema.properties.get(name), &schema.values) {
                (Some(member), _) => self.within(Step::Field(name.clone()), member, value),
                (None, Some(values)) => self.within(Step::Key(name.clone()), values, value),
                (None, None) => {}
            }
        }
    }

    fn unions(&mut self, rules: &Rules, value: &Value) {
        for schema in &rules.all_of {
            self.value(schema, value);
        }
        let fits = |judge: &Self, schema: &Structural| {
            let mut found = Vec::new();
            Judge { steps: judge.steps.clone(), found: &mut found }.value(schema, value);
            found.is_empty()
        };
        if !rules.any_of.is_empty() && !rules.any_of.iter().any(|schema| fits(self, schema)) {
            self.union(value, "must validate at least one schema (anyOf)");
        }
        let count = rules.one_of.iter().filter(|schema| fits(self, schema)).count();
        if !rules.one_of.is_empty() && count != 1 {
            let which =
                if count == 0 { "Found none valid".to_owned() } else { format!("Found {count} valid alternatives") };
            self.union(value, &format!("must validate one and only one schema (oneOf). {which}"));
        }
        if let Some(schema) = &rules.not
            && fits(self, schema)
        {
            self.union(value, "must not validate the schema (not)");
        }
    }

    fn union(&mut self, value: &Value, why: &str) {
        let path = if self.steps.is_empty() { String::new() } else { self.path() };
        self.push(ViolationKind::Invalid, Some(value.clone()), format!("{path:?} {why}"));
    }
}

/// What the value would have to be, if it is something else.
fn mismatch(schema: &Structural, value: &Value) -> Option<&'static str> {
    if schema.int_or_string {
        let fits = value.is_string() || is_whole(value);
        return (!fits).then_some("integer,string");
    }
    let (fits, name) = match schema.kind {
        Kind::Any => (true, ""),
        Kind::Object => (value.is_object(), "object"),
        Kind::Array => (value.is_array(), "array"),
        Kind::String => (value.is_string(), "string"),
        Kind::Integer => (is_whole(value), "integer"),
        Kind::Number => (value.is_number(), "number"),
        Kind::Boolean => (value.is_boolean(), "boolean"),
    };
    (!fits).then_some(name)
}

fn is_whole(value: &Value) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_whole(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Equality in which `1` and `1.0` are one number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

/// A number without `.0`.
fn plain(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.0}") } else { number.to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(schema: Value, value: Value) -> Vec<String> {
        let schema = Structural::of(&json!({"type": "object", "properties": {"v": schema}}));
        let found = schema.validate(&json!({"v": value}));
        found.iter().map(|v| format!("{:?} {}{}", v.kind, v.detail, v.supported.join(","))).collect()
    }

    #[test]
    fn values_are_judged_in_upstreams_words() {
        for (schema, value, expected) in [
            (json!({"type": "string"}), json!(1), "TypeInvalid v in body must be of type string: \"integer\""),
            (json!({"type": "integer"}), json!(null), "TypeInvalid v in body must be of type integer: \"null\""),
            (
                json!({"type": "integer", "maximum": 10}),
                json!(11),
                "Invalid v in body should be less than or equal to 10",
            ),
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "Invalid v in body should be greater than or equal to 1",
            ),
            (json!({"type": "string", "pattern": "^a+$"}), json!("b"), "Invalid v in body should match '^a+$'"),
            (
                json!({"type": "string", "minLength": 2}),
                json!("b"),
                "Invalid v in body should be at least 2 chars long",
            ),
            (json!({"type": "string", "enum": ["a", "b"]}), json!("c"), "NotSupported a,b"),
            (json!({"type": "string", "maxLength": 2}), json!("abc"), "TooLong "),
            (json!({"type": "array", "maxItems": 1, "items": {"type": "string"}}), json!(["a", "b"]), "TooMany "),
            (
                json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}),
                json!(["a", "a"]),
                "Duplicate ",
            ),
            (json!({"type": "object", "required": ["a"]}), json!({}), "Required "),
            (
                json!({"x-kubernetes-int-or-string": true}),
                json!(true),
                "TypeInvalid v in body must be of type integer,string: \"boolean\"",
            ),
            (
                json!({"type": "string", "format": "date-time"}),
                json!("x"),
                "Invalid v in body must be of type date-time: \"x\"",
            ),
            (
                json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}),
                json!({}),
                "Invalid \"v\" must validate one and only one schema (oneOf). Found none valid",
            ),
            (
                json!({"type": "object", "anyOf": [{"required": ["a"]}]}),
                json!({}),
                "Invalid \"v\" must validate at least one schema (anyOf)",
            ),
            (
                json!({"type": "object", "not": {"required": ["a"]}}),
                json!({"a": 1}),
                "Invalid \"v\" must not validate the schema (not)",
            ),
        ] {
            assert_eq!(said(schema.clone(), value.clone()), [expected], "{schema} {value}");
        }
        assert!(said(json!({"type": "string", "nullable": true}), json!(null)).is_empty());
        assert!(said(json!({"type": "number"}), json!(1)).is_empty());
    }

    #[test]
    fn what_was_wrong_before_is_not_held_against_a_change() {
        let schema = Structural::of(&json!({"type": "object", "properties": {
            "a": {"type": "string", "maxLength": 1}, "b": {"type": "string"},
            "c": {"type": "object", "required": ["d"], "properties": {"d": {"type": "string"}, "e": {"type": "string"}}}}}));
        let old = json!({"a": "long", "b": "1", "c": {}});
        assert!(schema.validate_change(&json!({"a": "long", "b": "2", "c": {}}), &old).is_empty());
        assert_eq!(schema.validate_change(&json!({"a": "longer", "b": "1", "c": {}}), &old).len(), 1);
        assert_eq!(schema.validate_change(&json!({"a": "long", "b": "1", "c": {"e": "1"}}), &old).len(), 1);
    }
}
