//! Wires a pod: bridge, veth, addresses, host ports.
//!
//! Every pod gets a veth pair: one end on the node's bridge, the other as `eth0` in its network namespace, with an
//! address of the node's range. Calls block for a few milliseconds, may be repeated after a crash, and make the same
//! thing each time.

mod addresses;
mod links;

use std::{
    fs,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};

use addresses::Addresses;
pub use addresses::Cidr;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// The network of one node's pods.
#[derive(Debug)]
pub struct Network {
    dir: PathBuf,
    bridge: String,
    cidr: Cidr,
    index: u32,
    mtu: u32,
    addresses: Mutex<Addresses>,
}

impl Network {
    /// Makes the bridge (or takes the one that is there), lets packets be forwarded, and remembers in `dir` who has
    /// which address and how the machine was before.
    pub fn open(dir: &Path, bridge: &str, cidr: Cidr) -> Result<Self> {
        let addresses = Addresses::open(&dir.join("addresses"), cidr)?;
        let before = dir.join("ip_forward.before");
        let forwarding = fs::read_to_string(IP_FORWARD).context("read ip_forward")?;
        if !before.exists() {
            fs::write(&before, forwarding.trim()).context("remember ip_forward")?;
        }
        if forwarding.trim() != "1" {
            fs::write(IP_FORWARD, "1").context("let packets be forwarded between pods")?;
        }
        let (index, mtu) = links::with_netlink(None, async |handle, _| {
            links::bridge(&handle, bridge, cidr.gateway(), cidr.prefix).await
        })?;
        tracing::debug!(bridge, %cidr, mtu, "pod network is ready");
        let addresses = Mutex::new(addresses);
        Ok(Self { dir: dir.to_owned(), bridge: bridge.to_owned(), cidr, index, mtu, addresses })
    }

    /// The range of the pods' addresses.
    pub fn cidr(&self) -> Cidr {
        self.cidr
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, Addresses> {
        // A panic between two steps leaves files and map in agreement about every owner that was answered.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects the network namespace of the pod `id` and answers its address.
    pub fn attach(&self, id: &str, namespace: &OwnedFd) -> Result<Ipv4Addr> {
        let address = self.addresses().give(id)?;
        let name = link_name(id);
        let wire =
            links::Wire { name: &name, bridge: self.index, mtu: self.mtu, address, gateway: self.cidr.gateway() };
        links::with_netlink(Some(namespace), async |machine, inside| {
            let inside = inside.context("open netlink in the pod")?;
            links::attach(&machine, &inside, namespace, &wire).await
        })
        .with_context(|| format!("connect pod {id}"))?;
        Ok(address)
    }

    /// Leaves a network namespace alone with its loopback link.
    pub fn attach_to_nothing(&self, namespace: &OwnedFd) -> Result<()> {
        links::with_netlink(Some(namespace), async |_, inside| {
            links::loopback(&inside.context("open netlink in the pod")?).await
        })
    }

    /// The node's own address on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.cidr.gateway()
    }

    /// The address of a pod that is connected.
    pub fn address(&self, id: &str) -> Option<Ipv4Addr> {
        self.addresses().of(id)
    }

    /// Every pod that has an address.
    pub fn pods(&self) -> Vec<String> {
        self.addresses().owners()
    }

    /// Disconnects a pod and frees its address. A pod that is not connected is success.
    pub fn detach(&self, id: &str) -> Result<()> {
        let name = link_name(id);
        links::with_netlink(None, async |handle, _| links::delete(&handle, &name).await)
            .with_context(|| format!("disconnect pod {id}"))?;
        self.addresses().free(id)
    }

    /// Removes the bridge and every wire, and sets the machine back to how it was. Goes on when a step fails and
    /// answers what went wrong.
    pub fn remove_everything(&self) -> Vec<anyhow::Error> {
        let mut problems = Vec::new();
        for pod in self.pods() {
            problems.extend(self.detach(&pod).err());
        }
        let bridge = &self.bridge;
        problems.extend(links::with_netlink(None, async |handle, _| links::delete(&handle, bridge).await).err());
        if let Ok(before) = fs::read_to_string(self.dir.join("ip_forward.before")) {
            problems.extend(fs::write(IP_FORWARD, before).context("set ip_forward back").err());
        }
        problems.extend(fs::remove_dir_all(&self.dir).context("remove the network's state").err());
        problems
    }
}

/// Leads packets from the machine to a range through the bridge, as from `source`: to addresses that no link has, because
/// rules send them on to a pod.
///
/// # Errors
/// When there is no such bridge, or the kernel refuses.
pub fn lead_through(bridge: &str, network: Ipv4Addr, prefix: u8, source: Ipv4Addr) -> Result<()> {
    links::with_netlink(None, async |handle, _| links::lead(&handle, bridge, (network, prefix), source).await)?;
    // What a program of the machine sends to a port of 127.0.0.1 may be meant for a pod, too.
    let path = format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet");
    fs::write(&path, "1").with_context(|| format!("write {path}"))
}

/// Name of the machine's end of a pod's wire. Names of links have at most 15 bytes.
fn link_name(id: &str) -> String {
    format!("veth{}", id.chars().take(11).collect::<String>())
}
