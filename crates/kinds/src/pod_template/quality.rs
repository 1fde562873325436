//! The quality-of-service class of a pod: what it asked for compared with what it may use.

use std::collections::BTreeMap;

use object_model::Quantity;
use serde_json::Value;

use crate::walk;

/// `Guaranteed` if every container has equal requests and limits of cpu and memory, `BestEffort` if none has any.
pub(crate) fn qos_class(spec: &Value) -> &'static str {
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    for container in walk::list(spec, "initContainers").iter().chain(walk::list(spec, "containers")) {
        add(&mut requests, &container["resources"]["requests"]);
        let limited = add(&mut limits, &container["resources"]["limits"]);
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
