//! Who manages which fields of an object (`metadata.managedFields`), and server-side apply.
//!
//! Fields are followed from the creation of an object on. One that has no managers, because somebody took them off, is
//! followed again from the next apply on, whose manager shares it with `before-first-apply` (upstream's rules).

use std::borrow::Cow;

use jiff::Timestamp;
use object_model::{ApiError, FieldError, FieldPath, Reason, meta, time};
use schema::fields::{self, FieldSet, Place};
use serde_json::{Value, json};

use crate::context::Context;
use crate::stored;

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";
/// How many managers an object keeps beside those who apply, and who gets what the oldest beyond had (upstream's choice).
const UPDATERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";
/// The longest name of a manager, in bytes.
const NAME_MAX: usize = 128;
/// Fields of metadata that nobody manages: the server writes them (upstream's strip set).
const UNMANAGED: [&str; 9] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
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
        set.remove(&["f:apiVersion"]);
        set.remove(&["f:kind"]);
        for field in UNMANAGED {
            set.remove(&["f:metadata", field]);
        }
        if self.subresource == "status" {
            set.keep_only("f:status");
        } else if self.has_status {
            set.remove(&["f:status"]);
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

    fn into_value(self) -> Value {
        let texts = [
            ("manager", self.name),
            ("operation", self.operation),
            ("apiVersion", self.api_version),
            ("time", self.time),
            ("fieldsType", "FieldsV1".to_owned()),
            ("subresource", self.subresource),
        ];
        let told = |(field, text): (&str, String)| {
            // A name may be empty, a time or a subresource is there or not.
            let left_out = text.is_empty() && matches!(field, "time" | "subresource");
            (!left_out).then(|| (field.to_owned(), text.into()))
        };
        let mut entry: serde_json::Map<String, Value> = texts.into_iter().filter_map(told).collect();
        entry.insert("fieldsV1".to_owned(), self.set.into_json());
        Value::Object(entry)
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
    let entries: Vec<Value> = managers.into_iter().map(Manager::into_value).collect();
    meta::set(object, "managedFields", if entries.is_empty() { Value::Null } else { entries.into() });
}

/// The managers as they are written in an object.
pub fn noted(object: &Value) -> Value {
    object["metadata"].get("managedFields").cloned().unwrap_or(Value::Null)
}

/// Takes back what somebody has made of the managers of an object, if it cannot be read.
pub fn restore_if_broken(object: &mut Value, noted: Value, cx: &Context) {
    if let Err(why) = managers_of(object) {
        meta::set(object, "managedFields", noted);
        cx.warn(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating \
             admission controller; please fix your requests: {why}"
        ));
    }
}

/// Notes a write that was no apply; of a new object, where `current` is null. `object` is the new state, in which the writer
/// may have set the managers itself, though not through a subresource.
pub fn track(writer: &Writer<'_>, place: Place<'_>, current: &Value, object: &mut Value) {
    let given = object["metadata"]["managedFields"].as_array();
    let given = given.filter(|list| !list.is_empty() && writer.subresource.is_empty());
    let managers = match given.map(|list| (list.as_slice(), managers_of(object))) {
        // One empty entry says that there shall be none.
        Some(([entry], _)) if entry.as_object().is_some_and(serde_json::Map::is_empty) => Vec::new(),
        Some((_, Ok(managers))) => managers,
        // What cannot be read is not taken: then those that were there stay.
        _ => managers_of(current).unwrap_or_default(),
    };
    if managers.is_empty() && !current.is_null() {
        meta::set(object, "managedFields", Value::Null);
        return;
    }
    let difference = fields::compare(place, current, object);
    let (changed, removed) = (writer.own(difference.changed), writer.own(difference.removed));
    if managers.is_empty() {
        return set_managers(object, vec![writer.manager(UPDATE, changed)]);
    }
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
    kept.retain(|manager| !manager.set.is_empty());
    set_managers(object, capped(kept));
}

/// At most so many updaters: the oldest of those of one version become one.
fn capped(managers: Vec<Manager>) -> Vec<Manager> {
    let (mut updaters, mut kept): (Vec<_>, Vec<_>) = managers.into_iter().partition(|m| m.operation == UPDATE);
    updaters.sort_by(|a, b| (&a.time, &a.name, &a.subresource).cmp(&(&b.time, &b.name, &b.subresource)));
    let mut left = updaters.len();
    let mut merged: Vec<Manager> = Vec::new();
    for manager in updaters {
        let bucket = merged.iter_mut().find(|m| m.api_version == manager.api_version).filter(|_| left > UPDATERS_MAX);
        let Some(bucket) = bucket else {
            merged.push(manager);
            continue;
        };
        bucket.name = ANCIENT.to_owned();
        bucket.subresource.clear();
        bucket.set.unite(&manager.set);
        bucket.time = manager.time;
        left -= 1;
    }
    kept.extend(merged);
    kept
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

/// The manager that a request names, or that its client is: what comes before the first slash. `options` is what upstream
/// calls the options of the request.
///
/// # Errors
/// 422 for an apply that names none, and for a name that is too long or cannot be printed.
pub fn name_of<'a>(asked: &'a str, user_agent: &str, options: &str, apply: bool) -> Result<Cow<'a, str>, ApiError> {
    let path = FieldPath::new("fieldManager");
    let mut errors = Vec::new();
    if asked.len() > NAME_MAX {
        errors.push(FieldError::too_long(&path, NAME_MAX));
    }
    for (at, odd) in asked.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let text = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
        errors.push(FieldError::invalid(&path, asked, text));
    }
    if apply && asked.is_empty() {
        errors.push(FieldError::required(&path, "is required for apply patch"));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid("meta.k8s.io", options, "", &errors));
    }
    if !asked.is_empty() {
        return Ok(asked.into());
    }
    let mut client = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable(*c)) {
        if client.len() + c.len_utf8() > NAME_MAX {
            break;
        }
        client.push(c);
    }
    Ok(if client.is_empty() { "unknown".into() } else { client.into() })
}

/// Whether it leaves ink, or is the plain space.
fn is_printable(c: char) -> bool {
    matches!(c, '\'' | '"' | '\\') || c.escape_debug().len() == 1
}

/// Takes back the times of a write that has changed nothing else: what came empty and is not kept, say.
pub fn keep_times(object: &mut Value, current: &Value) {
    fn entries(object: &Value) -> &[Value] {
        object["metadata"]["managedFields"].as_array().map_or(&[], Vec::as_slice)
    }
    let (new, old) = (entries(object), entries(current));
    let alike = |new: &Value, old: &Value| {
        let told = |entry: &Value| entry.as_object().map_or(0, |fields| fields.len());
        let fields = new.as_object().into_iter().flatten();
        told(new) == told(old) && fields.into_iter().all(|(field, value)| field == "time" || old[field] == *value)
    };
    if new == old || new.len() != old.len() || !new.iter().zip(old).all(|(new, old)| alike(new, old)) {
        return;
    }
    let old = current["metadata"]["managedFields"].clone();
    let new = std::mem::replace(&mut object["metadata"]["managedFields"], old);
    if !stored::same(object, current) {
        object["metadata"]["managedFields"] = new;
    }
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

    #[test]
    fn who_creates_an_object_manages_what_it_sets() {
        let mut object = image("1");
        object["metadata"]["labels"] = json!({"a": "b"});
        object["status"] = json!({"replicas": 1});
        track(&writer("kubectl-create", ""), ty(), &Value::Null, &mut object);
        let entry = &object["metadata"]["managedFields"][0];
        assert_eq!((&entry["manager"], &entry["operation"]), (&json!("kubectl-create"), &json!("Update")));
        let containers = json!({"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}}});
        assert_eq!(
            entry["fieldsV1"],
            json!({
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": containers}}},
            })
        );
        // Nothing has changed, so nothing is touched, whoever writes.
        let mut same = object.clone();
        track(&writer("other", ""), ty(), &object, &mut same);
        assert_eq!(same, object);
        // An empty list keeps the managers, one empty entry takes them off.
        same["metadata"]["managedFields"] = json!([]);
        track(&writer("other", ""), ty(), &object, &mut same);
        assert_eq!(same, object);
        same["metadata"]["managedFields"] = json!([{}]);
        track(&writer("other", ""), ty(), &object, &mut same);
        assert_eq!(owners(&same), [""; 0]);
    }

    #[test]
    fn the_oldest_of_many_updaters_become_one() {
        let mut object = image("1");
        track(&writer("m00", ""), ty(), &Value::Null, &mut object);
        for number in 1..=11 {
            let current = object.clone();
            object["metadata"]["labels"][format!("l{number}")] = "x".into();
            let writer = Writer { now: writer("", "").now + jiff::Span::new().seconds(number), ..writer("", "") };
            track(&Writer { name: &format!("m{number:02}"), ..writer }, ty(), &current, &mut object);
        }
        let owners = owners(&object);
        assert_eq!(owners.len(), 10);
        assert!(owners[0].starts_with("ancient-changes Update: ") && owners[0].contains(".metadata.labels.l2"));
        assert!(owners[1].starts_with("m03 Update"), "{owners:?}");
        assert_eq!(object["metadata"]["managedFields"][0]["time"], "2026-01-01T00:00:02Z");
    }

    #[test]
    fn a_managers_name_is_short_and_can_be_printed() {
        let name = |asked: &'static str, agent: &str| name_of(asked, agent, "CreateOptions", false);
        assert_eq!(name("", "kubectl/v1.37 (linux)").expect("a name"), "kubectl");
        assert_eq!(name("me", "kubectl/v1.37").expect("a name"), "me");
        assert_eq!(name("", "").expect("a name"), "unknown");
        assert_eq!(name("", &"x".repeat(200)).expect("a name").len(), 128);
        let error = name("a\u{7}", "").unwrap_err();
        assert_eq!(error.code, 422);
        assert!(error.message.contains("invalid character U+0007 (at position 1)"), "{}", error.message);
        let long = name_of(&"x".repeat(129), "", "CreateOptions", false).unwrap_err();
        assert!(long.message.contains("may not be more than 128 bytes"), "{}", long.message);
        assert_eq!(name_of("", "kubectl/v1.37", "PatchOptions", true).unwrap_err().code, 422);
    }

    #[test]
    fn a_write_that_changes_nothing_keeps_the_time_of_the_last_one() {
        let object = |time: &str, size: i64| json!({"metadata": {"managedFields": [{"manager": "m", "time": time}]}, "spec": size});
        let mut same = object("2", 1);
        keep_times(&mut same, &object("1", 1));
        assert_eq!(same, object("1", 1));
        let mut other = object("2", 2);
        keep_times(&mut other, &object("1", 1));
        assert_eq!(other, object("2", 2));
    }
}
