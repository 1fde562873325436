//! Names: those that containers get without being asked, what a name may be, and the short forms of images' names.

use image_store::Name;

/// Left and right half of a name that nobody chose.
const LEFT: [&str; 32] = [
    "amber", "ancient", "bold", "brave", "bright", "calm", "clever", "cosy", "daring", "eager", "fair", "fleet",
    "gentle", "golden", "happy", "hardy", "jolly", "keen", "kind", "lively", "lucky", "mellow", "nimble", "patient",
    "quiet", "ready", "silver", "steady", "sunny", "swift", "warm", "wise",
];
const RIGHT: [&str; 32] = [
    "anchor", "beacon", "bow", "breeze", "cog", "compass", "cove", "current", "deck", "dory", "fjord", "galley",
    "gull", "harbour", "helm", "hull", "island", "jetty", "keel", "knot", "lantern", "mast", "oar", "pilot", "quay",
    "reef", "rudder", "sail", "sloop", "stern", "tide", "wharf",
];

/// A name for a container whose caller gave none.
pub(crate) fn random() -> String {
    let pick = |list: &[&'static str; 32]| list[rand::random_range(0..list.len())];
    format!("{}_{}", pick(&LEFT), pick(&RIGHT))
}

/// Docker's rule for names of containers, volumes and networks.
pub(crate) fn is_valid(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = name.len() > 1 && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    first && rest
}

/// 64 random hexadecimal digits.
pub(crate) fn new_id() -> String {
    format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

/// `docker.io/library/nginx:1` as people write it: `nginx:1`.
pub(crate) fn familiar(full: &str) -> String {
    match full.strip_prefix("docker.io/") {
        Some(rest) => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
        None => full.to_owned(),
    }
}

/// A name with its tag, in the familiar form; what is no name stays as it is.
pub(crate) fn with_tag(name: &str) -> String {
    Name::parse(name).map_or_else(|_| name.to_owned(), |name| familiar(&name.full()))
}

/// The part of a digest that people see.
pub(crate) fn short(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// Whether `text` fits a pattern of shell wildcards, `*` and `?`, where `*` stops at a slash.
pub(crate) fn matches_pattern(pattern: &str, text: &str) -> bool {
    fn fits(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                fits(rest, text) || text.split_first().is_some_and(|(c, after)| *c != b'/' && fits(pattern, after))
            }
            (Some((b'?', rest)), Some((c, after))) => *c != b'/' && fits(rest, after),
            (Some((p, rest)), Some((c, after))) => p == c && fits(rest, after),
            _ => false,
        }
    }
    fits(pattern.as_bytes(), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_containers_begin_with_a_letter_or_digit_and_have_two_characters() {
        assert!(["web", "a.b-c_d", "0a"].into_iter().all(is_valid));
        assert!(!["", "a", "_web", "a b", "a/b", "ü1"].into_iter().any(is_valid));
        assert!(is_valid(&random()));
    }

    #[test]
    fn images_have_short_names() {
        let short = ["docker.io/library/nginx:1", "docker.io/a/b:t", "ghcr.io/a:1"].map(familiar);
        assert_eq!(short, ["nginx:1", "a/b:t", "ghcr.io/a:1"]);
        assert_eq!(with_tag("nginx"), "nginx:latest");
        assert!(matches_pattern("busy*", "busybox") && !matches_pattern("a*", "a/b") && matches_pattern("a/*", "a/b"));
    }
}
