//! The cluster's DNS: names of Services and pods, and the host's name servers for the rest.
//!
//! The room looks (caches of Services and EndpointSlices), plans (the names in `zone` and the answers in `reply`, both pure)
//! and answers over UDP and TCP.

mod reply;
mod upstream;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::{Cache, Client, Resource};
use hickory_proto::op::{Message, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::reply::Reply;
pub use crate::zone::Range;
use crate::zone::Zone;

const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const ENDPOINT_SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
/// Changes within this time are taken in together.
const TOGETHER: Duration = Duration::from_millis(2);
/// How long a connection over TCP may be idle.
const IDLE: Duration = Duration::from_secs(30);
/// How many questions may wait for others' answers at a time, and how many connections may be open.
const WAITING: usize = 1024;
const CONNECTIONS: usize = 256;

/// What the server must be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The domain of the cluster, such as `cluster.local`.
    pub domain: String,
    /// The ranges of pods' and Services' addresses: their names are here or nowhere.
    pub ranges: Vec<Range>,
    /// Addresses by which this server is reached.
    pub own: Vec<IpAddr>,
}

/// The sockets: one for UDP, one for TCP, on the same port.
pub struct Sockets {
    /// UDP.
    pub udp: UdpSocket,
    /// TCP.
    pub tcp: TcpListener,
}

impl Sockets {
    /// Listens on port 53, or on any other if something else on the host has that one: pods reach the server through its
    /// Service.
    ///
    /// # Errors
    /// When neither can be had.
    pub async fn bind(address: IpAddr) -> Result<Self> {
        let both = async |port: u16| -> std::io::Result<Self> {
            let tcp = TcpListener::bind((address, port)).await?;
            let udp = UdpSocket::bind(tcp.local_addr()?).await?;
            Ok(Self { udp, tcp })
        };
        match both(53).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                tracing::info!("{address}:53 is taken, the cluster's DNS uses another port");
                both(0).await
            }
            other => other,
        }
        .with_context(|| format!("listen on {address} for DNS"))
    }

    /// The port.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn port(&self) -> Result<u16> {
        Ok(self.tcp.local_addr().context("read the port of the DNS")?.port())
    }
}

struct Shared {
    config: Config,
    zone: RwLock<Arc<Zone>>,
    waiting: Semaphore,
}

impl Shared {
    fn zone(&self) -> Arc<Zone> {
        self.zone.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The server.
pub struct Server {
    config: Config,
    client: Client,
}

impl Server {
    /// A server that watches through `client`.
    pub fn new(config: Config, client: Client) -> Self {
        Self { config, client }
    }

    /// Answers until cancelled.
    ///
    /// # Errors
    /// When a socket fails for good.
    pub async fn run(self, sockets: Sockets, cancel: CancellationToken) -> Result<()> {
        let tasks = TaskTracker::new();
        let changed = Arc::new(Notify::new());
        let (services, reflector) = Cache::following(self.client.api(SERVICES), kinds::typed::service, &changed);
        tasks.spawn(reflector.run(cancel.clone()));
        let (slices, reflector) =
            Cache::following(self.client.api(ENDPOINT_SLICES), kinds::typed::endpoint_slice, &changed);
        tasks.spawn(reflector.run(cancel.clone()));
        let synced = async {
            services.synced().await;
            slices.synced().await;
        };
        // Before that, every name would be denied.
        tokio::select! { () = cancel.cancelled() => {}, () = synced => {} }
        let build = |config: &Config| {
            let (all, behind) = (services.all(), slices.all());
            let (all, behind) = (all.iter().map(|s| &s.object), behind.iter().map(|s| &s.object));
            Arc::new(Zone::new(&config.domain, &config.ranges, all, behind))
        };
        let shared = Arc::new(Shared {
            zone: RwLock::new(build(&self.config)),
            config: self.config,
            waiting: Semaphore::new(WAITING),
        });
        let udp = Arc::new(sockets.udp);
        tasks.spawn(serve_udp(udp, shared.clone(), tasks.clone(), cancel.clone()));
        tasks.spawn(serve_tcp(sockets.tcp, shared.clone(), tasks.clone(), cancel.clone()));
        let mut together = TOGETHER;
        loop {
            let more = async {
                changed.notified().await;
                tokio::time::sleep(together).await;
            };
            tokio::select! { () = cancel.cancelled() => break, () = more => {} }
            let begin = Instant::now();
            let zone = build(&shared.config);
            // With many Services a burst of changes is taken in in fewer steps.
            together = TOGETHER.max(begin.elapsed());
            *shared.zone.write().unwrap_or_else(PoisonError::into_inner) = zone;
        }
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>, tasks: TaskTracker, cancel: CancellationToken) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, from) = tokio::select! {
            () = cancel.cancelled() => return,
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                Err(error) => {
                    // An answer to a client that has gone comes back as an error here.
                    tracing::debug!("receive a question: {error}");
                    continue;
                }
            },
        };
        let Ok(request) = Message::from_vec(&buffer[..length]) else { continue };
        match reply::reply(&shared.zone(), &shared.config.domain, &request) {
            Reply::Answer(message) => send(&socket, from, reply::encode(&request, &message, true)).await,
            rest => {
                let (socket, shared, cancel) = (socket.clone(), shared.clone(), cancel.clone());
                let question = buffer[..length].to_vec();
                tasks.spawn(async move {
                    let answer = elsewhere(&shared, &request, &question, rest, true);
                    tokio::select! { () = cancel.cancelled() => {}, answer = answer => send(&socket, from, answer).await }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, to: SocketAddr, answer: Option<Vec<u8>>) {
    let Some(answer) = answer else { return };
    if let Err(error) = socket.send_to(&answer, to).await {
        tracing::debug!("answer {to}: {error}");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, cancel: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! { () = cancel.cancelled() => return, accepted = listener.accept() => accepted };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("accept a connection for DNS: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (shared, cancel) = (shared.clone(), cancel.clone());
        tasks.spawn(async move {
            let _place = place;
            let ended =
                tokio::select! { () = cancel.cancelled() => Ok(()), ended = converse(stream, &shared) => ended };
            if let Err(error) = ended {
                tracing::debug!("DNS over TCP: {error:#}");
            }
        });
    }
}

async fn converse(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    loop {
        let Ok(length) = tokio::time::timeout(IDLE, stream.read_u16()).await else { return Ok(()) };
        let Ok(length) = length else { return Ok(()) };
        let mut question = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await.context("read a question")??;
        let request = Message::from_vec(&question).context("read a question")?;
        let answer = match reply::reply(&shared.zone(), &shared.config.domain, &request) {
            Reply::Answer(message) => reply::encode(&request, &message, false),
            rest => elsewhere(shared, &request, &question, rest, false).await,
        };
        let Some(answer) = answer else { return Ok(()) };
        let length = u16::try_from(answer.len()).context("answer")?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await.context("answer")?;
    }
}

/// The answer to what has to be asked elsewhere.
async fn elsewhere(shared: &Shared, request: &Message, question: &[u8], rest: Reply, udp: bool) -> Option<Vec<u8>> {
    let _waiting = shared.waiting.acquire().await.ok()?;
    let own = &shared.config.own;
    let outcome = match &rest {
        Reply::Continue(_, name) => match reply::question(request, name).to_vec() {
            Ok(question) => upstream::ask(&question, own, udp).await,
            Err(error) => Err(error.into()),
        },
        _ => upstream::ask(question, own, udp).await,
    };
    match (outcome, rest) {
        (Ok(answer), Reply::Continue(mut reply, _)) => {
            let theirs = Message::from_vec(&answer).ok()?;
            reply.metadata.response_code = theirs.metadata.response_code;
            reply.metadata.authoritative = false;
            reply.add_answers(theirs.answers);
            reply::encode(request, &reply, udp)
        }
        (Ok(answer), _) => Some(answer),
        (Err(error), _) => {
            tracing::debug!("ask elsewhere: {error:#}");
            reply::encode(request, &reply::empty(request, ResponseCode::ServFail), udp)
        }
    }
}
