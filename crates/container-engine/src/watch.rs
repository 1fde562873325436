//! Hearing of ends: from the shims, and on to whoever listens to container events.

use anyhow::{Context as _, Result};
use cri::v1;
use isolation::{Event, Phase, Shim};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::{Engine, blocking, lock, now};

impl Engine {
    /// Follows the shim of a sandbox from now on. What ended before is noted before this returns.
    pub(crate) async fn watch(&self, sandbox: &str, shim: Shim) -> Result<()> {
        let (states, socket) = blocking(move || shim.subscribe()).await.context("follow the pod's shim")?;
        for state in &states {
            let Ok(container) = self.container(&state.id) else { continue };
            match state.phase {
                Phase::Exited => self.note_end(&container, state)?,
                // The engine ended after noting the start and before giving the word.
                Phase::Created => self.update(&container, |record| record.started_at = 0)?,
                Phase::Running => {}
            }
        }
        socket.set_nonblocking(true).context("follow the pod's shim")?;
        let mut socket = tokio::net::UnixStream::from_std(socket).context("follow the pod's shim")?;
        let (engine, sandbox, stop) = (self.arc(), sandbox.to_owned(), self.stop.clone());
        self.tasks.spawn(async move {
            let follow = async {
                while let Some(event) = next_event(&mut socket).await? {
                    if let Event::Exited(state) = event
                        && let Ok(container) = engine.container(&state.id)
                    {
                        engine.note_end(&container, &state)?;
                    }
                }
                anyhow::Ok(())
            };
            tokio::select! {
                () = stop.cancelled() => return,
                followed = follow => if let Err(e) = followed {
                    tracing::warn!(sandbox, "follow the pod's shim: {e:#}");
                }
            }
            if let Err(e) = engine.shim_ended(&sandbox).await {
                tracing::error!(sandbox, "take note of the end of a pod's shim: {e:#}");
            }
        });
        Ok(())
    }

    /// A shim has gone, and its containers with it.
    async fn shim_ended(&self, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let record = lock(&sandbox.record).clone();
        // One that is alone in its sandbox has its sandbox removed with its end.
        if lock(&sandbox.shim).take().is_some() && !record.stopped && record.owner.is_empty() {
            tracing::info!(sandbox = id, "the pod's shim has ended");
        }
        for container in self.containers_of(id) {
            self.settle_end(&container).await?;
        }
        Ok(())
    }

    /// Tells whoever listens what has happened to a container or, with its own id, to a sandbox.
    pub(crate) fn announce(&self, sandbox: &str, id: &str, kind: v1::ContainerEventType) {
        // Callers of CRI hear of what is theirs.
        if self.sandbox(sandbox).is_ok_and(|sandbox| !lock(&sandbox.record).owner.is_empty()) {
            return;
        }
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: now(),
            pod_sandbox_status: self.sandbox(sandbox).ok().map(|sandbox| self.sandbox_status(&sandbox)),
            containers_statuses: self.containers_of(sandbox).iter().map(|one| self.container_status(one)).collect(),
        };
        // Nobody need listen.
        let _ = self.events.send(event);
    }
}

/// The next event on a shim's socket; `None` when it has closed.
pub(crate) async fn next_event(socket: &mut (impl AsyncRead + Unpin)) -> Result<Option<Event>> {
    let length = match socket.read_u32_le().await {
        Err(e) if matches!(e.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        other => other.context("read an event")?,
    };
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body).await.context("read an event")?;
    serde_json::from_slice(&body).map(Some).context("decode an event")
}
