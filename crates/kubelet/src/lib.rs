//! Makes one node match its pods, and reports back; speaks CRI to whatever runtime it is given.
//!
//! Each pod has one worker with three rooms: it looks (`view`), plans ([`plan_pod`], pure) and acts (`steps`); what it sees
//! goes to the API as [`status_of`] says, also pure. Workers sleep until something happens: a change of the pod, an event of
//! the runtime, an answer of a probe, the end of a pause.

mod context;
mod cri_config;
mod env;
mod logs;
mod manager;
mod node;
mod persistent;
mod plan;
mod probe;
mod prober;
mod pull;
mod refresh;
mod runtime;
mod server;
mod service_env;
mod sources;
mod status;
mod steps;
mod tls;
mod view;
mod volume_keeper;
mod volumes;
mod worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use plan::{Plan, Step, plan_pod};
pub use server::Allow;
pub use status::{Host, Phase, phase, qos_class, status_of};
pub use view::{
    Backoff, ContainerState, Failure, ImageProgress, Memory, ProbeResults, Runtime, Sandbox, Stage, Volumes,
};

/// What a kubelet must be told.
#[derive(Clone)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The address by which others reach this node.
    pub node_ip: String,
    /// The version that the node reports, such as `v1.37.0`.
    pub version: String,
    /// Where pods' volumes and files are kept.
    pub data_dir: PathBuf,
    /// Where the runtime writes logs: one directory for each pod.
    pub logs_dir: PathBuf,
    /// The root of pods' cgroups, such as `/knarr`.
    pub cgroup_root: String,
    /// The addresses that pods of this node get, such as `10.244.0.0/24`; empty if somebody else says.
    pub pod_cidr: String,
    /// Labels that the node gets when it registers, beside those that say what machine it is.
    pub labels: BTreeMap<String, String>,
    /// Taints that the node gets when it registers, as in its spec.
    pub taints: Vec<serde_json::Value>,
    /// Name servers of the cluster; pods use the host's while there are none.
    pub cluster_dns: Vec<String>,
    /// The domain of the cluster, such as `cluster.local`.
    pub cluster_domain: String,
    /// Certificate of the endpoint, and whose client certificates it asks for.
    pub tls: Arc<rustls::ServerConfig>,
    /// Which users, by the name in their client certificate, may use the endpoint.
    pub allow: Allow,
}

/// One node's agent.
pub struct Kubelet {
    config: Config,
    client: client::Client,
    volumes: client::Client,
    cri: cri::Clients,
}

impl Kubelet {
    /// A kubelet for this node, not yet running. It speaks as the node with `client`, and with `volumes` as the keeper of the
    /// volumes on its disk, which are more than those that its pods use.
    pub fn new(config: Config, client: client::Client, volumes: client::Client, cri: cri::Clients) -> Kubelet {
        Kubelet { config, client, volumes, cri }
    }

    /// Runs until cancelled, answering for logs and exec on `listener`. Pods go on running afterwards; the next run takes
    /// them over.
    ///
    /// # Errors
    /// When the data directory cannot be made or the machine cannot be read.
    pub async fn run(mut self, listener: TcpListener, cancel: CancellationToken) -> anyhow::Result<()> {
        let data = &self.config.data_dir;
        std::fs::create_dir_all(data.join("pods")).with_context(|| format!("make {}", data.display()))?;
        // As the kernel's table of mounts names it.
        self.config.data_dir = data.canonicalize().with_context(|| format!("look up {}", data.display()))?;
        manager::run(self.config, self.client, self.volumes, self.cri, listener, cancel).await
    }
}
