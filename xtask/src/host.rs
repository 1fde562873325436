//! The machine: where the repository is, commands with a clear error, packages, progress.

use std::ffi::OsStr;
use std::io::{IsTerminal, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// What cargo knows of the workspace.
pub fn metadata() -> anyhow::Result<&'static cargo_metadata::Metadata> {
    static METADATA: OnceLock<cargo_metadata::Metadata> = OnceLock::new();
    if let Some(metadata) = METADATA.get() {
        return Ok(metadata);
    }
    let read =
        cargo_metadata::MetadataCommand::new().current_dir(root()).exec().context("read the workspace's metadata")?;
    Ok(METADATA.get_or_init(|| read))
}

/// Where cargo builds to.
pub fn target() -> anyhow::Result<PathBuf> {
    Ok(metadata()?.target_directory.clone().into_std_path_buf())
}

/// A command of the host, run in the root of the repository unless told otherwise.
pub struct Cmd {
    inner: Command,
    line: String,
}

/// A command to be run.
pub fn cmd(program: impl AsRef<OsStr>) -> Cmd {
    #[expect(clippy::disallowed_methods, reason = "this is the helper that everything else uses")]
    let mut inner = Command::new(&program);
    inner.current_dir(root()).stdin(Stdio::null());
    Cmd { inner, line: program.as_ref().display().to_string() }
}

impl Cmd {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.line.push(' ');
        self.line.push_str(&arg.as_ref().to_string_lossy());
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Removes a variable.
    pub fn env_remove(mut self, name: &str) -> Self {
        self.inner.env_remove(name);
        self
    }

    /// Runs it in another directory.
    pub fn dir(mut self, dir: &Path) -> Self {
        self.inner.current_dir(dir);
        self
    }

    /// Lets it ask questions.
    pub fn interactive(mut self) -> Self {
        self.inner.stdin(Stdio::inherit());
        self
    }

    /// Hands it this on its standard input.
    pub fn input(mut self, text: &str) -> anyhow::Result<Self> {
        let mut file = tempfile::tempfile().context("make a file for the input")?;
        file.write_all(text.as_bytes()).and_then(|()| file.rewind()).context("write the input")?;
        self.inner.stdin(file);
        Ok(self)
    }

    /// Runs it with this terminal's output; an exit status other than 0 is an error.
    pub fn run(mut self) -> anyhow::Result<()> {
        let status = self.inner.status().with_context(|| format!("run `{}`", self.line))?;
        if !status.success() {
            bail!("`{}` ended with {status}", self.line);
        }
        Ok(())
    }

    /// Runs it and hands back all that it said, whatever its exit status.
    pub fn output(mut self) -> anyhow::Result<Output> {
        self.inner.output().with_context(|| format!("run `{}`", self.line))
    }

    /// Runs it and hands back its standard output; an exit status other than 0 is an error that says what it said.
    pub fn read(self) -> anyhow::Result<String> {
        let line = self.line.clone();
        let output = self.output()?;
        if !output.status.success() {
            bail!("`{line}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        String::from_utf8(output.stdout).with_context(|| format!("read what `{line}` says"))
    }

    /// Starts it with these streams, apart from this terminal's process group, so that Ctrl-C does not reach it.
    pub fn start(mut self, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> anyhow::Result<Child> {
        self.inner.process_group(0).stdout(stdout).stderr(stderr);
        self.inner.spawn().with_context(|| format!("start `{}`", self.line))
    }
}

/// The file that a shell would run for this name.
pub fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// Installs the packages whose program is missing: pairs of a program and the Debian package that has it.
pub fn install(wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| on_path(program).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    need_root(&format!("install {}", missing.join(", ")))?;
    refresh_packages()?;
    say(&format!("Installing {} from Debian", missing.join(", ")));
    cmd("apt-get")
        .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .run()
}

/// Brings the list of Debian packages up to date, once in this process.
pub fn refresh_packages() -> anyhow::Result<()> {
    static FRESH: OnceLock<()> = OnceLock::new();
    if FRESH.get().is_some() {
        return Ok(());
    }
    if on_path("apt-get").is_none() {
        bail!("find apt-get: this machine is not a Debian; install the packages named above by its own means");
    }
    progress("Updating the list of Debian packages", || cmd("apt-get").args(["update", "--quiet=2"]).read())?;
    _ = FRESH.set(());
    Ok(())
}

/// Fails unless this process is root.
pub fn need_root(what: &str) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("{what}: this needs root; run it as root, or with sudo");
    }
    Ok(())
}

/// Says what happens next, on standard error.
pub fn say(what: &str) {
    eprintln!("==> {what}");
}

/// Does something that takes a while: a turning sign on a terminal, a plain line elsewhere.
pub fn progress<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    if !std::io::stderr().is_terminal() {
        eprintln!("==> {what}");
        return work();
    }
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?);
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    let done = work();
    bar.finish_and_clear();
    let sign = if done.is_ok() { "✓" } else { "✗" };
    eprintln!("{sign} {what} ({:.1} s)", bar.elapsed().as_secs_f64());
    done
}

/// Builds knarr in release mode and says where it is.
pub fn build_release() -> anyhow::Result<PathBuf> {
    say("Building knarr in release mode (some minutes the first time)");
    cmd(env!("CARGO")).args(["build", "--release", "--package", "knarr"]).run()?;
    Ok(target()?.join("release/knarr"))
}
