//! `cargo xtask test`: everything that must hold before a change goes in.

use crate::host::{self, cmd};
use crate::{clients, images};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Options {
    /// Only these tests: nextest's filters, and whatever else it takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    nextest: Vec<String>,
}

/// Installs what is missing, and runs the checks one after the other; the last words are those of the tests.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_root("run the tests")?;
    host::install(&[
        ("busybox", "busybox-static"),
        ("curl", "curl"),
        ("nft", "nftables"),
        ("script", "bsdutils"),
        ("tar", "tar"),
        ("dpkg", "dpkg"),
    ])?;
    let cargo = || cmd(env!("CARGO"));
    if !cargo().args(["nextest", "--version"]).output()?.status.success() {
        host::say("Installing cargo-nextest from crates.io (some minutes)");
        cargo().args(["install", "--locked", "cargo-nextest"]).run()?;
    }
    images::make()?;
    clients::kubectl()?;
    clients::second_kubectl()?;
    clients::docker()?;
    clients::python_client()?;
    clients::javascript_client()?;
    clients::operators()?;
    host::say("Checking the format");
    cargo().args(["fmt", "--all", "--check"]).run()?;
    host::say("Checking the lints");
    cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "--deny", "warnings"]).run()?;
    host::say("Running the tests");
    cargo().args(["nextest", "run", "--workspace"]).args(&options.nextest).run()
}
