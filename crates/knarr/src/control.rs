//! The control socket: how other `knarr` commands reach a running server. JSON over HTTP, for root alone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use image_store::ImageStore;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Answers until `stop`.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(path: PathBuf, images: Arc<ImageStore>, stop: CancellationToken) -> Result<()> {
    // The holder of the data directory is the only one to make it, so what is there is left over.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", path.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protect {}", path.display()))?;
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("accept on {}: {error}", path.display());
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let images = images.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let images = images.clone();
                async move { Ok::<_, std::convert::Infallible>(answer(request, images).await) }
            });
            if let Err(error) =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
            {
                tracing::debug!("control connection: {error}");
            }
        });
    }
    connections.shutdown().await;
    std::fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

async fn answer(request: Request<hyper::body::Incoming>, images: Arc<ImageStore>) -> Response<Full<Bytes>> {
    let (status, value) = match perform(request, images).await {
        Ok(value) => (StatusCode::OK, value),
        Err(error) => (StatusCode::BAD_REQUEST, json!({"error": format!("{error:#}")})),
    };
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = status;
    response
}

async fn perform(request: Request<hyper::body::Incoming>, images: Arc<ImageStore>) -> Result<Value> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let body = request.into_body().collect().await.context("read request")?.to_bytes();
    let blocking = move || match (method, path.as_str()) {
        (Method::GET, "/images") => Ok(crate::image::list(&images)),
        (Method::POST, "/images/import") => {
            let request: Value = serde_json::from_slice(&body).context("read request")?;
            crate::image::import(&images, Path::new(request["path"].as_str().context("the request names no path")?))
        }
        (method, path) => bail!("no such command: {method} {path}"),
    };
    tokio::task::spawn_blocking(blocking).await.context("run command")?
}

/// Asks a running server. `None` when none listens.
///
/// # Errors
/// What the server answered, where it refused.
pub async fn ask(socket: &Path, method: Method, path: &str, body: &Value) -> Result<Option<Value>> {
    let stream = match UnixStream::connect(socket).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error).with_context(|| format!("connect to {}", socket.display())),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.context("speak to the server")?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "knarr")
        .body(Full::<Bytes>::from(body.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.context("ask the server")?;
        let status = response.status();
        let body = response.into_body().collect().await.context("read the server's answer")?.to_bytes();
        let value: Value = serde_json::from_slice(&body).context("read the server's answer")?;
        if status.is_success() {
            Ok(Some(value))
        } else {
            bail!("{}", value["error"].as_str().unwrap_or("the server refused"))
        }
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => match ended {
            Ok(()) => bail!("the server closed the connection"),
            Err(error) => Err(error).context("speak to the server"),
        },
    }
}
