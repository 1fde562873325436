//! A machine for one test: own mounts, own network, an image with busybox, and the engine on it.

#![expect(clippy::disallowed_methods, reason = "this is the helper through which the tests run programs")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use container_engine::{Config, Engine};
use cri::v1;
use image_store::ImageStore;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use sha2::Digest as _;

pub const IMAGE: &str = "docker.io/library/box:1";

pub struct Node {
    pub dir: tempfile::TempDir,
    pub cgroup: String,
    process: Option<Child>,
}

impl Node {
    /// Must be called before the test has any other thread: they keep the machine's namespaces.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("this test needs root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let up = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status();
        assert!(up.expect("install the package busybox-static").success());
        let dir = tempfile::tempdir().unwrap();
        let cgroup = format!("/knarr-test{}", dir.path().file_name().unwrap().to_string_lossy().replace('.', "-"));
        let archive = dir.path().join("box.tar");
        image(&archive);
        ImageStore::open(&dir.path().join("data/images")).unwrap().import(&archive).unwrap();
        Self { dir, cgroup, process: None }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn engine(&self) -> Arc<Engine> {
        let config = Config {
            data_dir: self.path("data"),
            run_dir: self.path("run"),
            shim_exe: env!("CARGO_BIN_EXE_cri-engine").into(),
            bridge: "kn-test0".into(),
            pod_cidr: "10.98.0.0/24".into(),
            cgroup_root: self.cgroup.clone(),
            streaming_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let images = ImageStore::open(&self.path("data/images")).unwrap();
        Engine::start(config, images).await.unwrap()
    }

    /// Starts the engine as a process of its own and waits until it answers.
    pub async fn process(&mut self) -> cri::Clients {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("engine.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_cri-engine"))
            .args([self.path("data"), self.path("run")])
            .args(["kn-test0", "10.98.0.0/24", &self.cgroup])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match cri::connect(self.path("run/cri.sock")).await {
                Ok(clients) => return clients,
                Err(e) if Instant::now() > deadline => panic!("{e:#}: {}", self.log()),
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("engine.log")).unwrap_or_default()
    }

    /// Ends the process without a chance to do anything more.
    pub fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What the engine may have left on the machine.
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let own = self.dir.path().to_str().unwrap();
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(own)).map(|line| format!("mount {line}")));
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let group = hierarchy.path().join(self.cgroup.trim_start_matches('/'));
            found.extend(group.exists().then(|| format!("cgroup {}", group.display())));
        }
        let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let names = links.lines().skip(2).map(|line| line.split(':').next().unwrap().trim());
        found.extend(names.filter(|name| *name != "lo").map(|name| format!("link {name}")));
        for dir in ["run/sandboxes", "data/sandboxes", "data/containers"] {
            let entries = fs::read_dir(self.path(dir)).into_iter().flatten().flatten();
            found.extend(entries.map(|entry| format!("file {}", entry.path().display())));
        }
        found
    }

    pub fn sandbox(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.path("logs").to_string_lossy().into_owned(),
            labels: [("app".to_owned(), name.to_owned())].into(),
            dns_config: Some(v1::DnsConfig { servers: vec!["10.43.0.10".into()], ..Default::default() }),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod-{name}", self.cgroup),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub fn logged(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("logs/{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn container(name: &str, script: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: format!("{name}.log"),
        linux: Some(v1::LinuxContainerConfig {
            resources: None,
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    pid: v1::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// Waits until `holds`, or fails with `what` after a while.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A header of a file of root.
fn header() -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_mode(0o777);
    header
}

/// Writes a docker archive of an image with busybox.
fn image(path: &Path) {
    let mut layer = tar::Builder::new(Vec::new());
    for dir in ["bin/", "etc/", "tmp/"] {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        layer.append_data(&mut header, dir, &[][..]).unwrap();
    }
    let mut file = |name: &str, mode: u32, content: &[u8]| {
        let mut header = header();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        layer.append_data(&mut header, name, content).unwrap();
    };
    file("bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
    file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n");
    for name in [
        "sh", "echo", "cat", "sleep", "hostname", "ls", "tty", "dd", "stty", "ip", "nc", "kill", "true", "trap", "head",
    ] {
        let mut header = header();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{name}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["FROM=image"], "Cmd": ["/bin/sh"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(sha2::Sha256::digest(&layer)))] },
    })
    .to_string();
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": ["box:1"], "Layers": ["layer.tar"] }]).to_string();
    let mut archive = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in
        [("config.json", config.as_bytes()), ("layer.tar", layer.as_slice()), ("manifest.json", manifest.as_bytes())]
    {
        let mut header = header();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
    }
    archive.finish().unwrap();
}
