//! The images of the tutorial and of the tests, made from Debian's packages and a server of our own.
//!
//! The same inputs give the same bytes: files are sorted, owned by root and dated [`EPOCH`]. What an image is made of is
//! written beside it, so that it is made again only when that has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::host::{self, cmd};

/// The date of every file, in seconds of Unix time: 2024-01-01.
const EPOCH: u64 = 1_704_067_200;
/// The same for people.
const EPOCH_TEXT: &str = "2024-01-01T00:00:00Z";

/// The users and groups of every image.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// An image in a file.
pub struct Made {
    /// Its name and tag.
    pub name: String,
    /// Where it is.
    pub archive: PathBuf,
}

/// Makes all images, or finds them made, under `target/knarr-images`.
pub fn make() -> anyhow::Result<Vec<Made>> {
    let dir = host::target()?.join("knarr-images");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let echo = echo_server()?;
    let packages = Packages::fetch(&dir.join("packages"), &["nginx", "busybox-static"])?;
    let database = Packages::fetch(&dir.join("packages-postgres"), &["postgresql", "openssl"])?;

    let base = packages.busybox()?;
    let nginx = packages.nginx()?;
    let postgres = database.postgres()?;
    let mut setup = Tree::default();
    setup.file("entrypoint.sh", 0o755, fs::read(host::root().join("images/nginx/entrypoint.sh"))?);
    for empty in ["etc/nginx", "var/lib/nginx", "var/log/nginx", "run"] {
        setup.dir(empty, 0o755);
    }
    let mut echo_files = Tree::default();
    echo_files.file("echo", 0o755, fs::read(&echo).with_context(|| format!("read {}", echo.display()))?);

    let mut database_setup = Tree::default();
    database_setup.file("entrypoint.sh", 0o755, fs::read(host::root().join("images/postgres/entrypoint.sh"))?);
    database_setup.text("etc/passwd", &format!("{PASSWD}postgres:x:999:999:postgres:/var/lib/postgresql:/bin/sh\n"));
    database_setup.text("etc/group", &format!("{GROUP}postgres:x:999:\n"));
    for (empty, mode) in [
        ("var/lib/postgresql", 0o755),
        ("var/run/postgresql", 0o1777),
        ("run/postgresql", 0o1777),
        ("usr/share/zoneinfo", 0o755),
    ] {
        database_setup.dir(empty, mode);
    }

    let shell = Recipe::new(&["sh"], &[&base]);
    let proxy = Recipe::new(&["/entrypoint.sh"], &[&base, &nginx, &setup]).port(80);
    let server = Recipe::new(&["/echo"], &[&base, &echo_files]).port(8080);
    let sql =
        Recipe::new(&["/entrypoint.sh"], &[&base, &postgres, &database_setup]).port(5432).path(&database.programs()?);
    let recipes = [
        ("docker.io/library/busybox:latest", shell),
        ("gihyodocker/nginx:latest", proxy.clone()),
        ("gihyodocker/nginx:patched", proxy.build("patched")),
        ("gihyodocker/echo:latest", server.clone()),
        ("gihyodocker/echo:patched", server.build("patched")),
        ("docker.io/library/postgres:15", sql),
    ];
    let mut made = Vec::new();
    for (name, recipe) in recipes {
        let short = name.trim_start_matches("docker.io/library/");
        let archive = dir.join(format!("{}.tar", short.replace(['/', ':'], "-")));
        recipe.write(name, &archive).with_context(|| format!("make the image {name}"))?;
        made.push(Made { name: name.to_owned(), archive });
    }
    Ok(made)
}

/// Builds the echo server as a static program, which needs nothing of the image that it lies in.
fn echo_server() -> anyhow::Result<PathBuf> {
    let rustc = cmd("rustc").arg("-vV").read()?;
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).context("find the host's target triple")?;
    host::progress("Building the echo server", || {
        // A target named explicitly has a directory of its own, so these flags rebuild nothing else.
        cmd(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--package", "echo", "--target", host])
            .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .read()
    })?;
    Ok(host::target()?.join(host).join("release/echo"))
}

/// What the images take from Debian, unpacked.
struct Packages {
    root: PathBuf,
}

impl Packages {
    /// Fetches packages and the libraries they need, without installing them.
    fn fetch(dir: &Path, packages: &[&str]) -> anyhow::Result<Self> {
        let root = dir.join("root");
        if root.exists() {
            return Ok(Self { root });
        }
        host::install(&[("dpkg-deb", "dpkg")])?;
        host::refresh_packages()?;
        host::progress(&format!("Fetching {} from Debian", packages.join(" and ")), || {
            let scratch = tempfile::tempdir_in(dir.parent().context("a directory has a parent")?)?;
            let unpacked = scratch.path().join("root");
            let mut seen = BTreeSet::new();
            let mut wanted: Vec<String> = packages.iter().map(|&package| package.to_owned()).collect();
            while let Some(package) = wanted.pop() {
                if seen.insert(package.clone()) {
                    let file = download(&package, scratch.path())?;
                    cmd("dpkg-deb").arg("--extract").arg(&file).arg(&unpacked).read()?;
                    wanted.extend(needed(&cmd("dpkg-deb").arg("--field").arg(&file).arg("Depends").read()?));
                }
            }
            fs::create_dir_all(dir)?;
            // Whole or not at all: the directory gets its name when it is complete.
            fs::rename(&unpacked, &root).with_context(|| format!("name {}", root.display()))
        })?;
        Ok(Self { root })
    }

    /// A shell and its tools, and the few files that programs look for.
    fn busybox(&self) -> anyhow::Result<Tree> {
        let busybox = ["bin/busybox", "usr/bin/busybox"].map(|path| self.root.join(path));
        let busybox = busybox.iter().find(|path| path.exists()).context("find busybox in its package")?;
        let mut tree = Tree::default();
        tree.file("bin/busybox", 0o755, fs::read(busybox)?);
        for applet in cmd(busybox).arg("--list").read()?.lines().filter(|applet| *applet != "busybox") {
            tree.link(&format!("bin/{applet}"), "busybox");
        }
        tree.text("etc/passwd", PASSWD);
        tree.text("etc/group", GROUP);
        tree.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        tree.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
        tree.dir("root", 0o700);
        tree.dir("tmp", 0o1777);
        for empty in ["dev", "proc", "sys"] {
            tree.dir(empty, 0o755);
        }
        Ok(tree)
    }

    /// nginx and the libraries it is linked with; no documentation, no configuration.
    fn nginx(&self) -> anyhow::Result<Tree> {
        let tree = self.tree(|name| name == "usr/sbin/nginx")?;
        if !tree.0.contains_key("usr/sbin/nginx") {
            bail!("find nginx in its package");
        }
        Ok(tree)
    }

    /// PostgreSQL with its clients, openssl, with which busybox speaks TLS, and the libraries they are linked with.
    fn postgres(&self) -> anyhow::Result<Tree> {
        self.tree(|name| {
            let version = |rest: &str| rest.chars().next().is_some_and(|c| c.is_ascii_digit());
            let program = name.strip_prefix("usr/lib/postgresql/").is_some_and(|rest| rest.contains("/bin/"));
            program || name == "usr/bin/openssl" || name.strip_prefix("usr/share/postgresql/").is_some_and(version)
        })
    }

    /// Where PostgreSQL's programs are: the directory carries its version.
    fn programs(&self) -> anyhow::Result<String> {
        let versions = self.root.join("usr/lib/postgresql");
        let version = fs::read_dir(&versions)?.next().context("find PostgreSQL in its package")??;
        Ok(format!("/usr/lib/postgresql/{}/bin", version.file_name().display()))
    }

    /// Every library of the packages, and what else is wanted, by its path.
    fn tree(&self, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Tree> {
        let mut tree = Tree::default();
        for entry in walkdir::WalkDir::new(&self.root) {
            let entry = entry.context("walk the packages")?;
            let path = entry.path().strip_prefix(&self.root)?;
            let Some(name) = path.to_str() else { bail!("{} is not text", path.display()) };
            // Old and new packages disagree about /lib and /usr/lib; the image has everything in /usr/lib.
            let inside = name.strip_prefix("usr/").unwrap_or(name);
            let library = (inside.starts_with("lib/") || inside.starts_with("lib64/")) && inside.contains(".so");
            let needless = inside.contains("gconv") || inside.contains("llvmjit");
            if !(wanted(name) || library) || needless || entry.file_type().is_dir() {
                continue;
            }
            let name = format!("usr/{inside}");
            if entry.file_type().is_symlink() {
                let to = fs::read_link(entry.path())?;
                let to = to.to_str().context("a link leads to text")?;
                tree.link(&name, &if to.starts_with("/lib") { format!("/usr{to}") } else { to.to_owned() });
            } else {
                tree.file(&name, fs::metadata(entry.path())?.permissions().mode() & 0o755, fs::read(entry.path())?);
            }
        }
        tree.link("lib", "usr/lib");
        tree.link("lib64", "usr/lib64");
        Ok(tree)
    }
}

pub fn download(package: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let into = dir.join(format!("{package}.d"));
    fs::create_dir(&into)?;
    // Without the sandbox user, which may not write to a directory of root.
    cmd("apt-get")
        .args(["download", "--quiet=2", "--option", "APT::Sandbox::User=root", package])
        .dir(&into)
        .read()
        .with_context(|| format!("download the Debian package {package}"))?;
    let file = fs::read_dir(&into)?.next().with_context(|| format!("find the Debian package {package}"))??;
    Ok(file.path())
}

/// What of a `Depends` field an image needs: libraries, and the server and client that stand for PostgreSQL; the first of
/// alternatives, without versions. The compiler library that PostgreSQL can do without is as large as all the rest.
fn needed(depends: &str) -> Vec<String> {
    let names = depends.split(',').filter_map(|one| one.split('|').next()?.split_whitespace().next());
    let versioned = |name: &str| name.starts_with("postgresql-") && name.ends_with(|c: char| c.is_ascii_digit());
    names
        .filter(|name| {
            (name.starts_with("lib") && !name.starts_with("libllvm")) || *name == "zlib1g" || versioned(name)
        })
        .map(str::to_owned)
        .collect()
}

/// Files by path.
#[derive(Default, Clone)]
struct Tree(BTreeMap<String, Node>);

#[derive(Clone)]
enum Node {
    Dir(u32),
    File(u32, Vec<u8>),
    Link(String),
}

impl Tree {
    fn dir(&mut self, path: &str, mode: u32) {
        self.0.insert(path.to_owned(), Node::Dir(mode));
    }

    fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.0.insert(path.to_owned(), Node::File(mode, content));
    }

    fn text(&mut self, path: &str, content: &str) {
        self.file(path, 0o644, content.as_bytes().to_vec());
    }

    fn link(&mut self, path: &str, to: &str) {
        self.0.insert(path.to_owned(), Node::Link(to.to_owned()));
    }

    /// The layer: an archive with every parent directory before what is in it.
    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut nodes = self.0.clone();
        for path in self.0.keys() {
            for (at, _) in path.match_indices('/') {
                nodes.entry(path[..at].to_owned()).or_insert(Node::Dir(0o755));
            }
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, node) in &nodes {
            let mut header = tar::Header::new_ustar();
            header.set_mtime(EPOCH);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            match node {
                Node::Dir(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    archive.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Node::File(mode, content) => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, path, content.as_slice())?;
                }
                Node::Link(to) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    archive.append_link(&mut header, path, to)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }
}

/// How one image is made.
#[derive(Clone)]
struct Recipe {
    command: Vec<String>,
    layers: Vec<Tree>,
    port: Option<u16>,
    /// Where programs are looked for, before the usual places.
    path: String,
    build: &'static str,
}

impl Recipe {
    fn new(command: &[&str], layers: &[&Tree]) -> Self {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Self {
            command,
            layers: layers.iter().map(|&layer| layer.clone()).collect(),
            port: None,
            path: String::new(),
            build: "latest",
        }
    }

    fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    fn path(mut self, dir: &str) -> Self {
        self.path = format!("{dir}:");
        self
    }

    /// Another build of the same: another label, hence another image id.
    fn build(mut self, build: &'static str) -> Self {
        self.build = build;
        self
    }

    /// Writes the archive in the form of `docker save`, unless the one that is there was made of the same.
    fn write(&self, name: &str, archive: &Path) -> anyhow::Result<()> {
        let layers: Vec<Vec<u8>> = self.layers.iter().map(Tree::layer).collect::<anyhow::Result<_>>()?;
        let digests: Vec<String> = layers.iter().map(|layer| hex::encode(Sha256::digest(layer))).collect();
        let ports = self.port.map(|port| (format!("{port}/tcp"), json!({})));
        let config = serde_json::to_vec(&json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "created": EPOCH_TEXT,
            "config": {
                "Cmd": self.command,
                "Env": [format!("PATH={}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.path)],
                "WorkingDir": "/",
                "ExposedPorts": ports.into_iter().collect::<BTreeMap<_, _>>(),
                "Labels": { "org.opencontainers.image.version": self.build },
            },
            "rootfs": { "type": "layers", "diff_ids": digests.iter().map(|d| format!("sha256:{d}")).collect::<Vec<_>>() },
            "history": digests.iter().map(|_| json!({ "created": EPOCH_TEXT })).collect::<Vec<_>>(),
        }))?;
        let id = hex::encode(Sha256::digest(&config));
        let stamp = archive.with_extension("id");
        if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|made| made == id) {
            return Ok(());
        }
        host::say(&format!("Writing the image {name} (sha256:{})", &id[..12]));
        let mut files = BTreeMap::new();
        for (digest, layer) in digests.iter().zip(layers) {
            files.insert(format!("{digest}/layer.tar"), layer);
        }
        files.insert(format!("{id}.json"), config);
        let manifest = json!([{
            "Config": format!("{id}.json"),
            "RepoTags": [name],
            "Layers": digests.iter().map(|d| format!("{d}/layer.tar")).collect::<Vec<_>>(),
        }]);
        files.insert("manifest.json".to_owned(), serde_json::to_vec(&manifest)?);
        let tree = Tree(files.into_iter().map(|(path, content)| (path, Node::File(0o644, content))).collect());
        let mut file = tempfile::NamedTempFile::new_in(archive.parent().context("an archive has a directory")?)?;
        file.write_all(&tree.layer()?)?;
        file.persist(archive).with_context(|| format!("name {}", archive.display()))?;
        fs::write(&stamp, id).with_context(|| format!("write {}", stamp.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_has_parents_first_and_the_same_bytes_each_time() {
        let mut tree = Tree::default();
        tree.text("etc/deep/file", "text");
        tree.link("bin", "usr/bin");
        let layer = tree.layer().unwrap();
        assert_eq!(layer, tree.clone().layer().unwrap());
        let mut archive = tar::Archive::new(layer.as_slice());
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["bin", "etc/", "etc/deep/", "etc/deep/file"]);
    }

    #[test]
    fn libraries_are_read_from_a_depends_field() {
        let field = "libc6 (>= 2.34), libssl3 | libssl1.1, zlib1g (>= 1:1.1.4), iproute2, nginx-common (<< 2)\n";
        assert_eq!(needed(field), ["libc6", "libssl3", "zlib1g"]);
        let field = "postgresql-client-15, postgresql-common (>= 241~), tzdata, libllvm14, libpq5";
        assert_eq!(needed(field), ["postgresql-client-15", "libpq5"]);
    }
}
