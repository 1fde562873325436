//! Exec and port-forward as clients do them that speak SPDY, alone or within WebSocket. Needs root and busybox.

#[allow(dead_code)]
mod node;

use std::collections::HashMap;

use bytes::Bytes;
use cri::{Clients, v1};
use futures::{SinkExt as _, StreamExt as _};
use node::{Node, container};
use spdy::Frame;
use spdy::frame::{Decoder, Encoder};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

/// The client's side of SPDY.
struct Client<T> {
    io: T,
    encoder: Encoder,
    decoder: Decoder,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    fn new(io: T) -> Self {
        Self { io, encoder: Encoder::new().unwrap(), decoder: Decoder::default() }
    }

    async fn send(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let mut bytes = Vec::new();
        frames.into_iter().for_each(|frame| self.encoder.encode(&frame, &mut bytes).unwrap());
        self.io.write_all(&bytes).await.unwrap();
    }

    /// What comes on each stream until so many of them have ended.
    async fn collect(&mut self, ends: usize) -> HashMap<u32, String> {
        let (mut heard, mut ended) = (HashMap::<u32, Vec<u8>>::new(), 0);
        while ended < ends {
            match self.decoder.next_frame().unwrap() {
                Some(Frame::Data { id, fin, bytes }) => {
                    heard.entry(id).or_default().extend_from_slice(&bytes);
                    ended += usize::from(fin);
                }
                Some(_) => {}
                None => assert_ne!(self.io.read_buf(self.decoder.buffer()).await.unwrap(), 0, "{heard:?}"),
            }
        }
        heard.into_iter().map(|(id, bytes)| (id, String::from_utf8(bytes).unwrap())).collect()
    }
}

fn open(id: u32, headers: &[(&str, &str)]) -> Frame {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Frame::SynStream { id, fin: false, headers }
}

fn data(id: u32, bytes: &'static str, fin: bool) -> Frame {
    Frame::Data { id, fin, bytes: Bytes::from_static(bytes.as_bytes()) }
}

/// Asks for an upgrade to SPDY; answers the head of the answer as well.
async fn upgrade(url: &str, protocols: &str) -> (TcpStream, String) {
    let rest = url.trim_start_matches("http://");
    let (address, path) = rest.split_once('/').unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /{path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: {protocols}\r\nContent-Length: 0\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (socket, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

async fn sandbox(node: &Node, clients: &mut Clients, script: &str) -> (String, String) {
    let request = v1::RunPodSandboxRequest { config: Some(node.sandbox("pod")), runtime_handler: String::new() };
    let sandbox = clients.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let config = Some(container("a", script));
    let request = v1::CreateContainerRequest { pod_sandbox_id: sandbox.clone(), config, sandbox_config: None };
    let container_id = clients.runtime.create_container(request).await.unwrap().into_inner().container_id;
    let request = v1::StartContainerRequest { container_id: container_id.clone() };
    clients.runtime.start_container(request).await.unwrap();
    (sandbox, container_id)
}

#[test]
fn a_command_has_a_stream_for_each_thing() {
    let node = Node::new();
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        let (_, container_id) = sandbox(&node, &mut clients, "sleep 1000").await;
        let exec = async |script: &str, tty: bool| {
            let request = v1::ExecRequest {
                container_id: container_id.clone(),
                cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
                tty,
                stdin: true,
                stdout: true,
                stderr: !tty,
                audit_request_id: String::new(),
            };
            clients.runtime.clone().exec(request).await.unwrap().into_inner().url
        };

        let (socket, head) = upgrade(&exec("cat; echo bad >&2; exit 2", false).await, "v4.channel.k8s.io").await;
        assert!(
            head.starts_with("http/1.1 101 ") && head.contains("x-stream-protocol-version: v4.channel.k8s.io"),
            "{head}"
        );
        let mut client = Client::new(socket);
        let kinds = ["error", "stdin", "stdout", "stderr"];
        client.send(kinds.iter().zip([1, 3, 5, 7]).map(|(kind, id)| open(id, &[("streamtype", kind)]))).await;
        // The input does not end from this side before the command does: clients would send no more.
        let early = tokio::time::timeout(std::time::Duration::from_millis(300), client.collect(1)).await;
        assert!(early.is_err(), "{early:?}");
        client.send([data(3, "hel", false), data(3, "lo", true)]).await;
        let heard = client.collect(4).await;
        assert_eq!((heard[&5].as_str(), heard[&7].as_str()), ("hello", "bad\n"));
        let verdict: serde_json::Value = serde_json::from_str(&heard[&1]).unwrap();
        assert_eq!(verdict["details"]["causes"][0], serde_json::json!({ "reason": "ExitCode", "message": "2" }));

        // A terminal has a stream for its size, and the older protocols say nothing of a success.
        let url = exec("read line; stty size; echo got $line", true).await;
        let (socket, head) = upgrade(&url, "v9.channel.k8s.io, v3.channel.k8s.io").await;
        assert!(head.contains("x-stream-protocol-version: v3.channel.k8s.io"), "{head}");
        let mut client = Client::new(socket);
        let kinds = ["error", "stdin", "stdout", "resize"];
        client.send(kinds.iter().zip([1, 3, 5, 7]).map(|(kind, id)| open(id, &[("streamtype", kind)]))).await;
        client.send([data(7, r#"{"Width":100,"Height":30}"#, false)]).await;
        // The size and the word come by streams that do not wait for each other.
        let mut out = String::new();
        while !out.contains("got word\r\n") {
            if out.is_empty() {
                client.send([data(3, "word\n", false)]).await;
            }
            match client.decoder.next_frame().unwrap() {
                Some(Frame::Data { id: 5, bytes, .. }) => out.push_str(std::str::from_utf8(&bytes).unwrap()),
                Some(_) => {}
                None => assert_ne!(client.io.read_buf(client.decoder.buffer()).await.unwrap(), 0, "{out}"),
            }
        }
        // The stream for the size has ended before.
        let heard = client.collect(3).await;
        assert_eq!(heard.get(&1).map(String::as_str), Some(""));

        let (_, head) = upgrade(&exec("true", false).await, "v9.channel.k8s.io").await;
        assert!(head.starts_with("http/1.1 403 "), "{head}");
        assert!(head.contains("x-accepted-stream-protocol-versions: v5.channel.k8s.io\r\n"), "{head}");

        // More than any buffer in between, to a client that keeps no windows.
        let (socket, _) = upgrade(&exec("head -c 3000000 /dev/zero", false).await, "v4.channel.k8s.io").await;
        let mut client = Client::new(socket);
        let kinds = ["error", "stdin", "stdout", "stderr"];
        client.send(kinds.iter().zip([1, 3, 5, 7]).map(|(kind, id)| open(id, &[("streamtype", kind)]))).await;
        assert_eq!(client.collect(4).await[&5].len(), 3_000_000);

        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[test]
fn ports_are_forwarded_in_every_form_to_localhost_of_the_pod() {
    let node = Node::new();
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        // Answers each connection with what it hears.
        let (sandbox, _) = sandbox(&node, &mut clients, "nc -ll -p 8080 -e cat").await;
        let forward = async |port: Vec<i32>| {
            let request = v1::PortForwardRequest { pod_sandbox_id: sandbox.clone(), port };
            clients.runtime.clone().port_forward(request).await.unwrap().into_inner().url
        };
        let pair = |id, port: &'static str, request: &'static str| {
            let of = |id, kind| open(id, &[("streamtype", kind), ("port", port), ("requestid", request)]);
            [of(id, "error"), data(id, "", true), of(id + 2, "data")]
        };
        let talk = async |client: &mut Client<_>, first: u32| {
            // The server inside may still be on its way to listening.
            for id in (first..first + 4000).step_by(4) {
                client.send(pair(id, "8080", "x")).await;
                client.send([data(id + 2, "through and back", true)]).await;
                let heard = client.collect(2).await;
                if heard[&id].is_empty() {
                    assert_eq!(heard[&(id + 2)], "through and back");
                    return id + 4;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            panic!("nobody listens in the pod")
        };

        let (socket, head) = upgrade(&forward(Vec::new()).await, "portforward.k8s.io").await;
        assert!(head.contains("x-stream-protocol-version: portforward.k8s.io"), "{head}");
        let mut client = Client::new(socket);
        let next = talk(&mut client, 1).await;
        let next = talk(&mut client, next).await;
        client.send(pair(next, "8081", "y")).await;
        let heard = client.collect(2).await;
        assert!(heard[&next].starts_with("error forwarding port 8081 to pod "), "{heard:?}");
        assert!(heard[&next].contains("failed to connect to localhost:8081 inside namespace "), "{heard:?}");
        assert!(heard[&next].contains("dial tcp4 127.0.0.1:8081: connect: connection refused"), "{heard:?}");

        // The same bytes within messages.
        let mut socket = websocket(&forward(Vec::new()).await, "SPDY/3.1+portforward.k8s.io").await;
        let (near, far) = tokio::io::duplex(1 << 16);
        let (mut reader, mut writer) = tokio::io::split(far);
        let carry = async {
            let mut buffer = vec![0; 5];
            loop {
                tokio::select! {
                    count = reader.read(&mut buffer) => match count.unwrap() {
                        0 => break,
                        count => socket.send(Message::binary(buffer[..count].to_vec())).await.unwrap(),
                    },
                    message = socket.next() => if let Message::Binary(bytes) = message.unwrap().unwrap() {
                        writer.write_all(&bytes).await.unwrap();
                    }
                }
            }
        };
        let act = async {
            let mut client = Client::new(near);
            let request = [
                open(1, &[("streamtype", "error"), ("port", "8080")]),
                open(3, &[("streamtype", "data"), ("port", "8080")]),
            ];
            client.send(request).await;
            client.send([data(3, "old", true)]).await;
            let heard = client.collect(2).await;
            assert_eq!((heard[&1].as_str(), heard[&3].as_str()), ("", "old"));
        };
        tokio::join!(carry, act);

        // The old form: two channels for each port, which begin with it.
        let mut socket = websocket(&forward(vec![8080, 8081]).await, "v4.channel.k8s.io").await;
        socket.send(Message::binary(&b"\0hi"[..])).await.unwrap();
        socket.send(Message::binary(&b"\xff\0"[..])).await.unwrap();
        let mut heard = [const { Vec::new() }; 4];
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Binary(bytes) = message {
                heard[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
            }
        }
        assert_eq!(
            (&heard[0][..], &heard[1][..], &heard[2][..]),
            (&b"\x90\x1fhi"[..], &b"\x90\x1f"[..], &b"\x91\x1f"[..])
        );
        assert!(String::from_utf8_lossy(&heard[3][2..]).contains("localhost:8081"), "{heard:?}");

        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

async fn websocket(url: &str, protocol: &str) -> tokio_tungstenite::WebSocketStream<TcpStream> {
    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_str(protocol).unwrap());
    let (socket, response) = client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], protocol);
    socket
}
