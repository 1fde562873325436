//! PriorityLevelConfiguration: how many requests of a level are served at a time, and how many may wait.

use object_model::{FieldError, FieldPath, meta};
use serde_json::{Value, json};

use super::GROUP;
use crate::pod_template::range;
use crate::{Column, Kind, Now, Resource, Subresource, cells, rules, walk};

pub(crate) static RESOURCE: Resource = Resource {
    group: GROUP,
    kind: "PriorityLevelConfiguration",
    plural: "prioritylevelconfigurations",
    singular: "prioritylevelconfiguration",
    subresources: &[Subresource::status(GROUP, "PriorityLevelConfiguration")],
    type_name: "flowcontrol.v1.PriorityLevelConfiguration",
    storage: "prioritylevelconfigurations",
    has_status: true,
    has_generation: true,
    columns: &[
        Column::name(),
        Column::text("Type", "Whether it is limited."),
        Column::text("NominalConcurrencyShares", "Its share of the requests served at a time."),
        Column::text("Queues", "Number of queues."),
        Column::text("HandSize", "Queues that one flow may use."),
        Column::text("QueueLengthLimit", "Requests that may wait in a queue."),
        Column::age(),
    ],
    example: "apiVersion: flowcontrol.apiserver.k8s.io/v1\nkind: PriorityLevelConfiguration\nmetadata: {name: example}\n\
              spec:\n  type: Limited\n  limited:\n    nominalConcurrencyShares: 20\n\
              \x20   limitResponse: {type: Queue, queuing: {queues: 64}}\n",
    hooks: &PriorityLevel,
    ..crate::CLUSTER
};

struct PriorityLevel;

const MAX_QUEUES: i64 = 10_000_000;
/// Bits of the number that a flow's queues are drawn from.
const MAX_ENTROPY_BITS: u32 = 60;

impl Kind for PriorityLevel {
    fn limits_requests(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        if spec["type"] == "Exempt" {
            let exempt = walk::value_at(spec, "exempt");
            walk::default(exempt, "nominalConcurrencyShares", 0);
            walk::default(exempt, "lendablePercent", 0);
        }
        let Some(limited) = spec.get_mut("limited").filter(|limited| limited.is_object()) else { return };
        walk::default(limited, "nominalConcurrencyShares", 30);
        walk::default(limited, "lendablePercent", 0);
        if let Some(queuing) = limited.pointer_mut("/limitResponse/queuing").filter(|queuing| queuing.is_object()) {
            for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if walk::number(queuing, field) == 0 {
                    queuing[field] = value.into();
                }
            }
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = FieldPath::new("spec");
        let (name, spec) = (meta::name(object), &object["spec"]);
        let kind = spec["type"].as_str().unwrap_or_default();
        if (name == "exempt") != (kind == "Exempt") {
            let why = "type must be 'Exempt' if and only if name is 'exempt'";
            errors.push(FieldError::invalid(&path.child("type"), kind, why));
        }
        let at = path.child("limited");
        match (kind, walk::at(spec, "limited")) {
            ("Exempt", Some(_)) => {
                errors.push(FieldError::forbidden(&at, "must be nil if the type is not Limited"));
            }
            ("Limited", None) => {
                errors.push(FieldError::required(&at, "must not be empty when type is Limited"));
            }
            ("Limited", Some(given)) => limited(&mut errors, given, &at),
            ("Exempt", None) => {}
            _ => errors.push(FieldError::not_supported(&path.child("type"), kind, &["Exempt", "Limited"])),
        }
        if let Some(exempt) = walk::at(spec, "exempt") {
            let path = path.child("exempt");
            if kind == "Limited" {
                errors.push(FieldError::forbidden(&path, "must be nil if the type is Limited"));
            }
            walk::not_negative(&mut errors, exempt, "nominalConcurrencyShares", &path);
            percent(&mut errors, exempt, "lendablePercent", &path);
        }
        if fixed(name).is_some_and(|fixed| fixed != without_tunables(name, spec)) {
            let why = format!("spec of '{name}' must equal the fixed value");
            errors.push(FieldError::invalid(&path, spec.clone(), why));
        }
        errors
    }

    fn validate_status_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        super::conditions(&new["status"])
    }

    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        let limited = &object["spec"]["limited"];
        let number = |path: &str| {
            walk::at(limited, path).map_or_else(|| Value::from("<none>"), |number| number.to_string().into())
        };
        vec![
            cells::name(object),
            cells::text(object, "spec.type"),
            number("nominalConcurrencyShares"),
            number("limitResponse.queuing.queues"),
            number("limitResponse.queuing.handSize"),
            number("limitResponse.queuing.queueLengthLimit"),
            cells::age(object, now),
        ]
    }
}

/// The spec of a level that must be as it is. The shares of the exempt one may be chosen.
fn fixed(name: &str) -> Option<Value> {
    match name {
        "exempt" => Some(json!({"type": "Exempt"})),
        "catch-all" => Some(json!({
            "type": "Limited",
            "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
        })),
        _ => None,
    }
}

fn without_tunables(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    if let (Some(map), "exempt") = (spec.as_object_mut(), name) {
        map.remove("exempt");
    }
    spec
}

fn percent(errors: &mut Vec<FieldError>, object: &Value, field: &str, path: &FieldPath) {
    if let Some(value) = walk::at(object, field) {
        range(errors, value, &path.child(field), 0, 100);
    }
}

fn limited(errors: &mut Vec<FieldError>, given: &Value, path: &FieldPath) {
    walk::not_negative(errors, given, "nominalConcurrencyShares", path);
    percent(errors, given, "lendablePercent", path);
    walk::not_negative(errors, given, "borrowingLimitPercent", path);
    let (response, path) = (&given["limitResponse"], path.child("limitResponse"));
    let at = path.child("queuing");
    match (response["type"].as_str().unwrap_or_default(), walk::at(response, "queuing")) {
        ("Reject", Some(_)) => {
            let why = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(&at, why));
        }
        ("Queue", None) => {
            let why = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&at, why));
        }
        ("Queue", Some(given)) => queuing(errors, given, &at),
        ("Reject", None) => {}
        (other, _) => errors.push(FieldError::not_supported(&path.child("type"), other, &["Queue", "Reject"])),
    }
}

fn queuing(errors: &mut Vec<FieldError>, given: &Value, path: &FieldPath) {
    rules::positive(errors, given, "queueLengthLimit", path, "must be positive");
    rules::positive(errors, given, "queues", path, "must be positive");
    rules::positive(errors, given, "handSize", path, "must be positive");
    let (queues, hand) = (walk::number(given, "queues"), walk::number(given, "handSize"));
    if queues > MAX_QUEUES {
        let why = format!("must not be greater than {MAX_QUEUES}");
        errors.push(FieldError::invalid(&path.child("queues"), queues, why));
    }
    let at = path.child("handSize");
    if hand > queues {
        let why = format!("should not be greater than queues ({queues})");
        errors.push(FieldError::invalid(&at, hand, why));
    } else if hand > 0 && entropy_bits(queues, hand) > MAX_ENTROPY_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_ENTROPY_BITS}"
        );
        errors.push(FieldError::invalid(&at, hand, why));
    }
}

/// Bits that tell all hands of this size apart.
fn entropy_bits(queues: i64, hand: i64) -> u32 {
    // Drawing without putting back: fewer queues are left each time.
    let bits: f64 = (0..hand).take(64).map(|drawn| ((queues - drawn) as f64).log2()).sum();
    bits.ceil() as u32
}
