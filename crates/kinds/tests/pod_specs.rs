//! Refusals of pod specs, in upstream's words.

mod check;

use check::{pod, read, row};
use expect_test::{Expect, expect};
use serde_json::json;

/// A pod with one good container, and something more.
#[track_caller]
fn with(more: &str, expected: Expect) {
    pod(&format!("containers: [{{name: a, image: i}}], {more}"), expected);
}

/// A pod whose container has something more.
#[track_caller]
fn container(more: &str, expected: Expect) {
    pod(&format!("containers: [{{name: a, image: i, {more}}}]"), expected);
}

#[test]
fn kernel_parameters() {
    with(
        "securityContext: {sysctls: [{name: foo-, value: x}, {name: kernel.shmmax, value: x}, {name: safe-and-unsafe, value: x}, {name: bar.., value: x}]}",
        expect![[r#"
            spec.securityContext.sysctls[0].name: Invalid value: "foo-": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$
            spec.securityContext.sysctls[3].name: Invalid value: "bar..": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$
        "#]],
    );
    with(
        "hostNetwork: true, hostIPC: true, securityContext: {sysctls: [{name: net.a, value: x}, {name: kernel.sem, value: x}, {name: kernel/sem, value: x}]}",
        expect![[r#"
            spec.securityContext.sysctls[0].name: Invalid value: "net.a": may not be specified when 'hostNetwork' is true
            spec.securityContext.sysctls[1].name: Invalid value: "kernel.sem": may not be specified when 'hostIPC' is true
            spec.securityContext.sysctls[2].name: Duplicate value: "kernel/sem"
            spec.securityContext.sysctls[2].name: Invalid value: "kernel/sem": may not be specified when 'hostIPC' is true
        "#]],
    );
}

#[test]
fn certificates_and_tokens_in_volumes() {
    let volume = |source: &str, expected: Expect| {
        with(&format!("volumes: [{{name: v, projected: {{sources: [{source}]}}}}]"), expected);
    };
    let certificate = "signerName: example.com/a, keyType: ED25519, keyPath: k, certificateChainPath: c";
    volume(&format!("{{podCertificate: {{{certificate}, maxExpirationSeconds: 3600}}}}"), expect![[""]]);
    volume(
        &format!("{{podCertificate: {{{certificate}, maxExpirationSeconds: 3599}}}}"),
        expect![[r#"
        spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 3599: if provided, maxExpirationSeconds must be >= 3600
    "#]],
    );
    volume(
        &format!("{{podCertificate: {{{certificate}, maxExpirationSeconds: 7862401}}}}"),
        expect![[r#"
        spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 7862401: if provided, maxExpirationSeconds must be <= 7862400
    "#]],
    );
    volume(
        "{podCertificate: {signerName: a, keyType: DSA}}, {}, {secret: {name: a}, configMap: {name: b}}, {serviceAccountToken: {path: ../x, expirationSeconds: 10}}",
        expect![[r#"
            spec.volumes[0].projected.sources[0].podCertificate.signerName: Invalid value: "a": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.volumes[0].projected.sources[0].podCertificate.keyType: Unsupported value: "DSA": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"
            spec.volumes[0].projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath
            spec.volumes[0].projected.sources[1]: Required value: must specify a projection type
            spec.volumes[0].projected.sources[2].secret: Forbidden: may not specify more than 1 volume type per source
            spec.volumes[0].projected.sources[3].serviceAccountToken.path: Invalid value: "../x": must not contain '..'
            spec.volumes[0].projected.sources[3].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes
        "#]],
    );
    volume(
        "{clusterTrustBundle: {path: a}}, {clusterTrustBundle: {name: a, signerName: b.c/d, path: a}}, {configMap: {name: x, items: [{key: k, path: a}]}}",
        expect![[r#"
            spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified
            spec.volumes[0].projected.sources[1].clusterTrustBundle: Invalid value: null: only one of name and signerName may be used
            spec.volumes[0].projected.sources[1].clusterTrustBundle: Invalid value: null: conflicting duplicate paths: a
            spec.volumes[0].projected.sources[2].configMap: Invalid value: null: conflicting duplicate paths: a
        "#]],
    );
}

#[test]
fn volumes() {
    with(
        "volumes: [{name: a, hostPath: {path: /x, type: Unheard}}, {name: b, emptyDir: {sizeLimit: -1}}, {name: c, nfs: {server: s, path: rel}}, \
         {name: d, csi: {driver: 'no driver'}}, {name: e, image: {pullPolicy: Now}}, {name: f, ephemeral: {}}, \
         {name: g, downwardAPI: {items: [{path: a, fieldRef: {fieldPath: spec.nodeName}}, {path: b}, {path: c, resourceFieldRef: {resource: x}}]}}]",
        expect![[r#"
            spec.volumes[0].hostPath.type: Unsupported value: "Unheard": supported values: "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
            spec.volumes[1].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity: -1
            spec.volumes[2].nfs.path: Invalid value: "rel": must be an absolute path
            spec.volumes[3].csi.driver: Invalid value: "no driver": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.volumes[4].image.reference: Required value
            spec.volumes[4].image.pullPolicy: Unsupported value: "Now": supported values: "Always", "IfNotPresent", "Never"
            spec.volumes[5].ephemeral.volumeClaimTemplate: Required value
            spec.volumes[6].downwardAPI.items[0].fieldRef.fieldPath: Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"
            spec.volumes[6].downwardAPI.items[1].fieldRef: Required value: one of fieldRef and resourceFieldRef is required
            spec.volumes[6].downwardAPI.items[2].resourceFieldRef.containerName: Required value
            spec.volumes[6].downwardAPI.items[2].resourceFieldRef.resource: Unsupported value: "x": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"
        "#]],
    );
    container(
        "volumeDevices: [{name: x, devicePath: /a}, {name: z, devicePath: /a}]",
        expect![[r#"
        spec.containers[0].volumeDevices[0].name: Not found: "x"
        spec.containers[0].volumeDevices[1].name: Not found: "z"
        spec.containers[0].volumeDevices[1].devicePath: Invalid value: "/a": must be unique
    "#]],
    );
    container(
        "volumeMounts: [{name: x, mountPath: /a, mountPropagation: Bidirectional, recursiveReadOnly: Enabled}]",
        expect![[r#"
            spec.containers[0].volumeMounts[0].name: Not found: "x"
            spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers
            spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true
        "#]],
    );
}

#[test]
fn security_contexts() {
    with(
        "hostPID: true, shareProcessNamespace: true, securityContext: {supplementalGroups: [-1], fsGroupChangePolicy: x, seccompProfile: {type: Localhost}, appArmorProfile: {type: Unconfined, localhostProfile: a}}",
        expect![[r#"
            spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost
            spec.securityContext.appArmorProfile.localhostProfile: Invalid value: "a": can only be set when AppArmor type is Localhost
            spec.securityContext.supplementalGroups[0]: Invalid value: -1: must be between 0 and 2147483647, inclusive
            spec.securityContext.fsGroupChangePolicy: Unsupported value: "x": supported values: "Always", "OnRootMismatch"
            spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled
        "#]],
    );
    container(
        "securityContext: {privileged: true, allowPrivilegeEscalation: false, procMount: Unmasked, capabilities: {add: [CAP_SYS_ADMIN]}}",
        expect![[r#"
            spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`
            spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"capabilities":{"add":["CAP_SYS_ADMIN"]},"privileged":true,"procMount":"Unmasked"}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true
            spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"capabilities":{"add":["CAP_SYS_ADMIN"]},"privileged":true,"procMount":"Unmasked"}: cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN
        "#]],
    );
}

#[test]
fn placement() {
    with(
        "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In}, {key: b, operator: Is}], matchFields: [{key: x, operator: In, values: [z]}]}]}, \
         preferredDuringSchedulingIgnoredDuringExecution: [{weight: 101, preference: {}}]}, \
         podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{labelSelector: {}, topologyKey: ''}]}}",
        expect![[r#"
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[1].operator: Invalid value: "Is": not a valid selector operator
            spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: "x": not a valid field selector key
            spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100
            spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty
        "#]],
    );
    with(
        "topologySpreadConstraints: [{maxSkew: 0, topologyKey: a, whenUnsatisfiable: Maybe}, {maxSkew: 1, topologyKey: b, whenUnsatisfiable: ScheduleAnyway, minDomains: 2, nodeTaintsPolicy: x}, {maxSkew: 1, topologyKey: b, whenUnsatisfiable: ScheduleAnyway, matchLabelKeys: [k]}]",
        expect![[r#"
            spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero
            spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": supported values: "DoNotSchedule", "ScheduleAnyway"
            spec.topologySpreadConstraints[1].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway
            spec.topologySpreadConstraints[1].nodeTaintsPolicy: Unsupported value: "x": supported values: "Honor", "Ignore"
            spec.topologySpreadConstraints[2].{topologyKey, whenUnsatisfiable}: Duplicate value: "{b, ScheduleAnyway}"
            spec.topologySpreadConstraints[2].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set
        "#]],
    );
    with(
        "schedulingGates: [{name: a}, {name: a}, {name: 'b c'}], os: {name: plan9}",
        expect![[r#"
            spec.schedulingGates[2].name: Invalid value: "b c": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.schedulingGates[1].name: Duplicate value: "a"
            spec.os.name: Unsupported value: "plan9": supported values: "linux", "windows"
        "#]],
    );
}

#[test]
fn containers_for_debugging() {
    with(
        "ephemeralContainers: [{name: a, image: i}, {name: d, image: i, targetContainerName: z, ports: [{containerPort: 1}], resources: {limits: {cpu: 1}}, livenessProbe: {tcpSocket: {port: 1}}}]",
        expect![[r#"
            spec.ephemeralContainers[0].name: Duplicate value: "a"
            spec.ephemeralContainers[1].targetContainerName: Not found: "z"
            spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container
            spec.ephemeralContainers[1].livenessProbe: Forbidden: cannot be set for an Ephemeral Container
            spec.ephemeralContainers[1].resources: Forbidden: cannot be set for an Ephemeral Container
        "#]],
    );
}

#[test]
fn resources_of_containers() {
    container(
        "resources: {requests: {example.com/gpu: 1, hugepages-2Mi: 4Mi}, claims: [{name: none}]}, resizePolicy: [{resourceName: disk, restartPolicy: Never}]",
        expect![[r#"
            spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources
            spec.containers[0].resources: Forbidden: HugePages require cpu or memory
            spec.containers[0].resources.claims[0]: Invalid value: {"name":"none"}: must be one of the names in pod.spec.resourceClaims
            spec.containers[0].resizePolicy[0].resourceName: Unsupported value: "disk": supported values: "cpu", "memory"
            spec.containers[0].resizePolicy[0].restartPolicy: Unsupported value: "Never": supported values: "NotRequired", "RestartContainer"
        "#]],
    );
    container(
        "resources: {limits: {example.com/gpu: 500m}}",
        expect![[r#"
        spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer
        spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer
    "#]],
    );
    with(
        "resourceClaims: [{name: a}, {name: b, resourceClaimName: x, resourceClaimTemplateName: z}]",
        expect![[r#"
        spec.resourceClaims[0]: Invalid value: {"name":"a"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`
        spec.resourceClaims[1]: Invalid value: {"name":"b","resourceClaimName":"x","resourceClaimTemplateName":"z"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified
    "#]],
    );
}

#[test]
fn names_and_networks() {
    with(
        "hostAliases: [{ip: x, hostnames: [Not_A]}], dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4], searches: ['-x', ., a.b.], options: [{}]}",
        expect![[r#"
            spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","1.1.1.2","1.1.1.3","1.1.1.4"]: must not have more than 3 nameservers
            spec.dnsConfig.searches[0]: Invalid value: "-x": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.dnsConfig.options[0]: Required value: must not be empty
            spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address
            spec.hostAliases[0].hostnames[0]: Invalid value: "Not_A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        "#]],
    );
    pod(
        "hostNetwork: true, containers: [{name: a, image: i, ports: [{containerPort: 80, hostPort: 81, hostIP: x}]}]",
        expect![[r#"
            spec.containers[0].ports[0].hostIP: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true
        "#]],
    );
    container(
        "readinessProbe: {terminationGracePeriodSeconds: 5, httpGet: {port: 1, httpHeaders: [{name: 'a b'}]}}, lifecycle: {stopSignal: SIGTERM, preStop: {sleep: {seconds: -1}}}",
        expect![[r#"
            spec.containers[0].readinessProbe.httpGet.httpHeaders[0].name: Invalid value: "a b": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')
            spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes
            spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value: -1: must be greater than or equal to 0
            spec.containers[0].lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`
        "#]],
    );
}

#[test]
fn resources_of_whole_pods() {
    pod(
        "resources: {limits: {cpu: 1, memory: 512Mi, ephemeral-storage: 1Gi}, requests: {memory: 64Mi}, claims: [{name: c}]},
         containers: [{name: a, image: i, resources: {limits: {cpu: 2}, requests: {memory: 48Mi}}}, {name: b, image: i, resources: {requests: {memory: 48Mi}}}]",
        expect![[r#"
            spec.resources.claims: Forbidden: claims cannot be set for Resources at pod-level
            spec.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            spec.resources.claims[0]: Invalid value: {"name":"c"}: must be one of the names in pod.spec.resourceClaims
            spec.resources.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory"
            spec.resources.requests[memory]: Invalid value: "64Mi": must be greater than or equal to aggregate container requests of 96Mi
            spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1
        "#]],
    );
    pod(
        "hostnameOverride: a.b, hostNetwork: true, containers: [{name: a, image: i, resources: {limits: {cpu: 1, hugepages-2Mi: 3Mi}}}]",
        expect![[r#"
            spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
            spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
            spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true
        "#]],
    );
    let row = row("", "pods");
    let spec = "resources: {limits: {cpu: 2, memory: 1Gi}}, containers: [{name: a, image: i, resources: {requests: {cpu: 500m}}}]";
    let mut object = read(row, &format!("metadata: {{name: a}}\nspec: {{{spec}}}"));
    assert_eq!(object["spec"]["resources"]["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
    row.hooks.prepare_create(&mut object);
    assert_eq!(object["status"]["qosClass"], "Burstable");
}
