//! Validation of containers.

use object_model::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

use super::{range, security, volume};
use crate::{rules, walk};

/// Fields of a pod that a variable can show.
const VARIABLE_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What a container for debugging cannot have.
const NOT_EPHEMERAL: [&str; 8] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "restartPolicy",
    "resizePolicy",
    "restartPolicyRules",
];

/// What the containers of a pod have in common.
struct Pod<'a> {
    spec: &'a Value,
    volumes: &'a [&'a str],
}

/// Checks the containers of a pod spec, whose volumes have these names.
pub(super) fn validate_all(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath, volumes: &[&str]) {
    if walk::list(spec, "containers").is_empty() {
        errors.push(FieldError::required(&path.child("containers"), ""));
    }
    let pod = Pod { spec, volumes };
    let mut seen: Vec<&str> = Vec::new();
    let mut host_ports: Vec<(String, i64, String)> = Vec::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (index, container) in walk::list(spec, list).iter().enumerate() {
            let path = path.child(list).index(index);
            match walk::text(container, "name") {
                None => errors.push(FieldError::required(&path.child("name"), "")),
                Some(name) => {
                    let problems = names::dns_label(name);
                    errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
                    if seen.contains(&name) {
                        errors.push(FieldError::duplicate(&path.child("name"), name));
                    }
                    seen.push(name);
                }
            }
            if list == "ephemeralContainers" {
                ephemeral(errors, container, spec, &path);
            }
            let may_probe = list != "initContainers" || container["restartPolicy"] == "Always";
            validate(errors, container, &path, &pod, may_probe);
            ports(errors, container, &path, if list == "containers" { Some(&mut host_ports) } else { None });
            if spec["hostNetwork"] == true {
                host_network(errors, container, &path);
            }
        }
    }
}

fn ephemeral(errors: &mut Vec<FieldError>, container: &Value, spec: &Value, path: &FieldPath) {
    if let Some(target) = walk::text(container, "targetContainerName") {
        let mut all = walk::list(spec, "containers").iter().chain(walk::list(spec, "initContainers"));
        if !all.any(|container| container["name"] == target) {
            errors.push(FieldError::not_found(&path.child("targetContainerName"), target));
        }
    }
    let why = "cannot be set for an Ephemeral Container";
    let is_set = |value: &Value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    for field in NOT_EPHEMERAL.into_iter().chain(["resources"]) {
        if walk::at(container, field).is_some_and(is_set) {
            errors.push(FieldError::forbidden(&path.child(field), why));
        }
    }
    for (index, mount) in walk::list(container, "volumeMounts").iter().enumerate() {
        for field in ["subPath", "subPathExpr"].into_iter().filter(|field| walk::text(mount, field).is_some()) {
            errors.push(FieldError::forbidden(&path.child("volumeMounts").index(index).child(field), why));
        }
    }
}

fn host_network(errors: &mut Vec<FieldError>, container: &Value, path: &FieldPath) {
    for (index, port) in walk::list(container, "ports").iter().enumerate() {
        let (own, host) = (walk::number(port, "containerPort"), walk::number(port, "hostPort"));
        if own != host {
            let path = path.child("ports").index(index).child("containerPort");
            let why = "must match `hostPort` when `hostNetwork` is true";
            errors.push(FieldError::invalid(&path, own, why));
        }
    }
}

fn validate(errors: &mut Vec<FieldError>, container: &Value, path: &FieldPath, pod: &Pod<'_>, may_probe: bool) {
    match container["image"].as_str().unwrap_or_default() {
        "" => errors.push(FieldError::required(&path.child("image"), "")),
        image if image.trim() != image => {
            let why = "must not have leading or trailing whitespace";
            errors.push(FieldError::invalid(&path.child("image"), image, why));
        }
        _ => {}
    }
    walk::one_of(errors, container, "imagePullPolicy", path, &["Always", "IfNotPresent", "Never"]);
    walk::one_of(errors, container, "terminationMessagePolicy", path, &["FallbackToLogsOnError", "File"]);
    walk::one_of(errors, container, "restartPolicy", path, &["Always", "Never", "OnFailure"]);
    environment(errors, container, path);
    mounts(errors, container, &path.child("volumeMounts"), pod.volumes);
    devices(errors, container, pod.spec, &path.child("volumeDevices"));
    resources(errors, &container["resources"], pod.spec, &path.child("resources"));
    resize_policy(errors, container, &path.child("resizePolicy"));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(given) = walk::at(container, name) else { continue };
        let path = path.child(name);
        if may_probe {
            probe(errors, given, &path, name == "readinessProbe");
        } else {
            errors
                .push(FieldError::forbidden(&path, "may not be set for init containers without restartPolicy=Always"));
        }
    }
    if let Some(lifecycle) = walk::at(container, "lifecycle") {
        let path = path.child("lifecycle");
        if !may_probe {
            errors
                .push(FieldError::forbidden(&path, "may not be set for init containers without restartPolicy=Always"));
        }
        for hook in ["postStart", "preStop"] {
            if let Some(action) = lifecycle.get(hook) {
                handler(errors, action, &path.child(hook), &["exec", "httpGet", "tcpSocket", "sleep"]);
            }
        }
        if walk::text(lifecycle, "stopSignal").is_some() && walk::at(pod.spec, "os").is_none() {
            let why = "may not be set for containers with empty `spec.os.name`";
            errors.push(FieldError::forbidden(&path.child("stopSignal"), why));
        }
    }
    let host_users = pod.spec["hostUsers"] != false;
    security::container(errors, &container["securityContext"], host_users, &path.child("securityContext"));
}

fn resize_policy(errors: &mut Vec<FieldError>, container: &Value, path: &FieldPath) {
    let policies = walk::list(container, "resizePolicy");
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        rules::required_choice(errors, policy, "resourceName", &path, &["cpu", "memory"]);
        rules::required_choice(errors, policy, "restartPolicy", &path, &["NotRequired", "RestartContainer"]);
    }
    rules::unique(errors, policies.iter().map(|policy| walk::text(policy, "resourceName")), |index| path.index(index));
}

fn devices(errors: &mut Vec<FieldError>, container: &Value, spec: &Value, path: &FieldPath) {
    let given = walk::list(container, "volumeDevices");
    for (index, device) in given.iter().enumerate() {
        let path = path.index(index);
        if let Some(name) = rules::required(errors, device, "name", &path) {
            let at = path.child("name");
            match walk::list(spec, "volumes").iter().find(|volume| volume["name"] == name) {
                None => errors.push(FieldError::not_found(&at, name)),
                Some(volume) if ["persistentVolumeClaim", "ephemeral"].iter().all(|k| volume.get(k).is_none()) => {
                    let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                    errors.push(FieldError::invalid(&at, name, why));
                }
                Some(_) => {}
            }
        }
        if let Some(place) = rules::required(errors, device, "devicePath", &path) {
            if given[..index].iter().any(|other| other["devicePath"] == place) {
                errors.push(FieldError::invalid(&path.child("devicePath"), place, "must be unique"));
            }
            if place.split('/').any(|part| part == "..") {
                errors.push(FieldError::invalid(&path.child("devicePath"), place, "must not contain '..'"));
            }
        }
    }
}

fn ports(
    errors: &mut Vec<FieldError>,
    container: &Value,
    path: &FieldPath,
    mut host_ports: Option<&mut Vec<(String, i64, String)>>,
) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in walk::list(container, "ports").iter().enumerate() {
        let path = path.child("ports").index(index);
        if let Some(name) = walk::text(port, "name") {
            let problems = names::port_name(name);
            errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
            seen.push(name);
        }
        match walk::number(port, "containerPort") {
            0 => errors.push(FieldError::required(&path.child("containerPort"), "")),
            number => range(errors, &number.into(), &path.child("containerPort"), 1, 65535),
        }
        if walk::text(port, "protocol").is_none() {
            errors.push(FieldError::required(&path.child("protocol"), ""));
        }
        walk::one_of(errors, port, "protocol", &path, &["SCTP", "TCP", "UDP"]);
        if let Some(ip) = walk::text(port, "hostIP").filter(|ip| ip.parse::<std::net::IpAddr>().is_err()) {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(&path.child("hostIP"), ip, why));
        }
        let host = walk::number(port, "hostPort");
        if host == 0 {
            continue;
        }
        range(errors, &host.into(), &path.child("hostPort"), 1, 65535);
        let text = |field: &str| walk::text(port, field).unwrap_or_default().to_owned();
        let taken = (text("protocol"), host, text("hostIP"));
        if let Some(all) = host_ports.as_deref_mut() {
            if all.contains(&taken) {
                let shown = format!("{}/{}/{}", taken.0, taken.2, taken.1);
                errors.push(FieldError::duplicate(&path.child("hostPort"), shown));
            }
            all.push(taken);
        }
    }
}

fn environment(errors: &mut Vec<FieldError>, container: &Value, path: &FieldPath) {
    for (index, variable) in walk::list(container, "env").iter().enumerate() {
        let path = path.child("env").index(index);
        match walk::text(variable, "name") {
            None => errors.push(FieldError::required(&path.child("name"), "")),
            Some(name) if name.chars().any(|c| c == '=' || !(' '..='~').contains(&c)) => {
                let why = "a valid environment variable name must consist only of printable ASCII characters other \
                           than '='";
                errors.push(FieldError::invalid(&path.child("name"), name, why));
            }
            Some(_) => {}
        }
        let Some(from) = walk::at(variable, "valueFrom") else { continue };
        let path = path.child("valueFrom");
        let sources = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
        let given = sources.iter().filter(|source| walk::at(from, source).is_some()).count();
        if given == 0 {
            let why = "must specify one of: `configMapKeyRef`, `fieldRef`, `fileKeyRef`, `resourceFieldRef` or \
                       `secretKeyRef`";
            errors.push(FieldError::invalid(&path, "", why));
        } else if given > 1 {
            errors.push(FieldError::invalid(&path, "", "may not have more than one field specified at a time"));
        } else if walk::text(variable, "value").is_some() {
            errors.push(FieldError::invalid(&path, "", "may not be specified when `value` is not empty"));
        }
        for (source, fields) in [("configMapKeyRef", ["name", "key"]), ("secretKeyRef", ["name", "key"])] {
            let Some(source_value) = walk::at(from, source) else { continue };
            for field in fields.iter().filter(|field| walk::text(source_value, field).is_none()) {
                errors.push(FieldError::required(&path.child(source).child(field), ""));
            }
        }
        if let Some(field) = walk::at(from, "fieldRef") {
            volume::field_ref(errors, field, &VARIABLE_FIELDS, &path.child("fieldRef"));
        }
        if let Some(resource) = walk::at(from, "resourceFieldRef") {
            volume::resource_ref(errors, resource, &path.child("resourceFieldRef"));
        }
        if let Some(file) = walk::at(from, "fileKeyRef") {
            for field in ["volumeName", "path", "key"] {
                rules::required(errors, file, field, &path.child("fileKeyRef"));
            }
        }
    }
    for (index, source) in walk::list(container, "envFrom").iter().enumerate() {
        let path = path.child("envFrom").index(index);
        let given = ["configMapRef", "secretRef"].into_iter().filter(|name| walk::at(source, name).is_some());
        let given: Vec<_> = given.collect();
        match given.as_slice() {
            [name] if walk::text(&source[*name], "name").is_none() => {
                errors.push(FieldError::required(&path.child(name).child("name"), ""));
            }
            [_] => {}
            [] => errors.push(FieldError::invalid(&path, "", "must specify one of: `configMapRef` or `secretRef`")),
            _ => errors.push(FieldError::invalid(&path, "", "may not have more than one field specified at a time")),
        }
    }
}

fn mounts(errors: &mut Vec<FieldError>, container: &Value, path: &FieldPath, volumes: &[&str]) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, mount) in walk::list(container, "volumeMounts").iter().enumerate() {
        let path = path.index(index);
        match walk::text(mount, "name") {
            None => errors.push(FieldError::required(&path.child("name"), "")),
            Some(name) if !volumes.contains(&name) => {
                errors.push(FieldError::not_found(&path.child("name"), name));
            }
            Some(_) => {}
        }
        match walk::text(mount, "mountPath") {
            None => errors.push(FieldError::required(&path.child("mountPath"), "")),
            Some(place) => {
                if seen.contains(&place) {
                    errors.push(FieldError::invalid(&path.child("mountPath"), place, "must be unique"));
                }
                seen.push(place);
            }
        }
        walk::one_of(errors, mount, "mountPropagation", &path, &["Bidirectional", "HostToContainer", "None"]);
        let privileged = container["securityContext"]["privileged"] == true;
        if mount["mountPropagation"] == "Bidirectional" && !privileged {
            let why = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(&path.child("mountPropagation"), why));
        }
        walk::one_of(errors, mount, "recursiveReadOnly", &path, &["Disabled", "Enabled", "IfPossible"]);
        if matches!(walk::text(mount, "recursiveReadOnly"), Some("Enabled" | "IfPossible")) && mount["readOnly"] != true
        {
            let why = "may only be specified when readOnly is true";
            errors.push(FieldError::forbidden(&path.child("recursiveReadOnly"), why));
        }
        if let Some(sub) = walk::text(mount, "subPathExpr") {
            volume::relative(errors, sub, &path.child("subPathExpr"));
        }
        if let Some(sub) = walk::text(mount, "subPath") {
            volume::relative(errors, sub, &path.child("subPath"));
            if walk::text(mount, "subPathExpr").is_some() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(&path.child("subPathExpr"), mount["subPathExpr"].clone(), why));
            }
        }
    }
}

/// What is wrong with the name of a resource that a container can ask for.
pub(crate) fn container_resource_name(errors: &mut Vec<FieldError>, name: &str, path: &FieldPath) {
    errors.extend(names::qualified_name(name).into_iter().map(|why| FieldError::invalid(path, name, why)));
    let standard = ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
    if name.contains('/') {
        if !name.contains("kubernetes.io/") && !rules::is_extended_resource(name) {
            errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
        }
    } else if !standard {
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
}

/// Whether a container gets of a resource exactly what it asks for: its request is its limit.
pub(crate) fn is_not_overcommitted(name: &str) -> bool {
    name.starts_with("hugepages-") || rules::is_extended_resource(name)
}

/// What is wrong with amounts of resources.
pub(crate) fn amounts(errors: &mut Vec<FieldError>, map: &Value, path: &FieldPath) {
    for (name, text) in object_model::meta::strings(map) {
        let path = path.key(name);
        container_resource_name(errors, name, &path);
        match text.parse::<Quantity>() {
            Ok(amount) if amount.is_negative() => {
                errors.push(FieldError::invalid(&path, text, walk::NOT_NEGATIVE));
            }
            Ok(amount) if rules::is_extended_resource(name) && amount != Quantity::whole(amount.value()) => {
                errors.push(FieldError::invalid(&path, text, "must be an integer"));
            }
            Ok(amount) => {
                if let Some(size) = name.strip_prefix("hugepages-")
                    && !is_whole_pages(&amount, size)
                {
                    let why = format!("{amount} is not positive integer multiple of {name}");
                    errors.push(FieldError::invalid(&path, text, why));
                }
            }
            Err(error) => errors.push(FieldError::invalid(&path, text, error.to_string())),
        }
    }
}

fn is_whole_pages(amount: &Quantity, size: &str) -> bool {
    let size = size.parse::<Quantity>().ok().filter(|size| *size == Quantity::whole(size.value()));
    size.is_some_and(|size| size.value() > 0 && amount.value() % size.value() == 0)
}

pub(super) fn resources(errors: &mut Vec<FieldError>, resources: &Value, spec: &Value, path: &FieldPath) {
    let amount =
        |list: &str, name: &str| walk::text(&resources[list], name).and_then(|text| text.parse::<Quantity>().ok());
    for list in ["limits", "requests"] {
        amounts(errors, &resources[list], &path.child(list));
    }
    for name in object_model::meta::strings(&resources["requests"]).into_keys() {
        let (request, limit) = (amount("requests", name), amount("limits", name));
        match (request, limit) {
            (Some(request), Some(limit)) if request > limit => {
                let why = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&path.child("requests"), request.to_string(), why));
            }
            (Some(request), Some(limit)) if request != limit && is_not_overcommitted(name) => {
                let why = format!("must be equal to {name} limit of {limit}");
                errors.push(FieldError::invalid(&path.child("requests"), request.to_string(), why));
            }
            (Some(_), None) if is_not_overcommitted(name) => {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&path.child("limits"), why));
            }
            _ => {}
        }
    }
    let given = |wanted: &dyn Fn(&str) -> bool| {
        ["limits", "requests"].iter().any(|list| object_model::meta::strings(&resources[*list]).into_keys().any(wanted))
    };
    if given(&|name| name.starts_with("hugepages-")) && !given(&|name| matches!(name, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    for (index, claim) in walk::list(resources, "claims").iter().enumerate() {
        let path = path.child("claims").index(index);
        let Some(name) = rules::required(errors, claim, "name", &path) else { continue };
        if !walk::list(spec, "resourceClaims").iter().any(|claim| claim["name"] == name) {
            let why = "must be one of the names in pod.spec.resourceClaims";
            errors.push(FieldError::invalid(&path, claim.clone(), why));
        }
    }
}

fn probe(errors: &mut Vec<FieldError>, probe: &Value, path: &FieldPath, may_need_many: bool) {
    handler(errors, probe, path, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for field in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        walk::not_negative(errors, probe, field, path);
    }
    if let Some(seconds) = walk::at(probe, "terminationGracePeriodSeconds") {
        let path = path.child("terminationGracePeriodSeconds");
        if may_need_many {
            errors.push(FieldError::invalid(&path, seconds.clone(), "must not be set for readinessProbes"));
        } else if seconds.as_i64().is_none_or(|seconds| seconds <= 0) {
            errors.push(FieldError::invalid(&path, seconds.clone(), "must be greater than 0"));
        }
    }
    if !may_need_many && !matches!(walk::number(probe, "successThreshold"), 0 | 1) {
        let given = walk::number(probe, "successThreshold");
        errors.push(FieldError::invalid(&path.child("successThreshold"), given, "must be 1"));
    }
}

/// What a probe or a lifecycle hook does: exactly one of some actions.
fn handler(errors: &mut Vec<FieldError>, object: &Value, path: &FieldPath, kinds: &[&str]) {
    let given: Vec<&str> = kinds.iter().copied().filter(|kind| walk::at(object, kind).is_some()).collect();
    if given.is_empty() {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for extra in given.iter().skip(1) {
        errors.push(FieldError::forbidden(&path.child(extra), "may not specify more than 1 handler type"));
    }
    for kind in given {
        let path = path.child(kind);
        let action = &object[kind];
        match kind {
            "exec" if walk::list(action, "command").is_empty() => {
                errors.push(FieldError::required(&path.child("command"), ""));
            }
            "httpGet" => {
                if walk::text(action, "path").is_none() {
                    errors.push(FieldError::required(&path.child("path"), ""));
                }
                port(errors, &action["port"], &path.child("port"));
                walk::one_of(errors, action, "scheme", &path, &["HTTP", "HTTPS"]);
                for (index, header) in walk::list(action, "httpHeaders").iter().enumerate() {
                    let name = header["name"].as_str().unwrap_or_default();
                    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                        let why = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. \
                                   'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
                        let path = path.child("httpHeaders").index(index).child("name");
                        errors.push(FieldError::invalid(&path, name, why));
                    }
                }
            }
            "sleep" => walk::not_negative(errors, action, "seconds", &path),
            "tcpSocket" | "grpc" => port(errors, &action["port"], &path.child("port")),
            _ => {}
        }
    }
}

fn port(errors: &mut Vec<FieldError>, value: &Value, path: &FieldPath) {
    match value.as_str() {
        Some(name) => errors.extend(names::port_name(name).into_iter().map(|why| FieldError::invalid(path, name, why))),
        None => range(errors, value, path, 1, 65535),
    }
}
