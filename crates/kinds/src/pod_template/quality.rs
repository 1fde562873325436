//! The quality-of-service class of a pod: what it asked for compared with what it may use.

use std::collections::BTreeMap;

use object_model::Quantity;
use serde_json::Value;

use crate::walk;

/// `Guaranteed` if the pod or every container has equal requests and limits of cpu and memory, `BestEffort` if none has any.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    let containers = || walk::list(spec, "initContainers").iter().chain(walk::list(spec, "containers"));
    // What a pod asks for as a whole stands for what its containers ask for.
    let askers: Vec<&Value> = match walk::at(spec, "resources") {
        Some(resources) => vec![resources],
        None => containers().map(|container| &container["resources"]).collect(),
    };
    for resources in askers {
        add(&mut requests, &resources["requests"]);
        let limited = add(&mut limits, &resources["limits"]);
        guaranteed &= limited == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    if guaranteed && requests == limits { "Guaranteed" } else { "Burstable" }
}

/// Adds the amounts of cpu and memory, and counts them.
fn add(sums: &mut BTreeMap<&'static str, Quantity>, amounts: &Value) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let amount = walk::text(amounts, name).and_then(|text| text.parse::<Quantity>().ok());
        if let Some(amount) = amount.filter(|amount| *amount > Quantity::whole(0)) {
            found += 1;
            let sum = sums.get(name).map_or_else(|| amount.clone(), |sum| sum.plus(&amount));
            sums.insert(name, sum);
        }
    }
    found
}
