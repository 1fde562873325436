//! The real docker command line against the server's socket, beside pods on the same node.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::node::{Node, Said, archive, eventually, manifest, run, shell};

/// Runs docker with these words, whatever its end.
fn docker(node: &Node, args: &[&str]) -> Said {
    run(&mut node.docker(args))
}

/// Runs docker with words that must succeed; what it said, without the last line feed.
fn ok(node: &Node, args: &[&str]) -> String {
    let said = docker(node, args);
    assert!(said.status.success(), "docker {args:?}: {}{}", said.out, said.err);
    said.out.trim_end().to_owned()
}

fn with_input(node: &Node, args: &[&str], input: &str) -> Said {
    let mut file = tempfile::tempfile().expect("make a file");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("write a file");
    run(node.docker(args).stdin(file))
}

fn refused(node: &Node, args: &[&str], words: &str) {
    let said = docker(node, args);
    assert!(!said.status.success(), "docker {args:?} should fail: {said:?}");
    assert!(said.err.contains(words), "docker {args:?}: {words:?} is not in {}", said.err);
}

/// Bytes of the disk below the data directory.
fn used(node: &Node) -> u64 {
    let said = shell(&format!("du -s --block-size=1 {}", node.data().display()));
    said.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// What `Total reclaimed space: 10.49MB` says, in bytes.
fn reclaimed(text: &str) -> f64 {
    let said = text.lines().find_map(|line| line.strip_prefix("Total reclaimed space: ")).expect(text);
    let end = said.find(|c: char| c.is_ascii_alphabetic()).expect("a unit");
    let factor = match &said[end..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("unit {other}"),
    };
    said[..end].parse::<f64>().expect("a number") * factor
}

#[test]
fn docker_runs_containers_and_reaches_them() {
    let node = Node::ready();
    assert!(ok(&node, &["version"]).contains("knarr"));
    assert!(ok(&node, &["info"]).contains("Images: 4"));

    // In the foreground: both streams, the exit status, and the input.
    let said = docker(&node, &["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((said.code(), said.out.as_str(), said.err.as_str()), (3, "out\n", "err\n"));
    let said = with_input(&node, &["run", "-i", "--rm", "busybox", "wc", "-l"], "a\nb\n");
    assert_eq!(said.out.trim(), "2", "{said:?}");
    let line = [
        "run",
        "--rm",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "7:8",
        "--entrypoint",
        "sh",
        "busybox",
        "-c",
        "echo $A $PWD $(id -u):$(id -g)",
    ];
    assert_eq!(ok(&node, &line), "b /tmp 7:8");
    let many = ok(&node, &["run", "--rm", "busybox", "sh", "-c", "seq 20000"]);
    assert_eq!(many.lines().count(), 20_000, "every byte arrives");
    // A terminal: one that `script` makes, as tests have none.
    let tty = format!(
        "DOCKER_HOST=unix://{} HOME=/nowhere script -qec 'docker run --rm -it busybox sh -c \"tty; echo typed\"' /dev/null < /dev/null",
        node.path("run/docker.sock").display()
    );
    let client = node.docker([""; 0]).get_program().to_owned();
    let dir = std::path::Path::new(&client).parent().expect("a directory").display().to_string();
    let said = shell(&format!("PATH={dir}:$PATH; export PATH; {tty}"));
    assert!(said.contains("/dev/pts/0") && said.contains("typed"), "{said:?}");

    // In the background, with a port, a name and labels.
    ok(
        &node,
        &[
            "run",
            "-d",
            "--name",
            "web",
            "--label",
            "tier=front",
            "-p",
            "8080:80",
            "-e",
            "BACKEND_HOST=localhost:9",
            "gihyodocker/nginx",
        ],
    );
    eventually("the port is open", || node.http("127.0.0.1", 8080).ok());
    assert_eq!(ok(&node, &["ps", "--format", "{{.Names}} {{.Ports}}"]), "web 0.0.0.0:8080->80/tcp");
    assert_eq!(ok(&node, &["ps", "-q", "--filter", "label=tier=back"]), "");
    eventually("the log has the request", || {
        ok(&node, &["logs", "--tail", "1", "web"]).contains("GET / ").then_some(())
    });
    assert_eq!(docker(&node, &["exec", "web", "sh", "-c", "exit 5"]).code(), 5);
    assert_eq!(with_input(&node, &["exec", "-i", "web", "cat"], "through").out, "through");
    assert_eq!(docker(&node, &["exec", "web", "nosuch"]).code(), 127);
    assert_eq!(ok(&node, &["exec", "-w", "/etc", "-e", "X=y", "web", "sh", "-c", "echo $PWD $X"]), "/etc y");

    // What it writes outlives its end, and files go in and out.
    ok(&node, &["exec", "web", "sh", "-c", "echo kept > /tmp/kept"]);
    ok(&node, &["stop", "-t", "2", "web"]);
    refused(&node, &["exec", "web", "true"], "is not running");
    assert!(node.http("127.0.0.1", 8080).is_err(), "the port closes with its container");
    let from = node.path("kept").display().to_string();
    ok(&node, &["cp", "web:/tmp/kept", &from]);
    assert_eq!(fs::read_to_string(&from).expect("the copy"), "kept\n");
    ok(&node, &["start", "web"]);
    ok(&node, &["cp", &from, "web:/tmp/again"]);
    assert_eq!(ok(&node, &["exec", "web", "cat", "/tmp/kept", "/tmp/again"]), "kept\nkept");
    assert!(ok(&node, &["diff", "web"]).contains("A /tmp/again"));
    ok(&node, &["restart", "-t", "2", "web"]);
    eventually("nginx runs", || ok(&node, &["top", "web"]).contains("nginx").then_some(()));
    ok(&node, &["kill", "web"]);
    assert_eq!(ok(&node, &["wait", "web"]), "137");
    assert_eq!(
        ok(&node, &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.Config.Labels.tier}}", "web"]),
        "exited 137 front"
    );
    ok(&node, &["rm", "web"]);
    assert_eq!(ok(&node, &["ps", "-aq"]), "");

    // Logs that are followed end with the container.
    ok(
        &node,
        &["run", "-d", "--name", "counter", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"],
    );
    assert_eq!(ok(&node, &["logs", "-f", "counter"]), "1\n2\n3");
    let stamped = ok(&node, &["logs", "-t", "--since", "1h", "counter"]);
    assert!(stamped.lines().all(|line| line.contains('T') && line.contains("Z ")), "{stamped}");

    // Names of a network, and a container without one.
    ok(&node, &["network", "create", "backend"]);
    ok(
        &node,
        &["run", "-d", "--name", "db", "--network", "backend", "--network-alias", "store", "busybox", "sleep", "1000"],
    );
    ok(&node, &["run", "--rm", "--network", "backend", "busybox", "sh", "-c", "ping -c1 -W5 db && ping -c1 -W5 store"]);
    let links = ok(&node, &["run", "--rm", "--network", "none", "busybox", "ip", "-o", "link"]);
    assert!(!links.contains("eth0"), "{links}");
    refused(&node, &["network", "rm", "backend"], "has active endpoints");
    ok(&node, &["rm", "-f", "db", "counter"]);
    ok(&node, &["network", "rm", "backend"]);
}

#[test]
fn prunes_take_what_nobody_uses_and_nothing_of_a_pod() {
    let node = Node::ready();
    // A pod with a running container and one that has ended, and a pod's image that nobody else has.
    node.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: lasting}, spec: {restartPolicy: Never, containers: [\
         {name: runs, image: gihyodocker/echo:latest, imagePullPolicy: Never},\
         {name: ended, image: busybox, imagePullPolicy: Never, command: ['true']}]}}",
    );
    eventually("the pod's second container has ended", || {
        let pod = node.get("pod lasting");
        let states = pod["status"]["containerStatuses"].as_array()?.clone();
        let is = |name: &str, state: &str| states.iter().any(|s| s["name"] == name && !s["state"][state].is_null());
        (is("ended", "terminated") && is("runs", "running")).then_some(())
    });
    assert_eq!(ok(&node, &["ps", "-aq"]), "", "containers of pods are not docker's");
    refused(&node, &["rmi", "gihyodocker/echo:latest"], "conflict: unable to remove repository reference");
    refused(&node, &["rmi", "-f", "busybox"], "cannot be forced");

    // A question that is answered with anything but yes changes nothing.
    ok(
        &node,
        &[
            "run",
            "--name",
            "big",
            "--label",
            "keep=no",
            "busybox",
            "dd",
            "if=/dev/urandom",
            "of=/big",
            "bs=1M",
            "count=10",
        ],
    );
    ok(&node, &["run", "--name", "kept", "--label", "keep=yes", "busybox", "true"]);
    for answer in ["x\n", ""] {
        let said = with_input(&node, &["container", "prune"], answer);
        assert!(said.out.starts_with(
            "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
        ));
        let said = run(node.knarr("container").args(["prune"]).args(node.dirs()));
        assert!(said.out.starts_with(
            "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] "
        ));
        assert_eq!(ok(&node, &["ps", "-aq"]).lines().count(), 2, "{answer:?}");
    }

    // Containers: what matches goes, and the disk gets back what is said.
    let said = ok(&node, &["container", "prune", "-f", "--filter", "until=1h"]);
    assert_eq!(said, "Total reclaimed space: 0B");
    let before = used(&node);
    let said = ok(&node, &["container", "prune", "-f", "--filter", "label!=keep=yes"]);
    assert!(said.starts_with("Deleted Containers:\n"), "{said}");
    let (freed, told) = ((before - used(&node)) as f64, reclaimed(&said));
    assert!(told > 10e6 && (freed - told).abs() < 200e3, "the disk got {freed} bytes back, docker said {told}");
    assert_eq!(ok(&node, &["ps", "-a", "--format", "{{.Names}}"]), "kept");

    // Images: a tag that moved leaves one without a name; a stopped container holds its own.
    ok(&node, &["tag", "gihyodocker/echo:patched", "gihyodocker/nginx:latest"]);
    assert_eq!(ok(&node, &["images", "-q", "--filter", "dangling=true"]).lines().count(), 1);
    let before = used(&node);
    let said = ok(&node, &["image", "prune", "-f"]);
    assert!(said.starts_with("Deleted Images:\ndeleted: sha256:"), "{said}");
    let (freed, told) = ((before - used(&node)) as f64, reclaimed(&said));
    assert!(told > 5e6 && (freed - told).abs() < 300e3, "the disk got {freed} bytes back, docker said {told}");
    refused(&node, &["rmi", "busybox"], "is using its referenced image");
    let said = ok(&node, &["image", "prune", "-a", "-f"]);
    assert!(said.contains("untagged: gihyodocker/nginx:latest") && said.contains("untagged: gihyodocker/echo:patched"));
    let left = ok(&node, &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let mut left: Vec<&str> = left.lines().collect();
    left.sort_unstable();
    assert_eq!(left, ["busybox:latest", "gihyodocker/echo:latest"], "a pod's images stay");

    // Everything at once, by knarr itself: one image of a container of docker's, networks, volumes.
    ok(&node, &["network", "create", "lonely"]);
    ok(&node, &["run", "--name", "third", "-v", "/data", "busybox", "sh", "-c", "echo x > /data/x"]);
    ok(&node, &["volume", "create", "named"]);
    let said = run(node.knarr("system").args(["prune", "-f", "-a", "--volumes"]).args(node.dirs()));
    assert!(said.status.success(), "{said:?}");
    for words in ["Deleted Containers:", "Deleted Networks:\nlonely\n", "Deleted Volumes:", "Total reclaimed space: "] {
        assert!(said.out.contains(words), "{words:?} is not in {}", said.out);
    }
    assert!(!said.out.contains("Deleted Images:"), "both images are a pod's: {}", said.out);
    assert_eq!(ok(&node, &["volume", "ls", "-q"]), "named", "a volume with a name is not anonymous");
    let said = run(node.knarr("volume").args(["prune", "-f", "-a"]).args(node.dirs()));
    assert_eq!(said.out, "Deleted Volumes:\nnamed\n\nTotal reclaimed space: 0B\n");
    assert_eq!(node.get("pod lasting")["status"]["containerStatuses"][1]["restartCount"], 0, "the pod did not notice");
    assert_eq!(
        node.http(node.get("pod lasting")["status"]["podIP"].as_str().expect("an address"), 8080)
            .map(|s| s.contains("Hello")),
        Ok(true)
    );

    // When the pod has gone, so may its images.
    node.ok("delete pod lasting --grace-period=1");
    eventually("the pod's images may go", || {
        ok(&node, &["image", "prune", "-a", "-f"]);
        ok(&node, &["images", "-q"]).is_empty().then_some(())
    });
    let rest = shell(&format!("find {0}/images/blobs {0}/images/layers -type f | wc -l", node.data().display()));
    assert_eq!(rest.trim(), "0", "nothing of an image is left");
}

#[test]
fn images_are_one_store_for_docker_and_for_pods() {
    let mut node = Node::empty();
    node.start();
    assert_eq!(ok(&node, &["images", "-q"]), "");
    let said = ok(&node, &["load", "-i", &archive("busybox-latest").display().to_string()]);
    assert_eq!(said, "Loaded image: busybox:latest");
    ok(&node, &["tag", "busybox", "mine/tool:1"]);
    node.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: user}, spec: {terminationGracePeriodSeconds: 1, containers: [\
         {name: main, image: 'mine/tool:1', imagePullPolicy: Never, command: [sleep, '1000']}]}}",
    );
    node.ok("wait --for=condition=Ready pod/user --timeout=60s");
    // One of two names may go, the last may not.
    ok(&node, &["rmi", "busybox"]);
    refused(&node, &["rmi", "mine/tool:1"], "is using its referenced image");
    let id = ok(&node, &["images", "-q"]);
    refused(&node, &["rmi", "-f", &id], "image is being used by running container");
    let file = node.path("saved.tar").display().to_string();
    ok(&node, &["save", "mine/tool:1", "-o", &file]);
    node.ok("delete pod user");
    eventually("the image may be removed", || {
        let said = docker(&node, &["rmi", "mine/tool:1"]);
        said.status.success().then(|| assert!(said.out.contains("Untagged: mine/tool:1\nDeleted: sha256:"), "{said:?}"))
    });
    assert_eq!(ok(&node, &["load", "-i", &file]), "Loaded image: mine/tool:1");
    assert_eq!(ok(&node, &["run", "--rm", "mine/tool:1", "echo", "back"]), "back");
}

#[test]
fn containers_of_docker_outlive_the_server() {
    let mut node = Node::ready();
    ok(&node, &["run", "-d", "--name", "steady", "-p", "8081:8080", "gihyodocker/echo"]);
    ok(&node, &["run", "-d", "--name", "again", "--restart", "always", "busybox", "sh", "-c", "sleep 0.3; exit 1"]);
    ok(&node, &["volume", "create", "data"]);
    ok(&node, &["run", "--name", "writer", "-v", "data:/d", "busybox", "sh", "-c", "echo x > /d/x"]);
    eventually("the restart policy is carried out", || {
        let count = ok(&node, &["inspect", "-f", "{{.RestartCount}}", "again"]);
        (count.parse::<u32>().ok()? > 1).then_some(())
    });
    let before = ok(&node, &["inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}", "steady"]);
    let address = ok(&node, &["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "steady"]);
    node.signal(Signal::SIGKILL);
    assert!(node.http(&address, 8080).expect("it serves while no server runs").contains("Hello"));
    refused(&node, &["ps"], "Cannot connect to the Docker daemon");
    let said = run(node.knarr("system").args(["prune", "-f"]).args(node.dirs()));
    assert_eq!(said.code(), 1);
    assert!(said.err.contains("no server answers at"), "{said:?}");
    node.start();
    assert_eq!(ok(&node, &["inspect", "-f", "{{.Id}} {{.State.Pid}} {{.State.StartedAt}}", "steady"]), before);
    eventually("the published port is open again", || node.http("127.0.0.1", 8081).ok());
    assert_eq!(ok(&node, &["volume", "ls", "-q"]), "data");
    assert_eq!(ok(&node, &["inspect", "-f", "{{.State.ExitCode}}", "writer"]), "0");
    let count =
        |node: &Node| ok(node, &["inspect", "-f", "{{.RestartCount}}", "again"]).parse::<u32>().expect("a number");
    let now = count(&node);
    eventually("restarts go on", || (count(&node) > now).then_some(()));
    ok(&node, &["stop", "-t", "0", "again"]);
    assert_eq!(ok(&node, &["inspect", "-f", "{{.State.Status}}", "again"]), "exited");
    ok(&node, &["rm", "-f", "steady", "again", "writer"]);
    eventually("no shim is left", || node.shims().is_empty().then_some(()));
}

#[test]
fn mistakes_are_answered_in_dockers_words() {
    let node = Node::ready();
    ok(&node, &["run", "-d", "--name", "one", "-v", "data:/d", "-p", "8082:80", "busybox", "sleep", "1000"]);
    for (args, words) in [
        (
            vec!["run", "--name", "one", "busybox"],
            "Conflict. The container name \"/one\" is already in use by container",
        ),
        (
            vec!["run", "--name", "a b", "busybox"],
            "Invalid container name (a b), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
        ),
        (
            vec!["run", "--rm", "-p", "8082:80", "busybox", "true"],
            "Bind for 0.0.0.0:8082 failed: port is already allocated",
        ),
        (vec!["run", "--rm", "busybox", "nosuch"], "exec: \"nosuch\": executable file not found in $PATH"),
        (vec!["run", "--rm", "-v", "/a:b", "busybox", "true"], "mount path must be absolute"),
        (vec!["run", "--rm", "-m", "1m", "busybox", "true"], "Minimum memory limit allowed is 6MB"),
        (vec!["run", "--rm", "--network", "nowhere", "busybox", "true"], "network nowhere not found"),
        (vec!["run", "--rm", "--init", "busybox", "true"], "--init is not supported by knarr"),
        (vec!["run", "--rm", "--shm-size", "1m", "busybox", "true"], "--shm-size is not supported by knarr"),
        (vec!["run", "--rm", "--health-cmd", "true", "busybox", "true"], "--health-cmd is not supported by knarr"),
        (vec!["run", "--pull=never", "nosuch:1"], "No such image: nosuch:1"),
        (vec!["start", "nobody"], "No such container: nobody"),
        (vec!["stop", "nobody"], "No such container: nobody"),
        (vec!["logs", "nobody"], "No such container: nobody"),
        (vec!["exec", "nobody", "true"], "No such container: nobody"),
        (vec!["rm", "nobody"], "No such container: nobody"),
        (vec!["rm", "one"], "cannot remove container \"/one\": container is running"),
        (vec!["kill", "-s", "NOTHING", "one"], "Invalid signal: NOTHING"),
        (vec!["inspect", "nobody"], "No such object: nobody"),
        (vec!["ps", "--filter", "colour=red"], "invalid filter 'colour'"),
        (vec!["ps", "--filter", "status=happy"], "invalid filter 'status=happy'"),
        (vec!["images", "--filter", "dangling=perhaps"], "invalid filter 'dangling=perhaps'"),
        (vec!["tag", "nosuch", "x"], "No such image: nosuch"),
        (vec!["tag", "busybox", "UPPER"], "invalid reference format"),
        (vec!["rmi", "nosuch"], "No such image: nosuch"),
        (vec!["load", "-i", "/etc/hostname"], "load images:"),
        (vec!["volume", "inspect", "nothing"], "o such volume"),
        (vec!["volume", "rm", "data"], "remove data: volume is in use - ["),
        (vec!["volume", "create", "-d", "nfs", "vol"], "plugin \"nfs\" not found"),
        (vec!["network", "rm", "bridge"], "bridge is a pre-defined network and cannot be removed"),
        (vec!["network", "create", "bridge"], "network with name bridge already exists"),
        (vec!["network", "inspect", "nowhere"], "nowhere"),
        (
            vec!["container", "prune", "-f", "--filter", "until=yesterday"],
            "failed to parse value as time or duration: \"yesterday\"",
        ),
        (vec!["image", "prune", "-f", "--filter", "name=x"], "invalid filter 'name'"),
        (vec!["system", "prune", "-f", "--filter", "colour=red"], "invalid filter 'colour'"),
        (vec!["volume", "prune", "-f", "--filter", "until=1h"], "invalid filter 'until'"),
        (vec!["network", "prune", "-f", "--filter", "until=1h,2h"], "failed to parse value as time or duration"),
    ] {
        refused(&node, &args, words);
    }
    for (args, words) in [
        (vec!["container", "prune", "-f", "--filter", "colour=red"], "invalid filter 'colour'"),
        (vec!["image", "prune", "-f", "--filter", "until=yesterday"], "failed to parse value as time or duration"),
        (
            vec!["system", "prune", "-f", "--volumes", "--filter", "until=1h"],
            "The \"until\" filter is not supported with \"--volumes\"",
        ),
        (vec!["volume", "prune", "-f", "--filter", "nonsense"], "a filter is written NAME=VALUE"),
        (vec!["network", "prune", "--force=maybe"], "unexpected value"),
    ] {
        let said = run(node.knarr(args[0]).args(&args[1..]).args(node.dirs()).stdin(Stdio::null()));
        assert!(!said.status.success() && said.err.contains(words), "knarr {args:?}: {said:?}");
    }
    // Nothing was half made, and nothing was lost.
    assert_eq!(ok(&node, &["ps", "-a", "--format", "{{.Names}}"]), "one");
    assert_eq!(ok(&node, &["volume", "ls", "-q"]), "data");
    assert_eq!(ok(&node, &["images", "-q"]).lines().count(), 4);
    let mode = shell(&format!("stat -c %a:%u {}", node.path("run/docker.sock").display()));
    assert_eq!(mode.trim(), "660:0");
    node.ok(&format!("apply -f {}", manifest("simple-pod.yaml")));
}
