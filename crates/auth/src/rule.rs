//! The rules of roles, as RBAC reads them.

use std::fmt;

use serde_json::Value;

use crate::Attributes;

/// One rule: verbs on resources of groups, maybe of certain names, or on paths. `*` stands for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Verbs.
    pub verbs: Vec<String>,
    /// API groups; the core group is the empty text.
    pub groups: Vec<String>,
    /// Resources, with subresources as `pods/log`, or of all as `*/log`.
    pub resources: Vec<String>,
    /// Names of objects; all where there are none.
    pub names: Vec<String>,
    /// Paths that are no resources; a `*` at the end stands for the rest.
    pub paths: Vec<String>,
}

impl Rule {
    /// The rules of a Role or ClusterRole.
    pub fn all_of(role: &Value) -> Vec<Self> {
        role["rules"].as_array().into_iter().flatten().map(Self::of).collect()
    }

    fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            let items = rule[field].as_array().into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        Self {
            verbs: list("verbs"),
            groups: list("apiGroups"),
            resources: list("resources"),
            names: list("resourceNames"),
            paths: list("nonResourceURLs"),
        }
    }

    /// Whether a request is among what the rule allows (upstream: `RuleAllows`).
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !among(&self.verbs, a.verb) {
            return false;
        }
        if a.resource.is_empty() {
            return self.paths.iter().any(|path| covers_path(path, a.path));
        }
        among(&self.groups, a.group)
            && self.resources.iter().any(|resource| covers_resource(resource, &a.resource))
            && (self.names.is_empty() || self.names.iter().any(|name| name == a.name))
    }

    /// The rule taken apart into rules of one verb, group, resource, name or path each.
    pub(crate) fn atoms(&self) -> Vec<Self> {
        let one = |text: &String| vec![text.clone()];
        let mut atoms = Vec::new();
        for verb in &self.verbs {
            for path in &self.paths {
                atoms.push(Self { verbs: one(verb), paths: one(path), ..Self::default() });
            }
            for group in &self.groups {
                for resource in &self.resources {
                    let atom =
                        Self { verbs: one(verb), groups: one(group), resources: one(resource), ..Self::default() };
                    if self.names.is_empty() {
                        atoms.push(atom);
                        continue;
                    }
                    atoms.extend(self.names.iter().map(|name| Self { names: one(name), ..atom.clone() }));
                }
            }
        }
        atoms
    }

    /// Whether all that an atom allows is allowed by this rule as well (upstream: `ruleCovers`).
    pub(crate) fn covers(&self, atom: &Self) -> bool {
        let each = |own: &[String], wanted: &[String]| wanted.iter().all(|item| among(own, item));
        each(&self.verbs, &atom.verbs)
            && each(&self.groups, &atom.groups)
            && atom.resources.iter().all(|wanted| self.resources.iter().any(|own| covers_resource(own, wanted)))
            && (self.names.is_empty()
                || (!atom.names.is_empty() && atom.names.iter().all(|name| self.names.contains(name))))
            && atom.paths.iter().all(|wanted| self.paths.iter().any(|own| covers_path(own, wanted)))
    }
}

/// As upstream prints a rule that somebody lacks.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.paths),
            ("Verbs", &self.verbs),
        ];
        let shown = parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| {
            let quoted: Vec<String> = list.iter().map(|item| format!("{item:?}")).collect();
            format!("{name}:[{}]", quoted.join(" "))
        });
        write!(f, "{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

fn among(list: &[String], item: &str) -> bool {
    list.iter().any(|x| x == "*" || x == item)
}

fn covers_path(own: &str, path: &str) -> bool {
    match own.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => own == path,
    }
}

fn covers_resource(own: &str, resource: &str) -> bool {
    own == "*"
        || own == resource
        || match (own.strip_prefix("*/"), resource.split_once('/')) {
            (Some(sub), Some((_, wanted))) => sub == wanted,
            _ => false,
        }
}
