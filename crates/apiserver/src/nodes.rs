//! Which objects belong to which nodes, as the stored pods and volumes have it, and what kubelets may by that.

use std::sync::{LazyLock, PoisonError};

use auth::node::{Graph, name_of};
use auth::{Attributes, Rule, bootstrap};
use object_model::meta;
use serde_json::Value;
use store::Store;

use crate::served::Served;
use crate::{ApiServer, stored};

/// What every node may.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(bootstrap::node_rules);

/// The graph that the stored objects make.
///
/// # Errors
/// When one of them cannot be read.
pub fn graph_of(store: &dyn Store) -> anyhow::Result<Graph> {
    let mut graph = Graph::default();
    for served in Served::built_in().filter(|served| served.hooks().ties_to_nodes() && !served.converts()) {
        for entry in store.range(&served.prefix(), None, 0, None)?.entries {
            let object = stored::decode(&served, &entry)?;
            graph.observe(served.plural(), meta::namespace(&object), meta::name(&object), Some(&object));
        }
    }
    Ok(graph)
}

impl ApiServer {
    /// Takes note of an object that is about to be stored: who learns of it by a watch must be able to act on it at once.
    pub(crate) fn tie(&self, served: &Served, namespace: &str, name: &str, object: &Value) {
        if served.hooks().ties_to_nodes() {
            self.observe(served, namespace, name, Some(object));
        }
    }

    /// Takes note of what is stored of an object that was not written, or has been removed.
    pub(crate) fn tie_again(&self, served: &Served, namespace: &str, name: &str) {
        if !served.hooks().ties_to_nodes() {
            return;
        }
        match self.store.get(&served.key(namespace, name)).map(|entry| stored::decode(served, &entry)).transpose() {
            Ok(object) => self.observe(served, namespace, name, object.as_ref()),
            Err(error) => tracing::error!("read {} {namespace}/{name}: {error}", served.plural()),
        }
    }

    fn observe(&self, served: &Served, namespace: &str, name: &str, object: Option<&Value>) {
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        nodes.observe(served.plural(), namespace, name, object);
    }

    /// Whether a request is allowed, and what there is to say of it.
    pub(crate) fn verdict_on(&self, attributes: &Attributes<'_>) -> (bool, String) {
        let mut refused = String::new();
        if let Some(node) = name_of(attributes.user) {
            let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
            match nodes.judge(node, &RULES, attributes) {
                Ok(()) => return (true, String::new()),
                Err(why) => refused = why,
            }
        }
        let (allowed, reason) = self.with_policy(|policy| policy.verdict(attributes));
        if allowed || refused.is_empty() {
            return (allowed, reason);
        }
        // Upstream puts a line for each of its authorisers.
        (false, if reason.is_empty() { refused } else { format!("{refused}\n{reason}") })
    }
}
