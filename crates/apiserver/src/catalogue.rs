//! All resources that are served at this moment: the built-in ones, and those that definitions make. A catalogue never
//! changes: a write of a definition makes a new one, and requests under way go on with theirs.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use object_model::ApiError;
use serde_json::Value;

use crate::openapi::Documents;
use crate::served::{Served, no_such_resource};

/// What is served.
pub struct Catalogue {
    custom: Vec<Served>,
    by_name: HashMap<(String, String, String), usize>,
    documents: OnceLock<Documents>,
}

/// One group with its versions, the preferred one first.
pub struct Group {
    /// Its name, empty for the core group.
    pub name: String,
    /// Each with its resources.
    pub versions: Vec<(String, Vec<Served>)>,
}

impl Catalogue {
    /// The catalogue of the built-in resources and these.
    pub fn new(custom: Vec<Served>) -> Self {
        let name = |s: &Served| (s.group().to_owned(), s.version().to_owned(), s.plural().to_owned());
        let by_name = custom.iter().enumerate().map(|(at, served)| (name(served), at)).collect();
        Self { custom, by_name, documents: OnceLock::new() }
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

    /// Those that definitions made.
    pub fn custom(&self) -> &[Served] {
        &self.custom
    }

    /// By group, in the order of the table; custom groups by name.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for served in self.all() {
            let at = groups.iter().position(|group| group.name == served.group()).unwrap_or_else(|| {
                groups.push(Group { name: served.group().to_owned(), versions: Vec::new() });
                groups.len() - 1
            });
            let versions = &mut groups[at].versions;
            match versions.iter_mut().find(|(version, _)| version == served.version()) {
                Some((_, resources)) => resources.push(served),
                None => versions.push((served.version().to_owned(), vec![served])),
            }
        }
        for group in &mut groups {
            group.versions.sort_by(|(a, _), (b, _)| by_maturity(a, b));
        }
        groups
    }

    /// The OpenAPI documents, made when they are first asked for.
    pub fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| Documents::of(self))
    }
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

/// The catalogue that stored definitions make.
pub fn of_definitions<'a>(definitions: impl Iterator<Item = &'a Value>) -> Arc<Catalogue> {
    Arc::new(Catalogue::new(definitions.flat_map(crate::custom::resources).collect()))
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
