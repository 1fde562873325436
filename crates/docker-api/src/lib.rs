//! The Docker Engine API on a unix socket, over the same container engine and the same images as the pods.
//!
//! [`DockerApi`] remembers containers, volumes and networks below its directory; what runs, runs under the engine's shims
//! and is adopted by the next start. One file for each noun: `containers` and `lifecycle`, `images`, `volumes`,
//! `networks`; `streams`, `logs` and `archive` carry bytes; `prune` removes what nobody uses.
//!
//! Containers of pods are not Docker's: they are not listed here, and what they use is never removed.

mod archive;
mod containers;
mod create;
mod error;
mod exec;
mod filters;
mod http;
mod images;
mod lifecycle;
mod logs;
mod model;
mod names;
mod networks;
mod ports;
mod prune;
mod router;
mod streams;
mod system;
mod time;
mod volumes;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ::http::StatusCode;
use anyhow::{Context as _, Result};
use container_engine::{Engine, Streams};
use image_store::ImageStore;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::sync::{Notify, broadcast, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::model::{Network, Record, Volume};

/// The name under which the engine knows whose containers these are.
const OWNER: &str = "docker";

/// How the API is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Containers, volumes and networks.
    pub data_dir: PathBuf,
    /// Name of the node.
    pub node_name: String,
    /// Version of the server, such as `0.1.0`.
    pub version: String,
}

/// Locks, and goes on after a panic elsewhere: every critical section here leaves whole values behind.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a container's life has come, for those who wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    pub exits: u64,
    pub running: bool,
    pub removed: bool,
    pub exit_code: i32,
}

/// A container in memory.
pub(crate) struct Container {
    pub record: Mutex<Record>,
    /// One change at a time.
    pub changing: tokio::sync::Mutex<()>,
    pub progress: watch::Sender<Progress>,
    /// Who attached before the start, and gets the streams then.
    pub attaching: Mutex<Vec<oneshot::Sender<Streams>>>,
    /// Ends the wait before a restart.
    pub give_up: Notify,
    /// Open ports on the machine; closed when this is dropped.
    pub ports: Mutex<Option<ports::Published>>,
}

impl Container {
    fn new(record: Record) -> Self {
        Self {
            record: record.into(),
            changing: tokio::sync::Mutex::default(),
            progress: watch::channel(Progress::default()).0,
            attaching: Mutex::default(),
            give_up: Notify::new(),
            ports: Mutex::default(),
        }
    }

    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }
}

/// The Docker side of a node.
pub struct DockerApi {
    me: std::sync::Weak<Self>,
    pub(crate) config: Config,
    pub(crate) engine: Arc<Engine>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) containers: Mutex<BTreeMap<String, Arc<Container>>>,
    pub(crate) volumes: Mutex<BTreeMap<String, Volume>>,
    pub(crate) networks: Mutex<BTreeMap<String, Network>>,
    pub(crate) execs: Mutex<HashMap<String, exec::Exec>>,
    pub(crate) events: broadcast::Sender<Value>,
    /// Held while something is created that a prune could take away again.
    pub(crate) pruning: tokio::sync::RwLock<()>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl DockerApi {
    /// Reads what is remembered, takes up containers that still run, and starts those whose policy wants it.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub async fn open(config: Config, engine: Arc<Engine>, images: Arc<ImageStore>) -> Result<Arc<Self>> {
        for dir in ["containers", "volumes", "networks", "tmp"] {
            let dir = config.data_dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        }
        // Half an upload is worth nothing.
        for left in fs::read_dir(config.data_dir.join("tmp")).context("sweep uploads")?.flatten() {
            fs::remove_file(left.path()).with_context(|| format!("remove {}", left.path().display()))?;
        }
        let volumes = read_all::<Volume>(&config.data_dir.join("volumes"))?;
        let networks = read_all::<Network>(&config.data_dir.join("networks"))?;
        let records = read_all::<Record>(&config.data_dir.join("containers"))?;
        let api = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            config,
            engine,
            images,
            containers: Mutex::default(),
            volumes: Mutex::new(volumes.into_iter().map(|one| (one.name.clone(), one)).collect()),
            networks: Mutex::new(networks.into_iter().map(|one| (one.id.clone(), one)).collect()),
            execs: Mutex::default(),
            events: broadcast::channel(256).0,
            pruning: tokio::sync::RwLock::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        api.adopt(records).await?;
        Ok(api)
    }

    pub(crate) fn arc(&self) -> Arc<Self> {
        self.me.upgrade().expect("the API is only reached by way of its Arc")
    }

    pub(crate) fn dir(&self, kind: &str, name: &str) -> PathBuf {
        self.config.data_dir.join(kind).join(name)
    }

    /// A file for an upload; it goes with its handle.
    pub(crate) fn scratch(&self) -> Result<tempfile::NamedTempFile> {
        tempfile::NamedTempFile::new_in(self.config.data_dir.join("tmp")).context("make a file for an upload")
    }
}

/// Name of the file that remembers something, in its directory.
const FILE: &str = "config.json";

/// Replaces what is remembered; after a crash there is the old or the new.
pub(crate) fn write(dir: &Path, value: &impl Serialize) -> Result<()> {
    let fresh = dir.join("config.new");
    let remember = || -> Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(&fresh, serde_json::to_vec(value)?)?;
        fs::rename(&fresh, dir.join(FILE))?;
        Ok(())
    };
    remember().with_context(|| format!("write {}", dir.join(FILE).display()))
}

/// Everything remembered below a directory. What has no readable file is half made or half removed, and goes.
fn read_all<T: DeserializeOwned>(dir: &Path) -> Result<Vec<T>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry.with_context(|| format!("list {}", dir.display()))?.path();
        match fs::read(path.join(FILE)) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(one) => found.push(one),
                // Data may lie beside it: nothing is removed for a file that cannot be understood.
                Err(e) => tracing::error!("read {}: {e}", path.join(FILE).display()),
            },
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                tracing::info!("sweep {}, which is half made", path.display());
                fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
            }
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(found)
}

/// Runs blocking work on a thread for such; a panic in it is an error here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("run a blocking step")
}

/// Status of an answer without a body.
pub(crate) const NO_CONTENT: StatusCode = StatusCode::NO_CONTENT;
