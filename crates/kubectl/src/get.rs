//! `get`: tables that the server draws, or objects as they are; once or as they change.

use std::collections::BTreeMap;

use http::Method;
use object_model::ApiError;
use serde_json::Value;

use crate::discovery::{Discovery, Resource};
use crate::failure::{Failure, Outcome, error, said};
use crate::http::{encode, failure};
use crate::print::{self, Format, Shown, Table};
use crate::{Context, manifests, targets};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// The query of selectors.
pub(crate) fn query(context: &Context, more: &[(&str, &str)]) -> String {
    let args = &context.args;
    let mut pairs: Vec<(&str, String)> = Vec::new();
    pairs.extend(args.get("selector").map(|value| ("labelSelector", value.to_owned())));
    pairs.extend(args.get("field-selector").map(|value| ("fieldSelector", value.to_owned())));
    pairs.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    if text.is_empty() { String::new() } else { format!("?{}", text.join("&")) }
}

/// What one request is about.
struct Ask<'a> {
    resource: &'a Resource,
    namespace: Option<String>,
    name: Option<String>,
}

pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.args;
    let format = Format::read(args)?;
    let files = args.all("filename");
    if args.words.is_empty() && files.is_empty() {
        return Err(Failure {
            message: "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of supported resources.\n\nerror: Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that resource (e.g. kubectl explain pods).\nSee 'kubectl get -h' for help and examples".to_owned(),
            code: 1,
        });
    }
    let discovery = context.discovery().await?;
    let mut asks = Vec::new();
    for (resource, name) in targets(&discovery, &args.words)? {
        if name.is_some() && args.flag("all-namespaces") {
            return Err(error("a resource cannot be retrieved by name across all namespaces"));
        }
        if name.is_some() && args.get("selector").is_some() {
            return Err(error("name cannot be provided when a selector is specified"));
        }
        // A category may hold what cannot be listed.
        if name.is_none() && !resource.verbs.iter().any(|verb| verb == "list") {
            continue;
        }
        asks.push(Ask { resource, namespace: context.scope(resource), name });
    }
    if !files.is_empty() {
        for object in manifests::read(&files, args.flag("recursive"))? {
            let resource = discovery.of(&object).ok_or_else(|| unknown(&object))?;
            let name = object["metadata"]["name"].as_str().map(str::to_owned);
            asks.push(Ask { resource, namespace: context.namespace_of(&object, resource)?, name });
        }
    }
    if args.flag("watch") {
        return watch(context, &discovery, asks, &format).await;
    }
    if let Format::Table { wide } = format {
        tables(context, &asks, wide).await
    } else {
        plain(context, &discovery, &asks, &format).await
    }
}

/// kubectl's regret about a kind.
pub(crate) fn unknown(object: &Value) -> Failure {
    let kind = object["kind"].as_str().unwrap_or_default();
    let version = object["apiVersion"].as_str().unwrap_or_default();
    error(format!(
        "resource mapping not found for name: \"{}\" namespace: \"{}\" from \"STDIN\": no matches for kind \"{kind}\" in version \"{version}\"\nensure CRDs are installed first",
        object["metadata"]["name"].as_str().unwrap_or_default(),
        object["metadata"]["namespace"].as_str().unwrap_or_default()
    ))
}

fn path(context: &Context, ask: &Ask<'_>, more: &[(&str, &str)]) -> String {
    let path = ask.resource.path(ask.namespace.as_deref(), ask.name.as_deref().unwrap_or_default());
    if ask.name.is_some() { path } else { path + &query(context, more) }
}

/// Says an error of one of several requests. True if it was one that `--ignore-not-found` forgives.
fn say(context: &Context, e: anyhow::Error) -> bool {
    let forgiven = context.args.flag("ignore-not-found")
        && e.downcast_ref::<ApiError>().is_some_and(|e| e.reason == object_model::Reason::NotFound);
    if !forgiven {
        eprintln!("{}", failure(e).message);
    }
    forgiven
}

async fn tables(context: &Context, asks: &[Ask<'_>], wide: bool) -> Outcome {
    let args = &context.args;
    let shown = Shown { wide, namespaces: false, labels: args.flag("show-labels") };
    let kinds: BTreeMap<String, ()> = asks.iter().map(|ask| (ask.resource.plural_word(), ())).collect();
    let several = kinds.len() > 1;
    let mut failed = false;
    let mut text = String::new();
    let mut empty = true;
    let mut last: Option<(&Resource, Table)> = None;
    let finish = |last: Option<(&Resource, Table)>, text: &mut String| {
        let Some((_, table)) = last.filter(|(_, table)| !table.rows.is_empty()) else { return };
        if !text.is_empty() {
            text.push('\n');
        }
        *text += &table.text(!args.flag("no-headers"), &mut Vec::new());
    };
    for ask in asks {
        let answer = context.server.call(Method::GET, &path(context, ask, &[("limit", "500")]), TABLE, None).await;
        let bytes = match answer {
            Ok(bytes) => bytes,
            // Of a connection that fails all fail.
            Err(e) if e.downcast_ref::<ApiError>().is_none() => return Err(failure(e)),
            Err(e) => {
                failed |= !say(context, e);
                continue;
            }
        };
        let mut value: Value = serde_json::from_slice(&bytes).map_err(|e| error(e.to_string()))?;
        let prefix = if several { format!("{}/", ask.resource.word()) } else { String::new() };
        if last.as_ref().is_none_or(|(resource, _)| *resource != ask.resource) {
            finish(last.take(), &mut text);
            last = Some((ask.resource, Table::default()));
        }
        let Some((_, table)) = &mut last else { continue };
        let shown = Shown { namespaces: ask.resource.namespaced && args.flag("all-namespaces"), ..shown };
        loop {
            table.add(&value, shown, &prefix);
            let Some(token) = value["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) else { break };
            let next = path(context, ask, &[("limit", "500"), ("continue", token)]);
            let bytes = context.server.call(Method::GET, &next, TABLE, None).await.map_err(failure)?;
            value = serde_json::from_slice(&bytes).map_err(|e| error(e.to_string()))?;
        }
        empty &= table.rows.is_empty();
    }
    finish(last, &mut text);
    print::out(&text)?;
    if failed {
        return Err(said(1));
    }
    if empty && !args.flag("ignore-not-found") {
        let namespaced = asks.iter().any(|ask| ask.resource.namespaced) && !args.flag("all-namespaces");
        let place = if namespaced { format!(" in {} namespace.", context.namespace()) } else { String::new() };
        eprintln!("No resources found{place}");
    }
    Ok(())
}

async fn plain(context: &Context, discovery: &Discovery, asks: &[Ask<'_>], format: &Format) -> Outcome {
    let mut objects = Vec::new();
    let mut failed = false;
    let mut as_list = asks.len() > 1;
    for ask in asks {
        match context.server.get(&path(context, ask, &[])).await {
            Ok(mut value) if ask.name.is_none() => {
                as_list = true;
                let kind = value["kind"].as_str().unwrap_or_default().trim_end_matches("List").to_owned();
                let version = value["apiVersion"].clone();
                for mut item in value["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
                    item["kind"] = Value::from(kind.clone());
                    item["apiVersion"] = version.clone();
                    objects.push(item);
                }
            }
            Ok(value) => objects.push(value),
            Err(e) if e.downcast_ref::<ApiError>().is_none() => return Err(failure(e)),
            Err(e) => failed |= !say(context, e),
        }
    }
    let nothing = objects.is_empty();
    if !(nothing && (failed || !as_list || context.args.flag("ignore-not-found"))) {
        print::objects(format, objects, as_list, |object| {
            discovery.of(object).map_or_else(String::new, Resource::word)
        })?;
    }
    if failed { Err(said(1)) } else { Ok(()) }
}

async fn watch(context: &Context, discovery: &Discovery, asks: Vec<Ask<'_>>, format: &Format) -> Outcome {
    let [ask] = &asks[..] else {
        return Err(error("you may only specify a single resource type"));
    };
    let args = &context.args;
    let name = ask.name.clone();
    let fields = name.as_ref().map(|name| format!("metadata.name={name}"));
    let list = Ask { resource: ask.resource, namespace: ask.namespace.clone(), name: None };
    let mut more: Vec<(&str, &str)> = Vec::new();
    more.extend(fields.as_deref().map(|fields| ("fieldSelector", fields)));
    let accept = if format.is_table() { TABLE } else { "application/json" };
    let wide = *format == Format::Table { wide: true };
    let shown = Shown { wide, namespaces: args.flag("all-namespaces"), labels: args.flag("show-labels") };
    let mut widths = Vec::new();
    let mut headers = !args.flag("no-headers");
    let mut version;
    if let Some(name) = &name {
        // What is not there cannot be watched.
        context.fetch(&ask.resource.path(ask.namespace.as_deref(), name)).await?;
    }
    let bytes = context.server.call(Method::GET, &path(context, &list, &more), accept, None).await.map_err(failure)?;
    let first: Value = serde_json::from_slice(&bytes).map_err(|e| error(e.to_string()))?;
    version = first["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let mut show = |value: &Value, kind: &str| -> Outcome {
        if !format.is_table() {
            let word = |object: &Value| discovery.of(object).map_or_else(String::new, Resource::word);
            return print::objects(format, vec![value.clone()], false, word);
        }
        let mut table = Table::default();
        table.add(value, shown, "");
        if table.rows.is_empty() || kind == "BOOKMARK" {
            return Ok(());
        }
        print::out(&table.text(std::mem::take(&mut headers), &mut widths))
    };
    if !args.flag("watch-only") {
        if format.is_table() {
            show(&first, "ADDED")?;
        } else {
            for item in first["items"].as_array().into_iter().flatten() {
                let mut item = item.clone();
                item["kind"] = Value::from(ask.resource.kind.clone());
                item["apiVersion"] = Value::from(ask.resource.api_version());
                show(&item, "ADDED")?;
            }
        }
    }
    loop {
        let mut more = more.clone();
        more.extend([("watch", "true"), ("resourceVersion", version.as_str())]);
        let mut events = context.server.lines(&path(context, &list, &more), accept).await.map_err(failure)?;
        let mut seen = None;
        while let Some((kind, object)) = events.event().await.map_err(failure)? {
            let metadata =
                if format.is_table() { &object["rows"][0]["object"]["metadata"] } else { &object["metadata"] };
            let now = metadata["resourceVersion"].as_str().or_else(|| object["metadata"]["resourceVersion"].as_str());
            seen = now.map(str::to_owned).or(seen);
            show(&object, &kind)?;
        }
        // The server ends a watch now and then; it goes on from there.
        if let Some(seen) = seen {
            version = seen;
        }
    }
}
