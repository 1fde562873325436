//! The status of a validating policy: what its expressions take for what is not there in the objects they are about.
//!
//! Upstream does this with a controller; here it is settled within the write, as the names of a definition are.

use std::collections::BTreeSet;

use kinds::PolicyPart;
use kinds::cel::{self, Checked};
use object_model::{api_version, meta};
use serde_json::{Value, json};

use crate::ApiServer;
use crate::catalogue::Catalogue;
use crate::served::Served;

/// How many types the expressions of a policy are checked against (upstream's number).
const TYPES_MAX: usize = 10;

impl ApiServer {
    /// Checks the expressions of a policy that is about to be written, if they are not those that have been checked.
    pub(crate) fn check_types(&self, served: &Served, policy: &mut Value) {
        if served.hooks().policy_part() != Some(PolicyPart { mutating: false, binding: false }) {
            return;
        }
        let generation = meta::generation(policy);
        if policy["status"]["observedGeneration"] == generation {
            return;
        }
        let catalogue = self.catalogue();
        let spec = &policy["spec"];
        let types: Vec<Checked> = kinds_of(&catalogue, &spec["matchConstraints"])
            .into_iter()
            .filter_map(|served| Some(Checked { shown: shown(&served), ty: type_of(&served)? }))
            .collect();
        let params = catalogue.all().find(|served| {
            let version = api_version(served.group(), served.version());
            spec["paramKind"]["kind"] == served.kind() && spec["paramKind"]["apiVersion"] == version
        });
        let warnings = cel::warnings(spec, &types, params.and_then(|served| type_of(&served)));
        let mut checking = json!({});
        if !warnings.is_empty() {
            checking["expressionWarnings"] = warnings.into();
        }
        if !policy["status"].is_object() {
            policy["status"] = json!({});
        }
        policy["status"]["observedGeneration"] = generation.into();
        policy["status"]["typeChecking"] = checking;
    }
}

fn shown(served: &Served) -> String {
    // The core group has no name, but keeps its slash here.
    format!("{}/{}, Kind={}", served.group(), served.version(), served.kind())
}

fn type_of(served: &Served) -> Option<expressions::Type> {
    match &served.openapi {
        Some(schema) => cel::type_of_schema(schema),
        None => Some(cel::type_of_table(served.ty)),
    }
}

/// The resources that rules name without wildcards, by group, version and kind.
fn kinds_of(catalogue: &Catalogue, constraints: &Value) -> Vec<Served> {
    let mut found: Vec<Served> = Vec::new();
    let mut known = BTreeSet::new();
    for rule in constraints["resourceRules"].as_array().into_iter().flatten() {
        let texts = |field: &str| -> Vec<&str> {
            let mut texts: Vec<&str> = rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            texts.sort_unstable();
            texts
        };
        let (groups, versions) = (texts("apiGroups"), texts("apiVersions"));
        if groups.iter().chain(&versions).any(|text| text.contains('*')) {
            continue;
        }
        let mut count = 0;
        for group in &groups {
            for version in &versions {
                for resource in texts("resources").into_iter().filter(|text| !text.contains(['*', '/'])) {
                    let Ok(served) = catalogue.find(group, version, resource) else { continue };
                    if count < TYPES_MAX && known.insert(shown(&served)) {
                        found.push(served);
                    }
                    count += 1;
                }
            }
        }
    }
    found.sort_by(|a, b| (a.group(), a.version(), a.kind()).cmp(&(b.group(), b.version(), b.kind())));
    found
}
