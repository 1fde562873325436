//! `apply` and `create`: objects out of manifests.

use http::Method;
use object_model::{ApiError, Reason};
use serde_json::{Value, json};

use crate::discovery::{Discovery, Resource};
use crate::failure::{Failure, Outcome, error, said};
use crate::http::failure;
use crate::print::{self, Format};
use crate::{Context, get, manifests, merge};

/// The annotation that remembers what was applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const MANAGER: &str = "fieldManager=kubectl-client-side-apply&fieldValidation=Strict";

fn is_reason(e: &anyhow::Error, reason: Reason) -> bool {
    e.downcast_ref::<ApiError>().is_some_and(|e| e.reason == reason)
}

/// How a file's mistakes are worded.
fn in_file(source: &str, e: anyhow::Error) -> Failure {
    let wrong_field = e.downcast_ref::<ApiError>().is_some_and(|e| e.reason == Reason::BadRequest);
    if wrong_field {
        let Failure { message, code } = failure(e);
        return Failure {
            message: message.replacen(
                "Error from server (BadRequest): ",
                &format!("Error from server (BadRequest): error when creating \"{source}\": "),
                1,
            ),
            code,
        };
    }
    match e.downcast_ref::<ApiError>() {
        Some(answer) if !matches!(answer.reason, Reason::Invalid) => Failure {
            message: format!(
                "Error from server ({}): error when creating \"{source}\": {}",
                answer.reason.as_str(),
                answer.message
            ),
            code: 1,
        },
        // `The Pod "x" is invalid: …` stands for itself.
        Some(answer) => Failure { message: format!("The {}", capitalised(&answer.message)), code: 1 },
        None => failure(e),
    }
}

/// `Pod "x" is invalid: a: b` as kubectl shows it: more than one cause on lines of their own.
fn capitalised(message: &str) -> String {
    let (head, causes) = message.split_once(" is invalid: ").unwrap_or((message, ""));
    let kind = head.split('.').next().unwrap_or(head);
    let name = head.split(' ').nth(1).unwrap_or_default();
    let kind = kind.split(' ').next().unwrap_or(kind);
    match causes.strip_prefix('[').and_then(|c| c.strip_suffix(']')) {
        Some(list) => {
            let lines: String = split_causes(list).iter().map(|cause| format!("* {cause}\n")).collect();
            format!("{kind} {name} is invalid: \n{}", lines.trim_end())
        }
        None => format!("{kind} {name} is invalid: {causes}"),
    }
}

/// Causes stand in one line with commas between; each begins with a path and a colon.
fn split_causes(list: &str) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for part in list.split(", ") {
        let of_path = |c: char| c.is_ascii_alphanumeric() || ".[]-_/".contains(c);
        let begins = part.split_once(": ").is_some_and(|(path, _)| !path.is_empty() && path.chars().all(of_path));
        match causes.last_mut() {
            Some(last) if !begins => *last += &format!(", {part}"),
            _ => causes.push(part.to_owned()),
        }
    }
    causes
}

/// What was applied, as it is remembered.
fn remembered(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    if object["metadata"]["annotations"].is_null() {
        object["metadata"]["annotations"] = json!({});
    }
    format!("{object}\n")
}

fn show(format: Option<&Format>, discovery: &Discovery, object: &Value, word: &str, done: &str, dry: &str) -> Outcome {
    match format {
        Some(format) if *format != Format::Name => print::objects(format, vec![object.clone()], false, |one| {
            discovery.of(one).map_or_else(String::new, Resource::word)
        }),
        Some(_) => print::out(&format!("{word}/{}\n", object["metadata"]["name"].as_str().unwrap_or_default())),
        None => {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            print::out(&format!("{word}/{name} {done}{dry}\n"))
        }
    }
}

/// The format that was asked for, if any; tables are none of it.
fn asked_format(context: &Context) -> Outcome<Option<Format>> {
    Ok(Some(Format::read(&context.args)?).filter(|format| !format.is_table()))
}

/// How a dry run is asked of the server, and how it is told.
fn dry_run(context: &Context) -> Outcome<(bool, bool, &'static str)> {
    match context.args.get("dry-run").unwrap_or("none") {
        "none" | "false" => Ok((false, false, "")),
        "client" => Ok((true, false, " (dry run)")),
        "server" => Ok((false, true, " (server dry run)")),
        other => Err(error(format!("Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."))),
    }
}

/// Several objects, each on its own: what fails is said, and the rest goes on.
async fn each(
    context: &Context,
    mut work: impl AsyncFnMut(&Discovery, &Resource, Option<String>, Value) -> Outcome,
) -> Outcome {
    let files = context.args.all("filename");
    let objects = manifests::read(&files, context.args.flag("recursive"))?;
    let discovery = context.discovery().await?;
    let mut failed = false;
    for object in objects {
        let done = match discovery.of(&object) {
            None => Err(get::unknown(&object)),
            Some(resource) => match context.namespace_of(&object, resource) {
                Ok(namespace) => work(&discovery, resource, namespace, object).await,
                Err(e) => Err(e),
            },
        };
        if let Err(e) = done {
            eprintln!("{}", e.message);
            failed = true;
        }
    }
    if failed { Err(said(1)) } else { Ok(()) }
}

pub(crate) async fn apply(context: &Context) -> Outcome {
    let format = asked_format(context)?;
    if context.args.flag("server-side") {
        return server_side(context, format.as_ref()).await;
    }
    let source = context.args.all("filename").join(",");
    let source = if source == "-" { "STDIN".to_owned() } else { source };
    let (client_only, server_only, told) = dry_run(context)?;
    let query = format!("?{MANAGER}{}", if server_only { "&dryRun=All" } else { "" });
    each(context, async |discovery, resource, namespace, mut object| {
        let word = resource.word();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(error(format!("error when retrieving current configuration of:\nResource: \"{}\": name must be provided", resource.plural)));
        }
        if let Some(namespace) = &namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let remembered = remembered(&object);
        let mut modified = object.clone();
        modified["metadata"]["annotations"][LAST_APPLIED] = json!(remembered);
        let path = resource.path(namespace.as_deref(), &name);
        let current = match context.server.get(&path).await {
            Ok(current) => current,
            Err(e) if is_reason(&e, Reason::NotFound) => {
                if client_only {
                    return show(format.as_ref(), discovery, &object, &word, "created", told);
                }
                let path = resource.path(namespace.as_deref(), "") + &query;
                let made = context.server.put(Method::POST, &path, "application/json", &modified).await;
                let made = made.map_err(|e| in_file(&source, e))?;
                return show(format.as_ref(), discovery, &made, &word, "created", told);
            }
            Err(e) => return Err(failure(e)),
        };
        let last = current["metadata"]["annotations"][LAST_APPLIED].as_str();
        if last.is_none() && !client_only {
            eprintln!(
                "Warning: resource {}/{name} is missing the {LAST_APPLIED} annotation which is required by kubectl apply. kubectl apply should only be used on resources created declaratively by either kubectl create --save-config or kubectl apply. The missing annotation will be patched automatically.",
                resource.plural
            );
        }
        let original: Value = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let ty = schema::type_for(&resource.api_version(), &resource.kind);
        let patch = merge::strategic(ty, &original, &modified, &current);
        if patch == json!({}) {
            return show(format.as_ref(), discovery, &current, &word, "unchanged", told);
        }
        if client_only {
            return show(format.as_ref(), discovery, &object, &word, "configured", told);
        }
        let kind = if ty.is_some() { "application/strategic-merge-patch+json" } else { "application/merge-patch+json" };
        let path = path + &query;
        let changed = context.server.put(Method::PATCH, &path, kind, &patch).await.map_err(|e| {
            match e.downcast_ref::<ApiError>() {
                Some(answer) if answer.reason == Reason::Invalid => Failure { message: format!("The {}", capitalised(&answer.message)), code: 1 },
                Some(answer) => Failure {
                    message: format!("Error from server ({}): error when applying patch:\n{patch}\nto:\nResource: \"{}\", GroupVersionKind: \"{}, Kind={}\"\nName: \"{name}\", Namespace: \"{}\"\nfor: \"{source}\": error when patching \"{source}\": {}",
                        answer.reason.as_str(), resource.plural_word(), resource.api_version(), resource.kind, namespace.as_deref().unwrap_or_default(), answer.message),
                    code: 1,
                },
                None => failure(e),
            }
        })?;
        let same = changed["metadata"]["resourceVersion"] == current["metadata"]["resourceVersion"];
        show(format.as_ref(), discovery, &changed, &word, if same { "unchanged" } else { "configured" }, told)
    })
    .await
}

async fn server_side(context: &Context, format: Option<&Format>) -> Outcome {
    let (_, server_only, told) = dry_run(context)?;
    let manager = context.args.get("field-manager").unwrap_or("kubectl");
    let force = context.args.flag("force-conflicts");
    let query = format!(
        "?fieldManager={manager}&fieldValidation=Strict&force={force}{}",
        if server_only { "&dryRun=All" } else { "" }
    );
    each(context, async |discovery, resource, namespace, object| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let path = resource.path(namespace.as_deref(), name) + &query;
        let applied = context.server.put(Method::PATCH, &path, "application/apply-patch+yaml", &object).await;
        let applied = applied.map_err(failure)?;
        show(format, discovery, &applied, &resource.word(), "serverside-applied", told)
    })
    .await
}

pub(crate) async fn create(context: &Context) -> Outcome {
    if let Some(word) = context.args.words.first() {
        return Err(error(format!(
            "create {word} is not built in: write a manifest and use create -f, or create namespace NAME"
        )));
    }
    let format = asked_format(context)?;
    let (client_only, server_only, told) = dry_run(context)?;
    let source = context.args.all("filename").join(",");
    let source = if source == "-" { "STDIN".to_owned() } else { source };
    let query =
        format!("?fieldManager=kubectl-create&fieldValidation=Strict{}", if server_only { "&dryRun=All" } else { "" });
    each(context, async |discovery, resource, namespace, object| {
        if client_only {
            return show(format.as_ref(), discovery, &object, &resource.word(), "created", told);
        }
        let path = resource.path(namespace.as_deref(), "") + &query;
        let made = context.server.put(Method::POST, &path, "application/json", &object).await;
        let made = made.map_err(|e| in_file(&source, e))?;
        show(format.as_ref(), discovery, &made, &resource.word(), "created", told)
    })
    .await
}

pub(crate) async fn create_namespace(context: &Context) -> Outcome {
    let [name] = &context.args.words[..] else {
        let count = context.args.words.len();
        return Err(error(format!(
            "exactly one NAME is required, got {count}\nSee 'kubectl create namespace -h' for help and examples"
        )));
    };
    let format = asked_format(context)?;
    let (client_only, server_only, told) = dry_run(context)?;
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let discovery = context.discovery().await?;
    let made = if client_only {
        object
    } else {
        let query = if server_only { "?dryRun=All" } else { "" };
        context
            .server
            .put(Method::POST, &format!("/api/v1/namespaces{query}"), "application/json", &object)
            .await
            .map_err(|e| match e.downcast_ref::<ApiError>() {
                Some(answer) if answer.reason == Reason::Invalid => {
                    Failure { message: format!("The {}", capitalised(&answer.message)), code: 1 }
                }
                _ => failure(e),
            })?
    };
    show(format.as_ref(), &discovery, &made, "namespace", "created", told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stand_on_lines_of_their_own() {
        let one = "Pod \"x\" is invalid: spec.containers: Required value";
        assert_eq!(capitalised(one), "Pod \"x\" is invalid: spec.containers: Required value");
        let two = "Deployment.apps \"x\" is invalid: [spec.a: Required value, spec.b: Invalid value: \"c, d\": no]";
        assert_eq!(
            capitalised(two),
            "Deployment \"x\" is invalid: \n* spec.a: Required value\n* spec.b: Invalid value: \"c, d\": no"
        );
    }

    #[test]
    fn what_was_applied_is_remembered_without_itself() {
        let object = json!({"metadata": {"name": "a", "annotations": {LAST_APPLIED: "x", "b": "c"}}});
        assert_eq!(remembered(&object), "{\"metadata\":{\"annotations\":{\"b\":\"c\"},\"name\":\"a\"}}\n");
    }
}
