//! What comes out: tables with aligned columns, JSON, YAML, names, JSONPath.

use std::io::Write as _;

use object_model::jsonpath;
use serde::Serialize as _;
use serde_json::{Value, json};

use crate::args::Args;
use crate::failure::{Outcome, error};

/// How objects are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Table { wide: bool },
    Json,
    Yaml,
    Name,
    JsonPath(String),
    Columns(Vec<(String, String)>),
}

impl Format {
    pub fn read(args: &Args) -> Outcome<Self> {
        let Some(word) = args.get("output") else { return Ok(Self::Table { wide: false }) };
        Ok(match word {
            "" => Self::Table { wide: false },
            "wide" => Self::Table { wide: true },
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "name" => Self::Name,
            other => {
                if let Some(template) =
                    other.strip_prefix("jsonpath=").or_else(|| other.strip_prefix("jsonpath-as-json="))
                {
                    let template = template.trim_matches('\'');
                    // `jsonpath=.a.b` is taken for `{.a.b}`.
                    let bare = !template.contains('{');
                    Self::JsonPath(if bare { format!("{{{template}}}") } else { template.to_owned() })
                } else if let Some(columns) = other.strip_prefix("custom-columns=") {
                    let columns = columns.split(',').map(|one| {
                        let (name, path) = one.split_once(':').ok_or_else(|| {
                            error(format!("unexpected custom-columns spec: {one}, expected <header>:<json-path-expr>"))
                        })?;
                        Ok((name.to_owned(), path.to_owned()))
                    });
                    Self::Columns(columns.collect::<Outcome<_>>()?)
                } else {
                    return Err(error(format!(
                        "unable to match a printer suitable for the output format {other:?}, allowed formats are: custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,kyaml,name,template,templatefile,wide,yaml"
                    )));
                }
            }
        })
    }

    pub fn is_table(&self) -> bool {
        matches!(self, Self::Table { .. })
    }
}

/// Writes to standard output at once; a reader that has gone ends the program quietly.
pub(crate) fn out(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(crate::failure::said(141)),
        other => Ok(other?),
    }
}

/// JSON with four blanks, as Go indents it.
pub(crate) fn json_text(value: &Value) -> Outcome<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(|e| error(e.to_string()))?;
    // Go writes these three escaped, so that JSON may stand in HTML.
    let text = String::from_utf8_lossy(&bytes).replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    Ok(text + "\n")
}

/// An object without what nobody wants to read.
pub(crate) fn tidy(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

/// Shows one object, or a list of them.
pub(crate) fn objects(
    format: &Format,
    mut objects: Vec<Value>,
    as_list: bool,
    word: impl Fn(&Value) -> String,
) -> Outcome {
    for object in &mut objects {
        *object = tidy(object.take());
    }
    if *format == Format::Name {
        let names = objects
            .iter()
            .map(|one| format!("{}/{}\n", word(one), one["metadata"]["name"].as_str().unwrap_or_default()));
        return out(&names.collect::<String>());
    }
    if let Format::Columns(columns) = format {
        let mut rows = vec![columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()];
        for object in &objects {
            let cell = |(_, path): &(String, String)| {
                let found = jsonpath::find(path, object)?;
                let text = found.iter().map(jsonpath::text).collect::<Vec<_>>().join(",");
                Ok(if text.is_empty() { "<none>".to_owned() } else { text })
            };
            rows.push(columns.iter().map(cell).collect::<Outcome<Vec<_>>>()?);
        }
        return out(&aligned(&rows, &mut Vec::new()));
    }
    let value = match (as_list, objects.len()) {
        (false, 1) => objects.remove(0),
        _ => json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": objects}),
    };
    match format {
        Format::Json => out(&json_text(&value)?),
        Format::Yaml => out(&schema::yaml::document(&value)),
        Format::JsonPath(template) => out(&jsonpath::render(template, &value)?),
        _ => Ok(()),
    }
}

/// Rows with their columns aligned, three blanks between. `widths` remembers how wide columns were before.
pub(crate) fn aligned(rows: &[Vec<String>], widths: &mut Vec<usize>) -> String {
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(known) => *known = (*known).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            text += cell;
            if index + 1 < row.len() {
                let blanks = (widths[index] + 3).max(6) - cell.chars().count();
                text += &" ".repeat(blanks);
            }
        }
        text.push('\n');
    }
    text
}

/// A server's Table, ready to be shown.
#[derive(Default)]
pub(crate) struct Table {
    pub headers: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// Options of showing tables.
#[derive(Clone, Copy, Default)]
pub(crate) struct Shown {
    pub wide: bool,
    pub namespaces: bool,
    pub labels: bool,
}

impl Table {
    /// Adds what a Table of the server has. `prefix` stands before names, as in `pod/x`.
    pub fn add(&mut self, table: &Value, shown: Shown, prefix: &str) {
        let columns: Vec<(usize, &Value)> = table["columnDefinitions"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .filter(|(_, column)| shown.wide || column["priority"].as_i64().unwrap_or(0) == 0)
            .collect();
        let namespaces = shown.namespaces;
        if self.headers.is_empty() {
            let names = columns.iter().map(|(_, column)| column["name"].as_str().unwrap_or_default().to_uppercase());
            self.headers = namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(names).collect();
            if shown.labels {
                self.headers.push("LABELS".to_owned());
            }
        }
        for row in table["rows"].as_array().into_iter().flatten() {
            let metadata = &row["object"]["metadata"];
            let mut cells = Vec::new();
            if namespaces {
                cells.push(metadata["namespace"].as_str().unwrap_or_default().to_owned());
            }
            for (place, (index, column)) in columns.iter().enumerate() {
                let mut text = match &row["cells"][index] {
                    Value::Null => "<none>".to_owned(),
                    other => jsonpath::text(other),
                };
                if place == 0 && (column["format"] == "name" || column["name"] == "Name") {
                    text = format!("{prefix}{text}");
                }
                cells.push(text);
            }
            if shown.labels {
                cells.push(labels_text(&metadata["labels"]));
            }
            self.rows.push(cells);
        }
    }

    pub fn text(&self, headers: bool, widths: &mut Vec<usize>) -> String {
        let mut rows = Vec::new();
        if headers {
            rows.push(self.headers.clone());
        }
        rows.extend(self.rows.iter().cloned());
        aligned(&rows, widths)
    }
}

/// Labels as a table shows them: `a=1,b=2`.
pub(crate) fn labels_text(labels: &Value) -> String {
    let all: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", jsonpath::text(value)))
        .collect();
    if all.is_empty() { "<none>".to_owned() } else { all.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_widths_remembered() {
        let row = |cells: &[&str]| cells.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        let mut widths = Vec::new();
        let text = aligned(&[row(&["NAME", "A", "B"]), row(&["web-1", "1", "x"])], &mut widths);
        assert_eq!(text, "NAME    A     B\nweb-1   1     x\n");
        assert_eq!(aligned(&[row(&["w", "2", "y"])], &mut widths), "w       2     y\n");
    }
}
