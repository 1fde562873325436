//! What all workers share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Context as _;
use client::{Cache, Client, EventType, Recorder, Resource};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Pod, Service};
use object_model::Reason;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::Config;
use crate::cri_config::{Surroundings, parse_resolv_conf};
use crate::env::{Facts, Source, Sources};
use crate::node::Machine;
use crate::persistent::{Disks, Wanted};
use crate::runtime::Cri;
use crate::sources::Follower;
use crate::status::Host;
use crate::volume_keeper::{CLAIMS, VOLUMES};

pub(crate) const PODS: Resource = Resource { group: "", version: "v1", plural: "pods" };
pub(crate) const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const CONFIG_MAPS: Resource = Resource { group: "", version: "v1", plural: "configmaps" };
const SECRETS: Resource = Resource { group: "", version: "v1", plural: "secrets" };
const SERVICE_ACCOUNTS: Resource = Resource { group: "", version: "v1", plural: "serviceaccounts" };

pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) client: Client,
    /// The client of who keeps the volumes on this node's disk.
    pub(crate) volumes: Client,
    pub(crate) cri: Cri,
    pub(crate) recorder: Recorder,
    pub(crate) host: Host,
    pub(crate) machine: Machine,
    /// The Services of the cluster, which containers are told of.
    pub(crate) services: Cache<Service>,
    /// The port of the endpoint for logs and exec.
    pub(crate) port: u16,
    /// ConfigMaps and Secrets that running pods have as files.
    pub(crate) sources: Follower,
    /// Bounds how many sandboxes and containers are made at the same time.
    pub(crate) making: Semaphore,
    /// The volumes on this node's disk.
    pub(crate) disks: Disks,
}

impl Context {
    /// Where the logs of a pod go.
    pub(crate) fn log_directory(&self, pod: &Pod) -> PathBuf {
        let part = |value: &Option<String>| value.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        self.config.logs_dir.join(format!(
            "{}_{}_{}",
            part(&metadata.namespace),
            part(&metadata.name),
            part(&metadata.uid)
        ))
    }

    /// What the translation of a pod needs to know.
    pub(crate) fn surroundings(&self, pod: &Pod) -> Surroundings {
        // Read each time: the host may change its name servers. A host without the file has none.
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Surroundings {
            log_directory: self.log_directory(pod).display().to_string(),
            cgroup_root: self.config.cgroup_root.clone(),
            host_dns: parse_resolv_conf(&resolv_conf),
            cluster_dns: self.config.cluster_dns.clone(),
            cluster_domain: self.config.cluster_domain.clone(),
            node_memory: self.machine.memory,
        }
    }

    /// What the downward API tells about a pod with these addresses.
    pub(crate) fn facts(&self, pod_ips: Vec<String>) -> Facts {
        Facts {
            node_name: self.config.node_name.clone(),
            host_ip: self.host.ip.clone(),
            pod_ips,
            node_cpu_milli: self.machine.cpus * 1000,
            node_memory: self.machine.memory,
            services: BTreeMap::new(),
        }
    }

    /// The variables that tell a pod's containers of Services. Waits until the Services are known.
    pub(crate) async fn service_variables(&self, pod: &Pod) -> BTreeMap<String, String> {
        self.services.synced().await;
        let services = self.services.all();
        crate::service_env::variables(pod, services.iter().map(|service| &service.object))
    }

    /// Records an event about a pod, or one of its containers.
    pub(crate) fn event(&self, pod: &Pod, container: Option<&str>, kind: EventType, reason: &str, message: &str) {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": pod.metadata.name, "namespace": pod.metadata.namespace,
                "uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version,
            },
        });
        let path = container.map(|name| {
            let init = crate::view::init_containers(pod).iter().any(|container| container.name == name);
            format!("spec.{}{{{name}}}", if init { "initContainers" } else { "containers" })
        });
        self.recorder.event(&object, path.as_deref(), kind, reason, message);
    }

    /// Reads ConfigMaps and Secrets of a namespace.
    pub(crate) async fn read(&self, namespace: &str, wanted: &BTreeSet<Source>) -> anyhow::Result<Sources> {
        let mut found = Sources::new();
        for source in wanted {
            let (resource, name) = resource_of(source);
            let data = match self.client.api(resource).get(Some(namespace), name).await {
                Ok(object) => Some(data_of(source, object).with_context(|| format!("read {source}"))?),
                Err(error) if error.reason == Reason::NotFound => None,
                Err(error) => return Err(anyhow::Error::new(error).context(format!("read {source}"))),
            };
            found.insert(source.clone(), data);
        }
        Ok(found)
    }

    /// The volumes that a pod has by its claims.
    pub(crate) async fn claimed(&self, pod: &Pod) -> anyhow::Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let Some(source) = &volume.persistent_volume_claim else { continue };
            let failed = || format!("MountVolume.SetUp failed for volume {:?}", volume.name);
            let namespace = pod.metadata.namespace.as_deref();
            let claim = self.client.api(CLAIMS).get(namespace, &source.claim_name).await.with_context(failed)?;
            let name = claim["spec"]["volumeName"].as_str().unwrap_or_default();
            if claim["status"]["phase"] != "Bound" || name.is_empty() {
                anyhow::bail!("{}: persistentvolumeclaim {:?} is not bound", failed(), source.claim_name);
            }
            let object = self.client.api(VOLUMES).get(None, name).await.with_context(failed)?;
            if object["spec"]["claimRef"]["uid"] != claim["metadata"]["uid"] {
                anyhow::bail!("{}: volume {name:?} belongs to another claim", failed());
            }
            let read_only = source.read_only == Some(true);
            wanted.push(Wanted { name: volume.name.clone(), volume: object, read_only });
        }
        Ok(wanted)
    }

    /// A token for the pod's service account.
    pub(crate) async fn token(&self, pod: &Pod, audience: &str, seconds: i64) -> anyhow::Result<String> {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
        let account = account.unwrap_or_else(|| "default".to_owned());
        let audiences: Vec<&str> = if audience.is_empty() { Vec::new() } else { vec![audience] };
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {
                "audiences": audiences, "expirationSeconds": seconds,
                "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid },
            },
        });
        let namespace = pod.metadata.namespace.as_deref();
        let answer = self.client.api(SERVICE_ACCOUNTS).create_subresource(namespace, &account, "token", &request).await;
        let answer = answer.with_context(|| format!("request a token of service account {account}"))?;
        answer["status"]["token"].as_str().map(str::to_owned).context("read the token")
    }

    /// The registry credentials that a pod names.
    pub(crate) async fn pull_secrets(&self, pod: &Pod) -> anyhow::Result<Vec<Value>> {
        let names = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
        let wanted: BTreeSet<Source> = names.map(|reference| Source::Secret(reference.name.clone())).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.read(pod.metadata.namespace.as_deref().unwrap_or_default(), &wanted).await?;
        let mut configs = Vec::new();
        for (source, data) in found {
            // A secret that does not exist may not be needed: the registry decides.
            if let Some(config) = data.and_then(|mut data| data.remove(".dockerconfigjson")) {
                configs.push(serde_json::from_slice(&config).with_context(|| format!("read {source}"))?);
            }
        }
        Ok(configs)
    }
}

/// The resource and the name of a source.
pub(crate) fn resource_of(source: &Source) -> (Resource, &str) {
    match source {
        Source::ConfigMap(name) => (CONFIG_MAPS, name),
        Source::Secret(name) => (SECRETS, name),
    }
}

fn data_of(source: &Source, object: Value) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let bytes =
        |map: Option<BTreeMap<String, ByteString>>| map.into_iter().flatten().map(|(key, value)| (key, value.0));
    Ok(match source {
        Source::ConfigMap(_) => {
            let map = kinds::typed::config_map_from_value(object)?;
            let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            text.chain(bytes(map.binary_data)).collect()
        }
        Source::Secret(_) => bytes(kinds::typed::secret_from_value(object)?.data).collect(),
    })
}
