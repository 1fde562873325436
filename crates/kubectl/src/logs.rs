//! `logs`: what containers have printed, and what they print from now on.

use serde_json::Value;

use crate::discovery::Discovery;
use crate::failure::{Outcome, error};
use crate::http::{encode, failure};
use crate::{Context, get, rollout, targets};

/// The annotation that says which container is meant when nobody says.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Names of a pod's containers, those of a list.
pub(crate) fn containers(pod: &Value, list: &str) -> Vec<String> {
    let all = pod["spec"][list].as_array();
    all.into_iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect()
}

/// The container that is meant: the one that is named, the pod's default, or the first, of which one is told.
pub(crate) fn container(pod: &Value, asked: Option<&str>, quiet: bool) -> Outcome<String> {
    let names = containers(pod, "containers");
    let all: Vec<String> =
        [names.clone(), containers(pod, "initContainers"), containers(pod, "ephemeralContainers")].concat();
    if let Some(asked) = asked {
        return if all.iter().any(|name| name == asked) {
            Ok(asked.to_owned())
        } else {
            Err(error(format!(
                "container {asked} not found in pod {}",
                pod["metadata"]["name"].as_str().unwrap_or_default()
            )))
        };
    }
    if let Some(name) =
        pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().filter(|name| all.iter().any(|n| n == name))
    {
        return Ok(name.to_owned());
    }
    let first = names.first().cloned().ok_or_else(|| error("the pod has no containers"))?;
    if all.len() > 1 && !quiet {
        let init = containers(pod, "initContainers").into_iter().map(|name| format!("{name} (init)"));
        let told: Vec<String> = names.into_iter().chain(init).collect();
        eprintln!("Defaulted container \"{first}\" out of: {}", told.join(", "));
    }
    Ok(first)
}

/// The pod that words like `web`, `pod/web` and `deployment/web` mean.
pub(crate) async fn pods(context: &Context, discovery: &Discovery, word: &str, told: bool) -> Outcome<Vec<Value>> {
    let word = if word.contains('/') { word.to_owned() } else { format!("pods/{word}") };
    let [(resource, Some(name))] = &targets(discovery, &[word])?[..] else {
        return Err(error("expected a pod, or something that has pods"));
    };
    let object = context.fetch(&resource.path(Some(context.namespace()), name)).await?;
    if resource.kind == "Pod" {
        return Ok(vec![object]);
    }
    let selector = rollout::selector_text(&object["spec"]["selector"])?;
    if selector.is_empty() {
        return Err(error(format!("cannot get the logs from {}: it selects no pods", resource.kind)));
    }
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector={}", context.namespace(), encode(&selector));
    let list = context.fetch(&path).await?;
    let mut pods: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    // Those that run first, and of them the one that has run longest.
    pods.sort_by_key(|pod| {
        let ready = pod["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"));
        (
            pod["status"]["phase"] != "Running",
            !ready,
            pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned(),
        )
    });
    let Some(first) = pods.first() else {
        return Err(error(format!(
            "timed out waiting for the condition: no pods found for {}/{name}",
            resource.word()
        )));
    };
    if told && pods.len() > 1 {
        eprintln!("Found {} pods, using pod/{}", pods.len(), first["metadata"]["name"].as_str().unwrap_or_default());
    }
    Ok(pods)
}

pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.args;
    let selector = args.get("selector").is_some();
    let (word, more) = match (&args.words[..], selector) {
        ([], true) => (None, None),
        ([word], false) => (Some(word), None),
        ([word, container], false) => (Some(word), Some(container.as_str())),
        ([], false) => {
            return Err(error(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kubectl logs -h' for help and examples",
            ));
        }
        (_, true) => return Err(error("only a selector (-l) or a POD name is allowed")),
        _ => {
            return Err(error(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command\nSee 'kubectl logs -h' for help and examples",
            ));
        }
    };
    let asked = args.get("container").or(more);
    if let Some(tail) = args.number("tail")?.filter(|tail| *tail < -1) {
        return Err(error(format!("invalid --tail={tail}: --tail must be greater than or equal to -1")));
    }
    let all = args.flag("all-containers");
    let chosen = match word {
        Some(word) => {
            let discovery = context.discovery().await?;
            let all_pods = args.flag("all-pods");
            let mut pods = pods(context, &discovery, word, !all_pods).await.map_err(|e| {
                // kubectl words it so, and for logs alone.
                match e.message.strip_prefix("Error from server (NotFound): ") {
                    Some(said) => {
                        error(format!("error from server (NotFound): {said} in namespace \"{}\"", context.namespace()))
                    }
                    None => e,
                }
            })?;
            if !all_pods {
                pods.truncate(1);
            }
            pods
        }
        None => {
            let path = format!("/api/v1/namespaces/{}/pods{}", context.namespace(), get::query(context, &[]));
            let list = context.fetch(&path).await?;
            list["items"].as_array().cloned().unwrap_or_default()
        }
    };
    if chosen.is_empty() {
        eprintln!("No resources found in {} namespace.", context.namespace());
        return Ok(());
    }
    let mut sources = Vec::new();
    for pod in &chosen {
        let names = if all {
            [containers(pod, "initContainers"), containers(pod, "containers")].concat()
        } else {
            let names = [containers(pod, "containers"), containers(pod, "initContainers")].concat();
            if let Some(asked) = asked.filter(|asked| !names.iter().any(|name| name == asked)) {
                return Err(error(format!(
                    "container {asked} is not valid for pod {} out of: {}",
                    pod["metadata"]["name"].as_str().unwrap_or_default(),
                    names.join(", ")
                )));
            }
            vec![container(pod, asked, false)?]
        };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        sources.extend(names.into_iter().map(|container| (name.clone(), container)));
    }
    let mut query = Vec::new();
    for (flag, name) in [("follow", "follow"), ("previous", "previous"), ("timestamps", "timestamps")] {
        if args.flag(flag) {
            query.push(format!("{name}=true"));
        }
    }
    // With a selector the last ten lines are enough, unless one says otherwise.
    let tail = args.number("tail")?.or(selector.then_some(10)).filter(|tail| *tail >= 0);
    query.extend(tail.map(|tail| format!("tailLines={tail}")));
    query.extend(args.seconds("since")?.map(|since| format!("sinceSeconds={}", since.ceil())));
    query.extend(args.get("since-time").map(|time| format!("sinceTime={}", encode(time))));
    query.extend(args.number("limit-bytes")?.map(|bytes| format!("limitBytes={bytes}")));
    let prefix = args.flag("prefix");
    if !args.flag("follow") || sources.len() == 1 {
        for (pod, container) in &sources {
            one(context, pod, container, &query, prefix).await?;
        }
        return Ok(());
    }
    if sources.len() > 5 {
        return Err(error(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is 5, use --max-log-requests to increase the limit",
            sources.len()
        )));
    }
    let all = sources.iter().map(|(pod, container)| Box::pin(one(context, pod, container, &query, prefix)));
    futures::future::try_join_all(all).await.map(drop)
}

async fn one(context: &Context, pod: &str, container: &str, query: &[String], prefix: bool) -> Outcome {
    let mut path = format!("/api/v1/namespaces/{}/pods/{pod}/log?container={}", context.namespace(), encode(container));
    for part in query {
        path += &format!("&{part}");
    }
    let mut lines = context.server.lines(&path, "application/json, */*").await.map_err(failure)?;
    if !prefix {
        while let Some(piece) = lines.piece().await.map_err(failure)? {
            write(&piece)?;
        }
        return Ok(());
    }
    while let Some(line) = lines.next().await.map_err(failure)? {
        let head = format!("[pod/{pod}/{container}] ");
        write(&[head.as_bytes(), &line, b"\n"].concat())?;
    }
    Ok(())
}

fn write(bytes: &[u8]) -> Outcome {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(crate::failure::said(141)),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_is_the_one_asked_for_the_default_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, None, true).unwrap(), "a");
        assert_eq!(container(&pod, Some("b"), true).unwrap(), "b");
        assert_eq!(container(&pod, Some("c"), true).unwrap_err().message, "error: container c not found in pod p");
        pod["metadata"]["annotations"] = json!({DEFAULT_CONTAINER: "b"});
        assert_eq!(container(&pod, None, true).unwrap(), "b");
    }
}
