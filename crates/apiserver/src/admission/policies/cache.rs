//! The admission policies that are stored, compiled: renewed when one is written, and otherwise only read.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use kinds::PolicyPart;
use kinds::cel;
use object_model::{FieldPath, meta};
use serde_json::Value;
use store::Store;

use crate::admission::matching::Matcher;
use crate::custom::texts;
use crate::served::Served;
use crate::{ApiServer, stored};

/// All policies of both sorts, with their bindings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policies {
    /// Those that judge.
    pub validating: Sort,
    /// Those that change.
    pub mutating: Sort,
}

/// The policies of one sort and their bindings, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sort {
    policies: BTreeMap<String, Arc<Policy>>,
    bindings: BTreeMap<String, Arc<Binding>>,
}

/// One policy.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub matcher: Matcher,
    /// Its expressions.
    pub compiled: cel::Policy,
    /// `apiVersion` and `kind` of its parameters; null if it has none.
    pub param_kind: Value,
    /// Whether a request fails for which it cannot be evaluated.
    pub fails: bool,
    /// Whether it is asked again when something changed after it.
    pub again: bool,
}

/// One binding.
#[derive(Debug)]
pub(crate) struct Binding {
    /// Its name.
    pub name: String,
    /// The name of its policy.
    pub policy: String,
    /// What it is about, if that is less than the policy is.
    pub matcher: Option<Matcher>,
    /// `spec.paramRef`; null if there is none.
    pub param_ref: Value,
    /// What follows if the policy says no.
    pub actions: Vec<String>,
}

impl Sort {
    /// The policies that are bound, each with its bindings.
    pub fn bound(&self) -> impl Iterator<Item = (&Arc<Policy>, Vec<&Arc<Binding>>)> {
        self.policies.values().filter_map(|policy| {
            let bindings: Vec<_> = self.bindings.values().filter(|binding| binding.policy == policy.name).collect();
            (!bindings.is_empty()).then_some((policy, bindings))
        })
    }

    /// Whether nobody is to be asked.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty() || self.bindings.is_empty()
    }

    fn observe(&mut self, binding: bool, name: &str, object: Option<&Value>) {
        match (binding, object) {
            (true, Some(object)) => drop(self.bindings.insert(name.to_owned(), Arc::new(Binding::of(object)))),
            (true, None) => drop(self.bindings.remove(name)),
            (false, Some(object)) => drop(self.policies.insert(name.to_owned(), Arc::new(Policy::of(object)))),
            (false, None) => drop(self.policies.remove(name)),
        }
    }
}

impl Policies {
    /// Whether nobody is to be asked about anything.
    pub fn is_empty(&self) -> bool {
        self.validating.is_empty() && self.mutating.is_empty()
    }

    /// Takes note of a policy or binding as it stands now, or that there is none any more.
    fn observe(&mut self, part: PolicyPart, name: &str, object: Option<&Value>) {
        let sort = if part.mutating { &mut self.mutating } else { &mut self.validating };
        sort.observe(part.binding, name, object);
    }
}

impl Policy {
    fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        Self {
            name: meta::name(object).to_owned(),
            matcher: Matcher::of_resources(&spec["matchConstraints"]),
            // What is wrong was told when it was written.
            compiled: cel::policy(spec, &FieldPath::new("spec")).0,
            param_kind: spec["paramKind"].clone(),
            fails: spec["failurePolicy"] != "Ignore",
            again: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }
}

impl Binding {
    fn of(object: &Value) -> Self {
        let spec = &object["spec"];
        Self {
            name: meta::name(object).to_owned(),
            policy: spec["policyName"].as_str().unwrap_or_default().to_owned(),
            matcher: spec["matchResources"].is_object().then(|| Matcher::of_resources(&spec["matchResources"])),
            param_ref: spec["paramRef"].clone(),
            actions: texts(&spec["validationActions"]),
        }
    }
}

/// The policies that are stored.
///
/// # Errors
/// When one cannot be read.
pub(crate) fn policies_of(store: &dyn Store) -> anyhow::Result<Arc<Policies>> {
    let mut policies = Policies::default();
    for served in Served::built_in() {
        let Some(part) = served.hooks().policy_part() else { continue };
        for entry in store.range(&served.prefix(), None, 0, None)?.entries {
            let object = stored::decode(&served, &entry)?;
            policies.observe(part, meta::name(&object), Some(&object));
        }
    }
    Ok(Arc::new(policies))
}

impl ApiServer {
    /// The policies as they are now. Those who ask keep them, whatever is written meanwhile.
    pub(crate) fn policies(&self) -> Arc<Policies> {
        self.policies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows a write of a policy or a binding. What is stored by now counts, so that two writes at once end in the newer.
    pub(crate) fn follow_policy(&self, served: &Served, name: &str) {
        let Some(part) = served.hooks().policy_part() else { return };
        let mut policies = self.policies.write().unwrap_or_else(PoisonError::into_inner);
        match self.store.get(&served.key("", name)).map(|entry| stored::decode(served, &entry)).transpose() {
            Ok(object) => Arc::make_mut(&mut policies).observe(part, name, object.as_ref()),
            Err(error) => tracing::error!("read {} {name}: {error}", served.plural()),
        }
    }
}
