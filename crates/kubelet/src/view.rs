//! What a pod's plan may see: the pod, what the runtime holds for it, and what the worker remembers.

use std::collections::{BTreeMap, BTreeSet};

use cri::v1;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use crate::plan::Step;

/// What the runtime holds for one pod.
#[derive(Debug, Clone, Default)]
pub struct Runtime {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<ContainerState>,
}

/// One pod sandbox.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Whether it can hold containers.
    pub ready: bool,
    /// Its addresses; none on the host's network.
    pub ips: Vec<String>,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// The runtime has lost it.
    Unknown,
}

/// One container, running or dead.
#[derive(Debug, Clone)]
pub struct ContainerState {
    /// The runtime's id.
    pub id: String,
    /// Its sandbox.
    pub sandbox: String,
    /// Name in the pod.
    pub name: String,
    /// How many containers of this name came before.
    pub attempt: u32,
    /// Where it is in its life.
    pub stage: Stage,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// When it was started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// Exit code, once ended.
    pub exit_code: i32,
    /// The runtime's word for how it ended.
    pub reason: String,
    /// The termination message.
    pub message: String,
    /// The image as the runtime names it.
    pub image: String,
    /// The image's digest or id.
    pub image_id: String,
}

/// How far the image of a container that is to start has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageProgress {
    /// In the runtime, under this reference.
    Ready(String),
    /// Not to be had for now.
    Failed(Failure),
}

/// Something that failed and will be tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One word, as the status shows it.
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// When it happened.
    pub at: Timestamp,
    /// When to try again.
    pub until: Timestamp,
    /// The pause that was chosen, to double it next time.
    pub pause: SignedDuration,
}

/// The pause between restarts of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause, counted from the end of the container.
    pub pause: SignedDuration,
    /// When it last grew.
    pub grown: Timestamp,
}

impl Backoff {
    /// The pause after the first crash; it doubles (upstream's values).
    pub const FIRST: SignedDuration = SignedDuration::from_secs(10);
    /// The longest pause.
    pub const MAX: SignedDuration = SignedDuration::from_secs(300);
    /// After this long without a restart the pause starts over.
    pub const RESET: SignedDuration = SignedDuration::from_secs(600);

    /// The pause to remember after a restart now.
    pub fn after_restart(old: Option<Backoff>, finished: Timestamp, now: Timestamp) -> Backoff {
        let pause = match old {
            Some(old) if finished.duration_since(old.grown) < Self::RESET => (old.pause * 2).min(Self::MAX),
            _ => Self::FIRST,
        };
        Backoff { pause, grown: now }
    }
}

/// What the probes of one running container say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// Whether the startup probe has succeeded.
    pub started: bool,
    /// Whether the readiness probe succeeds.
    pub ready: bool,
}

/// How far the pod's volumes are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Volumes {
    /// Nothing done yet.
    #[default]
    Unprepared,
    /// All there.
    Ready,
    /// One cannot be had for now.
    Failed(Failure),
}

/// What the worker of a pod remembers between two looks.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Images of containers that are about to start, by container name.
    pub images: BTreeMap<String, ImageProgress>,
    /// Pauses between restarts, by container name.
    pub restarts: BTreeMap<String, Backoff>,
    /// Containers that could not be made or started, by name.
    pub starts: BTreeMap<String, Failure>,
    /// The sandbox could not be made.
    pub sandbox: Option<Failure>,
    /// The volumes.
    pub volumes: Volumes,
    /// By container id.
    pub probes: BTreeMap<String, ProbeResults>,
    /// Containers that must end, by id, and why: a failed probe, a failed hook.
    pub condemned: BTreeMap<String, String>,
    /// Steps that are being taken.
    pub underway: BTreeSet<Step>,
    /// The pod has been ended for good: reason and message.
    pub ended: Option<(String, String)>,
}

impl Runtime {
    /// The newest sandbox, if it can hold containers.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of a name.
    pub fn latest(&self, name: &str) -> Option<&ContainerState> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest container of a name in one sandbox.
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&ContainerState> {
        self.containers.iter().find(|container| container.name == name && container.sandbox == sandbox)
    }

    /// The container of a name before the newest.
    pub fn previous(&self, name: &str) -> Option<&ContainerState> {
        self.containers.iter().filter(|container| container.name == name).nth(1)
    }

    /// Puts what the runtime reported in order.
    pub fn new(sandboxes: Vec<v1::PodSandboxStatus>, containers: Vec<(String, v1::ContainerStatus)>) -> Runtime {
        let mut sandboxes = sandboxes;
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        let mut containers: Vec<ContainerState> =
            containers.into_iter().map(|(sandbox, status)| ContainerState::new(sandbox, status)).collect();
        containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created)));
        Runtime { sandboxes: sandboxes.into_iter().map(Sandbox::new).collect(), containers }
    }
}

impl Sandbox {
    fn new(status: v1::PodSandboxStatus) -> Sandbox {
        let network = status.network.unwrap_or_default();
        let others = network.additional_ips.into_iter().map(|ip| ip.ip);
        Sandbox {
            attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
            ready: status.state == v1::PodSandboxState::SandboxReady as i32,
            ips: [network.ip].into_iter().chain(others).filter(|ip| !ip.is_empty()).collect(),
            id: status.id,
        }
    }
}

impl ContainerState {
    fn new(sandbox: String, status: v1::ContainerStatus) -> ContainerState {
        let metadata = status.metadata.unwrap_or_default();
        let time = |nanos: i64| {
            if nanos <= 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() }
        };
        ContainerState {
            sandbox,
            name: metadata.name,
            attempt: metadata.attempt,
            stage: match v1::ContainerState::try_from(status.state) {
                Ok(v1::ContainerState::ContainerCreated) => Stage::Created,
                Ok(v1::ContainerState::ContainerRunning) => Stage::Running,
                Ok(v1::ContainerState::ContainerExited) => Stage::Exited,
                Ok(v1::ContainerState::ContainerUnknown) | Err(_) => Stage::Unknown,
            },
            created: time(status.created_at),
            started: time(status.started_at),
            finished: time(status.finished_at),
            exit_code: status.exit_code,
            reason: status.reason,
            message: status.message,
            image: status.image.map(|image| image.image).unwrap_or_default(),
            image_id: if status.image_ref.is_empty() { status.image_id } else { status.image_ref },
            id: status.id,
        }
    }

    /// Whether it ended, well or not.
    pub fn is_dead(&self) -> bool {
        matches!(self.stage, Stage::Exited | Stage::Unknown)
    }
}

/// The init containers.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default()
}

/// The main containers.
pub fn main_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default()
}

/// A container of the pod by name.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    init_containers(pod).iter().chain(main_containers(pod)).find(|container| container.name == name)
}

/// Whether an init container keeps running beside the main containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The pod's restart policy.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// How long containers get to end, in seconds.
pub fn grace(pod: &Pod) -> i64 {
    let asked = pod.metadata.deletion_grace_period_seconds;
    let specified = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds);
    asked.or(specified).unwrap_or(30).max(0)
}

/// Namespace and name, as events and logs write them.
pub fn full_name(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    format!("{name}_{namespace}({})", pod.metadata.uid.as_deref().unwrap_or_default())
}

/// Whether a container that ended is to be started again.
pub fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    let policy = container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod));
    match policy {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

/// Until when a dead container must wait before it may start again, if it must.
pub fn waits_until(memory: &Memory, dead: &ContainerState, now: Timestamp) -> Option<Timestamp> {
    let backoff = memory.restarts.get(&dead.name)?;
    let finished = dead.finished?;
    if finished.duration_since(backoff.grown) >= Backoff::RESET {
        return None;
    }
    let until = finished.checked_add(backoff.pause).ok()?;
    (until > now).then_some(until)
}
