//! Keeps the volumes on this node's disk as the API wants them: they grow, and go with their data.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::{Cache, Cached, EventType, ListParams, Patch, Reflector, Resource, WorkQueue};
use kinds::volumes::{LOCAL_FINALIZER, fits_node};
use object_model::{Reason, meta};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::persistent::{bytes_of, handle_of, is_local};

pub(crate) const VOLUMES: Resource = Resource { group: "", version: "v1", plural: "persistentvolumes" };
pub(crate) const CLAIMS: Resource = Resource { group: "", version: "v1", plural: "persistentvolumeclaims" };
/// The pause before a volume is looked at again that a pod still has mounted.
const IN_USE: Duration = Duration::from_millis(500);

/// Runs until cancelled.
pub(crate) async fn run(context: Arc<Context>, cancel: CancellationToken) {
    let cache: Cache<Value> = Cache::new();
    let queue: WorkQueue<String> = WorkQueue::new();
    let wake = queue.clone();
    cache.on_change(move |change| {
        if let Some(volume) = change.new.filter(|volume| is_local(&volume.object)) {
            wake.add(volume.name.clone());
        }
    });
    let reflector = Reflector {
        api: context.volumes.api(VOLUMES),
        params: ListParams::default(),
        decode: |bytes| serde_json::from_slice(bytes),
        cache: cache.clone(),
    };
    let work = async {
        while let Some(name) = queue.next().await {
            if let Some(volume) = cache.get("", &name) {
                match keep(&context, &volume).await {
                    Ok(None) => queue.forget(&name),
                    Ok(Some(pause)) => queue.add_after(name.clone(), pause),
                    Err(error) => {
                        tracing::warn!(volume = name, "{error:#}");
                        queue.add_failed(name.clone());
                    }
                }
            }
            queue.done(&name);
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        ((), ()) = async { tokio::join!(reflector.run(cancel.clone()), work) } => {}
    }
}

/// Does what one volume needs now, and says when to look again.
async fn keep(context: &Arc<Context>, volume: &Arc<Cached<Value>>) -> anyhow::Result<Option<Duration>> {
    let node = &context.config.node_name;
    let object = &volume.object;
    if !fits_node(object, node, |key| (key == "kubernetes.io/hostname").then_some(node.as_str())) {
        return Ok(None);
    }
    if meta::deletion_timestamp(object).is_some() {
        // As long as anybody else holds it, its data stays.
        if meta::finalizers(object) != [LOCAL_FINALIZER] {
            return Ok(None);
        }
        // What is retained outlives its object: another one with the same volumeHandle finds it again.
        if object["spec"]["persistentVolumeReclaimPolicy"] == "Delete" {
            let (on_disk, handle) = (context.clone(), handle_of(object)?.to_owned());
            if !tokio::task::spawn_blocking(move || on_disk.disks.remove(&handle)).await?? {
                return Ok(Some(IN_USE));
            }
        }
        let patch = json!({"metadata": {"uid": volume.uid, "$deleteFromPrimitiveList/finalizers": [LOCAL_FINALIZER]}});
        let patched = context.volumes.api(VOLUMES).patch(None, &volume.name, "", Patch::Strategic, &patch).await;
        return match patched {
            Err(error) if error.reason != Reason::NotFound => Err(error).context("let go of a removed volume"),
            _ => Ok(None),
        };
    }
    if object["status"]["phase"] == "Bound" {
        grow(context, volume).await?;
    }
    Ok(None)
}

/// Gives a volume the size the API says, and tells its claim.
async fn grow(context: &Arc<Context>, volume: &Arc<Cached<Value>>) -> anyhow::Result<()> {
    let reference = &volume.object["spec"]["claimRef"];
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    let mut claim = match context.volumes.api(CLAIMS).get(Some(namespace), name).await {
        Ok(claim) => claim,
        Err(error) if error.reason == Reason::NotFound => return Ok(()),
        Err(error) => return Err(error).context("read the claim of a volume"),
    };
    claim["apiVersion"] = "v1".into();
    claim["kind"] = "PersistentVolumeClaim".into();
    let size = &volume.object["spec"]["capacity"]["storage"];
    let bound = claim["status"]["phase"] == "Bound" && meta::uid(&claim) == text("uid");
    if !bound || claim["status"]["capacity"]["storage"] == *size {
        return Ok(());
    }
    let (on_disk, of) = (context.clone(), handle_of(&volume.object)?.to_owned());
    let bytes = bytes_of(&volume.object);
    let grown = tokio::task::spawn_blocking(move || on_disk.disks.grow(&of, bytes)).await?;
    if let Err(error) = grown {
        let message = format!("NodeExpandVolume failed for volume \"{}\": {error:#}", volume.name);
        context.recorder.event(&claim, None, EventType::Warning, "VolumeResizeFailed", message);
        return Err(error.context("grow a volume"));
    }
    let patch = json!({"metadata": {"uid": meta::uid(&claim)},
        "status": {"capacity": {"storage": size}, "conditions": null}});
    let patched = context.volumes.api(CLAIMS).patch(Some(namespace), name, "status", Patch::Merge, &patch).await;
    patched.context("write the new size of a claim")?;
    let message = format!("MountVolume.NodeExpandVolume succeeded for volume \"{}\"", volume.name);
    context.recorder.event(&claim, None, EventType::Normal, "FileSystemResizeSuccessful", message);
    Ok(())
}
