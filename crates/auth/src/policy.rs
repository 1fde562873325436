//! The verdict on a request. Grants have the shape of RBAC rules; those of the cluster's own components are built in.

use std::borrow::Cow;

use crate::User;

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
}

/// Whom a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// One user.
    User(&'static str),
    /// Everyone in a group.
    Group(&'static str),
}

/// What a grant allows: the verbs on the resources of the groups, or on paths. `*` stands for all.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// API groups.
    pub groups: &'static [&'static str],
    /// Resources, with subresources as `pods/status`.
    pub resources: &'static [&'static str],
    /// Paths that are no resources; a `*` at the end stands for the rest.
    pub paths: &'static [&'static str],
}

/// Rules for one subject.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// For whom.
    pub subject: Subject,
    /// What.
    pub rules: &'static [Rule],
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete"];

const fn on(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
) -> Rule {
    Rule { verbs, groups, resources, paths: &[] }
}

const fn paths(paths: &'static [&'static str]) -> Rule {
    Rule { verbs: &["get", "head"], groups: &[], resources: &[], paths }
}

const NETWORK_READ: &[Rule] = &[on(READ, &[""], &["services"]), on(READ, &["discovery.k8s.io"], &["endpointslices"])];

/// The grants that hold in every cluster, after upstream's bootstrap policy for the same names.
const BUILT_IN: &[Grant] = &[
    // system:public-info-viewer
    Grant {
        subject: Subject::Group("system:unauthenticated"),
        rules: &[paths(&[
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/readyz",
            "/readyz/*",
            "/version",
            "/version/",
        ])],
    },
    // system:discovery, system:basic-user and system:public-info-viewer
    Grant {
        subject: Subject::Group("system:authenticated"),
        rules: &[
            paths(&[
                "/",
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/readyz/*",
                "/version",
                "/version/",
            ]),
            on(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ],
    },
    Grant {
        subject: Subject::User("system:kube-scheduler"),
        rules: &[
            on(READ, &[""], &["nodes", "namespaces", "pods"]),
            on(&["create"], &[""], &["pods/binding"]),
            on(&["patch", "update"], &[""], &["pods/status"]),
            on(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        ],
    },
    // What controllers may do in sum; the runner holds each to what it has declared.
    Grant {
        subject: Subject::User("system:kube-controller-manager"),
        rules: &[
            on(READ, &["*"], &["*"]),
            on(&["delete", "deletecollection", "patch", "update"], &["*"], &["*"]),
            on(&["create"], &["", "events.k8s.io"], &["events", "pods", "namespaces"]),
            on(&["create"], &["apps"], &["replicasets"]),
            on(&["create"], &[""], &["endpoints"]),
            on(&["create"], &["discovery.k8s.io"], &["endpointslices"]),
        ],
    },
    // system:node-proxier, as far as it is used, and system:kube-dns
    Grant { subject: Subject::User("system:kube-proxy"), rules: NETWORK_READ },
    Grant { subject: Subject::User("system:kube-dns"), rules: NETWORK_READ },
    // system:node: a kubelet. Which objects of these it may touch is the node authoriser's question.
    Grant {
        subject: Subject::Group("system:nodes"),
        rules: &[
            on(READ, &[""], &["nodes", "pods", "configmaps", "secrets", "services"]),
            on(WRITE, &[""], &["nodes"]),
            on(&["patch", "update"], &[""], &["nodes/status", "pods/status"]),
            on(&["delete"], &[""], &["pods"]),
            on(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
            on(&["create", "get", "patch", "update", "delete"], &["coordination.k8s.io"], &["leases"]),
        ],
    },
];

/// Whether the request is allowed. A refusal is the sentence upstream says, without the object in front of it.
///
/// # Errors
/// The refusal.
pub fn authorize(attributes: &Attributes<'_>) -> Result<(), String> {
    // The group that no rule can lock out (upstream: the authoriser of superusers).
    if attributes.user.is_in("system:masters") {
        return Ok(());
    }
    let allowed = BUILT_IN
        .iter()
        .filter(|grant| match grant.subject {
            Subject::User(name) => attributes.user.name == name,
            Subject::Group(name) => attributes.user.is_in(name),
        })
        .flat_map(|grant| grant.rules)
        .any(|rule| allows(rule, attributes));
    if allowed { Ok(()) } else { Err(refusal(attributes)) }
}

fn allows(rule: &Rule, a: &Attributes<'_>) -> bool {
    let among = |list: &[&str], item: &str| list.iter().any(|x| *x == "*" || *x == item);
    if a.resource.is_empty() {
        return among(rule.verbs, a.verb)
            && rule.paths.iter().any(|p| match p.strip_suffix('*') {
                Some(start) => a.path.starts_with(start),
                None => *p == a.path,
            });
    }
    among(rule.verbs, a.verb) && among(rule.groups, a.group) && among(rule.resources, &a.resource)
}

fn refusal(a: &Attributes<'_>) -> String {
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
    use super::*;

    fn verdict(user: &User, verb: &str, group: &str, resource: &str, path: &str) -> Result<(), String> {
        authorize(&Attributes { user, verb, group, resource: resource.into(), namespace: "", name: "", path })
    }

    #[test]
    fn everyone_may_only_do_what_was_granted() {
        let admin = User::authenticated("admin", &["system:masters"]);
        let node = User::authenticated("system:node:a", &["system:nodes"]);
        let nobody = User::anonymous();
        assert!(verdict(&admin, "delete", "", "secrets", "").is_ok());
        assert!(verdict(&node, "patch", "", "pods/status", "").is_ok());
        assert!(verdict(&node, "create", "apps", "deployments", "").is_err());
        assert!(verdict(&nobody, "get", "", "", "/readyz").is_ok());
        assert!(verdict(&nobody, "get", "", "", "/api").is_err());
        assert_eq!(
            verdict(&nobody, "list", "", "pods", "").unwrap_err(),
            "User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        );
    }
}
