//! What a Job makes of the end of a pod: its `podFailurePolicy` and `successPolicy`.

use std::collections::BTreeSet;

use kinds::indexes;
use object_model::meta;
use serde_json::Value;

/// What the failure of one pod means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// One failure more.
    Count,
    /// Nothing.
    Ignore,
    /// The index has failed for good.
    FailIndex,
    /// The job has failed, with this message.
    FailJob(String),
}

/// Applies the first rule that matches a failed pod.
pub(crate) fn failure(policy: &Value, pod: &Value) -> Verdict {
    for (number, rule) in policy["rules"].as_array().into_iter().flatten().enumerate() {
        let Some(what) = matched(rule, pod) else { continue };
        return match rule["action"].as_str() {
            Some("Ignore") => Verdict::Ignore,
            Some("FailIndex") => Verdict::FailIndex,
            Some("FailJob") => Verdict::FailJob(format!("{what} matching FailJob rule at index {number}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

/// What about the pod matches the rule, in upstream's words.
fn matched(rule: &Value, pod: &Value) -> Option<String> {
    let full = format!("{}/{}", meta::namespace(pod), meta::name(pod));
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    if let Some(codes) = rule.get("onExitCodes").filter(|codes| codes.is_object()) {
        let values = list(&codes["values"]);
        let inside = codes["operator"] == "In";
        for status in ["containerStatuses", "initContainerStatuses"].iter().flat_map(|f| list(&pod["status"][*f])) {
            let named = codes["containerName"].as_str().is_none_or(|name| status["name"] == name);
            let code = &status["state"]["terminated"]["exitCode"];
            if named && code.as_i64().is_some_and(|code| code != 0) && values.contains(code) == inside {
                let name = status["name"].as_str().unwrap_or_default();
                return Some(format!("Container {name} for pod {full} failed with exit code {code}"));
            }
        }
        return None;
    }
    for pattern in list(&rule["onPodConditions"]) {
        let wanted = pattern["status"].as_str().unwrap_or("True");
        let held = list(&pod["status"]["conditions"]);
        if held.iter().any(|c| c["type"] == pattern["type"] && c["status"] == wanted) {
            let kind = pattern["type"].as_str().unwrap_or_default();
            return Some(format!("Pod {full} has condition {kind}"));
        }
    }
    None
}

/// Whether the indexes that succeeded satisfy one of the rules.
pub(crate) fn succeeds(policy: &Value, completed: &BTreeSet<i64>, completions: i64) -> bool {
    policy["rules"].as_array().into_iter().flatten().any(|rule| {
        let of = rule["succeededIndexes"].as_str().and_then(|text| indexes::parse(text, completions));
        let (met, all) = match &of {
            Some(wanted) => (wanted.intersection(completed).count(), wanted.len()),
            None => (completed.len(), usize::MAX),
        };
        let needed = rule["succeededCount"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(all);
        met >= needed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_rule_that_matches_says_what_a_failure_means() {
        let policy = json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [42]}},
        ]});
        let pod = |code: i64, disrupted: bool| {
            json!({"metadata": {"name": "p", "namespace": "a"}, "status": {
                "conditions": if disrupted { json!([{"type": "DisruptionTarget", "status": "True"}]) } else { json!([]) },
                "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": code}}}]}})
        };
        assert_eq!(failure(&policy, &pod(42, true)), Verdict::Ignore);
        assert_eq!(failure(&policy, &pod(1, false)), Verdict::Count);
        let message = "Container main for pod a/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(failure(&policy, &pod(42, false)), Verdict::FailJob(message.to_owned()));
    }

    #[test]
    fn enough_of_the_right_indexes_are_a_success() {
        let rule = |text: Option<&str>, count: Option<i64>| json!({"rules": [{"succeededIndexes": text, "succeededCount": count}]});
        let done = BTreeSet::from([0, 2]);
        assert!(succeeds(&rule(Some("0,2"), None), &done, 5));
        assert!(!succeeds(&rule(Some("0-2"), None), &done, 5));
        assert!(succeeds(&rule(Some("0-2"), Some(2)), &done, 5));
        assert!(succeeds(&rule(None, Some(2)), &done, 5));
        assert!(!succeeds(&Value::Null, &done, 5));
    }
}
