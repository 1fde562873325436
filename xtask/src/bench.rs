//! bench
/// O.
#[derive(clap::Args)]
pub struct Options {}
/// R.
pub fn run(_: &Options) -> anyhow::Result<()> { Ok(()) }
