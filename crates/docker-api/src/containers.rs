//! Looking at containers: list, inspect, top, stats.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use isolation::cgroup::Usage;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::{Answer, bad, conflict, missing};
use crate::filters::Filters;
use crate::http::{Body, Call, stream_answer};
use crate::model::{Record, Status};
use crate::{Container, DockerApi, archive, blocking, lock, names, time};

/// How often statistics are sent, and how far two samples are apart.
const EVERY: Duration = Duration::from_secs(1);

/// What `docker ps` says of a container's state.
fn status_text(record: &Record, now: i64) -> String {
    match record.status {
        Status::Created => "Created".to_owned(),
        Status::Running => format!("Up {}", time::human(now - record.started)),
        Status::Restarting => {
            format!("Restarting ({}) {} ago", record.exit_code, time::human(now - record.finished))
        }
        Status::Exited => format!("Exited ({}) {} ago", record.exit_code, time::human(now - record.finished)),
        Status::Removing => "Removal In Progress".to_owned(),
    }
}

impl DockerApi {
    /// A container by name, id, or the beginning of one id.
    pub(crate) fn find(&self, word: &str) -> Answer<Arc<Container>> {
        let containers = lock(&self.containers);
        let name = word.trim_start_matches('/');
        if let Some(found) = containers.get(name) {
            return Ok(found.clone());
        }
        if let Some(found) = containers.values().find(|one| lock(&one.record).name == name) {
            return Ok(found.clone());
        }
        let mut beginning = containers.iter().filter(|(id, _)| !name.is_empty() && id.starts_with(name));
        match (beginning.next(), beginning.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            (Some(_), Some(_)) => Err(bad(format!("Multiple IDs found with provided prefix: {name}"))),
            (None, _) => Err(missing(format!("No such container: {word}"))),
        }
    }

    /// All containers, the newest first.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = lock(&self.containers).values().map(|one| one.record()).collect();
        records.sort_by_key(|record| std::cmp::Reverse(record.created));
        records
    }

    fn describe_networks(&self, record: &Record) -> Value {
        let (_, gateway, cidr) = self.engine.bridge_network();
        let prefix: u8 = cidr.rsplit('/').next().and_then(|p| p.parse().ok()).unwrap_or(0);
        let connected = !record.ip.is_empty();
        let ids: BTreeMap<String, String> = self.all_networks().into_iter().map(|n| (n.name, n.id)).collect();
        let describe = |(name, endpoint): (&String, &crate::model::Endpoint)| {
            let value = json!({
                "IPAMConfig": null, "Links": null, "Aliases": endpoint.aliases, "MacAddress": "",
                "NetworkID": ids.get(name), "EndpointID": if record.is_running() { record.id.clone() } else { String::new() },
                "Gateway": if connected { gateway.clone() } else { String::new() },
                "IPAddress": record.ip, "IPPrefixLen": if connected { prefix } else { 0 },
                "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DriverOpts": null,
                "DNSNames": [record.name, record.short_id()],
            });
            (name.clone(), value)
        };
        Value::Object(record.networks.iter().map(describe).collect())
    }

    pub(crate) fn describe(&self, record: &Record, with_size: bool, now: i64) -> Value {
        let mut ports = Vec::new();
        for (port, bindings) in &record.ports {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            let number: u16 = number.parse().unwrap_or(0);
            for binding in bindings {
                let public: u16 = binding.host_port.parse().unwrap_or(0);
                ports.push(
                    json!({"IP": binding.host_ip, "PrivatePort": number, "PublicPort": public, "Type": protocol}),
                );
            }
        }
        for port in record.config.exposed_ports.keys().filter(|p| record.is_running() && !record.ports.contains_key(*p))
        {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            ports.push(json!({"PrivatePort": number.parse::<u16>().unwrap_or(0), "Type": protocol}));
        }
        let mut described = json!({
            "Id": record.id, "Names": [format!("/{}", record.name)], "Image": self.image_shown(record),
            "ImageID": record.image_id, "Command": record.args.join(" "), "Created": record.created / 1_000_000_000,
            "Ports": ports, "Labels": record.config.labels, "State": record.status.word(),
            "Status": status_text(record, now),
            "HostConfig": {"NetworkMode": record.host_config["NetworkMode"]},
            "NetworkSettings": {"Networks": self.describe_networks(record)}, "Mounts": record.mounts,
        });
        if with_size {
            let size = archive::disk_size(&self.dir("containers", &record.id).join("upper"));
            described["SizeRw"] = json!(size);
            described["SizeRootFs"] = json!(size + self.image_size(&record.image_id));
        }
        described
    }

    /// The image's name as it was given, or its id when that name means another image by now.
    fn image_shown(&self, record: &Record) -> String {
        match self.images.resolve(&record.config.image) {
            Some(image) if image.id == record.image_id => record.config.image.clone(),
            _ => names::short(&record.image_id),
        }
    }

    pub(crate) async fn container_list(&self, call: &Call) -> Answer<Value> {
        let known = [
            "ancestor",
            "before",
            "expose",
            "exited",
            "health",
            "id",
            "isolation",
            "is-task",
            "label",
            "name",
            "network",
            "publish",
            "since",
            "status",
            "volume",
        ];
        let filters = Filters::read(call.text("filters"), &known)?;
        let words = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
        if let Some(wrong) = filters.get("status").and_then(|all| all.iter().find(|one| !words.contains(&one.as_str())))
        {
            return Err(bad(format!("invalid filter 'status={wrong}'")));
        }
        if let Some(wrong) = filters.get("exited").and_then(|all| all.iter().find(|one| one.parse::<i32>().is_err())) {
            return Err(bad(format!("invalid filter 'exited={wrong}'")));
        }
        let limit = call.number::<i64>("limit")?.filter(|limit| *limit > 0);
        let all =
            call.flag("all") || limit.is_some() || filters.get("status").is_some() || filters.get("exited").is_some();
        let moment_of = |name: &str| -> Answer<Option<i64>> {
            let word = filters.get(name).and_then(|all| all.first());
            word.map(|word| self.find(word).map(|one| one.record().created)).transpose()
        };
        let (before, since) = (moment_of("before")?, moment_of("since")?);
        let ancestors: Option<Vec<String>> = filters.get("ancestor").map(|names| {
            names.iter().filter_map(|name| self.images.resolve(name).map(|image| image.id.clone())).collect()
        });
        let chosen = self.records().into_iter().filter(|record| {
            (all || record.is_running())
                && filters.any("id", |word| record.id.starts_with(word))
                && filters
                    .any("name", |word| record.name.contains(word.trim_start_matches(['/', '^']).trim_end_matches('$')))
                && filters.any("status", |word| record.status.word() == word)
                && filters.any("exited", |word| record.status == Status::Exited && record.exit_code.to_string() == word)
                && filters.any("health", |word| word == "none")
                && filters.any("is-task", |word| word == "false")
                && filters.any("volume", |word| {
                    record.mounts.iter().any(|m| m.name == word || m.destination == word || m.source == word)
                })
                && filters.any("network", |word| {
                    self.network_named(word).is_ok_and(|network| record.networks.contains_key(&network.name))
                })
                && filters.any("publish", |word| {
                    record.ports.values().flatten().any(|b| b.host_port == word.split('/').next().unwrap_or(word))
                })
                && filters.any("expose", |word| {
                    let word = if word.contains('/') { word.to_owned() } else { format!("{word}/tcp") };
                    record.config.exposed_ports.contains_key(&word)
                })
                && filters.labels(&record.config.labels)
                && ancestors.as_ref().is_none_or(|ids| ids.contains(&record.image_id))
                && before.is_none_or(|moment| record.created < moment)
                && since.is_none_or(|moment| record.created > moment)
        });
        let chosen: Vec<Record> = chosen.take(limit.map_or(usize::MAX, |n| n as usize)).collect();
        let (api, size, now) = (self.arc(), call.flag("size"), time::now());
        Ok(blocking(move || chosen.iter().map(|record| api.describe(record, size, now)).collect()).await?)
    }

    pub(crate) async fn container_inspect(&self, call: &Call, id: &str) -> Answer<Value> {
        let record = self.find(id)?.record();
        let dir = self.dir("containers", &record.id);
        let pid = if record.status == Status::Running { self.engine.pid_of_single(&record.id).await } else { None };
        let bindings: serde_json::Map<String, Value> = record
            .config
            .exposed_ports
            .keys()
            .chain(record.ports.keys())
            .filter(|_| record.is_running())
            .map(|port| (port.clone(), json!(record.ports.get(port))))
            .collect();
        let (_, gateway, cidr) = self.engine.bridge_network();
        let prefix: u8 = cidr.rsplit('/').next().and_then(|p| p.parse().ok()).unwrap_or(0);
        let connected = !record.ip.is_empty();
        let mut value = json!({
            "Id": record.id, "Created": time::text(record.created), "Path": record.args.first(),
            "Args": record.args.get(1..).unwrap_or_default(),
            "State": {
                "Status": record.status.word(), "Running": record.is_running(), "Paused": false,
                "Restarting": record.status == Status::Restarting, "OOMKilled": record.oom_killed, "Dead": false,
                "Pid": pid.unwrap_or(0), "ExitCode": record.exit_code, "Error": record.error,
                "StartedAt": time::text(record.started), "FinishedAt": time::text(record.finished),
            },
            "Image": record.image_id, "Name": format!("/{}", record.name), "RestartCount": record.restarts,
            "Driver": "overlay2", "Platform": "linux", "MountLabel": "", "ProcessLabel": "", "AppArmorProfile": "",
            "ResolvConfPath": "", "HostnamePath": "", "HostsPath": "", "LogPath": dir.join("log"),
            "ExecIDs": null, "HostConfig": record.host_config,
            "GraphDriver": {"Name": "overlay2", "Data": {"UpperDir": dir.join("upper"), "WorkDir": dir.join("work")}},
            "Mounts": record.mounts, "Config": record.config,
            "NetworkSettings": {
                "Bridge": "", "SandboxID": if record.is_running() { record.id.as_str() } else { "" }, "SandboxKey": "",
                "Ports": bindings, "Gateway": if connected { gateway } else { String::new() },
                "IPAddress": record.ip, "IPPrefixLen": if connected { prefix } else { 0 }, "MacAddress": "",
                "Networks": self.describe_networks(&record),
            },
        });
        if call.flag("size") {
            let api = self.arc();
            let (rw, image) =
                blocking(move || (archive::disk_size(&dir.join("upper")), api.image_size(&record.image_id))).await?;
            value["SizeRw"] = json!(rw);
            value["SizeRootFs"] = json!(rw + image);
        }
        Ok(value)
    }

    pub(crate) async fn container_top(&self, call: &Call, id: &str) -> Answer<Value> {
        let record = self.find(id)?.record();
        if !matches!(call.text("ps_args").unwrap_or("-ef"), "" | "-ef") {
            return Err(crate::error::unsupported("a choice of columns in top: leave out the options of ps, which"));
        }
        let pid = self.engine.pid_of_single(&record.id).await.filter(|_| record.status == Status::Running);
        let pid = pid.ok_or_else(|| conflict(format!("container {} is not running", record.id)))?;
        let processes = blocking(move || processes_beside(pid)).await?;
        Ok(json!({"Titles": ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "Processes": processes}))
    }

    async fn sample(&self, record: &Record) -> Value {
        let usage = self.engine.usage_of_single(&record.id).await.unwrap_or_default();
        let pid = self.engine.pid_of_single(&record.id).await.unwrap_or(0);
        let host = record.host();
        blocking(move || sample(&usage, pid, host.memory)).await.unwrap_or_default()
    }

    pub(crate) async fn container_stats(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let record = self.find(id)?.record();
        let stream = call.text("stream").is_none() || call.flag("stream");
        let (outbox, pieces) = mpsc::channel(1);
        let (api, stop, once) = (self.arc(), self.stop.clone(), call.flag("one-shot"));
        self.tasks.spawn(async move {
            let work = async {
                let mut before = if stream || once { json!({}) } else { api.sample(&record).await };
                if !stream && !once {
                    tokio::time::sleep(EVERY).await;
                }
                loop {
                    let now = api.sample(&record).await;
                    let mut value = now.clone();
                    value["name"] = json!(format!("/{}", record.name));
                    value["id"] = json!(record.id);
                    value["precpu_stats"] = before["cpu_stats"].clone();
                    value["preread"] = before["read"].clone();
                    before = now;
                    if outbox.send(Bytes::from(value.to_string() + "\n")).await.is_err() || !stream {
                        return;
                    }
                    tokio::time::sleep(EVERY).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = outbox.closed() => {}
                () = work => {}
            }
        });
        Ok(stream_answer("application/json", pieces))
    }
}

/// Statistics as Docker sends them.
fn sample(usage: &Usage, pid: i32, limit: i64) -> Value {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/stat".into());
    // Jiffies of a hundredth of a second, all kinds of use added up.
    let system: u64 = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    let cpus = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1);
    let total = read("/proc/meminfo".into())
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024;
    let limit = u64::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(total);
    let mut networks = serde_json::Map::new();
    for line in read(format!("/proc/{pid}/net/dev")).lines().skip(2) {
        let Some((name, numbers)) = line.trim().split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied().unwrap_or(0);
        if name != "lo" {
            networks.insert(
                name.to_owned(),
                json!({"rx_bytes": at(0), "rx_packets": at(1), "rx_errors": at(2), "rx_dropped": at(3),
                       "tx_bytes": at(8), "tx_packets": at(9), "tx_errors": at(10), "tx_dropped": at(11)}),
            );
        }
    }
    let inactive = usage.memory.unwrap_or(0).saturating_sub(usage.working_set.unwrap_or(0));
    json!({
        "read": time::text(time::now()), "num_procs": 0,
        "pids_stats": {"current": usage.pids},
        "cpu_stats": {
            "cpu_usage": {"total_usage": usage.cpu_nanos, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
            "system_cpu_usage": system * 10_000_000, "online_cpus": cpus,
            "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
        },
        "memory_stats": {"usage": usage.memory, "limit": limit, "stats": {"total_inactive_file": inactive, "inactive_file": inactive}},
        "networks": networks, "blkio_stats": {}, "storage_stats": {},
    })
}

/// The processes in the process namespace of one of them, as `ps -ef` shows them.
fn processes_beside(pid: i32) -> Vec<Vec<String>> {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&pid.to_string());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        if own.is_none() || !number.bytes().all(|b| b.is_ascii_digit()) || namespace(&number) != own {
            continue;
        }
        let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let status = read("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()).unwrap_or("0").to_owned()
        };
        let line = read("cmdline").replace('\0', " ");
        let command =
            if line.trim().is_empty() { format!("[{}]", read("comm").trim()) } else { line.trim().to_owned() };
        let stat = read("stat");
        // The name in the second field may hold blanks.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let jiffies = |index: usize| fields.get(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        let seconds = (jiffies(11) + jiffies(12)) / 100;
        let used = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let uid = field("Uid:");
        let user = if uid == "0" { "root".to_owned() } else { uid };
        let begun = entry.metadata().ok().and_then(|m| m.created().or_else(|_| m.modified()).ok());
        let begun =
            begun.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos() as i64);
        let clock = time::text(begun).get(11..16).unwrap_or_default().to_owned();
        found.push((
            number.parse::<i32>().unwrap_or(0),
            vec![user, number, field("PPid:"), "0".into(), clock, "?".into(), used, command],
        ));
    }
    found.sort();
    found.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_told_as_docker_tells_it() {
        let second = 1_000_000_000;
        let mut record = Record { started: second, ..Record::default() };
        assert_eq!(status_text(&record, 0), "Created");
        record.status = Status::Running;
        assert_eq!(status_text(&record, 6 * second), "Up 5 seconds");
        (record.status, record.exit_code, record.finished) = (Status::Exited, 3, 2 * second);
        assert_eq!(status_text(&record, 63 * second), "Exited (3) About a minute ago");
    }

    #[test]
    fn processes_of_a_namespace_are_found() {
        let rows = processes_beside(std::process::id().cast_signed());
        assert!(rows.iter().any(|row| row[1] == std::process::id().to_string()));
    }
}
