//! Refusals of the kinds that are no workloads: limits, policies, webhooks, autoscalers, certificates, devices and volumes.

mod check;

use check::{change, check, lines, read, row};
use expect_test::{Expect, expect};
use serde_json::{Value, json};

#[test]
fn limits_and_quotas() {
    let limits = |items: &str, expected: Expect| {
        let yaml = format!("metadata: {{name: a, namespace: default}}\nspec: {{limits: [{items}]}}");
        check("", "limitranges", &yaml, expected);
    };
    limits(
        "{type: Box}, {type: Pod, default: {cpu: 1}}, {type: PersistentVolumeClaim}",
        expect![[r#"
        spec.limits[0].type: Invalid value: "Box": must be a standard limit type or fully qualified
        spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'
        spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither was provided
    "#]],
    );
    limits(
        "{type: Container, min: {cpu: 2}, max: {cpu: 1}, maxLimitRequestRatio: {cpu: 500m, disk: 1}}",
        expect![[r#"
            spec.limits[0].maxLimitRequestRatio[disk]: Invalid value: "disk": must be a standard resource for containers
            spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
            spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1
            spec.limits[0].default[cpu]: Invalid value: "1": min value 2 is greater than default value 1
            spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1
        "#]],
    );
    check(
        "",
        "resourcequotas",
        "metadata: {name: a, namespace: default}\nspec: {hard: {box: 1, pods: 1500m, cpu: -1}, scopes: [BestEffort, NotBestEffort, Other], \
         scopeSelector: {matchExpressions: [{scopeName: Terminating, operator: In}]}}",
        expect![[r#"
            spec.hard[box]: Invalid value: "box": must be a standard resource for quota
            spec.hard[cpu]: Invalid value: "-1": must be greater than or equal to 0
            spec.hard[pods]: Invalid value: "1500m": must be an integer
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: unsupported scope
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Other"]: conflicting scopes
            spec.scopeSelector.matchExpressions[0].operator: Invalid value: "In": must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity
            spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
        "#]],
    );
    check(
        "",
        "replicationcontrollers",
        "metadata: {name: a, namespace: default}\nspec: {replicas: -1, selector: {a: b}}",
        expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.template: Required value
        "#]],
    );
}

#[test]
fn webhooks_and_policies() {
    check(
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
        "metadata: {name: a}\nwebhooks:\n- {name: a.b, clientConfig: {url: 'http://u@/x?y#z'}, admissionReviewVersions: [v9], timeoutSeconds: 31, failurePolicy: x}\n\
         - name: a.b.c\n  sideEffects: Some\n  admissionReviewVersions: []\n  clientConfig: {service: {name: a, path: x//y}}\n  \
         matchConditions: [{name: x, expression: ' '}, {name: x, expression: 'true'}]\n  \
         rules: [{operations: ['*', CREATE], apiGroups: [], apiVersions: ['*', v1], resources: ['*', pods, 'pods/*', pods/exec], scope: All}]\n",
        expect![[r#"
            webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots
            webhooks[0].failurePolicy: Unsupported value: "x": supported values: "Fail", "Ignore"
            webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun
            webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds
            webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]
            webhooks[0].clientConfig.url: Invalid value: "": host must be specified; desired format: https://host[/path]
            webhooks[0].clientConfig.url: Invalid value: "u": user information is not permitted in the URL; desired format: https://host[/path]
            webhooks[0].clientConfig.url: Invalid value: "z": fragments are not permitted in the URL; desired format: https://host[/path]
            webhooks[0].clientConfig.url: Invalid value: "y": query parameters are not permitted in the URL; desired format: https://host[/path]
            webhooks[0].admissionReviewVersions: Invalid value: ["v9"]: must include at least one of v1, v1beta1
            webhooks[1].rules[0].operations: Invalid value: ["*","CREATE"]: if '*' is present, must not specify other operations
            webhooks[1].rules[0].apiGroups: Required value
            webhooks[1].rules[0].apiVersions: Invalid value: ["*","v1"]: if '*' is present, must not specify other API versions
            webhooks[1].rules[0].resources[3]: Invalid value: "pods/exec": if 'pods/*' is present, must not specify pods/exec
            webhooks[1].rules[0].resources: Invalid value: ["*","pods","pods/*","pods/exec"]: if '*' is present, must not specify other resources without subresources
            webhooks[1].rules[0].scope: Unsupported value: "All": supported values: "*", "Cluster", "Namespaced"
            webhooks[1].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"
            webhooks[1].clientConfig.service.namespace: Required value
            webhooks[1].clientConfig.service.path: Invalid value: "x//y": must start with a '/'
            webhooks[1].clientConfig.service.path: Invalid value: "x//y": segment[1] may not be empty
            webhooks[1].matchConditions[0].expression: Required value
            webhooks[1].matchConditions[1].name: Duplicate value: "x"
            webhooks[1].admissionReviewVersions: Required value: must specify one of v1, v1beta1
        "#]],
    );
    check(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        "metadata: {name: a}\nspec: {failurePolicy: x, paramKind: {apiVersion: a/b/c}, matchConstraints: {}, variables: [{name: if, expression: '1'}], \
         validations: [{expression: '', message: \"a\\nb\", reason: x}], auditAnnotations: [{key: 'a b'}]}",
        expect![[r#"
            spec.failurePolicy: Unsupported value: "x": supported values: "Fail", "Ignore"
            spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c
            spec.paramKind.kind: Required value
            spec.matchConstraints.resourceRules: Required value
            spec.variables[0].name: Invalid value: "if": name is not a valid CEL identifier
            spec.validations[0].expression: Required value: expression is not specified
            spec.validations[0].message: Invalid value: "a\nb": message must not contain line breaks
            spec.validations[0].reason: Unsupported value: "x": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"
            spec.auditAnnotations[0].key: Invalid value: "a/a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            spec.auditAnnotations[0].valueExpression: Required value: valueExpression is not specified
        "#]],
    );
    check(
        "admissionregistration.k8s.io",
        "mutatingadmissionpolicies",
        "metadata: {name: a}\nspec: {mutations: [{patchType: JSONPatch, applyConfiguration: {expression: x}}]}",
        expect![[r#"
            spec.matchConstraints: Required value
            spec.reinvocationPolicy: Required value
            spec.mutations[0].applyConfiguration: Invalid value: {"expression":"x"}: must not be specified when patchType is JSONPatch
            spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch
        "#]],
    );
    check(
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        "metadata: {name: a}\nspec: {paramRef: {name: a, selector: {}}, validationActions: [Deny, Warn, Deny]}",
        expect![[r#"
            spec.policyName: Required value
            spec.paramRef.name: Forbidden: name and selector are mutually exclusive
            spec.paramRef.selector: Forbidden: name and selector are mutually exclusive
            spec.paramRef.parameterNotFoundAction: Required value
            spec.validationActions[2]: Duplicate value: "Deny"
            spec.validationActions: Invalid value: ["Deny","Warn","Deny"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)
        "#]],
    );
    check(
        "apiregistration.k8s.io",
        "apiservices",
        "metadata: {name: a}\nspec: {group: g, version: v1, insecureSkipTLSVerify: true, service: {}}",
        expect![[r#"
            metadata.name: Invalid value: "a": must be `spec.version+"."+spec.group`: "v1.g"
            spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000
            spec.versionPriority: Invalid value: 0: must be positive and less than 1000
            spec.service.namespace: Required value
            spec.service.name: Required value
        "#]],
    );
}

#[test]
fn autoscalers() {
    let autoscaler = |spec: &str, expected: Expect| {
        let yaml = format!("metadata: {{name: a, namespace: default}}\nspec: {{{spec}}}");
        check("autoscaling", "horizontalpodautoscalers", &yaml, expected);
    };
    autoscaler(
        "minReplicas: 0, maxReplicas: 0, scaleTargetRef: {kind: a/b}",
        expect![[r#"
        spec.minReplicas: Invalid value: 0: must be greater than or equal to 1
        spec.maxReplicas: Invalid value: 0: must be greater than 0
        spec.scaleTargetRef.kind: Invalid value: "a/b": may not contain '/'
        spec.scaleTargetRef.name: Required value
    "#]],
    );
    autoscaler(
        "maxReplicas: 2, scaleTargetRef: {kind: D, name: d}, metrics: [{type: Pods, resource: {name: cpu, target: {type: Utilization}}}, \
         {type: External, external: {metric: {}, target: {type: x, value: 1, averageValue: 0}}}], behavior: {scaleUp: {stabilizationWindowSeconds: 3601, policies: [{type: x, value: 0, periodSeconds: 1801}]}}",
        expect![[r#"
            spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization
            spec.metrics[0].pods: Required value: must populate information for the given metric source
            spec.metrics[1].external.metric.name: Required value: must specify a metric name
            spec.metrics[1].external.target.type: Invalid value: "x": must be either Utilization, Value, or AverageValue
            spec.metrics[1].external.target.averageValue: Invalid value: "0": must be positive
            spec.metrics[1].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target
            spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600
            spec.behavior.scaleUp.policies[0].type: Unsupported value: "x": supported values: "Percent", "Pods"
            spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
            spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800
        "#]],
    );
}

#[test]
fn the_old_view_of_an_autoscaler_keeps_what_it_has_no_field_for() {
    let old = kinds::resource("autoscaling", "v1", "horizontalpodautoscalers").expect("in the table");
    let new = row("autoscaling", "horizontalpodautoscalers");
    let stored = read(new, new.example);
    let shown = old.hooks.served(stored.clone());
    let metrics = shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"].as_str().expect("kept");
    let metrics: Value = serde_json::from_str(metrics).expect("JSON");
    assert_eq!(
        metrics,
        json!([
            {"type": "Pods", "pods": {"metricName": "requests", "targetAverageValue": "10"}},
            {"type": "Resource", "resource": {"name": "memory", "targetAverageUtilization": 70}},
        ])
    );
    assert_eq!(shown["spec"].get("metrics"), None);
    assert_eq!(old.hooks.stored(shown), stored);
    let plain = read(old, "metadata: {name: a}\nspec: {scaleTargetRef: {kind: D, name: d}, maxReplicas: 3}");
    assert_eq!(plain["spec"]["targetCPUUtilizationPercentage"], 80);
    let target = &old.hooks.stored(plain)["spec"]["metrics"][0]["resource"]["target"];
    assert_eq!(*target, json!({"type": "Utilization", "averageUtilization": 80}));
}

#[test]
fn certificates() {
    let group = "certificates.k8s.io";
    check(
        group,
        "certificatesigningrequests",
        "metadata: {name: a}\nspec: {request: eA==, signerName: a/b, usages: [x, x], expirationSeconds: 1}",
        expect![[r#"
            spec.request: Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST
            spec.usages[0]: Unsupported value: "x": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
            spec.usages[1]: Unsupported value: "x": supported values: "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment", "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel", "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime", "server auth", "signing", "timestamping"
            spec.usages[1]: Duplicate value: "x"
            spec.signerName: Invalid value: "a": should be a domain with at least two segments separated by dots
            spec.expirationSeconds: Invalid value: 1: may not specify a duration less than 600 seconds (10 minutes)
        "#]],
    );
    check(
        group,
        "clustertrustbundles",
        "metadata: {name: 'a:b'}\nspec: {signerName: a.b/c, trustBundle: x}",
        expect![[r#"
            metadata.name: Invalid value: "a:b": ClusterTrustBundle for signerName a.b/c must be named with prefix a.b:c:
            spec.trustBundle: Invalid value: "<value omitted>": at least one trust anchor must be provided
        "#]],
    );
    check(
        group,
        "podcertificaterequests",
        "metadata: {name: a, namespace: default}\nspec: {signerName: x, podName: 'P', maxExpirationSeconds: 1, stubPKCS10Request: eA==}",
        expect![[r#"
            spec.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.podName: Invalid value: "P": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.serviceAccountName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.nodeName: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.podUID: Required value: must not be empty
            spec.serviceAccountUID: Required value: must not be empty
            spec.nodeUID: Required value: must not be empty
            spec.maxExpirationSeconds: Invalid value: 1: must be in the range [3600, 7862400]
            spec.stubPKCS10Request: Invalid value: "eA==": must be a valid PKCS#10 CSR
        "#]],
    );
}

#[test]
fn flow_control_and_networking() {
    check(
        "flowcontrol.apiserver.k8s.io",
        "flowschemas",
        "metadata: {name: a}\nspec: {matchingPrecedence: 1, rules: [{subjects: [{kind: User, group: {name: g}}], resourceRules: [{verbs: [do], apiGroups: ['*', a], resources: [a]}]}, {nonResourceRules: [{verbs: ['*'], nonResourceURLs: [a]}]}]}",
        expect![[r#"
            spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1
            spec.priorityLevelConfiguration.name: Required value: must reference a priority level
            spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'
            spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'
            spec.rules[0].resourceRules[0].verbs: Unsupported value: ["do"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"
            spec.rules[0].resourceRules[0].apiGroups: Invalid value: ["*","a"]: if '*' is present, must not specify other api groups
            spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace
            spec.rules[1].subjects: Required value: subjects must contain at least one value
            spec.rules[1].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "a": must start with slash
        "#]],
    );
    check(
        "flowcontrol.apiserver.k8s.io",
        "flowschemas",
        "metadata: {name: catch-all}\nspec: {matchingPrecedence: 10000, priorityLevelConfiguration: {name: catch-all}}",
        expect![[r#"
            spec: Invalid value: {"matchingPrecedence":10000,"priorityLevelConfiguration":{"name":"catch-all"}}: spec of 'catch-all' must equal the fixed value
        "#]],
    );
    check(
        "flowcontrol.apiserver.k8s.io",
        "prioritylevelconfigurations",
        "metadata: {name: a}\nspec: {type: Limited, limited: {limitResponse: {type: Queue, queuing: {queues: 4, handSize: 5}}}}",
        expect![[r#"
            spec.limited.limitResponse.queuing.handSize: Invalid value: 5: should not be greater than queues (4)
        "#]],
    );
    check(
        "networking.k8s.io",
        "networkpolicies",
        "metadata: {name: a, namespace: default}\nspec: {podSelector: {}, policyTypes: [Sideways], ingress: [{ports: [{port: 90, endPort: 80}, {port: web, endPort: 1}, {endPort: 1, protocol: ICMP}], \
         from: [{}, {podSelector: {}, ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16, x]}}, {ipBlock: {cidr: z}}]}]}",
        expect![[r#"
            spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`
            spec.ingress[0].ports[1].endPort: Invalid value: 1: may not be specified when `port` is non-numeric
            spec.ingress[0].ports[2].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"
            spec.ingress[0].ports[2].endPort: Invalid value: 1: may not be specified when `port` is not specified
            spec.ingress[0].from[0]: Required value: must specify a peer
            spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`
            spec.ingress[0].from[1].ipBlock.except[1]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer
            spec.ingress[0].from[2].ipBlock.cidr: Invalid value: "z": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress"
        "#]],
    );
    check(
        "networking.k8s.io",
        "servicecidrs",
        "metadata: {name: a}\nspec: {cidrs: [10.0.0.1/8, 11.0.0.0/8]}",
        expect![[r#"
            spec.cidrs[0]: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length
            spec.cidrs: Invalid value: ["10.0.0.1/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64
        "#]],
    );
    check(
        "networking.k8s.io",
        "ipaddresses",
        "metadata: {name: 010.0.0.1}\nspec: {parentRef: {resource: a/b}}",
        expect![[r#"
            metadata.name: Invalid value: "010.0.0.1": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.parentRef.resource: Invalid value: "a/b": may not contain '/'
            spec.parentRef.name: Required value
        "#]],
    );
    check(
        "node.k8s.io",
        "runtimeclasses",
        "metadata: {name: a}\nhandler: A_b\noverhead: {podFixed: {disk: 1}}",
        expect![[r#"
            handler: Invalid value: "A_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            overhead.podFixed[disk]: Invalid value: "disk": must be a standard resource for containers
        "#]],
    );
    check(
        "scheduling.k8s.io",
        "priorityclasses",
        "metadata: {name: system-mine}\nvalue: 1",
        expect![[r#"
        metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class
    "#]],
    );
    check(
        "scheduling.k8s.io",
        "priorityclasses",
        "metadata: {name: a}\nvalue: 2000000000\npreemptionPolicy: Maybe",
        expect![[r#"
            value: Forbidden: maximum allowed value of a user defined priority is 1000000000
            preemptionPolicy: Unsupported value: "Maybe": supported values: "PreemptLowerPriority", "Never"
        "#]],
    );
    check(
        "storagemigration.k8s.io",
        "storageversionmigrations",
        "metadata: {name: a}\nspec: {resource: {group: apps}}",
        expect![[r#"
            spec.resource.resource: Required value: resource is required
        "#]],
    );
}

#[test]
fn devices() {
    let group = "resource.k8s.io";
    check(
        group,
        "resourceclaims",
        "metadata: {name: a, namespace: default}\nspec: {devices: {requests: [{name: r}, {name: r, exactly: {allocationMode: Some, selectors: [{}], tolerations: [{key: a, operator: Exists, value: x}]}}], \
         constraints: [{requests: [s]}], config: [{opaque: {driver: d}}]}}",
        expect![[r#"
            spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required
            spec.devices.requests[1].exactly.deviceClassName: Required value
            spec.devices.requests[1].exactly.selectors[0].cel: Required value
            spec.devices.requests[1].exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"
            spec.devices.requests[1].exactly.tolerations[0].value: Invalid value: "x": must be empty for operator `Exists`
            spec.devices.requests[1]: Duplicate value: "r"
            spec.devices.constraints[0].requests[0]: Invalid value: "s": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'
            spec.devices.constraints[0]: Required value: exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set
            spec.devices.config[0].opaque.parameters: Required value
        "#]],
    );
    check(
        group,
        "deviceclasses",
        "metadata: {name: a}\nspec: {selectors: [{cel: {}}], config: [{}], extendedResourceName: cpu}",
        expect![[r#"
            spec.selectors[0].cel.expression: Required value
            spec.config[0].opaque: Required value
            spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name
        "#]],
    );
    check(
        group,
        "resourceslices",
        "metadata: {name: a}\nspec: {driver: d, pool: {name: p}, nodeName: k, allNodes: true, devices: [{name: x, attributes: {'a/b/c': {}, v: {version: '1'}}, taints: [{key: a}]}, {name: x, nodeName: k}]}",
        expect![[r#"
            spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero
            spec: Invalid value: "{`nodeName`, `allNodes`}": exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required, but multiple fields are set
            spec.devices[0].attributes[a/b/c]: Invalid value: "a/b/c": must not contain more than one slash
            spec.devices[0].attributes[a/b/c]: Invalid value: "": exactly one value must be specified
            spec.devices[0].attributes[v].version: Invalid value: "1": must be a string compatible with semver.org spec 2.0.0
            spec.devices[0].taints[0].effect: Required value
            spec.devices[1]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec
            spec.devices[1]: Duplicate value: "x"
        "#]],
    );
    check(
        group,
        "devicetaintrules",
        "metadata: {name: a}\nspec: {deviceSelector: {device: A}, taint: {key: k, effect: Never}}",
        expect![[r#"
            spec.deviceSelector.device: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.taint.effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", "None"
        "#]],
    );
}

#[test]
fn volumes() {
    let group = "storage.k8s.io";
    check(
        group,
        "csidrivers",
        "metadata: {name: a}\nspec: {fsGroupPolicy: x, volumeLifecycleModes: [Short], tokenRequests: [{audience: a, expirationSeconds: 1}, {audience: a}]}",
        expect![[r#"
            spec.fsGroupPolicy: Unsupported value: "x": supported values: "File", "None", "ReadWriteOnceWithFSType"
            spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes
            spec.tokenRequests[1].audience: Duplicate value: "a"
            spec.volumeLifecycleModes: Unsupported value: "Short": supported values: "Persistent", "Ephemeral"
        "#]],
    );
    check(
        group,
        "csinodes",
        "metadata: {name: a}\nspec: {drivers: [{name: d, nodeID: ''}, {name: d, nodeID: k, topologyKeys: [a, a]}]}",
        expect![[r#"
            spec.drivers[0].nodeID: Required value
            spec.drivers[1]: Duplicate value: "a"
            spec.drivers[1].name: Duplicate value: "d"
        "#]],
    );
    check(
        group,
        "csistoragecapacities",
        "metadata: {name: a, namespace: default}\nstorageClassName: A\ncapacity: -1",
        expect![[r#"
            storageClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            capacity: Invalid value: "-1": must be greater than or equal to 0
        "#]],
    );
    check(
        group,
        "volumeattachments",
        "metadata: {name: a}\nspec: {attacher: a, nodeName: k, source: {}}",
        expect![[r#"
            spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName
        "#]],
    );
    check(
        group,
        "volumeattributesclasses",
        "metadata: {name: a}\ndriverName: d",
        expect![[r#"
        parameters: Required value: must contain at least one key/value pair
    "#]],
    );
}

#[test]
fn what_stays_as_it_is() {
    let class = "metadata: {name: a}\nvalue: 1";
    change(
        "scheduling.k8s.io",
        "priorityclasses",
        class,
        |c| c["value"] = 2.into(),
        expect![[r#"
        value: Forbidden: may not be changed in an update.
    "#]],
    );
    let class = "metadata: {name: a}\nhandler: runc";
    change(
        "node.k8s.io",
        "runtimeclasses",
        class,
        |c| c["handler"] = "other".into(),
        expect![[r#"
        handler: Invalid value: "other": field is immutable
    "#]],
    );
    let range = "metadata: {name: a}\nspec: {cidrs: [10.0.0.0/8]}";
    change(
        "networking.k8s.io",
        "servicecidrs",
        range,
        |c| c["spec"]["cidrs"] = json!(["11.0.0.0/8"]),
        expect![[r#"
        spec.cidrs[0]: Invalid value: "11.0.0.0/8": field is immutable
    "#]],
    );
    let claim = "metadata: {name: a}\nspec: {devices: {requests: [{name: r}]}}";
    change(
        "resource.k8s.io",
        "resourceclaims",
        claim,
        |c| c["spec"] = json!({}),
        expect![[r#"
        spec: Invalid value: {}: field is immutable
    "#]],
    );
    let attachment = "metadata: {name: a}\nspec: {attacher: a, nodeName: k, source: {persistentVolumeName: v}}";
    change(
        "storage.k8s.io",
        "volumeattachments",
        attachment,
        |a| a["spec"]["nodeName"] = "m".into(),
        expect![[r#"
        spec: Invalid value: {"attacher":"a","nodeName":"m","source":{"persistentVolumeName":"v"}}: field is immutable
    "#]],
    );
    let class = "metadata: {name: a}\ndriverName: d\nparameters: {a: b}";
    change(
        "storage.k8s.io",
        "volumeattributesclasses",
        class,
        |c| c["parameters"]["a"] = "c".into(),
        expect![[r#"
        parameters: Invalid value: {"a":"c"}: field is immutable
    "#]],
    );
}

#[test]
fn consent_to_certificates_is_given_at_its_own_door() {
    let row = row("certificates.k8s.io", "certificatesigningrequests");
    let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "reason": reason});
    let request =
        |conditions: Value| json!({"metadata": {"name": "r"}, "spec": {}, "status": {"conditions": conditions}});
    let approved = request(json!([condition("Approved", "first")]));

    // Approvers may add what they like, and take nothing back.
    let mut new = request(json!([condition("ApprovalPatch", "e2e"), condition("Approved", "second")]));
    new["status"]["certificate"] = json!("eA==");
    row.hooks.prepare_subresource_update("approval", &mut new, &approved);
    assert_eq!(new["status"]["conditions"][0]["type"], "ApprovalPatch");
    assert_eq!(new["status"].get("certificate"), None);
    assert_eq!(lines(&row.hooks.validate_subresource_update("approval", &new, &approved)), "");
    assert_eq!(
        lines(&row.hooks.validate_subresource_update("approval", &request(json!([])), &approved)),
        "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\"\n"
    );

    // At the status, consent is as it was: changes are not heard, and additions refused.
    let mut new = request(json!([condition("Approved", "second"), condition("Failed", "x")]));
    row.hooks.prepare_status_update(&mut new, &approved);
    assert_eq!(new["status"]["conditions"][0]["reason"], "first");
    assert_eq!(lines(&row.hooks.validate_subresource_update("status", &new, &approved)), "");
    let mut new = request(json!([condition("Approved", "first"), condition("Denied", "x")]));
    row.hooks.prepare_status_update(&mut new, &approved);
    assert_eq!(
        lines(&row.hooks.validate_subresource_update("status", &new, &approved)),
        "status.conditions: Forbidden: updates may not add a condition of type \"Denied\"\n"
    );
}
