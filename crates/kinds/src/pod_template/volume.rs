//! Validation of volumes.

use object_model::{FieldError, FieldPath, Quantity, names};
use serde_json::Value;

use crate::certificates::pod_certificate_request::{MAX_SECONDS, MIN_SECONDS};
use crate::certificates::signer_name;
use crate::core::persistent_volume_claim::validate_spec as validate_claim_spec;
use crate::{rules, walk};

const HOST_PATH_TYPES: [&str; 7] =
    ["BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields of a pod that a file or a variable can show; those of labels and annotations have keys in addition.
pub(super) const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Seconds that a token may live.
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

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
    ] {
        if let Some(source) = volume.get(kind) {
            rules::required(errors, source, field, &path.child(kind));
        }
    }
    if let Some(host) = volume.get("hostPath") {
        let path = path.child("hostPath");
        if walk::text(host, "path").is_some_and(|place| place.split('/').any(|part| part == "..")) {
            errors.push(FieldError::invalid(&path.child("path"), host["path"].clone(), "must not contain '..'"));
        }
        walk::one_of(errors, host, "type", &path, &HOST_PATH_TYPES);
    }
    if walk::text(volume, "nfs.path").is_some_and(|place| !place.starts_with('/')) {
        let given = volume["nfs"]["path"].clone();
        errors.push(FieldError::invalid(&path.child("nfs").child("path"), given, "must be an absolute path"));
    }
    if let Some(size) = rules::quantity(volume, "emptyDir.sizeLimit").filter(Quantity::is_negative) {
        let why = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(&path.child("emptyDir").child("sizeLimit"), format!("{why}: {size}")));
    }
    if let Some(csi) = volume.get("csi") {
        rules::driver_name(errors, csi, "driver", &path.child("csi"));
        if let Some(secret) = walk::at(csi, "nodePublishSecretRef") {
            rules::required(errors, secret, "name", &path.child("csi").child("nodePublishSecretRef"));
        }
    }
    if let Some(image) = volume.get("image") {
        let path = path.child("image");
        rules::required(errors, image, "reference", &path);
        walk::one_of(errors, image, "pullPolicy", &path, &["Always", "IfNotPresent", "Never"]);
    }
    if let Some(ephemeral) = volume.get("ephemeral") {
        let path = path.child("ephemeral").child("volumeClaimTemplate");
        match walk::at(ephemeral, "volumeClaimTemplate") {
            None => errors.push(FieldError::required(&path, "")),
            Some(template) => {
                crate::meta::labels(errors, &template["metadata"], &path.child("metadata"));
                validate_claim_spec(errors, &template["spec"], &path.child("spec"));
            }
        }
    }
    for kind in ["configMap", "secret", "downwardAPI"] {
        if let Some(source) = volume.get(kind) {
            mode(errors, source, "defaultMode", &path.child(kind));
            items(errors, kind, source, &path.child(kind));
        }
    }
    if let Some(projected) = volume.get("projected") {
        mode(errors, projected, "defaultMode", &path.child("projected"));
        projections(errors, projected, &path.child("projected"));
    }
}

/// Files of a volume, each of which has a key or a field that it shows.
fn items(errors: &mut Vec<FieldError>, kind: &str, source: &Value, path: &FieldPath) {
    for (index, item) in walk::list(source, "items").iter().enumerate() {
        let path = path.child("items").index(index);
        mode(errors, item, "mode", &path);
        if kind == "downwardAPI" {
            match (walk::at(item, "fieldRef"), walk::at(item, "resourceFieldRef")) {
                (Some(_), Some(_)) => {
                    let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errors.push(FieldError::invalid(&path, "resource", why));
                }
                (Some(field), None) => field_ref(errors, field, &FILE_FIELDS, &path.child("fieldRef")),
                (None, Some(resource)) => {
                    let path = path.child("resourceFieldRef");
                    rules::required(errors, resource, "containerName", &path);
                    resource_ref(errors, resource, &path);
                }
                (None, None) => {
                    let why = "one of fieldRef and resourceFieldRef is required";
                    errors.push(FieldError::required(&path.child("fieldRef"), why));
                }
            }
        } else {
            rules::required(errors, item, "key", &path);
        }
        if let Some(text) = rules::required(errors, item, "path", &path) {
            relative(errors, text, &path.child("path"));
        }
    }
}

/// A field of the pod, out of a set; labels and annotations may have a key.
pub(super) fn field_ref(errors: &mut Vec<FieldError>, field: &Value, set: &[&str], path: &FieldPath) {
    rules::required(errors, field, "apiVersion", path);
    let Some(text) = rules::required(errors, field, "fieldPath", path) else { return };
    let path = path.child("fieldPath");
    let keyed = text.split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)));
    if let Some((map @ ("metadata.labels" | "metadata.annotations"), key)) = keyed {
        let key = if map == "metadata.labels" { key.to_owned() } else { key.to_lowercase() };
        rules::named(errors, &key, &path, names::qualified_name);
    } else if keyed.is_some() {
        errors.push(FieldError::invalid(&path, text, "does not support subscript"));
    } else if !set.contains(&text) {
        errors.push(FieldError::not_supported(&path, text, set));
    }
}

/// A resource of a container.
pub(super) fn resource_ref(errors: &mut Vec<FieldError>, reference: &Value, path: &FieldPath) {
    const SET: [&str; 6] = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let Some(name) = rules::required(errors, reference, "resource", path) else { return };
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    if !SET.contains(&name) && !huge {
        errors.push(FieldError::not_supported(&path.child("resource"), name, &SET));
    }
}

/// What is put together into one volume: exactly one kind of thing from each source.
fn projections(errors: &mut Vec<FieldError>, projected: &Value, path: &FieldPath) {
    const KINDS: [&str; 6] =
        ["clusterTrustBundle", "configMap", "downwardAPI", "podCertificate", "secret", "serviceAccountToken"];
    let mut places: Vec<String> = Vec::new();
    for (index, source) in walk::list(projected, "sources").iter().enumerate() {
        let path = path.child("sources").index(index);
        let given: Vec<&str> = KINDS.into_iter().filter(|kind| walk::at(source, kind).is_some()).collect();
        if given.is_empty() {
            errors.push(FieldError::required(&path, "must specify a projection type"));
        }
        for extra in given.iter().skip(1) {
            let why = "may not specify more than 1 volume type per source";
            errors.push(FieldError::forbidden(&path.child(extra), why));
        }
        let Some(kind) = given.first() else { continue };
        let (one, path) = (&source[*kind], path.child(kind));
        projection(errors, kind, one, &path);
        let own = ["path", "credentialBundlePath", "keyPath", "certificateChainPath"];
        let items = walk::list(one, "items").iter().filter_map(|item| walk::text(item, "path"));
        for place in own.into_iter().filter_map(|field| walk::text(one, field)).chain(items) {
            if places.iter().any(|other| other == place) {
                let why = format!("conflicting duplicate paths: {place}");
                errors.push(FieldError::invalid(&path, Value::Null, why));
            }
            places.push(place.to_owned());
        }
    }
}

fn projection(errors: &mut Vec<FieldError>, kind: &str, one: &Value, path: &FieldPath) {
    items(errors, kind, one, path);
    match kind {
        "configMap" | "secret" => {
            rules::required(errors, one, "name", path);
        }
        "serviceAccountToken" => {
            if let Some(place) = rules::required(errors, one, "path", path) {
                relative(errors, place, &path.child("path"));
            }
            let seconds = walk::number(one, "expirationSeconds");
            let at = path.child("expirationSeconds");
            if seconds < MIN_TOKEN_SECONDS {
                let why = "may not specify a duration less than 10 minutes";
                errors.push(FieldError::invalid(&at, seconds, why));
            }
            if seconds > MAX_TOKEN_SECONDS {
                let why = "may not specify a duration larger than 2^32 seconds";
                errors.push(FieldError::invalid(&at, seconds, why));
            }
        }
        "clusterTrustBundle" => {
            match (walk::text(one, "name"), walk::text(one, "signerName")) {
                (Some(_), Some(_)) => {
                    let why = "only one of name and signerName may be used";
                    errors.push(FieldError::invalid(path, Value::Null, why));
                }
                (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
                (Some(_), None) => {
                    if let Some(selector) = walk::at(one, "labelSelector") {
                        let why = "labelSelector must be unset if name is specified";
                        errors.push(FieldError::invalid(&path.child("labelSelector"), selector.clone(), why));
                    }
                }
                (None, Some(signer)) => {
                    signer_name(errors, signer, &path.child("signerName"));
                    if let Some(selector) = walk::at(one, "labelSelector") {
                        crate::meta::selector(errors, selector, &path.child("labelSelector"));
                    }
                }
            }
            if let Some(place) = rules::required(errors, one, "path", path) {
                relative(errors, place, &path.child("path"));
            }
        }
        "podCertificate" => certificate(errors, one, path),
        _ => {}
    }
}

fn certificate(errors: &mut Vec<FieldError>, one: &Value, path: &FieldPath) {
    signer_name(errors, one["signerName"].as_str().unwrap_or_default(), &path.child("signerName"));
    let keys = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    rules::required_choice(errors, one, "keyType", path, &keys);
    if let Some(seconds) = walk::at(one, "maxExpirationSeconds").and_then(Value::as_i64) {
        let at = path.child("maxExpirationSeconds");
        if seconds < MIN_SECONDS {
            let why = format!("if provided, maxExpirationSeconds must be >= {MIN_SECONDS}");
            errors.push(FieldError::invalid(&at, seconds, why));
        }
        if seconds > MAX_SECONDS {
            let why = format!("if provided, maxExpirationSeconds must be <= {MAX_SECONDS}");
            errors.push(FieldError::invalid(&at, seconds, why));
        }
    }
    let places = ["credentialBundlePath", "keyPath", "certificateChainPath"];
    let given: Vec<(&str, &str)> =
        places.into_iter().filter_map(|field| Some((field, walk::text(one, field)?))).collect();
    if given.is_empty() {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, why));
    }
    for (field, place) in given {
        relative(errors, place, &path.child(field));
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
