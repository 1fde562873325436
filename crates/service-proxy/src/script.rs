//! Rules → the text for `nft`: the whole table, or what turns one ruleset into another. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::Config;
use crate::plan::Ruleset;

/// Clients that one set remembers at most (the kernel's default for sets that packets fill).
const STICKY_MAX: u32 = 65_535;

/// The whole table, in the place of whatever has its name.
pub(crate) fn whole(rules: &Ruleset, config: &Config) -> String {
    let table = &config.table;
    let mut text = format!("add table ip {table}\ndelete table ip {table}\n");
    text += &frame(config);
    text += &change(&Ruleset::default(), rules, config);
    text
}

/// What stays the same: the places where the kernel asks, and the maps that lead on from there.
fn frame(config: &Config) -> String {
    let Config { table, bridge, pod_range, service_range, .. } = config;
    format!(
        "table ip {table} {{
  map services {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  map node-ports {{
    type inet_proto . inet_service : verdict
  }}
  map refused {{
    type ipv4_addr . inet_proto . inet_service : verdict
  }}
  map refused-node-ports {{
    type inet_proto . inet_service : verdict
  }}
  set hairpins {{
    type ipv4_addr . ipv4_addr
  }}
  chain refuse {{
    meta l4proto tcp reject with tcp reset
    reject with icmp port-unreachable
  }}
  chain dispatch {{
    ip daddr . meta l4proto . th dport vmap @services
    fib daddr type local meta l4proto . th dport vmap @node-ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump dispatch
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    jump dispatch
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr . ip daddr @hairpins masquerade
    ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade
    ip saddr {pod_range} ip daddr != {pod_range} oifname != \"{bridge}\" masquerade
    meta mark & 0x4000 == 0x4000 ip daddr != {pod_range} oifname != \"lo\" masquerade
  }}
  chain nobody {{
    ct state != new return
    ip daddr . meta l4proto . th dport vmap @refused
    fib daddr type local meta l4proto . th dport vmap @refused-node-ports
  }}
  chain filter-input {{
    type filter hook input priority filter; policy accept;
    jump nobody
  }}
  chain filter-forward {{
    type filter hook forward priority filter; policy accept;
    jump nobody
    ip daddr {service_range} ct state new goto refuse
  }}
  chain filter-output {{
    type filter hook output priority filter; policy accept;
    icmp type redirect oifname \"{bridge}\" drop
    jump nobody
    ip daddr {service_range} ct state new goto refuse
  }}
  chain loopback-guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname \"{bridge}\" ip daddr 127.0.0.0/8 drop
  }}
}}
"
    )
}

/// What turns `old` into `new`, as one transaction. Empty if nothing does.
pub(crate) fn change(old: &Ruleset, new: &Ruleset, config: &Config) -> String {
    let table = &config.table;
    let mut text = String::new();
    let mut line = |words: std::fmt::Arguments<'_>| writeln!(text, "{words}").expect("text takes all");
    for (name, seconds) in new.sticky.iter().filter(|(name, _)| !old.sticky.contains_key(*name)) {
        let body = format!("type ipv4_addr; size {STICKY_MAX}; flags dynamic,timeout; timeout {seconds}s;");
        line(format_args!("add set ip {table} {name} {{ {body} }}"));
    }
    for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
        line(format_args!("add chain ip {table} {name}"));
    }
    for (name, rules) in &new.chains {
        let before = old.chains.get(name);
        if before == Some(rules) {
            continue;
        }
        if before.is_some() {
            line(format_args!("flush chain ip {table} {name}"));
        }
        for rule in rules {
            line(format_args!("add rule ip {table} {name} {rule}"));
        }
    }
    for (map, before, after) in [
        ("services", &old.services, &new.services),
        ("node-ports", &old.node_ports, &new.node_ports),
        ("refused", &old.refused, &new.refused),
        ("refused-node-ports", &old.refused_node_ports, &new.refused_node_ports),
    ] {
        elements(&mut line, table, map, before, after);
    }
    let pairs = |set: &std::collections::BTreeSet<String>, other: &std::collections::BTreeSet<String>| {
        set.difference(other).cloned().collect::<Vec<_>>().join(", ")
    };
    for (verb, list) in [("delete", pairs(&old.hairpins, &new.hairpins)), ("add", pairs(&new.hairpins, &old.hairpins))]
    {
        if !list.is_empty() {
            line(format_args!("{verb} element ip {table} hairpins {{ {list} }}"));
        }
    }
    let gone: Vec<&String> = old.chains.keys().filter(|name| !new.chains.contains_key(*name)).collect();
    for name in &gone {
        line(format_args!("flush chain ip {table} {name}"));
    }
    for name in &gone {
        line(format_args!("delete chain ip {table} {name}"));
    }
    for name in old.sticky.keys().filter(|name| !new.sticky.contains_key(*name)) {
        line(format_args!("delete set ip {table} {name}"));
    }
    text
}

fn elements(
    line: &mut impl FnMut(std::fmt::Arguments<'_>),
    table: &str,
    map: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) {
    let differing = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>| -> Vec<String> {
        let entries = a.iter().filter(|(key, value)| b.get(*key) != Some(value));
        entries.map(|(key, value)| format!("{key} : {value}")).collect()
    };
    for (verb, list) in [("delete", differing(old, new)), ("add", differing(new, old))] {
        if !list.is_empty() {
            line(format_args!("{verb} element ip {table} {map} {{ {} }}", list.join(", ")));
        }
    }
}
