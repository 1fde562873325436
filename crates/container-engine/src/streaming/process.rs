//! The process at the other end of exec and attach, whatever the client speaks.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use cri::v1;
use isolation::{Event, ExecSpec, Shim};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::Status;

use super::DRAIN;
use crate::{Engine, blocking, lock, status, streams::Stream, watch};

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;

/// What is to be connected to.
pub(super) enum Work {
    Exec(v1::ExecRequest),
    Attach(v1::AttachRequest),
}

impl Work {
    /// The channels that the client asked for, beside those for errors and sizes.
    pub fn channels(&self) -> Vec<u8> {
        let (stdin, stdout, stderr) = match self {
            Self::Exec(request) => (request.stdin, request.stdout, request.stderr),
            Self::Attach(request) => (request.stdin, request.stdout, request.stderr),
        };
        let all = [(stdin, STDIN), (stdout, STDOUT), (stderr, STDERR)];
        all.into_iter().filter_map(|(wanted, channel)| wanted.then_some(channel)).collect()
    }
}

/// What a client says.
pub(super) enum Said {
    Input(Bytes),
    InputEnds,
    Size(Bytes),
}

/// What a client hears.
pub(super) enum Heard {
    Output(u8, Bytes),
    /// The last word.
    End(Outcome),
}

/// How a session ended.
pub(super) enum Outcome {
    Exited(i32),
    Failed(String),
}

impl Outcome {
    /// What the error channel says of it: a Status in JSON (version 4 of the protocol and later), or plain text if there was
    /// an error.
    pub fn verdict(&self, as_status: bool) -> Option<String> {
        Some(match (self, as_status) {
            (Self::Exited(0), false) => return None,
            (Self::Exited(code), false) => format!("command terminated with exit code {code}"),
            (Self::Failed(message), false) => message.clone(),
            (Self::Exited(0), true) => json!({ "metadata": {}, "status": "Success" }).to_string(),
            (Self::Exited(code), true) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            })
            .to_string(),
            (Self::Failed(message), true) => json!({
                "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500,
            })
            .to_string(),
        })
    }
}

struct Process {
    shim: Shim,
    stdin: Option<Arc<Stream>>,
    stdout: Option<Arc<Stream>>,
    stderr: Option<Stream>,
    tty: bool,
    /// Tells the end of a command; a container that is attached to ends with its streams.
    exit: Option<tokio::net::UnixStream>,
    /// The container whose input ends when this connection does, if it was made so.
    attached: Option<String>,
}

async fn open(engine: &Engine, work: Work) -> Result<Process, Status> {
    match work {
        Work::Exec(request) => {
            let spec = ExecSpec {
                container: request.container_id,
                args: request.cmd,
                tty: request.tty,
                stdin: request.stdin,
                ..ExecSpec::default()
            };
            let (shim, exec) = engine.start_exec(spec).await?;
            let open = || -> Result<Process> {
                exec.exit.set_nonblocking(true).context("wait for the command")?;
                let stdout = Arc::new(Stream::new(exec.stdout)?);
                let stdin = match exec.stdin {
                    Some(stdin) => Some(Arc::new(Stream::new(stdin)?)),
                    None => (request.tty && request.stdin).then(|| stdout.clone()),
                };
                Ok(Process {
                    shim,
                    stdin,
                    stdout: Some(stdout),
                    stderr: exec.stderr.map(Stream::new).transpose()?,
                    tty: request.tty,
                    exit: Some(tokio::net::UnixStream::from_std(exec.exit).context("wait for the command")?),
                    attached: None,
                })
            };
            open().map_err(status)
        }
        Work::Attach(request) => {
            let container = engine.container(&request.container_id)?;
            let record = lock(&container.record).clone();
            let shim = engine.shim_of(&record.sandbox_id).map_err(status)?;
            let (asking, id) = (shim.clone(), record.id.clone());
            let attached = blocking(move || asking.attach(&id)).await.map_err(status)?;
            let open = || -> Result<Process> {
                let stdin = attached.stdin.filter(|_| request.stdin).map(Stream::new).transpose()?;
                Ok(Process {
                    shim,
                    attached: stdin.as_ref().map(|_| record.id.clone()),
                    stdin: stdin.map(Arc::new),
                    stdout: Some(Arc::new(Stream::new(attached.stdout)?)),
                    stderr: Some(Stream::new(attached.stderr)?),
                    tty: attached.tty,
                    exit: None,
                })
            };
            open().map_err(status)
        }
    }
}

/// Carries one session to its end, of which the client hears unless it leaves first.
pub(super) async fn run(engine: &Engine, work: Work, said: mpsc::Receiver<Said>, heard: mpsc::Sender<Heard>) {
    let outcome = match open(engine, work).await {
        Err(e) => Some(Outcome::Failed(e.message().to_owned())),
        Ok(process) => {
            let attached = process.attached.clone().map(|id| (process.shim.clone(), id));
            let outcome = carry(process, said, &heard).await;
            if let Some((shim, id)) = attached {
                // The container may have ended meanwhile, and its input with it.
                let _ = blocking(move || shim.close_stdin(&id)).await;
            }
            outcome
        }
    };
    if let Some(outcome) = outcome {
        // The client may leave at the same moment.
        let _ = heard.send(Heard::End(outcome)).await;
    }
}

/// Carries bytes until the process ends; `None` if the client left first.
async fn carry(process: Process, mut said: mpsc::Receiver<Said>, heard: &mpsc::Sender<Heard>) -> Option<Outcome> {
    let Process { mut stdin, stdout, stderr, tty, mut exit, .. } = process;
    let terminal = if tty { stdin.clone().or_else(|| stdout.clone()) } else { None };
    let inward = async {
        while let Some(word) = said.recv().await {
            match word {
                Said::Input(data) => {
                    // A process that no longer reads is not the client's fault.
                    if let Some(open) = &stdin
                        && open.write_all(&data).await.is_err()
                    {
                        stdin = None;
                    }
                }
                Said::Size(data) => {
                    let size: serde_json::Value = serde_json::from_slice(&data).unwrap_or_default();
                    let of = |name: &str| size[name].as_u64().and_then(|number| u16::try_from(number).ok());
                    if let (Some(terminal), Some(width), Some(height)) = (&terminal, of("Width"), of("Height"))
                        && let Err(e) = terminal.resize(width, height)
                    {
                        tracing::debug!("{e:#}");
                    }
                }
                Said::InputEnds => stdin = None,
            }
        }
    };
    let outward = async {
        let pump = async |stream: Option<&Stream>, channel: u8| {
            let Some(stream) = stream else { return };
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if heard.send(Heard::Output(channel, bytes)).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(pump(stdout.as_deref(), STDOUT), pump(stderr.as_ref(), STDERR));
    };
    let ended = async {
        let mut outward = std::pin::pin!(outward);
        let Some(exit) = &mut exit else {
            outward.await;
            return Outcome::Exited(0);
        };
        let (event, drained) = tokio::select! {
            event = watch::next_event(exit) => (event, false),
            () = &mut outward => (watch::next_event(exit).await, true),
        };
        if !drained {
            let _ = tokio::time::timeout(DRAIN, outward).await;
        }
        match event {
            Ok(Some(Event::ExecExited { code })) => Outcome::Exited(code),
            Ok(_) => Outcome::Failed("the container ended while the command ran".into()),
            Err(e) => Outcome::Failed(format!("{e:#}")),
        }
    };
    let mut ended = std::pin::pin!(ended);
    let mut inward = std::pin::pin!(inward);
    tokio::select! {
        outcome = &mut ended => Some(outcome),
        () = &mut inward => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_a_status_or_plain_text() {
        let text = |code, as_status| Outcome::Exited(code).verdict(as_status);
        assert_eq!(text(0, true).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
        assert!(text(2, true).unwrap().contains(r#"{"message":"2","reason":"ExitCode"}"#));
        assert_eq!(text(0, false), None);
        assert_eq!(text(3, false).unwrap(), "command terminated with exit code 3");
        assert_eq!(Outcome::Failed("no".into()).verdict(false).unwrap(), "no");
    }
}
