//! Who manages which fields of an object, from its creation on.

mod cluster;

use cluster::{Cluster, DEPLOYMENTS, deployment};
use serde_json::{Value, json};

const APPLY: &str = "application/apply-patch+yaml";

/// Each manager with its operation, its subresource and whether it has the replicas.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |entry: &Value| {
        let replicas = if entry["fieldsV1"]["f:spec"].get("f:replicas").is_some() { " replicas" } else { "" };
        let subresource = entry["subresource"].as_str().map_or(String::new(), |name| format!("/{name}"));
        let word = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        format!("{} {}{subresource}{replicas}", word("manager"), word("operation"))
    };
    entries.iter().map(text).collect()
}

#[tokio::test]
async fn whoever_writes_is_noted_by_the_part_that_is_written() {
    let cluster = Cluster::start().await;
    let agent = [("user-agent", "maker/v1 (linux)"), ("content-type", "application/json")];
    let made = cluster.raw("POST", DEPLOYMENTS, &agent, deployment("d").to_string()).await.ok();
    assert_eq!(managers(&made), ["maker Update replicas"]);
    let mut status = made.clone();
    status["status"] = json!({"observedGeneration": 1});
    let path = format!("{DEPLOYMENTS}/d/status?fieldManager=watcher");
    let object = cluster.put(&path, status).await.ok();
    assert_eq!(managers(&object), ["maker Update replicas", "watcher Update/status"]);
    let stored = cluster.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    let same = cluster.put(&format!("{DEPLOYMENTS}/d?fieldManager=other"), stored.clone()).await.ok();
    assert_eq!(same, stored, "what changes nothing is written by nobody");
    let reset = json!({"metadata": {"managedFields": [{}]}});
    let reset = cluster.merge(&format!("{DEPLOYMENTS}/d"), reset).await.ok();
    assert_eq!(managers(&reset), [""; 0]);
}

#[tokio::test]
async fn the_replicas_belong_to_who_scales() {
    let cluster = Cluster::start().await;
    cluster.post(&format!("{DEPLOYMENTS}?fieldManager=maker"), deployment("d")).await.ok();
    let path = |manager: &str| format!("{DEPLOYMENTS}/d/scale?fieldManager={manager}");
    cluster.merge(&path("scaler"), json!({"spec": {"replicas": 5}})).await.ok();
    let object = cluster.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    assert_eq!(managers(&object), ["maker Update", "scaler Update/scale replicas"]);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 7}});
    let (code, message) = cluster.patch(&path("second"), APPLY, scale.clone()).await.refusal();
    assert_eq!(code, 409);
    assert!(message.contains("\"scaler\" with subresource \"scale\" using apps/v1"), "{message}");
    let applied = cluster.patch(&format!("{}&force=true", path("second")), APPLY, scale).await.ok();
    assert_eq!((&applied["kind"], &applied["spec"]["replicas"]), (&json!("Scale"), &json!(7)));
    let object = cluster.get(&format!("{DEPLOYMENTS}/d")).await.ok();
    assert_eq!(managers(&object), ["second Apply/scale replicas", "maker Update"]);
}

#[tokio::test]
async fn bad_managers_and_undeclared_fields_are_refused_in_upstreams_words() {
    let cluster = Cluster::start().await;
    let (code, message) = cluster.post(&format!("{DEPLOYMENTS}?fieldManager=a%07"), deployment("d")).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("CreateOptions") && message.contains("fieldManager"), "{message}");
    let path = format!("{DEPLOYMENTS}/d?fieldManager=me&fieldValidation=Ignore");
    let mut wrong = deployment("d");
    wrong["spec"]["template"]["spec"]["containers"][0]["imagine"] = "x".into();
    let container = wrong["spec"]["template"]["spec"]["containers"][0]["name"].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        cluster.patch(&path, APPLY, wrong).await.refusal(),
        (
            400,
            format!(
                "failed to create typed patch object (default/d; apps/v1, Kind=Deployment): \
                 .spec.template.spec.containers[name=\"{container}\"].imagine: field not declared in schema"
            )
        )
    );
    let mut managed = deployment("d");
    managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(
        cluster.patch(&path, APPLY, managed).await.refusal(),
        (400, "metadata.managedFields must be nil".into())
    );
}

#[tokio::test]
async fn a_configuration_whose_elements_cannot_be_told_apart_is_refused() {
    let c = Cluster::start().await;
    let path = format!("{DEPLOYMENTS}/d?fieldManager=m");
    let apply = |ports: Value| {
        let mut configuration = deployment("d");
        configuration["spec"]["template"]["spec"]["containers"][0]["ports"] = ports;
        c.patch(&path, "application/apply-patch+yaml", configuration)
    };
    let twice = json!([{"name": "a", "containerPort": 80}, {"name": "b", "containerPort": 80, "protocol": "TCP"}]);
    let why = "failed to create typed patch object (default/d; apps/v1, Kind=Deployment): .spec.template.spec\
               .containers[name=\"c\"].ports: duplicate entries for key [containerPort=80,protocol=\"TCP\"]";
    assert_eq!(apply(twice).await.refusal(), (400, why.to_owned()));
    let mut configuration = deployment("d");
    configuration["spec"]["template"]["spec"]["containers"] = json!([{"image": "i"}]);
    let (code, message) = c.patch(&path, "application/apply-patch+yaml", configuration).await.refusal();
    let why = ".containers: element 0: associative list with keys has an element that omits all key fields [\"name\"]";
    assert!(code == 400 && message.contains(why), "{code} {message}");
    let apart = json!([{"name": "a", "containerPort": 80}, {"name": "b", "containerPort": 80, "protocol": "UDP"}]);
    assert_eq!(apply(apart).await.code, 201);
}
