//! Admission policies: what they judge and change, with which parameters, and how their refusals are worded.

mod cluster;

use auth::User;
use cluster::{Answer, Cluster, DEPLOYMENTS, MAPS, deployment, labelled, map};
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Rules for a resource of a group: everything that is written.
fn rules(group: &str, resource: &str) -> Value {
    json!([{"operations": ["*"], "apiGroups": [group], "apiVersions": ["*"], "resources": [resource]}])
}

fn merged(mut base: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

impl Cluster {
    /// A validating policy of this name about ConfigMaps, unless its spec says otherwise, and a binding that denies.
    async fn judged_by(&self, name: &str, spec: Value) -> Value {
        self.bound(name, spec, json!({})).await
    }

    async fn bound(&self, name: &str, spec: Value, binding: Value) -> Value {
        let base = json!({"matchConstraints": {"resourceRules": rules("", "configmaps")}});
        let policy = json!({"metadata": {"name": name}, "spec": merged(base, &spec)});
        let made = self.post(&format!("{GROUP}/validatingadmissionpolicies"), policy).await.ok();
        self.binding("validating", name, merged(json!({"validationActions": ["Deny"]}), &binding)).await;
        made
    }

    async fn binding(&self, sort: &str, name: &str, spec: Value) {
        let spec = merged(json!({"policyName": name}), &spec);
        let binding = json!({"metadata": {"name": format!("{name}-b")}, "spec": spec});
        self.post(&format!("{GROUP}/{sort}admissionpolicybindings"), binding).await.ok();
    }

    /// A mutating policy about Deployments, unless its spec says otherwise, with its binding.
    async fn changed_by(&self, name: &str, spec: Value) {
        let base = json!({
            "matchConstraints": {"resourceRules": rules("apps", "deployments")}, "reinvocationPolicy": "Never",
        });
        let policy = json!({"metadata": {"name": name}, "spec": merged(base, &spec)});
        self.post(&format!("{GROUP}/mutatingadmissionpolicies"), policy).await.ok();
        self.binding("mutating", name, json!({})).await;
    }
}

fn applied(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patched(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// A ConfigMap with these data.
fn data(name: &str, data: Value) -> Value {
    merged(map(name), &json!({"data": data}))
}

/// The message of a refusal by a policy, without what stands before it.
#[track_caller]
fn said(answer: &Answer) -> String {
    let (_, message) = answer.refusal();
    message.split_once("denied request: ").unwrap_or_else(|| panic!("{message}")).1.to_owned()
}

#[tokio::test]
async fn what_a_policy_does_not_allow_is_refused_in_its_words() {
    let c = Cluster::start().await;
    c.judged_by(
        "small",
        json!({"validations": [
            {"expression": "size(object.data) <= 2"},
            {"expression": "!('b' in object.data)", "message": "no b", "reason": "Forbidden"},
            {"expression": "object.data.a != 'x'", "message": "m", "messageExpression": "'a is ' + object.data.a"},
        ]}),
    )
    .await;
    c.post(MAPS, map("fits")).await.ok();
    let answer = c.post(MAPS, data("large", json!({"a": "1", "c": "2", "d": "3"}))).await;
    let message = "ValidatingAdmissionPolicy 'small' with binding 'small-b' denied request: failed expression: \
                   size(object.data) <= 2";
    let status = answer.json();
    assert_eq!(answer.refusal(), (422, format!("configmaps \"large\" is forbidden: {message}")));
    assert_eq!(status["reason"], "Invalid");
    assert_eq!(status["details"], json!({"name": "large", "kind": "configmaps", "causes": [{"message": message}]}));
    let answer = c.post(MAPS, data("b", json!({"a": "1", "b": "2"}))).await;
    assert_eq!((answer.code, answer.json()["reason"].clone(), said(&answer)), (403, json!("Forbidden"), "no b".into()));
    let answer = c.merge(&format!("{MAPS}/fits"), json!({"data": {"a": "x"}})).await;
    assert_eq!((answer.code, said(&answer)), (422, "a is x".into()));
    // From the moment on at which it is gone, it has nothing to say.
    c.delete(&format!("{GROUP}/validatingadmissionpolicybindings/small-b")).await.ok();
    c.merge(&format!("{MAPS}/fits"), json!({"data": {"a": "x"}})).await.ok();
}

#[tokio::test]
async fn rules_and_selectors_say_what_a_policy_is_about() {
    let c = Cluster::start().await;
    let never = json!([{"expression": "false", "message": "never"}]);
    let about = |constraints: Value| json!({"matchConstraints": constraints, "validations": never});
    let rule = |more: Value| json!([merged(rules("", "configmaps")[0].clone(), &more)]);
    c.judged_by(
        "creates",
        about(json!({"resourceRules": rule(json!({"operations": ["CREATE"], "resourceNames": ["made"]}))})),
    )
    .await;
    c.judged_by("outside", about(json!({"resourceRules": rule(json!({"scope": "Cluster"}))}))).await;
    c.judged_by("parts", about(json!({"resourceRules": rules("", "configmaps/status")}))).await;
    let labels = json!({"matchLabels": {"tier": "web"}});
    c.judged_by("labels", about(json!({"resourceRules": rule(json!({})), "objectSelector": labels}))).await;
    c.judged_by("spaces", about(json!({"resourceRules": rule(json!({})), "namespaceSelector": labels}))).await;
    let excluded = json!({"resourceRules": rules("", "*"), "excludeResourceRules": rules("", "configmaps")});
    c.judged_by("excluded", about(excluded)).await;
    let narrow = json!({"matchResources": {"resourceRules": rule(json!({"resourceNames": ["narrow"]}))}});
    c.bound("narrow", json!({"validations": never}), narrow).await;
    let condition = json!([{"name": "named", "expression": "object.metadata.name == 'conditional'"}]);
    c.judged_by("conditions", json!({"matchConditions": condition, "validations": never})).await;

    let policy = |answer: &Answer| {
        let (_, message) = answer.refusal();
        message.split('\'').nth(1).unwrap_or_default().to_owned()
    };
    c.post(MAPS, map("free")).await.ok();
    for (name, expected) in [("made", "creates"), ("narrow", "narrow"), ("conditional", "conditions")] {
        assert_eq!(policy(&c.post(MAPS, map(name)).await), expected);
    }
    // A change that takes the label off is still about what had it.
    assert_eq!(policy(&c.post(MAPS, labelled("l", "web")).await), "labels");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    assert_eq!(policy(&c.post(accounts, json!({"metadata": {"name": "x"}})).await), "excluded");
    let space = json!({"metadata": {"name": "web", "labels": {"tier": "web"}}});
    c.delete(&format!("{GROUP}/validatingadmissionpolicybindings/excluded-b")).await.ok();
    c.post("/api/v1/namespaces", space).await.ok();
    assert_eq!(policy(&c.post("/api/v1/namespaces/web/configmaps", map("free")).await), "spaces");
}

#[tokio::test]
async fn another_version_of_the_same_objects_is_matched_unless_the_rules_are_exact() {
    let c = Cluster::start().await;
    let rule = json!([{
        "operations": ["*"], "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"],
    }]);
    let validations = json!([{
        "expression": "object.spec.metrics[0].resource.target.averageUtilization < 50 && request.kind.version == 'v2' && \
                       request.requestKind.version == 'v1'",
    }]);
    c.judged_by("scalers", json!({"matchConstraints": {"resourceRules": rule}, "validations": validations})).await;
    let scaler = |name: &str, percent: i64| {
        json!({"metadata": {"name": name}, "spec": {
            "maxReplicas": 3, "targetCPUUtilizationPercentage": percent,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        }})
    };
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    c.post(path, scaler("a", 40)).await.ok();
    assert_eq!(c.post(path, scaler("b", 60)).await.code, 422);
    let exact = json!({"spec": {"matchConstraints": {"matchPolicy": "Exact"}}});
    c.merge(&format!("{GROUP}/validatingadmissionpolicies/scalers"), exact).await.ok();
    c.post(path, scaler("b", 60)).await.ok();
}

#[tokio::test]
async fn parameters_come_from_the_objects_that_the_binding_names() {
    let c = Cluster::start().await;
    let kind = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let constraints = json!({"resourceRules": rules("", "secrets")});
    let validations = json!([{
        "expression": "params == null || object.metadata.name != params.data.refused",
        "messageExpression": "'refused by ' + params.metadata.name",
    }]);
    let spec = json!({"paramKind": kind, "matchConstraints": constraints, "validations": validations});
    let by_name = json!({"paramRef": {"name": "p", "parameterNotFoundAction": "Deny"}});
    c.bound("p", spec, by_name).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({"metadata": {"name": name}});
    let missing = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert_eq!(said(&c.post(secrets, secret("a")).await), missing);
    c.post(MAPS, data("p", json!({"refused": "a"}))).await.ok();
    assert_eq!(said(&c.post(secrets, secret("a")).await), "refused by p");
    c.post(secrets, secret("b")).await.ok();

    // All that are selected have a say; where none is and none must be, nobody has.
    let binding = format!("{GROUP}/validatingadmissionpolicybindings/p-b");
    let selector = json!({"matchLabels": {"tier": "limits"}});
    let selecting = json!({"spec": {"paramRef": {
        "name": null, "selector": selector, "parameterNotFoundAction": "Allow",
    }}});
    c.merge(&binding, selecting).await.ok();
    c.post(secrets, secret("a")).await.ok();
    for (name, refused) in [("q", "c"), ("r", "d")] {
        let mut map = data(name, json!({"refused": refused}));
        map["metadata"]["labels"] = json!({"tier": "limits"});
        c.post(MAPS, map).await.ok();
    }
    assert_eq!(said(&c.post(secrets, secret("c")).await), "refused by q");
    assert_eq!(said(&c.post(secrets, secret("d")).await), "refused by r");
    // Those of another namespace are not seen, unless the binding says where they are.
    c.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.ok();
    let other = "/api/v1/namespaces/other/secrets";
    c.post(other, secret("c")).await.ok();
    c.merge(&binding, json!({"spec": {"paramRef": {"namespace": "default"}}})).await.ok();
    assert_eq!(said(&c.post(other, secret("d")).await), "refused by r");
    c.merge(&binding, json!({"spec": {"paramRef": null}})).await.ok();
    c.post(secrets, secret("c")).await.ok();
}

#[tokio::test]
async fn custom_objects_are_judged_and_are_parameters() {
    let c = Cluster::start().await;
    let never_there = json!({
        "paramKind": {"apiVersion": "e.io/v1", "kind": "Widget"},
        "validations": [{"expression": "size(object.data) <= params.spec.size"}],
    });
    c.bound("custom", never_there, json!({"paramRef": {"name": "w", "parameterNotFoundAction": "Deny"}})).await;
    let message = c.post(MAPS, map("a")).await.refusal().1;
    let unknown = "ValidatingAdmissionPolicy 'custom' denied request: failed to configure policy: failed to find resource \
                   referenced by paramKind: 'e.io/v1, Kind=Widget'";
    assert!(message.ends_with(unknown), "{message}");
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    let definition = json!({"metadata": {"name": "widgets.e.io"}, "spec": {
        "group": "e.io", "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
    }});
    c.post(DEFINITIONS, definition).await.ok();
    let widget = json!({"apiVersion": "e.io/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 1}});
    c.post("/apis/e.io/v1/widgets", widget.clone()).await.ok();
    c.post(MAPS, map("a")).await.ok();
    assert_eq!(c.post(MAPS, data("b", json!({"a": "", "b": ""}))).await.code, 422);

    let spec = json!({
        "matchConstraints": {"resourceRules": rules("e.io", "widgets")},
        "validations": [{"expression": "object.spec.size == oldObject.spec.size", "message": "fixed"}],
        "matchConditions": [{"name": "changes", "expression": "oldObject != null"}],
    });
    c.judged_by("widgets", spec).await;
    let answer = c.merge("/apis/e.io/v1/widgets/w", json!({"spec": {"size": 2}})).await;
    assert_eq!(said(&answer), "fixed");
    c.merge("/apis/e.io/v1/widgets/w", json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
}

#[tokio::test]
async fn expressions_see_the_request_and_what_is_around_it() {
    let c = Cluster::start().await;
    let variables = json!([
        {"name": "name", "expression": "object.metadata.name"},
        {"name": "both", "expression": "[variables.name, request.name]"},
        {"name": "broken", "expression": "object.data.nothing"},
    ]);
    let seen = [
        "variables.both.all(name, name == 'seen') || variables.broken == ''",
        "request.kind.group == '' && request.kind.version == 'v1' && request.requestKind.kind == 'ConfigMap'",
        "request.resource.resource == 'configmaps' && request.requestResource.version == 'v1'",
        "request.operation == 'CREATE' && request.namespace == 'default' && request.userInfo.username == 'admin'",
        "'system:masters' in request.userInfo.groups && request.dryRun == false && oldObject == null",
        "request.options.kind == 'CreateOptions' && !has(request.subResource)",
        "namespaceObject.metadata.name == 'default' && namespaceObject.status.phase == 'Active'",
        "authorizer.group('').resource('pods').namespace('default').check('create').allowed()",
        "authorizer.requestResource.check('create').allowed() && authorizer.path('/healthz').check('get').allowed()",
        "!authorizer.serviceAccount('default', 'x').group('apps').resource('deployments').subresource('scale').name('d')\
         .check('update').allowed()",
        "!authorizer.requestResource.check('get').errored()",
    ];
    let validations: Vec<Value> = seen.iter().map(|text| json!({"expression": text})).collect();
    let audit = json!([{"key": "name", "valueExpression": "'it is ' + variables.name"}, {"key": "no", "valueExpression": "null"}]);
    c.judged_by("seen", json!({"variables": variables, "validations": validations, "auditAnnotations": audit})).await;
    c.post(MAPS, map("seen")).await.ok();
    // A variable that fails does so where it is used.
    let broken = said(&c.post(MAPS, map("unseen")).await);
    let why = format!(
        "expression '{}' resulted in error: composited variable \"broken\" fails to evaluate: no such key: nothing",
        seen[0]
    );
    assert_eq!(broken, why);
    let reader = User::authenticated("reader", &[]);
    let headers = [("content-type", "application/json")];
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]});
    c.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.ok();
    let binding = json!({
        "metadata": {"name": "maps"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "maps"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
    });
    c.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.ok();
    c.delete(&format!("{GROUP}/validatingadmissionpolicybindings/seen-b")).await.ok();
    c.judged_by("asked", json!({"validations": [{"expression": seen[7]}]})).await;
    let answer = c.raw_as(Some(reader), "POST", MAPS, &headers, map("r").to_string()).await;
    assert_eq!(said(&answer), format!("failed expression: {}", seen[7]));
}

#[tokio::test]
async fn a_binding_may_only_warn_and_a_policy_may_ignore_its_failures() {
    let c = Cluster::start().await;
    let no = json!({"validations": [{"expression": "false", "message": "not good"}]});
    c.bound("warns", no, json!({"validationActions": ["Warn", "Audit"]})).await;
    let answer = c.post(MAPS, map("a")).await;
    answer.ok();
    let warning = "299 - \"Validation failed for ValidatingAdmissionPolicy 'warns' with binding 'warns-b': not good\"";
    assert_eq!(answer.header("warning"), warning);
    let broken = json!([{"expression": "object.data.nothing == ''"}]);
    c.judged_by("ignores", json!({"failurePolicy": "Ignore", "validations": broken})).await;
    c.post(MAPS, map("b")).await.ok();
    c.judged_by("fails", json!({"validations": broken})).await;
    let why = "expression 'object.data.nothing == ''' resulted in error: no such key: nothing";
    assert_eq!(said(&c.post(MAPS, map("c")).await), why);
    // What would be refused is refused in a dry run as well, and what configures policies is never refused.
    assert_eq!(c.post(&format!("{MAPS}?dryRun=All"), map("c")).await.code, 422);
    let all = json!({"matchConstraints": {"resourceRules": rules("*", "*")}, "validations": [{"expression": "false"}]});
    c.judged_by("all", all).await;
    assert_eq!(c.post(MAPS, map("d")).await.code, 422);
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    c.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review).await.ok();
    c.delete(&format!("{GROUP}/validatingadmissionpolicies/all")).await.ok();
}

#[tokio::test]
async fn deletions_scales_and_statuses_are_judged_as_what_they_are() {
    let c = Cluster::start().await;
    c.post(MAPS, labelled("kept", "web")).await.ok();
    let rule =
        json!([{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    let spec = json!({
        "matchConstraints": {"resourceRules": rule, "objectSelector": {"matchLabels": {"tier": "web"}}},
        "validations": [{
            "expression": "object != null || request.options.kind != 'DeleteOptions' || request.name != oldObject.metadata.name",
            "message": "kept", "reason": "Forbidden",
        }],
    });
    c.judged_by("deletes", spec).await;
    let answer = c.delete(&format!("{MAPS}/kept")).await;
    assert_eq!((answer.code, said(&answer)), (403, "kept".into()));
    c.merge(&format!("{MAPS}/kept"), json!({"metadata": {"labels": null}})).await.ok();
    c.delete(&format!("{MAPS}/kept")).await.ok();

    c.post(DEPLOYMENTS, deployment("d")).await.ok();
    let mut parts = rules("apps", "deployments/scale");
    parts[0]["resources"] = json!(["deployments/scale", "deployments/status"]);
    let spec = json!({
        "matchConstraints": {"resourceRules": parts},
        "validations": [{
            "expression": "request.subResource == 'scale' ? request.kind.kind == 'Scale' && object.spec.replicas < 5 : \
                           object.spec.replicas == oldObject.spec.replicas && has(object.status)",
        }],
    });
    c.judged_by("parts", spec).await;
    let scale = format!("{DEPLOYMENTS}/d/scale");
    c.merge(&scale, json!({"spec": {"replicas": 4}})).await.ok();
    assert_eq!(c.merge(&scale, json!({"spec": {"replicas": 5}})).await.code, 422);
    c.merge(&format!("{DEPLOYMENTS}/d/status"), json!({"status": {"replicas": 1}})).await.ok();
    c.merge(&format!("{DEPLOYMENTS}/d"), json!({"spec": {"replicas": 9}})).await.ok();
    let halves = "[JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.replicas - 1}]";
    let spec = json!({
        "matchConstraints": {"resourceRules": rules("apps", "deployments/scale")}, "mutations": [patched(halves)],
    });
    c.changed_by("scales", spec).await;
    let scaled = c.merge(&scale, json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
}

#[tokio::test]
async fn what_costs_too_much_is_refused() {
    let c = Cluster::start().await;
    let numbers = format!("[{}]", (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let dear = format!("{numbers}.all(a, {numbers}.all(b, {numbers}.all(c, a + b + c >= 0)))");
    c.judged_by("call", json!({"validations": [{"expression": dear}]})).await;
    let message = said(&c.post(MAPS, map("a")).await);
    assert!(message.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"), "{message}");
    c.delete(&format!("{GROUP}/validatingadmissionpolicies/call")).await.ok();
    let asks =
        "authorizer.requestResource.check('get').allowed() && authorizer.requestResource.check('list').allowed()";
    let many: Vec<Value> = (0..20).map(|_| json!({"expression": asks})).collect();
    c.judged_by("budget", json!({"validations": many})).await;
    let why = "validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(said(&c.post(MAPS, map("a")).await), why);
}

#[tokio::test]
async fn expressions_that_do_not_fit_the_objects_are_told_in_the_status() {
    let c = Cluster::start().await;
    let spec = json!({
        "matchConstraints": {"resourceRules": [
            {"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]},
        ]},
        "validations": [
            {"expression": "object.spec.replicas > '1'", "messageExpression": "'wants more, got ' + object.spec.replicas"},
            {"expression": "object.spec.replicas > 1"},
        ],
    });
    let made = c.judged_by("typed", spec).await;
    assert_eq!(made["status"]["observedGeneration"], 1);
    let warnings = made["status"]["typeChecking"]["expressionWarnings"].as_array().expect("warnings").clone();
    let fields: Vec<&str> = warnings.iter().filter_map(|warning| warning["fieldRef"].as_str()).collect();
    assert_eq!(fields, ["spec.validations[0].expression", "spec.validations[0].messageExpression"]);
    let text = warnings[0]["warning"].as_str().expect("a text");
    assert!(
        text.starts_with("apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_'"),
        "{text}"
    );
    let path = format!("{GROUP}/validatingadmissionpolicies/typed");
    let good = json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
    let changed = c.merge(&path, good).await.ok();
    assert_eq!(changed["status"], json!({"observedGeneration": 2, "typeChecking": {}}));
    // A status that somebody writes stays.
    let condition = json!([{
        "type": "A", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]);
    let status = c.merge(&format!("{path}/status"), json!({"status": {"conditions": condition}})).await.ok();
    assert_eq!(
        (&status["status"]["observedGeneration"], &status["status"]["conditions"][0]["type"]),
        (&json!(2), &json!("A"))
    );
}

#[tokio::test]
async fn a_configuration_is_merged_into_what_is_written() {
    let c = Cluster::start().await;
    let expression = "Object{
        metadata: Object.metadata{annotations: {'by': request.userInfo.username}},
        spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
            Object.spec.template.spec.containers{name: 'c', imagePullPolicy: 'Always'},
            Object.spec.template.spec.containers{name: 'side', image: variables.image},
        ]}}}}";
    let spec = json!({
        "variables": [{"name": "image", "expression": "'side:' + string(object.spec.replicas)"}],
        "mutations": [applied(expression)],
    });
    c.changed_by("sidecar", spec).await;
    let made = c.post(DEPLOYMENTS, deployment("d")).await.ok();
    assert_eq!(made["metadata"]["annotations"]["by"], "admin");
    let containers = &made["spec"]["template"]["spec"]["containers"];
    let brief: Vec<Value> = containers
        .as_array()
        .expect("containers")
        .iter()
        .map(|c| json!([c["name"], c["image"], c["imagePullPolicy"], c["terminationMessagePath"]]))
        .collect();
    assert_eq!(
        json!(brief),
        json!([
            ["c", "i", "Always", "/dev/termination-log"],
            ["side", "side:2", "IfNotPresent", "/dev/termination-log"],
        ])
    );
    // What the policy makes of an object is judged as if the client had sent it.
    c.changed_by("breaks", json!({"mutations": [applied("Object{spec: Object.spec{replicas: -1}}")]})).await;
    let (code, message) = c.post(DEPLOYMENTS, deployment("e")).await.refusal();
    assert!(code == 422 && message.contains("spec.replicas: Invalid value: -1"), "{message}");
    c.delete(&format!("{GROUP}/mutatingadmissionpolicies/breaks")).await.ok();
    let scaled = c.merge(&format!("{DEPLOYMENTS}/d"), json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(scaled["spec"]["template"]["spec"]["containers"][1]["image"], "side:5");
}

#[tokio::test]
async fn a_json_patch_is_applied_to_what_is_written() {
    let c = Cluster::start().await;
    let expression = "[
        JSONPatch{op: 'test', path: '/spec/replicas', value: 2},
        JSONPatch{op: 'add', path: '/metadata/labels', value: {'a': 'b'}},
        JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('e.io/x'), value: 'y'},
        JSONPatch{op: 'replace', path: '/spec/template/spec/containers/0',
            value: Object.spec.template.spec.containers{name: 'n', image: 'j:1'}},
        JSONPatch{op: 'copy', from: '/metadata/name', path: '/metadata/labels/name'},
    ]";
    c.changed_by("patches", json!({"mutations": [patched(expression)]})).await;
    let made = c.post(DEPLOYMENTS, deployment("d")).await.ok();
    assert_eq!(made["metadata"]["labels"], json!({"a": "b", "e.io/x": "y", "name": "d"}));
    let container = &made["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["name"], &container["imagePullPolicy"]), (&json!("n"), &json!("IfNotPresent")));
    // Where a test fails, the object stays as it is.
    let mut other = deployment("e");
    other["spec"]["replicas"] = 3.into();
    assert_eq!(c.post(DEPLOYMENTS, other).await.ok()["metadata"]["labels"], Value::Null);
}

#[tokio::test]
async fn a_mutation_that_fails_is_told_in_upstreams_words() {
    let c = Cluster::start().await;
    let cases = [
        (
            applied("Object{spec: Object.spec{replicas: object.spec.nothing}}"),
            "expression 'Object{spec: Object.spec{replicas: object.spec.nothing}}' resulted in error: no such key: nothing",
        ),
        (
            applied("Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}"),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        (
            applied("Object{spec: Object.specx{replicas: 1}}"),
            "type mismatch: unexpected type name \"Object.specx\", expected \"Object.spec\", which matches field name path from root Object type",
        ),
        (
            applied("Object{spec: Object.spec{replicasx: 1}}"),
            "error applying patch: failed to convert patch object to typed object: .spec.replicasx: field not declared in schema",
        ),
        (patched("[JSONPatch{op: 'remove', path: '/spec/nothing'}]"), "JSON Patch: /spec/nothing: path is invalid"),
    ];
    for (n, (mutation, why)) in cases.into_iter().enumerate() {
        let name = format!("p{n}");
        c.changed_by(&name, json!({"mutations": [mutation]})).await;
        let answer = c.post(DEPLOYMENTS, deployment("d")).await;
        let message = format!("policy '{name}' with binding '{name}-b' denied request: {why}");
        assert_eq!(answer.refusal(), (403, message));
        assert_eq!(answer.json()["reason"], "Invalid");
        let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
        c.merge(&format!("{GROUP}/mutatingadmissionpolicies/{name}"), ignore).await.ok();
        c.post(&format!("{DEPLOYMENTS}?dryRun=All"), deployment("d")).await.ok();
    }
    let unknown = patched("[JSONPatch{op: 'add', path: '/spec/nothing', value: 1}]");
    c.changed_by("unknown", json!({"mutations": [unknown]})).await;
    let (code, message) = c.post(DEPLOYMENTS, deployment("d")).await.refusal();
    let why = "Internal error occurred: strict decoding error: unknown field \"spec.nothing\"";
    assert_eq!((code, message.as_str()), (500, why));
}

#[tokio::test]
async fn a_policy_that_wants_it_is_asked_again_when_something_changed_after_it() {
    let c = Cluster::start().await;
    let copy =
        "Object{metadata: Object.metadata{annotations: {'seen': object.metadata.?annotations.?set.orValue('no')}}}";
    let set = "Object{metadata: Object.metadata{annotations: {'set': 'yes'}}}";
    c.changed_by("a", json!({"mutations": [applied(copy)]})).await;
    c.changed_by("b", json!({"mutations": [applied(set)]})).await;
    let made = c.post(DEPLOYMENTS, deployment("d")).await.ok();
    assert_eq!(made["metadata"]["annotations"], json!({"seen": "no", "set": "yes"}));
    let again = json!({"spec": {"reinvocationPolicy": "IfNeeded"}});
    c.merge(&format!("{GROUP}/mutatingadmissionpolicies/a"), again).await.ok();
    let made = c.post(DEPLOYMENTS, deployment("e")).await.ok();
    assert_eq!(made["metadata"]["annotations"], json!({"seen": "yes", "set": "yes"}));
}
