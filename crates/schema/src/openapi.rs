//! OpenAPI documents of what is served: version 3 per group and version, version 2 (Swagger) for everything.
//!
//! What clients read from them: strategic-merge and apply metadata of fields, the `fieldValidation` and `dryRun`
//! parameters of PATCH (their presence tells kubectl that the server validates), `x-kubernetes-group-version-kind` to
//! find a kind's schema, and `allOf`, `default` and `enum` for `kubectl explain`.

mod connect;
mod custom;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::descriptions::Descriptions;
use crate::{Field, Shape, Type, type_named};

/// One served operation.
#[derive(Debug, Clone)]
pub struct Op {
    /// `/apis/apps/v1/namespaces/{namespace}/deployments/{name}`.
    pub path: String,
    /// get, list, create, update, patch, delete or deletecollection; watch and watchlist for the old `/watch/` paths;
    /// connect for streams and proxies.
    pub verb: &'static str,
    /// Group, version and kind acted upon.
    pub kind: (String, String, String),
    /// Model of the request body, of a PATCH the one that is patched.
    pub body: Option<String>,
    /// Model of the response.
    pub response: String,
    /// Whether the resource lives in a namespace.
    pub namespaced: bool,
    /// `status`, `scale` …
    pub subresource: Option<&'static str>,
    /// Whether its objects are described by a definition: they know no strategic merge and no protobuf.
    pub custom: bool,
    /// Of what is connected to, the method in lower case; such operations have no objects.
    pub method: Option<&'static str>,
}

/// The models of a custom resource, which come from its definition.
#[derive(Debug, Clone)]
pub struct Own {
    /// Name of the model of its objects.
    pub name: String,
    /// Name of the model of its lists.
    pub list: String,
    /// Group, version and kind of its objects.
    pub kind: (String, String, String),
    /// Kind of its lists.
    pub list_kind: String,
    /// The definition's schema.
    pub schema: Value,
}

/// Which of the two dialects is being written.
#[derive(Clone, Copy, PartialEq)]
enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, model: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{model}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{model}")}),
        }
    }
}

const PATCH_TYPE: &str = "meta.v1.Patch";
const PATCH_MODEL: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The OpenAPI 3 document of one group and version.
pub fn v3(group_version: (&str, &str), ops: &[Op], own: &[Own]) -> Value {
    let ops: Vec<_> = ops.iter().filter(|op| in_group_version(op, group_version)).collect();
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.37.0"},
        "paths": paths(Dialect::V3, &ops),
        "components": {"schemas": models(Dialect::V3, &ops, own)},
    })
}

/// The Swagger 2.0 document of all operations.
pub fn v2(ops: &[Op], own: &[Own]) -> Value {
    let ops: Vec<_> = ops.iter().collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.37.0"},
        "paths": paths(Dialect::V2, &ops),
        "definitions": models(Dialect::V2, &ops, own),
    })
}

/// `core.v1.Pod` is published as `io.k8s.api.core.v1.Pod`.
pub fn type_to_model_name(name: &str) -> String {
    let package = name.split('.').next().unwrap_or_default();
    match package {
        "meta" => format!("io.k8s.apimachinery.pkg.apis.{name}"),
        "apiextensions" => format!("io.k8s.apiextensions-apiserver.pkg.apis.{name}"),
        "apiregistration" => format!("io.k8s.kube-aggregator.pkg.apis.{name}"),
        _ => format!("io.k8s.api.{name}"),
    }
}

/// The type whose model this is; custom models are no types.
fn model_to_type_name(model: &str) -> Option<String> {
    let parts: Vec<&str> = model.rsplitn(4, '.').collect();
    let [kind, version, package, _] = parts[..] else { return None };
    let name = format!("{package}.{version}.{kind}");
    (type_to_model_name(&name) == model && type_named(&name).is_some()).then_some(name)
}

/// The group that a package of types is served in.
fn group_of(package: &str) -> String {
    match package {
        "core" | "meta" => String::new(),
        "apps" | "autoscaling" | "batch" | "policy" | "extensions" => package.to_owned(),
        "rbac" => "rbac.authorization.k8s.io".to_owned(),
        "flowcontrol" => "flowcontrol.apiserver.k8s.io".to_owned(),
        "apiserverinternal" => "internal.apiserver.k8s.io".to_owned(),
        other => format!("{other}.k8s.io"),
    }
}

/// A subresource belongs to its parent's path, whatever group its body is of.
fn in_group_version(op: &Op, (group, version): (&str, &str)) -> bool {
    let prefix = if group.is_empty() { format!("/api/{version}/") } else { format!("/apis/{group}/{version}/") };
    op.path.starts_with(&prefix)
}

fn paths(dialect: Dialect, ops: &[&Op]) -> Value {
    let mut paths = Map::new();
    for op in ops {
        let entry = paths.entry(op.path.clone()).or_insert_with(|| json!({}));
        let Value::Object(entry) = entry else {
            continue;
        };
        if let Some(method) = op.method {
            entry.insert("parameters".into(), connect::parameters(dialect, op).into());
            entry.insert(method.into(), connect::operation(dialect, op, method));
            continue;
        }
        let of_path = op.verb.starts_with("watch").then_some(SELECTION).into_iter().flatten();
        let shared: Vec<Value> = ["namespace", "name"]
            .into_iter()
            .filter(|name| op.path.contains(&format!("{{{name}}}")))
            .map(|name| parameter(dialect, name, "path", "string"))
            .chain([parameter(dialect, "pretty", "query", "string")])
            .chain(of_path.map(|(name, ty)| parameter(dialect, name, "query", ty)))
            .collect();
        entry.insert("parameters".into(), Value::Array(shared));
        let method = match op.verb {
            "create" => "post",
            "update" => "put",
            "patch" => "patch",
            "delete" | "deletecollection" => "delete",
            _ => "get",
        };
        entry.insert(method.into(), operation(dialect, op));
    }
    Value::Object(paths)
}

fn parameter(dialect: Dialect, name: &str, place: &str, ty: &str) -> Value {
    let mut parameter = json!({"name": name, "in": place});
    match dialect {
        Dialect::V2 => {
            parameter["type"] = ty.into();
            parameter["uniqueItems"] = true.into();
        }
        Dialect::V3 => parameter["schema"] = json!({"type": ty, "uniqueItems": true}),
    }
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter
}

/// The parameters of lists and watches.
const SELECTION: &[(&str, &str)] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

/// The media types that built-in objects come in; the streams are of watches.
const MEDIA: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];

fn operation(dialect: Dialect, op: &Op) -> Value {
    let query: &[(&str, &str)] = match op.verb {
        "create" | "update" => &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")],
        "patch" => {
            &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")]
        }
        "delete" => &[
            ("dryRun", "string"),
            ("gracePeriodSeconds", "integer"),
            ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
            ("orphanDependents", "boolean"),
            ("propagationPolicy", "string"),
        ],
        "list" | "deletecollection" => SELECTION,
        _ => &[],
    };
    let (group, version, kind) = &op.kind;
    let action = match op.verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let tag = tag(op);
    let mut operation = json!({
        "operationId": operation_id(op, &tag),
        "tags": [tag],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
    });
    let mut parameters: Vec<Value> = query.iter().map(|(name, ty)| parameter(dialect, name, "query", ty)).collect();
    let body = match op.verb {
        "patch" => Some(PATCH_MODEL),
        "delete" | "deletecollection" => Some(op.body.as_deref().unwrap_or(DELETE_OPTIONS)),
        _ => op.body.as_deref(),
    };
    let required = !op.verb.starts_with("delete");
    // A list becomes a watch by a parameter.
    let media = if op.verb == "list" || op.verb.starts_with("watch") { MEDIA } else { &MEDIA[..3] };
    let patches = &[
        "application/apply-patch+yaml",
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
    ];
    // Custom objects know neither protobuf nor strategic merge.
    let (media, patches) = if op.custom { (&media[..2], &patches[..3]) } else { (media, &patches[..]) };
    let consumed: &[&str] = if op.verb == "patch" { patches } else { media };
    let answer = dialect.reference(&op.response);
    let codes: &[&str] = match op.verb {
        "create" => &["200", "201", "202"],
        "update" | "patch" => &["200", "201"],
        "delete" => &["200", "202"],
        _ => &["200"],
    };
    let mut responses = Map::new();
    for code in codes {
        let response = match dialect {
            Dialect::V2 => json!({"description": "OK", "schema": answer}),
            Dialect::V3 => json!({"description": "OK", "content": content(media, &answer)}),
        };
        responses.insert((*code).to_owned(), response);
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    operation["responses"] = Value::Object(responses);
    if let Some(body) = body {
        let schema = dialect.reference(body);
        match dialect {
            Dialect::V2 => {
                parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": schema}))
            }
            Dialect::V3 => {
                operation["requestBody"] = json!({"content": content(consumed, &schema)});
                if required {
                    operation["requestBody"]["required"] = true.into();
                }
            }
        }
    }
    if dialect == Dialect::V2 {
        operation["consumes"] = json!(if op.verb == "patch" { patches } else { &["*/*"][..] });
        operation["produces"] = json!(media);
        operation["schemes"] = json!(["https"]);
    }
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    operation
}

fn content(media: &[&str], schema: &Value) -> Value {
    Value::Object(media.iter().map(|media| ((*media).to_owned(), json!({"schema": schema}))).collect())
}

/// `core_v1`, `apps_v1`, `coordination_v1`: upstream's grouping of operations.
fn tag(op: &Op) -> String {
    let mut parts = op.path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("api"), Some(version), _) => format!("core_{version}"),
        (_, Some(group), Some(version)) => {
            let name = group.trim_end_matches(".k8s.io").split('.').map(capital).collect::<String>();
            let mut name = name;
            if let Some(first) = name.get(..1) {
                name = format!("{}{}", first.to_lowercase(), &name[1..]);
            }
            format!("{name}_{version}")
        }
        _ => "none".to_owned(),
    }
}

fn operation_id(op: &Op, tag: &str) -> String {
    let verb = match op.verb {
        "get" => "read",
        "update" => "replace",
        "deletecollection" => "deleteCollection",
        "watchlist" => "watch",
        other => other,
    };
    let list = if op.verb == "watchlist" { "List" } else { "" };
    let place = if op.path.contains("{namespace}") {
        "Namespaced"
    } else if op.namespaced {
        "ForAllNamespaces"
    } else {
        ""
    };
    let tag: String = tag.split('_').map(capital).collect();
    let subresource = op.subresource.map(capital).unwrap_or_default();
    let kind = &op.kind.2;
    match place {
        "ForAllNamespaces" => format!("{verb}{tag}{kind}{list}{subresource}{place}"),
        _ => format!("{verb}{tag}{place}{kind}{list}{subresource}"),
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The schemas of every type the operations touch, and of every type those need.
fn models(dialect: Dialect, ops: &[&Op], own: &[Own]) -> Value {
    let mut wanted: BTreeSet<String> = BTreeSet::new();
    let mut queue: Vec<String> = Vec::new();
    for op in ops {
        let built_in = op.body.iter().chain([&op.response]).filter_map(|model| model_to_type_name(model));
        queue.extend(built_in);
        match op.verb {
            "patch" => queue.push(PATCH_TYPE.into()),
            "delete" | "deletecollection" => queue.push("meta.v1.DeleteOptions".into()),
            // Events of a watch.
            "list" => queue.push("meta.v1.WatchEvent".into()),
            _ => {}
        }
    }
    let descriptions = Descriptions::read();
    let mut models = Map::new();
    for own in own {
        queue.extend(["meta.v1.ObjectMeta".to_owned(), "meta.v1.ListMeta".to_owned()]);
        models.insert(own.name.clone(), custom::object(dialect, own));
        models.insert(own.list.clone(), custom::list(dialect, own));
    }
    while let Some(name) = queue.pop() {
        if !wanted.insert(name.clone()) {
            continue;
        }
        let mut context = Models { dialect, queue: &mut queue, descriptions: &descriptions };
        if let Some(schema) = context.model(&name) {
            models.insert(type_to_model_name(&name), schema);
        }
    }
    for (name, schema) in well_known() {
        models.insert(name.to_owned(), schema);
    }
    Value::Object(models)
}

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const FIELDS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

fn well_known() -> [(&'static str, Value); 8] {
    [
        (QUANTITY, json!({"type": "string"})),
        (INT_OR_STRING, json!({"type": "string", "format": "int-or-string"})),
        (RAW, json!({"type": "object"})),
        (TIME, json!({"type": "string", "format": "date-time"})),
        (MICRO_TIME, json!({"type": "string", "format": "date-time"})),
        (FIELDS, json!({"type": "object"})),
        (JSON, json!({})),
        ("io.k8s.apimachinery.pkg.apis.meta.v1.Patch", json!({"type": "object"})),
    ]
}

/// What the fields of every object are for.
fn standard(field: &str) -> Option<&'static str> {
    Some(match field {
        "apiVersion" => "APIVersion defines the versioned schema of this representation of an object.",
        "kind" => "Kind is a string value representing the REST resource this object represents.",
        "metadata" => "Standard object's metadata.",
        _ => return None,
    })
}

struct Models<'q> {
    dialect: Dialect,
    queue: &'q mut Vec<String>,
    descriptions: &'q Descriptions,
}

impl Models<'_> {
    fn model(&mut self, name: &str) -> Option<Value> {
        let ty = type_named(name)?;
        let shape = ty.as_struct()?;
        let mut properties = Map::new();
        let mut required = Vec::new();
        self.properties(name, shape.fields, &mut properties, &mut required);
        let mut schema = json!({"type": "object"});
        if let Some(text) = self.descriptions.of_type(name) {
            schema["description"] = text.into();
        }
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if shape.atomic {
            schema["x-kubernetes-map-type"] = "atomic".into();
        }
        if shape.root {
            let mut parts = name.splitn(3, '.');
            let (package, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let kind = parts.next().unwrap_or_default();
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": group_of(package), "version": version, "kind": kind}]);
        }
        Some(schema)
    }

    fn properties(
        &mut self,
        owner: &str,
        fields: &'static [Field],
        out: &mut Map<String, Value>,
        required: &mut Vec<&'static str>,
    ) {
        for field in fields {
            if field.inline {
                if let Some(inner) = field.ty.as_struct() {
                    self.properties(owner, inner.fields, out, required);
                }
                continue;
            }
            if !field.optional && !field.omitempty {
                required.push(field.json);
            }
            let mut property = self.property(field);
            if let Some(text) = self.descriptions.of_field(owner, field.json).or_else(|| standard(field.json)) {
                property["description"] = text.into();
            }
            out.insert(field.json.to_owned(), property);
        }
    }

    fn property(&mut self, field: &'static Field) -> Value {
        let mut schema = self.schema(field.ty);
        let default = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok()).or_else(|| {
            // A struct that is not a pointer is never absent.
            (field.ty.as_struct().is_some() && !field.pointer).then(|| json!({}))
        });
        if schema.get("$ref").is_some() && self.dialect == Dialect::V3 {
            // Siblings of $ref are ignored by readers of version 3.
            schema = json!({"allOf": [schema]});
        }
        // In version 2 a default beside $ref is lost anyway.
        if let Some(default) = default
            && (self.dialect == Dialect::V3 || schema.get("$ref").is_none())
        {
            schema["default"] = default;
        }
        if field.patch_merge || field.patch_replace || field.patch_retain_keys {
            let strategy: Vec<&str> = [
                (field.patch_merge, "merge"),
                (field.patch_replace, "replace"),
                (field.patch_retain_keys, "retainKeys"),
            ]
            .into_iter()
            .filter_map(|(set, name)| set.then_some(name))
            .collect();
            schema["x-kubernetes-patch-strategy"] = strategy.join(",").into();
        }
        if let Some(key) = field.merge_key {
            schema["x-kubernetes-patch-merge-key"] = key.into();
        }
        if let Some(kind) = field.list_type {
            schema["x-kubernetes-list-type"] = kind.into();
        }
        if !field.list_map_keys.is_empty() {
            schema["x-kubernetes-list-map-keys"] = json!(field.list_map_keys);
        }
        if let Some(kind) = field.map_type {
            schema["x-kubernetes-map-type"] = kind.into();
        }
        schema
    }

    fn schema(&mut self, ty: &'static Type) -> Value {
        match ty.shape() {
            Shape::Struct(_) => {
                self.queue.push(ty.name.to_owned());
                self.dialect.reference(&type_to_model_name(ty.name))
            }
            Shape::Map(element) => {
                json!({"type": "object", "additionalProperties": self.schema(element)})
            }
            Shape::List(element) => json!({"type": "array", "items": self.schema(element)}),
            Shape::Strings => json!({"type": "array", "items": {"type": "string"}}),
            Shape::Enum(values) => json!({"type": "string", "enum": values}),
            Shape::String => json!({"type": "string"}),
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer", "format": "int64"}),
            Shape::Float64 => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Quantity => self.dialect.reference(QUANTITY),
            Shape::Time => self.dialect.reference(TIME),
            Shape::MicroTime => self.dialect.reference(MICRO_TIME),
            Shape::IntOrString => self.dialect.reference(INT_OR_STRING),
            Shape::Raw => self.dialect.reference(RAW),
            Shape::FieldsV1 => self.dialect.reference(FIELDS),
            Shape::Json => self.dialect.reference(JSON),
            Shape::SchemaOrArray | Shape::SchemaOrBool | Shape::SchemaOrStrings | Shape::Any => {
                json!({})
            }
        }
    }
}
