//! Small changes of objects that are there: `scale`, `label`, `annotate`, `cordon`, `patch`.

use http::Method;
use serde_json::{Value, json};

use crate::discovery::{Discovery, Resource};
use crate::failure::{Failure, Outcome, error, said};
use crate::http::failure;
use crate::print::{self, Format};
use crate::{Context, get, manifests, targets};

const MERGE: &str = "application/merge-patch+json";

/// The objects that a command is about: by name, file, selector or `--all`.
pub(crate) async fn chosen<'a>(
    context: &Context,
    discovery: &'a Discovery,
    words: &[String],
    all_of_a_kind: bool,
) -> Outcome<Vec<(&'a Resource, Value)>> {
    let args = &context.args;
    let mut found = Vec::new();
    for (resource, name) in targets(discovery, words)? {
        let namespace = context.scope(resource);
        match name {
            Some(name) => found.push((resource, context.fetch(&resource.path(namespace.as_deref(), &name)).await?)),
            None if all_of_a_kind
                || args.flag("all")
                || args.get("selector").is_some()
                || args.get("field-selector").is_some() =>
            {
                let list =
                    context.fetch(&(resource.path(namespace.as_deref(), "") + &get::query(context, &[]))).await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    let mut item = item.clone();
                    item["kind"] = json!(resource.kind);
                    item["apiVersion"] = json!(resource.api_version());
                    found.push((resource, item));
                }
            }
            None => return Err(error("resource(s) were provided, but no name was specified")),
        }
    }
    let files = args.all("filename");
    if !files.is_empty() {
        for object in manifests::read(&files, args.flag("recursive"))? {
            let resource = discovery.of(&object).ok_or_else(|| get::unknown(&object))?;
            let namespace = context.namespace_of(&object, resource)?;
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            found.push((resource, context.fetch(&resource.path(namespace.as_deref(), name)).await?));
        }
    }
    Ok(found)
}

/// The path of an object that was fetched.
pub(crate) fn path_of(resource: &Resource, object: &Value) -> String {
    resource.path(object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str().unwrap_or_default())
}

pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(crate) async fn scale(context: &Context) -> Outcome {
    let args = &context.args;
    let Some(replicas) = args.number("replicas")? else {
        return Err(error("required flag(s) \"replicas\" not set"));
    };
    if replicas < 0 {
        return Err(error("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"));
    }
    let discovery = context.discovery().await?;
    let chosen = chosen(context, &discovery, &args.words, false).await?;
    if chosen.is_empty() {
        return Err(error("no objects passed to scale"));
    }
    for (resource, object) in chosen {
        if let Some(current) = args.number("current-replicas")?.filter(|current| *current >= 0)
            && object["spec"]["replicas"].as_i64() != Some(current)
        {
            return Err(error(format!("Expected replicas to be {current}, was {}", object["spec"]["replicas"])));
        }
        let path = path_of(resource, &object) + "/scale";
        context
            .server
            .put(Method::PATCH, &path, MERGE, &json!({"spec": {"replicas": replicas}}))
            .await
            .map_err(failure)?;
        print::out(&format!("{}/{} scaled\n", resource.word(), name_of(&object)))?;
    }
    Ok(())
}

pub(crate) async fn label(context: &Context, what: &str) -> Outcome {
    let args = &context.args;
    let single = what.trim_end_matches('s');
    let is_change = |word: &&String| word.contains('=') || (word.ends_with('-') && word.len() > 1);
    let changes: Vec<&String> = args.words.iter().filter(is_change).collect();
    let words: Vec<String> = args.words.iter().filter(|word| !is_change(word)).cloned().collect();
    if words.is_empty() && args.all("filename").is_empty() {
        return Err(error("one or more resources must be specified as <resource> <name> or <resource>/<name>"));
    }
    if changes.is_empty() {
        return Err(error(format!("at least one {single} update is required")));
    }
    let discovery = context.discovery().await?;
    let mut failed = false;
    for (resource, object) in chosen(context, &discovery, &words, false).await? {
        let known = &object["metadata"][what];
        let mut patch = serde_json::Map::new();
        let mut refused = None;
        for change in &changes {
            if let Some((name, value)) = change.split_once('=') {
                if !args.flag("overwrite") && known[name].as_str().is_some_and(|old| old != value) {
                    refused = Some(format!(
                        "'{name}' already has a value ({}), and --overwrite is false",
                        known[name].as_str().unwrap_or_default()
                    ));
                }
                patch.insert(name.to_owned(), json!(value));
            } else {
                let name = change.trim_end_matches('-');
                if known[name].is_null() {
                    print::out(&format!("{single} \"{name}\" not found.\n"))?;
                } else {
                    patch.insert(name.to_owned(), Value::Null);
                }
            }
        }
        if let Some(refused) = refused {
            eprintln!("error: {refused}");
            failed = true;
            continue;
        }
        let same = patch.iter().all(|(name, value)| known[name] == *value);
        let removed = !patch.is_empty() && patch.values().all(Value::is_null);
        let name = name_of(&object).to_owned();
        if !same {
            let body = json!({"metadata": {what: patch}});
            context.server.put(Method::PATCH, &path_of(resource, &object), MERGE, &body).await.map_err(failure)?;
        }
        let done = match (what, same, removed) {
            ("labels", true, _) => "not labeled",
            ("labels", _, true) => "unlabeled",
            ("labels", ..) => "labeled",
            _ => "annotated",
        };
        print::out(&format!("{}/{name} {done}\n", resource.word()))?;
    }
    if failed { Err(said(1)) } else { Ok(()) }
}

pub(crate) async fn cordon(context: &Context, yes: bool) -> Outcome {
    let verb = if yes { "cordon" } else { "uncordon" };
    let args = &context.args;
    if args.words.is_empty() && args.get("selector").is_none() {
        return Err(error(format!("USAGE: {verb} NODE [flags]\nSee 'kubectl {verb} -h' for help and examples")));
    }
    let discovery = context.discovery().await?;
    let words: Vec<String> = std::iter::once("node".to_owned())
        .chain(args.words.iter().map(|w| w.trim_start_matches("node/").trim_start_matches("nodes/").to_owned()))
        .collect();
    for (resource, node) in chosen(context, &discovery, &words, false).await? {
        let name = name_of(&node);
        if node["spec"]["unschedulable"].as_bool().unwrap_or(false) == yes {
            print::out(&format!("node/{name} already {verb}ed\n"))?;
            continue;
        }
        let value = if yes { json!(true) } else { Value::Null };
        let body = json!({"spec": {"unschedulable": value}});
        context.server.put(Method::PATCH, &path_of(resource, &node), MERGE, &body).await.map_err(failure)?;
        print::out(&format!("node/{name} {verb}ed\n"))?;
    }
    Ok(())
}

pub(crate) async fn patch(context: &Context) -> Outcome {
    let args = &context.args;
    let Some(text) = args.get("patch") else {
        return Err(error("must specify --patch or --patch-file containing the contents of the patch"));
    };
    let body: Value = serde_saphyr::from_str(text).map_err(|e| error(format!("unable to parse {text:?}: {e}")))?;
    let discovery = context.discovery().await?;
    let format = Format::read(args)?;
    for (resource, object) in chosen(context, &discovery, &args.words, false).await? {
        let kind = match args.get("type").unwrap_or("strategic") {
            "strategic" => "application/strategic-merge-patch+json",
            "merge" => MERGE,
            "json" => "application/json-patch+json",
            other => return Err(error(format!("--type must be one of [json merge strategic], not {other:?}"))),
        };
        let sub = args.get("subresource").map(|one| format!("/{one}")).unwrap_or_default();
        let path = path_of(resource, &object) + &sub;
        let changed = context.server.put(Method::PATCH, &path, kind, &body).await.map_err(|e| {
            match e.downcast_ref::<object_model::ApiError>() {
                Some(answer) if answer.reason == object_model::Reason::Invalid => {
                    Failure { message: format!("The {}", answer.message), code: 1 }
                }
                _ => failure(e),
            }
        })?;
        if !format.is_table() {
            print::objects(&format, vec![changed], false, |_| resource.word())?;
            continue;
        }
        let same = changed["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"];
        print::out(&format!(
            "{}/{} patched{}\n",
            resource.word(),
            name_of(&object),
            if same { " (no change)" } else { "" }
        ))?;
    }
    Ok(())
}
