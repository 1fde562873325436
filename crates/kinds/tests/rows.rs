//! What holds for every row of the table.

use std::collections::BTreeSet;

use kinds::{Now, RESOURCES, Resource, Scope, resource, resource_of_kind, scale};
use schema::{decode_yaml, protobuf};
use serde_json::{Value, json};

fn now() -> Now {
    Now("2024-05-02T10:00:00Z".parse().expect("a timestamp"))
}

/// The example as a client would send it.
fn example(row: &Resource) -> Value {
    let decoded = decode_yaml(row.ty(), row.example.as_bytes()).unwrap_or_else(|e| panic!("{}: {e}", row.kind));
    assert_eq!(decoded.problems, Vec::<String>::new(), "{}", row.kind);
    decoded.value
}

/// The example as it would be stored.
fn created(row: &Resource) -> Value {
    let mut object = example(row);
    row.default(&mut object);
    row.hooks.prepare_create(&mut object);
    row.default(&mut object);
    object
}

/// Whether another row owns the collection.
fn is_second_view(row: &Resource) -> bool {
    let owner = RESOURCES.iter().find(|other| row.is_stored() && other.storage == row.storage);
    owner.is_some_and(|owner| !std::ptr::eq(*owner, row))
}

#[test]
fn names_are_unique() {
    let mut urls = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    let mut stores: BTreeSet<(&str, &str)> = BTreeSet::new();
    for row in RESOURCES {
        assert!(urls.insert((row.group, row.version, row.plural)), "{}", row.plural);
        assert!(kinds.insert((row.group, row.version, row.kind)), "{}", row.kind);
        if row.is_stored() {
            stores.insert((row.storage, row.plural));
        }
        assert_eq!(row.singular, row.kind.to_lowercase());
        assert!(row.verbs.is_sorted() && row.subresources.is_sorted_by_key(|s| s.name), "{}", row.kind);
        assert!(row.selectable_fields.is_sorted(), "{}", row.kind);
        assert_eq!(row.has_status, row.subresource("status").is_some(), "{}", row.kind);
        assert!(std::ptr::eq(resource(row.group, row.version, row.plural).expect("found"), *row));
        assert!(std::ptr::eq(resource_of_kind(&row.api_version(), row.kind).expect("found"), *row));
    }
    for (storage, plural) in stores {
        assert_eq!(storage, plural);
    }
    let mut short: Vec<&str> =
        RESOURCES.iter().filter(|row| !is_second_view(row)).flat_map(|row| row.short_names).copied().collect();
    let all = short.len();
    short.sort_unstable();
    short.dedup();
    assert_eq!(short.len(), all);
}

#[test]
fn every_type_exists_and_is_the_rows_kind() {
    for row in RESOURCES {
        let ty = schema::type_named(row.type_name).unwrap_or_else(|| panic!("{}", row.type_name));
        assert!(ty.is_root());
        assert!(std::ptr::eq(ty, schema::type_for(&row.api_version(), row.kind).expect("found")));
        let listed = row.verbs.contains(&"list");
        assert_eq!(schema::type_named(&format!("{}List", row.type_name)).is_some(), listed, "{}", row.kind);
        for subresource in row.subresources {
            let api_version = object_model::api_version(subresource.group, subresource.version);
            assert!(schema::type_for(&api_version, subresource.kind).is_some(), "{}/{}", row.plural, subresource.name);
        }
    }
}

#[test]
fn examples_are_valid() {
    for row in RESOURCES {
        let object = created(row);
        assert_eq!(row.validate(&object), vec![], "{}", row.kind);
        assert_eq!(row.validate_update(&object, &object), vec![], "{}", row.kind);
        assert_eq!(object["apiVersion"], row.api_version().as_str());
        assert_eq!(object["kind"], row.kind);
    }
}

#[test]
fn defaulting_twice_changes_nothing() {
    for row in RESOURCES {
        let once = created(row);
        let mut twice = once.clone();
        row.default(&mut twice);
        assert_eq!(once, twice, "{}", row.kind);
        // A minimal object gets no field its type does not have.
        let mut bare = json!({"metadata": {"name": "x"}});
        row.default(&mut bare);
        let conformed = schema::conform(row.ty(), bare.clone()).expect("fits its type");
        assert_eq!((conformed.value, conformed.problems), (bare, vec![]), "{}", row.kind);
    }
}

#[test]
fn examples_survive_protobuf() {
    for row in RESOURCES {
        let object = created(row);
        let message = protobuf::encode(row.ty(), &object).expect("encodes");
        let mut back = protobuf::decode(row.ty(), &message).expect("decodes");
        back["apiVersion"] = object["apiVersion"].clone();
        back["kind"] = object["kind"].clone();
        assert_eq!(back, object, "{}", row.kind);
    }
}

#[test]
fn every_column_has_a_cell() {
    for row in RESOURCES {
        for object in [created(row), json!({}), json!({"metadata": {"name": "x"}})] {
            let cells = row.hooks.cells(&object, now());
            assert_eq!(cells.len(), row.columns.len(), "{}", row.kind);
            for (cell, column) in cells.iter().zip(row.columns) {
                let fits = match column.kind {
                    "integer" => cell.is_i64(),
                    // Some print a word for it, as upstream does.
                    "boolean" => cell.is_boolean() || cell.is_string(),
                    _ => cell.is_string(),
                };
                assert!(fits, "{} {}: {cell}", row.kind, column.name);
                assert!(!column.description.is_empty() && !column.name.is_empty());
            }
        }
    }
}

#[test]
fn every_selectable_field_has_a_value() {
    for row in RESOURCES {
        for field in row.selectable_fields.iter().chain(&["metadata.name", "metadata.namespace"]) {
            assert!(row.field(&created(row), field).is_some(), "{} {field}", row.kind);
        }
        assert_eq!(row.field(&created(row), "spec.unheardOf"), None);
    }
}

#[test]
fn what_may_not_be_named_is_refused() {
    for row in RESOURCES.iter().filter(|row| row.is_stored()) {
        let mut object = created(row);
        // Roles may have almost any name, but none that would be two segments of a path.
        object["metadata"]["name"] = "A/b".into();
        let errors = row.validate(&object);
        assert!(errors.iter().any(|error| error.path.as_str() == "metadata.name"), "{}: {errors:?}", row.kind);
        let mut object = created(row);
        match row.scope {
            Scope::Namespaced => object["metadata"]["namespace"] = Value::Null,
            Scope::Cluster => object["metadata"]["namespace"] = "default".into(),
        }
        let errors = row.validate(&object);
        assert!(errors.iter().any(|error| error.path.as_str() == "metadata.namespace"), "{}: {errors:?}", row.kind);
    }
}

#[test]
fn a_main_write_keeps_the_status_and_a_status_write_all_else() {
    for row in RESOURCES.iter().filter(|row| row.has_status && !is_second_view(row)) {
        let mut old = created(row);
        old["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        let mut new = created(row);
        new["status"] = json!({});
        row.hooks.prepare_update(&mut new, &old);
        assert_eq!(new["status"], old["status"], "{}", row.kind);
        let mut new = old.clone();
        new["spec"] = json!({});
        new["metadata"]["labels"] = json!({"a": "b"});
        new["metadata"]["uid"] = "other".into();
        new["status"]["conditions"] = json!([]);
        row.hooks.prepare_status_update(&mut new, &old);
        assert_eq!(new.get("spec"), old.get("spec"), "{}", row.kind);
        assert_eq!(new["metadata"].get("uid"), old["metadata"].get("uid"));
        assert_eq!((&new["metadata"]["labels"]["a"], &new["status"]["conditions"]), (&json!("b"), &json!([])));
    }
}

#[test]
fn a_write_that_forgets_the_deletion_does_not_undo_it() {
    let old = json!({"metadata": {"name": "a", "uid": "u", "deletionTimestamp": "2024-05-01T10:00:00Z"}});
    let mut new = json!({"metadata": {"name": "a"}});
    assert_eq!(kinds::meta::validate_update(&new, &old).len(), 2);
    kinds::meta::carry_over(&mut new, &old);
    assert_eq!(new, old);
    assert_eq!(kinds::meta::validate_update(&new, &old), vec![]);
    new["metadata"]["uid"] = "v".into();
    assert_eq!(kinds::meta::validate_update(&new, &old).len(), 1);
}

#[test]
fn views_of_one_collection_lose_nothing() {
    for row in RESOURCES.iter().filter(|row| row.is_stored()) {
        let object = created(row);
        assert_eq!(row.hooks.served(row.hooks.stored(object.clone())), object, "{}", row.kind);
        let mut stored = row.hooks.stored(object);
        let owner = RESOURCES.iter().find(|other| other.storage == row.storage).expect("a row owns it");
        let conformed = schema::conform(owner.ty(), stored.clone()).expect("fits the stored type");
        assert_eq!((conformed.value, conformed.problems), (stored.clone(), vec![]), "{}", row.kind);
        let as_is = stored.clone();
        schema::normalise(owner.ty(), &mut stored);
        assert_eq!(stored, as_is, "{}: what is stored can be served as it is", row.kind);
    }
}

#[test]
fn typed_readers_take_the_examples() {
    for row in RESOURCES {
        let text = created(row).to_string();
        let json = text.as_bytes();
        let read = match (row.group, row.kind) {
            ("", "Pod") => kinds::typed::pod(json).map(drop),
            ("", "Node") => kinds::typed::node(json).map(drop),
            ("", "Namespace") => kinds::typed::namespace(json).map(drop),
            ("", "ConfigMap") => kinds::typed::config_map(json).map(drop),
            ("", "Secret") => kinds::typed::secret(json).map(drop),
            ("", "Service") => kinds::typed::service(json).map(drop),
            ("discovery.k8s.io", "EndpointSlice") => kinds::typed::endpoint_slice(json).map(drop),
            ("", "Event") => kinds::typed::event(json).map(drop),
            ("apps", "Deployment") => kinds::typed::deployment(json).map(drop),
            ("apps", "ReplicaSet") => kinds::typed::replica_set(json).map(drop),
            ("coordination.k8s.io", "Lease") => kinds::typed::lease(json).map(drop),
            _ => continue,
        };
        assert!(read.is_ok(), "{}: {read:?}", row.kind);
    }
}

#[test]
fn a_scale_shows_and_sets_the_replicas() {
    let row = resource("apps", "v1", "deployments").expect("in the table");
    let mut object = created(row);
    object["metadata"]["resourceVersion"] = "5".into();
    object["status"]["replicas"] = 3.into();
    let paths = scale::Paths::built_in();
    let mut shown = scale::of(&paths, &object);
    assert_eq!(shown["status"], json!({"replicas": 3, "selector": "app=example"}));
    assert_eq!(shown["spec"], json!({"replicas": 1}));
    assert_eq!(shown["metadata"]["resourceVersion"], "5");
    shown["spec"]["replicas"] = 4.into();
    scale::set(&paths, &mut object, &shown).expect("is set");
    assert_eq!(object["spec"]["replicas"], 4);
    shown["metadata"]["resourceVersion"] = "4".into();
    assert_eq!(scale::set(&paths, &mut object, &shown), Err(None));
    let custom =
        scale::Paths { spec: "spec.size".into(), status: "status.size".into(), selector: Some("status.by".into()) };
    let mut object = json!({"spec": {"size": 2}, "status": {"size": 1, "by": "a=b"}});
    let shown = scale::of(&custom, &object);
    assert_eq!((&shown["spec"]["replicas"], &shown["status"]), (&json!(2), &json!({"replicas": 1, "selector": "a=b"})));
    scale::set(&custom, &mut object, &json!({"spec": {"replicas": 7}})).expect("is set");
    assert_eq!(object["spec"]["size"], 7);
}
