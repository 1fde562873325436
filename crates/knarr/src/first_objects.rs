//! The objects every cluster has from its first start.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context, Result};
use auth::{Rule, bootstrap};
use client::{Api, Client, ListParams, Patch, Resource};
use futures::stream::{self, StreamExt, TryStreamExt};
use kinds::volumes;
use object_model::{Reason, meta, time};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::flow_control;
use crate::pki::{FRONT_PROXY, Pki};

/// The namespaces of a fresh cluster. `docker` is where the containers of the Docker API will be seen.
const NAMESPACES: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "docker"];

const CLUSTER_ROLES: Resource = rbac("clusterroles");
const CLUSTER_ROLE_BINDINGS: Resource = rbac("clusterrolebindings");

/// How many are written at a time: what is written together shares a flush.
const AT_ONCE: usize = 64;

/// How often somebody's deletion of what is kept is mended (upstream's interval).
const LOOK_EVERY: Duration = Duration::from_secs(60);

const fn rbac(plural: &'static str) -> Resource {
    Resource { group: "rbac.authorization.k8s.io", version: "v1", plural }
}

/// Makes those that are missing, and completes roles and bindings that lack something they must have.
///
/// # Errors
/// When one cannot be made.
pub async fn ensure(client: &Client, service_range: &str, pki: &Pki) -> Result<()> {
    let namespaces = client.api(Resource { group: "", version: "v1", plural: "namespaces" });
    let wanted = NAMESPACES.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    ensure_all(&namespaces, wanted.to_vec(), |_, _| None).await.context("make the first namespaces")?;
    let classes = client.api(Resource { group: "networking.k8s.io", version: "v1", plural: "ingressclasses" });
    ensure_all(&classes, vec![ingress::first_class()], |_, _| None)
        .await
        .context("make the first class of Ingresses")?;
    let classes = client.api(Resource { group: "storage.k8s.io", version: "v1", plural: "storageclasses" });
    ensure_all(&classes, vec![storage_class()], |_, _| None).await.context("make the first storage class")?;
    ensure_kept(client, service_range).await?;
    let maps = client.api(Resource { group: "", version: "v1", plural: "configmaps" });
    ensure_authentication(&maps, &authentication(pki)).await.context("make the authorities known")?;
    let services = client.api(Resource { group: "apiregistration.k8s.io", version: "v1", plural: "apiservices" });
    ensure_all(&services, local_services(), |_, _| None).await.context("register the built-in groups")?;
    let policy = bootstrap::objects()
        .into_iter()
        .chain(controllers::rules().into_iter().flat_map(|(name, rules)| bootstrap::of_controller(name, rules)));
    let (roles, bindings): (Vec<Value>, Vec<Value>) = policy.partition(|object| object["kind"] == "ClusterRole");
    let (of_roles, of_bindings) = (client.api(CLUSTER_ROLES), client.api(CLUSTER_ROLE_BINDINGS));
    let (made_roles, made_bindings) = tokio::join!(
        ensure_all(&of_roles, roles, missing_rules),
        ensure_all(&of_bindings, bindings, missing_subjects),
    );
    made_roles.context("make the first roles")?;
    made_bindings.context("make the first bindings")
}

/// Those of them that are kept: who deletes one, gets it back.
async fn ensure_kept(client: &Client, service_range: &str) -> Result<()> {
    let classes = client.api(Resource { group: "scheduling.k8s.io", version: "v1", plural: "priorityclasses" });
    ensure_all(&classes, priority_classes(), |_, _| None).await.context("make the first priority classes")?;
    let levels = client.api(flow_control("prioritylevelconfigurations"));
    ensure_all(&levels, flow_control::levels(), changed_spec).await.context("make the first priority levels")?;
    let schemas = client.api(flow_control("flowschemas"));
    ensure_all(&schemas, flow_control::schemas(), changed_spec).await.context("make the first flow schemas")?;
    let ranges = client.api(Resource { group: "networking.k8s.io", version: "v1", plural: "servicecidrs" });
    ensure_service_range(&ranges, service_range).await.context("make the range of Services")?;
    Ok(())
}

/// Keeps what must be kept until stopped.
///
/// # Errors
/// Never: trouble is logged and tried again.
pub async fn keep(client: Client, service_range: String, stop: CancellationToken) -> Result<()> {
    let (levels, schemas) =
        (client.api(flow_control("prioritylevelconfigurations")), client.api(flow_control("flowschemas")));
    loop {
        if let Err(error) = ensure_kept(&client, &service_range).await {
            tracing::warn!("{error:#}");
        }
        if let Err(error) = flow_control::mark_dangling(&levels, &schemas).await {
            tracing::warn!("say which flow schemas lack their level: {error:#}");
        }
        if tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_ok() {
            return Ok(());
        }
    }
}

const fn flow_control(plural: &'static str) -> Resource {
    Resource { group: "flowcontrol.apiserver.k8s.io", version: "v1", plural }
}

/// The classes of what a cluster and a node cannot be without.
fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64, what: &str| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
            "description": format!("For pods that {what} cannot be without."),
        })
    };
    vec![
        class("system-cluster-critical", 2_000_000_000, "the cluster"),
        class("system-node-critical", 2_000_001_000, "their node"),
    ]
}

/// Makes the range of the cluster's Services known, and that addresses are given out of it.
async fn ensure_service_range(ranges: &Api, range: &str) -> Result<()> {
    const NAME: &str = "kubernetes";
    let wanted = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": NAME}, "spec": {"cidrs": [range]},
    });
    ensure_all(ranges, vec![wanted], |_, _| None).await?;
    let there = ranges.get(None, NAME).await.context("read it")?;
    if there["status"]["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty()) {
        return Ok(());
    }
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
        "lastTransitionTime": time::seconds(client::clock::now()),
    });
    let patch = json!({"status": {"conditions": [ready]}});
    ranges.patch(None, NAME, "status", Patch::Merge, &patch).await.map(drop).context("say that it is ready")
}

/// Whom aggregated APIs may trust: in client certificates, and with the name of a user in headers.
fn authentication(pki: &Pki) -> Value {
    let list = |names: &[&str]| json!(names).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": pki.authority,
            "requestheader-client-ca-file": pki.front_proxy_authority,
            "requestheader-allowed-names": list(&[FRONT_PROXY]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        },
    })
}

/// Makes the map of authorities, or gives it its data back: authorities may have been made anew.
async fn ensure_authentication(maps: &Api, wanted: &Value) -> Result<()> {
    let (namespace, name) = (Some(meta::namespace(wanted)), meta::name(wanted));
    match maps.get(namespace, name).await {
        Ok(there) if there["data"] == wanted["data"] => Ok(()),
        Ok(_) => {
            let patch = json!({"data": wanted["data"]});
            maps.patch(namespace, name, "", Patch::Merge, &patch).await.map(drop).context("renew it")
        }
        Err(error) if error.reason == Reason::NotFound => {
            maps.create(namespace, wanted).await.map(drop).context("create it")
        }
        Err(error) => Err(error).context("read it"),
    }
}

/// Where the groups stand among each other when a client names a resource that several have (upstream's numbers).
const GROUP_PRIORITIES: [(&str, i64); 20] = [
    ("", 18_000),
    ("apps", 17_800),
    ("events.k8s.io", 17_750),
    ("authentication.k8s.io", 17_700),
    ("authorization.k8s.io", 17_600),
    ("autoscaling", 17_500),
    ("batch", 17_400),
    ("certificates.k8s.io", 17_300),
    ("networking.k8s.io", 17_200),
    ("policy", 17_100),
    ("rbac.authorization.k8s.io", 17_000),
    ("storage.k8s.io", 16_800),
    ("apiextensions.k8s.io", 16_700),
    ("admissionregistration.k8s.io", 16_700),
    ("scheduling.k8s.io", 16_600),
    ("coordination.k8s.io", 16_500),
    ("node.k8s.io", 16_300),
    ("discovery.k8s.io", 16_200),
    ("flowcontrol.apiserver.k8s.io", 16_100),
    ("resource.k8s.io", 15_900),
];

/// The APIServices of what the server answers for itself.
fn local_services() -> Vec<Value> {
    let versions: BTreeSet<(&str, &str)> = kinds::RESOURCES
        .iter()
        .map(|row| (row.group, row.version))
        .filter(|(g, _)| *g != "apiregistration.k8s.io")
        .collect();
    let service = |(group, version): (&str, &str)| {
        let priority = GROUP_PRIORITIES.iter().find(|(name, _)| *name == group).map_or(15_000, |(_, number)| *number);
        // Of two stable versions the newer is preferred.
        let within = if version == "v1" { 15 } else { 30 };
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
            },
            "spec": {"group": group, "version": version, "groupPriorityMinimum": priority, "versionPriority": within},
        })
    };
    versions.into_iter().map(service).collect()
}

/// The patch that gives an object its spec back, unless somebody has chosen another one.
fn changed_spec(old: &Value, wanted: &Value) -> Option<Value> {
    let kept = meta::annotations(old).get(flow_control::KEPT) == Some(&"true");
    (kept && old["spec"] != wanted["spec"]).then(|| json!({"spec": wanted["spec"]}))
}

/// The class of claims that name none: volumes of their full size and no more, on the disk of the node.
fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": "knarr", "annotations": {volumes::DEFAULT_CLASS: "true"}},
        "provisioner": volumes::LOCAL_DRIVER, "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer", "allowVolumeExpansion": true,
    })
}

/// What is there.
pub(crate) async fn all(api: &Api) -> Result<Vec<Value>> {
    let list = api.list(None, &ListParams::default()).await.context("list what is there")?;
    let items = list.items.iter().map(|item| serde_json::from_str(item.get()));
    items.collect::<Result<_, _>>().context("read what is there")
}

/// Creates what is not there, and patches what is there as `complete` says.
async fn ensure_all(api: &Api, wanted: Vec<Value>, complete: impl Fn(&Value, &Value) -> Option<Value>) -> Result<()> {
    let items = all(api).await?;
    let there: HashMap<&str, &Value> = items.iter().map(|object| (meta::name(object), object)).collect();
    let mut writes: Vec<(String, Value, bool)> = Vec::new();
    for object in wanted {
        let name = meta::name(&object).to_owned();
        match there.get(name.as_str()) {
            None => writes.push((name, object, true)),
            Some(old) => writes.extend(complete(old, &object).map(|patch| (name, patch, false))),
        }
    }
    stream::iter(writes)
        .map(|(name, body, create)| async move {
            let written = if create {
                api.create(None, &body).await
            } else {
                api.patch(None, &name, "", Patch::Merge, &body).await
            };
            match written {
                Err(error) if error.reason != Reason::AlreadyExists => {
                    Err(error).with_context(|| format!("write {name}"))
                }
                _ => Ok(()),
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Whether an object is kept complete by the server: its owner may switch that off (upstream's annotation).
fn is_kept(object: &Value) -> bool {
    meta::annotations(object).get("rbac.authorization.kubernetes.io/autoupdate") != Some(&"false")
}

/// The patch that gives a role the rules it lacks. What somebody has added stays.
fn missing_rules(old: &Value, wanted: &Value) -> Option<Value> {
    // The rules of roles that gather others' are a controller's.
    if !is_kept(old) || wanted["aggregationRule"].is_object() {
        return None;
    }
    let held = Rule::all_of(old);
    let mut rules = old["rules"].as_array().cloned().unwrap_or_default();
    let own = wanted["rules"].as_array().into_iter().flatten();
    let missing: Vec<Value> =
        own.zip(Rule::all_of(wanted)).filter(|(_, rule)| !held.contains(rule)).map(|(rule, _)| rule.clone()).collect();
    rules.extend(missing.iter().cloned());
    (!missing.is_empty()).then(|| json!({"rules": rules}))
}

/// The patch that gives a binding the subjects it lacks.
fn missing_subjects(old: &Value, wanted: &Value) -> Option<Value> {
    if !is_kept(old) {
        return None;
    }
    let mut subjects = old["subjects"].as_array().cloned().unwrap_or_default();
    // What nodes may depends on the object since there is an authoriser of nodes; who was bound before that is not any more.
    let all_nodes = |subject: &Value| subject["kind"] == "Group" && subject["name"] == "system:nodes";
    if meta::name(wanted) == "system:node" && subjects.iter().any(all_nodes) {
        subjects.retain(|subject| !all_nodes(subject));
        return Some(json!({"subjects": subjects}));
    }
    let own = wanted["subjects"].as_array().into_iter().flatten();
    let missing: Vec<Value> = own.filter(|subject| !subjects.contains(subject)).cloned().collect();
    subjects.extend(missing.iter().cloned());
    (!missing.is_empty()).then(|| json!({"subjects": subjects}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_lose_the_role_that_all_of_them_had() {
        let group = |name: &str| json!({"kind": "Group", "name": name});
        let binding = |subjects: Value| json!({"metadata": {"name": "system:node"}, "subjects": subjects});
        let old = binding(json!([group("system:nodes"), group("mine")]));
        let mended = missing_subjects(&old, &binding(json!([])));
        assert_eq!(mended, Some(json!({"subjects": [group("mine")]})));
        assert_eq!(missing_subjects(&binding(json!([group("mine")])), &binding(json!([]))), None);
    }

    #[test]
    fn what_a_role_lacks_is_added_and_what_was_added_stays() {
        let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let wanted = json!({"rules": [rule("pods"), rule("nodes")]});
        let mut old = json!({"metadata": {}, "rules": [rule("secrets"), rule("pods")]});
        assert_eq!(
            missing_rules(&old, &wanted),
            Some(json!({"rules": [rule("secrets"), rule("pods"), rule("nodes")]}))
        );
        assert_eq!(missing_rules(&wanted, &wanted), None);
        old["metadata"]["annotations"] = json!({"rbac.authorization.kubernetes.io/autoupdate": "false"});
        assert_eq!(missing_rules(&old, &wanted), None);
    }
}
