//! `/livez`, `/readyz`, `/healthz`, `/version` and the list of paths.

use std::collections::BTreeSet;

use client::Body;
use http::{Response, StatusCode};
use serde_json::json;

use crate::request::Query;
use crate::{ApiServer, respond};

/// The version of Kubernetes whose API is served.
pub const KUBERNETES: (&str, &str, &str) = ("1", "37", "1");

/// A check of the server: its name, and whether it holds.
type Check = (&'static str, bool);

impl ApiServer {
    /// Answers a path that is no resource and no discovery document, or `None`.
    pub(crate) fn path(&self, path: &str, query: &Query) -> Option<Response<Body>> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        match parts[..] {
            [] => Some(indented(&json!({"paths": self.paths()}))),
            ["metrics"] => {
                let text = self.metrics_page();
                Some(respond::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            ["version"] => Some(indented(&version())),
            [kind @ ("livez" | "readyz" | "healthz"), ref check @ ..] => Some(self.health(kind, check, query)),
            _ => None,
        }
    }

    /// All paths that are no object, in their order.
    fn paths(&self) -> BTreeSet<String> {
        let fixed = ["/.well-known/openid-configuration", "/api", "/apis", "/metrics", "/openapi/v2", "/openapi/v3"];
        let more = ["/openid/v1/jwks", "/version"];
        let mut all: BTreeSet<String> = fixed.into_iter().chain(more).map(str::to_owned).collect();
        for kind in ["healthz", "livez", "readyz"] {
            all.insert(format!("/{kind}"));
            all.extend(self.checks(kind).into_iter().map(|(name, _)| format!("/{kind}/{name}")));
        }
        for group in self.catalogue().groups() {
            let head = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
            all.extend(group.versions.iter().map(|version| format!("{head}/{}", version.name)));
            all.insert(head);
        }
        all
    }

    /// The checks under the names that upstream has for the same: the store is its etcd, and what it makes in hooks after
    /// the start are the first objects here.
    fn checks(&self, kind: &str) -> Vec<Check> {
        let (open, ready) = (self.store.is_open(), kind == "livez" || self.is_ready());
        let mut checks = vec![
            ("ping", true),
            ("etcd", open),
            ("poststarthook/rbac/bootstrap-roles", ready),
            ("poststarthook/scheduling/bootstrap-system-priority-classes", ready),
            ("poststarthook/priority-and-fairness-config-producer", ready),
            ("poststarthook/apiservice-registration-controller", ready),
            ("autoregister-completion", ready),
        ];
        if kind == "readyz" {
            checks.extend([("etcd-readiness", open), ("informer-sync", ready)]);
            checks.push(("shutdown", !self.shutdown.is_cancelled()));
        }
        checks
    }

    fn health(&self, kind: &str, check: &[&str], query: &Query) -> Response<Body> {
        let plain = |status, text: String| respond::plain(status, text);
        let checks = self.checks(kind);
        if !check.is_empty() {
            let asked = check.join("/");
            return match checks.into_iter().find(|(name, _)| *name == asked) {
                None => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
                Some((_, true)) => plain(StatusCode::OK, "ok".to_owned()),
                Some((name, false)) => {
                    let text = format!("internal server error: {name} is not well\n");
                    plain(StatusCode::INTERNAL_SERVER_ERROR, text)
                }
            };
        }
        let excluded: Vec<&str> = query.all("exclude").collect();
        let mut text = String::new();
        let mut good = true;
        for (name, holds) in &checks {
            text.push_str(&if excluded.contains(name) {
                format!("[+]{name} excluded: ok\n")
            } else if *holds {
                format!("[+]{name} ok\n")
            } else {
                good = false;
                format!("[-]{name} failed: reason withheld\n")
            });
        }
        let unknown: Vec<&&str> =
            excluded.iter().filter(|name| !checks.iter().any(|(known, _)| known == *name)).collect();
        if !unknown.is_empty() {
            text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown:?}\n"));
        }
        match (good, query.has("verbose")) {
            (true, false) => plain(StatusCode::OK, "ok".to_owned()),
            (true, true) => plain(StatusCode::OK, format!("{text}{kind} check passed\n")),
            (false, _) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{kind} check failed\n")),
        }
    }
}

/// A document that upstream writes for people.
fn indented(value: &serde_json::Value) -> Response<Body> {
    respond::json_text(StatusCode::OK, format!("{value:#}"))
}

/// The document of `/version`.
fn version() -> serde_json::Value {
    let (major, minor, patch) = KUBERNETES;
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": "36",
        "gitVersion": format!("v{major}.{minor}.{patch}+knarr{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": "linux/amd64",
    })
}
