//! Connections into a pod's network, as port-forward makes them.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, TcpStream},
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use cri::v1;
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{Engine, blocking, lock};

/// A pod and the ports of it that were asked for by number.
pub(super) struct Ports {
    sandbox: String,
    listed: Vec<u16>,
}

impl Ports {
    pub fn of(request: v1::PortForwardRequest) -> Self {
        let listed = request.port.into_iter().filter_map(|port| u16::try_from(port).ok()).collect();
        Self { sandbox: request.pod_sandbox_id, listed }
    }

    /// Ports that were named with the request; the rest are named with each stream.
    pub fn listed(&self) -> impl Iterator<Item = u16> + use<'_> {
        self.listed.iter().copied()
    }
}

/// Where bytes for the pod come from.
pub(super) trait Inlet: Send {
    /// The next bytes; `None` when no more come.
    fn next(&mut self) -> impl Future<Output = Option<Bytes>> + Send;
}

/// Where bytes of the pod go.
pub(super) trait Outlet: Send {
    /// False when nobody is there any more.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = bool> + Send;
}

/// Connects to a port inside a pod and carries bytes both ways until the pod's side ends.
///
/// # Errors
/// With the text for whoever asked.
pub(super) async fn carry(
    engine: &Engine,
    ports: &Ports,
    port: u16,
    mut inlet: impl Inlet,
    outlet: &mut impl Outlet,
) -> Result<(), String> {
    let told = |error: anyhow::Error| format!("error forwarding port {port} to pod {}, uid : {error:#}", ports.sandbox);
    let stream = connect(engine, &ports.sandbox, port).await.map_err(told)?;
    let (mut reader, mut writer) = stream.into_split();
    let inward = async {
        while let Some(bytes) = inlet.next().await {
            writer.write_all(&bytes).await?;
        }
        // The client has said all, and may still want to hear.
        writer.shutdown().await
    };
    let outward = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 || !outlet.send(Bytes::copy_from_slice(&buffer[..count])).await {
                return io::Result::Ok(());
            }
        }
    };
    let (mut inward, mut outward) = (std::pin::pin!(inward), std::pin::pin!(outward));
    let outcome = tokio::select! {
        // Who no longer takes what the client says may still answer what it has heard.
        _ = &mut inward => outward.await,
        outcome = &mut outward => outcome,
    };
    outcome.context("read from the pod").map_err(told)
}

async fn connect(engine: &Engine, sandbox: &str, port: u16) -> Result<tokio::net::TcpStream> {
    let found = engine.sandbox(sandbox).map_err(|status| anyhow!(status.message().to_owned()))?;
    // The shim lives in the pod's network, whichever that is.
    anyhow::ensure!(lock(&found.shim).is_some(), "sandbox {sandbox} is not running");
    let namespace = format!("/proc/{}/ns/net", lock(&found.record).shim_pid);
    let stream = blocking(move || {
        let file = File::open(&namespace).with_context(|| format!("open network namespace {namespace:?}"))?;
        inside(&file, port).map_err(|[four, six]| {
            anyhow!(
                "failed to execute portforward in network namespace {namespace:?}: failed to connect to localhost:{port} \
                 inside namespace {namespace:?}, IPv4: dial tcp4 127.0.0.1:{port}: connect: {} \
                 IPv6: dial tcp6 [::1]:{port}: connect: {}",
                reason(&four),
                reason(&six)
            )
        })
    })
    .await?;
    stream.set_nonblocking(true).context("watch the connection")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    tokio::net::TcpStream::from_std(stream).context("watch the connection")
}

/// An error as other runtimes word it.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

/// Connects to a port of localhost in a network namespace.
///
/// On a thread of its own: a network namespace belongs to a thread, and none of the callers' may change. A socket stays in
/// the namespace that it was made in.
fn inside(namespace: &File, port: u16) -> Result<TcpStream, [io::Error; 2]> {
    let body = || {
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| [errno.into(), errno.into()])?;
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .or_else(|four| TcpStream::connect((Ipv6Addr::LOCALHOST, port)).map_err(|six| [four, six]))
    };
    std::thread::scope(|scope| {
        scope.spawn(body).join().unwrap_or_else(|_| {
            let panicked = || io::Error::other("the thread of the network namespace panicked");
            Err([panicked(), panicked()])
        })
    })
}
