//! Real pods through CRI: their life, their limits, and what an engine finds that was killed. Needs root and busybox.

#[allow(dead_code)]
mod node;

use std::{fs, time::Instant};

use cri::{Clients, v1};
use node::{Node, container, eventually};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

async fn run_sandbox(clients: &mut Clients, config: &v1::PodSandboxConfig) -> String {
    let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    clients.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
}

async fn create(clients: &mut Clients, sandbox: &str, config: v1::ContainerConfig) -> Result<String, tonic::Status> {
    let request =
        v1::CreateContainerRequest { pod_sandbox_id: sandbox.into(), config: Some(config), sandbox_config: None };
    Ok(clients.runtime.create_container(request).await?.into_inner().container_id)
}

async fn start(clients: &mut Clients, id: &str) -> Result<(), tonic::Status> {
    clients.runtime.start_container(v1::StartContainerRequest { container_id: id.into() }).await.map(drop)
}

async fn status(clients: &mut Clients, id: &str) -> v1::ContainerStatus {
    let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
    clients.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
}

async fn exec(clients: &mut Clients, id: &str, script: &str) -> v1::ExecSyncResponse {
    let cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let request = v1::ExecSyncRequest { container_id: id.into(), cmd, timeout: 10 };
    clients.runtime.exec_sync(request).await.unwrap().into_inner()
}

async fn ip(clients: &mut Clients, sandbox: &str) -> String {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: sandbox.into(), verbose: false };
    let status = clients.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), v1::PodSandboxState::SandboxReady);
    status.network.unwrap().ip
}

/// Memory that is this process's own, in KiB.
fn private_memory(pid: &serde_json::Value) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_pod_lives_from_sandbox_to_removal_and_leaves_nothing() {
    let node = Node::new();
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        let mut events = clients.runtime.get_container_events(v1::GetEventsRequest {}).await.unwrap().into_inner();
        for round in 0..3 {
            let begin = Instant::now();
            let id = run_sandbox(&mut clients, &node.sandbox(&format!("timed{round}"))).await;
            let sandboxed = begin.elapsed();
            for name in ["one", "two"] {
                let id = create(&mut clients, &id, container(name, "sleep 1000")).await.unwrap();
                start(&mut clients, &id).await.unwrap();
            }
            println!("sandbox {sandboxed:?}, with two containers {:?}", begin.elapsed());
            let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: true };
            let verbose = clients.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
            let info: serde_json::Value = serde_json::from_str(&verbose.info["info"]).unwrap();
            let memory = private_memory(&info["pid"]);
            println!("private memory of the shim: {memory} KiB");
            assert!(memory <= 1024);
            let begin = Instant::now();
            clients.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id }).await.unwrap();
            println!("removed {:?}", begin.elapsed());
            let group = format!("{}/pod-timed{round}", node.cgroup);
            for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
                assert!(!hierarchy.path().join(&group[1..]).exists(), "{group} in {hierarchy:?}");
            }
        }

        let sandbox = run_sandbox(&mut clients, &node.sandbox("pod")).await;
        let mut config =
            container("server", "echo $COLOUR $FROM; hostname; cat /etc/resolv.conf; echo oops >&2; sleep 1000");
        config.envs = vec![v1::KeyValue { key: "COLOUR".into(), value: "blue".into() }];
        let linux = config.linux.as_mut().unwrap();
        linux.resources = Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: 64 << 20,
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            ..Default::default()
        });
        let server = create(&mut clients, &sandbox, config).await.unwrap();
        let client = create(&mut clients, &sandbox, container("client", "sleep 1000")).await.unwrap();
        start(&mut clients, &server).await.unwrap();
        start(&mut clients, &client).await.unwrap();
        eventually("the log has all lines", async || node.logged("server").lines().count() == 4).await;
        let log = node.logged("server");
        let has = |text: &str| assert!(log.lines().any(|line| line.ends_with(text)), "{text:?} in {log}");
        ["stdout F blue image", "stdout F pod", "stdout F nameserver 10.43.0.10", "stderr F oops"]
            .into_iter()
            .for_each(has);

        // One network for both containers, the same address that the machine reaches.
        let ip = ip(&mut clients, &sandbox).await;
        let seen = exec(&mut clients, &client, "ip -o -4 addr show eth0; ls -l /proc/1/ns/net /proc/1/ns/ipc").await;
        let seen_too =
            exec(&mut clients, &server, "ip -o -4 addr show eth0; ls -l /proc/1/ns/net /proc/1/ns/ipc").await;
        let names = |output: &v1::ExecSyncResponse| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.split_whitespace()
                .filter(|word| word.contains(":[") || word.contains('/'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&seen), names(&seen_too));
        assert!(names(&seen).contains(&format!("{ip}/32")), "{ip} in {seen:?}");

        // Limits in the control groups.
        let group = |file: &str| {
            let path = format!("{}/pod-pod/{server}/{file}", node.cgroup);
            let v1 = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|dir| dir.path().join(&path[1..]));
            v1.chain([format!("/sys/fs/cgroup{path}").into()]).find_map(|path| fs::read_to_string(path).ok())
        };
        let limit = group("memory.limit_in_bytes").or_else(|| group("memory.max")).unwrap();
        assert_eq!(limit.trim(), (64 << 20).to_string());
        let quota = group("cpu.cfs_quota_us").or_else(|| group("cpu.max")).unwrap();
        assert!(quota.starts_with("50000"), "{quota}");
        let stats = clients.runtime.container_stats(v1::ContainerStatsRequest { container_id: server.clone() }).await;
        let stats = stats.unwrap().into_inner().stats.unwrap();
        assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);

        let output = exec(&mut clients, &server, "echo out; echo err >&2; exit 7").await;
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_slice(), output.exit_code),
            (&b"out\n"[..], &b"err\n"[..], 7)
        );
        let request = v1::ExecSyncRequest { container_id: server.clone(), cmd: vec!["foo".into()], timeout: 0 };
        let error = clients.runtime.exec_sync(request).await.unwrap_err();
        assert!(error.message().ends_with("exec: \"foo\": executable file not found in $PATH"), "{error}");

        clients
            .runtime
            .stop_container(v1::StopContainerRequest { container_id: server.clone(), timeout: 0 })
            .await
            .unwrap();
        let ended = status(&mut clients, &server).await;
        assert_eq!(
            (ended.state(), ended.exit_code, ended.reason.as_str()),
            (v1::ContainerState::ContainerExited, 137, "Error")
        );
        let mut stopped = None;
        while stopped.is_none() {
            let event = events.message().await.unwrap().unwrap();
            let is_stop = event.container_event_type() == v1::ContainerEventType::ContainerStoppedEvent;
            stopped = (is_stop && event.container_id == server).then_some(event);
        }

        let listed =
            clients.runtime.list_containers(v1::ListContainersRequest { filter: None }).await.unwrap().into_inner();
        assert_eq!(listed.containers.len(), 2);
        clients.runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await.unwrap();
        assert_eq!(status(&mut clients, &client).await.exit_code, 137);
        clients.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await.unwrap();
        let listed =
            clients.runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }).await.unwrap().into_inner();
        assert!(listed.items.is_empty());

        // One that still runs is the uninstaller's to remove.
        let sandbox = run_sandbox(&mut clients, &node.sandbox("last")).await;
        let id = create(&mut clients, &sandbox, container("last", "sleep 1000")).await.unwrap();
        start(&mut clients, &id).await.unwrap();
        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_is_said_clearly() {
    let node = Node::new();
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        let sandbox = run_sandbox(&mut clients, &node.sandbox("pod")).await;

        let mut missing = container("a", "true");
        missing.image = Some(v1::ImageSpec { image: "nowhere:1".into(), ..Default::default() });
        let error = create(&mut clients, &sandbox, missing).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (tonic::Code::NotFound, "image \"nowhere:1\" not found"));

        let mut missing = container("b", "true");
        missing.command = vec!["/no/such".into()];
        let id = create(&mut clients, &sandbox, missing).await.unwrap();
        let error = start(&mut clients, &id).await.unwrap_err();
        let expected = "failed to start container: exec: \"/no/such\": stat /no/such: no such file or directory";
        assert_eq!(error.message(), expected);
        let ended = status(&mut clients, &id).await;
        assert_eq!((ended.exit_code, ended.reason.as_str(), ended.message.as_str()), (128, "StartError", expected));

        let mut missing = container("c", "true");
        missing.mounts =
            vec![v1::Mount { container_path: "/x".into(), host_path: "/no/such".into(), ..Default::default() }];
        let error = create(&mut clients, &sandbox, missing).await.unwrap_err();
        assert!(error.message().starts_with("create container: find mount source /no/such: No such file"), "{error}");

        let mut hungry = container("d", "dd if=/dev/zero of=/dev/null bs=64M count=1");
        hungry.linux.as_mut().unwrap().resources =
            Some(v1::LinuxContainerResources { memory_limit_in_bytes: 16 << 20, ..Default::default() });
        let id = create(&mut clients, &sandbox, hungry).await.unwrap();
        start(&mut clients, &id).await.unwrap();
        eventually("it ends", async || status(&mut clients, &id).await.finished_at != 0).await;
        let ended = status(&mut clients, &id).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));

        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[test]
fn an_engine_that_was_killed_finds_its_pods_again() {
    let mut node = Node::new();
    run(async {
        let mut clients = node.process().await;
        let config = node.sandbox("pod");
        let sandbox = run_sandbox(&mut clients, &config).await;
        let stays = create(&mut clients, &sandbox, container("stays", "echo first; sleep 1000")).await.unwrap();
        let ends = container("ends", "while ! [ -e /dev/shm/end ]; do sleep 0.01; done; echo bye; exit 9");
        let ends = create(&mut clients, &sandbox, ends).await.unwrap();
        start(&mut clients, &stays).await.unwrap();
        start(&mut clients, &ends).await.unwrap();
        let address = ip(&mut clients, &sandbox).await;
        let before = status(&mut clients, &stays).await;
        exec(&mut clients, &stays, "sleep 0.3 && echo > /dev/shm/end &").await;
        node.kill();
        eventually("a container ends and is logged while no engine runs", async || node.logged("ends").contains("bye"))
            .await;

        let begin = Instant::now();
        let mut clients = node.process().await;
        println!("adopted in {:?}", begin.elapsed());
        assert_eq!(ip(&mut clients, &sandbox).await, address);
        let after = status(&mut clients, &stays).await;
        assert_eq!(after, before);
        assert_eq!(after.state(), v1::ContainerState::ContainerRunning);
        eventually("the end is found", async || status(&mut clients, &ends).await.finished_at != 0).await;
        let ended = status(&mut clients, &ends).await;
        assert_eq!((ended.state(), ended.exit_code), (v1::ContainerState::ContainerExited, 9));
        assert_eq!(exec(&mut clients, &stays, "hostname").await.stdout, b"pod\n");

        // A new pod does not get the address of one that was adopted.
        let other = run_sandbox(&mut clients, &node.sandbox("other")).await;
        assert_ne!(ip(&mut clients, &other).await, address);
        node.kill();
    });
    run(async {
        let engine = node.engine().await;
        let mut clients = cri::in_process(engine.clone());
        let listed =
            clients.runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }).await.unwrap().into_inner();
        assert_eq!(listed.items.len(), 2);
        let problems = engine.remove_everything().await;
        assert!(problems.is_empty(), "{problems:?}");
    });
    // The killed processes left their socket.
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
