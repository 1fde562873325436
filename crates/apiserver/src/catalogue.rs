//! All resources that are served at this moment: the built-in ones, and those that definitions make. A catalogue never
//! changes: a write of a definition makes a new one, and requests under way go on with theirs.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use object_model::ApiError;

use crate::aggregated::Remote;
use crate::definitions::Definitions;
use crate::openapi::Documents;
use crate::served::{Served, no_such_resource};

/// What is served.
pub struct Catalogue {
    definitions: Definitions,
    custom: Vec<Served>,
    remotes: Vec<Arc<Remote>>,
    by_name: HashMap<(String, String, String), usize>,
    documents: OnceLock<Documents>,
}

/// One group with its versions, the preferred one first.
pub struct Group {
    /// Its name, empty for the core group.
    pub name: String,
    /// Its versions.
    pub versions: Vec<Version>,
}

/// One version of a group.
pub struct Version {
    /// Its name.
    pub name: String,
    /// What the server itself answers for.
    pub resources: Vec<Served>,
    /// Who else answers for it.
    pub remote: Option<Arc<Remote>>,
}

impl Catalogue {
    /// The catalogue of the built-in resources, those that definitions make and those that others answer for. What the
    /// server itself answers for, nobody else does.
    pub fn new(definitions: Definitions, mut remotes: Vec<Arc<Remote>>) -> Self {
        let custom: Vec<Served> = definitions.values().flat_map(|one| one.resources.iter().cloned()).collect();
        remotes.retain(|remote| {
            let same = |s: &Served| s.group() == remote.group && s.version() == remote.version;
            !Served::built_in().any(|s| same(&s)) && !custom.iter().any(same)
        });
        let name = |s: &Served| (s.group().to_owned(), s.version().to_owned(), s.plural().to_owned());
        let by_name = custom.iter().enumerate().map(|(at, served)| (name(served), at)).collect();
        Self { definitions, custom, remotes, by_name, documents: OnceLock::new() }
    }

    /// The resource that a request names.
    ///
    /// # Errors
    /// 404 when it is not served.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Result<Served, ApiError> {
        Served::find(group, version, plural).or_else(|_| {
            let name = (group.to_owned(), version.to_owned(), plural.to_owned());
            self.by_name.get(&name).map(|at| self.custom[*at].clone()).ok_or_else(no_such_resource)
        })
    }

    /// All of them, the built-in ones first.
    pub fn all(&self) -> impl Iterator<Item = Served> {
        Served::built_in().chain(self.custom.iter().cloned())
    }

    /// The definitions it was made of.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// Those that definitions made.
    pub fn custom(&self) -> &[Served] {
        &self.custom
    }

    /// Who else answers for a version of a group.
    pub fn remote(&self, group: &str, version: &str) -> Option<&Arc<Remote>> {
        self.remotes.iter().find(|remote| remote.group == group && remote.version == version)
    }

    /// All whom requests are passed on to.
    pub fn remotes(&self) -> &[Arc<Remote>] {
        &self.remotes
    }

    /// By group, in the order of the table; custom groups by name.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for served in self.all() {
            let version = version_of(&mut groups, served.group(), served.version());
            version.resources.push(served);
        }
        for remote in &self.remotes {
            version_of(&mut groups, &remote.group, &remote.version).remote = Some(remote.clone());
        }
        for group in &mut groups {
            group.versions.sort_by(|a, b| by_maturity(&a.name, &b.name));
        }
        groups
    }

    /// The OpenAPI documents, made when they are first asked for.
    pub fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| Documents::of(self))
    }
}

/// The place of a version of a group, made where it is missing.
fn version_of<'g>(groups: &'g mut Vec<Group>, group: &str, version: &str) -> &'g mut Version {
    let at = groups.iter().position(|known| known.name == group).unwrap_or_else(|| {
        groups.push(Group { name: group.to_owned(), versions: Vec::new() });
        groups.len() - 1
    });
    let versions = &mut groups[at].versions;
    let at = versions.iter().position(|known| known.name == version).unwrap_or_else(|| {
        versions.push(Version { name: version.to_owned(), resources: Vec::new(), remote: None });
        versions.len() - 1
    });
    &mut versions[at]
}

/// The order of versions: stable before beta before alpha, newer before older, others last by name (upstream's rule).
pub fn by_maturity(a: &str, b: &str) -> Ordering {
    match (maturity(a), maturity(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// `v2beta1` as stage, major and minor number.
fn maturity(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let rest = &rest[digits..];
    if rest.is_empty() {
        return Some((2, major, 0));
    }
    let (stage, minor) = match (rest.strip_prefix("beta"), rest.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((stage, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut versions =
            ["foo1", "v1alpha1", "v1", "v11beta2", "v10", "v2", "v3beta1", "v11alpha2", "foo10", "v12alpha1"];
        versions.sort_by(|a, b| by_maturity(a, b));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v3beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo1", "foo10"]
        );
    }
}
