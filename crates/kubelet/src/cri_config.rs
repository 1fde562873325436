//! Translates a pod into the runtime's words: sandbox and container configurations. Pure.

use std::collections::{BTreeMap, HashMap};

use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};
use object_model::Quantity;

use crate::status::qos_class;
use crate::view::{grace, init_containers, main_containers};

/// Label with the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label with the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label with the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label with the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation with the seconds that the pod's containers get to end: used when the pod itself is gone.
pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Annotation with the path of the termination message on the host.
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";

/// The length of the period in which CPU quota is counted, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// What a pod's translation needs to know about its surroundings.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Where logs of this pod go.
    pub log_directory: String,
    /// The root under which pods' cgroups are made, such as `/knarr`.
    pub cgroup_root: String,
    /// Name servers, search domains and options of the host.
    pub host_dns: v1::DnsConfig,
    /// Name servers of the cluster; empty while there are none.
    pub cluster_dns: Vec<String>,
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// Bytes of memory of the node.
    pub node_memory: i64,
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

/// The labels by which sandboxes and containers of a pod are found again.
pub fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    HashMap::from([
        (POD_NAME.to_owned(), text(&pod.metadata.name)),
        (POD_NAMESPACE.to_owned(), text(&pod.metadata.namespace)),
        (POD_UID.to_owned(), text(&pod.metadata.uid)),
    ])
}

/// The cgroup of a pod, by quality of service as upstream names them.
pub fn cgroup_parent(pod: &Pod, root: &str) -> String {
    let class = match qos_class(pod) {
        "Burstable" => "burstable/",
        "BestEffort" => "besteffort/",
        _ => "",
    };
    format!("{}/kubepods/{class}pod{}", root.trim_end_matches('/'), text(&pod.metadata.uid))
}

fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = pod.spec.clone().unwrap_or_default();
    let node_or = |on: Option<bool>, other: v1::NamespaceMode| if on == Some(true) { v1::NamespaceMode::Node } else { other } as i32;
    let pid =
        if spec.share_process_namespace == Some(true) { v1::NamespaceMode::Pod } else { v1::NamespaceMode::Container };
    v1::NamespaceOption {
        network: node_or(spec.host_network, v1::NamespaceMode::Pod),
        pid: node_or(spec.host_pid, pid),
        ipc: node_or(spec.host_ipc, v1::NamespaceMode::Pod),
        ..v1::NamespaceOption::default()
    }
}

/// The host name inside the pod.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let name = spec.and_then(|spec| spec.hostname_override.clone().or_else(|| spec.hostname.clone()));
    let name = name.unwrap_or_else(|| text(&pod.metadata.name));
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn dns(pod: &Pod, around: &Surroundings) -> v1::DnsConfig {
    let spec = pod.spec.clone().unwrap_or_default();
    let host_network = spec.host_network == Some(true);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut dns = match policy {
        "None" => v1::DnsConfig::default(),
        "ClusterFirst" if host_network => around.host_dns.clone(),
        "ClusterFirst" | "ClusterFirstWithHostNet" if !around.cluster_dns.is_empty() => {
            let (domain, namespace) = (&around.cluster_domain, text(&pod.metadata.namespace));
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.extend(around.host_dns.searches.iter().cloned());
            v1::DnsConfig { servers: around.cluster_dns.clone(), searches, options: vec!["ndots:5".to_owned()] }
        }
        // Until there is a cluster DNS, the host's is the best there is.
        _ => around.host_dns.clone(),
    };
    if let Some(extra) = spec.dns_config {
        let add = |list: &mut Vec<String>, more: Vec<String>| {
            for item in more {
                if !list.contains(&item) {
                    list.push(item);
                }
            }
        };
        add(&mut dns.servers, extra.nameservers.unwrap_or_default());
        add(&mut dns.searches, extra.searches.unwrap_or_default());
        for option in extra.options.unwrap_or_default() {
            let name = text(&option.name);
            dns.options.retain(|known| known.split(':').next() != Some(&name));
            dns.options.push(match option.value {
                Some(value) => format!("{name}:{value}"),
                None => name,
            });
        }
    }
    dns
}

/// The configuration of a pod's sandbox.
pub fn sandbox(pod: &Pod, attempt: u32, around: &Surroundings) -> v1::PodSandboxConfig {
    let spec = pod.spec.clone().unwrap_or_default();
    let security = spec.security_context.clone().unwrap_or_default();
    let all = || init_containers(pod).iter().chain(main_containers(pod));
    let ports = main_containers(pod).iter().flat_map(|container| container.ports.iter().flatten());
    let port_mappings = ports
        .filter(|port| port.host_port.is_some_and(|port| port > 0) && spec.host_network != Some(true))
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: text(&port.host_ip),
        })
        .collect();
    let privileged = all().any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.extend(pod_labels(pod));
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.insert(GRACE.to_owned(), grace(pod).to_string());
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            namespace: text(&pod.metadata.namespace),
            attempt,
        }),
        hostname: if spec.host_network == Some(true) { String::new() } else { hostname(pod) },
        log_directory: around.log_directory.clone(),
        dns_config: Some(dns(pod, around)),
        port_mappings,
        labels,
        annotations,
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(pod, &around.cgroup_root),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                run_as_user: security.run_as_user.map(|value| v1::Int64Value { value }),
                run_as_group: security.run_as_user.and(security.run_as_group).map(|value| v1::Int64Value { value }),
                supplemental_groups: groups(pod),
                privileged,
                seccomp: Some(v1::SecurityProfile {
                    profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
                    ..Default::default()
                }),
                ..v1::LinuxSandboxSecurityContext::default()
            }),
            sysctls: security
                .sysctls
                .unwrap_or_default()
                .into_iter()
                .map(|sysctl| (sysctl.name, sysctl.value))
                .collect(),
            ..v1::LinuxPodSandboxConfig::default()
        }),
        ..v1::PodSandboxConfig::default()
    }
}

fn groups(pod: &Pod) -> Vec<i64> {
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    security.supplemental_groups.unwrap_or_default().into_iter().chain(security.fs_group).collect()
}

/// What has been found out about a container before it is translated.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// Its number.
    pub attempt: u32,
    /// The image as the runtime knows it.
    pub image: String,
    /// The environment, in order.
    pub env: Vec<(String, String)>,
    /// Mounts of volumes and of files that the kubelet keeps.
    pub mounts: Vec<v1::Mount>,
    /// Where its termination message goes, on the host.
    pub message_path: String,
}

fn amount(
    map: Option<&BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>,
    key: &str,
) -> Option<Quantity> {
    map?.get(key)?.0.parse().ok()
}

/// CPU and memory of a container, as the kernel counts them.
pub fn resources(pod: &Pod, container: &Container, node_memory: i64) -> v1::LinuxContainerResources {
    let resources = container.resources.clone().unwrap_or_default();
    let (limits, requests) = (resources.limits.as_ref(), resources.requests.as_ref());
    let cpu_limit = amount(limits, "cpu");
    let cpu_request = amount(requests, "cpu").or_else(|| cpu_limit.clone());
    let memory_limit = amount(limits, "memory");
    let memory_request = amount(requests, "memory").or_else(|| memory_limit.clone());
    let shares = cpu_request.map_or(2, |cpu| (cpu.milli_value() * 1024 / 1000).clamp(2, 262_144));
    let quota = cpu_limit.map_or(0, |cpu| (cpu.milli_value() * CPU_PERIOD / 1000).max(1000));
    // The larger a container's part of the memory it asked for, the later the kernel picks it (upstream's formula).
    let oom_score_adj = match qos_class(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = memory_request.map_or(0, |memory| memory.value());
            let part = if node_memory > 0 { 1000 * i128::from(request) / i128::from(node_memory) } else { 0 };
            i64::try_from((1000 - part).clamp(3, 999)).unwrap_or(999)
        }
    };
    v1::LinuxContainerResources {
        cpu_period: CPU_PERIOD,
        cpu_quota: quota,
        cpu_shares: shares,
        memory_limit_in_bytes: memory_limit.map_or(0, |memory| memory.value()),
        oom_score_adj,
        ..v1::LinuxContainerResources::default()
    }
}

fn seccomp(own: Option<&SeccompProfile>, pods: Option<&SeccompProfile>) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let profile = own.or(pods);
    let profile_type = match profile.map(|profile| profile.type_.as_str()) {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        // Without a wish, containers are unconfined, as upstream without SeccompDefault.
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.and_then(|profile| profile.localhost_profile.clone()).unwrap_or_default();
    v1::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

const MASKED: [&str; 11] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The configuration of a container.
pub fn container(pod: &Pod, container: &Container, prepared: &Prepared, around: &Surroundings) -> v1::ContainerConfig {
    let pod_security = pod.spec.as_ref().and_then(|spec| spec.security_context.clone()).unwrap_or_default();
    let security = container.security_context.clone().unwrap_or_default();
    let privileged = security.privileged == Some(true);
    let capabilities = security.capabilities.clone().unwrap_or_default();
    let lookup = |name: &str| prepared.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| crate::env::expand(text, lookup)).collect()
    };
    let unmasked = privileged || security.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| -> Vec<String> {
        if unmasked { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let user = security.run_as_user.or(pod_security.run_as_user);
    let group = security.run_as_group.or(pod_security.run_as_group);
    let mut labels = pod_labels(pod);
    labels.insert(CONTAINER_NAME.to_owned(), container.name.clone());
    let annotations = HashMap::from([
        (GRACE.to_owned(), grace(pod).to_string()),
        (MESSAGE_PATH.to_owned(), prepared.message_path.clone()),
        ("io.kubernetes.container.restartCount".to_owned(), prepared.attempt.to_string()),
    ]);
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: container.name.clone(), attempt: prepared.attempt }),
        image: Some(v1::ImageSpec {
            image: prepared.image.clone(),
            user_specified_image: text(&container.image),
            ..v1::ImageSpec::default()
        }),
        command: expand(&container.command),
        args: expand(&container.args),
        working_dir: text(&container.working_dir),
        envs: prepared.env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: prepared.mounts.clone(),
        labels,
        annotations,
        log_path: format!("{}/{}.log", container.name, prepared.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(pod, container, around.node_memory)),
            security_context: Some(v1::LinuxContainerSecurityContext {
                capabilities: Some(v1::Capability {
                    add_capabilities: capabilities.add.unwrap_or_default(),
                    drop_capabilities: capabilities.drop.unwrap_or_default(),
                    ..v1::Capability::default()
                }),
                privileged,
                namespace_options: Some(namespaces(pod)),
                run_as_user: user.map(|value| v1::Int64Value { value }),
                run_as_group: group.map(|value| v1::Int64Value { value }),
                readonly_rootfs: security.read_only_root_filesystem == Some(true),
                supplemental_groups: groups(pod),
                no_new_privs: security.allow_privilege_escalation == Some(false),
                masked_paths: paths(&MASKED),
                readonly_paths: paths(&READ_ONLY),
                seccomp: Some(if privileged {
                    v1::SecurityProfile {
                        profile_type: v1::security_profile::ProfileType::Unconfined as i32,
                        ..Default::default()
                    }
                } else {
                    seccomp(security.seccomp_profile.as_ref(), pod_security.seccomp_profile.as_ref())
                }),
                ..v1::LinuxContainerSecurityContext::default()
            }),
        }),
        ..v1::ContainerConfig::default()
    }
}

/// The content of a pod's `/etc/hosts`.
pub fn hosts_file(pod: &Pod, ip: &str) -> String {
    let mut lines = vec![
        "# Kubernetes-managed hosts file.".to_owned(),
        "127.0.0.1\tlocalhost".to_owned(),
        "::1\tlocalhost ip6-localhost ip6-loopback".to_owned(),
        "fe00::0\tip6-localnet".to_owned(),
        "fe00::0\tip6-mcastprefix".to_owned(),
        "fe00::1\tip6-allnodes".to_owned(),
        "fe00::2\tip6-allrouters".to_owned(),
    ];
    if !ip.is_empty() {
        lines.push(format!("{ip}\t{}", hostname(pod)));
    }
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.clone()).unwrap_or_default();
    if !aliases.is_empty() {
        lines.push("\n# Entries added by HostAliases.".to_owned());
        lines.extend(
            aliases
                .iter()
                .map(|alias| format!("{}\t{}", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t"))),
        );
    }
    lines.join("\n") + "\n"
}

/// Reads a `resolv.conf`.
pub fn parse_resolv_conf(content: &str) -> v1::DnsConfig {
    let mut dns = v1::DnsConfig::default();
    for line in content.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search" | "domain") => dns.searches = words.map(str::to_owned).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}
