//! What running a pod takes besides its containers, and where that can be done: its class says so (upstream's RuntimeClass).

use object_model::{ApiError, meta};
use serde_json::{Map, Value};

use super::one;
use crate::ApiServer;

/// Completes a pod that is about to be created.
///
/// # Errors
/// 403 when its class does not exist, or says something else than the pod.
pub fn admit(server: &ApiServer, pod: &mut Value) -> Result<(), ApiError> {
    let name = meta::name(pod).to_owned();
    let refuse = |why: String| ApiError::forbidden("", "pods", &name, why);
    let overhead = pod["spec"]["overhead"].as_object().filter(|overhead| !overhead.is_empty()).cloned();
    let Some(class_name) = pod["spec"]["runtimeClassName"].as_str().filter(|name| !name.is_empty()) else {
        return match overhead {
            None => Ok(()),
            Some(_) => {
                let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
                Err(refuse(why.to_owned()))
            }
        };
    };
    let class = one(server, "node.k8s.io", "runtimeclasses", class_name)?
        .ok_or_else(|| refuse(format!("pod rejected: RuntimeClass {class_name:?} not found")))?;
    let fixed = class["overhead"]["podFixed"].as_object().filter(|overhead| !overhead.is_empty());
    if overhead.is_some() && overhead.as_ref() != fixed {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return Err(refuse(why.to_owned()));
    }
    if let Some(fixed) = fixed {
        pod["spec"]["overhead"] = Value::Object(fixed.clone());
    }
    place(&mut pod["spec"], &class["scheduling"]).map_err(refuse)
}

/// Where the class can be run, the pod may be.
fn place(spec: &mut Value, scheduling: &Value) -> Result<(), String> {
    if let Some(wanted) = scheduling["nodeSelector"].as_object().filter(|map| !map.is_empty()) {
        let mut selector = spec["nodeSelector"].as_object().cloned().unwrap_or_else(Map::new);
        for (key, value) in wanted {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            match selector.get(key) {
                Some(given) if given != value => {
                    return Err(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                        text(value),
                        text(given)
                    ));
                }
                _ => _ = selector.insert(key.clone(), value.clone()),
            }
        }
        spec["nodeSelector"] = Value::Object(selector);
    }
    if let Some(wanted) = scheduling["tolerations"].as_array().filter(|list| !list.is_empty()) {
        let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
        let missing: Vec<Value> = wanted.iter().filter(|one| !tolerations.contains(one)).cloned().collect();
        tolerations.extend(missing);
        spec["tolerations"] = tolerations.into();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_adds_to_where_a_pod_may_run_and_does_not_take_away() {
        let class = json!({"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]});
        let mut spec = json!({"nodeSelector": {"c": "d"}, "tolerations": [{"key": "k"}]});
        assert_eq!(place(&mut spec, &class), Ok(()));
        assert_eq!(spec, json!({"nodeSelector": {"a": "b", "c": "d"}, "tolerations": [{"key": "k"}]}));
        let why = "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = x";
        assert_eq!(place(&mut json!({"nodeSelector": {"a": "x"}}), &class), Err(why.to_owned()));
    }
}
