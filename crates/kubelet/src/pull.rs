//! Gets the image of a container, by its pull policy.

use cri::v1;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;
use serde_json::Value;
use tonic::Code;

use crate::runtime::Cri;
use crate::view::{Failure, ImageProgress};

/// The pause after the first failed pull; it doubles (upstream's values).
pub const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The longest pause.
pub const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(300);

/// An event to record: whether it is a warning, the reason, the message.
pub type Note = (bool, &'static str, String);

/// When the kubelet asks the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Each time a container starts.
    Always,
    /// When the image is not here.
    IfNotPresent,
    /// Not at all.
    Never,
}

/// The policy of a container, with the API's default: `Always` for `latest` and for no tag.
pub fn policy(container: &Container) -> Policy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => Policy::Always,
        Some("Never") => Policy::Never,
        Some("IfNotPresent") => Policy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
            let last = name.rsplit('/').next().unwrap_or_default();
            match last.split_once(':') {
                _ if digest.is_some() => Policy::IfNotPresent,
                None | Some((_, "latest")) => Policy::Always,
                Some(_) => Policy::IfNotPresent,
            }
        }
    }
}

/// Credentials for an image's registry from `kubernetes.io/dockerconfigjson` secrets.
pub fn credentials(image: &str, configs: &[Value]) -> Option<v1::AuthConfig> {
    let first = image.split('/').next().unwrap_or_default();
    let registry =
        if image.contains('/') && (first.contains(['.', ':']) || first == "localhost") { first } else { "docker.io" };
    let matches = |key: &str| {
        let host =
            key.trim_start_matches("https://").trim_start_matches("http://").split('/').next().unwrap_or_default();
        host == registry || (registry == "docker.io" && matches!(host, "index.docker.io" | "registry-1.docker.io"))
    };
    let entries = configs.iter().filter_map(|config| config["auths"].as_object()).flatten();
    let (_, entry) = entries.into_iter().find(|(key, _)| matches(key))?;
    let field = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    Some(v1::AuthConfig {
        username: field("username"),
        password: field("password"),
        auth: field("auth"),
        identity_token: field("identitytoken"),
        registry_token: field("registrytoken"),
        ..v1::AuthConfig::default()
    })
}

/// What is needed to pull.
pub(crate) struct Pull<'a> {
    /// The runtime.
    pub(crate) cri: &'a Cri,
    /// The container.
    pub(crate) container: &'a Container,
    /// Credentials, if the pod has some for this registry.
    pub(crate) auth: Option<v1::AuthConfig>,
    /// The configuration of the pod's sandbox.
    pub(crate) sandbox: v1::PodSandboxConfig,
    /// The pause after the pull that failed before this one.
    pub(crate) last_pause: Option<SignedDuration>,
}

impl Pull<'_> {
    /// Gets the image. Tells each step to `note`.
    ///
    /// A registry that cannot be reached does not stop a pod whose image is here; a registry that answers has the last
    /// word, whatever it says.
    pub(crate) async fn run(self, now: impl Fn() -> Timestamp, mut note: impl FnMut(Note)) -> ImageProgress {
        let image = self.container.image.clone().unwrap_or_default();
        let policy = policy(self.container);
        let spec =
            v1::ImageSpec { image: image.clone(), user_specified_image: image.clone(), ..v1::ImageSpec::default() };
        let here = match self.here(&spec).await {
            Ok(here) => here,
            Err(status) => {
                let message = format!("Failed to inspect image {image:?}: {}", status.message());
                note((true, "InspectFailed", message.clone()));
                return self.failed("ImageInspectError", message, now());
            }
        };
        match (policy, here) {
            (Policy::Never | Policy::IfNotPresent, Some(id)) => {
                note((false, "Pulled", format!("Container image {image:?} already present on machine")));
                ImageProgress::Ready(id)
            }
            (Policy::Never, None) => {
                let message = format!("Container image {image:?} is not present with pull policy of Never");
                note((true, "ErrImageNeverPull", message.clone()));
                self.failed("ErrImageNeverPull", message, now())
            }
            (_, here) => {
                note((false, "Pulling", format!("Pulling image {image:?}")));
                let started = now();
                let request = v1::PullImageRequest {
                    image: Some(spec.clone()),
                    auth: self.auth.clone(),
                    sandbox_config: Some(self.sandbox.clone()),
                };
                match self.cri.pull_image(request).await {
                    Ok(answer) => {
                        let took = now().duration_since(started).as_millis();
                        let size = self
                            .size(&spec)
                            .await
                            .map(|size| format!(" Image size: {size} bytes."))
                            .unwrap_or_default();
                        note((
                            false,
                            "Pulled",
                            format!(
                                "Successfully pulled image {image:?} in {took}ms ({took}ms including waiting).{size}"
                            ),
                        ));
                        ImageProgress::Ready(answer.image_ref)
                    }
                    Err(status) if status.code() == Code::Unavailable && here.is_some() => {
                        let message = format!(
                            "Container image {image:?} taken from the local store: its registry did not answer ({})",
                            status.message()
                        );
                        note((false, "Pulled", message));
                        ImageProgress::Ready(here.unwrap_or_default())
                    }
                    Err(status) => {
                        let cause = status.message().to_owned();
                        note((true, "Failed", format!("Failed to pull image {image:?}: {cause}")));
                        note((true, "Failed", "Error: ErrImagePull".to_owned()));
                        self.failed("ErrImagePull", cause, now())
                    }
                }
            }
        }
    }

    async fn here(&self, spec: &v1::ImageSpec) -> Result<Option<String>, tonic::Status> {
        let request = v1::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        Ok(self.cri.image_status(request).await?.image.map(|image| image.id))
    }

    async fn size(&self, spec: &v1::ImageSpec) -> Option<u64> {
        let request = v1::ImageStatusRequest { image: Some(spec.clone()), verbose: false };
        Some(self.cri.image_status(request).await.ok()?.image?.size)
    }

    fn failed(&self, reason: &str, message: String, at: Timestamp) -> ImageProgress {
        ImageProgress::Failed(failure(reason, message, at, self.last_pause, FIRST_PAUSE, MAX_PAUSE))
    }
}

/// A failure now, to be tried again after a pause that doubles.
pub fn failure(
    reason: &str,
    message: String,
    at: Timestamp,
    last: Option<SignedDuration>,
    first: SignedDuration,
    max: SignedDuration,
) -> Failure {
    let pause = last.map_or(first, |last| (last * 2).min(max));
    Failure { reason: reason.to_owned(), message, at, until: at + pause, pause }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_default_policy_follows_the_tag() {
        let of = |image: &str| policy(&Container { image: Some(image.into()), ..Container::default() });
        assert_eq!(of("nginx"), Policy::Always);
        assert_eq!(of("a.b:5000/nginx"), Policy::Always);
        assert_eq!(of("nginx:latest"), Policy::Always);
        assert_eq!(of("nginx:1"), Policy::IfNotPresent);
        assert_eq!(of("nginx@sha256:00"), Policy::IfNotPresent);
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let config = json!({ "auths": {
            "https://index.docker.io/v1/": { "username": "hub" },
            "r.example:5000": { "auth": "eDp5" }
        } });
        let user =
            |image: &str| credentials(image, std::slice::from_ref(&config)).map(|auth| auth.username + &auth.auth);
        assert_eq!(user("nginx").as_deref(), Some("hub"));
        assert_eq!(user("team/app").as_deref(), Some("hub"));
        assert_eq!(user("r.example:5000/x").as_deref(), Some("eDp5"));
        assert_eq!(user("other.example/x"), None);
    }
}
