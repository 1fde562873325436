//! Parts of OpenAPI documents of version 2: what an aggregated API says of its version of a group, put into the document of
//! all.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

const REFERENCE: &str = "#/definitions/";
/// It tells what a definition is used for, not what it is.
const USES: &str = "x-kubernetes-group-version-kind";

/// The paths below one, and the definitions that they need.
pub fn below(document: &Value, path: &str) -> Value {
    let within = |other: &str| other.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let all = document["paths"].as_object().into_iter().flatten();
    let paths: Map<String, Value> = all.filter(|(path, _)| within(path)).map(|(p, v)| (p.clone(), v.clone())).collect();
    let mut names = BTreeSet::new();
    let mut new = Vec::new();
    paths.values().for_each(|value| references(value, &mut new));
    while let Some(name) = new.pop() {
        if let Some(definition) = document["definitions"].get(&name).filter(|_| names.insert(name.clone())) {
            references(definition, &mut new);
        }
    }
    let definitions: Map<String, Value> =
        names.into_iter().map(|name| (name.clone(), document["definitions"][&name].clone())).collect();
    json!({"paths": paths, "definitions": definitions})
}

/// Adds a part to a document. What is there already stays; a definition of a name that means something else gets another
/// name (upstream's way: `_v2` is put after it).
pub fn merge(document: &mut Value, mut part: Value) {
    let mut others = BTreeMap::new();
    for (name, definition) in part["definitions"].as_object().into_iter().flatten() {
        let taken = |name: &str| {
            let known = document["definitions"].get(name);
            known.is_some_and(|known| !means_the_same(known, definition))
        };
        if taken(name) {
            let free = (2..).map(|n| format!("{name}_v{n}")).find(|other| !taken(other));
            others.extend(free.map(|free| (name.clone(), free)));
        }
    }
    rename(&mut part, &others);
    for field in ["paths", "definitions"] {
        let Value::Object(added) = part[field].take() else { continue };
        let Some(known) = document[field].as_object_mut() else { continue };
        for (name, value) in added {
            let name = others.get(&name).filter(|_| field == "definitions").cloned().unwrap_or(name);
            known.entry(name).or_insert(value);
        }
    }
}

fn means_the_same(a: &Value, b: &Value) -> bool {
    let told = |value: &Value| -> BTreeMap<String, Value> {
        let fields = value.as_object().into_iter().flatten().filter(|(field, _)| *field != USES);
        fields.map(|(field, value)| (field.clone(), value.clone())).collect()
    };
    told(a) == told(b)
}

/// The names of the definitions that a value refers to.
fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let reference = fields.get("$ref").and_then(Value::as_str);
            names.extend(reference.and_then(|to| to.strip_prefix(REFERENCE)).map(str::to_owned));
            fields.values().for_each(|value| references(value, names));
        }
        Value::Array(elements) => elements.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

fn rename(value: &mut Value, others: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(to)) = fields.get_mut("$ref")
                && let Some(other) = to.strip_prefix(REFERENCE).and_then(|name| others.get(name))
            {
                *to = format!("{REFERENCE}{other}");
            }
            fields.values_mut().for_each(|value| rename(value, others));
        }
        Value::Array(elements) => elements.iter_mut().for_each(|value| rename(value, others)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_comes_with_what_it_needs_and_takes_no_name() {
        let refer = |name: &str| json!({"$ref": format!("{REFERENCE}{name}")});
        let theirs = json!({
            "paths": {
                "/apis/e/v1/pies": {"get": {"schema": refer("Pie")}}, "/apis/e/v1": {}, "/apis/e/v1beta1": {"get": {}},
                "/version": {"get": {"schema": refer("Version")}},
            },
            "definitions": {
                "Pie": {"properties": {"metadata": refer("Meta"), "pies": {"items": refer("Pie")}}},
                "Meta": {"type": "object", "properties": {"same": refer("Same")}},
                "Same": {"type": "string", USES: [{"kind": "Pie"}]}, "Version": {},
            },
        });
        let part = below(&theirs, "/apis/e/v1");
        let keys =
            |value: &Value| value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&part["paths"]).len(), 2);
        assert_eq!(keys(&part["definitions"]), ["Meta", "Pie", "Same"]);
        let ours = json!({"swagger": "2.0", "paths": {"/version": {}}, "definitions": {"Meta": {"type": "string"}, "Same": {"type": "string"}}});
        let mut all = ours.clone();
        merge(&mut all, part);
        assert_eq!(all["paths"]["/apis/e/v1/pies"]["get"]["schema"], refer("Pie"));
        assert_eq!(all["definitions"]["Meta"], ours["definitions"]["Meta"]);
        assert_eq!(all["definitions"]["Meta_v2"], theirs["definitions"]["Meta"]);
        assert_eq!(all["definitions"]["Same"], ours["definitions"]["Same"]);
        assert_eq!(all["definitions"]["Pie"]["properties"]["metadata"], refer("Meta_v2"));
    }
}
