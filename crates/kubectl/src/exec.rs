//! `exec`: a program in a container, over a WebSocket with the sub-protocol `v5.channel.k8s.io`.

use std::io::Write as _;

use anyhow::{Context as _, Result, anyhow};
use futures::{SinkExt as _, StreamExt as _};
use http::Method;
use object_model::ApiError;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::failure::{Outcome, error, said};
use crate::http::{encode, failure};
use crate::terminal::{self, Raw};
use crate::{Context, logs};

const PROTOCOL: &str = "v5.channel.k8s.io";
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.args;
    let Some(word) = args.words.first() else {
        return Err(error("pod, type/name or --filename must be specified"));
    };
    let command = if args.dashed { args.rest.clone() } else { args.words[1..].to_vec() };
    if !args.dashed && !command.is_empty() {
        return Err(error(
            "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kubectl exec -h' for help and examples",
        ));
    }
    if args.dashed && args.words.len() > 1 {
        return Err(error(
            "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead\nSee 'kubectl exec -h' for help and examples",
        ));
    }
    if command.is_empty() {
        return Err(error("you must specify at least one command for the container"));
    }
    let discovery = context.discovery().await?;
    let mut pods = logs::pods(context, &discovery, word, false).await?;
    let pod = pods.remove(0);
    if matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")) {
        return Err(error(format!(
            "cannot exec into a container in a completed pod; current phase is {}",
            pod["status"]["phase"].as_str().unwrap_or_default()
        )));
    }
    let container = logs::container(&pod, args.get("container"), args.flag("quiet"))?;
    let stdin = args.flag("stdin");
    let mut tty = args.flag("tty");
    if tty && !(stdin && terminal::is_terminal()) {
        if stdin {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
        }
        tty = false;
    }
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let mut path =
        format!("/api/v1/namespaces/{}/pods/{name}/exec?container={}", context.namespace(), encode(&container));
    for one in &command {
        path += &format!("&command={}", encode(one));
    }
    for (flag, on) in [("stdin", stdin), ("stdout", true), ("stderr", !tty), ("tty", tty)] {
        if on {
            path += &format!("&{flag}=true");
        }
    }
    let raw = if tty { Raw::enter() } else { None };
    let ended = carry(context, &path, stdin, tty).await;
    drop(raw);
    verdict(ended.map_err(failure)?)
}

/// What the last word on the error channel comes to.
fn verdict(status: Value) -> Outcome {
    if status["status"] == "Success" {
        return Ok(());
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    if let Some(code) = code.and_then(|cause| cause["message"].as_str()?.parse::<i32>().ok()) {
        eprintln!("command terminated with exit code {code}");
        return Err(said(u8::try_from(code).unwrap_or(1)));
    }
    let message = status["message"].as_str().unwrap_or_default();
    Err(error(message))
}

async fn carry(context: &Context, path: &str, stdin: bool, tty: bool) -> Result<Value> {
    let wire = context.server.open().await?;
    let key = tungstenite::handshake::client::generate_key();
    let mut request = context.server.builder(Method::GET, &format!("ws://server{path}"));
    for (name, value) in [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", &key),
        ("Sec-WebSocket-Protocol", PROTOCOL),
    ] {
        request = request.header(name, value);
    }
    let (socket, _) = match tokio_tungstenite::client_async(request.body(())?, wire).await {
        Ok(opened) => opened,
        Err(tungstenite::Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            return Err(anyhow!(ApiError::from_status(answer.status().as_u16(), &body)));
        }
        Err(e) => return Err(e).context("open the stream"),
    };
    let (mut sink, mut source) = socket.split();
    let (outbox, mut pending) = mpsc::channel::<Message>(16);
    let frame = |channel: u8, data: &[u8]| Message::binary([&[channel], data].concat());
    let size = || terminal::size().map(|(width, height)| json!({"Width": width, "Height": height}).to_string());
    if let Some(size) = size().filter(|_| tty) {
        outbox.send(frame(RESIZE, size.as_bytes())).await?;
    }
    let inward = async {
        if stdin {
            let mut input = tokio::io::stdin();
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = input.read(&mut buffer).await {
                if outbox.send(frame(STDIN, &buffer[..count])).await.is_err() {
                    break;
                }
            }
            // The end of the input is told, and the output goes on.
            let _ = outbox.send(frame(CLOSE, &[STDIN])).await;
        }
        std::future::pending::<()>().await;
    };
    let sizes = async {
        let signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change());
        if let (Ok(mut signals), true) = (signals, tty) {
            while signals.recv().await.is_some() {
                if let Some(size) = size()
                    && outbox.send(frame(RESIZE, size.as_bytes())).await.is_err()
                {
                    break;
                }
            }
        }
        std::future::pending::<()>().await;
    };
    let outward = async {
        while let Some(message) = pending.recv().await {
            sink.send(message).await.context("send to the container")?;
        }
        anyhow::Ok(())
    };
    let listen = async {
        let mut last = None;
        while let Some(message) = source.next().await {
            let data = match message.context("listen to the container")? {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                Message::Close(_) => break,
                _ => continue,
            };
            let Some((channel, data)) = data.split_first() else { continue };
            match *channel {
                STDOUT => {
                    let mut out = std::io::stdout().lock();
                    out.write_all(data).and_then(|()| out.flush()).context("write the output")?;
                }
                STDERR => {
                    let mut out = std::io::stderr().lock();
                    out.write_all(data).context("write the error output")?;
                }
                ERROR => last = Some(serde_json::from_slice::<Value>(data).context("read how the command ended")?),
                _ => {}
            }
        }
        last.context("the connection ended before the command did")
    };
    tokio::select! {
        ended = listen => ended,
        sent = outward => sent.and(Err(anyhow!("the connection ended before the command did"))),
        () = inward => Err(anyhow!("the input ended")),
        () = sizes => Err(anyhow!("the terminal ended")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_of_the_command_is_ours() {
        assert!(verdict(json!({"status": "Success"})).is_ok());
        let status = json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "5"}]}});
        assert_eq!(verdict(status).unwrap_err().code, 5);
        let status = json!({"status": "Failure", "reason": "InternalError", "message": "no"});
        assert_eq!(verdict(status).unwrap_err().message, "error: no");
    }
}
