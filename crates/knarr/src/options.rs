//! The command line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Kubernetes in one binary, with the container engine inside.
///
/// `knarr server` is control plane and node in one process. It needs root, and the program `nft` for Services. Pods outlive it:
/// stop it, crash it or upgrade it, and the next start finds them running.
#[derive(Debug, Parser)]
#[command(name = "knarr", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "First steps:\n  knarr server                                       start; leave it running\n  \
    export KUBECONFIG=/var/lib/knarr/admin.kubeconfig  in another shell\n  \
    kubectl get nodes\n  knarr image import image.tar                       bring an image, from `docker save` or an OCI layout\n  \
    knarr uninstall                                    stop all pods and remove every trace"
)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane and the node, until SIGTERM; pods keep running.
    Server(ServerOptions),
    /// Images of the node.
    #[command(subcommand)]
    Image(ImageCommand),
    /// Containers that docker started.
    #[command(subcommand)]
    Container(ContainerCommand),
    /// Volumes that docker made.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Networks that docker made.
    #[command(subcommand)]
    Network(NetworkCommand),
    /// The whole of what docker has.
    #[command(subcommand)]
    System(SystemCommand),
    /// The built-in kubectl: get, apply, describe, logs, exec, delete, rollout and more.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// What kubectl is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Stop every pod and remove every link, mount, cgroup, socket and file that knarr made.
    Uninstall(UninstallOptions),
}

/// Where knarr keeps its things.
#[derive(Debug, Clone, Args)]
pub struct Dirs {
    /// What outlives a reboot: objects, keys, images, volumes, logs.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/knarr", env = "KNARR_DATA_DIR", value_parser = absolute)]
    pub data_dir: PathBuf,
    /// What does not: sockets, and the state of running pods.
    #[arg(long, value_name = "DIR", default_value = "/run/knarr", env = "KNARR_RUN_DIR", value_parser = absolute)]
    pub run_dir: PathBuf,
}

impl Dirs {
    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// The images.
    pub fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// Where a running server speaks the Docker Engine API.
    pub fn docker_socket(&self) -> PathBuf {
        self.run_dir.join("docker.sock")
    }

    /// Where a running server takes commands.
    pub fn control_socket(&self) -> PathBuf {
        self.run_dir.join("knarr.sock")
    }
}

/// Mounts, shims and other commands are told these paths, and have working directories of their own.
fn absolute(text: &str) -> Result<PathBuf, String> {
    std::path::absolute(text).map_err(|e| e.to_string())
}

/// Options of `knarr server`.
#[derive(Debug, Clone, Args)]
pub struct ServerOptions {
    /// Where its things are.
    #[command(flatten)]
    pub dirs: Dirs,
    /// Where the API listens.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// Where the kubelet listens, for logs and exec.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:10250")]
    pub kubelet_listen: SocketAddr,
    /// The node's name; the host's name if not given.
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    pub node_name: Option<String>,
    /// The node's address; if not given, that of --kubelet-listen, or of the default route.
    #[arg(long, value_name = "ADDR")]
    pub node_ip: Option<IpAddr>,
    /// A label that the node gets when it registers; can be given again.
    #[arg(long = "node-label", value_name = "KEY=VALUE", value_parser = label)]
    pub node_labels: Vec<(String, String)>,
    /// A taint that the node gets when it registers; can be given again. To keep a node for management:
    /// node-role.kubernetes.io/control-plane:NoSchedule
    #[arg(long = "node-taint", value_name = "KEY[=VALUE]:EFFECT", value_parser = taint)]
    pub node_taints: Vec<Taint>,
    /// What pods get their addresses from.
    #[arg(long, value_name = "CIDR", default_value = "10.42.0.0/24", value_parser = cidr)]
    pub pod_cidr: String,
    /// What Services get their addresses from.
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16", value_parser = service_cidr)]
    pub service_cidr: ServiceCidr,
    /// Where Ingresses are served over HTTP.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:80")]
    pub ingress_http: SocketAddr,
    /// Where Ingresses are served over HTTPS.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:443")]
    pub ingress_https: SocketAddr,
    /// The bridge that pods are on, at most 15 characters.
    #[arg(long, value_name = "NAME", default_value = "knarr0", value_parser = link_name)]
    pub bridge: String,
    /// The control group below which pods are.
    #[arg(long, value_name = "NAME", default_value = "knarr")]
    pub cgroup_root: String,
}

fn node_name(text: &str) -> Result<String, String> {
    match object_model::names::dns_subdomain(text).first() {
        None => Ok(text.to_owned()),
        Some(problem) => Err(problem.clone()),
    }
}

/// A taint, as it is given: `key=value:NoSchedule`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, empty for none.
    pub value: String,
    /// NoSchedule, PreferNoSchedule or NoExecute.
    pub effect: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    key_and_value(key, value).map(|()| (key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let (pair, effect) = text.rsplit_once(':').ok_or("a taint is KEY[=VALUE]:EFFECT")?;
    if !EFFECTS.contains(&effect) {
        return Err(format!("the effect of a taint is one of {}, not {effect:?}", EFFECTS.join(", ")));
    }
    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
    key_and_value(key, value)?;
    Ok(Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned() })
}

fn key_and_value(key: &str, value: &str) -> Result<(), String> {
    let mut problems = object_model::names::qualified_name(key);
    problems.extend(object_model::names::label_value(value));
    problems.into_iter().next().map_or(Ok(()), Err)
}

fn cidr(text: &str) -> Result<String, String> {
    pod_network::Cidr::parse(text).map(|_| text.to_owned()).map_err(|e| format!("{e:#}"))
}

/// The range of the Services' addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceCidr {
    /// The first address of the range.
    pub network: Ipv4Addr,
    /// How many bits all its addresses share.
    pub prefix: u8,
}

impl ServiceCidr {
    /// The address with this number in the range.
    pub fn host(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + number)
    }
}

impl std::fmt::Display for ServiceCidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

fn service_cidr(text: &str) -> Result<ServiceCidr, String> {
    let wrong = || format!("{text} is no range of IPv4 addresses: write it like 10.96.0.0/16");
    let (network, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let (network, prefix) = (network.parse::<Ipv4Addr>().map_err(|_| wrong())?, prefix.parse().map_err(|_| wrong())?);
    // The tenth address is the DNS's, so there must be more than that; upstream takes at most 20 bits as well.
    if !(12..=27).contains(&prefix) {
        return Err(format!("{text} has not between 32 and 1048576 addresses: use a prefix of 12 to 27 bits"));
    }
    let network = Ipv4Addr::from(u32::from(network) & (u32::MAX << (32 - u32::from(prefix))));
    Ok(ServiceCidr { network, prefix })
}

/// The kernel's rule for names of network interfaces (`IFNAMSIZ`, and no blank or slash).
fn link_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 15 || text.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        return Err("a network interface has a name of 1 to 15 characters without blank, colon or slash".to_owned());
    }
    Ok(text.to_owned())
}

/// `knarr image …`
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Import images from docker archives (`docker save`) or OCI layouts (a directory, or a tar of one).
    Import {
        /// Where the images go.
        #[command(flatten)]
        dirs: Dirs,
        /// The archives or layouts.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Remove unused images.
    Prune {
        /// See there.
        #[command(flatten)]
        options: PruneOptions,
        /// Remove all unused images, not just dangling ones.
        #[arg(long, short)]
        all: bool,
    },
    /// List the images.
    #[command(visible_alias = "ls")]
    List {
        /// Where the images are.
        #[command(flatten)]
        dirs: Dirs,
    },
}

/// What every prune is told.
#[derive(Debug, Clone, Args)]
pub struct PruneOptions {
    /// Where the running server is.
    #[command(flatten)]
    pub dirs: Dirs,
    /// Do not ask for confirmation.
    #[arg(long, short)]
    pub force: bool,
    /// Only what matches, such as `until=24h`, `label=key=value` or `label!=key`.
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    pub filter: Vec<(String, String)>,
}

fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        // `label!=x` is the filter `label!` with the value `x`.
        Some((name, value)) if !name.is_empty() => Ok((name.trim().to_lowercase(), value.to_owned())),
        _ => Err("invalid argument: a filter is written NAME=VALUE".to_owned()),
    }
}

/// `knarr container …`
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Remove all stopped containers.
    Prune(PruneOptions),
}

/// `knarr volume …`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Remove unused local volumes.
    Prune {
        /// See there.
        #[command(flatten)]
        options: PruneOptions,
        /// Remove all unused volumes, not just anonymous ones.
        #[arg(long, short)]
        all: bool,
    },
}

/// `knarr network …`
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// Remove all unused networks.
    Prune(PruneOptions),
}

/// `knarr system …`
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    /// Remove unused data.
    Prune {
        /// See there.
        #[command(flatten)]
        options: PruneOptions,
        /// Remove all unused images, not just dangling ones.
        #[arg(long, short)]
        all: bool,
        /// Prune anonymous volumes as well.
        #[arg(long)]
        volumes: bool,
    },
}

/// Options of `knarr uninstall`.
#[derive(Debug, Clone, Args)]
pub struct UninstallOptions {
    /// The same options the server was started with.
    #[command(flatten)]
    pub server: ServerOptions,
    /// Do not ask.
    #[arg(long, short = 'y')]
    pub yes: bool,
}
