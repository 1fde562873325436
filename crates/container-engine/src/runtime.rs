//! The RuntimeService of CRI: its words on the engine's.

use std::{collections::HashMap, pin::Pin, time::Duration};

use cri::v1::{self, runtime_service_server::RuntimeService};
use futures::{Stream, StreamExt as _, stream};
use isolation::ExecSpec;
use tonic::{Request, Response, Status};

use crate::{
    Container, Engine, Sandbox, blocking, containers::Beside, convert, lock, now, sandboxes::note, status,
    streaming::Session, streams, watch,
};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Most output of a synchronous command that is kept, in bytes.
const EXEC_OUTPUT: usize = 16 << 20;

/// How many items one message of a streamed list carries.
const PAGE: usize = 100;

/// How long output may still come after a command has ended: what it left behind may hold the streams open.
const DRAIN: Duration = Duration::from_secs(1);

fn matches(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn pages<T: Send + 'static, R: Send + 'static>(items: Vec<T>, page: fn(Vec<T>) -> R) -> Answers<R> {
    let mut items = items.into_iter();
    let pages = std::iter::from_fn(move || {
        let some: Vec<T> = items.by_ref().take(PAGE).collect();
        (!some.is_empty()).then(|| Ok(page(some)))
    });
    stream::iter(pages).boxed()
}

impl Engine {
    fn sandbox_state(&self, sandbox: &Sandbox) -> v1::PodSandboxState {
        let ready = lock(&sandbox.shim).is_some() && !lock(&sandbox.record).stopped;
        if ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready }
    }

    pub(crate) fn sandbox_status(&self, sandbox: &Sandbox) -> v1::PodSandboxStatus {
        let state = self.sandbox_state(sandbox);
        let record = lock(&sandbox.record).clone();
        let config = record.config();
        let options = Some(record.namespaces());
        v1::PodSandboxStatus {
            metadata: config.metadata,
            state: state.into(),
            created_at: record.created_at,
            network: Some(v1::PodSandboxNetworkStatus { ip: record.ip, additional_ips: Vec::new() }),
            linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options }) }),
            labels: config.labels,
            annotations: config.annotations,
            runtime_handler: record.runtime_handler,
            id: record.id,
        }
    }

    pub(crate) fn container_status(&self, container: &Container) -> v1::ContainerStatus {
        let record = lock(&container.record).clone();
        let config = record.config();
        v1::ContainerStatus {
            metadata: config.metadata.clone(),
            state: record.state().into(),
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at: record.finished_at,
            exit_code: record.exit_code,
            image: config.image.clone(),
            image_ref: record.image_ref,
            reason: record.reason,
            message: record.message,
            labels: config.labels,
            annotations: config.annotations,
            mounts: config.mounts,
            log_path: record.log_path,
            resources: record.resources.map(|linux| v1::ContainerResources { linux: Some(linux), windows: None }),
            image_id: record.image_id,
            user: record.user.map(|linux| v1::ContainerUser { linux: Some(linux) }),
            stop_signal: config.stop_signal,
            id: record.id,
        }
    }

    fn sandboxes_that(&self, filter: Option<v1::PodSandboxFilter>) -> Vec<v1::PodSandbox> {
        let filter = filter.unwrap_or_default();
        let all: Vec<_> = lock(&self.sandboxes).values().cloned().collect();
        let mut found: Vec<_> = all
            .iter()
            .filter(|sandbox| lock(&sandbox.record).owner.is_empty())
            .map(|sandbox| self.sandbox_status(sandbox))
            .filter(|one| one.id.starts_with(&filter.id))
            .filter(|one| filter.state.as_ref().is_none_or(|state| state.state == one.state))
            .filter(|one| matches(&one.labels, &filter.label_selector))
            .map(|one| v1::PodSandbox {
                id: one.id,
                metadata: one.metadata,
                state: one.state,
                created_at: one.created_at,
                labels: one.labels,
                annotations: one.annotations,
                runtime_handler: one.runtime_handler,
            })
            .collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        found
    }

    fn containers_that(&self, filter: Option<v1::ContainerFilter>) -> Vec<v1::Container> {
        let filter = filter.unwrap_or_default();
        let all: Vec<_> = lock(&self.containers).values().cloned().collect();
        let mut found: Vec<_> = all
            .iter()
            .filter(|container| lock(&container.record).owner.is_empty())
            .map(|container| {
                let record = lock(&container.record).clone();
                let (config, state) = (record.config(), record.state());
                v1::Container {
                    id: record.id,
                    pod_sandbox_id: record.sandbox_id,
                    metadata: config.metadata,
                    image: config.image,
                    image_ref: record.image_ref,
                    state: state.into(),
                    created_at: record.created_at,
                    labels: config.labels,
                    annotations: config.annotations,
                    image_id: record.image_id,
                }
            })
            .filter(|one| one.id.starts_with(&filter.id) && one.pod_sandbox_id.starts_with(&filter.pod_sandbox_id))
            .filter(|one| filter.state.as_ref().is_none_or(|state| state.state == one.state))
            .filter(|one| matches(&one.labels, &filter.label_selector))
            .collect();
        found.sort_by_key(|one| std::cmp::Reverse(one.created_at));
        found
    }

    async fn container_stats_that(
        &self,
        filter: Option<v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, Status> {
        let filter = filter.unwrap_or_default();
        let filter = v1::ContainerFilter {
            id: filter.id,
            state: Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning.into() }),
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
        };
        let found = self.containers_that(Some(filter));
        // A container may be removed between the two steps.
        let containers = found.iter().filter_map(|one| self.container(&one.id).ok());
        Ok(containers.map(|container| self.container_stats(&container)).collect())
    }

    fn sandbox_stats_that(&self, filter: Option<v1::PodSandboxStatsFilter>) -> Vec<v1::PodSandboxStats> {
        let filter = filter.unwrap_or_default();
        let filter = v1::PodSandboxFilter {
            id: filter.id,
            state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady.into() }),
            label_selector: filter.label_selector,
        };
        let found = self.sandboxes_that(Some(filter));
        let sandboxes = found.iter().filter_map(|one| self.sandbox(&one.id).ok());
        sandboxes.map(|sandbox| self.sandbox_stats(&sandbox)).collect()
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

fn unsupported<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(format!("{what} is not supported")))
}

#[tonic::async_trait]
impl RuntimeService for Engine {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        answer(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "knarr".into(),
            runtime_version: env!("CARGO_PKG_VERSION").into(),
            runtime_api_version: "v1".into(),
        })
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let pod_sandbox_id = self.run_sandbox(request.into_inner()).await?;
        answer(v1::RunPodSandboxResponse { pod_sandbox_id })
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        self.stop_sandbox(&request.into_inner().pod_sandbox_id).await.map_err(status)?;
        answer(v1::StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        self.remove_sandbox(&request.into_inner().pod_sandbox_id).await.map_err(status)?;
        answer(v1::RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let record = lock(&sandbox.record).clone();
        let mut info = HashMap::new();
        if request.verbose {
            let more = serde_json::json!({ "pid": record.shim_pid, "cgroupParent": self.cgroup_parent(&record) });
            info.insert("info".into(), more.to_string());
        }
        answer(v1::PodSandboxStatusResponse {
            status: Some(self.sandbox_status(&sandbox)),
            info,
            containers_statuses: self.containers_of(&record.id).iter().map(|one| self.container_status(one)).collect(),
            timestamp: now(),
        })
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        answer(v1::ListPodSandboxResponse { items: self.sandboxes_that(request.into_inner().filter) })
    }

    type StreamPodSandboxesStream = Answers<v1::StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let found = self.sandboxes_that(request.into_inner().filter);
        answer(pages(found, |pod_sandboxes| v1::StreamPodSandboxesResponse { pod_sandboxes }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let container_id = Engine::create_container(self, request.into_inner(), Beside::default()).await?;
        answer(v1::CreateContainerResponse { container_id })
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        Engine::start_container(self, &request.into_inner().container_id).await?;
        answer(v1::StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        let grace = Duration::from_secs(request.timeout.try_into().unwrap_or(0));
        Engine::stop_container(self, &request.container_id, grace).await.map_err(status)?;
        answer(v1::StopContainerResponse {})
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        Engine::remove_container(self, &request.into_inner().container_id).await.map_err(status)?;
        answer(v1::RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        answer(v1::ListContainersResponse { containers: self.containers_that(request.into_inner().filter) })
    }

    type StreamContainersStream = Answers<v1::StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let found = self.containers_that(request.into_inner().filter);
        answer(pages(found, |containers| v1::StreamContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        let mut info = HashMap::new();
        if request.verbose {
            let record = lock(&container.record).clone();
            let more = serde_json::json!({ "sandboxID": record.sandbox_id, "cgroup": record.cgroup });
            info.insert("info".into(), more.to_string());
        }
        answer(v1::ContainerStatusResponse { status: Some(Engine::container_status(self, &container)), info })
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        let Some(asked) = request.linux else { return answer(v1::UpdateContainerResourcesResponse {}) };
        let _one = container.changing.lock().await;
        let group = self.hierarchies.group(&lock(&container.record).cgroup);
        let limits = convert::resources(&asked);
        note(&blocking(move || group.set(&limits)).await.map_err(status)?);
        self.update(&container, |record| record.resources = Some(asked)).map_err(status)?;
        answer(v1::UpdateContainerResourcesResponse {})
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let container = self.container(&request.into_inner().container_id)?;
        let record = lock(&container.record).clone();
        if record.state() != v1::ContainerState::ContainerRunning {
            return Err(Status::failed_precondition(format!("container {} is not running", record.id)));
        }
        let shim = self.shim_of(&record.sandbox_id).map_err(status)?;
        blocking(move || shim.reopen_log(&record.id)).await.map_err(status)?;
        answer(v1::ReopenContainerLogResponse {})
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let spec = ExecSpec { container: request.container_id, args: request.cmd.clone(), ..ExecSpec::default() };
        let (shim, exec) = self.start_exec(spec).await?;
        let pid = exec.pid;
        let run = async move {
            exec.exit.set_nonblocking(true).map_err(|e| Status::internal(e.to_string()))?;
            let mut exit = tokio::net::UnixStream::from_std(exec.exit).map_err(|e| Status::internal(e.to_string()))?;
            let stdout = streams::Stream::new(exec.stdout).map_err(status)?;
            let stderr = exec.stderr.map(streams::Stream::new).transpose().map_err(status)?;
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let code = {
                let collect = async {
                    let collected = tokio::join!(stdout.collect(&mut out, EXEC_OUTPUT), async {
                        match &stderr {
                            Some(stderr) => stderr.collect(&mut err, EXEC_OUTPUT).await,
                            None => Ok(()),
                        }
                    });
                    collected.0.and(collected.1)
                };
                let mut collect = std::pin::pin!(collect);
                let mut collected = None;
                let event = tokio::select! {
                    event = watch::next_event(&mut exit) => event,
                    done = &mut collect => {
                        collected = Some(done);
                        watch::next_event(&mut exit).await
                    }
                };
                let Some(isolation::Event::ExecExited { code }) = event.map_err(status)? else {
                    return Err(Status::unknown("the container ended while the command ran"));
                };
                if collected.is_none() {
                    collected = tokio::time::timeout(DRAIN, collect).await.ok();
                }
                if let Some(Err(e)) = collected {
                    return Err(Status::internal(format!("read the command's output: {e}")));
                }
                code
            };
            Ok(v1::ExecSyncResponse { stdout: out, stderr: err, exit_code: code })
        };
        if request.timeout <= 0 {
            return run.await.map(Response::new);
        }
        match tokio::time::timeout(Duration::from_secs(request.timeout as u64), run).await {
            Ok(outcome) => outcome.map(Response::new),
            Err(_) => {
                blocking(move || shim.signal_exec(pid, nix::sys::signal::SIGKILL as i32)).await.map_err(status)?;
                Err(Status::deadline_exceeded(format!(
                    "command {:?} timed out after {} s",
                    request.cmd, request.timeout
                )))
            }
        }
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        let request = request.into_inner();
        if !(request.stdin || request.stdout || request.stderr) {
            return Err(Status::invalid_argument("one of stdin, stdout and stderr must be asked for"));
        }
        if request.tty && request.stderr {
            return Err(Status::invalid_argument("a terminal has no separate stderr"));
        }
        self.container(&request.container_id)?;
        answer(v1::ExecResponse { url: self.streams.open(Session::Exec(request)) })
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        let request = request.into_inner();
        let container = self.container(&request.container_id)?;
        if lock(&container.record).state() != v1::ContainerState::ContainerRunning {
            return Err(Status::failed_precondition(format!("container {} is not running", request.container_id)));
        }
        answer(v1::AttachResponse { url: self.streams.open(Session::Attach(request)) })
    }

    async fn port_forward(&self, request: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        if self.sandbox_state(&sandbox) != v1::PodSandboxState::SandboxReady {
            return Err(Status::failed_precondition(format!("sandbox {} is not running", request.pod_sandbox_id)));
        }
        answer(v1::PortForwardResponse { url: self.streams.open(Session::PortForward(request)) })
    }

    async fn container_stats(&self, request: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        let container = self.container(&request.into_inner().container_id)?;
        let engine = self.arc();
        let stats = blocking(move || Ok(Engine::container_stats(&engine, &container))).await.map_err(status)?;
        answer(v1::ContainerStatsResponse { stats: Some(stats) })
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        answer(v1::ListContainerStatsResponse { stats: self.container_stats_that(request.into_inner().filter).await? })
    }

    type StreamContainerStatsStream = Answers<v1::StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let found = self.container_stats_that(request.into_inner().filter).await?;
        answer(pages(found, |container_stats| v1::StreamContainerStatsResponse { container_stats }))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Answer<v1::PodSandboxStatsResponse> {
        let sandbox = self.sandbox(&request.into_inner().pod_sandbox_id)?;
        answer(v1::PodSandboxStatsResponse { stats: Some(self.sandbox_stats(&sandbox)) })
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        answer(v1::ListPodSandboxStatsResponse { stats: self.sandbox_stats_that(request.into_inner().filter) })
    }

    type StreamPodSandboxStatsStream = Answers<v1::StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let found = self.sandbox_stats_that(request.into_inner().filter);
        answer(pages(found, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse { pod_sandbox_stats }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.and_then(|config| config.network_config);
        let cidr = network.map(|network| network.pod_cidr).unwrap_or_default();
        let own = self.network.cidr().to_string();
        if !cidr.is_empty() && cidr != own {
            tracing::warn!("keep the pod CIDR {own}: {cidr} needs a restart with that configuration");
        }
        answer(v1::UpdateRuntimeConfigResponse {})
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition = |kind: &str| v1::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let mut info = HashMap::new();
        if request.into_inner().verbose {
            let config = &self.config;
            let more = serde_json::json!({
                "dataDir": config.data_dir, "runDir": config.run_dir, "bridge": config.bridge,
                "podCIDR": config.pod_cidr, "cgroupV2": self.hierarchies.is_unified(),
            });
            info.insert("config".into(), more.to_string());
        }
        answer(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] }),
            info,
            runtime_handlers: vec![v1::RuntimeHandler {
                name: String::new(),
                features: Some(v1::RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
            }],
            features: Some(v1::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        })
    }

    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        unsupported("checkpointing a container")
    }

    type GetContainerEventsStream = Answers<v1::ContainerEventResponse>;

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let events = tokio_stream::wrappers::BroadcastStream::new(self.events.subscribe());
        // Whoever reads too slowly must list anew: better an end than a gap.
        let events =
            events.map(|event| event.map_err(|e| Status::data_loss(format!("container events were missed: {e}"))));
        answer(events.take_until(self.stop.clone().cancelled_owned()).boxed())
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        answer(v1::ListMetricDescriptorsResponse { descriptors: Vec::new() })
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        unsupported("listing pod metrics")
    }

    type StreamPodSandboxMetricsStream = Answers<v1::StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        unsupported("streaming pod metrics")
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        let linux = v1::LinuxRuntimeConfiguration { cgroup_driver: v1::CgroupDriver::Cgroupfs.into() };
        answer(v1::RuntimeConfigResponse { linux: Some(linux) })
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        // The caller has set the pod's control group already; a sandbox has no limits beside that.
        self.sandbox(&request.into_inner().pod_sandbox_id)?;
        answer(v1::UpdatePodSandboxResourcesResponse {})
    }
}
