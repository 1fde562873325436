//! `/livez`, `/readyz`, `/healthz`, `/version` and the list of paths.

use client::Body;
use http::{Response, StatusCode};
use serde_json::json;

use crate::request::Query;
use crate::{ApiServer, respond};

/// The version of Kubernetes whose API is served.
pub const KUBERNETES: (&str, &str, &str) = ("1", "37", "1");

impl ApiServer {
    /// Answers a path that is no resource and no discovery document, or `None`.
    pub(crate) fn path(&self, path: &str, query: &Query) -> Option<Response<Body>> {
        let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
        match parts[..] {
            [] => Some(respond::json_value(
                StatusCode::OK,
                &json!({"paths": ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]}),
            )),
            ["metrics"] => {
                let text = self.metrics_page();
                Some(respond::typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
            }
            ["version"] => Some(respond::json_value(StatusCode::OK, &version())),
            [kind @ ("livez" | "readyz" | "healthz"), ref check @ ..] => Some(self.health(kind, check, query)),
            _ => None,
        }
    }

    fn health(&self, kind: &str, check: &[&str], query: &Query) -> Response<Body> {
        let checks = [
            ("ping", true),
            ("etcd", self.store.is_open()),
            ("poststarthook/bootstrap-objects", kind == "livez" || self.is_ready()),
            ("shutdown", kind != "readyz" || !self.shutdown.is_cancelled()),
        ];
        let excluded = query.get("exclude");
        let asked = check.join("/");
        let wanted: Vec<(&str, bool)> =
            checks.into_iter().filter(|(name, _)| *name != excluded && (asked.is_empty() || asked == *name)).collect();
        if wanted.is_empty() {
            return respond::typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n");
        }
        let good = wanted.iter().all(|(_, ok)| *ok);
        let status = if good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        let mut text = String::new();
        if !good || query.has("verbose") {
            for (name, ok) in &wanted {
                text.push_str(&if *ok {
                    format!("[+]{name} ok\n")
                } else {
                    format!("[-]{name} failed: reason withheld\n")
                });
            }
            text.push_str(&format!("{kind} check {}\n", if good { "passed" } else { "failed" }));
        } else {
            text.push_str("ok");
        }
        respond::typed(status, "text/plain; charset=utf-8", text)
    }
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
