//! What the server has: kinds by the names that people use for them.

use anyhow::Result;
use http::Method;
use serde_json::Value;

use crate::failure::{Failure, error};
use crate::http::Server;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// A resource that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub singular: String,
    pub short: Vec<String>,
    pub categories: Vec<String>,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Resource {
    /// The path of its objects, or of one.
    pub fn path(&self, namespace: Option<&str>, name: &str) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.plural);
        if !name.is_empty() {
            path += &format!("/{name}");
        }
        path
    }

    /// `deployment.apps`, as messages name it.
    pub fn word(&self) -> String {
        object_model::group_resource(&self.group, &self.kind.to_lowercase())
    }

    /// `deployments.apps`.
    pub fn plural_word(&self) -> String {
        object_model::group_resource(&self.group, &self.plural)
    }

    pub fn api_version(&self) -> String {
        object_model::api_version(&self.group, &self.version)
    }
}

/// All that is served, the preferred versions first.
pub(crate) struct Discovery {
    pub resources: Vec<Resource>,
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}

fn read(document: &Value, resources: &mut Vec<Resource>) {
    for group in document["items"].as_array().into_iter().flatten() {
        for version in group["versions"].as_array().into_iter().flatten() {
            for one in version["resources"].as_array().into_iter().flatten() {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                resources.push(Resource {
                    group: text(&group["metadata"]["name"]),
                    version: text(&version["version"]),
                    kind: text(&one["responseKind"]["kind"]),
                    plural: text(&one["resource"]),
                    singular: text(&one["singularResource"]),
                    short: strings(&one["shortNames"]),
                    categories: strings(&one["categories"]),
                    namespaced: one["scope"] == "Namespaced",
                    verbs: strings(&one["verbs"]),
                });
            }
        }
    }
}

impl Discovery {
    pub async fn load(server: &Server) -> Result<Self> {
        let mut resources = Vec::new();
        let (core, groups) = tokio::try_join!(
            server.call(Method::GET, "/api", AGGREGATED, None),
            server.call(Method::GET, "/apis", AGGREGATED, None)
        )?;
        for bytes in [core, groups] {
            read(&serde_json::from_slice(&bytes)?, &mut resources);
        }
        Ok(Self { resources })
    }

    /// Whether this is the version of its resource that comes first.
    pub fn is_preferred(&self, resource: &Resource) -> bool {
        let same = |one: &&Resource| (&one.group, &one.plural) == (&resource.group, &resource.plural);
        self.resources.iter().find(same).is_some_and(|first| first.version == resource.version)
    }

    /// The resource of a name: `po`, `pod`, `pods`, `pods.v1`, `deployments.apps`, `deployments.v1.apps`, `Pod`.
    pub fn find(&self, name: &str) -> Option<&Resource> {
        let lower = name.to_lowercase();
        let (word, rest) = lower.split_once('.').unwrap_or((&lower, ""));
        let named = |one: &&Resource| {
            one.plural == word
                || one.singular == word
                || one.kind.to_lowercase() == word
                || one.short.iter().any(|s| s == word)
        };
        let fits = |one: &&Resource| {
            rest.is_empty()
                || rest == one.group
                || rest == format!("{}.{}", one.version, one.group).trim_end_matches('.')
                || (one.group.starts_with(rest) && one.group[rest.len()..].starts_with('.'))
        };
        // A plural name goes before a short one.
        let plain = |one: &&Resource| one.plural == word || one.singular == word;
        let all = || self.resources.iter().filter(fits);
        all().find(plain).or_else(|| all().find(named))
    }

    /// The resource of a name, or kubectl's regret.
    pub fn must(&self, name: &str) -> Result<&Resource, Failure> {
        self.find(name).ok_or_else(|| error(format!("the server doesn't have a resource type {name:?}")))
    }

    /// The resource of an object.
    pub fn of(&self, object: &Value) -> Option<&Resource> {
        let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        self.resources.iter().find(|one| one.kind == kind && one.api_version() == api_version)
    }

    /// The resources of a word: one, a list with commas, or a category such as `all`.
    pub fn several(&self, words: &str) -> Result<Vec<&Resource>, Failure> {
        let mut found: Vec<&Resource> = Vec::new();
        for word in words.split(',').filter(|word| !word.is_empty()) {
            let category: Vec<&Resource> =
                self.resources.iter().filter(|one| one.categories.iter().any(|c| c == word)).collect();
            let more = if category.is_empty() { vec![self.must(word)?] } else { category };
            for one in more {
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_are_found_by_every_name() {
        let mut resources = Vec::new();
        let one = |kind: &str, plural: &str, short: &str| {
            json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced",
                   "singularResource": kind.to_lowercase(), "shortNames": [short], "categories": ["all"], "verbs": ["get"]})
        };
        read(
            &json!({"items": [
                {"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [one("Pod", "pods", "po")]}]},
                {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [one("Deployment", "deployments", "deploy")]}]},
            ]}),
            &mut resources,
        );
        let discovery = Discovery { resources };
        for name in ["po", "pod", "pods", "Pod", "pods.v1"] {
            assert_eq!(discovery.find(name).unwrap().plural, "pods", "{name}");
        }
        for name in ["deploy", "deployments.apps", "deployment.v1.apps"] {
            assert_eq!(discovery.find(name).unwrap().path(Some("a"), "b"), "/apis/apps/v1/namespaces/a/deployments/b");
        }
        assert_eq!(discovery.several("all").unwrap().len(), 2);
        assert_eq!(
            discovery.several("po,cats").unwrap_err().message,
            "error: the server doesn't have a resource type \"cats\""
        );
    }
}
