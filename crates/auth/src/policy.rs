//! The verdict on a request: roles and bindings as they stand, and what follows from them.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::{Rule, User};

/// What a request wants to do.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    /// Who asks.
    pub user: &'a User,
    /// The verb, like `get`; for paths that are no resources, the HTTP method in lower case.
    pub verb: &'a str,
    /// API group of the resource.
    pub group: &'a str,
    /// The resource with its subresource, like `pods/log`; empty for paths.
    pub resource: Cow<'a, str>,
    /// The namespace, empty at the cluster scope.
    pub namespace: &'a str,
    /// The name, where the request names one object.
    pub name: &'a str,
    /// The path, for what is no resource.
    pub path: &'a str,
    /// The field selector of a list or a watch, as it was given.
    pub fields: &'a str,
}

/// What a binding points at: a ClusterRole, or a Role of the binding's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Binding {
    cluster_role: bool,
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
}

/// Roles by namespace and name; ClusterRoles stand in the empty namespace. The same for bindings.
type ByPlace<T> = HashMap<String, BTreeMap<String, T>>;

/// All roles and bindings.
#[derive(Debug, Default)]
pub struct Policy {
    roles: ByPlace<Arc<Vec<Rule>>>,
    bindings: ByPlace<Binding>,
}

impl Policy {
    /// Takes note of a role or binding as it stands now, or that there is none any more. Other kinds are passed over.
    pub fn observe(&mut self, kind: &str, namespace: &str, name: &str, object: Option<&Value>) {
        match kind {
            "Role" | "ClusterRole" => {
                put(&mut self.roles, namespace, name, object.map(|role| Arc::new(Rule::all_of(role))));
            }
            "RoleBinding" | "ClusterRoleBinding" => {
                put(&mut self.bindings, namespace, name, object.map(Binding::of));
            }
            _ => {}
        }
    }

    /// Whether the request is allowed. A refusal is the sentence upstream says, without the object in front of it.
    ///
    /// # Errors
    /// The refusal.
    pub fn authorize(&self, attributes: &Attributes<'_>) -> Result<(), String> {
        match self.verdict(attributes) {
            (true, _) => Ok(()),
            (false, reason) => Err(refusal(attributes, &reason)),
        }
    }

    /// Whether the request is allowed, and what there is to say of it: which binding allows it, or which role is missing.
    pub fn verdict(&self, attributes: &Attributes<'_>) -> (bool, String) {
        // The group that no rule can lock out (upstream: the authoriser of superusers).
        if attributes.user.is_in("system:masters") {
            return (true, String::new());
        }
        if let Some(grant) = self.grant(attributes) {
            return (true, grant);
        }
        match &self.missing_roles(attributes.user, attributes.namespace)[..] {
            [] => (false, String::new()),
            [one] => (false, format!("RBAC: {one}")),
            several => (false, format!("RBAC: [{}]", several.join(", "))),
        }
    }

    /// Why a request is allowed, as upstream words it; `None` if no role allows it.
    fn grant(&self, a: &Attributes<'_>) -> Option<String> {
        self.held(a.user, a.namespace)
            .find(|held| held.rules.iter().any(|rule| rule.allows(a)))
            .map(|held| held.to_string(a.user))
    }

    /// The rules a user has in a namespace, those of the whole cluster among them.
    pub fn rules_of(&self, user: &User, namespace: &str) -> Vec<Rule> {
        self.held(user, namespace).flat_map(|held| held.rules.iter().cloned()).collect()
    }

    /// The rules of a role that a binding names; `None` if there is no such role.
    pub fn rules_of_role(&self, reference: &Value, namespace: &str) -> Option<Vec<Rule>> {
        let place = if reference["kind"] == "ClusterRole" { "" } else { namespace };
        let name = reference["name"].as_str().unwrap_or_default();
        self.roles.get(place)?.get(name).map(|rules| rules.as_ref().clone())
    }

    /// Those of the wanted rules that the user does not hold, taken apart as upstream reports them: nobody may give away
    /// more than they have.
    pub fn lacking(&self, user: &User, namespace: &str, wanted: &[Rule]) -> Vec<Rule> {
        if user.is_in("system:masters") {
            return Vec::new();
        }
        let own = self.rules_of(user, namespace);
        let atoms = wanted.iter().flat_map(Rule::atoms);
        atoms.filter(|atom| !own.iter().any(|rule| rule.covers(atom))).collect()
    }

    fn held<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = Held<'a>> {
        self.bound(user, namespace).filter_map(|(place, name, binding)| {
            let role_place = if binding.cluster_role { "" } else { place };
            let rules = self.roles.get(role_place)?.get(&binding.role)?;
            Some(Held { place, name, binding, rules })
        })
    }

    /// The bindings that name a user, with where they are.
    fn bound<'a>(
        &'a self,
        user: &'a User,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a Binding)> {
        let places = std::iter::once("").chain((!namespace.is_empty()).then_some(namespace));
        places
            .filter_map(|place| self.bindings.get(place).map(|bindings| (place, bindings)))
            .flat_map(|(place, bindings)| bindings.iter().map(move |(name, binding)| (place, name.as_str(), binding)))
            .filter(|(_, _, binding)| binding.subjects.iter().any(|subject| subject.is(user)))
    }

    /// What bindings of the user point at and is not there: the cause of many a refusal.
    fn missing_roles(&self, user: &User, namespace: &str) -> Vec<String> {
        self.bound(user, namespace)
            .filter_map(|(place, _, binding)| {
                let (kind, at) = if binding.cluster_role { ("clusterrole", "") } else { ("role", place) };
                let is_there = self.roles.get(at).is_some_and(|roles| roles.contains_key(&binding.role));
                (!is_there).then(|| format!("{kind}.rbac.authorization.k8s.io {:?} not found", binding.role))
            })
            .collect()
    }
}

/// A role that somebody has, and by which binding.
struct Held<'a> {
    place: &'a str,
    name: &'a str,
    binding: &'a Binding,
    rules: &'a Arc<Vec<Rule>>,
}

impl Held<'_> {
    fn to_string(&self, user: &User) -> String {
        let (kind, name) = if self.place.is_empty() {
            ("ClusterRoleBinding", self.name.to_owned())
        } else {
            ("RoleBinding", format!("{}/{}", self.name, self.place))
        };
        let role = if self.binding.cluster_role { "ClusterRole" } else { "Role" };
        let subject = match self.binding.subjects.iter().find(|subject| subject.is(user)) {
            Some(Subject::Group(group)) => format!("Group {group:?}"),
            _ => match user.service_account() {
                Some((namespace, account)) => format!("ServiceAccount {:?}", format!("{account}/{namespace}")),
                None => format!("User {:?}", user.name),
            },
        };
        format!("RBAC: allowed by {kind} {name:?} of {role} {:?} to {subject}", self.binding.role)
    }
}

fn put<T>(map: &mut ByPlace<T>, namespace: &str, name: &str, item: Option<T>) {
    match item {
        Some(item) => {
            map.entry(namespace.to_owned()).or_default().insert(name.to_owned(), item);
        }
        None => {
            if let Some(place) = map.get_mut(namespace) {
                place.remove(name);
                if place.is_empty() {
                    map.remove(namespace);
                }
            }
        }
    }
}

impl Binding {
    fn of(object: &Value) -> Self {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let subjects = object["subjects"].as_array().into_iter().flatten().filter_map(|subject| {
            let name = text(subject, "name");
            match subject["kind"].as_str()? {
                "User" => Some(Subject::User(name)),
                "Group" => Some(Subject::Group(name)),
                "ServiceAccount" => Some(Subject::User(User::name_of_account(&text(subject, "namespace"), &name))),
                _ => None,
            }
        });
        Self {
            cluster_role: object["roleRef"]["kind"] == "ClusterRole",
            role: text(&object["roleRef"], "name"),
            subjects: subjects.collect(),
        }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Self::User(name) => user.name == *name,
            Self::Group(group) => user.is_in(group),
        }
    }
}

/// The sentence upstream says, with the reason where there is one.
pub fn refusal(a: &Attributes<'_>, reason: &str) -> String {
    let sentence = sentence(a);
    if reason.is_empty() { sentence } else { format!("{sentence}: {reason}") }
}

fn sentence(a: &Attributes<'_>) -> String {
    let user = &a.user.name;
    if a.resource.is_empty() {
        return format!("User \"{user}\" cannot {} path \"{}\"", a.verb, a.path);
    }
    let place = match a.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    format!("User \"{user}\" cannot {} resource \"{}\" in API group \"{}\" {place}", a.verb, a.resource, a.group)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy() -> Policy {
        let mut policy = Policy::default();
        for object in crate::bootstrap::objects() {
            policy.observe(
                object["kind"].as_str().unwrap_or_default(),
                object["metadata"]["namespace"].as_str().unwrap_or_default(),
                object["metadata"]["name"].as_str().unwrap_or_default(),
                Some(&object),
            );
        }
        policy
    }

    fn asks<'a>(
        user: &'a User,
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
    ) -> Attributes<'a> {
        Attributes { user, verb, group, resource: resource.into(), namespace, name: "x", path: "", fields: "" }
    }

    #[test]
    fn everyone_may_only_do_what_was_granted() {
        let policy = policy();
        let admin = User::authenticated("admin", &["system:masters"]);
        let node = User::authenticated("system:node:a", &["system:nodes"]);
        let nobody = User::anonymous();
        assert!(policy.authorize(&asks(&admin, "delete", "", "secrets", "")).is_ok());
        assert!(policy.authorize(&asks(&node, "patch", "", "pods/status", "default")).is_err(), "a graph says that");
        assert!(policy.authorize(&asks(&node, "create", "apps", "deployments", "default")).is_err());
        let path = |path| Attributes { path, ..asks(&nobody, "get", "", "", "") };
        assert!(policy.authorize(&path("/readyz")).is_ok());
        assert!(policy.authorize(&path("/api")).is_err());
        assert_eq!(
            policy.authorize(&asks(&nobody, "list", "", "pods", "")).unwrap_err(),
            "User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
    }

    #[test]
    fn a_binding_gives_an_account_the_rules_of_its_role_in_one_namespace() {
        let mut policy = policy();
        let role = json!({"rules": [
            {"apiGroups": [""], "resources": ["pods", "*/log"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["x"], "verbs": ["get"]},
        ]});
        let binding = json!({
            "roleRef": {"kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "a"}],
        });
        let app = User::service_account_of("a", "app", "", BTreeMap::new());
        policy.observe("RoleBinding", "a", "app", Some(&binding));
        assert_eq!(
            policy.authorize(&asks(&app, "get", "", "pods", "a")).unwrap_err(),
            "User \"system:serviceaccount:a:app\" cannot get resource \"pods\" in API group \"\" in the namespace \"a\": \
             RBAC: role.rbac.authorization.k8s.io \"reader\" not found"
        );
        policy.observe("Role", "a", "reader", Some(&role));
        for (verb, resource, namespace, allowed) in [
            ("get", "pods", "a", true),
            ("get", "pods/log", "a", true),
            ("get", "pods/exec", "a", false),
            ("get", "secrets", "a", true),
            ("list", "pods", "a", false),
            ("get", "pods", "b", false),
        ] {
            let verdict = policy.authorize(&asks(&app, verb, "", resource, namespace));
            assert_eq!(verdict.is_ok(), allowed, "{verb} {resource} in {namespace}");
        }
        assert_eq!(
            policy.verdict(&asks(&app, "get", "", "pods", "a")),
            (true, "RBAC: allowed by RoleBinding \"app/a\" of Role \"reader\" to ServiceAccount \"app/a\"".to_owned())
        );
        policy.observe("RoleBinding", "a", "app", None);
        assert!(policy.authorize(&asks(&app, "get", "", "pods", "a")).is_err());
    }

    #[test]
    fn nobody_gives_away_more_than_they_have() {
        let mut policy = policy();
        let binding =
            json!({"roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "User", "name": "eve"}]});
        policy.observe("RoleBinding", "a", "eve", Some(&binding));
        policy.observe(
            "ClusterRole",
            "",
            "view",
            Some(&json!({"rules": [
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            ]})),
        );
        let eve = User::authenticated("eve", &[]);
        let wanted = Rule::all_of(&json!({"rules": [
            {"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get"]},
        ]}));
        let lacking: Vec<String> = policy.lacking(&eve, "a", &wanted).iter().map(ToString::to_string).collect();
        assert_eq!(lacking, ["{APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\"]}"]);
        assert_eq!(policy.lacking(&eve, "b", &wanted).len(), 2);
    }
}
