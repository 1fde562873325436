//! The kernel's memory of flows: UDP flows to an endpoint that is gone are wiped, as they would be sent there for as long
//! as the client goes on. (TCP connections to it end by themselves.)
//!
//! Messages after the kernel's `nfnetlink_conntrack.h`.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendmsg, socket,
};

/// `NFNL_SUBSYS_CTNETLINK << 8` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_DUMP`.
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`; inside `CTA_TUPLE_IP` → `CTA_IP_V4_SRC`, `CTA_TUPLE_PROTO` → `CTA_PROTO_NUM`,
/// `CTA_PROTO_SRC_PORT`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const IP_SOURCE: u16 = 1;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SOURCE: u16 = 2;
const UDP: u8 = 17;
/// `ENOENT`: the flow has ended meanwhile.
const NOT_FOUND: i32 = -2;

/// Wipes the UDP flows whose answers come from one of these endpoints.
pub(crate) fn forget(endpoints: &[(Ipv4Addr, u16)]) -> Result<()> {
    let wanted: BTreeSet<_> = endpoints.iter().copied().collect();
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket =
        socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter).context("open netlink")?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).context("bind netlink")?;
    send(&socket, GET, REQUEST | DUMP, &[])?;
    let mut flows = Vec::new();
    receive(&socket, |kind, body| {
        if kind == GET & 0xff00 && is_towards(body, &wanted) {
            flows.extend(attribute(body.get(4..).unwrap_or_default(), ORIGINAL).map(<[u8]>::to_vec));
        }
    })?;
    for flow in flows {
        let mut tuple = Vec::with_capacity(flow.len() + 4);
        let length = u16::try_from(flow.len() + 4).context("read a flow")?;
        tuple.extend(length.to_ne_bytes());
        // `NLA_F_NESTED`
        tuple.extend((ORIGINAL | 0x8000).to_ne_bytes());
        tuple.extend(flow);
        send(&socket, DELETE, REQUEST | ACK, &tuple)?;
        receive(&socket, |_, _| {})?;
    }
    Ok(())
}

/// Sends one message: `nlmsghdr`, `nfgenmsg` for IPv4, attributes.
fn send(socket: &OwnedFd, kind: u16, flags: u16, attributes: &[u8]) -> Result<()> {
    let mut message = Vec::with_capacity(20 + attributes.len());
    message.extend(u32::try_from(20 + attributes.len()).context("write netlink")?.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    // Family AF_INET, version 0, resource 0.
    message.extend([2, 0, 0, 0]);
    message.extend(attributes);
    let to = NetlinkAddr::new(0, 0);
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(&message)], &[], MsgFlags::empty(), Some(&to))
        .context("write netlink")?;
    Ok(())
}

/// Reads messages to the end of an answer.
fn receive(socket: &OwnedFd, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).context("read netlink")?;
        let mut rest = &buffer[..length];
        while let (Some(size), Some(kind)) = (number32(rest, 0), number16(rest, 4)) {
            let size = usize::try_from(size).unwrap_or(0);
            let Some(body) = rest.get(16..size) else { break };
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    return match number32(body, 0).map(u32::cast_signed) {
                        Some(0 | NOT_FOUND) => Ok(()),
                        code => {
                            bail!("the kernel says {:?}", code.map(|code| std::io::Error::from_raw_os_error(-code)))
                        }
                    };
                }
                kind => each(kind, body),
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The content of an attribute.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (size, kind) = (usize::from(number16(rest, 0)?), number16(rest, 2)? & 0x3fff);
        if kind == wanted {
            return rest.get(4..size);
        }
        rest = rest.get(size.max(4).next_multiple_of(4)..)?;
    }
}

/// Whether a flow is UDP and its answers come from one of these endpoints. `body` starts with `nfgenmsg`.
fn is_towards(body: &[u8], wanted: &BTreeSet<(Ipv4Addr, u16)>) -> bool {
    let source = || {
        let reply = attribute(body.get(4..)?, REPLY)?;
        let address: [u8; 4] = attribute(attribute(reply, TUPLE_IP)?, IP_SOURCE)?.try_into().ok()?;
        let protocol = attribute(reply, TUPLE_PROTOCOL)?;
        let port: [u8; 2] = attribute(protocol, PROTOCOL_SOURCE)?.try_into().ok()?;
        (*attribute(protocol, PROTOCOL_NUMBER)?.first()? == UDP)
            .then(|| (Ipv4Addr::from(address), u16::from_be_bytes(port)))
    };
    source().is_some_and(|endpoint| wanted.contains(&endpoint))
}
