//! ResourceSlice: devices that a driver offers.

use object_model::{FieldError, FieldPath, names, time};
use serde_json::{Map, Value};

use super::{GROUP, devices};
use crate::{Column, Kind, Now, Resource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    type_name: "resource.v1.ResourceSlice",
    storage: "resourceslices",
    has_generation: true,
    selectable_fields: &["spec.driver", "spec.nodeName"],
    columns: &[
        Column::name(),
        Column::text("Node", "The node of the devices."),
        Column::text("Driver", "Who offers them."),
        Column::text("Pool", "The pool they belong to."),
        Column::age(),
    ],
    example: "apiVersion: resource.k8s.io/v1\nkind: ResourceSlice\nmetadata: {name: example}\n\
              spec:\n  driver: gpu.example.com\n  nodeName: node-1\n  pool: {name: node-1, generation: 1, resourceSliceCount: 1}\n\
              \x20 devices: [{name: gpu-0, attributes: {model: {string: x}}, capacity: {memory: {value: 8Gi}}}]\n",
    hooks: &ResourceSlice,
    ..crate::CLUSTER
};

struct ResourceSlice;

/// Devices of a slice, and of one whose devices have taints, counters or lists.
const MAX_DEVICES: usize = 128;
const MAX_RICH_DEVICES: usize = 64;
const MAX_PROPERTIES: usize = 32;
const MAX_VALUE: usize = 64;
const MAX_COUNTER_SETS: usize = 8;
/// Where devices can be used: one of these says so.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
/// One value of an attribute.
const VALUES: [&str; 8] = ["bool", "int", "string", "version", "bools", "ints", "strings", "versions"];

impl Kind for ResourceSlice {
    fn ties_to_nodes(&self) -> bool {
        true
    }

    fn stamp(&self, new: &mut Value, _old: &Value, now: Now) {
        let Some(spec) = new.get_mut("spec") else { return };
        for device in walk::each_mut(spec, "devices") {
            for taint in walk::each_mut(device, "taints").filter(|taint| taint.is_object()) {
                walk::default(taint, "timeAdded", time::seconds(now.0));
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let spec = &object["spec"];
        rules::driver_name(&mut errors, spec, "driver", &path);
        let pool = path.child("pool");
        devices::pool_name(&mut errors, &spec["pool"], "name", &pool);
        rules::positive(&mut errors, &spec["pool"], "resourceSliceCount", &pool, "must be greater than zero");
        walk::not_negative(&mut errors, &spec["pool"], "generation", &pool);
        let why = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
        place(&mut errors, spec, &PLACES, why, &path);
        if let Some(selector) = walk::at(spec, "nodeSelector")
            && walk::list(selector, "nodeSelectorTerms").len() != 1
        {
            let path = path.child("nodeSelector").child("nodeSelectorTerms");
            let given = selector["nodeSelectorTerms"].clone();
            errors.push(FieldError::invalid(&path, given, "must have exactly one node selector term"));
        }
        let offered = walk::list(spec, "devices");
        let counters = walk::list(spec, "sharedCounters");
        if !offered.is_empty() && !counters.is_empty() {
            let why = "only one of `sharedCounters` or `devices` is allowed";
            errors.push(FieldError::invalid(&path, "", why));
        }
        let rich = |device: &Value| {
            !walk::list(device, "taints").is_empty()
                || !walk::list(device, "consumesCounters").is_empty()
                || entries(device, "attributes").any(|(_, value)| VALUES[4..].iter().any(|v| value.get(v).is_some()))
        };
        let most = if offered.iter().any(rich) { MAX_RICH_DEVICES } else { MAX_DEVICES };
        let apart = spec["perDeviceNodeSelection"] == true;
        for (path, one) in devices::items(&mut errors, spec, "devices", most, &path) {
            device(&mut errors, one, apart, &path);
        }
        devices::unique_names(&mut errors, spec, "devices", "name", &path);
        for (path, set) in devices::items(&mut errors, spec, "sharedCounters", MAX_COUNTER_SETS, &path) {
            counter_set(&mut errors, set, "name", &path);
        }
        devices::unique_names(&mut errors, spec, "sharedCounters", "name", &path);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["pool.name", "driver", "nodeName"] {
            walk::immutable(&mut errors, new, old, &format!("spec.{field}"));
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let text = |path: &str| cells::text(object, path);
        let node = walk::text(object, "spec.nodeName").unwrap_or("<unset>");
        vec![cells::name(object), node.into(), text("spec.driver"), text("spec.pool.name"), cells::age(object, now)]
    }
}

fn entries<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.get(field).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// Exactly one of the fields that say where something can be used.
fn place(errors: &mut Vec<FieldError>, object: &Value, fields: &[&str], why: &str, path: &FieldPath) {
    let mut set = Vec::new();
    for field in fields {
        let at = path.child(field);
        match walk::at(object, field) {
            None => continue,
            Some(Value::String(name)) if name.is_empty() => {
                let why = "must be either unset or set to a non-empty string";
                errors.push(FieldError::invalid(&at, "", why));
                continue;
            }
            Some(Value::String(name)) => rules::named(errors, name, &at, names::dns_subdomain),
            Some(Value::Bool(false)) => {
                errors.push(FieldError::invalid(&at, false, "must be either unset or set to true"));
                continue;
            }
            Some(Value::Bool(true)) => {}
            Some(selector) => rules::node_selector(errors, selector, &at),
        }
        set.push(format!("`{field}`"));
    }
    match set.len() {
        0 => errors.push(FieldError::required(path, why)),
        1 => {}
        _ => {
            let given = format!("{{{}}}", set.join(", "));
            errors.push(FieldError::invalid(path, given, format!("{why}, but multiple fields are set")));
        }
    }
}

fn device(errors: &mut Vec<FieldError>, device: &Value, apart: bool, path: &FieldPath) {
    let name = device["name"].as_str().unwrap_or_default();
    rules::named(errors, name, &path.child("name"), names::dns_label);
    let properties = entries(device, "attributes").chain(entries(device, "capacity")).count();
    if properties > MAX_PROPERTIES {
        let why = format!("the total number of attributes and capacities must not exceed {MAX_PROPERTIES}");
        errors.push(FieldError::invalid(path, properties, why));
    }
    for (name, value) in entries(device, "attributes") {
        let path = path.child("attributes").key(name);
        devices::qualified_name(errors, name, &path);
        attribute(errors, value, &path);
    }
    for (name, capacity) in entries(device, "capacity") {
        let path = path.child("capacity").key(name);
        devices::qualified_name(errors, name, &path);
        if walk::at(capacity, "requestPolicy").is_some() && device["allowMultipleAllocations"] != true {
            let why = "allowMultipleAllocations must be true";
            errors.push(FieldError::forbidden(&path.child("requestPolicy"), why));
        }
    }
    for (path, taint) in devices::items(errors, device, "taints", 16, path) {
        devices::taint(errors, taint, &path);
    }
    for (path, set) in devices::items(errors, device, "consumesCounters", 2, path) {
        counter_set(errors, set, "counterSet", &path);
    }
    devices::unique_names(errors, device, "consumesCounters", "counterSet", path);
    if apart {
        let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
                   set to true in the ResourceSlice spec";
        place(errors, device, &PLACES[..3], why, path);
    } else if PLACES[..3].iter().any(|field| walk::at(device, field).is_some()) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true \
                   in the ResourceSlice spec";
        errors.push(FieldError::invalid(path, Value::Null, why));
    }
}

fn attribute(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    let set: Vec<&str> = VALUES.into_iter().filter(|field| walk::at(value, field).is_some()).collect();
    if set.len() != 1 {
        let given = if set.is_empty() { Value::from("") } else { value.clone() };
        errors.push(FieldError::invalid(path, given, "exactly one value must be specified"));
    }
    for (field, text) in ["string", "version"].into_iter().filter_map(|f| Some((f, walk::text(value, f)?))) {
        let path = path.child(field);
        if text.len() > MAX_VALUE {
            errors.push(FieldError::too_long(&path, MAX_VALUE));
        }
        if field == "version" && !is_semantic_version(text) {
            let why = "must be a string compatible with semver.org spec 2.0.0";
            errors.push(FieldError::invalid(&path, text, why));
        }
    }
}

fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| digits(part) && (part.len() == 1 || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| pre.split('.').all(|part| word(part) && (!digits(part) || number(part))))
        && build.is_none_or(|build| build.split('.').all(word))
}

fn counter_set(errors: &mut Vec<FieldError>, set: &Value, name: &str, path: &FieldPath) {
    rules::required_name(errors, set, name, path, names::dns_label);
    let path = path.child("counters");
    let count = entries(set, "counters").count();
    if count == 0 {
        errors.push(FieldError::required(&path, ""));
    }
    if count > MAX_PROPERTIES {
        errors.push(FieldError::too_many(&path, count, MAX_PROPERTIES));
    }
    for (name, _) in entries(set, "counters") {
        rules::named(errors, name, &path.key(name), names::dns_label);
    }
}
