//! Services and EndpointSlices → one nftables ruleset.
//!
//! The room looks (caches of both), plans (`plan`, pure) and applies: what changed since the last time goes to the kernel as
//! one transaction. The rules stay when this process ends, so that Services go on working; the next start replaces the
//! whole table at once.

mod conntrack;
mod nft;
mod plan;
mod script;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use client::{Cache, Cached, Client, ListParams, Reflector, Resource};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::plan::{HostPort, Ruleset};

const PODS: Resource = Resource { group: "", version: "v1", plural: "pods" };
const SERVICES: Resource = Resource { group: "", version: "v1", plural: "services" };
const ENDPOINT_SLICES: Resource = Resource { group: "discovery.k8s.io", version: "v1", plural: "endpointslices" };
/// Changes within this time are made together. Endpoints that go must be gone before their pods stop to answer, so it is
/// short.
const TOGETHER: Duration = Duration::from_millis(2);
/// The pause after rules that the kernel refused.
const AGAIN: Duration = Duration::from_secs(1);

/// How often to look whether the rules are still there: a firewall that is loaded anew flushes those of others as well.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// What the proxy must be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: endpoints on it are local.
    pub node_name: String,
    /// The bridge that the node's pods are on.
    pub bridge: String,
    /// The range of the pods' addresses.
    pub pod_range: String,
    /// The range of the Services' addresses.
    pub service_range: String,
    /// The table in the kernel, see [`table_name`].
    pub table: String,
}

/// The name of the table of a node whose pods are on this bridge: two nodes on one machine have two bridges.
pub fn table_name(bridge: &str) -> String {
    let plain: String = bridge.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if plain == "knarr0" { "knarr".to_owned() } else { format!("knarr-{plain}") }
}

/// Checks that rules can be made at all.
///
/// # Errors
/// When `nft` is missing, or the kernel does not answer it; the sentence says what to do.
pub async fn check() -> Result<()> {
    nft::check().await
}

/// Removes a node's table. One that is not there is success.
///
/// # Errors
/// When the kernel refuses.
pub async fn remove(table: &str) -> Result<()> {
    let script = format!("add table ip {table}\ndelete table ip {table}\n");
    nft::apply(&script).await.context("remove the rules of the Services")
}

/// Keeps the kernel's rules as Services and EndpointSlices ask for.
pub struct Proxy {
    config: Config,
    client: Client,
}

impl Proxy {
    /// A proxy that watches through `client`.
    pub fn new(config: Config, client: Client) -> Self {
        Self { config, client }
    }

    /// Runs until cancelled. The rules stay.
    ///
    /// # Errors
    /// When a table cannot even be made at first.
    pub async fn run(self, cancel: CancellationToken) -> Result<()> {
        let tasks = TaskTracker::new();
        let changed = Arc::new(Notify::new());
        let (services, reflector) = Cache::following(self.client.api(SERVICES), kinds::typed::service, &changed);
        tasks.spawn(reflector.run(cancel.clone()));
        let (slices, reflector) =
            Cache::following(self.client.api(ENDPOINT_SLICES), kinds::typed::endpoint_slice, &changed);
        tasks.spawn(reflector.run(cancel.clone()));
        let pods: Cache<Vec<HostPort>> = Cache::new();
        {
            let changed = changed.clone();
            // Most pods have none, and their changes are nothing here.
            pods.on_change(move |change| {
                let ports =
                    |pod: Option<&Arc<Cached<Vec<HostPort>>>>| pod.map_or_else(Vec::new, |pod| pod.object.clone());
                if ports(change.old) != ports(change.new) {
                    changed.notify_one();
                }
            });
        }
        let reflector = Reflector {
            api: self.client.api(PODS),
            params: ListParams { fields: format!("spec.nodeName={}", self.config.node_name), ..ListParams::default() },
            decode: |text| Ok(plan::host_ports(&kinds::typed::pod(text)?)),
            cache: pods.clone(),
        };
        tasks.spawn(reflector.run(cancel.clone()));
        tasks.close();
        let synced = async {
            services.synced().await;
            slices.synced().await;
            pods.synced().await;
        };
        tokio::select! { () = cancel.cancelled() => {}, () = synced => {} }
        // What the kernel has: unknown at first, and after rules that it refused.
        let mut known: Option<Ruleset> = None;
        while !cancel.is_cancelled() {
            let looked = Instant::now();
            let (all, behind) = (services.all(), slices.all());
            let mut wanted =
                plan::ruleset(all.iter().map(|s| &s.object), behind.iter().map(|s| &s.object), &self.config);
            wanted.add_host_ports(pods.all().iter().flat_map(|pod| &pod.object));
            // With many Services a burst of changes is planned in fewer steps.
            let together = TOGETHER.max(looked.elapsed());
            let begin = Instant::now();
            let pause = match self.apply(known.take(), &wanted).await {
                Ok(()) => {
                    tracing::debug!(services = all.len(), took = ?begin.elapsed(), "the rules of the Services are made");
                    known = Some(wanted);
                    None
                }
                Err(error) => {
                    tracing::error!("make the rules of the Services: {error:#}");
                    Some(AGAIN)
                }
            };
            let more = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => {
                        changed.notified().await;
                        tokio::time::sleep(together).await;
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = more => {}
                () = tokio::time::sleep(LOOK_EVERY) => {
                    if known.is_some() && !nft::has(&self.config.table).await {
                        tracing::warn!("the rules of the Services are gone: somebody has flushed them; they are made anew");
                        known = None;
                    }
                }
            }
        }
        tasks.wait().await;
        Ok(())
    }

    async fn apply(&self, known: Option<Ruleset>, wanted: &Ruleset) -> Result<()> {
        let Some(known) = known else {
            return nft::apply(&script::whole(wanted, &self.config)).await;
        };
        let change = script::change(&known, wanted, &self.config);
        if change.is_empty() {
            return Ok(());
        }
        if let Err(error) = nft::apply(&change).await {
            // Somebody else has changed the table, or removed it: then all of it is made anew.
            tracing::warn!("change the rules of the Services: {error:#}");
            nft::apply(&script::whole(wanted, &self.config)).await?;
        }
        let gone: Vec<_> = known.udp.difference(&wanted.udp).copied().collect();
        if !gone.is_empty() {
            let forgotten = tokio::task::spawn_blocking(move || conntrack::forget(&gone)).await;
            if let Err(error) = forgotten.context("forget flows").and_then(|done| done) {
                tracing::warn!("forget UDP flows to endpoints that are gone: {error:#}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use kinds::k8s::api::core::v1::Service;
    use kinds::k8s::api::discovery::v1::EndpointSlice;
    use serde_json::{Value, json};

    use super::*;

    fn config() -> Config {
        Config {
            node_name: "n".to_owned(),
            bridge: "knarr0".to_owned(),
            pod_range: "10.42.0.0/24".to_owned(),
            service_range: "10.96.0.0/16".to_owned(),
            table: table_name("knarr0"),
        }
    }

    fn service(spec: Value, status: Value) -> Service {
        let object = json!({"metadata": {"name": "s", "namespace": "d"}, "spec": spec, "status": status});
        kinds::typed::service_from_value(object).expect("a service")
    }

    fn slice(endpoints: Value) -> EndpointSlice {
        let object = json!({"metadata": {"name": "s-1", "namespace": "d", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints});
        kinds::typed::endpoint_slice_from_value(object).expect("a slice")
    }

    fn two() -> EndpointSlice {
        slice(json!([
            {"addresses": ["10.42.0.2"], "conditions": {"ready": true}, "nodeName": "n"},
            {"addresses": ["10.42.1.3"], "conditions": {"ready": true}, "nodeName": "m"},
            {"addresses": ["10.42.0.4"], "conditions": {"ready": false, "serving": false}, "nodeName": "n"},
        ]))
    }

    fn made(service: &Service, slice: &EndpointSlice) -> String {
        let rules = plan::ruleset([service], [slice], &config());
        script::change(&Ruleset::default(), &rules, &config())
    }

    fn check(service: &Service, slice: &EndpointSlice, expected: Expect) {
        expected.assert_eq(&made(service, slice));
    }

    #[test]
    fn connections_go_to_ready_endpoints() {
        let plain = service(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}), json!({}));
        check(
            &plain,
            &two(),
            expect![[r#"
            add chain ip knarr svc-d/s/tcp/80
            add rule ip knarr svc-d/s/tcp/80 meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.2 . 8080, 1 : 10.42.1.3 . 8080 }
            add element ip knarr services { 10.96.1.1 . tcp . 80 : goto svc-d/s/tcp/80 }
            add element ip knarr hairpins { 10.42.0.2 . 10.42.0.2, 10.42.1.3 . 10.42.1.3 }
        "#]],
        );
        let ending = slice(json!([{"addresses": ["10.42.0.2"], "nodeName": "n",
            "conditions": {"ready": false, "serving": true, "terminating": true}}]));
        assert!(made(&plain, &ending).contains("mod 1 map { 0 : 10.42.0.2 . 8080 }"), "better than nobody");
        check(
            &plain,
            &slice(json!([])),
            expect![[r#"
            add element ip knarr refused { 10.96.1.1 . tcp . 80 : goto refuse }
        "#]],
        );
        for special in [json!({"clusterIP": "None"}), json!({"type": "ExternalName", "externalName": "a.b"})] {
            assert_eq!(made(&service(special, json!({})), &two()), "");
        }
    }

    #[test]
    fn node_ports_and_load_balancers_are_reached_from_outside() {
        let spec = json!({"type": "LoadBalancer", "clusterIP": "10.96.1.1", "externalIPs": ["192.0.2.7"],
            "loadBalancerSourceRanges": ["192.0.2.0/24"], "ports": [{"port": 80, "nodePort": 30080}]});
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        check(
            &service(spec.clone(), status.clone()),
            &two(),
            expect![[r#"
            add chain ip knarr ext-d/s/tcp/80
            add chain ip knarr lb-d/s/tcp/80
            add chain ip knarr svc-d/s/tcp/80
            add rule ip knarr ext-d/s/tcp/80 meta mark set meta mark | 0x4000
            add rule ip knarr ext-d/s/tcp/80 goto svc-d/s/tcp/80
            add rule ip knarr lb-d/s/tcp/80 ip saddr != { 192.0.2.0/24 } drop
            add rule ip knarr lb-d/s/tcp/80 goto ext-d/s/tcp/80
            add rule ip knarr svc-d/s/tcp/80 meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.42.0.2 . 8080, 1 : 10.42.1.3 . 8080 }
            add element ip knarr services { 10.96.1.1 . tcp . 80 : goto svc-d/s/tcp/80, 192.0.2.1 . tcp . 80 : goto lb-d/s/tcp/80, 192.0.2.7 . tcp . 80 : goto ext-d/s/tcp/80 }
            add element ip knarr node-ports { tcp . 30080 : goto ext-d/s/tcp/80 }
            add element ip knarr hairpins { 10.42.0.2 . 10.42.0.2, 10.42.1.3 . 10.42.1.3 }
        "#]],
        );
        let mut local = spec;
        local["externalTrafficPolicy"] = "Local".into();
        let text = made(&service(local.clone(), status.clone()), &two());
        assert!(
            text.contains("ext-d/s/tcp/80 meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.42.0.2"),
            "{text}"
        );
        let elsewhere = slice(json!([{"addresses": ["10.42.1.3"], "nodeName": "m"}]));
        let text = made(&service(local, status), &elsewhere);
        assert!(text.contains("refused-node-ports { tcp . 30080 : drop }"), "{text}");
        assert!(text.contains("services { 10.96.1.1 . tcp . 80 : goto svc"), "from inside it is reached: {text}");
    }

    #[test]
    fn a_client_stays_with_its_endpoint() {
        let spec = json!({"clusterIP": "10.96.1.1", "sessionAffinity": "ClientIP", "ports": [{"port": 80}],
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}}});
        let one = slice(json!([{"addresses": ["10.42.0.2"], "nodeName": "n"}]));
        check(
            &service(spec, json!({})),
            &one,
            expect![[r#"
            add set ip knarr sticky-d/s/tcp/80/10.42.0.2/8080/60 { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 60s; }
            add chain ip knarr ep-d/s/tcp/80/10.42.0.2/8080
            add chain ip knarr svc-d/s/tcp/80
            add rule ip knarr ep-d/s/tcp/80/10.42.0.2/8080 update @sticky-d/s/tcp/80/10.42.0.2/8080/60 { ip saddr }
            add rule ip knarr ep-d/s/tcp/80/10.42.0.2/8080 meta l4proto tcp dnat ip to 10.42.0.2:8080
            add rule ip knarr svc-d/s/tcp/80 ip saddr @sticky-d/s/tcp/80/10.42.0.2/8080/60 goto ep-d/s/tcp/80/10.42.0.2/8080
            add rule ip knarr svc-d/s/tcp/80 numgen random mod 1 vmap { 0 : goto ep-d/s/tcp/80/10.42.0.2/8080 }
            add element ip knarr services { 10.96.1.1 . tcp . 80 : goto svc-d/s/tcp/80 }
            add element ip knarr hairpins { 10.42.0.2 . 10.42.0.2 }
        "#]],
        );
    }

    #[test]
    fn a_host_port_leads_to_its_pod() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "status": {"podIP": "10.42.0.9", "phase": "Running"},
            "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"}]}]}});
        let mut rules = Ruleset::default();
        rules.add_host_ports(&plan::host_ports(&kinds::typed::pod_from_value(pod.clone()).expect("a pod")));
        expect![[r#"
            add chain ip knarr host-d/p/tcp/8080
            add chain ip knarr host-d/p/udp/53
            add rule ip knarr host-d/p/tcp/8080 meta l4proto tcp dnat ip to 10.42.0.9:80
            add rule ip knarr host-d/p/udp/53 meta l4proto udp dnat ip to 10.42.0.9:53
            add element ip knarr services { 192.0.2.1 . udp . 53 : goto host-d/p/udp/53 }
            add element ip knarr node-ports { tcp . 8080 : goto host-d/p/tcp/8080 }
            add element ip knarr hairpins { 10.42.0.9 . 10.42.0.9 }
        "#]]
        .assert_eq(&script::change(&Ruleset::default(), &rules, &config()));
        let mut over = pod;
        over["status"]["phase"] = "Succeeded".into();
        assert!(plan::host_ports(&kinds::typed::pod_from_value(over).expect("a pod")).is_empty());
    }

    #[test]
    fn only_what_changed_is_written() {
        let plain = service(json!({"clusterIP": "10.96.1.1", "ports": [{"port": 80}]}), json!({}));
        let both = plan::ruleset([&plain], [&two()], &config());
        let fewer = slice(json!([{"addresses": ["10.42.0.2"], "nodeName": "n"}]));
        let one = plan::ruleset([&plain], [&fewer], &config());
        assert_eq!(script::change(&one, &one, &config()), "");
        expect![[r#"
            flush chain ip knarr svc-d/s/tcp/80
            add rule ip knarr svc-d/s/tcp/80 meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.42.0.2 . 8080 }
            delete element ip knarr hairpins { 10.42.1.3 . 10.42.1.3 }
        "#]]
        .assert_eq(&script::change(&both, &one, &config()));
        expect![[r#"
            delete element ip knarr services { 10.96.1.1 . tcp . 80 : goto svc-d/s/tcp/80 }
            delete element ip knarr hairpins { 10.42.0.2 . 10.42.0.2 }
            flush chain ip knarr svc-d/s/tcp/80
            delete chain ip knarr svc-d/s/tcp/80
        "#]]
        .assert_eq(&script::change(&one, &Ruleset::default(), &config()));
    }
}
