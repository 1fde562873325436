//! Probes: when to ask, what an answer means, and how to ask.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, HTTPHeader, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

/// Which question a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Has the container come up?
    Startup,
    /// May it get traffic?
    Readiness,
    /// Must it be restarted?
    Liveness,
}

impl Kind {
    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// The numbers of a probe, with the API's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Before the first question.
    pub initial_delay: Duration,
    /// Between questions.
    pub period: Duration,
    /// For an answer.
    pub timeout: Duration,
    /// Answers in a row that mean yes.
    pub successes: u32,
    /// Failures in a row that mean no.
    pub failures: u32,
}

impl Timing {
    /// Reads the numbers of a probe.
    pub fn of(probe: &Probe) -> Timing {
        let positive = |value: Option<i32>, default: u32| match value {
            Some(value) if value > 0 => value.unsigned_abs(),
            _ => default,
        };
        let seconds = |value: Option<i32>, default: u32| Duration::from_secs(positive(value, default).into());
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            successes: positive(probe.success_threshold, 1),
            failures: positive(probe.failure_threshold, 3),
        }
    }
}

/// Answers in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    good: bool,
    length: u32,
}

impl Streak {
    /// Counts an answer. `Some` once enough of the same came in a row.
    pub fn count(&mut self, good: bool, timing: &Timing) -> Option<bool> {
        if self.length > 0 && self.good == good {
            self.length = self.length.saturating_add(1);
        } else {
            *self = Streak { good, length: 1 };
        }
        let enough = if good { timing.successes } else { timing.failures };
        (self.length >= enough).then_some(good)
    }
}

/// The number of a port given by number or by name.
pub fn port_number(container: &Container, port: &IntOrString) -> anyhow::Result<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            match ports.clone().find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.container_port,
                None => name.parse().with_context(|| format!("no port is named {name:?}"))?,
            }
        }
    };
    u16::try_from(number).with_context(|| format!("{number} is not a port"))
}

/// Opens a connection and closes it.
pub async fn tcp(host: &str, port: u16) -> anyhow::Result<()> {
    TcpStream::connect((host, port)).await.map(drop).with_context(|| format!("dial tcp {host}:{port}"))
}

/// Asks over HTTP; 200 to 399 is a yes.
pub async fn http(container: &Container, action: &HTTPGetAction, pod_ip: &str) -> anyhow::Result<()> {
    let port = port_number(container, &action.port)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let shown = format!("Get \"{scheme}://{host}:{port}{path}\"");
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("{shown}: dial tcp {host}:{port}"))?;
    let headers = action.http_headers.clone().unwrap_or_default();
    let authority = format!("{host}:{port}");
    let status = if scheme == "https" {
        let name = rustls_pki_types::ServerName::try_from(host.to_owned())?;
        let stream = crate::tls::trust_all()?.connect(name, stream).await.with_context(|| shown.clone())?;
        ask(stream, &authority, &path, &headers).await
    } else {
        ask(stream, &authority, &path, &headers).await
    };
    let status = status.with_context(|| shown)?;
    if !(200..400).contains(&status) {
        bail!("HTTP probe failed with statuscode: {status}");
    }
    Ok(())
}

async fn ask(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    authority: &str,
    path: &str,
    headers: &[HTTPHeader],
) -> anyhow::Result<u16> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut request = http::Request::get(path).header("user-agent", "kube-probe/1.37").header("accept", "*/*");
    let own_host = headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    request = request.header("host", own_host.map_or(authority, |header| header.value.as_str()));
    for header in headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        request = request.header(&header.name, &header.value);
    }
    let exchange = async {
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?;
        let status = response.status().as_u16();
        // Read to the end, so that the server can finish; more than this nobody needs.
        let _ = Limited::new(response.into_body(), 10 << 10).collect().await;
        anyhow::Ok(status)
    };
    tokio::pin!(exchange);
    tokio::select! {
        status = &mut exchange => status,
        // A server that closes after its answer ends the connection before the answer has been looked at; what went
        // wrong on the way, if anything did, is what the exchange then says.
        _ = connection => exchange.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_needs_enough_answers_in_a_row() {
        let timing = Timing::of(&Probe { success_threshold: Some(2), ..Probe::default() });
        assert_eq!((timing.period.as_secs(), timing.timeout.as_secs(), timing.failures), (10, 1, 3));
        let mut streak = Streak::default();
        let verdicts: Vec<Option<bool>> = [true, true, false, false, true, false, false, false, true, true]
            .map(|good| streak.count(good, &timing))
            .to_vec();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(verdicts, [None, yes, None, None, None, None, None, no, None, yes]);
    }

    async fn probe_once(answer: &'static str) -> anyhow::Result<()> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let serve = async {
            let (mut stream, _) = listener.accept().await?;
            let _ = stream.read(&mut [0; 1024]).await?;
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await
        };
        let action = HTTPGetAction { port: IntOrString::Int(port.into()), ..HTTPGetAction::default() };
        let container = Container::default();
        let (served, verdict) = tokio::join!(serve, http(&container, &action, "127.0.0.1"));
        served?;
        verdict
    }

    #[tokio::test]
    async fn a_server_that_closes_after_its_answer_has_answered() {
        for _ in 0..50 {
            probe_once("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        let refused = probe_once("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(refused.unwrap_err().to_string(), "HTTP probe failed with statuscode: 503");
        assert!(probe_once("").await.is_err());
    }
}
