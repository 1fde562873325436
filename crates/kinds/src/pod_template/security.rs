//! Validation of security contexts, and of what a pod shares with its node.

use object_model::{FieldError, FieldPath};
use serde_json::Value;

use super::volume;
use crate::{rules, walk};

/// Kernel parameters of their own that pods with a namespace of a kind have.
const IPC_SYSCTLS: [&str; 3] = ["kernel.sem", "kernel.msg", "kernel.shm"];
const MAX_SYSCTL: usize = 253;

/// The user and group numbers of a security context, and its profiles.
fn common(errors: &mut Vec<FieldError>, context: &Value, path: &FieldPath) {
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        if let Some(id) = walk::at(context, field) {
            number(errors, id, &path.child(field));
        }
    }
    for (field, name) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        if let Some(given) = walk::at(context, field) {
            profile(errors, given, name, &path.child(field));
        }
    }
}

fn number(errors: &mut Vec<FieldError>, id: &Value, path: &FieldPath) {
    if !id.as_i64().is_some_and(|id| (0..=i64::from(i32::MAX)).contains(&id)) {
        errors.push(FieldError::invalid(path, id.clone(), "must be between 0 and 2147483647, inclusive"));
    }
}

fn profile(errors: &mut Vec<FieldError>, profile: &Value, name: &str, path: &FieldPath) {
    rules::required_choice(errors, profile, "type", path, &["Localhost", "RuntimeDefault", "Unconfined"]);
    let at = path.child("localhostProfile");
    match (profile["type"] == "Localhost", walk::at(profile, "localhostProfile")) {
        (true, None) => {
            errors.push(FieldError::required(&at, format!("must be set when {name} type is Localhost")));
        }
        (false, Some(given)) => {
            let why = format!("can only be set when {name} type is Localhost");
            errors.push(FieldError::invalid(&at, given.clone(), why));
        }
        (true, Some(given)) => volume::relative(errors, given.as_str().unwrap_or_default(), &at),
        (false, None) => {}
    }
}

/// The security context of a pod.
pub(super) fn pod(errors: &mut Vec<FieldError>, spec: &Value, at: &FieldPath) {
    let (context, path) = (&spec["securityContext"], at.child("securityContext"));
    common(errors, context, &path);
    for (index, id) in walk::list(context, "supplementalGroups").iter().enumerate() {
        number(errors, id, &path.child("supplementalGroups").index(index));
    }
    walk::one_of(errors, context, "fsGroupChangePolicy", &path, &["Always", "OnRootMismatch"]);
    walk::one_of(errors, context, "supplementalGroupsPolicy", &path, &["Merge", "Strict"]);
    walk::one_of(errors, context, "seLinuxChangePolicy", &path, &["MountOption", "Recursive"]);
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, why));
    }
    if spec["hostUsers"] == false {
        for field in ["hostNetwork", "hostPID", "hostIPC"].iter().filter(|field| spec[**field] == true) {
            let why = "when `hostUsers` is false";
            errors.push(FieldError::forbidden(&at.child(field), why));
        }
    }
    sysctls(errors, spec, &path.child("sysctls"));
}

fn sysctls(errors: &mut Vec<FieldError>, spec: &Value, path: &FieldPath) {
    let list = walk::list(spec, "securityContext.sysctls");
    for (index, sysctl) in list.iter().enumerate() {
        let path = path.index(index);
        let Some(name) = rules::required(errors, sysctl, "name", &path) else { continue };
        let at = path.child("name");
        if !is_sysctl(name) {
            let why = format!(
                "must have at most {MAX_SYSCTL} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(FieldError::invalid(&at, name, why));
            continue;
        }
        let dotted = name.replace('/', ".");
        if list[..index].iter().any(|other| other["name"].as_str().is_some_and(|n| n.replace('/', ".") == dotted)) {
            errors.push(FieldError::duplicate(&at, name));
        }
        if spec["hostNetwork"] == true && dotted.starts_with("net.") {
            errors.push(FieldError::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        }
        let ipc = IPC_SYSCTLS.iter().any(|prefix| dotted.starts_with(prefix)) || dotted.starts_with("fs.mqueue.");
        if spec["hostIPC"] == true && ipc {
            errors.push(FieldError::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let part = |part: &str| {
        part.starts_with(end) && part.ends_with(end) && part.chars().all(|c| end(c) || matches!(c, '-' | '_'))
    };
    name.len() <= MAX_SYSCTL && name.split(['.', '/']).all(part)
}

/// The security context of a container.
pub(super) fn container(errors: &mut Vec<FieldError>, context: &Value, host_users: bool, path: &FieldPath) {
    common(errors, context, path);
    walk::one_of(errors, context, "procMount", path, &["Default", "Unmasked"]);
    if context["procMount"] == "Unmasked" && host_users {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(&path.child("procMount"), "Unmasked", why));
    }
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, context.clone(), why));
        }
        if walk::list(context, "capabilities.add").iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, context.clone(), why));
        }
    }
}
