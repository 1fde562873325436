//! Exec and attach as kubectl does them: over WebSocket, at the address that CRI gives. Needs root and busybox.

#[allow(dead_code)]
mod node;

use cri::{Clients, v1};
use futures::{SinkExt as _, StreamExt as _};
use node::{Node, container};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue},
};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

async fn connect(url: &str, protocol: &str) -> WebSocketStream<TcpStream> {
    let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_str(protocol).unwrap());
    let (socket, response) = client_async(request, TcpStream::connect(address).await.unwrap()).await.unwrap();
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], protocol);
    socket
}

/// Everything on each channel until the server closes.
async fn collect(socket: &mut WebSocketStream<TcpStream>) -> [String; 4] {
    let mut channels = [const { Vec::new() }; 4];
    while let Some(message) = socket.next().await {
        match message.unwrap() {
            Message::Binary(bytes) => channels[usize::from(bytes[0])].extend_from_slice(&bytes[1..]),
            Message::Close(frame) => assert_eq!(u16::from(frame.unwrap().code), 1000),
            _ => {}
        }
    }
    channels.map(|bytes| String::from_utf8(bytes).unwrap())
}

async fn started(node: &Node, clients: &mut Clients, config: v1::ContainerConfig) -> String {
    let request = v1::RunPodSandboxRequest { config: Some(node.sandbox("pod")), runtime_handler: String::new() };
    let sandbox = clients.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id;
    let request = v1::CreateContainerRequest { pod_sandbox_id: sandbox, config: Some(config), sandbox_config: None };
    let container_id = clients.runtime.create_container(request).await.unwrap().into_inner().container_id;
    let request = v1::StartContainerRequest { container_id: container_id.clone() };
    clients.runtime.start_container(request).await.unwrap();
    container_id
}

async fn exec(clients: &mut Clients, container_id: &str, script: &str, tty: bool) -> String {
    let request = v1::ExecRequest {
        container_id: container_id.into(),
        cmd: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        tty,
        stdin: true,
        stdout: true,
        stderr: !tty,
        audit_request_id: String::new(),
    };
    clients.runtime.exec(request).await.unwrap().into_inner().url
}

#[test]
fn a_command_is_streamed_with_and_without_a_terminal() {
    let node = Node::new();
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        let id = started(&node, &mut clients, container("a", "sleep 1000")).await;

        // Half-closing the input lets `cat` end.
        let url = exec(&mut clients, &id, "cat; echo bad >&2; exit 2", false).await;
        let mut socket = connect(&url, "v5.channel.k8s.io").await;
        socket.send(Message::binary(&b"\0hello"[..])).await.unwrap();
        socket.send(Message::Ping("x".into())).await.unwrap();
        socket.send(Message::binary(&b"\xff\0"[..])).await.unwrap();
        let [_, out, err, verdict] = collect(&mut socket).await;
        assert_eq!((out.as_str(), err.as_str()), ("hello", "bad\n"));
        let verdict: serde_json::Value = serde_json::from_str(&verdict).unwrap();
        assert_eq!(verdict["status"], "Failure");
        assert_eq!(verdict["reason"], "NonZeroExitCode");
        assert_eq!(verdict["details"]["causes"][0], serde_json::json!({ "reason": "ExitCode", "message": "2" }));

        let url = exec(&mut clients, &id, "read line; stty size; tty; echo got $line", true).await;
        let mut socket = connect(&url, "v4.channel.k8s.io").await;
        socket.send(Message::binary(&b"\x04{\"Width\":100,\"Height\":30}"[..])).await.unwrap();
        socket.send(Message::binary(&b"\0word\n"[..])).await.unwrap();
        let [_, out, _, verdict] = collect(&mut socket).await;
        assert!(out.contains("30 100\r\n") && out.contains("/dev/pts/0") && out.ends_with("got word\r\n"), "{out:?}");
        assert_eq!(verdict, r#"{"metadata":{},"status":"Success"}"#);

        // An address holds for one connection.
        let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        let again = client_async(url.replace("http://", "ws://"), TcpStream::connect(address).await.unwrap()).await;
        assert!(again.unwrap_err().to_string().contains("404"));

        // More than any buffer in between.
        let url = exec(&mut clients, &id, "head -c 3000000 /dev/zero", false).await;
        let mut socket = connect(&url, "v5.channel.k8s.io").await;
        assert_eq!(collect(&mut socket).await[1].len(), 3_000_000);

        let request =
            v1::ExecRequest { container_id: id.clone(), cmd: vec!["foo".into()], stdout: true, ..Default::default() };
        let url = clients.runtime.exec(request).await.unwrap().into_inner().url;
        let [.., verdict] = collect(&mut connect(&url, "v5.channel.k8s.io").await).await;
        assert!(verdict.contains(r#"exec: \"foo\": executable file not found in $PATH"#), "{verdict}");

        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[test]
fn a_container_is_attached_to_and_its_input_ends_with_the_first_client() {
    let node = Node::new();
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        let mut config = container("a", "cat; echo done");
        (config.stdin, config.stdin_once) = (true, true);
        let id = started(&node, &mut clients, config).await;
        let attach = || v1::AttachRequest {
            container_id: id.clone(),
            stdin: true,
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let url = clients.runtime.attach(attach()).await.unwrap().into_inner().url;
        let mut socket = connect(&url, "v5.channel.k8s.io").await;
        // The first message only says that the connection stands.
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x01"[..]));
        socket.send(Message::binary(&b"\0hello\n"[..])).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"\x01hello\n"[..]));
        socket.close(None).await.unwrap();
        node::eventually("the container ends with its input", async || node.logged("a").contains("done")).await;

        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
