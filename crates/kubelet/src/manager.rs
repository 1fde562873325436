//! Gives every pod of the node its worker, takes over what an earlier run left, and ends what nobody asks for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use client::{Cache, Client, ListParams, Recorder, Reflector};
use cri::v1;
use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::context::{Context, PODS, SERVICES};
use crate::cri_config::{GRACE, POD_UID};
use crate::node::{self, Machine};
use crate::persistent::Disks;
use crate::server;
use crate::sources::Follower;
use crate::status::Host;
use crate::volume_keeper;
use crate::worker::{self, Wanted};

/// How many sandboxes and containers are made at the same time, for each processor.
const MAKING_PER_CPU: usize = 4;
/// The pause before the runtime's events are asked for again.
const RECONNECT: Duration = Duration::from_millis(200);
/// How long containers of a pod that nobody knows get to end, if they do not say themselves.
const ORPHAN_GRACE: i64 = 30;

struct Entry {
    wanted: watch::Sender<Wanted>,
    wake: Arc<Notify>,
}

/// The workers, by pod uid.
#[derive(Clone, Default)]
struct Workers {
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

impl Workers {
    fn with<R>(&self, f: impl FnOnce(&mut HashMap<String, Entry>) -> R) -> R {
        f(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Wakes the worker of one pod; without a uid, all.
    fn wake(&self, uid: Option<&str>) {
        self.with(|entries| match uid.and_then(|uid| entries.get(uid)) {
            Some(entry) => entry.wake.notify_one(),
            None if uid.is_none() => entries.values().for_each(|entry| entry.wake.notify_one()),
            None => {}
        });
    }
}

pub(crate) async fn run(
    config: Config,
    client: Client,
    volumes: Client,
    cri: cri::Clients,
    listener: TcpListener,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let (recorder, recording) = Recorder::new(&client, "kubelet", &config.node_name, cancel.clone());
    tasks.spawn(recording);
    let machine = Machine::read()?;
    let making = usize::try_from(machine.cpus).unwrap_or(1).max(1) * MAKING_PER_CPU;
    let context = Arc::new(Context {
        disks: Disks::new(&config.data_dir),
        host: Host { ip: config.node_ip.clone() },
        config,
        client: client.clone(),
        volumes,
        cri: cri.into(),
        recorder,
        machine,
        services: Cache::new(),
        port: listener.local_addr().context("read the address of the endpoint")?.port(),
        sources: Follower::new(client.clone(), tasks.clone(), cancel.clone()),
        making: Semaphore::new(making),
    });
    tasks.spawn(volume_keeper::run(context.clone(), cancel.clone()));
    tasks.spawn(node::run(context.clone(), Arc::new(Notify::new()), cancel.clone()));

    let services = Reflector {
        api: client.api(SERVICES),
        params: ListParams::default(),
        decode: kinds::typed::service,
        cache: context.services.clone(),
    };
    tasks.spawn(services.run(cancel.clone()));
    let cache: Cache<Arc<Pod>> = Cache::new();
    // Pods that appeared and pods that went, in order.
    let (changes, mut changed) = mpsc::unbounded_channel::<Wanted>();
    cache.on_change(move |change| {
        if let (Some(old), None) = (change.old, change.new) {
            // The receiver lives as long as the kubelet.
            let _ = changes.send(Wanted { pod: old.object.clone(), gone: true });
        } else if let Some(new) = change.new {
            // A pod that was replaced by one of the same name is gone, too.
            if let Some(old) = change.old.filter(|old| old.uid != new.uid) {
                let _ = changes.send(Wanted { pod: old.object.clone(), gone: true });
            }
            let _ = changes.send(Wanted { pod: new.object.clone(), gone: false });
        }
    });
    let reflector = Reflector {
        api: client.api(PODS),
        params: ListParams { fields: format!("spec.nodeName={}", context.config.node_name), ..ListParams::default() },
        decode: |bytes| kinds::typed::pod(bytes).map(Arc::new),
        cache: cache.clone(),
    };
    tasks.spawn(reflector.run(cancel.clone()));
    let known = cache.clone();
    let pods: server::Pods = Arc::new(move || known.all().iter().map(|cached| cached.object.clone()).collect());
    tasks.spawn(server::run(context.clone(), pods, listener, cancel.clone()));

    let workers = Workers::default();
    tasks.spawn(follow_runtime(context.clone(), workers.clone(), cancel.clone()));
    tasks.spawn(end_orphans(context.clone(), cache, cancel.clone()));
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            wanted = changed.recv() => match wanted {
                Some(wanted) => dispatch(&context, &workers, &tasks, wanted, &cancel),
                None => break,
            },
        }
    }
    tasks.close();
    tasks.wait().await;
    Ok(())
}

fn dispatch(
    context: &Arc<Context>,
    workers: &Workers,
    tasks: &TaskTracker,
    wanted: Wanted,
    cancel: &CancellationToken,
) {
    let uid = wanted.pod.metadata.uid.clone().unwrap_or_default();
    workers.with(|entries| {
        if let Some(entry) = entries.get(&uid) {
            entry.wanted.send_replace(wanted);
            return;
        }
        if wanted.gone {
            return;
        }
        let (sender, receiver) = watch::channel(wanted);
        let wake = Arc::new(Notify::new());
        entries.insert(uid.clone(), Entry { wanted: sender, wake: wake.clone() });
        tasks.spawn(supervise(context.clone(), workers.clone(), uid, receiver, wake, cancel.clone()));
    });
}

/// Runs a worker; one that panics is reported and started again.
async fn supervise(
    context: Arc<Context>,
    workers: Workers,
    uid: String,
    wanted: watch::Receiver<Wanted>,
    wake: Arc<Notify>,
    cancel: CancellationToken,
) {
    loop {
        let work = worker::run(context.clone(), wanted.clone(), wake.clone(), cancel.clone());
        match std::panic::AssertUnwindSafe(work).catch_unwind().await {
            Ok(true) => {
                workers.with(|entries| entries.remove(&uid));
                return;
            }
            Ok(false) => return,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied());
                tracing::error!(
                    pod = uid,
                    "the pod's worker panicked and is started again: {}",
                    text.unwrap_or("no message")
                );
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}

/// Wakes workers on events of the runtime. After each (re)connection all look once: what happened meanwhile told nobody.
async fn follow_runtime(context: Arc<Context>, workers: Workers, cancel: CancellationToken) {
    let follow = async {
        loop {
            match context.cri.get_container_events(v1::GetEventsRequest {}).await {
                Ok(events) => {
                    let mut events = events;
                    workers.wake(None);
                    loop {
                        match events.message().await {
                            Ok(Some(event)) => {
                                let sandbox = event.pod_sandbox_status.and_then(|status| status.metadata);
                                workers.wake(sandbox.as_ref().map(|metadata| metadata.uid.as_str()));
                            }
                            Ok(None) => break,
                            Err(status) => {
                                tracing::warn!("follow the runtime's events: {}", status.message());
                                break;
                            }
                        }
                    }
                }
                Err(status) => tracing::warn!("follow the runtime's events: {}", status.message()),
            }
            tokio::time::sleep(RECONNECT).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = follow => {}
    }
}

/// Ends sandboxes of pods that the API does not know, once it has been heard in full.
async fn end_orphans(context: Arc<Context>, cache: Cache<Arc<Pod>>, cancel: CancellationToken) {
    let work = async {
        cache.synced().await;
        let cri = context.cri.clone();
        let listed = cri.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.context("list sandboxes")?;
        let known: HashSet<String> = cache.all().iter().map(|pod| pod.uid.clone()).collect();
        let mut orphans: BTreeMap<String, v1::PodSandbox> = BTreeMap::new();
        for sandbox in listed.items {
            // What has no label of ours belongs to somebody else, such as a Docker client.
            if sandbox.labels.get(POD_UID).is_some_and(|uid| !known.contains(uid)) {
                orphans.insert(sandbox.id.clone(), sandbox);
            }
        }
        let ends = orphans.into_values().map(|sandbox| end_orphan(&context, sandbox));
        for error in futures::future::join_all(ends).await.into_iter().filter_map(Result::err) {
            tracing::warn!("end a pod that nobody asks for: {error:#}");
        }
        anyhow::Ok(())
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        result = work => if let Err(error) = result {
            tracing::warn!("end pods that nobody asks for: {error:#}");
        },
    }
}

async fn end_orphan(context: &Arc<Context>, sandbox: v1::PodSandbox) -> anyhow::Result<()> {
    let cri = context.cri.clone();
    let timeout = sandbox.annotations.get(GRACE).and_then(|grace| grace.parse().ok()).unwrap_or(ORPHAN_GRACE);
    let filter = v1::ContainerFilter { pod_sandbox_id: sandbox.id.clone(), ..v1::ContainerFilter::default() };
    let listed = cri.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await?.containers;
    let stops =
        listed.into_iter().filter(|found| found.state == v1::ContainerState::ContainerRunning as i32).map(|found| {
            let cri = cri.clone();
            async move { cri.stop_container(v1::StopContainerRequest { container_id: found.id, timeout }).await }
        });
    futures::future::try_join_all(stops).await?;
    cri.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() }).await?;
    cri.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() }).await?;
    let uid = sandbox.labels.get(POD_UID).cloned().unwrap_or_default();
    let directory = crate::volumes::PodDirectory::new(&context.config.data_dir, &uid);
    let of = context.clone();
    tokio::task::spawn_blocking(move || {
        directory.remove()?;
        of.disks.release()
    })
    .await?
}
