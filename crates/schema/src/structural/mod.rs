//! Structural schemas: what a CustomResourceDefinition says of its objects. The same three questions are asked of them as
//! of the table of built-in types: which fields are there, what is their default, and how are they merged.
//!
//! [`Structural`] is made once from the definition's JSON schema. [`Structural::prune`] takes out what it does not
//! specify, [`Structural::default`] sets defaults, [`Structural::validate`] judges values. Whether a schema may be used at
//! all is said by [`problems`].

mod check;
mod format;
mod validate;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::table::{Type, type_named};

pub use check::{Problem, ProblemKind, problems};
pub use format::is_known as is_known_format;
pub use validate::{Step, Violation, ViolationKind};

use validate::Rules;

/// What a value is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    Any,
    /// An object.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// true or false.
    Boolean,
}

/// One node of a structural schema.
#[derive(Debug)]
pub struct Structural {
    /// What the value is to be.
    pub kind: Kind,
    /// Whether null is a value as well.
    pub nullable: bool,
    /// A number or a text.
    pub int_or_string: bool,
    /// Whether fields that are not specified stay.
    pub preserve: bool,
    /// Whether the value is a whole object with metadata.
    pub embedded: bool,
    /// What stands where nothing is given.
    pub default: Option<Value>,
    /// The fields of an object.
    pub properties: BTreeMap<String, Structural>,
    /// The values of a map.
    pub values: Option<Box<Structural>>,
    /// Whether a map may hold anything.
    pub any_values: bool,
    /// The elements of a list.
    pub items: Option<Box<Structural>>,
    /// `atomic`, `set` or `map`.
    pub list_type: Option<String>,
    /// By which fields the elements of a `map` list are told apart.
    pub list_map_keys: Vec<String>,
    /// `atomic` or `granular`.
    pub map_type: Option<String>,
    rules: Rules,
}

impl Structural {
    /// Reads a JSON schema (`openAPIV3Schema`). What is not structural in it is passed over: [`problems`] tells of it.
    pub fn of(schema: &Value) -> Self {
        let text = |field: &str| schema[field].as_str().map(str::to_owned);
        let flag = |field: &str| schema[field] == true;
        let kind = match schema["type"].as_str() {
            Some("object") => Kind::Object,
            Some("array") => Kind::Array,
            Some("string") => Kind::String,
            Some("integer") => Kind::Integer,
            Some("number") => Kind::Number,
            Some("boolean") => Kind::Boolean,
            _ => Kind::Any,
        };
        let properties = schema["properties"].as_object().into_iter().flatten();
        let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
        Self {
            kind,
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            properties: properties.map(|(name, schema)| (name.clone(), Self::of(schema))).collect(),
            values: schema["additionalProperties"]
                .is_object()
                .then(|| Box::new(Self::of(&schema["additionalProperties"]))),
            any_values: flag("additionalProperties"),
            items: schema["items"].is_object().then(|| Box::new(Self::of(&schema["items"]))),
            list_type: text("x-kubernetes-list-type"),
            list_map_keys: keys.filter_map(Value::as_str).map(str::to_owned).collect(),
            map_type: text("x-kubernetes-map-type"),
            rules: Rules::of(schema),
        }
    }

    /// The schema of a member of an object, if it has one.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(self.values.as_deref())
    }

    /// Takes out what is not specified, and names each: `unknown field "spec.foo"`. The object is a whole one; what belongs
    /// to every object is not the schema's.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut found = Vec::new();
        self.prune_object(object, "", true, &mut found);
        found
    }

    fn prune_at(&self, value: &mut Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(_) => self.prune_object(value, path, self.embedded, found),
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    for (index, item) in list.iter_mut().enumerate() {
                        items.prune_at(item, &format!("{path}[{index}]"), found);
                    }
                }
            }
            _ => {}
        }
    }

    fn prune_object(&self, value: &mut Value, path: &str, whole: bool, found: &mut Vec<String>) {
        let Some(object) = value.as_object_mut() else { return };
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        object.retain(|name, _| {
            let known = self.preserve
                || self.any_values
                || self.values.is_some()
                || self.properties.contains_key(name)
                || (whole && matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
            if !known {
                found.push(format!("unknown field {:?}", below(name)));
            }
            known
        });
        for (name, value) in object.iter_mut() {
            if whole && matches!(name.as_str(), "apiVersion" | "kind") {
                continue;
            }
            if whole && name == "metadata" {
                if self.embedded {
                    conform_metadata(value, &below("metadata"), found);
                }
                continue;
            }
            if let Some(member) = self.member(name) {
                member.prune_at(value, &below(name), found);
            }
        }
    }

    /// Sets defaults in every object that is there. A null that may not be one counts as absent where there is a default.
    pub fn default(&self, value: &mut Value) {
        match value {
            Value::Object(object) => {
                for (name, member) in &self.properties {
                    if let Some(default) = &member.default {
                        let absent = match object.get(name) {
                            None => true,
                            Some(value) => value.is_null() && !member.nullable,
                        };
                        if absent {
                            object.insert(name.clone(), default.clone());
                        }
                    }
                    if let Some(value) = object.get_mut(name) {
                        member.default(value);
                    }
                }
                if let Some(values) = &self.values {
                    for (name, value) in object.iter_mut() {
                        if !self.properties.contains_key(name) {
                            values.default_element(value);
                        }
                    }
                }
            }
            Value::Array(list) => {
                if let Some(items) = &self.items {
                    list.iter_mut().for_each(|item| items.default_element(item));
                }
            }
            _ => {}
        }
    }

    fn default_element(&self, value: &mut Value) {
        if value.is_null()
            && !self.nullable
            && let Some(default) = &self.default
        {
            *value = default.clone();
        }
        self.default(value);
    }

    /// Everything wrong with an object; its metadata is not looked at.
    pub fn validate(&self, object: &Value) -> Vec<Violation> {
        let mut found = Vec::new();
        validate::object(self, object, &mut found);
        found
    }

    /// Everything wrong with a changed object. What has not changed since `old` is not held against it (upstream's
    /// ratcheting).
    pub fn validate_change(&self, new: &Value, old: &Value) -> Vec<Violation> {
        let mut found = self.validate(new);
        found.retain(|violation| {
            let place = violation.judged();
            let was = old.pointer(&place);
            was.is_none() || new.pointer(&place) != was
        });
        found
    }
}

/// The type of the metadata of every object.
fn metadata_type() -> Option<&'static Type> {
    type_named("meta.v1.ObjectMeta")
}

/// Drops what metadata has not, and names it.
fn conform_metadata(value: &mut Value, path: &str, found: &mut Vec<String>) {
    let Some(ty) = metadata_type() else { return };
    if !value.is_object() {
        return;
    }
    if let Ok(decoded) = crate::conform(ty, value.clone()) {
        for problem in decoded.problems {
            // `unknown field "foo"`: the path is that within the metadata.
            found.push(problem.replacen('"', &format!("\"{path}."), 1));
        }
        *value = decoded.value;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        Structural::of(&json!({
            "type": "object",
            "properties": {
                "spec": {"type": "object", "properties": {
                    "size": {"type": "integer", "default": 3, "minimum": 1},
                    "mode": {"type": "string", "enum": ["a", "b"]},
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                    "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"n": {"type": "string", "default": "x"}}}},
                    "list": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}, "required": ["n"]}},
                    "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
                    "either": {"x-kubernetes-int-or-string": true},
                }},
            },
        }))
    }

    #[test]
    fn what_is_not_specified_goes_and_is_named() {
        let mut object = json!({
            "apiVersion": "e/v1", "kind": "E", "metadata": {"name": "x"}, "other": 1,
            "spec": {"size": 1, "odd": true, "free": {"a": {"b": 1}}, "map": {"k": {"n": "y", "z": 1}}, "list": [{"n": "1", "m": 2}],
                "inner": {"apiVersion": "v1", "kind": "P", "metadata": {"name": "i", "wrong": 1}, "spec": {"any": 1}}},
        });
        let mut found = schema().prune(&mut object);
        found.sort();
        assert_eq!(
            found,
            [
                "unknown field \"other\"",
                "unknown field \"spec.inner.metadata.wrong\"",
                "unknown field \"spec.list[0].m\"",
                "unknown field \"spec.map.k.z\"",
                "unknown field \"spec.odd\""
            ]
        );
        assert_eq!(object["spec"]["free"], json!({"a": {"b": 1}}));
        assert_eq!(object["spec"]["inner"]["spec"], json!({"any": 1}));
        assert_eq!(object["spec"]["list"], json!([{"n": "1"}]));
    }

    #[test]
    fn defaults_stand_where_nothing_is_given() {
        let mut object = json!({"spec": {"size": null, "map": {"k": {}}}});
        schema().default(&mut object);
        assert_eq!(object, json!({"spec": {"size": 3, "map": {"k": {"n": "x"}}}}));
        let mut without = json!({});
        schema().default(&mut without);
        assert_eq!(without, json!({}));
    }
}
