//! The objects every cluster has from its first start.

use anyhow::{Context, Result};
use client::{Client, Resource};
use object_model::Reason;
use serde_json::json;

/// The namespaces of a fresh cluster. `docker` is where the containers of the Docker API will be seen.
const NAMESPACES: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "docker"];

/// Makes those that are missing.
///
/// # Errors
/// When one cannot be made.
pub async fn ensure(client: &Client) -> Result<()> {
    let api = client.api(Resource { group: "", version: "v1", plural: "namespaces" });
    for name in NAMESPACES {
        match api.get(None, name).await {
            Ok(_) => continue,
            Err(error) if error.reason == Reason::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look for namespace {name}")),
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        api.create(None, &namespace).await.with_context(|| format!("create namespace {name}"))?;
    }
    Ok(())
}
