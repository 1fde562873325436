//! `describe`: an object at length, with what happened to it. Pods and nodes have `describe_pod`; here are the workloads,
//! Services, and the form of every other kind.

use std::fmt::Write as _;

use serde_json::Value;

use crate::describe_pod;
use crate::discovery::Resource;
use crate::failure::{Failure, Outcome, error, said};
use crate::http::encode;
use crate::modify::name_of;
use crate::print;
use crate::{Context, get, manifests, rollout, targets};
use object_model::jsonpath::text;

/// Aligns cells that end with a tab: in neighbouring lines a column has one width, two blanks more than its longest cell.
pub(crate) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    let most = lines.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..most {
        let mut begin = 0;
        while begin < lines.len() {
            let ends = |line: &Vec<&str>| line.len() > column + 1;
            if !ends(&lines[begin]) {
                begin += 1;
                continue;
            }
            let end = (begin..lines.len()).find(|i| !ends(&lines[*i])).unwrap_or(lines.len());
            let width = lines[begin..end].iter().map(|cells| cells[column].chars().count() + 2).max().unwrap_or(0);
            for row in &mut widths[begin..end] {
                row[column] = width;
            }
            begin = end;
        }
    }
    let mut out = Vec::new();
    for (cells, widths) in lines.iter().zip(&widths) {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            line += cell;
            if index + 1 < cells.len() {
                line += &" ".repeat(widths[index].saturating_sub(cell.chars().count()));
            }
        }
        out.push(line);
    }
    out.join("\n")
}

/// `a=1` on lines of their own under a title.
pub(crate) fn map_lines(title: &str, map: &Value, between: &str, skip: &[&str]) -> String {
    let all: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| !skip.contains(&key.as_str()))
        .map(|(key, value)| format!("{key}{between}{}", text(value)))
        .collect();
    if all.is_empty() { format!("{title}:\t<none>\n") } else { format!("{title}:\t{}\n", all.join("\n\t")) }
}

/// Annotations, without what apply remembers there; long ones on lines of their own, cut.
pub(crate) fn annotations(object: &Value) -> String {
    const LONGEST: usize = 140;
    let mut lines = Vec::new();
    for (key, value) in object["metadata"]["annotations"].as_object().into_iter().flatten() {
        if key == "kubectl.kubernetes.io/last-applied-configuration" {
            continue;
        }
        let value = text(value);
        let value = value.strip_suffix('\n').unwrap_or(&value);
        if value.len() + key.len() + 2 < LONGEST && !value.contains('\n') {
            lines.push(format!("{key}: {value}"));
            continue;
        }
        lines.push(format!("{key}:"));
        for line in value.split('\n') {
            let cut: String = line.chars().take(LONGEST - 2).collect();
            lines.push(format!("  {cut}{}", if cut.len() < line.len() { "..." } else { "" }));
        }
    }
    if lines.is_empty() {
        "Annotations:\t<none>\n".to_owned()
    } else {
        format!("Annotations:\t{}\n", lines.join("\n\t"))
    }
}

/// A time as descriptions have it: `Mon, 23 Nov 2026 15:00:00 +0000`.
pub(crate) fn time(value: &Value) -> String {
    match value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
        Some(time) => time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        None => "<unknown>".to_owned(),
    }
}

/// How long ago, in the short form of tables.
pub(crate) fn age(value: &Value, now: jiff::Timestamp) -> String {
    let Some(then) = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    let seconds = (now.as_second() - then.as_second()).max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let with = |big: i64, unit: &str, small: i64, lesser: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{lesser}") }
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => with(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => with(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => with(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () => format!("{}y", days / 365),
    }
}

/// What happened to an object.
pub(crate) async fn events(context: &Context, object: &Value) -> Outcome<String> {
    if !context.args.flag_or("show-events", context.several.get() != Some(&true)) {
        return Ok(String::new());
    }
    let metadata = &object["metadata"];
    let namespace = metadata["namespace"].as_str();
    // Whoever reports on a node knows it by its name alone.
    let uid = if object["kind"] == "Node" { metadata["name"].as_str() } else { metadata["uid"].as_str() };
    let mut fields = vec![
        format!("involvedObject.name={}", name_of(object)),
        format!("involvedObject.kind={}", text(&object["kind"])),
    ];
    fields.extend(namespace.map(|namespace| format!("involvedObject.namespace={namespace}")));
    fields.extend(uid.map(|uid| format!("involvedObject.uid={uid}")));
    let place =
        namespace.map_or("/api/v1/events".to_owned(), |namespace| format!("/api/v1/namespaces/{namespace}/events"));
    let list = context.fetch(&format!("{place}?fieldSelector={}", encode(&fields.join(",")))).await?;
    let mut all: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        return Ok("Events:\t<none>\n".to_owned());
    }
    let last = |event: &Value| {
        [&event["series"]["lastObservedTime"], &event["lastTimestamp"], &event["eventTime"]]
            .into_iter()
            .find(|t| t.is_string())
            .cloned()
            .unwrap_or_default()
    };
    all.sort_by_key(|event| last(event).as_str().unwrap_or_default().to_owned());
    let now = client::clock::now();
    let mut out = "Events:\n  Type\tReason\tAge\tFrom\tMessage\n  ----\t------\t----\t----\t-------\n".to_owned();
    for event in &all {
        let count = event["series"]["count"].as_i64().or_else(|| event["count"].as_i64()).unwrap_or(1);
        let first = if event["firstTimestamp"].is_string() { &event["firstTimestamp"] } else { &event["eventTime"] };
        let age = if count > 1 {
            format!("{} (x{count} over {})", age(&last(event), now), age(first, now))
        } else {
            age(first, now)
        };
        let from =
            event["source"]["component"].as_str().or_else(|| event["reportingComponent"].as_str()).unwrap_or_default();
        let part = event["involvedObject"]["fieldPath"].as_str().filter(|path| !path.is_empty());
        let message = part.map(|path| format!("{path}: ")).unwrap_or_default() + text(&event["message"]).trim();
        let _ = writeln!(out, "  {}\t{}\t{age}\t{from}\t{}", text(&event["type"]), text(&event["reason"]), message);
    }
    Ok(out)
}

pub(crate) async fn run(context: &Context) -> Outcome {
    let args = &context.args;
    let files = args.all("filename");
    if args.words.is_empty() && files.is_empty() {
        return Err(error(
            "You must specify the type of resource to describe. Use \"kubectl api-resources\" for a complete list of supported resources.\n",
        ));
    }
    let discovery = context.discovery().await?;
    let mut objects: Vec<(Resource, Value)> = Vec::new();
    let mut failed = false;
    for (resource, name) in targets(&discovery, &args.words)? {
        let namespace = context.scope(resource);
        let mut add = |mut object: Value| {
            object["kind"] = Value::from(resource.kind.clone());
            object["apiVersion"] = Value::from(resource.api_version());
            objects.push((resource.clone(), object));
        };
        match name {
            Some(name) => match context.fetch(&resource.path(namespace.as_deref(), &name)).await {
                Ok(object) => add(object),
                Err(e) => {
                    // A name may be the beginning of several.
                    let list = context.fetch(&resource.path(namespace.as_deref(), "")).await?;
                    let items = list["items"].as_array().into_iter().flatten();
                    let matching: Vec<Value> = items.filter(|one| name_of(one).starts_with(&name)).cloned().collect();
                    if matching.is_empty() {
                        eprintln!("{}", e.message);
                        failed = true;
                    }
                    matching.into_iter().for_each(&mut add);
                }
            },
            None => {
                let list =
                    context.fetch(&(resource.path(namespace.as_deref(), "") + &get::query(context, &[]))).await?;
                list["items"].as_array().into_iter().flatten().cloned().for_each(&mut add);
            }
        }
    }
    if !files.is_empty() {
        for object in manifests::read(&files, args.flag("recursive"))? {
            let resource = discovery.of(&object).ok_or_else(|| get::unknown(&object))?;
            let namespace = context.namespace_of(&object, resource)?;
            let found = context.fetch(&resource.path(namespace.as_deref(), name_of(&object))).await?;
            objects.push((resource.clone(), found));
        }
    }
    if objects.is_empty() && !failed {
        eprintln!("No resources found in {} namespace.", context.namespace());
        return Ok(());
    }
    context.several.get_or_init(|| objects.len() > 1);
    let mut texts = Vec::new();
    for (_, object) in &objects {
        let text = match object["kind"].as_str().unwrap_or_default() {
            "Pod" => describe_pod::pod(context, object).await?,
            "Node" => describe_pod::node(context, object).await?,
            "Deployment" => deployment(context, object).await?,
            "ReplicaSet" => replica_set(context, object).await?,
            "Service" => service(context, object).await?,
            "Namespace" => namespace(context, object).await,
            "ConfigMap" => config_map(object) + &events(context, object).await?,
            "Secret" => secret(object),
            "ServiceAccount" => service_account(object) + &events(context, object).await?,
            _ => generic(object) + &events(context, object).await?,
        };
        texts.push(align(&text));
    }
    print::out(&texts.join("\n\n"))?;
    if failed { Err(Failure { ..said(1) }) } else { Ok(()) }
}

/// The pod template of a workload.
pub(crate) fn pod_template(template: &Value, depth: usize) -> String {
    let pad = " ".repeat(depth);
    let mut out = String::new();
    // Only the first of several lines is indented.
    let _ = write!(out, "{pad}{}", map_lines("Labels", &template["metadata"]["labels"], "=", &[]));
    if template["metadata"]["annotations"].as_object().is_some_and(|all| !all.is_empty()) {
        let _ = write!(out, "{pad}{}", annotations(template));
    }
    let account = template["spec"]["serviceAccountName"].as_str();
    if let Some(account) = account.filter(|one| !one.is_empty()) {
        let _ = writeln!(out, "{pad}Service Account:\t{account}");
    }
    for (list, title) in [("initContainers", "Init Containers"), ("containers", "Containers")] {
        let all = template["spec"][list].as_array().cloned().unwrap_or_default();
        if !all.is_empty() {
            let _ = writeln!(out, "{pad}{title}:");
            for container in &all {
                out +=
                    &describe_pod::container(container, None, &Value::Null, (&format!("{pad} "), &format!("{pad}  ")));
            }
        }
    }
    out += &describe_pod::volumes(&template["spec"]["volumes"], &pad, (&format!("{pad} "), &format!("{pad}  ")));
    let selectors = map_lines("Node-Selectors", &template["spec"]["nodeSelector"], "=", &[]);
    selectors.lines().for_each(|line| {
        let _ = writeln!(out, "{pad}{line}");
    });
    for line in describe_pod::tolerations(&template["spec"]["tolerations"]).lines() {
        let _ = writeln!(out, "{pad}{line}");
    }
    out
}

/// `app=echo` of a selector.
fn selector_line(selector: &Value) -> Outcome<String> {
    let text = rollout::selector_text(selector)?;
    Ok(if text.is_empty() { "<none>".to_owned() } else { text })
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn conditions(object: &Value) -> String {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        return String::new();
    }
    let mut out = "Conditions:\n  Type\tStatus\tReason\n  ----\t------\t------\n".to_owned();
    for one in &all {
        let _ = writeln!(out, "  {} \t{}\t{}", text(&one["type"]), text(&one["status"]), text(&one["reason"]));
    }
    out
}

async fn replica_sets_of(context: &Context, deployment: &Value) -> Outcome<(String, String)> {
    let namespace = text(&deployment["metadata"]["namespace"]);
    let list = context.fetch(&format!("/apis/apps/v1/namespaces/{namespace}/replicasets")).await?;
    let revision = &deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"];
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for set in list["items"].as_array().into_iter().flatten() {
        let owners = set["metadata"]["ownerReferences"].as_array();
        if !owners.is_some_and(|all| all.iter().any(|owner| owner["uid"] == deployment["metadata"]["uid"])) {
            continue;
        }
        let line = format!(
            "{} ({}/{} replicas created)",
            name_of(set),
            number(&set["status"]["replicas"]),
            number(&set["spec"]["replicas"])
        );
        let current = &set["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == revision;
        if current { new.push(line) } else { old.push((text(&set["metadata"]["creationTimestamp"]), line)) }
    }
    old.sort();
    let old: Vec<String> = old.into_iter().map(|(_, line)| line).collect();
    let shown = |lines: Vec<String>| if lines.is_empty() { "<none>".to_owned() } else { lines.join(", ") };
    Ok((shown(old), shown(new)))
}

async fn deployment(context: &Context, object: &Value) -> Outcome<String> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let mut out = format!("Name:\t{}\nNamespace:\t{}\n", name_of(object), text(&metadata["namespace"]));
    let _ = writeln!(out, "CreationTimestamp:\t{}", time(&metadata["creationTimestamp"]));
    out += &map_lines("Labels", &metadata["labels"], "=", &[]);
    out += &annotations(object);
    let _ = writeln!(out, "Selector:\t{}", selector_line(&spec["selector"])?);
    let _ = writeln!(
        out,
        "Replicas:\t{} desired | {} updated | {} total | {} available | {} unavailable",
        number(&spec["replicas"]),
        number(&status["updatedReplicas"]),
        number(&status["replicas"]),
        number(&status["availableReplicas"]),
        number(&status["unavailableReplicas"])
    );
    let _ = writeln!(
        out,
        "StrategyType:\t{}\nMinReadySeconds:\t{}",
        text(&spec["strategy"]["type"]),
        number(&spec["minReadySeconds"])
    );
    let rolling = &spec["strategy"]["rollingUpdate"];
    if !rolling.is_null() {
        let _ = writeln!(
            out,
            "RollingUpdateStrategy:\t{} max unavailable, {} max surge",
            text(&rolling["maxUnavailable"]),
            text(&rolling["maxSurge"])
        );
    }
    out += "Pod Template:\n";
    out += &pod_template(&spec["template"], 2);
    out += &conditions(object);
    let (old, new) = replica_sets_of(context, object).await?;
    let _ = writeln!(out, "OldReplicaSets:\t{old}\nNewReplicaSet:\t{new}");
    Ok(out + &events(context, object).await?)
}

async fn replica_set(context: &Context, object: &Value) -> Outcome<String> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let mut out = format!(
        "Name:\t{}\nNamespace:\t{}\nSelector:\t{}\n",
        name_of(object),
        text(&metadata["namespace"]),
        selector_line(&spec["selector"])?
    );
    out += &map_lines("Labels", &metadata["labels"], "=", &[]);
    out += &annotations(object);
    out += &controlled_by(object);
    let _ = writeln!(out, "Replicas:\t{} current / {} desired", number(&status["replicas"]), number(&spec["replicas"]));
    let selector = rollout::selector_text(&spec["selector"])?;
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector={}", text(&metadata["namespace"]), encode(&selector));
    let pods = context.fetch(&path).await?;
    let owned = pods["items"].as_array().into_iter().flatten().filter(|pod| {
        let owners = pod["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|all| all.iter().any(|owner| owner["uid"] == metadata["uid"]))
    });
    let (mut running, mut waiting, mut succeeded, mut failed) = (0, 0, 0, 0);
    for pod in owned {
        match pod["status"]["phase"].as_str() {
            Some("Running") => running += 1,
            Some("Succeeded") => succeeded += 1,
            Some("Failed") => failed += 1,
            _ => waiting += 1,
        }
    }
    let _ =
        writeln!(out, "Pods Status:\t{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed");
    out += "Pod Template:\n";
    out += &pod_template(&spec["template"], 2);
    out += &conditions(object);
    Ok(out + &events(context, object).await?)
}

/// Who has made an object.
pub(crate) fn controlled_by(object: &Value) -> String {
    let owners = object["metadata"]["ownerReferences"].as_array();
    match owners.and_then(|all| all.iter().find(|owner| owner["controller"] == true)) {
        Some(owner) => format!("Controlled By:\t{}/{}\n", text(&owner["kind"]), text(&owner["name"])),
        None => String::new(),
    }
}

async fn service(context: &Context, object: &Value) -> Outcome<String> {
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let or_none = |value: &Value| if text(value).is_empty() { "<none>".to_owned() } else { text(value) };
    let join = |value: &Value| {
        let all: Vec<String> = value.as_array().into_iter().flatten().map(text).collect();
        if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
    };
    let mut out = format!("Name:\t{}\nNamespace:\t{}\n", name_of(object), text(&metadata["namespace"]));
    out += &map_lines("Labels", &metadata["labels"], "=", &[]);
    out += &annotations(object);
    let selector = print::labels_text(&spec["selector"]);
    let _ = writeln!(out, "Selector:\t{selector}\nType:\t{}", text(&spec["type"]));
    let _ = writeln!(
        out,
        "IP Family Policy:\t{}\nIP Families:\t{}",
        or_none(&spec["ipFamilyPolicy"]),
        join(&spec["ipFamilies"])
    );
    let _ = writeln!(out, "IP:\t{}\nIPs:\t{}", text(&spec["clusterIP"]), join(&spec["clusterIPs"]));
    if spec["externalIPs"].as_array().is_some_and(|all| !all.is_empty()) {
        let _ = writeln!(out, "External IPs:\t{}", join(&spec["externalIPs"]));
    }
    let ingress: Vec<String> = object["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| if one["ip"].is_string() { text(&one["ip"]) } else { text(&one["hostname"]) })
        .collect();
    if !ingress.is_empty() {
        let _ = writeln!(out, "LoadBalancer Ingress:\t{}", ingress.join(", "));
    }
    if spec["type"] == "ExternalName" {
        let _ = writeln!(out, "External Name:\t{}", text(&spec["externalName"]));
    }
    let namespace = text(&metadata["namespace"]);
    let slices = context.fetch(&format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{}", name_of(object))).await;
    for port in spec["ports"].as_array().into_iter().flatten() {
        let name = port["name"].as_str().filter(|name| !name.is_empty()).unwrap_or("<unset>");
        let _ = writeln!(
            out,
            "Port:\t{name}\t{}/{}\nTargetPort:\t{}/{1}",
            number(&port["port"]),
            text(&port["protocol"]),
            text(&port["targetPort"])
        );
        if number(&port["nodePort"]) != 0 {
            let _ = writeln!(out, "NodePort:\t{name}\t{}/{}", number(&port["nodePort"]), text(&port["protocol"]));
        }
        let mut ends = Vec::new();
        if let Ok(slices) = &slices {
            for slice in slices["items"].as_array().into_iter().flatten() {
                let of_port = slice["ports"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find(|one| text(&one["name"]) == text(&port["name"]));
                for endpoint in
                    slice["endpoints"].as_array().into_iter().flatten().filter(|e| e["conditions"]["ready"] != false)
                {
                    for address in endpoint["addresses"].as_array().into_iter().flatten() {
                        ends.extend(of_port.map(|one| format!("{}:{}", text(address), number(&one["port"]))));
                    }
                }
            }
        }
        let more = ends.len().saturating_sub(3);
        let shown = ends[..ends.len().min(3)].join(",");
        let shown = if more > 0 { format!("{shown} + {more} more...") } else { shown };
        let _ = writeln!(out, "Endpoints:\t{shown}");
    }
    let _ = writeln!(out, "Session Affinity:\t{}", text(&spec["sessionAffinity"]));
    for (field, title) in
        [("externalTrafficPolicy", "External Traffic Policy"), ("internalTrafficPolicy", "Internal Traffic Policy")]
    {
        if spec[field].is_string() {
            let _ = writeln!(out, "{title}:\t{}", text(&spec[field]));
        }
    }
    Ok(out + &events(context, object).await?)
}

fn head(object: &Value) -> String {
    let metadata = &object["metadata"];
    let mut out = format!("Name:\t{}\n", name_of(object));
    if let Some(namespace) = metadata["namespace"].as_str() {
        let _ = writeln!(out, "Namespace:\t{namespace}");
    }
    out + &map_lines("Labels", &metadata["labels"], "=", &[]) + &annotations(object)
}

async fn namespace(context: &Context, object: &Value) -> String {
    let mut out = head(object) + &format!("Status:\t{}\n", text(&object["status"]["phase"]));
    for (plural, title, none) in [
        ("resourcequotas", "Resource Quotas", "No resource quota."),
        ("limitranges", "Resource Limits", "No LimitRange resource."),
    ] {
        // A server without the kind has nothing to tell of it.
        let Ok(list) = context.fetch(&format!("/api/v1/namespaces/{}/{plural}", name_of(object))).await else {
            continue;
        };
        let names: Vec<&str> = list["items"].as_array().into_iter().flatten().map(name_of).collect();
        if names.is_empty() {
            let _ = writeln!(out, "\n{none}");
        } else {
            let _ = writeln!(out, "\n{title}\n  Name:\t{}", names.join(", "));
        }
    }
    out
}

fn config_map(object: &Value) -> String {
    let mut out = head(object) + "\nData\n====\n";
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let _ = write!(out, "{key}:\n----\n{}\n\n", text(value));
    }
    out += "\nBinaryData\n====\n";
    for (key, value) in object["binaryData"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "{key}: {} bytes", decoded_length(value));
    }
    out + "\n"
}

fn secret(object: &Value) -> String {
    let mut out = head(object) + &format!("\nType:\t{}\n\nData\n====\n", text(&object["type"]));
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let _ = writeln!(out, "{key}:\t{} bytes", decoded_length(value));
    }
    out
}

fn service_account(object: &Value) -> String {
    let names: Vec<String> =
        object["imagePullSecrets"].as_array().into_iter().flatten().map(|one| text(&one["name"])).collect();
    let names = if names.is_empty() { "<none>".to_owned() } else { names.join("\n\t") };
    head(object) + &format!("Image pull secrets:\t{names}\n")
}

fn decoded_length(value: &Value) -> usize {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text(value)).map_or(0, |bytes| bytes.len())
}

/// The form for kinds that have none of their own: every field, indented.
fn generic(object: &Value) -> String {
    let metadata = &object["metadata"];
    let mut out = format!("Name:\t{}\nNamespace:\t{}\n", name_of(object), text(&metadata["namespace"]));
    out += &map_lines("Labels", &metadata["labels"], "=", &[]);
    out += &annotations(object);
    let _ = writeln!(out, "API Version:\t{}\nKind:\t{}", text(&object["apiVersion"]), text(&object["kind"]));
    let mut rest = print::tidy(object.clone());
    if let Some(map) = rest.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
    }
    if let Some(map) = rest["metadata"].as_object_mut() {
        for key in ["name", "namespace", "labels", "annotations"] {
            map.remove(key);
        }
    }
    tree(&rest, 0, &mut out);
    out
}

/// `creationTimestamp` as `Creation Timestamp`.
fn title(key: &str) -> String {
    let mut out = String::new();
    let mut lower = false;
    for c in key.chars() {
        if out.is_empty() {
            out.extend(c.to_uppercase());
        } else if c.is_uppercase() && lower {
            out.push(' ');
            out.push(c);
        } else {
            out.push(c);
        }
        lower = c.is_lowercase() || c.is_ascii_digit();
    }
    out.replace("Uid", "UID")
}

fn tree(value: &Value, depth: usize, out: &mut String) {
    let pad = "  ".repeat(depth);
    for (key, one) in value.as_object().into_iter().flatten() {
        let title = title(key);
        match one {
            Value::Object(_) => {
                let _ = writeln!(out, "{pad}{title}:");
                tree(one, depth + 1, out);
            }
            Value::Array(list) => {
                let _ = writeln!(out, "{pad}{title}:");
                for item in list {
                    if item.is_object() {
                        tree(item, depth + 1, out);
                    } else {
                        let _ = writeln!(out, "{pad}  {}", text(item));
                    }
                }
            }
            other => {
                let _ =
                    writeln!(out, "{pad}{title}:\t{}", if other.is_null() { "<nil>".to_owned() } else { text(other) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_end_where_a_line_has_no_tab() {
        assert_eq!(align("a:\tb\nlonger:\tc\n\nx:\ty"), "a:       b\nlonger:  c\n\nx:  y");
        assert_eq!(align("  A\tBB\tC\n  AAA\tB\tD"), "  A    BB  C\n  AAA  B   D");
    }

    #[test]
    fn ages_are_short() {
        let now: jiff::Timestamp = "2026-11-23T15:00:00Z".parse().unwrap();
        let of = |text: &str| age(&json!(text), now);
        assert_eq!(
            [
                "2026-11-23T14:59:00Z",
                "2026-11-23T14:55:30Z",
                "2026-11-23T14:00:00Z",
                "2026-11-23T09:30:00Z",
                "2026-11-20T14:00:00Z"
            ]
            .map(of),
            ["60s", "4m30s", "60m", "5h30m", "3d1h"]
        );
        assert_eq!(time(&json!("2026-11-23T15:00:00Z")), "Mon, 23 Nov 2026 15:00:00 +0000");
    }

    #[test]
    fn a_kind_without_a_form_of_its_own_is_shown_field_by_field() {
        let object = json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "b", "uid": "u"}, "spec": {"someField": [1, {"x": "y"}]}});
        assert_eq!(
            align(&generic(&object)),
            "Name:         a\nNamespace:    b\nLabels:       <none>\nAnnotations:  <none>\nAPI Version:  v1\nKind:         Thing\nMetadata:\n  UID:  u\nSpec:\n  Some Field:\n    1\n    X:  y\n"
        );
    }
}
