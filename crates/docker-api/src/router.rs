//! Which function answers which request: one readable list.

use http::{Method, Response};

use crate::DockerApi;
use crate::error::{Answer, missing, unsupported};
use crate::http::{Body, Call, empty_answer, full, json_answer};

impl DockerApi {
    pub(crate) async fn route(&self, call: Call) -> Answer<Response<Body>> {
        let path = call.path.clone();
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let ok = |value: serde_json::Value| Ok(json_answer(http::StatusCode::OK, &value));
        let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
        let method = if call.method == Method::HEAD { get.clone() } else { call.method.clone() };
        // Names of images have slashes of their own.
        if let ["images", middle @ .., last] = &parts[..] {
            let name = middle.join("/");
            match *last {
                "json" if method == get && !name.is_empty() => return ok(self.image_inspect(&name).await?),
                "history" if method == get => return ok(self.image_history(&name)?),
                "tag" if method == post => return self.image_tag(&call, &name),
                "get" if method == get => return self.image_save(&call, vec![name]).await,
                "push" if method == post => return Err(unsupported("pushing images")),
                _ if method == delete => return ok(self.image_remove(&call, &parts[1..].join("/")).await?),
                _ => {}
            }
        }
        match (method.as_str(), &parts[..]) {
            ("GET", ["_ping"]) => Ok(Response::new(full("OK"))),
            ("GET", ["version"]) => ok(self.version()),
            ("GET", ["info"]) => ok(self.info().await),
            ("GET", ["events"]) => self.watch_events(&call),
            ("GET", ["system", "df"]) => ok(self.disk_usage().await?),

            ("GET", ["containers", "json"]) => ok(self.container_list(&call).await?),
            ("POST", ["containers", "create"]) => self.container_create(call).await,
            ("POST", ["containers", "prune"]) => ok(self.prune_containers(&call).await?),
            ("GET", ["containers", id, "json"]) => ok(self.container_inspect(&call, id).await?),
            ("GET", ["containers", id, "logs"]) => self.container_logs(&call, id),
            ("GET", ["containers", id, "top"]) => ok(self.container_top(&call, id).await?),
            ("GET", ["containers", id, "stats"]) => self.container_stats(&call, id).await,
            ("GET", ["containers", id, "changes"]) => ok(self.container_changes(id).await?),
            ("GET" | "PUT", ["containers", id, "archive"]) => self.container_archive(call, id).await,
            ("POST", ["containers", id, "start"]) => self.container_start(id).await,
            ("POST", ["containers", id, "stop"]) => self.container_stop(&call, id).await,
            ("POST", ["containers", id, "restart"]) => self.container_restart(&call, id).await,
            ("POST", ["containers", id, "kill"]) => self.container_kill(&call, id).await,
            ("POST", ["containers", id, "wait"]) => self.container_wait(&call, id),
            ("POST", ["containers", id, "rename"]) => self.container_rename(&call, id).await,
            ("POST", ["containers", id, "resize"]) => self.container_resize(&call, id).await,
            ("POST", ["containers", id, "attach"]) => self.container_attach(call, id).await,
            ("POST", ["containers", id, "exec"]) => self.exec_create(call, id).await,
            ("POST", ["containers", _, "pause" | "unpause"]) => Err(unsupported("pausing containers")),
            ("POST", ["containers", _, "update"]) => Err(unsupported("updating containers")),
            ("DELETE", ["containers", id]) => self.container_delete(&call, id).await,

            ("POST", ["exec", id, "start"]) => self.exec_start(call, id).await,
            ("POST", ["exec", id, "resize"]) => self.exec_resize(&call, id),
            ("GET", ["exec", id, "json"]) => ok(self.exec_inspect(id)?),

            ("GET", ["images", "json"]) => ok(self.image_list(&call).await?),
            ("POST", ["images", "create"]) => self.image_pull(&call).await,
            ("POST", ["images", "load"]) => self.image_load(call).await,
            ("POST", ["images", "prune"]) => ok(self.prune_images(&call).await?),
            ("GET", ["images", "get"]) => {
                let names = call.text("names").unwrap_or_default().split(',').map(str::to_owned).collect();
                self.image_save(&call, names).await
            }

            ("GET", ["volumes"]) => ok(self.volume_list(&call)?),
            ("POST", ["volumes", "create"]) => self.volume_create(call).await,
            ("POST", ["volumes", "prune"]) => ok(self.prune_volumes(&call).await?),
            ("GET", ["volumes", name]) => ok(self.volume_inspect(name)?),
            ("DELETE", ["volumes", name]) => self.volume_remove(&call, name).await,

            ("GET", ["networks"]) => ok(self.network_list(&call)?),
            ("POST", ["networks", "create"]) => self.network_create(call).await,
            ("POST", ["networks", "prune"]) => ok(self.prune_networks(&call).await?),
            ("GET", ["networks", name]) => ok(self.network_inspect(name)?),
            ("DELETE", ["networks", name]) => self.network_remove(name).await.map(|()| empty_answer(crate::NO_CONTENT)),
            ("POST", ["networks", name, "connect"]) => self.network_connect(call, name).await,
            ("POST", ["networks", name, "disconnect"]) => self.network_disconnect(call, name).await,

            ("POST", ["build", "prune"]) => ok(serde_json::json!({"CachesDeleted": [], "SpaceReclaimed": 0})),
            (_, ["build" | "session" | "grpc" | "commit", ..]) => Err(unsupported("building images")),
            (_, ["swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs", ..]) => Err(crate::error::Refusal {
                status: http::StatusCode::SERVICE_UNAVAILABLE,
                message: "This node is not a swarm manager. knarr speaks Kubernetes: use kubectl.".to_owned(),
            }),
            (_, ["plugins", ..]) => Err(unsupported("a plugin")),
            _ => Err(missing("page not found")),
        }
    }
}
