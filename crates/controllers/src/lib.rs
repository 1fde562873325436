//! Controllers: one pure `plan` each, one table, one runner.
//!
//! A controller looks at its subject and what belongs to it, and returns the writes that bring both nearer to what the
//! subject asks for. The runner wakes it, carries the writes out, and refuses those it has not declared.
//!
//! To add one: a file with a `CONTROLLER` row, and two lines here (its `mod`, and its place in [`CONTROLLERS`]).

mod aggregated;
mod api_registration;
mod authority;
mod certificate_approval;
mod certificate_cleaning;
mod certificate_signing;
mod cluster_role_aggregation;
mod cron_job;
mod custom;
mod daemon_set;
mod deployment;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod garbage_collector;
mod job;
mod job_pods;
mod job_policy;
mod load_balancer;
mod namespace;
mod node_lifecycle;
mod pods;
mod replica_set;
mod replication_controller;
mod resource_quota;
mod revisions;
mod roles;
mod rollout;
mod root_ca;
mod runner;
mod service_account;
mod service_addresses;
mod service_cidr;
mod service_pods;
mod stateful_set;
mod taint_eviction;
mod taints;
mod ttl_after_finished;
mod volume;
mod volume_claim;

use std::sync::Arc;
use std::time::Duration;

use client::{Cached, EventType, Patch, Resource};
use jiff::Timestamp;
use serde_json::Value;

pub use aggregated::Swept;
pub use authority::Authority;
pub use roles::rules;
pub use runner::Manager;

/// The table.
pub(crate) static CONTROLLERS: &[&Controller] = &[
    &deployment::CONTROLLER,
    &replica_set::CONTROLLER,
    &replication_controller::CONTROLLER,
    &namespace::CONTROLLER,
    &endpoint_slice::CONTROLLER,
    &endpoint_slice_mirroring::CONTROLLER,
    &endpoints::CONTROLLER,
    &load_balancer::CONTROLLER,
    &stateful_set::CONTROLLER,
    &daemon_set::CONTROLLER,
    &service_account::CONTROLLER,
    &service_cidr::CONTROLLER,
    &service_addresses::KEEPER,
    &service_addresses::CLEANER,
    &node_lifecycle::CONTROLLER,
    &taint_eviction::CONTROLLER,
    &root_ca::CONTROLLER,
    &cluster_role_aggregation::CONTROLLER,
    &job::CONTROLLER,
    &job_pods::CONTROLLER,
    &cron_job::CONTROLLER,
    &ttl_after_finished::CONTROLLER,
    &volume_claim::CONTROLLER,
    &volume::CONTROLLER,
    &disruption::CONTROLLER,
    &resource_quota::CONTROLLER,
    &api_registration::REGISTRAR,
    &api_registration::CLEANER,
    &certificate_approval::CONTROLLER,
    &certificate_signing::CONTROLLER,
    &certificate_cleaning::CONTROLLER,
];

/// An object as controllers see it.
pub type Object = Arc<Cached<Value>>;
/// Namespace and name of a subject.
pub type Key = (String, String);

/// What a controller may see.
pub trait Objects {
    /// One object.
    fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Object>;
    /// The objects of a namespace, or all where it is empty.
    fn list(&self, resource: Resource, namespace: &str) -> Vec<Object>;
    /// The custom resources whose objects live in namespaces, each with whether its objects are known yet.
    fn custom(&self) -> Vec<(Resource, bool)> {
        Vec::new()
    }
    /// Why the last thing that was to be created for the subject was not, if it was not.
    fn refused(&self) -> Option<&str> {
        None
    }
    /// What a version of a group that somebody else answers for held in a namespace, when it was swept last.
    fn swept(&self, _namespace_uid: &str, _version: &str) -> Option<Swept> {
        None
    }
    /// The certificate of the cluster's authority, in PEM.
    fn root_ca(&self) -> &str {
        ""
    }
}

/// One controller.
pub struct Controller {
    /// Its name, as `--controllers` and metrics have it.
    pub name: &'static str,
    /// What it is about: one object of this resource at a time.
    pub subject: Resource,
    /// What else it sees, and whom a change of that wakes.
    pub reads: &'static [Read],
    /// What it writes; everything else is refused.
    pub writes: &'static [Writes],
    /// What to do about a subject now. Reads no clock and does no IO.
    pub plan: fn(&Value, &dyn Objects, Timestamp) -> anyhow::Result<Vec<Action>>,
}

/// Something a controller sees beside its subject.
pub struct Read {
    /// The resource.
    pub resource: Resource,
    /// The subjects that a change of this object concerns.
    pub wakes: fn(&Value, &dyn Objects) -> Vec<Key>,
}

/// A declaration of what a controller writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It creates, changes and deletes objects of this resource that belong to its subject.
    Children(Resource),
    /// It writes the status of its subject.
    Status,
    /// It writes its subject otherwise, or what others write as well.
    Shared {
        /// The resource.
        resource: Resource,
        /// Why it must.
        because: &'static str,
    },
    /// It deletes anything that stands in a namespace.
    Anything {
        /// Why it must.
        because: &'static str,
    },
    /// It consents or signs for these signers of certificates.
    InTheNameOf {
        /// `approve` or `sign`.
        verb: &'static str,
        /// The names of the signers.
        signers: &'static [&'static str],
    },
}

/// One thing a controller wants done. `resource`, `namespace` and `name` say to what; `event` is recorded when it is done.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Create an object. The event is recorded with the new name at its end.
    Create { resource: Resource, namespace: String, object: Value, event: Option<Note> },
    /// Patch an object, or its subresource.
    Patch { resource: Resource, namespace: String, name: String, subresource: &'static str, kind: Patch, patch: Value },
    /// Replace an object, or its subresource; refused when it has changed meanwhile.
    Update { resource: Resource, namespace: String, name: String, subresource: &'static str, object: Value },
    /// Delete an object with these `DeleteOptions`.
    Delete { resource: Resource, namespace: String, name: String, options: Value, event: Option<Note> },
    /// Delete what a version of a group that somebody else answers for holds in a namespace, and note what is left.
    Sweep { group: String, version: String, namespace: String, uid: String },
    /// Give a request for a certificate the certificate of the cluster's authority, valid for so long.
    Sign { resource: Resource, name: String, object: Value, valid: Duration },
    /// Tell people.
    Event(Note),
    /// Look again after a while.
    Again(Duration),
}

/// An event to record.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// What it is about.
    pub about: Value,
    /// Normal or a warning.
    pub kind: EventType,
    /// The reason, one word.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

impl Note {
    /// An event of normal work.
    pub fn normal(about: &Value, reason: &'static str, message: impl Into<String>) -> Self {
        Self { about: about.clone(), kind: EventType::Normal, reason, message: message.into() }
    }

    /// An event of something amiss.
    pub fn warning(about: &Value, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind: EventType::Warning, ..Self::normal(about, reason, message) }
    }
}

const fn core(plural: &'static str) -> Resource {
    Resource { group: "", version: "v1", plural }
}

const fn apps(plural: &'static str) -> Resource {
    Resource { group: "apps", version: "v1", plural }
}

const fn batch(plural: &'static str) -> Resource {
    Resource { group: "batch", version: "v1", plural }
}

pub(crate) const PODS: Resource = core("pods");
pub(crate) const SERVICES: Resource = core("services");
pub(crate) const ENDPOINTS: Resource = core("endpoints");
pub(crate) const ENDPOINT_SLICES: Resource =
    Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
pub(crate) const INGRESSES: Resource = Resource { group: "networking.k8s.io", version: "v1", plural: "ingresses" };
pub(crate) const NAMESPACES: Resource = core("namespaces");
pub(crate) const REPLICA_SETS: Resource = apps("replicasets");
pub(crate) const REPLICATION_CONTROLLERS: Resource = core("replicationcontrollers");
pub(crate) const DEPLOYMENTS: Resource = apps("deployments");
pub(crate) const CLAIMS: Resource = core("persistentvolumeclaims");
pub(crate) const VOLUMES: Resource = core("persistentvolumes");
pub(crate) const BUDGETS: Resource = Resource { group: "policy", version: "v1", plural: "poddisruptionbudgets" };
pub(crate) const STORAGE_CLASSES: Resource =
    Resource { group: "storage.k8s.io", version: "v1", plural: "storageclasses" };
pub(crate) const NODES: Resource = core("nodes");
pub(crate) const STATEFUL_SETS: Resource = apps("statefulsets");
pub(crate) const DAEMON_SETS: Resource = apps("daemonsets");
pub(crate) const CONTROLLER_REVISIONS: Resource = apps("controllerrevisions");
pub(crate) const JOBS: Resource = batch("jobs");
pub(crate) const CRON_JOBS: Resource = batch("cronjobs");

/// A namespace as requests want it: none for what is cluster-scoped.
pub(crate) fn some(namespace: &str) -> Option<&str> {
    (!namespace.is_empty()).then_some(namespace)
}

/// The subject that controls this object, if its kind is the one given.
pub(crate) fn controller_key(object: &Value, kind: &str) -> Option<Key> {
    let owner = object_model::meta::controller_of(object).filter(|o| o.kind == kind)?;
    Some((object_model::meta::namespace(object).to_owned(), owner.name))
}

#[cfg(test)]
pub(crate) mod testing {
    //! Objects for tests of plans.

    use super::*;
    use object_model::meta;

    /// A fixed set of objects, the custom resources, and what aggregated APIs hold.
    #[derive(Default)]
    pub struct Fixed(pub Vec<(Resource, Object)>, pub Vec<(Resource, bool)>, pub Vec<(String, Swept)>);

    impl Fixed {
        /// Adds an object.
        pub fn with(mut self, resource: Resource, object: Value) -> Self {
            let cached = Cached {
                namespace: meta::namespace(&object).to_owned(),
                name: meta::name(&object).to_owned(),
                uid: meta::uid(&object).to_owned(),
                resource_version: meta::resource_version(&object).to_owned(),
                object,
            };
            self.0.push((resource, Arc::new(cached)));
            self
        }
    }

    impl Objects for Fixed {
        fn get(&self, resource: Resource, namespace: &str, name: &str) -> Option<Object> {
            self.list(resource, namespace).into_iter().find(|o| o.name == name)
        }

        fn list(&self, resource: Resource, namespace: &str) -> Vec<Object> {
            let wanted =
                |(r, o): &&(Resource, Object)| *r == resource && (namespace.is_empty() || o.namespace == namespace);
            self.0.iter().filter(wanted).map(|(_, o)| o.clone()).collect()
        }

        fn custom(&self) -> Vec<(Resource, bool)> {
            self.1.clone()
        }

        fn swept(&self, _namespace_uid: &str, version: &str) -> Option<Swept> {
            self.2.iter().find(|(known, _)| known == version).map(|(_, swept)| swept.clone())
        }
    }

    /// A moment.
    pub fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    /// The actions in short, one a line.
    pub fn brief(actions: &[Action]) -> String {
        let line = |a: &Action| match a {
            Action::Create { resource, object, .. } => {
                let m = &object["metadata"];
                let name = m["name"].as_str().or(m["generateName"].as_str()).unwrap_or_default();
                format!("create {} {name} replicas={}", resource.plural, object["spec"]["replicas"])
            }
            Action::Patch { resource, name, subresource, patch, .. } => {
                format!("patch {} {name} {subresource} {patch}", resource.plural)
            }
            Action::Update { resource, name, subresource, object, .. } => {
                let detail = if *subresource == "status" {
                    object["status"].to_string()
                } else {
                    format!("replicas={}", object["spec"]["replicas"])
                };
                format!("update {} {name} {subresource} {detail}", resource.plural)
            }
            Action::Delete { resource, name, .. } => format!("delete {} {name}", resource.plural),
            Action::Sweep { group, version, namespace, .. } => format!("sweep {group}/{version} {namespace}"),
            Action::Sign { name, valid, .. } => format!("sign {name} for {}s", valid.as_secs()),
            Action::Event(note) => format!("event {} {}", note.reason, note.message),
            Action::Again(after) => format!("again in {}s", after.as_secs()),
        };
        actions.iter().map(|a| line(a) + "\n").collect()
    }
}
