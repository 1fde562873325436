//! Which requests webhooks and policies are about: rules, and selectors of objects and namespaces.
//!
//! Kinds named here, and why: Namespace, because one is selected by its own labels.

use std::sync::OnceLock;

use object_model::{ApiError, LabelSelector, meta};
use serde_json::Value;

use super::question::{Operation, Question};
use crate::ApiServer;
use crate::custom::texts;
use crate::served::Served;

/// A question, and what is found out once for all who are asked.
pub(crate) struct Asked<'q, 'a> {
    /// The question.
    pub question: &'q Question<'a>,
    /// The namespace it is about.
    holder: OnceLock<Value>,
    /// Other forms in which the same objects are served.
    equivalents: OnceLock<Vec<Served>>,
}

impl<'q, 'a> Asked<'q, 'a> {
    /// A question of which nothing has been found out.
    pub fn new(question: &'q Question<'a>) -> Self {
        Self { question, holder: OnceLock::new(), equivalents: OnceLock::new() }
    }

    /// The namespace in which the object lives; `None` for what lives in none.
    ///
    /// # Errors
    /// 404 when there is no such namespace.
    pub fn holder(&self, server: &ApiServer) -> Result<Option<&Value>, ApiError> {
        let name = self.question.namespace;
        if !self.question.served.namespaced() || name.is_empty() {
            return Ok(None);
        }
        if self.holder.get().is_none() {
            _ = self.holder.set(super::holder(server, name)?);
        }
        Ok(self.holder.get())
    }

    /// The other resources that serve the same objects, and have the subresource as well.
    fn equivalents(&self, server: &ApiServer) -> &[Served] {
        self.equivalents.get_or_init(|| {
            let Question { served, subresource, .. } = self.question;
            let same = |other: &Served| {
                let own = other.group() == served.group() && other.version() == served.version();
                let part = subresource.is_empty() || other.subresource(subresource).is_some();
                !own && other.storage == served.storage && part
            };
            if served.is_stored() { server.catalogue().all().filter(same).collect() } else { Vec::new() }
        })
    }
}

/// Whether nobody is asked: the configuration of those who are asked could not be mended otherwise, and questions to the
/// server change nothing.
pub(crate) fn is_exempt(served: &Served) -> bool {
    match served.group() {
        "admissionregistration.k8s.io" => true,
        "authentication.k8s.io" | "authorization.k8s.io" => !served.is_stored(),
        _ => false,
    }
}

/// What requests somebody is asked about.
#[derive(Debug)]
pub(crate) struct Matcher {
    /// Any of them must match.
    rules: Vec<Rule>,
    /// Whether all requests match where there are no rules.
    lenient: bool,
    /// None of them may match.
    exclusions: Vec<Rule>,
    /// Whether a rule matches if it names another form of the same objects.
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Matcher {
    /// Of the `matchConstraints` of a policy or the `matchResources` of a binding.
    pub fn of_resources(resources: &Value) -> Self {
        let exclusions = rules(&resources["excludeResourceRules"]);
        Self { exclusions, lenient: true, ..Self::of(resources, "resourceRules") }
    }

    /// Of a webhook.
    pub fn of_webhook(webhook: &Value) -> Self {
        Self::of(webhook, "rules")
    }

    fn of(holder: &Value, field: &str) -> Self {
        // What is stored has been validated; a selector that cannot be read selects nothing.
        let selector = |field: &str| match holder.get(field).filter(|selector| !selector.is_null()) {
            Some(selector) => LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()),
            None => LabelSelector::default(),
        };
        Self {
            rules: rules(&holder[field]),
            lenient: false,
            exclusions: Vec::new(),
            equivalent: holder["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The resource as which the request is matched: its own, or another form of it. `None` if it is not.
    ///
    /// # Errors
    /// 404 when the namespace, whose labels decide, is not there.
    pub fn matches(&self, server: &ApiServer, asked: &Asked<'_, '_>) -> Result<Option<Served>, ApiError> {
        let found = if self.lenient && self.rules.is_empty() {
            Some(asked.question.served.clone())
        } else {
            self.matching(&self.rules, server, asked)
        };
        let Some(found) = found else { return Ok(None) };
        if self.matching(&self.exclusions, server, asked).is_some() || !self.selects_object(asked.question) {
            return Ok(None);
        }
        Ok(self.selects_namespace(server, asked)?.then_some(found))
    }

    fn matching(&self, rules: &[Rule], server: &ApiServer, asked: &Asked<'_, '_>) -> Option<Served> {
        let question = asked.question;
        if rules.iter().any(|rule| rule.matches(question, question.served)) {
            return Some(question.served.clone());
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = asked.equivalents(server);
        rules.iter().find_map(|rule| others.iter().find(|other| rule.matches(question, other)).cloned())
    }

    fn selects_object(&self, question: &Question<'_>) -> bool {
        let selects = |object: &Value| object.is_object() && self.objects.matches(&meta::labels(object));
        self.objects.is_everything() || selects(&question.object) || selects(&question.old)
    }

    fn selects_namespace(&self, server: &ApiServer, asked: &Asked<'_, '_>) -> Result<bool, ApiError> {
        if self.namespaces.is_everything() {
            return Ok(true);
        }
        let question = asked.question;
        if question.served.is_core("Namespace") {
            // One that is written is selected as it will be.
            let written = question.subresource.is_empty() && question.operation != Operation::Delete;
            let own = if written { &question.object } else { &question.old };
            return Ok(self.namespaces.matches(&meta::labels(own)));
        }
        let holder = asked.holder(server)?;
        Ok(holder.is_none_or(|holder| self.namespaces.matches(&meta::labels(holder))))
    }
}

#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resource and subresource.
    resources: Vec<(String, String)>,
    scope: String,
    /// Empty for all.
    names: Vec<String>,
}

fn rules(list: &Value) -> Vec<Rule> {
    list.as_array().into_iter().flatten().map(Rule::of).collect()
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let texts = |field: &str| texts(&rule[field]);
        let resources = texts("resources").into_iter().map(|text| match text.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (text, String::new()),
        });
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: resources.collect(),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
            names: texts("resourceNames"),
        }
    }

    /// Whether it is about the question, if the resource is this one.
    fn matches(&self, question: &Question<'_>, served: &Served) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let is = |one: &str, wanted: &str| one == "*" || one == wanted;
        let scope = match self.scope.as_str() {
            "Namespaced" => question.served.namespaced(),
            "Cluster" => !question.served.namespaced(),
            _ => true,
        };
        scope
            && has(&self.operations, question.operation.name())
            && has(&self.groups, served.group())
            && has(&self.versions, served.version())
            && self
                .resources
                .iter()
                .any(|(resource, subresource)| is(resource, served.plural()) && is(subresource, question.subresource))
            && (self.names.is_empty() || self.names.contains(&question.name))
    }
}
