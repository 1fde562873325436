//! Gathers what the fields of the API's types are for, out of the documentation of the crate that has them as Rust types.
//! `kubectl explain` shows it. The text stays the dependency's: it is read at build time and never committed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error, fs};

/// The crate with the types, and the folder of the version that is served.
const CRATE: &str = "k8s-openapi";
const VERSION: &str = "src/v1_37";

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/types.txt");
    let sources = sources()?;
    println!("cargo::rerun-if-changed={}", sources.display());
    let table = fs::read_to_string("src/types.txt")?;
    let known: BTreeSet<&str> = table.lines().filter_map(|line| line.strip_prefix("T ")?.split(' ').next()).collect();
    let mut files = Vec::new();
    list(&sources, &mut files)?;
    files.sort();
    let mut text = String::new();
    for file in files {
        let Some(package) = package(file.strip_prefix(&sources)?) else { continue };
        describe(&fs::read_to_string(&file)?, &package, &known, &mut text)?;
    }
    let out = Path::new(&env::var("OUT_DIR")?).join("descriptions.gz");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes())?;
    fs::write(out, encoder.finish()?)?;
    Ok(())
}

/// Where the crate's sources are.
#[expect(clippy::disallowed_methods, reason = "a build script has no crate whose helper it could use")]
fn sources() -> Result<PathBuf, Box<dyn error::Error>> {
    let answer = Command::new(env::var("CARGO")?).args(["metadata", "--format-version=1", "--offline"]).output()?;
    if !answer.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&answer.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&answer.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest =
        packages.into_iter().find(|package| package["name"] == CRATE).and_then(|p| p["manifest_path"].as_str());
    let manifest = manifest.ok_or("no k8s-openapi among the dependencies")?;
    Ok(Path::new(manifest).parent().ok_or("a manifest lies in a directory")?.join(VERSION))
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn error::Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// `core.v1` of `api/core/v1/pod.rs`, `meta.v1` of `apimachinery/pkg/apis/meta/v1/time.rs`.
fn package(path: &Path) -> Option<String> {
    let parts: Vec<&str> = path.parent()?.iter().filter_map(|part| part.to_str()).collect();
    match parts[..] {
        ["api", group, version] | [_, "pkg", "apis", group, version] => Some(format!("{group}.{version}")),
        _ => None,
    }
}

/// Writes a line for each type, and one for each of its fields: name, tab, text.
fn describe(
    source: &str,
    package: &str,
    known: &BTreeSet<&str>,
    out: &mut String,
) -> Result<(), Box<dyn error::Error>> {
    let mut said: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in source.lines() {
        let trimmed = line.trim();
        if let Some(text) = trimmed.strip_prefix("///") {
            said.push(text.trim());
        } else if trimmed.starts_with("#[") || trimmed.is_empty() {
            // Attributes stand between the documentation and what it is about.
        } else {
            let text = said.join("\n").replace('\\', "\\\\").replace('\n', "\\n");
            if let Some(name) =
                line.strip_prefix("pub struct ").and_then(|rest| rest.split([' ', '<', '(', ';']).next())
            {
                let full = format!("{package}.{name}");
                inside = known.contains(full.as_str());
                if inside {
                    writeln!(out, "T {full}\t{text}")?;
                }
            } else if line.starts_with('}') {
                inside = false;
            } else if inside
                && let Some((name, _)) = trimmed.strip_prefix("pub ").and_then(|rest| rest.split_once(':'))
                && !text.is_empty()
            {
                writeln!(out, "{}\t{text}", name.replace('_', ""))?;
            }
            said.clear();
        }
    }
    Ok(())
}
