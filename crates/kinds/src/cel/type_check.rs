//! Checks the expressions of a validating policy against the types of the objects that it is about. What does not fit is a
//! warning in the policy's status, and changes nothing of what the policy does.

use std::collections::BTreeMap;
use std::sync::Arc;

use expressions::{Environment, ObjectType, Program, Type, escape};
use object_model::FieldPath;
use schema::Shape;
use serde_json::{Value, json};

use super::conditions::{namespace_object, request};
use super::declare::declare;
use crate::walk;

/// A type that expressions are checked against.
pub struct Checked {
    /// `apps/v1, Kind=Deployment`.
    pub shown: String,
    /// The type of `object`.
    pub ty: Type,
}

/// The warnings of a policy's `spec`, as its status holds them. `params` is the type of the parameters, if there is one.
pub fn warnings(spec: &Value, types: &[Checked], params: Option<Type>) -> Vec<Value> {
    let environments: Vec<(&str, Environment)> =
        types.iter().map(|checked| (checked.shown.as_str(), environment(spec, checked, params.as_ref()))).collect();
    let mut warnings = Vec::new();
    let path = FieldPath::new("spec").child("validations");
    for (n, validation) in walk::list(spec, "validations").iter().enumerate() {
        for field in ["expression", "messageExpression"] {
            let Some(text) = walk::text(validation, field) else { continue };
            let issues = environments.iter().filter_map(|(shown, environment)| {
                let error = Program::compile(text, environment).err()?;
                Some(format!("{shown}: {error}\n"))
            });
            let issues: Vec<String> = issues.collect();
            if !issues.is_empty() {
                let place = path.index(n).child(field).as_str().to_owned();
                warnings.push(json!({"fieldRef": place, "warning": issues.join("\n")}));
            }
        }
    }
    warnings
}

fn environment(spec: &Value, checked: &Checked, params: Option<&Type>) -> Environment {
    let none = ObjectType { name: "kubernetes.variables".to_owned(), fields: Some([].into()) };
    let mut environment = Environment::new()
        .with_type("object", checked.ty.clone())
        .with_type("oldObject", checked.ty.clone())
        .with_type("request", request())
        .with_type("namespaceObject", namespace_object())
        .with_type("authorizer", Type::AUTHORIZER)
        .with_type("authorizer.requestResource", Type::RESOURCE_CHECK)
        .with_type("variables", Type::Object(none.into()));
    if spec["paramKind"].is_object() {
        environment = environment.with_type("params", params.cloned().unwrap_or(Type::Dyn));
    }
    for variable in walk::list(spec, "variables") {
        let text = walk::text(variable, "expression").unwrap_or_default();
        // What is wrong with a variable shows where it is used, or nowhere.
        let ty = Program::compile(text, &environment).map_or(Type::Dyn, |program| program.output().clone());
        let name = format!("variables.{}", walk::text(variable, "name").unwrap_or_default());
        environment = environment.with_type(&name, ty);
    }
    environment
}

/// The type of objects of a type of the table, as expressions see it.
pub fn type_of_table(ty: &'static schema::Type) -> Type {
    of_table(ty, &mut Vec::new())
}

fn of_table(ty: &'static schema::Type, above: &mut Vec<&'static str>) -> Type {
    match ty.shape() {
        // A schema may hold schemas: what is below the second is anything.
        Shape::Struct(_) if above.contains(&ty.name) => Type::Dyn,
        Shape::Struct(parts) if parts.open => Type::Dyn,
        Shape::Struct(_) => {
            above.push(ty.name);
            let mut fields = BTreeMap::new();
            if ty.is_root() {
                fields.extend(["apiVersion", "kind"].map(|name| (name.to_owned(), Type::String)));
            }
            add_fields(ty, &mut fields, above);
            above.pop();
            Type::Object(Arc::new(ObjectType { name: ty.name.to_owned(), fields: Some(fields) }))
        }
        Shape::Map(value) => Type::map(of_table(value, above)),
        Shape::List(element) => Type::list(of_table(element, above)),
        Shape::Enum(_) | Shape::String => Type::String,
        Shape::Bool => Type::Bool,
        Shape::Int32 | Shape::Int64 => Type::Int,
        Shape::Float64 => Type::Double,
        Shape::Bytes => Type::Bytes,
        Shape::Time | Shape::MicroTime => Type::Timestamp,
        Shape::Strings => Type::list(Type::String),
        Shape::Quantity
        | Shape::IntOrString
        | Shape::Raw
        | Shape::FieldsV1
        | Shape::Json
        | Shape::SchemaOrArray
        | Shape::SchemaOrBool
        | Shape::SchemaOrStrings
        | Shape::Any => Type::Dyn,
    }
}

fn add_fields(ty: &'static schema::Type, fields: &mut BTreeMap<String, Type>, above: &mut Vec<&'static str>) {
    for field in ty.as_struct().map_or(&[][..], |parts| parts.fields) {
        if field.inline {
            add_fields(field.ty, fields, above);
        } else if let Some(name) = escape(field.json) {
            fields.insert(name, of_table(field.ty, above));
        }
    }
}

/// The type of objects that the schema of a definition describes; `None` if it describes none.
pub fn type_of_schema(schema: &Value) -> Option<Type> {
    let declared = declare(schema, "object", true)?;
    let Type::Object(object) = declared.declaration.ty() else { return None };
    let mut object = ObjectType::clone(object);
    if let (Some(fields), Some(metadata)) = (&mut object.fields, schema::type_named("meta.v1.ObjectMeta")) {
        // Of the metadata, expressions see all that there is, and not what rules of the schema see.
        fields.insert("metadata".to_owned(), type_of_table(metadata));
    }
    Some(Type::Object(Arc::new(object)))
}
