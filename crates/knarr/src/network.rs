//! The parts of the server that make up the cluster's network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use apiserver::ApiServer;
use auth::User;
use pod_network::Cidr;
use tokio::net::TcpListener;

use crate::cluster_services::{self, OwnService};
use crate::host;
use crate::options::ServerOptions;
use crate::server::{Part, part};

/// The domain below which the names of Services and pods are.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// Starts what makes Services work: their rules, their names, and the two that every cluster has. Returns the address of
/// the DNS.
pub(crate) async fn start(
    options: &ServerOptions,
    node: &str,
    address: IpAddr,
    server: &Arc<ApiServer>,
    tls: Arc<rustls::ServerConfig>,
    parts: &mut Vec<Part>,
) -> Result<IpAddr> {
    let pods = Cidr::parse(&options.pod_cidr)?;
    let gateway = IpAddr::from(pods.gateway());
    let services = options.service_cidr;
    let bridge = options.bridge.clone();
    tokio::task::spawn_blocking(move || {
        pod_network::lead_through(&bridge, services.network, services.prefix, pods.gateway())
    })
    .await
    .context("lead Services through the bridge")??;

    let config = service_proxy::Config {
        node_name: node.to_owned(),
        bridge: options.bridge.clone(),
        pod_range: pods.to_string(),
        service_range: services.to_string(),
        table: service_proxy::table_name(&options.bridge),
    };
    let user = |name: &str| server.client(User::authenticated(name, &[]));
    let proxy = service_proxy::Proxy::new(config, user("system:kube-proxy"));
    part(parts, "the service proxy", |stop| proxy.run(stop));

    let api_port = options.listen.port();
    let reach = if options.listen.ip().is_unspecified() { address } else { options.listen.ip() };
    // Pods cannot reach the loopback address of the machine, but its end of the bridge.
    let api_at = if reach.is_loopback() { gateway } else { reach };
    if options.listen.ip().is_loopback() {
        let listener = host::listen(SocketAddr::new(gateway, api_port), "the API for pods", "--listen")?;
        let listener = TcpListener::from_std(listener).context("listen for the API at the bridge")?;
        let server = server.clone();
        part(parts, "the API server at the bridge", |stop| server.serve_also(listener, tls, stop));
    }

    let dns_at = IpAddr::from(services.host(10));
    let sockets = dns::Sockets::bind(gateway).await?;
    let own = vec![
        OwnService::api(services.host(1).into(), (api_at, api_port)),
        OwnService::dns(dns_at, (gateway, sockets.port()?)),
    ];
    let ranges = vec![
        dns::Range { network: services.network, prefix: services.prefix },
        dns::Range { network: pods.gateway(), prefix: pods.prefix },
    ];
    let config = dns::Config { domain: CLUSTER_DOMAIN.to_owned(), ranges, own: vec![dns_at, gateway] };
    let names = dns::Server::new(config, user(&User::name_of_account("kube-system", "kube-dns")));
    part(parts, "the DNS", |stop| names.run(sockets, stop));

    let listen = |address, what: &str, option: &str| ingress::listening(host::listen(address, what, option));
    let listeners = ingress::Listeners {
        http: listen(options.ingress_http, "Ingress over HTTP", "--ingress-http"),
        https: listen(options.ingress_https, "Ingress over HTTPS", "--ingress-https"),
    };
    let ingresses = ingress::Server::new(user("system:ingress"), address);
    part(parts, "the Ingresses", |stop| ingresses.run(listeners, stop));

    let api = server.client(User::authenticated("system:apiserver", &["system:masters"]));
    for service in &own {
        service.ensure(&api).await?;
    }
    part(parts, "the cluster's own Services", |stop| cluster_services::keep(own, api, stop));
    Ok(dns_at)
}
