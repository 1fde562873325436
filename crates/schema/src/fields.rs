//! Sets of fields, as `metadata.managedFields` names them, and what server-side apply does with them: which fields an
//! object sets, what two versions of it differ in, how a configuration is merged into an object, and what is taken out
//! again. After upstream's structured merge: structs and maps are merged by key, lists as their type says.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde_json::{Map, Value};

use crate::structural::Kind;
use crate::{Field, Shape, Structural, Type, type_named};

/// A set of fields: a tree whose edges are path elements in the notation of `FieldsV1`: `f:name` of an object, `k:{…}` by
/// the keys of a list element, `v:…` by its value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path to here is itself in the set.
    member: bool,
    children: BTreeMap<String, FieldSet>,
}

/// What two versions of an object differ in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields that are new or have another value.
    pub changed: FieldSet,
    /// Fields that are gone.
    pub removed: FieldSet,
}

/// A place in objects: what is known of the values there.
#[derive(Debug, Clone, Copy)]
pub enum Place<'s> {
    /// A type of the table, and the field that holds it.
    Typed(&'static Type, Option<&'static Field>),
    /// A node of a definition's schema.
    Custom(&'s Structural),
    /// A whole object that a definition describes.
    Whole(&'s Structural),
    /// Nothing: objects are merged by key, all else is replaced.
    Unknown,
}

impl From<&'static Type> for Place<'_> {
    fn from(ty: &'static Type) -> Self {
        Self::Typed(ty, None)
    }
}

/// How values of a place are merged.
enum Relation<'s> {
    /// As a whole.
    Leaf,
    /// By the fields of a struct.
    Struct,
    /// By key.
    Map(Place<'s>),
    /// A list in which a value is there or not.
    Set,
    /// A list whose elements are told apart by these fields.
    Keyed(Place<'s>, Vec<&'s str>),
}

fn relation(place: Place<'_>) -> Relation<'_> {
    match place {
        Place::Typed(ty, field) => relation_of_type(ty, field),
        Place::Whole(_) => Relation::Struct,
        Place::Custom(schema) => {
            let atomic = schema.map_type.as_deref() == Some("atomic");
            match (schema.kind, schema.list_type.as_deref()) {
                (Kind::Object, _) if atomic => Relation::Leaf,
                (Kind::Object, _) => Relation::Struct,
                (Kind::Array, Some("set")) => Relation::Set,
                (Kind::Array, Some("map")) => match schema.items.as_deref() {
                    Some(items) => {
                        Relation::Keyed(Place::Custom(items), schema.list_map_keys.iter().map(String::as_str).collect())
                    }
                    None => Relation::Leaf,
                },
                (Kind::Any, _) if !atomic && !schema.int_or_string => Relation::Map(Place::Unknown),
                _ => Relation::Leaf,
            }
        }
        Place::Unknown => Relation::Map(Place::Unknown),
    }
}

fn relation_of_type(ty: &'static Type, field: Option<&'static Field>) -> Relation<'static> {
    let atomic_map = field.is_some_and(|f| f.map_type == Some("atomic"));
    match ty.shape() {
        Shape::Struct(fields) if !fields.atomic && !atomic_map => Relation::Struct,
        Shape::Map(value) if !atomic_map => Relation::Map(Place::Typed(value, None)),
        Shape::List(element) => match field.and_then(|f| f.list_type) {
            Some("set") => Relation::Set,
            Some("map") => {
                Relation::Keyed(Place::Typed(element, None), field.map_or(Vec::new(), |f| f.list_map_keys.clone()))
            }
            _ => Relation::Leaf,
        },
        _ => Relation::Leaf,
    }
}

/// The place of a member of an object at a place with this relation; `None` where none is known.
fn member<'s>(place: Place<'s>, relation: &Relation<'s>, name: &str) -> Option<Place<'s>> {
    match (relation, place) {
        (Relation::Map(value), _) => Some(*value),
        (Relation::Struct, Place::Typed(ty, _)) => ty.field(name).map(|field| Place::Typed(field.ty, Some(field))),
        (Relation::Struct, Place::Whole(_)) if name == "metadata" => type_named("meta.v1.ObjectMeta").map(Place::from),
        (Relation::Struct, Place::Whole(schema) | Place::Custom(schema)) => Some(match schema.member(name) {
            Some(inner) if inner.embedded => Place::Whole(inner),
            Some(inner) => Place::Custom(inner),
            None => Place::Unknown,
        }),
        _ => None,
    }
}

/// The default of a field by which elements are told apart.
fn key_default(element: Place<'_>, key: &str) -> Option<Value> {
    match element {
        Place::Typed(ty, _) => ty.field(key).and_then(|field| serde_json::from_str(field.default?).ok()),
        Place::Custom(schema) | Place::Whole(schema) => schema.properties.get(key)?.default.clone(),
        Place::Unknown => None,
    }
}

/// The path element of a list element by its keys. A key that is left out counts with its default.
fn key_of(element: Place<'_>, keys: &[&str], item: &Value) -> Option<String> {
    let mut parts = BTreeMap::new();
    for key in keys {
        let value = match item.get(*key).filter(|value| !value.is_null()) {
            Some(value) => Some(value.clone()),
            None => key_default(element, key),
        };
        parts.extend(value.map(|value| (*key, value)));
    }
    if parts.is_empty() { None } else { serde_json::to_string(&parts).ok().map(|text| format!("k:{text}")) }
}

/// The elements of a list, each with its path element.
fn elements<'a>(relation: &Relation<'_>, list: &'a [Value]) -> Vec<(String, &'a Value)> {
    list.iter()
        .enumerate()
        .map(|(index, item)| {
            let key = match relation {
                Relation::Keyed(element, keys) => key_of(*element, keys, item),
                _ => Some(format!("v:{item}")),
            };
            (key.unwrap_or_else(|| format!("i:{index}")), item)
        })
        .collect()
}

fn element_place<'s>(relation: &Relation<'s>) -> Option<Place<'s>> {
    match relation {
        Relation::Keyed(element, _) => Some(*element),
        _ => None,
    }
}

impl FieldSet {
    /// The fields that an object sets.
    pub fn of<'s>(place: impl Into<Place<'s>>, object: &Value) -> Self {
        let mut set = Self::default();
        set.add(place.into(), object, false);
        set
    }

    /// Adds what a value sets; where it is `new` as a whole, with the structs, maps and lists on the way.
    fn add(&mut self, place: Place<'_>, value: &Value, new: bool) {
        let relation = relation(place);
        match (&relation, value) {
            (Relation::Struct | Relation::Map(_), Value::Object(object)) => {
                for (name, value) in object {
                    let child = self.child(field_element(name));
                    match member(place, &relation, name) {
                        Some(place) => child.add(place, value, new),
                        None => child.member = true,
                    }
                    let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    if new || empty || matches!(relation, Relation::Map(_)) {
                        child.member = true;
                    }
                }
            }
            (Relation::Set | Relation::Keyed(..), Value::Array(list)) => {
                for (key, item) in elements(&relation, list) {
                    let child = self.child(key);
                    child.member = true;
                    if let Some(element) = element_place(&relation) {
                        child.add(element, item, new);
                    }
                }
            }
            _ => self.member = true,
        }
    }

    fn child(&mut self, element: String) -> &mut Self {
        self.children.entry(element).or_default()
    }

    /// Reads `fieldsV1`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let mut set = Self::default();
        let object = value.as_object().ok_or_else(|| format!("fieldsV1 is an object, not {value}"))?;
        for (key, value) in object {
            if key == "." {
                set.member = true;
            } else if ["f:", "k:", "v:", "i:"].iter().any(|kind| key.starts_with(kind)) {
                let mut child = Self::from_json(value)?;
                // A path that leads nowhere further is in the set.
                child.member |= child.children.is_empty();
                set.children.insert(key.clone(), child);
            } else {
                return Err(format!("{key:?} is no path element of fieldsV1"));
            }
        }
        Ok(set)
    }

    /// Writes `fieldsV1`.
    pub fn into_json(self) -> Value {
        let own = (self.member && !self.children.is_empty()).then(|| (".".to_owned(), Value::Object(Map::new())));
        let children = self.children.into_iter().map(|(key, child)| (key, child.into_json()));
        Value::Object(own.into_iter().chain(children).collect())
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Takes in all of another set.
    pub fn unite(&mut self, other: &Self) {
        self.member |= other.member;
        for (key, child) in &other.children {
            self.child(key.clone()).unite(child);
        }
    }

    /// Takes out all that another set holds.
    pub fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (key, theirs) in &other.children {
            if let Some(own) = self.children.get_mut(key) {
                own.subtract(theirs);
                if own.is_empty() {
                    self.children.remove(key);
                }
            }
        }
    }

    /// What both sets hold.
    pub fn intersection(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(key, own)| {
            let both = own.intersection(other.children.get(key)?);
            (!both.is_empty()).then(|| (key.clone(), both))
        });
        Self { member: self.member && other.member, children: children.collect() }
    }

    /// Takes out a path of elements (`f:spec`, `f:replicas`), with all below it.
    pub fn remove(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.children.remove(*first);
        } else if let Some(child) = self.children.get_mut(*first) {
            child.remove(rest);
            if child.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    /// Keeps only one element (`f:status`), with all below it.
    pub fn keep_only(&mut self, element: &str) {
        self.children.retain(|key, _| key == element);
    }

    /// All paths in it, as people read them: `.spec.template.spec.containers[name="web"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect("", &mut paths);
        paths
    }

    fn collect(&self, prefix: &str, paths: &mut Vec<String>) {
        if self.member {
            paths.push(prefix.to_owned());
        }
        for (key, child) in &self.children {
            child.collect(&format!("{prefix}{}", Element(key)), paths);
        }
    }
}

/// A path element as people read it.
struct Element<'a>(&'a str);

impl fmt::Display for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = self.0.split_once(':').unwrap_or(("f", self.0));
        match kind {
            "f" => write!(f, ".{text}"),
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            "v" => write!(f, "[={text}]"),
            _ => write!(f, "[{text}]"),
        }
    }
}

/// What `new` differs from `old` in.
pub fn compare<'s>(place: impl Into<Place<'s>>, old: &Value, new: &Value) -> Difference {
    let mut difference = Difference::default();
    difference_of(place.into(), old, new, &mut difference.changed, &mut difference.removed);
    difference
}

fn difference_of(place: Place<'_>, old: &Value, new: &Value, changed: &mut FieldSet, removed: &mut FieldSet) {
    if old == new {
        return;
    }
    let relation = relation(place);
    match (&relation, old, new) {
        (Relation::Struct | Relation::Map(_), Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) => {
            let empty = Map::new();
            let (old, new) = (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
            for (name, value) in new {
                let member = member(place, &relation, name);
                let mut inner = (FieldSet::default(), FieldSet::default());
                match (old.get(name), member) {
                    (Some(was), Some(place)) => {
                        difference_of(place, was, value, &mut inner.0, &mut inner.1);
                    }
                    (Some(was), None) => inner.0.member = was != value,
                    (None, Some(place)) if is_always_there(place) => {
                        difference_of(place, &Value::Null, value, &mut inner.0, &mut inner.1);
                        inner.0.member |= inner.0.children.is_empty();
                    }
                    (None, Some(place)) => {
                        inner.0.add(place, value, true);
                        inner.0.member = true;
                    }
                    (None, None) => inner.0.member = true,
                }
                put(changed, || field_element(name), inner.0);
                put(removed, || field_element(name), inner.1);
            }
            for (name, was) in old.iter().filter(|(name, _)| !new.contains_key(*name)) {
                let mut gone = FieldSet { member: true, ..FieldSet::default() };
                if let Some(place) = member(place, &relation, name) {
                    gone.add(place, was, true);
                }
                put(removed, || field_element(name), gone);
            }
        }
        (Relation::Set | Relation::Keyed(..), Value::Array(_) | Value::Null, Value::Array(_) | Value::Null) => {
            let none = Vec::new();
            let (old, new) = (old.as_array().unwrap_or(&none), new.as_array().unwrap_or(&none));
            let (old, new) = (elements(&relation, old), elements(&relation, new));
            for (key, item) in &new {
                let mut inner = (FieldSet::default(), FieldSet::default());
                match old.iter().find(|(k, _)| k == key) {
                    Some((_, was)) => {
                        if let Some(element) = element_place(&relation) {
                            difference_of(element, was, item, &mut inner.0, &mut inner.1);
                        }
                    }
                    None => {
                        inner.0.member = true;
                        if let Some(element) = element_place(&relation) {
                            inner.0.add(element, item, true);
                        }
                    }
                }
                put(changed, || key.clone(), inner.0);
                put(removed, || key.clone(), inner.1);
            }
            for (key, was) in old.iter().filter(|(key, _)| !new.iter().any(|(k, _)| k == key)) {
                let mut gone = FieldSet { member: true, ..FieldSet::default() };
                if let Some(element) = element_place(&relation) {
                    gone.add(element, was, true);
                }
                put(removed, || key.clone(), gone);
            }
        }
        _ => changed.member = true,
    }
}

/// Whether upstream's objects have the field even when nothing is in it, so that a value there is not a new one: structs
/// that are no pointers, and what is written empty or not.
fn is_always_there(place: Place<'_>) -> bool {
    match place {
        Place::Typed(ty, Some(field)) => !field.pointer && (ty.as_struct().is_some() || !field.omitempty),
        _ => false,
    }
}

/// A path like `spec.containers[0].image` in the form that people read elsewhere: `.spec.containers[name="web"].image`.
pub fn readable<'s>(place: impl Into<Place<'s>>, object: &Value, path: &str) -> String {
    let mut here = Some((place.into(), object));
    let mut out = String::new();
    for segment in path.split('.') {
        let mut parts = segment.split('[');
        let name = parts.next().unwrap_or_default();
        out.push('.');
        out.push_str(name);
        here = here.and_then(|(place, value)| Some((member(place, &relation(place), name)?, value.get(name)?)));
        for index in parts {
            let element = here.and_then(|(place, value)| {
                let (relation, list) = (relation(place), value.as_array()?);
                let (key, item) =
                    elements(&relation, list).into_iter().nth(index.trim_end_matches(']').parse().ok()?)?;
                Some((key, element_place(&relation).map(|place| (place, item))))
            });
            match element {
                Some((key, inside)) => {
                    out.push_str(&Element(&key).to_string());
                    here = inside;
                }
                None => {
                    out.push('[');
                    out.push_str(index);
                    here = None;
                }
            }
        }
    }
    out
}

/// Puts what is in a set below an element, if anything is; only then is the element's name made.
fn put(set: &mut FieldSet, key: impl FnOnce() -> String, inner: FieldSet) {
    if inner.is_empty() {
        return;
    }
    match set.children.entry(key()) {
        Entry::Vacant(place) => {
            place.insert(inner);
        }
        Entry::Occupied(mut place) => place.get_mut().unite(&inner),
    }
}

/// The path element of a field.
fn field_element(name: &str) -> String {
    ["f:", name].concat()
}

/// Merges a configuration into an object: what the configuration says wins, what it does not mention stays.
pub fn merge_configuration<'s>(place: impl Into<Place<'s>>, live: &Value, configuration: &Value) -> Value {
    merge(place.into(), live, configuration)
}

fn merge(place: Place<'_>, live: &Value, wanted: &Value) -> Value {
    let relation = relation(place);
    match (&relation, live, wanted) {
        (Relation::Struct | Relation::Map(_), Value::Object(live), Value::Object(wanted)) => {
            let mut merged = live.clone();
            for (name, value) in wanted {
                let value = match (live.get(name), member(place, &relation, name)) {
                    (Some(old), Some(place)) => merge(place, old, value),
                    _ => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (Relation::Set | Relation::Keyed(..), Value::Array(live), Value::Array(wanted)) => {
            merge_list(&relation, live, wanted)
        }
        _ => wanted.clone(),
    }
}

/// Joins two lists: the elements of the configuration come in its order, those of the object alone stay where they were
/// between them, before what is new.
fn merge_list(relation: &Relation<'_>, live: &[Value], wanted: &[Value]) -> Value {
    let (live, wanted) = (elements(relation, live), elements(relation, wanted));
    let is_wanted = |key: &String| wanted.iter().any(|(k, _)| k == key);
    let old = |key: &String| live.iter().find(|(k, _)| k == key).map(|(_, old)| *old);
    let mut merged = Vec::new();
    let mut rest = live.iter().peekable();
    for (place, (key, item)) in wanted.iter().enumerate() {
        // What the object alone has before the next element of both stays before it.
        let shared = wanted[place..].iter().map(|(k, _)| k).find(|k| old(k).is_some());
        while let Some((other, value)) = rest.next_if(|(k, _)| Some(k) != shared) {
            if !is_wanted(other) {
                merged.push((*value).clone());
            }
        }
        if shared == Some(key) {
            rest.next();
        }
        merged.push(match (old(key), element_place(relation)) {
            (Some(old), Some(element)) => merge(element, old, item),
            _ => (*item).clone(),
        });
    }
    merged.extend(rest.filter(|(key, _)| !is_wanted(key)).map(|(_, value)| (*value).clone()));
    Value::Array(merged)
}

/// The paths of what a configuration would replace as a whole, because its type knows no parts: `.spec.selector`.
pub fn atomics<'s>(place: impl Into<Place<'s>>, configuration: &Value) -> Vec<String> {
    let mut found = Vec::new();
    atomics_at(place.into(), "", configuration, &mut found);
    found
}

fn atomics_at(place: Place<'_>, path: &str, value: &Value, found: &mut Vec<String>) {
    let relation = relation(place);
    match (&relation, value) {
        (Relation::Leaf, Value::Object(_) | Value::Array(_)) => found.push(path.to_owned()),
        (Relation::Struct | Relation::Map(_), Value::Object(fields)) => {
            for (name, value) in fields {
                if let Some(place) = member(place, &relation, name) {
                    atomics_at(place, &format!("{path}.{name}"), value, found);
                }
            }
        }
        (Relation::Keyed(element, _), Value::Array(list)) => {
            for (index, item) in list.iter().enumerate() {
                atomics_at(*element, &format!("{path}[{index}]"), item, found);
            }
        }
        _ => {}
    }
}

/// Takes out of an object what was in `last` and is in `kept` no more, each with all below it.
pub fn prune<'s>(place: impl Into<Place<'s>>, object: &mut Value, last: &FieldSet, kept: &FieldSet) {
    prune_at(place.into(), object, last, kept);
}

fn prune_at(place: Place<'_>, value: &mut Value, last: &FieldSet, kept: &FieldSet) {
    let relation = relation(place);
    for (key, gone) in &last.children {
        let keeper = kept.children.get(key);
        match value {
            Value::Object(object) => {
                let Some(name) = key.strip_prefix("f:") else { continue };
                match (keeper, object.get_mut(name), member(place, &relation, name)) {
                    (None, _, _) => {
                        object.remove(name);
                    }
                    (Some(kept), Some(inner), Some(place)) => prune_at(place, inner, gone, kept),
                    _ => {}
                }
            }
            Value::Array(list) => {
                let at = elements(&relation, list).iter().position(|(k, _)| k == key);
                match (keeper, at, element_place(&relation)) {
                    (None, Some(at), _) => {
                        list.remove(at);
                    }
                    (Some(kept), Some(at), Some(element)) => prune_at(element, &mut list[at], gone, kept),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment() -> &'static Type {
        type_named("apps.v1.Deployment").expect("a type")
    }

    fn object(containers: Value) -> Value {
        json!({"metadata": {"labels": {"a": "1"}}, "spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn a_set_names_what_an_object_sets_and_survives_json() {
        let set = FieldSet::of(
            deployment(),
            &object(json!([{"name": "web", "image": "i", "args": ["x"], "ports": [{"containerPort": 80}]}])),
        );
        let json = set.clone().into_json();
        assert_eq!(
            json,
            json!({
                "f:metadata": {"f:labels": {"f:a": {}}},
                "f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {
                    ".": {}, "f:args": {}, "f:image": {}, "f:name": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                }}}}},
            })
        );
        assert_eq!(FieldSet::from_json(&json), Ok(set.clone()));
        assert!(set.paths().contains(&".spec.template.spec.containers[name=\"web\"].image".to_owned()));
        assert!(FieldSet::from_json(&json!({"x": {}})).is_err());
    }

    #[test]
    fn a_difference_tells_new_changed_and_gone_fields_apart() {
        let old = object(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        let new = object(json!([{"name": "a", "image": "2"}, {"name": "c"}]));
        let difference = compare(deployment(), &old, &new);
        let at = |rest: &str| format!(".spec.template.spec.containers{rest}");
        assert_eq!(difference.changed.paths(), [at("[name=\"a\"].image"), at("[name=\"c\"]"), at("[name=\"c\"].name")]);
        assert_eq!(difference.removed.paths(), [at("[name=\"b\"]"), at("[name=\"b\"].image"), at("[name=\"b\"].name")]);
        assert_eq!(compare(deployment(), &old, &old), Difference::default());
    }

    #[test]
    fn a_configuration_is_merged_by_keys_and_keeps_the_order_of_both() {
        let live = object(json!([{"name": "x", "image": "1"}, {"name": "a", "image": "1", "tty": true}]));
        let wanted =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "n"}, {"name": "a", "image": "2"}]}}}});
        let merged = merge_configuration(deployment(), &live, &wanted);
        assert_eq!(
            merged,
            object(json!([{"name": "x", "image": "1"}, {"name": "n"}, {"name": "a", "image": "2", "tty": true}]))
        );
        let wanted = json!({"spec": {"template": {"spec": {"containers": [{"name": "n"}]}}}});
        let merged = merge_configuration(deployment(), &live, &wanted);
        let names = merged["spec"]["template"]["spec"]["containers"].as_array().expect("containers").iter();
        assert_eq!(names.map(|container| &container["name"]).collect::<Vec<_>>(), ["x", "a", "n"]);
    }

    #[test]
    fn what_nobody_keeps_is_taken_out_with_all_below_it() {
        let last =
            FieldSet::of(deployment(), &object(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}])));
        let kept =
            FieldSet::of(deployment(), &json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}]}}}}));
        let mut live =
            object(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1", "tty": true}]));
        prune(deployment(), &mut live, &last, &kept);
        assert_eq!(live, json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "tty": true}]}}}}));
    }

    #[test]
    fn sets_can_be_joined_and_taken_apart() {
        let of = |object: Value| FieldSet::of(deployment(), &object);
        let (a, b) = (of(json!({"spec": {"replicas": 1, "paused": true}})), of(json!({"spec": {"replicas": 2}})));
        assert_eq!(a.intersection(&b).paths(), [".spec.replicas"]);
        let mut rest = a.clone();
        rest.subtract(&b);
        assert_eq!(rest.paths(), [".spec.paused"]);
        rest.unite(&b);
        assert_eq!(rest, a);
        rest.remove(&["f:spec", "f:paused"]);
        assert_eq!(rest, b);
        rest.remove(&["f:spec", "f:replicas"]);
        assert!(rest.is_empty() && rest == FieldSet::default());
    }

    #[test]
    fn what_is_replaced_as_a_whole_is_named() {
        let configuration = json!({"spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "args": ["x"], "ports": [{"containerPort": 80}]}]}},
        }});
        let paths = atomics(deployment(), &configuration);
        assert_eq!(paths, [".spec.selector", ".spec.template.spec.containers[0].args"]);
    }
}
