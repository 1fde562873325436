//! What newcomers get wrong about namespaces, settings, pods and Deployments: the answer names the cause and the field, and
//! nothing is lost.

use crate::node::{Node, eventually};

fn refused(node: &Node, text: &str, words: &[&str]) {
    let said = node.with_input("apply -f -", text);
    assert_ne!(said.code(), 0, "{text}: {said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

fn line_refused(node: &Node, line: &str, words: &[&str]) {
    let said = node.try_kubectl(line);
    assert_ne!(said.code(), 0, "{line}: {said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?} is not in {}", said.err);
    }
}

/// Waits until something the API tells of a pod has these words.
fn told(node: &Node, pod: &str, words: &[&str]) {
    eventually(&format!("{pod} tells {words:?}"), || {
        let text = node.ok(&format!("describe pod {pod}"));
        words.iter().all(|word| text.contains(word)).then_some(())
    });
}

#[test]
fn mistakes_with_namespaces_and_settings_are_named() {
    let node = Node::ready();
    line_refused(&node, "create namespace My_Space", &["metadata.name: Invalid value: \"My_Space\"", "RFC 1123"]);
    line_refused(
        &node,
        "delete namespace default",
        &["namespaces \"default\" is forbidden: this namespace may not be deleted"],
    );
    line_refused(&node, "create configmap x -n nowhere", &["namespaces \"nowhere\" not found"]);
    node.ok("create namespace held");
    node.apply(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: held, finalizers: [example.com/hold]}}",
    );
    node.ok("delete namespace held --wait=false");
    line_refused(&node, "create configmap y -n held", &["forbidden", "because it is being terminated"]);
    eventually("the namespace says what it waits for", || {
        let text = node.ok("get namespace held -o jsonpath={.status.conditions[*].message}");
        (text.contains("configmaps. has 1 resource instances") && text.contains("example.com/hold")).then_some(())
    });
    node.ok("patch configmap x -n held --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    eventually("it goes", || node.try_kubectl("get namespace held").err.contains("not found").then_some(()));

    refused(
        &node,
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {'a b': c}}",
        &["data[a b]: Invalid value", "a valid config key"],
    );
    refused(
        &node,
        "{apiVersion: v1, kind: Secret, metadata: {name: x}, data: {word: 'not base64!'}}",
        &["illegal base64 data"],
    );
    refused(
        &node,
        "{apiVersion: v1, kind: Secret, metadata: {name: x}, type: kubernetes.io/tls, stringData: {tls.crt: a}}",
        &["data[tls.key]: Required value"],
    );
    node.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: frozen}, immutable: true, data: {a: b}}");
    refused(
        &node,
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: frozen}, immutable: true, data: {a: c}}",
        &["data: Forbidden: field is immutable when `immutable` is set"],
    );
    assert_eq!(node.ok("get configmap frozen -o jsonpath={.data.a}"), "b");
    node.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: waits}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: busybox, \
         imagePullPolicy: IfNotPresent, command: [sleep, '1000'], env: [{name: A, valueFrom: {configMapKeyRef: {name: later, key: a}}}]}]}}",
    );
    told(&node, "waits", &["CreateContainerConfigError", "configmap \"later\" not found"]);
    node.ok("create configmap later --from-literal=a=b");
    node.ok("wait --for=condition=Ready pod/waits --timeout=60s");
    node.apply(
        "{apiVersion: v1, kind: Pod, metadata: {name: mounts}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: busybox, \
         imagePullPolicy: IfNotPresent, command: [sleep, '1000'], volumeMounts: [{name: v, mountPath: /v}]}], volumes: [{name: v, secret: {secretName: hidden}}]}}",
    );
    told(&node, "mounts", &["FailedMount", "secret \"hidden\" not found"]);
}

#[test]
fn mistakes_with_pods_and_deployments_are_named() {
    let node = Node::ready();
    let pod = |name: &str, rest: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: busybox, \
             imagePullPolicy: IfNotPresent, {rest}}}]}}}}"
        )
    };
    refused(
        &node,
        &pod("x", "resources: {requests: {memory: 2Gi}, limits: {memory: 1Gi}}"),
        &["spec.containers[0].resources.requests: Invalid value: \"2Gi\": must be less than or equal to memory limit"],
    );
    refused(
        &node,
        &pod("x", "volumeMounts: [{name: nothing, mountPath: /x}]"),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"nothing\""],
    );
    refused(
        &node,
        &pod("x", "livenessProbe: {httpGet: {path: /}}"),
        &["spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0"],
    );
    let class = |field: &str| pod("x", "").replace("spec: {", &format!("spec: {{{field}: special, "));
    refused(
        &node,
        &class("runtimeClassName"),
        &["pods \"x\" is forbidden: pod rejected: RuntimeClass \"special\" not found"],
    );
    refused(
        &node,
        &class("priorityClassName"),
        &["pods \"x\" is forbidden: no PriorityClass with name special was found"],
    );
    node.apply(&pod("wrong", "command: [no-such-program]"));
    told(&node, "wrong", &["no-such-program", "executable file not found in $PATH"]);
    node.apply(&pod("ends", "command: [sh, -c, exit 3]"));
    told(&node, "ends", &["CrashLoopBackOff", "Exit Code:    3"]);
    node.apply(&pod("large", "resources: {requests: {cpu: '1000'}}"));
    told(&node, "large", &["FailedScheduling", "Insufficient cpu"]);

    let deployment = |selector: &str, labels: &str| {
        format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: d}}, spec: {{replicas: 1, selector: {{matchLabels: {{{selector}}}}}, template: \
             {{metadata: {{labels: {{{labels}}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: busybox, imagePullPolicy: IfNotPresent, \
             command: [sleep, '1000']}}]}}}}}}}}"
        )
    };
    refused(
        &node,
        &deployment("app: a", "app: b"),
        &["spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`"],
    );
    refused(
        &node,
        &deployment("", "app: b"),
        &["spec.selector: Invalid value", "empty selector is invalid for deployment"],
    );
    node.apply(&deployment("app: a", "app: a"));
    let said = node.with_input("apply -f -", &deployment("app: a", "app: a").replace("replicas:", "replcas:"));
    assert!(said.err.contains("unknown field \"spec.replcas\"") && !said.err.contains("status"), "{}", said.err);
    refused(&node, &deployment("app: z", "app: z"), &["spec.selector: Invalid value", "field is immutable"]);
    line_refused(
        &node,
        "rollout undo deployment d --to-revision=9",
        &["unable to find specified revision 9 in history"],
    );
    line_refused(&node, "scale deployment d --replicas=-1", &["--replicas=COUNT"]);
    node.ok("rollout status deployment d --timeout=60s");
    refused(
        &node,
        "{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: r}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, \
         spec: {containers: [{name: c, image: busybox}]}}}}",
        &["spec.template.metadata.labels: Invalid value", "`selector` does not match template `labels`"],
    );
    assert_eq!(node.list("replicasets").len(), 1);
}
