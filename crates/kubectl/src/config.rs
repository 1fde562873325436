//! The kubeconfig: which server, which authority, which user, which namespace.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::args::Args;
use crate::failure::{Failure, Outcome, error};

/// How the server is reached, and as whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    pub server: String,
    /// PEM of the authority that the server's certificate is checked against.
    pub authority: Vec<u8>,
    /// PEM of a client's certificate and its key.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<String>,
    pub basic: Option<(String, String)>,
    pub namespace: String,
    /// Whom to act as.
    pub impersonate: Vec<(&'static str, String)>,
}

/// Where the kubeconfig is: the flag, the variable, or the usual place.
pub(crate) fn paths(args: &Args, usual: &Path) -> Vec<PathBuf> {
    if let Some(path) = args.get("kubeconfig") {
        return vec![PathBuf::from(path)];
    }
    if let Some(list) = std::env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        return std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    own.filter(|path| path.exists()).into_iter().chain([usual.to_owned()]).take(1).collect()
}

/// Reads and joins kubeconfigs: of two entries with a name the first holds.
pub(crate) fn load(paths: &[PathBuf], explicit: bool) -> Outcome<Value> {
    let mut joined = json!({"apiVersion": "v1", "kind": "Config", "clusters": [], "contexts": [], "users": [], "current-context": "", "preferences": {}});
    for path in paths {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !explicit => continue,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(error(format!("stat {}: no such file or directory", path.display())));
            }
            Err(e) => return Err(error(format!("error loading config file \"{}\": open {0}: {}", path.display(), e))),
        };
        let mut one: Value = serde_saphyr::from_str(&text)
            .map_err(|e| error(format!("error loading config file \"{}\": {e}", path.display())))?;
        // Files that it names lie beside it.
        let dir = path.parent().unwrap_or(Path::new("."));
        for (list, inside) in [("clusters", "cluster"), ("users", "user")] {
            for entry in one[list].as_array_mut().into_iter().flatten() {
                for key in ["certificate-authority", "client-certificate", "client-key", "tokenFile"] {
                    if let Some(file) = entry[inside][key].as_str().map(|file| dir.join(file)) {
                        entry[inside][key] = json!(file);
                    }
                }
            }
        }
        for list in ["clusters", "contexts", "users"] {
            let more = one[list].as_array().cloned().unwrap_or_default();
            if let Some(all) = joined[list].as_array_mut() {
                for entry in more {
                    if !all.iter().any(|known| known["name"] == entry["name"]) {
                        all.push(entry);
                    }
                }
            }
        }
        if joined["current-context"] == "" && one["current-context"].is_string() {
            joined["current-context"] = one["current-context"].take();
        }
    }
    Ok(joined)
}

fn named<'a>(config: &'a Value, list: &str, name: &Value) -> Option<&'a Value> {
    config[list].as_array()?.iter().find(|entry| &entry["name"] == name)
}

fn bytes(entry: &Value, key: &str) -> Outcome<Option<Vec<u8>>> {
    if let Some(data) = entry[format!("{key}-data")].as_str() {
        let decoded = STANDARD.decode(data).map_err(|e| error(format!("read {key}-data of the kubeconfig: {e}")))?;
        return Ok(Some(decoded));
    }
    let Some(path) = entry[key].as_str() else { return Ok(None) };
    std::fs::read(path).map(Some).map_err(|e| error(format!("unable to read {key} {path}: {e}")))
}

/// What the kubeconfig and the flags come to.
pub(crate) fn access(args: &Args, config: &Value) -> Outcome<Access> {
    let context = args.get("context").map_or_else(|| config["current-context"].clone(), |name| json!(name));
    let entry = named(config, "contexts", &context);
    if entry.is_none() && args.get("context").is_some() {
        let name = context.as_str().unwrap_or_default();
        return Err(Failure {
            message: format!("Error in configuration: context was not found for specified context: {name}"),
            code: 1,
        });
    }
    let entry = entry.map(|entry| entry["context"].clone()).unwrap_or_default();
    let cluster = named(config, "clusters", &entry["cluster"]).map(|one| one["cluster"].clone()).unwrap_or_default();
    let user = named(config, "users", &entry["user"]).map(|one| one["user"].clone()).unwrap_or_default();
    let server =
        args.get("server").or_else(|| cluster["server"].as_str()).unwrap_or("http://localhost:8080").to_owned();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let token = match (args.get("token"), text(&user["token"]), text(&user["tokenFile"])) {
        (Some(token), ..) => Some(token.to_owned()),
        (None, Some(token), _) => Some(token),
        (None, None, Some(file)) => Some(
            std::fs::read_to_string(&file)
                .map_err(|e| error(format!("read token file {file}: {e}")))?
                .trim()
                .to_owned(),
        ),
        _ => None,
    };
    let certificate = match (bytes(&user, "client-certificate")?, bytes(&user, "client-key")?) {
        // A token that was named on the command line goes before the certificate.
        (Some(certificate), Some(key)) if args.get("token").is_none() => Some((certificate, key)),
        _ => None,
    };
    let mut impersonate = Vec::new();
    impersonate.extend(args.get("as").map(|user| ("Impersonate-User", user.to_owned())));
    impersonate.extend(args.all("as-group").into_iter().map(|group| ("Impersonate-Group", group)));
    Ok(Access {
        server,
        authority: bytes(&cluster, "certificate-authority")?.unwrap_or_default(),
        certificate,
        token,
        basic: text(&user["username"]).zip(text(&user["password"])),
        namespace: args.get("namespace").or_else(|| entry["namespace"].as_str()).unwrap_or("default").to_owned(),
        impersonate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_names_server_user_and_namespace() {
        let config = json!({
            "current-context": "b",
            "contexts": [{"name": "b", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://x:1", "certificate-authority-data": "QQ=="}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        });
        let access_with = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            access(&Args::read("kubectl", &words, &[]).unwrap(), &config)
        };
        let plain = access_with("").unwrap();
        assert_eq!(
            (plain.server.as_str(), plain.namespace.as_str(), plain.token.as_deref()),
            ("https://x:1", "team", Some("t"))
        );
        assert_eq!(plain.authority, b"A");
        assert_eq!(access_with("-n other").unwrap().namespace, "other");
        assert_eq!(
            access_with("--context=z").unwrap_err().message,
            "Error in configuration: context was not found for specified context: z"
        );
    }
}
