//! Every built-in kind, one file each: defaults, validation, columns, and the table [`RESOURCES`].
//!
//! A kind is one row and its hooks; what the row does not say is the same for all. Routes, discovery, OpenAPI, storage
//! keys, table output and generations are derived from the row by whoever needs them. Hooks are pure: time is handed in.

mod admissionregistration;
pub mod apiextensions;
mod apiregistration;
mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
pub mod cel;
mod cells;
mod certificates;
mod claim;
mod coordination;
mod core;
pub mod cron;
mod discovery;
mod events;
mod flowcontrol;
pub mod indexes;
pub mod meta;
mod network;
mod networking;
mod node;
mod pod_template;
mod policy;
pub mod quota;
mod rbac;
mod resource;
mod rules;
pub mod scale;
mod scheduling;
mod storage;
mod storagemigration;
pub mod typed;
mod violations;
pub mod volumes;
mod walk;

pub use certificates::signing_request::{Requested, issued_until, requested};
pub use claim::{Claim, Pool};
pub use k8s_openapi as k8s;
pub use network::Network;
pub use networking::ip_address::{ADDRESS_ALLOCATOR, MANAGED_BY};
pub use violations::field_error;

use object_model::FieldError;
use serde_json::Value;

/// Every built-in kind that is served. Where several are views of one collection, the first owns it.
pub static RESOURCES: &[&Resource] = &[
    &core::binding::RESOURCE,
    &core::component_status::RESOURCE,
    &core::config_map::RESOURCE,
    &core::endpoints::RESOURCE,
    &core::event::RESOURCE,
    &core::limit_range::RESOURCE,
    &core::namespace::RESOURCE,
    &core::node::RESOURCE,
    &core::persistent_volume::RESOURCE,
    &core::persistent_volume_claim::RESOURCE,
    &core::pod::RESOURCE,
    &core::pod_template::RESOURCE,
    &core::replication_controller::RESOURCE,
    &core::resource_quota::RESOURCE,
    &core::secret::RESOURCE,
    &core::service::RESOURCE,
    &core::service_account::RESOURCE,
    &apiextensions::custom_resource_definition::RESOURCE,
    &admissionregistration::policy::MUTATING,
    &admissionregistration::policy::VALIDATING,
    &admissionregistration::policy_binding::MUTATING,
    &admissionregistration::policy_binding::VALIDATING,
    &admissionregistration::webhook::MUTATING,
    &admissionregistration::webhook::VALIDATING,
    &apiregistration::api_service::RESOURCE,
    &apps::controller_revision::RESOURCE,
    &apps::daemon_set::RESOURCE,
    &apps::deployment::RESOURCE,
    &apps::replica_set::RESOURCE,
    &apps::stateful_set::RESOURCE,
    &authentication::SELF,
    &authentication::TOKEN,
    &authorization::ACCESS,
    &authorization::LOCAL_ACCESS,
    &authorization::SELF_ACCESS,
    &authorization::SELF_RULES,
    &autoscaling::v2::RESOURCE,
    &autoscaling::v1::RESOURCE,
    &batch::cron_job::RESOURCE,
    &batch::job::RESOURCE,
    &certificates::cluster_trust_bundle::RESOURCE,
    &certificates::pod_certificate_request::RESOURCE,
    &certificates::signing_request::RESOURCE,
    &coordination::lease::RESOURCE,
    &discovery::endpoint_slice::RESOURCE,
    &events::event::RESOURCE,
    &flowcontrol::flow_schema::RESOURCE,
    &flowcontrol::priority_level::RESOURCE,
    &networking::ingress::RESOURCE,
    &networking::ingress_class::RESOURCE,
    &networking::ip_address::RESOURCE,
    &networking::network_policy::RESOURCE,
    &networking::service_cidr::RESOURCE,
    &node::runtime_class::RESOURCE,
    &policy::pod_disruption_budget::RESOURCE,
    &rbac::role::CLUSTER_ROLE,
    &rbac::role::ROLE,
    &rbac::binding::CLUSTER_ROLE_BINDING,
    &rbac::binding::ROLE_BINDING,
    &resource::device_class::RESOURCE,
    &resource::device_taint_rule::RESOURCE,
    &resource::resource_claim::CLAIM,
    &resource::resource_claim::TEMPLATE,
    &resource::resource_slice::RESOURCE,
    &scheduling::priority_class::RESOURCE,
    &storage::csi_driver::RESOURCE,
    &storage::csi_node::RESOURCE,
    &storage::csi_storage_capacity::RESOURCE,
    &storage::storage_class::RESOURCE,
    &storage::volume_attachment::RESOURCE,
    &storage::volume_attributes_class::RESOURCE,
    &storagemigration::storage_version_migration::RESOURCE,
];

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In none.
    Cluster,
}

/// One column of `kubectl get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the object's name, or empty.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide` only.
    pub priority: i32,
    /// What it shows.
    pub description: &'static str,
}

impl Column {
    const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, kind: "string", format: "", priority: 0, description }
    }

    const fn name() -> Self {
        Self { format: "name", ..Self::text("Name", "Name of the object, unique within its namespace.") }
    }

    const fn age() -> Self {
        Self::text("Age", "Time since the object was created.")
    }

    const fn number(name: &'static str, description: &'static str) -> Self {
        Self { kind: "integer", ..Self::text(name, description) }
    }

    const fn boolean(name: &'static str, description: &'static str) -> Self {
        Self { kind: "boolean", ..Self::text(name, description) }
    }

    /// What upstream prints, instead of an age, for kinds that have no columns of their own.
    const fn created() -> Self {
        Self { kind: "date", ..Self::text("Created At", "When the object was created.") }
    }

    const fn wide(self) -> Self {
        Self { priority: 1, ..self }
    }
}

/// Something below an object with verbs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log` …
    pub name: &'static str,
    /// Sorted.
    pub verbs: &'static [&'static str],
    /// Group of the body.
    pub group: &'static str,
    /// Version of the body.
    pub version: &'static str,
    /// Kind of the body.
    pub kind: &'static str,
}

impl Subresource {
    /// A part of the object with rules of its own, whose body is the whole object.
    const fn part(name: &'static str, group: &'static str, kind: &'static str) -> Self {
        Self { name, verbs: OBJECT_VERBS, group, version: "v1", kind }
    }

    /// The status.
    const fn status(group: &'static str, kind: &'static str) -> Self {
        Self::part("status", group, kind)
    }

    /// What the object serves over HTTP by itself, reached through the API server.
    const fn proxy(kind: &'static str) -> Self {
        Self { name: "proxy", verbs: &["create", "delete", "get", "patch", "update"], group: "", version: "v1", kind }
    }
}

/// All that is known about one kind.
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// API version.
    pub version: &'static str,
    /// `Deployment`.
    pub kind: &'static str,
    /// `deployments`, as in URLs.
    pub plural: &'static str,
    /// `deployment`.
    pub singular: &'static str,
    /// `deploy`.
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub scope: Scope,
    /// Sorted.
    pub verbs: &'static [&'static str],
    /// What lies below an object.
    pub subresources: &'static [Subresource],
    /// Name of the object's type in `schema`.
    pub type_name: &'static str,
    /// Name of the collection in the store. Kinds that share it are views of the same objects: see [`Kind::stored`]. Empty
    /// for what is a question to the server, which is answered and not stored.
    pub storage: &'static str,
    /// Status is written through a subresource, and by nothing else.
    pub has_status: bool,
    /// Objects count their spec changes in `metadata.generation`.
    pub has_generation: bool,
    /// PUT of an absent object creates it.
    pub create_by_update: bool,
    /// PUT without a resourceVersion is allowed.
    pub unconditional_update: bool,
    /// Deletion has a grace period, during which the object stays.
    pub graceful: bool,
    /// Fields that field selectors may name, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
    /// Columns of `kubectl get`; [`Kind::cells`] fills them.
    pub columns: &'static [Column],
    /// A small valid object, as YAML.
    pub example: &'static str,
    /// What is special about the kind.
    pub hooks: &'static dyn Kind,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    pub fn api_version(&self) -> String {
        object_model::api_version(self.group, self.version)
    }

    /// Whether objects are stored, and not only answered.
    pub fn is_stored(&self) -> bool {
        !self.storage.is_empty()
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The object's type in `schema`.
    ///
    /// # Panics
    /// When the row names a type that is not in the table, which a test over all rows rules out.
    pub fn ty(&self) -> &'static schema::Type {
        schema::type_named(self.type_name).expect("every row names a type of the table")
    }

    /// Sets every default: those of the table, then those of the kind; and the zero values upstream always writes.
    pub fn default(&self, object: &mut Value) {
        schema::apply_defaults(self.ty(), object);
        schema::normalise(self.ty(), object);
        self.hooks.default(object);
    }

    /// Everything wrong with a new object.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = if self.is_stored() { meta::validate(self.hooks, self.scope, object) } else { Vec::new() };
        errors.extend(self.hooks.validate(object));
        errors
    }

    /// Everything wrong with a change.
    pub fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = meta::validate_update(new, old);
        errors.extend(self.hooks.validate_update(new, old));
        errors
    }

    /// The value of a field that field selectors may name; `None` if they may not.
    pub fn field(&self, object: &Value, name: &str) -> Option<String> {
        match name {
            "metadata.name" => Some(object_model::meta::name(object).to_owned()),
            "metadata.namespace" => Some(object_model::meta::namespace(object).to_owned()),
            _ if self.selectable_fields.contains(&name) => self.hooks.field(object, name),
            _ => None,
        }
    }
}

/// The row of a group, version and plural name.
pub fn resource(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().copied().find(|row| row.group == group && row.version == version && row.plural == plural)
}

/// The row of an `apiVersion` and kind.
pub fn resource_of_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().copied().find(|row| row.kind == kind && row.api_version() == api_version)
}

/// What an object is to the admission policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyPart {
    /// Whether the policy changes objects, and does not judge them.
    pub mutating: bool,
    /// Whether it is a binding, and not the policy itself.
    pub binding: bool,
}

/// The moment at which something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now(pub jiff::Timestamp);

/// A class that objects get which name none, if the cluster has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultClass {
    /// Group of the classes.
    pub group: &'static str,
    /// Plural name of the classes.
    pub plural: &'static str,
    /// The annotation that is `true` on the default one.
    pub annotation: &'static str,
    /// JSON pointer of the field that takes the name.
    pub field: &'static str,
}

/// When webhooks are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Webhooks {
    /// Before an object is judged: they may change it.
    Mutating,
    /// When it is complete: they may refuse it.
    Validating,
}

/// What is special about a kind. Every hook does nothing, or the common thing, by default.
///
/// The order of a write: [`Resource::default`] → admission → `prepare_…` → `stamp` → [`Resource::validate`] and, for a change,
/// [`meta::carry_over`] before and [`Resource::validate_update`] after it. Placing a pod on a node (`binding`) is the one
/// change of a spec that does not go through `validate_update`: a pod's `nodeName` cannot be changed otherwise.
pub trait Kind: Send + Sync {
    /// Sets defaults beyond those of the schema table. Must be idempotent.
    fn default(&self, _object: &mut Value) {}

    /// Prepares an object that is about to be created: what a client may not set is dropped, the status reset.
    fn prepare_create(&self, object: &mut Value) {
        reset_status(object);
    }

    /// Prepares an object that is about to replace another: the status stays as it was.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep_status(new, old);
    }

    /// Prepares a write of the status: everything but the status, labels, annotations and managed fields stays.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        keep_all_but_status(new, old);
    }

    /// Prepares a write through a subresource whose body is the object itself (`status`, `finalize`).
    fn prepare_subresource_update(&self, _name: &str, new: &mut Value, old: &Value) {
        self.prepare_status_update(new, old);
    }

    /// Notes the time of what is new or has changed, where the kind keeps such times. `old` is null for a new object.
    fn stamp(&self, _new: &mut Value, _old: &Value, _now: Now) {}

    /// What is wrong with the object, beside its metadata.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with the change. The new object has been validated as well.
    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change of the status.
    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change through a subresource whose body is the object itself.
    fn validate_subresource_update(&self, name: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        if name == "status" { self.validate_status_update(new, old) } else { Vec::new() }
    }

    /// What is wrong with a name; empty if nothing.
    fn name_problems(&self, name: &str) -> Vec<String> {
        object_model::names::dns_subdomain(name)
    }

    /// Whether the generation goes up.
    fn spec_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// The value of a field that field selectors may name, empty if it is not set.
    fn field(&self, object: &Value, name: &str) -> Option<String> {
        Some(walk::selectable(object, name))
    }

    /// One cell per column.
    fn cells(&self, object: &Value, now: Now) -> Vec<Value> {
        vec![cells::name(object), cells::age(object, now)]
    }

    /// Seconds between the request to delete and the end, of the wish of the client.
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> i64 {
        0
    }

    /// Whether what belongs to an object stays when it is deleted and nobody says what is to become of it.
    fn orphans_dependents(&self) -> bool {
        false
    }

    /// What the request to delete an object changes in it, if it stays for a while.
    fn begin_deletion(&self, _object: &mut Value) {}

    /// Whether changes are heartbeats, which need not reach the disk one by one.
    fn is_heartbeat(&self) -> bool {
        false
    }

    /// Whether the objects say what somebody may do: the server's authoriser follows them.
    fn is_policy(&self) -> bool {
        false
    }

    /// What whoever uses the kind is warned of: that it is deprecated, and by what it is replaced.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }

    /// Whether a finalizer may be any qualified name; those of most built-in kinds have a domain and a path.
    fn any_finalizer(&self) -> bool {
        false
    }

    /// Whether the objects say what belongs to which node: what kubelets may follows from them.
    fn ties_to_nodes(&self) -> bool {
        false
    }

    /// Whether the objects say who else answers for a version of an API group.
    fn aggregates(&self) -> bool {
        false
    }

    /// What the objects say of other requests as admission policies, if anything.
    fn policy_part(&self) -> Option<PolicyPart> {
        None
    }

    /// When the servers that the objects name are asked about a request; `None` where they name none.
    fn webhooks(&self) -> Option<Webhooks> {
        None
    }

    /// Whether the objects define resources, which are served as the built-in ones are.
    fn defines_resources(&self) -> bool {
        false
    }

    /// Whether the objects say how many requests are served at a time.
    fn limits_requests(&self) -> bool {
        false
    }

    /// Seconds after which an object that nobody touches is removed.
    fn time_to_live(&self) -> Option<u32> {
        None
    }

    /// What the object wants of the cluster's pools, each value of which only one object may hold. Asked when the object is
    /// otherwise complete and valid; values that are wanted and not named are given out then.
    fn claims(&self, _object: &Value) -> Vec<Claim> {
        Vec::new()
    }

    /// Where the name of a class stands that a new object has not been given, and by which annotation the class is known that
    /// such objects get.
    fn default_class(&self, _object: &Value) -> Option<DefaultClass> {
        None
    }

    /// The object in the form in which its collection is stored: several kinds may be views of one collection.
    fn stored(&self, object: Value) -> Value {
        object
    }

    /// A stored object in the form this kind shows.
    fn served(&self, object: Value) -> Value {
        object
    }
}

/// Empties the status, keeping the habit of writing `status: {}`.
fn reset_status(object: &mut Value) {
    if let Some(status) = object.get_mut("status") {
        *status = serde_json::json!({});
    }
}

/// Takes the status from the old object.
fn keep_status(new: &mut Value, old: &Value) {
    copy_field(new, old, "status");
}

/// Takes everything but the status and the metadata a status write may change from the old object.
fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut result = old.clone();
    copy_field(&mut result, new, "status");
    for field in ["labels", "annotations", "managedFields", "resourceVersion"] {
        let value = new["metadata"].get(field).cloned().unwrap_or(Value::Null);
        object_model::meta::set(&mut result, field, value);
    }
    *new = result;
}

/// Takes one field from another object, or takes it out where that has none.
pub fn copy_field(to: &mut Value, from: &Value, field: &str) {
    let Some(object) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => {
            object.insert(field.to_owned(), value.clone());
        }
        None => {
            object.remove(field);
        }
    }
}

/// What all questions to the server have in common.
const REVIEW: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    scope: Scope::Cluster,
    verbs: &["create"],
    subresources: &[],
    type_name: "",
    storage: "",
    has_status: false,
    has_generation: false,
    create_by_update: false,
    unconditional_update: false,
    graceful: false,
    selectable_fields: &[],
    columns: &[Column::name()],
    example: "",
    hooks: &Unnamed,
};

/// What most kinds have in common whose objects live in a namespace: all verbs, and nothing else.
const NAMESPACED: Resource = Resource {
    scope: Scope::Namespaced,
    verbs: ALL_VERBS,
    unconditional_update: true,
    columns: &[Column::name(), Column::age()],
    ..REVIEW
};

/// The same for kinds whose objects live in none.
const CLUSTER: Resource = Resource { scope: Scope::Cluster, ..NAMESPACED };

/// No kind at all.
struct Unnamed;

impl Kind for Unnamed {}

const ALL_VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const OBJECT_VERBS: &[&str] = &["get", "patch", "update"];
