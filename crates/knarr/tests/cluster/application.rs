//! The shop of `examples/shop`: a real application, and what it survives.

#![expect(clippy::disallowed_methods, reason = "these tests run clients of other makers")]

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::{Node, PATIENCE, eventually, example, import, run};

/// A certificate for the shop, and its key.
fn certificate(node: &Node) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["shop.example".to_owned()]).expect("make a certificate");
    let paths = ["shop.crt", "shop.key"].map(|name| node.path(name).display().to_string());
    fs::write(&paths[0], made.cert.pem()).expect("write the certificate");
    fs::write(&paths[1], made.signing_key.serialize_pem()).expect("write the key");
    paths
}

/// One visit, through the Ingress: the number that the shop counts.
fn visit(certificate: &str) -> Result<u32, String> {
    let args = ["-sS", "--max-time", "10", "--cacert", certificate, "--resolve", "shop.example:443:127.0.0.1"];
    let said = run(Command::new("curl").args(args).arg("https://shop.example/cgi-bin/visits"));
    let number = said.out.strip_prefix("Welcome to the shop\nvisit ").and_then(|rest| rest.trim().parse().ok());
    number.ok_or_else(|| format!("{}{}", said.out, said.err))
}

/// The server process of the database.
fn postgres() -> Pid {
    let all = fs::read_dir("/proc").expect("read the processes").flatten();
    let own = all.filter_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        (line.starts_with("postgres\0-c\0listen_addresses") || line.contains("/postgres\0-c\0listen_addresses"))
            .then_some(pid)
    });
    Pid::from_raw(own.min().expect("the database runs"))
}

#[test]
fn the_shop_serves_and_survives_the_end_of_anything() {
    let mut node = Node::ready();
    import(&node, "postgres-15");
    let [certificate, key] = certificate(&node);
    let shop = example("shop");
    node.ok(&format!("apply -f {shop}/1-settings.yaml"));
    node.ok(&format!("create secret tls shop-tls -n shop --cert={certificate} --key={key}"));
    node.ok(&format!("apply -f {shop}"));
    node.ok("rollout status -n shop statefulset/database --timeout=90s");
    node.ok("rollout status -n shop deployment/web --timeout=90s");
    node.ok("rollout status -n shop deployment/front --timeout=90s");
    let mut last = 0;
    let mut serves = |node: &Node, when: &str| {
        let begin = std::time::Instant::now();
        loop {
            match visit(&certificate) {
                Ok(number) => {
                    assert!(number > last, "{when}: visit {number} after {last}");
                    last = number;
                    return;
                }
                // What has been killed again and again waits longer each time (CrashLoopBackOff), and others wait for it.
                Err(why) if begin.elapsed() > 3 * PATIENCE => {
                    let state = ["get pods,endpointslices -n shop -o wide", "get events -n shop"];
                    panic!("{when}: {why}\n{}", state.map(|line| node.try_kubectl(line).out).join("\n"))
                }
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(100)),
            }
        }
    };
    serves(&node, "at first");
    serves(&node, "again");

    node.ok("create job -n shop --from=cronjob/backup backup-now");
    node.ok("wait -n shop --for=condition=Complete job/backup-now --timeout=60s");
    let notes = node.list("configmaps -n shop");
    let note = notes.iter().find(|map| map["data"]["file"].is_string()).expect("the backup tells of itself");
    assert!(note["data"]["bytes"].as_str().and_then(|bytes| bytes.parse::<u32>().ok()) > Some(500), "{note}");
    for (what, may) in [("create configmaps", "yes"), ("get configmaps", "no"), ("get secrets", "no")] {
        let said = node.try_kubectl(&format!("auth can-i {what} -n shop --as system:serviceaccount:shop:backup"));
        assert_eq!(said.out.trim(), may, "{what}");
    }

    node.signal(Signal::SIGKILL);
    node.start();
    serves(&node, "after kill -9 of knarr");
    kill(postgres(), Signal::SIGKILL).expect("kill the database");
    serves(&node, "after kill -9 of a container");
    eventually("the database was started again", || {
        let restarts = node.ok("get pod database-0 -n shop -o jsonpath={.status.containerStatuses[0].restartCount}");
        (restarts != "0").then_some(())
    });
    let before = node.get("pod/database-0 -n shop")["metadata"]["uid"].clone();
    node.ok("delete pod database-0 -n shop --force --grace-period=0");
    eventually("another pod of that name", || {
        let said = node.try_kubectl("get pod database-0 -n shop -o jsonpath={.metadata.uid}");
        (said.status.success() && before != said.out.as_str()).then_some(())
    });
    serves(&node, "after the end of the database's pod");
    for shim in node.shims() {
        kill(shim, Signal::SIGKILL).expect("kill a pod");
    }
    serves(&node, "after kill -9 of every pod");
    node.ok("delete namespace shop --timeout=60s");
    eventually("its volumes are gone", || node.list("pv").is_empty().then_some(()));
}
