//! Who manages which fields of an object (`metadata.managedFields`), and server-side apply.
//!
//! Fields are followed from the first apply on: before it an object has no managers, and the first one to apply shares it
//! with `before-first-apply`, which holds what was there (upstream's rule for objects without managers).

use jiff::Timestamp;
use object_model::{ApiError, FieldError, FieldPath, Reason, meta, time};
use schema::fields::{self, FieldSet, Place};
use serde_json::{Value, json};

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
/// Fields of metadata that nobody manages: the server writes them (upstream's strip set).
const UNMANAGED: [&str; 9] = [
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
struct Manager {
    name: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    set: FieldSet,
}

/// Who writes, what and when.
pub struct Writer<'a> {
    /// The name of the manager.
    pub name: &'a str,
    /// The `apiVersion` written in.
    pub api_version: &'a str,
    /// The subresource written through, empty for the object itself.
    pub subresource: &'a str,
    /// Whether the kind has a status, which only its subresource writes.
    pub has_status: bool,
    /// Now.
    pub now: Timestamp,
}

impl Writer<'_> {
    /// The fields that a write of this kind can own.
    fn own(&self, mut set: FieldSet) -> FieldSet {
        set.remove(&["apiVersion"]);
        set.remove(&["kind"]);
        for field in UNMANAGED {
            set.remove(&["metadata", field]);
        }
        if self.subresource == "status" {
            set.keep_only("status");
        } else if self.has_status {
            set.remove(&["status"]);
        }
        set
    }

    fn is(&self, manager: &Manager, operation: &str) -> bool {
        manager.operation == operation
            && manager.name == self.name
            && manager.subresource == self.subresource
            && manager.api_version == self.api_version
    }

    fn manager(&self, operation: &str, set: FieldSet) -> Manager {
        Manager {
            name: self.name.to_owned(),
            operation: operation.to_owned(),
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: time::seconds(self.now),
            set,
        }
    }
}

impl Manager {
    fn of(entry: &Value) -> Result<Self, String> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            name: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            set: FieldSet::from_json(&entry["fieldsV1"])?,
        })
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.name, "operation": self.operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.set.to_json(),
        });
        if !self.time.is_empty() {
            entry["time"] = self.time.as_str().into();
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = self.subresource.as_str().into();
        }
        entry
    }

    /// As conflicts name it.
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            shown.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == UPDATE {
            shown.push_str(&format!(" using {} at {}", self.api_version, self.time));
        }
        shown
    }
}

/// The managers of an object.
fn managers_of(object: &Value) -> Result<Vec<Manager>, String> {
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.map(Manager::of).collect()
}

fn set_managers(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|manager| !manager.set.is_empty());
    managers.sort_by(|a, b| {
        (&a.operation, &a.time, &a.name, &a.subresource).cmp(&(&b.operation, &b.time, &b.name, &b.subresource))
    });
    let entries: Vec<Value> = managers.iter().map(Manager::to_value).collect();
    meta::set(object, "managedFields", if entries.is_empty() { Value::Null } else { entries.into() });
}

/// Notes a write that was no apply. `object` is the new state, in which the writer may have set the managers itself.
pub fn track(writer: &Writer<'_>, place: Place<'_>, current: &Value, object: &mut Value) {
    let given = object["metadata"]["managedFields"].as_array().filter(|list| !list.is_empty());
    let managers = match given.map(|list| (list.as_slice(), managers_of(object))) {
        // One empty entry says that there shall be none.
        Some(([entry], _)) if entry.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
        Some((_, Ok(managers))) => managers,
        // What cannot be read is not taken: then those that were there stay.
        _ => managers_of(current).unwrap_or_default(),
    };
    if managers.is_empty() {
        meta::set(object, "managedFields", Value::Null);
        return;
    }
    let difference = fields::compare(place, current, object);
    let (changed, removed) = (writer.own(difference.changed), writer.own(difference.removed));
    let mut kept = Vec::new();
    let mut own = FieldSet::default();
    let mut before = None;
    for mut manager in managers {
        if writer.is(&manager, UPDATE) {
            own = manager.set.clone();
            before = Some(manager);
            continue;
        }
        manager.set.subtract(&changed);
        manager.set.subtract(&removed);
        kept.push(manager);
    }
    own.unite(&changed);
    own.subtract(&removed);
    kept.push(match before {
        Some(before) if before.set == own => before,
        _ => writer.manager(UPDATE, own),
    });
    set_managers(object, kept);
}

/// What an apply makes of an object; of none, where `current` is empty. The result carries its managers.
///
/// # Errors
/// 409 when another manager has other values for what the configuration says, and `force` is not given; 400 when the
/// configuration or the object cannot be read.
pub fn apply(
    writer: &Writer<'_>,
    place: Place<'_>,
    current: &Value,
    configuration: &Value,
    force: bool,
) -> Result<Value, ApiError> {
    let exists = current.as_object().is_some_and(|object| !object.is_empty());
    let mut managers = managers_of(current).map_err(ApiError::internal)?;
    if exists && managers.is_empty() {
        let mut before = Writer { name: "before-first-apply", subresource: "", has_status: false, ..*writer }
            .manager(UPDATE, FieldSet::default());
        before.set = Writer { subresource: "", has_status: false, ..*writer }.own(FieldSet::of(place, current));
        managers.push(before);
    }
    let mut configuration = configuration.clone();
    if let Some(metadata) = configuration.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let set = writer.own(FieldSet::of(place, &configuration));
    let base = if exists { current.clone() } else { json!({}) };
    let mut merged = fields::merge_configuration(place, &base, &configuration);
    let last = managers.iter().position(|manager| writer.is(manager, APPLY)).map(|at| managers.remove(at));
    if let Some(last) = &last {
        let mut kept = set.clone();
        managers.iter().for_each(|manager| kept.unite(&manager.set));
        fields::prune(place, &mut merged, &last.set, &kept);
    }
    let difference = fields::compare(place, &base, &merged);
    let (changed, removed) = (writer.own(difference.changed), writer.own(difference.removed));
    let conflicts: Vec<(String, Vec<String>)> = managers
        .iter()
        .map(|manager| (manager.shown(), manager.set.intersection(&changed).paths()))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    if !force && !conflicts.is_empty() {
        return Err(conflict(&conflicts));
    }
    for manager in &mut managers {
        manager.set.subtract(&changed);
        manager.set.subtract(&removed);
    }
    managers.push(match last {
        Some(last) if last.set == set && changed.is_empty() && removed.is_empty() => last,
        _ => writer.manager(APPLY, set),
    });
    set_managers(&mut merged, managers);
    Ok(merged)
}

fn conflict(conflicts: &[(String, Vec<String>)]) -> ApiError {
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let text = match conflicts {
        [(manager, paths)] if paths.len() == 1 => {
            format!("Apply failed with 1 conflict: conflict with {manager}: {}", paths[0])
        }
        _ => {
            let lines = conflicts.iter().flat_map(|(manager, paths)| {
                std::iter::once(format!("conflicts with {manager}:"))
                    .chain(paths.iter().map(|path| format!("- {path}")))
            });
            format!("Apply failed with {count} conflicts: {}", lines.collect::<Vec<_>>().join("\n"))
        }
    };
    let mut error = ApiError::new(Reason::Conflict, text);
    for (manager, paths) in conflicts {
        for path in paths {
            error = error.cause_at("FieldManagerConflict", &format!("conflict with {manager}"), path);
        }
    }
    error
}

/// The manager that a request names, or that its client is.
///
/// # Errors
/// 422 for an apply that names none.
pub fn name_of<'a>(asked: &'a str, user_agent: &'a str, apply: bool) -> Result<&'a str, ApiError> {
    if !asked.is_empty() {
        return Ok(asked);
    }
    if apply {
        let error = FieldError::required(&FieldPath::new("fieldManager"), "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", "PatchOptions", "", &[error]));
    }
    let client = user_agent.split('/').next().unwrap_or_default();
    Ok(if client.is_empty() { "unknown" } else { client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty() -> Place<'static> {
        schema::type_named("apps.v1.Deployment").expect("a type").into()
    }

    fn writer<'a>(name: &'a str, subresource: &'a str) -> Writer<'a> {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        Writer { name, api_version: "apps/v1", subresource, has_status: true, now }
    }

    fn image(image: &str) -> Value {
        json!({
            "metadata": {"name": "d"},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}},
        })
    }

    fn owners(object: &Value) -> Vec<String> {
        let managers = managers_of(object).expect("managers");
        managers.iter().map(|m| format!("{} {}: {}", m.name, m.operation, m.set.paths().join(" "))).collect()
    }

    #[test]
    fn two_managers_of_one_field_conflict_unless_they_agree_or_one_insists() {
        let made = apply(&writer("a", ""), ty(), &json!({}), &image("1"), false).expect("applied");
        let same = json!({"spec": {"replicas": 2}});
        let shared = apply(&writer("b", ""), ty(), &made, &same, false).expect("they agree");
        assert_eq!(owners(&shared)[1], "b Apply: .spec.replicas");
        let other = json!({"spec": {"replicas": 3}});
        let error = apply(&writer("c", ""), ty(), &made, &other, false).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (409, "Apply failed with 1 conflict: conflict with \"a\": .spec.replicas")
        );
        let forced = apply(&writer("c", ""), ty(), &made, &other, true).expect("forced");
        assert_eq!(forced["spec"]["replicas"], 3);
        assert!(!owners(&forced)[0].contains("replicas"), "{:?}", owners(&forced));
    }

    #[test]
    fn what_a_manager_drops_goes_unless_somebody_else_has_it() {
        let made = apply(&writer("a", ""), ty(), &json!({}), &image("1"), false).expect("applied");
        let shared = apply(&writer("b", ""), ty(), &made, &json!({"spec": {"replicas": 2}}), false).expect("applied");
        let dropped =
            json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        let object = apply(&writer("a", ""), ty(), &shared, &dropped, false).expect("applied");
        assert_eq!(object["spec"], json!({"replicas": 2, "template": {"spec": {"containers": [{"name": "c"}]}}}));
        let object = apply(&writer("b", ""), ty(), &object, &json!({"spec": {}}), false).expect("applied");
        assert_eq!(object["spec"].get("replicas"), None);
    }

    #[test]
    fn a_write_takes_what_it_changes_and_applying_again_changes_nothing() {
        let made = apply(&writer("a", ""), ty(), &json!({}), &image("1"), false).expect("applied");
        assert_eq!(apply(&writer("a", ""), ty(), &made, &image("1"), false), Ok(made.clone()));
        let mut scaled = made.clone();
        scaled["spec"]["replicas"] = 5.into();
        scaled["status"] = json!({"replicas": 5});
        track(&writer("kubectl", ""), ty(), &made, &mut scaled);
        assert_eq!(owners(&scaled)[1], "kubectl Update: .spec.replicas");
        let error = apply(&writer("a", ""), ty(), &scaled, &image("1"), false).unwrap_err();
        assert_eq!(
            error.message,
            "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1 at 2026-01-01T00:00:00Z: .spec.replicas"
        );
        let mut status = scaled.clone();
        status["status"]["replicas"] = 4.into();
        track(&writer("manager", "status"), ty(), &scaled, &mut status);
        assert!(owners(&status).contains(&"manager Update: .status.replicas".to_owned()), "{:?}", owners(&status));
        // One without managers is not followed; with the first apply it is.
        let mut plain = image("1");
        track(&writer("kubectl", ""), ty(), &json!({}), &mut plain);
        assert_eq!(owners(&plain), [""; 0]);
        let error = apply(&writer("a", ""), ty(), &plain, &image("2"), false).unwrap_err();
        assert!(error.message.contains("conflict with \"before-first-apply\" using apps/v1"), "{}", error.message);
    }
}
