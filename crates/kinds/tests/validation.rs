//! Refusals, in upstream's words.

mod check;

use check::{change, check, lines, pod, read, row};
use expect_test::{Expect, expect};
use serde_json::json;

#[test]
fn names() {
    check(
        "",
        "configmaps",
        "metadata: {name: A_b, namespace: default, labels: {\"-x\": \"y z\"}, finalizers: [mine]}",
        expect![[r#"
            metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            metadata.labels: Invalid value: "-x": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.labels: Invalid value: "y z": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified
        "#]],
    );
    check(
        "",
        "configmaps",
        "metadata: {namespace: default, generateName: web-}",
        expect![[r#"
        metadata.name: Required value: name or generateName is required
    "#]],
    );
    check(
        "",
        "namespaces",
        "metadata: {name: a.b}",
        expect![[r#"
        metadata.name: Invalid value: "a.b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
    "#]],
    );
}

#[test]
fn containers() {
    pod(
        "",
        expect![[r#"
        spec.containers: Required value
    "#]],
    );
    pod(
        "containers: [{name: A, image: i}, {name: b}, {name: b, image: i}]",
        expect![[r#"
        spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
        spec.containers[1].image: Required value
        spec.containers[2].name: Duplicate value: "b"
    "#]],
    );
    pod(
        "containers: [{name: a, image: i, ports: [{containerPort: 70000, name: UP}, {}], imagePullPolicy: Sometimes}]",
        expect![[r#"
            spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always", "IfNotPresent", "Never"
            spec.containers[0].ports[0].name: Invalid value: "UP": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].ports[0].name: Invalid value: "UP": must contain at least one letter (a-z)
            spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].ports[1].containerPort: Required value
        "#]],
    );
    pod(
        "containers: [{name: a, image: i, env: [{name: \"A=B\"}, {}, {name: X, value: x, valueFrom: {fieldRef: {fieldPath: a}}}]}]",
        expect![[r#"
            spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable ASCII characters other than '='
            spec.containers[0].env[1].name: Required value
            spec.containers[0].env[2].valueFrom: Invalid value: "": may not be specified when `value` is not empty
            spec.containers[0].env[2].valueFrom.fieldRef.fieldPath: Unsupported value: "a": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
        "#]],
    );
    pod(
        "containers: [{name: a, image: i, resources: {requests: {cpu: 2, foo: 1}, limits: {cpu: 1, memory: -1}}}]",
        expect![[r#"
            spec.containers[0].resources.limits[memory]: Invalid value: "-1": must be greater than or equal to 0
            spec.containers[0].resources.requests[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.containers[0].resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0
            spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
        "#]],
    );
    pod(
        "containers: [{name: a, image: i, volumeMounts: [{name: x, mountPath: /x}, {name: v}]}], volumes: [{name: v, emptyDir: {}, hostPath: {path: /x}}, {name: v}]",
        expect![[r#"
            spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
            spec.volumes[1].name: Duplicate value: "v"
            spec.containers[0].volumeMounts[0].name: Not found: "x"
            spec.containers[0].volumeMounts[1].mountPath: Required value
        "#]],
    );
    pod(
        "containers: [{name: a, image: i, livenessProbe: {successThreshold: 2}, readinessProbe: {exec: {}, tcpSocket: {port: 0}}}]",
        expect![[r#"
            spec.containers[0].livenessProbe: Required value: must specify a handler type
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
            spec.containers[0].readinessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
            spec.containers[0].readinessProbe.exec.command: Required value
            spec.containers[0].readinessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive
        "#]],
    );
    pod(
        "containers: [{name: a, image: i}], initContainers: [{name: a, image: i, readinessProbe: {exec: {command: [x]}}}]",
        expect![[r#"
            spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
            spec.containers[0].name: Duplicate value: "a"
        "#]],
    );
}

#[test]
fn pod_specs() {
    pod(
        "containers: [{name: a, image: i}], restartPolicy: Sometimes, dnsPolicy: None, terminationGracePeriodSeconds: -1, \
         activeDeadlineSeconds: 0, nodeSelector: {\"/\": x}, hostname: A, tolerations: [{operator: Equal}], securityContext: {runAsUser: -1}",
        expect![[r#"
            spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"
            spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
            spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
            spec.nodeSelector: Invalid value: "/": prefix part must be non-empty
            spec.nodeSelector: Invalid value: "/": name part must be non-empty
            spec.nodeSelector: Invalid value: "/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
            spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
        "#]],
    );
}

#[test]
fn deployments() {
    check(
        "apps",
        "deployments",
        "metadata: {name: a, namespace: default}\nspec:\n  replicas: -1\n  selector: {matchLabels: {a: b}}\n  \
         strategy: {type: Recreate, rollingUpdate: {}}\n  template:\n    metadata: {labels: {app: x}}\n    \
         spec: {restartPolicy: Never, containers: [{name: c, image: i}]}\n",
        expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.template.metadata.labels: Invalid value: {"app":"x"}: `selector` does not match template `labels`
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'
        "#]],
    );
    check(
        "apps",
        "deployments",
        "metadata: {name: a, namespace: default}\nspec:\n  selector: {}\n  progressDeadlineSeconds: 5\n  minReadySeconds: 5\n  \
         strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}\n  template: {spec: {containers: [{name: c, image: i}]}}\n",
        expect![[r#"
            spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds
            spec.selector: Invalid value: {}: empty selector is invalid for deployment
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0
        "#]],
    );
}

#[test]
fn other_kinds() {
    check(
        "",
        "secrets",
        "metadata: {name: a, namespace: default}\ntype: kubernetes.io/tls\ndata: {\"a b\": eA==}",
        expect![[r#"
            data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            data[tls.crt]: Required value
            data[tls.key]: Required value
        "#]],
    );
    check(
        "",
        "configmaps",
        "metadata: {name: a, namespace: default}\ndata: {a: b, ..: c}\nbinaryData: {a: eA==}",
        expect![[r#"
            data[..]: Invalid value: "..": must not be '..'
            data[a]: Invalid value: "a": duplicate of key present in binaryData
        "#]],
    );
    check(
        "coordination.k8s.io",
        "leases",
        "metadata: {name: a, namespace: default}\nspec: {leaseDurationSeconds: 0}",
        expect![[r#"
            spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0
        "#]],
    );
    check(
        "",
        "events",
        "metadata: {name: a, namespace: ns}\ninvolvedObject: {namespace: other}",
        expect![[r#"
        involvedObject.namespace: Invalid value: "other": does not match event.namespace
    "#]],
    );
    check(
        "events.k8s.io",
        "events",
        "metadata: {name: a, namespace: ns}\nregarding: {namespace: ns}\neventTime: 2024-05-01T10:00:00Z",
        expect![[r#"
            reportingController: Required value
            reportingInstance: Required value
            action: Required value
            reason: Required value
            type: Invalid value: "": has invalid value: 
        "#]],
    );
    check(
        "",
        "nodes",
        "metadata: {name: a}\nspec: {taints: [{key: a, effect: Never}, {key: b}]}",
        expect![[r#"
        spec.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
        spec.taints[1].effect: Required value
    "#]],
    );
}

#[test]
fn changes() {
    let pod =
        "metadata: {name: a, namespace: default, uid: u}\nspec: {nodeName: one, containers: [{name: a, image: i}]}";
    change("", "pods", pod, |pod| pod["spec"]["containers"][0]["image"] = "j".into(), expect![[""]]);
    change(
        "",
        "pods",
        pod,
        |pod| pod["spec"]["nodeName"] = "other".into(),
        expect![[r#"
        spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)
    "#]],
    );
    change(
        "",
        "pods",
        pod,
        |pod| pod["spec"]["tolerations"] = json!([]),
        expect![[r#"
        spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds
    "#]],
    );
    change(
        "",
        "pods",
        pod,
        |pod| pod["spec"]["containers"] = json!([]),
        expect![[r#"
        spec.containers: Forbidden: pod updates may not add or remove containers
    "#]],
    );
    change(
        "",
        "pods",
        pod,
        |pod| pod["metadata"]["name"] = "b".into(),
        expect![[r#"
        metadata.name: Invalid value: "b": field is immutable
    "#]],
    );
    let deployment = "metadata: {name: a}\nspec: {selector: {matchLabels: {a: b}}}";
    change(
        "apps",
        "deployments",
        deployment,
        |d| d["spec"]["selector"]["matchLabels"]["a"] = "c".into(),
        expect![[r#"
            spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable
        "#]],
    );
    let secret = "metadata: {name: a}\nimmutable: true\ndata: {a: eA==}";
    change(
        "",
        "secrets",
        secret,
        |s| s["data"] = json!({}),
        expect![[r#"
        data: Forbidden: field is immutable when `immutable` is set
    "#]],
    );
    change(
        "",
        "secrets",
        secret,
        |s| s["type"] = "other".into(),
        expect![[r#"
        type: Invalid value: "other": field is immutable
    "#]],
    );
    let deleted = "metadata: {name: a, deletionTimestamp: \"2024-05-01T10:00:00Z\", finalizers: [a.b/c]}";
    change(
        "",
        "configmaps",
        deleted,
        |c| c["metadata"]["finalizers"] = json!(["a.b/c", "d.e/f"]),
        expect![[r#"
        metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ["d.e/f"]
    "#]],
    );
}

#[test]
fn services() {
    let service = |spec: &str, expected: Expect| {
        check("", "services", &format!("metadata: {{name: a, namespace: default}}\nspec: {{{spec}}}"), expected);
    };
    service(
        "selector: {a: b}, ports: [{port: 80}, {port: 80, name: x}]",
        expect![[r#"
        spec.ports[0].name: Required value
        spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}
    "#]],
    );
    service(
        "type: ExternalName, externalName: not a name, clusterIP: 10.96.0.9",
        expect![[r#"
        spec.clusterIPs: Invalid value: ["10.96.0.9"]: may not be set for ExternalName services
        spec.externalName: Invalid value: "not a name": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
    "#]],
    );
    service(
        "type: NodePort, clusterIP: None, ports: [{port: 70000, protocol: ICMP}]",
        expect![[r#"
        spec.clusterIPs[0]: Invalid value: "None": may not be set to 'None' for NodePort services
        spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive
        spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
        spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive
    "#]],
    );
    service(
        "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90000}}, ports: [{port: 1}]",
        expect![[r#"
            spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 90000: must be greater than 0 and less than 86400
        "#]],
    );
    service(
        "externalIPs: [127.0.0.1, x], clusterIP: ten, ipFamilies: [IPv6], ports: [{port: 1}]",
        expect![[r#"
        spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
        spec.externalIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
        spec.clusterIPs[0]: Invalid value: "ten": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
    "#]],
    );
    service(
        "loadBalancerSourceRanges: [10.0.0.0/8], ports: [{port: 1, targetPort: web-}]",
        expect![[r#"
        spec.ports[0].targetPort: Invalid value: "web-": must not begin or end with a hyphen
        spec.loadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'
    "#]],
    );
}

#[test]
fn a_service_keeps_what_it_was_given() {
    let row = row("", "services");
    let old = read(
        row,
        "metadata: {name: a, namespace: d}\nspec: {type: NodePort, clusterIP: 10.96.0.9, ports: [{port: 80, nodePort: 30080}]}",
    );
    let after = |yaml: &str| {
        let mut new = read(row, &format!("metadata: {{name: a, namespace: d}}\nspec: {yaml}"));
        row.hooks.prepare_update(&mut new, &old);
        let errors = lines(&row.validate_update(&new, &old));
        format!("{} {} {errors}", new["spec"]["clusterIPs"], new["spec"]["ports"][0]["nodePort"])
    };
    assert_eq!(after("{type: NodePort, ports: [{port: 80}]}"), "[\"10.96.0.9\"] 30080 ");
    assert_eq!(after("{ports: [{port: 80, nodePort: 30080}]}"), "[\"10.96.0.9\"] null ");
    assert_eq!(after("{type: ExternalName, externalName: a.b, clusterIP: 10.96.0.9}"), "null null ");
    assert_eq!(
        after("{clusterIP: 10.96.0.8, ports: [{port: 80}]}"),
        "[\"10.96.0.8\"] null spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set\n"
    );
}
