//! CRI on a unix socket.

use std::{convert::Infallible, fs, path::Path, pin::pin};

use anyhow::{Context as _, Result};
use cri::v1::{image_service_server::ImageServiceServer, runtime_service_server::RuntimeServiceServer};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;
use tonic::server::NamedService as _;
use tower::Service as _;

use crate::Engine;

/// Spawns what a connection needs where it can be waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl Engine {
    /// Serves CRI on a unix socket until [`Engine::shutdown`]. A socket file left by an earlier process is replaced.
    pub async fn serve(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("replace {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).with_context(|| format!("listen on {}", path.display()))?;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .with_context(|| format!("guard {}", path.display()))?;
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            let (socket, _) = accepted.context("accept a CRI client")?;
            self.tasks.spawn(self.arc().serve_client(socket));
        }
        // A newer process may have put its own there; then there is nothing of ours to remove.
        let _ = fs::remove_file(path);
        Ok(())
    }

    async fn serve_client(self: std::sync::Arc<Self>, socket: UnixStream) {
        let (runtime, images) =
            (RuntimeServiceServer::from_arc(self.clone()), ImageServiceServer::from_arc(self.clone()));
        let images_prefix = format!("/{}/", ImageServiceServer::<Self>::NAME);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (mut runtime, mut images) = (runtime.clone(), images.clone());
            let for_images = request.uri().path().starts_with(&images_prefix);
            async move {
                // Either answers calls that it does not know as gRPC has it.
                let Ok(response) = if for_images { images.call(request).await } else { runtime.call(request).await };
                Ok::<_, Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http2::Builder::new(Tracked(self.tasks.clone()))
            .serve_connection(TokioIo::new(socket), service);
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = &mut connection => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = served {
            tracing::debug!("serve a CRI client: {e}");
        }
    }
}
