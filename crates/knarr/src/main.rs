//! `knarr`: Kubernetes in one binary, with the container engine inside.

mod cluster_services;
mod control;
mod first_objects;
mod host;
mod image;
mod kubeconfig;
mod network;
mod options;
mod pki;
mod prune;
mod server;
mod uninstall;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::options::{Command, ContainerCommand, NetworkCommand, Options, SystemCommand, VolumeCommand};

/// How many calls into the kernel or to shims may block at a time.
const BLOCKING_THREADS: usize = 32;
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // A shim forks, so it must be itself before any thread exists.
    if let Some(code) = isolation::dispatch(std::env::args_os()) {
        return code;
    }
    isolation::memory::share_arenas();
    let options = Options::parse();
    let filter = EnvFilter::try_from_env("KNARR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("knarr: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<()> {
    // Two providers in one process panic at the first handshake, so the one is named before anything uses TLS.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider was installed before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // Each thread has a stack; the default of 512 of them is met when a hundred pods start.
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_KEEP_ALIVE)
        .build()
        .context("start the runtime")?;
    runtime.block_on(async {
        match options.command {
            Command::Server(options) => server::run(options).await,
            Command::Image(command) => image::run(command).await,
            Command::Container(ContainerCommand::Prune(options)) => prune::containers(&options).await,
            Command::Volume(VolumeCommand::Prune { options, all }) => prune::volumes(&options, all).await,
            Command::Network(NetworkCommand::Prune(options)) => prune::networks(&options).await,
            Command::System(SystemCommand::Prune { options, all, volumes }) => {
                prune::system(&options, all, volumes).await
            }
            Command::Uninstall(options) => uninstall::run(options).await,
        }
    })
}
