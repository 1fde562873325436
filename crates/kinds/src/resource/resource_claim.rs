//! ResourceClaim and ResourceClaimTemplate: the wish for devices, and what it was given.

use object_model::{FieldError, FieldPath, names, time};
use serde_json::Value;

use super::{GROUP, devices};
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static CLAIM: Resource = Resource {
    group: GROUP,
    kind: "ResourceClaim",
    plural: "resourceclaims",
    singular: "resourceclaim",
    subresources: &[Subresource::status(GROUP, "ResourceClaim")],
    type_name: "resource.v1.ResourceClaim",
    storage: "resourceclaims",
    has_status: true,
    columns: &[Column::name(), Column::text("State", "What became of the claim."), Column::age()],
    example: "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: example, namespace: default}\n\
              spec:\n  devices:\n    requests:\n    - {name: gpu, exactly: {deviceClassName: gpu.example.com}}\n\
              \x20   - name: any\n      firstAvailable: [{name: big, deviceClassName: big.example.com}]\n\
              \x20   constraints: [{requests: [gpu, any/big], matchAttribute: example.com/numa}]\n",
    hooks: &Claim,
    ..crate::NAMESPACED
};

pub(crate) static TEMPLATE: Resource = Resource {
    group: GROUP,
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    type_name: "resource.v1.ResourceClaimTemplate",
    storage: "resourceclaimtemplates",
    example: "apiVersion: resource.k8s.io/v1\nkind: ResourceClaimTemplate\nmetadata: {name: example, namespace: default}\n\
              spec:\n  spec:\n    devices:\n      requests:\n\
              \x20     - {name: gpu, exactly: {deviceClassName: gpu.example.com, allocationMode: All}}\n",
    hooks: &Template,
    ..crate::NAMESPACED
};

struct Claim;
struct Template;

const MAX_SUBREQUESTS: usize = 8;
const MAX_CONSUMERS: usize = 256;
const REQUEST_NAME: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

impl Kind for Claim {
    fn default(&self, object: &mut Value) {
        if let Some(devices) = object.pointer_mut("/spec/devices") {
            default_requests(devices);
        }
    }

    fn stamp(&self, new: &mut Value, old: &Value, now: Now) {
        if walk::at(old, "status.allocation").is_none()
            && let Some(allocation) = new.pointer_mut("/status/allocation").filter(|given| given.is_object())
        {
            allocation["allocationTimestamp"] = time::seconds(now.0).into();
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        claim_spec(&mut errors, &object["spec"], &FieldPath::new("spec"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec");
        errors
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("status");
        let (status, before) = (&new["status"], &old["status"]);
        for (path, consumer) in devices::items(&mut errors, status, "reservedFor", MAX_CONSUMERS, &path) {
            for field in ["resource", "name", "uid"] {
                rules::required(&mut errors, consumer, field, &path);
            }
        }
        devices::unique_names(&mut errors, status, "reservedFor", "uid", &path);
        let reserved = walk::list(status, "reservedFor");
        let at = path.child("reservedFor");
        let allocation = walk::at(status, "allocation");
        if !reserved.is_empty() && allocation.is_none() {
            errors.push(FieldError::forbidden(&at, "may not be specified when `allocated` is not set"));
        }
        let was = walk::list(before, "reservedFor");
        let ends = object_model::meta::deletion_timestamp(new).is_some();
        if ends && reserved.iter().any(|consumer| !was.contains(consumer)) {
            let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
            errors.push(FieldError::forbidden(&at, why));
        }
        match (allocation, walk::at(before, "allocation")) {
            (Some(_), Some(_)) => walk::immutable(&mut errors, new, old, "status.allocation"),
            (Some(given), None) => allocated(&mut errors, given, &new["spec"]["devices"], &path.child("allocation")),
            _ => {}
        }
        let results = allocation.map_or(&[][..], |allocation| walk::list(allocation, "devices.results"));
        for (index, device) in walk::list(status, "devices").iter().enumerate() {
            let same = |result: &&Value| ["driver", "pool", "device"].iter().all(|f| result[*f] == device[*f]);
            let path = path.child("devices").index(index);
            if !results.iter().any(|result| same(&result)) {
                let why = "must be an allocated device in the claim";
                errors.push(FieldError::invalid(&path, device.clone(), why));
            }
            rules::conditions(&mut errors, device, &path);
        }
        errors
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let ends = object_model::meta::deletion_timestamp(object).is_some();
        let allocated = walk::at(object, "status.allocation").is_some();
        let reserved = !walk::list(object, "status.reservedFor").is_empty();
        let states = [
            (ends, "deleted"),
            (!allocated && !ends, "pending"),
            (allocated, "allocated"),
            (allocated && reserved, "reserved"),
        ];
        let states: Vec<&str> = states.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state).collect();
        vec![cells::name(object), states.join(",").into(), cells::age(object, now)]
    }
}

impl Kind for Template {
    fn default(&self, object: &mut Value) {
        if let Some(devices) = object.pointer_mut("/spec/spec/devices") {
            default_requests(devices);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let metadata = &object["spec"]["metadata"];
        crate::meta::labels(&mut errors, metadata, &path.child("metadata"));
        crate::meta::annotations(&mut errors, metadata, &path.child("metadata").child("annotations"));
        claim_spec(&mut errors, &object["spec"]["spec"], &path.child("spec"));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        walk::immutable(&mut errors, new, old, "spec");
        errors
    }
}

/// A request is for one device, unless it says otherwise.
fn default_requests(devices: &mut Value) {
    let default = |request: &mut Value| {
        walk::default(request, "allocationMode", "ExactCount");
        if request["allocationMode"] == "ExactCount" && walk::number(request, "count") == 0 {
            request["count"] = 1.into();
        }
    };
    for request in walk::each_mut(devices, "requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|exactly| exactly.is_object()) {
            default(exactly);
        }
        walk::each_mut(request, "firstAvailable").filter(|one| one.is_object()).for_each(default);
    }
}

fn claim_spec(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let (claim, path) = (&spec["devices"], path.child("devices"));
    for (path, request) in devices::items(errors, claim, "requests", devices::MAX_ITEMS, &path) {
        let name = request["name"].as_str().unwrap_or_default();
        rules::named(errors, name, &path.child("name"), names::dns_label);
        match (walk::at(request, "exactly"), walk::list(request, "firstAvailable").is_empty()) {
            (None, true) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required";
                errors.push(FieldError::required(&path, why));
            }
            (Some(_), false) => {
                let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(FieldError::invalid(&path, Value::Null, why));
            }
            (Some(exactly), true) => device_request(errors, exactly, &path.child("exactly")),
            (None, false) => {
                for (path, one) in devices::items(errors, request, "firstAvailable", MAX_SUBREQUESTS, &path) {
                    let name = one["name"].as_str().unwrap_or_default();
                    rules::named(errors, name, &path.child("name"), names::dns_label);
                    device_request(errors, one, &path);
                }
                devices::unique_names(errors, request, "firstAvailable", "name", &path);
            }
        }
    }
    devices::unique_names(errors, claim, "requests", "name", &path);
    for (path, constraint) in devices::items(errors, claim, "constraints", devices::MAX_ITEMS, &path) {
        request_names(errors, constraint, claim, &path);
        match (walk::text(constraint, "matchAttribute"), walk::text(constraint, "distinctAttribute")) {
            (Some(name), _) => devices::full_name(errors, name, &path.child("matchAttribute")),
            (None, Some(name)) => devices::full_name(errors, name, &path.child("distinctAttribute")),
            (None, None) => {
                let why = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields \
                           are set";
                errors.push(FieldError::required(&path, why));
            }
        }
    }
    for (path, config) in devices::items(errors, claim, "config", devices::MAX_ITEMS, &path) {
        request_names(errors, config, claim, &path);
        devices::configuration(errors, config, &path);
    }
}

fn device_request(errors: &mut Vec<FieldError>, request: &Value, path: &FieldPath) {
    rules::required_name(errors, request, "deviceClassName", path, names::dns_subdomain);
    devices::selectors(errors, request, path);
    let (mode, count) = (request["allocationMode"].as_str().unwrap_or_default(), walk::number(request, "count"));
    let at = path.child("count");
    match mode {
        "All" if count != 0 => {
            let why = "must not be specified when allocationMode is 'All'";
            errors.push(FieldError::invalid(&at, count, why));
        }
        "ExactCount" if count <= 0 => errors.push(FieldError::invalid(&at, count, "must be greater than zero")),
        "All" | "ExactCount" => {}
        _ => errors.push(FieldError::not_supported(&path.child("allocationMode"), mode, &["All", "ExactCount"])),
    }
    devices::tolerations(errors, request, path);
    for name in object_model::meta::strings(&request["capacity"]["requests"]).into_keys() {
        devices::qualified_name(errors, name, &path.child("capacity").child("requests").key(name));
    }
}

/// Names of requests, or of a request and one of its alternatives.
fn request_names(errors: &mut Vec<FieldError>, object: &Value, claim: &Value, path: &FieldPath) {
    for (path, name) in devices::items(errors, object, "requests", devices::MAX_ITEMS, path) {
        request_name(errors, name.as_str().unwrap_or_default(), claim, &path);
    }
    let path = path.child("requests");
    rules::unique(errors, walk::list(object, "requests").iter().map(Value::as_str), |index| path.index(index));
}

fn request_name(errors: &mut Vec<FieldError>, name: &str, claim: &Value, path: &FieldPath) {
    let (main, part) = name.split_once('/').map_or((name, None), |(main, part)| (main, Some(part)));
    if part.is_none_or(|part| !part.contains('/')) {
        for name in std::iter::once(main).chain(part) {
            rules::named(errors, name, path, names::dns_label);
        }
    }
    let found = walk::list(claim, "requests").iter().find(|request| request["name"] == main).is_some_and(|request| {
        part.is_none_or(|part| walk::list(request, "firstAvailable").iter().any(|one| one["name"] == part))
    });
    if !found {
        errors.push(FieldError::invalid(path, name, REQUEST_NAME));
    }
}

fn allocated(errors: &mut Vec<FieldError>, allocation: &Value, claim: &Value, path: &FieldPath) {
    let (given, path) = (&allocation["devices"], path.child("devices"));
    for (path, result) in devices::items(errors, given, "results", devices::MAX_ITEMS, &path) {
        request_name(errors, result["request"].as_str().unwrap_or_default(), claim, &path.child("request"));
        rules::driver_name(errors, result, "driver", &path);
        devices::pool_name(errors, result, "pool", &path);
        let device = result["device"].as_str().unwrap_or_default();
        rules::named(errors, device, &path.child("device"), names::dns_label);
        devices::tolerations(errors, result, &path);
    }
    for (path, config) in devices::items(errors, given, "config", 2 * devices::MAX_ITEMS, &path) {
        rules::required_choice(errors, config, "source", &path, &["FromClaim", "FromClass"]);
        request_names(errors, config, claim, &path);
        devices::configuration(errors, config, &path);
    }
    if let Some(selector) = walk::at(allocation, "nodeSelector") {
        rules::node_selector(errors, selector, &path.child("nodeSelector"));
    }
}
