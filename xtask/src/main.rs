//! `cargo xtask …`: the repository's own commands, and its rules as tests.

mod bench;
mod bench_api;
mod clients;
mod cluster;
mod demo;
mod fuzz;
mod host;
mod images;
mod load;
#[cfg(test)]
mod rules;
mod test;

use clap::{Parser, Subcommand};

/// The repository's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build knarr, start a cluster, and walk through the tutorial with real clients
    Demo(demo::Options),
    /// Install what the tests need, and run format check, lints and all tests
    Test(test::Options),
    /// Measure start-up, pods, memory and idle cost; with `api`, the API server under load
    Bench(bench::Options),
    /// Throw random bytes at everything that reads what clients send
    Fuzz(fuzz::Options),
    /// Make the tutorial's images as archives that `knarr image import` takes
    Images,
    /// Fetch kubectl and helm
    Clients,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Demo(options) => demo::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Images => {
            for image in images::make()? {
                println!("{}  {}", image.name, image.archive.display());
            }
            Ok(())
        }
        Command::Clients => {
            for client in [clients::kubectl()?, clients::second_kubectl()?] {
                println!("kubectl {}  {}", client.version, client.path.display());
            }
            println!("helm  {}", clients::helm()?.display());
            println!("docker  {}", clients::docker()?.display());
            println!("Python client  {}", clients::python_client()?.display());
            println!("JavaScript client  {}", clients::javascript_client()?.display());
            println!("operators  {}", clients::operators()?.display());
            Ok(())
        }
    }
}
