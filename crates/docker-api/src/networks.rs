//! Networks. All lie on the node's one bridge: those that people make give their containers each other's names, and do not
//! keep them apart from others.

use std::collections::BTreeMap;
use std::fs;

use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Answer, Refusal, bad, conflict, missing};
use crate::filters::Filters;
use crate::http::{Body, Call, empty_answer, json_answer};
use crate::model::{Endpoint, Labels, Network, Record};
use crate::{DockerApi, lock, names, time};

/// The networks that are always there.
const BUILT_IN: [&str; 3] = ["bridge", "host", "none"];

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkRequest {
    name: String,
    driver: Option<String>,
    internal: bool,
    #[serde(rename = "IPAM")]
    ipam: Value,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    options: Option<Labels>,
    labels: Option<Labels>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConnectRequest {
    container: String,
    endpoint_config: Option<Endpoint>,
    force: bool,
}

fn built_in(name: &str) -> Network {
    // The same on every machine, and no other can have it.
    let id: String = name.bytes().cycle().take(32).map(|b| format!("{b:02x}")).collect();
    Network { id, name: name.to_owned(), ..Network::default() }
}

impl DockerApi {
    pub(crate) fn all_networks(&self) -> Vec<Network> {
        let made = lock(&self.networks).values().cloned().collect::<Vec<_>>();
        BUILT_IN.iter().map(|name| built_in(name)).chain(made).collect()
    }

    /// A network by name, id, or the beginning of one id.
    pub(crate) fn network_named(&self, name: &str) -> Answer<Network> {
        let all = self.all_networks();
        if let Some(found) = all.iter().find(|one| one.name == name || one.id == name) {
            return Ok(found.clone());
        }
        let mut beginning = all.iter().filter(|one| !name.is_empty() && one.id.starts_with(name));
        match (beginning.next(), beginning.next()) {
            (Some(found), None) => Ok(found.clone()),
            _ => Err(missing(format!("network {name} not found"))),
        }
    }

    /// The containers in a network.
    pub(crate) fn network_users(&self, name: &str) -> Vec<Record> {
        let containers = lock(&self.containers);
        let records = containers.values().map(|one| one.record());
        records.filter(|record| record.networks.contains_key(name)).collect()
    }

    fn describe_network(&self, network: &Network, whole: bool) -> Value {
        let (bridge, gateway, cidr) = self.engine.bridge_network();
        let driver = match network.name.as_str() {
            "host" => "host",
            "none" => "null",
            _ => "bridge",
        };
        let on_bridge = driver == "bridge";
        let prefix = cidr.rsplit('/').next().unwrap_or_default().to_owned();
        let mut containers = serde_json::Map::new();
        for record in self.network_users(&network.name).iter().filter(|r| whole && r.is_running()) {
            containers.insert(
                record.id.clone(),
                json!({
                    "Name": record.name, "EndpointID": record.id, "MacAddress": "",
                    "IPv4Address": if record.ip.is_empty() { String::new() } else { format!("{}/{prefix}", record.ip) },
                    "IPv6Address": "",
                }),
            );
        }
        let mut options = json!(network.options);
        if on_bridge {
            options["com.docker.network.bridge.name"] = json!(bridge);
        }
        json!({
            "Name": network.name, "Id": network.id, "Created": time::text(network.created), "Scope": "local",
            "Driver": driver, "EnableIPv4": true, "EnableIPv6": false,
            "IPAM": {
                "Driver": "default", "Options": null,
                "Config": if on_bridge { json!([{"Subnet": cidr, "Gateway": gateway}]) } else { json!([]) },
            },
            "Internal": network.internal, "Attachable": false, "Ingress": false,
            "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
            "Containers": containers, "Options": options, "Labels": network.labels,
        })
    }

    pub(crate) fn network_list(&self, call: &Call) -> Answer<Value> {
        let known = ["dangling", "driver", "id", "label", "name", "scope", "type"];
        let filters = Filters::read(call.text("filters"), &known)?;
        let dangling = filters.flag("dangling")?;
        let mut chosen = Vec::new();
        for network in self.all_networks() {
            let described = self.describe_network(&network, false);
            let custom = !BUILT_IN.contains(&network.name.as_str());
            if filters.any("name", |word| network.name.contains(word))
                && filters.any("id", |word| network.id.starts_with(word))
                && filters.any("driver", |word| described["Driver"] == word)
                && filters.any("scope", |word| word == "local")
                && filters.any("type", |word| (word == "custom") == custom)
                && filters.labels(&network.labels)
                && dangling.is_none_or(|d| d == (custom && self.network_users(&network.name).is_empty()))
            {
                chosen.push(described);
            }
        }
        Ok(Value::Array(chosen))
    }

    pub(crate) async fn network_create(&self, mut call: Call) -> Answer<Response<Body>> {
        let request: NetworkRequest = call.json().await?;
        let _no_prune = self.pruning.read().await;
        let name = request.name;
        if !names::is_valid(&name) {
            return Err(bad(format!("invalid network name: {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")));
        }
        let driver = request.driver.unwrap_or_default();
        if !matches!(driver.as_str(), "" | "bridge" | "default") {
            return Err(missing(format!(
                "could not find plugin {driver} in v1 plugin registry: plugin \"{driver}\" not found"
            )));
        }
        if request.ipam["Config"].as_array().is_some_and(|config| !config.is_empty()) {
            return Err(crate::error::unsupported(
                "a subnet of a network's own: all containers lie on the node's bridge, which",
            ));
        }
        if request.enable_ipv6 == Some(true) || request.internal {
            return Err(crate::error::unsupported(if request.internal { "--internal" } else { "--ipv6" }));
        }
        let network = Network {
            id: names::new_id(),
            name: name.clone(),
            created: time::now(),
            labels: request.labels.unwrap_or_default(),
            options: request.options.unwrap_or_default(),
            internal: false,
        };
        {
            let mut networks = lock(&self.networks);
            if BUILT_IN.contains(&name.as_str()) || networks.values().any(|one| one.name == name) {
                return Err(conflict(format!("network with name {name} already exists")));
            }
            crate::write(&self.dir("networks", &network.id), &network)?;
            networks.insert(network.id.clone(), network.clone());
        }
        self.announce("network", "create", &network.id, json!({"name": name, "type": "bridge"}));
        Ok(json_answer(StatusCode::CREATED, &json!({"Id": network.id, "Warning": ""})))
    }

    pub(crate) fn network_inspect(&self, name: &str) -> Answer<Value> {
        Ok(self.describe_network(&self.network_named(name)?, true))
    }

    pub(crate) async fn network_remove(&self, name: &str) -> Answer<()> {
        let _alone = self.pruning.write().await;
        let network = self.network_named(name)?;
        if BUILT_IN.contains(&network.name.as_str()) {
            return Err(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!("{} is a pre-defined network and cannot be removed", network.name),
            });
        }
        let users = self.network_users(&network.name);
        let active: Vec<String> = users
            .iter()
            .filter(|r| r.is_running())
            .map(|r| format!("name:{:?} id:{:?}", r.name, r.short_id()))
            .collect();
        if !active.is_empty() {
            return Err(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!(
                    "error while removing network: network {} has active endpoints ({})",
                    network.name,
                    active.join(", ")
                ),
            });
        }
        self.drop_network(&network)
    }

    pub(crate) fn drop_network(&self, network: &Network) -> Answer<()> {
        fs::remove_dir_all(self.dir("networks", &network.id))
            .map_err(|e| crate::error::internal(format!("remove network {}: {e}", network.name)))?;
        lock(&self.networks).remove(&network.id);
        self.announce("network", "destroy", &network.id, json!({"name": network.name, "type": "bridge"}));
        Ok(())
    }

    pub(crate) async fn network_connect(&self, mut call: Call, name: &str) -> Answer<Response<Body>> {
        let request: ConnectRequest = call.json().await?;
        let network = self.network_named(name)?;
        let container = self.find(&request.container)?;
        let record = container.record();
        if BUILT_IN.contains(&network.name.as_str()) && network.name != "bridge"
            || matches!(record.host().network_mode.as_str(), "host" | "none")
        {
            return Err(bad(format!("container cannot be connected to network {}", network.name)));
        }
        if record.networks.contains_key(&network.name) {
            return Err(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!("endpoint with name {} already exists in network {}", record.name, network.name),
            });
        }
        self.update(&container, |record| {
            record.networks.insert(network.name.clone(), request.endpoint_config.unwrap_or_default());
        })?;
        self.write_hosts().await;
        Ok(empty_answer(StatusCode::OK))
    }

    pub(crate) async fn network_disconnect(&self, mut call: Call, name: &str) -> Answer<Response<Body>> {
        let request: ConnectRequest = call.json().await?;
        let network = self.network_named(name)?;
        let container = self.find(&request.container)?;
        if !container.record().networks.contains_key(&network.name) && !request.force {
            return Err(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!("container {} is not connected to network {}", container.record().id, network.name),
            });
        }
        self.update(&container, |record| {
            record.networks.remove(&network.name);
        })?;
        self.write_hosts().await;
        Ok(empty_answer(StatusCode::OK))
    }

    /// Writes `/etc/hosts` of every container that runs: itself, what was added, and those it shares a network with.
    pub(crate) async fn write_hosts(&self) {
        let records: Vec<Record> = lock(&self.containers).values().map(|one| one.record()).collect();
        let connected: Vec<&Record> = records.iter().filter(|record| !record.ip.is_empty()).collect();
        let gateway = self.engine.bridge_network().1;
        for record in &connected {
            let text = hosts(record, &connected, &gateway);
            // It may end at any time.
            if let Err(e) = self.engine.set_hosts_of_single(&record.id, &text) {
                tracing::debug!("write the hosts of {}: {e:#}", record.name);
            }
        }
    }
}

/// The text of a container's `/etc/hosts`.
fn hosts(record: &Record, all: &[&Record], gateway: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for extra in &record.host().extra_hosts {
        if let Some((name, address)) = extra.split_once([':', '=']) {
            let address = if address == "host-gateway" { gateway } else { address };
            text += &format!("{address}\t{name}\n");
        }
    }
    text += &format!("{}\t{}\n", record.ip, record.config.hostname);
    let mut names: BTreeMap<(&str, &str), ()> = BTreeMap::new();
    for other in all {
        // In the default network containers do not know each other's names, as with Docker.
        for (network, endpoint) in other.networks.iter().filter(|(name, _)| *name != "bridge") {
            if record.networks.contains_key(network) {
                let own = [other.name.as_str(), other.short_id()];
                let own = own.into_iter().filter(|name| *name != record.config.hostname);
                for name in own.chain(endpoint.aliases.iter().map(String::as_str)) {
                    names.insert((&other.ip, name), ());
                }
            }
        }
    }
    for (address, name) in names.keys() {
        text += &format!("{address}\t{name}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_one_network_know_each_others_names() {
        let make = |name: &str, ip: &str, network: &str| Record {
            id: name.repeat(12),
            name: name.into(),
            ip: ip.into(),
            networks: [(network.to_owned(), Endpoint { aliases: vec![format!("{name}-alias")] })].into(),
            ..Record::default()
        };
        let (a, b, c) = (make("a", "10.0.0.2", "own"), make("b", "10.0.0.3", "own"), make("c", "10.0.0.4", "bridge"));
        let text = hosts(&a, &[&a, &b, &c], "10.0.0.1");
        assert!(text.contains("10.0.0.3\tb\n") && text.contains("10.0.0.3\tb-alias\n"), "{text}");
        assert!(!text.contains("10.0.0.4"), "{text}");
        assert!(!hosts(&c, &[&a, &b, &c], "").contains("\tc\n"));
    }
}
