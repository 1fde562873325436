//! Users and groups by the container's own `/etc/passwd` and `/etc/group`.

use anyhow::{Context as _, Result, bail};

use crate::spec::{Identity, User};

/// A resolved user: its numbers, and its home directory if the container knows one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub identity: Identity,
    pub home: Option<String>,
}

/// Resolves `user` by the texts of the two files. A number need not be listed; a name must be.
pub(crate) fn resolve(user: &User, passwd: &str, group: &str) -> Result<Resolved> {
    let (who, explicit_group) = match user.user.split_once(':') {
        Some((who, group)) => (who, Some(group)),
        None => (user.user.as_str(), None),
    };
    let who = if who.is_empty() { "0" } else { who };
    let number: Option<u32> = who.parse().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() >= 4 && (fields[0] == who || number.is_some() && fields[2].parse().ok() == number));
    let (uid, primary, name, home) = match (&entry, number) {
        (Some(fields), _) => (
            fields[2].parse().with_context(|| format!("read the number of user {who}"))?,
            fields[3].parse().with_context(|| format!("read the group of user {who}"))?,
            Some(fields[0]),
            fields.get(5).filter(|home| !home.is_empty()).map(|home| (*home).to_owned()),
        ),
        (None, Some(number)) => (number, 0, None, None),
        (None, None) => bail!("unable to find user {who}: no matching entries in passwd file"),
    };
    let groups = || {
        group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
            Some((name, id, fields.next().unwrap_or("")))
        })
    };
    let gid = match (user.group, explicit_group.filter(|group| !group.is_empty())) {
        (Some(gid), _) => gid,
        (None, None) => primary,
        (None, Some(wanted)) => match wanted.parse() {
            Ok(gid) => gid,
            Err(_) => match groups().find(|(name, ..)| *name == wanted) {
                Some((_, gid, _)) => gid,
                None => bail!("unable to find group {wanted}: no matching entries in group file"),
            },
        },
    };
    let mut supplementary = Vec::new();
    if !user.strict_groups
        && explicit_group.is_none()
        && let Some(name) = name
    {
        let member = |members: &str| members.split(',').any(|member| member == name);
        supplementary.extend(groups().filter(|(_, _, members)| member(members)).map(|(_, gid, _)| gid));
    }
    supplementary.extend(&user.additional_groups);
    supplementary.sort_unstable();
    supplementary.dedup();
    Ok(Resolved { identity: Identity { uid, gid, groups: supplementary }, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:44:\nlog:x:4:web,other\n";

    fn of(user: &str) -> Result<(u32, u32, Vec<u32>)> {
        let user = User { user: user.into(), additional_groups: vec![7], ..User::default() };
        resolve(&user, PASSWD, GROUP).map(|r| (r.identity.uid, r.identity.gid, r.identity.groups))
    }

    #[test]
    fn names_and_numbers_are_resolved_in_the_container() {
        assert_eq!(of("").unwrap(), (0, 0, vec![7]));
        assert_eq!(of("web").unwrap(), (33, 44, vec![4, 7]));
        assert_eq!(of("33").unwrap(), (33, 44, vec![4, 7]));
        assert_eq!(of("1000").unwrap(), (1000, 0, vec![7]));
        assert_eq!(of("1000:log").unwrap(), (1000, 4, vec![7]));
        assert_eq!(of("x").unwrap_err().to_string(), "unable to find user x: no matching entries in passwd file");
    }
}
