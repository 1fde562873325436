//! One webhook, ready to be asked: its rules, selectors and conditions, as its configuration has them.

use std::time::Duration;

use expressions::{Access, Program, Value as Seen};
use kinds::cel;
use object_model::{ApiError, LabelSelector, meta};
use serde_json::Value;

use crate::ApiServer;
use crate::admission::expressions::{authorizer, request};
use crate::admission::holder;
use crate::admission::question::{Operation, Question};
use crate::outbound::Webhook;
use crate::served::Served;

/// How long a webhook may take whose configuration does not say.
const PATIENCE: u64 = 10;

/// A webhook.
pub(super) struct Hook {
    /// Its name, as messages have it.
    pub name: String,
    /// Its name within that of its configuration: what tells it apart from all others.
    pub id: String,
    /// Where it is.
    pub webhook: Webhook,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether a request fails when it cannot be asked.
    pub required: bool,
    /// Whether it does something beside answering that a dry run would leave behind.
    pub has_side_effects: bool,
    /// Whether it is asked again when another one changed the object after it.
    pub is_reinvoked: bool,
    /// The version of reviews that it wants.
    pub review_version: String,
    rules: Vec<Rule>,
    /// Whether it is asked about its resources in whatever version a request has them.
    any_version: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
    conditions: Vec<(String, String, Program)>,
}

/// Requests that a webhook is asked about.
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    fn of(rule: &Value) -> Self {
        Self {
            operations: texts(&rule["operations"]),
            groups: texts(&rule["apiGroups"]),
            versions: texts(&rule["apiVersions"]),
            resources: texts(&rule["resources"]),
            scope: rule["scope"].as_str().unwrap_or("*").to_owned(),
        }
    }

    /// Whether it is for a request, taken as one for `served`.
    fn is_for(&self, question: &Question<'_>, served: &Served) -> bool {
        // A namespace counts as living in none, though requests for it name one.
        let cluster = !served.namespaced() || question.namespace.is_empty();
        let in_scope = match self.scope.as_str() {
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => true,
        };
        let resource = || {
            self.resources.iter().any(|wanted| {
                let (resource, subresource) = wanted.split_once('/').unwrap_or((wanted, ""));
                (resource == "*" || resource == served.plural())
                    && (subresource == "*" || subresource == question.subresource)
            })
        };
        in_scope
            && has(&self.operations, question.operation.name())
            && has(&self.groups, served.group())
            && has(&self.versions, served.version())
            && resource()
    }
}

impl Hook {
    /// The webhook of one entry of a configuration.
    pub fn of(configuration: &str, hook: &Value) -> Self {
        let name = hook["name"].as_str().unwrap_or_default().to_owned();
        // An empty selector selects everything, and so does one that is not there.
        let selector = |field: &str| {
            let selector = LabelSelector::from_object(&hook[field]).ok().filter(|_| hook[field].is_object());
            selector.unwrap_or_else(|| LabelSelector::from_map(&Default::default()))
        };
        let versions = texts(&hook["admissionReviewVersions"]);
        let known = versions.into_iter().find(|version| matches!(version.as_str(), "v1" | "v1beta1"));
        Self {
            id: format!("{configuration}/{name}"),
            name,
            webhook: Webhook::new(hook["clientConfig"].clone()),
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(PATIENCE)),
            required: hook["failurePolicy"] != "Ignore",
            has_side_effects: !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            is_reinvoked: hook["reinvocationPolicy"] == "IfNeeded",
            review_version: known.unwrap_or_else(|| "v1".to_owned()),
            rules: hook["rules"].as_array().into_iter().flatten().map(Rule::of).collect(),
            any_version: hook["matchPolicy"] != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            conditions: cel::webhook_conditions(&hook["matchConditions"]),
        }
    }

    /// The resource, in the version in which the webhook is asked about a request; `None` if it is not asked.
    ///
    /// # Errors
    /// 404 when the namespace of the request is not there to be asked for its labels.
    pub fn wants(&self, server: &ApiServer, question: &Question<'_>) -> Result<Option<Served>, ApiError> {
        if !self.selects_object(question) {
            return Ok(None);
        }
        let Some(served) = self.version_for(server, question) else { return Ok(None) };
        Ok(self.selects_namespace(server, question)?.then_some(served))
    }

    fn version_for(&self, server: &ApiServer, question: &Question<'_>) -> Option<Served> {
        let served = question.served;
        if self.rules.iter().any(|rule| rule.is_for(question, served)) {
            return Some(served.clone());
        }
        if !self.any_version || !served.is_stored() {
            return None;
        }
        let catalogue = server.catalogue();
        let others: Vec<Served> = catalogue
            .all()
            .filter(|other| other.storage == served.storage)
            .filter(|other| (other.group(), other.version()) != (served.group(), served.version()))
            .filter(|other| question.subresource.is_empty() || other.subresource(question.subresource).is_some())
            .collect();
        self.rules.iter().find_map(|rule| others.iter().find(|other| rule.is_for(question, other)).cloned())
    }

    fn selects_object(&self, question: &Question<'_>) -> bool {
        let selects = |object: &Value| object["metadata"].is_object() && self.objects.matches_object(object);
        self.objects.is_everything() || selects(&question.object) || selects(&question.old)
    }

    fn selects_namespace(&self, server: &ApiServer, question: &Question<'_>) -> Result<bool, ApiError> {
        if question.namespace.is_empty() || self.namespaces.is_everything() {
            return Ok(true);
        }
        let is_written = matches!(question.operation, Operation::Create | Operation::Update);
        // A namespace is judged by the labels that it is to have.
        if !question.served.namespaced() && question.subresource.is_empty() && is_written {
            return Ok(self.namespaces.matches_object(&question.object));
        }
        Ok(self.namespaces.matches_object(&holder(server, question.namespace)?))
    }

    /// Whether all conditions hold for a request, shown as one for `served` with these objects.
    ///
    /// # Errors
    /// 403 when a condition cannot be evaluated, none is false, and the webhook is required.
    pub fn is_met(
        &self,
        server: &ApiServer,
        question: &Question<'_>,
        served: &Served,
        (object, old): (&Value, &Value),
    ) -> Result<bool, ApiError> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let request = request(question, served);
        let mut variables = vec![
            ("object", Seen::dynamic(object)),
            ("oldObject", Seen::dynamic(old)),
            ("request", Seen::dynamic(&request)),
        ];
        let access = |access: Access| Seen::Access(access);
        if let Some((anything, resource)) = authorizer(server, question) {
            variables.push(("authorizer", access(anything)));
            variables.push(("authorizer.requestResource", access(resource)));
        }
        let mut budget = cel::RUNTIME_BUDGET;
        let mut failures = Vec::new();
        for (_, text, program) in &self.conditions {
            let mut left = budget.min(cel::PER_CALL_LIMIT);
            let before = left;
            let outcome = program.evaluate(&variables, &mut left);
            budget -= before - left;
            match outcome {
                Ok(Seen::Bool(true)) => {}
                Ok(Seen::Bool(false)) => return Ok(false),
                Ok(other) => failures.push(format!("expression '{text}' resulted in {}", other.type_name())),
                Err(error) => failures.push(format!("expression '{text}' resulted in error: {error}")),
            }
        }
        if failures.is_empty() {
            return Ok(true);
        }
        if !self.required {
            return Ok(false);
        }
        let why = match &failures[..] {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let name = if question.name.is_empty() { meta::name(&question.object) } else { &question.name };
        Err(ApiError::forbidden(question.served.group(), question.served.plural(), name, why))
    }
}
