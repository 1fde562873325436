//! The container engine as a program of its own: a CRI runtime on a socket, for its tests and for `crictl`.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use container_engine::{Config, Engine};

const USAGE: &str = "usage: cri-engine DATA_DIR RUN_DIR BRIDGE POD_CIDR CGROUP_ROOT  (serves CRI on RUN_DIR/cri.sock)";

fn main() -> ExitCode {
    if let Some(code) = isolation::dispatch(std::env::args_os()) {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [data_dir, run_dir, bridge, pod_cidr, cgroup_root] = args.as_slice() else { bail!(USAGE) };
    let config = Config {
        data_dir: PathBuf::from(data_dir),
        run_dir: PathBuf::from(run_dir),
        shim_exe: PathBuf::from("/proc/self/exe"),
        bridge: bridge.clone(),
        pod_cidr: pod_cidr.clone(),
        cgroup_root: cgroup_root.clone(),
        streaming_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
    };
    let images = image_store::ImageStore::open(&config.data_dir.join("images"))?;
    let socket = config.run_dir.join("cri.sock");
    let engine = Engine::start(config, images).await?;
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        served = engine.serve(&socket) => served?,
        _ = terminate.recv() => {}
    }
    engine.shutdown().await;
    Ok(())
}
