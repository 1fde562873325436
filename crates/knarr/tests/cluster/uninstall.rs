//! `knarr uninstall` leaves the host as it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::node::{Node, manifest, shell};

/// What a host has of all that knarr makes. One line for each thing.
fn host(node: &Node) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut add = |kind: &str, text: &str| {
        for line in text.lines() {
            found.insert(format!("{kind}: {line}"));
        }
    };
    add("link", &shell("busybox ip -o link | cut -d: -f2"));
    add("address", &shell("busybox ip -o address | tr -s ' ' | cut -d' ' -f2-4"));
    add("route", &shell("busybox ip route show table all"));
    add("rule", &shell("nft list ruleset"));
    add("mount", &shell("busybox awk '{print $5}' /proc/self/mountinfo"));
    add("namespace", &shell("ls -A /run/netns /var/run/netns 2>/dev/null || true"));
    add("unix socket", &shell("busybox awk 'NR > 1 {print $8}' /proc/net/unix"));
    add("listening", &shell("busybox netstat -lnt | busybox awk 'NR > 2 {print $4}'"));
    add("sysctl", &shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/rp_filter"));
    for dir in ["/etc", "/run", "/var/lib", "/var/log", "/var/run", "/opt", "/usr/local"] {
        add("file", &shell(&format!("find {dir} -xdev -newer {} -type f", node.path("mark").display())));
    }
    add("here", &shell(&format!("cd {} && find . -not -path './home*'", node.path("").display())));
    for group in walk(Path::new("/sys/fs/cgroup")) {
        // Other tests run beside this one, with control groups of their own names.
        if !group.contains("/knarr-") || group.contains(node.cgroup()) {
            add("control group", &group);
        }
    }
    for (pid, line) in node.processes() {
        add("process", &format!("{pid} {line}"));
    }
    found
}

fn walk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir() && !path.is_symlink()) {
        found.extend(walk(&path));
        found.push(path.display().to_string());
    }
    found
}

fn assert_same(before: &BTreeSet<String>, after: &BTreeSet<String>) {
    let more: Vec<_> = after.difference(before).collect();
    let less: Vec<_> = before.difference(after).collect();
    assert!(more.is_empty() && less.is_empty(), "left behind: {more:#?}\nmissing: {less:#?}");
}

#[test]
fn uninstall_leaves_the_host_as_it_was() {
    let mut node = Node::empty();
    fs::write(node.path("mark"), "").expect("make a mark");
    fs::write(node.path("log"), "").expect("make the log");
    let before = host(&node);
    let names = ["gihyodocker-nginx-latest", "gihyodocker-echo-latest"].map(crate::node::archive);
    let import = crate::node::run(node.knarr("image").arg("import").args(node.dirs()).args(names));
    assert!(import.status.success(), "{import:?}");
    node.start();
    node.ok(&format!("apply -f {}", manifest("simple-deployment.yaml")));
    node.ok("rollout status deployment echo --timeout=60s");
    node.ok(&format!("apply -f {}", manifest("volumes.yaml")));
    node.ok("wait --for=condition=Ready pod/volumes --timeout=60s");
    assert_eq!(node.shims().len(), 4, "one shim for each pod");
    let during = host(&node);
    for kind in ["link", "mount", "unix socket", "listening", "control group", "process", "here"] {
        let new = during.difference(&before).filter(|line| line.starts_with(kind)).count();
        assert!(new > 0, "the comparison does not see what knarr makes: {kind}");
    }

    let refused = node.uninstall();
    assert_eq!(refused.code(), 1, "it must not pull the rug from under a running server: {refused:?}");
    assert!(refused.err.contains("stop the server first"), "{refused:?}");
    assert_eq!(node.list("pods").len(), 4);

    assert_eq!(node.signal(Signal::SIGTERM).code(), Some(0));
    let said = node.uninstall();
    assert!(said.status.success(), "{said:?}");
    assert_same(&before, &host(&node));

    let again = node.uninstall();
    assert!(again.status.success() && again.out.starts_with("Nothing to remove"), "{again:?}");
}

#[test]
fn uninstall_after_a_kill_finds_everything_and_refuses_directories_of_others() {
    let mut node = Node::ready();
    node.ok(&format!("apply -f {}", manifest("simple-pod.yaml")));
    node.ok("wait --for=condition=Ready pod/simple-echo --timeout=60s");
    node.signal(Signal::SIGKILL);
    let said = node.uninstall();
    assert!(said.status.success(), "{said:?}");
    assert!(node.processes().is_empty() && !node.data().exists() && !node.path("run").exists());
    assert!(!shell("busybox ip -o link").contains("knarr0"), "the bridge is still there");

    fs::create_dir(node.data()).expect("make a directory");
    fs::write(node.data().join("thesis.txt"), "years of work").expect("write a file");
    let said = node.uninstall();
    assert_eq!(said.code(), 1);
    assert!(said.err.contains("is not a data directory of knarr"), "{said:?}");
    assert!(node.data().join("thesis.txt").exists());
    fs::remove_dir_all(node.data()).expect("remove the directory");
}
