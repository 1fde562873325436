//! `knarr server`: control plane and node in one process, started in order and stopped in reverse.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::{ApiServer, KUBERNETES, KubeletClient};
use auth::User;
use client::{Client, ListParams, Resource, clock};
use container_engine::Engine;
use controllers::Manager;
use docker_api::DockerApi;
use image_store::ImageStore;
use kubelet::Kubelet;
use pod_network::Cidr;
use scheduler::Scheduler;
use store::{Journal, LogStore, Store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::options::{Dirs, ServerOptions, Taint};
use crate::pki::{API_TO_KUBELET, Pki};
use crate::{control, first_objects, host, kubeconfig, network, node_labels};

/// How often memory that is free goes back to the kernel: what a burst of pods needed is not kept.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);

pub const NODES: Resource = Resource { group: "", version: "v1", plural: "nodes" };

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When something cannot be started; what was started before is stopped again.
pub async fn run(options: ServerOptions) -> Result<()> {
    host::require_root("knarr server")?;
    let dirs = &options.dirs;
    service_proxy::check().await?;
    make_directories(dirs)?;
    let hold = host::hold(&dirs.data_dir)?;
    let api_listener = host::listen(options.listen, "the API", "--listen")?;
    let kubelet_listener = host::listen(options.kubelet_listen, "the kubelet", "--kubelet-listen")?;
    let mut signals = Signals::new()?;
    let outcome = match start(&options, api_listener, kubelet_listener).await {
        Ok(mut running) => {
            let ended = tokio::select! {
                name = signals.next() => {
                    tracing::info!("stop: {name}");
                    Ok(())
                }
                ended = running.until_one_ends() => ended,
            };
            running.stop().await;
            ended
        }
        Err(error) => Err(error),
    };
    drop(hold);
    outcome
}

fn make_directories(dirs: &Dirs) -> Result<()> {
    for dir in [&dirs.data_dir, &dirs.run_dir] {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("make directory {}", dir.display()))?;
    }
    Ok(())
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let get = |kind| signal(kind).context("listen for signals");
        Ok(Self { terminate: get(SignalKind::terminate())?, interrupt: get(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! { _ = self.terminate.recv() => "SIGTERM", _ = self.interrupt.recv() => "SIGINT" }
    }
}

/// One part of the server: its name, what stops it, and its task.
pub(crate) struct Part {
    name: &'static str,
    stop: CancellationToken,
    tasks: JoinSet<Result<()>>,
}

/// Everything that runs, in the order of its start.
struct Running {
    parts: Vec<Part>,
    engine: Arc<Engine>,
    store: Arc<dyn Store>,
}

impl Running {
    /// Ends when a part ends without having been asked to.
    async fn until_one_ends(&mut self) -> Result<()> {
        let ends = self.parts.iter_mut().map(|part| {
            let name = part.name;
            Box::pin(async move { (name, part.tasks.join_next().await) })
        });
        let ((name, outcome), ..) = futures::future::select_all(ends).await;
        match outcome {
            Some(Ok(Ok(()))) | None => anyhow::bail!("{name} has ended by itself"),
            Some(Ok(Err(error))) => Err(error.context(format!("{name} has failed"))),
            Some(Err(error)) => Err(error).with_context(|| format!("{name} has panicked")),
        }
    }

    /// Stops the parts in reverse. Pods go on running.
    async fn stop(mut self) {
        while let Some(mut part) = self.parts.pop() {
            part.stop.cancel();
            while let Some(ended) = part.tasks.join_next().await {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!("stop {}: {error:#}", part.name),
                    Err(error) => tracing::error!("stop {}: {error}", part.name),
                }
            }
        }
        self.engine.shutdown().await;
        self.store.close().await;
        tracing::info!("stopped; pods keep running");
    }
}

async fn start(
    options: &ServerOptions,
    api_listener: std::net::TcpListener,
    kubelet_listener: std::net::TcpListener,
) -> Result<Running> {
    let dirs = &options.dirs;
    let node = options.node_name.clone().map_or_else(host::node_name, Ok)?;
    // The API server calls the kubelet at the node's address, so one that it is told to listen on is the node's.
    let listening = Some(options.kubelet_listen.ip()).filter(|ip| !ip.is_unspecified());
    let address = options.node_ip.or(listening).unwrap_or_else(host::address);
    let pki =
        Pki::ensure(&dirs.data_dir.join("pki"), &node, &host_names(options, &node, address), clock::now().as_second())?;
    let port = options.listen.port();
    let reach =
        if options.listen.ip().is_unspecified() { "127.0.0.1".to_owned() } else { options.listen.ip().to_string() };
    kubeconfig::keep(&dirs.kubeconfig(), &pki, &format!("https://{reach}:{port}"))?;

    let store_dir = dirs.data_dir.join("store");
    store::take_over(&dirs.data_dir.join("store.redb"), &store_dir)?;
    let store: Arc<dyn Store> = LogStore::open(Journal::open(&store_dir)?)?;
    let kubelet_client = KubeletClient { tls: pki.to_kubelet_tls()? };
    let server = ApiServer::new(store.clone(), kubelet_client, pki.token_key()?, format!("{address}:{port}"))?;
    server.set_front_proxy(pki.front_proxy()?);
    server.set_store_directory(store_dir);
    server.set_service_range(options.service_cidr.network, options.service_cidr.prefix);
    let mut parts = Vec::new();
    let api_listener = TcpListener::from_std(api_listener).context("listen for the API")?;
    let tls = pki.api_tls()?;
    part(&mut parts, "the API server", |stop| server.clone().serve(api_listener, tls.clone(), stop));

    let api = server.client(User::authenticated("system:apiserver", &["system:masters"]));
    let range = options.service_cidr.to_string();
    let (first, engine) = tokio::join!(first_objects::ensure(&api, &range, &pki), start_engine(options, dirs));
    first?;
    let (engine, images) = engine?;
    let cluster_dns = network::start(options, &node, address, &server, tls, &mut parts).await?;
    server.set_ready();
    let keeper = api.clone();
    part(&mut parts, "the first objects", |stop| first_objects::keep(keeper, range, stop));

    let cri_socket = dirs.run_dir.join("cri.sock");
    let serving = engine.clone();
    part(&mut parts, "the CRI socket", |stop| async move {
        tokio::select! { () = stop.cancelled() => {}, ended = serving.serve(&cri_socket) => ended? }
        fs::remove_file(&cri_socket).with_context(|| format!("remove {}", cri_socket.display()))
    });
    let docker_images = images.clone();
    let control_socket = dirs.control_socket();
    part(&mut parts, "the control socket", |stop| control::serve(control_socket, images, stop));

    let as_controllers = server.clone();
    let manager = Manager::new(
        server.client(User::authenticated("system:kube-controller-manager", &[])),
        move |name| as_controllers.client(User::service_account_of("kube-system", name, "", BTreeMap::new())),
        pki.authority.clone(),
    )
    .signing_as(pki.signing()?)
    .measured_with(server.queues());
    part(&mut parts, "the controllers", |stop| async move {
        manager.run(stop).await;
        Ok(())
    });
    let scheduler = Scheduler::new(server.client(User::authenticated("system:kube-scheduler", &[])));
    part(&mut parts, "the scheduler", |stop| async move {
        scheduler.run(stop).await;
        Ok(())
    });
    let (major, minor, patch) = KUBERNETES;
    // Those that a kubelet may not set itself are the administrator's to set.
    let (reserved, free) = labels_of(options).into_iter().partition(|(key, _)| apiserver::is_reserved_label(key));
    let (labelling, of_node) = (api.clone(), node.clone());
    part(&mut parts, "the labels of the node", |stop| node_labels::keep(labelling, of_node, reserved, stop));
    let config = kubelet::Config {
        node_name: node.clone(),
        node_ip: address.to_string(),
        version: format!("v{major}.{minor}.{patch}+knarr{}", env!("CARGO_PKG_VERSION")),
        data_dir: dirs.data_dir.join("kubelet"),
        logs_dir: dirs.data_dir.join("logs"),
        cgroup_root: format!("/{}", options.cgroup_root),
        pod_cidr: options.pod_cidr.clone(),
        labels: free,
        taints: options.node_taints.iter().map(taint).collect(),
        cluster_dns: vec![cluster_dns.to_string()],
        cluster_domain: network::CLUSTER_DOMAIN.to_owned(),
        tls: pki.kubelet_tls()?,
        allow: Arc::new(|user: &str| user == API_TO_KUBELET),
    };
    let as_node = server.client(User::authenticated(&format!("system:node:{node}"), &["system:nodes"]));
    let as_keeper = server.client(User::authenticated("system:local-volumes", &[]));
    let kubelet = Kubelet::new(config, as_node, as_keeper, cri::in_process(engine.clone()));
    let kubelet_listener = TcpListener::from_std(kubelet_listener).context("listen for the kubelet")?;
    part(&mut parts, "the kubelet", |stop| kubelet.run(kubelet_listener, stop));

    part(&mut parts, "the return of free memory", |stop| async move {
        while tokio::time::timeout(GIVE_BACK_EVERY, stop.cancelled()).await.is_err() {
            isolation::memory::release_free_pages();
        }
        Ok(())
    });
    let config = docker_api::Config {
        data_dir: dirs.data_dir.join("docker"),
        node_name: node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let docker = DockerApi::open(config, engine.clone(), docker_images).await.context("start the Docker API")?;
    let docker_socket = dirs.docker_socket();
    part(&mut parts, "the Docker API", |stop| async move { docker.serve(&docker_socket, stop).await });

    let kubeconfig = dirs.kubeconfig();
    part(&mut parts, "the announcement", |stop| async move {
        tokio::select! {
            () = stop.cancelled() => {}
            ready = announce(&api, &node, &kubeconfig) => {
                ready?;
                stop.cancelled().await;
            }
        }
        Ok(())
    });
    Ok(Running { parts, engine, store })
}

/// The labels of the node: it has the control plane, and what it was told.
fn labels_of(options: &ServerOptions) -> BTreeMap<String, String> {
    let own = ("node-role.kubernetes.io/control-plane".to_owned(), String::new());
    std::iter::once(own).chain(options.node_labels.iter().cloned()).collect()
}

fn taint(taint: &Taint) -> serde_json::Value {
    let mut object = serde_json::json!({"key": taint.key, "effect": taint.effect});
    if !taint.value.is_empty() {
        object["value"] = taint.value.as_str().into();
    }
    object
}

/// Starts a part; it is given what stops it.
pub(crate) fn part<F>(parts: &mut Vec<Part>, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(run(stop.clone()));
    parts.push(Part { name, stop, tasks });
}

async fn start_engine(options: &ServerOptions, dirs: &Dirs) -> Result<(Arc<Engine>, Arc<ImageStore>)> {
    let root = dirs.images();
    let images =
        tokio::task::spawn_blocking(move || ImageStore::open(&root)).await.context("open the image store")??;
    let engine =
        Engine::start(engine_config(options, dirs), images.clone()).await.context("start the container engine")?;
    Ok((engine, images))
}

/// What the engine is told; `uninstall` tells it the same.
pub fn engine_config(options: &ServerOptions, dirs: &Dirs) -> container_engine::Config {
    container_engine::Config {
        data_dir: dirs.data_dir.join("containers"),
        run_dir: dirs.run_dir.clone(),
        shim_exe: "/proc/self/exe".into(),
        bridge: options.bridge.clone(),
        pod_cidr: options.pod_cidr.clone(),
        cgroup_root: format!("/{}", options.cgroup_root),
        streaming_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}

/// The names and addresses by which the API is reached.
fn host_names(options: &ServerOptions, node: &str, address: IpAddr) -> Vec<String> {
    let fixed = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        node,
    ];
    // The first address of the range is that of the Service `kubernetes`; pods reach it, or the gateway, under its name.
    let service = options.service_cidr.host(1).to_string();
    let gateway = Cidr::parse(&options.pod_cidr).map(|pods| pods.gateway().to_string());
    fixed.iter().map(|s| (*s).to_owned()).chain([address.to_string(), service]).chain(gateway).collect()
}

/// Says when the node is Ready, and how to use the cluster.
async fn announce(api: &Client, node: &str, kubeconfig: &Path) -> Result<()> {
    let nodes = api.api(NODES);
    let params = ListParams { fields: format!("metadata.name={node}"), ..ListParams::default() };
    let is_ready = |object: &serde_json::Value| {
        let conditions = object["status"]["conditions"].as_array();
        conditions.is_some_and(|c| c.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
    };
    loop {
        let mut watch = nodes.watch(None, &params, "0").await.context("watch the node")?;
        while let Some(event) = watch.next().await.context("watch the node")? {
            let object: serde_json::Value = serde_json::from_slice(&event.object).context("read the node")?;
            if is_ready(&object) {
                let mut out = std::io::stdout().lock();
                writeln!(out, "knarr is ready. To use it: export KUBECONFIG={}", kubeconfig.display())
                    .and_then(|()| out.flush())
                    .context("say that the node is ready")?;
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
