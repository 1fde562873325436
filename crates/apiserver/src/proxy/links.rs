//! Links of proxied answers, which must lead through the proxy again.

/// What is known of the links of one answer.
#[derive(Debug, Clone)]
pub struct Links {
    /// Path of the proxy, to its subresource.
    pub prefix: String,
    /// `host:port` of who answered.
    pub backend: String,
    /// The host that the client asked.
    pub host: String,
}

impl Links {
    /// A link as the client must follow it: relative ones and those to others stay.
    pub fn rewritten(&self, link: &str) -> String {
        let (scheme, rest) = match link.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) => {
                (Some(scheme), rest)
            }
            _ => match link.strip_prefix("//") {
                Some(rest) => (Some(""), rest),
                None => (None, link),
            },
        };
        let end = |text: &str, marks: &[char]| text.find(marks).unwrap_or(text.len());
        let (host, rest) = match scheme {
            Some(_) => rest.split_at(end(rest, &['/', '?', '#'])),
            None => ("", rest),
        };
        let (path, more) = rest.split_at(end(rest, &['?', '#']));
        let other = !host.is_empty() && host != self.backend && host != self.host;
        if other || !path.starts_with('/') {
            return link.to_owned();
        }
        // A link to the host that the client asked keeps it; who answered cannot be reached by the client.
        let start = match scheme {
            Some("") if host == self.host => format!("//{host}"),
            Some(scheme) if host == self.host => format!("{scheme}://{host}"),
            _ => String::new(),
        };
        let prefix = &self.prefix;
        if path.starts_with(prefix.as_str()) {
            return format!("{start}{path}{more}");
        }
        let mut cleaned: Vec<&str> = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => _ = cleaned.pop(),
                segment => cleaned.push(segment),
            }
        }
        let mut path = format!("{prefix}/{}", cleaned.join("/"));
        if link.split(['?', '#']).next().is_some_and(|path| path.ends_with('/')) && !path.ends_with('/') {
            path.push('/');
        }
        format!("{start}{path}{more}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_backend_lead_through_the_proxy() {
        let links =
            Links { prefix: "/p/proxy".to_owned(), backend: "10.0.0.1:80".to_owned(), host: "api:6443".to_owned() };
        for (link, wanted) in [
            ("/a/b?c=/d#e", "/p/proxy/a/b?c=/d#e"),
            ("/a/", "/p/proxy/a/"),
            ("/", "/p/proxy/"),
            ("/a/../../b//c", "/p/proxy/b/c"),
            ("http://10.0.0.1:80/a", "/p/proxy/a"),
            ("//10.0.0.1:80/a", "/p/proxy/a"),
            ("https://api:6443/a", "https://api:6443/p/proxy/a"),
            ("https://api:6443/p/proxy/a", "https://api:6443/p/proxy/a"),
            ("/p/proxy/a", "/p/proxy/a"),
            ("https://elsewhere/a", "https://elsewhere/a"),
            ("a/b", "a/b"),
            ("?q", "?q"),
            ("#f", "#f"),
            ("mailto:a@b", "mailto:a@b"),
            ("http://10.0.0.1:80", "http://10.0.0.1:80"),
        ] {
            assert_eq!(links.rewritten(link), wanted, "{link}");
        }
    }
}
