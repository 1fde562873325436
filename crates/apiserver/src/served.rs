//! What the server serves: resources built from the rows of `kinds::RESOURCES`, or from CustomResourceDefinitions. All
//! that handles requests works on [`Served`] and cannot tell which of the two doors a resource came in by.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use kinds::{Kind, Resource, Scope, Subresource, scale};
use object_model::{ApiError, FieldError, Reason, api_version};
use schema::fields::Place;
use schema::{Structural, Type};
use serde_json::Value;

/// The schema of a type that the server itself names.
///
/// # Errors
/// 500 when the table of types does not hold it.
pub fn schema_of(name: &str) -> Result<&'static Type, ApiError> {
    schema::type_named(name).ok_or_else(|| ApiError::internal(format!("no schema of {name}")))
}

/// 404 for a path that names no resource.
pub fn no_such_resource() -> ApiError {
    ApiError::new(Reason::NotFound, "the server could not find the requested resource")
}

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// As OpenAPI has it; `name` for the object's name.
    pub format: String,
    /// 0 is always shown, more with `-o wide` only.
    pub priority: i64,
    /// What it shows.
    pub description: String,
}

/// Something below an object with verbs of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sub {
    /// `status`, `scale` …
    pub name: &'static str,
    /// Sorted.
    pub verbs: &'static [&'static str],
    /// Group of the body.
    pub group: String,
    /// Version of the body.
    pub version: String,
    /// Kind of the body.
    pub kind: String,
}

impl Sub {
    fn of(row: &Subresource) -> Self {
        let owned = str::to_owned;
        Self {
            name: row.name,
            verbs: row.verbs,
            group: owned(row.group),
            version: owned(row.version),
            kind: owned(row.kind),
        }
    }
}

/// What is special about the objects: the hooks of a built-in kind, or those that a definition makes.
pub enum Hooks {
    /// Of a row.
    Row(&'static Resource),
    /// Of a definition.
    Custom(Box<dyn Kind + Send + Sync>),
}

/// One served resource.
pub struct ServedResource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    /// Other names that people type.
    pub short_names: Vec<String>,
    /// Groups of resources that people ask for together.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What may be done, sorted.
    pub verbs: &'static [&'static str],
    /// What lies below an object.
    pub subresources: Vec<Sub>,
    /// Name of the objects' type, by which they travel as protobuf; custom objects do not.
    pub(crate) type_name: &'static str,
    /// The schema by which bodies are read.
    pub ty: &'static Type,
    /// The schema of a definition's version.
    pub structure: Option<Arc<Structural>>,
    /// The same as JSON, as the OpenAPI documents show it.
    pub openapi: Option<Value>,
    /// How objects of a definition get from one version to another (`spec.conversion`).
    pub conversion: Value,
    /// The `apiVersion` in which objects of a definition are stored.
    pub stored_version: String,
    /// Where the replicas are, of what can be scaled.
    pub scale: Option<scale::Paths>,
    /// Name of the collection in the store; empty for questions.
    pub(crate) storage: String,
    /// Status is written through a subresource, and by nothing else.
    pub has_status: bool,
    /// Objects count their changes in `metadata.generation`.
    pub has_generation: bool,
    /// PUT of an absent object creates it.
    pub create_by_update: bool,
    /// PUT without a resourceVersion is allowed.
    pub unconditional_update: bool,
    /// Deletion has a grace period.
    pub graceful: bool,
    /// Fields that field selectors may name.
    pub selectable_fields: Vec<String>,
    /// Columns of `kubectl get`; empty for name and age alone.
    pub columns: Vec<Column>,
    /// What the clients of a deprecated version are told.
    pub deprecation: Option<String>,
    /// Whether this is a view of objects that are stored in the form of another kind or version.
    pub(crate) converts: bool,
    /// The revision since which objects have been stored as they are served nevertheless.
    pub(crate) plain_since: Option<u64>,
    pub(crate) hooks: Hooks,
}

/// A served resource, cheap to clone.
#[derive(Clone)]
pub struct Served(Arc<ServedResource>);

impl Deref for Served {
    type Target = ServedResource;

    fn deref(&self) -> &ServedResource {
        &self.0
    }
}

/// The built-in resources, in the order of the table, and where each is by group, version and plural.
struct BuiltIn {
    all: Vec<Served>,
    by_name: HashMap<(&'static str, &'static str, &'static str), usize>,
}

static BUILT_IN: LazyLock<BuiltIn> = LazyLock::new(|| {
    let all: Vec<Served> = kinds::RESOURCES.iter().map(|row| Served::of(row)).collect();
    let by_name =
        kinds::RESOURCES.iter().enumerate().map(|(at, row)| ((row.group, row.version, row.plural), at)).collect();
    BuiltIn { all, by_name }
});

impl Served {
    /// A resource made of a definition.
    pub fn custom(resource: ServedResource) -> Self {
        Self(Arc::new(resource))
    }

    /// Whether this is the very same, and not another state of a definition.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The built-in resource of this name.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn find(group: &str, version: &str, plural: &str) -> Result<Self, ApiError> {
        let found = BUILT_IN.by_name.get(&(group, version, plural));
        found.map(|at| BUILT_IN.all[*at].clone()).ok_or_else(no_such_resource)
    }

    /// All built-in resources.
    pub fn built_in() -> impl Iterator<Item = Self> {
        BUILT_IN.all.iter().cloned()
    }

    /// A row as it is served.
    fn of(row: &'static Resource) -> Self {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let columns = row.columns.iter().map(|column| Column {
            name: column.name.to_owned(),
            kind: column.kind.to_owned(),
            format: column.format.to_owned(),
            priority: column.priority.into(),
            description: column.description.to_owned(),
        });
        let first = kinds::RESOURCES.iter().find(|other| other.is_stored() && other.storage == row.storage);
        Self(Arc::new(ServedResource {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            kind: row.kind.to_owned(),
            list_kind: format!("{}List", row.kind),
            plural: row.plural.to_owned(),
            singular: row.singular.to_owned(),
            short_names: owned(row.short_names),
            categories: owned(row.categories),
            scope: row.scope,
            verbs: row.verbs,
            subresources: row.subresources.iter().map(Sub::of).collect(),
            type_name: row.type_name,
            ty: row.ty(),
            structure: None,
            openapi: None,
            conversion: Value::Null,
            stored_version: String::new(),
            scale: row.subresource("scale").map(|_| scale::Paths::built_in()),
            storage: row.storage.to_owned(),
            has_status: row.has_status,
            has_generation: row.has_generation,
            create_by_update: row.create_by_update,
            unconditional_update: row.unconditional_update,
            graceful: row.graceful,
            selectable_fields: owned(row.selectable_fields),
            columns: columns.collect(),
            deprecation: row.hooks.deprecation().map(str::to_owned),
            converts: first.is_some_and(|first| !std::ptr::eq(*first, row)),
            plain_since: None,
            hooks: Hooks::Row(row),
        }))
    }
}

impl ServedResource {
    /// The API group, empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The kind of its objects.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The kind of its lists.
    pub fn list_kind(&self) -> &str {
        &self.list_kind
    }

    /// Its name in URLs.
    pub fn plural(&self) -> &str {
        &self.plural
    }

    /// The name of one object of it.
    pub fn singular(&self) -> &str {
        &self.singular
    }

    /// Name of the objects' type in `schema`.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Whether the resource came from a definition.
    pub fn is_custom(&self) -> bool {
        matches!(self.hooks, Hooks::Custom(_))
    }

    /// Whether a webhook brings objects from one version to another.
    pub fn by_webhook(&self) -> bool {
        self.conversion["strategy"] == "Webhook"
    }

    /// What is special about its objects.
    pub fn hooks(&self) -> &dyn Kind {
        match &self.hooks {
            Hooks::Row(row) => row.hooks,
            Hooks::Custom(hooks) => hooks.as_ref(),
        }
    }

    /// What is known of the fields of its objects, for merging and for who manages them.
    pub fn place(&self) -> Place<'_> {
        match &self.structure {
            Some(structure) => Place::Whole(structure),
            None => Place::from(self.ty),
        }
    }

    /// Sets every default, and the zero values that upstream always writes.
    pub fn default(&self, object: &mut Value) {
        match &self.hooks {
            Hooks::Row(row) => row.default(object),
            Hooks::Custom(hooks) => {
                self.normalise(object);
                hooks.default(object);
            }
        }
    }

    /// Brings an object into the form in which it is written.
    pub fn normalise(&self, object: &mut Value) {
        schema::normalise(self.ty, object);
    }

    /// Everything wrong with a new object.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors =
            if self.is_stored() { kinds::meta::validate(self.hooks(), self.scope, object) } else { Vec::new() };
        errors.extend(self.hooks().validate(object));
        errors
    }

    /// Everything wrong with a change.
    pub fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = kinds::meta::validate_update(new, old);
        errors.extend(self.hooks().validate_update(new, old));
        errors
    }

    /// Everything wrong with a new state of an existing object.
    pub fn validate_change(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        match &self.hooks {
            Hooks::Row(_) => {
                let mut errors = self.validate(new);
                errors.extend(self.validate_update(new, old));
                errors
            }
            // What a definition asks for now is not held against what was stored before.
            Hooks::Custom(hooks) => {
                let mut errors = kinds::meta::validate(hooks.as_ref(), self.scope, new);
                errors.extend(self.validate_update(new, old));
                errors
            }
        }
    }

    /// Everything wrong with an existing object that was changed through a subresource.
    pub fn validate_part(&self, subresource: &str, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = match &self.hooks {
            Hooks::Row(_) => self.validate(new),
            Hooks::Custom(_) => Vec::new(),
        };
        errors.extend(self.hooks().validate_subresource_update(subresource, new, old));
        errors
    }

    /// Whether objects are stored, and not only answered.
    pub fn is_stored(&self) -> bool {
        !self.storage.is_empty()
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Whether this is a view of a collection that is stored in another form.
    pub fn converts(&self) -> bool {
        self.converts
    }

    /// Whether there can be objects whose text is what is served.
    pub fn may_be_plain(&self) -> bool {
        !self.converts || self.plain_since.is_some()
    }

    /// Whether the text of an object that was stored at this revision is what is served.
    pub fn is_plain(&self, revision: u64) -> bool {
        !self.converts || self.plain_since.is_some_and(|since| since < revision)
    }

    /// Whether its objects live in namespaces.
    pub fn namespaced(&self) -> bool {
        matches!(self.scope, Scope::Namespaced)
    }

    /// Whether this is the kind `kind` of a group: for the few places that may name a kind.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }

    /// Whether this is the kind `kind` of the core group: for the few places that may name a kind.
    pub fn is_core(&self, kind: &str) -> bool {
        self.is("", kind)
    }

    /// The subresource of this name.
    pub fn subresource(&self, name: &str) -> Option<&Sub> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// The start of all its keys in the store.
    pub fn prefix(&self) -> String {
        format!("{}/", self.storage)
    }

    /// The start of the keys of a namespace, or of all where it is empty.
    pub fn namespace_prefix(&self, namespace: &str) -> String {
        if namespace.is_empty() || !self.namespaced() {
            self.prefix()
        } else {
            format!("{}/{namespace}/", self.storage)
        }
    }

    /// The key of an object.
    pub fn key(&self, namespace: &str, name: &str) -> String {
        if self.namespaced() {
            format!("{}/{namespace}/{name}", self.storage)
        } else {
            format!("{}/{name}", self.storage)
        }
    }

    /// 404 for an object of this resource.
    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.group, &self.plural, name)
    }

    /// 409 for an object of this resource that has changed meanwhile.
    pub fn stale(&self, name: &str) -> ApiError {
        ApiError::stale(&self.group, &self.plural, name)
    }
}
