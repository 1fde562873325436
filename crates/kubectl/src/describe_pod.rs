//! `describe` of pods and nodes.

use std::fmt::Write as _;

use serde_json::Value;

use crate::Context;
use crate::describe::{age, annotations, controlled_by, events, map_lines, time};
use crate::failure::Outcome;
use crate::modify::name_of;
use object_model::jsonpath::text;

fn truth(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

pub(crate) async fn pod(context: &Context, object: &Value) -> Outcome<String> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let mut out = format!("Name:\t{}\nNamespace:\t{}\n", name_of(object), text(&metadata["namespace"]));
    if spec["priority"].is_number() {
        let _ = writeln!(out, "Priority:\t{}", spec["priority"]);
        if let Some(class) = spec["priorityClassName"].as_str().filter(|name| !name.is_empty()) {
            let _ = writeln!(out, "Priority Class Name:\t{class}");
        }
    }
    if let Some(account) = spec["serviceAccountName"].as_str().filter(|name| !name.is_empty()) {
        let _ = writeln!(out, "Service Account:\t{account}");
    }
    let node = spec["nodeName"].as_str().filter(|name| !name.is_empty());
    match node {
        Some(node) => {
            let _ = writeln!(out, "Node:\t{node}/{}", text(&status["hostIP"]));
        }
        None => out += "Node:\t<none>\n",
    }
    if status["startTime"].is_string() {
        let _ = writeln!(out, "Start Time:\t{}", time(&status["startTime"]));
    }
    out += &map_lines("Labels", &metadata["labels"], "=", &[]);
    out += &annotations(object);
    if metadata["deletionTimestamp"].is_string() {
        let lasts = age(&metadata["deletionTimestamp"], client::clock::now());
        let _ = writeln!(out, "Status:\tTerminating (lasts {lasts})");
        let _ = writeln!(out, "Termination Grace Period:\t{}s", text(&metadata["deletionGracePeriodSeconds"]));
    } else {
        let _ = writeln!(out, "Status:\t{}", text(&status["phase"]));
    }
    for (key, title) in [("reason", "Reason"), ("message", "Message")] {
        if let Some(said) = status[key].as_str().filter(|said| !said.is_empty()) {
            let _ = writeln!(out, "{title}:\t{said}");
        }
    }
    let _ = writeln!(out, "IP:\t{}", text(&status["podIP"]));
    let ips = status["podIPs"].as_array().cloned().unwrap_or_default();
    if ips.is_empty() {
        out += "IPs:\t<none>\n";
    } else {
        out += "IPs:\n";
        for ip in &ips {
            let _ = writeln!(out, "  IP:\t{}", text(&ip["ip"]));
        }
    }
    out += &controlled_by(object);
    for (list, statuses, title) in [
        ("initContainers", "initContainerStatuses", "Init Containers"),
        ("containers", "containerStatuses", "Containers"),
    ] {
        let all = spec[list].as_array().cloned().unwrap_or_default();
        if all.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{title}:");
        for one in &all {
            let found = status[statuses].as_array().and_then(|all| all.iter().find(|s| s["name"] == one["name"]));
            out += &container(one, Some(found.unwrap_or(&Value::Null)), object, ("  ", "    "));
        }
    }
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    if !conditions.is_empty() {
        out += "Conditions:\n  Type\tStatus\n";
        for one in &conditions {
            let _ = writeln!(out, "  {} \t{} ", text(&one["type"]), text(&one["status"]));
        }
    }
    out += &volumes(&spec["volumes"], "", ("  ", "    "));
    if let Some(class) = status["qosClass"].as_str() {
        let _ = writeln!(out, "QoS Class:\t{class}");
    }
    out += &map_lines("Node-Selectors", &spec["nodeSelector"], "=", &[]);
    out += &tolerations(&spec["tolerations"]);
    Ok(out + &events(context, object).await?)
}

/// A container; with a status (or null for one that is not known yet) if it belongs to a pod. `pads` stand before its name
/// and before the rest.
pub(crate) fn container(spec: &Value, status: Option<&Value>, pod: &Value, pads: (&str, &str)) -> String {
    let mut out = format!("{}{}:\n", pads.0, text(&spec["name"]));
    let pad = pads.1;
    if let Some(status) = status {
        let _ = writeln!(out, "{pad}Container ID:\t{}", text(&status["containerID"]));
    }
    let _ = writeln!(out, "{pad}Image:\t{}", text(&spec["image"]));
    if let Some(status) = status {
        let _ = writeln!(out, "{pad}Image ID:\t{}", text(&status["imageID"]));
    }
    let ports = spec["ports"].as_array().cloned().unwrap_or_default();
    let list = |key: &str| {
        let all: Vec<String> = ports
            .iter()
            .map(|port| {
                let name = port["name"].as_str().filter(|_| key == "containerPort").map(|name| format!(" ({name})"));
                let host =
                    if key == "hostPort" { port["name"].as_str().map(|name| format!(" ({name})")) } else { None };
                format!(
                    "{}/{}{}",
                    port[key].as_i64().unwrap_or(0),
                    port["protocol"].as_str().unwrap_or("TCP"),
                    name.or(host).unwrap_or_default()
                )
            })
            .collect();
        if all.is_empty() { "<none>".to_owned() } else { all.join(", ") }
    };
    let plural = if ports.len() > 1 { "s" } else { "" };
    let _ =
        writeln!(out, "{pad}Port{plural}:\t{}\n{pad}Host Port{plural}:\t{}", list("containerPort"), list("hostPort"));
    for (key, title) in [("command", "Command"), ("args", "Args")] {
        if let Some(words) = spec[key].as_array().filter(|words| !words.is_empty()) {
            let _ = writeln!(out, "{pad}{title}:");
            for line in words.iter().flat_map(|word| text(word).lines().map(str::to_owned).collect::<Vec<_>>()) {
                let _ = writeln!(out, "{pad}  {line}");
            }
        }
    }
    if let Some(status) = status {
        state(&mut out, pad, "State", &status["state"], status.is_null());
        if status["lastState"].as_object().is_some_and(|last| last.contains_key("terminated")) {
            state(&mut out, pad, "Last State", &status["lastState"], false);
        }
        let _ = writeln!(out, "{pad}Ready:\t{}", truth(status["ready"] == true));
        let _ = writeln!(out, "{pad}Restart Count:\t{}", status["restartCount"].as_i64().unwrap_or(0));
    }
    for (key, title) in [("limits", "Limits"), ("requests", "Requests")] {
        let all = spec["resources"][key].as_object().cloned().unwrap_or_default();
        if !all.is_empty() {
            let _ = writeln!(out, "{pad}{title}:");
            for (name, amount) in &all {
                let _ = writeln!(out, "{pad}  {name}:\t{}", text(amount));
            }
        }
    }
    for (key, title) in [("livenessProbe", "Liveness"), ("readinessProbe", "Readiness"), ("startupProbe", "Startup")] {
        if !spec[key].is_null() {
            let _ = writeln!(out, "{pad}{title}:\t{}", probe(&spec[key]));
        }
    }
    let from = spec["envFrom"].as_array().cloned().unwrap_or_default();
    if !from.is_empty() {
        let _ = writeln!(out, "{pad}Environment Variables from:");
        for one in &from {
            let (kind, source) = if one["configMapRef"].is_null() {
                ("Secret", &one["secretRef"])
            } else {
                ("ConfigMap", &one["configMapRef"])
            };
            let _ = writeln!(out, "{pad}  {}\t{kind}\tOptional: {}", text(&source["name"]), source["optional"] == true);
        }
    }
    let env = spec["env"].as_array().cloned().unwrap_or_default();
    if env.is_empty() {
        let _ = writeln!(out, "{pad}Environment:\t<none>");
    } else {
        let _ = writeln!(out, "{pad}Environment:");
        for one in &env {
            let _ = writeln!(out, "{pad}  {}:\t{}", text(&one["name"]), variable(one, pod));
        }
    }
    let mut mounts: Vec<&Value> = spec["volumeMounts"].as_array().into_iter().flatten().collect();
    mounts.sort_by_key(|mount| text(&mount["mountPath"]));
    if mounts.is_empty() {
        let _ = writeln!(out, "{pad}Mounts:\t<none>");
    } else {
        let _ = writeln!(out, "{pad}Mounts:");
        for mount in mounts {
            let mut how = vec![if mount["readOnly"] == true { "ro".to_owned() } else { "rw".to_owned() }];
            how.extend(mount["subPath"].as_str().filter(|p| !p.is_empty()).map(|path| format!("path=\"{path}\"")));
            let _ =
                writeln!(out, "{pad}  {} from {} ({})", text(&mount["mountPath"]), text(&mount["name"]), how.join(","));
        }
    }
    out
}

fn variable(one: &Value, pod: &Value) -> String {
    let from = &one["valueFrom"];
    if let Some(field) = from["fieldRef"]["fieldPath"].as_str() {
        let version = from["fieldRef"]["apiVersion"].as_str().unwrap_or("v1");
        if pod.is_null() || pod["metadata"].is_null() {
            return format!("({version}:{field})");
        }
        return format!(" ({version}:{field})");
    }
    for (key, kind) in [("configMapKeyRef", "config map"), ("secretKeyRef", "secret")] {
        if !from[key].is_null() {
            let source = &from[key];
            return format!(
                "<set to the key '{}' of {kind} '{}'>\tOptional: {}",
                text(&source["key"]),
                text(&source["name"]),
                source["optional"] == true
            );
        }
    }
    if let Some(resource) = from["resourceFieldRef"]["resource"].as_str() {
        return format!("({resource})");
    }
    text(&one["value"])
}

fn probe(probe: &Value) -> String {
    let number = |key: &str, usual: i64| probe[key].as_i64().unwrap_or(usual);
    let times = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    if let Some(command) = probe["exec"]["command"].as_array() {
        return format!("exec [{}] {times}", command.iter().map(text).collect::<Vec<_>>().join(" "));
    }
    if !probe["httpGet"].is_null() {
        let get = &probe["httpGet"];
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        return format!(
            "http-get {scheme}://{}:{}{} {times}",
            text(&get["host"]),
            text(&get["port"]),
            text(&get["path"])
        );
    }
    if !probe["tcpSocket"].is_null() {
        return format!(
            "tcp-socket {}:{} {times}",
            text(&probe["tcpSocket"]["host"]),
            text(&probe["tcpSocket"]["port"])
        );
    }
    format!("unknown {times}")
}

fn state(out: &mut String, pad: &str, title: &str, state: &Value, unknown: bool) {
    if let Some(running) = state.get("running") {
        let _ = writeln!(out, "{pad}{title}:\tRunning\n{pad}  Started:\t{}", time(&running["startedAt"]));
    } else if let Some(waiting) = state.get("waiting") {
        let _ = writeln!(out, "{pad}{title}:\tWaiting");
        if let Some(reason) = waiting["reason"].as_str().filter(|reason| !reason.is_empty()) {
            let _ = writeln!(out, "{pad}  Reason:\t{reason}");
        }
    } else if let Some(ended) = state.get("terminated") {
        let _ = writeln!(out, "{pad}{title}:\tTerminated");
        for (key, title) in [("reason", "Reason"), ("message", "Message")] {
            if let Some(said) = ended[key].as_str().filter(|said| !said.is_empty()) {
                let _ = writeln!(out, "{pad}  {title}:\t{said}");
            }
        }
        let _ = writeln!(out, "{pad}  Exit Code:\t{}", ended["exitCode"]);
        if let Some(signal) = ended["signal"].as_i64().filter(|signal| *signal > 0) {
            let _ = writeln!(out, "{pad}  Signal:\t{signal}");
        }
        let _ = writeln!(
            out,
            "{pad}  Started:\t{}\n{pad}  Finished:\t{}",
            time(&ended["startedAt"]),
            time(&ended["finishedAt"])
        );
    } else if !unknown || title == "State" {
        let _ = writeln!(out, "{pad}{title}:\tWaiting");
    }
}

pub(crate) fn volumes(volumes: &Value, pad: &str, pads: (&str, &str)) -> String {
    let all = volumes.as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        return format!("{pad}Volumes:\t<none>\n");
    }
    let mut out = format!("{pad}Volumes:\n");
    for volume in &all {
        let _ = writeln!(out, "{}{}:", pads.0, text(&volume["name"]));
        let mut line = |title: &str, value: String| {
            let _ = writeln!(out, "{}{title}:\t{value}", pads.1);
        };
        let get = |kind: &str| volume.get(kind).cloned();
        if let Some(source) = get("emptyDir") {
            line("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)".into());
            line("Medium", text(&source["medium"]));
            line("SizeLimit", source["sizeLimit"].as_str().unwrap_or("<unset>").to_owned());
        } else if let Some(source) = get("hostPath") {
            line("Type", "HostPath (bare host directory volume)".into());
            line("Path", text(&source["path"]));
            line("HostPathType", text(&source["type"]));
        } else if let Some(source) = get("configMap") {
            line("Type", "ConfigMap (a volume populated by a ConfigMap)".into());
            line("Name", text(&source["name"]));
            line("Optional", (source["optional"] == true).to_string());
        } else if let Some(source) = get("secret") {
            line("Type", "Secret (a volume populated by a Secret)".into());
            line("SecretName", text(&source["secretName"]));
            line("Optional", (source["optional"] == true).to_string());
        } else if let Some(source) = get("persistentVolumeClaim") {
            line("Type", "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)".into());
            line("ClaimName", text(&source["claimName"]));
            line("ReadOnly", (source["readOnly"] == true).to_string());
        } else if let Some(source) = get("projected") {
            line("Type", "Projected (a volume that contains injected data from multiple sources)".into());
            for one in source["sources"].as_array().into_iter().flatten() {
                if !one["serviceAccountToken"].is_null() {
                    line("TokenExpirationSeconds", text(&one["serviceAccountToken"]["expirationSeconds"]));
                } else if !one["configMap"].is_null() {
                    line("ConfigMapName", text(&one["configMap"]["name"]));
                    line("Optional", (one["configMap"]["optional"] == true).to_string());
                } else if !one["secret"].is_null() {
                    line("SecretName", text(&one["secret"]["name"]));
                    line("Optional", (one["secret"]["optional"] == true).to_string());
                } else if !one["downwardAPI"].is_null() {
                    line("DownwardAPI", "true".into());
                }
            }
        } else {
            let kind = volume.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| *key != "name");
            line("Type", kind.cloned().unwrap_or_default());
        }
    }
    out
}

pub(crate) fn tolerations(tolerations: &Value) -> String {
    let mut lines: Vec<String> = Vec::new();
    for one in tolerations.as_array().into_iter().flatten() {
        let mut line = text(&one["key"]);
        if let Some(value) = one["value"].as_str().filter(|value| !value.is_empty()) {
            line += &format!("={value}");
        }
        if let Some(effect) = one["effect"].as_str().filter(|effect| !effect.is_empty()) {
            line += &format!(":{effect}");
        }
        if one["operator"] == "Exists" && text(&one["value"]).is_empty() {
            line += if line.is_empty() { "op=Exists" } else { " op=Exists" };
        }
        if let Some(seconds) = one["tolerationSeconds"].as_i64() {
            line += &format!(" for {seconds}s");
        }
        lines.push(line);
    }
    lines.sort();
    if lines.is_empty() {
        "Tolerations:\t<none>\n".to_owned()
    } else {
        format!("Tolerations:\t{}\n", lines.join("\n\t"))
    }
}

/// Cores of a quantity, in thousandths; and bytes.
fn amount(value: &Value) -> f64 {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.parse::<object_model::Quantity>().map_or(0.0, |quantity| quantity.milli_value() as f64 / 1000.0)
}

pub(crate) async fn node(context: &Context, object: &Value) -> Outcome<String> {
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let labels = metadata["labels"].as_object().cloned().unwrap_or_default();
    let mut roles: Vec<String> =
        labels.keys().filter_map(|key| key.strip_prefix("node-role.kubernetes.io/")).map(str::to_owned).collect();
    roles.sort();
    let roles = if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") };
    let mut out = format!("Name:\t{}\nRoles:\t{roles}\n", name_of(object));
    out += &map_lines("Labels", &metadata["labels"], "=", &[]);
    out += &annotations(object);
    let _ = writeln!(out, "CreationTimestamp:\t{}", time(&metadata["creationTimestamp"]));
    let taints: Vec<String> = spec["taints"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|taint| {
            let value = taint["value"].as_str().filter(|v| !v.is_empty()).map(|v| format!("={v}")).unwrap_or_default();
            format!("{}{value}:{}", text(&taint["key"]), text(&taint["effect"]))
        })
        .collect();
    let _ = writeln!(out, "Taints:\t{}", if taints.is_empty() { "<none>".to_owned() } else { taints.join("\n\t") });
    let _ = writeln!(out, "Unschedulable:\t{}", spec["unschedulable"] == true);
    if let Ok(lease) = context
        .fetch(&format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", name_of(object)))
        .await
    {
        let set = |value: &Value| if value.is_null() { "<unset>".to_owned() } else { time(value) };
        let _ = writeln!(
            out,
            "Lease:\n  HolderIdentity:\t{}\n  AcquireTime:\t{}\n  RenewTime:\t{}",
            text(&lease["spec"]["holderIdentity"]),
            set(&lease["spec"]["acquireTime"]),
            set(&lease["spec"]["renewTime"])
        );
    }
    out += "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage\n  ----\t------\t-----------------\t------------------\t------\t-------\n";
    for one in status["conditions"].as_array().into_iter().flatten() {
        let _ = writeln!(
            out,
            "  {} \t{} \t{} \t{} \t{} \t{}",
            text(&one["type"]),
            text(&one["status"]),
            time(&one["lastHeartbeatTime"]),
            time(&one["lastTransitionTime"]),
            text(&one["reason"]),
            text(&one["message"])
        );
    }
    out += "Addresses:\n";
    for one in status["addresses"].as_array().into_iter().flatten() {
        let _ = writeln!(out, "  {}:\t{}", text(&one["type"]), text(&one["address"]));
    }
    for (key, title) in [("capacity", "Capacity"), ("allocatable", "Allocatable")] {
        let _ = writeln!(out, "{title}:");
        for (name, value) in status[key].as_object().into_iter().flatten() {
            let _ = writeln!(out, "  {name}:\t{}", text(value));
        }
    }
    out += "System Info:\n";
    let info = &status["nodeInfo"];
    for (key, title) in [
        ("machineID", "Machine ID"),
        ("systemUUID", "System UUID"),
        ("bootID", "Boot ID"),
        ("kernelVersion", "Kernel Version"),
        ("osImage", "OS Image"),
        ("operatingSystem", "Operating System"),
        ("architecture", "Architecture"),
        ("containerRuntimeVersion", "Container Runtime Version"),
        ("kubeletVersion", "Kubelet Version"),
    ] {
        let _ = writeln!(out, "  {title}:\t{}", text(&info[key]));
    }
    for (key, title) in [("podCIDR", "PodCIDR"), ("podCIDRs", "PodCIDRs"), ("providerID", "ProviderID")] {
        let value = match &spec[key] {
            Value::Array(all) => all.iter().map(text).collect::<Vec<_>>().join(","),
            other => text(other),
        };
        if !value.is_empty() {
            let _ = writeln!(out, "{title}:\t{value}");
        }
    }
    out += &pods_of(context, object).await?;
    Ok(out + &events(context, object).await?)
}

async fn pods_of(context: &Context, node: &Value) -> Outcome<String> {
    let fields = format!("spec.nodeName%3D{}%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed", name_of(node));
    let list = context.fetch(&format!("/api/v1/pods?fieldSelector={fields}")).await?;
    let pods = list["items"].as_array().cloned().unwrap_or_default();
    let mut out = format!("Non-terminated Pods:\t({} in total)\n", pods.len());
    out += "  Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge\n  ---------\t----\t\t------------\t----------\t---------------\t-------------\t---\n";
    let allocatable = &node["status"]["allocatable"];
    let (cores, bytes) = (amount(&allocatable["cpu"]), amount(&allocatable["memory"]));
    let percent = |part: f64, whole: f64| if whole > 0.0 { (part * 100.0 / whole) as i64 } else { 0 };
    let cpu = |cores: f64| {
        let milli = (cores * 1000.0).round() as i64;
        if milli % 1000 == 0 { (milli / 1000).to_string() } else { format!("{milli}m") }
    };
    let memory = |bytes: f64| {
        let bytes = bytes as i64;
        match bytes {
            0 => "0".to_owned(),
            _ if bytes % (1 << 30) == 0 => format!("{}Gi", bytes >> 30),
            _ if bytes % (1 << 20) == 0 => format!("{}Mi", bytes >> 20),
            _ if bytes % (1 << 10) == 0 => format!("{}Ki", bytes >> 10),
            _ => bytes.to_string(),
        }
    };
    let mut total = [0.0; 4];
    for pod in &pods {
        let mut sums = [0.0; 4];
        for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let resources = &container["resources"];
            for (sum, (kind, what)) in sums.iter_mut().zip([
                ("requests", "cpu"),
                ("limits", "cpu"),
                ("requests", "memory"),
                ("limits", "memory"),
            ]) {
                if !resources[kind][what].is_null() {
                    *sum += amount(&resources[kind][what]);
                }
            }
        }
        let _ = writeln!(
            out,
            "  {}\t{}\t\t{} ({}%)\t{} ({}%)\t{} ({}%)\t{} ({}%)\t{}",
            text(&pod["metadata"]["namespace"]),
            name_of(pod),
            cpu(sums[0]),
            percent(sums[0], cores),
            cpu(sums[1]),
            percent(sums[1], cores),
            memory(sums[2]),
            percent(sums[2], bytes),
            memory(sums[3]),
            percent(sums[3], bytes),
            age(&pod["metadata"]["creationTimestamp"], client::clock::now())
        );
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    out += "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)\n  Resource\tRequests\tLimits\n  --------\t--------\t------\n";
    let _ = writeln!(
        out,
        "  cpu\t{} ({}%)\t{} ({}%)",
        cpu(total[0]),
        percent(total[0], cores),
        cpu(total[1]),
        percent(total[1], cores)
    );
    let _ = writeln!(
        out,
        "  memory\t{} ({}%)\t{} ({}%)",
        memory(total[2]),
        percent(total[2], bytes),
        memory(total[3]),
        percent(total[3], bytes)
    );
    for what in ["ephemeral-storage", "hugepages-1Gi", "hugepages-2Mi"] {
        if !allocatable[what].is_null() {
            let _ = writeln!(out, "  {what}\t0 (0%)\t0 (0%)");
        }
    }
    Ok(out)
}
