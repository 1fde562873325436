//! `rollout`: how far a Deployment has come, its revisions, back to one of them, and anew.

use std::time::Duration;

use http::Method;
use object_model::LabelSelector;
use serde_json::{Value, json};

use crate::Context;
use crate::discovery::Resource;
use crate::failure::{Failure, Outcome, error};
use crate::http::failure;
use crate::modify::{chosen, name_of, path_of};
use crate::print;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CAUSE: &str = "kubernetes.io/change-cause";

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

/// What is said of a rollout, and whether it is done.
fn progress(object: &Value) -> Result<(String, bool), String> {
    let (name, spec, status) = (name_of(object), &object["spec"], &object["status"]);
    let generation = number(&object["metadata"]["generation"]);
    if number(&status["observedGeneration"]) < generation {
        let what = match object["kind"].as_str().unwrap_or_default() {
            "Deployment" => "deployment",
            "DaemonSet" => "daemon set",
            _ => return Ok(("Waiting for statefulset spec update to be observed...\n".to_owned(), false)),
        };
        return Ok((format!("Waiting for {what} spec update to be observed...\n"), false));
    }
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => {
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let late =
                conditions.iter().any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
            if late {
                return Err(format!("deployment \"{name}\" exceeded its progress deadline"));
            }
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let (all, updated, available) =
                (number(&status["replicas"]), number(&status["updatedReplicas"]), number(&status["availableReplicas"]));
            let said = if updated < wanted {
                format!(
                    "Waiting for deployment \"{name}\" rollout to finish: {updated} out of {wanted} new replicas have been updated...\n"
                )
            } else if all > updated {
                format!(
                    "Waiting for deployment \"{name}\" rollout to finish: {} old replicas are pending termination...\n",
                    all - updated
                )
            } else if available < updated {
                format!(
                    "Waiting for deployment \"{name}\" rollout to finish: {available} of {updated} updated replicas are available...\n"
                )
            } else {
                return Ok((format!("deployment \"{name}\" successfully rolled out\n"), true));
            };
            Ok((said, false))
        }
        "DaemonSet" => {
            let wanted = number(&status["desiredNumberScheduled"]);
            let (updated, available) = (number(&status["updatedNumberScheduled"]), number(&status["numberAvailable"]));
            let said = if updated < wanted {
                format!(
                    "Waiting for daemon set \"{name}\" rollout to finish: {updated} out of {wanted} new pods have been updated...\n"
                )
            } else if available < wanted {
                format!(
                    "Waiting for daemon set \"{name}\" rollout to finish: {available} of {wanted} updated pods are available...\n"
                )
            } else {
                return Ok((format!("daemon set \"{name}\" successfully rolled out\n"), true));
            };
            Ok((said, false))
        }
        _ => {
            let wanted = spec["replicas"].as_i64().unwrap_or(1);
            let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
            if ready < wanted {
                return Ok((format!("Waiting for {} pods to be ready...\n", wanted - ready), false));
            }
            if status["updateRevision"] != status["currentRevision"] {
                let said = format!(
                    "waiting for statefulset rolling update to complete {updated} pods at revision {}...\n",
                    status["updateRevision"].as_str().unwrap_or_default()
                );
                return Ok((said, false));
            }
            let current = number(&status["currentReplicas"]);
            Ok((
                format!(
                    "statefulset rolling update complete {current} pods at revision {}...\n",
                    status["currentRevision"].as_str().unwrap_or_default()
                ),
                true,
            ))
        }
    }
}

/// The one object of a rollout command, of a kind that has rollouts.
async fn subject(context: &Context) -> Outcome<Vec<(Resource, Value)>> {
    let discovery = context.discovery().await?;
    if context.args.words.is_empty() && context.args.all("filename").is_empty() {
        return Err(error("required resource not specified"));
    }
    // A kind alone means all of it.
    let found = chosen(context, &discovery, &context.args.words, true).await?;
    for (resource, _) in &found {
        if !matches!(resource.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet") {
            return Err(error(format!("no rollout is known of {:?}", resource.kind)));
        }
    }
    Ok(found.into_iter().map(|(resource, object)| (resource.clone(), object)).collect())
}

pub(crate) async fn status(context: &Context) -> Outcome {
    let limit = context.args.seconds("timeout")?.filter(|seconds| *seconds > 0.0).map(Duration::from_secs_f64);
    let follow = async {
        for (resource, mut object) in subject(context).await? {
            let wanted = context.args.number("revision")?.unwrap_or(0);
            let running =
                object["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse::<i64>().ok());
            if wanted > 0 && running != Some(wanted) {
                return Err(error(format!(
                    "desired revision ({wanted}) is different from the running revision ({})",
                    object["metadata"]["annotations"][REVISION].as_str().unwrap_or("0")
                )));
            }
            let name = name_of(&object).to_owned();
            let list = resource.path(object["metadata"]["namespace"].as_str(), "");
            let mut last = String::new();
            'object: loop {
                let (said, done) = progress(&object).map_err(error)?;
                if said != last {
                    print::out(&said)?;
                    last = said;
                }
                if done || !context.args.flag_or("watch", true) {
                    break;
                }
                let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
                let path = format!("{list}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}");
                let mut events = context.server.lines(&path, "application/json").await.map_err(failure)?;
                loop {
                    let Some((kind, changed)) = events.event().await.map_err(failure)? else {
                        object = context.fetch(&path_of(&resource, &object)).await?;
                        continue 'object;
                    };
                    if kind == "DELETED" {
                        return Err(error("object has been deleted"));
                    }
                    object = changed;
                    object["kind"] = json!(resource.kind);
                    let (said, done) = progress(&object).map_err(error)?;
                    if said != last {
                        print::out(&said)?;
                        last = said;
                    }
                    if done {
                        break 'object;
                    }
                }
            }
        }
        Ok(())
    };
    match limit {
        None => follow.await,
        Some(limit) => tokio::time::timeout(limit, follow)
            .await
            .unwrap_or_else(|_| Err(error("timed out waiting for the condition"))),
    }
}

/// The ReplicaSets of a Deployment by revision.
async fn revisions(context: &Context, deployment: &Value) -> Outcome<Vec<(i64, Value)>> {
    let namespace = deployment["metadata"]["namespace"].as_str().unwrap_or_default();
    let list = context.fetch(&format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).await?;
    let uid = &deployment["metadata"]["uid"];
    let mut found: Vec<(i64, Value)> = Vec::new();
    for set in list["items"].as_array().into_iter().flatten() {
        let owned =
            set["metadata"]["ownerReferences"].as_array().is_some_and(|all| all.iter().any(|o| o["uid"] == *uid));
        let revision = set["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok());
        if let (true, Some(revision)) = (owned, revision) {
            found.push((revision, set.clone()));
        }
    }
    found.sort_by_key(|(revision, _)| *revision);
    Ok(found)
}

fn only_deployments(resource: &Resource) -> Outcome {
    if resource.kind == "Deployment" {
        return Ok(());
    }
    Err(error(format!("the history of a {} is not built in: use kubectl for it", resource.kind)))
}

/// A pod template without what its ReplicaSet added.
fn template(set: &Value) -> Value {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

pub(crate) async fn history(context: &Context) -> Outcome {
    for (resource, object) in subject(context).await? {
        only_deployments(&resource)?;
        let found = revisions(context, &object).await?;
        let name = name_of(&object);
        if let Some(wanted) = context.args.number("revision")?.filter(|n| *n > 0) {
            let Some((_, set)) = found.iter().find(|(revision, _)| *revision == wanted) else {
                return Err(error(format!("unable to find the specified revision {wanted} in history")));
            };
            let mut text = format!("{}/{name} with revision #{wanted}\nPod Template:\n", resource.word());
            text += &crate::describe::pod_template(&set["spec"]["template"], 2);
            print::out(&(text + "\n"))?;
            continue;
        }
        let mut rows = vec![vec!["REVISION".to_owned(), "CHANGE-CAUSE".to_owned()]];
        for (revision, set) in &found {
            let cause = set["metadata"]["annotations"][CAUSE].as_str().unwrap_or("<none>");
            rows.push(vec![revision.to_string(), cause.to_owned()]);
        }
        // Two blanks between the columns, as kubectl has it here.
        let width = rows.iter().map(|row| row[0].len()).max().unwrap_or(0) + 2;
        let table: String = rows.iter().map(|row| format!("{:width$}{}\n", row[0], row[1])).collect();
        print::out(&format!("{}/{name} \n{table}\n", resource.word()))?;
    }
    Ok(())
}

pub(crate) async fn undo(context: &Context) -> Outcome {
    for (resource, object) in subject(context).await? {
        only_deployments(&resource)?;
        let found = revisions(context, &object).await?;
        let name = name_of(&object);
        if object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].is_string() {
            eprintln!(
                "Warning: resource {}/{name} was previously managed with 'kubectl apply'. Rolling back will not update the kubectl.kubernetes.io/last-applied-configuration annotation, which may cause unexpected behavior on future 'kubectl apply' operations. Consider using 'kubectl apply' with your previous configuration file instead.",
                resource.plural
            );
        }
        let wanted = context.args.number("to-revision")?.unwrap_or(0);
        if object["spec"]["paused"] == true {
            return Err(error(format!(
                "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume {}/{name}' and try again",
                resource.word()
            )));
        }
        let target = if wanted > 0 {
            found
                .iter()
                .find(|(revision, _)| *revision == wanted)
                .ok_or_else(|| error(format!("unable to find specified revision {wanted} in history")))?
        } else {
            let count = found.len();
            if count < 2 {
                return Err(error(format!("no rollout history found for deployment \"{name}\"")));
            }
            &found[count - 2]
        };
        let back = template(&target.1);
        let mut current = object["spec"]["template"].clone();
        if let Some(labels) = current["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        if back == current {
            print::out(&format!(
                "{}/{name} skipped rollback (current template already matches revision {})\n",
                resource.word(),
                target.0
            ))?;
            continue;
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": back}]);
        context
            .server
            .put(Method::PATCH, &path_of(&resource, &object), "application/json-patch+json", &patch)
            .await
            .map_err(failure)?;
        print::out(&format!("{}/{name} rolled back\n", resource.word()))?;
    }
    Ok(())
}

pub(crate) async fn restart(context: &Context) -> Outcome {
    for (resource, object) in subject(context).await? {
        let name = name_of(&object);
        if object["spec"]["paused"] == true {
            return Err(error(format!(
                "{}s.apps \"{name}\" can't restart paused deployment (run rollout resume first)",
                resource.kind.to_lowercase()
            )));
        }
        let now = client::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patch =
            json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}}}});
        context
            .server
            .put(Method::PATCH, &path_of(&resource, &object), "application/strategic-merge-patch+json", &patch)
            .await
            .map_err(failure)?;
        print::out(&format!("{}/{name} restarted\n", resource.word()))?;
    }
    Ok(())
}

pub(crate) async fn pause(context: &Context, yes: bool) -> Outcome {
    let verb = if yes { "paused" } else { "resumed" };
    for (resource, object) in subject(context).await? {
        let name = name_of(&object);
        if resource.kind != "Deployment" {
            return Err(error(format!(
                "{} \"{name}\" {} is not supported",
                resource.plural_word(),
                if yes { "pausing" } else { "resuming" }
            )));
        }
        if (object["spec"]["paused"] == true) == yes {
            let state = if yes { "is already paused" } else { "is not paused" };
            return Err(Failure { message: format!("error: {} \"{name}\" {state}", resource.plural_word()), code: 1 });
        }
        let value = if yes { json!(true) } else { Value::Null };
        let patch = json!({"spec": {"paused": value}});
        context
            .server
            .put(Method::PATCH, &path_of(&resource, &object), "application/merge-patch+json", &patch)
            .await
            .map_err(failure)?;
        print::out(&format!("{}/{name} {verb}\n", resource.word()))?;
    }
    Ok(())
}

/// A label selector as a query has it: `a=b,c in (d)`.
pub(crate) fn selector_text(selector: &Value) -> Outcome<String> {
    if let Some(plain) = selector.as_object().filter(|map| map.values().all(Value::is_string) && !map.is_empty()) {
        let pairs: Vec<String> =
            plain.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
        return Ok(pairs.join(","));
    }
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    for one in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = one["key"].as_str().unwrap_or_default();
        let values: Vec<&str> = one["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match one["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    let text = parts.join(",");
    LabelSelector::parse(&text).map_err(|e| error(format!("invalid label selector: {e}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_progress_of_a_deployment_is_told_step_by_step() {
        let of = |observed: i64, all: i64, updated: i64, available: i64| {
            let object = json!({"kind": "Deployment", "metadata": {"name": "e", "generation": 2}, "spec": {"replicas": 3},
                "status": {"observedGeneration": observed, "replicas": all, "updatedReplicas": updated, "availableReplicas": available}});
            progress(&object).unwrap()
        };
        assert_eq!(of(1, 0, 0, 0).0, "Waiting for deployment spec update to be observed...\n");
        assert_eq!(
            of(2, 3, 1, 3).0,
            "Waiting for deployment \"e\" rollout to finish: 1 out of 3 new replicas have been updated...\n"
        );
        assert_eq!(
            of(2, 4, 3, 3).0,
            "Waiting for deployment \"e\" rollout to finish: 1 old replicas are pending termination...\n"
        );
        assert_eq!(
            of(2, 3, 3, 2).0,
            "Waiting for deployment \"e\" rollout to finish: 2 of 3 updated replicas are available...\n"
        );
        assert_eq!(of(2, 3, 3, 3), ("deployment \"e\" successfully rolled out\n".to_owned(), true));
    }

    #[test]
    fn selectors_are_written_for_a_query() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]});
        assert_eq!(selector_text(&selector).unwrap(), "a=b,c in (d,e)");
        assert_eq!(selector_text(&json!({"app": "x"})).unwrap(), "app=x");
    }
}
