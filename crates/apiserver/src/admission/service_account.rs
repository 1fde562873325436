//! The account a pod acts as: it must exist, and its token comes into the pod as a file (upstream's ServiceAccount plugin).

use std::time::Duration;

use object_model::{ApiError, names};
use serde_json::{Value, json};

use crate::ApiServer;

/// Where the token, the authority and the namespace are in a container: client libraries look there.
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the names of the volumes begin with that hold these.
const VOLUME: &str = "kube-api-access-";
/// Seconds that a pod's token lives; the kubelet renews it well before (upstream's number).
const TOKEN_SECONDS: i64 = 3607;
/// How long a pod may be ahead of the `default` account of a new namespace, which a controller makes.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Completes a pod that is about to be created.
///
/// # Errors
/// 403 when the account does not exist.
pub async fn admit(server: &ApiServer, namespace: &str, pod: &mut Value) -> Result<(), ApiError> {
    // A mirror of a pod that the node runs by itself asks for nothing.
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Ok(());
    }
    let name = match pod["spec"]["serviceAccountName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => "default".to_owned(),
    };
    let account = account(server, namespace, &name, pod).await?;
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = name.as_str().into();
    spec["serviceAccount"] = name.as_str().into();
    let has_pull_secrets = spec["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty());
    if !has_pull_secrets && account["imagePullSecrets"].as_array().is_some_and(|list| !list.is_empty()) {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let wanted = [&spec["automountServiceAccountToken"], &account["automountServiceAccountToken"]];
    if wanted.into_iter().find_map(Value::as_bool).unwrap_or(true) {
        mount_token(spec);
    }
    Ok(())
}

async fn account(server: &ApiServer, namespace: &str, name: &str, pod: &Value) -> Result<Value, ApiError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(account) = server.stored_object("serviceaccounts", namespace, name)? {
            return Ok(account);
        }
        if name != "default" || tokio::time::Instant::now() >= deadline {
            let pod_name = object_model::meta::name(pod);
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(ApiError::forbidden("", "pods", pod_name, why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Adds the volume of the token, and mounts it in every container that has nothing at its place.
fn mount_token(spec: &mut Value) {
    // A pod that has been changed since it was completed has one already.
    let there = spec["volumes"].as_array().into_iter().flatten().filter_map(|volume| volume["name"].as_str());
    let there = there.filter(|name| name.starts_with(VOLUME)).map(str::to_owned).next();
    let is_new = there.is_none();
    let volume = there.unwrap_or_else(|| format!("{VOLUME}{}", names::suffix(rand::random())));
    let mut used = false;
    for field in ["initContainers", "containers"] {
        for container in spec.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().any(|mount| mount["mountPath"] == MOUNT) {
                continue;
            }
            let own = json!({"name": volume, "readOnly": true, "mountPath": MOUNT});
            container["volumeMounts"] = mounts.into_iter().chain([own]).collect();
            used = true;
        }
    }
    if !used || !is_new {
        return;
    }
    let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
    let projected = json!({
        "name": volume,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
            ],
        },
    });
    let volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    spec["volumes"] = volumes.into_iter().chain([projected]).collect();
}
