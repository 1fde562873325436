//! Names of images, normalised as Docker does.

use anyhow::Context;
use oci_spec::distribution::Reference;

/// A full image name: registry, repository, and a tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    reference: Reference,
}

impl Name {
    /// Reads a name as people write it: `nginx` becomes `docker.io/library/nginx:latest`.
    pub fn parse(text: &str) -> anyhow::Result<Name> {
        let reference = Reference::try_from(text).with_context(|| format!("invalid image reference {text:?}"))?;
        Ok(Name { reference })
    }

    /// The registry's host and port.
    pub fn registry(&self) -> &str {
        self.reference.registry()
    }

    /// Registry and repository, without tag or digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.reference.registry(), self.reference.repository())
    }

    /// The digest, if the name has one.
    pub fn digest(&self) -> Option<&str> {
        self.reference.digest()
    }

    /// The full name as the store keeps it. With a digest, the tag says nothing and is left out.
    pub fn full(&self) -> String {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => format!("{}@{digest}", self.repository()),
            (None, tag) => format!("{}:{}", self.repository(), tag.unwrap_or("latest")),
        }
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use expect_test::expect;

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let names = [
            "nginx",
            "nginx:1",
            "a/b:t",
            "localhost:5000/x",
            "localhost/x",
            "ghcr.io/a/b",
            &format!("nginx:1@{digest}"),
            "Nginx",
            "",
            "a b",
        ];
        let full: Vec<String> = names
            .iter()
            .map(|name| match Name::parse(name) {
                Ok(parsed) => format!("{name} → {}", parsed.full()),
                Err(error) => format!("{name} ! {error:#}"),
            })
            .collect();
        expect![[r#"
            nginx → docker.io/library/nginx:latest
            nginx:1 → docker.io/library/nginx:1
            a/b:t → docker.io/a/b:t
            localhost:5000/x → localhost:5000/x:latest
            localhost/x → localhost/x:latest
            ghcr.io/a/b → ghcr.io/a/b:latest
            nginx:1@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa → docker.io/library/nginx@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
            Nginx ! invalid image reference "Nginx": invalid reference format
             ! invalid image reference "": repository name must have at least one component
            a b ! invalid image reference "a b": invalid reference format"#]]
        .assert_eq(&full.join("\n"));
    }
}
