//! What is served survives the way a typed client takes: JSON → protobuf → JSON, whatever is in it.

#[path = "../../schema/tests/fill/mod.rs"]
mod fill;

use fill::{Dice, fill, without_empty_lists};
use kinds::RESOURCES;
use schema::{Type, normalise, protobuf};
use serde_json::{Value, json};

/// How many objects of each type are made.
const SEEDS: u64 = 40;

/// Types that clients send and get beside the kinds and their lists.
const OTHERS: [&str; 14] = [
    "meta.v1.Status",
    "meta.v1.DeleteOptions",
    "meta.v1.CreateOptions",
    "meta.v1.UpdateOptions",
    "meta.v1.PatchOptions",
    "meta.v1.ListOptions",
    "meta.v1.GetOptions",
    "meta.v1.PartialObjectMetadata",
    "meta.v1.PartialObjectMetadataList",
    "meta.v1.WatchEvent",
    "autoscaling.v1.Scale",
    "authentication.v1.TokenRequest",
    "policy.v1.Eviction",
    "core.v1.PodExecOptions",
];

fn survives(ty: &'static Type, object: &Value, what: &str) {
    let message = protobuf::encode(ty, object).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut back = protobuf::decode(ty, &message).unwrap_or_else(|error| panic!("{what}: {error}"));
    without_empty_lists(&mut back, ty);
    assert_eq!(back, *object, "{what}");
}

fn all_survive(name: &str) {
    let ty = schema::type_named(name).unwrap_or_else(|| panic!("{name} is not in the table"));
    for seed in 1..=SEEDS {
        let mut object = fill(ty, &mut Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 0);
        normalise(ty, &mut object);
        without_empty_lists(&mut object, ty);
        survives(ty, &object, &format!("{name} seed {seed}"));
    }
}

#[test]
fn every_kind_and_its_list_survive() {
    for row in RESOURCES {
        all_survive(row.type_name);
        if row.verbs.contains(&"list") {
            all_survive(&format!("{}List", row.type_name));
        }
        for subresource in row.subresources {
            let api_version = object_model::api_version(subresource.group, subresource.version);
            all_survive(schema::type_for(&api_version, subresource.kind).expect("in the table").name);
        }
    }
}

#[test]
fn what_travels_beside_objects_survives() {
    OTHERS.into_iter().for_each(all_survive);
}

#[test]
fn defaults_do_not_leave_the_type() {
    for row in RESOURCES {
        for seed in 1..=SEEDS {
            let mut object = fill(row.ty(), &mut Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)), 0);
            object["metadata"] = json!({"name": "a"});
            normalise(row.ty(), &mut object);
            row.default(&mut object);
            normalise(row.ty(), &mut object);
            without_empty_lists(&mut object, row.ty());
            survives(row.ty(), &object, &format!("{} seed {seed}", row.type_name));
            // Judging and showing what makes no sense must not fail either.
            row.validate(&object);
            row.validate_update(&object, &object);
            row.hooks.prepare_create(&mut object.clone());
            row.hooks.cells(&object, kinds::Now(jiff::Timestamp::UNIX_EPOCH));
        }
    }
}
