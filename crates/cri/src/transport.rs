//! One client type for a runtime behind a unix socket and for one in the same process.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use tonic::body::Body;
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::v1::{
    image_service_client::ImageServiceClient,
    image_service_server::{ImageService, ImageServiceServer},
    runtime_service_client::RuntimeServiceClient,
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
};

/// Largest message a client accepts, in bytes: kubelets use 16 MiB, as container lists grow with the node.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A call did not reach the runtime, or its answer did not come back. A type of its own and not a boxed trait object: the
/// compiler must see that futures of calls can move between threads.
#[derive(Debug)]
pub struct TransportError(tower::BoxError);

impl std::fmt::Display for TransportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Carries a gRPC request to the runtime, wherever that is.
pub type Transport = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, TransportError>;

/// Clients of both CRI services of one runtime. Cheap to clone.
#[derive(Clone)]
pub struct Clients {
    /// Pod sandboxes and containers.
    pub runtime: RuntimeServiceClient<Transport>,
    /// Images.
    pub images: ImageServiceClient<Transport>,
}

impl Clients {
    fn new(runtime: Transport, images: Transport) -> Self {
        Self {
            runtime: RuntimeServiceClient::new(runtime)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(images)
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
        }
    }
}

/// Clients of a runtime in this process: calls go straight into `engine`, without a socket.
pub fn in_process<E: RuntimeService + ImageService>(engine: Arc<E>) -> Clients {
    let runtime = RuntimeServiceServer::from_arc(engine.clone()).max_decoding_message_size(MAX_MESSAGE);
    let images = ImageServiceServer::from_arc(engine).max_decoding_message_size(MAX_MESSAGE);
    let runtime = ServiceExt::<http::Request<Body>>::map_err(runtime, |never| -> TransportError { match never {} });
    let images = ServiceExt::<http::Request<Body>>::map_err(images, |never| -> TransportError { match never {} });
    Clients::new(BoxCloneSyncService::new(runtime), BoxCloneSyncService::new(images))
}

/// Clients of the runtime that listens on the unix socket `path`. Fails if nothing answers there.
pub async fn connect(path: impl AsRef<Path>) -> anyhow::Result<Clients> {
    let path: PathBuf = path.as_ref().to_owned();
    let described = format!("connect to the container runtime at {}", path.display());
    // The address is never resolved: the connector below decides where to go.
    let channel = tonic::transport::Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { tokio::net::UnixStream::connect(path).await.map(hyper_util::rt::TokioIo::new) }
        }))
        .await
        .context(described)?;
    let transport = BoxCloneSyncService::new(channel.map_err(|error| TransportError(error.into())));
    Ok(Clients::new(transport.clone(), transport))
}
