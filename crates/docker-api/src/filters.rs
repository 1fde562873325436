//! The filters of lists and prunes: `{"label": {"a=b": true}}`, or a list of values as older clients send.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::error::{Answer, bad};
use crate::time;

/// What a list or a prune is limited to.
#[derive(Debug, Default)]
pub(crate) struct Filters(BTreeMap<String, BTreeSet<String>>);

impl Filters {
    /// Reads the `filters` parameter and refuses names other than `known`.
    pub fn read(text: Option<&str>, known: &[&str]) -> Answer<Self> {
        let mut filters = BTreeMap::new();
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let Ok(Value::Object(asked)) = serde_json::from_str(text) else {
            return Err(bad(format!("invalid filter {text:?}: it is not a JSON object")));
        };
        for (name, values) in asked {
            if !known.contains(&name.as_str()) {
                return Err(bad(format!("invalid filter '{name}'")));
            }
            let values: BTreeSet<String> = match values {
                Value::Object(values) => {
                    values.into_iter().filter(|(_, on)| on != false).map(|(value, _)| value).collect()
                }
                Value::Array(values) => values.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
                _ => return Err(bad(format!("invalid filter '{name}'"))),
            };
            if !values.is_empty() {
                filters.insert(name, values);
            }
        }
        Ok(Self(filters))
    }

    /// The values of a filter, if it is given.
    pub fn get(&self, name: &str) -> Option<&BTreeSet<String>> {
        self.0.get(name)
    }

    /// Whether a filter is absent or has a value that holds.
    pub fn any(&self, name: &str, mut holds: impl FnMut(&str) -> bool) -> bool {
        self.get(name).is_none_or(|values| values.iter().any(|value| holds(value)))
    }

    /// A filter that is yes or no.
    pub fn flag(&self, name: &str) -> Answer<Option<bool>> {
        let Some(values) = self.get(name) else { return Ok(None) };
        let mut answers = values.iter().map(|value| match value.to_ascii_lowercase().as_str() {
            "1" | "true" | "t" => Ok(true),
            "0" | "false" | "f" => Ok(false),
            _ => Err(bad(format!("invalid filter '{name}={value}'"))),
        });
        match (answers.next(), answers.next()) {
            (Some(one), None) => one.map(Some),
            _ => Err(bad(format!("invalid filter '{name}'"))),
        }
    }

    /// The moment of `until`: only what is older matches.
    pub fn until(&self, now: i64) -> Answer<Option<i64>> {
        let Some(values) = self.get("until") else { return Ok(None) };
        if values.len() > 1 {
            return Err(bad("more than one until filter specified"));
        }
        values.first().map(|word| time::moment(word, now)).transpose()
    }

    /// Whether labels satisfy every `label` and none of `label!`.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|own| own == value),
            None => labels.contains_key(wanted),
        };
        self.get("label").is_none_or(|all| all.iter().all(has))
            && self.get("label!").is_none_or(|all| !all.iter().any(has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Filters {
        Filters::read(Some(text), &["label", "label!", "until", "dangling"]).unwrap()
    }

    #[test]
    fn labels_are_all_asked_for_and_none_forbidden() {
        let labels: BTreeMap<String, String> = [("a", "1"), ("b", "")].map(|(k, v)| (k.into(), v.into())).into();
        assert!(read(r#"{"label":{"a=1":true,"b":true}}"#).labels(&labels));
        assert!(!read(r#"{"label":{"a=2":true}}"#).labels(&labels));
        assert!(!read(r#"{"label!":["a"]}"#).labels(&labels));
        assert!(read(r#"{"label!":["a=2","c"]}"#).labels(&labels));
        assert!(read("{}").labels(&labels));
    }

    #[test]
    fn what_is_not_a_filter_is_refused_by_name() {
        let refused = |text: &str| Filters::read(Some(text), &["label"]).unwrap_err().message;
        assert_eq!(refused(r#"{"colour":["red"]}"#), "invalid filter 'colour'");
        assert_eq!(refused("label=a"), "invalid filter \"label=a\": it is not a JSON object");
        assert_eq!(
            read(r#"{"dangling":["perhaps"]}"#).flag("dangling").unwrap_err().message,
            "invalid filter 'dangling=perhaps'"
        );
        assert_eq!(
            read(r#"{"until":["1h","2h"]}"#).until(0).unwrap_err().message,
            "more than one until filter specified"
        );
        assert_eq!(read(r#"{"until":["3s"]}"#).until(5_000_000_000).unwrap(), Some(2_000_000_000));
    }
}
