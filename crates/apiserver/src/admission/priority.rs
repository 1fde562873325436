//! How important a pod is: the number of the class it names, or of the cluster's default (upstream's Priority).

use object_model::{ApiError, meta};
use serde_json::Value;

use super::{all, one};
use crate::ApiServer;

const GROUP: &str = "scheduling.k8s.io";
const PLURAL: &str = "priorityclasses";

/// Completes a pod that is about to be created.
///
/// # Errors
/// 403 when its class does not exist, or when the pod says itself what only the class says.
pub fn admit(server: &ApiServer, pod: &mut Value) -> Result<(), ApiError> {
    let refuse = |pod: &Value, why: String| Err(ApiError::forbidden("", "pods", meta::name(pod), why));
    let named = pod["spec"]["priorityClassName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    let class = match &named {
        Some(name) => match one(server, GROUP, PLURAL, name)? {
            Some(class) => Some(class),
            None => return refuse(pod, format!("no PriorityClass with name {name} was found")),
        },
        None => default_class(server)?,
    };
    let (value, policy) = match &class {
        Some(class) => (class["value"].as_i64().unwrap_or(0), class["preemptionPolicy"].as_str()),
        None => (0, None),
    };
    let policy = policy.unwrap_or("PreemptLowerPriority");
    let given = pod["spec"]["priority"].as_i64();
    if let Some(given) = given.filter(|given| *given != value) {
        return refuse(
            pod,
            format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {value} from the given PriorityClass name"
            ),
        );
    }
    let given = pod["spec"]["preemptionPolicy"].as_str();
    if let Some(given) = given.filter(|given| *given != policy) {
        return refuse(
            pod,
            format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            ),
        );
    }
    if let (None, Some(class)) = (&named, &class) {
        pod["spec"]["priorityClassName"] = meta::name(class).into();
    }
    pod["spec"]["priority"] = value.into();
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

/// The class of pods that name none. Of several, the one of the lowest value.
fn default_class(server: &ApiServer) -> Result<Option<Value>, ApiError> {
    let classes = all(server, GROUP, PLURAL, "")?.into_iter().filter(|class| class["globalDefault"] == true);
    Ok(classes.min_by_key(|class| class["value"].as_i64()))
}

/// Refuses a second default class.
///
/// # Errors
/// 403 when another class is the default.
pub fn judge_class(server: &ApiServer, class: &Value) -> Result<(), ApiError> {
    if class["globalDefault"] != true {
        return Ok(());
    }
    let name = meta::name(class);
    match default_class(server)? {
        Some(other) if meta::name(&other) != name => {
            let other = meta::name(&other);
            let why = format!("PriorityClass {other} is already marked as default. Only one default can exist");
            Err(ApiError::forbidden(GROUP, PLURAL, name, why))
        }
        _ => Ok(()),
    }
}
