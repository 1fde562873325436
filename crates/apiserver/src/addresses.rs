//! Virtual addresses: the ranges that they come from, and the object that each taken one has.

use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::OnceLock;

use client::clock;
use kinds::{Claim, Network, Pool};
use object_model::{ApiError, meta, time};
use serde_json::{Value, json};
use store::{Expect, StoreError};

use crate::claims::Taken;
use crate::managers::{self, Writer};
use crate::served::Served;
use crate::{ApiServer, stored};

const GROUP: &str = "networking.k8s.io";
/// The name of the range that a cluster begins with.
const FIRST: &str = "kubernetes";
/// Who the server is to those who read who wrote what.
const MANAGER: &str = "kube-apiserver";

/// A range of addresses: the first and the last as numbers, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    pub first: u32,
    pub last: u32,
    pub text: String,
}

impl Range {
    /// The addresses of a network that can be given to somebody.
    pub fn of(network: &Network) -> Option<Self> {
        let (first, last) = network.hosts()?;
        Some(Self { first, last, text: network.to_string() })
    }

    pub fn contains(&self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

/// What addresses there are for an object that is being written.
pub(crate) struct Space<'a> {
    /// Where they may be taken from, in the order in which they are tried.
    pub ranges: Vec<Range>,
    /// Whether one has been given to somebody else by an object of its own.
    pub is_foreign: &'a dyn Fn(u32) -> bool,
}

/// The kind of the objects that tell whom an address belongs to.
fn records() -> Result<&'static Served, ApiError> {
    static RECORDS: OnceLock<Served> = OnceLock::new();
    match RECORDS.get() {
        Some(records) => Ok(records),
        None => Served::find(GROUP, "v1", "ipaddresses").map(|records| RECORDS.get_or_init(|| records)),
    }
}

/// Whom an address belongs to, as its object tells it.
fn parent_of(served: &Served, object: &Value) -> Value {
    let mut parent = json!({
        "resource": served.plural(), "namespace": meta::namespace(object), "name": meta::name(object),
    });
    if !served.group().is_empty() {
        parent["group"] = served.group().into();
    }
    parent
}

impl ApiServer {
    /// Says from which range virtual addresses are given out as long as no object speaks for it. Call it before the first
    /// request; later calls change nothing.
    pub fn set_service_range(&self, network: Ipv4Addr, prefix: u8) {
        if let Some(range) = Network::parse(&format!("{network}/{prefix}")).and_then(|network| Range::of(&network)) {
            // Said twice only by a caller that is wrong, and then the first word holds.
            let _ = self.claims.first_range.set(range);
        }
    }

    /// The ranges that addresses may be taken from: those that are ready and stay, the oldest first.
    pub(crate) fn ranges(&self) -> Result<Vec<Range>, ApiError> {
        let kind = Served::find(GROUP, "v1", "servicecidrs")?;
        let stored = self.store.range(&kind.prefix(), None, 0, None).map_err(|e| ApiError::internal(&e))?;
        let objects: Vec<Value> =
            stored.entries.iter().map(|entry| stored::decode(&kind, entry)).collect::<Result<_, _>>()?;
        let first = (!objects.iter().any(|object| meta::name(object) == FIRST)).then(|| self.claims.first_range());
        let mut usable: Vec<&Value> = objects
            .iter()
            .filter(|o| meta::deletion_timestamp(o).is_none() && meta::has_condition(o, "Ready"))
            .collect();
        usable.sort_by_key(|object| object["metadata"]["creationTimestamp"].as_str());
        let written = usable.iter().flat_map(|object| object["spec"]["cidrs"].as_array()).flatten();
        let networks = written.filter_map(|text| Network::parse(text.as_str()?)).filter_map(|one| Range::of(&one));
        Ok(first.cloned().into_iter().chain(networks).collect())
    }

    /// What addresses there are for an object, where it claims any.
    pub(crate) fn with_space<T>(
        &self,
        served: &Served,
        object: &Value,
        claims: &[Claim],
        take: impl FnOnce(&Space<'_>) -> T,
    ) -> Result<T, ApiError> {
        if claims.iter().all(|claim| claim.pool != Pool::Address) {
            return Ok(take(&Space { ranges: Vec::new(), is_foreign: &|_| false }));
        }
        let (records, parent) = (records()?, parent_of(served, object));
        let is_foreign = |number: u32| {
            let entry = self.store.get(&records.key("", &Ipv4Addr::from(number).to_string()));
            let owner = entry.map(|entry| stored::decode(records, &entry).map(|record| record["spec"].clone()));
            // One that cannot be read is somebody's.
            owner.is_some_and(|spec| spec.map_or(true, |spec| spec["parentRef"] != parent))
        };
        Ok(take(&Space { ranges: self.ranges()?, is_foreign: &is_foreign }))
    }

    /// The write has been stored: the object holds what it names now and nothing else, and each of its addresses has an
    /// object that says so.
    pub(crate) fn keep_claims<'a>(
        &'a self,
        served: &'a Served,
        object: &'a Value,
        taken: Taken<'a>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            let (new, old) = taken.keep();
            let parent = parent_of(served, object);
            for number in new.into_iter().filter_map(address) {
                if let Err(error) = self.record(&number, &parent).await {
                    // The controller that repairs them makes up for it.
                    tracing::warn!("record the address {number}: {error}");
                }
            }
            self.forget(old.into_iter().filter_map(address), &parent).await;
        })
    }

    /// Gives back what an object held that has been removed from the store.
    pub(crate) fn release<'a>(
        &'a self,
        served: &'a Served,
        removed: &'a store::Entry,
    ) -> Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>> {
        let (object, numbers) = self.unclaim(served, removed)?;
        let addresses: Vec<String> = numbers.into_iter().filter_map(address).collect();
        (!addresses.is_empty()).then(|| {
            let forget = async move { self.forget(addresses.into_iter(), &parent_of(served, &object)).await };
            Box::pin(forget) as Pin<Box<dyn Future<Output = ()> + Send + 'a>>
        })
    }

    async fn record(&self, address: &str, parent: &Value) -> Result<(), ApiError> {
        let records = records()?;
        let now = clock::now();
        let mut object = json!({
            "apiVersion": records.api_version(), "kind": records.kind(),
            "metadata": {
                "name": address, "uid": uuid::Uuid::new_v4().to_string(), "creationTimestamp": time::seconds(now),
                "labels": {
                    kinds::MANAGED_BY: kinds::ADDRESS_ALLOCATOR, "ipaddress.kubernetes.io/ip-family": "IPv4",
                },
            },
            "spec": {"parentRef": parent},
        });
        records.default(&mut object);
        let api_version = records.api_version();
        let writer = Writer { name: MANAGER, api_version: &api_version, subresource: "", has_status: false, now };
        managers::track(&writer, records.place(), &Value::Null, &mut object);
        match self.put(records, "", address, Expect::Absent, &object).await {
            // It was there before: of this object, or it would not have got the address.
            Ok(_) | Err(StoreError::Mismatch(_)) => Ok(()),
            Err(error) => Err(crate::write::store_failed(&error)),
        }
    }

    /// Removes the objects of addresses that somebody has given back.
    async fn forget(&self, addresses: impl Iterator<Item = String>, parent: &Value) {
        let Ok(records) = records() else { return };
        for address in addresses {
            match self.object(records, "", &address) {
                Ok(record) if record["spec"]["parentRef"] == *parent => {
                    if let Err(error) = self.delete_named(records, &address).await {
                        tracing::warn!("forget the address {address}: {error}");
                    }
                }
                Ok(_) => {}
                Err(error) if error.code == 404 => {}
                Err(error) => tracing::warn!("forget the address {address}: {error}"),
            }
        }
    }
}

fn address((pool, number): (Pool, u32)) -> Option<String> {
    (pool == Pool::Address).then(|| Ipv4Addr::from(number).to_string())
}
