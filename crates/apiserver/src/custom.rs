//! Custom objects: what a CustomResourceDefinition makes of the resources it defines.

use std::sync::{Arc, OnceLock};

use kinds::cel::{self, CompiledRules};
use kinds::{Kind, Now, Scope, scale};
use object_model::{FieldError, FieldPath, jsonpath, meta, time};
use schema::Structural;
use schema::structural::ViolationKind;
use serde_json::{Value, json};

use crate::served::{Column, Hooks, Served, ServedResource, Sub};

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// While a definition and its objects go, nothing new may come.
const ENDING_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const OBJECT_VERBS: &[&str] = &["get", "patch", "update"];

/// The resources that a definition makes, one for each version that is served; none before its names are accepted.
pub fn resources(definition: &Value) -> Vec<Served> {
    if !is_established(definition) {
        return Vec::new();
    }
    let versions = definition["spec"]["versions"].as_array().into_iter().flatten();
    versions.filter(|version| version["served"] == true).map(|version| resource(definition, version)).collect()
}

fn is_established(definition: &Value) -> bool {
    meta::has_condition(definition, "Established") && meta::has_condition(definition, "NamesAccepted")
}

/// The name of the collection in the store. Those of built-in kinds have no dot.
pub fn storage(definition: &Value) -> String {
    meta::name(definition).to_owned()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The texts of a list.
pub fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn resource(definition: &Value, version: &Value) -> Served {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let (group, name, kind) = (text(spec, "group"), text(version, "name"), text(names, "kind"));
    let schema = &version["schema"]["openAPIV3Schema"];
    let structure = Arc::new(Structural::of(schema));
    let subresources = &version["subresources"];
    let has_status = subresources["status"].is_object();
    let mut below = Vec::new();
    let paths = subresources["scale"].as_object().map(|scale| {
        let dotted =
            |field: &str| scale.get(field).and_then(Value::as_str).map(|p| p.trim_start_matches('.').to_owned());
        below.push(Sub {
            name: "scale",
            verbs: OBJECT_VERBS,
            group: "autoscaling".to_owned(),
            version: "v1".to_owned(),
            kind: "Scale".to_owned(),
        });
        scale::Paths {
            spec: dotted("specReplicasPath").unwrap_or_default(),
            status: dotted("statusReplicasPath").unwrap_or_default(),
            selector: dotted("labelSelectorPath"),
        }
    });
    if has_status {
        below.push(Sub {
            name: "status",
            verbs: OBJECT_VERBS,
            group: group.to_owned(),
            version: name.to_owned(),
            kind: kind.to_owned(),
        });
    }
    let stored = spec["versions"].as_array().into_iter().flatten().find(|version| version["storage"] == true);
    let stored = stored.map(|version| text(version, "name")).unwrap_or_default();
    let api_version = format!("{group}/{name}");
    let columns = columns(version);
    let hooks = CustomKind {
        structure: structure.clone(),
        schema: schema.clone(),
        rules: OnceLock::new(),
        has_status,
        api_version: api_version.clone(),
        kind: kind.to_owned(),
        stored_version: format!("{group}/{stored}"),
        by_webhook: spec["conversion"]["strategy"] == "Webhook",
        columns: columns.iter().map(|(_, path)| path.clone()).collect(),
        kinds: columns.iter().map(|(column, _)| column.kind.clone()).collect(),
    };
    let deprecation = (version["deprecated"] == true).then(|| match version["deprecationWarning"].as_str() {
        Some(text) => text.to_owned(),
        None => format!("{api_version} {kind} is deprecated"),
    });
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    Served::custom(ServedResource {
        group: group.to_owned(),
        version: name.to_owned(),
        kind: kind.to_owned(),
        list_kind: text(names, "listKind").to_owned(),
        plural: text(names, "plural").to_owned(),
        singular: text(names, "singular").to_owned(),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        scope: if spec["scope"] == "Namespaced" { Scope::Namespaced } else { Scope::Cluster },
        verbs: if meta::has_condition(definition, "Terminating") { ENDING_VERBS } else { VERBS },
        subresources: below,
        type_name: "",
        ty: schema::custom_object(),
        structure: Some(structure),
        openapi: Some(schema.clone()),
        scale: paths,
        storage: storage(definition),
        has_status,
        has_generation: true,
        create_by_update: false,
        unconditional_update: false,
        graceful: false,
        selectable_fields: selectable
            .filter_map(|field| field["jsonPath"].as_str().map(|path| path.trim_start_matches('.').to_owned()))
            .collect(),
        columns: columns.into_iter().map(|(column, _)| column).collect(),
        deprecation,
        converts: true,
        plain_since: plain_since(definition, version),
        conversion: spec["conversion"].clone(),
        stored_version: format!("{group}/{stored}"),
        hooks: Hooks::Custom(Box::new(hooks)),
    })
}

/// Since when objects are stored as this version serves them: pruned and with its defaults. All ways to write one have to
/// lead to the same form, and what was written before the schema was the present one has to be looked at again.
fn plain_since(definition: &Value, version: &Value) -> Option<u64> {
    let spec = &definition["spec"];
    let others = spec["versions"].as_array().into_iter().flatten().filter(|other| other["served"] == true);
    let alike = others.into_iter().all(|other| other["schema"] == version["schema"]);
    let stored = version["storage"] == true && definition["status"]["storedVersions"] == json!([version["name"]]);
    if !alike || !stored || spec["conversion"]["strategy"] == "Webhook" {
        return None;
    }
    match definition["metadata"]["generation"].as_i64() {
        // There has been no other schema.
        Some(1) => Some(0),
        _ => text(&definition["metadata"], "resourceVersion").parse().ok(),
    }
}

/// The columns of a version, each with the path of its cells.
fn columns(version: &Value) -> Vec<(Column, String)> {
    let column = |name: &str, kind: &str, format: &str, priority: i64, description: &str| Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        format: format.to_owned(),
        priority,
        description: description.to_owned(),
    };
    let help = "Name must be unique within a namespace.";
    let mut columns = vec![(column("Name", "string", "name", 0, help), ".metadata.name".to_owned())];
    let given = version["additionalPrinterColumns"].as_array().map_or(&[][..], Vec::as_slice);
    for one in given {
        let priority = one["priority"].as_i64().unwrap_or(0);
        let described = match text(one, "description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text(one, "jsonPath")),
            described => described.to_owned(),
        };
        let column = column(text(one, "name"), text(one, "type"), text(one, "format"), priority, &described);
        columns.push((column, text(one, "jsonPath").to_owned()));
    }
    if given.is_empty() {
        let help = "CreationTimestamp is a timestamp representing the server time when this object was created.";
        columns.push((column("Age", "date", "", 0, help), ".metadata.creationTimestamp".to_owned()));
    }
    columns
}

/// The hooks of custom objects of one version.
struct CustomKind {
    structure: Arc<Structural>,
    schema: Value,
    /// The rules of the schema, compiled when the first object is judged: many definitions have no objects.
    rules: OnceLock<CompiledRules>,
    has_status: bool,
    api_version: String,
    kind: String,
    stored_version: String,
    by_webhook: bool,
    columns: Vec<String>,
    kinds: Vec<String>,
}

impl CustomKind {
    fn judge(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let violations = match old {
            Some(old) => self.structure.validate_change(new, old),
            None => self.structure.validate(new),
        };
        let blocking = violations.iter().any(|violation| {
            use ViolationKind::{Required, TooLong, TooMany, TypeInvalid};
            matches!(violation.kind, Required | TooLong | TooMany | TypeInvalid)
        });
        let mut errors: Vec<FieldError> = violations.into_iter().map(kinds::field_error).collect();
        // What was wrong with the rules was told when the definition was written.
        let rules = self.rules.get_or_init(|| cel::compile(&self.schema, &FieldPath::default()).0);
        if rules.is_empty() {
            return errors;
        }
        if blocking {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
                       to complete validation";
            errors.push(FieldError::invalid(&FieldPath::new("<nil>"), Value::Null, why));
        } else {
            errors.extend(rules.validate(new, old, &mut cel::RUNTIME_BUDGET.clone()));
        }
        errors
    }
}

impl Kind for CustomKind {
    fn default(&self, object: &mut Value) {
        self.structure.default(object);
    }

    fn any_finalizer(&self) -> bool {
        true
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.has_status
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status {
            kinds::copy_field(new, old, "status");
        }
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let mut result = old.clone();
        kinds::copy_field(&mut result, new, "status");
        for field in ["managedFields", "resourceVersion"] {
            meta::set(&mut result, field, new["metadata"].get(field).cloned().unwrap_or(Value::Null));
        }
        *new = result;
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.judge(object, None)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.judge(new, Some(old))
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.judge(new, Some(old))
    }

    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        let counted = |object: &Value| -> Vec<(String, Value)> {
            let members = object.as_object().into_iter().flatten();
            members
                .filter(|(key, _)| {
                    let apart = matches!(key.as_str(), "metadata" | "apiVersion" | "kind");
                    !apart && (*key != "status" || !self.has_status)
                })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        counted(new) != counted(old)
    }

    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(match jsonpath::find(name, object).ok()?.first() {
            Some(Value::Null) | None => String::new(),
            Some(value) => jsonpath::text(value),
        })
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        self.columns.iter().zip(&self.kinds).map(|(path, kind)| cell(object, path, kind, now)).collect()
    }

    fn stored(&self, mut object: Value) -> Value {
        if !self.by_webhook {
            object["apiVersion"] = self.stored_version.as_str().into();
        }
        object
    }

    fn served(&self, mut object: Value) -> Value {
        if self.by_webhook && object["apiVersion"] != self.api_version.as_str() {
            // The webhook is asked for it, and what it answers is served.
            return object;
        }
        object["apiVersion"] = self.api_version.as_str().into();
        object["kind"] = self.kind.as_str().into();
        self.structure.prune(&mut object);
        self.structure.default(&mut object);
        object
    }
}

/// One cell. What is not there is an empty cell.
fn cell(object: &Value, path: &str, kind: &str, now: Now) -> Value {
    let found = jsonpath::find(path, object).unwrap_or_default();
    let Some(first) = found.first().filter(|value| !value.is_null()) else { return Value::Null };
    match kind {
        "integer" => {
            first.as_i64().map_or_else(|| first.as_f64().map_or(Value::Null, |n| json!(n as i64)), Value::from)
        }
        "number" => first.as_f64().map_or(Value::Null, Value::from),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => match first.as_str() {
            Some(text) => time::age(Some(text), now.0).into(),
            None => Value::Null,
        },
        _ => found.iter().map(jsonpath::text).collect::<Vec<_>>().join(",").into(),
    }
}
