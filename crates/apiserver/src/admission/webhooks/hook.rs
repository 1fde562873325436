//! One webhook, ready to be asked: its rules, selectors and conditions, as its configuration has them.

use std::time::Duration;

use kinds::cel::{self, Expression};
use object_model::{ApiError, meta};
use serde_json::Value;

use crate::ApiServer;
use crate::admission::evaluation::{Scene, Sight};
use crate::admission::matching::{Asked, Matcher};
use crate::admission::question::Question;
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
    matcher: Matcher,
    conditions: Vec<(String, Expression)>,
}

impl Hook {
    /// The webhook of one entry of a configuration.
    pub fn of(configuration: &str, hook: &Value) -> Self {
        let name = hook["name"].as_str().unwrap_or_default().to_owned();
        let versions = hook["admissionReviewVersions"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let known = versions.into_iter().find(|version| matches!(*version, "v1" | "v1beta1"));
        Self {
            id: format!("{configuration}/{name}"),
            name,
            webhook: Webhook::new(hook["clientConfig"].clone()),
            timeout: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(PATIENCE)),
            required: hook["failurePolicy"] != "Ignore",
            has_side_effects: !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            is_reinvoked: hook["reinvocationPolicy"] == "IfNeeded",
            review_version: known.unwrap_or("v1").to_owned(),
            matcher: Matcher::of_webhook(hook),
            conditions: cel::compiled_conditions(&hook["matchConditions"]),
        }
    }

    /// The resource, in the version in which the webhook is asked about a request; `None` if it is not asked.
    ///
    /// # Errors
    /// 404 when the namespace of the request is not there to be asked for its labels.
    pub fn wants(&self, server: &ApiServer, question: &Question<'_>) -> Result<Option<Served>, ApiError> {
        self.matcher.matches(server, &Asked::new(question))
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
        let sight = Sight { object, old, params: &Value::Null };
        let scene = Scene::new(server, question, served, None);
        scene.conditions_hold(&self.conditions, sight, self.required).map_err(|why| {
            let name = if question.name.is_empty() { meta::name(&question.object) } else { &question.name };
            ApiError::forbidden(question.served.group(), question.served.plural(), name, why)
        })
    }
}
