//! Under which names the broker is asked for over HTTP, against DNS rebinding: a page of `evil.example` may have that
//! name point at this machine, and its browser then takes the broker for the page's own server. The request says which
//! name was meant.
//!
//! An address is no name that anybody could have pointed elsewhere, and `localhost` is always this machine. Over TLS the
//! certificate says which name is right, and no browser comes over a Unix socket: neither is asked.

use crate::core::access::Peer;

/// The names that are right.
#[derive(Clone, Debug, Default)]
pub struct HostPolicy {
    any: bool,
    exact: Vec<String>,
    /// Names of which the first label may be anything, without it.
    below: Vec<String>,
}

impl HostPolicy {
    /// These names; `*.example.com` for one label before the rest, `*` for any name at all. Gives back what is none.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<HostPolicy, &'a str> {
        let mut policy = HostPolicy::default();
        for name in names {
            if name == "*" {
                policy.any = true;
            } else if let Some(below) = name.strip_prefix("*.") {
                policy.below.push(normal(below).filter(|below| below.contains('.')).ok_or(name)?);
            } else {
                policy.exact.push(normal(name).ok_or(name)?);
            }
        }
        Ok(policy)
    }

    /// Whether the name that somebody asked for is right. `host` is that of the request, with its port or without.
    pub fn allows(&self, peer: &Peer, host: Option<&str>) -> bool {
        if self.any || peer.is_over_tls() || matches!(peer, Peer::Unix(_)) {
            return true;
        }
        // Every browser says which.
        let Some(host) = host else { return true };
        if is_address(host) {
            return true;
        }
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let Some(name) = normal(name) else { return false };
        name == "localhost"
            || name.ends_with(".localhost")
            || self.exact.contains(&name)
            || name.split_once('.').is_some_and(|(_, parent)| self.below.iter().any(|below| below == parent))
    }
}

fn is_address(host: &str) -> bool {
    host.parse::<std::net::SocketAddr>().is_ok()
        || host.parse::<std::net::Ipv4Addr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// A name in small letters, without the dot at its end.
fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let legal = |octet: u8| octet.is_ascii_alphanumeric() || b"-._".contains(&octet);
    (!name.is_empty() && name.bytes().all(legal)).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::secure::Secure;

    #[test]
    fn addresses_localhost_and_names_of_the_configuration_are_right_and_no_others() {
        let peer = Peer::Socket("127.0.0.1:1".parse().unwrap());
        let policy = HostPolicy::new(["Broker.Example", "*.example.com"]).unwrap();
        for host in [
            "127.0.0.1",
            "127.0.0.1:8080",
            "192.0.2.1:80",
            "[::1]",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:8080",
            "localhost.:1",
            "a.localhost",
            "broker.example",
            "BROKER.example.:80",
            "a.example.com",
        ] {
            assert!(policy.allows(&peer, Some(host)), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "",
            ":80",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "notlocalhost",
            "example.com",
            "a.b.example.com",
            "broker.example:80:80",
            "a b",
            "[::1",
            "::1",
            "[evil.example]",
            "broker.example@evil.example",
            "0x7f.1",
        ] {
            assert!(!policy.allows(&peer, Some(host)), "{host}");
        }
        assert!(policy.allows(&peer, None), "no browser");
        assert!(HostPolicy::new(["*"]).unwrap().allows(&peer, Some("evil.example")));
        for wrong in ["http://a", "*.com", "a b", "", "*.", "a:80"] {
            assert_eq!(HostPolicy::new([wrong]).err(), Some(wrong));
        }
    }

    #[test]
    fn where_a_certificate_says_which_name_is_right_nobody_is_asked() {
        let address = "192.0.2.1:1".parse().unwrap();
        let peer = Peer::Secure(Arc::new(Secure { address, exporter: None, certificate: None }));
        assert!(HostPolicy::default().allows(&peer, Some("any.example")));
    }
}
