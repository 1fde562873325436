//! Pod sandboxes and containers: implements CRI v1 over image-store, isolation and pod-network.
//!
//! [`Engine`] holds what is known about sandboxes and containers and makes it so; `runtime` and `images` put the words
//! of CRI on it; `streaming` carries exec and attach. What runs, runs under shims (see `isolation`) and not under this
//! process: [`Engine::start`] takes up whatever an earlier one left.

mod adopt;
mod containers;
mod convert;
mod images;
mod record;
mod runtime;
mod sandboxes;
mod server;
mod single;
mod stats;
mod streaming;
mod streams;
mod watch;

pub use convert::signal_named;
pub use single::{Command, Network as SingleNetwork, Single, SingleSpec, Streams};
pub use streams::Stream;

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use cri::v1;
use image_store::ImageStore;
use isolation::{Nursery, Shim, cgroup::Hierarchies};
use pod_network::{Cidr, Network};
use record::{ContainerRecord, SandboxRecord};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

/// Where the engine keeps its things, and what it may use.
#[derive(Clone, Debug)]
pub struct Config {
    /// What outlives a reboot: records and writable layers.
    pub data_dir: PathBuf,
    /// What does not: sockets of the shims, who has which address. Best on a tmpfs.
    pub run_dir: PathBuf,
    /// The binary to fork shims from; its `main` begins with `isolation::dispatch`. Usually `/proc/self/exe`.
    pub shim_exe: PathBuf,
    /// Name of the bridge, at most 15 bytes.
    pub bridge: String,
    /// Addresses of pods, such as `10.42.0.0/24`.
    pub pod_cidr: String,
    /// Control group of pods whose caller names none, such as `/knarr`.
    pub cgroup_root: String,
    /// Where exec and attach are streamed: a loopback address, port 0 for any.
    pub streaming_addr: SocketAddr,
}

/// Locks, and goes on after a panic elsewhere: every critical section here leaves whole values behind.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sandbox in memory.
pub(crate) struct Sandbox {
    pub record: Mutex<SandboxRecord>,
    /// Its shim, while it runs.
    pub shim: Mutex<Option<Shim>>,
    /// One change at a time.
    pub changing: tokio::sync::Mutex<()>,
}

/// A container in memory.
pub(crate) struct Container {
    pub record: Mutex<ContainerRecord>,
    /// Turns true when its first process has ended.
    pub ended: tokio::sync::watch::Sender<bool>,
    pub changing: tokio::sync::Mutex<()>,
}

/// The container engine of a node.
pub struct Engine {
    /// Itself, for tasks that outlive a call.
    me: std::sync::Weak<Self>,
    pub(crate) config: Config,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) network: Network,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) nursery: Nursery,
    pub(crate) sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    pub(crate) containers: Mutex<HashMap<String, Arc<Container>>>,
    pub(crate) events: tokio::sync::broadcast::Sender<v1::ContainerEventResponse>,
    pub(crate) streams: streaming::Sessions,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Engine {
    /// Starts the engine and adopts whatever still runs from before: same ids, logs and exit codes.
    pub async fn start(config: Config, images: Arc<ImageStore>) -> Result<Arc<Self>> {
        for dir in
            [config.data_dir.join("sandboxes"), config.data_dir.join("containers"), config.run_dir.join("sandboxes")]
        {
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        let cidr = Cidr::parse(&config.pod_cidr)?;
        let (dir, bridge) = (config.run_dir.join("network"), config.bridge.clone());
        let network = blocking(move || Network::open(&dir, &bridge, cidr)).await.context("set up the pod network")?;
        let hierarchies = Hierarchies::detect()?;
        let nursery = Nursery::start(&config.shim_exe)?;
        let (listener, streams) = streaming::Sessions::bind(config.streaming_addr).await?;
        let engine = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            config,
            images,
            network,
            hierarchies,
            nursery,
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: tokio::sync::broadcast::channel(1024).0,
            streams,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        engine.adopt().await?;
        engine.tasks.spawn(streaming::serve(engine.clone(), listener));
        Ok(engine)
    }

    /// Ends the engine's own tasks and leaves every pod running.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops and removes every pod, and everything else that the engine made on the machine. Goes on when a step fails
    /// and answers all that went wrong. The engine cannot be used afterwards.
    pub async fn remove_everything(&self) -> Vec<anyhow::Error> {
        let mut problems = Vec::new();
        let ids: Vec<String> = lock(&self.sandboxes).keys().cloned().collect();
        for id in ids {
            problems.extend(self.remove_sandbox(&id).await.err());
        }
        self.shutdown().await;
        let engine = self.arc();
        let rest = blocking(move || {
            let mut problems = engine.network.remove_everything();
            problems.extend(engine.hierarchies.group(&engine.config.cgroup_root).remove().err());
            for dir in ["sandboxes", "containers"] {
                for root in [&engine.config.data_dir, &engine.config.run_dir] {
                    match fs::remove_dir_all(root.join(dir)) {
                        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                            problems.push(anyhow::Error::new(e).context(format!("remove {dir}")));
                        }
                        _ => {}
                    }
                }
            }
            Ok(problems)
        })
        .await;
        match rest {
            Ok(more) => problems.extend(more),
            Err(e) => problems.push(e),
        }
        problems
    }

    pub(crate) fn arc(&self) -> Arc<Self> {
        self.me.upgrade().expect("an engine is only reached by way of its Arc")
    }

    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Status> {
        by_id(&lock(&self.sandboxes), id, "pod sandbox")
    }

    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        by_id(&lock(&self.containers), id, "container")
    }

    /// The shim of a container's sandbox.
    pub(crate) fn shim_of(&self, sandbox: &str) -> Result<Shim> {
        let sandbox = self.sandbox(sandbox)?;
        let shim = lock(&sandbox.shim).clone();
        shim.context("the pod sandbox is not running")
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let containers = lock(&self.containers);
        containers.values().filter(|container| lock(&container.record).sandbox_id == sandbox).cloned().collect()
    }

    pub(crate) fn sandbox_data(&self, id: &str) -> PathBuf {
        self.config.data_dir.join("sandboxes").join(id)
    }

    pub(crate) fn sandbox_run(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("sandboxes").join(id)
    }

    pub(crate) fn container_data(&self, id: &str) -> PathBuf {
        self.config.data_dir.join("containers").join(id)
    }
}

/// Finds by a whole id, or by the beginning of only one.
fn by_id<T>(all: &HashMap<String, Arc<T>>, id: &str, what: &str) -> Result<Arc<T>, Status> {
    if let Some(found) = all.get(id) {
        return Ok(found.clone());
    }
    let mut matching = all.iter().filter(|(full, _)| !id.is_empty() && full.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Ok(found.clone()),
        (Some(_), Some(_)) => Err(Status::invalid_argument(format!("{what} id {id:?} is ambiguous"))),
        (None, _) => Err(Status::not_found(format!("{what} {id:?} not found"))),
    }
}

/// Runs blocking work on a thread for such; a panic in it is an error here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("run a blocking step")?
}

/// An error as gRPC has it: one that is a status already stays what it is.
pub(crate) fn status(error: anyhow::Error) -> Status {
    match error.downcast_ref::<Status>() {
        Some(status) => Status::new(status.code(), status.message()),
        None => Status::unknown(format!("{error:#}")),
    }
}

/// A new id: 32 random bytes in hexadecimal.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// Nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the clock of the engine")]
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
