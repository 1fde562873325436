//! Who holds which value of the cluster's pools ([`kinds::Pool`]): virtual addresses, ports of nodes.
//!
//! What an object holds is written in the object itself, so the register is made from the store at its first use. A write
//! takes its values here before it goes to the store and gives them back if it fails; what an object no longer names is
//! free when the write that dropped it has been stored.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kinds::{Claim, Pool};
use object_model::{ApiError, FieldError, meta};
use serde_json::Value;
use store::Entry;

use crate::addresses::{Range, Space};
use crate::served::Served;
use crate::{ApiServer, stored};

/// The lowest and the highest port of nodes (upstream's default range).
const NODE_PORTS: (u32, u32) = (30_000, 32_767);

/// A value of a pool, as a number: an address's bits, or a port.
pub(crate) type Number = (Pool, u32);

/// The register.
pub(crate) struct Claims {
    /// The range of virtual addresses that is used as long as no object speaks for it.
    pub first_range: OnceLock<Range>,
    held: Mutex<Option<Held>>,
}

#[derive(Default)]
struct Held {
    owners: HashMap<Number, String>,
    /// What each uid holds.
    values: HashMap<String, BTreeSet<Number>>,
    /// The collections whose objects hold anything.
    collections: HashSet<String>,
}

impl Held {
    fn take(&mut self, uid: &str, number: Number) {
        self.owners.insert(number, uid.to_owned());
        self.values.entry(uid.to_owned()).or_default().insert(number);
    }

    fn give_back(&mut self, uid: &str, numbers: impl IntoIterator<Item = Number>) {
        for number in numbers {
            self.owners.remove(&number);
            if let Some(values) = self.values.get_mut(uid) {
                values.remove(&number);
            }
        }
        if self.values.get(uid).is_some_and(BTreeSet::is_empty) {
            self.values.remove(uid);
        }
    }
}

/// Values taken for a write that is under way. Dropped before [`Taken::keep`], it gives them back.
pub(crate) struct Taken<'a> {
    claims: &'a Claims,
    uid: String,
    new: Vec<Number>,
    all: BTreeSet<Number>,
}

impl Taken<'_> {
    /// The write has been stored: the object holds what it names now, and nothing else. Returns what it has newly taken and
    /// what it has given back.
    pub fn keep(mut self) -> (Vec<Number>, Vec<Number>) {
        let new = std::mem::take(&mut self.new);
        let mut held = self.claims.lock();
        let Some(held) = held.as_mut() else { return (new, Vec::new()) };
        let before = held.values.get(&self.uid).cloned().unwrap_or_default();
        let old: Vec<Number> = before.difference(&self.all).copied().collect();
        held.give_back(&self.uid, old.iter().copied());
        (new, old)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        // Without this, giving up in the middle of taking would wait for its own lock.
        if self.new.is_empty() {
            return;
        }
        if let Some(held) = self.claims.lock().as_mut() {
            held.give_back(&self.uid, std::mem::take(&mut self.new));
        }
    }
}

impl Claims {
    pub fn new() -> Self {
        Self { first_range: OnceLock::new(), held: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        // Each change is made in one step, so a panic leaves nothing half done.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The range of virtual addresses that is used as long as no object speaks for it.
    pub fn first_range(&self) -> &Range {
        self.first_range.get_or_init(|| {
            let base = u32::from(Ipv4Addr::new(10, 96, 0, 0));
            Range { first: base + 1, last: base + 0xfffe, text: "10.96.0.0/16".to_owned() }
        })
    }

    fn number(pool: Pool, text: &str) -> Option<u32> {
        match pool {
            Pool::Address => text.parse::<Ipv4Addr>().ok().map(u32::from),
            Pool::NodePort => text.parse().ok(),
        }
    }

    fn value(pool: Pool, number: u32) -> Value {
        match pool {
            Pool::Address => Ipv4Addr::from(number).to_string().into(),
            Pool::NodePort => number.into(),
        }
    }

    /// A free number.
    fn free(held: &Held, space: &Space<'_>, pool: Pool) -> Option<u32> {
        let is_free = |number: &u32| {
            let taken = held.owners.contains_key(&(pool, *number));
            !taken && (pool != Pool::Address || !(space.is_foreign)(*number))
        };
        match pool {
            Pool::NodePort => free_within(NODE_PORTS, (32, 128), is_free),
            Pool::Address => {
                space.ranges.iter().find_map(|range| free_within((range.first, range.last), (16, 256), is_free))
            }
        }
    }

    /// Takes what the object claims, and writes into it what it is given.
    fn take(
        &self,
        held: &mut Held,
        space: &Space<'_>,
        claims: &[Claim],
        object: &mut Value,
    ) -> Result<Taken<'_>, Vec<FieldError>> {
        let uid = meta::uid(object).to_owned();
        let mut taken = Taken { claims: self, uid, new: Vec::new(), all: BTreeSet::new() };
        let mut errors = Vec::new();
        // Those with a value first, so that none of them is given to another claim of the same object.
        let (named, open): (Vec<&Claim>, Vec<&Claim>) = claims.iter().partition(|claim| claim.value.is_some());
        for claim in named.into_iter().chain(open) {
            let number = match &claim.value {
                Some(text) => Self::named(held, space, &taken.uid, claim, text),
                None => Self::free(held, space, claim.pool).ok_or_else(|| exhausted(claim)),
            };
            match number {
                Err(error) => errors.push(error),
                Ok(number) => {
                    let key = (claim.pool, number);
                    if !held.owners.contains_key(&key) {
                        held.take(&taken.uid, key);
                        taken.new.push(key);
                    }
                    taken.all.insert(key);
                    claim.fields.iter().for_each(|field| set(object, field, Self::value(claim.pool, number)));
                }
            }
        }
        if errors.is_empty() {
            return Ok(taken);
        }
        held.give_back(&taken.uid, std::mem::take(&mut taken.new));
        Err(errors)
    }

    /// The number that a claim names, if it may have it.
    fn named(held: &Held, space: &Space<'_>, uid: &str, claim: &Claim, text: &str) -> Result<u32, FieldError> {
        let number = Self::number(claim.pool, text);
        let (first, last) = NODE_PORTS;
        let owner = number.and_then(|number| held.owners.get(&(claim.pool, number)));
        let taken = owner.is_some_and(|owner| owner != uid);
        let (within, foreign, outside, allocated) = match claim.pool {
            Pool::Address => {
                let ranges: Vec<&str> = space.ranges.iter().map(|range| range.text.as_str()).collect();
                (
                    number.is_some_and(|number| space.ranges.iter().any(|range| range.contains(number))),
                    number.is_some_and(|number| owner.is_none() && (space.is_foreign)(number)),
                    format!(
                        "the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                        ranges.join(",")
                    ),
                    "provided IP is already allocated",
                )
            }
            Pool::NodePort => (
                number.is_some_and(|number| (first..=last).contains(&number)),
                false,
                format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"),
                "provided port is already allocated",
            ),
        };
        let why = match number {
            // What an object has already it keeps, also when its range goes.
            Some(number) if owner.is_some_and(|owner| owner == uid) => return Ok(number),
            Some(number) if within && !taken && !foreign => return Ok(number),
            Some(_) if within => allocated.to_owned(),
            _ => outside,
        };
        let value = number.map_or_else(|| text.into(), |number| Self::value(claim.pool, number));
        Err(match claim.pool {
            Pool::NodePort => FieldError::invalid(&claim.path, value, why),
            Pool::Address => {
                let why = format!("failed to allocate IP {text}: {why}");
                FieldError::invalid(&claim.path, Value::from(vec![value]), why)
            }
        })
    }
}

/// A free number of a range. Its lower part is left to those who choose themselves, until the rest is used up (upstream's
/// static band: such a part of the range, at least 16, and no more than this).
fn free_within((first, last): (u32, u32), (part, most): (u32, u32), is_free: impl Fn(&u32) -> bool) -> Option<u32> {
    let size = last - first + 1;
    let band = (size / part).clamp(16, most).min(size / 2);
    let start = first + band;
    let at = start + rand::random::<u32>() % (last - start + 1);
    (at..=last).chain(start..at).chain(first..start).find(is_free)
}

fn exhausted(claim: &Claim) -> FieldError {
    let (what, shown) = match claim.pool {
        Pool::Address => ("failed to allocate a serviceIP: range is full", Value::from(Vec::<Value>::new())),
        Pool::NodePort => ("failed to allocate a nodePort: range is full", Value::from(0)),
    };
    FieldError::invalid(&claim.path, shown, what)
}

/// Sets a field by its pointer; the last part may be one behind the end of a list.
fn set(object: &mut Value, pointer: &str, value: Value) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    if object.pointer(parent).is_none_or(Value::is_null)
        && let Some((above, name)) = parent.rsplit_once('/')
        && let Some(above) = object.pointer_mut(above).and_then(Value::as_object_mut)
    {
        let list = last.parse::<usize>().is_ok();
        above.insert(name.to_owned(), if list { Value::Array(Vec::new()) } else { serde_json::json!({}) });
    }
    match object.pointer_mut(parent) {
        Some(Value::Object(fields)) => _ = fields.insert(last.to_owned(), value),
        Some(Value::Array(items)) => match last.parse::<usize>().ok().and_then(|index| items.get_mut(index)) {
            Some(item) => *item = value,
            None => items.push(value),
        },
        _ => {}
    }
}

impl ApiServer {
    /// Takes what an object that is about to be written claims of the cluster's pools.
    ///
    /// # Errors
    /// 422 with every value that it cannot have.
    pub(crate) fn claim(&self, served: &Served, object: &mut Value) -> Result<Option<Taken<'_>>, ApiError> {
        let claims = served.hooks().claims(object);
        let mut lock = self.claims.lock();
        let known = lock.as_ref().is_some_and(|held| held.collections.contains(&served.storage));
        if claims.is_empty() && !known {
            return Ok(None);
        }
        if lock.is_none() {
            *lock = Some(self.held_by_what_is_stored()?);
        }
        let Some(held) = lock.as_mut() else { return Ok(None) };
        held.collections.insert(served.storage.clone());
        let shown = object.clone();
        let taken = self.with_space(served, &shown, &claims, |space| self.claims.take(held, space, &claims, object))?;
        drop(lock);
        let refuse =
            |errors: Vec<FieldError>| ApiError::invalid(served.group(), served.kind(), meta::name(object), &errors);
        taken.map(Some).map_err(refuse)
    }

    /// Gives back what an object held that has been removed from the store, and returns both.
    pub(crate) fn unclaim(&self, served: &Served, removed: &Entry) -> Option<(Value, BTreeSet<Number>)> {
        let mut lock = self.claims.lock();
        let held = lock.as_mut().filter(|held| held.collections.contains(&served.storage))?;
        match stored::decode(served, removed) {
            Ok(object) => {
                let uid = meta::uid(&object);
                let values = held.values.get(uid).cloned().unwrap_or_default();
                held.give_back(uid, values.iter().copied());
                Some((object, values))
            }
            Err(error) => {
                tracing::error!("free what {} held: {error}", removed.key);
                None
            }
        }
    }

    fn held_by_what_is_stored(&self) -> Result<Held, ApiError> {
        let mut held = Held::default();
        for served in Served::built_in().filter(|served| !served.converts()) {
            let range = self.store.range(&served.prefix(), None, 0, None).map_err(|e| ApiError::internal(&e))?;
            for entry in range.entries {
                let object = stored::decode(&served, &entry)?;
                let claims = served.hooks().claims(&object);
                if claims.is_empty() {
                    continue;
                }
                held.collections.insert(served.storage.clone());
                for claim in claims {
                    let number = claim.value.as_deref().and_then(|text| Claims::number(claim.pool, text));
                    if let Some(number) = number {
                        held.take(meta::uid(&object), (claim.pool, number));
                    }
                }
            }
        }
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use object_model::FieldPath;
    use serde_json::json;

    use super::*;

    fn object(uid: &str, value: Option<&str>) -> (Value, Vec<Claim>) {
        let claim = Claim {
            pool: Pool::Address,
            value: value.map(str::to_owned),
            fields: vec!["/spec/ip".to_owned(), "/spec/ips/0".to_owned()],
            path: FieldPath::new("spec").child("ips"),
        };
        (json!({"metadata": {"uid": uid, "name": uid}, "spec": {}}), vec![claim])
    }

    fn take<'a>(claims: &'a Claims, uid: &str, value: Option<&str>) -> Result<(Taken<'a>, Value), String> {
        let (mut object, wanted) = object(uid, value);
        let space = Space {
            ranges: vec![
                Range { first: 1, last: 2, text: "0.0.0.0/30".to_owned() },
                Range { first: 5, last: 6, text: "0.0.0.4/30".to_owned() },
            ],
            is_foreign: &|number| number == 6,
        };
        let mut lock = claims.lock();
        let taken = claims.take(lock.get_or_insert_default(), &space, &wanted, &mut object);
        drop(lock);
        taken.map(|taken| (taken, object)).map_err(|errors| errors[0].to_string())
    }

    #[test]
    fn a_value_has_one_holder_until_it_is_given_back() {
        let claims = Claims::new();
        let (first, object) = take(&claims, "a", Some("0.0.0.1")).expect("free");
        assert_eq!(object["spec"], json!({"ip": "0.0.0.1", "ips": ["0.0.0.1"]}));
        assert_eq!(first.keep(), (vec![(Pool::Address, 1)], Vec::new()));
        let allocated = |address: &str| {
            format!(
                "spec.ips: Invalid value: [\"{address}\"]: failed to allocate IP {address}: provided IP is already allocated"
            )
        };
        let refused = |value: &str| take(&claims, "b", Some(value)).err().expect("refused");
        assert_eq!(refused("0.0.0.1"), allocated("0.0.0.1"));
        assert_eq!(refused("0.0.0.6"), allocated("0.0.0.6"));
        assert!(refused("9.9.9.9").contains("valid IPs is 0.0.0.0/30,0.0.0.4/30"));
        let (second, object) = take(&claims, "b", None).expect("one is left");
        assert_eq!(object["spec"]["ip"], "0.0.0.2");
        let (third, object) = take(&claims, "c", None).expect("one of the next range");
        assert_eq!(object["spec"]["ip"], "0.0.0.5");
        third.keep();
        assert!(take(&claims, "d", None).err().expect("none is left").contains("range is full"));
        drop(second);
        let (fourth, _) = take(&claims, "d", None).expect("the failed write gave it back");
        fourth.keep();
        let (moved, _) = take(&claims, "a", Some("0.0.0.1")).expect("its own");
        assert_eq!(moved.keep(), (Vec::new(), Vec::new()));
    }
}
