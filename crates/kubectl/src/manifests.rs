//! Objects out of files, directories, addresses on the local machine and standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::failure::{Outcome, error};

/// Files that a directory is read for.
const SUFFIXES: [&str; 3] = ["json", "yaml", "yml"];

/// Reads every object that the sources hold, lists taken apart.
pub(crate) fn read(sources: &[String], recursive: bool) -> Outcome<Vec<Value>> {
    if sources.is_empty() {
        return Err(error("must specify one of -f and -k"));
    }
    let mut objects = Vec::new();
    for source in sources {
        if source == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text)?;
            objects.extend(parse(&text, "STDIN")?);
            continue;
        }
        if source.starts_with("http://") || source.starts_with("https://") {
            return Err(error(format!("cannot read {source}: only files, directories and - are supported")));
        }
        let path = Path::new(source);
        if !path.exists() {
            return Err(error(format!("the path \"{source}\" does not exist")));
        }
        for file in files(path, recursive)? {
            let text = std::fs::read_to_string(&file).map_err(|e| error(format!("read {}: {e}", file.display())))?;
            objects.extend(parse(&text, &file.display().to_string())?);
        }
    }
    if objects.is_empty() {
        return Err(error("no objects passed to apply"));
    }
    Ok(objects)
}

fn files(path: &Path, recursive: bool) -> Outcome<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                found.extend(files(&entry, true)?);
            }
        } else if entry.extension().and_then(|e| e.to_str()).is_some_and(|e| SUFFIXES.contains(&e)) {
            found.push(entry);
        }
    }
    if found.is_empty() {
        return Err(error(format!(
            "error reading {:?}: recognized file extensions are [.json .yaml .yml]",
            [path.display().to_string()]
        )));
    }
    Ok(found)
}

/// The documents of a text.
fn parse(text: &str, name: &str) -> Outcome<Vec<Value>> {
    let mut objects = Vec::new();
    for document in documents(text) {
        // As kubectl reads numbers: a leading zero makes them octal, which modes of files rely on.
        let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
        let value: Value = serde_saphyr::from_str_with_options(&document, options).map_err(|e| {
            error(format!(
                "error parsing {name}: error converting YAML to JSON: yaml: {}",
                e.to_string().lines().next().unwrap_or_default()
            ))
        })?;
        if value.is_null() {
            continue;
        }
        if !value.is_object() {
            return Err(error(format!(
                "error parsing {name}: json: cannot unmarshal into Go value: the document is no object"
            )));
        }
        for key in ["kind", "apiVersion"] {
            if value[key].as_str().is_none_or(str::is_empty) {
                return Err(error(format!(
                    "error validating \"{name}\": error validating data: {key} not set; if you choose to ignore these errors, turn validation off with --validate=false"
                )));
            }
        }
        match value["items"].as_array() {
            Some(items) if value["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                objects.extend(items.iter().cloned());
            }
            _ => objects.push(value),
        }
    }
    Ok(objects)
}

/// Cuts a text at lines of three dashes.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        let separator = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if separator {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            *document += line;
            document.push('\n');
        }
    }
    documents.retain(|one| one.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')));
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_taken_apart_and_numbers_read_as_kubectl_reads_them() {
        let text = "# a comment\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n---\n";
        let names: Vec<_> = parse(text, "x").unwrap().iter().map(|o| o["metadata"]["name"].clone()).collect();
        assert_eq!(names, ["a", "b"]);
        let mode = parse("{apiVersion: v1, kind: A, mode: 0755, plain: 10, text: '010'}", "x").unwrap();
        assert_eq!((mode[0]["mode"].as_i64(), mode[0]["plain"].as_i64()), (Some(0o755), Some(10)));
        assert_eq!(mode[0]["text"], "010");
        assert!(parse("kind: Pod\n", "f.yaml").unwrap_err().message.contains("apiVersion not set"));
        assert!(
            parse("a: [", "f.yaml")
                .unwrap_err()
                .message
                .starts_with("error: error parsing f.yaml: error converting YAML to JSON")
        );
    }
}
