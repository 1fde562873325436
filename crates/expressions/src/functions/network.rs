//! IP addresses and ranges of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Function, Outcome, no_such_overload, only_text, text};
use crate::error::EvalError;
use crate::value::Value;

/// An address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address, with all its bits.
    pub(crate) address: IpAddr,
    /// How many of them count.
    pub(crate) prefix: u8,
}

/// A question to an address.
macro_rules! question {
    ($name:literal, $id:literal, $v4:expr, $v6:expr) => {
        Function {
            name: $name,
            run: |args| match args {
                [Value::Ip(IpAddr::V4(ip))] => Ok(Value::Bool($v4(ip))),
                [Value::Ip(IpAddr::V6(ip))] => Ok(Value::Bool($v6(ip))),
                _ => no_such_overload(),
            },
            overloads: &[($id, "ip.() -> bool")],
        }
    };
}

pub(crate) const FUNCTIONS: &[Function] = &[
    Function {
        name: "ip",
        run: |args| match args {
            [Value::Cidr(cidr)] => Ok(Value::Ip(cidr.address)),
            _ => parse_ip(only_text(args)?).map(Value::Ip),
        },
        overloads: &[("string_to_ip", "(string) -> ip"), ("cidr_ip", "cidr.() -> ip")],
    },
    Function {
        name: "isIP",
        run: |args| Ok(Value::Bool(parse_ip(only_text(args)?).is_ok())),
        overloads: &[("is_ip", "(string) -> bool")],
    },
    Function {
        name: "ip.isCanonical",
        run: |args| {
            let text = only_text(args)?;
            Ok(Value::Bool(parse_ip(text)?.to_string() == text))
        },
        overloads: &[("ip_is_canonical", "(string) -> bool")],
    },
    Function {
        name: "family",
        run: |args| match args {
            [Value::Ip(ip)] => Ok(Value::Int(if ip.is_ipv4() { 4 } else { 6 })),
            _ => no_such_overload(),
        },
        overloads: &[("family", "ip.() -> int")],
    },
    question!("isUnspecified", "is_unspecified", Ipv4Addr::is_unspecified, Ipv6Addr::is_unspecified),
    question!("isLoopback", "is_loopback", Ipv4Addr::is_loopback, Ipv6Addr::is_loopback),
    question!(
        "isLinkLocalMulticast",
        "is_link_local_multicast",
        |ip: &Ipv4Addr| ip.octets()[..3] == [224, 0, 0],
        |ip: &Ipv6Addr| ip.segments()[0] & 0xff0f == 0xff02
    ),
    question!("isLinkLocalUnicast", "is_link_local_unicast", Ipv4Addr::is_link_local, |ip: &Ipv6Addr| ip.segments()[0]
        & 0xffc0
        == 0xfe80),
    question!(
        "isGlobalUnicast",
        "is_global_unicast",
        |ip: &Ipv4Addr| !(ip.is_broadcast()
            || ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.is_link_local()),
        |ip: &Ipv6Addr| !(ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.segments()[0] & 0xffc0 == 0xfe80)
    ),
    Function {
        name: "cidr",
        run: |args| parse_cidr(only_text(args)?).map(Value::Cidr),
        overloads: &[("string_to_cidr", "(string) -> cidr")],
    },
    Function {
        name: "isCIDR",
        run: |args| Ok(Value::Bool(parse_cidr(only_text(args)?).is_ok())),
        overloads: &[("is_cidr", "(string) -> bool")],
    },
    Function {
        name: "containsIP",
        run: contains_ip,
        overloads: &[
            ("cidr_contains_ip_string", "cidr.(string) -> bool"),
            ("cidr_contains_ip_ip", "cidr.(ip) -> bool"),
        ],
    },
    Function {
        name: "containsCIDR",
        run: contains_cidr,
        overloads: &[
            ("cidr_contains_cidr_string", "cidr.(string) -> bool"),
            ("cidr_contains_cidr", "cidr.(cidr) -> bool"),
        ],
    },
    Function {
        name: "masked",
        run: |args| match args {
            [Value::Cidr(cidr)] => {
                Ok(Value::Cidr(Cidr { address: masked(cidr.address, cidr.prefix), prefix: cidr.prefix }))
            }
            _ => no_such_overload(),
        },
        overloads: &[("masked", "cidr.() -> cidr")],
    },
    Function {
        name: "prefixLength",
        run: |args| match args {
            [Value::Cidr(cidr)] => Ok(Value::Int(i64::from(cidr.prefix))),
            _ => no_such_overload(),
        },
        overloads: &[("prefix_length", "cidr.() -> int")],
    },
];

fn parse_ip(text: &str) -> Result<IpAddr, EvalError> {
    let invalid =
        |why: &str| EvalError::new(format!("IP Address {text:?} parse error during conversion from string: {why}"));
    match text.parse() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        Ok(ip) => Ok(ip),
        Err(_) if text.contains('%') => {
            Err(EvalError::new(format!("IP address {text:?} with zone value is not allowed")))
        }
        Err(_) => Err(invalid("unable to parse IP")),
    }
}

fn parse_cidr(text: &str) -> Result<Cidr, EvalError> {
    let invalid = || EvalError::new(format!("network address parse error during conversion from string: {text:?}"));
    let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
    let address: IpAddr = address.parse().map_err(|_| invalid())?;
    if let IpAddr::V6(ip) = address
        && ip.to_ipv4_mapped().is_some()
    {
        return Err(EvalError::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")));
    }
    let leading_zero = prefix.len() > 1 && prefix.starts_with('0');
    if leading_zero || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if prefix > most { Err(invalid()) } else { Ok(Cidr { address, prefix }) }
}

/// The address with all bits behind the prefix cleared.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    }
}

fn holds(cidr: &Cidr, ip: IpAddr) -> bool {
    cidr.address.is_ipv4() == ip.is_ipv4() && masked(cidr.address, cidr.prefix) == masked(ip, cidr.prefix)
}

fn contains_ip<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    match args {
        [Value::Cidr(cidr), Value::Ip(ip)] => Ok(Value::Bool(holds(cidr, *ip))),
        [Value::Cidr(cidr), other] => Ok(Value::Bool(holds(cidr, parse_ip(text(other)?)?))),
        _ => no_such_overload(),
    }
}

fn contains_cidr<'a>(args: &[Value<'a>]) -> Outcome<'a> {
    let (cidr, other) = match args {
        [Value::Cidr(cidr), Value::Cidr(other)] => (cidr, *other),
        [Value::Cidr(cidr), other] => (cidr, parse_cidr(text(other)?)?),
        _ => return no_such_overload(),
    };
    Ok(Value::Bool(holds(cidr, other.address) && cidr.prefix <= other.prefix))
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}
