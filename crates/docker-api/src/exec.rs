//! Further processes in containers: `docker exec`.

use std::sync::Arc;

use container_engine::{Engine, Stream};
use http::{Response, StatusCode};
use isolation::ExecSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Answer, bad, conflict, missing};
use crate::http::{Body, Call, empty_answer, json_answer};
use crate::streams::{STDOUT, frame, take_over};
use crate::{DockerApi, lock, names};

/// A process that is to run, runs, or ran.
pub(crate) struct Exec {
    container: String,
    spec: ExecSpec,
    wants: (bool, bool, bool),
    started: bool,
    pid: i32,
    exit_code: Option<i32>,
    terminal: Option<Arc<Stream>>,
}

/// How many that have ended are remembered.
const REMEMBERED: usize = 256;

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ExecRequest {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    privileged: bool,
    user: Option<String>,
    working_dir: Option<String>,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartRequest {
    detach: bool,
    console_size: Option<[u16; 2]>,
}

impl DockerApi {
    fn exec_of(&self, id: &str) -> Answer<Exec> {
        let execs = lock(&self.execs);
        let exec = execs.get(id).ok_or_else(|| missing(format!("No such exec instance: {id}")))?;
        Ok(Exec {
            container: exec.container.clone(),
            spec: exec.spec.clone(),
            wants: exec.wants,
            started: exec.started,
            pid: exec.pid,
            exit_code: exec.exit_code,
            terminal: exec.terminal.clone(),
        })
    }

    fn change_exec(&self, id: &str, change: impl FnOnce(&mut Exec)) {
        if let Some(exec) = lock(&self.execs).get_mut(id) {
            change(exec);
        }
    }

    pub(crate) async fn exec_create(&self, mut call: Call, id: &str) -> Answer<Response<Body>> {
        let request: ExecRequest = call.json().await?;
        let record = self.find(id)?.record();
        if record.status != crate::model::Status::Running {
            return Err(conflict(format!("container {} is not running", record.id)));
        }
        let args = request.cmd.unwrap_or_default();
        if args.is_empty() {
            return Err(bad("No exec command specified"));
        }
        if request.privileged {
            return Err(crate::error::unsupported("exec --privileged"));
        }
        let exec = Exec {
            container: record.id.clone(),
            spec: ExecSpec {
                container: record.id,
                args,
                env: request.env.unwrap_or_default().into_iter().filter(|one| one.contains('=')).collect(),
                user: request.user.filter(|user| !user.is_empty()).map(|user| Engine::user_named(&user)),
                cwd: request.working_dir.unwrap_or_default(),
                tty: request.tty,
                stdin: request.attach_stdin,
            },
            wants: (request.attach_stdin, request.attach_stdout, request.attach_stderr),
            started: false,
            pid: 0,
            exit_code: None,
            terminal: None,
        };
        let id = names::new_id();
        let mut execs = lock(&self.execs);
        if execs.len() >= REMEMBERED {
            execs.retain(|_, exec| exec.exit_code.is_none());
        }
        execs.insert(id.clone(), exec);
        Ok(json_answer(StatusCode::CREATED, &json!({"Id": id})))
    }

    pub(crate) async fn exec_start(&self, mut call: Call, id: &str) -> Answer<Response<Body>> {
        let request: StartRequest = call.json().await?;
        let exec = self.exec_of(id)?;
        if exec.started {
            return Err(conflict(format!("exec process already started: {id}")));
        }
        self.change_exec(id, |exec| exec.started = true);
        let begun = self.engine.exec_single(exec.spec.clone()).await;
        if let (Ok(command), true) = (&begun, exec.spec.tty) {
            if let (Some([height, width]), Some(terminal)) = (request.console_size, &command.streams.stdin) {
                terminal.resize(width, height)?;
            }
            self.change_exec(id, |exec| exec.terminal.clone_from(&command.streams.stdin));
        }
        let (api, stop, id, tty) = (self.arc(), self.stop.clone(), id.to_owned(), exec.spec.tty);
        let mut command = match begun {
            Ok(command) => command,
            Err(e) => {
                let message = format!("{e:#}").replace("failed to exec in container: ", "");
                let message = format!(
                    "OCI runtime exec failed: exec failed: unable to start container process: {message}: unknown"
                );
                let code = if message.contains("executable file not found") || message.contains("no such file") {
                    127
                } else {
                    126
                };
                self.change_exec(&id, |exec| exec.exit_code = Some(code));
                if request.detach {
                    return Err(bad(message));
                }
                // The client looks at the exit status when the stream ends.
                let (response, client) = take_over(&mut call, tty);
                self.tasks.spawn(async move {
                    let text = frame(STDOUT, format!("{message}\r\n").as_bytes(), tty);
                    client.say(text).await;
                });
                return Ok(response);
            }
        };
        self.change_exec(&id, |exec| exec.pid = command.pid);
        let nothing = container_engine::Streams {
            stdin: None,
            stdout: command.streams.stdout.clone(),
            stderr: command.streams.stderr.clone(),
            tty,
        };
        let streams = std::mem::replace(&mut command.streams, nothing);
        let ended = move |command: container_engine::Command| async move {
            let mut command = command;
            match command.wait().await {
                Ok(code) => api.change_exec(&id, |exec| {
                    exec.exit_code = Some(code);
                    exec.terminal = None;
                }),
                Err(e) => tracing::warn!("wait for a command: {e:#}"),
            }
        };
        if request.detach {
            self.tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    // Somebody must read what it prints, or it stops at a full pipe.
                    ((), (), ()) = async { tokio::join!(
                        drain(Some(streams.stdout)), drain(streams.stderr), ended(command)) } => {}
                }
            });
            return Ok(empty_answer(StatusCode::OK));
        }
        let (response, client) = take_over(&mut call, tty);
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = client.carry(streams, exec.wants, async || {}, ended(command)) => {}
            }
        });
        Ok(response)
    }

    pub(crate) fn exec_resize(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let exec = self.exec_of(id)?;
        let (Some(height), Some(width)) = (call.number("h")?, call.number("w")?) else {
            return Err(bad("bad parameter: a terminal has h and w"));
        };
        if let Some(terminal) = exec.terminal {
            terminal.resize(width, height)?;
        }
        Ok(empty_answer(StatusCode::OK))
    }

    pub(crate) fn exec_inspect(&self, id: &str) -> Answer<Value> {
        let exec = self.exec_of(id)?;
        let args = &exec.spec.args;
        Ok(json!({
            "ID": id,
            "Running": exec.started && exec.exit_code.is_none(),
            "ExitCode": exec.exit_code,
            "ProcessConfig": {
                "tty": exec.spec.tty, "entrypoint": args.first(), "arguments": args.get(1..).unwrap_or_default(),
                "privileged": false, "user": exec.spec.user.as_ref().map(|user| user.user.clone()),
            },
            "OpenStdin": exec.wants.0, "OpenStdout": exec.wants.1, "OpenStderr": exec.wants.2,
            "CanRemove": false, "ContainerID": exec.container, "DetachKeys": "", "Pid": exec.pid,
        }))
    }
}

async fn drain(stream: Option<Arc<Stream>>) {
    let Some(stream) = stream else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}
