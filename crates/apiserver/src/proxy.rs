//! The proxy subresources: requests that go on to what a pod, a service or a node serves over HTTP by itself.
//!
//! Kinds named here, and why: Pod, Service and Node, because each has its address elsewhere.

mod html;
mod links;

use std::net::IpAddr;

use client::{Body, is_upgrade};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use object_model::{ApiError, Reason};

use crate::context::Context;
use crate::finish::Foreign;
use crate::outbound::{Endpoint, Peer};
use crate::request::ResourceRequest;
use crate::served::Served;
use crate::server::Client;
use crate::trust::trust;
use crate::{ApiServer, respond};

use links::Links;

/// What only the pages of this server may allow others.
const CORS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// `[scheme:]name[:port]`, as the name of an object in the path.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Place<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some(Self {
            https: scheme == "https",
            name,
            port,
        })
    }
}

impl ApiServer {
    /// Passes a request on to what an object serves.
    ///
    /// # Errors
    /// When there is no such object, or nobody answers.
    pub(crate) async fn proxy(
        &self,
        cx: &Context,
        request: &ResourceRequest,
        served: &Served,
        incoming: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let uri = incoming.uri().clone();
        let above = 5 + if served.namespaced() { 2 } else { 0 };
        let (prefix, below) = split_path(uri.path(), above);
        // Where it leads is said by the path of the request alone, whatever becomes of the options.
        self.admit_connect(cx, request, served, below).await?;
        let invalid = || ApiError::bad_request(format!("invalid {} request {:?}", served.singular(), request.name));
        let place = Place::of(&request.name).ok_or_else(invalid)?;
        let peer = match served.plural() {
            "pods" => self.pod_peer(&place, request, served),
            "services" => self.service_peer(&place, request, served),
            _ => self.node_peer(&place),
        }?;
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let upgrade = is_upgrade(incoming.headers());
        if below.is_empty() && !upgrade && matches!(*incoming.method(), Method::GET | Method::HEAD) {
            // Links of a page are relative to its folder.
            return redirect(&format!("{}/{query}", uri.path()));
        }
        let path = format!("{}{query}", if below.is_empty() { "/" } else { below });
        let path: Uri = path.parse().map_err(|error| ApiError::bad_request(format!("read the path: {error}")))?;
        let host = host_of(&incoming);
        let mut headers = HeaderMap::new();
        if let Ok(host) = HeaderValue::from_str(&host) {
            headers.insert(header::HOST, host);
        }
        if let Some(value) = forwarded_for(&incoming) {
            headers.insert(FORWARDED_FOR, value);
        }
        if !upgrade && let Ok(value) = HeaderValue::from_str(&format!("{prefix}{below}")) {
            headers.insert(FORWARDED_URI, value);
        }
        // The user's credentials stay here.
        let kept = |name: &HeaderName| {
            !(name == header::HOST
                || name == header::AUTHORIZATION
                || name == FORWARDED_FOR
                || name == FORWARDED_URI
                || name.as_str().starts_with("impersonate-"))
        };
        let address = match peer.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:{}", peer.port),
            _ => format!("{}:{}", peer.host, peer.port),
        };
        let unreachable =
            |error| ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach service: {error:#}"));
        let mut response = self.relay(&peer, path, incoming, headers, kept).await.map_err(unreachable)?;
        response.extensions_mut().insert(Foreign);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        CORS.iter().for_each(|name| while response.headers_mut().remove(name).is_some() {});
        let links = Links { prefix: prefix.to_owned(), backend: address, host };
        if let Some(location) = response.headers().get(header::LOCATION) {
            let rewritten = location.to_str().ok().map(|location| links.rewritten(location));
            if let Some(value) = rewritten.and_then(|text| HeaderValue::from_str(&text).ok()) {
                response.headers_mut().insert(header::LOCATION, value);
            }
            return Ok(response);
        }
        Ok(html::rewrite(response, links))
    }

    fn pod_peer(&self, place: &Place<'_>, request: &ResourceRequest, served: &Served) -> Result<Peer, ApiError> {
        let pod = self.object(served, &request.namespace, place.name)?;
        let ports = pod["spec"]["containers"].as_array().into_iter().flatten();
        let mut ports = ports.flat_map(|container| container["ports"].as_array().into_iter().flatten());
        // A number, the name of one of the pod's ports, or its first one.
        let port = match place.port {
            "" => ports.next().map_or(Some(if place.https { 443 } else { 80 }), |port| number(&port["containerPort"])),
            text => text
                .parse()
                .ok()
                .or_else(|| ports.find(|port| port["name"] == text).and_then(|port| number(&port["containerPort"]))),
        };
        let unknown = || ApiError::bad_request(format!("pod {} has no port {:?}", place.name, place.port));
        let host = pod["status"]["podIP"].as_str().unwrap_or_default();
        if !host.parse().is_ok_and(is_proxyable) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        peer(host, port.ok_or_else(unknown)?, place.https)
    }

    fn service_peer(&self, place: &Place<'_>, request: &ResourceRequest, served: &Served) -> Result<Peer, ApiError> {
        let unavailable = |text: String| ApiError::new(Reason::ServiceUnavailable, text);
        let service = self.object(served, &request.namespace, place.name)?;
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        // A port is given by its number or its name; none is that without a name.
        let port = match place.port.parse::<u64>() {
            Err(_) => place.port,
            Ok(wanted) => {
                let port = ports.into_iter().find(|port| port["port"] == wanted);
                let missing = || format!("no service port {wanted} found for service {:?}", place.name);
                port.ok_or_else(|| unavailable(missing()))?["name"].as_str().unwrap_or_default()
            }
        };
        let mut ready = self.ready_endpoints(&request.namespace, place.name, port).map_err(ApiError::internal)?;
        ready.retain(|endpoint| self.is_of_pod(endpoint, &request.namespace));
        if ready.is_empty() {
            return Err(unavailable(format!("no endpoints available for service {:?}", request.name)));
        }
        let chosen = ready.swap_remove(rand::random_range(0..ready.len()));
        peer(&chosen.address, chosen.port, place.https)
    }

    /// Whether an endpoint is a pod of the namespace: else who may write endpoints could reach whatever this server reaches.
    fn is_of_pod(&self, endpoint: &Endpoint, namespace: &str) -> bool {
        let target = &endpoint.target;
        let Some(name) = target["name"].as_str().filter(|_| target["namespace"] == namespace) else { return false };
        let Ok(Some(pod)) = self.stored_object("pods", namespace, name) else { return false };
        let mut addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
        addresses.any(|one| one["ip"] == endpoint.address.as_str())
    }

    fn node_peer(&self, place: &Place<'_>) -> Result<Peer, ApiError> {
        let (host, kubelet) = self.kubelet_address(place.name)?;
        if place.port.is_empty() || place.port.parse() == Ok(kubelet) {
            return Ok(Peer { name: host.clone(), host, port: kubelet, tls: Some(self.kubelet.tls.clone()) });
        }
        let unknown = |_| ApiError::bad_request(format!("node {} has no port {:?}", place.name, place.port));
        if host.parse().is_ok_and(|address| !is_proxyable(address)) {
            return Err(ApiError::bad_request("address not allowed"));
        }
        peer(&host, place.port.parse().map_err(unknown)?, place.https)
    }
}

fn number(value: &serde_json::Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

/// Whether an address may be reached this way: not those by which this machine reaches itself or its neighbours.
fn is_proxyable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast()),
    }
}

/// Somebody whose certificate, if there is one, nobody here can judge.
fn peer(host: &str, port: u16, https: bool) -> Result<Peer, ApiError> {
    let tls = https.then(|| trust(&[], true, None)).transpose().map_err(ApiError::internal)?;
    Ok(Peer { host: host.to_owned(), port, name: host.to_owned(), tls })
}

/// A path after so many of its segments.
fn split_path(path: &str, segments: usize) -> (&str, &str) {
    let mut left = segments;
    let mut inside = false;
    for (at, byte) in path.bytes().enumerate() {
        if byte == b'/' && inside {
            left -= 1;
            if left == 0 {
                return path.split_at(at);
            }
        }
        inside = byte != b'/';
    }
    (path, "")
}

fn redirect(location: &str) -> Result<Response<Body>, ApiError> {
    let mut response = respond::typed(StatusCode::MOVED_PERMANENTLY, "text/html; charset=utf-8", "");
    let location = HeaderValue::from_str(location).map_err(|_| ApiError::bad_request("the path is no header"))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The host that the client asked.
fn host_of(request: &Request<Body>) -> String {
    let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    // HTTP/2 has it in the address.
    named.or_else(|| request.uri().authority().map(ToString::to_string)).unwrap_or_default()
}

/// Whom the request comes from, after those whom it came from before.
fn forwarded_for(request: &Request<Body>) -> Option<HeaderValue> {
    let before = request.headers().get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let client = request.extensions().get::<Client>().map(|client| client.0.to_string());
    let all: Vec<String> = before.map(str::to_owned).chain(client).collect();
    (!all.is_empty()).then(|| HeaderValue::from_str(&all.join(", ")).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let of = |text| Place::of(text).map(|place| (place.https, place.name, place.port));
        assert_eq!(of("web"), Some((false, "web", "")));
        assert_eq!(of("web:80"), Some((false, "web", "80")));
        assert_eq!(of("https:web:"), Some((true, "web", "")));
        assert_eq!(of("http:web:http"), Some((false, "web", "http")));
        assert_eq!((of("ftp:web:21"), of(":80"), of("a:b:c:d")), (None, None, None));
    }

    #[test]
    fn what_lies_below_the_subresource_stays_as_it_was_written() {
        let pod = "/api/v1/namespaces/n/pods/p/proxy";
        assert_eq!(split_path(&format!("{pod}/a%20b//c/"), 7), (pod, "/a%20b//c/"));
        assert_eq!(split_path(pod, 7), (pod, ""));
        assert_eq!(split_path("/api/v1/nodes/n/proxy/", 5), ("/api/v1/nodes/n/proxy", "/"));
    }

    #[test]
    fn this_machine_cannot_be_reached_by_its_own_addresses() {
        for (address, proxyable) in
            [("10.0.0.1", true), ("127.0.0.1", false), ("169.254.169.254", false), ("::1", false), ("fd00::1", true)]
        {
            assert_eq!(is_proxyable(address.parse().unwrap()), proxyable, "{address}");
        }
    }
}
