//! The verbs and what they are told; help, `version`, `api-resources`, `config` and `auth can-i`.

use std::path::PathBuf;

use http::Method;
use serde_json::{Value, json};

use crate::args::Takes::{Nothing, Perhaps, Value as Takes};
use crate::args::{Args, Flag};
use crate::failure::{Outcome, error, said};
use crate::http::failure;
use crate::print::{self, Format};
use crate::{Context, Verb};

/// The version of kubectl whose words these are.
const LIKE: &str = "v1.37";

const OUTPUT: Flag = ("output", 'o', Takes);
const FILES: Flag = ("filename", 'f', Takes);
const RECURSIVE: Flag = ("recursive", 'R', Nothing);
const SELECTOR: Flag = ("selector", 'l', Takes);
const FIELDS: Flag = ("field-selector", ' ', Takes);
const ALL_NAMESPACES: Flag = ("all-namespaces", 'A', Nothing);
const ALL: Flag = ("all", ' ', Nothing);
const DRY_RUN: Flag = ("dry-run", ' ', Perhaps("client"));
const TIMEOUT: Flag = ("timeout", ' ', Takes);
const IGNORE: Flag = ("ignore-not-found", ' ', Nothing);

const ROLLOUT: &[Flag] = &[FILES, RECURSIVE, SELECTOR, OUTPUT];

/// All verbs.
const VERBS: &[Verb] = &[
    Verb {
        name: "get",
        help: "Show objects: kubectl get (TYPE[,TYPE] [NAME…] | TYPE/NAME… | -f FILE)",
        flags: &[
            OUTPUT,
            FILES,
            RECURSIVE,
            SELECTOR,
            FIELDS,
            ALL_NAMESPACES,
            IGNORE,
            ("watch", 'w', Nothing),
            ("watch-only", ' ', Nothing),
            ("no-headers", ' ', Nothing),
            ("show-labels", ' ', Nothing),
            ("show-managed-fields", ' ', Nothing),
            ("chunk-size", ' ', Takes),
        ],
    },
    Verb {
        name: "describe",
        help: "Tell of objects at length, with their events: kubectl describe TYPE [NAME…]",
        flags: &[FILES, RECURSIVE, SELECTOR, ALL_NAMESPACES, ("show-events", ' ', Nothing)],
    },
    Verb {
        name: "apply",
        help: "Make objects what a manifest says: kubectl apply -f FILE",
        flags: &[
            FILES,
            RECURSIVE,
            OUTPUT,
            DRY_RUN,
            ("server-side", ' ', Nothing),
            ("force-conflicts", ' ', Nothing),
            ("field-manager", ' ', Takes),
            ("validate", ' ', Perhaps("strict")),
            ("wait", ' ', Nothing),
        ],
    },
    Verb {
        name: "create",
        help: "Create objects: kubectl create -f FILE",
        flags: &[
            FILES,
            RECURSIVE,
            OUTPUT,
            DRY_RUN,
            ("validate", ' ', Perhaps("strict")),
            ("save-config", ' ', Nothing),
        ],
    },
    Verb {
        name: "create namespace",
        help: "Create a namespace: kubectl create namespace NAME",
        flags: &[OUTPUT, DRY_RUN],
    },
    Verb {
        name: "delete",
        help: "Delete objects: kubectl delete (TYPE NAME… | TYPE -l SELECTOR | TYPE --all | -f FILE)",
        flags: &[
            FILES,
            RECURSIVE,
            SELECTOR,
            FIELDS,
            ALL_NAMESPACES,
            ALL,
            IGNORE,
            OUTPUT,
            TIMEOUT,
            ("wait", ' ', Nothing),
            ("now", ' ', Nothing),
            ("force", ' ', Nothing),
            ("grace-period", ' ', Takes),
            ("cascade", ' ', Perhaps("background")),
        ],
    },
    Verb {
        name: "logs",
        help: "Show what containers print: kubectl logs (POD | TYPE/NAME) [-c CONTAINER]",
        flags: &[
            SELECTOR,
            ("follow", 'f', Nothing),
            ("container", 'c', Takes),
            ("previous", 'p', Nothing),
            ("tail", ' ', Takes),
            ("timestamps", ' ', Nothing),
            ("since", ' ', Takes),
            ("since-time", ' ', Takes),
            ("limit-bytes", ' ', Takes),
            ("all-containers", ' ', Nothing),
            ("all-pods", ' ', Nothing),
            ("prefix", ' ', Nothing),
        ],
    },
    Verb {
        name: "exec",
        help: "Run a program in a container: kubectl exec (POD | TYPE/NAME) [-c CONTAINER] -- COMMAND",
        flags: &[("stdin", 'i', Nothing), ("tty", 't', Nothing), ("container", 'c', Takes), ("quiet", 'q', Nothing)],
    },
    Verb {
        name: "rollout status",
        help: "Follow a rollout to its end: kubectl rollout status TYPE NAME",
        flags: &[FILES, RECURSIVE, SELECTOR, TIMEOUT, ("watch", 'w', Nothing), ("revision", ' ', Takes)],
    },
    Verb {
        name: "rollout history",
        help: "Show the revisions of a Deployment",
        flags: &[FILES, RECURSIVE, SELECTOR, OUTPUT, ("revision", ' ', Takes)],
    },
    Verb {
        name: "rollout undo",
        help: "Go back to an earlier revision",
        flags: &[FILES, RECURSIVE, SELECTOR, OUTPUT, ("to-revision", ' ', Takes)],
    },
    Verb { name: "rollout restart", help: "Replace every pod", flags: ROLLOUT },
    Verb { name: "rollout pause", help: "Hold a rollout", flags: ROLLOUT },
    Verb { name: "rollout resume", help: "Let a rollout go on", flags: ROLLOUT },
    Verb {
        name: "scale",
        help: "Set the number of pods: kubectl scale --replicas=COUNT TYPE NAME",
        flags: &[FILES, RECURSIVE, SELECTOR, ALL, ("replicas", ' ', Takes), ("current-replicas", ' ', Takes), TIMEOUT],
    },
    Verb {
        name: "wait",
        help: "Wait for a condition: kubectl wait TYPE/NAME --for=condition=Ready",
        flags: &[FILES, RECURSIVE, SELECTOR, FIELDS, ALL, ALL_NAMESPACES, TIMEOUT, OUTPUT, ("for", ' ', Takes)],
    },
    Verb {
        name: "label",
        help: "Set labels: kubectl label TYPE NAME KEY=VALUE KEY-",
        flags: &[FILES, RECURSIVE, SELECTOR, FIELDS, ALL, ALL_NAMESPACES, ("overwrite", ' ', Nothing)],
    },
    Verb {
        name: "annotate",
        help: "Set annotations: kubectl annotate TYPE NAME KEY=VALUE KEY-",
        flags: &[FILES, RECURSIVE, SELECTOR, FIELDS, ALL, ALL_NAMESPACES, ("overwrite", ' ', Nothing)],
    },
    Verb {
        name: "patch",
        help: "Change fields: kubectl patch TYPE NAME -p PATCH",
        flags: &[FILES, RECURSIVE, OUTPUT, ("patch", 'p', Takes), ("type", ' ', Takes), ("subresource", ' ', Takes)],
    },
    Verb { name: "cordon", help: "Keep new pods off a node", flags: &[SELECTOR] },
    Verb { name: "uncordon", help: "Let new pods onto a node", flags: &[SELECTOR] },
    Verb {
        name: "version",
        help: "Show the versions of client and server",
        flags: &[("client", ' ', Nothing), OUTPUT],
    },
    Verb {
        name: "api-resources",
        help: "Show what the server has",
        flags: &[("namespaced", ' ', Nothing), ("api-group", ' ', Takes), ("no-headers", ' ', Nothing), OUTPUT],
    },
    Verb {
        name: "config view",
        help: "Show the kubeconfig",
        flags: &[("raw", ' ', Nothing), ("minify", ' ', Nothing), OUTPUT],
    },
    Verb { name: "config current-context", help: "Show the current context", flags: &[] },
    Verb { name: "config use-context", help: "Choose the current context", flags: &[] },
    Verb {
        name: "auth can-i",
        help: "Ask whether something is allowed: kubectl auth can-i VERB TYPE [NAME]",
        flags: &[ALL_NAMESPACES, ("subresource", ' ', Takes), ("quiet", 'q', Nothing)],
    },
];

pub(crate) fn verb(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == name)
}

/// What `kubectl` alone says.
pub(crate) fn overview() -> String {
    let mut text = "kubectl controls the cluster. This is knarr's own; it has the most used verbs:\n\n".to_owned();
    for verb in VERBS {
        text += &format!("  {:24}{}\n", verb.name, verb.help);
    }
    text + "\nUsage:\n  kubectl VERB [flags]\n\nUse \"kubectl VERB --help\" for the flags of a verb.\n"
}

/// The help of a verb.
pub(crate) fn of(verb: &Verb) -> String {
    let mut text = format!("{}\n\nOptions:\n", verb.help);
    for (name, letter, takes) in verb.flags.iter().chain(crate::args::COMMON) {
        let short = if *letter == ' ' { "    ".to_owned() } else { format!("-{letter}, ") };
        let value = match takes {
            Nothing => "",
            Takes => "=VALUE",
            Perhaps(_) => "[=VALUE]",
        };
        text += &format!("  {short}--{name}{value}\n");
    }
    text
}

pub(crate) async fn version(context: &Context) -> Outcome {
    let client = format!("{LIKE}+knarr{}", env!("CARGO_PKG_VERSION"));
    let json_wanted = context.args.get("output").is_some();
    if context.args.flag("client") && !json_wanted {
        return print::out(&format!("Client Version: {client}\n"));
    }
    let mut value = json!({"clientVersion": {"gitVersion": client}});
    if !context.args.flag("client") {
        value["serverVersion"] = context.fetch("/version").await?;
    }
    match Format::read(&context.args)? {
        Format::Json => print::out(&print::json_text(&value)?),
        Format::Yaml => print::out(&schema::yaml::document(&value)),
        _ => print::out(&format!(
            "Client Version: {client}\nServer Version: {}\n",
            value["serverVersion"]["gitVersion"].as_str().unwrap_or_default()
        )),
    }
}

pub(crate) async fn api_resources(context: &Context) -> Outcome {
    let discovery = context.discovery().await?;
    let args = &context.args;
    let mut found: Vec<_> = discovery
        .resources
        .iter()
        .filter(|one| {
            args.get("namespaced").is_none_or(|_| one.namespaced == args.flag("namespaced"))
                && args.get("api-group").is_none_or(|group| one.group == group)
                && one.verbs.iter().any(|verb| matches!(verb.as_str(), "list" | "create"))
                && discovery.is_preferred(one)
        })
        .collect();
    found.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
    if args.get("output") == Some("name") {
        return print::out(&found.iter().map(|one| one.plural_word() + "\n").collect::<String>());
    }
    let mut rows = Vec::new();
    if !args.flag("no-headers") {
        rows.push(["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].map(str::to_owned).to_vec());
    }
    rows.extend(found.iter().map(|one| {
        vec![one.plural.clone(), one.short.join(","), one.api_version(), one.namespaced.to_string(), one.kind.clone()]
    }));
    print::out(&print::aligned(&rows, &mut Vec::new()))
}

pub(crate) async fn can_i(context: &Context) -> Outcome {
    let args = &context.args;
    let [verb, what, rest @ ..] = &args.words[..] else {
        return Err(error(
            "you must specify two arguments: verb resource or verb resource/resourceName.\nSee 'kubectl auth can-i -h' for help and examples.",
        ));
    };
    let mut spec = json!({});
    if what.starts_with('/') {
        spec["nonResourceAttributes"] = json!({"path": what, "verb": verb});
    } else {
        let (kind, name) = what.split_once('/').unwrap_or((what, rest.first().map_or("", String::as_str)));
        let discovery = context.discovery().await?;
        let (group, plural, namespaced) = match discovery.find(kind) {
            Some(resource) => (resource.group.clone(), resource.plural.clone(), resource.namespaced),
            None => {
                if kind != "*" {
                    eprintln!("Warning: the server doesn't have a resource type '{kind}'\n");
                }
                (String::new(), kind.to_owned(), true)
            }
        };
        let namespace = if namespaced && !args.flag("all-namespaces") { context.namespace() } else { "" };
        if !namespaced {
            eprintln!("Warning: resource '{plural}' is not namespace scoped\n");
        }
        spec["resourceAttributes"] = json!({
            "verb": verb, "group": group, "resource": plural, "name": name, "namespace": namespace,
            "subresource": args.get("subresource").unwrap_or_default(),
        });
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = context.server.put(Method::POST, path, "application/json", &review).await.map_err(failure)?;
    let allowed = answer["status"]["allowed"] == true;
    if !args.flag("quiet") {
        let reason = answer["status"]["reason"].as_str().filter(|reason| !allowed && !reason.is_empty());
        print::out(&format!(
            "{}{}\n",
            if allowed { "yes" } else { "no" },
            reason.map(|r| format!(" - {r}")).unwrap_or_default()
        ))?;
    }
    if allowed { Ok(()) } else { Err(said(1)) }
}

/// `config …`: looks at the kubeconfig, and never at the server.
pub(crate) fn config(what: &str, args: &Args, paths: &[PathBuf], mut config: Value) -> Outcome {
    match what {
        "current-context" => match config["current-context"].as_str().filter(|name| !name.is_empty()) {
            Some(name) => print::out(&format!("{name}\n")),
            None => Err(error("current-context is not set")),
        },
        "use-context" => {
            let [name] = &args.words[..] else {
                return Err(error(format!("accepts 1 arg(s), received {}", args.words.len())));
            };
            let known = config["contexts"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == *name));
            if !known {
                return Err(error(format!("no context exists with the name: {name:?}")));
            }
            let path = paths.first().ok_or_else(|| error("there is no kubeconfig"))?;
            let text = std::fs::read_to_string(path)?;
            let mut own: Value = serde_saphyr::from_str(&text).map_err(|e| error(e.to_string()))?;
            own["current-context"] = json!(name);
            std::fs::write(path, schema::yaml::document(&own))?;
            print::out(&format!("Switched to context \"{name}\".\n"))
        }
        _ => {
            if !args.flag("raw") {
                for (list, inside) in [("clusters", "cluster"), ("users", "user")] {
                    for entry in config[list].as_array_mut().into_iter().flatten() {
                        for key in ["certificate-authority-data", "client-certificate-data", "client-key-data"] {
                            if entry[inside][key].is_string() {
                                entry[inside][key] = json!("DATA+OMITTED");
                            }
                        }
                        for key in ["token", "password"] {
                            if entry[inside][key].is_string() {
                                entry[inside][key] = json!("REDACTED");
                            }
                        }
                    }
                }
            }
            if let Some(map) = config.as_object_mut() {
                map.retain(|key, value| key != "preferences" || value.as_object().is_some_and(|p| !p.is_empty()));
            }
            match Format::read(args)? {
                Format::Json => print::out(&print::json_text(&config)?),
                Format::JsonPath(template) => print::out(&object_model::jsonpath::render(&template, &config)?),
                _ => print::out(&schema::yaml::document(&config)),
            }
        }
    }
}
