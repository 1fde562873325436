//! What an earlier process left: taking up what runs, settling what has ended, sweeping what is half made.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use isolation::Shim;

use crate::{
    Container, Engine, Sandbox, lock,
    record::{self, ContainerRecord, SandboxRecord},
    sandboxes::remove_dir,
};

impl Engine {
    pub(crate) async fn adopt(&self) -> Result<()> {
        for (id, found) in record::read_all::<SandboxRecord>(&self.config.data_dir.join("sandboxes"))? {
            let record = found.unwrap_or_else(|| SandboxRecord { id: id.clone(), ..SandboxRecord::default() });
            if record.complete {
                let sandbox = Sandbox { record: record.into(), shim: None.into(), changing: Default::default() };
                lock(&self.sandboxes).insert(id, Arc::new(sandbox));
            } else {
                tracing::info!(sandbox = id, "sweep a half made sandbox");
                let engine = self.arc();
                crate::blocking(move || engine.sweep_sandbox(&record)).await.context("sweep a half made sandbox")?;
            }
        }
        for (id, found) in record::read_all::<ContainerRecord>(&self.config.data_dir.join("containers"))? {
            let record = found.unwrap_or_else(|| ContainerRecord { id: id.clone(), ..ContainerRecord::default() });
            if record.complete && lock(&self.sandboxes).contains_key(&record.sandbox_id) {
                // An image that is gone was removed by hand; the container still has its files.
                if let Err(e) = self.images.pin(&record.image_id, &record.id) {
                    tracing::warn!(container = id, "{e:#}");
                }
                lock(&self.containers).insert(id, Arc::new(Container::new(record)));
            } else {
                tracing::info!(container = id, "sweep a half made container");
                self.discard(&record).await;
                let engine = self.arc();
                crate::blocking(move || engine.sweep_container(&record)).await.context("sweep a container")?;
            }
        }
        let sandboxes: Vec<_> = lock(&self.sandboxes).iter().map(|(id, one)| (id.clone(), one.clone())).collect();
        for (id, sandbox) in sandboxes {
            self.take_up(&id, &sandbox).await.with_context(|| format!("adopt pod sandbox {id}"))?;
        }
        self.sweep_strays()
    }

    /// Ends a container that its shim knows and that nobody was told of.
    async fn discard(&self, record: &ContainerRecord) {
        if let Some(shim) = Shim::find(&self.sandbox_run(&record.sandbox_id)) {
            let id = record.id.clone();
            // Its control group is emptied next, whatever becomes of this.
            let _ = crate::blocking(move || shim.kill(&id, nix::sys::signal::SIGKILL as i32)).await;
        }
    }

    async fn take_up(&self, id: &str, sandbox: &Arc<Sandbox>) -> Result<()> {
        let run = self.sandbox_run(id);
        let stopped = lock(&sandbox.record).stopped;
        if let Some(shim) = Shim::find(&run).filter(|_| !stopped) {
            *lock(&sandbox.shim) = Some(shim.clone());
            self.watch(id, shim).await?;
            tracing::debug!(sandbox = id, "adopted");
            return Ok(());
        }
        for container in self.containers_of(id) {
            self.settle_end(&container).await?;
        }
        Ok(())
    }

    /// Removes what nobody knows: directories and addresses of sandboxes without a record.
    fn sweep_strays(&self) -> Result<()> {
        let known = |id: &str| lock(&self.sandboxes).contains_key(id);
        for (id, _) in record::read_all::<SandboxRecord>(&self.config.run_dir.join("sandboxes"))? {
            if known(&id) {
                continue;
            }
            tracing::info!(sandbox = id, "sweep a sandbox without a record");
            let run = self.sandbox_run(&id);
            if let Some(shim) = Shim::find(&run) {
                shim.stop()?;
            }
            if run.join("shm").exists() {
                isolation::unmount(&run.join("shm"))?;
            }
            remove_dir(&run)?;
        }
        for id in self.network.pods().into_iter().filter(|id| !known(id)) {
            self.network.detach(&id)?;
        }
        Ok(())
    }
}
