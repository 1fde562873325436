//! The one place that runs `nft`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncWriteExt as _;

/// How long one transaction may take: far above what thousands of Services need.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `nft` with these words; what stands in `script` is its input.
async fn run(args: &[&str], script: &str) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "this is the helper: it sets directory, environment and a deadline")]
    let mut command = tokio::process::Command::new("nft");
    // Where Debian and others keep it, which is not in everybody's path.
    let path = std::env::var("PATH").map_or_else(|_| SBIN.to_owned(), |path| format!("{path}:{SBIN}"));
    command.args(args).current_dir("/").env_clear().env("PATH", path).kill_on_drop(true);
    let mut child = match command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("the program `nft` is missing, with which Services are made: install the package nftables")
        }
        spawned => spawned.context("start nft")?,
    };
    let mut input = child.stdin.take().context("write to nft")?;
    let work = async {
        input.write_all(script.as_bytes()).await.context("write to nft")?;
        drop(input);
        child.wait_with_output().await.context("wait for nft")
    };
    let output = tokio::time::timeout(PATIENCE, work).await.context("nft did not end in time")??;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let first: Vec<&str> = said.lines().take(3).map(str::trim).collect();
        bail!("nft refused the rules: {}", first.join("; "));
    }
    Ok(())
}

const SBIN: &str = "/usr/sbin:/sbin:/usr/local/sbin";

/// Carries out a script as one transaction: all of it, or nothing.
pub(crate) async fn apply(script: &str) -> Result<()> {
    run(&["-f", "-"], script).await
}

/// Whether there is a table of this name.
pub(crate) async fn has(table: &str) -> bool {
    run(&["-t", "list", "chain", "ip", table, "prerouting"], "").await.is_ok()
}

/// Checks that there is an `nft` and a kernel that answers it.
pub(crate) async fn check() -> Result<()> {
    run(&["list", "tables"], "").await
}
