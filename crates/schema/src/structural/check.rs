//! Whether a JSON schema is structural: each field has a type, and what is said beside the structure does not add to it.

use serde_json::Value;

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// Something must be said.
    Required,
    /// Something may not be said.
    Forbidden,
    /// What is said does not fit.
    Invalid,
    /// What is said is not known.
    NotSupported,
}

/// One reason why a schema cannot be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What kind of problem it is.
    pub kind: ProblemKind,
    /// Path below the schema, as `properties[spec].type`.
    pub path: String,
    /// The value that is wrong.
    pub value: Value,
    /// Why.
    pub detail: String,
    /// Another path below the schema, with which the detail ends.
    pub elsewhere: Option<String>,
    /// What would be known.
    pub supported: &'static [&'static str],
}

/// Types a schema may name.
const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
/// Levels of nesting after which a schema is refused.
const MAX_DEPTH: usize = 64;

/// Everything that keeps a schema from being structural.
pub fn problems(schema: &Value) -> Vec<Problem> {
    let mut check = Check { found: Vec::new() };
    if schema["type"] != "object" {
        let kind = if schema["type"].is_string() { ProblemKind::Invalid } else { ProblemKind::Required };
        let detail =
            if kind == ProblemKind::Required { "must not be empty at the root" } else { "must be object at the root" };
        check.push(kind, "type", schema["type"].clone(), detail);
    }
    if schema["nullable"] == true {
        check.push(ProblemKind::Forbidden, "nullable", true.into(), "nullable cannot be true at the root");
    }
    check.node(schema, "", Level::Root, 0, Unions::All);
    check.complete(schema, Some(schema), "", "", 0);
    check.found
}

/// Which members of a union are looked at: those that say "a number or a text" may name types.
#[derive(Clone, Copy, PartialEq)]
enum Unions {
    All,
    NotAnyOf,
    NotAnyOfOfFirstAllOf,
}

/// Whether a union says that a value is a number or a text, in the only words for it.
fn is_int_or_string(union: &Value) -> bool {
    *union == serde_json::json!([{"type": "integer"}, {"type": "string"}])
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Field,
    Item,
    /// Of a union: values may be judged, the structure is fixed.
    Value,
}

struct Check {
    found: Vec<Problem>,
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn is_set(schema: &Value, field: &str) -> bool {
    match &schema[field] {
        // Any default is one.
        Value::Null => false,
        _ if field == "default" => true,
        Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty() || matches!(field, "items" | "additionalProperties"),
        _ => true,
    }
}

impl Check {
    fn push(&mut self, kind: ProblemKind, path: &str, value: Value, detail: &str) {
        let (path, detail) = (path.to_owned(), detail.to_owned());
        self.found.push(Problem { kind, path, value, detail, elsewhere: None, supported: &[] });
    }

    fn forbid(&mut self, schema: &Value, path: &str, field: &str, detail: &str) {
        if is_set(schema, field) {
            self.push(ProblemKind::Forbidden, &below(path, field), schema[field].clone(), detail);
        }
    }

    fn node(&mut self, schema: &Value, path: &str, level: Level, depth: usize, unions: Unions) {
        if depth > MAX_DEPTH {
            let detail = format!("must not be nested deeper than {MAX_DEPTH} levels");
            self.push(ProblemKind::Forbidden, path, Value::Null, &detail);
            return;
        }
        for field in ["definitions", "dependencies", "$ref", "patternProperties", "id", "$schema"] {
            let detail = if field == "$ref" { "$ref is not supported" } else { "must not be set" };
            self.forbid(schema, path, field, detail);
        }
        if schema["uniqueItems"] == true {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.push(ProblemKind::Forbidden, &below(path, "uniqueItems"), true.into(), detail);
        }
        if level == Level::Value {
            self.value_only(schema, path);
        } else {
            self.structure(schema, path, level);
        }
        let properties = schema["properties"].as_object();
        for (name, property) in properties.into_iter().flatten() {
            let path = below(path, &format!("properties[{name}]"));
            let level = if level == Level::Value { level } else { Level::Field };
            self.structured(property, &path, level, depth + 1);
        }
        if schema["items"].is_array() {
            let detail = "items must be a schema object and not an array";
            self.push(ProblemKind::Forbidden, &below(path, "items"), Value::Null, detail);
        }
        for field in ["items", "additionalProperties"].iter().filter(|field| schema[**field].is_object()) {
            let level = if level == Level::Value { level } else { Level::Item };
            self.structured(&schema[*field], &below(path, field), level, depth + 1);
        }
        for field in ["allOf", "anyOf", "oneOf"] {
            if field == "anyOf" && unions == Unions::NotAnyOf {
                continue;
            }
            for (index, member) in schema[field].as_array().into_iter().flatten().enumerate() {
                let first = field == "allOf" && index == 0 && unions == Unions::NotAnyOfOfFirstAllOf;
                let unions = if first { Unions::NotAnyOf } else { Unions::All };
                self.node(member, &below(path, &format!("{field}[{index}]")), Level::Value, depth + 1, unions);
            }
        }
        if schema["not"].is_object() {
            self.node(&schema["not"], &below(path, "not"), Level::Value, depth + 1, Unions::All);
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(error) = regex::RegexBuilder::new(pattern).size_limit(1 << 20).build()
        {
            let why = error.to_string();
            let why = format!("must be a valid regular expression, but isn't: {}", why.lines().last().unwrap_or(&why));
            self.push(ProblemKind::Invalid, &below(path, "pattern"), pattern.into(), &why);
        }
    }

    /// A field, or what is in a list or map.
    fn structured(&mut self, schema: &Value, path: &str, level: Level, depth: usize) {
        let unions = match level {
            Level::Value => Unions::All,
            _ if is_int_or_string(&schema["anyOf"]) => Unions::NotAnyOf,
            _ if is_int_or_string(&schema["allOf"][0]["anyOf"]) => Unions::NotAnyOfOfFirstAllOf,
            _ => Unions::All,
        };
        self.node(schema, path, level, depth, unions);
    }

    /// What unions say of fields and elements is only heard where the structure has them. `structure` is what the schema
    /// has at `at`, `path` is where the union speaks of it.
    fn complete(&mut self, union: &Value, structure: Option<&Value>, at: &str, path: &str, depth: usize) {
        // Deeper ones have been refused for it.
        if depth > MAX_DEPTH {
            return;
        }
        for field in ["allOf", "anyOf", "oneOf"] {
            for (index, member) in union[field].as_array().into_iter().flatten().enumerate() {
                self.said(member, structure, at, &below(path, &format!("{field}[{index}]")), depth + 1);
            }
        }
        if union["not"].is_object() {
            self.said(&union["not"], structure, at, &below(path, "not"), depth + 1);
        }
    }

    fn said(&mut self, member: &Value, structure: Option<&Value>, at: &str, path: &str, depth: usize) {
        let Some(structure) = structure else {
            self.found.push(Problem {
                kind: ProblemKind::Required,
                path: at.to_owned(),
                value: Value::Null,
                detail: "because it is defined in ".to_owned(),
                elsewhere: Some(path.to_owned()),
                supported: &[],
            });
            return;
        };
        self.complete(member, Some(structure), at, path, depth);
        if member["items"].is_object() {
            let items = structure.get("items").filter(|items| items.is_object());
            self.said(&member["items"], items, &below(at, "items"), &below(path, "items"), depth + 1);
        }
        for (name, property) in member["properties"].as_object().into_iter().flatten() {
            let name_at = format!("properties[{name}]");
            let known = structure["properties"].get(name);
            self.said(property, known, &below(at, &name_at), &below(path, &name_at), depth + 1);
        }
    }

    fn structure(&mut self, schema: &Value, path: &str, level: Level) {
        let preserve = schema["x-kubernetes-preserve-unknown-fields"] == true;
        let either = schema["x-kubernetes-int-or-string"] == true;
        let ty = schema["type"].as_str().unwrap_or_default();
        let at = below(path, "type");
        if !ty.is_empty() && !TYPES.contains(&ty) {
            self.found.push(Problem {
                kind: ProblemKind::NotSupported,
                path: at.clone(),
                value: ty.into(),
                detail: String::new(),
                elsewhere: None,
                supported: TYPES,
            });
        }
        if ty.is_empty() && !preserve && !either && level != Level::Root {
            let what = if level == Level::Item {
                "must not be empty for specified array items"
            } else {
                "must not be empty for specified object fields"
            };
            self.push(ProblemKind::Required, &at, Value::Null, what);
        }
        if either && !ty.is_empty() {
            self.push(ProblemKind::Forbidden, &at, ty.into(), "must be empty if x-kubernetes-int-or-string is true");
        }
        if preserve && !matches!(ty, "" | "object") {
            let detail = "must be object if x-kubernetes-preserve-unknown-fields is true";
            self.push(ProblemKind::Invalid, &at, ty.into(), detail);
        }
        if schema["x-kubernetes-preserve-unknown-fields"] == false {
            let at = below(path, "x-kubernetes-preserve-unknown-fields");
            self.push(ProblemKind::Invalid, &at, false.into(), "must be true or undefined");
        }
        if is_set(schema, "properties") && schema.get("additionalProperties").is_some_and(|v| !v.is_null()) {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.push(ProblemKind::Forbidden, &below(path, "additionalProperties"), Value::Null, detail);
        }
        if schema["additionalProperties"] == false {
            let detail = "additionalProperties cannot be set to false";
            self.push(ProblemKind::Forbidden, &below(path, "additionalProperties"), Value::Null, detail);
        }
        if ty == "array" && !schema["items"].is_object() && !schema["items"].is_array() {
            self.push(ProblemKind::Required, &below(path, "items"), Value::Null, "must be specified");
        }
        if schema["x-kubernetes-embedded-resource"] == true && level != Level::Root {
            if ty != "object" {
                let detail = "must be object if x-kubernetes-embedded-resource is true";
                self.push(ProblemKind::Invalid, &at, ty.into(), detail);
            }
            if !preserve && !is_set(schema, "properties") {
                let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                              x-kubernetes-preserve-unknown-fields";
                self.push(ProblemKind::Required, &below(path, "properties"), Value::Null, detail);
            }
        }
        self.lists(schema, path, ty);
        if level == Level::Root {
            self.metadata(&schema["properties"]["metadata"], &below(path, "properties[metadata]"));
        }
    }

    fn lists(&mut self, schema: &Value, path: &str, ty: &str) {
        let keys = schema["x-kubernetes-list-map-keys"].as_array().map_or(&[][..], Vec::as_slice);
        let at = below(path, "x-kubernetes-list-map-keys");
        if let Some(list) = schema["x-kubernetes-list-type"].as_str() {
            let list_at = below(path, "x-kubernetes-list-type");
            if ty != "array" {
                let detail = "must be array if x-kubernetes-list-type is specified";
                self.push(ProblemKind::Invalid, &below(path, "type"), ty.into(), detail);
            }
            match list {
                "map" => {
                    if keys.is_empty() {
                        let detail = "must not be empty if x-kubernetes-list-type is map";
                        self.push(ProblemKind::Required, &at, Value::Null, detail);
                    }
                    let items = &schema["items"];
                    if items["type"] != "object" {
                        let detail = "must be object if parent array's x-kubernetes-list-type is map";
                        self.push(ProblemKind::Invalid, &below(path, "items.type"), items["type"].clone(), detail);
                    }
                    let required: Vec<&str> =
                        items["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                    for key in keys.iter().filter_map(Value::as_str) {
                        let property = &items["properties"][key];
                        if !property.is_object() {
                            let detail = "entries must all be names of item properties";
                            self.push(ProblemKind::Invalid, &at, key.into(), detail);
                        } else if !required.contains(&key) && property["default"].is_null() {
                            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                                          property";
                            let at = below(path, &format!("items.properties[{key}].default"));
                            self.push(ProblemKind::Required, &at, Value::Null, detail);
                        }
                    }
                }
                "atomic" | "set" => {}
                other => self.found.push(Problem {
                    kind: ProblemKind::NotSupported,
                    path: list_at,
                    value: other.into(),
                    detail: String::new(),
                    elsewhere: None,
                    supported: &["atomic", "set", "map"],
                }),
            }
        } else if !keys.is_empty() {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.push(ProblemKind::Required, &below(path, "x-kubernetes-list-type"), Value::Null, detail);
        }
        if let Some(map) = schema["x-kubernetes-map-type"].as_str()
            && !matches!(map, "atomic" | "granular")
        {
            self.found.push(Problem {
                kind: ProblemKind::NotSupported,
                path: below(path, "x-kubernetes-map-type"),
                value: map.into(),
                detail: String::new(),
                elsewhere: None,
                supported: &["atomic", "granular"],
            });
        }
    }

    /// Of the metadata at the root only the names may be restricted.
    fn metadata(&mut self, metadata: &Value, path: &str) {
        if metadata.is_null() {
            return;
        }
        let named = |key: &String| matches!(key.as_str(), "type" | "description" | "properties" | "title");
        let fields = metadata.as_object().into_iter().flatten().any(|(key, _)| !named(key));
        let inner = metadata["properties"].as_object().into_iter().flatten();
        if fields || inner.into_iter().any(|(name, _)| !matches!(name.as_str(), "name" | "generateName")) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly \
                          specified";
            self.push(ProblemKind::Forbidden, path, Value::Null, detail);
        }
    }

    fn value_only(&mut self, schema: &Value, path: &str) {
        for field in ["type", "title", "description"] {
            self.forbid(schema, path, field, "must be empty to be structural");
        }
        for field in ["additionalProperties", "default"] {
            self.forbid(schema, path, field, "must be undefined to be structural");
        }
        for field in [
            "nullable",
            "x-kubernetes-preserve-unknown-fields",
            "x-kubernetes-embedded-resource",
            "x-kubernetes-int-or-string",
        ] {
            self.forbid(schema, path, field, "must be false to be structural");
        }
        for field in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
            self.forbid(schema, path, field, "must be undefined to be structural");
        }
        // Rules stand beside the structure alone: not even `allOf` may hold any.
        for field in ["x-kubernetes-list-map-keys", "x-kubernetes-validations"] {
            self.forbid(schema, path, field, "must be empty to be structural");
        }
        if schema["properties"].get("metadata").is_some() {
            let at = below(path, "properties[metadata]");
            self.push(ProblemKind::Forbidden, &at, Value::Null, "must not be specified in a nested context");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said_of(problem: &Problem) -> String {
        let elsewhere = problem.elsewhere.as_deref().unwrap_or_default();
        format!("{:?} {}: {}{elsewhere}", problem.kind, problem.path, problem.detail)
    }

    fn said(schema: Value) -> Vec<String> {
        problems(&schema).iter().map(said_of).collect()
    }

    #[test]
    fn what_has_no_type_is_not_structural() {
        assert!(said(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).is_empty());
        assert_eq!(said(json!({})), ["Required type: must not be empty at the root"]);
        assert_eq!(
            said(json!({"type": "object", "properties": {"spec": {"properties": {"a": {"type": "array"}}}}})),
            [
                "Required properties[spec].type: must not be empty for specified object fields",
                "Required properties[spec].properties[a].items: must be specified"
            ]
        );
        assert_eq!(
            said(
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}})
            ),
            [
                "Forbidden properties[metadata]: must not specify anything other than name and generateName, but metadata is implicitly specified"
            ]
        );
        assert_eq!(said(json!({"type": "object", "properties": {"p": {"type": "string", "pattern": "("}}})).len(), 1);
        assert!(
            said(json!({"type": "object", "properties": {"p": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}))
                .is_empty()
        );
    }

    #[test]
    fn rules_and_types_stand_beside_the_structure_and_not_in_unions() {
        let rule = json!([{"rule": "true"}]);
        let with = |unions: Value| {
            let mut schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
            schema.as_object_mut().expect("object").extend(unions.as_object().cloned().expect("object"));
            said(schema)
        };
        for path in ["allOf[0]", "anyOf[0]", "oneOf[0]", "not"] {
            let member = json!({"properties": {"a": {"x-kubernetes-validations": rule.clone(), "default": false}}});
            let unions = match path.strip_suffix("[0]") {
                Some(field) => json!({field: [member]}),
                None => json!({path: member}),
            };
            assert_eq!(
                with(unions),
                [
                    format!("Forbidden {path}.properties[a].default: must be undefined to be structural"),
                    format!("Forbidden {path}.properties[a].x-kubernetes-validations: must be empty to be structural"),
                ]
            );
        }
        assert_eq!(
            with(json!({"anyOf": [{"type": "object", "nullable": true}], "not": {"properties": {"metadata": {}}}})),
            [
                "Forbidden anyOf[0].type: must be empty to be structural",
                "Forbidden anyOf[0].nullable: must be false to be structural",
                "Forbidden not.properties[metadata]: must not be specified in a nested context",
                "Required properties[metadata]: because it is defined in not.properties[metadata]",
            ]
        );
    }

    #[test]
    fn what_a_union_speaks_of_is_in_the_structure() {
        let schema = |member: Value| {
            let properties =
                json!({"a": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "string"}}}}});
            json!({"type": "object", "properties": properties, "oneOf": [{"allOf": [member]}]})
        };
        let fits = json!({"properties": {"a": {"items": {"properties": {"b": {"maxLength": 3}}, "required": ["b"]}}}});
        assert!(said(schema(fits)).is_empty());
        assert_eq!(
            said(schema(json!({"properties": {"a": {"items": {"items": {}, "properties": {"c": {}}}}}, "items": {}}))),
            [
                "Required items: because it is defined in oneOf[0].allOf[0].items",
                "Required properties[a].items.items: because it is defined in oneOf[0].allOf[0].properties[a].items.items",
                "Required properties[a].items.properties[c]: because it is defined in \
                 oneOf[0].allOf[0].properties[a].items.properties[c]",
            ]
        );
        // Two forms may name types: they say that a value is a number or a text.
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        let field = |field: Value| said(json!({"type": "object", "properties": {"p": field}}));
        assert!(field(json!({"x-kubernetes-int-or-string": true, "anyOf": either.clone()})).is_empty());
        let all = json!([{"anyOf": either.clone()}, {"pattern": "a"}]);
        assert!(field(json!({"x-kubernetes-int-or-string": true, "allOf": all})).is_empty());
        assert_eq!(field(json!({"x-kubernetes-int-or-string": true, "oneOf": either})).len(), 2);
    }
}
