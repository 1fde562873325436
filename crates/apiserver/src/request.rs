//! What a request asks for, read from its method, path and query (upstream's request info).

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderMap, Method, Uri, header};
use object_model::ApiError;
use percent_encoding::percent_decode_str;

/// Query parameters, decoded, in their order.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI.
    pub fn of(uri: &Uri) -> Self {
        Self::parse(uri.query().unwrap_or_default())
    }

    /// Reads the text of a query.
    pub fn parse(text: &str) -> Self {
        let decode = |s: &str| percent_decode_str(&s.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter, or the empty string.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// All values of a parameter, in their order.
    pub fn all<'q>(&'q self, key: &'q str) -> impl Iterator<Item = &'q str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether the parameter is given.
    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// Whether the parameter is given and is not `false` or `0` (upstream's rule).
    pub fn flag(&self, key: &str) -> bool {
        let value = self.all(key).next();
        value.is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// How long the request may take: what `timeout` says, and never longer than `most`.
    ///
    /// # Errors
    /// 400 when it is no duration.
    pub fn timeout(&self, most: Duration) -> Result<Duration, ApiError> {
        let text = self.get("timeout");
        if text.is_empty() {
            return Ok(most);
        }
        let invalid = || ApiError::bad_request("invalid timeout specified in the request URL");
        let given = expressions::parse_duration(text).ok_or_else(invalid)?;
        // Upstream takes no time for the usual time.
        if given.is_zero() { Ok(most) } else { Ok(Duration::try_from(given).map_err(|_| invalid())?.min(most)) }
    }

    /// A whole number, where the parameter is given.
    ///
    /// # Errors
    /// 400 when it is given and is no number.
    pub fn number(&self, key: &str) -> Result<Option<i64>, ApiError> {
        match self.get(key) {
            "" => Ok(None),
            text => {
                text.parse().map(Some).map_err(|_| ApiError::bad_request(format!("invalid value for {key}: {text:?}")))
            }
        }
    }
}

/// A request for a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRequest {
    /// Kubernetes' verb: get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: &'static str,
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace, empty at the cluster scope.
    pub namespace: String,
    /// Plural name.
    pub resource: String,
    /// Object name, empty for collections.
    pub name: String,
    /// Subresource, empty for the object itself.
    pub subresource: String,
}

impl ResourceRequest {
    /// Whether it ends at a node or a pod, and goes on for as long as both sides like.
    pub fn streams(&self) -> bool {
        matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }
}

/// What the path of a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A resource.
    Resource(ResourceRequest),
    /// Anything else, like `/version`.
    Path,
}

/// Reads what a request is for.
pub fn target(method: &Method, path: &str, query: &Query) -> Target {
    let segments: Vec<Cow<'_, str>> =
        path.split('/').filter(|s| !s.is_empty()).map(|s| percent_decode_str(s).decode_utf8_lossy()).collect();
    let parts: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let (group, version, rest) = match parts[..] {
        ["api", version, ref rest @ ..] if !rest.is_empty() => ("", version, rest),
        ["apis", group, version, ref rest @ ..] if !rest.is_empty() => (group, version, rest),
        _ => return Target::Path,
    };
    let (old_watch, rest) = match rest {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // A namespace itself, and its subresources, are cluster-scoped objects that belong to their own namespace.
        ["namespaces", name, sub] if matches!(*sub, "status" | "finalize") => {
            return Target::Resource(ResourceRequest {
                verb: verb(method, true, false),
                group: group.to_owned(),
                version: version.to_owned(),
                namespace: (*name).to_owned(),
                resource: "namespaces".to_owned(),
                name: (*name).to_owned(),
                subresource: (*sub).to_owned(),
            });
        }
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", String::new()),
        [resource, name] => (*resource, *name, String::new()),
        [resource, name, sub, ..] => (*resource, *name, (*sub).to_owned()),
        [] => return Target::Path,
    };
    let watch = old_watch || query.flag("watch");
    // A watch of one object by name is a watch of the collection with a field selector.
    let name = if name.is_empty() && matches!(*method, Method::GET) {
        single_name(query.get("fieldSelector")).unwrap_or_default()
    } else {
        name.to_owned()
    };
    let on_object = rest.len() > 1;
    Target::Resource(ResourceRequest {
        verb: verb(method, on_object && !(old_watch && subresource.is_empty()), watch),
        group: group.to_owned(),
        version: version.to_owned(),
        namespace: if group.is_empty() && resource == "namespaces" { name.clone() } else { namespace.to_owned() },
        resource: resource.to_owned(),
        name,
        subresource,
    })
}

fn single_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|t| t.strip_prefix("metadata.name=")).map(|n| n.trim_start_matches('=').to_owned())
}

fn verb(method: &Method, on_object: bool, watch: bool) -> &'static str {
    match (method.as_str(), on_object) {
        ("GET" | "HEAD", true) => "get",
        ("GET" | "HEAD", false) if watch => "watch",
        ("GET" | "HEAD", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "",
    }
}

/// The form a client wants objects in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// The same as YAML.
    Yaml,
    /// Kubernetes' protobuf envelope.
    Protobuf,
}

/// The view a client wants of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The object itself.
    Object,
    /// `meta.k8s.io/v1 Table`, or v1beta1.
    Table(&'static str),
    /// `meta.k8s.io/v1 PartialObjectMetadata`, or v1beta1.
    Metadata(&'static str),
    /// `apidiscovery.k8s.io/v2 APIGroupDiscoveryList`.
    Discovery,
}

const METADATA: &str = "PartialObjectMetadata";
const METADATA_LIST: &str = "PartialObjectMetadataList";

/// What a client accepts, in its order of preference.
#[derive(Debug, Clone)]
pub struct Accept(pub Vec<(Format, View)>);

impl Accept {
    /// Reads the `Accept` header. What is not known is left out; no header, or `*/*`, is JSON.
    pub fn of(headers: &HeaderMap) -> Self {
        let text = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if text.trim().is_empty() {
            return Self(vec![(Format::Json, View::Object)]);
        }
        let mut wanted: Vec<(i64, (Format, View))> = Vec::new();
        for clause in text.split(',') {
            let mut parts = clause.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default() {
                "*/*" | "application/*" | "application/json" => Format::Json,
                "application/yaml" => Format::Yaml,
                "application/vnd.kubernetes.protobuf" => Format::Protobuf,
                // A form of the OpenAPI documents alone, which choose theirs by themselves; errors are JSON.
                media if media.starts_with("application/com.github.proto-openapi.") => Format::Json,
                _ => continue,
            };
            let (mut kind, mut version, mut group, mut quality) = ("", "", "", 1000_i64);
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("as", v)) => kind = v,
                    Some(("v", v)) => version = v,
                    Some(("g", v)) => group = v,
                    Some(("q", v)) => quality = v.parse::<f64>().map_or(1000, |q| (q * 1000.0) as i64),
                    _ => {}
                }
            }
            let view = match (group, version, kind) {
                (_, _, "") => View::Object,
                ("meta.k8s.io", "v1", "Table") => View::Table("v1"),
                ("meta.k8s.io", "v1beta1", "Table") => View::Table("v1beta1"),
                ("meta.k8s.io", "v1", METADATA | METADATA_LIST) => View::Metadata("v1"),
                ("meta.k8s.io", "v1beta1", METADATA | METADATA_LIST) => View::Metadata("v1beta1"),
                ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => View::Discovery,
                _ => continue,
            };
            wanted.push((quality, (format, view)));
        }
        wanted.sort_by_key(|(quality, _)| -quality);
        Self(wanted.into_iter().map(|(_, want)| want).collect())
    }

    /// The first wanted form that lists come in: tables are JSON alone, and custom objects have no protobuf.
    ///
    /// # Errors
    /// 406 when none is wanted.
    pub fn for_list(&self, custom: bool) -> Result<(Format, View), ApiError> {
        self.first(|format, view| of_collection(format, view, custom))
    }

    /// The first wanted form that watches come in: that of lists, and no YAML, which has no frames.
    ///
    /// # Errors
    /// 406 when none is wanted.
    pub fn for_watch(&self, custom: bool) -> Result<(Format, View), ApiError> {
        self.first(|format, view| format != Format::Yaml && of_collection(format, view, custom))
    }

    /// The first wanted form that is offered.
    ///
    /// # Errors
    /// 406 when none is.
    pub fn first(&self, offered: impl Fn(Format, View) -> bool) -> Result<(Format, View), ApiError> {
        self.0.iter().copied().find(|(f, v)| offered(*f, *v)).ok_or_else(not_acceptable)
    }
}

fn of_collection(format: Format, view: View, custom: bool) -> bool {
    match view {
        View::Object => format != Format::Protobuf || !custom,
        View::Metadata(_) => true,
        View::Table(_) => format == Format::Json,
        View::Discovery => false,
    }
}

fn not_acceptable() -> ApiError {
    ApiError::new(
        object_model::Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, \
         application/vnd.kubernetes.protobuf",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, uri: &str) -> String {
        let uri: Uri = uri.parse().expect("uri");
        match target(method, uri.path(), &Query::of(&uri)) {
            Target::Path => "path".to_owned(),
            Target::Resource(r) => {
                format!(
                    "{} {}/{} {} {} {} {}",
                    r.verb, r.group, r.version, r.namespace, r.resource, r.name, r.subresource
                )
            }
        }
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        for (method, uri, want) in [
            (Method::GET, "/api/v1/pods?watch=true", "watch /v1  pods  "),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "get /v1 a pods b log"),
            (Method::POST, "/apis/apps/v1/namespaces/a/deployments", "create apps/v1 a deployments  "),
            (Method::GET, "/api/v1/namespaces/a", "get /v1 a namespaces a "),
            (Method::PUT, "/api/v1/namespaces/a/finalize", "update /v1 a namespaces a finalize"),
            (Method::DELETE, "/api/v1/namespaces/a/pods", "deletecollection /v1 a pods  "),
            (Method::GET, "/api/v1/watch/namespaces/a/pods", "watch /v1 a pods  "),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/b", "watch /v1 a pods b "),
            (Method::GET, "/api/v1/pods?watch=yes", "watch /v1  pods  "),
            (Method::GET, "/api/v1/pods?watch=False", "list /v1  pods  "),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dx", "list /v1  pods x "),
            (Method::GET, "/apis/apps/v1", "path"),
            (Method::GET, "/version", "path"),
        ] {
            assert_eq!(read(&method, uri), want, "{method} {uri}");
        }
    }

    #[test]
    fn a_request_takes_no_longer_than_it_says() {
        let timeout = |query: &str| {
            let query = Query::of(&format!("/x?{query}").parse().expect("uri"));
            query.timeout(Duration::from_secs(60)).map(|timeout| timeout.as_millis())
        };
        let read = ["", "timeout=1500ms", "timeout=2m", "timeout=0s"].map(|query| timeout(query).ok());
        assert_eq!(read, [Some(60_000), Some(1500), Some(60_000), Some(60_000)]);
        assert!(timeout("timeout=soon").is_err() && timeout("timeout=-1s").is_err());
    }

    #[test]
    fn the_best_acceptable_form_wins() {
        let accept = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, text.parse().expect("header"));
            Accept::of(&headers).0
        };
        assert_eq!(
            accept("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            [(Format::Json, View::Table("v1")), (Format::Json, View::Object)]
        );
        assert_eq!(
            accept("application/json;q=0.5, application/vnd.kubernetes.protobuf")[0],
            (Format::Protobuf, View::Object)
        );
        assert_eq!(Accept(accept("text/html")).first(|_, _| true).unwrap_err().code, 406);
    }
}
