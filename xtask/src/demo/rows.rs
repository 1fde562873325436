//! The rows of the tutorial beyond pods and Deployments: each does its real work, and is checked.

use anyhow::{Context, ensure};

use super::{Demo, PATIENCE, TIMEOUT};
use crate::clients;
use crate::cluster::wait_for;

pub fn node(demo: &Demo) -> anyhow::Result<()> {
    let text = demo.kubectl("get nodes -o wide")?;
    ensure!(text.contains(" Ready "), "no node is Ready");
    let node = demo.kubectl("get nodes -o jsonpath={.items[0].metadata.name}")?;
    let shown = demo.kubectl(&format!("describe node {}", node.trim()))?;
    for word in ["Capacity:", "Allocatable:", "MemoryPressure", "InternalIP:", "control-plane"] {
        ensure!(shown.contains(word), "the description of the node lacks {word}");
    }
    demo.note("one node, which is the control plane as well: what it has, what of it pods may use, and how it is");
    Ok(())
}

pub fn namespace(demo: &Demo) -> anyhow::Result<()> {
    let text = demo.kubectl("get namespaces")?;
    for name in ["default", "docker", "kube-node-lease", "kube-public", "kube-system"] {
        ensure!(text.lines().any(|line| line.starts_with(name)), "there is no namespace {name}");
    }
    demo.kubectl("apply -f ../rows/namespace.yaml")?;
    demo.kubectl("get configmap note -n play")?;
    demo.kubectl("delete namespace play")?;
    let left = demo.kubectl("get configmap -A")?;
    ensure!(!left.contains("play"), "something of the namespace is left");
    demo.note("a namespace takes along all that is in it");
    Ok(())
}

pub fn service(demo: &Demo) -> anyhow::Result<()> {
    quietly_serve(demo, true)?;
    demo.kubectl("get service,endpointslice --selector app=hello")?;
    let said = demo.kubectl("exec visitor -- wget -qO- http://hello/")?;
    ensure!(said.trim() == "Hello Docker!!", "the name of the Service does not lead to a pod");
    demo.kubectl("exec visitor -- nslookup hello.default.svc.cluster.local")?;
    demo.note("from a pod: by name, through one address that stands for both pods");
    let said = demo.shell("curl --silent --show-error --max-time 10 http://127.0.0.1:30080/")?;
    ensure!(said.trim() == "Hello Docker!!", "the node's port does not lead to a pod");
    demo.note("from outside: by a port of the node");
    Ok(())
}

pub fn ingress(demo: &Demo) -> anyhow::Result<()> {
    quietly_serve(demo, false)?;
    demo.kubectl("apply -f ../rows/ingress.yaml")?;
    let asks = |host: &str| format!("curl --silent --show-error --max-time 10 --header Host:{host} http://127.0.0.1/");
    wait_for("the Ingress to lead to a pod", PATIENCE, || {
        Ok(demo.quietly(&asks("hello.example")).is_ok_and(|said| said.trim() == "Hello Docker!!"))
    })?;
    demo.kubectl("get ingress")?;
    demo.shell(&asks("hello.example"))?;
    let said = demo.shell(&asks("other.example"))?;
    ensure!(!said.contains("Hello"), "another host leads to the pods as well");
    demo.note("port 80 of the node leads to the Service of the host that is asked for");
    demo.kubectl("delete -f ../rows/ingress.yaml -f ../rows/service.yaml")?;
    Ok(())
}

/// The Deployment, the Service and the visitor that two rows need.
fn quietly_serve(demo: &Demo, show: bool) -> anyhow::Result<()> {
    let lines = [
        "apply -f ../rows/service.yaml".to_owned(),
        format!("rollout status deployment hello {TIMEOUT}"),
        format!("wait --for=condition=Ready pod/visitor {TIMEOUT}"),
    ];
    for line in &lines {
        if show {
            demo.kubectl(line)?;
        } else {
            demo.cluster.kubectl(line.split_whitespace()).read()?;
        }
    }
    Ok(())
}

pub fn settings(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("apply -f ../rows/settings.yaml")?;
    demo.kubectl(&format!("wait --for=condition=Ready pod/reader {TIMEOUT}"))?;
    ensure!(demo.kubectl("exec reader -- cat /settings/colour")? == "red", "the file is not the ConfigMap's");
    let environment = demo.kubectl("exec reader -- env")?;
    ensure!(environment.lines().any(|line| line == "PASSWORD=secret"), "the variable is not the Secret's");
    demo.pipe("settings.yaml", "colour: red", "colour: blue")?;
    wait_for("the file to follow", PATIENCE, || {
        Ok(demo.cluster.kubectl(["exec", "reader", "--", "cat", "/settings/colour"]).read()?.trim() == "blue")
    })?;
    demo.kubectl("exec reader -- cat /settings/colour")?;
    demo.note("the file in the running pod followed its ConfigMap");
    demo.kubectl("delete -f ../rows/settings.yaml")?;
    Ok(())
}

pub fn storage(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("get storageclass")?;
    demo.kubectl("apply -f ../rows/claim.yaml")?;
    demo.kubectl(&format!("wait --for=condition=Ready pod/writer {TIMEOUT}"))?;
    demo.kubectl("get persistentvolumeclaim,persistentvolume")?;
    demo.cluster.kubectl(["exec", "writer", "--", "sh", "-c", "echo kept > /disk/file; sync"]).read()?;
    let full =
        demo.cluster.kubectl(["exec", "writer", "--", "dd", "if=/dev/zero", "of=/disk/big", "bs=1M", "count=64"]);
    println!("$ kubectl exec writer -- dd if=/dev/zero of=/disk/big bs=1M count=64");
    let output = full.output()?;
    print!("{}", String::from_utf8_lossy(&output.stderr));
    ensure!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("No space left"),
        "the size does not hold"
    );
    demo.kubectl("delete pod writer")?;
    demo.kubectl("apply -f ../rows/claim.yaml")?;
    demo.kubectl(&format!("wait --for=condition=Ready pod/writer {TIMEOUT}"))?;
    ensure!(demo.kubectl("exec writer -- cat /disk/file")?.trim() == "kept", "the data is gone");
    demo.note(
        "a volume was made on demand, it is as large as was asked for and no larger, and its data outlives the pod",
    );
    demo.kubectl("delete -f ../rows/claim.yaml")?;
    Ok(())
}

pub fn stateful_set(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("apply -f ../rows/statefulset.yaml")?;
    demo.kubectl(&format!("rollout status statefulset store {TIMEOUT}"))?;
    let pods = demo.kubectl("get pod,persistentvolumeclaim")?;
    for name in ["store-0", "store-1", "disk-store-0", "disk-store-1"] {
        ensure!(pods.contains(name), "there is no {name}");
    }
    demo.kubectl("exec store-0 -- nslookup store-1.store.default.svc.cluster.local")?;
    demo.kubectl("delete pod store-1")?;
    demo.kubectl(&format!("wait --for=jsonpath={{.status.readyReplicas}}=2 statefulset/store {TIMEOUT}"))?;
    ensure!(demo.kubectl("exec store-1 -- cat /disk/name")?.trim() == "store-1", "the pod has another disk");
    demo.note("each pod has a name, a DNS name and a disk of its own, and its successor gets the same");
    demo.kubectl("delete -f ../rows/statefulset.yaml")?;
    demo.kubectl("delete persistentvolumeclaim disk-store-0 disk-store-1")?;
    Ok(())
}

pub fn daemon_set(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("apply -f ../rows/daemonset.yaml")?;
    demo.kubectl(&format!("rollout status daemonset agent {TIMEOUT}"))?;
    demo.kubectl("get daemonset")?;
    demo.note("one pod on each node; there is one node");
    demo.kubectl("delete -f ../rows/daemonset.yaml")?;
    Ok(())
}

pub fn job(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("apply -f ../rows/job.yaml")?;
    demo.kubectl(&format!("wait --for=condition=Complete job/sums {TIMEOUT}"))?;
    demo.kubectl("get job,cronjob")?;
    ensure!(demo.kubectl("logs job/sums")?.trim() == "42", "the log of the job is another");
    demo.note("three pods ran to their end, two at a time; the CronJob waits for three in the morning");
    demo.kubectl("delete -f ../rows/job.yaml")?;
    Ok(())
}

pub fn rights(demo: &Demo) -> anyhow::Result<()> {
    demo.kubectl("apply -f ../rows/rights.yaml")?;
    demo.kubectl(&format!("wait --for=condition=Ready pod/watcher {TIMEOUT}"))?;
    let pods = demo.kubectl("exec watcher -- /ask/the-api pods")?;
    ensure!(pods.contains("PodList"), "the account may not list pods");
    println!("$ kubectl exec watcher -- /ask/the-api secrets");
    let refused = demo.cluster.kubectl(["exec", "watcher", "--", "/ask/the-api", "secrets"]).output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    print!("{said}");
    ensure!(said.contains("403 Forbidden"), "the account may list secrets");
    demo.note("the pod may do what the role of its account says, and no more");
    demo.kubectl("delete -f ../rows/rights.yaml")?;
    Ok(())
}

pub fn docker(demo: &Demo) -> anyhow::Result<()> {
    let docker = clients::docker()?;
    let socket = demo.cluster.docker_socket();
    println!("$ export DOCKER_HOST=unix://{}", socket.display());
    let say = |line: &str| demo.docker(&docker, line);
    say("run --rm busybox echo hello")?;
    say("run --name done --label play=1 busybox true")?;
    say("create --label play=1 busybox true")?;
    ensure!(say("ps -a")?.contains("done"), "the container that has ended is not listed");
    let said = say("container prune --force --filter label=play=1")?;
    ensure!(said.contains("Deleted Containers:") && said.contains("Total reclaimed space:"), "nothing was deleted");
    say("volume create cache")?;
    ensure!(say("volume prune --all --force")?.contains("cache"), "the volume was not deleted");
    say("images")?;
    let said = demo.knarr("system prune --force")?;
    ensure!(said.contains("Total reclaimed space:"), "knarr's own prune says something else");
    demo.note(
        "docker's own command line speaks to knarr, and prunes; what pods use stays. The images are the cluster's",
    );
    Ok(())
}

/// What an earlier demo may have left.
pub fn clean(demo: &Demo) -> anyhow::Result<()> {
    let manifests =
        ["namespace", "ingress", "service", "settings", "claim", "statefulset", "daemonset", "job", "rights"];
    let mut args = vec!["delete".to_owned(), "--ignore-not-found".to_owned(), TIMEOUT.to_owned()];
    args.extend(manifests.iter().flat_map(|name| ["-f".to_owned(), format!("../rows/{name}.yaml")]));
    demo.cluster.kubectl(args.iter().map(String::as_str)).read().context("remove what an earlier demo left")?;
    let claims = [
        "delete",
        "--ignore-not-found",
        TIMEOUT,
        "persistentvolumeclaim/disk-store-0",
        "persistentvolumeclaim/disk-store-1",
    ];
    demo.cluster.kubectl(claims).read().context("remove the claims that an earlier demo left")?;
    Ok(())
}
