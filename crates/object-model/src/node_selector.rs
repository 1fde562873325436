//! Terms by which pods and volumes choose nodes: `nodeSelectorTerms` of affinities.

use serde_json::Value;

/// A term matches when all of its expressions do; one without any matches nothing (upstream's rule).
pub fn matches_term<'a>(term: &Value, name: &'a str, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    let labels = term["matchExpressions"].as_array();
    let fields = term["matchFields"].as_array();
    if labels.is_none_or(Vec::is_empty) && fields.is_none_or(Vec::is_empty) {
        return false;
    }
    let field = |key: &str| (key == "metadata.name").then_some(name);
    labels.into_iter().flatten().all(|e| matches_expression(e, &label))
        && fields.into_iter().flatten().all(|e| matches_expression(e, field))
}

fn matches_expression<'a>(expression: &Value, get: impl Fn(&str) -> Option<&'a str>) -> bool {
    let value = get(expression["key"].as_str().unwrap_or_default());
    let values = || expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let numbers = || Some((value?.parse::<i64>().ok()?, values().next()?.parse::<i64>().ok()?));
    match expression["operator"].as_str().unwrap_or_default() {
        "In" => value.is_some_and(|v| values().any(|x| x == v)),
        "NotIn" => value.is_none_or(|v| values().all(|x| x != v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => numbers().is_some_and(|(a, b)| a > b),
        "Lt" => numbers().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_term_matches_by_labels_and_by_name() {
        let label = |key: &str| (key == "zone").then_some("a");
        let matches = |term: Value| matches_term(&term, "node-1", label);
        assert!(matches(json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]})));
        assert!(matches(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]})));
        assert!(!matches(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-2"]}]})));
        assert!(!matches(json!({})), "a term without expressions matches nothing");
    }
}
