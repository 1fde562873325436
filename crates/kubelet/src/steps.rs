//! Takes the steps of a plan: the calls to the runtime and what belongs around them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use client::EventType::{Normal, Warning};
use cri::v1;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};

use crate::context::Context;
use crate::cri_config::{self, Prepared};
use crate::env::{Facts, environment, sources_of};
use crate::plan::Step;
use crate::probe;
use crate::pull::{Pull, credentials, failure};
use crate::refresh::{self, Issued};
use crate::view::{Failure, ImageProgress, Memory, Runtime, Volumes, container as find_container};
use crate::volumes::{self, PodDirectory};

/// The first pause after something that depends on others (a ConfigMap, a node's disk) failed; it doubles.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// The longest such pause.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The least that a container gets after its preStop hook has used up its time, in seconds (upstream's value).
const LEAST_GRACE: i64 = 2;

/// What a step came to.
pub(crate) enum Outcome {
    /// Nothing to remember.
    Done,
    /// It failed and may be tried again.
    Failed(String),
    /// How far a container's image is.
    Image(String, ImageProgress),
    /// How far the volumes are.
    Volumes(Volumes, Option<Issued>),
    /// The sandbox was made, or not.
    Sandbox(Option<Failure>),
    /// A container runs; `died` is when the one before it ended.
    Started { container: String, died: Option<Timestamp> },
    /// A container does not run; or it does and must not, being condemned by id. `died` as above.
    NotStarted { container: String, failure: Failure, condemn: Option<(String, String)>, died: Option<Timestamp> },
}

/// Takes one step.
pub(crate) async fn take(
    context: Arc<Context>,
    pod: Arc<Pod>,
    runtime: Runtime,
    memory: Memory,
    step: Step,
) -> Outcome {
    let done = |result: anyhow::Result<()>| match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    let cri = context.cri.clone();
    match step {
        Step::PrepareVolumes => prepare_volumes(&context, &pod, &memory).await,
        Step::Pull { container } => {
            let progress = pull(&context, &pod, &container, &memory).await;
            Outcome::Image(container, progress)
        }
        Step::RunSandbox { attempt } => Outcome::Sandbox(run_sandbox(&context, &pod, attempt, &memory).await),
        Step::Start { container, attempt, sandbox } => {
            start(&context, &pod, &runtime, &memory, &container, attempt, sandbox).await
        }
        Step::Kill { id, container, grace, why } => {
            context.event(&pod, Some(&container), Normal, "Killing", &why);
            done(kill(&context, &pod, &runtime, &id, &container, grace).await)
        }
        Step::RemoveContainer { id } => {
            let request = v1::RemoveContainerRequest { container_id: id };
            done(cri.remove_container(request).await.map(drop).context("remove a dead container"))
        }
        Step::StopSandbox { id } => {
            let request = v1::StopPodSandboxRequest { pod_sandbox_id: id };
            done(cri.stop_pod_sandbox(request).await.map(drop).context("stop the sandbox"))
        }
        Step::RemoveSandbox { id } => {
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: id };
            done(cri.remove_pod_sandbox(request).await.map(drop).context("remove an old sandbox"))
        }
        // The worker itself does this: nothing comes after it.
        Step::Finish => Outcome::Done,
    }
}

fn later(reason: &str, message: String, last: Option<&Failure>) -> Failure {
    failure(reason, message, client::clock::now(), last.map(|last| last.pause), FIRST_PAUSE, MAX_PAUSE)
}

async fn prepare_volumes(context: &Arc<Context>, pod: &Arc<Pod>, memory: &Memory) -> Outcome {
    let attempt = async {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let sources = context.read(namespace, &volumes::sources_of(pod)).await?;
        let issued = refresh::issue(context, pod).await?;
        let directory = PodDirectory::new(&context.config.data_dir, pod.metadata.uid.as_deref().unwrap_or_default());
        let claimed = context.claimed(pod).await?;
        let (pod, facts, tokens) = (pod.clone(), context.facts(Vec::new()), issued.tokens.clone());
        let context = context.clone();
        let work = move || {
            volumes::prepare(&directory, &pod, &sources, &tokens, &facts)?;
            claimed.iter().try_for_each(|wanted| context.disks.mount_for(&pod, &directory, wanted))
        };
        tokio::task::spawn_blocking(work).await??;
        Ok::<_, anyhow::Error>(issued)
    };
    match attempt.await {
        Ok(issued) => Outcome::Volumes(Volumes::Ready, Some(issued)),
        Err(error) => {
            let message = format!("{error:#}");
            context.event(pod, None, Warning, "FailedMount", &message);
            let last = match &memory.volumes {
                Volumes::Failed(last) => Some(last),
                _ => None,
            };
            Outcome::Volumes(Volumes::Failed(later("FailedMount", message, last)), None)
        }
    }
}

async fn pull(context: &Context, pod: &Pod, name: &str, memory: &Memory) -> ImageProgress {
    let last = match memory.images.get(name) {
        Some(ImageProgress::Failed(last)) => Some(last),
        _ => None,
    };
    let Some(container) = find_container(pod, name) else {
        return ImageProgress::Failed(later("ErrImagePull", "the container is gone".to_owned(), last));
    };
    let image = container.image.clone().unwrap_or_default();
    let auth = match context.pull_secrets(pod).await {
        Ok(configs) => credentials(&image, &configs),
        Err(error) => {
            let message = format!("{error:#}");
            context.event(pod, None, Warning, "FailedToRetrieveImagePullSecret", &message);
            None
        }
    };
    let pull = Pull {
        cri: &context.cri,
        container,
        auth,
        sandbox: cri_config::sandbox(pod, 0, &context.surroundings(pod)),
        last_pause: last.map(|last| last.pause),
    };
    let progress = pull
        .run(client::clock::now, |(warning, reason, message)| {
            context.event(pod, Some(name), if warning { Warning } else { Normal }, reason, &message);
        })
        .await;
    if matches!(&progress, ImageProgress::Failed(failure) if failure.reason == "ErrImagePull") {
        context.event(pod, Some(name), Normal, "BackOff", &format!("Back-off pulling image {image:?}"));
        context.event(pod, Some(name), Warning, "Failed", "Error: ImagePullBackOff");
    }
    progress
}

async fn run_sandbox(context: &Context, pod: &Pod, attempt: u32, memory: &Memory) -> Option<Failure> {
    let _making = context.making.acquire().await;
    let around = context.surroundings(pod);
    let made = async {
        tokio::fs::create_dir_all(&around.log_directory).await.context("make the log directory")?;
        let request = v1::RunPodSandboxRequest {
            config: Some(cri_config::sandbox(pod, attempt, &around)),
            runtime_handler: pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default(),
        };
        context.cri.run_pod_sandbox(request).await.map_err(|status| anyhow!("{}", status.message()))
    };
    match made.await {
        Ok(_) => None,
        Err(error) => {
            let message = format!("Failed to create pod sandbox: {error:#}");
            context.event(pod, None, Warning, "FailedCreatePodSandBox", &message);
            Some(later("FailedCreatePodSandBox", message, memory.sandbox.as_ref()))
        }
    }
}

async fn start(
    context: &Context,
    pod: &Pod,
    runtime: &Runtime,
    memory: &Memory,
    name: &str,
    attempt: u32,
    sandbox: String,
) -> Outcome {
    let died = runtime.latest(name).filter(|state| state.is_dead()).and_then(|state| state.finished);
    let not_started = |reason: &str, message: String, condemn| Outcome::NotStarted {
        container: name.to_owned(),
        failure: later(reason, message, memory.starts.get(name)),
        condemn,
        died,
    };
    let Some(container) = find_container(pod, name) else {
        return not_started("CreateContainerConfigError", "the container is gone".to_owned(), None);
    };
    let _making = context.making.acquire().await;
    let around = context.surroundings(pod);
    let number = runtime.sandboxes.iter().find(|known| known.id == sandbox).map_or(0, |known| known.attempt);
    let config = match prepare(context, pod, runtime, memory, container, attempt).await {
        Ok(prepared) => cri_config::container(pod, container, &prepared, &around),
        Err(error) => {
            let message = format!("{error:#}");
            context.event(pod, Some(name), Warning, "Failed", &format!("Error: {message}"));
            return not_started("CreateContainerConfigError", message, None);
        }
    };
    let cri = context.cri.clone();
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: sandbox,
        config: Some(config),
        sandbox_config: Some(cri_config::sandbox(pod, number, &around)),
    };
    let id = match cri.create_container(request).await {
        Ok(answer) => answer.container_id,
        Err(status) => {
            context.event(pod, Some(name), Warning, "Failed", &format!("Error: {}", status.message()));
            return not_started("CreateContainerError", status.message().to_owned(), None);
        }
    };
    context.event(pod, Some(name), Normal, "Created", &format!("Created container: {name}"));
    if let Err(status) = cri.start_container(v1::StartContainerRequest { container_id: id.clone() }).await {
        context.event(pod, Some(name), Warning, "Failed", &format!("Error: {}", status.message()));
        return not_started("RunContainerError", status.message().to_owned(), None);
    }
    context.event(pod, Some(name), Normal, "Started", &format!("Started container {name}"));
    drop(_making);
    let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let Some(hook) = hook
        && let Err(error) = run_hook(context, runtime, container, &id, hook, None).await
    {
        let message = format!("PostStartHook failed: {error:#}");
        context.event(pod, Some(name), Warning, "FailedPostStartHook", &message);
        return not_started("PostStartHookError", message, Some((id, "FailedPostStartHook".to_owned())));
    }
    Outcome::Started { container: name.to_owned(), died }
}

async fn prepare(
    context: &Context,
    pod: &Pod,
    runtime: &Runtime,
    memory: &Memory,
    container: &Container,
    attempt: u32,
) -> anyhow::Result<Prepared> {
    let image = match memory.images.get(&container.name) {
        Some(ImageProgress::Ready(image)) => image.clone(),
        _ => bail!("its image is not ready"),
    };
    check_user(context, pod, container, &image).await?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let wanted: BTreeSet<_> = sources_of(container);
    let sources = context.read(namespace, &wanted).await?;
    let sandbox = runtime.ready_sandbox().cloned().unwrap_or_default();
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    let ips = if host_network { vec![context.host.ip.clone()] } else { sandbox.ips };
    let hosts = cri_config::hosts_file(pod, ips.first().map(String::as_str).unwrap_or_default());
    let facts = Facts { services: context.service_variables(pod).await, ..context.facts(ips) };
    let env = environment(pod, container, &sources, &facts).map_err(anyhow::Error::msg)?;
    let directory = PodDirectory::new(&context.config.data_dir, pod.metadata.uid.as_deref().unwrap_or_default());
    if !host_network {
        tokio::fs::write(directory.hosts(), hosts).await.context("write the pod's /etc/hosts")?;
    }
    let mounts = volumes::mounts(&directory, pod, container, attempt, &env)?;
    let message_path = directory.message(&container.name, attempt).display().to_string();
    Ok(Prepared { attempt, image, env, mounts, message_path })
}

/// Refuses root where the pod says that it must not be root.
async fn check_user(context: &Context, pod: &Pod, container: &Container, image: &str) -> anyhow::Result<()> {
    let own = container.security_context.clone().unwrap_or_default();
    let pods = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    if own.run_as_non_root.or(pods.run_as_non_root) != Some(true) {
        return Ok(());
    }
    match own.run_as_user.or(pods.run_as_user) {
        Some(0) => bail!("container's runAsUser breaks non-root policy"),
        Some(_) => return Ok(()),
        None => {}
    }
    let spec = v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() };
    let request = v1::ImageStatusRequest { image: Some(spec), verbose: false };
    let image = context.cri.image_status(request).await?.image.unwrap_or_default();
    match image.uid {
        Some(uid) if uid.value != 0 => Ok(()),
        None if !image.username.is_empty() && image.username != "root" => {
            bail!(
                "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                image.username
            )
        }
        _ => bail!("container has runAsNonRoot and image will run as root"),
    }
}

async fn kill(context: &Context, pod: &Pod, runtime: &Runtime, id: &str, name: &str, grace: i64) -> anyhow::Result<()> {
    let started = client::clock::now();
    let container = find_container(pod, name);
    let hook =
        container.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref().map(|hook| (container, hook)));
    if let Some((container, hook)) = hook
        && grace > 0
    {
        let limit = Duration::from_secs(grace.unsigned_abs());
        if let Err(error) = run_hook(context, runtime, container, id, hook, Some(limit)).await {
            context.event(pod, Some(name), Warning, "FailedPreStopHook", &format!("PreStopHook failed: {error:#}"));
        }
    }
    let spent = client::clock::now().duration_since(started).as_secs();
    let left = if spent > 0 { (grace - spent).max(LEAST_GRACE) } else { grace };
    let request = v1::StopContainerRequest { container_id: id.to_owned(), timeout: left };
    context.cri.stop_container(request).await.map(drop).with_context(|| format!("stop container {name}"))
}

async fn run_hook(
    context: &Context,
    runtime: &Runtime,
    container: &Container,
    id: &str,
    hook: &LifecycleHandler,
    limit: Option<Duration>,
) -> anyhow::Result<()> {
    let pod_ip = runtime.ready_sandbox().and_then(|sandbox| sandbox.ips.first().cloned());
    let pod_ip = pod_ip.unwrap_or_else(|| context.host.ip.clone());
    let run = async {
        if let Some(exec) = &hook.exec {
            exec_sync(context, id, exec.command.clone().unwrap_or_default(), 0).await
        } else if let Some(action) = &hook.http_get {
            probe::http(container, action, &pod_ip).await
        } else if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
            Ok(())
        } else {
            bail!("this kind of hook is not supported")
        }
    };
    match limit {
        None => run.await,
        Some(limit) => {
            tokio::time::timeout(limit, run).await.map_err(|_| anyhow!("it took longer than {} s", limit.as_secs()))?
        }
    }
}

/// Runs a command in a container; an exit code other than zero is an error with the output.
pub(crate) async fn exec_sync(context: &Context, id: &str, command: Vec<String>, timeout: i64) -> anyhow::Result<()> {
    let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout };
    let answer = context.cri.exec_sync(request).await.map_err(|status| anyhow!("{}", status.message()))?;
    if answer.exit_code != 0 {
        let output = [answer.stdout, answer.stderr].concat();
        bail!("{}", String::from_utf8_lossy(&output));
    }
    Ok(())
}
