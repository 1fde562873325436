//! The name servers of the host: they are asked for what is not of the cluster.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// How long one server may take before the next is asked: all of a usual list within the five seconds that clients wait.
const PATIENCE: Duration = Duration::from_millis(1500);
/// The file that names them.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The servers of a `resolv.conf`, without those that are this server itself.
pub(crate) fn servers(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let named = lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    named.filter(|server| !own.contains(server)).map(|server| SocketAddr::new(server, 53)).collect()
}

/// Hands a question on, byte by byte, and returns the first answer. `own` are the addresses of this server: asking itself
/// would never end.
///
/// # Errors
/// When no server answers.
pub(crate) async fn ask(question: &[u8], own: &[IpAddr], udp: bool) -> Result<Vec<u8>> {
    // Read each time: the host may change its name servers.
    let text = tokio::fs::read_to_string(RESOLV_CONF).await.with_context(|| format!("read {RESOLV_CONF}"))?;
    let servers = servers(&text, own);
    let mut last = anyhow::anyhow!("{RESOLV_CONF} names no server");
    for server in servers {
        let attempt = async { if udp { over_udp(question, server).await } else { over_tcp(question, server).await } };
        match tokio::time::timeout(PATIENCE, attempt).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error.context(format!("ask {server}")),
            Err(_) => last = anyhow::anyhow!("{server} does not answer"),
        }
    }
    Err(last)
}

async fn over_udp(question: &[u8], server: SocketAddr) -> Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    // A new socket each time has a new port, which is half of what protects against forged answers.
    let socket = UdpSocket::bind(any).await.context("open a socket")?;
    socket.connect(server).await.context("connect")?;
    socket.send(question).await.context("send")?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await.context("receive")?;
        if is_answer(question, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(question: &[u8], server: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await.context("connect")?;
    let length = u16::try_from(question.len()).context("send")?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await.context("send")?;
    let length = stream.read_u16().await.context("receive")?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.context("receive")?;
    if !is_answer(question, &answer) {
        bail!("it answers another question");
    }
    Ok(answer)
}

/// Whether an answer has the question's number and is an answer.
fn is_answer(question: &[u8], answer: &[u8]) -> bool {
    answer.len() >= 12 && answer.get(..2) == question.get(..2) && answer[2] & 0x80 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_does_not_ask_itself() {
        let text = "# made by hand\nsearch x\nnameserver 10.96.0.10\nnameserver 192.0.2.1 # office\nnameserver ::1\n";
        let own = ["10.96.0.10".parse().expect("an address")];
        assert_eq!(servers(text, &own), ["192.0.2.1:53", "[::1]:53"].map(|s| s.parse().expect("an address")));
    }
}
