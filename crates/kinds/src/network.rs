//! Ranges of addresses.

use std::net::IpAddr;

use crate::rules;

/// A range of addresses: all that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    length: u8,
}

impl Network {
    /// Reads `10.96.0.0/16`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = rules::network(text)?;
        Some(Self { first: rules::masked(address, length), length })
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && rules::masked(address, self.length) == self.first
    }

    /// Whether all of another lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.first)
    }

    /// The first and the last address that can be given to somebody, as numbers: without that of the network itself and
    /// that of all of it. None of version 6, and none of a network that is too small.
    pub fn hosts(&self) -> Option<(u32, u32)> {
        let IpAddr::V4(first) = self.first else { return None };
        let size = u32::MAX.checked_shr(u32::from(self.length)).unwrap_or(0);
        let first = u32::from(first);
        (size > 1).then(|| (first + 1, first + size - 1))
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.first, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).expect("a network")
    }

    #[test]
    fn a_network_holds_the_addresses_that_begin_like_it() {
        let outer = network("10.96.0.0/16");
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(outer.contains(address("10.96.255.1")) && !outer.contains(address("10.97.0.1")));
        assert!(!outer.contains(address("fd00::1")) && network("fd00::/64").contains(address("fd00::1")));
        assert!(outer.covers(&network("10.96.3.0/24")) && outer.covers(&outer));
        assert!(!network("10.96.3.0/24").covers(&outer));
        assert_eq!(network("10.96.0.7/16").to_string(), "10.96.0.0/16");
    }

    #[test]
    fn the_ends_of_a_network_are_nobodys() {
        let hosts = |text: &str| network(text).hosts().map(|(a, b)| (a & 0xff, b & 0xff));
        assert_eq!(hosts("10.0.0.0/30"), Some((1, 2)));
        assert_eq!(hosts("10.0.0.0/24"), Some((1, 254)));
        assert_eq!([hosts("10.0.0.0/31"), hosts("10.0.0.0/32"), hosts("fd00::/64")], [None, None, None]);
    }
}
