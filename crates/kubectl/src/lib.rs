//! The built-in command-line client: the verbs of kubectl that the tutorial needs, with kubectl's words.
//!
//! A client like any other: it reads a kubeconfig and talks HTTPS. One file for each group of verbs; `print`, `yaml` and
//! `jsonpath` are what comes out, `manifests` and `merge` what goes in.

mod apply;
mod args;
mod config;
mod delete;
mod describe;
mod describe_pod;
mod discovery;
mod exec;
mod failure;
mod get;
mod help;
mod http;
mod logs;
mod manifests;
mod merge;
mod modify;
mod print;
mod rollout;
mod terminal;
mod wait;

use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;

use serde_json::Value;

use crate::args::{Args, Flag};
use crate::config::Access;
use crate::discovery::{Discovery, Resource};
use crate::failure::{Failure, Outcome, error};
use crate::http::Server;

/// A verb: its name, its flags, and whether what follows belongs to it alone.
pub(crate) struct Verb {
    pub name: &'static str,
    pub flags: &'static [Flag],
    pub help: &'static str,
}

/// A command under way.
pub(crate) struct Context {
    pub args: Args,
    pub server: Server,
    /// Whether several objects are described: their events are shown to who asks for them alone.
    pub several: OnceLock<bool>,
}

impl Context {
    pub fn namespace(&self) -> &str {
        self.server.namespace()
    }

    pub async fn discovery(&self) -> Outcome<Discovery> {
        Discovery::load(&self.server).await.map_err(http::failure)
    }

    pub async fn fetch(&self, path: &str) -> Outcome<Value> {
        self.server.get(path).await.map_err(http::failure)
    }

    /// The namespace of a resource's path: none for what has none, none with `-A`.
    pub fn scope(&self, resource: &Resource) -> Option<String> {
        let all = self.args.flag("all-namespaces");
        (resource.namespaced && !all).then(|| self.namespace().to_owned())
    }

    /// The namespace of an object out of a manifest.
    pub fn namespace_of(&self, object: &Value, resource: &Resource) -> Outcome<Option<String>> {
        if !resource.namespaced {
            return Ok(None);
        }
        let own = object["metadata"]["namespace"].as_str().filter(|one| !one.is_empty());
        match (own, self.args.get("namespace")) {
            (Some(own), Some(asked)) if own != asked => Err(error(format!(
                "the namespace from the provided object \"{own}\" does not match the namespace \"{asked}\". You must pass '--namespace={own}' to perform this operation."
            ))),
            (Some(own), _) => Ok(Some(own.to_owned())),
            _ => Ok(Some(self.namespace().to_owned())),
        }
    }
}

/// Words like `pod/a` and `pod a b` as resources with names. Without a name the list is meant.
pub(crate) fn targets<'a>(discovery: &'a Discovery, words: &[String]) -> Outcome<Vec<(&'a Resource, Option<String>)>> {
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if words.iter().any(|word| word.contains('/')) {
        let mut found = Vec::new();
        for word in words {
            let Some((kind, name)) = word.split_once('/') else {
                return Err(error(
                    "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form (e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'",
                ));
            };
            if name.is_empty() || name.contains('/') {
                return Err(error("arguments in resource/name form must have a single resource and name"));
            }
            found.push((discovery.must(kind)?, Some(name.to_owned())));
        }
        return Ok(found);
    }
    let resources = discovery.several(first)?;
    if words.len() == 1 {
        return Ok(resources.into_iter().map(|one| (one, None)).collect());
    }
    let mut found = Vec::new();
    for resource in resources {
        found.extend(words[1..].iter().map(|name| (resource, Some(name.clone()))));
    }
    Ok(found)
}

/// Runs a kubectl command line, without the program's name. `kubeconfig` is used where nothing else names one.
pub fn run(words: &[String], kubeconfig: &Path) -> ExitCode {
    match begin(words, kubeconfig) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn begin(words: &[String], kubeconfig: &Path) -> Outcome {
    // Common flags may stand before the verb.
    let mut before = Vec::new();
    let mut rest = words.iter();
    let mut verb = None;
    while let Some(word) = rest.next() {
        if !word.starts_with('-') {
            verb = Some(word.clone());
            break;
        }
        before.push(word.clone());
        let takes = args::COMMON.iter().find(|(name, letter, _)| {
            word.strip_prefix("--").is_some_and(|w| w == *name) || (word.len() == 2 && word.ends_with(*letter))
        });
        if takes.is_some_and(|flag| flag.2 == args::Takes::Value) {
            before.extend(rest.next().cloned());
        }
    }
    let mut own: Vec<String> = rest.cloned().collect();
    let Some(name) = verb else {
        return print::out(&help::overview());
    };
    // Verbs of two words.
    let mut full = name.clone();
    if matches!(name.as_str(), "rollout" | "create" | "config" | "auth")
        && let Some(second) = own.iter().position(|word| !word.starts_with('-'))
    {
        let word = if name == "create" && own[second] == "ns" { "namespace" } else { &own[second] };
        let two = format!("{name} {word}");
        if help::verb(&two).is_some() {
            full = two;
            own.remove(second);
        }
    }
    if name == "help" {
        return print::out(&own.first().and_then(|verb| help::verb(verb)).map_or_else(help::overview, help::of));
    }
    let Some(verb) = help::verb(&full) else {
        return Err(error(format!("unknown command \"{name}\" for \"kubectl\"")));
    };
    let all: Vec<String> = before.into_iter().chain(own).collect();
    let args = Args::read(&format!("kubectl {full}"), &all, verb.flags)?;
    if args.flag("help") {
        return print::out(&help::of(verb));
    }
    let explicit = args.get("kubeconfig").is_some();
    let paths = config::paths(&args, kubeconfig);
    let loaded = config::load(&paths, explicit)?;
    if let Some(what) = full.strip_prefix("config ") {
        return help::config(what, &args, &paths, loaded);
    }
    let access: Access = config::access(&args, &loaded)?;
    let server = Server::new(access).map_err(http::bad_server)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| error(format!("start the runtime: {e}")))?;
    let context = Context { args, server, several: OnceLock::new() };
    let limit = context.args.seconds("request-timeout")?.filter(|seconds| *seconds > 0.0);
    let outcome = runtime.block_on(async {
        let work = dispatch(&full, &context);
        match limit {
            None => work.await,
            Some(seconds) => match tokio::time::timeout(std::time::Duration::from_secs_f64(seconds), work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Failure { message: "Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)".to_owned(), code: 1 }),
            },
        }
    });
    // A thread may still wait for standard input.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(verb: &str, context: &Context) -> Outcome {
    match verb {
        "get" => get::run(context).await,
        "describe" => describe::run(context).await,
        "apply" => apply::apply(context).await,
        "create" => apply::create(context).await,
        "create namespace" => apply::create_namespace(context).await,
        "delete" => delete::run(context).await,
        "logs" => logs::run(context).await,
        "exec" => exec::run(context).await,
        "rollout status" => rollout::status(context).await,
        "rollout history" => rollout::history(context).await,
        "rollout undo" => rollout::undo(context).await,
        "rollout restart" => rollout::restart(context).await,
        "rollout pause" => rollout::pause(context, true).await,
        "rollout resume" => rollout::pause(context, false).await,
        "scale" => modify::scale(context).await,
        "label" => modify::label(context, "labels").await,
        "annotate" => modify::label(context, "annotations").await,
        "cordon" => modify::cordon(context, true).await,
        "uncordon" => modify::cordon(context, false).await,
        "patch" => modify::patch(context).await,
        "wait" => wait::run(context).await,
        "version" => help::version(context).await,
        "api-resources" => help::api_resources(context).await,
        "auth can-i" => help::can_i(context).await,
        other => Err(error(format!("unknown command \"{other}\" for \"kubectl\""))),
    }
}
