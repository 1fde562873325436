//! Which address belongs to which pod: one small file for each, so that a crash never gives an address twice.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

/// A range of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Lowest address of the range.
    pub base: Ipv4Addr,
    /// Length of the fixed part, in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Reads `10.42.0.0/24`. The range must hold at least two hosts beside the gateway.
    pub fn parse(text: &str) -> Result<Self> {
        let (base, prefix) = text.split_once('/').with_context(|| format!("read CIDR {text:?}: no slash"))?;
        let base: Ipv4Addr = base.parse().with_context(|| format!("read CIDR {text:?}"))?;
        let prefix: u8 = prefix.parse().with_context(|| format!("read CIDR {text:?}"))?;
        if !(8..=29).contains(&prefix) {
            bail!("read CIDR {text:?}: the prefix must be between 8 and 29");
        }
        Ok(Self { base: Ipv4Addr::from(u32::from(base) & (u32::MAX << (32 - prefix))), prefix })
    }

    /// The first address, which is the node's own on the bridge.
    pub fn gateway(&self) -> Ipv4Addr {
        self.host(1)
    }

    fn host(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + number)
    }

    /// Numbers that pods may have: all but the network, the gateway and the broadcast address.
    fn pods(&self) -> std::ops::Range<u32> {
        2..(1 << (32 - self.prefix)) - 1
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

/// The addresses that are given out.
#[derive(Debug)]
pub(crate) struct Addresses {
    dir: PathBuf,
    cidr: Cidr,
    by_owner: BTreeMap<String, Ipv4Addr>,
    /// Where to look next: an address that was just freed is still in somebody's cache.
    next: u32,
}

impl Addresses {
    pub fn open(dir: &Path, cidr: Cidr) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        let mut by_owner = BTreeMap::new();
        for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
            let entry = entry.context("list the addresses")?;
            let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let owner = fs::read_to_string(entry.path()).context("read who has an address")?;
            if owner.is_empty() {
                // The crash was between making the file and naming the owner: nobody has used it.
                fs::remove_file(entry.path()).context("free an address")?;
            } else {
                by_owner.insert(owner, address);
            }
        }
        Ok(Self { dir: dir.to_owned(), cidr, by_owner, next: cidr.pods().start })
    }

    pub fn of(&self, owner: &str) -> Option<Ipv4Addr> {
        self.by_owner.get(owner).copied()
    }

    pub fn owners(&self) -> Vec<String> {
        self.by_owner.keys().cloned().collect()
    }

    /// The owner's address, the same each time.
    pub fn give(&mut self, owner: &str) -> Result<Ipv4Addr> {
        if let Some(address) = self.of(owner) {
            return Ok(address);
        }
        let numbers = self.cidr.pods();
        for number in (self.next..numbers.end).chain(numbers.start..self.next) {
            let address = self.cidr.host(number);
            match fs::OpenOptions::new().write(true).create_new(true).open(self.dir.join(address.to_string())) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).context("take an address"),
                Ok(mut file) => file.write_all(owner.as_bytes()).context("take an address")?,
            }
            self.next = if number + 1 < numbers.end { number + 1 } else { numbers.start };
            self.by_owner.insert(owner.to_owned(), address);
            return Ok(address);
        }
        bail!("give a pod an address: all {} of {} are taken", numbers.len(), self.cidr)
    }

    pub fn free(&mut self, owner: &str) -> Result<()> {
        let Some(address) = self.of(owner) else {
            return Ok(());
        };
        match fs::remove_file(self.dir.join(address.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(e).context("free an address");
            }
            _ => {}
        }
        self.by_owner.remove(owner);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_remembered_over_a_restart_and_never_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let cidr = Cidr::parse("10.1.2.9/29").unwrap();
        assert_eq!((cidr.to_string(), cidr.gateway().to_string()), ("10.1.2.8/29".into(), "10.1.2.9".into()));
        let mut addresses = Addresses::open(dir.path(), cidr).unwrap();
        let a = addresses.give("a").unwrap();
        assert_eq!(addresses.give("a").unwrap(), a);
        let mut addresses = Addresses::open(dir.path(), cidr).unwrap();
        assert_eq!(addresses.of("a"), Some(a));
        let others: Vec<_> = ["b", "c", "d", "e"].iter().map(|o| addresses.give(o).unwrap().to_string()).collect();
        assert_eq!(others, ["10.1.2.11", "10.1.2.12", "10.1.2.13", "10.1.2.14"]);
        assert_eq!(
            addresses.give("f").unwrap_err().to_string(),
            "give a pod an address: all 5 of 10.1.2.8/29 are taken"
        );
        addresses.free("c").unwrap();
        assert_eq!(addresses.give("f").unwrap().to_string(), "10.1.2.12");
    }
}
