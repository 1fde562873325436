//! The roles and bindings that every cluster has from its first start, after upstream's bootstrap policy.

use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const CHANGE: &[&str] = &["patch", "update"];
const ALL: &[&str] = &["*"];
const CREATE: &[&str] = &["create"];
/// What writes an Event.
const RECORD: Rule = on(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]);

struct Rule {
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
    paths: &'static [&'static str],
}

const fn on(
    verbs: &'static [&'static str],
    groups: &'static [&'static str],
    resources: &'static [&'static str],
) -> Rule {
    Rule { verbs, groups, resources, paths: &[] }
}

const fn paths(paths: &'static [&'static str]) -> Rule {
    Rule { verbs: &["get"], groups: &[], resources: &[], paths }
}

/// A ClusterRole, and whom it is bound to.
struct Role {
    name: &'static str,
    /// Roles that take in this one's rules: `admin`, `edit`, `view`.
    aggregates_to: &'static [&'static str],
    rules: &'static [Rule],
    subjects: &'static [Subject],
}

enum Subject {
    User(&'static str),
    Group(&'static str),
    /// Namespace and name.
    Account(&'static str, &'static str),
}

const HEALTH: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// What people who work in a namespace read (upstream: `system:aggregate-to-view`).
const VIEWED: &[Rule] = &[
    on(
        READ,
        &[""],
        &[
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "namespaces/status",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    on(READ, &["discovery.k8s.io"], &["endpointslices"]),
    on(
        READ,
        &["apps"],
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    on(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    on(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    on(READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    on(READ, &["networking.k8s.io"], &["ingresses", "ingresses/status", "networkpolicies"]),
];

/// What people who work in a namespace change (upstream: `system:aggregate-to-edit`).
const EDITED: &[Rule] = &[
    on(READ, &[""], &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]),
    on(&["impersonate"], &[""], &["serviceaccounts"]),
    on(WRITE, &[""], &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
    on(CREATE, &[""], &["pods/eviction", "serviceaccounts/token"]),
    on(
        WRITE,
        &[""],
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    on(
        WRITE,
        &["apps"],
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    on(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
    on(WRITE, &["batch"], &["cronjobs", "jobs"]),
    on(WRITE, &["policy"], &["poddisruptionbudgets"]),
    on(WRITE, &["networking.k8s.io"], &["ingresses", "networkpolicies"]),
    on(
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        &["coordination.k8s.io"],
        &["leases"],
    ),
];

/// The role of nodes.
const NODE: &str = "system:node";

/// What every node may (upstream: `NodeRules`).
const OF_NODES: &[Rule] = &[
    RECORD,
    on(CREATE, &["authentication.k8s.io"], &["tokenreviews"]),
    on(CREATE, &["authorization.k8s.io"], &["localsubjectaccessreviews", "subjectaccessreviews"]),
    on(READ, &[""], &["services"]),
    on(&["create", "get", "list", "watch"], &[""], &["nodes"]),
    on(CHANGE, &[""], &["nodes", "nodes/status", "pods/status"]),
    on(&["create", "delete"], &[""], &["pods"]),
    on(CREATE, &[""], &["pods/eviction", "serviceaccounts/token"]),
    on(READ, &[""], &["configmaps", "secrets"]),
    on(&["get"], &[""], &["endpoints", "persistentvolumeclaims", "persistentvolumes", "serviceaccounts"]),
    on(&["get", "patch", "update"], &[""], &["persistentvolumeclaims/status"]),
    on(
        &["create", "get", "list", "watch"],
        &["certificates.k8s.io"],
        &["certificatesigningrequests", "podcertificaterequests"],
    ),
    on(READ, &["certificates.k8s.io"], &["clustertrustbundles"]),
    on(&["create", "delete", "get", "patch", "update"], &["coordination.k8s.io"], &["leases"]),
    on(&["get"], &["storage.k8s.io"], &["volumeattachments"]),
    on(READ, &["storage.k8s.io"], &["csidrivers"]),
    on(&["create", "delete", "get", "patch", "update"], &["storage.k8s.io"], &["csinodes"]),
    on(READ, &["node.k8s.io"], &["runtimeclasses"]),
    on(&["get"], &["resource.k8s.io"], &["resourceclaims"]),
    on(
        &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        &["resource.k8s.io"],
        &["resourceslices"],
    ),
];

const ROLES: &[Role] = &[
    Role {
        name: "cluster-admin",
        aggregates_to: &[],
        rules: &[on(ALL, ALL, ALL), Rule { verbs: ALL, groups: &[], resources: &[], paths: ALL }],
        subjects: &[Subject::Group("system:masters")],
    },
    Role {
        name: "system:aggregate-to-admin",
        aggregates_to: &["admin"],
        rules: &[
            on(CREATE, &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
            on(
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                &[GROUP],
                &["rolebindings", "roles"],
            ),
        ],
        subjects: &[],
    },
    Role { name: "system:aggregate-to-edit", aggregates_to: &["edit"], rules: EDITED, subjects: &[] },
    Role { name: "system:aggregate-to-view", aggregates_to: &["view"], rules: VIEWED, subjects: &[] },
    Role {
        name: "system:discovery",
        aggregates_to: &[],
        rules: &[paths(&[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/version",
            "/version/",
            "/",
        ])],
        subjects: &[Subject::Group("system:authenticated")],
    },
    Role {
        name: "system:basic-user",
        aggregates_to: &[],
        rules: &[
            on(CREATE, &["authorization.k8s.io"], &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            on(CREATE, &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ],
        subjects: &[Subject::Group("system:authenticated")],
    },
    Role {
        name: "system:public-info-viewer",
        aggregates_to: &[],
        rules: &[paths(HEALTH)],
        subjects: &[Subject::Group("system:authenticated"), Subject::Group("system:unauthenticated")],
    },
    Role {
        name: "system:monitoring",
        aggregates_to: &[],
        rules: &[paths(&[
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/metrics",
            "/metrics/slis",
            "/readyz",
            "/readyz/*",
        ])],
        subjects: &[Subject::Group("system:monitoring")],
    },
    Role {
        name: "system:service-account-issuer-discovery",
        aggregates_to: &[],
        rules: &[paths(&[
            "/.well-known/openid-configuration",
            "/.well-known/openid-configuration/",
            "/openid/v1/jwks",
            "/openid/v1/jwks/",
        ])],
        subjects: &[Subject::Group("system:serviceaccounts")],
    },
    Role {
        name: "system:auth-delegator",
        aggregates_to: &[],
        rules: &[
            on(CREATE, &["authentication.k8s.io"], &["tokenreviews"]),
            on(CREATE, &["authorization.k8s.io"], &["subjectaccessreviews"]),
        ],
        subjects: &[],
    },
    Role {
        name: "system:kubelet-api-admin",
        aggregates_to: &[],
        rules: &[
            on(READ, &[""], &["nodes"]),
            on(&["proxy"], &[""], &["nodes"]),
            on(ALL, &[""], &["nodes/log", "nodes/metrics", "nodes/proxy", "nodes/stats"]),
        ],
        subjects: &[],
    },
    Role {
        name: "system:kube-scheduler",
        aggregates_to: &[],
        rules: &[
            RECORD,
            on(
                READ,
                &[""],
                &[
                    "namespaces",
                    "nodes",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                    "pods",
                    "replicationcontrollers",
                    "services",
                ],
            ),
            on(&["delete"], &[""], &["pods"]),
            on(CREATE, &[""], &["bindings", "pods/binding"]),
            on(CHANGE, &[""], &["pods/status", "persistentvolumeclaims", "persistentvolumes"]),
            on(READ, &["apps"], &["replicasets", "statefulsets"]),
            on(READ, &["policy"], &["poddisruptionbudgets"]),
            on(
                READ,
                &["storage.k8s.io"],
                &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses", "volumeattachments"],
            ),
            on(&["create", "get", "update"], &["coordination.k8s.io"], &["leases"]),
        ],
        subjects: &[Subject::User("system:kube-scheduler")],
    },
    // What the controllers see. What each of them writes it may by a role of its own.
    Role {
        name: "system:kube-controller-manager",
        aggregates_to: &[],
        rules: &[RECORD, on(READ, ALL, ALL), on(&["create", "get", "update"], &["coordination.k8s.io"], &["leases"])],
        subjects: &[Subject::User("system:kube-controller-manager")],
    },
    Role {
        name: "system:kube-dns",
        aggregates_to: &[],
        rules: &[
            on(READ, &[""], &["endpoints", "namespaces", "pods", "services"]),
            on(READ, &["discovery.k8s.io"], &["endpointslices"]),
        ],
        subjects: &[Subject::Account("kube-system", "kube-dns")],
    },
    Role {
        name: "system:node-proxier",
        aggregates_to: &[],
        rules: &[
            RECORD,
            // Pods beyond upstream's role: host ports are led to them by the proxy here.
            on(READ, &[""], &["endpoints", "nodes", "pods", "services"]),
            on(READ, &["discovery.k8s.io"], &["endpointslices"]),
        ],
        subjects: &[Subject::User("system:kube-proxy")],
    },
    // Who serves Ingresses. It sees Secrets because certificates are in them.
    Role {
        name: "system:ingress",
        aggregates_to: &[],
        rules: &[
            RECORD,
            on(READ, &[""], &["secrets", "services"]),
            on(READ, &["discovery.k8s.io"], &["endpointslices"]),
            on(READ, &["networking.k8s.io"], &["ingressclasses", "ingresses"]),
            on(CHANGE, &["networking.k8s.io"], &["ingresses/status"]),
        ],
        subjects: &[Subject::User("system:ingress")],
    },
    // What nodes are, bound to none of them: which objects each may touch says the node authoriser, by these rules.
    Role { name: NODE, aggregates_to: &[], rules: OF_NODES, subjects: &[] },
    // Who keeps the volumes on the node's disk: how far they have grown, and that their data is gone.
    Role {
        name: "system:local-volumes",
        aggregates_to: &[],
        rules: &[
            RECORD,
            on(READ, &[""], &["persistentvolumeclaims", "persistentvolumes"]),
            on(CHANGE, &[""], &["persistentvolumeclaims/status", "persistentvolumes"]),
        ],
        subjects: &[Subject::User("system:local-volumes")],
    },
];

/// Roles that gather the rules of others: name, and the roles that take in what they gathered.
const GATHERING: [(&str, &[&str]); 3] = [("admin", &[]), ("edit", &["admin"]), ("view", &["edit"])];

/// All of them: ClusterRoles and their bindings.
pub fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for (name, aggregates_to) in GATHERING {
        let mut role = cluster_role(name, json!([]), aggregates_to);
        role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {aggregate_label(name): "true"}}]});
        objects.push(role);
    }
    for row in ROLES {
        let rules: Vec<Value> = row.rules.iter().map(rule).collect();
        objects.push(cluster_role(row.name, rules.into(), row.aggregates_to));
        // The binding of nodes is there and binds nobody.
        if !row.subjects.is_empty() || row.name == NODE {
            objects.push(cluster_role_binding(row.name, row.subjects.iter().map(subject).collect()));
        }
    }
    objects
}

/// What the node authoriser lets every node do.
pub fn node_rules() -> Vec<crate::Rule> {
    crate::Rule::all_of(&json!({"rules": OF_NODES.iter().map(rule).collect::<Vec<_>>()}))
}

/// The role and the binding of a controller, which acts as the service account of its name (upstream: `system:controller:…`).
pub fn of_controller(name: &str, rules: Value) -> [Value; 2] {
    let role = format!("system:controller:{name}");
    let account = json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"});
    [cluster_role(&role, rules, &[]), cluster_role_binding(&role, json!([account]))]
}

fn aggregate_label(role: &str) -> String {
    format!("{GROUP}/aggregate-to-{role}")
}

fn cluster_role(name: &str, rules: Value, aggregates_to: &[&str]) -> Value {
    let mut role =
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata(name), "rules": rules});
    for other in aggregates_to {
        role["metadata"]["labels"][aggregate_label(other)] = "true".into();
    }
    role
}

fn cluster_role_binding(name: &str, subjects: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata(name),
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name}, "subjects": subjects,
    })
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    })
}

fn rule(rule: &Rule) -> Value {
    if rule.paths.is_empty() {
        json!({"apiGroups": rule.groups, "resources": rule.resources, "verbs": rule.verbs})
    } else {
        json!({"nonResourceURLs": rule.paths, "verbs": rule.verbs})
    }
}

fn subject(subject: &Subject) -> Value {
    match subject {
        Subject::User(name) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
        Subject::Group(name) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
        Subject::Account(namespace, name) => json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}),
    }
}
