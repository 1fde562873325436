//! What is wrong with a CustomResourceDefinition.

use std::collections::BTreeSet;

use object_model::{FieldError, FieldPath, jsonpath, names};
use schema::Structural;
use schema::structural::{self, Problem, ProblemKind};
use serde_json::Value;

use super::custom_resource_definition::{APPROVED, is_protected, version_problems};
use crate::cel::{self, Rules};
use crate::violations::field_error_below;
use crate::walk;

/// Fields of a version that field selectors may name, at most (upstream's number).
const MAX_SELECTABLE: usize = 8;

/// The version in which objects are stored.
pub(super) fn storage_version(definition: &Value) -> Option<&str> {
    let versions = walk::list(definition, "spec.versions");
    versions.iter().find(|version| version["storage"] == true).and_then(|version| walk::text(version, "name"))
}

pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let spec = &object["spec"];
    let path = FieldPath::new("spec");
    let name = object_model::meta::name(object);
    let group = walk::text(spec, "group").unwrap_or_default();
    let plural = walk::text(spec, "names.plural").unwrap_or_default();
    if name != format!("{plural}.{group}") {
        let at = FieldPath::new("metadata").child("name");
        errors.push(FieldError::invalid(&at, name, "must be spec.names.plural+\".\"+spec.group"));
    }
    if is_protected(group) && !object_model::meta::annotations(object).contains_key(APPROVED) {
        let at = FieldPath::new("metadata").child("annotations").key(APPROVED);
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?}, see https://github.com/kubernetes/enhancements/pull/1111"
        );
        errors.push(FieldError::required(&at, why));
    }
    let at = path.child("group");
    if group.is_empty() {
        errors.push(FieldError::required(&at, ""));
    } else if let Some(why) = names::dns_subdomain(group).into_iter().next() {
        errors.push(FieldError::invalid(&at, group, why));
    } else if !group.contains('.') {
        errors.push(FieldError::invalid(&at, group, "should be a domain with at least one dot"));
    }
    let scope = path.child("scope");
    match walk::text(spec, "scope") {
        None => errors.push(FieldError::required(&scope, "")),
        Some("Cluster" | "Namespaced") => {}
        Some(other) => errors.push(FieldError::not_supported(&scope, other, &["Cluster", "Namespaced"])),
    }
    if spec["preserveUnknownFields"] == true {
        let why = "must be false in order to use defaults in the schema, or to have it pruned";
        errors.push(FieldError::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    validate_names(&mut errors, &spec["names"], &path.child("names"));
    validate_versions(&mut errors, spec, &path.child("versions"));
    validate_conversion(&mut errors, &spec["conversion"], &path.child("conversion"));
    errors.extend(stored_versions(object));
    errors
}

pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let established = walk::list(old, "status.conditions")
        .iter()
        .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
    for field in ["spec.group", "spec.names.plural"] {
        walk::immutable(&mut errors, new, old, field);
    }
    if established {
        for field in ["spec.scope", "spec.names.kind"] {
            walk::immutable(&mut errors, new, old, field);
        }
    }
    errors
}

/// Versions in which objects may be stored are served on, until nothing is stored in them.
pub(super) fn stored_versions(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let path = FieldPath::new("status").child("storedVersions");
    let stored = walk::list(object, "status.storedVersions");
    let versions: BTreeSet<&str> =
        walk::list(object, "spec.versions").iter().filter_map(|version| walk::text(version, "name")).collect();
    for (index, version) in stored.iter().filter_map(Value::as_str).enumerate() {
        if !versions.contains(version) {
            let why = format!(
                "missing from spec.versions; {version} was previously a storage version, and must remain in \
                 spec.versions until a storage migration ensures no data remains persisted in {version} and removes \
                 {version} from status.storedVersions"
            );
            errors.push(FieldError::invalid(&path.index(index), version, why));
        }
    }
    if let Some(storage) = storage_version(object)
        && !stored.is_empty()
        && !stored.iter().any(|version| version == storage)
    {
        let why = format!("must have the storage version {storage}");
        errors.push(FieldError::invalid(&path, Value::from(stored), why));
    }
    errors
}

fn validate_names(errors: &mut Vec<FieldError>, given: &Value, path: &FieldPath) {
    let mut check = |field: &str, lower: bool| {
        let at = path.child(field);
        match walk::text(given, field) {
            None => errors.push(FieldError::required(&at, "")),
            Some(name) => {
                let judged = if lower { name.to_lowercase() } else { name.to_owned() };
                let problems = names::dns_label_1035(&judged);
                let lead = if lower { "may have mixed case, but should otherwise match: " } else { "" };
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&at, name, format!("{lead}{why}"))));
            }
        }
    };
    check("plural", false);
    check("singular", false);
    check("kind", true);
    check("listKind", true);
    for field in ["shortNames", "categories"] {
        for (index, name) in walk::list(given, field).iter().filter_map(Value::as_str).enumerate() {
            let problems = names::dns_label_1035(name);
            let at = path.child(field).index(index);
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&at, name, why)));
        }
    }
    if let (Some(kind), Some(list)) = (walk::text(given, "kind"), walk::text(given, "listKind"))
        && kind == list
    {
        errors.push(FieldError::invalid(&path.child("listKind"), list, "kind and listKind may not be the same"));
    }
}

fn validate_versions(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let versions = walk::list(spec, "versions");
    let mut seen = BTreeSet::new();
    if versions.iter().filter_map(|v| walk::text(v, "name")).any(|name| !seen.insert(name)) {
        let listed: Vec<&str> = versions.iter().filter_map(|v| walk::text(v, "name")).collect();
        errors.push(FieldError::invalid(path, listed.join(","), "must contain unique version names"));
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let listed: Vec<&str> = versions.iter().filter_map(|v| walk::text(v, "name")).collect();
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(path, listed.join(","), why));
    }
    // What all versions have in common is said of the definition as a whole.
    let shared = |field: &str| versions.iter().all(|version| version[field] == versions[0][field]);
    let [schema, subresources, columns, selectable] =
        ["schema", "subresources", "additionalPrinterColumns", "selectableFields"].map(shared);
    for (index, version) in versions.iter().enumerate() {
        let spec = FieldPath::new("spec");
        let path = path.index(index);
        let place = |shared: bool, field: &str| match shared {
            false => Some(path.child(field)),
            // Once is enough.
            true => (index == 0).then(|| spec.child(field)),
        };
        let name = walk::text(version, "name").unwrap_or_default();
        errors
            .extend(version_problems(name).into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
        if walk::text(version, "deprecationWarning").is_some() && version["deprecated"] != true {
            let why = "can only be set for deprecated versions";
            let given = version["deprecationWarning"].clone();
            errors.push(FieldError::invalid(&path.child("deprecationWarning"), given, why));
        }
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let path = path.child("schema").child("openAPIV3Schema");
            errors.push(FieldError::required(&path, "schemas are required"));
        } else if let Some(path) = place(schema, if schema { "validation" } else { "schema" }) {
            validate_schema(errors, version, &path.child("openAPIV3Schema"));
        }
        if let Some(path) = place(subresources, "subresources") {
            validate_subresources(errors, &version["subresources"], &path);
        }
        if let Some(path) = place(columns, "additionalPrinterColumns") {
            validate_columns(errors, version, &path);
        }
        if let Some(path) = place(selectable, "selectableFields") {
            validate_selectable(errors, version, &path);
        }
    }
}

fn validate_schema(errors: &mut Vec<FieldError>, version: &Value, path: &FieldPath) {
    let schema = &version["schema"]["openAPIV3Schema"];
    let problems = structural::problems(schema);
    let sound = problems.is_empty();
    errors.extend(problems.into_iter().map(|problem| structural_error(problem, path)));
    if sound {
        let (rules, mistakes) = cel::compile(schema, path);
        errors.extend(mistakes);
        let mut defaults = Defaults { errors, budget: cel::RUNTIME_BUDGET };
        defaults.judge(schema, &Structural::of(schema), rules.root(), path);
    }
}

fn structural_error(problem: Problem, path: &FieldPath) -> FieldError {
    let at = path.child(&problem.path);
    let elsewhere = problem.elsewhere.map(|elsewhere| path.child(&elsewhere).to_string()).unwrap_or_default();
    let detail = problem.detail + &elsewhere;
    match problem.kind {
        ProblemKind::Required => FieldError::required(&at, detail),
        ProblemKind::Forbidden => FieldError::forbidden(&at, detail),
        ProblemKind::Invalid => FieldError::invalid(&at, problem.value, detail),
        ProblemKind::NotSupported => FieldError::not_supported(&at, problem.value, problem.supported),
    }
}

/// Judges the defaults of a schema, and counts what its rules may still cost.
struct Defaults<'e> {
    errors: &'e mut Vec<FieldError>,
    budget: u64,
}

impl Defaults<'_> {
    /// Defaults hold nothing that would be pruned, and fit the schema that they stand in and its rules. What is missing in
    /// one is not filled in before it is judged.
    fn judge(&mut self, schema: &Value, structure: &Structural, rules: Rules<'_>, path: &FieldPath) {
        if let Some(default) = &structure.default {
            let at = path.child("default");
            // A schema says of its fields what they are to be, so the default is judged as one.
            let whole = serde_json::json!({"default": default});
            let holder = Structural::of(&serde_json::json!({"type": "object", "properties": {"default": schema}}));
            let mut pruned = whole.clone();
            holder.prune(&mut pruned);
            if pruned != whole {
                self.errors.push(FieldError::invalid(&at, default.clone(), "must not have unknown fields"));
            }
            let violations = holder.validate(&whole);
            if violations.is_empty() {
                self.errors.extend(rules.of_default(&at, default, &mut self.budget));
            }
            self.errors.extend(violations.into_iter().map(|violation| field_error_below(path, violation)));
        }
        for (name, inner) in &structure.properties {
            let path = path.child("properties").key(name);
            self.judge(&schema["properties"][name], inner, rules.property(name), &path);
        }
        if let Some(inner) = &structure.items {
            self.judge(&schema["items"], inner, rules.items(), &path.child("items"));
        }
        if let Some(inner) = &structure.values {
            self.judge(&schema["additionalProperties"], inner, rules.values(), &path.child("additionalProperties"));
        }
    }
}

fn validate_subresources(errors: &mut Vec<FieldError>, subresources: &Value, path: &FieldPath) {
    let scale = &subresources["scale"];
    if !scale.is_object() {
        return;
    }
    let path = path.child("scale");
    for (field, roots) in [
        ("specReplicasPath", &[".spec."][..]),
        ("statusReplicasPath", &[".status."]),
        ("labelSelectorPath", &[".spec.", ".status."]),
    ] {
        let at = path.child(field);
        match walk::text(scale, field) {
            None if field != "labelSelectorPath" => errors.push(FieldError::required(&at, "")),
            None => {}
            Some(given) => {
                let plain = given.split('.').skip(1).all(|part| {
                    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
                });
                if !plain {
                    errors.push(FieldError::invalid(&at, given, "should be a json path under .spec or .status"));
                } else if !roots.iter().any(|root| given.starts_with(root)) {
                    let why = match roots {
                        [root] => format!("should be a json path under {}", root.trim_end_matches('.')),
                        _ => "should be a json path under either .spec or .status".to_owned(),
                    };
                    errors.push(FieldError::invalid(&at, given, why));
                }
            }
        }
    }
}

fn validate_columns(errors: &mut Vec<FieldError>, version: &Value, path: &FieldPath) {
    for (index, column) in walk::list(version, "additionalPrinterColumns").iter().enumerate() {
        let path = path.index(index);
        if walk::text(column, "name").is_none() {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
        match walk::text(column, "type") {
            None => {
                errors.push(FieldError::required(&path.child("type"), &*format!("must be one of {}", TYPES.join(", "))))
            }
            Some(given) if !TYPES.contains(&given) => {
                let why = format!("must be one of {}", TYPES.join(", "));
                errors.push(FieldError::invalid(&path.child("type"), given, why));
            }
            Some(_) => {}
        }
        const FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
        walk::one_of(errors, column, "format", &path, FORMATS);
        json_path(errors, column, &path);
    }
}

fn json_path(errors: &mut Vec<FieldError>, holder: &Value, path: &FieldPath) {
    let at = path.child("jsonPath");
    match walk::text(holder, "jsonPath") {
        None => errors.push(FieldError::required(&at, "")),
        Some(given) if !given.starts_with('.') => {
            errors.push(FieldError::invalid(&at, given, "must be a json path that starts with a dot"));
        }
        Some(given) => {
            if let Err(error) = jsonpath::find(given, &Value::Null) {
                errors.push(FieldError::invalid(&at, given, error.to_string()));
            }
        }
    }
}

fn validate_selectable(errors: &mut Vec<FieldError>, version: &Value, path: &FieldPath) {
    let fields = walk::list(version, "selectableFields");
    if fields.len() > MAX_SELECTABLE {
        errors.push(FieldError::too_many(path, fields.len(), MAX_SELECTABLE));
    }
    let schema = Structural::of(&version["schema"]["openAPIV3Schema"]);
    let mut seen = BTreeSet::new();
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        json_path(errors, field, &path);
        let Some(given) = walk::text(field, "jsonPath").filter(|_| errors.len() == before) else { continue };
        let at = path.child("jsonPath");
        if !seen.insert(given) {
            errors.push(FieldError::duplicate(&at, given));
        }
        if given.starts_with(".metadata.") {
            errors.push(FieldError::invalid(&at, given, "must not point to fields in metadata"));
            continue;
        }
        let mut names = given.trim_start_matches('.').split('.');
        let leaf = names.try_fold(&schema, |node, name| node.properties.get(name));
        let fits = leaf.is_some_and(|leaf| {
            use structural::Kind;
            matches!(leaf.kind, Kind::String | Kind::Boolean | Kind::Integer)
        });
        if !fits {
            let why = "is an invalid path: must point to a field of type string, boolean or integer";
            errors.push(FieldError::invalid(&at, given, why));
        }
    }
}

fn validate_conversion(errors: &mut Vec<FieldError>, conversion: &Value, path: &FieldPath) {
    let webhook = &conversion["webhook"];
    let at = path.child("webhook");
    match walk::text(conversion, "strategy") {
        None => errors.push(FieldError::required(&path.child("strategy"), "")),
        Some("None") => {
            if webhook.is_object() {
                let why = "should not be set when strategy is not set to Webhook";
                errors.push(FieldError::forbidden(&at, why));
            }
        }
        Some("Webhook") => {
            let config = &webhook["clientConfig"];
            if !config.is_object() {
                errors
                    .push(FieldError::required(&at.child("clientConfig"), "required when strategy is set to Webhook"));
            } else {
                client_config(errors, config, &at.child("clientConfig"));
            }
            let versions = walk::list(webhook, "conversionReviewVersions");
            let known = versions.iter().any(|version| matches!(version.as_str(), Some("v1" | "v1beta1")));
            let at = at.child("conversionReviewVersions");
            if versions.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if !known {
                let why = "must include at least one of v1, v1beta1";
                errors.push(FieldError::invalid(&at, Value::from(versions), why));
            }
        }
        Some(other) => errors.push(FieldError::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
}

fn client_config(errors: &mut Vec<FieldError>, config: &Value, path: &FieldPath) {
    match (walk::text(config, "url"), config["service"].is_object()) {
        (None, false) => errors.push(FieldError::required(path, "exactly one of url or service is required")),
        (Some(_), true) => errors.push(FieldError::required(path, "exactly one of url or service is required")),
        (Some(url), false) if !url.starts_with("https://") => {
            errors.push(FieldError::invalid(&path.child("url"), url, "'https' is the only allowed URL scheme"));
        }
        (Some(_), false) => {}
        (None, true) => {
            for field in ["namespace", "name"].iter().filter(|f| walk::text(&config["service"], f).is_none()) {
                errors.push(FieldError::required(&path.child("service").child(field), ""));
            }
        }
    }
}
