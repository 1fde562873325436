//! Validation of volumes.

use object_model::{FieldError, FieldPath, names};
use serde_json::Value;

use crate::walk;

/// Checks the volumes of a pod spec and returns their names.
pub(super) fn validate<'a>(errors: &mut Vec<FieldError>, spec: &'a Value, path: &FieldPath) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for (index, volume) in walk::list(spec, "volumes").iter().enumerate() {
        let path = path.child("volumes").index(index);
        match walk::text(volume, "name") {
            None => errors.push(FieldError::required(&path.child("name"), "")),
            Some(name) => {
                let problems = names::dns_label(name);
                errors.extend(problems.into_iter().map(|why| FieldError::invalid(&path.child("name"), name, why)));
                if seen.contains(&name) {
                    errors.push(FieldError::duplicate(&path.child("name"), name));
                }
                seen.push(name);
            }
        }
        source(errors, volume, &path);
    }
    seen
}

fn source(errors: &mut Vec<FieldError>, volume: &Value, path: &FieldPath) {
    let sources: Vec<&str> =
        volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).filter(|key| *key != "name").collect();
    match sources.as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a volume type")),
        [_] => {}
        [_, others @ ..] => {
            for other in others {
                errors.push(FieldError::forbidden(&path.child(other), "may not specify more than 1 volume type"));
            }
        }
    }
    for (kind, field) in [
        ("hostPath", "path"),
        ("secret", "secretName"),
        ("configMap", "name"),
        ("persistentVolumeClaim", "claimName"),
        ("nfs", "server"),
        ("nfs", "path"),
        ("csi", "driver"),
    ] {
        if let Some(source) = volume.get(kind)
            && walk::text(source, field).is_none()
        {
            errors.push(FieldError::required(&path.child(kind).child(field), ""));
        }
    }
    if let Some(host) = walk::text(volume, "hostPath.path")
        && host.split('/').any(|part| part == "..")
    {
        errors.push(FieldError::invalid(&path.child("hostPath").child("path"), host, "must not contain '..'"));
    }
    for kind in ["configMap", "secret", "downwardAPI", "projected"] {
        let Some(source) = volume.get(kind) else { continue };
        let path = path.child(kind);
        mode(errors, source, "defaultMode", &path);
        for (index, item) in walk::list(source, "items").iter().enumerate() {
            let path = path.child("items").index(index);
            mode(errors, item, "mode", &path);
            if kind != "downwardAPI" && walk::text(item, "key").is_none() {
                errors.push(FieldError::required(&path.child("key"), ""));
            }
            match walk::text(item, "path") {
                None => errors.push(FieldError::required(&path.child("path"), "")),
                Some(text) => relative(errors, text, &path.child("path")),
            }
        }
    }
}

fn mode(errors: &mut Vec<FieldError>, source: &Value, field: &str, path: &FieldPath) {
    if let Some(mode) = walk::at(source, field)
        && !mode.as_i64().is_some_and(|mode| (0..=0o777).contains(&mode))
    {
        let why = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(&path.child(field), mode.clone(), why));
    }
}

/// Refuses a path that leaves the volume.
pub(super) fn relative(errors: &mut Vec<FieldError>, text: &str, path: &FieldPath) {
    if text.starts_with('/') {
        errors.push(FieldError::invalid(path, text, "must be a relative path"));
    }
    if text.split('/').any(|part| part == "..") {
        errors.push(FieldError::invalid(path, text, "must not contain '..'"));
    }
}
