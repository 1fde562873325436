//! Bridges, veth pairs, addresses and routes, by netlink.

use std::{
    net::Ipv4Addr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, anyhow};
use futures::TryStreamExt as _;
use netlink_packet_route::{
    link::{InfoData, InfoKind, InfoPortKind, InfoVeth, LinkAttribute, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteScope},
};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

/// Ends the answers of a function that the kernel refuses because the thing exists, or does not.
fn unless(result: Result<(), rtnetlink::Error>, harmless: i32) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code().abs() == harmless => Ok(()),
        other => other,
    }
}

/// `ENODEV`, `EEXIST` of `errno.h`.
const MISSING: i32 = 19;
const EXISTS: i32 = 17;

/// Runs `work` with netlink handles of the machine and, if `pod` is given, of that network namespace.
///
/// On a thread of its own: a network namespace belongs to a thread, and none of the callers' may change.
pub(crate) fn with_netlink<T: Send>(
    pod: Option<&OwnedFd>,
    work: impl AsyncFnOnce(Handle, Option<Handle>) -> Result<T> + Send,
) -> Result<T> {
    let body = || -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("start a runtime")?;
        runtime.block_on(async {
            // Dropping the set ends the connections with this call.
            let mut connections = tokio::task::JoinSet::new();
            let (connection, machine, _) = rtnetlink::new_connection().context("open netlink")?;
            connections.spawn(connection);
            let mut inside = None;
            if let Some(pod) = pod {
                nix::sched::setns(pod, nix::sched::CloneFlags::CLONE_NEWNET).context("enter the pod's network")?;
                let (connection, handle, _) = rtnetlink::new_connection().context("open netlink in the pod")?;
                connections.spawn(connection);
                inside = Some(handle);
            }
            work(machine, inside).await
        })
    };
    std::thread::scope(|scope| match scope.spawn(body).join() {
        Ok(result) => result,
        Err(_) => Err(anyhow!("the network thread panicked")),
    })
}

async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(found) => Ok(found),
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code().abs() == MISSING => Ok(None),
        Err(e) => Err(e).with_context(|| format!("look for link {name}")),
    }
}

/// Most bytes of a packet on the link that leads to everywhere else; 1500 if there is none.
async fn default_mtu(handle: &Handle) -> Result<u32> {
    let mut routes = Box::pin(handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute());
    let outward = |route: &RouteMessage| {
        (route.header.destination_prefix_length == 0).then(|| {
            route.attributes.iter().find_map(|one| match one {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        })?
    };
    let mut index = None;
    while let Some(route) = routes.try_next().await.context("list the routes")? {
        index = index.or_else(|| outward(&route));
    }
    let Some(index) = index else { return Ok(1500) };
    let link = handle.link().get().match_index(index).execute().try_next().await.context("look at the default link")?;
    let mtu = link.iter().flat_map(|link| &link.attributes).find_map(|one| match one {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Ok(mtu.unwrap_or(1500))
}

/// The hardware address that belongs to an address: whoever has it next has the same, so that no neighbour table leads to
/// one who is gone. It is locally administered (IEEE 802).
fn hardware_address(address: Ipv4Addr) -> Vec<u8> {
    let [a, b, c, d] = address.octets();
    vec![0x02, 0x6b, a, b, c, d]
}

/// Makes the bridge with the gateway's address, or takes the one that is there. Answers its number and packet size.
pub(crate) async fn bridge(handle: &Handle, name: &str, gateway: Ipv4Addr, prefix: u8) -> Result<(u32, u32)> {
    let mtu = default_mtu(handle).await?;
    // Without an address of its own a bridge changes to that of the lowest port, and every pod's neighbour table is wrong.
    let made = LinkBridge::new(name).address(hardware_address(gateway)).mtu(mtu).up().build();
    unless(handle.link().add(made).execute().await, EXISTS).with_context(|| format!("make bridge {name}"))?;
    let link = find(handle, name).await?.with_context(|| format!("find bridge {name}"))?;
    let index = link.header.index;
    let added = handle.address().add(index, gateway.into(), prefix).execute().await;
    unless(added, EXISTS).with_context(|| format!("give bridge {name} the address {gateway}"))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(up).execute().await.with_context(|| format!("set bridge {name} up"))?;
    Ok((index, mtu))
}

/// Leads packets to a range through a link, as from this address of the machine. Taken away with the link.
pub(crate) async fn lead(handle: &Handle, link: &str, range: (Ipv4Addr, u8), source: Ipv4Addr) -> Result<()> {
    let index = find(handle, link).await?.with_context(|| format!("find link {link}"))?.header.index;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(range.0, range.1)
        .output_interface(index)
        .scope(RouteScope::Link)
        .pref_source(source)
        .build();
    unless(handle.route().add(route).execute().await, EXISTS)
        .with_context(|| format!("lead packets to {}/{} through {link}", range.0, range.1))
}

/// A wire between the bridge and a pod.
pub(crate) struct Wire<'a> {
    pub name: &'a str,
    pub bridge: u32,
    pub mtu: u32,
    pub address: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// Lays a wire and configures the pod's end as `eth0`. One that is there already is laid anew.
pub(crate) async fn attach(machine: &Handle, inside: &Handle, pod: &OwnedFd, wire: &Wire<'_>) -> Result<()> {
    let veth = || {
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name("eth0")
            .address(hardware_address(wire.address))
            .mtu(wire.mtu)
            .setns_by_fd(pod.as_raw_fd())
            .build();
        LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(wire.name)
            .mtu(wire.mtu)
            .controller(wire.bridge)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build()
    };
    match machine.link().add(veth()).execute().await {
        Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code().abs() == EXISTS => {
            delete(machine, wire.name).await?;
            machine.link().add(veth()).execute().await.context("lay the pod's wire")?;
        }
        other => other.context("lay the pod's wire")?,
    }
    // Where the machine filters bridged packets (`br_netfilter`), what a pod sends to a Service and is meant for itself does
    // not leave the bridge, and has to go back by the port on which it came.
    let port = LinkMessageBuilder::<LinkBridgePort>::default()
        .name(wire.name)
        .set_port_kind(InfoPortKind::Bridge)
        .hairpin(true)
        .build();
    machine.link().set_port(port).execute().await.context("let the pod reach itself")?;
    let up = |index| inside.link().set(LinkUnspec::new_with_index(index).up().build());
    loopback(inside).await?;
    let eth0 = find(inside, "eth0").await?.context("find the pod's end of its wire")?.header.index;
    // A pair can only be set up once both ends exist.
    up(eth0).execute().await.context("set the pod's end of its wire up")?;
    inside
        .address()
        // Alone in its network: packets to other pods go by way of the machine as well, where those to Services are sent on
        // to a pod, and where the answers must pass to be recognised.
        .add(eth0, wire.address.into(), 32)
        .execute()
        .await
        .with_context(|| format!("give the pod the address {}", wire.address))?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(wire.gateway, 32)
        .output_interface(eth0)
        .scope(RouteScope::Link)
        .build();
    inside.route().add(route).execute().await.context("set the pod's route to its gateway")?;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(wire.gateway).build();
    inside.route().add(route).execute().await.context("set the pod's default route")
}

/// Sets the loopback link of a namespace up, which is always number one.
pub(crate) async fn loopback(inside: &Handle) -> Result<()> {
    let up = LinkUnspec::new_with_index(1).up().build();
    inside.link().set(up).execute().await.context("set the pod's loopback link up")
}

/// Removes a link; none of that name is success.
pub(crate) async fn delete(handle: &Handle, name: &str) -> Result<()> {
    let message = LinkUnspec::new_with_name(name).build();
    let deleted = handle.link().del_with_message(message).execute().await;
    unless(deleted, MISSING).with_context(|| format!("remove link {name}"))
}
