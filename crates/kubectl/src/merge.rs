//! The three-way merge of `kubectl apply`: what was applied last, what is to be applied, and what the server has.
//!
//! What the new manifest has and the server has not is set; what the last manifest had and the new one has not is taken
//! away; all else, such as what controllers and defaults added, stays. Lists that the type merges by key are compared
//! element by element.

use schema::{Field, Shape, Type};
use serde_json::{Map, Value, json};

/// A strategic merge patch that makes `current` what is wanted; an empty object if it is that already.
pub(crate) fn strategic(ty: Option<&'static Type>, original: &Value, modified: &Value, current: &Value) -> Value {
    let mut patch = Map::new();
    objects(ty, original, modified, current, &mut patch);
    Value::Object(patch)
}

/// The type of a field's value, and the field.
fn field_of(ty: Option<&'static Type>, name: &str) -> (Option<&'static Field>, Option<&'static Type>) {
    let Some(ty) = ty else { return (None, None) };
    if let Shape::Map(value) = ty.shape() {
        return (None, Some(value));
    }
    let field = ty.field(name);
    (field, field.map(|field| field.ty))
}

fn objects(
    ty: Option<&'static Type>,
    original: &Value,
    modified: &Value,
    current: &Value,
    patch: &mut Map<String, Value>,
) {
    let empty = Map::new();
    let modified = modified.as_object().unwrap_or(&empty);
    for (name, wanted) in modified {
        // A null in a manifest says nothing that an absent field does not say, unless the server has the field.
        let (field, value_type) = field_of(ty, name);
        let has = &current[name];
        match (wanted, has) {
            (Value::Null, Value::Null) => {}
            (Value::Object(_), Value::Object(_)) if field.is_none_or(|field| !field.patch_replace) => {
                let mut inner = Map::new();
                objects(value_type, &original[name], wanted, has, &mut inner);
                if !inner.is_empty() {
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Value::Array(wanted), Value::Array(has)) if field.is_some_and(|field| field.patch_merge) => {
                let Some(field) = field else { continue };
                lists(field, original[name].as_array(), wanted, has, patch);
            }
            _ if wanted == has => {}
            _ => {
                patch.insert(name.clone(), wanted.clone());
            }
        }
    }
    for name in original.as_object().into_iter().flatten().map(|(name, _)| name) {
        if !modified.contains_key(name) && !current[name].is_null() {
            patch.insert(name.clone(), Value::Null);
        }
    }
}

fn lists(
    field: &'static Field,
    original: Option<&Vec<Value>>,
    wanted: &[Value],
    has: &[Value],
    patch: &mut Map<String, Value>,
) {
    let name = field.json;
    let none = Vec::new();
    let original = original.unwrap_or(&none);
    let element = match field.ty.shape() {
        Shape::List(element) => Some(*element),
        _ => None,
    };
    let Some(key) = field.merge_key else {
        // Plain values: some come, some go.
        let more: Vec<Value> = wanted.iter().filter(|one| !has.contains(one)).cloned().collect();
        let gone: Vec<Value> =
            original.iter().filter(|one| !wanted.contains(one) && has.contains(one)).cloned().collect();
        if !more.is_empty() {
            patch.insert(name.to_owned(), Value::Array(more));
        }
        if !gone.is_empty() {
            patch.insert(format!("$deleteFromPrimitiveList/{name}"), Value::Array(gone));
        }
        return;
    };
    let find = |list: &[Value], value: &Value| list.iter().find(|one| one[key] == *value).cloned().unwrap_or_default();
    let mut elements = Vec::new();
    for one in wanted {
        let known = find(has, &one[key]);
        if known.is_null() {
            elements.push(one.clone());
            continue;
        }
        let mut inner = Map::new();
        objects(element, &find(original, &one[key]), one, &known, &mut inner);
        if !inner.is_empty() {
            inner.insert(key.to_owned(), one[key].clone());
            elements.push(Value::Object(inner));
        }
    }
    for one in original {
        if find(wanted, &one[key]).is_null() && !find(has, &one[key]).is_null() {
            elements.push(json!({"$patch": "delete", key: one[key]}));
        }
    }
    if !elements.is_empty() {
        let order: Vec<Value> = wanted.iter().map(|one| json!({key: one[key]})).collect();
        patch.insert(format!("$setElementOrder/{name}"), Value::Array(order));
        patch.insert(name.to_owned(), Value::Array(elements));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Option<&'static Type> {
        schema::type_for("v1", "Pod")
    }

    #[test]
    fn what_controllers_added_stays_and_what_was_dropped_goes() {
        let original = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"containers": [
            {"name": "x", "image": "i:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}, {"name": "y"}]}});
        let current = json!({"metadata": {"labels": {"a": "1", "b": "2", "other": "z"}, "uid": "u"}, "spec": {
            "nodeName": "n", "containers": [
            {"name": "x", "image": "i:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "imagePullPolicy": "Always"}, {"name": "y"}]}});
        let modified = json!({"metadata": {"labels": {"a": "9"}}, "spec": {"containers": [
            {"name": "x", "image": "i:2", "env": [{"name": "A", "value": "1"}]}]}});
        let patch = strategic(pod(), &original, &modified, &current);
        assert_eq!(
            patch,
            json!({"metadata": {"labels": {"a": "9", "b": null}}, "spec": {
                "$setElementOrder/containers": [{"name": "x"}],
                "containers": [
                    {"name": "x", "image": "i:2", "env": [{"$patch": "delete", "name": "B"}], "$setElementOrder/env": [{"name": "A"}]},
                    {"$patch": "delete", "name": "y"}]}})
        );
        let merged = schema::strategic_merge(pod().unwrap(), &current, &patch).unwrap();
        assert_eq!(merged["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(merged["spec"]["containers"].as_array().unwrap().len(), 1);
        assert_eq!(merged["metadata"]["labels"], json!({"a": "9", "other": "z"}));
        assert_eq!(strategic(pod(), &modified, &modified, &merged), json!({}), "a second time there is nothing to do");
    }

    #[test]
    fn a_type_nobody_knows_has_its_lists_replaced() {
        let patch = strategic(
            None,
            &json!({"spec": {"l": [1], "gone": 1}}),
            &json!({"spec": {"l": [2]}}),
            &json!({"spec": {"l": [1], "gone": 1, "k": 3}}),
        );
        assert_eq!(patch, json!({"spec": {"l": [2], "gone": null}}));
    }
}
