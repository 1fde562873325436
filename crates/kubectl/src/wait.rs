//! `wait`: until a condition holds, a path has a value, or an object is gone.

use std::time::Duration;

use object_model::{ApiError, Reason};
use serde_json::Value;

use crate::discovery::Resource;
use crate::failure::{Outcome, error, said};
use crate::http::failure;
use crate::print;
use object_model::jsonpath;

use crate::{Context, delete, get, manifests, targets};

/// What is waited for.
enum For {
    Delete,
    Create,
    Condition(String, String),
    Path(String, Option<String>),
}

fn read(text: &str) -> Outcome<For> {
    let lower = text.to_lowercase();
    if lower == "delete" {
        return Ok(For::Delete);
    }
    if lower == "create" {
        return Ok(For::Create);
    }
    if let Some(condition) = text.strip_prefix("condition=") {
        let (name, value) = condition.split_once('=').unwrap_or((condition, "true"));
        return Ok(For::Condition(name.to_owned(), value.to_owned()));
    }
    if let Some(path) = text.strip_prefix("jsonpath=") {
        let path = path.trim_matches('\'');
        let Some(close) = path.find('}') else {
            let (path, value) = path.split_once('=').map_or((path, None), |(path, value)| (path, Some(value)));
            return Ok(For::Path(path.to_owned(), value.map(str::to_owned)));
        };
        let value = path[close + 1..].strip_prefix('=').map(|value| value.trim_matches(['\'', '"']).to_owned());
        if value.as_deref() == Some("") {
            return Err(error("jsonpath wait value cannot be empty"));
        }
        return Ok(For::Path(path[..=close].trim_end_matches('\'').to_owned(), value));
    }
    Err(error(format!("unrecognized condition: {text:?}")))
}

impl For {
    fn holds(&self, object: &Value) -> Outcome<bool> {
        Ok(match self {
            Self::Delete => false,
            Self::Create => true,
            Self::Condition(name, value) => {
                let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
                let stale = object["status"]["observedGeneration"].as_i64().is_some_and(|seen| seen < generation);
                let conditions = object["status"]["conditions"].as_array();
                !stale
                    && conditions.is_some_and(|all| {
                        all.iter().any(|one| {
                            one["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case(name))
                                && one["status"].as_str().is_some_and(|status| status.eq_ignore_ascii_case(value))
                        })
                    })
            }
            Self::Path(path, value) => {
                let found = jsonpath::find(path, object)?;
                match value {
                    Some(value) => found.len() == 1 && jsonpath::text(&found[0]) == *value,
                    None => found.iter().any(|one| !one.is_null()),
                }
            }
        })
    }
}

pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.args;
    let Some(text) = args.get("for") else {
        return Err(error("required flag(s) \"for\" not set"));
    };
    let what = read(text)?;
    let limit = match args.seconds("timeout")?.unwrap_or(30.0) {
        // Less than nothing stands for a week.
        seconds if seconds < 0.0 => Duration::from_secs(7 * 86_400),
        seconds => Duration::from_secs_f64(seconds),
    };
    let discovery = context.discovery().await?;
    let mut subjects: Vec<(&Resource, Option<String>, String)> = Vec::new();
    for (resource, name) in targets(&discovery, &args.words)? {
        let namespace = context.scope(resource);
        if let Some(name) = name {
            subjects.push((resource, namespace, name));
            continue;
        }
        if args.get("selector").is_none() && args.get("field-selector").is_none() && !args.flag("all") {
            return Err(error("resource(s) were provided, but no name was specified"));
        }
        let list = context.fetch(&(resource.path(namespace.as_deref(), "") + &get::query(context, &[]))).await?;
        for item in list["items"].as_array().into_iter().flatten() {
            let text = |key: &str| item["metadata"][key].as_str().map(str::to_owned);
            subjects.push((resource, text("namespace"), text("name").unwrap_or_default()));
        }
    }
    let files = args.all("filename");
    if !files.is_empty() {
        for object in manifests::read(&files, args.flag("recursive"))? {
            let resource = discovery.of(&object).ok_or_else(|| get::unknown(&object))?;
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            subjects.push((resource, context.namespace_of(&object, resource)?, name));
        }
    }
    if subjects.is_empty() {
        return match what {
            For::Delete => Ok(()),
            _ => Err(error("no matching resources found")),
        };
    }
    let mut failed = false;
    let deadline = tokio::time::Instant::now() + limit;
    for (resource, namespace, name) in subjects {
        match tokio::time::timeout_at(deadline, one(context, resource, namespace.as_deref(), &name, &what)).await {
            Ok(Ok(())) => print::out(&format!("{}/{name} condition met\n", resource.word()))?,
            Ok(Err(e)) => {
                eprintln!("{}", e.message);
                failed = true;
            }
            Err(_) => {
                eprintln!("error: timed out waiting for the condition on {}/{name}", resource.plural);
                failed = true;
            }
        }
    }
    if failed { Err(said(1)) } else { Ok(()) }
}

async fn one(context: &Context, resource: &Resource, namespace: Option<&str>, name: &str, what: &For) -> Outcome {
    let path = resource.path(namespace, name);
    if matches!(what, For::Delete) {
        return delete::until_gone(context, &path, None).await;
    }
    let list = resource.path(namespace, "");
    loop {
        let object = match context.server.get(&path).await {
            Ok(object) => object,
            Err(e)
                if matches!(what, For::Create)
                    && e.downcast_ref::<ApiError>().is_some_and(|e| e.reason == Reason::NotFound) =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(e) => return Err(failure(e)),
        };
        if what.holds(&object)? {
            return Ok(());
        }
        let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let path = format!("{list}?watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}");
        let mut events = context.server.lines(&path, "application/json").await.map_err(failure)?;
        while let Some((kind, object)) = events.event().await.map_err(failure)? {
            if kind == "DELETED" {
                return Err(error(format!("{}/{name} was deleted while it was waited for", resource.plural)));
            }
            if what.holds(&object)? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn conditions_are_read_and_held_against_objects() {
        let object = json!({"metadata": {"generation": 1}, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        let holds = |text: &str| read(text).unwrap().holds(&object).unwrap();
        assert!(holds("condition=Ready") && holds("condition=ready=True") && !holds("condition=Ready=false"));
        assert!(holds("jsonpath={.status.phase}=Running") && !holds("jsonpath={.status.phase}=Failed"));
        assert!(holds("jsonpath='{.status.phase}'=Running") && holds("jsonpath=.status.phase=Running"));
        assert!(!holds("jsonpath={.status.nothing}"));
        assert_eq!(read("ready").err().unwrap().message, "error: unrecognized condition: \"ready\"");
    }
}
