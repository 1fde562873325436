//! The repository's rules, as tests over its tree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::host;

/// Files that may be longer than [`MAX_LINES`], and why.
const LONG: &[(&str, &str)] = &[
    ("crates/cri/src/runtime_v1.rs", "generated from the CRI's protocol file; a test compares it"),
    ("crates/schema/src/types.txt", "a table of facts, one line for each type or field"),
];
/// How long a hand-written file may be.
const MAX_LINES: usize = 800;

/// Kinds named where all kinds are the same: file, name (`*` for any), and why.
const KIND_NAMES: &[(&str, &str, &str)] = &[
    ("crates/client/src/events.rs", "events", "recording events is what the file is for"),
    ("crates/client/src/events.rs", "Event", "recording events is what the file is for"),
    ("crates/client/src/api.rs", "namespaces", "a part of every path of a namespaced object, whatever its kind"),
    ("crates/apiserver/src/request.rs", "namespaces", "a part of every path of a namespaced object, whatever its kind"),
    ("crates/apiserver/src/openapi.rs", "namespaces", "a part of every path of a namespaced object, whatever its kind"),
    ("crates/apiserver/src/watch.rs", "events", "what a watch sends is called so; the kind is not meant"),
    ("crates/apiserver/src/binding.rs", "Binding", "a binding says where a pod goes, and is carried out on that pod"),
    ("crates/apiserver/src/binding.rs", "Node", "a binding says where a pod goes, and that is a node"),
    ("crates/apiserver/src/binding.rs", "nodes", "a pod gets the labels that say where its node is"),
    ("crates/apiserver/src/binding.rs", "pods", "a binding says where a pod goes, and is carried out on that pod"),
    (
        "crates/apiserver/src/admission/mod.rs",
        "namespaces",
        "nothing is created in a namespace that is missing or ends",
    ),
    ("crates/apiserver/src/admission/mod.rs", "Namespace", "the first namespaces may not be deleted"),
    ("crates/apiserver/src/admission/matching.rs", "Namespace", "one is selected by its own labels"),
    (
        "crates/apiserver/src/admission/policies/validation.rs",
        "ValidatingAdmissionPolicy",
        "refusals name it, and clients look for that",
    ),
    ("crates/apiserver/src/lib.rs", "Namespace", "its own path is that of a namespace without anything in it"),
    ("crates/apiserver/src/admission/mod.rs", "Pod", "a pod acts as an account, and is completed by its classes"),
    ("crates/apiserver/src/admission/mod.rs", "PersistentVolumeClaim", "it grows as its class allows"),
    ("crates/apiserver/src/admission/mod.rs", "PriorityClass", "one only is the default"),
    ("crates/apiserver/src/write.rs", "Namespace", "one that is made counts as living in itself"),
    ("crates/apiserver/src/admission/quota.rs", "*", "a quota is what a namespace may use"),
    ("crates/apiserver/src/admission/certificates.rs", "*", "who consents and signs depends on the signer"),
    (
        "crates/apiserver/src/admission/measures.rs",
        "*",
        "dashboards know the plugins of admission policies by the names of their kinds",
    ),
    ("crates/apiserver/src/admission/node.rs", "*", "what a kubelet may write depends on what it is"),
    ("crates/apiserver/src/admission/limits.rs", "*", "a namespace limits what its pods and claims ask for"),
    ("crates/apiserver/src/admission/priority.rs", "*", "a pod has the priority of its class"),
    ("crates/apiserver/src/admission/runtime_class.rs", "*", "a pod runs as its class says"),
    ("crates/apiserver/src/admission/storage.rs", "*", "claims grow as their class allows"),
    ("crates/apiserver/src/admission/service_account.rs", "*", "a pod acts as an account"),
    ("crates/apiserver/src/admission/escalation.rs", "*", "nobody gives away more than they have"),
    (
        "crates/apiserver/src/addresses.rs",
        "*",
        "each virtual address that is taken has an object, and comes from a range",
    ),
    ("crates/apiserver/src/eviction.rs", "*", "an eviction is a question to the budgets of a pod"),
    ("crates/apiserver/src/authorize.rs", "serviceaccounts", "tokens are those of accounts"),
    ("crates/apiserver/src/impersonate.rs", "serviceaccounts", "accounts are impersonated by a right of their own"),
    ("crates/apiserver/src/reviews.rs", "*", "each question has its own answer"),
    ("crates/apiserver/src/tokens.rs", "*", "tokens are those of accounts, and end with a pod or a secret"),
    ("crates/apiserver/src/outbound.rs", "*", "webhooks and aggregated APIs are named by the Service in front of them"),
    (
        "crates/apiserver/src/aggregated.rs",
        "*",
        "an aggregated API is named by the Service in front of it, and its status says why it fails",
    ),
    ("crates/apiserver/src/proxy.rs", "*", "what a pod, a service or a node serves is at an address of its own"),
    ("crates/apiserver/src/fairness.rs", "namespaces", "a field of the rules of flow schemas is called so"),
    ("crates/apiserver/src/metrics.rs", "events", "what a watch sends is called so; the kind is not meant"),
    ("crates/apiserver/src/health.rs", "roles", "a health check of upstream's is called after the first roles"),
    ("crates/apiserver/src/streams.rs", "nodes", "logs and exec go to the address that the pod's node tells"),
];

#[derive(Debug)]
struct Crate {
    name: String,
    dir: PathBuf,
    floor: Option<u64>,
    dependencies: Vec<String>,
}

fn workspace() -> Vec<Crate> {
    let metadata = host::metadata().unwrap();
    let members = metadata.workspace_packages();
    let names: BTreeSet<&str> = members.iter().map(|package| package.name.as_str()).collect();
    let crates = members.iter().map(|package| Crate {
        name: package.name.to_string(),
        dir: package.manifest_path.parent().unwrap().as_std_path().to_owned(),
        floor: package.metadata["floor"].as_u64(),
        dependencies: (package.dependencies.iter())
            .filter(|d| d.kind != cargo_metadata::DependencyKind::Development && names.contains(d.name.as_str()))
            .map(|d| d.name.clone())
            .collect(),
    });
    crates.collect()
}

/// The crates of the house: those with a floor.
fn house() -> BTreeMap<String, Crate> {
    let crates = workspace().into_iter().filter(|one| one.dir.parent().is_some_and(|dir| dir.ends_with("crates")));
    crates.map(|one| (one.name.clone(), one)).collect()
}

/// Every file of the repository that a person writes, with its text.
fn files() -> Vec<(String, String)> {
    let walk = walkdir::WalkDir::new(host::root()).sort_by_file_name().into_iter();
    let walk = walk.filter_entry(|entry| {
        let name = entry.file_name().to_string_lossy();
        name != "target" && name != ".git" && name != "Cargo.lock"
    });
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry.unwrap();
        if entry.file_type().is_file()
            && let Ok(text) = fs::read_to_string(entry.path())
        {
            files.push((entry.path().strip_prefix(host::root()).unwrap().display().to_string(), text));
        }
    }
    assert!(files.len() > 100, "the walk found only {} files", files.len());
    files
}

fn sources() -> Vec<(String, String)> {
    files().into_iter().filter(|(name, _)| name.ends_with(".rs")).collect()
}

fn document(name: &str) -> String {
    fs::read_to_string(host::root().join(name)).unwrap_or_else(|e| panic!("read {name}: {e}"))
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of the rows of a document's tables.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with('|') && !line.starts_with("|--"));
    lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn a_dependency_leads_to_a_lower_floor() {
    let house = house();
    let mut found = Vec::new();
    for one in house.values() {
        let Some(floor) = one.floor else {
            found.push(format!("{} declares no floor", one.name));
            continue;
        };
        for dependency in &one.dependencies {
            match house.get(dependency).and_then(|d| d.floor) {
                Some(lower) if lower < floor => {}
                other => found.push(format!("{} (floor {floor}) → {dependency} (floor {other:?})", one.name)),
            }
        }
    }
    assert_none(&found, "a crate declares its floor, and a dependency leads to a lower one");
}

#[test]
fn outside_the_house_no_crate_has_a_floor_and_none_is_depended_on() {
    let house = house();
    let crates = workspace();
    let outside: Vec<&Crate> = crates.iter().filter(|one| !house.contains_key(&one.name)).collect();
    let names: Vec<&str> = outside.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["echo", "xtask"]);
    for one in outside {
        assert!(one.floor.is_none() && one.dependencies.is_empty(), "{one:?}");
    }
}

#[test]
fn a_crate_is_named_as_its_folder_and_has_no_vague_name() {
    for one in house().values() {
        assert_eq!(one.dir.file_name().unwrap().to_string_lossy(), one.name.as_str());
        assert!(!["utils", "util", "common", "core", "shared", "misc"].contains(&one.name.as_str()), "{}", one.name);
    }
}

#[test]
fn every_source_file_says_first_what_it_is_for() {
    let silent = sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name);
    assert_none(&silent.collect::<Vec<_>>(), "the first line of a source file starts with `//! `");
}

#[test]
fn no_hand_written_file_is_too_long() {
    let text = files().into_iter().filter(|(name, _)| name.ends_with(".rs") || name.ends_with(".txt"));
    let long: BTreeMap<String, usize> =
        text.map(|(name, text)| (name, text.lines().count())).filter(|(_, lines)| *lines > MAX_LINES).collect();
    let unexcused = long.iter().filter(|(name, _)| !LONG.iter().any(|(file, _)| file == name));
    let unexcused: Vec<_> = unexcused.map(|(name, lines)| format!("{name}: {lines} lines")).collect();
    assert_none(&unexcused, "a file of more than 800 lines needs a reason");
    let idle = LONG.iter().filter(|(file, _)| !long.contains_key(*file)).map(|(file, _)| (*file).to_owned());
    assert_none(&idle.collect::<Vec<_>>(), "an excuse that nothing needs");
}

#[test]
fn the_map_shows_the_crates_that_exist_on_their_floors() {
    let text = document("ARCHITECTURE.md");
    let mut map = BTreeMap::new();
    for row in rows(&text) {
        if let [floor, name, _] = row[..]
            && let Ok(floor) = floor.parse::<u64>()
        {
            assert!(map.insert(name.trim_matches('`').to_owned(), Some(floor)).is_none(), "{name} is there twice");
        }
    }
    let tree: BTreeMap<_, _> = house().into_values().map(|one| (one.name, one.floor)).collect();
    assert_eq!(map, tree, "the table of floors in ARCHITECTURE.md (left) against the crates (right)");
}

/// The kinds' names and plurals, from their rows.
fn kind_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, text) in sources().iter().filter(|(name, _)| name.starts_with("crates/kinds/src/")) {
        for line in text.lines().map(str::trim) {
            for field in ["kind: \"", "plural: \""] {
                if let Some(name) = line.strip_prefix(field).and_then(|rest| rest.strip_suffix("\",")) {
                    names.extend((!name.is_empty()).then(|| name.to_owned()));
                }
            }
        }
    }
    assert!(names.contains("Deployment") && names.contains("pods"), "{names:?}");
    names
}

/// The words of the string literals of a line of code.
fn literal_words(line: &str) -> Vec<&str> {
    let literals = line.split('"').skip(1).step_by(2);
    literals.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric())).collect()
}

#[test]
fn kinds_are_not_named_downstairs_nor_in_the_api_server_without_a_reason() {
    let names = kind_names();
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (file, text) in sources() {
        let watched =
            ["store", "client", "schema", "apiserver"].iter().any(|c| file.starts_with(&format!("crates/{c}/src/")));
        if !watched {
            continue;
        }
        // Tests stand at the end of a file, and may name what they like.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in literal_words(line).into_iter().filter(|word| names.contains(*word)) {
                match KIND_NAMES.iter().position(|(f, w, _)| *f == file && (*w == word || *w == "*")) {
                    Some(at) => _ = used.insert(at),
                    None => found.push(format!("{file}:{}: {word}", number + 1)),
                }
            }
        }
    }
    assert_none(&found, "a kind is named where all kinds are the same");
    let idle = KIND_NAMES.iter().enumerate().filter(|(at, _)| !used.contains(at)).map(|(_, row)| format!("{row:?}"));
    assert_none(&idle.collect::<Vec<_>>(), "a permission that nothing needs");
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let marks =
        ["todo", "unimplemented"].map(|word| format!("{word}!(")).into_iter().chain([format!("#[{}", "ignore")]);
    let marks: Vec<String> = marks.collect();
    let mut found = Vec::new();
    for (file, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark.as_str())) {
                found.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "code is there or it is not, and a test runs");
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
    let places = ["work", "home", "root", "Users"].map(|dir| format!("/{dir}/"));
    let mut found = Vec::new();
    for (file, text) in files() {
        for (number, line) in text.lines().enumerate() {
            if places.iter().any(|place| names_place(line, place)) {
                found.push(format!("{file}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert_none(&found, "a path of one machine");
}

/// Whether the line has this path, and not as the middle of another one.
fn names_place(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-*/{})]}".contains(c))
    })
}

#[test]
fn unsafe_code_is_only_in_isolation() {
    let found = house().into_values().filter(|one| one.name != "isolation").filter_map(|one| {
        let manifest = fs::read_to_string(one.dir.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let inherits = manifest.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool);
        (inherits != Some(true)).then_some(one.name)
    });
    assert_none(&found.collect::<Vec<_>>(), "a crate has the lints of the workspace");
}

/// Whether a name of a document exists: `plan`, `deployment::plan` (a function of a module), `Type::function`, `Type`.
fn exists(sources: &[(String, String)], inside: &str, name: &str) -> bool {
    let name = name.trim_end_matches("()");
    let (scope, last) = name.rsplit_once("::").unwrap_or(("", name));
    let scope = scope.rsplit("::").next().unwrap_or_default();
    let kinds = ["fn", "struct", "enum", "trait", "const", "static", "type", "mod"];
    sources.iter().filter(|(file, _)| file.starts_with(inside)).any(|(file, text)| {
        let stem = Path::new(file).file_stem().is_some_and(|stem| stem == scope);
        let folder = file.contains(&format!("/{scope}/"));
        let typed = ["impl", "struct", "trait", "for"].iter().any(|word| has(text, word, scope));
        (scope.is_empty() || stem || folder || typed) && kinds.iter().any(|kind| has(text, kind, last))
    })
}

/// Whether the text has these two words after each other, whatever generics stand behind `impl`.
fn has(text: &str, word: &str, name: &str) -> bool {
    text.match_indices(&format!("{word} {name}")).any(|(at, found)| {
        let before = text[..at].chars().next_back();
        let after = text[at + found.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && !part(after)
    })
}

#[test]
fn the_life_of_a_deployment_names_what_exists() {
    let text = document("docs/life-of-a-deployment.md");
    let sources = sources();
    let house = house();
    let mut checked = 0;
    let mut found = Vec::new();
    for row in rows(&text) {
        let [_, crates, functions, _] = row[..] else { continue };
        let crates = quoted(crates);
        for name in &crates {
            assert!(house.contains_key(*name), "{name} is no crate");
        }
        for function in quoted(functions) {
            checked += 1;
            if !crates.iter().any(|name| exists(&sources, &format!("crates/{name}/src/"), function)) {
                found.push(format!("{function} in {crates:?}"));
            }
        }
    }
    assert!(checked > 15, "the table of the walk has only {checked} names");
    assert_none(&found, "a name in docs/life-of-a-deployment.md does not exist");
}

#[test]
fn the_files_that_the_documents_point_to_exist() {
    let mut found = Vec::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/life-of-a-deployment.md"] {
        for word in quoted(&document(name)) {
            let path = ["crates/", "docs/", "examples/", "xtask/", "images/"].iter().any(|dir| word.starts_with(dir));
            if path && !word.contains(['<', '*', ' ']) && !host::root().join(word).exists() {
                found.push(format!("{name}: {word}"));
            }
        }
    }
    assert_none(&found, "a document points to a file that does not exist");
}

#[test]
fn the_rules_see_what_they_are_for() {
    assert_eq!(literal_words(r#"get("/apis/apps", "pods") // "#), ["", "apis", "apps", "pods"]);
    assert!(has("pub fn plan(x)", "fn", "plan") && !has("pub fn planned(x)", "fn", "plan"));
    let place = format!("/{}/", "work");
    assert!(names_place(&format!("path = \"{place}main\""), &place));
    assert!(!names_place(&format!("overlay{place}upper"), &place));
    let sources = [("crates/a/src/deployment.rs".to_owned(), "fn plan() {} struct S; impl S { fn f() {} }".to_owned())];
    assert!(exists(&sources, "crates/a/src/", "deployment::plan"));
    assert!(exists(&sources, "crates/a/src/", "S::f"));
    assert!(!exists(&sources, "crates/a/src/", "replica_set::plan"));
    assert!(!exists(&sources, "crates/b/src/", "plan"));
}
