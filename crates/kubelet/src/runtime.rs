//! The calls to the container runtime that the kubelet makes.

use cri::v1;
use futures::future::BoxFuture;
use tonic::{Status, Streaming};

/// A runtime. Each call is a future of its own, boxed: the generated clients' futures are too deep for the compiler to see
/// that they can move between threads once they are nested.
#[derive(Clone)]
pub(crate) struct Cri {
    clients: cri::Clients,
}

macro_rules! calls {
    ($($client:ident . $call:ident($request:ident) -> $answer:ty;)*) => {
        impl Cri {
            $(
                pub(crate) fn $call(&self, request: v1::$request) -> BoxFuture<'static, Result<$answer, Status>> {
                    let mut client = self.clients.$client.clone();
                    Box::pin(async move { Ok(client.$call(request).await?.into_inner()) })
                }
            )*
        }
    };
}

calls! {
    runtime.version(VersionRequest) -> v1::VersionResponse;
    runtime.status(StatusRequest) -> v1::StatusResponse;
    runtime.run_pod_sandbox(RunPodSandboxRequest) -> v1::RunPodSandboxResponse;
    runtime.stop_pod_sandbox(StopPodSandboxRequest) -> v1::StopPodSandboxResponse;
    runtime.remove_pod_sandbox(RemovePodSandboxRequest) -> v1::RemovePodSandboxResponse;
    runtime.pod_sandbox_status(PodSandboxStatusRequest) -> v1::PodSandboxStatusResponse;
    runtime.list_pod_sandbox(ListPodSandboxRequest) -> v1::ListPodSandboxResponse;
    runtime.create_container(CreateContainerRequest) -> v1::CreateContainerResponse;
    runtime.start_container(StartContainerRequest) -> v1::StartContainerResponse;
    runtime.stop_container(StopContainerRequest) -> v1::StopContainerResponse;
    runtime.remove_container(RemoveContainerRequest) -> v1::RemoveContainerResponse;
    runtime.container_status(ContainerStatusRequest) -> v1::ContainerStatusResponse;
    runtime.list_containers(ListContainersRequest) -> v1::ListContainersResponse;
    runtime.exec_sync(ExecSyncRequest) -> v1::ExecSyncResponse;
    runtime.exec(ExecRequest) -> v1::ExecResponse;
    runtime.attach(AttachRequest) -> v1::AttachResponse;
    runtime.port_forward(PortForwardRequest) -> v1::PortForwardResponse;
    runtime.get_container_events(GetEventsRequest) -> Streaming<v1::ContainerEventResponse>;
    images.image_status(ImageStatusRequest) -> v1::ImageStatusResponse;
    images.list_images(ListImagesRequest) -> v1::ListImagesResponse;
    images.pull_image(PullImageRequest) -> v1::PullImageResponse;
}

impl From<cri::Clients> for Cri {
    fn from(clients: cri::Clients) -> Cri {
        Cri { clients }
    }
}
