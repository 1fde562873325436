//! How much one pod, container or claim may ask for, as the LimitRanges of its namespace say (upstream's LimitRanger).

use object_model::{ApiError, Quantity, meta};
use serde_json::{Map, Value};

use super::all;
use crate::ApiServer;

/// Where upstream notes what was filled in.
const NOTE: &str = "kubernetes.io/limit-ranger";

/// Gives the containers of a pod what they do not ask for themselves, and judges the whole.
///
/// # Errors
/// 403 when it asks for too much or too little.
pub fn admit_pod(server: &ApiServer, namespace: &str, pod: &mut Value) -> Result<(), ApiError> {
    let ranges = all(server, "", "limitranges", namespace)?;
    for range in &ranges {
        fill(pod, range);
    }
    judge(&ranges, "pods", pod, problems_of_pod)
}

/// Judges a pod as it is.
///
/// # Errors
/// As [`admit_pod`].
pub fn judge_pod(server: &ApiServer, namespace: &str, pod: &Value) -> Result<(), ApiError> {
    judge(&all(server, "", "limitranges", namespace)?, "pods", pod, problems_of_pod)
}

/// Judges a claim.
///
/// # Errors
/// 403 when it asks for too much or too little.
pub fn judge_claim(server: &ApiServer, namespace: &str, claim: &Value) -> Result<(), ApiError> {
    judge(&all(server, "", "limitranges", namespace)?, "persistentvolumeclaims", claim, problems_of_claim)
}

fn judge(
    ranges: &[Value],
    plural: &str,
    object: &Value,
    problems: fn(&Value, &Value) -> Vec<String>,
) -> Result<(), ApiError> {
    let items = ranges.iter().flat_map(|range| list(&range["spec"]["limits"]));
    let mut found: Vec<String> = Vec::new();
    for problem in items.flat_map(|item| problems(item, object)) {
        if !found.contains(&problem) {
            found.push(problem);
        }
    }
    match found.as_slice() {
        [] => Ok(()),
        [one] => Err(ApiError::forbidden("", plural, meta::name(object), one)),
        many => Err(ApiError::forbidden("", plural, meta::name(object), format!("[{}]", many.join(", ")))),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn amounts(map: &Value) -> impl Iterator<Item = (&String, Quantity)> {
    map.as_object().into_iter().flatten().filter_map(|(name, text)| Some((name, text.as_str()?.parse().ok()?)))
}

/// Adds the default amounts of a LimitRange to the containers of a pod.
fn fill(pod: &mut Value, range: &Value) {
    let items: Vec<&Value> = list(&range["spec"]["limits"]).iter().filter(|item| item["type"] == "Container").collect();
    let mut notes = Vec::new();
    for (kind, of) in [("containers", "container"), ("initContainers", "init container")] {
        let containers = pod["spec"].get_mut(kind).and_then(Value::as_array_mut).into_iter().flatten();
        for container in containers {
            let name = container["name"].as_str().unwrap_or_default().to_owned();
            for (to, from, what) in [("requests", "defaultRequest", "request"), ("limits", "default", "limit")] {
                let mut added: Vec<String> = Vec::new();
                for (resource, amount) in items.iter().filter_map(|item| item[from].as_object()).flatten() {
                    let map = &mut container["resources"][to];
                    if !map.is_object() {
                        *map = Value::Object(Map::new());
                    }
                    if map.get(resource).is_none() {
                        map[resource] = amount.clone();
                        added.push(resource.clone());
                    }
                }
                // An empty map was only made to be filled.
                if container["resources"][to].as_object().is_some_and(Map::is_empty) {
                    container["resources"].as_object_mut().map(|map| map.remove(to));
                }
                if !added.is_empty() {
                    added.sort_unstable();
                    notes.push(format!("{} {what} for {of} {name}", added.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let annotations = meta::metadata_mut(pod).entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        annotations[NOTE] = format!("LimitRanger plugin set: {}", notes.join("; ")).into();
    }
}

fn problems_of_pod(item: &Value, pod: &Value) -> Vec<String> {
    let spec = &pod["spec"];
    match item["type"].as_str().unwrap_or_default() {
        "Container" => {
            let all = list(&spec["containers"]).iter().chain(list(&spec["initContainers"]));
            all.flat_map(|container| problems(item, &container["resources"])).collect()
        }
        "Pod" => problems(item, &total(spec)),
        _ => Vec::new(),
    }
}

fn problems_of_claim(item: &Value, claim: &Value) -> Vec<String> {
    if item["type"] != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let asked = &claim["spec"]["resources"];
    let mut found = Vec::new();
    for (name, min) in amounts(&item["min"]) {
        found.extend(too_little("PersistentVolumeClaim", name, &min, asked));
    }
    for (name, max) in amounts(&item["max"]) {
        let rule = format!("maximum {name} usage per PersistentVolumeClaim is {max}");
        found.extend(match amount(asked, "requests", name) {
            None => Some(format!("{rule}.  No request is specified")),
            Some(request) if request > max => Some(format!("{rule}, but request is {request}")),
            Some(_) => None,
        });
    }
    found
}

fn amount(resources: &Value, list: &str, name: &str) -> Option<Quantity> {
    resources[list].get(name)?.as_str()?.parse().ok()
}

/// What is wrong with requests and limits, by one item of a LimitRange.
fn problems(item: &Value, resources: &Value) -> Vec<String> {
    let kind = item["type"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for (name, min) in amounts(&item["min"]) {
        found.extend(too_little(kind, name, &min, resources));
    }
    for (name, max) in amounts(&item["max"]) {
        found.extend(too_much(kind, name, &max, resources));
    }
    for (name, ratio) in amounts(&item["maxLimitRequestRatio"]) {
        found.extend(too_wide(kind, name, &ratio, resources));
    }
    found
}

fn too_little(kind: &str, name: &str, min: &Quantity, resources: &Value) -> Option<String> {
    let rule = format!("minimum {name} usage per {kind} is {min}");
    match (amount(resources, "requests", name), amount(resources, "limits", name)) {
        (None, _) => Some(format!("{rule}.  No request is specified")),
        (Some(request), _) if request < *min => Some(format!("{rule}, but request is {request}")),
        (_, Some(limit)) if limit < *min => Some(format!("{rule}, but limit is {limit}")),
        _ => None,
    }
}

fn too_much(kind: &str, name: &str, max: &Quantity, resources: &Value) -> Option<String> {
    let rule = format!("maximum {name} usage per {kind} is {max}");
    match (amount(resources, "limits", name), amount(resources, "requests", name)) {
        (None, _) => Some(format!("{rule}.  No limit is specified")),
        (Some(limit), _) if limit > *max => Some(format!("{rule}, but limit is {limit}")),
        (_, Some(request)) if request > *max => Some(format!("{rule}, but request is {request}")),
        _ => None,
    }
}

fn too_wide(kind: &str, name: &str, ratio: &Quantity, resources: &Value) -> Option<String> {
    let rule = format!("{name} max limit to request ratio per {kind} is {ratio}");
    let of = |list: &str| amount(resources, list, name).map(|amount| amount.milli_value()).filter(|milli| *milli != 0);
    let Some(request) = of("requests") else {
        return Some(format!("{rule}, but no request is specified or request is 0"));
    };
    let Some(limit) = of("limits") else {
        return Some(format!("{rule}, but no limit is specified or limit is 0"));
    };
    let observed = limit as f64 / request as f64;
    (observed > ratio.milli_value() as f64 / 1000.0).then(|| format!("{rule}, but provided ratio is {observed:.6}"))
}

/// What a pod asks for as a whole: containers run together, those that initialise one after the other.
fn total(spec: &Value) -> Value {
    let mut whole = Value::Object(Map::new());
    for of in ["requests", "limits"] {
        let mut sums: Vec<(String, Quantity)> = Vec::new();
        let mut peaks: Vec<(String, Quantity)> = Vec::new();
        for container in list(&spec["containers"]) {
            add(&mut sums, amounts(&container["resources"][of]));
        }
        for container in list(&spec["initContainers"]) {
            if container["restartPolicy"] == "Always" {
                add(&mut sums, amounts(&container["resources"][of]));
                continue;
            }
            for (name, amount) in amounts(&container["resources"][of]) {
                match peaks.iter_mut().find(|(other, _)| other == name) {
                    Some((_, peak)) if *peak >= amount => {}
                    Some((_, peak)) => *peak = amount,
                    None => peaks.push((name.clone(), amount)),
                }
            }
        }
        for (name, peak) in peaks {
            match sums.iter_mut().find(|(other, _)| *other == name) {
                Some((_, sum)) if *sum >= peak => {}
                Some((_, sum)) => *sum = peak,
                None => sums.push((name, peak)),
            }
        }
        whole[of] =
            sums.into_iter().map(|(name, sum)| (name, Value::from(sum.to_string()))).collect::<Map<_, _>>().into();
    }
    whole
}

fn add<'a>(sums: &mut Vec<(String, Quantity)>, more: impl Iterator<Item = (&'a String, Quantity)>) {
    for (name, amount) in more {
        match sums.iter_mut().find(|(other, _)| other == name) {
            Some((_, sum)) => *sum = sum.plus(&amount),
            None => sums.push((name.clone(), amount)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_container_does_not_ask_for_is_filled_in() {
        let range = json!({"spec": {"limits": [{
            "type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m", "memory": "64Mi"},
        }]}});
        let mut pod =
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "1"}}}]}});
        fill(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"],
            json!([
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "500m"}}},
                {"name": "b", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1"}}},
            ])
        );
        assert_eq!(
            pod["metadata"]["annotations"][NOTE],
            "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; cpu, memory request for \
             container b"
        );
    }

    #[test]
    fn refusals_read_as_upstreams() {
        let check = |item: Value, resources: Value| problems(&item, &resources).join("\n");
        let max = json!({"type": "Container", "max": {"cpu": "1"}});
        assert_eq!(check(max.clone(), json!({})), "maximum cpu usage per Container is 1.  No limit is specified");
        assert_eq!(check(max, json!({"limits": {"cpu": "2"}})), "maximum cpu usage per Container is 1, but limit is 2");
        let min = json!({"type": "Container", "min": {"memory": "1Gi"}});
        assert_eq!(
            check(min, json!({"requests": {"memory": "1Mi"}})),
            "minimum memory usage per Container is 1Gi, but request is 1Mi"
        );
        let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        assert_eq!(
            check(ratio, json!({"requests": {"cpu": "1"}, "limits": {"cpu": "3"}})),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000"
        );
        let pod = json!({"spec": {
            "containers": [{"resources": {"limits": {"cpu": "1"}}}, {"resources": {"limits": {"cpu": "1"}}}],
            "initContainers": [{"resources": {"limits": {"cpu": "1500m"}}}],
        }});
        let item = json!({"type": "Pod", "max": {"cpu": "1500m"}});
        assert_eq!(problems_of_pod(&item, &pod), ["maximum cpu usage per Pod is 1500m, but limit is 2"]);
    }
}
