//! Claims and volumes: data that outlives pods, in volumes of the size that was asked for and no more.

use nix::sys::signal::Signal;

use crate::node::{Node, Said, eventually, names, shell};

fn claim(name: &str, size: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}}}, spec: {{accessModes: [ReadWriteOnce], \
         resources: {{requests: {{storage: {size}}}}}, {spec}}}}}"
    )
}

fn pod(name: &str, claim: &str, spec: &str, mount: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, {spec} \
         containers: [{{name: main, image: busybox, command: [sleep, '1000'], volumeMounts: [{{name: v, mountPath: /data{mount}}}]}}], \
         volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]}}}}"
    )
}

fn volume(name: &str, size: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{capacity: {{storage: {size}}}, \
         accessModes: [ReadWriteOnce], {spec}}}}}"
    )
}

fn phase(node: &Node, what: &str) -> String {
    node.ok(&format!("get {what} -o jsonpath={{.status.phase}}"))
}

fn refused(said: &Said, words: &[&str]) {
    assert_eq!(said.code(), 1, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

/// Waits until the description of something has these words.
fn tells(node: &Node, what: &str, words: &str) {
    let mut last = String::new();
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually(words, || {
            last = node.ok(&format!("describe {what}"));
            last.contains(words).then_some(())
        });
    }));
    assert!(told.is_ok(), "{what} does not tell {words:?}: {last}");
}

/// Loop devices whose files are this machine's.
fn loops(node: &Node) -> String {
    shell(&format!("losetup -a | grep -F {} || true", node.path("").display()))
}

#[test]
fn a_claim_gets_a_volume_of_its_size_that_outlives_pods_and_the_server() {
    let mut node = Node::ready();
    assert_eq!(names(&node.list("storageclasses")), ["knarr"]);
    node.apply(&claim("data", "16Mi", ""));
    tells(&node, "pvc data", "waiting for first consumer to be created before binding");
    assert_eq!(phase(&node, "pvc/data"), "Pending");
    node.apply(&pod("one", "data", "", ""));
    node.ok("wait --for=condition=Ready pod/one --timeout=60s");
    assert_eq!(phase(&node, "pvc/data"), "Bound");
    let bound = node.ok("get pvc data -o jsonpath={.spec.volumeName}");
    let found = node.get(&format!("pv/{bound}"));
    assert_eq!((&found["status"]["phase"], &found["spec"]["claimRef"]["name"]), (&"Bound".into(), &"data".into()));

    let fill = |mebibytes: u32| {
        node.try_kubectl(&format!("exec one -- dd if=/dev/zero of=/data/fill bs=1M count={mebibytes}"))
    };
    let full = fill(20);
    assert!(full.code() != 0 && full.err.contains("No space left on device"), "{full:?}");
    node.ok("patch pvc data -p {\"spec\":{\"resources\":{\"requests\":{\"storage\":\"32Mi\"}}}}");
    eventually("the claim has its new size", || {
        (node.ok("get pvc data -o jsonpath={.status.capacity.storage}") == "32Mi").then_some(())
    });
    assert_eq!(fill(20).code(), 0, "the pod that runs has the new room");
    assert_ne!(fill(40).code(), 0);
    node.ok("exec one -- rm /data/fill");
    run_in(&node, "one", "echo kept > /data/x");

    node.signal(Signal::SIGKILL);
    node.start();
    run_in(&node, "one", "test $(cat /data/x) = kept && echo more >> /data/x");
    node.ok("delete pod one");
    eventually("nobody mounts it", || loops(&node).is_empty().then_some(()));
    node.apply(&pod("two", "data", "", ", subPath: below"));
    node.apply(&pod("three", "data", "", ", readOnly: true"));
    node.ok("wait --for=condition=Ready pod/two pod/three --timeout=60s");
    assert_eq!(node.ok("exec three -- cat /data/x"), "kept\nmore\n");
    assert_ne!(node.try_kubectl("exec three -- touch /data/y").code(), 0);
    run_in(&node, "two", "echo inner > /data/y");
    assert_eq!(node.ok("exec three -- cat /data/below/y"), "inner\n");

    node.ok("delete pvc data --wait=false");
    eventually("it stays while pods use it", || node.ok("get pvc data").contains("Terminating").then_some(()));
    node.ok("delete pod two three");
    eventually("the claim and its volume go", || {
        (node.list("pvc").is_empty() && node.list("pv").is_empty()).then_some(())
    });
    let left = shell(&format!("ls {}", node.data().join("kubelet/persistent").display()));
    assert_eq!((left.as_str(), loops(&node).as_str()), ("", ""), "its data goes with it");
}

fn run_in(node: &Node, pod: &str, line: &str) {
    let said = crate::node::run(&mut node.kubectl(["exec", pod, "--", "sh", "-c", line]));
    assert!(said.status.success(), "{line}: {said:?}");
}

#[test]
fn volumes_that_are_there_are_bound_by_what_the_claim_asks_for() {
    let node = Node::ready();
    let host = node.path("host");
    std::fs::create_dir(&host).expect("make a directory");
    let path = format!("storageClassName: manual, hostPath: {{path: {}}}", host.display());
    for (name, size) in [("big", "10Gi"), ("fits", "2Gi"), ("small", "1Gi")] {
        node.apply(&volume(name, size, &path));
    }
    node.apply(&claim("middle", "1500Mi", "storageClassName: manual"));
    eventually("the smallest that fits", || (phase(&node, "pvc/middle") == "Bound").then_some(()));
    assert_eq!(node.ok("get pvc middle -o jsonpath={.spec.volumeName}"), "fits");
    let table = node.ok("get pvc middle");
    assert!(
        table.lines().nth(1).is_some_and(|row| row.contains("fits     2Gi        RWO            manual")),
        "{table}"
    );
    node.apply(&volume("mine", "1Gi", &format!("{path}, claimRef: {{namespace: default, name: reserved}}")));
    node.apply(&claim("reserved", "1Gi", "storageClassName: manual"));
    node.apply(&claim("named", "5Gi", "storageClassName: manual, volumeName: big"));
    for (name, bound) in [("reserved", "mine"), ("named", "big")] {
        eventually("it is bound", || (phase(&node, &format!("pvc/{name}")) == "Bound").then_some(()));
        assert_eq!(node.ok(&format!("get pvc {name} -o jsonpath={{.spec.volumeName}}")), bound);
    }
    node.apply(&pod("writer", "middle", "", ""));
    node.ok("wait --for=condition=Ready pod/writer --timeout=60s");
    run_in(&node, "writer", "echo here > /data/file");
    assert_eq!(std::fs::read_to_string(host.join("file")).expect("the file"), "here\n");
    node.ok("delete pod writer");
    node.ok("delete pvc middle");
    eventually("it is released", || (phase(&node, "pv/fits") == "Released").then_some(()));
    assert!(host.join("file").exists(), "what is retained stays");
    node.apply(&claim("again", "1500Mi", "storageClassName: manual"));
    tells(&node, "pvc again", "storageclass.storage.k8s.io \"manual\" not found");
    node.ok("patch pv fits --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/claimRef\"}]");
    eventually("it is free again, and taken", || (phase(&node, "pvc/again") == "Bound").then_some(()));

    let local = node.path("local");
    std::fs::create_dir(&local).expect("make a directory");
    let on = |name: &str| {
        format!(
            "storageClassName: manual, local: {{path: {}}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: \
             [{{key: kubernetes.io/hostname, operator: In, values: [{name}]}}]}}]}}}}",
            local.display()
        )
    };
    node.apply(&volume("elsewhere", "20Gi", &on("node-2")));
    node.apply(&claim("far", "20Gi", "storageClassName: manual"));
    node.apply(&pod("far", "far", "", ""));
    tells(&node, "pod far", "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity.");
    node.apply(&volume("near", "30Gi", &on("node-1")));
    node.apply(&claim("near", "30Gi", "storageClassName: manual"));
    node.apply(&pod("near", "near", "securityContext: {fsGroup: 2000, runAsUser: 1000},", ""));
    node.ok("wait --for=condition=Ready pod/near --timeout=60s");
    run_in(&node, "near", "touch /data/file && test $(stat -c %g /data/file) = 2000");
    node.ok("delete pv near --wait=false");
    assert!(node.ok("get pv near").contains("Terminating"), "a volume stays while a claim has it");
    node.ok("delete pod far near");
    node.ok("delete pvc --all");
    eventually("the volume goes", || node.try_kubectl("get pv near").err.contains("not found").then_some(()));
}

#[test]
fn each_pod_of_a_stateful_set_keeps_its_own_volume() {
    let mut node = Node::ready();
    let set = |replicas: u32| {
        format!(
            "{{apiVersion: apps/v1, kind: StatefulSet, metadata: {{name: db}}, spec: {{serviceName: db, replicas: {replicas}, \
             selector: {{matchLabels: {{app: db}}}}, persistentVolumeClaimRetentionPolicy: {{whenDeleted: Delete}}, \
             template: {{metadata: {{labels: {{app: db}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: main, \
             image: busybox, command: [sh, -c, 'hostname >> /data/names; sleep 1000'], volumeMounts: [{{name: data, mountPath: /data}}]}}]}}}}, \
             volumeClaimTemplates: [{{metadata: {{name: data}}, spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 8Mi}}}}}}}}]}}}}"
        )
    };
    node.apply(&set(2));
    node.ok("rollout status statefulset db --timeout=60s");
    assert_eq!(names(&node.list("pvc")), ["data-db-0", "data-db-1"]);
    node.apply(&set(1));
    eventually("the second goes", || (names(&node.list("pods")) == ["db-0"]).then_some(()));
    assert_eq!(names(&node.list("pvc")), ["data-db-0", "data-db-1"], "its volume stays");
    node.apply(&set(2));
    node.ok("rollout status statefulset db --timeout=60s");
    assert_eq!(node.ok("exec db-1 -- cat /data/names"), "db-1\ndb-1\n");
    assert_eq!(node.ok("exec db-0 -- cat /data/names"), "db-0\n");
    node.ok("delete statefulset db");
    eventually("what belongs to the set goes with it", || {
        (node.list("pods").is_empty() && node.list("pvc").is_empty() && node.list("pv").is_empty()).then_some(())
    });

    node.apply(&set(1));
    node.ok("rollout status statefulset db --timeout=60s");
    assert_ne!(loops(&node), "");
    node.signal(Signal::SIGKILL);
    let said = node.uninstall();
    assert!(said.status.success(), "{said:?}");
    eventually("no device is left", || loops(&node).is_empty().then_some(()));
    assert!(!node.data().exists());
}

#[test]
fn claims_and_volumes_that_are_wrong_say_what_they_lack() {
    let node = Node::ready();
    let apply = |text: &str| node.with_input("apply -f -", text);
    let no_size = claim("x", "1Gi", "").replace("requests: {storage: 1Gi}", "requests: {}");
    refused(&apply(&no_size), &["spec.resources[storage]: Required value"]);
    let no_mode = claim("x", "1Gi", "").replace("[ReadWriteOnce]", "[]");
    refused(&apply(&no_mode), &["spec.accessModes: Required value: at least 1 access mode is required"]);
    let bad_mode = claim("x", "1Gi", "").replace("[ReadWriteOnce]", "[ReadWrite]");
    refused(&apply(&bad_mode), &["spec.accessModes: Unsupported value: \"ReadWrite\""]);
    refused(&apply(&claim("x", "lots", "")), &["quantities must match the regular expression"]);
    refused(&apply(&volume("x", "1Gi", "")), &["spec: Required value: must specify a volume type"]);
    let local = volume("x", "1Gi", "local: {path: /x}");
    refused(&apply(&local), &["spec.nodeAffinity: Required value: Local volume requires node affinity"]);

    node.apply(&claim("classy", "1Gi", "storageClassName: golden"));
    tells(&node, "pvc classy", "storageclass.storage.k8s.io \"golden\" not found");
    node.apply(&claim("none", "1Gi", "storageClassName: ''"));
    tells(&node, "pvc none", "no persistent volumes available for this claim and no storage class is set");
    node.apply(&claim("huge", "9000Ti", ""));
    node.apply(&pod("huge", "huge", "", ""));
    tells(&node, "pvc huge", "less than the 9000Ti that are requested");
    node.apply(&pod("lost", "nobody", "", ""));
    tells(&node, "pod lost", "0/1 nodes are available: persistentvolumeclaim \"nobody\" not found.");
    node.apply(&pod("waits", "none", "", ""));
    tells(&node, "pod waits", "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims.");

    node.apply(&claim("kept", "8Mi", ""));
    node.apply(&pod("kept", "kept", "", ""));
    node.ok("wait --for=condition=Ready pod/kept --timeout=60s");
    let size = |text: &str| {
        node.try_kubectl(&format!(
            "patch pvc kept -p {{\"spec\":{{\"resources\":{{\"requests\":{{\"storage\":\"{text}\"}}}}}}}}"
        ))
    };
    refused(&size("4Mi"), &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]);
    let mode = node.try_kubectl("patch pvc kept -p {\"spec\":{\"accessModes\":[\"ReadWriteMany\"]}}");
    refused(&mode, &["spec: Forbidden: spec is immutable after creation except resources.requests"]);
    node.ok("patch storageclass knarr -p {\"allowVolumeExpansion\":false}");
    refused(&size("9Mi"), &["forbidden: only dynamically provisioned pvc can be resized"]);
    let class = node.try_kubectl("patch storageclass knarr -p {\"provisioner\":\"other.example.com\"}");
    refused(&class, &["provisioner: Forbidden: updates to provisioner are forbidden."]);
    assert_eq!(node.ok("get pvc kept -o jsonpath={.status.capacity.storage}"), "8Mi");
}

#[test]
fn data_that_is_retained_can_be_had_again() {
    let node = Node::ready();
    node.apply(
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: keep}, provisioner: local.knarr.dev, reclaimPolicy: Retain}",
    );
    node.apply(&claim("first", "8Mi", "storageClassName: keep"));
    eventually("it is bound at once", || (phase(&node, "pvc/first") == "Bound").then_some(()));
    let bound = node.ok("get pvc first -o jsonpath={.spec.volumeName}");
    node.apply(&pod("writer", "first", "", ""));
    node.ok("wait --for=condition=Ready pod/writer --timeout=60s");
    run_in(&node, "writer", "echo precious > /data/x");
    node.ok("delete pod writer");
    node.ok("delete pvc first");
    eventually("it is released", || (phase(&node, &format!("pv/{bound}")) == "Released").then_some(()));
    node.ok(&format!("delete pv {bound}"));
    let source = format!(
        "storageClassName: keep, claimRef: {{namespace: default, name: second}}, \
         csi: {{driver: local.knarr.dev, volumeHandle: {bound}}}"
    );
    node.apply(&volume("found", "8Mi", &source));
    node.apply(&claim("second", "8Mi", "storageClassName: keep"));
    node.apply(&pod("reader", "second", "", ""));
    node.ok("wait --for=condition=Ready pod/reader --timeout=60s");
    assert_eq!(node.ok("exec reader -- cat /data/x"), "precious\n");
}
