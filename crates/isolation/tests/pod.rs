//! Real pods: namespaces, limits, streams and ends, seen from outside. Needs root and busybox.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use isolation::{
    ContainerSpec, Event, ExecSpec, Failure, Nursery, Phase, Rootfs, SandboxSpec, Shim, User, capability,
    cgroup::{Group, Hierarchies, Resources},
    read_event, recorded_exit,
    seccomp::Seccomp,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// A sandbox of a test, with everything it made; undone when dropped.
struct Pod {
    dir: tempfile::TempDir,
    name: String,
    groups: Vec<Group>,
    shim: Shim,
    pid: i32,
    _nursery: Nursery,
}

impl Pod {
    fn start() -> Self {
        // Mounts of the test stay in the test.
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root");
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let name = format!("knarr-test-{}", dir.path().file_name().unwrap().to_string_lossy().trim_start_matches('.'));
        let bin = dir.path().join("image/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir_all(dir.path().join("image/etc")).unwrap();
        fs::write(dir.path().join("image/etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/:/bin/sh\n").unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("install the package busybox-static");
        for name in [
            "sh", "echo", "cat", "sleep", "id", "hostname", "ls", "tty", "dd", "ipcmk", "ipcs", "grep", "test",
            "mount", "unshare", "touch", "stty",
        ] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        fs::create_dir(dir.path().join("pod")).unwrap();
        let spec = SandboxSpec { hostname: "box".into(), shm_size: 1 << 20, ..SandboxSpec::default() };
        let nursery = Nursery::start(Path::new(env!("CARGO_BIN_EXE_pod-shim"))).unwrap();
        let begin = Instant::now();
        let (shim, pid) = nursery.shim(&dir.path().join("pod"), &spec).unwrap();
        println!("shim: {:?}", begin.elapsed());
        Self { dir, name, groups: Vec::new(), shim, pid, _nursery: nursery }
    }

    fn spec(&mut self, id: &str, args: &[&str], resources: &Resources) -> ContainerSpec {
        let at = self.dir.path().join(id);
        for part in ["upper", "work", "rootfs"] {
            fs::create_dir_all(at.join(part)).unwrap();
        }
        let group = Hierarchies::detect().unwrap().group(&format!("/{}/{id}", self.name));
        group.create().unwrap();
        group.set(resources).unwrap();
        let spec = ContainerSpec {
            id: id.into(),
            rootfs: Rootfs {
                lower: vec![self.dir.path().join("image")],
                upper: at.join("upper"),
                work: at.join("work"),
                mountpoint: at.join("rootfs"),
                ..Rootfs::default()
            },
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            log_path: Some(self.log(id)),
            cgroup_dirs: group.dirs(),
            cgroup_v1_views: group.v1_views(),
            capabilities: capability::DEFAULT,
            seccomp: Seccomp::RuntimeDefault,
            ..ContainerSpec::default()
        };
        self.groups.push(group);
        spec
    }

    fn log(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("{id}.log"))
    }

    /// The log without times.
    fn logged(&self, id: &str) -> String {
        let text = fs::read_to_string(self.log(id)).unwrap();
        text.lines().map(|line| format!("{}\n", line.split_once(' ').unwrap().1)).collect()
    }

    /// Runs a container to its end and answers exit code and log.
    fn run(&mut self, id: &str, args: &[&str]) -> (i32, String) {
        let spec = self.spec(id, args, &Resources::default());
        self.run_spec(spec)
    }

    fn run_spec(&mut self, spec: ContainerSpec) -> (i32, String) {
        let id = spec.id.clone();
        let (_, events) = self.shim.subscribe().unwrap();
        self.shim.create(spec).unwrap();
        self.shim.start_container(&id).unwrap();
        let Some(Event::Exited(state)) = read_event(&events).unwrap() else { panic!("no event") };
        assert_eq!((state.id.as_str(), state.phase), (id.as_str(), Phase::Exited));
        (state.exit_code, self.logged(&id))
    }

    fn exec(&self, spec: ExecSpec) -> (i32, String, String) {
        let exec = self.shim.exec(spec).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        fs::File::from(exec.stdout).read_to_string(&mut out).unwrap();
        if let Some(stderr) = exec.stderr {
            fs::File::from(stderr).read_to_string(&mut err).unwrap();
        }
        let Some(Event::ExecExited { code }) = read_event(&exec.exit).unwrap() else { panic!("no event") };
        (code, out, err)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A test that is failing already should show its own failure.
        let stopped = self.shim.stop();
        for group in &self.groups {
            group.remove().unwrap();
        }
        Hierarchies::detect().unwrap().group(&format!("/{}", self.name)).remove().unwrap();
        if !std::thread::panicking() {
            stopped.unwrap();
            assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(self.dir.path().to_str().unwrap()));
        }
    }
}

fn sh(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

#[test]
fn output_goes_to_the_log_and_the_exit_code_is_told() {
    let mut pod = Pod::start();
    let (code, log) = pod.run("a", &sh("echo out; echo err >&2; hostname; exit 3"));
    assert_eq!(code, 3);
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F box", "stdout F out"]);
    let recorded = recorded_exit(&pod.dir.path().join("pod"), "a").unwrap();
    assert_eq!((recorded.exit_code, recorded.oom_killed), (3, false));
}

#[test]
fn a_container_sees_its_own_processes_and_no_machine() {
    let mut pod = Pod::start();
    let (code, log) = pod.run(
        "a",
        &sh("echo pid $$; ls /; echo 1 > /sys/kernel/uevent_seqnum; unshare -m true; mount -t tmpfs x /mnt; echo $HOME $PATH"),
    );
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("stdout F pid 1\n"), "{log}");
    assert!(log.contains("Read-only file system"), "{log}");
    assert!(log.contains("Operation not permitted") || log.contains("permission denied"), "{log}");
    assert!(log.ends_with("/root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"), "{log}");
}

#[test]
fn a_missing_program_and_a_missing_user_are_named() {
    let mut pod = Pod::start();
    let spec = pod.spec("a", &["foo"], &Resources::default());
    pod.shim.create(spec).unwrap();
    let error = pod.shim.start_container("a").unwrap_err().downcast::<Failure>().unwrap();
    assert_eq!((error.message.as_str(), error.exit_code), ("exec: \"foo\": executable file not found in $PATH", 127));

    let mut spec = pod.spec("b", &sh("true"), &Resources::default());
    spec.user.user = "x".into();
    let error = pod.shim.create(spec).unwrap_err();
    assert_eq!(error.to_string(), "unable to find user x: no matching entries in passwd file");
}

#[test]
fn a_plain_user_keeps_its_groups_and_loses_capabilities() {
    let mut pod = Pod::start();
    let mut spec =
        pod.spec("a", &sh("id; grep CapEff /proc/self/status; echo again > /dev/stdout"), &Resources::default());
    spec.user = User { user: "web".into(), additional_groups: vec![7], ..User::default() };
    let (code, log) = pod.run_spec(spec);
    assert_eq!(code, 0, "{log}");
    assert!(log.contains("uid=33(web) gid=44 groups=7"), "{log}");
    assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
    assert!(log.ends_with("stdout F again\n"), "{log}");
}

#[test]
fn containers_of_a_pod_share_network_messages_and_memory() {
    let mut pod = Pod::start();
    let spec = pod.spec("a", &sh("ipcmk -Q; echo shared > /dev/shm/x; sleep 1000"), &Resources::default());
    let (a, _) = pod.shim.create(spec).unwrap();
    let spec = pod.spec("b", &sh("sleep 1000"), &Resources::default());
    let (b, _) = pod.shim.create(spec).unwrap();
    for name in ["net", "ipc", "uts"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_eq!(of(a), of(b));
        assert_eq!(of(a), of(pod.pid));
        assert_ne!(of(a), fs::read_link(format!("/proc/self/ns/{name}")).unwrap());
    }
    pod.shim.start_container("a").unwrap();
    pod.shim.start_container("b").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let exec = || {
        let args = sh("cat /dev/shm/x").map(str::to_owned).to_vec();
        pod.exec(ExecSpec { container: "b".into(), args, ..ExecSpec::default() }).1
    };
    while exec() != "shared\n" {
        assert!(Instant::now() < deadline, "the file did not show");
        std::thread::yield_now();
    }
}

#[test]
fn a_command_runs_in_a_container_with_and_without_a_terminal() {
    let mut pod = Pod::start();
    let mut spec = pod.spec("a", &sh("sleep 1000"), &Resources::default());
    spec.env = vec!["COLOUR=blue".into()];
    pod.shim.create(spec).unwrap();
    pod.shim.start_container("a").unwrap();
    let exec = |script: &str| ExecSpec {
        container: "a".into(),
        args: sh(script).map(str::to_owned).to_vec(),
        ..ExecSpec::default()
    };
    let (code, out, err) = pod.exec(exec("echo $COLOUR; echo bad >&2; exit 5"));
    assert_eq!((code, out.as_str(), err.as_str()), (5, "blue\n", "bad\n"));

    let exec_tty = pod
        .shim
        .exec(ExecSpec { tty: true, stdin: true, ..exec("tty; read line; echo got $line; stty size") })
        .unwrap();
    let mut terminal = fs::File::from(exec_tty.stdout);
    terminal.write_all(b"hello\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 256];
    // A terminal whose last program has gone answers with an error and not with an end.
    while let Ok(count) = terminal.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("/dev/pts/") && seen.contains("got hello"), "{seen}");
    assert_eq!(read_event(&exec_tty.exit).unwrap(), Some(Event::ExecExited { code: 0 }));

    let missing = ExecSpec { container: "a".into(), args: vec!["foo".into()], ..ExecSpec::default() };
    let error = pod.shim.exec(missing).unwrap_err().downcast::<Failure>().unwrap();
    assert_eq!((error.message.as_str(), error.exit_code), ("exec: \"foo\": executable file not found in $PATH", 127));
}

#[test]
fn a_container_beyond_its_memory_is_killed_and_the_end_says_so() {
    let mut pod = Pod::start();
    let resources = Resources {
        memory: Some(16 << 20),
        pids: Some(64),
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        ..Resources::default()
    };
    let spec = pod.spec("a", &sh("dd if=/dev/zero of=/dev/null bs=64M count=1"), &resources);
    let dir = |name: &str| {
        spec.cgroup_dirs
            .iter()
            .find(|dir| dir.join(name).exists())
            .map(|dir| fs::read_to_string(dir.join(name)).unwrap())
    };
    let limit = dir("memory.limit_in_bytes").or_else(|| dir("memory.max")).unwrap();
    assert_eq!(limit.trim(), "16777216");
    assert_eq!(dir("pids.max").unwrap().trim(), "64");
    pod.shim.create(spec).unwrap();
    let (_, events) = pod.shim.subscribe().unwrap();
    pod.shim.start_container("a").unwrap();
    let Some(Event::Exited(state)) = read_event(&events).unwrap() else { panic!("no event") };
    assert_eq!((state.exit_code, state.oom_killed), (137, true), "{}", pod.logged("a"));
}

#[test]
fn a_pod_is_quick_and_small() {
    let mut pod = Pod::start();
    let mut times = Vec::new();
    for id in ["a", "b"] {
        let spec = pod.spec(id, &sh("sleep 1000"), &Resources::default());
        let begin = Instant::now();
        pod.shim.create(spec).unwrap();
        pod.shim.start_container(id).unwrap();
        times.push(begin.elapsed());
    }
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", pod.pid)).unwrap();
    let private: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
        .sum();
    println!("containers: {times:?}; private memory of the shim: {private} KiB");
    assert!(private <= 1024, "{rollup}");
}
