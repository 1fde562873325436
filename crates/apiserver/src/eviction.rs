//! What disruption budgets have to say about the eviction of a pod.

use client::clock;
use object_model::{ApiError, LabelSelector, Reason, meta, time};
use serde_json::{Value, json};
use store::{Expect, StoreError};

use crate::served::Served;
use crate::write::store_failed;
use crate::{ApiServer, stored};

impl ApiServer {
    /// Takes one disruption off the budget of a pod.
    ///
    /// # Errors
    /// 429 when the budget allows none now, 500 when the pod has more than one budget (upstream's rule).
    pub(crate) async fn ask_budget(
        &self,
        pods: &Served,
        namespace: &str,
        name: &str,
        dry_run: bool,
    ) -> Result<(), ApiError> {
        let budgets = Served::find("policy", "v1", "poddisruptionbudgets")?;
        loop {
            let entry = self.store.get(&pods.key(namespace, name)).ok_or_else(|| pods.not_found(name))?;
            let pod = stored::decode(pods, &entry)?;
            // One that does not serve, or will not for long, costs nothing.
            let phase = pod["status"]["phase"].as_str().unwrap_or("Pending");
            if phase != "Running" || meta::deletion_timestamp(&pod).is_some() {
                return Ok(());
            }
            let range = self.store.range(&budgets.namespace_prefix(namespace), None, 0, None);
            let mut matching = Vec::new();
            for entry in range.map_err(|error| store_failed(&error))?.entries {
                let budget = stored::decode(&budgets, &entry)?;
                if is_for(&budget, &pod) {
                    matching.push((entry.mod_revision, budget));
                }
            }
            let (revision, mut budget) = match matching.len() {
                0 => return Ok(()),
                1 => matching.remove(0),
                _ => {
                    return Err(ApiError::internal(
                        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                    ));
                }
            };
            let number = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
            if !is_ready(&pod) {
                let enough = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
                if enough || budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
                    return Ok(());
                }
            }
            let of = meta::name(&budget).to_owned();
            if number("observedGeneration") < meta::generation(&budget) {
                return Err(refused(&format!("The disruption budget {of} is still being processed by the server.")));
            }
            let allowed = number("disruptionsAllowed");
            if allowed <= 0 {
                return Err(refused(&format!(
                    "The disruption budget {of} needs {} healthy pods and has {} currently",
                    number("desiredHealthy"),
                    number("currentHealthy"),
                )));
            }
            if dry_run {
                return Ok(());
            }
            budget["status"]["disruptionsAllowed"] = (allowed - 1).into();
            if !budget["status"]["disruptedPods"].is_object() {
                budget["status"]["disruptedPods"] = json!({});
            }
            budget["status"]["disruptedPods"][name] = time::seconds(clock::now()).into();
            match self.put(&budgets, namespace, &of, Expect::Revision(revision), &budget).await {
                Ok(_) => return Ok(()),
                // Another eviction was faster: ask again.
                Err(StoreError::Mismatch(_)) => {}
                Err(error) => return Err(store_failed(&error)),
            }
        }
    }
}

fn is_for(budget: &Value, pod: &Value) -> bool {
    let selector = &budget["spec"]["selector"];
    selector.is_object() && LabelSelector::from_object(selector).is_ok_and(|selector| selector.matches_object(pod))
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
}

fn refused(why: &str) -> ApiError {
    ApiError::new(Reason::TooManyRequests, "Cannot evict pod as it would violate the pod's disruption budget.")
        .cause("DisruptionBudget", why)
}
