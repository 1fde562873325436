//! From the words of CRI to those of `isolation`, without IO.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use cri::v1;
use isolation::{BindMount, PidMode, Propagation, User, capability, cgroup::Resources, seccomp::Seccomp};
use oci_spec::image::ImageConfiguration;

/// Paths that a container should not read, where the caller does not say.
pub(crate) const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// Paths that a container should not write, where the caller does not say.
pub(crate) const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Devices that every container may use, in the form of the version 1 device list.
const DEVICE_RULES: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// Program and arguments: the container's own words first, the image's where it has none.
pub(crate) fn args(config: &v1::ContainerConfig, image: &ImageConfiguration) -> Vec<String> {
    let image = image.config().as_ref();
    let entrypoint = image.and_then(|image| image.entrypoint().clone()).unwrap_or_default();
    let cmd = image.and_then(|image| image.cmd().clone()).unwrap_or_default();
    let (first, second) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (config.command.clone(), config.args.clone()),
        (true, false) => (entrypoint, config.args.clone()),
        (true, true) => (entrypoint, cmd),
    };
    first.into_iter().chain(second).collect()
}

/// Variables of the image, then those of the container, the later ones winning.
pub(crate) fn env(config: &v1::ContainerConfig, image: &ImageConfiguration, hostname: &str) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |variable: String| {
        let name = variable.split_inclusive('=').next().unwrap_or_default().to_owned();
        env.retain(|one| !one.starts_with(&name));
        env.push(variable);
    };
    if !hostname.is_empty() {
        set(format!("HOSTNAME={hostname}"));
    }
    if config.tty {
        set("TERM=xterm".into());
    }
    let image = image.config().as_ref().and_then(|image| image.env().clone()).unwrap_or_default();
    image.into_iter().for_each(&mut set);
    config.envs.iter().for_each(|one| set(format!("{}={}", one.key, one.value)));
    env
}

/// Who the container runs as.
pub(crate) fn user(security: &v1::LinuxContainerSecurityContext, image: &ImageConfiguration) -> Result<User> {
    let image = image.config().as_ref().and_then(|image| image.user().clone()).unwrap_or_default();
    let number = |value: i64| u32::try_from(value).with_context(|| format!("read user or group number {value}"));
    let user = match (&security.run_as_user, security.run_as_username.as_str()) {
        (Some(uid), _) => number(uid.value)?.to_string(),
        (None, "") => image,
        (None, name) => name.to_owned(),
    };
    let group = security.run_as_group.as_ref().map(|gid| number(gid.value)).transpose()?;
    if group.is_some() && security.run_as_user.is_none() && security.run_as_username.is_empty() {
        bail!("run_as_group needs run_as_user");
    }
    Ok(User {
        user,
        group,
        additional_groups: security.supplemental_groups.iter().map(|gid| number(*gid)).collect::<Result<_>>()?,
        strict_groups: security.supplemental_groups_policy() == v1::SupplementalGroupsPolicy::Strict,
    })
}

/// Capabilities: those it holds, and those it keeps as a plain user.
pub(crate) fn capabilities(security: &v1::LinuxContainerSecurityContext) -> Result<(capability::Set, capability::Set)> {
    if security.privileged {
        return Ok((capability::ALL, 0));
    }
    let asked = security.capabilities.clone().unwrap_or_default();
    let mut ambient = 0;
    for name in &asked.add_ambient_capabilities {
        ambient |= capability::named(name)?;
    }
    let set = capability::adjusted(
        asked.add_capabilities.iter().map(String::as_str),
        asked.drop_capabilities.iter().map(String::as_str),
    )?;
    Ok((set | ambient, ambient))
}

/// Which system calls it may make.
pub(crate) fn seccomp(security: &v1::LinuxContainerSecurityContext) -> Result<Seccomp> {
    use v1::security_profile::ProfileType;
    match security.seccomp.as_ref().map(v1::SecurityProfile::profile_type) {
        _ if security.privileged => Ok(Seccomp::Unconfined),
        None | Some(ProfileType::Unconfined) => Ok(Seccomp::Unconfined),
        Some(ProfileType::RuntimeDefault) => Ok(Seccomp::RuntimeDefault),
        Some(ProfileType::Localhost) => bail!("seccomp profiles from a file are not supported: use RuntimeDefault"),
    }
}

/// Masked and read-only paths.
pub(crate) fn guarded_paths(security: Option<&v1::LinuxContainerSecurityContext>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let paths = |list: &[String]| list.iter().map(PathBuf::from).collect();
    match security {
        Some(security) if security.privileged => (Vec::new(), Vec::new()),
        Some(security) => (paths(&security.masked_paths), paths(&security.readonly_paths)),
        None => (MASKED.map(PathBuf::from).to_vec(), READONLY.map(PathBuf::from).to_vec()),
    }
}

/// Files of the machine that show in the container.
pub(crate) fn mounts(mounts: &[v1::Mount]) -> Result<Vec<BindMount>> {
    let mut converted = Vec::new();
    for mount in mounts {
        if mount.image.is_some() {
            bail!("mount an image on {}: images as volumes are not supported", mount.container_path);
        }
        if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
            bail!("mount {}: mapped users are not supported", mount.container_path);
        }
        converted.push(BindMount {
            source: PathBuf::from(&mount.host_path),
            target: PathBuf::from("/").join(&mount.container_path),
            readonly: mount.readonly,
            recursive_readonly: mount.recursive_read_only,
            propagation: match mount.propagation() {
                v1::MountPropagation::PropagationPrivate => Propagation::Private,
                v1::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
                v1::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
            },
        });
    }
    Ok(converted)
}

/// Whose processes it sees.
pub(crate) fn pid_mode(namespaces: &v1::NamespaceOption) -> PidMode {
    match namespaces.pid() {
        v1::NamespaceMode::Pod => PidMode::Pod,
        v1::NamespaceMode::Container => PidMode::Container,
        v1::NamespaceMode::Node => PidMode::Host,
        v1::NamespaceMode::Target => PidMode::Target(namespaces.target_id.clone()),
    }
}

/// Limits. CRI says 0 for what it does not set.
pub(crate) fn resources(asked: &v1::LinuxContainerResources) -> Resources {
    let signed = |value: i64| (value != 0).then_some(value);
    let unsigned = |value: i64| u64::try_from(value).ok().filter(|value| *value != 0);
    let text = |value: &String| Some(value.clone()).filter(|value| !value.is_empty());
    Resources {
        cpu_shares: unsigned(asked.cpu_shares),
        cpu_quota: signed(asked.cpu_quota),
        cpu_period: unsigned(asked.cpu_period),
        memory: signed(asked.memory_limit_in_bytes),
        memory_and_swap: signed(asked.memory_swap_limit_in_bytes),
        pids: None,
        cpuset_cpus: text(&asked.cpuset_cpus),
        cpuset_mems: text(&asked.cpuset_mems),
        unified: asked.unified.clone().into_iter().collect(),
        devices: None,
    }
}

/// Which devices the control group lets through; `None` is every one.
pub(crate) fn device_rules(privileged: bool, devices: &[(u64, u64, char, String)]) -> Option<Vec<String>> {
    if privileged {
        return None;
    }
    let own = devices.iter().map(|(major, minor, kind, permissions)| format!("{kind} {major}:{minor} {permissions}"));
    Some(DEVICE_RULES.iter().map(|rule| (*rule).to_owned()).chain(own).collect())
}

/// The number of a signal by its CRI name; `None` leaves it to the image.
pub(crate) fn signal(signal: v1::Signal) -> Option<i32> {
    (signal != v1::Signal::RuntimeDefault).then(|| signal_named(signal.as_str_name()).unwrap_or(15))
}

/// The number of a signal such as `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `SIGRTMINPLUS3`.
pub fn signal_named(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase().replace("PLUS", "+").replace("MINUS", "-");
    let plain = upper.strip_prefix("SIG").unwrap_or(&upper);
    // The C library keeps the first two real-time signals for itself.
    for (base, number) in [("RTMIN", 34), ("RTMAX", 64)] {
        if let Some(offset) = plain.strip_prefix(base) {
            return if offset.is_empty() { Some(number) } else { Some(number + offset.parse::<i32>().ok()?) };
        }
    }
    let alias = match plain {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    format!("SIG{alias}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_every_name() {
        let known = ["SIGTERM", "quit", "9", "SIGRTMIN+3", "SIGRTMAXMINUS1", "SIGCLD"].map(signal_named);
        assert_eq!(known, [Some(15), Some(3), Some(9), Some(37), Some(63), Some(17)]);
        assert_eq!(signal_named("SIGNOTHING"), None);
        assert_eq!(signal(v1::Signal::Sigusr1), Some(10));
    }

    #[test]
    fn the_words_of_the_container_come_before_those_of_the_image() {
        let image: ImageConfiguration = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
                "config":{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1","B=2"]}}"#,
        )
        .unwrap();
        let of = |command: &[&str], words: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
            let config = v1::ContainerConfig { command: own(command), args: own(words), ..Default::default() };
            args(&config, &image).join(" ")
        };
        assert_eq!(
            [of(&[], &[]), of(&[], &["x"]), of(&["/y"], &[]), of(&["/y"], &["x"])],
            ["/e c", "/e x", "/y", "/y x"]
        );
        let envs = vec![v1::KeyValue { key: "A".into(), value: "3".into() }];
        let config = v1::ContainerConfig { envs, ..Default::default() };
        assert_eq!(env(&config, &image, "box"), ["HOSTNAME=box", "B=2", "A=3"]);
    }
}
