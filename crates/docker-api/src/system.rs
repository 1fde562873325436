//! The server as a whole: version, information, events, and what takes how much of the disk.

use std::fs;

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::Answer;
use crate::filters::Filters;
use crate::http::{API_VERSION, Body, Call, MIN_API_VERSION, stream_answer};
use crate::model::Status;
use crate::{DockerApi, archive, blocking, lock, time};

fn kernel() -> (String, String) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    (read("/proc/sys/kernel/osrelease"), std::env::consts::ARCH.to_owned())
}

/// The architecture as Go names it.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl DockerApi {
    pub(crate) fn version(&self) -> Value {
        let (kernel, _) = kernel();
        let api = format!("{}.{}", API_VERSION.0, API_VERSION.1);
        let min = format!("{}.{}", MIN_API_VERSION.0, MIN_API_VERSION.1);
        json!({
            "Platform": {"Name": "knarr"}, "Version": self.config.version, "ApiVersion": api, "MinAPIVersion": min,
            "GitCommit": "", "GoVersion": "", "Os": "linux", "Arch": go_arch(), "KernelVersion": kernel, "BuildTime": "",
            "Components": [{
                "Name": "Engine", "Version": self.config.version,
                "Details": {
                    "ApiVersion": api, "MinAPIVersion": min, "Os": "linux", "Arch": go_arch(), "KernelVersion": kernel,
                    "GitCommit": "", "GoVersion": "", "BuildTime": "", "Experimental": "false",
                },
            }],
        })
    }

    pub(crate) async fn info(&self) -> Value {
        let (kernel, architecture) = kernel();
        let records = self.records();
        let running = records.iter().filter(|record| record.is_running()).count();
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0);
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut info = json!({
            "ID": self.config.node_name, "Name": self.config.node_name, "ServerVersion": self.config.version,
            "Containers": records.len(), "ContainersRunning": running, "ContainersPaused": 0,
            "ContainersStopped": records.iter().filter(|r| r.status != Status::Running).count(),
            "Images": self.images.list().len(), "Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "overlayfs"]],
            "Plugins": {"Volume": ["local"], "Network": ["bridge", "host", "null"], "Authorization": null, "Log": ["json-file"]},
            "MemoryLimit": true, "SwapLimit": false, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true,
            "CPUSet": true, "PidsLimit": true, "IPv4Forwarding": true, "Debug": false, "NFd": 0, "OomKillDisable": false,
            "NGoroutines": 0,
        });
        let host = json!({
            "SystemTime": time::text(time::now()), "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs", "CgroupVersion": "1", "NEventsListener": self.events.receiver_count(),
            "KernelVersion": kernel, "OperatingSystem": system.unwrap_or("Linux").trim_matches('"'),
            "OSVersion": "", "OSType": "linux", "Architecture": architecture, "NCPU": cpus, "MemTotal": memory * 1024,
            "IndexServerAddress": "https://index.docker.io/v1/", "RegistryConfig": null, "GenericResources": null,
            "DockerRootDir": self.config.data_dir, "HttpProxy": "", "HttpsProxy": "", "NoProxy": "", "Labels": [],
            "ExperimentalBuild": false, "LiveRestoreEnabled": true, "Isolation": "", "InitBinary": "",
            "DefaultRuntime": "knarr", "Runtimes": {"knarr": {"path": "knarr"}},
            "Swarm": {"NodeID": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null},
            "ContainerdCommit": {"ID": "", "Expected": ""}, "RuncCommit": {"ID": "", "Expected": ""},
            "InitCommit": {"ID": "", "Expected": ""}, "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Warnings": null,
        });
        if let (Value::Object(info), Value::Object(host)) = (&mut info, host) {
            info.extend(host);
        }
        info
    }

    pub(crate) async fn disk_usage(&self) -> Answer<Value> {
        let api = self.arc();
        let now = time::now();
        blocking(move || {
            let images = api.images.list();
            let volumes: Vec<_> = lock(&api.volumes).values().cloned().collect();
            let volumes = volumes.iter().map(|volume| {
                let mut value = api.describe_volume(volume);
                let users = api.volume_users(&volume.name).len();
                value["UsageData"] =
                    json!({"RefCount": users, "Size": archive::disk_size(&api.volume_data(&volume.name))});
                value
            });
            let containers = api.records().into_iter().map(|record| api.describe(&record, true, now));
            Ok(json!({
                "LayersSize": api.images.size(), "Images": api.image_summaries(&images),
                "Containers": containers.collect::<Vec<_>>(), "Volumes": volumes.collect::<Vec<_>>(), "BuildCache": [],
            }))
        })
        .await?
    }

    /// Tells what happens from now on. What happened before is not kept.
    pub(crate) fn watch_events(&self, call: &Call) -> Answer<Response<Body>> {
        let known = ["action", "container", "event", "image", "label", "network", "scope", "type", "volume", "daemon"];
        let filters = Filters::read(call.text("filters"), &known)?;
        let until = match call.text("until").unwrap_or_default() {
            "" | "0" => None,
            word => Some(time::moment(word, time::now())?),
        };
        let mut events = self.events.subscribe();
        let (outbox, pieces) = mpsc::channel(16);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let last =
                until.map(|until| std::time::Duration::from_nanos(u64::try_from(until - time::now()).unwrap_or(0)));
            let end = async {
                match last {
                    Some(last) => tokio::time::sleep(last).await,
                    None => std::future::pending().await,
                }
            };
            let send = async {
                loop {
                    let event: Value = match events.recv().await {
                        Ok(event) => event,
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(missed)) => {
                            tracing::warn!("a docker client reads too slowly and missed {missed} events");
                            continue;
                        }
                        Err(_) => return,
                    };
                    let id = event["id"].as_str().unwrap_or_default();
                    let name = event["Actor"]["Attributes"]["name"].as_str().unwrap_or_default();
                    let is = |kind: &str, word: &str| event["Type"] == kind && (id.starts_with(word) || name == word);
                    let fits = filters.any("type", |word| event["Type"] == word)
                        && filters.any("event", |word| event["Action"] == word)
                        && filters.any("action", |word| event["Action"] == word)
                        && filters.any("scope", |word| word == "local")
                        && ["container", "image", "network", "volume"]
                            .iter()
                            .all(|kind| filters.any(kind, |word| is(kind, word)));
                    if fits && outbox.send(Bytes::from(event.to_string() + "\n")).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = outbox.closed() => {}
                () = end => {}
                () = send => {}
            }
        });
        Ok(stream_answer("application/json", pieces))
    }
}
