//! Published ports: listeners on the machine that pass connections on to a container.
//!
//! They are part of the server and not of the container: while no server runs, the container is still reached by its
//! address. A listener needs no privilege over packets, works on loopback, and says at once when a port is taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::error::{Answer, bad, internal};
use crate::model::{Config, HostConfig, PortBinding};

/// How long a UDP exchange may be quiet before it is forgotten.
const QUIET: Duration = Duration::from_secs(90);

/// One port to be published: `80/tcp`, and where.
pub(crate) type Wanted = (u16, String, PortBinding);

/// Ports that are open; they close with this value.
pub(crate) struct Published {
    bindings: BTreeMap<String, Vec<PortBinding>>,
    _open: DropGuard,
}

impl Published {
    /// What is open, with the numbers that were chosen.
    pub fn bindings(&self) -> BTreeMap<String, Vec<PortBinding>> {
        self.bindings.clone()
    }
}

fn split(port: &str) -> Answer<(u16, String)> {
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let number = number.parse().ok().filter(|n| *n > 0);
    match (number, protocol) {
        (Some(number), "tcp" | "udp") => Ok((number, protocol.to_owned())),
        (Some(_), "sctp") => Err(crate::error::unsupported("publishing a port of SCTP")),
        _ => Err(bad(format!("invalid port specification: {port:?}"))),
    }
}

/// Checks what is asked, before anything is made.
pub(crate) fn check(config: &Config, host: &HostConfig) -> Answer<()> {
    for port in config.exposed_ports.keys().chain(host.port_bindings.keys()) {
        split(port)?;
    }
    for binding in host.port_bindings.values().flatten().flatten() {
        if !binding.host_ip.is_empty() && binding.host_ip.parse::<IpAddr>().is_err() {
            return Err(bad(format!("invalid IP address: {}", binding.host_ip)));
        }
        if !binding.host_port.is_empty() && binding.host_port.parse::<u16>().is_err() {
            return Err(bad(format!("invalid port specification: {:?}", binding.host_port)));
        }
    }
    Ok(())
}

/// Every port to be published.
pub(crate) fn wanted(config: &Config, host: &HostConfig) -> Vec<Wanted> {
    if matches!(host.network_mode.as_str(), "host" | "none") {
        return Vec::new();
    }
    let mut wanted = Vec::new();
    for (port, bindings) in &host.port_bindings {
        let Ok((number, protocol)) = split(port) else { continue };
        for binding in bindings.iter().flatten() {
            wanted.push((number, protocol.clone(), binding.clone()));
        }
    }
    if host.publish_all_ports {
        for port in config.exposed_ports.keys().filter(|port| !host.port_bindings.contains_key(*port)) {
            if let Ok((number, protocol)) = split(port) {
                wanted.push((number, protocol, PortBinding::default()));
            }
        }
    }
    wanted
}

/// Opens ports and passes on what comes.
pub(crate) async fn publish(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    name: &str,
    wanted: &[Wanted],
    ip: &str,
) -> Answer<Published> {
    let open = stop.child_token();
    let mut published = Published { bindings: BTreeMap::new(), _open: open.clone().drop_guard() };
    for (port, protocol, binding) in wanted {
        let target: SocketAddr =
            format!("{ip}:{port}").parse().map_err(|_| internal(format!("container {name} has no address")))?;
        let host_ip = if binding.host_ip.is_empty() { "0.0.0.0" } else { &binding.host_ip };
        let at = SocketAddr::new(
            host_ip.parse().map_err(|_| bad(format!("invalid IP address: {host_ip}")))?,
            binding.host_port.parse().unwrap_or(0),
        );
        let taken = |e: std::io::Error| {
            let why = if e.kind() == std::io::ErrorKind::AddrInUse {
                "port is already allocated".to_owned()
            } else {
                e.to_string()
            };
            internal(format!(
                "driver failed programming external connectivity on endpoint {name}: Bind for {at} failed: {why}"
            ))
        };
        let actual = if protocol == "udp" {
            let socket = UdpSocket::bind(at).await.map_err(taken)?;
            let actual = socket.local_addr().map_err(taken)?;
            tasks.spawn(pass_datagrams(socket, target, open.clone()));
            actual
        } else {
            let listener = TcpListener::bind(at).await.map_err(taken)?;
            let actual = listener.local_addr().map_err(taken)?;
            tasks.spawn(pass_connections(tasks.clone(), listener, target, open.clone()));
            actual
        };
        let opened = PortBinding { host_ip: host_ip.to_owned(), host_port: actual.port().to_string() };
        published.bindings.entry(format!("{port}/{protocol}")).or_default().push(opened);
    }
    Ok(published)
}

async fn pass_connections(tasks: TaskTracker, listener: TcpListener, target: SocketAddr, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let mut inward = match accepted {
            Ok((stream, _)) => stream,
            Err(e) => {
                tracing::warn!("accept for {target}: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            let pass = async {
                let mut outward = TcpStream::connect(target).await?;
                tokio::io::copy_bidirectional(&mut inward, &mut outward).await
            };
            tokio::select! {
                () = stop.cancelled() => {}
                passed = pass => if let Err(e) = passed {
                    tracing::debug!("pass a connection on to {target}: {e}");
                }
            }
        });
    }
}

async fn pass_datagrams(socket: UdpSocket, target: SocketAddr, stop: CancellationToken) {
    let socket = Arc::new(socket);
    let mut peers: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut replies = tokio::task::JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = replies.join_next() => {
                if let Ok(peer) = ended {
                    peers.remove(&peer);
                }
                continue;
            }
            received = socket.recv_from(&mut buffer) => received,
        };
        let Ok((count, peer)) = received else { continue };
        let upstream = match peers.get(&peer) {
            Some(upstream) => upstream.clone(),
            None => {
                let open = async {
                    let upstream = UdpSocket::bind(("0.0.0.0", 0)).await?;
                    upstream.connect(target).await?;
                    std::io::Result::Ok(Arc::new(upstream))
                };
                let Ok(upstream) = open.await else { continue };
                let (answering, back) = (upstream.clone(), socket.clone());
                replies.spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    while let Ok(Ok(count)) = tokio::time::timeout(QUIET, answering.recv(&mut buffer)).await {
                        if back.send_to(&buffer[..count], peer).await.is_err() {
                            break;
                        }
                    }
                    peer
                });
                peers.insert(peer, upstream.clone());
                upstream
            }
        };
        if let Err(e) = upstream.send(&buffer[..count]).await {
            tracing::debug!("pass a datagram on to {target}: {e}");
        }
    }
}
