//! Ranges of addresses for Services: they are ready when they are known, and go when nobody needs their addresses.

use std::net::IpAddr;
use std::time::Duration;

use client::{Patch, Resource};
use jiff::Timestamp;
use kinds::{ADDRESS_ALLOCATOR, MANAGED_BY, Network};
use object_model::{meta, time};
use serde_json::{Value, json};

use crate::pods::strip;
use crate::service_addresses::ADDRESSES;
use crate::{Action, Controller, Key, Objects, Read, Writes};

pub(crate) const RANGES: Resource = Resource { group: "networking.k8s.io", version: "v1", plural: "servicecidrs" };

pub(crate) const CONTROLLER: Controller = Controller {
    name: "service-cidr-controller",
    subject: RANGES,
    reads: &[Read { resource: ADDRESSES, wakes: ranges_of }, Read { resource: RANGES, wakes: neighbours }],
    writes: &[
        Writes::Status,
        Writes::Shared { resource: RANGES, because: "its finalizer holds a range whose addresses are in use" },
    ],
    plan,
};

/// Holds a range while its addresses are in use.
const PROTECTION: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long a range stays at least after its deletion has begun: an address of it may be about to be stored (upstream's
/// time).
const GRACE: i64 = 10;

/// The networks of a range.
fn networks(range: &Value) -> impl Iterator<Item = Network> {
    range["spec"]["cidrs"].as_array().into_iter().flatten().filter_map(|text| Network::parse(text.as_str()?))
}

/// The address that an object of the server's own tells of.
fn address_of(object: &Value) -> Option<IpAddr> {
    let managed = meta::labels(object).get(MANAGED_BY).is_some_and(|by| *by == ADDRESS_ALLOCATOR);
    managed.then(|| meta::name(object).parse().ok()).flatten()
}

fn ranges_of(address: &Value, objects: &dyn Objects) -> Vec<Key> {
    let Some(address) = address_of(address) else { return Vec::new() };
    let all = objects.list(RANGES, "");
    let holding = all.iter().filter(|range| networks(&range.object).any(|network| network.contains(address)));
    holding.map(|range| (String::new(), range.name.clone())).collect()
}

/// Those that hold some of the same addresses: what one of them waits for may be in another that has come.
fn neighbours(changed: &Value, objects: &dyn Objects) -> Vec<Key> {
    let shares = |other: &Value| networks(changed).any(|a| networks(other).any(|b| a.covers(&b) || b.covers(&a)));
    let all = objects.list(RANGES, "");
    let others = all.iter().filter(|other| other.name != meta::name(changed) && shares(&other.object));
    others.map(|other| (String::new(), other.name.clone())).collect()
}

fn plan(range: &Value, objects: &dyn Objects, now: Timestamp) -> anyhow::Result<Vec<Action>> {
    let held = meta::finalizers(range).contains(&PROTECTION);
    let Some(since) = meta::deletion_timestamp(range) else {
        let mut actions = Vec::new();
        if !held {
            actions.push(patch(range, "", Patch::Strategic, json!({"metadata": {"finalizers": [PROTECTION]}})));
        }
        actions.extend(ready(range, true, "", "Kubernetes Service CIDR is ready", now));
        return Ok(actions);
    };
    if !held {
        return Ok(Vec::new());
    }
    if is_needed(range, objects) {
        let why =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        return Ok(ready(range, false, "Terminating", why, now).into_iter().collect());
    }
    let left = time::parse(since).map_or(0, |since| since.as_second() + GRACE - now.as_second());
    if left > 0 {
        return Ok(vec![Action::Again(Duration::from_secs(left.unsigned_abs()))]);
    }
    let found = objects.get(RANGES, "", meta::name(range));
    Ok(found.iter().map(|found| strip(RANGES, found, PROTECTION)).collect())
}

/// Whether an address would belong to no range without this one.
fn is_needed(range: &Value, objects: &dyn Objects) -> bool {
    let all = objects.list(RANGES, "");
    let others: Vec<Network> =
        all.iter().filter(|other| other.name != meta::name(range)).flat_map(|other| networks(&other.object)).collect();
    if networks(range).all(|network| others.iter().any(|other| other.covers(&network))) {
        return false;
    }
    let addresses = objects.list(ADDRESSES, "");
    let mut within = addresses
        .iter()
        .filter_map(|address| address_of(&address.object))
        .filter(|address| networks(range).any(|network| network.contains(*address)));
    within.any(|address| !others.iter().any(|other| other.contains(address)))
}

fn ready(range: &Value, is: bool, reason: &str, message: &str, now: Timestamp) -> Option<Action> {
    let status = if is { "True" } else { "False" };
    let known = range["status"]["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    if known.is_some_and(|known| known["status"] == status && known["message"] == message) {
        return None;
    }
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": time::seconds(now),
    });
    Some(patch(range, "status", Patch::Merge, json!({"status": {"conditions": [condition]}})))
}

fn patch(range: &Value, subresource: &'static str, kind: Patch, patch: Value) -> Action {
    let name = meta::name(range).to_owned();
    Action::Patch { resource: RANGES, namespace: String::new(), name, subresource, kind, patch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, brief, now};

    fn range(name: &str, network: &str) -> Value {
        json!({"metadata": {"name": name, "uid": name}, "spec": {"cidrs": [network]}})
    }

    fn ending(name: &str, network: &str, since: &str) -> Value {
        let mut range = range(name, network);
        range["metadata"]["finalizers"] = json!([PROTECTION]);
        range["metadata"]["deletionTimestamp"] = since.into();
        range
    }

    fn address(name: &str) -> Value {
        json!({"metadata": {"name": name, "labels": {MANAGED_BY: ADDRESS_ALLOCATOR}}})
    }

    const LONG_AGO: &str = "2025-12-31T23:59:00Z";

    #[test]
    fn a_range_is_held_and_ready() {
        let said = brief(&plan(&range("a", "10.0.0.0/24"), &Fixed::default(), now()).expect("a plan"));
        assert!(
            said.contains(r#"patch servicecidrs a  {"metadata":{"finalizers":["networking.k8s.io/service-cidr-fin"#)
        );
        assert!(said.contains("patch servicecidrs a status") && said.contains(r#""status":"True""#), "{said}");
        let mut settled = range("a", "10.0.0.0/24");
        settled["metadata"]["finalizers"] = json!([PROTECTION]);
        settled["status"]["conditions"] =
            json!([{"type": "Ready", "status": "True", "message": "Kubernetes Service CIDR is ready"}]);
        assert_eq!(plan(&settled, &Fixed::default(), now()).expect("a plan"), []);
    }

    #[test]
    fn a_range_goes_when_its_addresses_are_in_another_or_gone() {
        let one = ending("a", "10.0.0.0/24", LONG_AGO);
        let said = |objects: Fixed, range: &Value| {
            let objects = objects.with(RANGES, range.clone());
            brief(&plan(range, &objects, now()).expect("a plan"))
        };
        let gone = r#"patch servicecidrs a  {"metadata":{"$deleteFromPrimitiveList/finalizers""#;
        assert!(said(Fixed::default(), &one).starts_with(gone));
        let used = || Fixed::default().with(ADDRESSES, address("10.0.0.9"));
        let held = said(used(), &one);
        assert!(held.contains(r#""reason":"Terminating","status":"False""#), "{held}");
        assert!(said(used().with(RANGES, range("b", "10.0.0.8/29")), &one).starts_with(gone));
        assert!(said(used().with(RANGES, range("b", "10.0.0.0/16")), &one).starts_with(gone));
        assert!(!said(used().with(RANGES, range("b", "10.0.0.64/26")), &one).starts_with(gone));
        let foreign = json!({"metadata": {"name": "10.0.0.9"}});
        assert!(said(Fixed::default().with(ADDRESSES, foreign), &one).starts_with(gone));
        let fresh = ending("a", "10.0.0.0/24", "2025-12-31T23:59:57Z");
        assert_eq!(said(Fixed::default(), &fresh), "again in 7s\n");
    }

    #[test]
    fn an_address_wakes_the_ranges_that_hold_it_and_a_range_its_neighbours() {
        let objects = Fixed::default()
            .with(RANGES, range("a", "10.0.0.0/24"))
            .with(RANGES, range("b", "10.0.0.0/16"))
            .with(RANGES, range("c", "10.9.0.0/24"));
        let names = |keys: Vec<Key>| keys.into_iter().map(|(_, name)| name).collect::<Vec<_>>();
        assert_eq!(names(ranges_of(&address("10.0.0.9"), &objects)), ["a", "b"]);
        assert_eq!(names(neighbours(&range("b", "10.0.0.0/16"), &objects)), ["a"]);
    }
}
