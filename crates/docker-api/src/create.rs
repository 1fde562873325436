//! Making a container: what is asked is checked whole before anything is made.

use std::collections::BTreeMap;
use std::fs;

use http::{Response, StatusCode};
use image_store::Image;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::error::{Answer, bad, conflict, missing, unsupported};
use crate::http::{Body, Call, json_answer};
use crate::model::{Config, CreateRequest, Endpoint, HostConfig, MountPoint, Record};
use crate::{Container, DockerApi, lock, names, time};

impl DockerApi {
    pub(crate) async fn container_create(&self, mut call: Call) -> Answer<Response<Body>> {
        let request: CreateRequest = call.json().await?;
        let asked_name = call.text("name").unwrap_or_default().trim_start_matches('/').to_owned();
        let _no_prune = self.pruning.read().await;
        let host = if request.host_config.is_null() {
            HostConfig::default()
        } else {
            HostConfig::deserialize(&request.host_config).map_err(|e| bad(format!("bad parameter: HostConfig: {e}")))?
        };
        check_host(&host)?;
        let test = request.healthcheck["Test"].as_array().filter(|test| !test.is_empty());
        if test.is_some_and(|test| test[0] != "NONE") {
            return Err(unsupported("--health-cmd"));
        }
        let mut config = request.config;
        if config.image.is_empty() {
            return Err(bad("no image specified"));
        }
        let image = self
            .images
            .resolve(&config.image)
            .ok_or_else(|| missing(format!("No such image: {}", names::with_tag(&config.image))))?;
        merge_image(&mut config, &image);
        let args: Vec<String> =
            config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect();
        if args.is_empty() {
            return Err(bad("no command specified"));
        }
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            return Err(bad(format!(
                "the working directory '{}' is invalid, it needs to be an absolute path",
                config.working_dir
            )));
        }
        if !config.stop_signal.is_empty() && container_engine::signal_named(&config.stop_signal).is_none() {
            return Err(bad(format!("invalid signal: {}", config.stop_signal)));
        }
        crate::ports::check(&config, &host)?;
        let networks = self.networks_asked(&host, request.networking_config.endpoints_config)?;

        let id = names::new_id();
        if config.hostname.is_empty() && host.network_mode != "host" {
            config.hostname = names::short(&id);
        }
        let name = self.free_name(&asked_name)?;
        let mut record = Record {
            id: id.clone(),
            name,
            created: time::now(),
            image_id: image.id.clone(),
            host_config: complete_host(request.host_config),
            args,
            networks,
            config,
            ..Record::default()
        };
        let (mounts, fresh) = self.mounts_asked(&record.config, &host, &id)?;
        record.mounts = mounts;
        self.images.pin(&image.id, &user_of(&id))?;
        {
            let mut containers = lock(&self.containers);
            // Somebody may have taken the name meanwhile.
            if let Some(other) = containers.values().find(|one| lock(&one.record).name == record.name) {
                self.images.release(&image.id, &user_of(&id));
                return Err(name_taken(&record.name, &lock(&other.record).id));
            }
            if let Err(e) = crate::write(&self.dir("containers", &id), &record) {
                self.images.release(&image.id, &user_of(&id));
                return Err(e.into());
            }
            containers.insert(id.clone(), std::sync::Arc::new(Container::new(record.clone())));
        }
        for volume in fresh {
            if let Err(e) = self.fill_volume(&volume.name, &image, &volume.destination).await {
                tracing::warn!("fill volume {} from the image: {e:#}", volume.name);
            }
        }
        self.announce("container", "create", &id, container_attributes(&record));
        Ok(json_answer(StatusCode::CREATED, &json!({"Id": id, "Warnings": []})))
    }

    fn free_name(&self, asked: &str) -> Answer<String> {
        let containers = lock(&self.containers);
        let taken = |name: &str| containers.values().find(|one| lock(&one.record).name == name).cloned();
        if asked.is_empty() {
            loop {
                let name = names::random();
                if taken(&name).is_none() {
                    return Ok(name);
                }
                let numbered = format!("{name}{}", rand::random_range(0..100_000));
                if taken(&numbered).is_none() {
                    return Ok(numbered);
                }
            }
        }
        if !names::is_valid(asked) {
            return Err(bad(format!("Invalid container name ({asked}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")));
        }
        match taken(asked) {
            Some(other) => Err(name_taken(asked, &lock(&other.record).id)),
            None => Ok(asked.to_owned()),
        }
    }

    pub(crate) async fn container_rename(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        let name = call.text("name").unwrap_or_default().trim_start_matches('/').to_owned();
        if name.is_empty() {
            return Err(bad("Neither old nor new names may be empty"));
        }
        let name = self.free_name(&name)?;
        self.update(&container, |record| record.name = name)?;
        self.write_hosts().await;
        Ok(crate::http::empty_answer(crate::NO_CONTENT))
    }

    /// The networks that a container is to be in, each checked.
    fn networks_asked(
        &self,
        host: &HostConfig,
        endpoints: BTreeMap<String, Option<Endpoint>>,
    ) -> Answer<BTreeMap<String, Endpoint>> {
        let mut networks = BTreeMap::new();
        let mode = match host.network_mode.as_str() {
            "" | "default" => "bridge",
            other => other,
        };
        if mode.starts_with("container:") {
            return Err(unsupported("the network of another container"));
        }
        let alone = matches!(mode, "host" | "none");
        // Not "not found": a client would take that for a missing image, and pull it.
        let named = |name: &str| self.network_named(name).map_err(|refusal| bad(refusal.message));
        networks.insert(named(mode)?.name, Endpoint::default());
        for (name, endpoint) in endpoints {
            let name = if name == "default" { "bridge".to_owned() } else { name };
            let network = named(&name)?;
            if alone && network.name != mode {
                return Err(bad(format!(
                    "conflicting options: cannot attach a container in the {mode} network to {name}"
                )));
            }
            networks.insert(network.name, endpoint.unwrap_or_default());
        }
        Ok(networks)
    }

    /// What shows in a container; volumes that it needs are made. Those that are new, so that they can be filled.
    fn mounts_asked(&self, config: &Config, host: &HostConfig, id: &str) -> Answer<(Vec<MountPoint>, Vec<MountPoint>)> {
        let mut mounts: Vec<MountPoint> = Vec::new();
        let mut volumes: Vec<(String, String, bool)> = Vec::new();
        let mut binds: Vec<(String, String, bool, bool)> = Vec::new();
        for bind in &host.binds {
            let parts: Vec<&str> = bind.split(':').collect();
            let (source, target, mode) = match parts[..] {
                [source, target] => (source, target, ""),
                [source, target, mode] => (source, target, mode),
                _ => return Err(bad(format!("invalid volume specification: '{bind}'"))),
            };
            for word in mode.split(',').filter(|word| !word.is_empty()) {
                if !matches!(word, "ro" | "rw" | "z" | "Z" | "nocopy" | "rprivate" | "private") {
                    return Err(bad(format!("invalid mode: {mode}")));
                }
            }
            check_target(target, bind)?;
            let readonly = mode.split(',').any(|word| word == "ro");
            if source.starts_with('/') {
                binds.push((source.to_owned(), target.to_owned(), readonly, true));
            } else if names::is_valid(source) {
                volumes.push((source.to_owned(), target.to_owned(), readonly));
            } else {
                return Err(bad(format!(
                    "create {source}: \"{source}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
                )));
            }
        }
        for mount in &host.mounts {
            check_target(&mount.target, &mount.target)?;
            match mount.kind.as_str() {
                "bind" => {
                    if !std::path::Path::new(&mount.source).exists() {
                        return Err(bad(format!(
                            "invalid mount config for type \"bind\": bind source path does not exist: {}",
                            mount.source
                        )));
                    }
                    binds.push((mount.source.clone(), mount.target.clone(), mount.read_only, false));
                }
                "volume" => volumes.push((mount.source.clone(), mount.target.clone(), mount.read_only)),
                "tmpfs" => return Err(unsupported("a mount of type tmpfs")),
                other => return Err(bad(format!("invalid mount config: mount type unknown: {other:?}"))),
            }
        }
        let named: Vec<&String> = volumes.iter().map(|v| &v.1).chain(binds.iter().map(|b| &b.1)).collect();
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = named.iter().find(|target| !seen.insert(target.trim_end_matches('/'))) {
            return Err(bad(format!("Duplicate mount point: {twice}")));
        }
        let anonymous: Vec<_> =
            config.volumes.keys().filter(|target| !seen.contains(target.trim_end_matches('/'))).cloned().collect();
        for target in anonymous {
            check_target(&target, &target)?;
            volumes.push((String::new(), target, false));
        }
        for (source, target, readonly, make) in binds {
            if make && !std::path::Path::new(&source).exists() {
                fs::create_dir_all(&source)
                    .map_err(|e| bad(format!("error while creating mount source path '{source}': {e}")))?;
            }
            mounts.push(MountPoint {
                kind: "bind".into(),
                source,
                destination: target,
                mode: if readonly { "ro".into() } else { String::new() },
                rw: !readonly,
                propagation: "rprivate".into(),
                ..MountPoint::default()
            });
        }
        let mut fresh = Vec::new();
        for (name, target, readonly) in volumes {
            let (volume, is_new) = self.volume_for(&name, id)?;
            let mount = MountPoint {
                kind: "volume".into(),
                source: self.volume_data(&volume.name).display().to_string(),
                name: volume.name,
                destination: target,
                driver: "local".into(),
                mode: if readonly { "ro".into() } else { "z".into() },
                rw: !readonly,
                propagation: String::new(),
            };
            if is_new {
                fresh.push(mount.clone());
            }
            mounts.push(mount);
        }
        mounts.sort_by(|a, b| a.destination.cmp(&b.destination));
        Ok((mounts, fresh))
    }
}

/// The name under which a container of Docker's holds its image.
pub(crate) fn user_of(id: &str) -> String {
    format!("docker {id}")
}

fn name_taken(name: &str, by: &str) -> crate::error::Refusal {
    conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{by}\". You have to remove (or rename) that container to be able to reuse that name."
    ))
}

/// What an event says of a container.
pub(crate) fn container_attributes(record: &Record) -> Value {
    let mut attributes = json!({"name": record.name, "image": record.config.image});
    for (name, value) in &record.config.labels {
        attributes[name] = json!(value);
    }
    attributes
}

fn check_target(target: &str, whole: &str) -> Answer<()> {
    if !target.starts_with('/') {
        return Err(bad(format!(
            "invalid volume specification: '{whole}': invalid mount config for type \"volume\": invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    if target.trim_end_matches('/').is_empty() {
        return Err(bad(format!(
            "invalid volume specification: '{whole}': invalid specification: destination can't be '/'"
        )));
    }
    Ok(())
}

/// Refuses what is not carried out, and what contradicts itself.
fn check_host(host: &HostConfig) -> Answer<()> {
    let given = |value: &Value| match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        _ => true,
    };
    for (value, what) in [
        (&host.links, "--link"),
        (&host.volumes_from, "--volumes-from"),
        (&host.ulimits, "--ulimit"),
        (&host.devices, "--device"),
        (&host.tmpfs, "--tmpfs"),
        (&host.device_requests, "--gpus"),
    ] {
        if given(value) {
            return Err(unsupported(what));
        }
    }
    for (asked, what) in
        [(host.pids_limit > 0, "--pids-limit"), (host.shm_size > 0, "--shm-size"), (host.init, "--init")]
    {
        if asked {
            return Err(unsupported(what));
        }
    }
    if !matches!(host.log_config.kind.as_str(), "" | "json-file" | "local") {
        return Err(bad(format!("logger: no log driver named '{}' is registered", host.log_config.kind)));
    }
    if !matches!(host.pid_mode.as_str(), "" | "host" | "private") {
        return Err(unsupported("the process namespace of another container"));
    }
    if !matches!(host.ipc_mode.as_str(), "" | "private" | "shareable" | "host") {
        return Err(unsupported("the IPC namespace of another container"));
    }
    let policy = &host.restart_policy;
    match policy.name.as_str() {
        "" | "no" | "always" | "unless-stopped" if policy.maximum_retry_count > 0 => {
            return Err(bad("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
        }
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        other => {
            return Err(bad(format!(
                "invalid restart policy: unknown policy '{other}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            )));
        }
    }
    if host.auto_remove && !matches!(policy.name.as_str(), "" | "no") {
        return Err(bad("can't create 'AutoRemove' container with restart policy"));
    }
    if host.memory > 0 && host.memory < 6 << 20 {
        return Err(bad("Minimum memory limit allowed is 6MB"));
    }
    if host.nano_cpus > 0 && host.cpu_quota > 0 {
        return Err(bad("Conflicting options: Nano CPUs and CPU Quota cannot both be set"));
    }
    for option in &host.security_opt {
        if !matches!(
            option.as_str(),
            "seccomp=unconfined"
                | "no-new-privileges"
                | "no-new-privileges:true"
                | "no-new-privileges=true"
                | "label=disable"
                | "label:disable"
                | "apparmor=unconfined"
                | "apparmor:unconfined"
        ) {
            return Err(unsupported(&format!("--security-opt {option}")));
        }
    }
    Ok(())
}

/// Fills in what `docker inspect` and clients expect to find.
fn complete_host(mut host: Value) -> Value {
    if !host.is_object() {
        host = json!({});
    }
    if host["NetworkMode"].as_str().is_none_or(|mode| mode.is_empty() || mode == "default") {
        host["NetworkMode"] = json!("bridge");
    }
    if host["LogConfig"]["Type"].as_str().is_none_or(str::is_empty) {
        host["LogConfig"] = json!({"Type": "json-file", "Config": {}});
    }
    if host["RestartPolicy"]["Name"].as_str().is_none_or(str::is_empty) {
        host["RestartPolicy"] = json!({"Name": "no", "MaximumRetryCount": 0});
    }
    host
}

/// Completes a configuration by that of its image, as Docker does: variables and labels that are missing, and the
/// image's command unless the entry point was replaced.
fn merge_image(config: &mut Config, image: &Image) {
    let Some(own) = image.config.config().as_ref() else { return };
    if config.user.is_empty() {
        config.user = own.user().clone().unwrap_or_default();
    }
    for (port, _) in own.exposed_ports().iter().flatten().map(|port| (port, ())) {
        config.exposed_ports.entry(port.clone()).or_insert_with(|| json!({}));
    }
    let mut env: Vec<String> = own.env().clone().unwrap_or_default();
    for variable in std::mem::take(&mut config.env) {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|one| one.split('=').next() != Some(name));
        // A name alone takes the variable of the image away.
        if variable.contains('=') {
            env.push(variable);
        }
    }
    config.env = env;
    for (name, value) in own.labels().iter().flatten() {
        config.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    // An entry point of one empty word is how a client takes that of the image away.
    let replaced = config.entrypoint.as_ref().is_some_and(|words| !words.is_empty());
    if config.entrypoint.as_ref().is_some_and(|words| words.iter().all(String::is_empty)) && replaced {
        config.entrypoint = None;
    } else if !replaced {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = own.cmd().clone();
        }
        config.entrypoint = own.entrypoint().clone();
    }
    if config.working_dir.is_empty() {
        config.working_dir = own.working_dir().clone().unwrap_or_default();
    }
    if config.stop_signal.is_empty() {
        config.stop_signal = own.stop_signal().clone().unwrap_or_default();
    }
    for target in own.volumes().iter().flatten() {
        config.volumes.entry(target.clone()).or_insert_with(|| json!({}));
    }
}
