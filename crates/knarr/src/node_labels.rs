//! Labels of the node that its kubelet may not set itself: whoever could, would draw to it what is meant for others. They are
//! the administrator's, who started this server with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, ListParams, Patch};
use jiff::Timestamp;
use object_model::{meta, time};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::server::NODES;

/// The pause before a watch that ended begins anew.
const PAUSE: Duration = Duration::from_millis(50);

/// Labels the node each time it is registered, until stopped. A node that was there before keeps the labels it has: somebody
/// may have taken one away.
///
/// # Errors
/// Never: trouble is logged and tried again.
pub async fn keep(api: Client, node: String, labels: BTreeMap<String, String>, stop: CancellationToken) -> Result<()> {
    let began = client::clock::now();
    let mut done = BTreeSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            outcome = follow(&api, &node, &labels, began, &mut done) => if let Err(error) = outcome {
                tracing::debug!("label the node: {error:#}");
            },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(
    api: &Client,
    node: &str,
    labels: &BTreeMap<String, String>,
    began: Timestamp,
    done: &mut BTreeSet<String>,
) -> Result<()> {
    let nodes = api.api(NODES);
    let params = ListParams { fields: format!("metadata.name={node}"), ..ListParams::default() };
    let mut watch = nodes.watch(None, &params, "0").await.context("watch it")?;
    while let Some(event) = watch.next().await.context("watch it")? {
        let object: Value = serde_json::from_slice(&event.object).context("read it")?;
        if event.kind == "DELETED" || done.contains(meta::uid(&object)) {
            continue;
        }
        if let Some(patch) = missing(&object, labels, began) {
            nodes.patch(None, node, "", Patch::Merge, &patch).await.context("write them")?;
        }
        done.insert(meta::uid(&object).to_owned());
    }
    Ok(())
}

/// The patch that gives a node that is new the labels it lacks.
fn missing(node: &Value, labels: &BTreeMap<String, String>, began: Timestamp) -> Option<Value> {
    let since = node["metadata"]["creationTimestamp"].as_str().and_then(time::parse)?;
    let held = meta::labels(node);
    let lacks = labels.iter().any(|(key, value)| held.get(key.as_str()) != Some(&value.as_str()));
    (since.as_second() >= began.as_second() && lacks)
        .then(|| json!({"metadata": {"uid": meta::uid(node), "labels": labels}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_gets_its_labels_and_an_old_one_keeps_those_it_has() {
        let labels = BTreeMap::from([("node-role.kubernetes.io/control-plane".to_owned(), String::new())]);
        let began: Timestamp = "2026-01-01T00:00:00.5Z".parse().expect("a time");
        let node = |since: &str, labels: Value| json!({"metadata": {"uid": "u", "creationTimestamp": since, "labels": labels}});
        let patch = missing(&node("2026-01-01T00:00:00Z", json!({"a": "b"})), &labels, began);
        assert_eq!(patch, Some(json!({"metadata": {"uid": "u", "labels": labels}})));
        assert_eq!(missing(&node("2026-01-01T00:00:00Z", json!(labels)), &labels, began), None);
        assert_eq!(missing(&node("2025-12-31T23:59:59Z", json!({})), &labels, began), None);
    }
}
