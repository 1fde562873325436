//! Aggregated APIs: versions of API groups that a Service answers for, as its APIService says.
//!
//! A keeper for each of them asks now and then whether it answers and what it offers, and writes what it found into the
//! APIService's status; discovery and the OpenAPI documents tell of it, and requests are passed on with the user in
//! headers, by which the other side knows whom it serves (upstream's front proxy).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use client::{Body, clock};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use object_model::{ApiError, Reason, meta, time};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use store::{Expect, StoreError};
use tokio::sync::Notify;

use crate::catalogue::Catalogue;
use crate::context::Context;
use crate::outbound::Peer;
use crate::served::Served;
use crate::trust::{Identity, trust};
use crate::{ApiServer, definitions, stored, swagger_parts};

/// How often a service that answers is asked again, and one that does not.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long a question may take (upstream's number).
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest document that is read, in bytes.
const DOCUMENT_MAX: usize = 32 << 20;

/// The certificate by which aggregated APIs know that it is the server who tells them of a user.
pub struct FrontProxy {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// A version of a group that a Service answers for.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// Namespace, name and port of the Service.
    service: (String, String, u16),
    /// Authorities of its certificate, in PEM; empty for those of the host.
    bundle: Vec<u8>,
    /// Whether its certificate is not looked at.
    insecure: bool,
    /// Whether it answers.
    pub available: bool,
    /// Its resources, as its own discovery tells them.
    pub resources: Vec<Value>,
    /// Its OpenAPI document of version 3, with the hash of its text.
    pub openapi: Option<Arc<(String, String)>>,
    /// What its OpenAPI document of version 2 says of this version of the group.
    pub swagger: Option<Arc<Value>>,
}

impl Remote {
    /// What an APIService names; `None` for what the server answers itself.
    fn of(service: &Value) -> Option<Self> {
        let spec = &service["spec"];
        let at = spec["service"].as_object()?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let port = at.get("port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        let bundle = spec["caBundle"].as_str().unwrap_or_default();
        Some(Self {
            group: text(spec.get("group")),
            version: text(spec.get("version")),
            service: (text(at.get("namespace")), text(at.get("name")), port),
            bundle: base64::engine::general_purpose::STANDARD.decode(bundle).unwrap_or_default(),
            insecure: spec["insecureSkipTLSVerify"] == true,
            available: false,
            resources: Vec::new(),
            openapi: None,
            swagger: None,
        })
    }

    /// Discovery in its aggregated form, made of the plain one.
    pub fn aggregated(&self) -> Vec<Value> {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let response = |resource: &Value| {
            let (mut group, mut version) = (text(resource, "group"), text(resource, "version"));
            if version.is_empty() {
                (group, version) = (self.group.clone(), self.version.clone());
            }
            json!({"group": group, "version": version, "kind": text(resource, "kind")})
        };
        let mut all: Vec<Value> = Vec::new();
        let (subs, mains): (Vec<&Value>, Vec<&Value>) =
            self.resources.iter().partition(|resource| text(resource, "name").contains('/'));
        for resource in mains {
            let mut one = json!({
                "resource": text(resource, "name"), "responseKind": response(resource),
                "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
                "singularResource": text(resource, "singularName"), "verbs": resource["verbs"],
            });
            for field in ["shortNames", "categories"] {
                if resource[field].is_array() {
                    one[field] = resource[field].clone();
                }
            }
            let prefix = format!("{}/", text(resource, "name"));
            let below: Vec<Value> = subs
                .iter()
                .filter_map(|sub| {
                    let name = text(sub, "name");
                    let name = name.strip_prefix(&prefix)?;
                    Some(json!({"subresource": name, "responseKind": response(sub), "verbs": sub["verbs"]}))
                })
                .collect();
            if !below.is_empty() {
                one["subresources"] = below.into();
            }
            all.push(one);
        }
        all
    }
}

/// The APIServices that somebody else answers for, as they are stored: nobody has asked them yet.
pub fn remotes(services: &[Value]) -> BTreeMap<String, Arc<Remote>> {
    let found = services.iter().filter_map(|s| Some((meta::name(s).to_owned(), Arc::new(Remote::of(s)?))));
    found.collect()
}

/// Why an aggregated API is not available, or that it is: reason and message of the condition.
type Verdict = (bool, &'static str, String);

impl ApiServer {
    /// The certificate by which aggregated APIs know this server. It is told once, before the server serves.
    pub fn set_front_proxy(&self, proxy: FrontProxy) {
        let _ = self.front_proxy.set(proxy);
    }

    /// Follows a write of an APIService.
    pub(crate) fn follow_aggregation(&self, served: &Served, name: &str) {
        if !served.hooks().aggregates() {
            return;
        }
        let stored = self.object(served, "", name).ok();
        let remote = stored.as_ref().and_then(Remote::of);
        {
            let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
            match (remote, remotes.get(name)) {
                (None, None) => return,
                (None, Some(_)) => {
                    remotes.remove(name);
                }
                // Its status was written, or nothing of what is asked changed.
                (Some(new), Some(known))
                    if (&new.service, &new.bundle, new.insecure) == (&known.service, &known.bundle, known.insecure) =>
                {
                    return;
                }
                (Some(new), _) => {
                    remotes.insert(name.to_owned(), Arc::new(new));
                }
            }
        }
        self.renew_catalogue();
        self.keep_remote(served, name);
    }

    /// Begins to ask every aggregated API: after a start.
    pub(crate) fn keep_remotes(&self) {
        let names: Vec<String> = self.remotes.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for served in Served::built_in().filter(|served| served.hooks().aggregates()) {
            names.iter().for_each(|name| self.keep_remote(&served, name));
        }
    }

    /// Lets the keeper of an APIService look at once; there is one for each.
    fn keep_remote(&self, served: &Served, name: &str) {
        let Some(server) = self.me.upgrade() else { return };
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = keepers.get(name) {
            return keeper.notify_one();
        }
        let changed = Arc::new(Notify::new());
        keepers.insert(name.to_owned(), changed.clone());
        drop(keepers);
        let (served, name) = (served.clone(), name.to_owned());
        self.tasks.spawn(async move {
            loop {
                let pause = match server.look_at_remote(&served, &name).await {
                    Some(true) => LOOK_EVERY,
                    Some(false) => LOOK_AGAIN,
                    None if server.dismiss_keeper(&name) => return,
                    None => continue,
                };
                tokio::select! {
                    () = server.shutdown.cancelled() => return,
                    () = changed.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        });
    }

    /// Ends the work of a keeper, unless its APIService has come back.
    fn dismiss_keeper(&self, name: &str) -> bool {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = !self.remotes.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name);
        if gone {
            keepers.remove(name);
        }
        gone
    }

    /// Asks an aggregated API what it offers, and tells of it. `None` when there is no such APIService any more.
    async fn look_at_remote(&self, served: &Served, name: &str) -> Option<bool> {
        let known = self.remotes.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()?;
        let mut found = Remote::clone(&known);
        let (available, reason, message) = self.judge_remote(&mut found).await;
        found.available = available;
        if known.available && !available {
            self.metrics.others.unavailable(name, reason);
        }
        let is_new = found != *known;
        {
            let mut remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
            // It was changed or removed meanwhile: then this answer is about something else.
            if !remotes.get(name).is_some_and(|now| Arc::ptr_eq(now, &known)) {
                return remotes.contains_key(name).then_some(false);
            }
            if is_new {
                remotes.insert(name.to_owned(), Arc::new(found));
            }
        }
        // A catalogue that says the same would only have its documents made anew.
        if is_new {
            self.renew_catalogue();
        }
        if let Err(error) = self.tell_availability(served, name, (available, reason, message)).await {
            tracing::warn!("write the status of APIService {name}: {error}");
        }
        Some(available)
    }

    async fn judge_remote(&self, remote: &mut Remote) -> Verdict {
        let (namespace, service, port) = remote.service.clone();
        let place = format!("service/{service} in {namespace:?}");
        match self.stored_object("services", &namespace, &service) {
            Ok(Some(_)) => {}
            Ok(None) => return (false, "ServiceNotFound", format!("{place} is not present")),
            Err(error) => return (false, "ServiceAccessError", error.message),
        }
        if let Err(error) = self.backend(&namespace, &service, port) {
            return (false, "MissingEndpoints", format!("endpoints for {place} have no addresses: {error:#}"));
        }
        let path = format!("/apis/{}/{}", remote.group, remote.version);
        let asked = self.fetch(remote, &path).await;
        let document = asked.and_then(|text| serde_json::from_slice::<Value>(&text).context("read its discovery"));
        match document {
            Ok(document) => {
                remote.resources = document["resources"].as_array().cloned().unwrap_or_default();
                let openapi = self.fetch(remote, &format!("/openapi/v3{path}")).await;
                remote.openapi = openapi.ok().and_then(|text| {
                    let text = String::from_utf8(text.to_vec()).ok()?;
                    let hash = crate::discovery::hash(text.as_bytes());
                    Some(Arc::new((text, hash)))
                });
                let swagger = self.fetch(remote, "/openapi/v2").await;
                let swagger = swagger.and_then(|text| serde_json::from_slice(&text).context("read its document"));
                remote.swagger = swagger.ok().map(|document: Value| Arc::new(swagger_parts::below(&document, &path)));
                (true, "Passed", "all checks passed".to_owned())
            }
            Err(error) => {
                let why = format!(
                    "failing or missing response from https://{service}.{namespace}.svc:{port}{path}: {error:#}"
                );
                (false, "FailedDiscoveryCheck", why)
            }
        }
    }

    async fn tell_availability(&self, served: &Served, name: &str, verdict: Verdict) -> Result<(), ApiError> {
        let (available, reason, message) = verdict;
        let status = if available { "True" } else { "False" };
        loop {
            let Some(entry) = self.store.get(&served.key("", name)) else { return Ok(()) };
            let mut service = stored::decode(served, &entry)?;
            let known = service["status"]["conditions"].as_array().into_iter().flatten();
            let known = known.into_iter().find(|condition| condition["type"] == "Available").cloned();
            if known.as_ref().is_some_and(|known| {
                known["status"] == status && known["reason"] == reason && known["message"] == message.as_str()
            }) {
                return Ok(());
            }
            let since =
                known.filter(|known| known["status"] == status).map(|known| known["lastTransitionTime"].clone());
            service["status"]["conditions"] = json!([{
                "type": "Available", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| time::seconds(clock::now()).into()),
            }]);
            match self.put(served, "", name, Expect::Revision(entry.mod_revision), &service).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Mismatch(_)) => {}
                Err(error) => return Err(crate::write::store_failed(&error)),
            }
        }
    }

    fn remote_peer(&self, remote: &Remote) -> Result<Peer> {
        let (namespace, name, port) = &remote.service;
        let (host, port) = self.backend(namespace, name, *port)?;
        let identity = self
            .front_proxy
            .get()
            .map(|proxy| Identity { certificate: proxy.certificate.clone(), key: proxy.key.clone_key() });
        let tls = trust(&remote.bundle, remote.insecure, identity)?;
        Ok(Peer { host, port, name: format!("{name}.{namespace}.svc"), tls: Some(tls) })
    }

    /// Reads a document of an aggregated API, as the server itself.
    async fn fetch(&self, remote: &Remote, path: &str) -> Result<bytes::Bytes> {
        let ask = async {
            let peer = self.remote_peer(remote)?;
            let mut sender = self.dial(&peer).await?;
            let request = Request::get(path)
                .header(header::HOST, &peer.name)
                .header(header::ACCEPT, "application/json")
                .header("x-remote-user", "system:kube-aggregator")
                .header("x-remote-group", "system:masters")
                .body(client::empty())?;
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body =
                Limited::new(answer.into_body(), DOCUMENT_MAX).collect().await.map_err(|e| anyhow::anyhow!(e))?;
            if status != StatusCode::OK {
                bail!("bad status from {path}: {}", status.as_u16());
            }
            Ok(body.to_bytes())
        };
        tokio::time::timeout(PATIENCE, ask).await.context("context deadline exceeded")?
    }

    /// Passes a request on to the aggregated API that answers for it.
    ///
    /// # Errors
    /// 503 when it does not answer.
    pub(crate) async fn pass_on(
        &self,
        cx: &Context,
        remote: &Remote,
        incoming: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let unavailable = |why: String| ApiError::new(Reason::ServiceUnavailable, why);
        if !remote.available {
            return Err(unavailable("service unavailable".to_owned()));
        }
        let peer = self.remote_peer(remote).map_err(|error| unavailable(format!("{error:#}")))?;
        let uri = incoming.uri().clone();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path: Uri = path.parse().map_err(|error| ApiError::bad_request(format!("read the path: {error}")))?;
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, text_header(&peer.name)?);
        self.name_user(cx, &mut headers)?;
        let kept = |name: &HeaderName| {
            let name = name.as_str();
            !(name == "host"
                || name == "authorization"
                || name.starts_with("impersonate-")
                || name.starts_with("x-remote-"))
        };
        let passed = self.relay(&peer, path, incoming, headers, kept).await;
        passed.map_err(|error| unavailable(format!("error trying to reach service: {error}")))
    }

    /// Says in headers whose request it is.
    fn name_user(&self, cx: &Context, headers: &mut HeaderMap) -> Result<(), ApiError> {
        headers.insert("x-remote-user", text_header(&cx.user.name)?);
        if !cx.user.uid.is_empty() {
            headers.insert("x-remote-uid", text_header(&cx.user.uid)?);
        }
        for group in &cx.user.groups {
            headers.append("x-remote-group", text_header(group)?);
        }
        for (key, values) in &cx.user.extra {
            let key = format!("x-remote-extra-{}", utf8_percent_encode(key, NON_ALPHANUMERIC));
            let name = HeaderName::try_from(key).map_err(|error| ApiError::internal(error.to_string()))?;
            for value in values {
                headers.append(name.clone(), text_header(value)?);
            }
        }
        Ok(())
    }

    /// Makes the catalogue anew of what is stored and what is known of aggregated APIs.
    pub(crate) fn renew_catalogue(&self) {
        let remotes = self.remotes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut catalogue = self.catalogue.write().unwrap_or_else(PoisonError::into_inner);
        match definitions::definitions(self.store.as_ref(), catalogue.definitions()) {
            Ok(all) => *catalogue = Arc::new(Catalogue::new(all, remotes.into_values().collect())),
            Err(error) => tracing::error!("read what is served: {error}"),
        }
    }
}

fn text_header(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|_| ApiError::internal(format!("{text:?} cannot be sent in a header")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_discovery_becomes_the_aggregated_form() {
        let service = json!({"metadata": {"name": "v1.e"}, "spec": {"group": "e", "version": "v1", "service": {"namespace": "n", "name": "s"}}});
        let mut remote = Remote::of(&service).expect("a service");
        assert_eq!(remote.service, ("n".to_owned(), "s".to_owned(), 443));
        remote.resources = vec![
            json!({"name": "pies", "singularName": "pie", "namespaced": true, "kind": "Pie", "verbs": ["get"], "shortNames": ["p"]}),
            json!({"name": "pies/scale", "namespaced": true, "kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get"]}),
        ];
        assert_eq!(
            remote.aggregated(),
            [json!({
                "resource": "pies", "responseKind": {"group": "e", "version": "v1", "kind": "Pie"}, "scope": "Namespaced",
                "singularResource": "pie", "verbs": ["get"], "shortNames": ["p"],
                "subresources": [{"subresource": "scale", "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "verbs": ["get"]}],
            })]
        );
        assert_eq!(Remote::of(&json!({"spec": {"group": "apps", "version": "v1"}})), None);
    }
}
