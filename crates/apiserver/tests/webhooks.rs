//! Webhooks: whom the server asks before it writes, what it tells them, and what it makes of their answers.

mod cluster;
mod hooks;
mod peer;

use cluster::{Cluster, DEPLOYMENTS, MAPS, PODS, deployment, map, pod};
use hooks::{CONFIGURATIONS, Hooks, MUTATING, VALIDATING, configuration, entry, patch};
use serde_json::{Value, json};

#[tokio::test]
async fn a_refusal_ends_creations_changes_and_deletions() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, request| {
        let bad = request["object"]["data"]["bad"] == "yes" || request["oldObject"]["metadata"]["name"] == "kept";
        if bad && request["operation"] != "UPDATE" || request["object"]["data"]["bad"] == "yes" {
            return json!({"allowed": false, "status": {"message": "the data is bad", "reason": "bad", "code": 418}});
        }
        json!({"allowed": true})
    })
    .await;
    cluster.post(MAPS, map("kept")).await.ok();
    let rules = json!([{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]);
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "deny.example.com", rules)])).await.ok();
    let mut bad = map("bad");
    bad["data"]["bad"] = "yes".into();
    let answer = cluster.post(MAPS, bad.clone()).await;
    let text = "admission webhook \"deny.example.com\" denied the request: the data is bad";
    assert_eq!(answer.refusal(), (418, text.to_owned()));
    assert_eq!(answer.json()["reason"], "bad");
    let made = cluster.post(MAPS, map("fine")).await.ok();
    let one = format!("{MAPS}/fine");
    assert_eq!(cluster.merge(&one, json!({"data": {"bad": "yes"}})).await.refusal().1, text);
    bad["metadata"] = made["metadata"].clone();
    assert_eq!(cluster.put(&one, bad).await.refusal().1, text);
    let applied = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}, "data": {"bad": "yes"}});
    let path = format!("{MAPS}/new?fieldManager=me");
    assert_eq!(cluster.patch(&path, "application/apply-patch+yaml", applied).await.refusal().1, text);
    assert_eq!(cluster.delete(&format!("{MAPS}/kept")).await.refusal().1, text);
    assert_eq!(cluster.delete(MAPS).await.refusal().1, text);
    assert_eq!(cluster.get(&format!("{MAPS}/kept")).await.code, 200);
    cluster.delete(&format!("{CONFIGURATIONS}/validatingwebhookconfigurations/v")).await.ok();
    cluster.delete(&format!("{MAPS}/kept")).await.ok();
}

#[tokio::test]
async fn a_refusal_without_a_word_is_a_bad_request() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"allowed": false, "auditAnnotations": {"a": "b"}})).await;
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "deny.example.com", maps())])).await.ok();
    let text = "admission webhook \"deny.example.com\" denied the request without explanation";
    assert_eq!(cluster.post(MAPS, map("a")).await.refusal(), (400, text.to_owned()));
}

/// What a server with a certificate that signs itself says to the creation of a map.
async fn asked_of_an_authority(name: &str, change: impl Fn(&mut rcgen::CertificateParams)) -> (u16, String) {
    let cluster = Cluster::start().await;
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    let signing_key = rcgen::KeyPair::generate().expect("a key");
    let cert = params.self_signed(&signing_key).expect("a certificate");
    let answer = |request: http::Request<bytes::Bytes>| -> peer::Answer {
        let review: Value = serde_json::from_slice(request.body()).expect("a review");
        let response = json!({"uid": review["request"]["uid"], "allowed": false, "status": {"message": "asked"}});
        let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        Box::pin(async move { peer::document(&answer) })
    };
    let peer = peer::start_as(rcgen::CertifiedKey { cert, signing_key }, answer).await;
    let mut webhooks = configuration(
        "v",
        [json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"], "rules": maps(),
        })],
    );
    let url = format!("https://127.0.0.1:{}/", peer.port);
    webhooks["webhooks"][0]["clientConfig"] = json!({"url": url, "caBundle": peer.bundle});
    cluster.post(VALIDATING, webhooks).await.ok();
    cluster.post(MAPS, map("a")).await.refusal()
}

#[tokio::test]
async fn a_server_may_show_the_very_certificate_that_is_trusted_though_it_is_made_as_an_authority() {
    let denied = "admission webhook \"a.example.com\" denied the request: asked";
    assert_eq!(asked_of_an_authority("127.0.0.1", |_| {}).await, (400, denied.to_owned()));
    let (code, message) = asked_of_an_authority("127.0.0.2", |_| {}).await;
    assert!(code == 500 && message.contains("tls"), "{message}");
    let old = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let (code, message) = asked_of_an_authority("127.0.0.1", old).await;
    assert!(code == 500 && message.contains("tls"), "{message}");
}

#[tokio::test]
async fn connections_are_kept_and_what_webhooks_say_is_counted() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, request| {
        let bad = request["object"]["data"]["bad"] == "yes";
        if bad {
            json!({"allowed": false, "status": {"code": 403, "message": "bad"}})
        } else {
            json!({"allowed": true})
        }
    })
    .await;
    let mut broken = entry(&hooks, "broken.example.com", maps());
    broken["clientConfig"]["url"] = "https://127.0.0.1:1/".into();
    broken["failurePolicy"] = "Ignore".into();
    let entries = [entry(&hooks, "deny.example.com", maps()), broken];
    cluster.post(VALIDATING, configuration("v", entries)).await.ok();
    for name in ["a", "b", "c"] {
        cluster.post(MAPS, map(name)).await.ok();
    }
    let mut bad = map("d");
    bad["data"]["bad"] = "yes".into();
    assert_eq!(cluster.post(MAPS, bad).await.code, 403);
    assert_eq!(hooks.peer.connections(), 1);
    let page = cluster.get("/metrics").await.text();
    let of = "name=\"deny.example.com\",operation=\"CREATE\"";
    for row in [
        format!(
            "apiserver_admission_webhook_request_total{{code=\"200\",{of},rejected=\"false\",type=\"validating\"}} 3"
        ),
        format!(
            "apiserver_admission_webhook_request_total{{code=\"403\",{of},rejected=\"true\",type=\"validating\"}} 1"
        ),
        format!(
            "apiserver_admission_webhook_rejection_count{{error_type=\"no_error\",{of},rejection_code=\"403\",type=\"validating\"}} 1"
        ),
        "apiserver_admission_webhook_fail_open_count{name=\"broken.example.com\",type=\"validating\"} 4".to_owned(),
    ] {
        assert!(page.lines().any(|line| line == row), "{row} in {page}");
    }
    for name in [
        "apiserver_admission_webhook_admission_duration_seconds_bucket",
        "apiserver_admission_step_admission_duration_seconds_count",
        "etcd_request_duration_seconds_count",
        "apiserver_watch_events_sizes",
        "apiserver_watch_list_duration_seconds",
        "apiserver_request_aborts_total",
        "aggregator_unavailable_apiservice_total",
    ] {
        assert!(page.contains(name), "{name}");
    }
}

/// Rules for configmaps.
fn maps() -> Value {
    json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"]}])
}

#[tokio::test]
async fn webhooks_change_objects_one_after_the_other() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|path, request| {
        let has_first = !request["object"]["data"]["first"].is_null();
        match path {
            "/first" => patch(json!([
                {"op": "add", "path": "/data/first", "value": "1"},
                {"op": "add", "path": "/metadata/uid", "value": "mine"},
                {"op": "add", "path": "/nonsense", "value": "1"},
            ])),
            _ if has_first => patch(json!([{"op": "add", "path": "/data/second", "value": "2"}])),
            _ => json!({"allowed": true}),
        }
    })
    .await;
    // In the order of the names of the configurations, not in that of their making.
    cluster.post(MUTATING, configuration("b", [entry(&hooks.at("/second"), "b.example.com", maps())])).await.ok();
    cluster.post(MUTATING, configuration("a", [entry(&hooks.at("/first"), "a.example.com", maps())])).await.ok();
    let made = cluster.raw("POST", &format!("{MAPS}?fieldManager=me"), &[], map("m").to_string()).await.ok();
    assert_eq!(made["data"], json!({"a": "1", "first": "1", "second": "2"}));
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_eq!(made["nonsense"], Value::Null);
    // As upstream has it, nobody manages what webhooks add: the managers are noted before them.
    let manager = &made["metadata"]["managedFields"][0];
    assert_eq!((&manager["manager"], &manager["fieldsV1"]["f:data"]), (&json!("me"), &json!({".": {}, "f:a": {}})));
    let patched = cluster.merge(&format!("{MAPS}/m"), json!({"data": {"first": null, "a": "3"}})).await.ok();
    assert_eq!(patched["data"], json!({"a": "3", "first": "1", "second": "2"}));
    assert_eq!(patched["metadata"]["uid"], made["metadata"]["uid"]);
}

#[tokio::test]
async fn what_a_webhook_adds_gets_its_defaults_and_what_is_not_known_is_dropped() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|path, _| match path {
        "/pods" => {
            patch(json!([{"op": "add", "path": "/spec/initContainers", "value": [{"name": "added", "image": "i"}]}]))
        }
        _ => patch(json!([
            {"op": "add", "path": "/data/mutation", "value": "done"},
            {"op": "add", "path": "/data/unknown", "value": "gone"},
        ])),
    })
    .await;
    let pods = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    cluster.post(MUTATING, configuration("pods", [entry(&hooks.at("/pods"), "p.example.com", pods)])).await.ok();
    let made = cluster.post(PODS, pod("p", "")).await.ok();
    let added = &made["spec"]["initContainers"][0];
    assert_eq!(added["terminationMessagePolicy"], "File");
    // The server itself has another look at what was added.
    assert_eq!(added["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(made["spec"]["volumes"].as_array().expect("volumes").len(), 1);

    cluster.post(hooks::CRDS, hooks::widgets()).await.ok();
    let widgets =
        json!([{"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["widgets"]}]);
    cluster.post(MUTATING, configuration("w", [entry(&hooks.at("/widgets"), "w.example.com", widgets)])).await.ok();
    let path = "/apis/example.com/v1/namespaces/default/widgets";
    let made = cluster.post(path, json!({"metadata": {"name": "w"}, "data": {"given": "1"}})).await.ok();
    assert_eq!(made["data"], json!({"given": "1", "mutation": "done"}));
}

#[tokio::test]
async fn a_webhook_that_takes_too_long_fails_the_request_or_is_done_without() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| json!({"sleep": 4})).await;
    let mut slow = entry(&hooks, "slow.example.com", maps());
    slow["timeoutSeconds"] = 1.into();
    cluster.post(VALIDATING, configuration("slow", [slow.clone()])).await.ok();
    let (code, message) = cluster.post(MAPS, map("a")).await.refusal();
    let port = hooks.peer.port;
    let text = format!(
        "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \
         \"https://127.0.0.1:{port}/?timeout=1s\": context deadline exceeded"
    );
    assert_eq!((code, message), (500, text));
    let path = format!("{CONFIGURATIONS}/validatingwebhookconfigurations/slow");
    slow["failurePolicy"] = "Ignore".into();
    cluster.merge(&path, json!({"webhooks": [slow]})).await.ok();
    cluster.post(MAPS, map("a")).await.ok();
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_fails_the_request_or_is_done_without() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|path, _| match path {
        "/uid" => json!({"allowed": true, "uid": "other"}),
        "/none" => json!({"raw": "{}"}),
        "/text" => json!({"raw": "no JSON"}),
        "/kind" => json!({"allowed": true, "kind": "Pod"}),
        "/patch" => json!({"allowed": true, "patchType": "JSONPatch", "patch": "bm8="}),
        "/type" => json!({"allowed": true, "patchType": "Other", "patch": "W10="}),
        "/huge" => json!({"huge": 17 << 20}),
        "/500" => json!({"code": 500}),
        "/404" => json!({"code": 404}),
        other => panic!("{other}"),
    })
    .await;
    let path = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/m");
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "m.example.com", maps())])).await.ok();
    for (at, why) in [
        ("/uid", "received invalid webhook response: expected response.uid="),
        ("/none", "received invalid webhook response: webhook response was absent"),
        ("/text", "failed to call webhook: couldn't get version/kind; json parse error: "),
        (
            "/kind",
            "received invalid webhook response: expected webhook response of admission.k8s.io/v1, Kind=Admission",
        ),
        ("/patch", "received undecodable patch in webhook response: "),
        ("/type", "unsupported patch type \"Other\""),
        ("/huge", "length limit exceeded"),
        ("/500", "failed to call webhook: an error on the server"),
        ("/404", "failed to call webhook: the server could not find the requested resource"),
    ] {
        let mut hook = entry(&hooks.at(at), "m.example.com", maps());
        cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
        let (code, message) = cluster.post(MAPS, map("a")).await.refusal();
        let begin = "Internal error occurred: failed calling webhook \"m.example.com\": ";
        assert!(code == 500 && message.starts_with(begin) && message.contains(why), "{at}: {code} {message}");
        hook["failurePolicy"] = "Ignore".into();
        cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
        cluster.post(MAPS, map("a")).await.ok();
        cluster.delete(&format!("{MAPS}/a")).await.ok();
    }
}

#[tokio::test]
async fn a_change_that_does_not_fit_fails_the_request_whatever_the_policy() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|path, _| match path {
        "/missing" => patch(json!([{"op": "remove", "path": "/data/missing"}])),
        "/kind" => patch(json!([{"op": "replace", "path": "/kind", "value": "Secret"}])),
        "/type" => patch(json!([{"op": "add", "path": "/data/number", "value": 5}])),
        _ => patch(json!([{"op": "add", "path": "/metadata/labels", "value": {"a": "not/a/label!"}}])),
    })
    .await;
    let path = format!("{CONFIGURATIONS}/mutatingwebhookconfigurations/m");
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "m.example.com", maps())])).await.ok();
    for (at, wanted) in [("/missing", 500), ("/kind", 500), ("/type", 500), ("/invalid", 422)] {
        let mut hook = entry(&hooks.at(at), "m.example.com", maps());
        hook["failurePolicy"] = "Ignore".into();
        cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
        let (code, message) = cluster.post(MAPS, map("a")).await.refusal();
        assert_eq!(code, wanted, "{at}: {message}");
    }
    let deletions = json!([{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["*"]}]);
    let hook = entry(&hooks.at("/missing"), "m.example.com", deletions);
    cluster.merge(&path, json!({"webhooks": [hook]})).await.ok();
    cluster.post(MAPS, map("a")).await.ok();
    let (code, message) = cluster.delete(&format!("{MAPS}/a")).await.refusal();
    assert_eq!(code, 500);
    assert!(message.contains("attempted to modify the object, which is not supported for this operation"), "{message}");
}

#[tokio::test]
async fn who_wants_to_is_asked_again_about_what_others_changed() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|path, request| match path {
        "/counts" => {
            let data = request["object"]["data"].as_object().expect("data");
            patch(json!([{"op": "add", "path": "/data/count", "value": data.len().to_string()}]))
        }
        "/once" => patch(json!([{"op": "add", "path": "/data/once", "value": "1"}])),
        _ => patch(json!([{"op": "add", "path": "/data/late", "value": "1"}])),
    })
    .await;
    let mut counts = entry(&hooks.at("/counts"), "counts.example.com", maps());
    counts["reinvocationPolicy"] = "IfNeeded".into();
    let others = ["/once", "/late"].map(|at| entry(&hooks.at(at), &format!("{}.example.com", &at[1..]), maps()));
    cluster.post(MUTATING, configuration("m", [counts, others[0].clone(), others[1].clone()])).await.ok();
    let made = cluster.post(MAPS, map("a")).await.ok();
    assert_eq!(made["data"], json!({"a": "1", "count": "4", "once": "1", "late": "1"}));
    let asked: Vec<String> = hooks.take().into_iter().map(|(path, _)| path).collect();
    assert_eq!(asked, ["/counts", "/once", "/late", "/counts"]);
    // Nobody is asked again when nothing has changed.
    cluster.merge(&format!("{MAPS}/a"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(hooks.take().len(), 3);
}

#[tokio::test]
async fn connections_are_judged_by_their_options() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, request| {
        json!({"allowed": request["subResource"] != "attach", "status": {"message": "attaching is not allowed"}})
    })
    .await;
    cluster.post(PODS, pod("p", "")).await.ok();
    let rules = json!([{"operations": ["CONNECT"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods/*"]}]);
    cluster.post(VALIDATING, configuration("v", [entry(&hooks, "connect.example.com", rules)])).await.ok();
    let path = format!("{PODS}/p/attach?container=c&stdin=true&tty=1");
    let (_, message) = cluster.post(&path, json!({})).await.refusal();
    assert_eq!(message, "admission webhook \"connect.example.com\" denied the request: attaching is not allowed");
    let (_, request) = hooks.take().remove(0);
    assert_eq!(
        request["object"],
        json!({"kind": "PodAttachOptions", "apiVersion": "v1", "container": "c", "stdin": true, "tty": true})
    );
    assert_eq!(request["kind"], json!({"group": "", "version": "v1", "kind": "PodAttachOptions"}));
    assert_eq!((&request["operation"], &request["name"]), (&json!("CONNECT"), &json!("p")));
    assert_eq!((&request["oldObject"], &request["options"]), (&Value::Null, &Value::Null));
    // This one is let through, and fails for another reason.
    let (_, message) = cluster.post(&format!("{PODS}/p/exec?command=sh&command=-c"), json!({})).await.refusal();
    assert_eq!(message, "pod p does not have a host assigned");
    assert_eq!(hooks.take()[0].1["object"]["command"], json!(["sh", "-c"]));
    let (_, message) = cluster.post(&format!("{PODS}/p/portforward?ports=80,81"), json!({})).await.refusal();
    assert_eq!(message, "pod p does not have a host assigned");
    assert_eq!(hooks.take()[0].1["object"]["ports"], json!([80, 81]));
    let log = cluster.get(&format!("{PODS}/p/log")).await.code;
    assert_eq!((log, hooks.take().len()), (400, 0), "a log is read and not connected to");
}

#[tokio::test]
async fn a_connection_has_the_options_that_webhooks_leave() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| patch(json!([{"op": "add", "path": "/container", "value": "other"}]))).await;
    cluster.post(PODS, pod("p", "")).await.ok();
    let rules =
        json!([{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}]);
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "connect.example.com", rules)])).await.ok();
    let (_, message) = cluster.post(&format!("{PODS}/p/exec?container=c&command=sh"), json!({})).await.refusal();
    assert_eq!(message, "container other is not valid for pod p");
}

#[tokio::test]
async fn the_scale_of_an_object_is_judged_and_changed_as_such() {
    let cluster = Cluster::start().await;
    let hooks = Hooks::start(|_, _| patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 3}]))).await;
    cluster.post(DEPLOYMENTS, deployment("d")).await.ok();
    let rules =
        json!([{"operations": ["UPDATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*/scale"]}]);
    cluster.post(MUTATING, configuration("m", [entry(&hooks, "scale.example.com", rules)])).await.ok();
    let scaled = cluster.merge(&format!("{DEPLOYMENTS}/d/scale"), json!({"spec": {"replicas": 9}})).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 3);
    assert_eq!(cluster.get(&format!("{DEPLOYMENTS}/d")).await.ok()["spec"]["replicas"], 3);
    let (_, request) = hooks.take().remove(0);
    assert_eq!(request["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&request["object"]["spec"]["replicas"], &request["oldObject"]["spec"]["replicas"]),
        (&json!(9), &json!(2))
    );
    assert_eq!(request["resource"], json!({"group": "apps", "version": "v1", "resource": "deployments"}));
    cluster.merge(&format!("{DEPLOYMENTS}/d"), json!({"spec": {"replicas": 1}})).await.ok();
    assert_eq!(hooks.take().len(), 0);
}
