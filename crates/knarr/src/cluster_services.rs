//! The Services that every cluster has: `kubernetes`, behind which the API is, and `kube-dns`. Nobody's pods are behind
//! them, so the server itself keeps them and their endpoints (as upstream's API server does for its own).

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, Patch, Resource};
use object_model::{Reason, meta};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const ENDPOINTS: Resource = Resource { group: "", version: "v1", plural: "endpoints" };
const ENDPOINT_SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
/// How often somebody's change or deletion of them is mended (upstream's interval).
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// A Service whose endpoint is a part of this server.
#[derive(Debug, Clone)]
pub struct OwnService {
    /// Namespace.
    pub namespace: &'static str,
    /// Name.
    pub name: &'static str,
    /// Its address.
    pub address: IpAddr,
    /// Labels.
    pub labels: Value,
    /// Names, protocols and numbers of its ports.
    pub ports: &'static [(&'static str, &'static str, u16)],
    /// Where its connections go: the address, and the port for all.
    pub endpoint: (IpAddr, u16),
}

impl OwnService {
    /// `kubernetes` in `default`.
    pub fn api(address: IpAddr, endpoint: (IpAddr, u16)) -> Self {
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let ports = &[("https", "TCP", 443)];
        Self { namespace: "default", name: "kubernetes", address, labels, ports, endpoint }
    }

    /// `kube-dns` in `kube-system`.
    pub fn dns(address: IpAddr, endpoint: (IpAddr, u16)) -> Self {
        let labels = json!({
            "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS",
        });
        let ports = &[("dns", "UDP", 53), ("dns-tcp", "TCP", 53)];
        Self { namespace: "kube-system", name: "kube-dns", address, labels, ports, endpoint }
    }

    /// The objects: the Service, and its endpoints in both forms.
    fn objects(&self) -> [(Resource, Value); 3] {
        let Self { namespace, name, address, labels, ports, endpoint: (at, port) } = self;
        let service_ports: Vec<Value> = (ports.iter())
            .map(|(name, protocol, number)| json!({"name": name, "protocol": protocol, "port": number, "targetPort": port}))
            .collect();
        let ends: Vec<Value> =
            ports.iter().map(|(name, protocol, _)| json!({"name": name, "protocol": protocol, "port": port})).collect();
        let own = |more: Value| {
            let mut all = more;
            for (key, value) in labels.as_object().into_iter().flatten() {
                all[key] = value.clone();
            }
            all
        };
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": own(json!({}))},
            "spec": {"type": "ClusterIP", "clusterIP": address.to_string(), "clusterIPs": [address.to_string()],
                "ports": service_ports},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": namespace, "labels": own(json!({"kubernetes.io/service-name": name}))},
            "endpoints": [{"addresses": [at.to_string()], "conditions": {"ready": true}}],
            "ports": ends,
        });
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": name, "namespace": namespace,
                "labels": own(json!({"endpointslice.kubernetes.io/skip-mirror": "true"}))},
            "subsets": [{"addresses": [{"ip": at.to_string()}], "ports": ends}],
        });
        [(SERVICES, service), (ENDPOINT_SLICES, slice), (ENDPOINTS, endpoints)]
    }

    /// Makes what is missing and mends what differs.
    ///
    /// # Errors
    /// When an object cannot be read or written.
    pub async fn ensure(&self, client: &Client) -> Result<()> {
        for (resource, wanted) in self.objects() {
            settle(client, resource, &wanted)
                .await
                .with_context(|| format!("keep {} {}/{}", resource.plural, self.namespace, self.name))?;
        }
        Ok(())
    }
}

async fn settle(client: &Client, resource: Resource, wanted: &Value) -> Result<()> {
    let api = client.api(resource);
    let (namespace, name) = (Some(meta::namespace(wanted)), meta::name(wanted));
    match api.get(namespace, name).await {
        Ok(current) if holds(&current, wanted) => {}
        Ok(_) => _ = api.patch(namespace, name, "", Patch::Merge, wanted).await?,
        Err(error) if error.reason == Reason::NotFound => match api.create(namespace, wanted).await {
            Err(error) if error.reason != Reason::AlreadyExists => return Err(error.into()),
            _ => {}
        },
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Whether everything that is wanted is so; what is there beside it does not matter.
fn holds(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (Value::Object(current), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| current.get(key).is_some_and(|current| holds(current, value)))
        }
        (Value::Array(current), Value::Array(wanted)) => {
            current.len() == wanted.len() && current.iter().zip(wanted).all(|(current, wanted)| holds(current, wanted))
        }
        _ => current == wanted,
    }
}

/// Keeps them until stopped.
///
/// # Errors
/// Never: trouble is logged and tried again.
pub async fn keep(services: Vec<OwnService>, client: Client, stop: CancellationToken) -> Result<()> {
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        for service in &services {
            if let Err(error) = service.ensure(&client).await {
                tracing::warn!("{error:#}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_adds_is_left_and_what_somebody_changes_is_not() {
        let wanted = json!({"spec": {"ports": [{"port": 443}]}});
        assert!(holds(&json!({"spec": {"ports": [{"port": 443, "name": "x"}], "type": "ClusterIP"}}), &wanted));
        assert!(!holds(&json!({"spec": {"ports": [{"port": 80}]}}), &wanted));
        assert!(!holds(&json!({"spec": {"ports": [{"port": 443}, {"port": 80}]}}), &wanted));
    }
}
