//! `knarr`: Kubernetes in one binary, with the container engine inside.

mod cluster_services;
mod control;
mod first_objects;
mod flow_control;
mod host;
mod image;
mod kubeconfig;
mod network;
mod node_labels;
mod options;
mod pki;
mod prune;
mod server;
mod uninstall;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
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
    if let Some(words) = kubectl_words() {
        return built_in_kubectl(&words);
    }
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

/// The words for the built-in kubectl: all of them if this binary is called so, else those after `knarr kubectl`.
fn kubectl_words() -> Option<Vec<String>> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next()?;
    let called = Path::new(&program).file_name().is_some_and(|name| name == "kubectl");
    let mut words: Vec<String> = words.collect();
    if !called {
        (words.first()? == "kubectl").then(|| words.remove(0))?;
    }
    Some(words)
}

fn built_in_kubectl(words: &[String]) -> ExitCode {
    if let Err(error) = install_tls() {
        eprintln!("knarr: {error:#}");
        return ExitCode::FAILURE;
    }
    let data_dir = std::env::var_os("KNARR_DATA_DIR").map_or_else(|| PathBuf::from("/var/lib/knarr"), PathBuf::from);
    kubectl::run(words, &data_dir.join("admin.kubeconfig"))
}

fn install_tls() -> Result<()> {
    // Two providers in one process panic at the first handshake, so the one is named before anything uses TLS.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another TLS provider was installed before");
    }
    Ok(())
}

fn run(options: Options) -> Result<()> {
    install_tls()?;
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
            // Its words were taken before these were read.
            Command::Kubectl { .. } => anyhow::bail!("kubectl comes first: knarr kubectl …"),
            Command::Uninstall(options) => uninstall::run(options).await,
        }
    })
}
