//! `delete`: by name, by selector, or by what a manifest holds; and waiting until it is gone.

use std::time::Duration;

use http::Method;
use object_model::{ApiError, Reason};
use serde_json::{Value, json};

use crate::discovery::Resource;
use crate::failure::{Failure, Outcome, error, said};
use crate::http::failure;
use crate::print;
use crate::{Context, get, manifests, targets};

/// How often a deleted object is looked for.
const LOOK: Duration = Duration::from_millis(100);

struct Doomed<'a> {
    resource: &'a Resource,
    namespace: Option<String>,
    name: String,
}

pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.args;
    let files = args.all("filename");
    let (all, selector) = (args.flag("all"), args.get("selector").is_some() || args.get("field-selector").is_some());
    if args.words.is_empty() && files.is_empty() {
        return Err(error(
            "You must provide one or more resources by argument or filename.\nExample resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   '<resource> <name>'\n   '<resource>'",
        ));
    }
    let mut grace = args.number("grace-period")?;
    let force = args.flag("force");
    if args.flag("now") {
        if grace.is_some() {
            return Err(error("--now and --grace-period cannot be specified together"));
        }
        grace = Some(1);
    }
    if grace == Some(0) && !force {
        // Zero is only meant in earnest together with --force.
        grace = Some(1);
    }
    if force {
        grace = grace.or(Some(0));
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    let cascade = match args.get("cascade").unwrap_or("background") {
        "background" | "true" => "Background",
        "foreground" => "Foreground",
        "orphan" | "false" => "Orphan",
        other => {
            return Err(error(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            )));
        }
    };
    let discovery = context.discovery().await?;
    let mut doomed = Vec::new();
    let ignore = args.flag("ignore-not-found") || all || selector;
    let mut failed = false;
    for (resource, name) in targets(&discovery, &args.words)? {
        let namespace = context.scope(resource);
        if let Some(name) = name {
            if all || selector {
                return Err(error(if all {
                    "name cannot be provided when --all is specified"
                } else {
                    "name cannot be provided when a selector is specified"
                }));
            }
            doomed.push(Doomed { resource, namespace, name });
            continue;
        }
        if !all && !selector {
            return Err(error("resource(s) were provided, but no name was specified"));
        }
        let list = context.fetch(&(resource.path(namespace.as_deref(), "") + &get::query(context, &[]))).await?;
        for item in list["items"].as_array().into_iter().flatten() {
            let text = |key: &str| item["metadata"][key].as_str().map(str::to_owned);
            doomed.push(Doomed { resource, namespace: text("namespace"), name: text("name").unwrap_or_default() });
        }
    }
    if !files.is_empty() {
        for object in manifests::read(&files, args.flag("recursive"))? {
            let Some(resource) = discovery.of(&object) else {
                eprintln!("{}", get::unknown(&object).message);
                failed = true;
                continue;
            };
            let namespace = context.namespace_of(&object, resource)?;
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            doomed.push(Doomed { resource, namespace, name });
        }
    }
    if doomed.is_empty() && !failed {
        return print::out("No resources found\n");
    }
    let mut going = Vec::new();
    for one in &doomed {
        let path = one.resource.path(one.namespace.as_deref(), &one.name);
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": cascade});
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = json!(grace);
        }
        match context.server.put(Method::DELETE, &path, "application/json", &options).await {
            Ok(answer) => {
                say(context, one, force)?;
                let uid = answer["metadata"]["uid"].as_str().or_else(|| answer["details"]["uid"].as_str());
                going.push((path, uid.map(str::to_owned)));
            }
            Err(e) if ignore && e.downcast_ref::<ApiError>().is_some_and(|e| e.reason == Reason::NotFound) => {}
            Err(e) if e.downcast_ref::<ApiError>().is_none() => return Err(failure(e)),
            Err(e) => {
                let Failure { message, .. } = failure(e);
                if files.is_empty() {
                    eprintln!("{message}");
                } else {
                    eprintln!(
                        "{}",
                        message.replacen("): ", &format!("): error when deleting \"{}\": ", source(&files)), 1)
                    );
                }
                failed = true;
            }
        }
    }
    if args.flag_or("wait", true) {
        let limit = args.seconds("timeout")?.filter(|seconds| *seconds > 0.0).map(Duration::from_secs_f64);
        let gone = async {
            for (path, uid) in &going {
                until_gone(context, path, uid.as_deref()).await?;
            }
            Outcome::Ok(())
        };
        match limit {
            None => gone.await?,
            Some(limit) => tokio::time::timeout(limit, gone).await.map_err(|_| {
                let first =
                    doomed.first().map(|one| format!(" on {}/{}", one.resource.plural, one.name)).unwrap_or_default();
                error(format!("timed out waiting for the condition{first}"))
            })??,
        }
    }
    if failed { Err(said(1)) } else { Ok(()) }
}

fn source(files: &[String]) -> String {
    let source = files.join(",");
    if source == "-" { "STDIN".to_owned() } else { source }
}

fn say(context: &Context, one: &Doomed<'_>, force: bool) -> Outcome {
    let word = one.resource.word();
    if context.args.get("output") == Some("name") {
        return print::out(&format!("{word}/{}\n", one.name));
    }
    let done = if force { "force deleted" } else { "deleted" };
    let place = one.namespace.as_ref().map(|namespace| format!(" from {namespace} namespace")).unwrap_or_default();
    print::out(&format!("{word} \"{}\" {done}{place}\n", one.name))
}

/// Waits until an object is gone, or another has its name.
pub(crate) async fn until_gone(context: &Context, path: &str, uid: Option<&str>) -> Outcome {
    loop {
        match context.server.get(path).await {
            Ok(object) => {
                let now: &Value = &object["metadata"]["uid"];
                if uid.is_some_and(|uid| now != uid) {
                    return Ok(());
                }
            }
            Err(e) if e.downcast_ref::<ApiError>().is_some_and(|e| e.reason == Reason::NotFound) => return Ok(()),
            Err(e) => return Err(failure(e)),
        }
        tokio::time::sleep(LOOK).await;
    }
}
